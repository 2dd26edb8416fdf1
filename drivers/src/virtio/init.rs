//! The way from a reset device to DRIVER_OK (virtio 1.2, 3.1.1).

use core::fmt;

use virtio_spec::DeviceStatus;

use super::{Features, Polls, Wait};
use crate::transport::{RingLayout, Transport, TransportError};

/// A device on its way up. Dropped before [`finish`](Self::finish), it leaves the
/// device reset and marked FAILED, so that whoever looks sees a driver that gave
/// up.
#[derive(Debug)]
pub struct Init<T: Transport> {
    /// `None` only once `finish` has taken it.
    transport: Option<T>,
    features: Features,
}

impl<T: Transport> Init<T> {
    /// Resets the device, says that there is a driver for it, and negotiates
    /// features: those of `wanted` that the device offers, and
    /// `VIRTIO_F_VERSION_1` where it is offered, as each driver must (6.1). Packed
    /// rings are not to be had over a legacy interface, whatever is offered.
    ///
    /// # Errors
    ///
    /// [`InitError::MissingFeatures`] if the device does not offer all of
    /// `required`; [`InitError::Transport`] if it does not reset, or does not
    /// accept the features.
    pub fn begin(
        transport: T,
        wanted: Features,
        required: Features,
        wait: &mut dyn Wait,
    ) -> Result<Self, InitError> {
        Self::negotiate(transport, |_| wanted, required, wait)
    }

    /// As [`begin`](Self::begin), where some features may be accepted only with
    /// others (2.2.1): `wanted` gets what the device offers.
    ///
    /// # Errors
    ///
    /// As [`begin`](Self::begin).
    pub fn negotiate(
        transport: T,
        wanted: impl FnOnce(Features) -> Features,
        required: Features,
        wait: &mut dyn Wait,
    ) -> Result<Self, InitError> {
        let mut init = Self {
            transport: Some(transport),
            features: Features::empty(),
        };
        let transport = init.transport();
        transport.reset(wait)?;
        transport.set_status(DeviceStatus::ACKNOWLEDGE);
        transport.set_status(transport.status() | DeviceStatus::DRIVER);
        let mut offered = transport.device_features();
        // What a legacy interface takes for a ring has no packed form.
        if transport.ring_layout() != RingLayout::Separate {
            offered.remove(Features::RING_PACKED);
        }
        if !offered.contains(required) {
            return Err(InitError::MissingFeatures {
                missing: required.difference(offered),
            });
        }
        let features = offered & (wanted(offered) | required | Features::VERSION_1);
        transport.accept_features(features)?;
        init.features = features;
        Ok(init)
    }

    /// The negotiated features.
    pub fn features(&self) -> Features {
        self.features
    }

    /// The transport, to set up queues and read the configuration.
    pub fn transport(&mut self) -> &mut T {
        self.transport.as_mut().expect("taken by who consumes self")
    }

    /// Resets the device and marks it FAILED, as dropping this does; whether it did
    /// reset, so that memory shared with it may be used again, is the answer.
    pub(crate) fn abort(mut self) -> bool {
        let mut transport = self.transport.take().expect("taken by who consumes self");
        give_up(&mut transport)
    }

    /// Sets DRIVER_OK: the device is live from here on.
    pub fn finish(mut self) -> T {
        let mut transport = self.transport.take().expect("taken by who consumes self");
        transport.set_status(transport.status() | DeviceStatus::DRIVER_OK);
        transport
    }
}

impl<T: Transport> Drop for Init<T> {
    fn drop(&mut self) {
        if let Some(transport) = &mut self.transport {
            give_up(transport);
        }
    }
}

/// Looks at the status that a reset gets where no caller can be asked for a
/// [`Wait`].
pub(crate) const RESET_POLLS: Polls = Polls(100_000);

/// Resets the device and marks it FAILED. Whether it did reset, so that memory
/// shared with it may be used again, is the answer.
pub(crate) fn give_up<T: Transport + ?Sized>(transport: &mut T) -> bool {
    let reset = transport.reset(&mut { RESET_POLLS }).is_ok();
    transport.set_status(transport.status() | DeviceStatus::FAILED);
    reset
}

/// Resets the device, which nobody needs any more. The answer is as
/// [`give_up`]'s.
pub(crate) fn retire<T: Transport + ?Sized>(transport: &mut T) -> bool {
    transport.reset(&mut { RESET_POLLS }).is_ok()
}

/// Why a device did not come up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InitError {
    /// The device lacks features that the driver cannot do without.
    MissingFeatures {
        /// Those features.
        missing: Features,
    },
    /// The device or its interface failed a step.
    Transport(TransportError),
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingFeatures { missing } => {
                write!(f, "the device does not offer the features {missing}")
            }
            Self::Transport(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for InitError {}

impl From<TransportError> for InitError {
    fn from(error: TransportError) -> Self {
        Self::Transport(error)
    }
}

#[cfg(test)]
mod tests;
