//! The Rust that builds for a bare-metal target: four ways to it, looked at
//! in this order.
//!
//! 1. The target is installed in the active toolchain.
//! 2. The active toolchain has Rust's sources, so that `-Zbuild-std` makes the target.
//! 3. `rustup target add`.
//! 4. Debian's packages, again with `-Zbuild-std`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::system::{Apt, System};
use crate::qemu::host::{find_program, first_line};
use crate::say;

/// The target of everything that runs in the guest.
pub(crate) const TARGET: &str = "x86_64-unknown-none";
/// The target of `tests/virt`.
pub(crate) const VIRT_TARGET: &str = "riscv64gc-unknown-none-elf";
/// Other targets that the library builds for. The last has pointers of 32 bits, and no
/// atomic accesses of 64.
pub(crate) const OTHER_TARGETS: [&str; 3] = [
    "aarch64-unknown-none",
    VIRT_TARGET,
    "riscv32imac-unknown-none-elf",
];
/// Debian's Rust that is kept new enough for web browsers. Its order: compiler,
/// cargo, sources.
pub(crate) const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
const LLD_PACKAGE: &str = "lld";
const BUILD_STD: [&str; 2] = [
    "-Zbuild-std=core,alloc",
    "-Zbuild-std-features=compiler-builtins-mem",
];
/// `rustup target add` on a machine that can't reach its server must not take longer.
const RUSTUP_LIMIT: Duration = Duration::from_secs(60);

/// How the bare-metal target is come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Way {
    /// The first of the others that works
    Auto,
    /// The target installed in the active toolchain
    Installed,
    /// The active toolchain's sources, with -Zbuild-std
    BuildStd,
    /// `rustup target add`
    Rustup,
    /// Debian's packages, with -Zbuild-std
    Debian,
}

/// A Rust that builds for a bare-metal target.
#[derive(Clone, Debug)]
pub(crate) struct Toolchain {
    /// One line that says which it is.
    pub(crate) about: String,
    target: &'static str,
    /// Clippy comes only with the active toolchain.
    pub(crate) active: bool,
    cargo: PathBuf,
    arguments: &'static [&'static str],
    environment: Vec<(String, OsString)>,
    /// Below the target folder, so that different compilers don't undo each
    /// other's work.
    folder: Option<&'static str>,
}

impl Toolchain {
    /// `cargo <subcommand>` for the target, with an environment free
    /// of what the `cargo xtask` around it has set.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.cargo);
        clean(&mut command, !self.active);
        command
            .arg(subcommand)
            .args(["--target", self.target])
            .args(self.arguments)
            .envs(self.environment.iter().cloned());
        if let Some(folder) = self.folder {
            command
                .arg("--target-dir")
                .arg(crate::image::target_folder().join(folder));
        }
        command
    }

    /// Whether it is another than the active toolchain as it is.
    pub(crate) fn is_fallback(&self) -> bool {
        self.folder.is_some()
    }
}

/// Takes out of a command's environment what cargo and rustup told us. What the
/// user set stays, but for RUSTFLAGS: they would replace those that
/// `.cargo/config.toml` has for the target.
pub(crate) fn clean(command: &mut Command, other_toolchain: bool) {
    const CARGOS: [&str; 9] = [
        "CARGO",
        "CARGO_BIN_NAME",
        "CARGO_CRATE_NAME",
        "CARGO_PRIMARY_PACKAGE",
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTFLAGS",
        "OUT_DIR",
        "RUST_RECURSION_COUNT",
        "RUSTUP_TOOLCHAIN_SOURCE",
    ];
    const OTHERS: [&str; 5] = [
        "RUSTUP_TOOLCHAIN",
        "RUSTC",
        "RUSTDOC",
        "LD_LIBRARY_PATH",
        "DYLD_FALLBACK_LIBRARY_PATH",
    ];
    for (name, _) in std::env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        if text.starts_with("CARGO_PKG_")
            || text.starts_with("CARGO_MANIFEST_")
            || CARGOS.contains(&text)
            || other_toolchain && OTHERS.contains(&text)
        {
            command.env_remove(&name);
        }
    }
}

