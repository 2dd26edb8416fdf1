//! What is let in, by the control queue (virtio 1.2, 5.1.6.5): the host sends frames
//! back to where they say that they come from, whoever that is.

use doorbell::device::{DeviceError, Driver as _};
use doorbell::virtio::Features;
use doorbell_tests::{Outcome, ensure};

use super::frame::Mac;
use super::text;
use super::wire::Wire;

/// Two other stations, two groups, and everybody.
const OTHER: Mac = [0x52, 0x54, 0x00, 0xdb, 0x77, 0x01];
const ANOTHER: Mac = [0x52, 0x54, 0x00, 0xdb, 0x77, 0x02];
const GROUP: Mac = [0x33, 0x33, 0x00, 0xdb, 0x77, 0x01];
const ANOTHER_GROUP: Mac = [0x33, 0x33, 0x00, 0xdb, 0x77, 0x02];
const ALL: Mac = [0xff; 6];

/// VIRTIO_NET_F_CTRL_MAC_ADDR
const CTRL_MAC_ADDR: Features = Features::from_bits_retain(1 << 23);

/// Has frames sent to the others and to everybody, and compares which of them come.
fn expect(wire: &mut Wire<'_, '_>, when: &str, expected: [bool; 5]) -> Outcome {
    let others = [OTHER, ANOTHER, GROUP, ANOTHER_GROUP, ALL];
    let heard = wire.heard(others)?;
    ensure!(
        heard == expected,
        "{when}: of two stations, two groups and all it heard {heard:?}, not {expected:?}"
    );
    Ok(())
}

/// Switches all filters off again.
fn everything(wire: &mut Wire<'_, '_>) -> Outcome {
    let listener = wire.session.listener;
    wire.net
        .set_mac_filter(&[], &[], &mut listener.patience())?;
    wire.net.set_promiscuous(true, &mut listener.patience())?;
    Ok(())
}

pub(super) fn receive(wire: &mut Wire<'_, '_>) -> Outcome {
    let outcome = filters(wire);
    everything(wire)?;
    outcome
}

fn filters(wire: &mut Wire<'_, '_>) -> Outcome {
    let listener = wire.session.listener;
    // 5.1.6.5.1.1: so it is after a reset.
    expect(wire, "promiscuous", [true; 5])?;
    wire.net.set_promiscuous(false, &mut listener.patience())?;
    wire.ask("rx-filter", [("promiscuous", false.into())])?;
    expect(wire, "by itself", [false, false, false, false, true])?;
    wire.net.set_all_multicast(true, &mut listener.patience())?;
    expect(wire, "all groups", [false, false, true, true, true])?;
    wire.net
        .set_all_multicast(false, &mut listener.patience())?;
    wire.net
        .set_mac_filter(&[OTHER], &[GROUP], &mut listener.patience())?;
    let told = wire.ask("rx-filter", [("promiscuous", false.into())])?;
    for mac in [OTHER, GROUP] {
        let mac = text(mac);
        ensure!(told.contains(&mac), "QEMU's filter has no {mac}: {told}");
    }
    expect(wire, "by a list", [true, false, true, false, true])?;
    let error = wire
        .net
        .set_mac_filter(&[GROUP], &[], &mut listener.patience());
    let expected = DeviceError::MacAddress {
        mac: GROUP,
        group: false,
    };
    ensure!(error == Err(expected), "it says {error:?}");
    wire.net
        .set_mac_filter(&[], &[], &mut listener.patience())?;
    expect(wire, "by no list", [false, false, false, false, true])?;
    wire.net.set_promiscuous(true, &mut listener.patience())?;
    wire.ask("rx-filter", [("promiscuous", true.into())])?;
    expect(wire, "promiscuous again", [true; 5])
}

/// By the command, or on a legacy device without by its configuration.
pub(super) fn mac(wire: &mut Wire<'_, '_>) -> Outcome {
    let (listener, own) = (wire.session.listener, wire.mac());
    let features = wire.net.features();
    let result = wire.net.set_mac(OTHER, &mut listener.patience());
    if features.contains(Features::VERSION_1) && !features.contains(CTRL_MAC_ADDR) {
        let unsupported = Err(DeviceError::Unsupported);
        ensure!(result == unsupported, "without either way: {result:?}");
        let mac = wire.mac();
        ensure!(mac == own, "its address is {mac:02x?} all the same");
        wire.heard([])?;
        return Ok(());
    }
    result?;
    let outcome = renamed(wire, own);
    wire.net.set_mac(own, &mut listener.patience())?;
    everything(wire)?;
    outcome?;
    wire.ask("rx-filter", [("mac", text(own).as_str().into())])?;
    wire.heard([])?;
    Ok(())
}

fn renamed(wire: &mut Wire<'_, '_>, old: Mac) -> Outcome {
    let listener = wire.session.listener;
    wire.ask("rx-filter", [("mac", text(OTHER).as_str().into())])?;
    wire.net.set_promiscuous(false, &mut listener.patience())?;
    // The frame of its own, which ends this, is to its new address.
    let [heard] = wire.heard([old])?;
    ensure!(!heard, "it still hears its old address");
    Ok(())
}
