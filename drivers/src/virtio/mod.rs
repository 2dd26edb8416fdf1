//! What all virtio devices have in common: features, the way up to DRIVER_OK,
//! and waiting that ends.

mod features;
mod init;
mod wait;

pub use features::Features;
#[cfg(feature = "virtio-drivers")]
pub(crate) use init::RESET_POLLS;
pub use init::{Init, InitError};
pub(crate) use init::{give_up, retire};
pub use wait::{Polls, Wait};
