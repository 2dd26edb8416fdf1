//! What this host offers: where QEMU is, and which accelerator it can use.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use clap::ValueEnum;

use super::Accelerator;

/// The environment variable that names another QEMU binary.
pub(crate) const QEMU_VARIABLE: &str = "DOORBELL_QEMU";
/// The binary that is looked for otherwise.
pub(crate) const QEMU: &str = "qemu-system-x86_64";
const KVM: &str = "/dev/kvm";
/// Where a server gets any port that is free.
const LOOPBACK: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// The accelerator that the user asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    /// KVM where the CPU has vmx or svm and /dev/kvm opens, else TCG
    Auto,
    /// QEMU's translator: runs everywhere
    Tcg,
    /// The kernel's hypervisor
    Kvm,
}

impl Choice {
    /// # Errors
    /// When KVM is asked for and can't be had.
    pub(crate) fn resolve(self) -> Result<Accelerator> {
        match self {
            Self::Tcg => Ok(Accelerator::Tcg),
            Self::Auto if hardware_virtualization() && open_kvm().is_ok() => Ok(Accelerator::Kvm),
            Self::Auto => Ok(Accelerator::Tcg),
            Self::Kvm => match open_kvm() {
                Ok(_) => Ok(Accelerator::Kvm),
                Err(error) => bail!(
                    "--accel kvm: cannot open {KVM}: {error}. \
                     Load the module kvm_intel or kvm_amd, join the group `kvm`, or use --accel tcg"
                ),
            },
        }
    }
}

/// Opens /dev/kvm as QEMU does.
///
/// # Errors
/// What the system says when it can't be opened.
pub(crate) fn open_kvm() -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).open(KVM)
}

/// Whether the CPU has vmx or svm.
pub(crate) fn hardware_virtualization() -> bool {
    std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| has_virtualization(&text))
}

fn has_virtualization(cpuinfo: &str) -> bool {
    flags(cpuinfo).any(|flag| flag == "vmx" || flag == "svm")
}

/// Whether this host is a guest itself: what KVM does then, another hypervisor does with
/// it.
pub(crate) fn is_guest() -> bool {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    flags(&text).any(|flag| flag == "hypervisor")
}

fn flags(cpuinfo: &str) -> impl Iterator<Item = &str> {
    cpuinfo
        .lines()
        .filter_map(|line| line.strip_prefix("flags"))
        .flat_map(str::split_whitespace)
}

/// A port of the loopback that nobody has now, neither for TCP nor for UDP.
///
/// # Errors
/// What the system says when there is none.
pub(crate) fn free_port() -> std::io::Result<u16> {
    const ATTEMPTS: u32 = 20;
    let attempt = || {
        let listener = TcpListener::bind(LOOPBACK)?;
        let port = listener.local_addr()?.port();
        UdpSocket::bind((LOOPBACK.0, port)).map(|_| port)
    };
    let mut last = attempt();
    for _ in 1..ATTEMPTS {
        if last.is_ok() {
            break;
        }
        last = attempt();
    }
    last
}

/// The CPU's own name.
pub(crate) fn cpu_model() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// QEMU's binary: what [`QEMU_VARIABLE`] names, or the first on the PATH.
pub(crate) fn find_qemu() -> Option<PathBuf> {
    match std::env::var_os(QEMU_VARIABLE) {
        Some(path) if !path.is_empty() => Some(PathBuf::from(path)).filter(|path| path.is_file()),
        _ => find_program(QEMU),
    }
}

/// The first file called `name` in the folders of PATH.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// The first line that `program --version` prints.
pub(crate) fn version(program: &Path) -> Option<String> {
    first_line(Command::new(program).arg("--version"))
}

/// The first line that a command prints, if it succeeds.
pub(crate) fn first_line(command: &mut Command) -> Option<String> {
    let output = command
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .output()
        .ok()?;
    if !output.status.success() {
        return None;
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Some(text.lines().next()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtualization_is_a_flag_of_its_own() {
        assert!(has_virtualization("flags\t\t: fpu vmx sse"));
        assert!(has_virtualization(
            "model name : x\nflags : fpu\nflags : svm"
        ));
        assert!(!has_virtualization("flags : fpu svmx\nvmx flags : ept"));
        assert!(!has_virtualization(""));
        assert_eq!(flags("flags : fpu hypervisor\nbugs : x").count(), 3);
    }

    #[test]
    fn a_free_port_can_be_had() {
        let port = free_port().unwrap();
        assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok());
    }

    #[test]
    fn programs_are_found_on_the_path_only() {
        assert!(find_program("sh").is_some());
        assert!(find_program("no-such-program-of-doorbell").is_none());
    }
}
