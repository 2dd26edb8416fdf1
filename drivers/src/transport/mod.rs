//! How a driver reaches its device's registers.
//!
//! [`Transport`] is the seam: a device driver is written against it and never
//! asks which interface is behind. The interfaces are [`pci_legacy`] (an IO
//! BAR), [`pci_modern`] (memory BARs, with a choice of doorbells) and [`mmio`]
//! (virtio-mmio, versions 1 and 2). Whoever makes a transport chooses the
//! interface; a transitional device can be driven by either on purpose.

use core::fmt;

use crate::dma::PAGE_SIZE;
use crate::mmio::MmioRegion;
use crate::port::order;
use crate::virtio::{Features, Wait};

mod error;
#[cfg(any(test, feature = "test-utils"))]
pub mod fake;
mod isr;
pub mod mmio;
mod notifier;
pub mod pci;
pub mod pci_legacy;
pub mod pci_modern;

pub use error::TransportError;
pub use isr::{IsrBits, IsrStatus};
pub use notifier::{Notifier, Notify, StoreNotifier};
pub use virtio_spec::DeviceStatus;

/// A device's registers, whatever the interface.
///
/// The methods are in the order in which a driver needs them (virtio 1.2, 3.1.1).
///
/// # Safety
///
/// Drivers free memory that their device was given on the word of its transport.
/// So an implementer owes that all methods speak to one and the same device; that
/// after [`reset`](Self::reset) returned `Ok` this device accesses no memory until
/// a queue is enabled again, and after [`reset_queue`](Self::reset_queue) none
/// that it knew through that queue; and that
/// [`enable_queue`](Self::enable_queue) gives the device nothing but that queue,
/// and nothing at all where it fails, except by
/// [`TransportError::QueueRefused`].
pub unsafe trait Transport {
    /// Which interface this is, for reports.
    fn interface(&self) -> Interface;

    /// By which way this transport's doorbells are rung, for reports.
    fn notify_path(&self) -> NotifyPath;

    /// The virtio device type (virtio 1.2, section 5), 2 for a block device.
    fn device_type(&self) -> u16;

    /// Reads the device status.
    fn status(&self) -> DeviceStatus;

    /// Writes the device status. Bits are only added, except by
    /// [`reset`](Self::reset).
    fn set_status(&mut self, status: DeviceStatus);

    /// Resets the device and waits until it says that it is (2.4, 4.1.4.3.2).
    ///
    /// # Errors
    ///
    /// [`TransportError::ResetTimeout`] with the status last read, or
    /// [`TransportError::Gone`] where nothing answers.
    fn reset(&mut self, wait: &mut dyn Wait) -> Result<(), TransportError> {
        self.set_status(DeviceStatus::empty());
        loop {
            let status = self.status();
            if status.is_empty() {
                // The memory that it had is used again only from here on.
                order::device();
                return Ok(());
            }
            if is_gone(status) {
                return Err(TransportError::Gone);
            }
            if !wait.again() {
                return Err(TransportError::ResetTimeout {
                    status: status.bits(),
                });
            }
        }
    }

    /// The features that the device offers.
    fn device_features(&mut self) -> Features;

    /// Accepts `features`. Where the interface has that step, sets FEATURES_OK
    /// and reads it back (3.1.1, steps 5 and 6).
    ///
    /// # Errors
    ///
    /// [`TransportError::FeaturesRefused`] if the device does not agree.
    fn accept_features(&mut self, features: Features) -> Result<(), TransportError>;

    /// How large a queue is or may be.
    ///
    /// # Errors
    ///
    /// [`TransportError::NoQueue`] if the device has no such queue.
    fn queue_size(&mut self, queue: u16) -> Result<QueueSize, TransportError>;

    /// How the interface wants a queue's parts in memory.
    fn ring_layout(&self) -> RingLayout;

    /// Gives the device a queue and returns the queue's doorbell. `size` is one
    /// that [`queue_size`](Self::queue_size) allows, `ring` is laid out as
    /// [`ring_layout`](Self::ring_layout) says.
    ///
    /// # Errors
    ///
    /// [`TransportError`] if the queue, size or address is none that the
    /// interface can express, or the queue's doorbell lies outside the
    /// notification structure.
    ///
    /// # Safety
    ///
    /// The memory at `ring` is a ring of `size` that stays valid until the
    /// device is reset: from now on the device reads it, and reads and writes
    /// what its descriptors name.
    unsafe fn enable_queue(
        &mut self,
        queue: u16,
        size: u16,
        ring: &RingAddresses,
    ) -> Result<Notifier, TransportError>;

