//! doorbell
#![cfg_attr(not(any(test, feature = "test-utils")), no_std)]

#[cfg(any(test, feature = "test-utils"))]
extern crate std;

pub mod device;
pub mod dma;
pub mod mmio;
pub mod pci;
pub mod port;
pub mod queue;
pub mod transport;
pub mod virtio;
