//! Devices with as little behind them as QEMU has: what is left is the driver's own
//! cost, the transport's and the device's.
//!
//! The disk is QEMU's `null-co`, which answers a request without doing anything, in
//! an iothread of its own where there are eventfds. It polls the ring, as QEMU's
//! iothreads do by default, but for longer ([`POLL_NS`]), and so takes many requests
//! without a doorbell: with the default it falls asleep before the next request comes
//! wherever a sleeping thread takes longer than that to wake up, and then all that is
//! measured is the host's scheduler. The adapter's back end is a hub of two ports of which
//! the other one leads nowhere: it drops each frame. With a single port on it, a hub
//! would never finish one. Neither has its doorbell in an IO BAR, which upstream's own
//! transport refuses.

use super::{Builder, virtio};
use crate::qemu::Machine;

/// The disk's size in bytes: enough for random sectors.
const SIZE: u64 = 1 << 30;

/// The disk's request queues: a guest uses as many of them as it is told to.
const QUEUES: u16 = 4;

/// How long the iothread polls at most before it sleeps, in nanoseconds.
const POLL_NS: u32 = 1_000_000;

impl Builder<'_> {
    pub(super) fn load(&mut self) {
        self.line.add(
            "-blockdev",
            format!("driver=null-co,node-name=null,size={SIZE},read-zeroes=off"),
        );
        let disk = virtio(self.options, "blk", "null0")
            .with("drive", "null")
            .with("num-queues", QUEUES);
        let disk = match self.options.machine {
            Machine::Microvm => disk,
            Machine::Q35 | Machine::Pc => {
                let iothread = format!("iothread,id=load0,poll-max-ns={POLL_NS}");
                self.line.add("-object", iothread);
                disk.with("iothread", "load0")
            }
        };
        self.plain_root(disk);
        for port in 0..2 {
            self.line
                .add("-netdev", format!("hubport,id=hubport{port},hubid=0"));
        }
        let adapter = virtio(self.options, "net", "hub0").with("netdev", "hubport0");
        self.plain_root(adapter);
    }
}
