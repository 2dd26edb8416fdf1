use std::string::ToString;
use std::vec;
use std::vec::Vec;

use super::*;
use crate::pci::fake::{FakeFunction, FakePci};
use crate::pci::{BusNumbers, PortType, number_buses};

fn device(id: u16) -> FakeFunction {
    FakeFunction::endpoint(0x1af4, id)
}

/// The addresses found, as text, after numbering the buses.
fn walk(pci: &FakePci, roots: &[BusRange]) -> (BusNumbers, Vec<Function>) {
    // SAFETY: there is no device.
    let numbers = unsafe { number_buses(pci, roots) };
    (numbers, look(pci, roots))
}

fn look(pci: &FakePci, roots: &[BusRange]) -> Vec<Function> {
    let mut storage = vec![Function::default(); count(pci, roots)];
    // SAFETY: there is no device.
    unsafe { Topology::enumerate(pci, roots, &mut storage) }.unwrap();
    storage
}

fn addresses(functions: &[Function]) -> Vec<std::string::String> {
    functions
        .iter()
        .map(|function| function.address.to_string()[5..].into())
        .collect()
}

#[test]
fn functions_come_after_the_bridge_that_leads_to_them() {
    let port = || FakeFunction::root_port().multi_function();
    let pci = FakePci::new()
        .with(0, 0, device(1))
        .with(2, 0, port().child(0, 0, device(2)))
        .with(2, 1, port())
        .with(
            2,
            5,
            port()
                .child(0, 0, device(3).multi_function())
                .child(0, 3, device(4)),
        )
        .with(31, 7, device(9));
    let (numbers, functions) = walk(&pci, &[BusRange::ALL]);
    assert_eq!(
        numbers,
        BusNumbers {
            kept: 0,
            assigned: 3,
            without: 0
        }
    );
    assert_eq!(
        addresses(&functions),
        [
            "00:00.0", "00:02.0", "01:00.0", "00:02.1", "00:02.5", "03:00.0", "03:00.3"
        ],
        "31.7 has no function 0"
    );
    let parents: Vec<_> = functions.iter().map(|function| function.parent).collect();
    assert_eq!(parents, [None, None, Some(1), None, None, Some(4), Some(4)]);
    assert_eq!(functions[1].port, Some(PortType::RootPort));
    let bridge = functions[4].bridge().unwrap();
    assert_eq!(
        (bridge.primary, bridge.secondary, bridge.subordinate),
        (0, 3, 3)
    );
}

#[test]
fn one_functions_header() {
    let pci = FakePci::new().with(
        3,
        0,
        device(0x1042)
            .class(0x01_0002)
            .subsystem(0x1af4, 0x1100)
            .command(0x0407)
            .register(0x3c, 0x010b)
            .writable(0x30, 0xfffc_0000),
    );
    let function = &walk(&pci, &[BusRange::ALL]).1[0];
    assert_eq!((function.vendor, function.device), (0x1af4, 0x1042));
    assert_eq!(
        (function.class, function.subclass, function.prog_if),
        (1, 0, 2)
    );
    assert_eq!(
        (function.subsystem_vendor, function.subsystem_device),
        (0x1af4, 0x1100)
    );
    assert_eq!((function.interrupt_pin, function.interrupt_line), (1, 0xb));
    assert_eq!(function.command.bits(), 0x0407);
    assert_eq!(function.rom, Some(0x4_0000));
    assert_eq!(
        pci.read32(function.address, 4),
        0x2000_0407,
        "the command is restored"
    );
}

#[test]
fn a_host_bridge_never_stops_decoding() {
    let host = FakeFunction::endpoint(0x8086, 0x29c0)
        .class(0x06_0000)
        .command(7);
    let pci = FakePci::new().with(0, 0, host.memory_bar(0, 4096));
    assert!(walk(&pci, &[BusRange::ALL]).1[0].bars[0].is_none());
    assert!(pci.take_writes().is_empty());
}

#[test]
fn numbers_from_firmware_are_kept_and_others_fit_in_between() {
    let bridge = FakeFunction::bridge;
    let pci = FakePci::new()
        .with(1, 0, bridge().child(0, 0, device(1)))
        .with(
            2,
            0,
            bridge().buses(0, 1, 3).child(0, 0, bridge().buses(1, 2, 2)),
        )
        .with(3, 0, bridge().buses(0, 3, 2).child(0, 0, device(2)))
        .with(4, 0, bridge().buses(0, 9, 9));
    let (numbers, functions) = walk(&pci, &[BusRange::ALL]);
    assert_eq!(
        numbers,
        BusNumbers {
            kept: 3,
            assigned: 2,
            without: 0
        }
    );
    assert_eq!(
        addresses(&functions),
        [
            "00:01.0", "0a:00.0", "00:02.0", "01:00.0", "00:03.0", "0b:00.0", "00:04.0"
        ],
        "3-2 is no range; the longest gap is the one after 9"
    );
    // A second look finds nothing to do.
    pci.take_writes();
    // SAFETY: there is no device.
    let numbers = unsafe { number_buses(&pci, &[BusRange::ALL]) };
    assert_eq!(
        numbers,
        BusNumbers {
            kept: 5,
            assigned: 0,
            without: 0
        }
    );
    assert!(pci.take_writes().is_empty());
}

