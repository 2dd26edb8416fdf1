use std::boxed::Box;
use std::fmt;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use core::time::Duration;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, RxToken, TxToken};
use smoltcp::socket::{tcp, udp};
use smoltcp::wire::{
    DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress, IpCidr, Ipv4Address, Ipv4Cidr,
};

use super::Watch;
use super::ping::ping;
use super::stack::{Lease, Stack, instant};
use super::wire::{Port, Wire};
use fake::{End, GUEST, HOST, NAMES, World, cable, world};

mod fake;
mod serving;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A guest with an address.
fn leased<'s>() -> (Stack<End>, World<'s>) {
    let (mut stack, mut world) = world();
    stack.obtain_lease(&mut world).unwrap();
    (stack, world)
}

#[test]
fn an_address_is_leased_with_all_that_comes_with_it() {
    let (mut stack, mut world) = world();
    let lease = Lease {
        address: Ipv4Cidr::new(GUEST, 24),
        router: Some(HOST),
        dns: vec![NAMES],
        server: HOST,
    };
    assert_eq!(stack.obtain_lease(&mut world), Ok(lease));
    assert!(world.said.is_empty(), "{:?}", world.said);
}

#[test]
fn without_a_server_there_is_an_end_to_the_wait() {
    let (mut stack, mut world) = world();
    world.host.leases = false;
    let error = stack.obtain_lease(&mut world).unwrap_err();
    assert_eq!(error, "no DHCP server leased an address within 15 s");
    assert_eq!(world.now(), secs(15));
}

#[test]
fn a_link_that_is_down_is_waited_for() {
    let (mut stack, mut world) = world();
    world.cable.borrow_mut().down = true;
    let (cable, up) = (world.cable.clone(), Duration::from_millis(20_500));
    world.script = Box::new(move |_, now| cable.borrow_mut().down = now < up);
    stack.obtain_lease(&mut world).unwrap();
    assert_eq!(
        world.said,
        ["The link is down: waiting for it.", "The link is up."]
    );
    // It is asked at once when the link is up.
    assert!(world.now() < up + Duration::from_millis(200));
}

#[test]
fn a_link_that_stays_down_is_given_up() {
    let (mut stack, mut world) = world();
    world.cable.borrow_mut().down = true;
    let error = stack.obtain_lease(&mut world).unwrap_err();
    assert_eq!(error, "the link is down, still after 30 s");
}

#[test]
fn a_link_that_comes_and_goes_is_given_up_too() {
    let (mut stack, mut world) = world();
    let cable = world.cable.clone();
    world.host.leases = false;
    world.script = Box::new(move |_, now| cable.borrow_mut().down = now.as_secs() % 2 == 0);
    assert!(stack.obtain_lease(&mut world).is_err());
    assert!(world.now() <= secs(45));
}

#[test]
fn the_wait_for_an_address_can_be_called_off() {
    let (mut stack, mut world) = world();
    world.host.leases = false;
    world.off_at = secs(3);
    let error = stack.obtain_lease(&mut world).unwrap_err();
    assert_eq!(error, "called off before there was an address");
    assert_eq!(world.now(), secs(3));
}

#[test]
fn what_the_adapter_fails_of_ends_it() {
    let (mut stack, mut world) = world();
    world.cable.borrow_mut().fault = Some("the device is gone".into());
    assert_eq!(
        stack.obtain_lease(&mut world),
        Err("the device is gone".into())
    );
}

#[test]
fn an_adapter_without_room_and_without_frames_does_not_hang_it() {
    let (mut stack, mut world) = world();
    world.cable.borrow_mut().room = Some(0);
    assert!(stack.obtain_lease(&mut world).is_err());
}

#[test]
fn a_frame_waits_for_room_for_its_answer_and_is_given_back() {
    let (guest, mut host) = cable();
    let cable = host.cable.clone();
    let mut port = Port::new(guest);
    host.send(60, |bytes| bytes.fill(7));
    cable.borrow_mut().room = Some(0);
    assert!(port.receive(instant(secs(0))).is_none());
    cable.borrow_mut().room = Some(1);
    let (frame, room) = port.receive(instant(secs(0))).unwrap();
    room.consume(60, |bytes| bytes.fill(8));
    frame.consume(|bytes| assert_eq!(bytes, [7; 60]));
    assert_eq!(cable.borrow().held, 1);
    port.flush().unwrap();
    assert_eq!(cable.borrow().held, 0);
    assert_eq!(host.receive(), Some(vec![8; 60]));
}

#[test]
fn an_adapter_that_cannot_be_is_named() {
    let error = |change: fn(&mut End)| {
        let (mut end, _) = cable();
        change(&mut end);
        Stack::new(end, 7, secs(0)).err().unwrap_or_default()
    };
    assert_eq!(
        error(|end| end.mac[0] = 1),
        "the address 01-00-00-00-00-00 is not one station's"
    );
    assert_eq!(
        error(|end| end.mtu = 575),
        "an MTU of 575 bytes: IPv4 wants 576 at least"
    );
    assert_eq!(error(|end| end.mtu = 576), "");
}

#[test]
fn answers_to_pings_are_timed() {
    let (mut stack, mut world) = leased();
    let pings = ping(&mut stack, &mut world, HOST, 5).unwrap();
    assert_eq!((pings.sent, pings.received), (5, 5));
    assert_eq!(pings.min, Duration::from_millis(1));
    assert!(pings.max >= pings.min && pings.total >= 5 * pings.min);
    assert_eq!(pings.mean(), Some(pings.total / 5));
}

#[test]
fn pings_that_stay_without_an_answer_are_lost() {
    let (mut stack, mut world) = leased();
    let begin = world.now();
    let pings = ping(&mut stack, &mut world, Ipv4Address::new(10, 0, 2, 9), 2).unwrap();
    assert_eq!((pings.sent, pings.received), (2, 0));
    assert_eq!(pings.mean(), None);
    assert_eq!(world.now() - begin, secs(2));
}

#[test]
fn an_answer_that_comes_too_late_is_not_the_next_ones() {
    let (mut stack, mut world) = leased();
    ping(&mut stack, &mut world, HOST, 1).unwrap();
    let (cable, begin) = (world.cable.clone(), world.now());
    cable.borrow_mut().slow = true;
    world.script = Box::new(move |_, now| {
        let late = now - begin > Duration::from_millis(990);
        cable.borrow_mut().cut = late;
        cable.borrow_mut().slow = now - begin <= Duration::from_millis(1010);
    });
    let pings = ping(&mut stack, &mut world, HOST, 2).unwrap();
    assert_eq!((pings.sent, pings.received), (2, 0));
}

#[test]
fn pings_can_be_called_off() {
    let (mut stack, mut world) = leased();
    world.off_at = world.now();
    let pings = ping(&mut stack, &mut world, HOST, 1000).unwrap();
    assert_eq!(pings.sent, 1);
}
