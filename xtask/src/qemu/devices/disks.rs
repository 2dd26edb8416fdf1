//! The disks: `blk<n>` is the device, `disk<n>` its block node, and
//! `disk<n>.img` its image.

use anyhow::Result;

use super::line::{Arguments, path};
use super::{Group, Options};
use crate::qemu::{Files, Machine};

/// Bytes in an ordinary disk: 32 MiB, so that 16 MiB can be moved inside.
const PLAIN_BYTES: u64 = 32 << 20;
/// Bytes in a disk for one purpose: 8 MiB.
const SPECIAL_BYTES: u64 = 8 << 20;

/// A sector of `errors` of which no read succeeds.
const BAD_READ: u64 = 10_000;
/// A sector of `errors` of which no write succeeds.
const BAD_WRITE: u64 = 12_000;
/// Linux's numbers, which `blkdebug` takes.
const EIO: u8 = 5;
const ENOSPC: u8 = 28;

/// One disk of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    pub(crate) n: usize,
    purpose: Purpose,
}

/// What a disk is for. Each has its device ID (`serial`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Everything else: `doorbell-disk<n>`.
    Plain,
    /// Refuses writes: `doorbell-readonly`.
    ReadOnly,
    /// Has four queues: `doorbell-queues`.
    Queues,
    /// Has blocks of 4096 bytes, in hardware of 16384, and takes few sectors in a
    /// discard or in a write of zeroes: `doorbell-4096`.
    Blocks,
    /// Fails reads of one sector and writes of another, always: `doorbell-errors`.
    Errors,
    /// Has no space left for any write: `doorbell-full`.
    Full,
    /// Comes and goes: `doorbell-disk<n>`.
    Hot,
}

const SPECIAL: [Disk; 5] = [
    Disk {
        n: 2,
        purpose: Purpose::ReadOnly,
    },
    Disk {
        n: 3,
        purpose: Purpose::Queues,
    },
    Disk {
        n: 4,
        purpose: Purpose::Blocks,
    },
    Disk {
        n: 5,
        purpose: Purpose::Errors,
    },
    Disk {
        n: 6,
        purpose: Purpose::Full,
    },
];

/// The disk that can be unplugged, and the one that can be plugged.
pub(super) const HOT: [Disk; 2] = [
    Disk {
        n: 7,
        purpose: Purpose::Hot,
    },
    Disk {
        n: 8,
        purpose: Purpose::Hot,
    },
];

impl Disk {
    const fn plain(n: usize) -> Self {
        Self {
            n,
            purpose: Purpose::Plain,
        }
    }

    /// Bytes of its image when a run begins.
    pub(crate) fn bytes(&self) -> u64 {
        match self.purpose {
            Purpose::Plain => PLAIN_BYTES,
            _ => SPECIAL_BYTES,
        }
    }

    /// The device's `id=`.
    pub(crate) fn id(&self) -> String {
        format!("blk{}", self.n)
    }

    /// Whether every test of block devices is for it.
    pub(crate) fn is_plain(&self) -> bool {
        self.purpose == Purpose::Plain
    }

    /// The block node's name.
    pub(crate) fn node(&self) -> String {
        format!("disk{}", self.n)
    }

    /// The device's properties, beside where it is.
    pub(super) fn properties(&self) -> String {
        let node = self.node();
        let special = match self.purpose {
            Purpose::Plain | Purpose::Hot => format!("serial=doorbell-{node}"),
            Purpose::ReadOnly => "serial=doorbell-readonly".into(),
            Purpose::Queues => "serial=doorbell-queues,num-queues=4".into(),
            Purpose::Blocks => "serial=doorbell-4096,logical_block_size=4096,\
                physical_block_size=16384,min_io_size=8192,opt_io_size=65536,\
                max-discard-sectors=100,max-write-zeroes-sectors=60"
                .into(),
            // QEMU would otherwise stop the whole machine for a full disk.
            Purpose::Errors => "serial=doorbell-errors,rerror=report,werror=report".into(),
            Purpose::Full => "serial=doorbell-full,rerror=report,werror=report".into(),
        };
        format!("drive={node},{special}")
    }

    /// Adds the block node. Discarded sectors become zeros, as far as they can:
    /// `discard=unmap` makes holes in the image.
    pub(super) fn back_end(&self, line: &mut Arguments, files: &Files) -> Result<()> {
        let image = path(&files.disk(self.n))?;
        let below = match self.purpose {
            Purpose::Errors => {
                injected(0, &format!("iotype=read,errno={EIO},sector={BAD_READ}"))
                    + &injected(1, &format!("iotype=write,errno={EIO},sector={BAD_WRITE}"))
            }
            Purpose::Full => injected(0, &format!("iotype=write,errno={ENOSPC}")),
            _ => String::new(),
        };
        let file = if below.is_empty() {
            format!("file.driver=file,file.filename={image}")
        } else {
            format!(
                "file.driver=blkdebug,file.image.driver=file,file.image.filename={image}{below}"
            )
        };
        let writes = match self.purpose {
            Purpose::ReadOnly => "read-only=on",
            _ => "discard=unmap,detect-zeroes=off",
        };
        let node = self.node();
        line.add(
            "-blockdev",
            format!("driver=raw,node-name={node},{writes},{file}"),
        );
        Ok(())
    }
}

/// One rule of `blkdebug` that holds always, with a comma before it.
fn injected(n: usize, what: &str) -> String {
    let rule = format!("file.inject-error.{n}.");
    let pairs = format!("event=none,{what}");
    pairs
        .split(',')
        .map(|pair| format!(",{rule}{pair}"))
        .collect()
}

/// The disks of a machine.
pub(crate) fn disks(options: &Options) -> Vec<Disk> {
    let mut disks = Vec::new();
    if options.has(Group::Disks) {
        disks.push(Disk::plain(0));
        if options.machine != Machine::Microvm {
            disks.push(Disk::plain(1));
        }
    }
    if options.has(Group::SpecialDisks) {
        disks.extend(SPECIAL);
    }
    if options.has(Group::HotPlug) {
        disks.extend(HOT);
    }
    disks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: usize) -> String {
        let mut line = Arguments::default();
        let disk = SPECIAL.iter().find(|disk| disk.n == n).unwrap();
        disk.back_end(&mut line, &Files::new("/o,ut".into()).unwrap())
            .unwrap();
        line.0.join(" ")
    }

    #[test]
    fn a_special_disk_has_what_it_is_for() {
        assert!(node(2).contains("node-name=disk2,read-only=on,file.driver=file"));
        assert!(node(3).contains("discard=unmap,detect-zeroes=off"));
        let errors = node(5);
        for part in [
            "file.driver=blkdebug,file.image.driver=file,file.image.filename=/o,,ut/disk5.img",
            "file.inject-error.0.event=none,file.inject-error.0.iotype=read,\
             file.inject-error.0.errno=5,file.inject-error.0.sector=10000",
            "file.inject-error.1.event=none,file.inject-error.1.iotype=write",
            "file.inject-error.1.sector=12000",
        ] {
            assert!(errors.contains(part), "no `{part}` in {errors}");
        }
        assert!(node(6).ends_with("file.inject-error.0.iotype=write,file.inject-error.0.errno=28"));
    }
}