#[test]
fn stale_numbers_do_not_shadow_anything() {
    // As some firmware leaves them: all bridges claim the same bus.
    let bridge = || FakeFunction::bridge().buses(0, 0xff, 0);
    let same = || FakeFunction::bridge().buses(0, 1, 255);
    let pci = FakePci::new()
        .with(1, 0, same().child(0, 0, same().child(0, 0, device(9))))
        .with(2, 0, same().child(0, 0, device(2)))
        .with(3, 0, bridge().child(0, 0, device(3)));
    let (_, functions) = walk(&pci, &[BusRange::ALL]);
    let found: Vec<_> = functions
        .iter()
        .map(|function| (function.address.bus(), function.depth, function.device))
        .collect();
    // The bridges' own device ID is 1.
    assert_eq!(
        found,
        [
            (0, 0, 1),
            (1, 1, 1),
            (2, 2, 9),
            (0, 0, 1),
            (3, 1, 2),
            (0, 0, 1),
            (4, 1, 3)
        ]
    );
}

#[test]
fn a_bridge_that_leads_back_is_not_followed() {
    let functions = look(
        &FakePci::new()
            .with(
                1,
                0,
                FakeFunction::bridge()
                    .buses(0, 0, 255)
                    .child(0, 0, device(1)),
            )
            .with(2, 0, FakeFunction::bridge().buses(0, 7, 3))
            .with(
                3,
                0,
                FakeFunction::bridge().buses(0, 2, 4).child(
                    0,
                    0,
                    FakeFunction::bridge().buses(2, 2, 4),
                ),
            ),
        &[BusRange::ALL],
    );
    let why: Vec<_> = functions
        .iter()
        .map(|function| {
            function
                .bridge()
                .unwrap()
                .unnumbered
                .map(|why| why.to_string())
        })
        .collect();
    assert_eq!(
        why,
        [
            Some("bus numbers 0x00-0xff are not its own or unset".into()),
            Some("bus numbers 0x07-0x03 are not its own or unset".into()),
            None,
            Some("bus numbers 0x02-0x04 are not its own or unset".into()),
        ]
    );
}

#[test]
fn bridges_that_share_a_number_are_not_followed() {
    let bridge = || FakeFunction::bridge().buses(0, 1, 2).child(0, 0, device(7));
    let pci = FakePci::new().with(1, 0, bridge()).with(2, 0, bridge());
    assert_eq!(
        addresses(&look(&pci, &[BusRange::ALL])),
        ["00:01.0", "00:02.0"]
    );
    let (numbers, functions) = walk(&pci, &[BusRange::ALL]);
    assert_eq!(numbers.assigned, 2);
    assert_eq!(functions.len(), 4);
}

#[test]
fn a_bridge_that_is_alone_with_its_numbers_is_followed_at_last() {
    let bridge = || FakeFunction::bridge().buses(0, 1, 2).child(0, 0, device(7));
    let pci = FakePci::new().with(1, 0, bridge()).with(2, 0, bridge());
    let known = look(&pci, &[BusRange::ALL]);
    pci.unplug(PciAddress::new(0, 0, 2, 0));
    let mut storage = vec![Function::default(); 3];
    // SAFETY: there is no device.
    let again = unsafe { Topology::rescan(&pci, &[BusRange::ALL], &known, &mut storage) }.unwrap();
    assert_eq!(addresses(again.functions()), ["00:01.0", "01:00.0"]);
    assert_eq!(again.functions()[0].bridge().unwrap().unnumbered, None);
}

#[test]
fn when_numbers_run_out_the_rest_goes_on() {
    let bridge = FakeFunction::bridge;
    let pci = FakePci::new()
        .with(1, 0, bridge().child(0, 0, bridge().child(0, 0, bridge())))
        .with(2, 0, bridge().child(0, 0, device(7)))
        .with(3, 0, device(8));
    let roots = [BusRange {
        segment: 0,
        first: 0,
        last: 2,
    }];
    let (numbers, functions) = walk(&pci, &roots);
    assert_eq!(
        numbers,
        BusNumbers {
            kept: 0,
            assigned: 2,
            without: 2
        }
    );
    let why: Vec<_> = functions
        .iter()
        .filter_map(|function| function.bridge()?.unnumbered)
        .map(|why| why.to_string())
        .collect();
    assert_eq!(
        why,
        [
            "no bus number left: none after 0x02 leads to it",
            "no bus number left in 0x01-0x02"
        ]
    );
    assert_eq!(functions.last().unwrap().device, 8);
}

