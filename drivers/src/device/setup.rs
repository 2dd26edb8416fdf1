//! How a driver sets its device up: what is common to all kinds.

use crate::virtio::Features;

/// How a driver sets its device up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// How many descriptors a queue gets, or the nearest to it that the device
    /// allows. A legacy device fixes the size of each queue.
    pub queue_size: u16,
    /// How many request queues, or pairs of queues, are used at the most, where a
    /// device can have several. Of a console it counts ports, and more than one asks for
    /// VIRTIO_CONSOLE_F_MULTIPORT.
    pub queues: u16,
    /// The generic features that are accepted, where they are offered. A driver
    /// adds what it knows of its own kind of device.
    pub features: Features,
    /// By which MSI-X vectors the device interrupts.
    pub vectors: Vectors,
}

impl Setup {
    /// Queues of about `queue_size` descriptors, one where there could be several,
    /// and no vectors.
    pub fn new(queue_size: u16, features: Features) -> Self {
        Self {
            queue_size,
            queues: 1,
            features,
            vectors: Vectors::None,
        }
    }
}

/// By which MSI-X vectors a device interrupts (virtio 1.2, 4.1.5.1.2): entries of
/// its MSI-X table, numbered from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vectors {
    /// By none: the device is polled, or interrupts by its line (INTx, or
    /// virtio-mmio's).
    None,
    /// By one for everything.
    Shared(u16),
    /// By one for configuration changes, and for queue n by `first + n`. With
    /// more queues than `count` they are used in turn.
    PerQueue {
        /// That of configuration changes.
        config: u16,
        /// That of queue 0.
        first: u16,
        /// How many there are for queues, at least 1.
        count: u16,
    },
}

impl Vectors {
    /// That of configuration changes.
    pub(super) fn config(self) -> Option<u16> {
        match self {
            Self::None => None,
            Self::Shared(vector) => Some(vector),
            Self::PerQueue { config, .. } => Some(config),
        }
    }

    /// That of queue `index`.
    pub(super) fn queue(self, index: u16) -> Option<u16> {
        match self {
            Self::None => None,
            Self::Shared(vector) => Some(vector),
            Self::PerQueue { first, count, .. } => Some(first.saturating_add(index % count.max(1))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_take_turns_with_the_vectors_that_there_are() {
        let vectors = Vectors::PerQueue {
            config: 0,
            first: 1,
            count: 2,
        };
        let of_queues = [0, 1, 2, 3].map(|index| vectors.queue(index));
        assert_eq!(of_queues, [Some(1), Some(2), Some(1), Some(2)]);
        assert_eq!(vectors.config(), Some(0));
        assert_eq!(Vectors::Shared(3).queue(7), Some(3));
        assert_eq!(
            (Vectors::None.queue(0), Vectors::None.config()),
            (None, None)
        );
    }
}
