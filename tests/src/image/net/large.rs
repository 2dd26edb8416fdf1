//! Frames that are as long as a frame can be, and longer than a buffer.

use doorbell::device::Setup;
use doorbell::device::net::{ETHERNET_HEADER, HEADROOM};
use doorbell::transport::Transport;
use doorbell_tests::{Outcome, ensure};

use super::frame::{LONGEST, SHORTEST, sent_by_host};
use super::wire::Wire;
use crate::pattern;
use crate::session::Session;

/// Bytes of payload of a frame that the host sends.
const JUMBO: u64 = 9000;

/// Bytes of a small buffer.
const SMALL: usize = 512;

/// The longest frame that the driver sends: by the MTU, or 65535 bytes.
pub(super) fn longest_len(wire: &Wire<'_, '_>) -> usize {
    match wire.net.info().mtu {
        Some(mtu) => ETHERNET_HEADER + usize::from(mtu),
        None => u16::MAX.into(),
    }
}

/// More at once than there are buffers for, so that the device has to wait for these.
pub(super) fn longest(wire: &mut Wire<'_, '_>) -> Outcome {
    let longest = longest_len(wire);
    wire.echo(8, 8, |n| longest - n as usize % 2)
}

/// Over small buffers: each frame takes as many as it needs.
pub(super) fn several(
    transport: &mut dyn Transport,
    setup: &Setup,
    session: &Session<'_>,
) -> Outcome {
    let mut wire = Wire::open(transport, setup, session)?;
    let outcome = small(&mut wire);
    wire.rang();
    outcome
}

fn small(wire: &mut Wire<'_, '_>) -> Outcome {
    wire.post(SMALL)?;
    wire.heard([])?;
    // The header is in the first one only. So these fill one, and two; or begin one more.
    let full = SMALL - HEADROOM;
    let sizes = [
        LONGEST,
        full,
        full + 1,
        full + SMALL,
        full + SMALL + 1,
        SHORTEST,
    ];
    let count = wire.depth() as u64;
    wire.echo(count, wire.depth(), |n| sizes[n as usize % sizes.len()])?;
    send(wire)?;
    let seed = wire.seed();
    wire.until("the host's frame", |frame| {
        let Some(payload) = sent_by_host(frame) else {
            return Ok(false);
        };
        let len = payload.len();
        ensure!(len as u64 == JUMBO, "{len} bytes of {JUMBO} came");
        pattern::check(0, seed, payload)?;
        Ok(true)
    })?;
    wire.heard([])?;
    Ok(())
}

/// QEMU drops a frame that its one buffer has no room for, and the next one comes.
pub(super) fn dropped(wire: &mut Wire<'_, '_>) -> Outcome {
    send(wire)?;
    wire.heard([])?;
    Ok(())
}

/// Has the host send a long frame.
fn send(wire: &Wire<'_, '_>) -> Outcome {
    let arguments = [
        ("frames", 1u64.into()),
        ("bytes", JUMBO.into()),
        ("seed", wire.seed().into()),
    ];
    wire.ask("net-send", arguments)?;
    let sent = wire.ask("net-sent", [])?;
    ensure!(sent == "1", "the host sent {sent} frames");
    Ok(())
}
