//! The guests: where each comes from, and how it is booted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result};

use super::{initrd, proof};
use crate::experiment::firmware;
use crate::image;
use crate::lock::lock;
use crate::qemu::{Files, escape, host};
use crate::setup::SetupArgs;
use crate::setup::package::{self, Unpacked};
use crate::setup::system::{Apt, System};

/// Who can be booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// QEMU's BIOS, whose driver loads a boot sector from a disk.
    Seabios,
    /// The boot ROM of QEMU's network adapters, which loads a file by DHCP and TFTP.
    Ipxe,
    /// The UEFI firmware, whose shell reads a FAT disk.
    Ovmf,
    /// A distribution's kernel, which reads a disk.
    Linux,
    /// The same, told to take the legacy interface where there is one.
    LinuxLegacy,
}

/// The guests' names in an experiment's file.
pub(super) const KINDS: [(&str, Kind); 5] = [
    ("seabios", Kind::Seabios),
    ("ipxe", Kind::Ipxe),
    ("ovmf", Kind::Ovmf),
    ("linux", Kind::Linux),
    ("linux-legacy", Kind::LinuxLegacy),
];

/// `-drive` and `-netdev` have these names, for the file's devices.
const DISK: &str = "disk";
const NETWORK: &str = "net";
/// QEMU loads it for `virtio-net-pci`.
const ROM: &str = "efi-virtio.rom";
/// What Debian, and what is made from it, call the kernel that they have now; the smallest
/// first.
const KERNELS: [&str; 4] = [
    "linux-image-cloud-amd64",
    "linux-image-virtual",
    "linux-image-generic",
    "linux-image-amd64",
];
/// Where systems put OVMF: its code, and its variables.
const OVMF: [(&str, &str); 4] = [
    (
        "usr/share/OVMF/OVMF_CODE_4M.fd",
        "usr/share/OVMF/OVMF_VARS_4M.fd",
    ),
    ("usr/share/OVMF/OVMF_CODE.fd", "usr/share/OVMF/OVMF_VARS.fd"),
    (
        "usr/share/edk2/x64/OVMF_CODE.4m.fd",
        "usr/share/edk2/x64/OVMF_VARS.4m.fd",
    ),
    (
        "usr/share/edk2/ovmf/OVMF_CODE.fd",
        "usr/share/edk2/ovmf/OVMF_VARS.fd",
    ),
];

/// A guest whose files are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) kind: Kind,
    /// The version of the package that it is from, where it does not say so itself.
    pub(super) version: Option<String>,
    /// A kernel for `-kernel`, and its command line.
    pub(super) kernel: Option<PathBuf>,
    pub(super) words: String,
    /// QEMU's arguments for files that all runs share.
    shared: Vec<String>,
    /// A file that each run gets a copy of.
    variables: Option<PathBuf>,
}

/// Makes guests ready, each once.
pub(crate) struct Guests<'a> {
    qemu: &'a Path,
    setup: &'a SetupArgs,
    ready: Mutex<BTreeMap<String, Result<Ready, String>>>,
}

impl Ready {
    /// A guest that needs no files.
    pub(super) fn bare(kind: Kind) -> Self {
        Self {
            kind,
            version: None,
            kernel: None,
            words: String::new(),
            shared: Vec::new(),
            variables: None,
        }
    }
}

impl<'a> Guests<'a> {
    pub(crate) fn new(qemu: &'a Path, setup: &'a SetupArgs) -> Self {
        let ready = Mutex::default();
        Self { qemu, setup, ready }
    }

    /// Why there is no guest of this name, if there is none.
    pub(crate) fn lacks(&self, name: &str) -> Option<String> {
        self.ready(name).err()
    }

    /// The guest of this name, or why there is none.
    pub(super) fn ready(&self, name: &str) -> Result<Ready, String> {
        let mut ready = lock(&self.ready);
        if let Some(known) = ready.get(name) {
            return known.clone();
        }
        let made = match KINDS.iter().find(|(known, _)| *known == name) {
            Some((_, kind)) => self.make(*kind).map_err(|error| format!("{error:#}")),
            None => Err(format!("there is no guest `{name}`")),
        };
        ready.insert(name.to_owned(), made.clone());
        made
    }

    fn make(&self, kind: Kind) -> Result<Ready> {
        let mut ready = Ready::bare(kind);
        match kind {
            Kind::Seabios => {}
            Kind::Ipxe => self.find_rom(&mut ready)?,
            Kind::Ovmf => self.find_ovmf(&mut ready)?,
            Kind::Linux | Kind::LinuxLegacy => self.find_kernel(&mut ready)?,
        }
        Ok(ready)
    }

