//! What a doorbell costs.
//!
//! [`harness`] times, [`histogram`] collects, and the cases are what is timed:
//! [`baseline`] the instrument itself, [`testdev`] QEMU's test device, [`path`] a
//! virtio device over one of its interfaces, [`latency`] one that interrupts. All
//! cases take turns in rounds, so
//! that drift hits them alike; figures are compared within a run.

pub mod baseline;
pub mod harness;
pub mod histogram;
pub mod latency;
pub mod path;
pub mod testdev;

pub use harness::{Case, Series, Timer};
