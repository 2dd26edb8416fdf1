//! Feature bits (virtio 1.2, 2.2 and 6).

use core::fmt;

use bitflags::bitflags;
use virtio_spec::{F, FeatureBits, balloon, blk, console, le128, net, vsock};

bitflags! {
    /// A set of feature bits, 0 to 63: all that an interface of virtio 1.2 has
    /// room for. Those that a transport or a queue looks at have names here;
    /// device types' own come from `virtio-spec`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Features: u64 {
        /// `VIRTIO_F_ANY_LAYOUT`, of legacy interfaces only (6.3): requests may be
        /// cut into buffers in any way.
        const ANY_LAYOUT = 1 << 27;
        /// `VIRTIO_F_INDIRECT_DESC`: descriptors that point to tables of
        /// descriptors.
        const INDIRECT_DESC = 1 << 28;
        /// `VIRTIO_F_EVENT_IDX`: `used_event` and `avail_event`.
        const EVENT_IDX = 1 << 29;
        /// `VIRTIO_F_VERSION_1`: not a legacy device.
        const VERSION_1 = 1 << 32;
        /// `VIRTIO_F_ACCESS_PLATFORM`: device addresses are the platform's
        /// affair.
        const ACCESS_PLATFORM = 1 << 33;
        /// `VIRTIO_F_RING_PACKED`: packed rings instead of split ones.
        const RING_PACKED = 1 << 34;
        /// `VIRTIO_F_RING_RESET`: a queue can be reset by itself.
        const RING_RESET = 1 << 40;
        const _ = !0;
    }
}

impl Features {
    /// The numbers of the set's bits, in ascending order.
    pub fn numbers(self) -> impl Iterator<Item = u32> {
        (0..u64::BITS).filter(move |bit| self.bits() & 1 << bit != 0)
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
        // The device types' definitions hold the generic bits too, and none has the
        // legacy interface's.
        let generic = first::<F>(bits).map(|name| ("VIRTIO_F_", name)).or(own);
        let legacy = 1u64.checked_shl(bit) == Some(Self::ANY_LAYOUT.bits());
        generic.or(legacy.then_some(("VIRTIO_F_", "ANY_LAYOUT")))
    }
}

impl<B: FeatureBits> From<B> for Features {
    fn from(features: B) -> Self {
        let features: F = features.into();
        // Bits above 63 cannot be negotiated over these interfaces.
        Self::from_bits_retain(u128::from(features.bits()) as u64)
    }
}

/// The bits as one hexadecimal number.
impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.bits())
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
            (Features::RING_PACKED, F::RING_PACKED),
            (Features::RING_RESET, F::RING_RESET),
        ] {
            assert_eq!(ours, Features::from(theirs));
        }
    }

    #[test]
    fn bits_have_names() {
        assert_eq!(Features::name(32, 4), Some(("VIRTIO_F_", "VERSION_1")));
        assert_eq!(Features::name(9, 2), Some(("VIRTIO_BLK_F_", "FLUSH")));
        assert_eq!(Features::name(5, 1), Some(("VIRTIO_NET_F_", "MAC")));
        assert_eq!(Features::name(27, 1), Some(("VIRTIO_F_", "ANY_LAYOUT")));
        assert_eq!(Features::name(9, 4), None);
        assert_eq!(Features::name(200, 2), None);
        let set = Features::VERSION_1 | Features::EVENT_IDX;
        assert_eq!(set.numbers().collect::<std::vec::Vec<_>>(), [29, 32]);
    }
}
