//! Upstream's vsock driver: the host listens, and sends back what it gets.

use alloc::format;
use alloc::vec;

use doorbell::virtio::Wait as _;
use doorbell_tests::{Outcome, Runner, Stop, ensure};
use virtio_drivers::device::socket::{
    VMADDR_CID_HOST, VirtIOSocket, VsockAddr, VsockConnectionManager, VsockEventType,
};

use super::{Bench, Hal, Upstream};
use crate::pattern::{self, Digest};

/// The virtio device type (5.10).
pub(super) const DEVICE_TYPE: u16 = 19;

type Driver<'t> = VsockConnectionManager<Hal, Upstream<'t>>;

/// Our port, how much goes each way, and how much at once: what a receive buffer of
/// upstream's holds beside its header.
const PORT: u32 = 1234;
const BYTES: u64 = 10_000;
const CHUNK: usize = 400;

pub(super) fn open(transport: Upstream<'_>) -> virtio_drivers::Result<Driver<'_>> {
    VirtIOSocket::new(transport).map(VsockConnectionManager::new)
}

pub(super) fn test<'t>(runner: &mut Runner<'_>, bench: &Bench<'t>, transport: Upstream<'t>) {
    let Some(mut sockets) = bench.start(runner, transport, open) else {
        return;
    };
    bench.run(runner, "bytes come back", || echo(&mut sockets, bench));
    bench.show();
}

/// Waits for an event for which `is_it` holds; others are of no interest.
fn wait(
    sockets: &mut Driver<'_>,
    bench: &Bench<'_>,
    what: &str,
    is_it: impl Fn(&VsockEventType) -> bool,
) -> Outcome {
    let mut patience = bench.clock.patience();
    loop {
        match sockets.poll()? {
            Some(event) if is_it(&event.event_type) => return Ok(()),
            Some(event) => {
                let gone = matches!(event.event_type, VsockEventType::Disconnected { .. });
                ensure!(!gone, "the host has gone before {what}");
            }
            None => ensure!(patience.again(), "there was no {what}"),
        }
    }
}

fn echo(sockets: &mut Driver<'_>, bench: &Bench<'_>) -> Outcome {
    let port = bench.ask("vsock-listen", [])?;
    let port: u32 = port.parse().map_err(Stop::failed)?;
    let host = VsockAddr {
        cid: VMADDR_CID_HOST,
        port,
    };
    sockets.connect(host, PORT)?;
    wait(sockets, bench, "connection", |event| {
        *event == VsockEventType::Connected
    })?;
    let (seed, mut digest) = (bench.seed(), Digest::new());
    let mut at = 0;
    while at < BYTES {
        let mut chunk = vec![0; CHUNK.min((BYTES - at) as usize)];
        pattern::fill(at, seed, &mut chunk);
        digest.add(&chunk);
        sockets.send(host, PORT, &chunk)?;
        let mut back = vec![0; chunk.len()];
        let mut came = 0;
        while came < back.len() {
            match sockets.recv(host, PORT, &mut back[came..])? {
                0 => wait(sockets, bench, "answer", |event| {
                    matches!(event, VsockEventType::Received { .. })
                })?,
                len => came += len,
            }
        }
        sockets.update_credit(host, PORT)?;
        pattern::check(at, seed, &back)?;
        at += back.len() as u64;
    }
    sockets.force_close(host, PORT)?;
    let (answer, expected) = (bench.ask("vsock-moved", [])?, format!("{BYTES} {digest}"));
    ensure!(answer == expected, "the host says {answer}, not {expected}");
    Ok(())
}
