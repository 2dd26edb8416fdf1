//! Upstream's entropy driver. The host knows all that its device gives: a stream.

use doorbell_tests::{Outcome, Runner, ensure};
use virtio_drivers::device::rng::VirtIORng;

use super::{Bench, Hal, Upstream};
use crate::pattern;

type Driver<'t> = VirtIORng<Hal, Upstream<'t>>;

pub(super) fn open(transport: Upstream<'_>) -> virtio_drivers::Result<Driver<'_>> {
    VirtIORng::new(transport)
}

pub(super) fn test<'t>(runner: &mut Runner<'_>, bench: &Bench<'t>, transport: Upstream<'t>) {
    let Some(mut rng) = bench.start(runner, transport, open) else {
        return;
    };
    bench.run(runner, "gives what the host has", || stream(&mut rng));
    bench.show();
}

/// More requests than the queue has descriptors. Where in the stream they begin
/// depends on who read before; from there on each goes on where the last ended.
fn stream(rng: &mut Driver<'_>) -> Outcome {
    const WORDS: usize = 8;
    let mut next = None;
    for request in 0..20 {
        let mut bytes = [0; WORDS * 8];
        let len = rng.request_entropy(&mut bytes)?;
        ensure!(len == bytes.len(), "request {request} got {len} bytes");
        let first = u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|n| bytes[n]));
        let seed = next.unwrap_or(first);
        pattern::check(0, seed, &bytes)?;
        // The stream of a later place is that of another seed.
        let mut more = [0; (WORDS + 1) * 8];
        pattern::fill(0, seed, &mut more);
        let last = [0, 1, 2, 3, 4, 5, 6, 7].map(|n| more[WORDS * 8 + n]);
        next = Some(u64::from_le_bytes(last));
    }
    Ok(())
}
