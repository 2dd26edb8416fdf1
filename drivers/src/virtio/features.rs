//! Feature bits (virtio 1.2, 2.2 and 6).

use core::fmt;
use core::ops::{BitAnd, BitOr};

use virtio_spec::{F, FeatureBits, balloon, blk, console, le128, net, vsock};

/// A set of feature bits, 0 to 63: all that an interface of virtio 1.2 has room
/// for, device type specific ones included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(u64);

impl Features {
    /// No feature.
    pub const NONE: Self = Self(0);
    /// `VIRTIO_F_INDIRECT_DESC`: descriptors that point to tables of descriptors.
    pub const INDIRECT_DESC: Self = Self(1 << 28);
    /// `VIRTIO_F_EVENT_IDX`: `used_event` and `avail_event`.
    pub const EVENT_IDX: Self = Self(1 << 29);
    /// `VIRTIO_F_VERSION_1`: not a legacy device.
    pub const VERSION_1: Self = Self(1 << 32);
    /// `VIRTIO_F_ACCESS_PLATFORM`: device addresses are the platform's affair.
    pub const ACCESS_PLATFORM: Self = Self(1 << 33);

    /// The set with these bits.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The set's bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether all of `other` are in the set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Those of the set that are not in `other`.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Both sets together.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The numbers of the set's bits, in ascending order.
    pub fn iter(self) -> impl Iterator<Item = u32> {
        (0..u64::BITS).filter(move |bit| self.0 & 1 << bit != 0)
    }

    /// The specification's name of a feature bit of a device of type
    /// `device_type`, in two parts: `("VIRTIO_BLK_F_", "FLUSH")`. `None` for a
    /// reserved bit, and for those of types that have no definitions here.
    pub fn name(bit: u32, device_type: u16) -> Option<(&'static str, &'static str)> {
        let bits = le128::from(1u128.checked_shl(bit)?);
        fn first<B: FeatureBits>(bits: le128) -> Option<&'static str> {
            B::from_bits_retain(bits)
                .iter_names()
                .next()
                .map(|(name, _)| name)
        }
        let own = match device_type {
            1 => first::<net::F>(bits).map(|name| ("VIRTIO_NET_F_", name)),
            2 => first::<blk::F>(bits).map(|name| ("VIRTIO_BLK_F_", name)),
            3 => first::<console::F>(bits).map(|name| ("VIRTIO_CONSOLE_F_", name)),
            5 => first::<balloon::F>(bits).map(|name| ("VIRTIO_BALLOON_F_", name)),
            19 => first::<vsock::F>(bits).map(|name| ("VIRTIO_VSOCK_F_", name)),
            _ => None,
        };
        // The device types' definitions hold the generic bits too.
        first::<F>(bits).map(|name| ("VIRTIO_F_", name)).or(own)
    }
}

impl<B: FeatureBits> From<B> for Features {
    fn from(features: B) -> Self {
        let features: F = features.into();
        // Bits above 63 cannot be negotiated over these interfaces.
        Self(u128::from(features.bits()) as u64)
    }
}

impl BitAnd for Features {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl BitOr for Features {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

/// The bits as one hexadecimal number.
impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_constants_are_the_specifications() {
        for (ours, theirs) in [
            (Features::INDIRECT_DESC, F::INDIRECT_DESC),
            (Features::EVENT_IDX, F::EVENT_IDX),
            (Features::VERSION_1, F::VERSION_1),
            (Features::ACCESS_PLATFORM, F::ACCESS_PLATFORM),
        ] {
            assert_eq!(ours, Features::from(theirs));
        }
    }

    #[test]
    fn bits_have_names() {
        assert_eq!(Features::name(32, 4), Some(("VIRTIO_F_", "VERSION_1")));
        assert_eq!(Features::name(9, 2), Some(("VIRTIO_BLK_F_", "FLUSH")));
        assert_eq!(Features::name(5, 1), Some(("VIRTIO_NET_F_", "MAC")));
        assert_eq!(Features::name(9, 4), None);
        assert_eq!(Features::name(200, 2), None);
        let set = Features::VERSION_1 | Features::EVENT_IDX;
        assert_eq!(set.iter().collect::<std::vec::Vec<_>>(), [29, 32]);
    }
}
