//! The machines to test on: machine x firmware x accelerator x devices, all of
//! them. What cannot exist says why.

use crate::qemu::devices::{Doorbells, Group, Network, tap};
use crate::qemu::host::{hardware_virtualization, open_kvm};
use crate::qemu::{Accelerator, Firmware, Machine, Options};

/// MiB.
const MEMORY: u32 = 64;

/// A machine, and the version of its virtio-mmio where it has that.
const MACHINES: [(Machine, u8); 4] = [
    (Machine::Q35, 2),
    (Machine::Pc, 2),
    (Machine::Microvm, 1),
    (Machine::Microvm, 2),
];
const FIRMWARES: [Firmware; 2] = [Firmware::Qboot, Firmware::Seabios];
const ACCELERATORS: [Accelerator; 2] = [Accelerator::Tcg, Accelerator::Kvm];
const SETS: [Set; 8] = [
    Set::Direct,
    Set::Packed,
    Set::Eventfd,
    Set::Disks,
    Set::HotPlug,
    Set::Pairs,
    Set::Ports,
    Set::Upstream,
];

/// How many ports [`Set::Ports`] has.
pub(super) const PORTS: u8 = 24;

/// Which devices a cell has, and who takes their doorbells: most cells take every
/// one directly, so that its trace is exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Set {
    /// All kinds.
    Direct,
    /// All kinds, which offer packed rings.
    Packed,
    /// All kinds, with the eventfds and the iothread that `run` has.
    Eventfd,
    /// Disks that are read-only, faulty, full, or of many queues or large blocks.
    Disks,
    /// Disks that come and go.
    HotPlug,
    /// A network adapter with several pairs of queues.
    Pairs,
    /// More devices with IO than IO space has windows for.
    Ports,
    /// What the drivers of the crate `virtio-drivers` drive.
    Upstream,
}

impl Set {
    /// What it adds to a cell's name.
    fn name(self) -> &'static str {
        match self {
            Self::Direct => "",
            Self::Packed => "-packed",
            Self::Eventfd => "-eventfd",
            Self::Disks => "-disks",
            Self::HotPlug => "-hotplug",
            Self::Pairs => "-pairs",
            Self::Ports => "-24-ports",
            Self::Upstream => "-upstream",
        }
    }

    fn groups(self) -> Vec<Group> {
        use Group::*;
        match self {
            Self::Direct | Self::Packed => vec![
                Disks,
                Entropy,
                Testdev,
                Net,
                NetBehind,
                Console,
                ConsoleBehind,
                Balloon,
            ],
            Self::Eventfd => vec![
                Disks,
                Entropy,
                Testdev,
                Net,
                NetBehind,
                Console,
                ConsoleBehind,
                BalloonBehind,
            ],
            Self::Disks => vec![Disks, SpecialDisks],
            Self::HotPlug => vec![Disks, HotPlug],
            Self::Pairs => vec![Entropy, NetPairs],
            Self::Ports => vec![Ports(PORTS)],
            Self::Upstream => vec![
                Disks,
                KnownEntropy,
                Net,
                Console,
                Gpu,
                Keyboard,
                Share,
                Sound,
                Vsock,
            ],
        }
    }

    /// What the guest's command line has, besides that it is watched.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            _ => "",
        }
    }

    pub(super) fn doorbells(self) -> Doorbells {
        match self {
            Self::Eventfd => Doorbells::Eventfd,
            _ => Doorbells::Direct,
        }
    }
}

/// One machine to test on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    machine: Machine,
    mmio_version: u8,
    firmware: Firmware,
    accelerator: Accelerator,
    pub(super) set: Set,
}

/// All cells, those that cannot exist too.
pub(super) fn all() -> Vec<Cell> {
    let mut cells = Vec::new();
    for accelerator in ACCELERATORS {
        for (machine, mmio_version) in MACHINES {
            for firmware in FIRMWARES {
                cells.extend(SETS.map(|set| Cell {
                    machine,
                    mmio_version,
                    firmware,
                    accelerator,
                    set,
                }));
            }
        }
    }
    cells
}

impl Cell {
    /// Whether KVM runs it.
    pub(super) fn takes_kvm(&self) -> bool {
        self.accelerator == Accelerator::Kvm
    }

    /// Its parts, without those that most cells have.
    pub(super) fn name(&self) -> String {
        let mmio = match (self.machine, self.mmio_version) {
            (Machine::Microvm, 1) => "-mmio1",
            (Machine::Microvm, _) => "-mmio2",
            _ => "",
        };
        let kvm = match self.accelerator {
            Accelerator::Tcg => "",
            Accelerator::Kvm => "-kvm",
        };
        let (machine, firmware) = (self.machine.name(), self.firmware.name());
        format!("{machine}{mmio}-{firmware}{}{kvm}", self.set.name())
    }

