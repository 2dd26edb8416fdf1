//! `probe`: plays guests of different times and says which virtio devices work for each,
//! by which interface and doorbell, or what stops them; with IO decoding as it is, or off.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use doorbell::transport::pci::Structures;
use doorbell::transport::pci_modern::NotifyChoice;
use doorbell::transport::{Interface, NotifyPath};

use super::{Command, fail, switch};
use crate::drive::decoding::{IoOff, io_reaches};
use crate::drive::policy::{self, Face, Obstacle, Policy};
use crate::drive::{self, Mode, Unit, Way};
use crate::machine::{Machine, Pci};
use crate::println;
use crate::record::{NotifyRecord, ProbeRecord, Record, TriedRecord};

/// Tries every device as guests of different times would.
pub(super) const COMMAND: Command = Command {
    name: "probe",
    usage: "[policy=legacy-2013|modern|dual] [io=on|off]",
    about: "says which virtio devices work for guests of a policy, or of each, and why not",
    defaults: &[],
    parse: |arguments| {
        let (mut only, mut io) = (None, true);
        arguments.each(|key, value| {
            match key {
                "policy" => only = Some(Policy::parse(value)?),
                "io" => io = switch(value)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(Box::new(move |machine| {
            let policies = Policy::ALL.into_iter();
            let wanted = policies.filter(|policy| only.is_none_or(|only| only == *policy));
            wanted.map(|policy| probe(machine, policy, io)).sum()
        }))
    },
};

/// Plays a guest. The result is how many devices did not do what their registers promise.
fn probe(machine: &Machine, policy: Policy, io: bool) -> u32 {
    let off = if io { "" } else { ", with IO decoding off" };
    println!("As a guest of the policy {}{off}:", policy.name());
    let (units, problems) = drive::units(machine);
    for (place, problem) in &problems {
        let at = place.at();
        fail("virtio-mmio", format!("{at}: {problem}"));
    }
    if units.is_empty() {
        println!("There is no virtio device.");
    }
    let one = |unit| u32::from(!probe_unit(machine, unit, policy, io));
    problems.len() as u32 + units.iter().map(one).sum::<u32>()
}

/// Tries a device, and reports what came of it. A device that a policy does not take is no
/// failure; one that it took and that does not work is.
fn probe_unit(machine: &Machine, unit: &Unit, policy: Policy, io: bool) -> bool {
    let place = unit.function(machine);
    let mut record = ProbeRecord {
        policy: policy.name(),
        io,
        device: unit.name(),
        place: unit.place.clone(),
        ..ProbeRecord::default()
    };
    if let Some((pci, index)) = place {
        let function = &pci.functions[index];
        record.pci_id = Some(format!("{:04x}:{:04x}", function.vendor, function.device));
        record.revision = Some(function.revision);
        record.port = function.port.map(|port| port.to_string());
        let above = function.parent.and_then(|parent| pci.functions.get(parent));
        record.below = above.map(|above| {
            let port = above.port.map(|port| port.to_string());
            port.unwrap_or_else(|| "bridge".to_string())
        });
        let structures = Structures::read(pci.config, function).ok();
        let offers = policy::offers(function, structures.as_ref());
        record.offers = offers.into_iter().map(Face::name).collect();
    }
    let off = place.filter(|_| !io).map(|(pci, index)| {
        // SAFETY: this kernel owns all functions, and uses one at a time: until `restore`
        // this one, of which only what `io_reaches` allows.
        unsafe { IoOff::new(pci.config, &pci.functions, index) }
    });
    let off = match off.transpose() {
        Ok(off) => off,
        Err(message) => {
            fail(&format!("{} at {}", unit.name(), unit.at()), message);
            return false;
        }
    };
    if let Some(off) = &off {
        record.cleared = off.cleared().iter().map(ToString::to_string).collect();
    }
    let mut well = true;
    for face in faces(policy, place.is_some()) {
        let mut tried = TriedRecord {
            interface: face.map_or("mmio", Face::name),
            ..TriedRecord::default()
        };
        let served = way(policy, face.zip(place), &mut tried.doorbells)
            .and_then(|way| serve(machine, unit, policy, way));
        match served {
            Ok(((interface, notify), about)) => {
                (tried.works, tried.message) = (true, about);
                record.works = true;
                record.transport = Some(interface.to_string());
                record.notify = Some(notify.to_string());
            }
            Err(obstacle) => {
                tried.reason = Some(obstacle.code());
                tried.message = obstacle.to_string();
                well &= !obstacle.is_fault();
            }
        }
        record.tried.push(tried);
        if record.works {
            break;
        }
    }
    if let Some(Err(message)) = off.map(IoOff::restore) {
        fail(&format!("{} at {}", unit.name(), unit.at()), message);
        well = false;
    }
    show(&record);
    Record::Probe(record).emit();
    well
}

/// The interfaces that a policy tries; `None` stands for virtio-mmio, which has one.
fn faces(policy: Policy, on_pci: bool) -> Vec<Option<Face>> {
    match on_pci {
        true => policy.faces().iter().copied().map(Some).collect(),
        false => Vec::from([None]),
    }
}

/// The way that a policy would take over an interface, with the doorbells that it had to
/// choose from; the last part of `on_pci` is the function's number.
fn way(
    policy: Policy,
    on_pci: Option<(Face, (&Pci, usize))>,
    doorbells: &mut Vec<NotifyRecord>,
) -> Result<Way, Obstacle> {
    let Some((face, (pci, index))) = on_pci else {
        return Ok(Way::Mmio);
    };
    let function = &pci.functions[index];
    if face == Face::Legacy {
        return policy.takes_legacy(function).map(|()| Way::Legacy);
    }
    let structures = Structures::read(pci.config, function).map_err(Obstacle::Capabilities)?;
    let io = io_reaches(pci.config, &pci.functions, index);
    let found = policy::doorbells(function, &structures, io)?;
    doorbells.extend(found.iter().map(|offered| NotifyRecord {
        bar: offered.notify.at.bar,
        space: if offered.notify.io { "io" } else { "memory" },
        usable: offered.usable.is_ok(),
        reason: offered.usable.as_ref().err().map(Obstacle::code),
    }));
    let first = found.iter().position(|offered| offered.usable.is_ok());
    let first = first.ok_or(Obstacle::NoDoorbell)?;
    Ok(Way::Modern(NotifyChoice::Nth(first)))
}

/// Has the device serve a request; the answer is how it was driven, and what it did.
fn serve(
    machine: &Machine,
    unit: &Unit,
    policy: Policy,
    way: Way,
) -> Result<((Interface, NotifyPath), String), Obstacle> {
    if !unit.has_driver() {
        return Err(Obstacle::NoDriver);
    }
    unit.free().map_err(Obstacle::InUse)?;
    let opened = drive::open(machine, unit, way, Mode::Polling);
    let mut opened = opened.map_err(Obstacle::Failed)?;
    let path = opened.path();
    if way == Way::Mmio {
        policy.takes_mmio(path.0)?;
    }
    // What no device answers to reads as all ones, which is no status (2.1).
    if opened.transport.status().bits() == u8::MAX {
        let io_off = way == Way::Legacy
            && unit
                .function(machine)
                .is_some_and(|(pci, index)| !io_reaches(pci.config, &pci.functions, index));
        return Err(Obstacle::NoAnswer { io_off });
    }
    let about = drive::with_device(&mut opened, drive::FEATURES, |driven, listener| {
        let done = driven.exercise(listener);
        done.map_err(|error| error.to_string())
    });
    Ok((path, about.map_err(Obstacle::Failed)?))
}

/// Says it to people.
fn show(record: &ProbeRecord) {
    let id = match (&record.pci_id, record.revision) {
        (Some(id), Some(revision)) => format!(" [{id}], revision {revision}"),
        _ => String::new(),
    };
    println!("{} {}{id}", record.place.at(), record.device);
    for tried in &record.tried {
        for doorbell in &tried.doorbells {
            let state = doorbell.reason.unwrap_or("usable");
            let (bar, space) = (doorbell.bar, doorbell.space);
            println!("  doorbells in BAR{bar}, {space}: {state}");
        }
        match (tried.works, &record.transport, &record.notify) {
            (true, Some(transport), Some(notify)) => {
                println!("  works by {transport}, {notify}: {}", tried.message);
            }
            _ => println!("  not by {}: {}", tried.interface, tried.message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtio_mmio_is_one_interface_and_pci_has_those_of_the_policy() {
        assert_eq!(faces(Policy::Dual, false), [None]);
        let both = [Some(Face::Modern), Some(Face::Legacy)];
        assert_eq!(faces(Policy::Dual, true), both);
        assert_eq!(faces(Policy::Legacy2013, true), [Some(Face::Legacy)]);
    }

    #[test]
    fn arguments_that_make_no_sense_are_named() {
        for (word, says) in [
            ("policy=2013", "it wants legacy-2013, modern or dual"),
            ("policy", "it wants legacy-2013"),
            ("io=maybe", "it wants on or off"),
            ("iO=on", "is not an argument"),
        ] {
            let error = (COMMAND.parse)(&super::super::Arguments(Vec::from([word])));
            let error = error.err().unwrap();
            assert!(error.contains(says), "{word}: {error}");
        }
    }
}