    /// Takes one queue back from the device and waits until it says that it let go
    /// of it (2.6.1, with `VIRTIO_F_RING_RESET` negotiated). The queue can be
    /// enabled again, and has no vector then.
    ///
    /// # Errors
    ///
    /// [`TransportError::NoQueueReset`] where the interface does not have it, or
    /// the device does not do it; [`TransportError::QueueResetTimeout`].
    fn reset_queue(&mut self, queue: u16, wait: &mut dyn Wait) -> Result<(), TransportError>;

    /// Says by which MSI-X vector the device interrupts for `interrupt`; `None`
    /// for by none. A queue gets its vector before it is enabled (4.1.5.1.3), and
    /// a reset takes all vectors away.
    ///
    /// # Errors
    ///
    /// [`TransportError::NoVectors`] where the interface has none now;
    /// [`TransportError::VectorRefused`] if it does not read back
    /// (4.1.5.1.2.2).
    fn set_vector(
        &mut self,
        interrupt: Interrupt,
        vector: Option<u16>,
    ) -> Result<(), TransportError>;

    /// A handle on the ISR status, for an interrupt handler.
    fn isr_status(&self) -> IsrStatus;

    /// The generation of the device's configuration (2.5); always 0 where the
    /// interface has none.
    fn config_generation(&self) -> u32;

    /// Reads the device's configuration from `offset`, by accesses of `width`
    /// bytes (1, 2 or 4: as wide as the fields that are read, 4.1.3.1), of which
    /// `into` holds a whole number. Fields of 64 bits are read as two of 32.
    ///
    /// # Errors
    ///
    /// [`TransportError::ConfigRange`] if the configuration is shorter.
    fn read_config(&self, offset: u16, width: u8, into: &mut [u8]) -> Result<(), TransportError>;

    /// Writes the device's configuration from `offset` on, by accesses of `width`
    /// bytes as [`read_config`](Self::read_config) has them. Few fields are there
    /// to be written: what the others do then is the device's affair.
    ///
    /// # Errors
    ///
    /// [`TransportError::ConfigRange`] if the configuration is shorter.
    fn write_config(&mut self, offset: u16, width: u8, from: &[u8]) -> Result<(), TransportError>;
}

/// Whether a status is what reads as one where no device answers any more: all
/// ones, of which 0x10 and 0x20 are no status bits (2.1).
pub(crate) fn is_gone(status: DeviceStatus) -> bool {
    status.bits() == u8::MAX
}

// SAFETY: it is the referent's own promise.
unsafe impl<T: Transport + ?Sized> Transport for &mut T {
    fn interface(&self) -> Interface {
        (**self).interface()
    }

    fn notify_path(&self) -> NotifyPath {
        (**self).notify_path()
    }

    fn device_type(&self) -> u16 {
        (**self).device_type()
    }

    fn status(&self) -> DeviceStatus {
        (**self).status()
    }

    fn set_status(&mut self, status: DeviceStatus) {
        (**self).set_status(status);
    }

    fn reset(&mut self, wait: &mut dyn Wait) -> Result<(), TransportError> {
        (**self).reset(wait)
    }

    fn device_features(&mut self) -> Features {
        (**self).device_features()
    }

    fn accept_features(&mut self, features: Features) -> Result<(), TransportError> {
        (**self).accept_features(features)
    }

    fn queue_size(&mut self, queue: u16) -> Result<QueueSize, TransportError> {
        (**self).queue_size(queue)
    }

    fn ring_layout(&self) -> RingLayout {
        (**self).ring_layout()
    }

    unsafe fn enable_queue(
        &mut self,
        queue: u16,
        size: u16,
        ring: &RingAddresses,
    ) -> Result<Notifier, TransportError> {
        // SAFETY: the caller's promise is the referent's.
        unsafe { (**self).enable_queue(queue, size, ring) }
    }

