//! Virtio drivers for kernels that bring their own memory: block, network, console,
//! entropy and balloon devices over PCI (its legacy IO BAR, and the interface of
//! virtio 1.0 and later) and over virtio-mmio, with the PCI discovery and resource
//! assignment that it takes to get there.
//!
//! The crate is `no_std`, has no statics, and needs no allocator: what a driver
//! needs beside its own fields comes from the kernel's [`dma::Dma`]. It has no
//! clock either: whatever waits takes a [`virtio::Wait`], and ends when that says
//! so. Drivers are `Send`, not `Sync`.
//!
//! What a device says is not trusted. Each value is checked once, where it enters,
//! and an error names it; a device that breaks the rules is reset and marked
//! FAILED. Memory that a device was given is freed only after that device was
//! reset.
//!
//! Section numbers in the documentation are those of virtio 1.2, if they name
//! nothing else.
//!
//! # The seams
//!
//! A kernel implements two traits, and chooses at the others:
//!
//! - [`dma::Dma`] allocates memory that devices reach; [`mmio::MapMmio`] maps
//!   device memory.
//! - [`port::IoSpace`] is access to IO ports. An x86 processor's are there, and
//!   [`port::IoWindow`], which other architectures reach them through.
//! - [`pci::ConfigSpace`] is access to configuration space:
//!   [`pci::Ecam`] or [`pci::Cam`].
//! - [`transport::Transport`] is an interface of a device: [`transport::pci_legacy`],
//!   [`transport::pci_modern`] or [`transport::mmio`], as the caller chooses,
//!   not the device; [`transport::pci_modern::NotifyChoice`] chooses among a
//!   device's doorbells.
//! - [`transport::Notifier`] is a doorbell whose address and value are worked out:
//!   ringing is one instruction.
//! - [`queue::Ring`] knows memory and barriers, and no transport.
//! - [`device::Blk`], [`device::Net`], [`device::Console`], [`device::Rng`] and
//!   [`device::Balloon`] take requests by token, as many at once as the queue holds,
//!   and have blocking calls built on that.
//!
//! # Features
//!
//! `test-utils` adds fakes for tests on the host, with `std`: [`dma`] has memory
//! that knows who may see it, [`pci`] a configuration space, and [`transport`] a
//! device that serves its queue and writes down what a driver does against the
//! specification.
//!
//! `virtio-drivers` adds `compat`: the crate of that name over these transports, with
//! its drivers for GPU, input, sound and vsock devices and 9P (most of which need
//! `virtio-drivers-alloc`, and so a global allocator).
//!
//! None is on by default, and none is for an allocator or a logger: nothing here would
//! be shorter with a heap, and nothing is logged. An error is a value that says what
//! was wrong. Rust 1.93 or newer builds it.
//!
//! The package's README is the guide: what each trait owes, interrupts and async, DMA
//! with an offset or an IOMMU, and the way from the crate `virtio-drivers`.
//!
//! # A block device, from nothing
//!
//! ```no_run
//! use core::ptr::NonNull;
//!
//! use doorbell::device::{Blk, Setup, blk};
//! use doorbell::dma::{Dma, DmaError, DmaMemory, PAGE_SIZE};
//! use doorbell::mmio::{MapError, MapMmio};
//! use doorbell::pci::{
//!     BusRange, CommandRegister, ConfigSpace, Ecam, EcamWindow, Function, Topology,
//! };
//! use doorbell::port::IoSpace;
//! use doorbell::transport::pci::{self, Structures};
//! use doorbell::transport::pci_modern::{NotifyChoice, PciModern};
//! use doorbell::virtio::{Features, Polls};
//!
//! // What the kernel has: frames, by physical address, and page tables.
//! # mod kernel {
//! #     use core::ptr::NonNull;
//! #     pub fn allocate_frames(_: usize) -> Option<u64> { unimplemented!() }
//! #     pub fn free_frames(_: u64, _: usize) { unimplemented!() }
//! #     pub fn direct_map(_: u64) -> NonNull<u8> { unimplemented!() }
//! #     pub fn map_uncached(_: u64, _: u64) -> Option<NonNull<u8>> { unimplemented!() }
//! # }
//!
//! #[derive(Clone, Copy)]
//! struct Frames;
//!
//! // SAFETY: frames are the allocator's to give, whole and page-aligned, and
//! // without an IOMMU a device sees them at their physical addresses.
//! unsafe impl Dma for Frames {
//!     fn allocate(&self, size: usize, align: usize) -> Result<DmaMemory, DmaError> {
//!         let frames = kernel::allocate_frames(size.div_ceil(PAGE_SIZE));
//!         let address = frames.ok_or(DmaError { size, align })?;
//!         let pointer = kernel::direct_map(address);
//!         // SAFETY: the frames are mapped there, and nobody else's.
//!         unsafe { pointer.write_bytes(0, size) };
//!         Ok(DmaMemory { pointer, address, size, align })
//!     }
//!
//!     unsafe fn free(&self, memory: DmaMemory) {
//!         kernel::free_frames(memory.address, memory.size.div_ceil(PAGE_SIZE));
//!     }
//! }
//!
//! struct PageTables;
//!
//! // SAFETY: the kernel never unmaps what it maps for devices.
//! unsafe impl MapMmio for PageTables {
//!     fn map(&self, address: u64, len: u64) -> Result<NonNull<u8>, MapError> {
//!         kernel::map_uncached(address, len).ok_or(MapError { address, len })
//!     }
//! }
//!
//! /// Reads the first sector of the first block device.
//! ///
//! /// # Safety
//! ///
//! /// `ecam` is the base address in ACPI's MCFG, and nobody else uses PCI.
//! unsafe fn first_sector(
//!     ecam: u64,
//!     io: impl IoSpace,
//! ) -> Result<[u8; blk::SECTOR], Box<dyn core::error::Error>> {
//!     // Configuration space of all buses.
//!     // SAFETY: the caller says that the ECAM is there and ours.
//!     let windows = [unsafe { EcamWindow::map(&PageTables, ecam, 0, 0, 255) }?];
//!     let config = Ecam::new(&windows);
//!
//!     // All functions. What firmware left without a bus number or an address,
//!     // `pci::number_buses` and `pci::assign` would see to.
//!     let mut storage = [Function::default(); 64];
//!     // SAFETY: nobody else uses PCI.
//!     let topology = unsafe { Topology::enumerate(&config, &[BusRange::ALL], &mut storage) }?;
//!     let is_disk = |function: &&Function| pci::device_type(function) == Some(blk::DEVICE_TYPE);
//!     let function = topology.functions().iter().find(is_disk).ok_or("no block device")?;
//!
//!     // It may answer in memory, and access ours.
//!     let wanted = CommandRegister::MEMORY_ENABLE | CommandRegister::BUS_MASTER_ENABLE;
//!     // SAFETY: as above; its BARs hold what `Topology::enumerate` found.
//!     unsafe { config.set_command(function.address, function.command | wanted) };
//!
//!     // The interface, here that of virtio 1.0, and the doorbell.
//!     let structures = Structures::read(&config, function)?;
//!     let choice = NotifyChoice::Memory;
//!     // SAFETY: as above.
//!     let transport = unsafe {
//!         PciModern::new(function, &structures, config, io, &PageTables, choice)
//!     }?;
//!
//!     // The driver, with a queue of 64 descriptors, or as many as there are.
//!     let features = Features::INDIRECT_DESC | Features::EVENT_IDX;
//!     let patience = Polls(10_000_000);
//!     let mut disk = Blk::new(transport, &Setup::new(64, features), Frames, &mut { patience })?;
//!     let mut sector = [0; blk::SECTOR];
//!     disk.read(0, &mut sector, &mut { patience })?;
//!     Ok(sector)
//!     // Here the device is reset, and only then is its memory freed.
//! }
//! ```
#![cfg_attr(not(any(test, feature = "test-utils")), no_std)]
#![deny(missing_docs)]

#[cfg(any(test, feature = "test-utils"))]
extern crate std;

#[cfg(feature = "virtio-drivers")]
pub mod compat;
pub mod device;
pub mod dma;
pub mod mmio;
pub mod pci;
pub mod port;
pub mod queue;
pub mod transport;
pub mod virtio;

#[cfg(test)]
mod tests {
    #[test]
    fn the_documentation_names_the_oldest_rust_that_builds_it() {
        let words = std::format!("Rust {} or newer", env!("CARGO_PKG_RUST_VERSION"));
        for text in [include_str!("lib.rs"), include_str!("../README.md")] {
            assert!(text.contains(&words), "{words}");
        }
    }
}

/// The guide, whose code is compiled with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Guide;
