//! The first file system of the Linux guest: busybox, the kernel's own virtio modules,
//! and a script that loads them, reads the disk and says what it sees.
//!
//! The archive is cpio's "newc" (Linux: Documentation/driver-api/early-userspace/
//! buffer-format.rst).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// One that is missing is part of the kernel.
const MODULES: [&str; 6] = [
    "virtio",
    "virtio_ring",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
];
/// What modules may be packed with; busybox unpacks them.
const ENDINGS: [&str; 4] = ["ko", "ko.xz", "ko.gz", "ko.zst"];

/// The environment variable, from the kernel's command line, with `virtio_pci`'s options.
pub(super) const DRIVER_OPTIONS: &str = "driver_options";

/// What the guest says when it cannot read the proof.
pub(super) const NO_PROOF: &str = "no-proof";

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const PLAIN: u32 = 0o100_644;

/// The script: what it finds is printed as records. `NAMES` is the list of modules; which
/// of them needs which differs from kernel to kernel, so they are all tried twice.
/// `NO_PROOF` is the record of a disk that could not be read.
const INIT: &str = r#"#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs none /dev
$b mount -t proc none /proc
$b mount -t sysfs none /sys
echo
echo "@{\"v\":1,\"kind\":\"guest\",\"version\":\"Linux $($b uname -r)\"}"
for name in NAMES NAMES; do
    for file in /modules/$name.ko*; do
        [ -e "$file" ] || continue
        case $name in
        virtio_pci) $b insmod $file $driver_options ;;
        *) $b insmod $file ;;
        esac
    done
done 2>/dev/null
for device in /sys/bus/virtio/devices/*; do
    [ -e "$device" ] || continue
    driver=$($b basename "$($b readlink $device/driver)")
    echo "@{\"v\":1,\"kind\":\"sysfs\",\"driver\":\"$driver\",\"features\":\"$($b cat $device/features)\"}"
done
proof=$($b dd if=/dev/vda bs=512 skip=1 count=1 2>/dev/null | $b tr -d '\000')
case $proof in
@*) echo "$proof" ;;
*) echo "@{\"v\":1,\"kind\":\"NO_PROOF\"}" ;;
esac
while :; do $b sleep 60; done
"#;

/// An archive that grows by a file at a time.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    files: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.files += 1;
        let links = 1;
        // inode, mode, user, group, links, time, size, then device numbers, the name's
        // size with its end, and a checksum that this format does not use.
        let size = content.len() as u32;
        let name_size = name.len() as u32 + 1;
        let fields = [
            self.files, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        let whole = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(whole, 0);
    }

    fn end(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

/// Makes the file system of busybox and the modules below `modules`.
///
/// # Errors
/// When a file cannot be read.
pub(super) fn build(busybox: &Path, modules: &Path) -> Result<Vec<u8>> {
    let read = |path: &Path| {
        std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "proc", "sys", "modules"] {
        archive.add(folder, DIRECTORY, &[]);
    }
    archive.add("bin/busybox", PROGRAM, &read(busybox)?);
    let script = INIT.replace("NAMES", &MODULES.join(" "));
    let script = script.replace("NO_PROOF", NO_PROOF);
    archive.add("init", PROGRAM, script.as_bytes());
    for path in find(modules)? {
        if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
            archive.add(&format!("modules/{name}"), PLAIN, &read(&path)?);
        }
    }
    Ok(archive.end())
}

/// The modules that are below `folder`.
fn find(folder: &Path) -> Result<Vec<PathBuf>> {
    let wanted = |name: &str| {
        let parts = name.split_once('.');
        parts.is_some_and(|(name, ending)| MODULES.contains(&name) && ENDINGS.contains(&ending))
    };
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder)
            .with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries.filter_map(Result::ok) {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            } else if entry.file_name().to_str().is_some_and(wanted) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_cpios() {
        let mut archive = Archive::default();
        archive.add("a", PLAIN, b"xyz");
        let bytes = archive.end();
        let text = String::from_utf8_lossy(&bytes);
        // The header is 110 bytes long; name and content end on a multiple of 4.
        assert!(text.starts_with("07070100000001000081a4"), "{text}");
        assert_eq!(&text[54..62], "00000003");
        assert_eq!(&text[94..102], "00000002");
        assert_eq!(&text[110..120], "a\0xyz\u{0}0707");
        assert!(text.contains("TRAILER!!!\0"));
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn modules_are_found_wherever_they_are_and_others_stay() {
        let root = std::env::temp_dir().join(format!("doorbell-{}-modules", std::process::id()));
        let deep = root.join("kernel/drivers");
        std::fs::create_dir_all(&deep).unwrap();
        for name in [
            "virtio.ko",
            "virtio_blk.ko.xz",
            "virtio_mem.ko",
            "virtio.txt",
        ] {
            std::fs::write(deep.join(name), name).unwrap();
        }
        let found = find(&root).unwrap();
        let names: Vec<_> = found.iter().filter_map(|path| path.file_name()).collect();
        assert_eq!(names, ["virtio.ko", "virtio_blk.ko.xz"]);
        let bytes = build(&deep.join("virtio.txt"), &root).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("modules/virtio_blk.ko.xz\0"));
        assert!(text.contains("for name in virtio virtio_ring "));
        assert!(text.contains(r#"\"kind\":\"no-proof\"}"#));
        std::fs::remove_dir_all(root).unwrap();
    }
}
