//! The libvirt domain that gives a cell's machine: written as `domain.xml`, and where
//! libvirt's tools are there validated by `virt-xml-validate` and translated by libvirt
//! itself. What they say is a record of its own: the boots need none of it.
//!
//! An experiment's file gives the devices as libvirt has them, beside those of QEMU. That
//! both are the same is not taken on trust: what libvirt makes of the domain is compared
//! with what is booted, device by device, up to the root bus.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, OnceLock};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::plan::Cell;
use crate::image;
use crate::lock::lock;
use crate::qemu::outcome::EXIT_PORT;
use crate::qemu::{Accelerator, Files, Machine, host};
use crate::say;
use crate::setup::SetupArgs;
use crate::setup::system::{Apt, System};

const VALIDATE: &str = "virt-xml-validate";
/// Debian's packages of it, of what it runs, and of libvirt's QEMU driver.
const PACKAGES: [&str; 3] = [
    "libvirt-clients",
    "libxml2-utils",
    "libvirt-daemon-driver-qemu",
];
/// No question to libvirt takes longer; the first has it look at QEMU, in some seconds.
const SECONDS: &str = "120";
/// A bus is not deeper.
const DEEPEST: usize = 16;

/// libvirt's tools.
pub(crate) struct Libvirt<'a> {
    setup: &'a SetupArgs,
    missing: OnceLock<Option<String>>,
    /// libvirt's driver has its folder to itself.
    driver: Mutex<()>,
}

impl<'a> Libvirt<'a> {
    pub(crate) fn new(setup: &'a SetupArgs) -> Self {
        Self {
            setup,
            missing: OnceLock::new(),
            driver: Mutex::default(),
        }
    }

    /// Installs what it takes, before a sweep's progress shows.
    pub(crate) fn prepare(&self) {
        if let Some(why) = self.lacks() {
            say::note(format!("libvirt's domains are not validated: {why}"));
        }
    }

    /// Why domains cannot be validated here, if they cannot.
    fn lacks(&self) -> Option<String> {
        let missing = self.missing.get_or_init(|| {
            let installed = install(self.setup, || {
                let mut programs = [VALIDATE, "xmllint"].into_iter();
                programs.all(|name| host::find_program(name).is_some())
            });
            installed.err().map(|error| format!("{error:#}"))
        });
        missing.clone()
    }

