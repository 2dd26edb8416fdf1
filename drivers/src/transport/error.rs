//! What can go wrong with a transport.

use core::fmt;

use crate::mmio::MapError;
use crate::virtio::Features;

/// What can go wrong between a driver and its device's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransportError {
    /// The device's status did not become 0 after a reset.
    ResetTimeout {
        /// The status last read.
        status: u8,
    },
    /// Nothing answers where the device was: it was unplugged, or no longer decodes
    /// its addresses.
    Gone,
    /// A device behind a modern interface does not offer VIRTIO_F_VERSION_1.
    NoVersion1 {
        /// The features that it offers and the driver would accept.
        features: Features,
    },
    /// The device did not keep FEATURES_OK.
    FeaturesRefused {
        /// The features that the driver accepted.
        features: Features,
    },
    /// The interface has no bits for these features.
    FeaturesTooWide {
        /// The features that the driver accepted.
        features: Features,
    },
    /// The device has no such queue.
    NoQueue {
        /// The queue's index.
        queue: u16,
    },
    /// The queue is already in use.
    QueueInUse {
        /// The queue's index.
        queue: u16,
    },
    /// The queue cannot have this size.
    QueueSize {
        /// The queue's index.
        queue: u16,
        /// The size that was announced or asked for.
        size: u16,
    },
    /// The interface cannot express where the ring is.
    RingAddress {
        /// The queue's index.
        queue: u16,
        /// The address of its descriptor table.
        address: u64,
    },
    /// The device did not enable the queue, though it was told where it is: its
    /// memory is free again only after a reset.
    QueueRefused {
        /// The queue's index.
        queue: u16,
    },
    /// The interface has no way to reset one queue, or the device does not follow
    /// it: the queue is still the device's.
    NoQueueReset {
        /// The queue's index.
        queue: u16,
    },
    /// The device did not let go of a queue that was reset.
    QueueResetTimeout {
        /// The queue's index.
        queue: u16,
    },
    /// The interface has no interrupt vectors, or not while MSI-X is disabled.
    NoVectors,
    /// The device did not take an interrupt vector.
    VectorRefused {
        /// The vector.
        vector: u16,
    },
    /// A legacy interface has no packed rings.
    NoPackedRing,
    /// A queue's doorbell lies outside the notification structure.
    DoorbellRange {
        /// The queue's index.
        queue: u16,
        /// Offset of its doorbell in the structure.
        offset: u64,
        /// The structure's length in bytes.
        len: u64,
    },
    /// The configuration window rings one doorbell, and another queue has it.
    WindowTaken {
        /// The queue's index.
        queue: u16,
    },
    /// The way to configuration space hands out no notifiers.
    NoWindow {
        /// The queue's index.
        queue: u16,
    },
    /// The device's configuration is shorter than what was read.
    ConfigRange {
        /// Where the read began.
        offset: u16,
        /// How many bytes it wanted.
        len: usize,
        /// How many bytes there are.
        available: usize,
    },
    /// The configuration changed again and again while it was read.
    ConfigUnstable {
        /// Where the read began.
        offset: u16,
    },
    /// Device memory could not be mapped.
    Map(MapError),
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ResetTimeout { status } => {
                write!(
                    f,
                    "the device did not reset: its status stays {status:#04x}"
                )
            }
            Self::Gone => {
                f.write_str("the device does not answer: it is unplugged or switched off")
            }
            Self::NoVersion1 { features } => write!(
                f,
                "the device does not offer VIRTIO_F_VERSION_1, only {features} of what the driver wants"
            ),
            Self::FeaturesRefused { features } => {
                write!(f, "the device refused the features {features}")
            }
            Self::FeaturesTooWide { features } => {
                write!(
                    f,
                    "this interface cannot accept the features {features}: it has 32 bits"
                )
            }
            Self::NoQueue { queue } => write!(f, "the device has no queue {queue}"),
            Self::QueueInUse { queue } => write!(f, "queue {queue} is already in use"),
            Self::QueueSize { queue, size } => {
                write!(
                    f,
                    "queue {queue} cannot have the size {size}: a split ring's is a power of two up to 32768 that the device allows"
                )
            }
            Self::RingAddress { queue, address } => {
                write!(
                    f,
                    "the interface cannot express the address {address:#x} of queue {queue}"
                )
            }
            Self::QueueRefused { queue } => write!(f, "the device did not enable queue {queue}"),
            Self::NoQueueReset { queue } => {
                write!(
                    f,
                    "queue {queue} cannot be reset by itself through this interface"
                )
            }
            Self::QueueResetTimeout { queue } => {
                write!(f, "the device does not let go of queue {queue}")
            }
            Self::NoVectors => {
                f.write_str("there are no interrupt vectors: MSI-X is disabled or not there")
            }
            Self::VectorRefused { vector } => {
                write!(f, "the device refused interrupt vector {vector}")
            }
            Self::NoPackedRing => f.write_str("a legacy interface has no packed rings"),
            Self::DoorbellRange { queue, offset, len } => write!(
                f,
                "the doorbell of queue {queue} is at {offset:#x}, outside the notification structure of {len:#x} bytes"
            ),
            Self::NoWindow { queue } => write!(
                f,
                "the way to configuration space cannot ring queue {queue}"
            ),
            Self::WindowTaken { queue } => write!(
                f,
                "the configuration window rings one doorbell, and it is not that of queue {queue}"
            ),
            Self::ConfigRange {
                offset,
                len,
                available,
            } => write!(
                f,
                "the device's configuration has {available} bytes, too few for {len} at {offset:#x}"
            ),
            Self::ConfigUnstable { offset } => {
                write!(
                    f,
                    "the device's configuration at {offset:#x} does not stop changing"
                )
            }
            Self::Map(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for TransportError {}

impl From<MapError> for TransportError {
    fn from(error: MapError) -> Self {
        Self::Map(error)
    }
}
