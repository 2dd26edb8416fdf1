//! virtio-mmio, versions 1 (legacy) and 2 (virtio 1.2, 4.2).

use core::fmt;

use virtio_spec::DeviceStatus;

use super::{
    Interface, Interrupt, IsrStatus, Notifier, NotifyPath, QueueSize, RingAddresses, RingLayout,
    Transport, TransportError,
};
use crate::dma::PAGE_SIZE;
use crate::mmio::{MmioRegion, Registers};
use crate::virtio::{Features, Wait};

/// Offsets of the registers, all 32 bits wide (4.2.2, 4.2.4).
mod register {
    pub(super) const MAGIC_VALUE: u64 = 0x000;
    pub(super) const VERSION: u64 = 0x004;
    pub(super) const DEVICE_ID: u64 = 0x008;
    pub(super) const DEVICE_FEATURES: u64 = 0x010;
    pub(super) const DEVICE_FEATURES_SEL: u64 = 0x014;
    pub(super) const DRIVER_FEATURES: u64 = 0x020;
    pub(super) const DRIVER_FEATURES_SEL: u64 = 0x024;
    /// Version 1 only: the unit of `QUEUE_PFN`.
    pub(super) const GUEST_PAGE_SIZE: u64 = 0x028;
    pub(super) const QUEUE_SEL: u64 = 0x030;
    pub(super) const QUEUE_SIZE_MAX: u64 = 0x034;
    pub(super) const QUEUE_SIZE: u64 = 0x038;
    /// Version 1 only: alignment of the used ring.
    pub(super) const QUEUE_ALIGN: u64 = 0x03c;
    /// Version 1 only: page number of the queue.
    pub(super) const QUEUE_PFN: u64 = 0x040;
    /// Version 2 only, as are the addresses below.
    pub(super) const QUEUE_READY: u64 = 0x044;
    pub(super) const QUEUE_NOTIFY: u64 = 0x050;
    pub(super) const INTERRUPT_STATUS: u64 = 0x060;
    pub(super) const INTERRUPT_ACK: u64 = 0x064;
    pub(super) const STATUS: u64 = 0x070;
    pub(super) const QUEUE_DESC: u64 = 0x080;
    pub(super) const QUEUE_DRIVER: u64 = 0x090;
    pub(super) const QUEUE_DEVICE: u64 = 0x0a0;
    /// Version 2 only, where VIRTIO_F_RING_RESET is offered.
    pub(super) const QUEUE_RESET: u64 = 0x0c0;
    /// Version 2 only.
    pub(super) const CONFIG_GENERATION: u64 = 0x0fc;
    /// The device's configuration.
    pub(super) const CONFIG: u64 = 0x100;
}

/// `MagicValue`: "virt".
const MAGIC: u32 = u32::from_le_bytes(*b"virt");

/// A device behind virtio-mmio.
#[derive(Debug)]
pub struct Mmio {
    region: MmioRegion,
    version: Version,
    device_type: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

impl Mmio {
    /// The device whose registers are `region`; `Ok(None)` where the slot is
    /// empty (device ID 0, 4.2.2.2).
    ///
    /// # Errors
    ///
    /// [`ProbeError`] if the region holds no virtio-mmio device of version 1 or 2.
    pub fn probe(region: MmioRegion) -> Result<Option<Self>, ProbeError> {
        if region.len() < register::CONFIG as usize || region.registers::<u32>(0).is_none() {
            return Err(ProbeError::Region { len: region.len() });
        }
        let mut mmio = Self {
            region,
            version: Version::V2,
            device_type: 0,
        };
        match mmio.read(register::MAGIC_VALUE) {
            MAGIC => {}
            magic => return Err(ProbeError::Magic { magic }),
        }
        mmio.version = match mmio.read(register::VERSION) {
            1 => Version::V1,
            2 => Version::V2,
            version => return Err(ProbeError::Version { version }),
        };
        let id = mmio.read(register::DEVICE_ID);
        mmio.device_type = u16::try_from(id).map_err(|_| ProbeError::DeviceId { id })?;
        Ok((id != 0).then_some(mmio))
    }

