//! Disks that come and go in slots of PCI Express, while requests are in flight.
//!
//! The host has a disk that can be taken out, and an empty slot for another. Its
//! ports do hot-plug by themselves; where ACPI does it instead there is neither.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use doorbell_kernel::drive::{self, Mode};
use doorbell_kernel::machine::Machine;
use doorbell_tests::{Runner, ensure};

use self::bay::Bay;
use self::removal::{Case, Removal};
use crate::session::{self, path_name};
use crate::witness::Witness;
use crate::{blk, machine as checks};

mod bay;
mod removal;

pub(crate) fn run(runner: &mut Runner<'_>, machine: &mut Machine, witness: &Witness) {
    let (mut full, mut empty) = match bay::find(machine, witness) {
        Ok(bays) => bays,
        Err(stop) => return runner.run("hotplug", || Err(stop)),
    };
    let before = runner.failed();
    let mut last = String::new();
    for case in cases(machine, &full) {
        let (removal, way, mode) = (case.removal.name(), path_name(case.way), case.mode.name());
        let name = format!("hotplug/{}/{removal}/{way}/{mode}", full.id);
        runner.run(format_args!("{name}/is taken out"), || {
            case.run(&mut full, machine, witness)?;
            full.scan(machine)?;
            let left = full.disk(machine).map(|unit| unit.place);
            ensure!(left.is_none(), "{left:?} is still there");
            Ok(())
        });
        put_in(runner, &name, &mut full, machine, witness);
        if runner.failed() > before {
            // The next would only fail as well.
            return;
        }
        last = name;
    }
    every_path(runner, &last, &full, machine, witness);
    let name = format!("hotplug/{}", empty.id);
    put_in(runner, &name, &mut empty, machine, witness);
    every_path(runner, &name, &empty, machine, witness);
}

/// Each kind of removal in each mode, over one way after the other.
fn cases(machine: &Machine, bay: &Bay) -> Vec<Case> {
    let Some(unit) = bay.disk(machine) else {
        return Vec::new();
    };
    let ways = drive::ways(machine, &unit).into_iter();
    let ways: Vec<_> = ways.filter(|(_, usable)| usable.is_ok()).collect();
    let mut cases = Vec::new();
    for (n, removal) in Removal::ALL.into_iter().enumerate() {
        for (m, mode) in Mode::ALL.into_iter().enumerate() {
            if let Some(&(way, _)) = ways.get((n + m) % ways.len().max(1)) {
                cases.push(Case { removal, way, mode });
            }
        }
    }
    cases
}

fn put_in(
    runner: &mut Runner<'_>,
    name: &str,
    bay: &mut Bay,
    machine: &mut Machine,
    witness: &Witness,
) {
    runner.run(format_args!("{name}/is put in"), || {
        bay.put_in(machine, witness)?;
        ensure!(bay.disk(machine).is_some(), "it is not found");
        machine.pci.as_ref().map_or(Ok(()), checks::addresses)?;
        witness.pci(machine);
        Ok(())
    });
}

/// Drives a disk that was put in over all its ways, in all modes.
fn every_path(
    runner: &mut Runner<'_>,
    name: &str,
    bay: &Bay,
    machine: &Machine,
    witness: &Witness,
) {
    let Some(unit) = bay.disk(machine) else {
        return;
    };
    let name = format!("{name}/");
    for way in drive::ways(machine, &unit) {
        session::each(runner, machine, &unit, &name, way, witness, blk::test);
    }
}
