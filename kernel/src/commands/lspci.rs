//! `lspci`: the PCI functions, a line each; with `-v` what they decode, and which
//! BAR got nothing, and why.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use doorbell::pci::{
    Bar, Bytes, CommandRegister, ConfigSpace, Function, PciAddress, WindowKind, capabilities,
};
use doorbell::transport::pci::{self as virtio_pci, Structures};

use super::Command;
use crate::machine::{Machine, Pci};
use crate::pci_names;
use crate::platform::routing::{self, Route};
use crate::println;
use crate::record::{BarRecord, BusRecord, InterruptRecord, PciRecord, Record, WindowRecord};

/// Lists PCI functions.
pub(super) const COMMAND: Command = Command {
    name: "lspci",
    usage: "[-v] [-n]",
    about: "lists PCI functions; -v in detail, -n with numbers for names",
    defaults: &[],
    parse: |arguments| {
        let (mut verbose, mut numeric) = (false, false);
        arguments.each_flag(|key| {
            let letters = key.strip_prefix('-').unwrap_or_default();
            verbose |= letters.contains('v');
            numeric |= letters.contains('n');
            !letters.is_empty() && letters.chars().all(|letter| "vn".contains(letter))
        })?;
        Ok(Box::new(move |machine| lspci(machine, verbose, numeric)))
    },
};

fn lspci(machine: &Machine, verbose: bool, numeric: bool) -> u32 {
    let Some(pci) = &machine.pci else {
        println!("There is no PCI: neither ACPI's MCFG nor ports 0xCF8 and 0xCFC.");
        return 0;
    };
    for function in &pci.functions {
        println!("{}", line(function, numeric));
        if verbose {
            detail(pci, function);
        } else {
            shortages(function);
        }
        Record::Pci(record(pci, function)).emit();
    }
    println!(
        "{} functions through {}; BARs: {} kept, {} assigned, {} without an address",
        pci.functions.len(),
        pci.config.method().to_uppercase(),
        pci.assignment.kept,
        pci.assignment.assigned,
        pci.assignment.without,
    );
    0
}

/// The address, without the segment where that is 0, as Linux's `lspci` has it.
fn short(address: PciAddress) -> String {
    let text = address.to_string();
    text.strip_prefix("0000:")
        .map_or(text.clone(), ToString::to_string)
}

/// The line that `lspci` prints on Linux, `-nn` style: names, then numbers.
fn line(function: &Function, numeric: bool) -> String {
    let Function {
        address,
        vendor,
        device,
        class,
        subclass,
        revision,
        prog_if,
        ..
    } = function;
    let address = short(*address);
    let code = format!("{class:02x}{subclass:02x}");
    let id = format!("{vendor:04x}:{device:04x}");
    let tail = match (revision, prog_if) {
        (0, 0) => String::new(),
        (revision, 0) => format!(" (rev {revision:02x})"),
        (revision, prog_if) => format!(" (rev {revision:02x}, prog-if {prog_if:02x})"),
    };
    if numeric {
        return format!("{address} {code}: {id}{tail}");
    }
    let class = pci_names::class(function);
    let name = pci_names::device(*vendor, *device);
    let virtio = virtio_pci::device_type(function).map(|kind| format!(", virtio type {kind}"));
    format!(
        "{address} {class} [{code}]: {name} [{id}]{}{tail}",
        virtio.unwrap_or_default()
    )
}

/// The BARs that have no address, and why. Whoever only lists functions should
/// see that much.
fn shortages(function: &Function) {
    for bar in function.bars.iter().flatten() {
        if let Some(reason) = bar.reason {
            println!("    {}: {reason}", describe(bar));
        }
    }
}

fn describe(bar: &Bar) -> String {
    let prefetchable = if bar.prefetchable {
        ", prefetchable"
    } else {
        ""
    };
    format!(
        "BAR{}: {}{prefetchable}, {}",
        bar.index,
        bar.kind,
        Bytes(bar.size)
    )
}

fn detail(pci: &Pci, function: &Function) {
    let (subsystem, vendor) = (function.subsystem_device, function.subsystem_vendor);
    if vendor != 0 {
        println!("    Subsystem: {vendor:04x}:{subsystem:04x}");
    }
    println!("    Control: {}", control(function.command));
    if let Some(port) = function.port {
        println!("    PCI Express: {port}");
    }
    if let Some(pin) = pin(function) {
        let line = function.interrupt_line;
        match pci.route(function) {
            Ok(Route { gsi, origin }) => {
                println!("    Interrupt: pin {pin}, line {line}: {gsi} by {origin}");
            }
            Err(error) => println!("    Interrupt: pin {pin}, line {line}: {error}"),
        }
    }
    if let Some(bridge) = function.bridge() {
        println!(
            "    Bus: primary={:02x}, secondary={:02x}, subordinate={:02x}",
            bridge.primary, bridge.secondary, bridge.subordinate
        );
        if let Some(reason) = bridge.unnumbered {
            println!("    Not searched: {reason}");
        }
        for kind in WindowKind::ALL {
            match bridge.window(kind).range {
                Some(range) => println!("    Window {kind}: {range}"),
                None => println!("    Window {kind}: closed"),
            }
        }
    }
    for bar in function.bars.iter().flatten() {
        match (bar.address, bar.reason) {
            (Some(address), _) => println!("    {} at {address:#x}", describe(bar)),
            (None, Some(reason)) => println!("    {}: {reason}", describe(bar)),
            (None, None) => println!("    {}", describe(bar)),
        }
    }
    if let Some(size) = function.rom {
        println!("    Expansion ROM: {}, not assigned", Bytes(size));
    }
    for capability in capability_names(pci.config, function) {
        println!("    {capability}");
    }
}

