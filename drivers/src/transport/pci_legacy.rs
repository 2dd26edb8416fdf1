//! The legacy PCI interface: a block of registers in the IO BAR 0 (virtio 1.2,
//! 4.1.4.10, 4.1.5.1.3.1).

use virtio_spec::DeviceStatus;

use super::pci::{PciError, Structure};
use super::{
    Interface, Interrupt, IsrStatus, NO_VECTOR, Notifier, NotifyPath, QueueSize, RingAddresses,
    RingLayout, Transport, TransportError,
};
use crate::dma::PAGE_SIZE;
use crate::pci::{ConfigSpace, Function, msix};
use crate::port::{IoRegion, IoSpace};
use crate::virtio::{Features, Wait};

/// Offsets of the legacy registers in BAR 0, with their width in bits.
mod register {
    /// Device features, 32.
    pub(super) const DEVICE_FEATURES: u16 = 0;
    /// Driver features, 32.
    pub(super) const DRIVER_FEATURES: u16 = 4;
    /// Page number of the selected queue, 32.
    pub(super) const QUEUE_ADDRESS: u16 = 8;
    /// Size of the selected queue, 16, read-only.
    pub(super) const QUEUE_SIZE: u16 = 12;
    /// Queue select, 16.
    pub(super) const QUEUE_SELECT: u16 = 14;
    /// Queue notify, 16.
    pub(super) const QUEUE_NOTIFY: u16 = 16;
    /// Device status, 8.
    pub(super) const DEVICE_STATUS: u16 = 18;
    /// ISR status, 8.
    pub(super) const ISR_STATUS: u16 = 19;
    /// Where the device's configuration starts while MSI-X is disabled.
    pub(super) const CONFIG: u16 = 20;
    /// While it is enabled: the vector of configuration changes, 16.
    pub(super) const CONFIG_VECTOR: u16 = 20;
    /// And that of the selected queue, 16.
    pub(super) const QUEUE_VECTOR: u16 = 22;
    /// Where it starts while MSI-X is enabled: two vectors come first.
    pub(super) const CONFIG_MSIX: u16 = 24;
}

/// A device driven through its legacy interface.
#[derive(Debug)]
pub struct PciLegacy<S> {
    io: IoRegion<S>,
    device_type: u16,
    config: u16,
}

/// BAR 0, all of it, where its size fits IO space.
fn registers(function: &Function) -> Result<Structure, PciError> {
    if !super::pci::is_transitional(function) {
        return Err(PciError::NotTransitional {
            vendor: function.vendor,
            device: function.device,
        });
    }
    let (bar, _) = super::pci::assigned(function, 0, true)?;
    Ok(Structure {
        bar: 0,
        offset: 0,
        length: u16::try_from(bar.size).unwrap_or(u16::MAX).into(),
    })
}

/// Whether a function can be driven through its legacy interface.
///
/// # Errors
///
/// [`PciError`] that says why not.
pub fn check(function: &Function) -> Result<(), PciError> {
    registers(function).map(drop)
}

impl<S: IoSpace> PciLegacy<S> {
    /// The legacy interface of `function`. Its MSI-X, which moves the device's
    /// configuration, stays as it is while the transport is used.
    ///
    /// # Errors
    ///
    /// [`PciError`] if the device is not transitional, its BAR 0 is no IO BAR,
    /// has no address or is too short, or its capability list is broken.
    ///
    /// # Safety
    ///
    /// The function is the caller's, its BARs are as `function` says, bus mastering
    /// is on, decoding of IO is on (or nothing answers at its ports), and all stay so.
    pub unsafe fn from_function<C: ConfigSpace + ?Sized>(
        function: &Function,
        config: &C,
        io: S,
    ) -> Result<Self, PciError> {
        let at = registers(function)?;
        // SAFETY: the caller's promise.
        let io = unsafe { super::pci::ports(function, at, "legacy registers", io) }?;
        let msix_enabled = msix::is_enabled(config, function.address)?;
        Ok(Self::new(io, function.subsystem_device, msix_enabled)?)
    }

    /// The interface in the IO BAR `io`, of a device of type `device_type`.
    /// `msix_enabled` moves the device's configuration, and must not change
    /// while the transport is used.
    ///
    /// # Errors
    ///
    /// [`TransportError::ConfigRange`] if the BAR is too short for the registers.
    pub fn new(
        io: IoRegion<S>,
        device_type: u16,
        msix_enabled: bool,
    ) -> Result<Self, TransportError> {
        let config = if msix_enabled {
            register::CONFIG_MSIX
        } else {
            register::CONFIG
        };
        if io.len() < config {
            return Err(TransportError::ConfigRange {
                offset: 0,
                len: config.into(),
                available: io.len().into(),
            });
        }
        Ok(Self {
            io,
            device_type,
            config,
        })
    }