    fn register(&self, offset: u64) -> Registers<u32> {
        self.region
            .registers(offset)
            .expect("`probe` checked that the region holds all registers, aligned")
    }

    fn read(&self, offset: u64) -> u32 {
        u32::from_le(self.register(offset).ptr().read())
    }

    fn write(&self, offset: u64, value: u32) {
        self.register(offset).ptr().write(value.to_le());
    }

    /// Writes a 64-bit value to a pair of registers, low half first.
    fn write_pair(&self, offset: u64, value: u64) {
        self.write(offset, value as u32);
        self.write(offset + 4, (value >> 32) as u32);
    }

    fn select(&self, queue: u16) {
        self.write(register::QUEUE_SEL, queue.into());
    }

    /// The device's configuration.
    fn config(&self) -> MmioRegion {
        let len = self.region.len() as u64 - register::CONFIG;
        self.region
            .part(register::CONFIG, len)
            .expect("`probe` checked the length")
    }

    fn enable_legacy(
        &self,
        queue: u16,
        size: u16,
        ring: &RingAddresses,
    ) -> Result<(), TransportError> {
        if self.read(register::QUEUE_PFN) != 0 {
            return Err(TransportError::QueueInUse { queue });
        }
        let page = super::page_number(queue, ring)?;
        self.write(register::GUEST_PAGE_SIZE, PAGE_SIZE as u32);
        self.write(register::QUEUE_SIZE, size.into());
        self.write(register::QUEUE_ALIGN, PAGE_SIZE as u32);
        self.write(register::QUEUE_PFN, page);
        if self.read(register::QUEUE_PFN) == page {
            Ok(())
        } else {
            Err(TransportError::QueueRefused { queue })
        }
    }

    fn enable(&self, queue: u16, size: u16, ring: &RingAddresses) -> Result<(), TransportError> {
        if self.read(register::QUEUE_READY) != 0 {
            return Err(TransportError::QueueInUse { queue });
        }
        self.write(register::QUEUE_SIZE, size.into());
        self.write_pair(register::QUEUE_DESC, ring.descriptors);
        self.write_pair(register::QUEUE_DRIVER, ring.driver);
        self.write_pair(register::QUEUE_DEVICE, ring.device);
        self.write(register::QUEUE_READY, 1);
        if self.read(register::QUEUE_READY) == 1 {
            Ok(())
        } else {
            Err(TransportError::QueueRefused { queue })
        }
    }
}

// SAFETY: the registers are one device's, for as long as the transport lives
// (`MmioRegion::new`); a device that reports a finished reset accesses nothing (2.4.1);
// addresses are written last, and then read back.
unsafe impl Transport for Mmio {
    fn interface(&self) -> Interface {
        match self.version {
            Version::V1 => Interface::MmioV1,
            Version::V2 => Interface::MmioV2,
        }
    }

    fn notify_path(&self) -> NotifyPath {
        NotifyPath::Mmio
    }

    fn device_type(&self) -> u16 {
        self.device_type
    }

    fn status(&self) -> DeviceStatus {
        // Status is 8 bits in a 32-bit register.
        DeviceStatus::from_bits_retain(self.read(register::STATUS) as u8)
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.write(register::STATUS, status.bits().into());
    }

    fn device_features(&mut self) -> Features {
        let high = match self.version {
            // A legacy interface negotiates 32 bits, VIRTIO_F_VERSION_1 is not
            // among them.
            Version::V1 => 0,
            Version::V2 => {
                self.write(register::DEVICE_FEATURES_SEL, 1);
                self.read(register::DEVICE_FEATURES)
            }
        };
        self.write(register::DEVICE_FEATURES_SEL, 0);
        let low = self.read(register::DEVICE_FEATURES);
        Features::from_bits_retain(u64::from(high) << 32 | u64::from(low))
    }

    fn accept_features(&mut self, features: Features) -> Result<(), TransportError> {
        self.write(register::DRIVER_FEATURES_SEL, 1);
        self.write(register::DRIVER_FEATURES, (features.bits() >> 32) as u32);
        self.write(register::DRIVER_FEATURES_SEL, 0);
        self.write(register::DRIVER_FEATURES, features.bits() as u32);
        match self.version {
            // There is no FEATURES_OK (3.1.2).
            Version::V1 => Ok(()),
            Version::V2 => super::confirm_features(self, features),
        }
    }

