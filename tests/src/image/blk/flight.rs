//! Many requests in flight at once.

use alloc::vec::Vec;

use doorbell::device::Driver as _;
use doorbell::device::blk::{Completion, Request};
use doorbell::dma::DmaRegion;
use doorbell::virtio::Wait;
use doorbell_kernel::drive::Listener;
use doorbell_kernel::platform::dma::KernelDma;
use doorbell_tests::{Stop, ensure};

use super::Driver;

/// Buffers that start at a page.
const ALIGN: usize = 4096;

/// A buffer of `bytes`.
pub(super) fn room(bytes: usize) -> Result<DmaRegion<KernelDma>, Stop> {
    Ok(DmaRegion::new(KernelDma, bytes, ALIGN)?)
}

/// Reads of `bytes` from each of these sectors on.
pub(super) fn reads(
    sectors: impl Iterator<Item = u64>,
    bytes: usize,
) -> Result<Vec<Request<KernelDma>>, Stop> {
    let read = |sector| {
        Ok(Request::Read {
            sector,
            buffer: room(bytes)?,
        })
    };
    sectors.map(read).collect()
}

/// What a finished request has for a buffer.
pub(super) fn buffer(done: Completion<KernelDma>) -> Result<DmaRegion<KernelDma>, Stop> {
    let buffer = done.request.into_buffer();
    buffer.ok_or_else(|| Stop::failed("it has no buffer"))
}

/// Makes requests available on a queue, rings for all of them at once, and waits
/// until each came back: once, and nothing else. The answer is in the order of the
/// requests.
pub(super) fn together(
    blk: &mut Driver<'_>,
    listener: &Listener<'_>,
    queue: usize,
    requests: Vec<Request<KernelDma>>,
) -> Result<Vec<Completion<KernelDma>>, Stop> {
    let mut expected = Vec::new();
    for request in requests {
        let submitted = blk.submit_on(queue, request);
        expected.push((submitted.map_err(|(error, _)| error)?, None));
    }
    blk.queue(queue).kick();
    let mut missing = expected.len();
    let mut patience = listener.patience();
    while missing > 0 {
        let Some(done) = blk.poll_on(queue)? else {
            ensure!(patience.again(), "{missing} requests did not come back");
            continue;
        };
        let slot = expected.iter_mut().find(|(token, _)| *token == done.token);
        match slot {
            Some((_, slot @ None)) => *slot = Some(done),
            Some(_) => return Err(Stop::failed("a request came back twice")),
            None => return Err(Stop::failed("a request came back that was not in flight")),
        }
        missing -= 1;
    }
    let more = blk.poll_on(queue)?;
    ensure!(more.is_none(), "more came back than was in flight");
    Ok(expected.into_iter().filter_map(|(_, done)| done).collect())
}
