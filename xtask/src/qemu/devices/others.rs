//! The devices that the guest drives by another's drivers, and what stands behind them.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::line::path;
use super::{Builder, Device, Group, virtio};
use crate::pattern;
use crate::qemu::{Files, Machine, Options};

/// Where the host's kernel gives out vsock devices.
const VHOST: &str = "/dev/vhost-vsock";

/// The bytes of the entropy device whose bytes are known: a stream of this seed. No
/// test reads so many.
const ENTROPY_SEED: u64 = 0x0E27_2097_5EED;
const ENTROPY_BYTES: usize = 1 << 20;

/// What the shared folder is called in the guest, and a file in it, with the seed of the
/// stream that it holds.
const TAG: &str = "doorbell";
const FILE: [&str; 2] = ["folder", "pattern.bin"];
const FILE_SEED: u64 = 0xF11E_5EED;
const FILE_BYTES: usize = 50_000;

/// Why there are no such devices with this QEMU, if there are none.
pub(crate) fn missing(group: Group, qemu: &Path) -> Option<String> {
    match group {
        Group::Sound if !knows(qemu, "virtio-sound-pci") => {
            Some("this QEMU has no virtio-sound: QEMU 8.2 was the first".into())
        }
        Group::Vsock => match File::options().read(true).write(true).open(VHOST) {
            Ok(_) => None,
            Err(error) => Some(format!("cannot open {VHOST}: {error}")),
        },
        _ => None,
    }
}

/// Whether QEMU has a device of this name.
fn knows(qemu: &Path, device: &str) -> bool {
    let asked = Command::new(qemu)
        .args(["-device", "help"])
        .stdin(Stdio::null())
        .output();
    let name = format!("name \"{device}\"");
    asked.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(&name))
}

/// Writes what the devices read.
///
/// # Errors
/// When a file can't be written.
pub(crate) fn fill(options: &Options, files: &Files) -> Result<()> {
    if options.has(Group::KnownEntropy) {
        write(&files.entropy(), ENTROPY_SEED, ENTROPY_BYTES)?;
    }
    if options.has(Group::Share) {
        let [folder, file] = FILE;
        let folder = files.share().join(folder);
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        write(&folder.join(file), FILE_SEED, FILE_BYTES)?;
    }
    Ok(())
}

fn write(path: &Path, seed: u64, bytes: usize) -> Result<()> {
    let mut contents = vec![0; bytes];
    pattern::fill(0, seed, &mut contents);
    std::fs::write(path, contents).with_context(|| format!("cannot write {}", path.display()))
}

impl Builder<'_> {
    /// Gives bytes that the host knows.
    pub(super) fn known_entropy(&mut self) -> Result<()> {
        let file = path(&self.files.entropy())?;
        self.line
            .add("-object", format!("rng-random,id=known,filename={file}"));
        self.root(virtio(self.options, "rng", "rng0").with("rng", "known"));
        Ok(())
    }

    pub(super) fn gpu(&mut self) {
        self.root(virtio(self.options, "gpu", "gpu0"));
    }

    pub(super) fn keyboard(&mut self) {
        self.root(virtio(self.options, "keyboard", "kbd0"));
    }

    /// A folder of the host's, over 9P. What the guest makes there is the user's that
    /// runs QEMU.
    pub(super) fn share(&mut self) -> Result<()> {
        let folder = path(&self.files.share())?;
        self.line.add(
            "-fsdev",
            format!("local,id=share,path={folder},security_model=none"),
        );
        let device = virtio(self.options, "9p", "share0").with("fsdev", "share");
        self.root(device.with("mount_tag", TAG));
        Ok(())
    }

    /// One stream, to be played, that becomes a file.
    pub(super) fn sound(&mut self) -> Result<()> {
        let file = path(&self.files.sound())?;
        self.line
            .add("-audiodev", format!("wav,id=sound,path={file}"));
        let device = virtio(self.options, "sound", "sound0").with("audiodev", "sound");
        self.root(device.with("streams", 1));
        Ok(())
    }

    /// Sockets to the host's kernel, which is the device.
    pub(super) fn vsock(&mut self) {
        let driver = match self.options.machine {
            Machine::Microvm => "vhost-vsock-device",
            _ => "vhost-vsock-pci",
        };
        let cid = self.files.guest_cid();
        self.root(Device::new(driver, "vsock0").with("guest-cid", cid));
    }
}
