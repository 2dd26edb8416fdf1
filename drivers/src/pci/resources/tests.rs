//! Whole machines, assigned through the fake configuration space, whose `audit`
//! checks against the registers that everything that answers can be reached, and
//! that no two answer to one address.

mod firmware;
mod hotplug;
mod random;

use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use super::*;
use crate::pci::fake::{FakeFunction, FakePci};
use crate::pci::{
    Bar, BarKind, Bytes, CommandRegister, Function, PciAddress, Space, WindowKind, WindowWidth,
    count,
};

const IO: &[AddressRange] = &[AddressRange {
    first: 0x1000,
    last: 0xffff,
}];
const MEM32: &[AddressRange] = &[AddressRange {
    first: 0xc000_0000,
    last: 0xfebf_ffff,
}];
const MEM64: &[AddressRange] = &[AddressRange {
    first: 0x80_0000_0000,
    last: 0xff_ffff_ffff,
}];
const ALL: Apertures<'_> = Apertures {
    io: IO,
    mem32: MEM32,
    mem64: MEM64,
};

fn endpoint() -> FakeFunction {
    FakeFunction::endpoint(0x1af4, 0x1044)
}

/// Numbers, enumerates and assigns.
fn run(pci: &FakePci, apertures: &Apertures<'_>) -> (Assignment, Vec<Function>) {
    // SAFETY: there is no device.
    unsafe { number_buses(pci, &[BusRange::ALL]) };
    let mut storage = vec![Function::default(); count(pci, &[BusRange::ALL])];
    // SAFETY: there is no device.
    let mut topology = unsafe { Topology::enumerate(pci, &[BusRange::ALL], &mut storage) }.unwrap();
    // SAFETY: there is no device.
    let assignment = unsafe { assign(pci, &mut topology, apertures) };
    check(pci, &storage);
    (assignment, storage)
}

/// What the table says is what the registers say.
fn check(pci: &FakePci, functions: &[Function]) {
    let decoded = pci.audit().len();
    let said = functions.iter().flat_map(|function| {
        let decodes = |bar: &Bar| {
            function.command.contains(match bar.kind.space() {
                Space::Io => CommandRegister::IO_ENABLE,
                Space::Memory => CommandRegister::MEMORY_ENABLE,
            })
        };
        function
            .bars
            .iter()
            .flatten()
            .filter(move |bar| bar.address.is_some() && decodes(bar))
    });
    assert_eq!(said.count(), decoded);
    for bar in functions
        .iter()
        .flat_map(|function| function.bars)
        .flatten()
    {
        assert!(bar.address.is_some() != bar.reason.is_some(), "{bar:?}");
    }
}

fn bar(function: &Function, index: usize) -> Bar {
    function.bars[index].unwrap()
}

fn at(functions: &[Function], bus: u8, device: u8, function: u8) -> Function {
    let address = PciAddress::new(0, bus, device, function);
    *functions
        .iter()
        .find(|function| function.address == address)
        .unwrap()
}

fn reason(function: &Function, index: usize) -> String {
    bar(function, index).reason.unwrap().to_string()
}

/// 24 root ports, 8 a device, each with one function behind it.
fn ports(child: &FakeFunction) -> FakePci {
    (0..24).fold(FakePci::new(), |pci, port| {
        let root_port = FakeFunction::root_port().multi_function();
        pci.with(1 + port / 8, port % 8, root_port.child(0, 0, child.clone()))
    })
}

#[test]
fn as_many_io_bars_as_fit_and_the_rest_say_why() {
    let pci = ports(&FakeFunction::transitional_rng());
    let (assignment, functions) = run(&pci, &ALL);
    assert_eq!(
        assignment,
        Assignment {
            kept: 0,
            assigned: 24 * 3 + 15,
            without: 9
        }
    );
    let devices: Vec<_> = functions
        .iter()
        .filter(|one| one.device == 0x1005)
        .collect();
    let on = |device: &&&Function| device.command.contains(CommandRegister::IO_ENABLE);
    assert_eq!(devices.iter().filter(on).count(), 15);
    for (index, device) in devices.iter().enumerate() {
        let bridge = functions[device.parent.unwrap()].bridge().unwrap();
        let io = bridge.window(WindowKind::Io).range;
        assert_eq!(io.is_some(), index < 15);
        assert_eq!(bar(device, 0).address.is_some(), index < 15);
        assert!(bar(device, 1).address.is_some() && bar(device, 4).address.is_some());
        let command = pci.read32(device.address, 4) & 0x407;
        assert_eq!(command, if index < 15 { 7 } else { 6 });
        let window = pci.read32(functions[device.parent.unwrap()].address, 0x1c) & 0xffff;
        assert_eq!(
            window & 0xf0 > window >> 8 & 0xf0,
            index >= 15,
            "base above limit: closed"
        );
    }
    assert_eq!(
        reason(devices[15], 0),
        "no IO space left: 4 KiB window for bridge 0000:00:02.7 does not fit in 0x1000-0xffff"
    );
    assert_eq!(bar(devices[0], 0).address, Some(0x1000));

    let narrow = [AddressRange {
        first: 0x1000,
        last: 0xefff,
    }];
    let pci = ports(&FakeFunction::transitional_rng());
    let (assignment, _) = run(&pci, &Apertures { io: &narrow, ..ALL });
    assert_eq!(assignment.without, 10, "14 fit");
}