    /// Writes the cell's `domain.xml`, has it validated and translated, and returns the
    /// record of that. `devices` are elements of `<devices>`.
    ///
    /// # Errors
    /// When a file cannot be written. What libvirt's tools do is no error.
    pub(crate) fn check(
        &self,
        qemu: &Path,
        kernel: &Path,
        cell: &Cell,
        devices: &str,
        files: &Files,
    ) -> Result<Value> {
        let path = files.dir().join("domain.xml");
        let text = domain(qemu, kernel, cell, devices)?;
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        let ours = paths(&devices_of(&cell.options.extra));
        let (theirs, why) = match self.translate(&path) {
            Ok(line) => {
                let kept = files.dir().join("libvirt.cmd");
                std::fs::write(&kept, &line)
                    .with_context(|| format!("cannot write {}", kept.display()))?;
                (Some(paths(&devices_of(&words(&line)))), None)
            }
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        let validity = self.validity(&path);
        let (valid, doubt) = validity.parts();
        Ok(json!({
            "v": 1,
            "kind": "libvirt",
            "valid": valid,
            "doubt": doubt,
            "version": host::first_line(Command::new("virsh").arg("--version")),
            "booted": ours,
            "translated": theirs,
            "agrees": theirs.as_ref().map(|theirs| *theirs == ours),
            "why": why,
        }))
    }

    fn validity(&self, domain: &Path) -> Validity {
        if let Some(why) = self.lacks() {
            return Validity::Unknown(why);
        }
        match run(Command::new(VALIDATE).arg(domain).arg("domain")) {
            Ok(output) => {
                let said = [output.stdout, output.stderr].concat();
                Validity::of(output.status.code(), String::from_utf8_lossy(&said).trim())
            }
            Err(error) => Validity::Unknown(format!("{error:#}")),
        }
    }

    /// What libvirt's QEMU driver makes of a domain, without a daemon.
    fn translate(&self, domain: &Path) -> Result<String> {
        let _alone = lock(&self.driver);
        let root = image::target_folder().join("libvirt");
        let uri = format!("qemu:///embed?root={}", encoded(&root));
        // As root the driver wants a user that only its daemon's package makes. It takes
        // somebody else's word for who it is.
        let user = host::first_line(Command::new("id").arg("-u"));
        let mut command = Command::new("timeout");
        command.arg(SECONDS);
        if user.as_deref() == Some("0") {
            command.args([
                "unshare",
                "--user",
                "--map-user=1000",
                "--map-group=1000",
                "--",
            ]);
        }
        command.args(["virsh", "-q", "-c", &uri, "domxml-to-native", "qemu-argv"]);
        let output = run(command.arg(domain))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let line = said.lines().rfind(|line| !line.trim().is_empty());
            bail!("virsh: {}", line.unwrap_or("(nothing)"));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

/// Whether a domain is as libvirt's schema has it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Validity {
    Valid,
    /// What is wrong with it.
    Invalid(String),
    /// Why nobody can say.
    Unknown(String),
}

impl Validity {
    /// What `virt-xml-validate` says by its exit status, which is that of `xmllint`, and in
    /// words.
    fn of(status: Option<i32>, said: &str) -> Self {
        match status {
            Some(0) => Self::Valid,
            // It is not well-formed, or not valid.
            Some(1 | 3) => Self::Invalid(said.to_owned()),
            // There is no schema, or it cannot be read; or there is no `xmllint`.
            _ => Self::Unknown(format!("{VALIDATE}: {said}")),
        }
    }

    /// For a record: true, false or null, and why not true.
    fn parts(&self) -> (Option<bool>, Option<&str>) {
        match self {
            Self::Valid => (Some(true), None),
            Self::Invalid(why) => (Some(false), Some(why)),
            Self::Unknown(why) => (None, Some(why)),
        }
    }
}

/// Installs what validates domains, unless it is `there`.
fn install(setup: &SetupArgs, there: impl Fn() -> bool) -> Result<()> {
    if there() {
        return Ok(());
    }
    let packages = PACKAGES.map(str::to_owned);
    let why = format!("{VALIDATE} checks libvirt's domains, and is not on the PATH");
    if setup.no_install || System::here() != System::Debian {
        let names = packages.join(" ");
        bail!("{why}; on Debian: apt-get install --no-install-recommends {names}");
    }
    Apt::new()?.install(&packages, &why)?;
    if !there() {
        bail!("{VALIDATE} is installed, but it is not on the PATH");
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    output.with_context(|| format!("cannot execute {name}"))
}

/// A path as a part of an address (RFC 3986, 2.1).
fn encoded(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let bytes = path.as_os_str().as_bytes().iter();
    let parts = bytes.map(|&byte| match byte {
        b'/' | b'.' | b'-' | b'_' => char::from(byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    parts.collect()
}

/// The text as XML has it.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('\'', "&apos;")
}

/// The domain that boots the unikernel with these devices.
fn domain(qemu: &Path, kernel: &Path, cell: &Cell, devices: &str) -> Result<String> {
    let options = &cell.options;
    let machine = match options.machine {
        Machine::Microvm => bail!("libvirt has no domains with the machine microvm"),
        machine => machine.name(),
    };
    let kind = match options.accelerator {
        Accelerator::Tcg => "qemu",
        Accelerator::Kvm => "kvm",
    };
    let path = |path: &Path| -> Result<PathBuf> { Ok(std::path::absolute(path)?) };
    let [qemu, kernel] = [path(qemu)?, path(kernel)?].map(|path| escaped(&path.to_string_lossy()));
    let commands = escaped(&cell.commands);
    let memory = options.memory;
    let lines = devices.lines().filter(|line| !line.trim().is_empty());
    let mut indented = lines.collect::<Vec<_>>().join("\n    ");
    // libvirt adds one to a domain that says nothing.
    if !devices.contains("<memballoon") {
        indented += "\n    <memballoon model='none'/>";
    }
    // The second vCPU that may come is as in `qemu::command_line`; the last arguments let
    // the unikernel end the domain.
    Ok(format!(
        "<domain type='{kind}' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>doorbell</name>
  <memory unit='MiB'>{memory}</memory>
  <vcpu current='1'>2</vcpu>
  <os>
    <type arch='x86_64' machine='{machine}'>hvm</type>
    <kernel>{kernel}</kernel>
    <cmdline>{commands}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='maximum'/>
  <on_reboot>destroy</on_reboot>
  <devices>
    <emulator>{qemu}</emulator>
    <serial type='pty'/>
    {indented}
  </devices>
  <qemu:commandline>
    <qemu:arg value='-device'/>
    <qemu:arg value='isa-debug-exit,iobase={EXIT_PORT:#x},iosize=0x4'/>
  </qemu:commandline>
</domain>
"
    ))
}

/// The words of a line that a shell would run, as libvirt quotes them.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut escape) = (Vec::new(), String::new(), false, false);
    for c in line.chars() {
        match c {
            _ if std::mem::take(&mut escape) => word.push(c),
            '\'' => quoted = !quoted,
            '\\' if !quoted => escape = true,
            c if c.is_whitespace() && !quoted => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

/// A device of a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Device {
    driver: String,
    id: String,
    bus: String,
}

/// What follows each `-device`: JSON, or `driver,property=value`.
fn devices_of(words: &[String]) -> Vec<Device> {
    let pairs = words.windows(2).filter(|pair| pair[0] == "-device");
    let devices = pairs.map(|pair| {
        let text = &pair[1];
        if let Ok(value) = serde_json::from_str::<Value>(text) {
            let part = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
            let [driver, id, bus] = ["driver", "id", "bus"].map(part);
            return Device { driver, id, bus };
        }
        let part = |key: &str| {
            let mut properties = text.split(',').filter_map(|part| part.split_once('='));
            let found = properties.find(|(name, _)| *name == key);
            found.map_or(String::new(), |(_, value)| value.to_owned())
        };
        Device {
            driver: text.split(',').next().unwrap_or_default().to_owned(),
            id: part("id"),
            bus: part("bus"),
        }
    });
    devices.collect()
}

/// Each virtio device with what is between it and the root bus, in words.
fn paths(devices: &[Device]) -> Vec<String> {
    let virtio = devices
        .iter()
        .filter(|device| device.driver.starts_with("virtio-"));
    let mut paths: Vec<String> = virtio
        .map(|device| {
            let mut path = device.driver.clone();
            let mut bus = &device.bus;
            for _ in 0..DEEPEST {
                let Some(parent) = devices.iter().find(|parent| parent.id == *bus) else {
                    break;
                };
                path += &format!(" on {}", parent.driver);
                bus = &parent.bus;
            }
            format!("{path} on {bus}")
        })
        .collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::tests::options;

    fn cell(machine: Machine) -> Cell {
        let mut options = options(machine);
        options.extra.clear();
        Cell {
            labels: Default::default(),
            name: "x".into(),
            options,
            devices: Vec::new(),
            commands: "lspci; echo 'a<b&c'".into(),
            libvirt: None,
        }
    }

    #[test]
    fn a_domain_has_the_cells_machine_kernel_and_commands() {
        let (qemu, kernel) = (Path::new("/bin/q"), Path::new("/it's/k"));
        let text = domain(qemu, kernel, &cell(Machine::Pc), "<rng/>\n  \n<disk/>\n").unwrap();
        for part in [
            "<domain type='qemu'",
            "machine='pc'>hvm",
            "<kernel>/it&apos;s/k</kernel>",
            "<cmdline>lspci; echo &apos;a&lt;b&amp;c&apos;</cmdline>",
            "<memory unit='MiB'>64</memory>",
            "    <rng/>\n    <disk/>\n    <memballoon",
            "isa-debug-exit,iobase=0xf4",
        ] {
            assert!(text.contains(part), "no `{part}` in {text}");
        }
        let text = domain(qemu, kernel, &cell(Machine::Q35), "<memballoon/>").unwrap();
        assert_eq!(text.matches("<memballoon").count(), 1, "{text}");
        let error = domain(qemu, kernel, &cell(Machine::Microvm), "").unwrap_err();
        assert!(error.to_string().contains("microvm"), "{error}");
    }

    #[test]
    fn both_ways_to_write_a_device_come_to_the_same_path() {
        let libvirt = r#"A=1 /bin/q -append 'a b' -device '{"driver":"pcie-root-port","id":"pci.1","bus":"pcie.0"}' -device '{"driver":"pcie-pci-bridge","id":"pci.3","bus":"pci.1"}' -device '{"driver":"virtio-rng-pci-transitional","id":"rng0","bus":"pci.3","addr":"0x1"}' -msg timestamp=on"#;
        let theirs = words(libvirt);
        assert_eq!(theirs[..4], ["A=1", "/bin/q", "-append", "a b"]);
        let ours = words(
            "-device pcie-root-port,id=port0,bus=pcie.0 -device pcie-pci-bridge,id=b,bus=port0 \
             -device virtio-rng-pci-transitional,id=device0,bus=b,addr=0x1",
        );
        let path = "virtio-rng-pci-transitional on pcie-pci-bridge on pcie-root-port on pcie.0";
        assert_eq!(paths(&devices_of(&theirs)), [path]);
        assert_eq!(paths(&devices_of(&ours)), [path]);
        let elsewhere = words("-device virtio-rng-pci-transitional,id=device0,bus=pcie.0");
        assert_ne!(paths(&devices_of(&elsewhere)), [path]);
    }

    #[test]
    fn quotes_and_addresses_are_read_and_written() {
        assert_eq!(words(r"a 'it'\''s' b\ c"), ["a", "it's", "b c"]);
        assert_eq!(encoded(Path::new("/a b/c-d_e.f?")), "/a%20b/c-d_e.f%3F");
        // A bus that is its own parent.
        let looped = words("-device virtio-rng-pci,id=a,bus=a");
        assert!(paths(&devices_of(&looped))[0].ends_with(" on a"));
    }

    #[test]
    fn only_the_schemas_word_makes_a_domain_invalid() {
        let parts = |status| {
            let validity = Validity::of(status, "said");
            let (valid, doubt) = validity.parts();
            (valid, doubt.map(str::to_owned))
        };
        assert_eq!(parts(Some(0)), (Some(true), None));
        assert_eq!(parts(Some(3)), (Some(false), Some("said".into())));
        // No schema, no `xmllint`, a signal.
        for status in [Some(4), Some(127), None] {
            let (valid, doubt) = parts(status);
            assert_eq!(valid, None);
            assert!(doubt.unwrap().ends_with(": said"));
        }
    }

    #[test]
    fn a_domain_is_in_doubt_where_the_tools_are_missing() {
        let setup = SetupArgs {
            no_install: true,
            toolchain: crate::setup::toolchain::Way::Auto,
        };
        let mut libvirt = Libvirt::new(&setup);
        libvirt.missing = Some("no root".to_owned()).into();
        let validity = libvirt.validity(Path::new("/no/such/domain.xml"));
        assert_eq!(validity.parts(), (None, Some("no root")));
    }

    #[test]
    fn without_the_tools_the_reason_has_the_command() {
        let setup = SetupArgs {
            no_install: true,
            toolchain: crate::setup::toolchain::Way::Auto,
        };
        let reason = install(&setup, || false).unwrap_err().to_string();
        assert!(reason.contains("libvirt-clients"), "{reason}");
        assert!(install(&setup, || true).is_ok());
    }
}
