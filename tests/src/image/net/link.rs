//! The link, which the host takes down and up.

use doorbell::device::Driver as _;
use doorbell::virtio::{Features, Wait as _};
use doorbell_kernel::drive::Mode;
use doorbell_tests::{Outcome, ensure};

use super::wire::Wire;

pub(super) fn test(wire: &mut Wire<'_, '_>) -> Outcome {
    let outcome = down(wire);
    // For the others, whatever became of it.
    set(wire, true)?;
    outcome?;
    wire.heard([])?;
    Ok(())
}

fn down(wire: &mut Wire<'_, '_>) -> Outcome {
    wire.heard([])?;
    set(wire, false)?;
    if wire.net.features().contains(Features::RING_PACKED) {
        // QEMU miscounts what it drops from a packed queue, and takes no doorbell of
        // that queue any more.
        return Ok(());
    }
    // It takes frames, and they go nowhere.
    wire.lose()
}

/// Has the link taken up or down, and waits until the device says so, and interrupts.
fn set(wire: &mut Wire<'_, '_>, up: bool) -> Outcome {
    let listener = wire.session.listener;
    let before = listener.config_interrupts();
    wire.ask("net-link", [("up", up.into())])?;
    let mut patience = listener.patience();
    while wire.net.link_up()? != up
        || listener.interrupts() && listener.config_interrupts() == before
    {
        ensure!(
            patience.again(),
            "up is {}, and {} interrupts came",
            wire.net.link_up()?,
            listener.config_interrupts() - before
        );
    }
    let came = listener.config_interrupts() - before;
    let right = match listener.mode() {
        Mode::Polling => came == 0,
        Mode::Line | Mode::MsixPerQueue => came == 1,
        // Queues have the same one.
        Mode::MsixShared => came >= 1,
    };
    ensure!(right, "{came} interrupts came of one change");
    Ok(())
}
