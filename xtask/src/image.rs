//! The guest's images: where they are, how they are built, what they are.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::say;
use crate::setup::toolchain::Toolchain;

/// An image that QEMU can boot.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) path: PathBuf,
    /// Cargo's profile, if we built it.
    pub(crate) profile: Option<&'static str>,
    /// The toolchain, if we built it.
    pub(crate) built_by: Option<String>,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

/// A package that makes an image, and the name of its binary.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Package {
    pub(crate) name: &'static str,
    pub(crate) binary: &'static str,
    /// The feature that the binary needs; empty for none.
    pub(crate) feature: &'static str,
}

/// The unikernel.
pub(crate) const KERNEL: Package = Package {
    name: "doorbell-kernel",
    binary: "doorbell",
    feature: "",
};
/// The guest tests.
pub(crate) const TESTS: Package = Package {
    name: "doorbell-tests",
    binary: "doorbell-tests",
    feature: "image",
};
/// Somebody else's kernel with our drivers in it.
pub(crate) const EMBED: Package = Package {
    name: "doorbell-embed",
    binary: "doorbell-embed",
    feature: "",
};

/// The workspace's root.
pub(crate) fn workspace() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}

/// Cargo's target folder.
pub(crate) fn target_folder() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) if !folder.is_empty() => {
            std::path::absolute(&folder).unwrap_or_else(|_| folder.into())
        }
        _ => workspace().join("target"),
    }
}

/// Where an image of ours is found, whatever toolchain built it.
pub(crate) fn published(package: Package) -> PathBuf {
    target_folder().join("guest").join(package.binary)
}

/// Copies `made` to `path`, in one step for whoever reads it meanwhile; not at
/// all if it is there already.
fn publish(made: &Path, path: &Path) -> Result<()> {
    let bytes = std::fs::read(made).with_context(|| format!("cannot read {}", made.display()))?;
    if std::fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let new = path.with_extension(format!("new{}", std::process::id()));
    path.parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| std::fs::write(&new, &bytes))
        .and_then(|()| std::fs::rename(&new, path))
        .with_context(|| format!("cannot write the guest image {}", path.display()))
}

impl Image {
    /// Takes an image that is there.
    ///
    /// # Errors
    /// When it can't be read.
    pub(crate) fn at(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path)
            .with_context(|| format!("cannot read the guest image {}", path.display()))?;
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Ok(Self {
            path,
            profile: None,
            built_by: None,
            bytes: bytes.len() as u64,
            sha256: Sha256::digest(&bytes)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        })
    }

    /// Builds an image; cargo's own messages go to stderr.
    ///
    /// # Errors
    /// When cargo fails, or makes no such binary.
    pub(crate) fn build(package: Package, toolchain: &Toolchain) -> Result<Self> {
        if toolchain.is_fallback() {
            say::note(format!("building the guest with {}", toolchain.about));
        }
        let output = toolchain
            .cargo("build")
            .args([
                "--release",
                "--package",
                package.name,
                "--bin",
                package.binary,
                "--features",
                package.feature,
            ])
            .arg("--message-format=json-render-diagnostics")
            .current_dir(workspace())
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("cannot execute cargo")?;
        if !output.status.success() {
            bail!("{} did not build; cargo's messages are above", package.name);
        }
        let messages = String::from_utf8_lossy(&output.stdout);
        let made = executable(&messages, package.binary)
            .with_context(|| format!("cargo made no binary {}", package.binary))?;
        let path = published(package);
        publish(&made, &path)?;
        Ok(Self {
            profile: Some("release"),
            built_by: Some(toolchain.about.clone()),
            ..Self::at(&path)?
        })
    }
}

/// The binary's path in cargo's JSON messages.
pub(crate) fn executable(messages: &str, binary: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == binary)
        .find_map(|message| Some(message["executable"].as_str()?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_is_found_in_cargos_messages() {
        let messages = concat!(
            "noise\n",
            r#"{"reason":"compiler-artifact","target":{"name":"doorbell","kind":["lib"]},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"doorbell"},"executable":"/t/doorbell"}"#,
        );
        assert_eq!(executable(messages, "doorbell"), Some("/t/doorbell".into()));
        assert_eq!(executable(messages, "other"), None);
    }

    #[test]
    fn an_image_is_published_whole_and_only_when_it_is_new() {
        let folder = std::env::temp_dir().join(format!("doorbell-{}-image", std::process::id()));
        let (made, path) = (folder.join("made"), folder.join("guest").join("doorbell"));
        std::fs::create_dir_all(&folder).unwrap();
        let modified = || std::fs::metadata(&path).unwrap().modified().unwrap();
        std::fs::write(&made, "one").unwrap();
        publish(&made, &path).unwrap();
        let first = modified();
        publish(&made, &path).unwrap();
        assert_eq!(modified(), first);
        std::fs::write(&made, "two").unwrap();
        publish(&made, &path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        let files = std::fs::read_dir(folder.join("guest")).unwrap();
        assert_eq!(files.count(), 1);
        assert!(publish(&folder.join("none"), &path).is_err());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_missing_image_is_named() {
        let error = Image::at(Path::new("/no/such/image")).unwrap_err();
        assert!(error.to_string().contains("/no/such/image"));
    }
}