    fn queue_size(&mut self, queue: u16) -> Result<QueueSize, TransportError> {
        self.select(queue);
        match self.read(register::QUEUE_SIZE_MAX) {
            0 => Err(TransportError::NoQueue { queue }),
            // A queue has at most 32768 descriptors (2.7), whatever is announced.
            max => Ok(QueueSize::UpTo(max.min(0x8000) as u16)),
        }
    }

    fn ring_layout(&self) -> RingLayout {
        match self.version {
            Version::V1 => RingLayout::Contiguous {
                align: PAGE_SIZE as u32,
            },
            Version::V2 => RingLayout::Separate,
        }
    }

    unsafe fn enable_queue(
        &mut self,
        queue: u16,
        size: u16,
        ring: &RingAddresses,
    ) -> Result<Notifier, TransportError> {
        self.queue_size(queue)?.check(queue, size)?;
        match self.version {
            Version::V1 => self.enable_legacy(queue, size, ring)?,
            Version::V2 => self.enable(queue, size, ring)?,
        }
        let doorbell = self.register(register::QUEUE_NOTIFY).address();
        // SAFETY: mapped for as long as the transport's region is, and the
        // doorbell of this device (4.2.3.3: the queue's index is written).
        Ok(unsafe { Notifier::store32(doorbell, queue.into()) })
    }

    fn reset_queue(&mut self, queue: u16, wait: &mut dyn Wait) -> Result<(), TransportError> {
        let unable = TransportError::NoQueueReset { queue };
        if self.version == Version::V1 {
            return Err(unable);
        }
        self.queue_size(queue)?;
        self.write(register::QUEUE_RESET, 1);
        // 4.2.2: 1 until the queue is reset, and then both are 0.
        super::wait_queue_reset(queue, wait, || self.read(register::QUEUE_RESET) != 0)?;
        match self.read(register::QUEUE_READY) {
            0 => Ok(()),
            _ => Err(unable),
        }
    }

    fn set_vector(&mut self, _: Interrupt, _: Option<u16>) -> Result<(), TransportError> {
        Err(TransportError::NoVectors)
    }

    fn isr_status(&self) -> IsrStatus {
        IsrStatus::acknowledged(
            self.register(register::INTERRUPT_STATUS),
            self.register(register::INTERRUPT_ACK),
        )
    }

    fn config_generation(&self) -> u32 {
        match self.version {
            Version::V1 => 0,
            Version::V2 => self.read(register::CONFIG_GENERATION),
        }
    }

    fn read_config(&self, offset: u16, width: u8, into: &mut [u8]) -> Result<(), TransportError> {
        super::read_config_memory(&self.config(), offset, width, into)
    }

    fn write_config(&mut self, offset: u16, width: u8, from: &[u8]) -> Result<(), TransportError> {
        super::write_config_memory(&self.config(), offset, width, from)
    }
}

/// Why a region is no virtio-mmio device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeError {
    /// The region is too short for the registers, or not aligned to 4 bytes.
    Region {
        /// Its length in bytes.
        len: usize,
    },
    /// `MagicValue` is not "virt".
    Magic {
        /// What it is.
        magic: u32,
    },
    /// `Version` is neither 1 nor 2.
    Version {
        /// What it is.
        version: u32,
    },
    /// `DeviceID` is no device type.
    DeviceId {
        /// What it is.
        id: u32,
    },
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Region { len } => {
                write!(
                    f,
                    "a region of {len} bytes cannot hold the virtio-mmio registers"
                )
            }
            Self::Magic { magic } => {
                write!(f, "no virtio-mmio device: the magic value is {magic:#010x}")
            }
            Self::Version { version } => {
                write!(f, "virtio-mmio version {version} is neither 1 nor 2")
            }
            Self::DeviceId { id } => write!(f, "virtio-mmio device ID {id:#x} is no device type"),
        }
    }
}

impl core::error::Error for ProbeError {}

#[cfg(test)]
mod tests;
