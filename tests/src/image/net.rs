//! Network devices, over one path at a time. At the other end of the wire the host
//! sends back what has EtherType 0x88B5, and by itself what it is asked for.
//!
//! net0 has mergeable receive buffers and every command. net1 has neither these nor
//! the command that sets the MAC address, and says an MTU, and that it could have
//! several pairs of queues. net2 has two pairs, and no such host.

use alloc::format;
use alloc::string::String;

use doorbell::device::net::{ETHERNET_HEADER, Frame, Net};
use doorbell::device::{DeviceError, Setup};
use doorbell::dma::DmaRegion;
use doorbell::transport::Transport;
use doorbell_kernel::platform::dma::KernelDma;
use doorbell_tests::{Outcome, Runner, ensure};

use crate::session::Session;

mod filter;
pub(crate) mod frame;
mod interrupts;
mod large;
mod link;
mod pairs;
mod ping;
mod reset;
mod wire;

use frame::{LONGEST, Mac, SHORTEST};
use wire::{PAIR, Wire};

/// The queue that is asked for, where there is a choice.
const QUEUE_SIZE: u16 = 64;

/// How many pairs of queues are asked for. Only net2 has so many.
const PAIRS: u16 = 2;

/// Room for the longest frame of most networks, and its header.
const BUFFER: usize = 2048;

/// How many bytes go there and back: with all features, and where each instruction
/// is emulated.
const MUCH: u64 = 16 << 20;
const EMULATED: u64 = 64 << 10;

/// What the MAC addresses of QEMU's devices begin with.
const PREFIX: [u8; 5] = [0x52, 0x54, 0x00, 0xdb, 0x00];

/// net1's MTU.
const MTU: u16 = 4000;