/// The function's interrupt pin, by its letter.
fn pin(function: &Function) -> Option<char> {
    Some(routing::pin_name(function.interrupt_pin.checked_sub(1)?))
}

fn control(command: CommandRegister) -> String {
    let bits = [
        ("I/O", CommandRegister::IO_ENABLE),
        ("Mem", CommandRegister::MEMORY_ENABLE),
        ("BusMaster", CommandRegister::BUS_MASTER_ENABLE),
        ("DisINTx", CommandRegister::INTERRUPT_DISABLE),
    ];
    let mark = |bit| if command.contains(bit) { '+' } else { '-' };
    bits.map(|(name, bit)| format!("{name}{}", mark(bit)))
        .join(" ")
}

fn capability_names(config: &dyn ConfigSpace, function: &Function) -> Vec<String> {
    let mut lines = Vec::new();
    for capability in capabilities::standard(config, function.address) {
        match capability {
            Ok(capability) => {
                let name = pci_names::capability(capability.id);
                lines.push(format!("Capabilities: [{:02x}] {name}", capability.offset));
            }
            Err(error) => lines.push(format!("Capabilities: {error}")),
        }
    }
    for capability in capabilities::extended(config, function.address) {
        match capability {
            Ok(capability) => {
                let name = pci_names::extended_capability(capability.id);
                lines.push(format!(
                    "Capabilities: [{:03x} v{}] {name}",
                    capability.offset, capability.version
                ));
            }
            Err(error) => lines.push(format!("Capabilities: {error}")),
        }
    }
    lines.extend(virtio_lines(config, function));
    lines
}

/// Where a virtio device's structures are.
fn virtio_lines(config: &dyn ConfigSpace, function: &Function) -> Vec<String> {
    if virtio_pci::device_type(function).is_none() {
        return Vec::new();
    }
    let structures = match Structures::read(config, function) {
        Ok(structures) => structures,
        Err(_) => return Vec::new(),
    };
    let mut lines = Vec::new();
    let mut line = |kind: &str, at: virtio_pci::Structure, more: String| {
        lines.push(format!(
            "VirtIO: {kind}: BAR={} offset={:08x} size={:08x}{more}",
            at.bar, at.offset, at.length
        ));
    };
    let plain = [
        ("CommonCfg", structures.common),
        ("ISR", structures.isr),
        ("DeviceCfg", structures.device),
    ];
    for (kind, at) in plain {
        if let Some(at) = at {
            line(kind, at, String::new());
        }
    }
    for notify in structures.notify() {
        let space = if notify.io { " (I/O)" } else { "" };
        line(
            "Notify",
            notify.at,
            format!(" multiplier={:08x}{space}", notify.multiplier),
        );
    }
    if let Some(offset) = structures.window {
        lines.push(format!(
            "VirtIO: PCI configuration access at [{offset:02x}]"
        ));
    }
    lines
}

/// The record of a function.
pub fn record(pci: &Pci, function: &Function) -> PciRecord {
    let route = pci.route(function).ok();
    let bars = function.bars.iter().flatten().map(|bar| BarRecord {
        bar: bar.index,
        kind: bar.kind.to_string(),
        prefetchable: bar.prefetchable,
        size: bar.size,
        address: bar.address.map(|address| format!("{address:#x}")),
        reason: bar.reason.map(|reason| reason.to_string()),
    });
    let bridge = function.bridge();
    let windows = bridge.into_iter().flat_map(|bridge| {
        WindowKind::ALL.into_iter().filter_map(|kind| {
            let range = bridge.window(kind).range?;
            Some(WindowRecord {
                kind: kind.to_string(),
                base: format!("{:#x}", range.first),
                limit: format!("{:#x}", range.last),
            })
        })
    });
    let standard = capabilities::standard(pci.config, function.address).flatten();
    let standard = standard.map(|capability| format!("{:02x}", capability.id));
    let extended = capabilities::extended(pci.config, function.address).flatten();
    let extended = extended.map(|capability| format!("{:#06x}", capability.id));
    PciRecord {
        bdf: function.address.to_string(),
        vendor: format!("{:04x}", function.vendor),
        device: format!("{:04x}", function.device),
        subsystem_vendor: format!("{:04x}", function.subsystem_vendor),
        subsystem: format!("{:04x}", function.subsystem_device),
        class: format!(
            "{:02x}{:02x}{:02x}",
            function.class, function.subclass, function.prog_if
        ),
        revision: function.revision,
        header: function.header.to_string(),
        port: function.port.map(|port| port.to_string()),
        access: pci.config.method(),
        command: pci.config.command(function.address).bits(),
        bars: bars.collect(),
        bus: bridge.map(|bridge| BusRecord {
            primary: bridge.primary,
            secondary: bridge.secondary,
            subordinate: bridge.subordinate,
            reason: bridge.unnumbered.map(|reason| reason.to_string()),
        }),
        windows: windows.collect(),
        interrupt: pin(function).map(|pin| InterruptRecord {
            pin,
            line: function.interrupt_line,
            gsi: route.map(|route| route.gsi.number),
            by: route.map(|route| route.origin.to_string()),
        }),
        capabilities: standard.chain(extended).collect(),
    }
}
