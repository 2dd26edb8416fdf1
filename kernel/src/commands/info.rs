//! `info`: the machine, as the kernel sees it.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::Command;
use crate::arch::cpu;
use crate::drive;
use crate::machine::{Machine, Pci};
use crate::platform::memory;
use crate::platform::routing::RouteError;
use crate::println;

/// Prints what is known of the machine.
pub(super) const COMMAND: Command = Command {
    name: "info",
    usage: "",
    about: "shows memory, ACPI tables, the clock, interrupts",
    defaults: &[],
    parse: |arguments| {
        arguments.none()?;
        Ok(Box::new(|machine| {
            print(machine);
            0
        }))
    },
};

fn print(machine: &Machine) {
    let brand = cpu::brand();
    println!(
        "CPU: {}",
        brand.as_ref().map_or("unnamed", |brand| brand.as_str())
    );
    match machine.clock.frequency {
        Some(frequency) => println!("TSC: {} Hz, by {}", frequency.hz, frequency.source),
        None => println!("TSC: of unknown frequency"),
    }
    println!("Memory map:");
    for region in machine.boot.memory_map() {
        println!("  {region}");
    }
    let heap = memory::heap_use();
    println!(
        "Heap: {} KiB, {} KiB free",
        heap.size / 1024,
        heap.free / 1024
    );
    let tables: Vec<String> = machine
        .acpi
        .tables
        .iter()
        .map(|name| name.escape_ascii().to_string())
        .collect();
    println!(
        "ACPI tables: {}",
        if tables.is_empty() {
            "none".into()
        } else {
            tables.join(" ")
        }
    );
    match &machine.pci {
        Some(pci) => println!(
            "PCI: {} functions through {}; BARs: {} kept, {} assigned, {} without an address",
            pci.functions.len(),
            pci.config.method().to_uppercase(),
            pci.assignment.kept,
            pci.assignment.assigned,
            pci.assignment.without,
        ),
        None => println!("PCI: none"),
    }
    println!("virtio-mmio: {} places announced", machine.mmio.len());
    interrupts(machine);
}

fn interrupts(machine: &Machine) {
    let Some(interrupts) = &machine.interrupts else {
        println!("Interrupts: none");
        return;
    };
    println!("Local APIC: {}", interrupts.local_apic());
    match machine.clock.frequency {
        Some(frequency) => match interrupts.timer_hz(frequency.hz) {
            Some(hz) => println!("Local APIC timer: {hz} Hz"),
            None => println!("Local APIC timer: stands still"),
        },
        None => println!("Local APIC timer: of unknown frequency"),
    }
    let io_apics = interrupts.io_apics();
    if io_apics.is_empty() {
        println!("IO-APIC: none");
    }
    for io_apic in io_apics {
        println!("IO-APIC {io_apic}");
    }
    if let Some(pci) = &machine.pci {
        println!("INTx: {}", routing(pci));
    }
    for unit in drive::units(machine).0 {
        let line = match drive::line(machine, &unit) {
            Ok(gsi) => gsi.to_string(),
            Err(reason) => reason,
        };
        println!("  {} {}: {line}", unit.at(), unit.name());
    }
    let counts = interrupts.counts();
    println!(
        "Interrupts of no device: {} stray, {} spurious, {} unclaimed, {} of the timer",
        counts.strays, counts.spurious, counts.unclaimed, counts.timer
    );
    for gsi in interrupts.masked() {
        println!("{gsi} is masked: nobody claimed its interrupts");
    }
}

/// Who says where interrupt pins lead, and of how many functions.
fn routing(pci: &Pci) -> String {
    let mut origins: Vec<(String, usize)> = Vec::new();
    for route in &pci.routes {
        let origin = match route {
            Ok(route) => format!("by {}", route.origin),
            Err(RouteError::NoPin) => "without a pin".into(),
            Err(_) => "unknown".into(),
        };
        match origins.iter_mut().find(|(own, _)| *own == origin) {
            Some((_, count)) => *count += 1,
            None => origins.push((origin, 1)),
        }
    }
    let parts = origins
        .iter()
        .map(|(origin, count)| format!("{count} {origin}"));
    parts.collect::<Vec<_>>().join(", ")
}
