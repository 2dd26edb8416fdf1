//! The virtio devices of the machine, and the ways to drive each of them.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use doorbell::device::blk::{self, Blk, Request};
use doorbell::device::rng::{self, Rng};
use doorbell::device::{DeviceError, Driver as _, Setup};
use doorbell::dma::DmaRegion;
use doorbell::mmio::MmioRegion;
use doorbell::port::X86Ports;
use doorbell::queue::{QueueMut, SplitRing};
use doorbell::transport::mmio::Mmio;
use doorbell::transport::pci::{self as virtio_pci, Structures};
use doorbell::transport::pci_legacy::{self, PciLegacy};
use doorbell::transport::pci_modern::{NotifyChoice, PciModern};
use doorbell::transport::{Interface, NotifyPath, Transport};
use doorbell::virtio::Features;

use crate::clock::Clock;
use crate::machine::Machine;
use crate::platform::dma::{KernelDma, KernelMmio};
use crate::platform::virtio_mmio::Slot;
use crate::record::{DeviceRecord, Place, QueueRecord};

/// The generic features that this kernel's drivers use.
pub const FEATURES: Features = Features::INDIRECT_DESC.union(Features::EVENT_IDX);

/// What is accepted beside that: addresses that go through a platform's IOMMU
/// are this platform's physical ones, since the kernel leaves an IOMMU alone.
const PLATFORM: Features = Features::ACCESS_PLATFORM;

/// The queue size that is asked for where the interface leaves a choice.
const QUEUE_SIZE: u16 = 256;

/// Bytes that one request for entropy asks for.
const ENTROPY: usize = 16;

/// A virtio device.
#[derive(Clone, Debug)]
pub struct Unit {
    /// Where it is.
    pub place: Place,
    /// Its type (virtio 1.2, section 5).
    pub device_type: u16,
    location: Location,
}

#[derive(Clone, Debug)]
enum Location {
    /// The function's index.
    Pci(usize),
    Mmio(Slot),
}

/// An interface and a way to ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Legacy registers and doorbell in an IO BAR.
    Legacy,
    /// Structures in memory BARs, and this doorbell.
    Modern(NotifyChoice),
    /// virtio-mmio, of the device's version.
    Mmio,
}

impl Unit {
    /// The device type's name, as QEMU has it.
    pub fn name(&self) -> String {
        match self.device_type {
            1 => "virtio-net".into(),
            blk::DEVICE_TYPE => "virtio-blk".into(),
            3 => "virtio-console".into(),
            rng::DEVICE_TYPE => "virtio-rng".into(),
            5 => "virtio-balloon".into(),
            8 => "virtio-scsi".into(),
            9 => "virtio-9p".into(),
            16 => "virtio-gpu".into(),
            18 => "virtio-input".into(),
            19 => "virtio-vsock".into(),
            other => format!("virtio type {other}"),
        }
    }

    /// Whether this kernel has a driver for it.
    pub fn has_driver(&self) -> bool {
        matches!(self.device_type, blk::DEVICE_TYPE | rng::DEVICE_TYPE)
    }

    /// Where it is, for people.
    pub fn at(&self) -> &str {
        self.place.at()
    }
}

/// All virtio devices, and for each place that should have one and has not, why.
pub fn units(machine: &Machine) -> (Vec<Unit>, Vec<(Place, String)>) {
    let mut units = Vec::new();
    let mut problems = Vec::new();
    let functions = machine
        .pci
        .iter()
        .flat_map(|pci| &pci.functions)
        .enumerate();
    for (index, function) in functions {
        if let Some(device_type) = virtio_pci::device_type(function) {
            let place = Place {
                bdf: Some(function.address.to_string()),
                mmio: None,
            };
            units.push(Unit {
                place,
                device_type,
                location: Location::Pci(index),
            });
        }
    }
    for slot in &machine.mmio {
        let place = Place {
            bdf: None,
            mmio: Some(format!("{:#x}", slot.base)),
        };
        match probe(slot) {
            Ok(Some(mmio)) => units.push(Unit {
                place,
                device_type: mmio.device_type(),
                location: Location::Mmio(*slot),
            }),
            Ok(None) => {}
            Err(error) => problems.push((place, error)),
        }
    }
    (units, problems)
}

/// The virtio-mmio device in a slot.
fn probe(slot: &Slot) -> Result<Option<Mmio>, String> {
    // SAFETY: the slot is announced as a virtio device's registers, which this
    // kernel owns.
    let region = unsafe { MmioRegion::map(&KernelMmio, slot.base, slot.len) };
    Mmio::probe(region.map_err(|error| error.to_string())?).map_err(|error| error.to_string())
}

