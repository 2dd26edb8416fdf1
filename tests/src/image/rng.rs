//! Entropy devices, over one path at a time.

use doorbell::device::Driver as _;
use doorbell::device::rng::Rng;
use doorbell::dma::DmaRegion;
use doorbell::transport::Transport;
use doorbell::virtio::Wait;
use doorbell_kernel::drive::Listener;
use doorbell_kernel::platform::dma::KernelDma;
use doorbell_tests::{Outcome, Runner, ensure};

use crate::session::Session;

/// The queue that is asked for, where there is a choice: small, so that it goes
/// round often.
const QUEUE_SIZE: u16 = 4;

type Driver<'t> = Rng<&'t mut dyn Transport, KernelDma>;

pub(crate) fn test(runner: &mut Runner<'_>, session: &Session<'_>, transport: &mut dyn Transport) {
    let listener = session.listener;
    let setup = session.setup(QUEUE_SIZE);
    let started = session.start(runner, |wait| Rng::new(transport, &setup, KernelDma, wait));
    let Some(mut rng) = started else { return };
    session.run(runner, "is random", || random(&mut rng, listener));
    session.run(runner, "a full queue", || full(&mut rng, listener));
    session.show(&mut rng);
}

/// 2 KiB of random bytes: all values about equally often, and never the same
/// twice.
fn random(rng: &mut Driver<'_>, listener: &Listener<'_>) -> Outcome {
    let mut bytes = [[0; 1024]; 2];
    for half in &mut bytes {
        rng.read(half, &mut listener.patience())?;
    }
    ensure!(bytes[0] != bytes[1], "the same 1024 bytes came twice");
    let ones: u32 = bytes
        .iter()
        .flatten()
        .map(|byte: &u8| byte.count_ones())
        .sum();
    // 16384 bits, of which half are set: 8192, with a standard deviation of 64.
    ensure!(
        (7680..=8704).contains(&ones),
        "{ones} of 16384 bits are set"
    );
    Ok(())
}

/// As many requests as there is room for; then one more is refused, and comes
/// back with its buffer.
fn full(rng: &mut Driver<'_>, listener: &Listener<'_>) -> Outcome {
    for _ in 0..8 {
        let size = rng.queue(0).size();
        for _ in 0..size {
            let buffer = DmaRegion::new(KernelDma, 32, 16)?;
            rng.submit(buffer).map_err(|(error, _)| error)?;
        }
        let buffer = DmaRegion::new(KernelDma, 32, 16)?;
        let (address, refused) = (buffer.address(), rng.submit(buffer));
        let back = refused.err().map(|(_, buffer)| buffer.address());
        ensure!(
            back == Some(address),
            "request {size} of {size} was not refused"
        );
        rng.queue(0).kick();
        let mut patience = listener.patience();
        let mut done = 0;
        while done < size {
            match rng.poll()? {
                Some(filled) => {
                    ensure!(filled.result? > 0, "a request came back empty");
                    done += 1;
                }
                None => ensure!(patience.again(), "{done} of {size} requests came back"),
            }
        }
    }
    Ok(())
}
