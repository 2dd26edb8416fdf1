//! The default devices: together they have every way to ring a doorbell that
//! the guest's table shows.
//!
//! | id | where | interfaces |
//! |---|---|---|
//! | `blk0`, `rng0` | root bus | legacy IO BAR; modern with an IO-BAR and a memory notify capability |
//! | `blk1`, `rng1` | behind a root port (q35) or a PCI bridge (pc) | modern; on pc legacy too |
//! | `testdev` | root bus | pci-testdev |
//! | `blk0`, `rng0` | microvm | virtio-mmio, one version for all |
//!
//! Disk `n` has the device ID (`serial`) `doorbell-disk<n>`.

use std::path::Path;

use anyhow::{Context, Result};

use super::{Devices, Files, Machine, Options, escape};

/// How many disks the default devices of `machine` use.
pub(crate) fn disks(options: &Options) -> usize {
    match (options.devices, options.machine) {
        (Devices::None | Devices::Ports(_), _) => 0,
        (_, Machine::Microvm) => 1,
        _ => 2,
    }
}

/// The options for the devices.
///
/// # Errors
/// When a path is not UTF-8.
pub(crate) fn arguments(options: &Options, files: &Files) -> Result<Vec<String>> {
    let mut line = Arguments::default();
    // A machine has virtio-mmio devices of one version only. This also holds
    // for devices that the user adds.
    if options.machine == Machine::Microvm {
        let legacy = if options.mmio_version == 1 {
            "true"
        } else {
            "false"
        };
        line.add("-global", format!("virtio-mmio.force-legacy={legacy}"));
    }
    if options.devices == Devices::None {
        return Ok(line.0);
    }
    for n in 0..disks(options) {
        line.disk(n, &files.disk(n))?;
    }
    line.add("-object", "rng-builtin,id=entropy".into());
    if let Devices::Ports(count) = options.devices {
        ports(&mut line, count);
        return Ok(line.0);
    }
    match options.machine {
        Machine::Microvm => {
            line.device("virtio-blk-device,id=blk0", &blk(0));
            line.device("virtio-rng-device,id=rng0", RNG);
        }
        Machine::Q35 | Machine::Pc => pci(&mut line, options),
    }
    Ok(line.0)
}

const RNG: &str = "rng=entropy";

fn blk(n: usize) -> String {
    format!("drive=disk{n},serial=doorbell-disk{n}")
}

fn pci(line: &mut Arguments, options: &Options) {
    let (blk_how, rng_how) = match options.devices {
        Devices::Eventfd => {
            // An iothread that polls the ring takes a request before it hears
            // the doorbell, and then the doorbell was for nothing.
            line.add("-object", "iothread,id=io0,poll-max-ns=0".into());
            ("iothread=io0", "ioeventfd=on")
        }
        _ => ("ioeventfd=off", "ioeventfd=off"),
    };
    let root = match options.machine {
        Machine::Q35 => "pcie.0",
        _ => "pci.0",
    };
    // On the root bus a device is transitional: legacy IO BAR0, and with
    // `modern-pio-notify` the notify capability in IO BAR2 beside the one in memory.
    for (device, backend) in [
        (format!("virtio-blk-pci,id=blk0,{blk_how}"), blk(0).as_str()),
        (format!("virtio-rng-pci,id=rng0,{rng_how}"), RNG),
    ] {
        line.device(
            &format!("{device},bus={root},modern-pio-notify=on"),
            backend,
        );
    }
    let behind = |n: u8| match options.machine {
        Machine::Q35 => format!("pcie-root-port,id=bridge{n},bus={root},chassis={n},slot={n}"),
        _ => format!("pci-bridge,id=bridge{n},bus={root},chassis_nr={n}"),
    };
    line.device(&behind(1), "");
    line.device(
        &format!("virtio-blk-pci,id=blk1,bus=bridge1,{blk_how}"),
        &blk(1),
    );
    line.device(&behind(2), "");
    line.device(
        &format!("virtio-rng-pci,id=rng1,bus=bridge2,{rng_how}"),
        RNG,
    );
    line.device(&format!("pci-testdev,id=testdev,bus={root}"), "");
}