/// The ways to drive a device: those that work, and those that its kind of
/// device should have, with the reason why it has not.
pub fn ways(machine: &Machine, unit: &Unit) -> Vec<(Way, Result<(), String>)> {
    let (Location::Pci(index), Some(pci)) = (&unit.location, &machine.pci) else {
        return [(Way::Mmio, Ok(()))].into();
    };
    let function = &pci.functions[*index];
    let mut ways = Vec::new();
    if virtio_pci::is_transitional(function) {
        let usable = pci_legacy::check(function).map_err(|error| error.to_string());
        ways.push((Way::Legacy, usable));
    }
    let structures = match Structures::read(pci.config, function) {
        Ok(structures) => structures,
        Err(error) => {
            ways.push((Way::Modern(NotifyChoice::Preferred), Err(error.to_string())));
            return ways;
        }
    };
    if structures.common.is_none() {
        return ways;
    }
    if structures.notify().any(|notify| !notify.io) {
        ways.push((Way::Modern(NotifyChoice::Memory), Ok(())));
    }
    if let Some(notify) = structures.notify().find(|notify| notify.io) {
        let assigned = virtio_pci::assigned(function, notify.at.bar, true)
            .map(drop)
            .map_err(|error| error.to_string());
        ways.push((Way::Modern(NotifyChoice::Io), assigned));
    }
    if structures.window.is_some() {
        ways.push((Way::Modern(NotifyChoice::ConfigWindow), Ok(())));
    }
    ways
}

/// Opens a device's registers by one of its ways.
///
/// # Errors
///
/// What is missing or malformed, in words.
pub fn open(machine: &Machine, unit: &Unit, way: Way) -> Result<Box<dyn Transport>, String> {
    let (index, pci) = match (&unit.location, &machine.pci) {
        (Location::Mmio(slot), _) => {
            let mmio = probe(slot)?.ok_or("the slot is empty")?;
            return Ok(Box::new(mmio));
        }
        (Location::Pci(index), Some(pci)) => (*index, pci),
        (Location::Pci(_), None) => return Err("there is no PCI".into()),
    };
    let function = &pci.functions[index];
    match way {
        Way::Legacy => {
            // SAFETY: this kernel owns the function, whose resources `assign`
            // worked out and whose decoding it switched on.
            let legacy = unsafe { PciLegacy::from_function(function, pci.config, X86Ports) };
            Ok(Box::new(legacy.map_err(|error| error.to_string())?))
        }
        Way::Modern(choice) => {
            let structures = Structures::read(pci.config, function);
            let structures = structures.map_err(|error| error.to_string())?;
            // SAFETY: this kernel owns the function, whose resources `assign`
            // worked out and whose decoding it switched on.
            let modern = unsafe {
                PciModern::new(
                    function,
                    &structures,
                    pci.config,
                    X86Ports,
                    &KernelMmio,
                    choice,
                )
            };
            Ok(Box::new(modern.map_err(|error| error.to_string())?))
        }
        Way::Mmio => Err("it is on PCI, not behind virtio-mmio".into()),
    }
}

/// A device that is up, seen as something to time: one request at a time.
pub trait Driven {
    /// Makes a request available, without ringing.
    ///
    /// # Errors
    ///
    /// As the driver's.
    fn submit(&mut self) -> Result<(), DeviceError>;

    /// Whether the request came back.
    ///
    /// # Errors
    ///
    /// As the driver's, and the request's own.
    fn reap(&mut self) -> Result<bool, DeviceError>;

    /// The queue.
    fn queue(&mut self) -> QueueMut<'_, SplitRing<KernelDma>>;

    /// The negotiated features.
    fn features(&self) -> Features;

    /// Uses the device for what it is for, without changing what it holds, and
    /// says what it is.
    ///
    /// # Errors
    ///
    /// As the driver's.
    fn exercise(&mut self, clock: &Clock) -> Result<String, DeviceError>;
}

/// Makes room for a request's buffer once, and keeps it while none is in flight.
type Spare = Option<DmaRegion<KernelDma>>;

fn spare(spare: &mut Spare, size: usize) -> Result<DmaRegion<KernelDma>, DeviceError> {
    match spare.take() {
        Some(buffer) => Ok(buffer),
        None => Ok(DmaRegion::new(
            KernelDma,
            size,
            size.next_power_of_two().min(4096),
        )?),
    }
}

struct DrivenBlk<'t> {
    blk: Blk<&'t mut dyn Transport, KernelDma>,
    spare: Spare,
}

