//! The folder of one `run`: no two runs share one, and no file that isn't ours is
//! overwritten.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::qemu::devices::{self, Group, others, tap};
use crate::qemu::{Files, Options, shell_line};
use crate::{disk, image, results};

/// The folder that a run gets which isn't told one.
pub(crate) fn default(options: &Options) -> PathBuf {
    image::target_folder().join("doorbell").join(format!(
        "{}-{}-{}",
        results::timestamp(results::now()).replace(':', ""),
        options.machine.name(),
        options.accelerator.name()
    ))
}

/// Makes the folder at `path`, or at `path-2`, `path-3` and so on where other
/// runs took those before.
///
/// # Errors
/// When it can't be made.
pub(crate) fn new(path: &Path) -> Result<PathBuf> {
    let cannot = |path: &Path| format!("cannot make the folder {}", path.display());
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| cannot(parent))?;
    }
    for n in 1u32.. {
        let path = match n {
            1 => path.to_owned(),
            n => {
                let mut name = path.as_os_str().to_owned();
                name.push(format!("-{n}"));
                name.into()
            }
        };
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            result => return result.map(|()| path.clone()).with_context(|| cannot(&path)),
        }
    }
    bail!(cannot(path))
}

/// Looks whether a run may write into a folder that the user named: it is not
/// there, has none of the files that the run writes, or is an earlier run's.
///
/// # Errors
/// When a file would be overwritten that may be somebody else's.
pub(crate) fn check(files: &Files, options: &Options) -> Result<()> {
    if results::is_ours(&files.results()) {
        return Ok(());
    }
    let logs = [
        files.command(),
        files.log(),
        files.serial(),
        files.results(),
    ];
    let disks = devices::disks(options);
    let disks = disks.iter().map(|disk| files.disk(disk.n));
    match disks.chain(logs).find(|path| path.exists()) {
        None => Ok(()),
        Some(path) => bail!(
            "--out {}: the run would overwrite {}, and no results.json there says that it is \
             an earlier run's; name another folder",
            files.dir().display(),
            path.display()
        ),
    }
}

/// Writes what QEMU needs into a folder, which is made if need be: the disks, what
/// other devices read, and a tap's script.
///
/// # Errors
/// When a file can't be written.
pub(crate) fn fill(options: &Options, files: &Files) -> Result<()> {
    std::fs::create_dir_all(files.dir())
        .with_context(|| format!("cannot make the folder {}", files.dir().display()))?;
    if options.has(Group::NetPairs) {
        tap::write_script(&files.tap_script(), &files.tap_pid())?;
    }
    others::fill(options, files)?;
    devices::disks(options)
        .iter()
        .try_for_each(|disk| disk::create(&files.disk(disk.n), disk.bytes()))
}

/// Removes the sockets at which nobody listens any more.
pub(crate) fn close(options: &Options, files: &Files) {
    for path in devices::sockets(options, files) {
        // QEMU may not have come so far as to make it.
        let _ = std::fs::remove_file(path);
    }
}

/// Removes the sockets, and the disks that the run left as they were, and says in
/// qemu.cmd how to come by others.
///
/// # Errors
/// When qemu.cmd can't be written.
pub(crate) fn tidy(options: &Options, files: &Files) -> Result<()> {
    close(options, files);
    for disk in devices::disks(options) {
        let (path, bytes) = (files.disk(disk.n), disk.bytes());
        let changed = disk::check(&path, bytes, bytes, &[]).is_err();
        if changed || std::fs::remove_file(&path).is_err() {
            continue;
        }
        let path = path.display().to_string();
        let make = shell_line(&["truncate".into(), "-s".into(), bytes.to_string(), path]);
        std::fs::File::options()
            .append(true)
            .open(files.command())
            .and_then(|mut file| {
                writeln!(
                    file,
                    "# This disk was removed: it still held what the tool had written before the \
                     run.\n# One of zeros does as well: {make}"
                )
            })
            .with_context(|| format!("cannot write {}", files.command().display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::Machine;
    use crate::qemu::tests::options;

    /// A path at which nothing is.
    fn place(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("doorbell-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn no_two_runs_share_a_folder() {
        let root = place("folders");
        let path = root.join("now");
        assert_eq!(new(&path).unwrap(), path);
        assert_eq!(new(&path).unwrap(), root.join("now-2"));
        assert_eq!(new(&path).unwrap(), root.join("now-3"));
        std::fs::write(root.join("file"), "").unwrap();
        assert!(new(&root.join("file").join("below")).is_err());
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn only_our_own_files_are_overwritten() {
        let files = Files::new(place("mine")).unwrap();
        let options = options(Machine::Microvm);
        assert!(check(&files, &options).is_ok());
        std::fs::create_dir_all(files.dir()).unwrap();
        assert!(check(&files, &options).is_ok());
        std::fs::write(files.disk(1), "no disk of this machine").unwrap();
        assert!(check(&files, &options).is_ok());
        for theirs in [files.disk(0), files.serial()] {
            std::fs::write(&theirs, "precious").unwrap();
            let error = check(&files, &options).unwrap_err().to_string();
            assert!(error.contains(theirs.to_str().unwrap()), "{error}");
            std::fs::remove_file(theirs).unwrap();
        }
        std::fs::write(files.disk(0), "old").unwrap();
        std::fs::write(files.results(), "[]").unwrap();
        assert!(check(&files, &options).is_err());
        std::fs::write(files.results(), r#"{"v":1,"world":{},"records":[]}"#).unwrap();
        assert!(check(&files, &options).is_ok());
        std::fs::remove_dir_all(files.dir()).unwrap();
    }

    #[test]
    fn only_disks_that_changed_are_kept() {
        let files = Files::new(place("tidy")).unwrap();
        let options = Options {
            groups: vec![Group::Disks, Group::Console],
            ..options(Machine::Q35)
        };
        fill(&options, &files).unwrap();
        std::fs::write(files.command(), "qemu\n").unwrap();
        let socket = files.port("con0", "data0");
        std::fs::write(&socket, "").unwrap();
        let mut bytes = std::fs::read(files.disk(1)).unwrap();
        bytes[77] ^= 1;
        std::fs::write(files.disk(1), bytes).unwrap();
        tidy(&options, &files).unwrap();
        assert!(!files.disk(0).exists() && files.disk(1).exists());
        assert!(!socket.exists());
        let text = std::fs::read_to_string(files.command()).unwrap();
        assert!(text.starts_with("qemu\n# "), "{text}");
        assert!(text.contains("truncate -s 33554432 /"), "{text}");
        assert!(text.contains("disk0.img") && !text.contains("disk1.img"));
        std::fs::remove_dir_all(files.dir()).unwrap();
    }
}
