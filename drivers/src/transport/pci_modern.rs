//! The PCI interface of virtio 1.0 and later: structures in memory BARs, and a
//! choice of doorbells (virtio 1.2, 4.1.4).

use core::fmt;

use virtio_spec::DeviceStatus;
use virtio_spec::pci::{
    CommonCfg, CommonCfgVolatileFieldAccess as _, CommonCfgVolatileWideFieldAccess as _,
};
use virtio_spec::{le16, le32, le64};
use volatile::VolatilePtr;

use super::pci::{NotifyStructure, PciError, Structure, Structures};
use super::{
    Interface, Interrupt, IsrStatus, NO_VECTOR, Notifier, NotifyPath, QueueSize, RingAddresses,
    RingLayout, Transport, TransportError,
};
use crate::mmio::{MapMmio, MmioRegion, Registers};
use crate::pci::{ConfigSpace, Function};
use crate::port::{IoRegion, IoSpace};
use crate::virtio::{Features, Wait};

/// Length of the common configuration up to and with `queue_device`: what every
/// device of virtio 1.0 has.
const COMMON_LEN: u64 = 56;

/// Length up to and with `queue_reset`, which devices have that offer
/// VIRTIO_F_RING_RESET (4.1.4.3).
const COMMON_LEN_QUEUE_RESET: u64 = 60;

/// Which of a device's doorbells to ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyChoice {
    /// The first in the device's order of preference that can be used: one in
    /// an IO BAR without an address is passed over (4.1.4.4).
    Preferred,
    /// The first in a memory BAR.
    Memory,
    /// The first in an IO BAR.
    Io,
    /// The one with this number in the device's order of preference, from 0.
    Nth(usize),
    /// The window in configuration space (4.1.4.9), onto the first doorbell in a
    /// memory BAR. It rings one queue.
    ConfigWindow,
}

/// A device driven through the interface of virtio 1.0 and later. `S` is the IO
/// space that holds its IO BAR's doorbells, `C` the configuration space.
pub struct PciModern<S, C> {
    common: Registers<CommonCfg>,
    /// Length of the common configuration, as the device has it, in bytes.
    common_len: u64,
    isr: Registers<u8>,
    device: Option<MmioRegion>,
    doorbells: Doorbells<S, C>,
    device_type: u16,
}

/// Where the doorbells are.
enum Doorbells<S, C> {
    Memory {
        region: MmioRegion,
        multiplier: u32,
    },
    Io {
        region: IoRegion<S>,
        multiplier: u32,
    },
    Window(Window<C>),
}

/// The configuration access capability, as a way to ring.
struct Window<C> {
    config: C,
    function: pci_types::PciAddress,
    /// Offset of the capability in configuration space.
    capability: u16,
    target: NotifyStructure,
    /// The doorbell that the window is set to.
    rings: Option<u32>,
}

impl<S, C> fmt::Debug for PciModern<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device_type = &self.device_type;
        f.debug_struct("PciModern")
            .field("device_type", device_type)
            .finish_non_exhaustive()
    }
}

