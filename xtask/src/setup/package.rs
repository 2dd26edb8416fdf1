//! Debian packages that are looked into, and never installed: fetched with
//! `apt-get download` and unpacked below the target folder, which takes no rights.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::SetupArgs;
use super::system::{Apt, System};
use crate::qemu::{quote, shell_line};
use crate::{image, say};

/// A package's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// Takes the place of `/` in their paths.
    pub(crate) root: PathBuf,
    pub(crate) version: String,
}

/// Fetches `package` and unpacks it, unless it is there from before; `why` says what for.
///
/// # Errors
/// When it cannot or must not be fetched, with the commands that would do it.
pub(crate) fn unpacked(args: &SetupArgs, package: &str, why: &str) -> Result<Unpacked> {
    let shelf = image::target_folder().join("packages");
    if let Some(found) = newest(&shelf, package) {
        return Ok(found);
    }
    let shelf_name = shelf.display();
    let version = Apt::candidate(package).unwrap_or_else(|| "VERSION".into());
    let how = format!(
        "to fetch it: mkdir -p {shelf_name} && cd {shelf_name} && apt-get download {package} && \
         dpkg-deb -x {package}_*.deb {}",
        quote(&folder_name(package, &version))
    );
    if args.no_install {
        bail!("{why} takes Debian's package {package}, and --no-install was given; {how}");
    }
    if System::here() != System::Debian {
        bail!("{why} takes Debian's package {package}, and this is not Debian; there, {how}");
    }
    if Apt::candidate(package).is_none() {
        Apt::new()?.update()?;
    }
    let version = Apt::candidate(package);
    let version = version.with_context(|| format!("apt-get has no package {package}"))?;
    let cannot = || format!("cannot write {shelf_name}");
    std::fs::create_dir_all(&shelf).with_context(cannot)?;
    let work = shelf.join(format!("new{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&work);
    let tree = work.join("tree");
    std::fs::create_dir_all(&tree).with_context(cannot)?;
    say::note(format!("fetching {package} {version}: {why}"));
    let fetched = run(&work, &["apt-get", "download", package])
        .and_then(|()| archive(&work))
        .and_then(|archive| run(&work, &["dpkg-deb", "-x", &archive, "tree"]));
    let root = shelf.join(folder_name(package, &version));
    let placed = fetched.and_then(|()| std::fs::rename(&tree, &root).with_context(cannot));
    let _ = std::fs::remove_dir_all(&work);
    placed?;
    Ok(Unpacked { root, version })
}

/// The package that `package` depends on first: what a package without files stands for.
///
/// # Errors
/// When apt does not know the package.
pub(crate) fn stands_for(package: &str) -> Result<String> {
    let output = Command::new("apt-cache")
        .args(["depends", package])
        .output()
        .context("cannot execute apt-cache")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let first = first_dependency(&text);
    first.with_context(|| format!("apt knows nothing that {package} depends on"))
}

fn first_dependency(text: &str) -> Option<String> {
    let mut lines = text.lines().map(str::trim);
    lines.find_map(|line| Some(line.strip_prefix("Depends:")?.trim().to_owned()))
}

/// Versions have colons and tildes, which stay; a slash cannot be in one.
fn folder_name(package: &str, version: &str) -> String {
    format!("{package}_{version}")
}

/// The package that was unpacked last.
fn newest(shelf: &Path, package: &str) -> Option<Unpacked> {
    let entries = std::fs::read_dir(shelf).ok()?.filter_map(Result::ok);
    let ours = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let (of, version) = name.split_once('_')?;
        let folder = entry.file_type().ok()?.is_dir() && of == package;
        let time = entry.metadata().ok()?.modified().ok()?;
        folder.then(|| {
            let (root, version) = (entry.path(), version.to_owned());
            (time, Unpacked { root, version })
        })
    });
    Some(ours.max_by_key(|(time, _)| *time)?.1)
}

/// The archive that apt-get left.
fn archive(folder: &Path) -> Result<String> {
    let entries = std::fs::read_dir(folder)?.filter_map(Result::ok);
    let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let name = names.find(|name| name.ends_with(".deb"));
    name.context("apt-get left no package")
}

fn run(folder: &Path, words: &[&str]) -> Result<()> {
    let output = Command::new(words[0])
        .args(&words[1..])
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot execute {}", words[0]))?;
    if !output.status.success() {
        let line = shell_line(
            &words
                .iter()
                .map(|&word| word.to_owned())
                .collect::<Vec<_>>(),
        );
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` failed: {}", said.trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_package_stands_for_is_its_first_dependency() {
        let text = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n  \
                    Depends: other\n";
        let found = first_dependency(text);
        assert_eq!(found.as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(first_dependency("ovmf\n  Suggests: x\n"), None);
    }

    #[test]
    fn a_package_that_is_there_is_not_fetched() {
        let shelf = std::env::temp_dir().join(format!("doorbell-{}-shelf", std::process::id()));
        let root = shelf.join(folder_name("ovmf", "1:2.0~3_4"));
        std::fs::create_dir_all(&root).unwrap();
        std::fs::write(shelf.join("ovmf_9.deb"), "").unwrap();
        let version = "1:2.0~3_4".to_owned();
        assert_eq!(newest(&shelf, "ovmf"), Some(Unpacked { root, version }));
        assert_eq!(newest(&shelf, "ovm"), None);
        std::fs::remove_dir_all(shelf).unwrap();
    }
}
