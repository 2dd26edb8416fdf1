//! Ranges of addresses, and sizes in words.

use core::fmt;

/// A range of bus addresses, memory or IO. It holds at least one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressRange {
    /// The lowest address.
    pub first: u64,
    /// The highest address: a range may end with the last there is.
    pub last: u64,
}

impl AddressRange {
    /// The range from `first` to `last`, both included; `None` if they are not
    /// in order.
    pub const fn new(first: u64, last: u64) -> Option<Self> {
        if first <= last {
            Some(Self { first, last })
        } else {
            None
        }
    }

    /// The range of `size` addresses from `first`; `None` if there are none, or
    /// they pass the end of the address space.
    pub const fn sized(first: u64, size: u64) -> Option<Self> {
        if size == 0 {
            return None;
        }
        match first.checked_add(size - 1) {
            Some(last) => Some(Self { first, last }),
            None => None,
        }
    }

    /// The number of addresses (bytes or ports), or `u64::MAX` if it is one more
    /// than that.
    pub const fn size(&self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }

    /// Whether all of `other` is inside.
    pub const fn contains(&self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// Whether they share an address.
    pub const fn overlaps(&self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}-{:#x}", self.first, self.last)
    }
}

/// A number of bytes that displays in the largest unit that divides it:
/// `32 bytes`, `4 KiB`, `8 GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 7] = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let unit = if self.0 == 0 {
            0
        } else {
            self.0.trailing_zeros() / 10
        };
        write!(f, "{} {}", self.0 >> (unit * 10), UNITS[unit as usize])
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn sizes_are_said_in_their_unit() {
        let said = |bytes| Bytes(bytes).to_string();
        assert_eq!(said(0), "0 bytes");
        assert_eq!(said(32), "32 bytes");
        assert_eq!(said(4096), "4 KiB");
        assert_eq!(said(0x110_0000), "17 MiB");
        assert_eq!(said(8 << 30), "8 GiB");
        assert_eq!(said(1 << 63), "8 EiB");
    }

    #[test]
    fn a_range_may_end_with_the_last_address() {
        let top = AddressRange::sized(u64::MAX - 0xfff, 0x1000).unwrap();
        assert_eq!(top.last, u64::MAX);
        assert_eq!(top.size(), 0x1000);
        assert!(AddressRange::sized(u64::MAX - 0xfff, 0x1001).is_none());
        assert!(AddressRange::sized(5, 0).is_none());
        assert!(AddressRange::new(2, 1).is_none());
    }
}
