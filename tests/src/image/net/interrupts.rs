//! Interrupts, counted here and by QEMU.

use doorbell::device::Driver as _;
use doorbell::virtio::Wait as _;
use doorbell_tests::{Outcome, ensure};

use super::frame::LONGEST;
use super::wire::{PAIR, Wire};

/// Frames, one after the other.
const FRAMES: u64 = 10;

/// Each frame that comes interrupts once, and none that goes.
pub(super) fn each(wire: &mut Wire<'_, '_>) -> Outcome {
    let transmit = wire.net.transmit_queue(PAIR);
    wire.net.queue(transmit).set_interrupts(false);
    let outcome = one_by_one(wire);
    wire.net.queue(transmit).set_interrupts(true);
    outcome
}

fn one_by_one(wire: &mut Wire<'_, '_>) -> Outcome {
    let listener = wire.session.listener;
    // What was sent last before they were unwanted may still interrupt, and so may what
    // came then: QEMU shows a frame before it interrupts. When it has answered a
    // question, its main loop is done with both.
    wire.heard([])?;
    wire.ask("rx-filter", [])?;
    listener.let_in(|| {});
    one(wire)?;
    wire.ask("interrupts", [])?;
    let before = listener.queue_interrupts();
    for _ in 0..FRAMES {
        one(wire)?;
    }
    let came = listener.queue_interrupts() - before;
    ensure!(came == FRAMES, "{came} interrupts came for {FRAMES} frames");
    wire.ask("interrupted", [("count", came.into())])?;
    Ok(())
}

/// Looks for a frame only when an interrupt came: one that nobody waits for could
/// hide the next.
fn one(wire: &mut Wire<'_, '_>) -> Outcome {
    let listener = wire.session.listener;
    let before = listener.queue_interrupts();
    let probe = wire.send([])?;
    let mut patience = listener.patience();
    while listener.queue_interrupts() == before && patience.again() {}
    let woken = listener.queue_interrupts() > before;
    wire.hear(probe)?;
    ensure!(woken, "a frame came without an interrupt");
    Ok(())
}

/// Many at once: some interrupts of those that QEMU sent are one here.
pub(super) fn burst(wire: &mut Wire<'_, '_>) -> Outcome {
    let listener = wire.session.listener;
    wire.ask("interrupts", [])?;
    let before = listener.queue_interrupts();
    let depth = wire.depth();
    wire.echo(2 * depth as u64, depth, |_| LONGEST)?;
    listener.let_in(|| {});
    let came = listener.queue_interrupts() - before;
    let arguments = [("count", came.into()), ("coalesced", true.into())];
    wire.ask("interrupted", arguments)?;
    Ok(())
}