#[test]
fn an_assigned_machine_is_left_alone() {
    let pci = ports(&FakeFunction::transitional_rng());
    let (_, first) = run(&pci, &ALL);
    let before = pci.audit();
    // SAFETY: there is no device.
    unsafe { number_buses(&pci, &[BusRange::ALL]) };
    let mut storage = vec![Function::default(); first.len()];
    // SAFETY: there is no device.
    let mut topology =
        unsafe { Topology::enumerate(&pci, &[BusRange::ALL], &mut storage) }.unwrap();
    pci.take_writes();
    // SAFETY: there is no device.
    let assignment = unsafe { assign(&pci, &mut topology, &ALL) };
    assert_eq!(
        assignment,
        Assignment {
            kept: 24 * 3 + 15,
            assigned: 0,
            without: 9
        }
    );
    assert_eq!(pci.audit(), before);
    let written: Vec<_> = pci.take_writes();
    // The nine devices without IO have their BARs written again, to the same.
    assert!(
        written.iter().all(|(address, ..)| address.bus() > 15),
        "{written:?}"
    );
}

#[test]
fn a_switch_and_conventional_bridges_with_200_devices() {
    let many = (0..25u8).fold(FakeFunction::bridge(), |bridge, device| {
        (0..8).fold(bridge, |bridge, function| {
            let one = endpoint()
                .multi_function()
                .io_bar(0, 64)
                .memory_bar(1, 4096);
            bridge.child(device, function, one.memory64_bar(4, 16384, true))
        })
    });
    let pcie_to_pci = FakeFunction::bridge()
        .express(7)
        .memory64_bar(0, 256, false);
    let upstream = (0..3u8).fold(FakeFunction::bridge().express(5), |upstream, port| {
        let downstream = FakeFunction::bridge().express(6);
        upstream.child(
            port,
            0,
            downstream.child(0, 0, FakeFunction::transitional_rng()),
        )
    });
    let pci = FakePci::new()
        .with(
            1,
            0,
            FakeFunction::root_port().child(0, 0, pcie_to_pci.child(1, 0, many)),
        )
        .with(2, 0, FakeFunction::root_port().child(0, 0, upstream));
    let (assignment, functions) = run(&pci, &ALL);
    assert_eq!(assignment.without, 0);
    assert_eq!(assignment.assigned, 200 * 3 + 3 * 3 + 1 + 2);
    let io = at(&functions, 0, 1, 0)
        .bridge()
        .unwrap()
        .window(WindowKind::Io)
        .range
        .unwrap();
    assert_eq!(Bytes(io.size()).to_string(), "16 KiB", "200 times 64 bytes");
    let io = at(&functions, 0, 2, 0)
        .bridge()
        .unwrap()
        .window(WindowKind::Io)
        .range
        .unwrap();
    assert_eq!(Bytes(io.size()).to_string(), "12 KiB", "one window a port");
}

#[test]
fn a_nested_window_takes_what_is_left_for_as_many_bars_as_fit() {
    let many = |count: u8| {
        (0..count).fold(FakeFunction::bridge(), |bridge, device| {
            bridge.child(device, 0, endpoint().io_bar(0, 2048))
        })
    };
    // Two times 10 KiB of BARs want two windows of 12 KiB; 20 are there.
    let io = [AddressRange {
        first: 0x1000,
        last: 0x5fff,
    }];
    let pci = FakePci::new()
        .with(1, 0, FakeFunction::bridge().child(3, 0, many(5)))
        .with(2, 0, FakeFunction::bridge().child(3, 0, many(5)))
        .with(3, 0, endpoint().io_bar(0, 16));
    let (assignment, functions) = run(&pci, &Apertures { io: &io, ..ALL });
    assert_eq!(assignment.assigned, 5 + 1 + 2);
    assert_eq!(assignment.without, 3);
    assert_eq!(
        reason(&at(&functions, 4, 4, 0), 0),
        "no IO space left: 12 KiB window for bridge 0000:00:02.0 does not fit in 0x1000-0x5fff"
    );
}