/// What is there already, without any network.
///
/// # Errors
/// When nothing is, with a reason for each way that was looked at.
pub(crate) fn look(way: Way, target: &'static str) -> Result<Toolchain> {
    match way {
        Way::Auto => {
            let installed = match installed(target) {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            let build_std = match build_std(target) {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            debian(target).map_err(|debian| {
                anyhow::anyhow!("no Rust for {target}: {installed:#}; {build_std:#}; {debian:#}")
            })
        }
        Way::Installed | Way::Rustup => installed(target),
        Way::BuildStd => build_std(target),
        Way::Debian => debian(target),
    }
}

/// Gets what [`look`] did not find.
///
/// # Errors
/// When no way that is asked for can be gone.
pub(crate) fn fetch(way: Way, target: &'static str) -> Result<Toolchain> {
    let added = || rustup(target).and_then(|()| installed(target));
    match way {
        Way::Installed => {
            installed(target).context(format!("`rustup target add {target}` would help"))
        }
        Way::BuildStd => build_std(target).context("`rustup component add rust-src` would help"),
        Way::Rustup => added(),
        Way::Debian => install_debian(target),
        Way::Auto => match added() {
            Ok(found) => Ok(found),
            Err(error) => {
                say::note(format!("{error:#}; so Debian's packages"));
                install_debian(target)?;
                // The next run must find the same.
                look(way, target)
            }
        },
    }
}

/// The toolchain that runs this tool.
struct Active {
    cargo: PathBuf,
    sysroot: PathBuf,
}

fn active() -> Result<Active> {
    let program = |variable, name| {
        std::env::var_os(variable).map_or_else(|| PathBuf::from(name), PathBuf::from)
    };
    let rustc = program("RUSTC", "rustc");
    let sysroot =
        first_line(Command::new(&rustc).args(["--print", "sysroot"])).with_context(|| {
            format!(
                "`{} --print sysroot` failed: is Rust installed?",
                rustc.display()
            )
        })?;
    Ok(Active {
        cargo: program("CARGO", "cargo"),
        sysroot: sysroot.into(),
    })
}

fn installed(target: &'static str) -> Result<Toolchain> {
    let Active { cargo, sysroot } = active()?;
    if !sysroot
        .join("lib/rustlib")
        .join(target)
        .join("lib")
        .is_dir()
    {
        bail!(
            "the toolchain in {} does not have the target {target}",
            sysroot.display()
        );
    }
    Ok(Toolchain {
        about: format!("the target installed in {}", sysroot.display()),
        target,
        active: true,
        cargo,
        arguments: &[],
        environment: linker(&sysroot, target)?,
        folder: None,
    })
}

fn build_std(target: &'static str) -> Result<Toolchain> {
    let Active { cargo, sysroot } = active()?;
    sources(&sysroot)?;
    let mut environment = linker(&sysroot, target)?;
    environment.push(("RUSTC_BOOTSTRAP".into(), "1".into()));
    Ok(Toolchain {
        about: format!("-Zbuild-std and the sources in {}", sysroot.display()),
        target,
        active: true,
        cargo,
        arguments: &BUILD_STD,
        environment,
        folder: Some("build-std"),
    })
}

fn debian(target: &'static str) -> Result<Toolchain> {
    const CARGO: &str = "/usr/bin/cargo";
    const RUSTC: &str = "/usr/bin/rustc";
    let mut rustc = Command::new(RUSTC);
    clean(&mut rustc, true);
    let version = first_line(rustc.arg("--version")).with_context(|| format!("no {RUSTC}"))?;
    let number = version.split(' ').nth(1).and_then(Version::parse);
    if number.is_none_or(|number| number < Version::needed()) {
        bail!(
            "{RUSTC} is {version}, and this takes {} or newer",
            Version::needed()
        );
    }
    if !Path::new(CARGO).is_file() {
        bail!("no {CARGO}");
    }
    let mut rustc = Command::new(RUSTC);
    clean(&mut rustc, true);
    let sysroot = first_line(rustc.args(["--print", "sysroot"]))
        .with_context(|| format!("{RUSTC} has no sysroot"))?;
    sources(Path::new(&sysroot))?;
    let mut environment = linker(Path::new(&sysroot), target)?;
    environment.push(("RUSTC_BOOTSTRAP".into(), "1".into()));
    environment.push(("RUSTC".into(), RUSTC.into()));
    Ok(Toolchain {
        about: format!("-Zbuild-std and Debian's {version}"),
        target,
        active: false,
        cargo: CARGO.into(),
        arguments: &BUILD_STD,
        environment,
        folder: Some("debian"),
    })
}

fn sources(sysroot: &Path) -> Result<()> {
    if !sysroot
        .join("lib/rustlib/src/rust/library/core/Cargo.toml")
        .is_file()
    {
        bail!(
            "the toolchain in {} does not have Rust's sources",
            sysroot.display()
        );
    }
    Ok(())
}

/// Nothing where the toolchain brings its own `rust-lld`, else the setting that
/// names another.
fn linker(sysroot: &Path, target: &str) -> Result<Vec<(String, OsString)>> {
    let name = target.to_uppercase().replace('-', "_");
    let setting = format!("CARGO_TARGET_{name}_LINKER");
    if std::env::var_os(&setting).is_some() || rust_lld(sysroot).is_some() {
        return Ok(vec![]);
    }
    let found = find_program("rust-lld")
        .or_else(|| rust_lld(&active().ok()?.sysroot))
        .or_else(|| find_program("ld.lld"))
        .with_context(|| format!("no linker (rust-lld or ld.lld) for {}", sysroot.display()))?;
    Ok(vec![(setting, found.into())])
}

fn rust_lld(sysroot: &Path) -> Option<PathBuf> {
    std::fs::read_dir(sysroot.join("lib/rustlib"))
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path().join("bin/rust-lld")))
        .find(|path| path.is_file())
}

