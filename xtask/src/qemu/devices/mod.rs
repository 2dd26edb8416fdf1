//! The devices of a machine, in [`Group`]s that a run or a test puts together.
//!
//! | id | group | where | what it is for |
//! |---|---|---|---|
//! | `blk0`, `blk1` | `Disks` | root bus, behind | disks of 32 MiB |
//! | `rng0`, `rng1` | `Entropy` | root bus, behind | entropy |
//! | `net0`, `net1` | `Net`, `NetBehind` | root bus, behind | network adapters; the second is [`UNLIKE`] the first |
//! | `net2` | `NetPairs` | root bus | an adapter with two pairs of queues ([`tap`]) |
//! | `con0`, `con1` | `Console`, `ConsoleBehind` | root bus, behind | serial channels: a console and two data ports |
//! | `balloon0` | `Balloon`, `BalloonBehind` | root bus or behind | the balloon; a machine has one |
//! | `testdev` | `Testdev` | root bus | pci-testdev |
//! | `blk2` to `blk6` | `SpecialDisks` | root bus | read-only; four queues; blocks of 4096 bytes; failing sectors; full ([`disks`](disks())) |
//! | `blk7`, `blk8` | `HotPlug` | ports `slot1`, `slot2` | there and can be unplugged; not there and can be plugged |
//! | `null0`, `hub0` | `Load` | root bus | a disk that answers at once, an adapter whose frames go nowhere ([`load`]) |
//! | `rng0` | `KnownEntropy` | root bus | entropy that the host knows |
//! | `gpu0`, `kbd0`, `share0`, `sound0`, `vsock0` | `Gpu`, `Keyboard`, `Share`, `Sound`, `Vsock` | root bus | a screen, a keyboard, a folder of the host's, a loudspeaker, sockets ([`others`]) |
//! | `rng0` to `rng<n-1>` | `Ports(n)` | ports `port<n>` | more IO windows than IO space has room for |
//!
//! On the root bus a device has every way to ring that the guest knows: a legacy
//! IO BAR, and modern with a notify capability in an IO BAR and one in memory. Behind
//! a root port (q35) it is modern only; behind a PCI bridge (pc) it is transitional.
//! microvm has what is not behind something, over virtio-mmio, in one version for all.
//!
//! Slots are given out in the order of the table of groups. On q35 the interrupt
//! lines go round the slots by four, so that with more than four devices some share one.

mod disks;
mod line;
mod load;
pub(crate) mod others;
pub(crate) mod tap;

use std::path::PathBuf;

use anyhow::Result;
use serde_json::Value;

use self::line::{Arguments, Device, path};
use super::{Files, Machine, Options};

pub(crate) use self::disks::{Disk, disks};

/// Devices that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    Disks,
    Entropy,
    /// Not beside `Entropy`.
    KnownEntropy,
    Testdev,
    Net,
    NetBehind,
    NetPairs,
    Console,
    ConsoleBehind,
    Balloon,
    BalloonBehind,
    Gpu,
    Keyboard,
    Share,
    Sound,
    Vsock,
    SpecialDisks,
    /// q35 only. Ports are hot-plugged by themselves, not by ACPI.
    HotPlug,
    /// What costs little behind the device itself, to put drivers under load.
    Load,
    /// So many transitional entropy devices, each behind a PCI Express root port
    /// of its own. q35 only.
    Ports(u8),
}

/// Who takes a doorbell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doorbells {
    /// Eventfds where the transport has them, and the disks have an iothread.
    Eventfd,
    /// The vCPU's own exit, so that QEMU's trace counts each exactly once.
    Direct,
}

/// Where the network adapters' frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// QEMU's own user network. Its guest reaches nothing outside.
    Closed,
    /// QEMU's own user network. A port of the host's loopback is the guest's, for
    /// TCP, and for UDP its port 7.
    Forwarded { host: u16, guest: u16 },
    /// A socket of each, at whose other end is a test.
    Socket,
}

/// What the second network adapter has that the first one has not, and the other way
/// round. It has `mq` for its command: of pairs of queues there are as many as the back
/// end has, and that is one.
const UNLIKE: &str = "mrg_rxbuf=off,ctrl_mac_addr=off,mq=on,host_mtu=4000";

/// Where a guest echoes datagrams (RFC 862).
const ECHO_PORT: u16 = 7;

/// What QEMU calls the console's ports after `org.doorbell.<id>.`, by number.
/// Port 0 is a console, the others carry data.
pub(crate) const PORTS: [&str; 3] = ["console", "data0", "data1"];