impl Driven for DrivenBlk<'_> {
    fn submit(&mut self) -> Result<(), DeviceError> {
        // A device may refuse less than a block.
        let block = self.blk.info().block_size as usize;
        let buffer = spare(&mut self.spare, block)?;
        let submitted = self.blk.submit(Request::Read { sector: 0, buffer });
        submitted.map(drop).map_err(|(error, _)| error)
    }

    fn reap(&mut self) -> Result<bool, DeviceError> {
        let Some(done) = self.blk.poll()? else {
            return Ok(false);
        };
        self.spare = done.request.into_buffer();
        done.result.map(|()| true)
    }

    fn queue(&mut self) -> QueueMut<'_, SplitRing<KernelDma>> {
        self.blk.queue(0)
    }

    fn features(&self) -> Features {
        self.blk.features()
    }

    fn exercise(&mut self, clock: &Clock) -> Result<String, DeviceError> {
        let info = self.blk.info();
        let mut data = [0; 8 * blk::SECTOR];
        let len = data
            .len()
            .min((info.capacity as usize).saturating_mul(blk::SECTOR));
        if len > 0 {
            self.blk.read(0, &mut data[..len], &mut clock.patience())?;
        }
        let id = match self.blk.device_id(&mut clock.patience()) {
            Ok(id) => text(&id),
            Err(DeviceError::Unsupported) => String::new(),
            Err(error) => return Err(error),
        };
        match self.blk.flush(&mut clock.patience()) {
            Ok(()) | Err(DeviceError::Unsupported) => {}
            Err(error) => return Err(error),
        }
        let access = if info.read_only { ", read-only" } else { "" };
        let id = if id.is_empty() {
            "no ID".into()
        } else {
            format!("ID \"{id}\"")
        };
        Ok(format!(
            "{} sectors of 512 bytes ({} KiB), blocks of {} bytes{access}, {id}; read {len} bytes",
            info.capacity,
            info.capacity / 2,
            info.block_size,
        ))
    }
}

/// The text in a padded field, its control characters shown as `?`.
fn text(field: &[u8]) -> String {
    let text = field.split(|&byte| byte == 0).next().unwrap_or_default();
    text.iter()
        .map(|&byte| {
            if byte.is_ascii_graphic() || byte == b' ' {
                byte as char
            } else {
                '?'
            }
        })
        .collect()
}

struct DrivenRng<'t> {
    rng: Rng<&'t mut dyn Transport, KernelDma>,
    spare: Spare,
}

impl Driven for DrivenRng<'_> {
    fn submit(&mut self) -> Result<(), DeviceError> {
        let buffer = spare(&mut self.spare, ENTROPY)?;
        self.rng
            .submit(buffer)
            .map(drop)
            .map_err(|(error, _)| error)
    }

    fn reap(&mut self) -> Result<bool, DeviceError> {
        let Some(filled) = self.rng.poll()? else {
            return Ok(false);
        };
        self.spare = Some(filled.buffer);
        filled.result.map(|_| true)
    }

    fn queue(&mut self) -> QueueMut<'_, SplitRing<KernelDma>> {
        self.rng.queue(0)
    }

    fn features(&self) -> Features {
        self.rng.features()
    }

    fn exercise(&mut self, clock: &Clock) -> Result<String, DeviceError> {
        let mut bytes = [0; ENTROPY];
        self.rng.read(&mut bytes, &mut clock.patience())?;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("{ENTROPY} random bytes: {hex}"))
    }
}

/// Brings a device up over `transport`, lets `work` use it, and resets it.
///
/// # Errors
///
/// Why it did not come up, or what `work` says.
pub fn with_device<R>(
    clock: &Clock,
    transport: &mut dyn Transport,
    work: impl FnOnce(&mut dyn Driven) -> Result<R, String>,
) -> Result<R, String> {
    let wait = &mut clock.patience();
    let setup = Setup::new(QUEUE_SIZE, FEATURES | PLATFORM);
    match transport.device_type() {
        blk::DEVICE_TYPE => {
            let blk = Blk::new(transport, &setup, KernelDma, wait);
            let blk = blk.map_err(|error| error.to_string())?;
            work(&mut DrivenBlk { blk, spare: None })
        }
        rng::DEVICE_TYPE => {
            let rng = Rng::new(transport, &setup, KernelDma, wait);
            let rng = rng.map_err(|error| error.to_string())?;
            work(&mut DrivenRng { rng, spare: None })
        }
        other => Err(format!("there is no driver for device type {other}")),
    }
}

/// The record of a device that is up.
pub fn device_record(
    unit: &Unit,
    path: (Interface, NotifyPath),
    features: Features,
    queue: QueueMut<'_, SplitRing<KernelDma>>,
    about: String,
) -> DeviceRecord {
    let names = features
        .numbers()
        .map(|bit| match Features::name(bit, unit.device_type) {
            Some((prefix, name)) => format!("{prefix}{name}"),
            None => format!("bit {bit}"),
        });
    let addresses = queue.addresses();
    let queues = [QueueRecord {
        index: queue.index(),
        size: queue.size(),
        descriptors: addresses.descriptors,
        driver: addresses.driver,
        device: addresses.device,
        avail_idx: queue.ring().avail_idx(),
        used_idx: queue.ring().used_idx(),
    }];
    DeviceRecord {
        device: unit.name(),
        place: unit.place.clone(),
        transport: path.0.to_string(),
        notify: path.1.to_string(),
        features: names.collect(),
        queues: queues.into(),
        about,
    }
}
