//! Which operating system this is, and how one installs things on it.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::toolchain::{DEBIAN_PACKAGES, TARGET};
use crate::qemu::host::find_program;
use crate::say;

/// Systems with a package manager that we know by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum System {
    /// Debian and what is made from it: the only one we install things on.
    Debian,
    Fedora,
    Arch,
    Suse,
    Alpine,
    Nix,
    MacOs,
    Other,
}

impl System {
    /// This machine's.
    pub(crate) fn here() -> Self {
        let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        Self::detect(std::env::consts::OS, &text)
    }

    fn detect(os: &str, os_release: &str) -> Self {
        if os == "macos" {
            return Self::MacOs;
        }
        let field = |name: &str| {
            let value = os_release
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            value.unwrap_or_default().trim_matches(['"', '\''])
        };
        // A system's own name counts before what it is like.
        let names = field("ID").split(' ').chain(field("ID_LIKE").split(' '));
        for name in names {
            return match name {
                "debian" | "ubuntu" => Self::Debian,
                "fedora" | "rhel" | "centos" => Self::Fedora,
                "arch" => Self::Arch,
                "suse" | "opensuse" => Self::Suse,
                "alpine" => Self::Alpine,
                "nixos" => Self::Nix,
                _ => continue,
            };
        }
        Self::Other
    }

    /// The command that installs QEMU.
    pub(crate) fn qemu_command(self) -> String {
        match self {
            Self::Debian => apt_line(&[QEMU_PACKAGE.to_owned()]),
            Self::Fedora => "sudo dnf install qemu-system-x86-core".into(),
            Self::Arch => "sudo pacman -S qemu-system-x86".into(),
            Self::Suse => "sudo zypper install qemu-x86".into(),
            Self::Alpine => "sudo apk add qemu-system-x86_64".into(),
            Self::Nix => "nix-shell -p qemu".into(),
            Self::MacOs => "brew install qemu".into(),
            Self::Other => {
                "(your system's package that has qemu-system-x86_64, 7.2 or newer)".into()
            }
        }
    }

    /// The commands of which one gives the bare-metal target.
    pub(crate) fn target_commands(self) -> Vec<String> {
        let rustup = format!("rustup target add {TARGET}");
        match self {
            Self::Debian => vec![
                rustup,
                apt_line(
                    &DEBIAN_PACKAGES
                        .iter()
                        .chain(&["lld"])
                        .map(|&name| name.to_owned())
                        .collect::<Vec<_>>(),
                ),
            ],
            Self::Nix => vec![
                rustup,
                format!(
                    "(rust-overlay: rust-bin.stable.latest.default.override {{ targets = [ \"{TARGET}\" ]; }})"
                ),
            ],
            _ => vec![rustup],
        }
    }
}

/// Debian's package of qemu-system-x86_64.
pub(crate) const QEMU_PACKAGE: &str = "qemu-system-x86";
const APT: [&str; 3] = ["apt-get", "-o", "DPkg::Lock::Timeout=120"];
const INSTALL: [&str; 3] = ["install", "-y", "--no-install-recommends"];

/// What one types to install `packages` on Debian.
fn apt_line(packages: &[String]) -> String {
    format!("sudo apt-get {} {}", INSTALL.join(" "), packages.join(" "))
}

/// apt-get with the rights that it needs.
pub(crate) struct Apt {
    prefix: Vec<&'static str>,
    updated: bool,
}

impl Apt {
    /// Root, or sudo: without a password, or where somebody can type one.
    ///
    /// # Errors
    /// When neither is there.
    pub(crate) fn new() -> Result<Self> {
        let root =
            crate::qemu::host::first_line(Command::new("id").arg("-u")).as_deref() == Some("0");
        let prefix = if root {
            vec![]
        } else if find_program("sudo").is_none() {
            bail!("installing packages takes root or sudo, and there is neither")
        } else if crate::qemu::host::first_line(Command::new("sudo").args(["-n", "id", "-u"]))
            .is_some()
        {
            vec!["sudo", "-n"]
        } else if std::io::IsTerminal::is_terminal(&std::io::stdin()) {
            vec!["sudo"]
        } else {
            bail!("installing packages takes root or sudo without a password")
        };
        Ok(Self {
            prefix,
            updated: false,
        })
    }

