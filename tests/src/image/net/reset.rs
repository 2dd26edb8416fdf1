//! The receive queue, taken back from the device alone (virtio 1.2, 2.6.1).

use alloc::vec::Vec;

use doorbell::device::{DeviceError, Driver as _};
use doorbell::virtio::Features;
use doorbell_kernel::drive::Way;
use doorbell_tests::{Outcome, ensure, skip};

use super::frame::LONGEST;
use super::wire::{PAIR, Wire};

pub(super) fn test(wire: &mut Wire<'_, '_>) -> Outcome {
    if wire.session.way == Way::Mmio {
        skip!("QEMU's virtio-mmio has no register that resets a queue");
    }
    if !wire.net.features().contains(Features::RING_RESET) {
        skip!("the device does not offer VIRTIO_F_RING_RESET");
    }
    let queue = wire.net.receive_queue(PAIR);
    let posted = usize::from(wire.net.queue(queue).in_flight());
    let listener = wire.session.listener;
    wire.net.reset_queue(queue, &mut listener.bring_up())?;
    let mut back = Vec::new();
    while back.len() < posted
        && let Some(received) = wire.net.poll_receive(PAIR)?
    {
        let result = received.result;
        ensure!(
            result == Err(DeviceError::Aborted),
            "a buffer is {result:?}"
        );
        back.push(received.buffer);
    }
    ensure!(
        back.len() == posted,
        "{} of {posted} buffers came back",
        back.len()
    );
    let depth = wire.depth();
    ensure!(posted == depth, "{posted} of {depth} were there");
    wire.net.restart_queue(queue)?;
    wire.post(back[0].len())?;
    wire.echo(2 * depth as u64, depth, |_| LONGEST)
}