#[test]
fn large_bars_go_above_4_gib_and_only_where_all_bridges_can() {
    let large = || endpoint().memory64_bar(0, 8 << 30, true);
    let narrow = || {
        FakeFunction::bridge()
            .register(0x24, 0)
            .writable(0x28, 0)
            .writable(0x2c, 0)
    };
    let none = || narrow().writable(0x24, 0);
    let pci = FakePci::new()
        .with(1, 0, large())
        .with(2, 0, FakeFunction::root_port().child(0, 0, large()))
        .with(
            3,
            0,
            FakeFunction::bridge().child(0, 0, narrow().child(0, 0, large())),
        )
        .with(4, 0, none().child(0, 0, large()))
        .with(
            5,
            0,
            FakeFunction::bridge().child(0, 0, endpoint().memory64_bar(0, 8 << 30, false)),
        );
    let (assignment, functions) = run(&pci, &ALL);
    assert_eq!(
        assignment,
        Assignment {
            kept: 0,
            assigned: 3,
            without: 3
        }
    );
    assert!(bar(&at(&functions, 0, 1, 0), 0).address.unwrap() >= 1 << 32);
    assert!(bar(&at(&functions, 1, 0, 0), 0).address.unwrap() >= 1 << 32);
    assert_eq!(
        reason(&at(&functions, 3, 0, 0), 0),
        "no memory space left: 8 GiB window for bridge 0000:00:03.0 does not fit in \
         0xc0000000-0xfebfffff"
    );
    assert_eq!(
        at(&functions, 0, 4, 0)
            .bridge()
            .unwrap()
            .window(WindowKind::Prefetchable)
            .width,
        WindowWidth::Absent
    );
    assert!(bar(&at(&functions, 4, 0, 0), 0).reason.is_some());
    assert!(
        bar(&at(&functions, 5, 0, 0), 0).reason.is_some(),
        "not prefetchable"
    );
}

#[test]
fn prefetchable_bars_without_a_prefetchable_window_use_the_other() {
    let none = FakeFunction::bridge().register(0x24, 0).writable(0x24, 0);
    let pci = FakePci::new().with(1, 0, none.child(0, 0, FakeFunction::transitional_rng()));
    let (assignment, functions) = run(&pci, &ALL);
    assert_eq!(assignment.without, 0);
    let bridge = at(&functions, 0, 1, 0);
    let window = bridge
        .bridge()
        .unwrap()
        .window(WindowKind::Memory)
        .range
        .unwrap();
    assert!(window.contains(bar(&at(&functions, 1, 0, 0), 4).range().unwrap()));
}

#[test]
fn what_must_be_below_4_gib_comes_first() {
    let mem32 = [AddressRange {
        first: 0xc000_0000,
        last: 0xc01f_ffff,
    }];
    let pci = FakePci::new()
        .with(1, 0, endpoint().memory64_bar(0, 1 << 20, true))
        .with(2, 0, endpoint().memory64_bar(0, 1 << 20, true))
        .with(3, 0, endpoint().memory_bar(0, 1 << 20));
    let (assignment, functions) = run(
        &pci,
        &Apertures {
            mem32: &mem32,
            ..ALL
        },
    );
    assert_eq!(assignment.without, 0);
    assert_eq!(bar(&at(&functions, 0, 3, 0), 0).address, Some(0xc000_0000));
    assert_eq!(bar(&at(&functions, 0, 1, 0), 0).address, Some(0xc010_0000));
    assert_eq!(
        bar(&at(&functions, 0, 2, 0), 0).address,
        Some(0x80_0000_0000)
    );
}