    /// The version of `package` that would be installed.
    pub(crate) fn candidate(package: &str) -> Option<String> {
        let output = Command::new("apt-cache")
            .args(["policy", package])
            .output()
            .ok()?;
        candidate(&String::from_utf8_lossy(&output.stdout))
    }

    /// Reads the package lists anew, once a run.
    ///
    /// # Errors
    /// When apt-get fails.
    pub(crate) fn update(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.updated, true) {
            return Ok(());
        }
        self.run(&["update"])
    }

    /// Installs `packages`; with fresh package lists if it doesn't work with
    /// those that are there.
    ///
    /// # Errors
    /// When apt-get fails.
    pub(crate) fn install(&mut self, packages: &[String], why: &str) -> Result<()> {
        say::note(format!("installing {}: {why}", packages.join(" ")));
        if packages
            .iter()
            .any(|package| Self::candidate(package).is_none())
        {
            self.update()?;
        }
        let words: Vec<&str> = INSTALL
            .into_iter()
            .chain(packages.iter().map(String::as_str))
            .collect();
        if self.run(&words).is_ok() {
            return Ok(());
        }
        if self.updated {
            bail!(
                "apt-get could not install {}; its messages are above",
                packages.join(" ")
            );
        }
        self.update()?;
        self.run(&words)
    }

    fn run(&self, words: &[&str]) -> Result<()> {
        let line: Vec<&str> = self
            .prefix
            .iter()
            .copied()
            .chain(["env", "DEBIAN_FRONTEND=noninteractive"])
            .chain(APT)
            .chain(words.iter().copied())
            .collect();
        say::note(format!("$ {}", line.join(" ")));
        // Its output goes to stderr: stdout is the guest's.
        let status = Command::new(line[0])
            .args(&line[1..])
            .stdin(if self.prefix == ["sudo"] {
                Stdio::inherit()
            } else {
                Stdio::null()
            })
            .stdout(std::io::stderr())
            .status()
            .with_context(|| format!("cannot execute {}", line[0]))?;
        if !status.success() {
            bail!("`{}` failed ({status})", line.join(" "));
        }
        Ok(())
    }
}

/// The candidate version in what `apt-cache policy` prints.
fn candidate(policy: &str) -> Option<String> {
    let version = policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate:"))?
        .trim();
    (!version.is_empty() && version != "(none)").then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systems_are_known_by_their_name_or_their_likeness() {
        let linux = |text| System::detect("linux", text);
        assert_eq!(linux("NAME=x\nID=debian\n"), System::Debian);
        assert_eq!(linux("ID=ubuntu\nID_LIKE=debian"), System::Debian);
        assert_eq!(
            linux("ID=linuxmint\nID_LIKE=\"ubuntu debian\""),
            System::Debian
        );
        assert_eq!(linux("ID=fedora\nVERSION_ID=43"), System::Fedora);
        assert_eq!(
            linux("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\""),
            System::Fedora
        );
        assert_eq!(linux("ID=endeavouros\nID_LIKE=arch"), System::Arch);
        assert_eq!(
            linux("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\""),
            System::Suse
        );
        assert_eq!(linux("ID=nixos"), System::Nix);
        assert_eq!(linux("ID=alpine"), System::Alpine);
        assert_eq!(linux("VERSION_ID=debian"), System::Other);
        assert_eq!(System::detect("macos", ""), System::MacOs);
    }

    #[test]
    fn every_system_says_how() {
        assert_eq!(
            System::Debian.qemu_command(),
            "sudo apt-get install -y --no-install-recommends qemu-system-x86"
        );
        assert_eq!(
            System::MacOs.target_commands(),
            ["rustup target add x86_64-unknown-none"]
        );
        let debian = System::Debian.target_commands();
        assert!(
            debian[1].ends_with(" rustc-web cargo-web rust-web-src lld"),
            "{debian:?}"
        );
    }

    #[test]
    fn the_candidate_is_read_from_apts_words() {
        let text =
            "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1\n  Version table:\n";
        assert_eq!(candidate(text).as_deref(), Some("1.96.0+dfsg1-1"));
        assert_eq!(candidate("x:\n  Candidate: (none)\n"), None);
        assert_eq!(candidate(""), None);
    }
}