    fn reset_queue(&mut self, queue: u16, wait: &mut dyn Wait) -> Result<(), TransportError> {
        (**self).reset_queue(queue, wait)
    }

    fn set_vector(
        &mut self,
        interrupt: Interrupt,
        vector: Option<u16>,
    ) -> Result<(), TransportError> {
        (**self).set_vector(interrupt, vector)
    }

    fn isr_status(&self) -> IsrStatus {
        (**self).isr_status()
    }

    fn config_generation(&self) -> u32 {
        (**self).config_generation()
    }

    fn read_config(&self, offset: u16, width: u8, into: &mut [u8]) -> Result<(), TransportError> {
        (**self).read_config(offset, width, into)
    }

    fn write_config(&mut self, offset: u16, width: u8, from: &[u8]) -> Result<(), TransportError> {
        (**self).write_config(offset, width, from)
    }
}

/// Sets FEATURES_OK and reads it back (3.1.1, steps 5 and 6).
fn confirm_features<T: Transport>(
    transport: &mut T,
    features: Features,
) -> Result<(), TransportError> {
    // 6.1: a device that does not offer it is a legacy device, and has no
    // business behind this interface.
    if !features.contains(Features::VERSION_1) {
        return Err(TransportError::NoVersion1 { features });
    }
    transport.set_status(transport.status() | DeviceStatus::FEATURES_OK);
    if transport.status().contains(DeviceStatus::FEATURES_OK) {
        Ok(())
    } else {
        Err(TransportError::FeaturesRefused { features })
    }
}

/// Reads configuration that lies in device memory.
fn read_config_memory(
    config: &MmioRegion,
    offset: u16,
    width: u8,
    into: &mut [u8],
) -> Result<(), TransportError> {
    let (len, available) = (into.len(), config.len());
    check_config(offset, width, len, available)?;
    let misaligned = TransportError::ConfigRange {
        offset,
        len,
        available,
    };
    let mut at = u64::from(offset);
    for field in into.chunks_exact_mut(width.into()) {
        match width {
            1 => field[0] = config.registers::<u8>(at).ok_or(misaligned)?.ptr().read(),
            2 => {
                let value = config.registers::<u16>(at).ok_or(misaligned)?.ptr().read();
                field.copy_from_slice(&value.to_ne_bytes());
            }
            _ => {
                let value = config.registers::<u32>(at).ok_or(misaligned)?.ptr().read();
                field.copy_from_slice(&value.to_ne_bytes());
            }
        }
        at += u64::from(width);
    }
    Ok(())
}

/// Writes configuration that lies in device memory.
fn write_config_memory(
    config: &MmioRegion,
    offset: u16,
    width: u8,
    from: &[u8],
) -> Result<(), TransportError> {
    let (len, available) = (from.len(), config.len());
    check_config(offset, width, len, available)?;
    let misaligned = TransportError::ConfigRange {
        offset,
        len,
        available,
    };
    let mut at = u64::from(offset);
    for field in from.chunks_exact(width.into()) {
        match *field {
            [byte] => config
                .registers::<u8>(at)
                .ok_or(misaligned)?
                .ptr()
                .write(byte),
            [a, b] => {
                let value = u16::from_ne_bytes([a, b]);
                let register = config.registers::<u16>(at).ok_or(misaligned)?;
                register.ptr().write(value);
            }
            [a, b, c, d] => {
                let value = u32::from_ne_bytes([a, b, c, d]);
                let register = config.registers::<u32>(at).ok_or(misaligned)?;
                register.ptr().write(value);
            }
            _ => unreachable!("`check_config` allows widths of 1, 2 and 4"),
        }
        at += u64::from(width);
    }
    Ok(())
}

/// `VIRTIO_MSI_NO_VECTOR` (4.1.5.1.2): what a vector register holds for none.
const NO_VECTOR: u16 = 0xffff;

/// Whether a vector register reads back what was written to it.
fn check_vector(wanted: Option<u16>, found: u16) -> Result<(), TransportError> {
    match wanted {
        Some(vector) if vector != found => Err(TransportError::VectorRefused { vector }),
        _ => Ok(()),
    }
}