/// The name of a port.
pub(crate) fn port_name(id: &str, port: &str) -> String {
    format!("org.doorbell.{id}.{port}")
}

/// The options for the devices.
///
/// # Errors
/// When a path is not UTF-8.
pub(crate) fn arguments(options: &Options, files: &Files) -> Result<Vec<String>> {
    let mut builder = Builder {
        options,
        files,
        line: Arguments::default(),
        bridges: 0,
    };
    // A machine has virtio-mmio devices of one version only. This also holds
    // for devices that the user adds.
    if options.machine == Machine::Microvm {
        let legacy = if options.mmio_version == 1 {
            "true"
        } else {
            "false"
        };
        let value = format!("virtio-mmio.force-legacy={legacy}");
        builder.line.add("-global", value);
        // QEMU 7.2 has none under TCG, later ones do.
        if options.doorbells == Doorbells::Direct {
            let value = "virtio-mmio.ioeventfd=off".into();
            builder.line.add("-global", value);
        }
    }
    builder.back_ends()?;
    for group in &options.groups {
        builder.group(*group)?;
    }
    Ok(builder.line.0)
}

/// The arguments of `device_add` for a device that can be plugged.
pub(crate) fn plug(options: &Options, id: &str) -> Option<Value> {
    let hot = options.has(Group::HotPlug).then(|| hot(options));
    hot.into_iter()
        .flatten()
        .find_map(|(disk, device)| (disk == id).then(|| device.to_json()))
}

/// The hot-pluggable disks, with their IDs.
fn hot(options: &Options) -> [(String, Device); 2] {
    [1, 2].map(|slot| {
        let disk = &disks::HOT[slot - 1];
        let device = blk(options, disk).with("bus", format!("slot{slot}"));
        (disk.id(), device)
    })
}

fn blk(options: &Options, disk: &Disk) -> Device {
    let device = virtio(options, "blk", &disk.id()).and(&disk.properties());
    match (options.doorbells, options.machine) {
        (Doorbells::Eventfd, Machine::Q35 | Machine::Pc) => device.with("iothread", "io0"),
        _ => device,
    }
}

/// A virtio device over the machine's transport.
fn virtio(options: &Options, kind: &str, id: &str) -> Device {
    let bus = match options.machine {
        Machine::Microvm => "device",
        _ => "pci",
    };
    let device = Device::new(&format!("virtio-{kind}-{bus}"), id);
    let device = rings(options, device);
    if options.machine == Machine::Microvm {
        return device;
    }
    match options.doorbells {
        // These never have eventfds.
        _ if matches!(kind, "balloon" | "keyboard") => device,
        Doorbells::Eventfd => device.with("ioeventfd", "on"),
        Doorbells::Direct => device.with("ioeventfd", "off"),
    }
}

/// The same virtio device, which offers packed rings if it is to.
fn rings(options: &Options, device: Device) -> Device {
    if options.packed {
        device.with("packed", "on")
    } else {
        device
    }
}

/// The address of network adapter `n`.
pub(crate) fn mac(n: usize) -> [u8; 6] {
    [0x52, 0x54, 0x00, 0xdb, 0x00, n as u8]
}

/// The numbers of the network adapters.
pub(crate) fn adapters(options: &Options) -> Vec<usize> {
    both(options, [Group::Net, Group::NetBehind])
}

/// The numbers of the consoles.
pub(crate) fn consoles(options: &Options) -> Vec<usize> {
    both(options, [Group::Console, Group::ConsoleBehind])
}

/// The sockets that QEMU makes for the devices, and leaves when it ends.
pub(crate) fn sockets(options: &Options, files: &Files) -> Vec<PathBuf> {
    let wires = adapters(options).into_iter();
    let wires = wires.filter(|_| options.network == Network::Socket);
    let wires = wires.map(|n| files.socket(&format!("net{n}")));
    let ports = consoles(options).into_iter();
    let ports = ports.flat_map(|n| PORTS.map(|port| files.port(&format!("con{n}"), port)));
    wires.chain(ports).collect()
}

/// Of a group with device 0 on the root bus and one with device 1 behind
/// something, which devices are there.
fn both(options: &Options, groups: [Group; 2]) -> Vec<usize> {
    let exists = |n: &usize| *n == 0 || options.machine != Machine::Microvm;
    let asked_for = |n: &usize| options.has(groups[*n]);
    (0..2).filter(exists).filter(asked_for).collect()
}

