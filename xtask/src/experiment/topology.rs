//! Where an experiment's devices are: the bridges and ports that a placement needs, as
//! arguments for QEMU.

use anyhow::{Result, bail};

use crate::qemu::Machine;

/// Functions in a slot.
const FUNCTIONS: usize = 8;
/// Slots of a conventional bus behind a bridge that devices can have: slot 0 is left to a
/// bridge's own hot-plug controller.
const SLOTS: usize = 31;
/// Ports of a switch that devices can be behind.
const SWITCH_PORTS: usize = 32;

/// Where a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// On the root bus: a root complex integrated endpoint on PCI Express, or a device on
    /// the bus of conventional PCI; on microvm behind virtio-mmio.
    Root,
    /// Behind a root port of its own.
    RootPort,
    /// Behind a switch's downstream port of its own.
    Switch,
    /// On a conventional bus, up to 31 devices on each, behind a PCIe-to-PCI bridge.
    PciePciBridge,
    /// On a conventional bus, up to 31 devices on each, behind a PCI-to-PCI bridge.
    PciBridge,
}

/// The placements' names in an experiment's file.
pub(crate) const PLACEMENTS: [(&str, Placement); 5] = [
    ("root", Placement::Root),
    ("root-port", Placement::RootPort),
    ("switch", Placement::Switch),
    ("pcie-pci-bridge", Placement::PciePciBridge),
    ("pci-bridge", Placement::PciBridge),
];

impl Placement {
    /// The placement of this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let found = PLACEMENTS.iter().find(|(known, _)| *known == name);
        found.map(|(_, placement)| *placement)
    }
}

/// So many devices of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Devices {
    /// Model and properties.
    pub(crate) qemu: String,
    pub(crate) placement: Placement,
    pub(crate) count: usize,
}

/// QEMU's arguments for the devices, with the bridges before them.
///
/// # Errors
/// When the machine has no such place.
pub(crate) fn arguments(machine: Machine, devices: &[Devices]) -> Result<Vec<String>> {
    let mut places = Places {
        machine,
        bridges: 0,
        ports: 0,
        line: Vec::new(),
    };
    let mut number = 0;
    for Devices {
        qemu,
        placement,
        count,
    } in devices
    {
        for index in 0..*count {
            let bus = places.bus(*placement, index)?;
            places.add(format!("{qemu},id=device{number}{bus}"));
            number += 1;
        }
    }
    Ok(places.line)
}

struct Places {
    machine: Machine,
    /// Bridges and switches so far.
    bridges: usize,
    /// Root ports so far.
    ports: usize,
    line: Vec<String>,
}

impl Places {
    fn add(&mut self, device: String) {
        self.line.extend(["-device".to_owned(), device]);
    }

    /// The `bus` property of device `index` of those with this placement; makes what leads
    /// there.
    fn bus(&mut self, placement: Placement, index: usize) -> Result<String> {
        let express = self.machine == Machine::Q35;
        match (placement, self.machine) {
            (Placement::Root, Machine::Microvm) => return Ok(String::new()),
            (Placement::Root, Machine::Q35) => return Ok(",bus=pcie.0".into()),
            (Placement::Root, Machine::Pc) => return Ok(",bus=pci.0".into()),
            (_, Machine::Microvm) => bail!("microvm has no PCI"),
            (Placement::PciBridge, _) => {}
            (_, Machine::Pc) => bail!("pc has no PCI Express"),
            _ => {}
        }
        match placement {
            Placement::Root => {}
            Placement::RootPort => {
                let port = self.root_port();
                return Ok(format!(",bus={port}"));
            }
            Placement::Switch => {
                let at = index % SWITCH_PORTS;
                if at == 0 {
                    let port = self.root_port();
                    self.bridges += 1;
                    let n = self.bridges;
                    self.add(format!("x3130-upstream,id=switch{n},bus={port}"));
                }
                let n = self.bridges;
                let port = format!("down{n}-{at}");
                self.add(format!(
                    "xio3130-downstream,id={port},bus=switch{n},chassis={},slot={at}",
                    100 + n
                ));
                return Ok(format!(",bus={port}"));
            }
            Placement::PciePciBridge | Placement::PciBridge if index.is_multiple_of(SLOTS) => {
                self.bridges += 1;
                let n = self.bridges;
                let bridge = match placement {
                    Placement::PciePciBridge => {
                        let port = self.root_port();
                        format!("pcie-pci-bridge,id=bridge{n},bus={port}")
                    }
                    // On q35 such a bridge sits where an integrated endpoint may.
                    _ => {
                        let bus = if express { "pcie.0" } else { "pci.0" };
                        format!("pci-bridge,id=bridge{n},bus={bus},chassis_nr={n},shpc=off")
                    }
                };
                self.add(bridge);
            }
            Placement::PciePciBridge | Placement::PciBridge => {}
        }
        let slot = 1 + index % SLOTS;
        Ok(format!(",bus=bridge{},addr={slot:#x}", self.bridges))
    }

    /// One more root port; eight share a slot. The slots from 4 on are theirs.
    fn root_port(&mut self) -> String {
        let n = self.ports;
        self.ports += 1;
        let (slot, function) = (4 + n / FUNCTIONS, n % FUNCTIONS);
        let multifunction = if function == 0 {
            ",multifunction=on"
        } else {
            ""
        };
        self.add(format!(
            "pcie-root-port,id=port{n},bus=pcie.0,chassis={n},slot={n},\
             addr={slot:#x}.{function}{multifunction}"
        ));
        format!("port{n}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(machine: Machine, placement: &str, count: usize) -> Result<String> {
        let devices = Devices {
            qemu: "virtio-rng-pci".into(),
            placement: Placement::parse(placement).unwrap(),
            count,
        };
        Ok(arguments(machine, &[devices])?.join(" "))
    }

    #[test]
    fn each_placement_has_what_leads_there() {
        let root = line(Machine::Pc, "root", 2).unwrap();
        assert_eq!(
            root,
            "-device virtio-rng-pci,id=device0,bus=pci.0 \
             -device virtio-rng-pci,id=device1,bus=pci.0"
        );
        let ports = line(Machine::Q35, "root-port", 9).unwrap();
        assert!(ports.contains("addr=0x4.0,multifunction=on"), "{ports}");
        assert!(ports.contains("id=port8,bus=pcie.0,chassis=8,slot=8,addr=0x5.0,multi"));
        assert!(ports.ends_with("id=device8,bus=port8"), "{ports}");
        let switch = line(Machine::Q35, "switch", 33).unwrap();
        assert_eq!(switch.matches("x3130-upstream").count(), 2);
        assert_eq!(switch.matches("xio3130-downstream").count(), 33);
        let bridge = line(Machine::Q35, "pcie-pci-bridge", 32).unwrap();
        assert_eq!(bridge.matches("pcie-pci-bridge").count(), 2);
        assert!(bridge.ends_with("bus=bridge2,addr=0x1"), "{bridge}");
        let conventional = line(Machine::Pc, "pci-bridge", 200).unwrap();
        assert_eq!(conventional.matches("-device pci-bridge").count(), 7);
    }

    #[test]
    fn a_machine_without_such_a_place_says_so() {
        assert!(line(Machine::Pc, "root-port", 1).is_err());
        assert!(line(Machine::Microvm, "pci-bridge", 1).is_err());
        assert_eq!(Placement::parse("moon"), None);
        let mmio = line(Machine::Microvm, "root", 1).unwrap();
        assert_eq!(mmio, "-device virtio-rng-pci,id=device0");
    }
}
