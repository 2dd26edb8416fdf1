//! The machine around the CPU: its console, its memory, its ACPI tables.

pub mod acpi;
pub mod aml;
pub mod apertures;
pub mod dma;
mod fadt;
pub mod gsi;
pub mod json;
mod madt;
pub mod mapping;
pub mod memory;
pub mod routing;
pub mod serial;
pub mod virtio_mmio;
