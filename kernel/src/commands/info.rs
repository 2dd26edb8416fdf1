//! `info`: the machine, as the kernel sees it.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::Command;
use crate::arch::cpu;
use crate::machine::Machine;
use crate::platform::memory;
use crate::println;

/// Prints what is known of the machine.
pub(super) const COMMAND: Command = Command {
    name: "info",
    usage: "",
    about: "shows memory, ACPI tables, the clock",
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
}
