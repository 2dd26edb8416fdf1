//! Samples, and their percentiles.

use crate::ROUNDS;
use crate::clock::SAMPLES;

const CAPACITY: usize = ROUNDS * SAMPLES;

/// Samples in the order in which they came.
#[derive(Clone)]
pub(crate) struct Samples {
    values: [u64; CAPACITY],
    len: usize,
}

impl Default for Samples {
    fn default() -> Self {
        Self {
            values: [0; CAPACITY],
            len: 0,
        }
    }
}

impl Samples {
    /// Adds one. There is room for all that [`ROUNDS`] rounds take.
    pub(crate) fn record(&mut self, value: u64) {
        self.values[self.len] = value;
        self.len += 1;
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn sorted(&self) -> Sorted {
        let mut samples = self.clone();
        samples.values[..samples.len].sort_unstable();
        Sorted(samples)
    }
}

/// Samples in ascending order.
pub(crate) struct Sorted(Samples);

impl Sorted {
    /// The sample below or at which so many thousandths are; 0 without samples.
    pub(crate) fn permille(&self, thousandths: usize) -> u64 {
        let last = self.0.len.saturating_sub(1);
        let rank = (self.0.len * thousandths).div_ceil(1000).saturating_sub(1);
        self.0.values[rank.min(last)]
    }

    pub(crate) fn mean(&self) -> u64 {
        let sum: u64 = self.0.values[..self.0.len].iter().sum();
        sum / self.0.len.max(1) as u64
    }
}