#[test]
fn without_memory_a_device_keeps_its_io_and_says_why() {
    let pci = ports(&FakeFunction::transitional_rng());
    let mem32 = [AddressRange {
        first: 0xc000_0000,
        last: 0xc000_ffff,
    }];
    let (_, functions) = run(
        &pci,
        &Apertures {
            mem32: &mem32,
            mem64: &[],
            ..ALL
        },
    );
    let device = at(&functions, 1, 0, 0);
    assert!(bar(&device, 0).address.is_some());
    assert_eq!(device.command.bits() & 7, 5);
    assert_eq!(
        reason(&device, 4),
        "no memory space left: 1 MiB window for bridge 0000:00:01.0 does not fit in \
         0xc0000000-0xc000ffff"
    );
    // A machine that announces nothing for PCI.
    let pci = FakePci::new().with(1, 0, FakeFunction::transitional_rng());
    let (assignment, functions) = run(
        &pci,
        &Apertures {
            io: &[],
            mem32: &[],
            mem64: &[],
        },
    );
    assert_eq!(assignment.without, 3);
    assert_eq!(
        reason(&at(&functions, 0, 1, 0), 0),
        "no IO space: PCI has none here, and it needs 32 bytes"
    );
    assert_eq!(at(&functions, 0, 1, 0).command.bits(), 0);
}

#[test]
fn a_function_decodes_all_of_a_space_or_nothing() {
    let pci = FakePci::new()
        .with(
            1,
            0,
            endpoint()
                .memory_bar(0, 4096)
                .memory_bar(2, 1 << 30)
                .io_bar(3, 8),
        )
        .with(2, 0, endpoint().memory_bar(0, 4096));
    let mem32 = [AddressRange {
        first: 0xc000_0000,
        last: 0xc000_ffff,
    }];
    let (_, functions) = run(
        &pci,
        &Apertures {
            mem32: &mem32,
            ..ALL
        },
    );
    let function = at(&functions, 0, 1, 0);
    assert_eq!(
        reason(&function, 0),
        "memory decoding is off, because BAR 2 has no address"
    );
    assert_eq!(function.command.bits() & 7, 5);
    assert_eq!(pci.read32(function.address, 0x10), 0);
}

#[test]
fn what_firmware_switched_on_stays_on() {
    let small = endpoint().memory_bar(0, 4096).at(0, 0xc000_0000);
    let pci = FakePci::new().with(1, 0, small.memory_bar(2, 1 << 30).command(2));
    let mem32 = [AddressRange {
        first: 0xc000_0000,
        last: 0xc000_ffff,
    }];
    let (assignment, functions) = run(
        &pci,
        &Apertures {
            mem32: &mem32,
            ..ALL
        },
    );
    assert_eq!((assignment.kept, assignment.without), (1, 1));
    assert_eq!(at(&functions, 0, 1, 0).command.bits(), 2);
}

#[test]
fn windows_are_aligned_for_what_is_in_them() {
    let port = |size| FakeFunction::bridge().child(0, 0, endpoint().memory_bar(0, size));
    let pci = FakePci::new()
        .with(1, 0, port(1 << 20))
        .with(2, 0, port(8 << 20));
    let (assignment, functions) = run(&pci, &ALL);
    assert_eq!(assignment.without, 0);
    assert_eq!(bar(&at(&functions, 2, 0, 0), 0).address, Some(0xc000_0000));
    assert_eq!(bar(&at(&functions, 1, 0, 0), 0).address, Some(0xc080_0000));
}

#[test]
fn on_a_root_bus_nothing_prefetches() {
    let pci = FakePci::new().with(1, 0, endpoint().memory64_bar(0, 8 << 30, false));
    let (_, functions) = run(&pci, &ALL);
    assert_eq!(
        bar(&at(&functions, 0, 1, 0), 0).address,
        Some(0x80_0000_0000)
    );
}

#[test]
fn malformed_bars_keep_their_reason_and_stop_nothing() {
    let pci = FakePci::new().with(
        1,
        0,
        endpoint()
            .bar(0, 6, !0xfff)
            .bar(1, 0, 0xffff_5000)
            .memory_bar(2, 4096)
            .bar(5, 4, !0xfff),
    );
    let (assignment, functions) = run(&pci, &ALL);
    assert_eq!((assignment.assigned, assignment.without), (1, 3));
    let function = at(&functions, 0, 1, 0);
    assert_eq!(bar(&function, 0).kind, BarKind::Reserved);
    assert_eq!(bar(&function, 2).address, Some(0xc000_0000));
}

#[test]
fn a_bridge_without_an_io_window_says_so() {
    let bridge = FakeFunction::bridge().writable(0x1c, 0);
    let pci = FakePci::new().with(1, 0, bridge.child(0, 0, FakeFunction::transitional_rng()));
    let (_, functions) = run(&pci, &ALL);
    let device = at(&functions, 1, 0, 0);
    assert_eq!(
        reason(&device, 0),
        "no IO space: bridge 0000:00:01.0 does not forward any"
    );
    assert_eq!(device.command.bits() & 7, 6);
}
