//! What is free of an address space.

use crate::pci::range::AddressRange;

/// Free ranges, in ascending order and apart.
///
/// It holds so many that an ordinary machine fills a fraction of it. Where there
/// are more the smallest are forgotten: then something may get no address that
/// could have had one, never an address that is taken.
#[derive(Clone, Debug)]
pub(crate) struct FreeList {
    ranges: [AddressRange; Self::CAPACITY],
    len: usize,
}

impl FreeList {
    const CAPACITY: usize = 48;

    /// Nothing is free.
    pub(crate) const fn new() -> Self {
        Self {
            ranges: [AddressRange { first: 0, last: 0 }; Self::CAPACITY],
            len: 0,
        }
    }

    /// These are free. A range that overlaps an earlier one is left out.
    pub(crate) fn of<'r>(ranges: impl IntoIterator<Item = &'r AddressRange>) -> Self {
        let mut list = Self::new();
        for range in ranges {
            if list.ranges().iter().all(|free| !free.overlaps(*range)) {
                list.insert(*range);
            }
        }
        list
    }

    fn ranges(&self) -> &[AddressRange] {
        &self.ranges[..self.len]
    }

    fn insert(&mut self, range: AddressRange) {
        if self.len == Self::CAPACITY {
            let sizes = self
                .ranges()
                .iter()
                .enumerate()
                .map(|(index, free)| (free.size(), index));
            let (size, smallest) = sizes.min().unwrap_or((0, 0));
            if range.size() <= size {
                return;
            }
            self.remove(smallest);
        }
        let place = self
            .ranges()
            .partition_point(|free| free.first < range.first);
        self.ranges.copy_within(place..self.len, place + 1);
        self.ranges[place] = range;
        self.len += 1;
    }

    fn remove(&mut self, index: usize) {
        self.ranges.copy_within(index + 1..self.len, index);
        self.len -= 1;
    }

    /// Takes `taken`, which is inside the range at `index`, out of it.
    fn carve(&mut self, index: usize, taken: AddressRange) {
        let whole = self.ranges[index];
        self.remove(index);
        if whole.first < taken.first {
            self.insert(AddressRange {
                first: whole.first,
                last: taken.first - 1,
            });
        }
        if taken.last < whole.last {
            self.insert(AddressRange {
                first: taken.last + 1,
                last: whole.last,
            });
        }
    }

    /// Takes a range out, if all of it is free.
    pub(crate) fn take(&mut self, range: AddressRange) -> bool {
        let found = self.ranges().iter().position(|free| free.contains(range));
        if let Some(index) = found {
            self.carve(index, range);
        }
        found.is_some()
    }

    /// Takes the lowest `size` addresses out that begin at a multiple of `align`
    /// (a power of two) and do not pass `limit`. Address 0 is never given out: a BAR
    /// that holds it counts as unset. On a PC nothing of PCI's is there, but elsewhere
    /// IO space begins with it.
    pub(crate) fn allocate(&mut self, size: u64, align: u64, limit: u64) -> Option<u64> {
        let fit = |free: &AddressRange| {
            let first = free.first.max(1).checked_next_multiple_of(align)?;
            let range = AddressRange::sized(first, size)?;
            (range.last <= free.last.min(limit)).then_some(range)
        };
        let mut found = self.ranges().iter().enumerate();
        let (index, range) = found.find_map(|(index, free)| Some((index, fit(free)?)))?;
        self.carve(index, range);
        Some(range.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, last: u64) -> AddressRange {
        AddressRange::new(first, last).unwrap()
    }

    #[test]
    fn address_0_is_given_to_nobody() {
        let mut list = FreeList::of(&[range(0, 0xff)]);
        assert_eq!(list.allocate(0x20, 0x20, !0), Some(0x20));
        assert!(list.take(range(0, 0x1f)), "a bridge may have it");
    }

    #[test]
    fn the_lowest_place_that_fits() {
        let mut list = FreeList::of(&[range(0x1010, 0x10ff), range(0x2000, 0x2fff)]);
        assert_eq!(list.allocate(0x100, 0x100, !0), Some(0x2000));
        assert_eq!(list.allocate(0x20, 0x20, !0), Some(0x1020));
        assert_eq!(
            list.allocate(0x10, 0x10, !0),
            Some(0x1010),
            "the gap before"
        );
        assert_eq!(
            list.allocate(0xf00, 0x100, 0x2ffe),
            None,
            "one beyond the limit"
        );
        assert_eq!(list.allocate(0xf00, 0x100, 0x2fff), Some(0x2100));
        assert_eq!(list.allocate(0xc0, 1, !0), Some(0x1040));
        assert_eq!(list.allocate(1, 1, !0), None);
    }

    #[test]
    fn only_what_is_wholly_free_can_be_taken() {
        let mut list = FreeList::of(&[range(0x1000, 0x1fff)]);
        assert!(list.take(range(0x1100, 0x11ff)));
        assert!(!list.take(range(0x1000, 0x1100)));
        assert!(!list.take(range(0x1f00, 0x2000)));
        assert!(list.take(range(0x1000, 0x10ff)));
        assert_eq!(list.ranges(), [range(0x1200, 0x1fff)]);
    }

    #[test]
    fn the_end_of_the_address_space() {
        let mut list = FreeList::of(&[range(u64::MAX - 0xffff, u64::MAX)]);
        assert_eq!(list.allocate(0x1_0001, 1, !0), None);
        assert_eq!(
            list.allocate(0x1_0000, 0x1_0000, !0),
            Some(u64::MAX - 0xffff)
        );
        let mut list = FreeList::of(&[range(u64::MAX - 5, u64::MAX)]);
        assert_eq!(list.allocate(1, 1 << 63, !0), None);
    }

    #[test]
    fn overlapping_apertures_are_not_given_twice() {
        let mut list = FreeList::of(&[range(0x1000, 0x1fff), range(0x1800, 0x27ff)]);
        assert_eq!(list.allocate(0x1000, 1, !0), Some(0x1000));
        assert_eq!(list.allocate(1, 1, !0), None);
    }

    #[test]
    fn too_many_ranges_forget_the_smallest() {
        let mut list = FreeList::of(&[range(0, 0xffff)]);
        for index in 1..=60 {
            assert!(list.take(AddressRange::sized(index * 0x100 + index, 1).unwrap()));
        }
        assert_eq!(list.len, FreeList::CAPACITY);
        assert!(list.ranges().is_sorted());
        assert!(
            list.take(range(0xf000, 0xffff)),
            "the largest is still there"
        );
    }
}