/// Root ports from slot 3 on, eight to a slot, each with an entropy device.
fn ports(line: &mut Arguments, count: u8) {
    const FIRST_SLOT: u8 = 3;
    for n in 0..count {
        let (slot, function) = (FIRST_SLOT + n / 8, n % 8);
        let port = format!("pcie-root-port,id=port{n},bus=pcie.0,chassis={n},slot={n}");
        line.device(
            &port,
            &format!("multifunction=on,addr={slot:#x}.{function}"),
        );
        let device = format!("virtio-rng-pci-transitional,id=rng{n},bus=port{n},ioeventfd=off");
        line.device(&device, RNG);
    }
}

#[derive(Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn add(&mut self, option: &str, value: String) {
        self.0.extend([option.to_owned(), value]);
    }

    fn device(&mut self, device: &str, backend: &str) {
        let comma = if backend.is_empty() { "" } else { "," };
        self.add("-device", format!("{device}{comma}{backend}"));
    }

    fn disk(&mut self, n: usize, path: &Path) -> Result<()> {
        let path = path
            .to_str()
            .with_context(|| format!("the path {} is not UTF-8", path.display()))?;
        // `writeback` works on every file system; O_DIRECT doesn't.
        self.add(
            "-drive",
            format!(
                "if=none,id=disk{n},format=raw,cache=writeback,file={}",
                escape(path)
            ),
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::options;
    use super::*;

    fn line(options: &Options) -> String {
        let files = Files::new("/o,ut".into()).unwrap();
        arguments(options, &files).unwrap().join(" ")
    }

    #[test]
    fn q35_has_both_kinds_of_place_for_both_kinds_of_device() {
        let line = line(&options(Machine::Q35));
        for part in [
            "file=/o,,ut/disk0.img",
            "-object iothread,id=io0,poll-max-ns=0",
            "virtio-blk-pci,id=blk0,iothread=io0,bus=pcie.0,modern-pio-notify=on,drive=disk0",
            "virtio-rng-pci,id=rng0,ioeventfd=on,bus=pcie.0,modern-pio-notify=on,rng=entropy",
            "pcie-root-port,id=bridge1,bus=pcie.0",
            "virtio-blk-pci,id=blk1,bus=bridge1,iothread=io0,drive=disk1,serial=doorbell-disk1",
            "virtio-rng-pci,id=rng1,bus=bridge2",
            "pci-testdev,id=testdev,bus=pcie.0",
        ] {
            assert!(line.contains(part), "no `{part}` in {line}");
        }
    }

    #[test]
    fn direct_devices_have_no_eventfd_and_no_iothread() {
        let line = line(&Options {
            devices: Devices::Direct,
            ..options(Machine::Pc)
        });
        assert_eq!(line.matches("ioeventfd=off").count(), 4);
        assert!(!line.contains("iothread") && !line.contains("pcie"));
        assert!(line.contains("pci-bridge,id=bridge1,bus=pci.0,chassis_nr=1"));
    }

    #[test]
    fn ports_stand_eight_to_a_slot() {
        let line = line(&Options {
            devices: Devices::Ports(10),
            ..options(Machine::Q35)
        });
        assert_eq!(line.matches("virtio-rng-pci-transitional").count(), 10);
        assert!(line.contains("id=port7,bus=pcie.0,chassis=7,slot=7,multifunction=on,addr=0x3.7"));
        assert!(line.contains("id=port8,bus=pcie.0,chassis=8,slot=8,multifunction=on,addr=0x4.0"));
        assert!(!line.contains("drive"));
    }

    #[test]
    fn microvm_has_one_version_of_mmio() {
        let line1 = line(&Options {
            mmio_version: 1,
            ..options(Machine::Microvm)
        });
        assert!(line1.starts_with("-global virtio-mmio.force-legacy=true "));
        assert!(line1.contains("virtio-blk-device,id=blk0,drive=disk0"));
        let bare = Options {
            devices: Devices::None,
            ..options(Machine::Microvm)
        };
        assert_eq!(line(&bare), "-global virtio-mmio.force-legacy=false");
        assert_eq!((disks(&bare), disks(&options(Machine::Microvm))), (0, 1));
    }
}