    fn select(&self, queue: u16) {
        self.io.write16(register::QUEUE_SELECT, queue);
    }
}

// SAFETY: the registers are one device's, for as long as the transport lives
// (`new`); a device that reports a finished reset accesses nothing (2.4.1);
// addresses are written last, and then read back.
unsafe impl<S: IoSpace> Transport for PciLegacy<S> {
    fn interface(&self) -> Interface {
        Interface::PciLegacy
    }

    fn notify_path(&self) -> NotifyPath {
        NotifyPath::Pio
    }

    fn device_type(&self) -> u16 {
        self.device_type
    }

    fn status(&self) -> DeviceStatus {
        DeviceStatus::from_bits_retain(self.io.read8(register::DEVICE_STATUS))
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.io.write8(register::DEVICE_STATUS, status.bits());
    }

    fn device_features(&mut self) -> Features {
        Features::from_bits_retain(self.io.read32(register::DEVICE_FEATURES).into())
    }

    fn accept_features(&mut self, features: Features) -> Result<(), TransportError> {
        let low = u32::try_from(features.bits())
            .map_err(|_| TransportError::FeaturesTooWide { features })?;
        self.io.write32(register::DRIVER_FEATURES, low);
        // There is no FEATURES_OK here (3.1.2).
        Ok(())
    }

    fn queue_size(&mut self, queue: u16) -> Result<QueueSize, TransportError> {
        self.select(queue);
        match self.io.read16(register::QUEUE_SIZE) {
            0 => Err(TransportError::NoQueue { queue }),
            size => Ok(QueueSize::Fixed(size)),
        }
    }

    fn ring_layout(&self) -> RingLayout {
        RingLayout::Contiguous {
            align: PAGE_SIZE as u32,
        }
    }

    unsafe fn enable_queue(
        &mut self,
        queue: u16,
        size: u16,
        ring: &RingAddresses,
    ) -> Result<Notifier, TransportError> {
        self.queue_size(queue)?.check(queue, size)?;
        if self.io.read32(register::QUEUE_ADDRESS) != 0 {
            return Err(TransportError::QueueInUse { queue });
        }
        let page = super::page_number(queue, ring)?;
        self.io.write32(register::QUEUE_ADDRESS, page);
        if self.io.read32(register::QUEUE_ADDRESS) != page {
            return Err(TransportError::QueueRefused { queue });
        }
        Ok(self.io.notifier(register::QUEUE_NOTIFY, queue))
    }

    fn reset_queue(&mut self, queue: u16, _: &mut dyn Wait) -> Result<(), TransportError> {
        Err(TransportError::NoQueueReset { queue })
    }

    fn set_vector(
        &mut self,
        interrupt: Interrupt,
        vector: Option<u16>,
    ) -> Result<(), TransportError> {
        if self.config != register::CONFIG_MSIX {
            return Err(TransportError::NoVectors);
        }
        let register = match interrupt {
            Interrupt::ConfigChange => register::CONFIG_VECTOR,
            Interrupt::Queue(queue) => {
                self.select(queue);
                register::QUEUE_VECTOR
            }
        };
        self.io.write16(register, vector.unwrap_or(NO_VECTOR));
        super::check_vector(vector, self.io.read16(register))
    }

    fn isr_status(&self) -> IsrStatus {
        self.io.isr_status(register::ISR_STATUS)
    }

    fn config_generation(&self) -> u32 {
        0
    }

    fn read_config(&self, offset: u16, width: u8, into: &mut [u8]) -> Result<(), TransportError> {
        let available = self.io.len() - self.config;
        super::check_config(offset, width, into.len(), available.into())?;
        let mut port = self.config + offset;
        for field in into.chunks_exact_mut(width.into()) {
            // The legacy configuration is in the guest's own byte order (2.5.3).
            match width {
                1 => field.copy_from_slice(&[self.io.read8(port)]),
                2 => field.copy_from_slice(&self.io.read16(port).to_le_bytes()),
                _ => field.copy_from_slice(&self.io.read32(port).to_le_bytes()),
            }
            port += u16::from(width);
        }
        Ok(())
    }

    fn write_config(&mut self, offset: u16, width: u8, from: &[u8]) -> Result<(), TransportError> {
        let available = self.io.len() - self.config;
        super::check_config(offset, width, from.len(), available.into())?;
        let mut port = self.config + offset;
        for field in from.chunks_exact(width.into()) {
            match *field {
                [byte] => self.io.write8(port, byte),
                [a, b] => self.io.write16(port, u16::from_le_bytes([a, b])),
                [a, b, c, d] => self.io.write32(port, u32::from_le_bytes([a, b, c, d])),
                _ => unreachable!("`check_config` allows widths of 1, 2 and 4"),
            }
            port += u16::from(width);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
