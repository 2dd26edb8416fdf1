//! Upstream's own PCI transport, as one who picks that crate gets it.
//!
//! Its doorbell is three accesses: `queue_select` is written and `queue_notify_off`
//! read each time before it rings.

use alloc::format;
use alloc::string::String;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use doorbell::compat::{BufferDirection, Compat, DmaHal};
use doorbell::mmio::MapMmio as _;
use doorbell::pci::{ConfigSpace, PciAddress};
use doorbell::transport::Transport;
use doorbell::virtio::Features;

use virtio_drivers::transport as upstream;
use virtio_drivers::transport::pci::PciTransport;
use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction, PciRoot};
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus};
use virtio_drivers::{Error, Hal, PhysAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::platform::dma::{KernelDma, KernelMmio};

/// [`DmaHal`], and device memory, which that transport maps itself.
pub(super) struct OwnHal;

type Memory = DmaHal<KernelDma>;

// SAFETY: `DmaHal` and `KernelMmio` keep their word.
unsafe impl Hal for OwnHal {
    fn dma_alloc(pages: usize, direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        Memory::dma_alloc(pages, direction)
    }

    unsafe fn dma_dealloc(paddr: PhysAddr, vaddr: NonNull<u8>, pages: usize) -> i32 {
        // SAFETY: the caller's promise, and so below.
        unsafe { Memory::dma_dealloc(paddr, vaddr, pages) }
    }

    unsafe fn mmio_phys_to_virt(paddr: PhysAddr, size: usize) -> NonNull<u8> {
        match KernelMmio.map(paddr, size as u64) {
            Ok(mapped) => mapped,
            // Upstream knows no failure here.
            Err(error) => panic!("upstream's transport: {error}"),
        }
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        // SAFETY: as above.
        unsafe { Memory::share(buffer, direction) }
    }

    unsafe fn unshare(paddr: PhysAddr, buffer: NonNull<[u8]>, direction: BufferDirection) {
        // SAFETY: as above.
        unsafe { Memory::unshare(paddr, buffer, direction) }
    }
}

/// Configuration space for upstream, which knows no segments: those of one.
struct Access {
    config: &'static dyn ConfigSpace,
    segment: u16,
}

impl Access {
    fn address(&self, at: DeviceFunction) -> PciAddress {
        PciAddress::new(self.segment, at.bus, at.device, at.function)
    }
}

impl ConfigurationAccess for Access {
    fn read_word(&self, at: DeviceFunction, register: u8) -> u32 {
        // SAFETY: configuration space is this kernel's, and nobody else uses the
        // function meanwhile.
        unsafe { self.config.read(self.address(at), register.into()) }
    }

    fn write_word(&mut self, at: DeviceFunction, register: u8, data: u32) {
        // SAFETY: as above.
        unsafe { self.config.write(self.address(at), register.into(), data) };
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self { ..*self }
    }
}

/// Opens a function by upstream's own transport.
pub(super) fn open(
    config: &'static dyn ConfigSpace,
    address: PciAddress,
) -> Result<PciTransport, String> {
    let mut root = PciRoot::new(Access {
        config,
        segment: address.segment(),
    });
    let at = DeviceFunction {
        bus: address.bus(),
        device: address.device(),
        function: address.function(),
    };
    let opened = PciTransport::new::<OwnHal, _>(&mut root, at);
    opened.map_err(|error| format!("upstream's transport: {error}"))
}

/// A transport of upstream's own, with what [`Compat`] does beside carrying: it counts
/// doorbells, and hides features.
pub(super) struct Own<'d> {
    pub(super) transport: PciTransport,
    pub(super) masked: Features,
    pub(super) doorbells: &'d AtomicU64,
}

/// What carries upstream's drivers.
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
pub(super) enum Carrier<'t, 'f> {
    Own(Own<'f>),
    Ours(Compat<'f, &'t mut dyn Transport>),
}

/// Calls a method of upstream's transport, whichever it is.
macro_rules! carry {
    ($carrier:expr, $transport:ident => $call:expr) => {
        match $carrier {
            Carrier::Own(Own {
                transport: $transport,
                ..
            }) => $call,
            Carrier::Ours($transport) => $call,
        }
    };
}

impl upstream::Transport for Carrier<'_, '_> {
    fn device_type(&self) -> DeviceType {
        carry!(self, it => it.device_type())
    }

    fn read_device_features(&mut self) -> u64 {
        match self {
            Self::Own(own) => own.transport.read_device_features() & !own.masked.bits(),
            Self::Ours(ours) => ours.read_device_features(),
        }
    }

    fn write_driver_features(&mut self, driver_features: u64) {
        carry!(self, it => it.write_driver_features(driver_features));
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        carry!(self, it => it.max_queue_size(queue))
    }

    #[inline]
    fn notify(&mut self, queue: u16) {
        match self {
            Self::Own(own) => {
                own.transport.notify(queue);
                // One writer: no read-modify-write is needed.
                let count = own.doorbells.load(Ordering::Relaxed);
                own.doorbells.store(count + 1, Ordering::Relaxed);
            }
            Self::Ours(ours) => ours.notify(queue),
        }
    }

    fn get_status(&self) -> DeviceStatus {
        carry!(self, it => it.get_status())
    }

    fn set_status(&mut self, status: DeviceStatus) {
        carry!(self, it => it.set_status(status));
    }

    fn set_guest_page_size(&mut self, guest_page_size: u32) {
        carry!(self, it => it.set_guest_page_size(guest_page_size));
    }

    fn requires_legacy_layout(&self) -> bool {
        carry!(self, it => it.requires_legacy_layout())
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver_area: PhysAddr,
        device_area: PhysAddr,
    ) {
        carry!(self, it => it.queue_set(queue, size, descriptors, driver_area, device_area));
    }

    fn queue_unset(&mut self, queue: u16) {
        carry!(self, it => it.queue_unset(queue));
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        carry!(self, it => it.queue_used(queue))
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        carry!(self, it => it.ack_interrupt())
    }

    fn read_config_generation(&self) -> u32 {
        carry!(self, it => it.read_config_generation())
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T, Error> {
        carry!(self, it => it.read_config_space(offset))
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        offset: usize,
        value: T,
    ) -> Result<(), Error> {
        carry!(self, it => it.write_config_space(offset, value))
    }
}