    /// Some systems have QEMU without the ROM.
    fn find_rom(&self, ready: &mut Ready) -> Result<()> {
        let output = Command::new(self.qemu)
            .args(["-L", "help"])
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot execute {}", self.qemu.display()))?;
        let folders = String::from_utf8_lossy(&output.stdout).into_owned();
        if folders
            .lines()
            .any(|folder| Path::new(folder).join(ROM).is_file())
        {
            return Ok(());
        }
        let found = package::unpacked(self.setup, "ipxe-qemu", "booting from the network")?;
        ready.shared = vec!["-L".into(), text(&found.root.join("usr/lib/ipxe/qemu"))?];
        ready.version = Some(found.version);
        Ok(())
    }

    fn find_ovmf(&self, ready: &mut Ready) -> Result<()> {
        let (code, variables) = match ovmf_below(Path::new("/")) {
            Some(found) => {
                let query = ["-W", "-f", "${Version}", "ovmf"];
                ready.version = host::first_line(Command::new("dpkg-query").args(query));
                found
            }
            None => {
                let found = package::unpacked(self.setup, "ovmf", "booting by UEFI")?;
                let files = ovmf_below(&found.root);
                ready.version = Some(found.version);
                files.context("Debian's package ovmf has no OVMF_CODE that is known here")?
            }
        };
        let code = escape(&text(&code)?);
        let flash = format!("if=pflash,format=raw,readonly=on,file={code}");
        ready.shared = vec!["-drive".into(), flash];
        ready.variables = Some(variables);
        Ok(())
    }

    fn find_kernel(&self, ready: &mut Ready) -> Result<()> {
        let why = "booting a distribution's kernel";
        let known = |package: &str| package::stands_for(package).ok();
        let mut kernel = first_kernel(known);
        if kernel.is_none() && !self.setup.no_install && System::here() == System::Debian {
            // Nobody has read the package lists yet.
            Apt::new()?.update()?;
            kernel = first_kernel(known);
        }
        // Without one nothing can be fetched; the error says how.
        let kernel = kernel.unwrap_or_else(|| KERNELS[0].to_owned());
        let Unpacked { root, version } = package::unpacked(self.setup, &kernel, why)?;
        let busybox = package::unpacked(self.setup, "busybox-static", why)?;
        let boot = root.join("boot");
        let entries =
            std::fs::read_dir(&boot).with_context(|| format!("cannot read {}", boot.display()))?;
        let mut files = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let image = files.find(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with("vmlinuz"))
        });
        let busybox = ["bin/busybox", "usr/bin/busybox"].map(|path| busybox.root.join(path));
        let busybox = busybox.iter().find(|path| path.is_file());
        let modules = match modules_below(&root) {
            Some(modules) => modules,
            None => {
                let package = modules_package(&kernel);
                let found = package::unpacked(self.setup, &package, why)?;
                let found = modules_below(&found.root);
                found.with_context(|| format!("the package {package} has no modules"))?
            }
        };
        let archive = initrd::build(
            busybox.context("the package busybox-static has no busybox")?,
            &modules,
        )?;
        let path = image::target_folder()
            .join("packages")
            .join(format!("{kernel}.cpio"));
        std::fs::write(&path, archive)
            .with_context(|| format!("cannot write {}", path.display()))?;
        ready.version = Some(format!("{kernel} {version}"));
        ready.kernel = Some(image.with_context(|| format!("the package {kernel} has no vmlinuz"))?);
        ready.shared = vec!["-initrd".into(), text(&path)?];
        ready.words = "console=ttyS0 quiet loglevel=1 panic=-1".into();
        if ready.kind == Kind::LinuxLegacy {
            let options = initrd::DRIVER_OPTIONS;
            // As a module takes it, and as a part of the kernel does.
            ready.words += &format!(" {options}=force_legacy=1 virtio_pci.force_legacy=1");
        }
        Ok(())
    }
}

/// The package of the first kernel that is known by a name of [`KERNELS`]; `known` gives the
/// package that such a name stands for.
fn first_kernel(known: impl Fn(&str) -> Option<String>) -> Option<String> {
    KERNELS.into_iter().find_map(known)
}

/// Where a kernel's modules are that are not in its own package, as on Ubuntu.
fn modules_package(kernel: &str) -> String {
    let release = kernel.strip_prefix("linux-image-").unwrap_or(kernel);
    let release = release.strip_prefix("unsigned-").unwrap_or(release);
    format!("linux-modules-{release}")
}

fn modules_below(root: &Path) -> Option<PathBuf> {
    let all = ["lib/modules", "usr/lib/modules"].map(|path| root.join(path));
    all.into_iter().find(|path| path.is_dir())
}

fn ovmf_below(root: &Path) -> Option<(PathBuf, PathBuf)> {
    let all = OVMF.map(|(code, variables)| (root.join(code), root.join(variables)));
    all.into_iter()
        .find(|(code, variables)| code.is_file() && variables.is_file())
}

fn text(path: &Path) -> Result<String> {
    let text = path.to_str().map(str::to_owned);
    text.with_context(|| format!("the path {} is not UTF-8", path.display()))
}

