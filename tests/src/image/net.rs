//! Network devices, over one path at a time. At the other end of the wire the host
//! sends back what has EtherType 0x88B5, and by itself what it is asked for.

use doorbell::device::Setup;
use doorbell::device::net::Net;
use doorbell::transport::Transport;
use doorbell_kernel::platform::dma::KernelDma;
use doorbell_tests::{Outcome, Runner, ensure};

use crate::session::Session;

mod frame;
mod wire;

use frame::{LONGEST, Mac, SHORTEST};
use wire::Wire;

/// The queue that is asked for, where there is a choice.
const QUEUE_SIZE: u16 = 64;

/// More pairs of queues than there are.
const PAIRS: u16 = 2;

/// Room for the longest frame of most networks, and its header.
const BUFFER: usize = 2048;

/// How many bytes go there and back: with all features, and where each instruction
/// is emulated.
const MUCH: u64 = 16 << 20;
const EMULATED: u64 = 64 << 10;

/// What the MAC addresses of QEMU's devices begin with.
const PREFIX: [u8; 5] = [0x52, 0x54, 0x00, 0xdb, 0x00];

pub(crate) fn test(runner: &mut Runner<'_>, session: &Session<'_>, transport: &mut dyn Transport) {
    let setup = Setup {
        queues: PAIRS,
        ..session.setup(QUEUE_SIZE)
    };
    let started = session.start(runner, |wait| {
        Net::new(&mut *transport, &setup, KernelDma, wait)
    });
    let Some(net) = started else { return };
    let mut wire = Wire::new(net, session);
    session.run(runner, "says what it is", || says(&mut wire));
    let mut depth = 0;
    session.run(runner, "takes receive buffers", || {
        depth = wire.post(wire.net.receive_len().max(BUFFER))?;
        Ok(())
    });
    session.run(runner, "frames come back", || frames(&mut wire, depth));
    if session.set == 0 {
        session.run(runner, "many come back, both ways at once", || {
            much(&mut wire, depth)
        });
    }
    session.show(&mut wire.net);
}

/// What QEMU was told to make of it.
fn says(wire: &mut Wire<'_, '_>) -> Outcome {
    let mac = wire.net.info().mac;
    let known = mac.is_some_and(|mac| mac[..5] == PREFIX && mac[5] < 2);
    ensure!(known, "its MAC address is {mac:02x?}");
    wire.ask("rx-filter", [("mac", text(wire.mac()).as_str().into())])?;
    ensure!(wire.net.link_up()?, "its link is down");
    Ok(())
}

/// A MAC address as people write it.
fn text([a, b, c, d, e, f]: Mac) -> alloc::string::String {
    alloc::format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

/// Frames of all sizes, several at once.
fn frames(wire: &mut Wire<'_, '_>, depth: usize) -> Outcome {
    // The host has then seen all that was sent before.
    wire.heard([])?;
    const SIZES: [usize; 4] = [SHORTEST, SHORTEST + 1, 512, LONGEST];
    wire.echo(3 * depth as u64, depth, |n| SIZES[n as usize % SIZES.len()])
}

fn much(wire: &mut Wire<'_, '_>, depth: usize) -> Outcome {
    let bytes = if wire.session.emulated {
        EMULATED
    } else {
        MUCH
    };
    let payload = (LONGEST - doorbell::device::net::ETHERNET_HEADER) as u64;
    wire.echo(bytes.div_ceil(payload), depth, |_| LONGEST)
}
