//! Machines that firmware has assigned, or half of them.

use super::*;

/// What SeaBIOS makes of a port with a device, and of an empty port that takes
/// hot-plug: windows are reserved for it.
fn firmware() -> FakePci {
    let device = endpoint().command(7).memory_bar(1, 4096).at(1, 0xfea0_0000);
    let device = device.memory64_bar(4, 16384, true).at(4, 0xfe00_0000);
    let port = FakeFunction::root_port()
        .at(0, 0xfebd_0000)
        .command(7)
        .buses(0, 1, 1);
    let port = port
        .io_window(0x1000, 0x1fff)
        .memory_window(0xfea0_0000, 0xfebf_ffff - 0x10_0000);
    let port = port.prefetchable_window(0xfe00_0000, 0xfe1f_ffff);
    let empty = FakeFunction::root_port()
        .at(0, 0xfebd_1000)
        .command(7)
        .buses(0, 2, 2);
    let empty = empty
        .io_window(0x2000, 0x2fff)
        .memory_window(0xfe80_0000, 0xfe9f_ffff);
    let empty = empty.prefetchable_window(0xfe20_0000, 0xfe3f_ffff);
    let smbus = endpoint().io_bar(4, 64).at(4, 0x700).command(3);
    FakePci::new()
        .with(1, 0, port.child(0, 0, device))
        .with(2, 0, empty)
        .with(31, 0, smbus)
}

#[test]
fn what_firmware_assigned_is_not_touched() {
    let pci = firmware();
    let before = pci.audit();
    let (assignment, functions) = run(&pci, &ALL);
    assert_eq!(
        assignment,
        Assignment {
            kept: 5,
            assigned: 0,
            without: 0
        }
    );
    assert_eq!(pci.audit(), before);
    assert_eq!(
        at(&functions, 0, 31, 0).command.bits(),
        3,
        "as firmware left it"
    );
    assert_eq!(
        bar(&at(&functions, 0, 31, 0), 4).address,
        Some(0x700),
        "outside of the apertures"
    );
}

#[test]
fn a_hot_plugged_device_gets_its_place_in_the_reserved_windows() {
    let pci = firmware();
    let port = FakeFunction::root_port()
        .at(0, 0xfebd_2000)
        .command(7)
        .buses(0, 3, 3);
    let port = port
        .io_window(0x3000, 0x3fff)
        .memory_window(0xfe60_0000, 0xfe7f_ffff);
    let port = port.prefetchable_window(0xfe40_0000, 0xfe5f_ffff);
    let pci = pci.with(3, 0, port.child(0, 0, FakeFunction::transitional_rng()));
    let before = pci.audit();
    let (assignment, functions) = run(&pci, &ALL);
    assert_eq!(
        assignment,
        Assignment {
            kept: 6,
            assigned: 3,
            without: 0
        }
    );
    let device = at(&functions, 3, 0, 0);
    assert_eq!(bar(&device, 0).address, Some(0x3000));
    assert_eq!(bar(&device, 1).address, Some(0xfe60_0000));
    assert_eq!(bar(&device, 4).address, Some(0xfe40_0000));
    assert!(before.iter().all(|one| pci.audit().contains(one)));
}

#[test]
fn a_reserved_window_that_is_too_small_is_moved_unless_something_is_in_it() {
    let large = endpoint().memory_bar(0, 4 << 20);
    let empty = FakeFunction::root_port()
        .buses(0, 1, 1)
        .memory_window(0xfe80_0000, 0xfe8f_ffff);
    let small = endpoint()
        .memory_bar(0, 4096)
        .at(0, 0xfe90_0000)
        .command(2)
        .multi_function();
    let used = FakeFunction::root_port()
        .buses(0, 2, 2)
        .memory_window(0xfe90_0000, 0xfe9f_ffff);
    let pci = FakePci::new()
        .with(1, 0, empty.child(0, 0, large.clone()))
        .with(2, 0, used.child(0, 0, small).child(0, 1, large));
    let (_, functions) = run(&pci, &ALL);
    let moved = at(&functions, 0, 1, 0)
        .bridge()
        .unwrap()
        .window(WindowKind::Memory)
        .range
        .unwrap();
    assert_eq!(moved.size(), 4 << 20);
    assert!(bar(&at(&functions, 1, 0, 0), 0).address.is_some());
    assert_eq!(bar(&at(&functions, 2, 0, 0), 0).address, Some(0xfe90_0000));
    assert_eq!(
        reason(&at(&functions, 2, 0, 1), 0),
        "no memory space left: 4 MiB do not fit in the window 0xfe900000-0xfe9fffff of bridge \
         0000:00:02.0"
    );
}

#[test]
fn half_assigned_and_overlapping_ones_are_completed() {
    let pci = FakePci::new()
        .with(
            1,
            0,
            endpoint().memory_bar(0, 4096).at(0, 0xc000_0000).command(2),
        )
        .with(
            2,
            0,
            endpoint().memory_bar(0, 4096).at(0, 0xc000_0000).command(2),
        )
        .with(
            3,
            0,
            endpoint()
                .memory_bar(0, 4096)
                .memory_bar(1, 4096)
                .at(1, 0xc000_1000),
        )
        // Half inside of an aperture.
        .with(
            4,
            0,
            endpoint()
                .memory_bar(0, 0x200_0000)
                .at(0, 0xfe00_0000)
                .command(2),
        );
    let (assignment, functions) = run(&pci, &ALL);
    assert_eq!(
        assignment,
        Assignment {
            kept: 2,
            assigned: 3,
            without: 0
        }
    );
    assert_eq!(bar(&at(&functions, 0, 1, 0), 0).address, Some(0xc000_0000));
    assert_eq!(bar(&at(&functions, 0, 3, 0), 1).address, Some(0xc000_1000));
    assert_eq!(pci.audit().len(), 5);
}

/// Found by the fuzzer: what firmware switched on outside of the apertures stays, but no
/// two of them may have the same addresses.
#[test]
fn windows_outside_of_the_apertures_do_not_overlap_either() {
    let bridge = |bus, last| {
        FakeFunction::bridge()
            .buses(0, bus, bus)
            .io_window(0x3000, last)
            .command(1)
    };
    let child = endpoint().io_bar(0, 32).at(0, 0x3000).command(1);
    let pci = FakePci::new().with(1, 0, bridge(1, 0x5fff)).with(
        2,
        0,
        bridge(2, 0x4fff).child(0, 0, child),
    );
    let io = [AddressRange {
        first: 0x1000,
        last: 0x1fff,
    }];
    let apertures = Apertures { io: &io, ..ALL };
    let (_, functions) = run(&pci, &apertures);
    let window = |at: &Function| at.bridge().unwrap().window(WindowKind::Io).range;
    let first = window(&self::at(&functions, 0, 1, 0));
    assert_eq!(first.map(|range| range.first), Some(0x3000));
    assert_eq!(bar(&self::at(&functions, 2, 0, 0), 0).address, Some(0x1000));
}