impl<S: IoSpace, C: ConfigSpace> PciModern<S, C> {
    /// The modern interface of `function`, with the doorbells that `notify`
    /// chooses among `structures`.
    ///
    /// # Errors
    ///
    /// [`PciError`] that names the structure or BAR that is missing, unassigned,
    /// malformed, or cannot be mapped.
    ///
    /// # Safety
    ///
    /// The function is the caller's, its BARs are as `function` says, decoding of
    /// memory (and of IO, for [`NotifyChoice::Io`]) and bus mastering are on, and
    /// all stay so.
    pub unsafe fn new(
        function: &Function,
        structures: &Structures,
        config: C,
        io: S,
        mapper: &impl MapMmio,
        notify: NotifyChoice,
    ) -> Result<Self, PciError> {
        let device_type = super::pci::device_type(function).ok_or(PciError::NotVirtio {
            vendor: function.vendor,
            device: function.device,
        })?;
        let map = |at: Structure| {
            // SAFETY: the caller owns the function and its BARs.
            unsafe { map_structure(function, at, mapper) }
        };
        let missing = |kind| PciError::NoStructure { kind };

        let at = structures.common.ok_or(missing("common configuration"))?;
        let malformed = PciError::Malformed {
            kind: "common configuration",
            at,
        };
        let common_len = u64::from(at.length);
        if common_len < COMMON_LEN {
            return Err(malformed);
        }
        // The definition has fields that later versions append; they are behind
        // features that are not negotiated. What is mapped is a whole BAR.
        let common = map(Structure {
            length: size_of::<CommonCfg>() as u32,
            ..at
        })?
        .registers(0)
        .ok_or(malformed)?;

        let at = structures.isr.ok_or(missing("ISR status"))?;
        let isr = map(at)?.registers(0).ok_or(PciError::Malformed {
            kind: "ISR status",
            at,
        })?;
        let device = structures.device.map(map).transpose()?;

        let doorbells = match choose(function, structures, notify)? {
            Chosen::Memory(NotifyStructure { at, multiplier, .. }) => Doorbells::Memory {
                region: map(at)?,
                multiplier,
            },
            Chosen::Io(NotifyStructure { at, multiplier, .. }) => {
                // SAFETY: the caller owns the function and its BARs.
                let region =
                    unsafe { super::pci::ports(function, at, "notification structure", io) }?;
                Doorbells::Io { region, multiplier }
            }
            Chosen::Window { capability, target } => Doorbells::Window(Window {
                config,
                function: function.address,
                capability,
                target,
                rings: None,
            }),
        };
        Ok(Self {
            common,
            common_len,
            isr,
            device,
            doorbells,
            device_type,
        })
    }

    fn common(&self) -> VolatilePtr<'_, CommonCfg> {
        self.common.ptr()
    }

    fn select(&self, queue: u16) {
        self.common().queue_select().write(le16::from(queue));
    }

    /// The doorbell of `queue`, whose `queue_notify_off` is `notify_off`.
    fn doorbell(&mut self, queue: u16, notify_off: u16) -> Result<Notifier, TransportError> {
        // 32 bits times 16: no overflow.
        let offset_by = |multiplier: u32| u64::from(notify_off) * u64::from(multiplier);
        match &mut self.doorbells {
            Doorbells::Memory { region, multiplier } => {
                let offset = offset_by(*multiplier);
                let len = region.len() as u64;
                let register = region
                    .registers::<u16>(offset)
                    .ok_or(TransportError::DoorbellRange { queue, offset, len })?;
                // SAFETY: mapped while the transport's BARs are (`new`), and
                // this device's doorbell.
                Ok(unsafe { Notifier::store16(register.address(), queue) })
            }
            Doorbells::Io { region, multiplier } => {
                let offset = offset_by(*multiplier);
                let len = u64::from(region.len());
                // Where IO space is a window of memory, the store has to be aligned.
                let aligned = (u64::from(region.base()) + offset).is_multiple_of(2);
                match u16::try_from(offset) {
                    Ok(port) if offset + 2 <= len && aligned => Ok(region.notifier(port, queue)),
                    _ => Err(TransportError::DoorbellRange { queue, offset, len }),
                }
            }
            Doorbells::Window(window) => {
                let offset = offset_by(window.target.multiplier);
                window.doorbell(queue, offset)
            }
        }
    }
}

/// Offsets of the fields that a driver writes in `struct virtio_pci_cfg_cap`
/// (4.1.4.9).
mod window {
    /// The dword that holds `bar`, in its lowest byte.
    pub(super) const BAR: u16 = 4;
    pub(super) const OFFSET: u16 = 8;
    pub(super) const LENGTH: u16 = 12;
    pub(super) const DATA: u16 = 16;
}