/// `rustup target add`, for at most [`RUSTUP_LIMIT`].
fn rustup(target: &str) -> Result<()> {
    if find_program("rustup").is_none() {
        bail!("there is no rustup");
    }
    say::note(format!(
        "$ rustup target add {target}    (it is missing; up to {} s)",
        RUSTUP_LIMIT.as_secs()
    ));
    let mut child = Command::new("rustup")
        .args(["target", "add", target])
        .current_dir(crate::image::workspace())
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .spawn()
        .context("cannot execute rustup")?;
    let start = Instant::now();
    while start.elapsed() < RUSTUP_LIMIT {
        if let Some(status) = child.try_wait().context("cannot wait for rustup")? {
            if status.success() {
                return Ok(());
            }
            bail!("rustup could not add the target {target} ({status})");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = child.kill();
    let _ = child.wait();
    bail!(
        "rustup did not add the target {target} within {} s",
        RUSTUP_LIMIT.as_secs()
    )
}

fn install_debian(target: &'static str) -> Result<Toolchain> {
    let mut apt = Apt::new().with_context(|| {
        let ways = System::Debian.target_commands().join("` or `");
        format!("this takes `{ways}`")
    })?;
    let compiler = DEBIAN_PACKAGES[0];
    let good = |version: &Option<String>| {
        version
            .as_deref()
            .and_then(Version::parse)
            .is_some_and(|version| version >= Version::needed())
    };
    let mut version = Apt::candidate(compiler);
    if !good(&version) {
        apt.update()?;
        version = Apt::candidate(compiler);
    }
    if !good(&version) {
        bail!(
            "Debian's package {compiler} is {}, and this takes Rust {} or newer; \
             `rustup target add {target}` would do instead",
            version.as_deref().unwrap_or("not there"),
            Version::needed()
        );
    }
    let mut packages: Vec<String> = DEBIAN_PACKAGES.map(str::to_owned).to_vec();
    if linker(Path::new("/usr"), target).is_err() {
        packages.push(LLD_PACKAGE.into());
    }
    apt.install(&packages, "Rust for bare-metal targets")?;
    debian(target)
}

/// A version of Rust, as far as it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32);

impl Version {
    /// The workspace's `rust-version`.
    fn needed() -> Self {
        Self::parse(env!("CARGO_PKG_RUST_VERSION")).unwrap_or(Self(1, 85))
    }

    /// From `1.96.0`, `1.96.0+dfsg1-1` or `1.93`.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(|c: char| !c.is_ascii_digit());
        Some(Self(
            parts.next()?.parse().ok()?,
            parts.next()?.parse().ok()?,
        ))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        let parse = |text| Version::parse(text).unwrap();
        assert!(parse("1.96.0+dfsg1-1~deb12u2") > parse("1.93"));
        assert!(parse("1.100.0") > parse("1.93.1"));
        assert!(parse("1.63.0+dfsg1-2") < Version::needed());
        assert_eq!(Version::parse("none"), None);
        assert_eq!(Version::parse(""), None);
        assert_eq!(Version::needed().to_string(), "1.93");
    }

    #[test]
    fn the_outer_cargos_words_do_not_reach_the_inner() {
        let mut command = Command::new("x");
        clean(&mut command, false);
        // Cargo sets these for every test it runs.
        let removed: Vec<_> = command
            .get_envs()
            .filter(|(_, value)| value.is_none())
            .map(|(name, _)| name.to_owned())
            .collect();
        assert!(removed.contains(&"CARGO_PKG_NAME".into()), "{removed:?}");
        assert!(removed.contains(&"CARGO".into()));
        assert!(!removed.contains(&"PATH".into()) && !removed.contains(&"CARGO_HOME".into()));
    }

    #[test]
    fn a_sysroot_without_sources_is_named() {
        let error = sources(Path::new("/nowhere")).unwrap_err().to_string();
        assert!(error.contains("/nowhere"), "{error}");
    }
}