struct Builder<'a> {
    options: &'a Options,
    files: &'a Files,
    line: Arguments,
    /// How many ports or bridges there are for devices behind them.
    bridges: usize,
}

impl Builder<'_> {
    fn back_ends(&mut self) -> Result<()> {
        for disk in disks(self.options) {
            disk.back_end(&mut self.line, self.files)?;
        }
        let has = |groups: &[Group]| groups.iter().any(|group| self.options.has(*group));
        let ports = |group: &Group| matches!(group, Group::Ports(_));
        if has(&[Group::Entropy]) || self.options.groups.iter().any(ports) {
            self.line.add("-object", "rng-builtin,id=entropy".into());
        }
        let disks = has(&[Group::Disks, Group::SpecialDisks, Group::HotPlug]);
        let pci = self.options.machine != Machine::Microvm;
        if disks && pci && self.options.doorbells == Doorbells::Eventfd {
            // An iothread that polls the ring takes a request before it hears
            // the doorbell, and then the doorbell was for nothing.
            let iothread = "iothread,id=io0,poll-max-ns=0";
            self.line.add("-object", iothread.into());
        }
        Ok(())
    }

    fn group(&mut self, group: Group) -> Result<()> {
        match group {
            Group::Disks => {
                for disk in disks(self.options).iter().filter(|disk| disk.n < 2) {
                    let device = blk(self.options, disk);
                    self.place(device, disk.n == 1);
                }
            }
            Group::SpecialDisks => {
                for disk in disks(self.options).iter().filter(|disk| !disk.is_plain()) {
                    self.root(blk(self.options, disk));
                }
            }
            Group::Entropy => {
                for n in 0..2 {
                    let device = virtio(self.options, "rng", &format!("rng{n}"));
                    self.place(device.with("rng", "entropy"), n == 1);
                }
            }
            Group::Testdev => {
                if let Some(root) = self.root_bus() {
                    let device = Device::new("pci-testdev", "testdev");
                    self.line.device(&device.with("bus", root));
                }
            }
            Group::Net => self.net(0)?,
            Group::NetBehind => self.net(1)?,
            Group::NetPairs => self.pairs()?,
            Group::Console => self.console(0)?,
            Group::ConsoleBehind => self.console(1)?,
            Group::Balloon => self.balloon(false),
            Group::BalloonBehind => self.balloon(true),
            Group::KnownEntropy => self.known_entropy()?,
            Group::Gpu => self.gpu(),
            Group::Keyboard => self.keyboard(),
            Group::Share => self.share()?,
            Group::Sound => self.sound()?,
            Group::Vsock => self.vsock(),
            Group::HotPlug => self.hot_plug(),
            Group::Load => self.load(),
            Group::Ports(count) => self.ports(count),
        }
        Ok(())
    }

    fn root_bus(&self) -> Option<&'static str> {
        match self.options.machine {
            Machine::Q35 => Some("pcie.0"),
            Machine::Pc => Some("pci.0"),
            Machine::Microvm => None,
        }
    }

    fn place(&mut self, device: Device, behind: bool) {
        if behind {
            self.behind(device);
        } else {
            self.root(device);
        }
    }

    /// On the root bus a device is transitional: legacy IO BAR0, and with
    /// `modern-pio-notify` the notify capability in IO BAR2 beside the one in memory.
    fn root(&mut self, device: Device) {
        let device = match self.root_bus() {
            Some(bus) => device.with("bus", bus).with("modern-pio-notify", "on"),
            None => device,
        };
        self.line.device(&device);
    }

    /// On the root bus, as QEMU makes it: doorbells in memory.
    fn plain_root(&mut self, device: Device) {
        let device = match self.root_bus() {
            Some(bus) => device.with("bus", bus),
            None => device,
        };
        self.line.device(&device);
    }

    /// Behind a root port or a bridge of its own.
    fn behind(&mut self, device: Device) {
        let Some(root) = self.root_bus() else {
            return;
        };
        self.bridges += 1;
        let n = self.bridges;
        let id = format!("bridge{n}");
        let bridge = match self.options.machine {
            Machine::Q35 => root_port(&id, root, n),
            _ => Device::new("pci-bridge", &id)
                .with("bus", root)
                .with("chassis_nr", n),
        };
        self.line.device(&bridge);
        self.line.device(&device.with("bus", id));
    }

    fn net(&mut self, n: usize) -> Result<()> {
        if !adapters(self.options).contains(&n) {
            return Ok(());
        }
        let (id, back_end) = (format!("net{n}"), format!("netdev{n}"));
        let value = match self.options.network {
            Network::Closed => format!("user,id={back_end},restrict=on"),
            Network::Forwarded { host, guest } => format!(
                "user,id={back_end},hostfwd=tcp:127.0.0.1:{host}-:{guest},\
                 hostfwd=udp:127.0.0.1:{host}-:{ECHO_PORT}"
            ),
            Network::Socket => {
                let socket = path(&self.files.socket(&id))?;
                format!("stream,id={back_end},server=on,addr.type=unix,addr.path={socket}")
            }
        };
        self.line.add("-netdev", value);
        let device = self.adapter(n);
        let device = if n == 1 { device.and(UNLIKE) } else { device };
        self.place(device, n == 1);
        Ok(())
    }

    /// The device of network adapter `n`, whose back end has that number too.
    fn adapter(&self, n: usize) -> Device {
        virtio(self.options, "net", &format!("net{n}"))
            .with("netdev", format!("netdev{n}"))
            .with("mac", mac(n).map(|byte| format!("{byte:02x}")).join(":"))
    }

    fn pairs(&mut self) -> Result<()> {
        let script = path(&self.files.tap_script())?;
        self.line.add(
            "-netdev",
            format!(
                "tap,id=netdev{},queues={},vhost=off,script={script},downscript=no",
                tap::ADAPTER,
                tap::PAIRS
            ),
        );
        let device = self.adapter(tap::ADAPTER).with("mq", "on");
        // Two for each pair, and one each for the control queue and the configuration.
        let device = match self.options.machine {
            Machine::Microvm => device,
            _ => device.with("vectors", 2 * tap::PAIRS + 2),
        };
        self.root(device);
        Ok(())
    }

    fn console(&mut self, n: usize) -> Result<()> {
        if !consoles(self.options).contains(&n) {
            return Ok(());
        }
        let id = format!("con{n}");
        self.place(
            virtio(self.options, "serial", &id).with("max_ports", 8),
            n == 1,
        );
        for (number, port) in PORTS.iter().enumerate() {
            let socket = path(&self.files.port(&id, port))?;
            let chardev = format!("{id}-{port}");
            self.line.add(
                "-chardev",
                format!("socket,id={chardev},server=on,wait=off,path={socket}"),
            );
            let driver = if number == 0 {
                "virtconsole"
            } else {
                "virtserialport"
            };
            let port = Device::new(driver, &format!("{id}port{number}"))
                .with("bus", format!("{id}.0"))
                .with("nr", number)
                .with("chardev", chardev)
                .with("name", port_name(&id, port));
            self.line.device(&port);
        }
        Ok(())
    }

    fn balloon(&mut self, behind: bool) {
        let device = virtio(self.options, "balloon", "balloon0").with("deflate-on-oom", "on");
        self.place(device, behind && self.root_bus().is_some());
    }

    fn hot_plug(&mut self) {
        // A port whose slot ACPI handles has no hot-plug of its own.
        let by_ports = "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off";
        self.line.add("-global", by_ports.into());
        let hot = hot(self.options);
        for slot in 1..=hot.len() {
            let port = root_port(&format!("slot{slot}"), "pcie.0", 100 + slot);
            self.line.device(&port);
        }
        // The other one comes later.
        self.line.device(&hot[0].1);
    }

    /// Root ports from slot 3 on, eight to a slot, each with an entropy device.
    fn ports(&mut self, count: u8) {
        const FIRST_SLOT: u8 = 3;
        for n in 0..count {
            let (slot, function) = (FIRST_SLOT + n / 8, n % 8);
            let port = root_port(&format!("port{n}"), "pcie.0", n.into());
            let place = format!("multifunction=on,addr={slot:#x}.{function}");
            self.line.device(&port.and(&place));
            let device = Device::new("virtio-rng-pci-transitional", &format!("rng{n}"))
                .with("bus", format!("port{n}"))
                .and("ioeventfd=off,rng=entropy");
            self.line.device(&rings(self.options, device));
        }
    }
}

/// A root port; `n` tells it from all others.
fn root_port(id: &str, bus: &str, n: usize) -> Device {
    Device::new("pcie-root-port", id)
        .with("bus", bus)
        .with("chassis", n)
        .with("slot", n)
}

#[cfg(test)]
mod tests;
