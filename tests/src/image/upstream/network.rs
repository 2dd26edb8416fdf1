//! Upstream's network driver. At the other end of the wire the host sends each frame
//! back and keeps a digest.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use doorbell::device::net::ETHERNET_HEADER;
use doorbell::virtio::Wait as _;
use doorbell_tests::{Outcome, Runner, Stop, ensure};
use virtio_drivers::device::net::VirtIONetRaw;

use super::{Bench, Hal, Upstream};
use crate::net::frame::{HOST, LONGEST, SHORTEST, Stamp, Wanted};
use crate::pattern::Digest;

/// The size of both queues: what QEMU's legacy devices have.
pub(super) const QUEUE_SIZE: u16 = 256;

type Driver<'t> = VirtIONetRaw<Hal, Upstream<'t>, { QUEUE_SIZE as usize }>;

pub(super) fn open(transport: Upstream<'_>) -> virtio_drivers::Result<Driver<'_>> {
    VirtIONetRaw::new(transport)
}

pub(super) fn test<'t>(runner: &mut Runner<'_>, bench: &Bench<'t>, transport: Upstream<'t>) {
    let Some(net) = bench.start(runner, transport, open) else {
        return;
    };
    let mut wire = Wire {
        net,
        posted: Vec::new(),
    };
    bench.run(runner, "frames come back", || wire.echo(bench));
    bench.show();
}

/// Room for a frame and what comes before it.
const BUFFER: usize = 2048;

/// The driver, and the receive buffers that the device has, with their tokens.
struct Wire<'t> {
    net: Box<Driver<'t>>,
    posted: Vec<(u16, Vec<u8>)>,
}

impl Wire<'_> {
    fn post(&mut self, mut buffer: Vec<u8>) -> Outcome {
        // SAFETY: kept in `posted`, which is dropped after the driver, until it comes
        // back.
        let token = unsafe { self.net.receive_begin(&mut buffer) }?;
        self.posted.push((token, buffer));
        Ok(())
    }

    /// Takes a frame that has come, and posts its buffer again.
    fn take(&mut self, mut with: impl FnMut(&[u8]) -> Outcome) -> Result<bool, Stop> {
        let Some(token) = self.net.poll_receive() else {
            return Ok(false);
        };
        let mut posted = self.posted.iter();
        let place = posted.position(|(other, _)| *other == token);
        ensure!(place.is_some(), "buffer {token} came back, which is none");
        let (_, mut buffer) = self.posted.swap_remove(place.unwrap_or_default());
        // SAFETY: posted under this token.
        let (header, len) = unsafe { self.net.receive_complete(token, &mut buffer) }?;
        let frame = buffer.get(header..header + len);
        with(frame.ok_or_else(|| Stop::failed("it is longer than its buffer"))?)?;
        self.post(buffer)?;
        Ok(true)
    }

    /// More frames of all sizes than a queue has descriptors, some at once.
    fn echo(&mut self, bench: &Bench<'_>) -> Outcome {
        const SIZES: [usize; 4] = [SHORTEST, SHORTEST + 1, 512, LONGEST];
        const AT_ONCE: u64 = 16;
        const FRAMES: u64 = 2 * QUEUE_SIZE as u64;
        for _ in 0..AT_ONCE {
            self.post(vec![0; BUFFER])?;
        }
        let (mac, stamp) = (self.net.mac_address(), Stamp::new());
        let size = |number: u64| SIZES[number as usize % SIZES.len()];
        let (mut sent, mut came, mut bytes) = (0, 0, 0);
        let mut digest = Digest::new();
        let mut frame = vec![0; LONGEST];
        let mut patience = bench.clock.patience();
        while came < FRAMES {
            if sent < FRAMES && sent - came < AT_ONCE {
                let frame = &mut frame[..size(sent)];
                let wanted = Wanted {
                    number: sent,
                    to: HOST,
                    from: mac,
                    len: frame.len(),
                };
                stamp.write(wanted, frame);
                digest.add(&frame[ETHERNET_HEADER..]);
                bytes += frame.len() - ETHERNET_HEADER;
                self.net.send(frame)?;
                sent += 1;
            }
            let taken = self.take(|frame| {
                if stamp.number(frame).is_none() {
                    return Ok(());
                }
                let wanted = Wanted {
                    number: came,
                    to: mac,
                    from: HOST,
                    len: size(came),
                };
                came += 1;
                stamp.check(wanted, frame)
            })?;
            if taken {
                patience = bench.clock.patience();
            }
            ensure!(patience.again(), "{came} of {sent} frames came back");
        }
        let answer = bench.ask("net-moved", [("frames", FRAMES.into())])?;
        let expected = format!("{FRAMES} {bytes} {digest}");
        ensure!(answer == expected, "the host says {answer}, not {expected}");
        Ok(())
    }
}
