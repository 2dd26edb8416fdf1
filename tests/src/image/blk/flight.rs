//! Many requests in flight at once.

use alloc::vec::Vec;

use doorbell::device::Driver as _;
use doorbell::device::blk::{Completion, Request};
use doorbell::dma::DmaRegion;
use doorbell::queue::Token;
use doorbell::virtio::Wait;
use doorbell_kernel::drive::Listener;
use doorbell_kernel::platform::dma::KernelDma;
use doorbell_tests::{Stop, ensure};

use super::{Driver, fill};

/// Buffers start at a page.
const ALIGN: usize = 4096;

/// A buffer of `bytes`.
pub(super) fn room(bytes: usize) -> Result<DmaRegion<KernelDma>, Stop> {
    Ok(DmaRegion::new(KernelDma, bytes, ALIGN)?)
}

/// A read of `bytes`.
pub(super) fn read(sector: u64, bytes: usize) -> Result<Request<KernelDma>, Stop> {
    let buffer = room(bytes)?;
    Ok(Request::Read { sector, buffer })
}

/// A write of `bytes` of what `seed` has there.
pub(super) fn write(sector: u64, bytes: usize, seed: u64) -> Result<Request<KernelDma>, Stop> {
    let mut buffer = room(bytes)?;
    fill(sector, seed, &mut buffer);
    Ok(Request::Write { sector, buffer })
}

/// What a finished request has for a buffer.
pub(super) fn buffer(done: Completion<KernelDma>) -> Result<DmaRegion<KernelDma>, Stop> {
    let buffer = done.request.into_buffer();
    buffer.ok_or_else(|| Stop::failed("it has no buffer"))
}

/// Requests in flight, each of a queue, and those that came back.
#[derive(Default)]
pub(super) struct Flight(Vec<(usize, Token, Option<Completion<KernelDma>>)>);

impl Flight {
    /// Makes requests available on a queue, without ringing.
    pub(super) fn submit(
        &mut self,
        blk: &mut Driver<'_>,
        queue: usize,
        requests: impl IntoIterator<Item = Result<Request<KernelDma>, Stop>>,
    ) -> Result<(), Stop> {
        for request in requests {
            let submitted = blk.submit_on(queue, request?);
            let token = submitted.map_err(|(error, _)| error)?;
            self.0.push((queue, token, None));
        }
        Ok(())
    }

    /// Waits until each came back: once, and nothing else. The answer is in the order
    /// in which they were submitted.
    pub(super) fn land(
        mut self,
        blk: &mut Driver<'_>,
        listener: &Listener<'_>,
    ) -> Result<Vec<Completion<KernelDma>>, Stop> {
        let queues = self.0.iter().map(|(queue, ..)| queue + 1).max();
        let mut patience = listener.patience();
        loop {
            for queue in 0..queues.unwrap_or(0) {
                while let Some(done) = blk.poll_on(queue)? {
                    self.back(queue, done)?;
                }
            }
            let missing = self.0.iter().filter(|(.., done)| done.is_none()).count();
            if missing == 0 {
                break;
            }
            ensure!(patience.again(), "{missing} requests did not come back");
        }
        Ok(self.0.into_iter().filter_map(|(.., done)| done).collect())
    }

    fn back(&mut self, queue: usize, done: Completion<KernelDma>) -> Result<(), Stop> {
        let mut all = self.0.iter_mut();
        // A token is used again once its request came back.
        match all.find(|(on, token, _)| (*on, *token) == (queue, done.token)) {
            Some((.., slot @ None)) => *slot = Some(done),
            Some(_) => return Err(Stop::failed("a request came back twice")),
            None => return Err(Stop::failed("a request came back that was not in flight")),
        }
        Ok(())
    }
}

/// Makes requests available on queue 0, rings for all of them at once, and waits
/// for them.
pub(super) fn together(
    blk: &mut Driver<'_>,
    listener: &Listener<'_>,
    requests: impl IntoIterator<Item = Result<Request<KernelDma>, Stop>>,
) -> Result<Vec<Completion<KernelDma>>, Stop> {
    let mut flight = Flight::default();
    flight.submit(blk, 0, requests)?;
    blk.queue(0).kick();
    flight.land(blk, listener)
}