impl Ready {
    /// Writes what the guest reads into a run's folder, and returns QEMU's arguments.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(super) fn arguments(&self, files: &Files) -> Result<Vec<String>> {
        let mut line = self.shared.clone();
        let mut add = |words: [&str; 2]| line.extend(words.map(str::to_owned));
        let place = |name: &str| -> Result<String> { Ok(escape(&text(&files.dir().join(name))?)) };
        match self.kind {
            Kind::Seabios | Kind::Linux | Kind::LinuxLegacy => {
                proof::disk(&files.disk(0))?;
                let file = escape(&text(&files.disk(0))?);
                add([
                    "-drive",
                    &format!("if=none,id={DISK},format=raw,file={file}"),
                ]);
            }
            Kind::Ovmf => {
                proof::shell_files(&files.dir().join("fat"))?;
                let fat = place("fat")?;
                let drive = format!("if=none,id={DISK},driver=vvfat,read-only=on,dir={fat}");
                add(["-drive", &drive]);
            }
            Kind::Ipxe => {
                proof::network_file(&files.dir().join("tftp/proof.0"))?;
                let tftp = place("tftp")?;
                let net = format!("user,id={NETWORK},tftp={tftp},bootfile=proof.0");
                add(["-netdev", &net]);
                // The BIOS's screen, which iPXE writes to, is the serial line.
                add(["-machine", "graphics=off"]);
            }
        }
        if let Some(variables) = &self.variables {
            let copy = files.dir().join("variables.fd");
            std::fs::copy(variables, &copy)
                .with_context(|| format!("cannot write {}", copy.display()))?;
            let copy = escape(&text(&copy)?);
            add(["-drive", &format!("if=pflash,format=raw,file={copy}")]);
        }
        line.extend(firmware::arguments(files)?);
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::toolchain::Way;

    #[test]
    fn a_guest_that_cannot_be_had_is_asked_for_once_and_says_why() {
        let setup = SetupArgs {
            no_install: true,
            toolchain: Way::Auto,
        };
        let guests = Guests::new(Path::new("/no/such/qemu"), &setup);
        let lacks = guests.lacks("minix").unwrap();
        assert!(lacks.contains("no guest `minix`"), "{lacks}");
        let lacks = guests.lacks("ipxe").unwrap();
        assert!(lacks.contains("/no/such/qemu"), "{lacks}");
        assert_eq!(guests.lacks("seabios"), None);
        assert_eq!(guests.ready.lock().unwrap().len(), 3);
    }

    #[test]
    fn a_kernel_is_taken_by_the_name_that_apt_knows() {
        let ubuntu = |name: &str| match name {
            "linux-image-virtual" => Some("linux-image-6.8.0-31-generic".to_owned()),
            "linux-image-generic" => Some("linux-image-6.8.0-40-generic".to_owned()),
            _ => None,
        };
        let kernel = first_kernel(ubuntu).unwrap();
        assert_eq!(kernel, "linux-image-6.8.0-31-generic");
        let modules = "linux-modules-6.8.0-31-generic";
        assert_eq!(modules_package(&kernel), modules);
        let unsigned = kernel.replace("image-", "image-unsigned-");
        assert_eq!(modules_package(&unsigned), modules);
        let debian = |name: &str| Some(format!("{name}-6.1"));
        let smallest = "linux-image-cloud-amd64-6.1";
        assert_eq!(first_kernel(debian).as_deref(), Some(smallest));
        assert_eq!(first_kernel(|_| None), None);
    }

    #[test]
    fn each_run_has_files_of_its_own() {
        let dir = std::env::temp_dir().join(format!("doorbell-{},guests", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let variables = dir.join("original");
        std::fs::write(&variables, "v").unwrap();
        let files = Files::new(dir.clone()).unwrap();
        let arguments = |kind| {
            let mut ready = Ready::bare(kind);
            ready.shared = vec!["-L".into(), "shared".into()];
            ready.variables = (kind == Kind::Ovmf).then(|| variables.clone());
            ready.arguments(&files).unwrap().join(" ")
        };
        let line = arguments(Kind::Seabios);
        assert!(
            line.starts_with("-L shared -drive if=none,id=disk,format=raw,"),
            "{line}"
        );
        // A comma in a path does not end an option.
        assert!(line.contains(",,guests/disk0.img"), "{line}");
        assert!(files.disk(0).is_file());
        let line = arguments(Kind::Ipxe);
        assert!(
            line.contains("bootfile=proof.0 -machine graphics=off"),
            "{line}"
        );
        assert!(dir.join("tftp/proof.0").is_file());
        let line = arguments(Kind::Ovmf);
        assert!(
            line.contains("driver=vvfat") && line.contains("variables.fd"),
            "{line}"
        );
        assert_eq!(std::fs::read(dir.join("variables.fd")).unwrap(), b"v");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