impl<C: ConfigSpace> Window<C> {
    /// Sets the window to the doorbell `offset` bytes into the target structure.
    fn doorbell(&mut self, queue: u16, offset: u64) -> Result<Notifier, TransportError> {
        let Structure {
            bar,
            offset: start,
            length,
        } = self.target.at;
        let len = u64::from(length);
        let outside = TransportError::DoorbellRange { queue, offset, len };
        if offset + 2 > len {
            return Err(outside);
        }
        // Inside the structure, whose end the capability reader found inside
        // its BAR.
        let at = u32::try_from(u64::from(start) + offset).map_err(|_| outside)?;
        // 4.1.4.9.1: a multiple of the window's length.
        if !at.is_multiple_of(2) {
            return Err(outside);
        }
        if self.rings.is_some_and(|rings| rings != at) {
            return Err(TransportError::WindowTaken { queue });
        }
        let register = |field| self.capability + field;
        // SAFETY: the function is the transport's (`PciModern::new`), and these
        // are the fields of its capability that a driver writes.
        unsafe {
            let head = self.config.read(self.function, register(window::BAR));
            self.config.write(
                self.function,
                register(window::BAR),
                head & !0xff | u32::from(bar),
            );
            self.config
                .write(self.function, register(window::OFFSET), at);
            self.config
                .write(self.function, register(window::LENGTH), 2);
        }
        self.rings = Some(at);
        // SAFETY: as above; the window stays set as long as the transport lives.
        let notifier = unsafe {
            self.config
                .notifier(self.function, register(window::DATA), queue.into())
        };
        notifier.ok_or(TransportError::NoWindow { queue })
    }
}

/// A choice of doorbells that the device can follow.
enum Chosen {
    Memory(NotifyStructure),
    Io(NotifyStructure),
    Window {
        capability: u16,
        target: NotifyStructure,
    },
}

fn choose(
    function: &Function,
    structures: &Structures,
    notify: NotifyChoice,
) -> Result<Chosen, PciError> {
    let assigned = |structure: &NotifyStructure| {
        let bar = function.bars[usize::from(structure.at.bar)].as_ref();
        bar.is_some_and(|bar| bar.address.is_some())
    };
    let in_memory = || structures.notify().find(|structure| !structure.io);
    let none = |wanted| PciError::NoNotify { wanted };
    let of = |structure: NotifyStructure| match structure.io {
        true => Chosen::Io(structure),
        false => Chosen::Memory(structure),
    };
    match notify {
        NotifyChoice::Preferred => {
            let first = structures.notify().find(assigned);
            first.map(of).ok_or(none("notification structure"))
        }
        NotifyChoice::Nth(number) => {
            let chosen = structures.notify().nth(number);
            chosen
                .map(of)
                .ok_or(none("notification structure of that number"))
        }
        NotifyChoice::Memory => in_memory()
            .map(Chosen::Memory)
            .ok_or(none("notification structure in memory")),
        NotifyChoice::Io => {
            let first = structures.notify().find(|structure| structure.io);
            first
                .map(Chosen::Io)
                .ok_or(none("notification structure in an IO BAR"))
        }
        NotifyChoice::ConfigWindow => {
            let capability = structures.window.ok_or(none("configuration window"))?;
            let target = in_memory().ok_or(none("notification structure in memory"))?;
            Ok(Chosen::Window { capability, target })
        }
    }
}

/// Maps a structure that lies in a memory BAR.
///
/// # Safety
///
/// The function and its BARs are the caller's.
unsafe fn map_structure(
    function: &Function,
    at: Structure,
    mapper: &impl MapMmio,
) -> Result<MmioRegion, PciError> {
    let (bar, address) = super::pci::assigned(function, at.bar, false)?;
    let end = u64::from(at.offset) + u64::from(at.length);
    if end > bar.size {
        return Err(PciError::Malformed {
            kind: "a structure",
            at,
        });
    }
    // SAFETY: inside a BAR of a function that is the caller's.
    Ok(unsafe { MmioRegion::map(mapper, address + u64::from(at.offset), at.length.into()) }?)
}

// SAFETY: the registers are one device's, for as long as the transport lives
// (`new`); a device that reports a finished reset accesses nothing (2.4.1);
// addresses are written last, and then read back.
unsafe impl<S: IoSpace, C: ConfigSpace> Transport for PciModern<S, C> {
    fn interface(&self) -> Interface {
        Interface::PciModern
    }

    fn notify_path(&self) -> NotifyPath {
        match self.doorbells {
            Doorbells::Memory { .. } => NotifyPath::Mmio,
            Doorbells::Io { .. } => NotifyPath::Pio,
            Doorbells::Window(_) => NotifyPath::PciCfg,
        }
    }

    fn device_type(&self) -> u16 {
        self.device_type
    }

    fn status(&self) -> DeviceStatus {
        self.common().device_status().read()
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.common().device_status().write(status);
    }