/// Waits until `busy` says that the device let go of `queue` (2.6.1).
fn wait_queue_reset(
    queue: u16,
    wait: &mut dyn Wait,
    mut busy: impl FnMut() -> bool,
) -> Result<(), TransportError> {
    while busy() {
        if !wait.again() {
            return Err(TransportError::QueueResetTimeout { queue });
        }
    }
    // As after a reset.
    order::device();
    Ok(())
}

/// The page number by which a legacy interface takes a queue's address.
fn page_number(queue: u16, ring: &RingAddresses) -> Result<u32, TransportError> {
    let address = ring.descriptors;
    let page = address / PAGE_SIZE as u64;
    match u32::try_from(page) {
        Ok(number) if number != 0 && address.is_multiple_of(PAGE_SIZE as u64) => Ok(number),
        _ => Err(TransportError::RingAddress { queue, address }),
    }
}

/// Checks a read of `len` bytes of configuration, of which there are
/// `available`, by accesses of `width` bytes.
fn check_config(
    offset: u16,
    width: u8,
    len: usize,
    available: usize,
) -> Result<(), TransportError> {
    let whole = matches!(width, 1 | 2 | 4) && len.is_multiple_of(width.into());
    if whole && usize::from(offset).saturating_add(len) <= available {
        Ok(())
    } else {
        Err(TransportError::ConfigRange {
            offset,
            len,
            available,
        })
    }
}

/// Reads one little-endian configuration field of up to 32 bits.
///
/// # Errors
///
/// As [`Transport::read_config`].
pub fn read_config_u32<T: Transport + ?Sized>(
    transport: &T,
    offset: u16,
    width: u8,
) -> Result<u32, TransportError> {
    let mut bytes = [0; 4];
    let len = usize::from(width).min(bytes.len());
    transport.read_config(offset, width, &mut bytes[..len])?;
    Ok(u32::from_le_bytes(bytes))
}

/// Reads one little-endian 64-bit configuration field, untorn: such a read is
/// repeated while the configuration's generation changes (2.5.1), and, since a
/// legacy interface has none, until two reads agree (2.5.4).
///
/// # Errors
///
/// As [`Transport::read_config`], and [`TransportError::ConfigUnstable`] if it
/// never stands still.
pub fn read_config_u64<T: Transport + ?Sized>(
    transport: &T,
    offset: u16,
) -> Result<u64, TransportError> {
    let bytes = read_config_untorn(transport, offset, |transport| {
        let mut bytes = [0; 8];
        transport.read_config(offset, 4, &mut bytes)?;
        Ok(bytes)
    })?;
    Ok(u64::from_le_bytes(bytes))
}

/// Reads fields of the configuration from `offset` on that belong together, by
/// `read`, as [`read_config_u64`] reads one.
pub(crate) fn read_config_untorn<T: Transport + ?Sized, V: PartialEq>(
    transport: &T,
    offset: u16,
    mut read: impl FnMut(&T) -> Result<V, TransportError>,
) -> Result<V, TransportError> {
    /// A configuration changes rarely; one that changes this often in a row is
    /// a broken device's.
    const ATTEMPTS: usize = 100;
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let before = transport.config_generation();
        let value = read(transport)?;
        if transport.config_generation() == before && last.as_ref() == Some(&value) {
            return Ok(value);
        }
        last = Some(value);
    }
    Err(TransportError::ConfigUnstable { offset })
}

/// An interface of a virtio device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// The legacy interface in a PCI IO BAR (virtio 1.2, 4.1.4.10).
    PciLegacy,
    /// The PCI interface of virtio 1.0 and later (4.1.4).
    PciModern,
    /// virtio-mmio, version 1 (legacy, 4.2.4).
    MmioV1,
    /// virtio-mmio, version 2 (4.2.2).
    MmioV2,
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::PciLegacy => "pci-legacy",
            Self::PciModern => "pci-modern",
            Self::MmioV1 => "mmio-v1",
            Self::MmioV2 => "mmio-v2",
        })
    }
}

/// A way to ring a doorbell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyPath {
    /// An `out` to an IO port, or a store to a window of memory that leads there.
    Pio,
    /// A store to device memory.
    Mmio,
    /// A write through the window in PCI configuration space (4.1.4.9).
    PciCfg,
}

