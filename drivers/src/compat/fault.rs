//! What went wrong where upstream's interface has no room for an error.

use core::cell::UnsafeCell;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use virtio_drivers::Error;

use crate::transport::TransportError;

/// The first error of a [`Compat`](super::Compat), for whoever made it: upstream's
/// driver owns the transport, and most of the transport's methods return nothing.
///
/// It may be a `static`, so that a driver with such a transport can be kept anywhere.
#[derive(Debug, Default)]
pub struct Fault {
    state: AtomicU8,
    /// Written once, by who moved `state` from `EMPTY` to `WRITING`, and read once it
    /// is `SET`.
    error: UnsafeCell<Option<CompatError>>,
    /// The queue at whose size upstream looked last before it gave up, see
    /// [`note_queue`](Self::note_queue); 0 for none.
    looked: AtomicU64,
    kept: AtomicBool,
}

const EMPTY: u8 = 0;
const WRITING: u8 = 1;
const SET: u8 = 2;

/// Set in `Fault::looked` beside a queue's index and size, which may be 0.
const LOOKED: u64 = 1 << 32;

// SAFETY: `state` hands the cell from its one writer to its readers.
unsafe impl Sync for Fault {}

impl Fault {
    /// Nothing went wrong yet.
    pub const fn new() -> Self {
        Self {
            state: AtomicU8::new(EMPTY),
            error: UnsafeCell::new(None),
            looked: AtomicU64::new(0),
            kept: AtomicBool::new(false),
        }
    }

    /// The first error, if there was one.
    pub fn get(&self) -> Option<CompatError> {
        if self.state.load(Ordering::Acquire) != SET {
            return None;
        }
        // SAFETY: written before `state` became `SET`, and not after.
        unsafe { *self.error.get() }
    }

    /// Whether a device that was given up did not reset, so that it may still write
    /// to memory that upstream has freed.
    pub fn is_memory_kept(&self) -> bool {
        self.kept.load(Ordering::Relaxed)
    }

    /// A driver that upstream `made`, if nothing went wrong on the way: a driver whose
    /// queue the device did not get is dropped here, it would wait for ever.
    ///
    /// # Errors
    ///
    /// The first fault; [`CompatError::Upstream`] if there was none, and upstream
    /// found something itself.
    pub fn check<R>(&self, made: virtio_drivers::Result<R>) -> Result<R, CompatError> {
        let error = match (self.get(), made) {
            (Some(fault), _) => fault,
            (None, Ok(driver)) => return Ok(driver),
            // What upstream says of a queue that is too small.
            (None, Err(Error::InvalidParam)) => match self.looked.load(Ordering::Relaxed) {
                0 => CompatError::Upstream(Error::InvalidParam),
                looked => CompatError::QueueTooSmall {
                    queue: (looked >> 16) as u16,
                    size: looked as u16,
                },
            },
            (None, Err(error)) => CompatError::Upstream(error),
        };
        Err(error)
    }

    /// Keeps `error`, if it is the first.
    pub(super) fn report(&self, error: CompatError) {
        let claim = (Ordering::Acquire, Ordering::Relaxed);
        let first = self
            .state
            .compare_exchange(EMPTY, WRITING, claim.0, claim.1);
        if first.is_ok() {
            // SAFETY: nobody reads before the state is `SET`, and nobody else writes.
            unsafe { *self.error.get() = Some(error) };
            self.state.store(SET, Ordering::Release);
        }
    }

    pub(super) fn report_kept(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// Upstream looked at the size of `queue`, and then gave the device up.
    pub(super) fn note_queue(&self, queue: u16, size: u16) {
        let looked = LOOKED | u64::from(queue) << 16 | u64::from(size);
        self.looked.store(looked, Ordering::Relaxed);
    }
}

/// Why one of upstream's drivers cannot drive a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CompatError {
    /// Upstream has no name for this type of device.
    DeviceType {
        /// The virtio device type.
        device_type: u16,
    },
    /// The device fixes a queue's size, and upstream's driver has another.
    FixedSize {
        /// The queue's index.
        queue: u16,
        /// The device's size.
        fixed: u16,
        /// Upstream's size.
        wanted: u32,
    },
    /// Upstream's driver has a larger queue than the device allows.
    QueueTooSmall {
        /// The queue's index.
        queue: u16,
        /// The largest that the device allows.
        size: u16,
    },
    /// There is no room for the doorbell of a queue with this index.
    TooManyQueues {
        /// The queue's index.
        queue: u16,
    },
    /// Upstream did not lay a ring out as the legacy interface wants it (2.7.2).
    Layout {
        /// The queue's index.
        queue: u16,
    },
    /// The device or its interface failed.
    Transport(TransportError),
    /// What upstream's driver says itself.
    Upstream(Error),
}

impl fmt::Display for CompatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::DeviceType { device_type } => {
                write!(f, "virtio-drivers knows no device type {device_type}")
            }
            Self::FixedSize {
                queue,
                fixed,
                wanted,
            } => write!(
                f,
                "queue {queue} has a fixed size of {fixed}, and virtio-drivers wants {wanted}: drive this device by its modern interface"
            ),
            Self::QueueTooSmall { queue, size } => write!(
                f,
                "queue {queue} has at most {size} descriptors, fewer than virtio-drivers wants"
            ),
            Self::TooManyQueues { queue } => write!(
                f,
                "queue {queue} is one too many: a driver of virtio-drivers has up to {} here",
                super::QUEUES
            ),
            Self::Layout { queue } => write!(
                f,
                "virtio-drivers did not lay queue {queue} out as a legacy device wants it"
            ),
            Self::Transport(error) => error.fmt(f),
            Self::Upstream(error) => write!(f, "virtio-drivers says: {error}"),
        }
    }
}

impl core::error::Error for CompatError {}

impl From<TransportError> for CompatError {
    fn from(error: TransportError) -> Self {
        Self::Transport(error)
    }
}
