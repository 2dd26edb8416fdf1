//! The kernel for a machine without IO ports, `tests/virt`: how it is built, and QEMU's
//! command line, which stands in its folder's cargo settings as the runner.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::image;
use crate::setup::toolchain::{Toolchain, VIRT_TARGET};

const NAME: &str = "doorbell-virt";

/// The package's folder.
fn home() -> PathBuf {
    image::workspace().join("tests").join("virt")
}

/// `cargo <subcommand>` on the package, which is a workspace of its own.
pub(crate) fn cargo(toolchain: &Toolchain, subcommand: &str) -> Command {
    let mut command = toolchain.cargo(subcommand);
    command
        .arg("--release")
        .arg("--manifest-path")
        .arg(home().join("Cargo.toml"))
        .env("CARGO_TARGET_DIR", image::target_folder().join("virt"));
    command
}

/// `cargo fmt --check` on the package.
pub(crate) fn formatting() -> [String; 4] {
    let manifest = home().join("Cargo.toml").display().to_string();
    ["fmt", "--check", "--manifest-path", &manifest].map(str::to_owned)
}

/// Builds the kernel, and says where it is.
///
/// # Errors
/// When cargo fails, or makes no such binary.
pub(crate) fn build(toolchain: &Toolchain) -> Result<PathBuf> {
    let output = cargo(toolchain, "build")
        .arg("--message-format=json-render-diagnostics")
        .current_dir(image::workspace())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot execute cargo")?;
    if !output.status.success() {
        bail!("{NAME} did not build; cargo's messages are above");
    }
    image::executable(&String::from_utf8_lossy(&output.stdout), NAME)
        .with_context(|| format!("cargo made no binary {NAME}"))
}

/// QEMU's command line: the runner's, with `qemu` and `kernel`, and then `more`.
///
/// # Errors
/// When the settings have no runner, or a path is not UTF-8.
pub(crate) fn command_line(qemu: &Path, kernel: &Path, more: &[&str]) -> Result<Vec<String>> {
    let path = home().join(".cargo").join("config.toml");
    let text = std::fs::read_to_string(&path);
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    let runner = runner(&text).with_context(|| format!("no runner in {}", path.display()))?;
    let utf8 = |path: &Path| path.to_str().map(str::to_owned);
    let mut words = vec![utf8(qemu).context("QEMU's path is not UTF-8")?];
    // The first word is QEMU's name.
    words.extend(runner.into_iter().skip(1));
    words.push(utf8(kernel).context("the kernel's path is not UTF-8")?);
    words.extend(more.iter().map(|&word| word.to_owned()));
    Ok(words)
}

fn runner(settings: &str) -> Option<Vec<String>> {
    let settings: toml::Table = settings.parse().ok()?;
    let words = settings.get("target")?.get(VIRT_TARGET)?.get("runner")?;
    let words = words.as_array()?.iter();
    words.map(|word| word.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_the_runners() {
        let more = ["-D", "log"];
        let words = command_line(Path::new("/q"), Path::new("/k"), &more).unwrap();
        assert_eq!(words[0], "/q");
        assert_eq!(words[words.len() - 4..], ["-kernel", "/k", "-D", "log"]);
        assert!(words.contains(&"1,maxcpus=2".to_owned()), "{words:?}");
        assert_eq!(runner("[target.other]\nrunner = ['x']"), None);
    }
}
