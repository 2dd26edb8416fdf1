//! The virtio devices of the machine, and the ways to drive each of them.
//!
//! A [`Unit`] is a device, a [`Way`] an interface and a doorbell, and a [`Mode`]
//! how the kernel hears from it. [`open`] takes all three; [`with_device`] brings
//! the device up by what it is, as a [`Driven`].

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use doorbell::device::{balloon, blk, console, net, rng};
use doorbell::mmio::MmioRegion;
use doorbell::pci::PciAddress;
use doorbell::port::X86Ports;
use doorbell::transport::mmio::Mmio;
use doorbell::transport::pci::{self as virtio_pci, Structures};
use doorbell::transport::pci_legacy::{self, PciLegacy};
use doorbell::transport::pci_modern::{NotifyChoice, PciModern};
use doorbell::transport::{Interface, NotifyPath, Transport};

use crate::machine::{Machine, Pci};
use crate::platform::dma::KernelMmio;
use crate::platform::virtio_mmio::Slot;
use crate::record::Place;

mod ballooning;
pub mod decoding;
mod disk;
mod driven;
mod entropy;
mod listen;
mod network;
pub mod policy;
mod reserve;
mod serial;

pub use driven::{Driven, FEATURES, device_record, doorbells, with_device};
pub use listen::{Listener, Mode, Patience, line, modes};
pub use reserve::{Reserved, reserve};

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
        type_name(self.device_type)
    }

    /// Whether this kernel has a driver for it.
    pub fn has_driver(&self) -> bool {
        driven::has_driver(self.device_type)
    }

    /// Its PCI function, if it is on PCI.
    pub fn address(&self, machine: &Machine) -> Option<PciAddress> {
        let (pci, index) = self.function(machine)?;
        Some(pci.functions[index].address)
    }

    /// The number of its PCI function among [`Pci::functions`], if it is on PCI.
    pub fn function<'m>(&self, machine: &'m Machine) -> Option<(&'m Pci, usize)> {
        match (&self.location, &machine.pci) {
            (Location::Pci(index), Some(pci)) => Some((pci, *index)),
            _ => None,
        }
    }

    /// Whether it is free to be opened.
    ///
    /// # Errors
    ///
    /// Who is on it, in words.
    pub fn free(&self) -> Result<(), String> {
        reserve::check(self)
    }

    /// Where it is, for people.
    pub fn at(&self) -> &str {
        self.place.at()
    }
}

/// A device type's name, as QEMU has it.
pub fn type_name(device_type: u16) -> String {
    match device_type {
        net::DEVICE_TYPE => "virtio-net".into(),
        blk::DEVICE_TYPE => "virtio-blk".into(),
        console::DEVICE_TYPE => "virtio-console".into(),
        rng::DEVICE_TYPE => "virtio-rng".into(),
        balloon::DEVICE_TYPE => "virtio-balloon".into(),
        8 => "virtio-scsi".into(),
        9 => "virtio-9p".into(),
        16 => "virtio-gpu".into(),
        18 => "virtio-input".into(),
        19 => "virtio-vsock".into(),
        25 => "virtio-sound".into(),
        other => format!("virtio type {other}"),
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
/// device should have, with the reason why it has not. Of a device that is
/// [reserved](reserve) none works.
pub fn ways(machine: &Machine, unit: &Unit) -> Vec<(Way, Result<(), String>)> {
    let mut ways = interfaces(machine, unit);
    if let Err(reason) = reserve::check(unit) {
        for (_, usable) in &mut ways {
            *usable = Err(reason.clone());
        }
    }
    ways
}

/// The ways that the device itself has.
fn interfaces(machine: &Machine, unit: &Unit) -> Vec<(Way, Result<(), String>)> {
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
        let usable = if driven::has_queues(unit.device_type) {
            Err("the configuration window rings one queue, and this needs several".to_string())
        } else {
            Ok(())
        };
        ways.push((Way::Modern(NotifyChoice::ConfigWindow), usable));
    }
    ways
}

/// A device's registers, opened by one of its ways, and how the kernel hears from
/// it.
pub struct Opened<'m> {
    /// The registers. They go first: a legacy interface's move when MSI-X does.
    pub transport: Box<dyn Transport>,
    /// How the device is heard.
    pub listener: Listener<'m>,
}

impl Opened<'_> {
    /// The interface and the way to ring, for reports.
    pub fn path(&self) -> (Interface, NotifyPath) {
        (self.transport.interface(), self.transport.notify_path())
    }
}

/// Opens a device by one of its ways, to hear from it by `mode`.
///
/// # Errors
///
/// What is missing or malformed, in words.
pub fn open<'m>(
    machine: &'m Machine,
    unit: &Unit,
    way: Way,
    mode: Mode,
) -> Result<Opened<'m>, String> {
    reserve::check(unit)?;
    // MSI-X moves a legacy interface's registers, so it is on before that is made.
    let mut listener = Listener::new(machine, unit, mode)?;
    let transport = registers(machine, unit, way)?;
    listener.attach(machine, unit, &*transport)?;
    Ok(Opened {
        transport,
        listener,
    })
}

/// A device's registers.
fn registers(machine: &Machine, unit: &Unit, way: Way) -> Result<Box<dyn Transport>, String> {
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
            // worked out and whose decoding it switched on; where `decoding` has
            // switched it off, nobody else has its ports.
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