/// What is tested of a device that is brought up once more: its name, and how.
type Again = (
    &'static str,
    fn(&mut dyn Transport, &Setup, &Session<'_>) -> Outcome,
);

pub(crate) fn test(runner: &mut Runner<'_>, session: &Session<'_>, transport: &mut dyn Transport) {
    let setup = Setup {
        queues: PAIRS,
        ..session.setup(QUEUE_SIZE)
    };
    if let Some((name, again)) = first(runner, session, transport, &setup) {
        session.run(runner, name, || again(transport, &setup, session));
    }
}

/// Tests all that goes with the same buffers and pairs of queues.
fn first(
    runner: &mut Runner<'_>,
    session: &Session<'_>,
    transport: &mut dyn Transport,
    setup: &Setup,
) -> Option<Again> {
    let net = session.start(runner, |wait| Net::new(transport, setup, KernelDma, wait))?;
    if net.info().max_pairs > 1 {
        pairs::both(runner, session, net);
        return Some(("one pair of two is used", pairs::one));
    }
    let mut wire = Wire::new(net, session);
    let mergeable = wire.net.info().mergeable;
    let mut run = |name: &str, test: fn(&mut Wire<'_, '_>) -> Outcome| {
        session.run(runner, name, || {
            wire.begin();
            test(&mut wire)
        });
    };
    run("says what it is", says);
    run("takes receive buffers", post);
    run("frames come back", frames);
    run("the longest frames come back", large::longest);
    if session.set == 0 {
        run("many come back, both ways at once", much);
    }
    run("refuses what is no frame", refuses);
    run("uses the pairs of queues that there are", one_pair);
    run("lets in what it is told to", filter::receive);
    run("has another MAC address", filter::mac);
    run("the link goes down and up", link::test);
    if session.listener.interrupts() {
        run("interrupts once for a frame", interrupts::each);
        run("interrupts for a burst", interrupts::burst);
    }
    if !mergeable {
        run("a frame that is too long is dropped", large::dropped);
    }
    run("the receive queue is reset", reset::test);
    session.show(&mut wire.net);
    mergeable.then_some(("frames come in several buffers", large::several))
}

/// What QEMU was told to make of it.
fn says(wire: &mut Wire<'_, '_>) -> Outcome {
    let info = wire.net.info();
    let number = info.mac.and_then(|mac| {
        let number = mac.strip_prefix(&PREFIX[..])?;
        Some(number[0])
    });
    let mtu = match number {
        Some(0) => None,
        Some(1) => Some(MTU),
        _ => {
            return Err(doorbell_tests::Stop::failed(format_args!(
                "it is {info:02x?}"
            )));
        }
    };
    ensure!(
        info.mtu == mtu && info.mergeable == mtu.is_none() && info.max_pairs == 1,
        "it is {info:02x?}"
    );
    wire.ask("rx-filter", [("mac", text(wire.mac()).as_str().into())])?;
    ensure!(wire.net.link_up()?, "its link is down");
    Ok(())
}

/// A MAC address as people write it.
fn text([a, b, c, d, e, f]: Mac) -> String {
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

/// As many buffers as there is room for, and none that is too short.
fn post(wire: &mut Wire<'_, '_>) -> Outcome {
    let needed = wire.net.receive_len();
    let short = DmaRegion::new(KernelDma, needed - 1, 1)?;
    let refused = wire.net.submit_receive(PAIR, short);
    let error = refused.map_err(|(error, buffer)| (error, buffer.len()));
    let len = needed - 1;
    let expected = DeviceError::BufferTooShort { len, needed };
    ensure!(error == Err((expected, len)), "it says {error:?}");
    wire.post(needed.max(BUFFER))?;
    Ok(())
}

/// Frames of all sizes, several at once.
fn frames(wire: &mut Wire<'_, '_>) -> Outcome {
    // The host has then seen all that was sent before.
    wire.heard([])?;
    const SIZES: [usize; 4] = [SHORTEST, SHORTEST + 1, 512, LONGEST];
    let count = 3 * wire.depth() as u64;
    wire.echo(count, wire.depth(), |n| SIZES[n as usize % SIZES.len()])
}

fn much(wire: &mut Wire<'_, '_>) -> Outcome {
    let bytes = if wire.session.emulated {
        EMULATED
    } else {
        MUCH
    };
    let payload = (LONGEST - ETHERNET_HEADER) as u64;
    wire.echo(bytes.div_ceil(payload), wire.depth(), |_| LONGEST)
}

/// Frames that are too long or too short, and a pair of queues that is not there; and
/// then goes on.
fn refuses(wire: &mut Wire<'_, '_>) -> Outcome {
    let longest = large::longest_len(wire);
    let mtu = (longest - ETHERNET_HEADER) as u16;
    for len in [0, ETHERNET_HEADER - 1, longest + 1] {
        let refused = wire.net.submit_transmit(PAIR, Frame::new(KernelDma, len)?);
        let error = refused.map_err(|(error, frame)| (error, frame.len()));
        let expected = DeviceError::FrameLength { len, mtu };
        ensure!(error == Err((expected, len)), "it says {error:?}");
        wire.heard([])?;
    }
    let (pair, pairs) = (1, 1);
    let refused = wire
        .net
        .submit_transmit(pair, Frame::new(KernelDma, SHORTEST)?);
    let error = refused.map_err(|(error, _)| error);
    let expected = DeviceError::NoPair { pair, pairs };
    ensure!(error == Err(expected), "it says {error:?}");
    wire.heard([])?;
    Ok(())
}

/// One, of the two that were asked for; the command that says so is the device's own
/// where it has VIRTIO_NET_F_MQ.
fn one_pair(wire: &mut Wire<'_, '_>) -> Outcome {
    let (pairs, active) = (wire.net.pairs(), wire.net.active_pairs());
    ensure!((pairs, active) == (1, 1), "{active} of {pairs} are on");
    let listener = wire.session.listener;
    wire.net.set_pairs(1, &mut listener.patience())?;
    let error = wire.net.set_pairs(PAIRS, &mut listener.patience());
    let expected = DeviceError::PairCount {
        wanted: PAIRS,
        pairs: 1,
    };
    ensure!(error == Err(expected), "it says {error:?}");
    wire.heard([])?;
    Ok(())
}
