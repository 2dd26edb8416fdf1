//! Upstream's console driver: a stream each way.

use alloc::format;
use alloc::vec;

use doorbell::virtio::Wait as _;
use doorbell_tests::{Outcome, Runner, ensure};
use virtio_drivers::device::console::VirtIOConsole;

use super::{Bench, Hal, Upstream};
use crate::console::far::Far;
use crate::pattern::{self, Digest};

type Driver<'t> = VirtIOConsole<Hal, Upstream<'t>>;

/// The only port that upstream knows, as the host calls it.
const PORT: &str = "org.doorbell.con0.console";

/// How much goes each way, and how much at once.
const BYTES: u64 = 20_000;
const CHUNK: usize = 1000;

pub(super) fn open(transport: Upstream<'_>) -> virtio_drivers::Result<Driver<'_>> {
    VirtIOConsole::new(transport)
}

pub(super) fn test<'t>(runner: &mut Runner<'_>, bench: &Bench<'t>, transport: Upstream<'t>) {
    let Some(mut console) = bench.start(runner, transport, open) else {
        return;
    };
    bench.run(runner, "bytes go both ways", || {
        let mut far = Far::new(bench.witness, PORT);
        far.open()?;
        let outcome = both_ways(&mut console, bench, &far);
        far.hang_up()?;
        outcome
    });
    bench.show();
}

fn both_ways(console: &mut Driver<'_>, bench: &Bench<'_>, far: &Far<'_>) -> Outcome {
    let (out, inward) = (bench.seed(), !bench.seed());
    far.expect(BYTES, out)?;
    far.send(BYTES, inward)?;
    let mut digests = [Digest::new(); 2];
    let mut chunk = vec![0; CHUNK];
    for at in (0..BYTES).step_by(CHUNK) {
        pattern::fill(at, out, &mut chunk);
        console.send_bytes(&chunk)?;
        digests[1].add(&chunk);
    }
    for at in (0..BYTES).step_by(CHUNK) {
        for byte in &mut chunk {
            let mut patience = bench.clock.patience();
            *byte = loop {
                match console.recv(true)? {
                    Some(byte) => break byte,
                    None => ensure!(patience.again(), "after {at} bytes nothing more came"),
                }
            };
        }
        pattern::check(at, inward, &chunk)?;
        digests[0].add(&chunk);
    }
    let (answer, expected) = (far.done()?, format!("{} {}", digests[0], digests[1]));
    ensure!(answer == expected, "the host says {answer}, not {expected}");
    Ok(())
}
