//! The machine itself: memory, PCI, what was assigned.

use alloc::vec::Vec;

use doorbell::pci::{AddressRange, Space, WindowKind, capabilities};
use doorbell_boot::RegionKind;
use doorbell_kernel::machine::{Machine, Pci};
use doorbell_kernel::platform::memory;
use doorbell_tests::{Outcome, Runner, ensure, skip};

pub(crate) fn run(runner: &mut Runner<'_>, machine: &Machine) {
    runner.run("machine/no problems", || match machine.problems.first() {
        Some((what, message)) => Err(doorbell_tests::Stop::failed(alloc::format!(
            "{what}: {message}"
        ))),
        None => Ok(()),
    });
    runner.run("machine/the heap is in RAM and outside the image", || {
        heap(machine)
    });
    let Some(pci) = &machine.pci else {
        runner.run("pci", || skip!("there is no PCI on this machine"));
        return;
    };
    runner.run("pci/every BAR has an address or a reason", || bars(pci));
    runner.run("pci/nothing overlaps", || overlaps(pci));
    runner.run("pci/all is inside its bridge's windows", || inside(pci));
    runner.run("pci/extended capabilities", || extended(pci));
}

fn heap(machine: &Machine) -> Outcome {
    let pages = memory::Pages::new(2)?;
    let range = pages.physical()..pages.physical() + pages.size() as u64;
    let mut ram = machine
        .boot
        .memory_map()
        .filter(|region| region.kind == RegionKind::Ram);
    let in_ram = ram.any(|region| {
        region.range().contains(&range.start) && region.range().contains(&(range.end - 1))
    });
    ensure!(in_ram, "{range:#x?} is not in RAM");
    let image = machine.boot.image();
    let apart = range.end <= image.start || image.end <= range.start;
    ensure!(apart, "{range:#x?} is inside the image {image:#x?}");
    Ok(())
}

/// All three of what was assigned.
pub(crate) fn addresses(pci: &Pci) -> Outcome {
    bars(pci)?;
    overlaps(pci)?;
    inside(pci)
}

fn bars(pci: &Pci) -> Outcome {
    for function in &pci.functions {
        for bar in function.bars.iter().flatten() {
            ensure!(
                bar.address.is_some() != bar.reason.is_some(),
                "{} BAR{}: address {:?}, reason {:?}",
                function.address,
                bar.index,
                bar.address,
                bar.reason
            );
        }
    }
    Ok(())
}

/// Every assigned range: the space, the range, and the index of its function.
fn ranges(pci: &Pci) -> Vec<(Space, AddressRange, usize)> {
    let functions = pci.functions.iter().enumerate();
    functions
        .flat_map(|(index, function)| {
            let bars = function.bars.iter().flatten();
            bars.filter_map(move |bar| Some((bar.kind.space(), bar.range()?, index)))
        })
        .collect()
}

fn overlaps(pci: &Pci) -> Outcome {
    let ranges = ranges(pci);
    for (position, (space, range, index)) in ranges.iter().enumerate() {
        for (other_space, other, other_index) in &ranges[position + 1..] {
            ensure!(
                space != other_space || !range.overlaps(*other),
                "{range} of {} and {other} of {}",
                pci.functions[*index].address,
                pci.functions[*other_index].address
            );
        }
    }
    Ok(())
}

fn inside(pci: &Pci) -> Outcome {
    for (space, range, index) in ranges(pci) {
        let Some(parent) = pci.functions[index].parent else {
            continue;
        };
        let Some(bridge) = pci.functions[parent].bridge() else {
            continue;
        };
        let kinds = WindowKind::ALL
            .into_iter()
            .filter(|kind| kind.space() == space);
        let mut windows = kinds.filter_map(|kind| bridge.window(kind).range);
        ensure!(
            windows.any(|window| window.contains(range)),
            "{range} of {} is in no window of {}",
            pci.functions[index].address,
            pci.functions[parent].address
        );
    }
    Ok(())
}

/// Root ports have capabilities behind the first 256 bytes; only ECAM reaches
/// them.
fn extended(pci: &Pci) -> Outcome {
    if pci.config.size() <= 256 {
        skip!(
            "{} does not reach the extended capabilities",
            pci.config.method()
        );
    }
    let ports = pci
        .functions
        .iter()
        .filter(|function| function.port.is_some());
    let mut found = 0;
    let mut express = 0;
    for function in ports {
        express += 1;
        for capability in capabilities::extended(pci.config, function.address) {
            ensure!(
                capability?.offset >= 0x100,
                "{}: inside the first 256 bytes",
                function.address
            );
            found += 1;
        }
    }
    if express == 0 {
        skip!("there is no PCI Express function");
    }
    ensure!(
        found > 0,
        "{express} PCI Express functions, and no extended capability"
    );
    Ok(())
}