    fn device_features(&mut self) -> Features {
        let common = self.common();
        common.device_feature_select().write(le32::from(1));
        let high = u32::from(common.device_feature().read());
        common.device_feature_select().write(le32::from(0));
        let low = u32::from(common.device_feature().read());
        Features::from_bits_retain(u64::from(high) << 32 | u64::from(low))
    }

    fn accept_features(&mut self, features: Features) -> Result<(), TransportError> {
        let common = self.common();
        common.driver_feature_select().write(le32::from(1));
        common
            .driver_feature()
            .write(le32::from((features.bits() >> 32) as u32));
        common.driver_feature_select().write(le32::from(0));
        common
            .driver_feature()
            .write(le32::from(features.bits() as u32));
        super::confirm_features(self, features)
    }

    fn queue_size(&mut self, queue: u16) -> Result<QueueSize, TransportError> {
        if queue >= u16::from(self.common().num_queues().read()) {
            return Err(TransportError::NoQueue { queue });
        }
        self.select(queue);
        match u16::from(self.common().queue_size().read()) {
            0 => Err(TransportError::NoQueue { queue }),
            max => Ok(QueueSize::UpTo(max)),
        }
    }

    fn ring_layout(&self) -> RingLayout {
        RingLayout::Separate
    }

    unsafe fn enable_queue(
        &mut self,
        queue: u16,
        size: u16,
        ring: &RingAddresses,
    ) -> Result<Notifier, TransportError> {
        self.queue_size(queue)?.check(queue, size)?;
        if u16::from(self.common().queue_enable().read()) != 0 {
            return Err(TransportError::QueueInUse { queue });
        }
        let notify_off = u16::from(self.common().queue_notify_off().read());
        let notifier = self.doorbell(queue, notify_off)?;
        let common = self.common();
        common.queue_size().write(le16::from(size));
        // Each of these is two writes of 32 bits (4.1.3.1).
        common.queue_desc().write(le64::from(ring.descriptors));
        common.queue_driver().write(le64::from(ring.driver));
        common.queue_device().write(le64::from(ring.device));
        common.queue_enable().write(le16::from(1));
        if u16::from(common.queue_enable().read()) == 1 {
            Ok(notifier)
        } else {
            Err(TransportError::QueueRefused { queue })
        }
    }

    fn reset_queue(&mut self, queue: u16, wait: &mut dyn Wait) -> Result<(), TransportError> {
        let unable = TransportError::NoQueueReset { queue };
        if self.common_len < COMMON_LEN_QUEUE_RESET {
            return Err(unable);
        }
        self.queue_size(queue)?;
        let common = self.common();
        common.queue_reset().write(le16::from(1));
        // 4.1.4.3.2: 1 until the queue is reset, and then both are 0.
        super::wait_queue_reset(queue, wait, || u16::from(common.queue_reset().read()) != 0)?;
        match u16::from(common.queue_enable().read()) {
            0 => Ok(()),
            _ => Err(unable),
        }
    }

    fn set_vector(
        &mut self,
        interrupt: Interrupt,
        vector: Option<u16>,
    ) -> Result<(), TransportError> {
        let value = le16::from(vector.unwrap_or(NO_VECTOR));
        let common = self.common();
        let found = match interrupt {
            Interrupt::ConfigChange => {
                common.config_msix_vector().write(value);
                common.config_msix_vector().read()
            }
            Interrupt::Queue(queue) => {
                self.select(queue);
                common.queue_msix_vector().write(value);
                common.queue_msix_vector().read()
            }
        };
        super::check_vector(vector, found.into())
    }

    fn isr_status(&self) -> IsrStatus {
        IsrStatus::byte(self.isr)
    }

    fn config_generation(&self) -> u32 {
        self.common().config_generation().read().into()
    }

    fn read_config(&self, offset: u16, width: u8, into: &mut [u8]) -> Result<(), TransportError> {
        match &self.device {
            Some(device) => super::read_config_memory(device, offset, width, into),
            None => super::check_config(offset, width, into.len(), 0),
        }
    }

    fn write_config(&mut self, offset: u16, width: u8, from: &[u8]) -> Result<(), TransportError> {
        match &self.device {
            Some(device) => super::write_config_memory(device, offset, width, from),
            None => super::check_config(offset, width, from.len(), 0),
        }
    }
}

#[cfg(test)]
mod tests;