impl fmt::Display for NotifyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pio => "pio",
            Self::Mmio => "mmio",
            Self::PciCfg => "pci-cfg",
        })
    }
}

/// What a device interrupts for (2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// Its configuration has changed.
    ConfigChange,
    /// It has used buffers of this queue.
    Queue(u16),
}

/// How large a queue is, in descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueSize {
    /// The device fixed it: legacy PCI.
    Fixed(u16),
    /// The driver chooses, up to this.
    UpTo(u16),
}

impl QueueSize {
    /// Checks that queue `queue` may have this size.
    ///
    /// # Errors
    ///
    /// [`TransportError::QueueSize`] if not.
    pub fn check(self, queue: u16, size: u16) -> Result<(), TransportError> {
        let allowed = match self {
            Self::Fixed(fixed) => size == fixed,
            Self::UpTo(max) => size <= max,
        };
        if allowed {
            Ok(())
        } else {
            Err(TransportError::QueueSize { queue, size })
        }
    }

    /// The size to use by a driver that would like `wanted`, for the kind of ring
    /// that `features` ask for.
    ///
    /// # Errors
    ///
    /// [`TransportError::QueueSize`] if a fixed size is not one that a split
    /// ring can have (a power of two, at most 32768: 2.7).
    pub fn choose(
        self,
        queue: u16,
        wanted: u16,
        features: Features,
    ) -> Result<u16, TransportError> {
        let size = match self {
            // Legacy devices only, which have no packed rings.
            Self::Fixed(size) => size,
            Self::UpTo(max) => {
                let most = wanted.clamp(1, max.max(1)).min(0x8000);
                if features.contains(Features::RING_PACKED) {
                    // 2.8.10.1: any size.
                    return Ok(most);
                }
                // The largest power of two that is not more.
                1 << most.ilog2()
            }
        };
        if size.is_power_of_two() && size <= 0x8000 {
            Ok(size)
        } else {
            Err(TransportError::QueueSize { queue, size })
        }
    }
}

/// How a queue's three parts lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingLayout {
    /// One after the other, the used ring at the next multiple of `align`, the
    /// whole at a page's start: the legacy layout (2.7.2).
    Contiguous {
        /// Alignment of the used ring in bytes.
        align: u32,
    },
    /// Each where the driver likes.
    Separate,
}

/// Where a device finds a queue's three parts (device addresses).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingAddresses {
    /// Descriptor area: a split ring's descriptor table, a packed ring's descriptor
    /// ring.
    pub descriptors: u64,
    /// Driver area: a split ring's available ring, a packed ring's driver event
    /// suppression.
    pub driver: u64,
    /// Device area: a split ring's used ring, a packed ring's device event
    /// suppression.
    pub device: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chosen_size_is_a_power_of_two_that_the_device_allows() {
        let split = Features::VERSION_1;
        assert_eq!(QueueSize::UpTo(256).choose(0, 100, split), Ok(64));
        assert_eq!(QueueSize::UpTo(8).choose(0, 100, split), Ok(8));
        assert_eq!(QueueSize::UpTo(7).choose(0, 100, split), Ok(4));
        assert_eq!(QueueSize::UpTo(1024).choose(0, 0, split), Ok(1));
        assert_eq!(
            QueueSize::UpTo(0xffff).choose(0, 0xffff, split),
            Ok(0x8000),
            "2.7"
        );
        let legacy = Features::empty();
        assert_eq!(QueueSize::Fixed(256).choose(0, 1, legacy), Ok(256));
        for size in [0, 100, 0xffff] {
            let error = TransportError::QueueSize { queue: 3, size };
            assert_eq!(QueueSize::Fixed(size).choose(3, 1, legacy), Err(error));
        }
    }

    #[test]
    fn a_packed_ring_has_any_size_that_the_device_allows() {
        // 2.8.10.1
        let packed = Features::VERSION_1 | Features::RING_PACKED;
        for (max, wanted, size) in [
            (256, 100, 100),
            (7, 100, 7),
            (1024, 0, 1),
            (0xffff, 0xffff, 0x8000),
        ] {
            assert_eq!(QueueSize::UpTo(max).choose(0, wanted, packed), Ok(size));
        }
    }
}
