//! What can go wrong with a queue.

use core::fmt;

use crate::dma::DmaError;
use crate::transport::TransportError;

/// What can go wrong with a queue in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueueError {
    /// There are too few free descriptors now.
    Full {
        /// How many the request takes.
        needed: usize,
        /// How many are free.
        free: u16,
    },
    /// No queue of this size takes such a request: it is empty, longer than the
    /// queue (2.7.5.3.1), has a buffer of length 0, more than 4 GiB in all, or a
    /// readable buffer behind a writable one (2.7.4.2).
    Chain {
        /// How many buffers it has.
        buffers: usize,
    },
    /// The device's used index is further ahead than requests are in flight.
    UsedIndex {
        /// The index that it shows.
        index: u16,
        /// The index up to which requests were taken back.
        seen: u16,
        /// How many requests are in flight.
        in_flight: u16,
    },
    /// The device gave back a request that it does not have: an index out of
    /// range, or one that is not in flight (or no longer).
    UsedId {
        /// The index that it gave.
        id: u32,
    },
    /// The device changed a descriptor of a packed ring that it had, and did not
    /// mark it as used (2.8.1).
    UsedFlags {
        /// The descriptor's place in the ring.
        index: u16,
        /// Its flags.
        flags: u16,
    },
    /// The device says that it wrote more than was writable.
    UsedLength {
        /// What it says, in bytes.
        written: u32,
        /// How many bytes were writable.
        writable: u32,
    },
    /// The queue is not used any more after an earlier error.
    Broken,
}

impl QueueError {
    /// Whether the device broke the rules, so that it must be reset.
    pub fn is_device_fault(&self) -> bool {
        !matches!(self, Self::Full { .. } | Self::Chain { .. })
    }
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Full { needed, free } => {
                write!(
                    f,
                    "the queue is full: {needed} descriptors needed, {free} free"
                )
            }
            Self::Chain { buffers } => {
                write!(
                    f,
                    "a request of {buffers} buffers is not one that the queue takes"
                )
            }
            Self::UsedIndex {
                index,
                seen,
                in_flight,
            } => write!(
                f,
                "the device's used index is {index}, but with {in_flight} requests in flight after {seen} it cannot be"
            ),
            Self::UsedId { id } => {
                write!(
                    f,
                    "the device gave back request {id}, which it does not have"
                )
            }
            Self::UsedFlags { index, flags } => write!(
                f,
                "the device gave descriptor {index} the flags {flags:#x}, by which it is neither available nor used"
            ),
            Self::UsedLength { written, writable } => write!(
                f,
                "the device says that it wrote {written} bytes where {writable} were writable"
            ),
            Self::Broken => f.write_str("the queue was given up after an earlier error"),
        }
    }
}

impl core::error::Error for QueueError {}

/// Why a queue could not be set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetupError {
    /// The device or its interface failed a step.
    Transport(TransportError),
    /// There was no memory for the ring.
    Dma(DmaError),
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(error) => error.fmt(f),
            Self::Dma(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for SetupError {}

impl From<TransportError> for SetupError {
    fn from(error: TransportError) -> Self {
        Self::Transport(error)
    }
}

impl From<DmaError> for SetupError {
    fn from(error: DmaError) -> Self {
        Self::Dma(error)
    }
}
