//! Somebody else's kernel with our drivers in it (`tests/embed/`): what it did to its
//! disk and its network, as the host sees them, and how much it took to connect the two.

mod evidence;
mod glue;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use self::evidence::{MAC, TRANSLATION, asked, compare, disk_image, translated};
use super::World;
use super::report::Report;
use crate::qemu::devices::{Doorbells, Network};
use crate::qemu::launch::{Ended, Launch, launch};
use crate::qemu::{self, Accelerator, Files, Firmware, Machine, Options};

/// What [`CASES`] can be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Case {
    /// The source is looked at.
    Glue,
    /// The kernel is booted.
    Boot(Machine),
    /// It is booted on q35 with an IOMMU in between.
    Iommu,
}

/// All cases.
pub(crate) const CASES: [Case; 4] = [
    Case::Glue,
    Case::Boot(Machine::Q35),
    Case::Boot(Machine::Pc),
    Case::Iommu,
];

/// How long the kernel may take: many times what it does.
const PATIENCE: Duration = Duration::from_secs(60);
/// The status that QEMU ends with if the kernel is content.
const CONTENT: i32 = 85;
/// MiB.
const MEMORY: u32 = 64;

impl Case {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Glue => "glue",
            Self::Boot(machine) => machine.name(),
            Self::Iommu => "q35-iommu",
        }
    }

    /// Whether it needs the kernel's image.
    pub(crate) fn boots(self) -> bool {
        self.machine().is_some()
    }

    /// What it boots on.
    fn machine(self) -> Option<Machine> {
        match self {
            Self::Glue => None,
            Self::Boot(machine) => Some(machine),
            Self::Iommu => Some(Machine::Q35),
        }
    }
}

/// Runs a case.
pub(super) fn run(case: Case, world: &World, folder: &Path) -> Result<Report> {
    let mut report = Report::default();
    match (case.machine(), &world.embed) {
        (None, _) => glue::check(&mut report)?,
        (Some(_), Err(why)) => report.fail("", why.as_str()),
        (Some(machine), Ok(image)) => {
            let iommu = matches!(case, Case::Iommu);
            boot(
                machine,
                iommu,
                &image.path,
                &world.qemu,
                folder,
                &mut report,
            )?;
        }
    }
    Ok(report)
}

/// Boots the kernel, and compares.
fn boot(
    machine: Machine,
    iommu: bool,
    kernel: &Path,
    qemu: &Path,
    folder: &Path,
    report: &mut Report,
) -> Result<()> {
    let files = Files::new(folder.to_owned())?;
    let (disk, capture) = (files.disk(0), folder.join("net.pcap"));
    let before = disk_image();
    std::fs::write(&disk, &before).with_context(|| format!("cannot write {}", disk.display()))?;
    let mac = MAC.map(|byte| format!("{byte:02x}")).join(":");
    // A device that asks for an IOMMU (VIRTIO_F_ACCESS_PLATFORM) has no legacy interface.
    let platform = if iommu {
        ",iommu_platform=on,disable-legacy=on"
    } else {
        ""
    };
    let devices = [
        format!("if=none,id=disk,format=raw,file={}", path(&disk)?),
        format!("virtio-blk-pci,drive=disk{platform}"),
        "user,id=net,restrict=on".to_owned(),
        format!("virtio-net-pci,netdev=net,mac={mac}{platform}"),
        format!("filter-dump,id=dump,netdev=net,file={}", path(&capture)?),
    ];
    let options = ["-drive", "-device", "-netdev", "-device", "-object"];
    let pairs = options.into_iter().zip(devices);
    let mut extra: Vec<String> = Vec::new();
    if iommu {
        extra.extend(["-device", "intel-iommu,intremap=off"].map(str::to_owned));
        extra.extend(["-trace", TRANSLATION, "-D"].map(str::to_owned));
        let trace = files
            .trace()
            .to_str()
            .context("the folder is not UTF-8")?
            .to_owned();
        extra.push(trace);
    }
    extra.extend(pairs.flat_map(|(option, device)| [option.to_owned(), device]));
    let options = Options {
        machine,
        // It is firmware that gives PCI its addresses: this kernel does not.
        firmware: Firmware::Seabios,
        accelerator: Accelerator::Tcg,
        memory: MEMORY,
        groups: vec![],
        doorbells: Doorbells::Direct,
        network: Network::Closed,
        mmio_version: 2,
        packed: false,
        extra,
    };
    let words = if iommu { "iommu" } else { "" };
    let command = qemu::command_line(qemu, Some(kernel), &options, &files, words, false)?;
    let run = Launch::unseen(&command, &files, PATIENCE);
    let ended = launch(&run, &mut |_, _| None)?;
    report.check("", content(&ended));
    let after = std::fs::read(&disk).with_context(|| format!("cannot read {}", disk.display()))?;
    report.check("disk", compare(&before, &after));
    let frames =
        std::fs::read(&capture).with_context(|| format!("cannot read {}", capture.display()))?;
    report.check("network", asked(&frames));
    if iommu {
        let trace = std::fs::read_to_string(files.trace()).context("cannot read trace.log")?;
        report.check("iommu", translated(&trace));
    }
    Ok(())
}

/// A path inside QEMU's options.
fn path(path: &Path) -> Result<String> {
    let text = path.to_str();
    text.map(qemu::escape)
        .with_context(|| format!("the path {} is not UTF-8", path.display()))
}

fn content(ended: &Ended) -> Result<(), String> {
    if ended.cut.is_none() && ended.status == Some(CONTENT) {
        return Ok(());
    }
    let (cut, status, line) = (ended.cut, ended.status, &ended.last_line);
    let said = ended.qemu_said();
    Err(format!(
        "QEMU ended with {status:?} ({cut:?}), expected {CONTENT}; the kernel said last: {line}{said}"
    ))
}