#[test]
fn numbers_that_leave_none_for_the_bridges_behind_are_given_anew() {
    // As qboot leaves it: the bridges on bus 0 have one bus each.
    let switch = FakeFunction::bridge().child(0, 0, FakeFunction::bridge().child(0, 0, device(5)));
    let pci = FakePci::new()
        .with(
            2,
            0,
            FakeFunction::bridge().buses(0, 2, 2).child(0, 0, switch),
        )
        .with(
            3,
            0,
            FakeFunction::bridge().buses(0, 1, 1).child(0, 0, device(6)),
        );
    let (numbers, functions) = walk(&pci, &[BusRange::ALL]);
    assert_eq!(
        numbers,
        BusNumbers {
            kept: 0,
            assigned: 4,
            without: 0
        }
    );
    assert_eq!(
        addresses(&functions),
        [
            "00:02.0", "01:00.0", "02:00.0", "03:00.0", "00:03.0", "04:00.0"
        ]
    );
}

#[test]
fn a_chain_of_255_bridges() {
    let mut tree = FakeFunction::bridge().child(0, 0, device(0x1234));
    for _ in 1..255 {
        tree = FakeFunction::bridge().child(0, 0, tree);
    }
    let (numbers, functions) = walk(&FakePci::new().with(0, 0, tree), &[BusRange::ALL]);
    assert_eq!(numbers.assigned, 255);
    assert_eq!(functions.len(), 256);
    let last = functions.last().unwrap();
    assert_eq!(
        (last.address.bus(), last.device, last.depth),
        (255, 0x1234, 255)
    );
}

#[test]
fn a_bus_full_of_functions_behind_each_of_255_bridges() {
    let mut pci = FakePci::new();
    for place in 0..255 {
        let bridge = FakeFunction::bridge()
            .multi_function()
            .child(0, 0, device(3));
        pci = pci.with(place >> 3, place & 7, bridge.child(31, 0, device(4)));
    }
    let (numbers, functions) = walk(&pci, &[BusRange::ALL]);
    assert_eq!(numbers.assigned, 255);
    assert_eq!(functions.len(), 3 * 255);
}

#[test]
fn below_a_port_only_device_0_is_looked_for() {
    let port = FakeFunction::root_port()
        .child(0, 0, device(1))
        .child(1, 0, device(2));
    let (_, functions) = walk(&FakePci::new().with(1, 0, port), &[BusRange::ALL]);
    assert_eq!(addresses(&functions), ["00:01.0", "01:00.0"]);
}

#[test]
fn several_roots() {
    let pci = FakePci::new()
        .with(1, 0, FakeFunction::bridge().child(4, 0, device(1)))
        .root(0x40)
        .with(2, 0, FakeFunction::bridge().child(5, 0, device(2)));
    let roots = [
        BusRange {
            segment: 0,
            first: 0,
            last: 0x3f,
        },
        BusRange {
            segment: 0,
            first: 0x40,
            last: 0xff,
        },
        BusRange {
            segment: 7,
            first: 0,
            last: 0xff,
        },
        BusRange {
            segment: 0,
            first: 9,
            last: 8,
        },
    ];
    let (_, functions) = walk(&pci, &roots);
    assert_eq!(
        addresses(&functions),
        ["00:01.0", "01:04.0", "40:02.0", "41:05.0"]
    );
    let parents: Vec<_> = functions.iter().map(|function| function.parent).collect();
    assert_eq!(parents, [None, Some(0), None, Some(2)]);
}

#[test]
fn storage_that_is_too_small_says_how_much_there_is() {
    let pci = FakePci::new().with(0, 0, device(1)).with(1, 0, device(2));
    let mut storage = vec![Function::default(); 1];
    // SAFETY: there is no device.
    let error = unsafe { Topology::enumerate(&pci, &[BusRange::ALL], &mut storage) };
    let error = error.unwrap_err();
    assert_eq!(error, StorageTooSmall { needed: 2, room: 1 });
    assert_eq!(
        error.to_string(),
        "there are 2 PCI functions, and room for 1"
    );
}

#[test]
fn nothing_at_all() {
    assert_eq!(count(&FakePci::new(), &[BusRange::ALL]), 0);
    assert_eq!(
        count(
            &FakePci::new().with(0, 0, FakeFunction::endpoint(0, 0)),
            &[BusRange::ALL]
        ),
        0
    );
}

#[test]
fn children_and_search() {
    let pci = FakePci::new()
        .with(
            1,
            0,
            FakeFunction::bridge()
                .child(0, 0, device(1))
                .child(1, 0, device(2)),
        )
        .with(2, 0, device(3));
    walk(&pci, &[BusRange::ALL]);
    let mut storage = vec![Function::default(); 8];
    // SAFETY: there is no device.
    let topology = unsafe { Topology::enumerate(&pci, &[BusRange::ALL], &mut storage) }.unwrap();
    let children = |bridge| {
        topology
            .children(bridge)
            .map(|child| child.0)
            .collect::<Vec<_>>()
    };
    assert_eq!(children(None), [0, 3]);
    assert_eq!(children(Some(0)), [1, 2]);
    assert_eq!(children(Some(3)), []);
    assert_eq!(children(Some(99)), []);
    assert_eq!(
        topology.find(PciAddress::new(0, 1, 1, 0)).unwrap().device,
        2
    );
    assert!(topology.find(PciAddress::new(0, 1, 2, 0)).is_none());
}