    /// Why no such machine exists, if none does.
    pub(super) fn impossible(&self) -> Option<&'static str> {
        match (self.set, self.machine) {
            (Set::HotPlug, Machine::Pc) => Some("pc hot-plugs by ACPI's methods only"),
            (Set::HotPlug, Machine::Microvm) => Some("virtio-mmio has no hot-plug"),
            (Set::Ports, Machine::Pc | Machine::Microvm) => {
                Some("only q35 has PCI Express root ports")
            }
            (Set::Ports, Machine::Q35) if self.firmware == Firmware::Seabios => {
                Some("SeaBIOS gives up where IO space runs out, and no guest starts")
            }
            (Set::Packed, Machine::Pc) => Some("q35 has the same interfaces"),
            (Set::Packed, Machine::Microvm) if self.mmio_version == 1 => {
                Some("version 1 of virtio-mmio is a legacy interface, without packed rings")
            }
            (Set::Packed, _) if self.firmware == Firmware::Seabios => {
                Some("rings are no affair of the firmware's: qboot has to do")
            }
            (Set::Eventfd, Machine::Microvm) if self.accelerator == Accelerator::Tcg => {
                Some("under TCG virtio-mmio has no eventfds")
            }
            _ => None,
        }
    }

    /// Why this host has no such machine, if it has none.
    pub(super) fn missing(&self) -> Option<String> {
        let kvm = match self.accelerator {
            Accelerator::Tcg => None,
            Accelerator::Kvm => self.missing_kvm(),
        };
        let tap = || (self.set == Set::Pairs).then(tap::missing).flatten();
        kvm.or_else(tap)
    }

    fn missing_kvm(&self) -> Option<String> {
        if let Err(error) = open_kvm() {
            return Some(format!("cannot open /dev/kvm: {error}"));
        }
        let first = Cell {
            accelerator: self.accelerator,
            ..all()[0]
        };
        (!hardware_virtualization() && self.name() != first.name()).then(|| {
            let first = first.name();
            format!("without vmx or svm KVM takes minutes a machine: {first} has to do")
        })
    }

    /// What it has. Where KVM emulates the CPU, two kinds have to do.
    fn groups(&self) -> Vec<Group> {
        if self.accelerator == Accelerator::Kvm && !hardware_virtualization() {
            vec![Group::Disks, Group::Entropy, Group::Testdev]
        } else {
            self.set.groups()
        }
    }

    pub(super) fn options(&self) -> Options {
        Options {
            machine: self.machine,
            firmware: self.firmware,
            accelerator: self.accelerator,
            memory: MEMORY,
            groups: self.groups(),
            doorbells: self.set.doorbells(),
            network: Network::Socket,
            mmio_version: self.mmio_version,
            packed: self.set == Set::Packed,
            extra: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_is_a_cell_or_says_why_not() {
        let cells = all();
        assert_eq!(cells.len(), 128);
        let possible: Vec<String> = cells
            .iter()
            .filter(|cell| cell.impossible().is_none())
            .map(Cell::name)
            .collect();
        assert_eq!(possible.len(), 86);
        for name in [
            "q35-qboot",
            "q35-seabios-eventfd",
            "q35-qboot-24-ports",
            "q35-seabios-hotplug-kvm",
            "q35-qboot-packed",
            "microvm-mmio2-qboot-packed",
            "pc-qboot-disks",
            "microvm-mmio1-seabios",
            "microvm-mmio2-qboot-eventfd-kvm",
        ] {
            assert!(possible.iter().any(|other| other == name), "{name}");
        }
        assert!(!possible.contains(&"microvm-mmio2-qboot-eventfd".into()));
        assert!(!possible.contains(&"microvm-mmio1-qboot-packed".into()));
        assert!(!possible.contains(&"pc-qboot-hotplug".into()));
        assert!(!possible.contains(&"q35-seabios-24-ports".into()));
    }

    #[test]
    fn each_kind_of_device_is_on_each_machine() {
        for cell in all() {
            if cell.set == Set::Direct && cell.accelerator == Accelerator::Tcg {
                let options = cell.options();
                for group in [Group::Net, Group::Console, Group::Balloon] {
                    assert!(options.has(group), "{}: {group:?}", cell.name());
                }
            }
        }
    }
}
