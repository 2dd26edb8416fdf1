//! A log-linear histogram: recording is a few instructions and takes no memory,
//! whatever the values' range.

use alloc::boxed::Box;
use alloc::vec;

/// Each power of two is divided into this many buckets, so a bucket is at most
/// 1/256 (0.4 %) of its value wide. Values below are exact.
const SUB_BUCKETS: usize = 256;
const SUB_BITS: u32 = SUB_BUCKETS.ilog2();

/// Values from here on share the last bucket; `max` still tells the largest.
const LIMIT_BITS: u32 = 42;
const BUCKETS: usize = (LIMIT_BITS - SUB_BITS + 1) as usize * SUB_BUCKETS;

/// A distribution of values, in a unit of the caller's.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Box<[u32]>,
    samples: u64,
    sum: u64,
    min: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// What one takes on the heap.
    pub const BYTES: usize = BUCKETS * size_of::<u32>();

    /// An empty histogram.
    pub fn new() -> Self {
        let counts = vec![0; BUCKETS].into_boxed_slice();
        Self {
            counts,
            samples: 0,
            sum: 0,
            min: u64::MAX,
            max: 0,
        }
    }

    /// Adds a value.
    pub fn record(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
        self.samples += 1;
        self.sum = self.sum.saturating_add(value);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    /// How many values were added.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// The smallest value, exactly; 0 without values.
    pub fn min(&self) -> u64 {
        if self.samples == 0 { 0 } else { self.min }
    }

    /// The largest value, exactly; 0 without values.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The mean, exact but for rounding down; 0 without values.
    pub fn mean(&self) -> u64 {
        self.sum.checked_div(self.samples).unwrap_or(0)
    }

    /// The value that `permille` thousandths of all values do not exceed, within
    /// its bucket's width; 0 without values.
    pub fn permille(&self, permille: u64) -> u64 {
        let rank = (self.samples * permille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (bucket, &count) in self.counts.iter().enumerate() {
            seen += u64::from(count);
            if seen >= rank {
                return middle(bucket).clamp(self.min, self.max);
            }
        }
        self.max
    }
}

/// The bucket of a value.
fn bucket(value: u64) -> usize {
    let value = value.min((1 << LIMIT_BITS) - 1);
    if value < SUB_BUCKETS as u64 {
        return value as usize;
    }
    // The top SUB_BITS + 1 bits choose the bucket.
    let shift = value.ilog2() - SUB_BITS;
    (shift as usize + 1) * SUB_BUCKETS + ((value >> shift) as usize - SUB_BUCKETS)
}

/// The middle of a bucket's values.
fn middle(bucket: usize) -> u64 {
    if bucket < SUB_BUCKETS {
        return bucket as u64;
    }
    let shift = bucket / SUB_BUCKETS - 1;
    let low = ((SUB_BUCKETS + bucket % SUB_BUCKETS) as u64) << shift;
    low + ((1 << shift) >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buckets_middle_is_in_the_bucket_and_near_its_values() {
        for value in (0..40).flat_map(|bits| [1 << bits, (1 << bits) + 1, (3 << bits) / 2]) {
            let middle = middle(bucket(value));
            assert_eq!(bucket(middle), bucket(value), "{value}");
            assert!(
                middle.abs_diff(value) * 256 <= value,
                "{value} became {middle}"
            );
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_of_a_known_distribution() {
        let mut histogram = Histogram::new();
        for value in 1..=1000 {
            histogram.record(value * 10);
        }
        assert_eq!((histogram.min(), histogram.max()), (10, 10_000));
        assert_eq!(histogram.mean(), 5005);
        for (permille, exact) in [(500, 5000), (900, 9000), (990, 9900), (999, 9990)] {
            let found = histogram.permille(permille);
            assert!(
                found.abs_diff(exact) * 50 <= exact,
                "p{permille}: {found}, not {exact}"
            );
        }
        assert_eq!(histogram.permille(1000), 10_000);
    }

    #[test]
    fn an_empty_histogram_has_no_figures() {
        let histogram = Histogram::new();
        let figures = [
            histogram.min(),
            histogram.max(),
            histogram.mean(),
            histogram.permille(500),
        ];
        assert_eq!(figures, [0; 4]);
    }

    #[test]
    fn one_value_is_every_percentile() {
        let mut histogram = Histogram::new();
        histogram.record(12_345);
        assert_eq!(
            [1, 500, 999].map(|permille| histogram.permille(permille)),
            [12_345; 3]
        );
    }
}
