//! Machines whose devices come and go.

use super::*;

/// Slot capabilities of a port that supports hot-plug.
const HOT_PLUG: u32 = 0x40;

fn port() -> FakeFunction {
    FakeFunction::slot(4, HOT_PLUG).memory_bar(0, 4096)
}

/// Enumerates and assigns again.
fn rescan(
    pci: &FakePci,
    known: &[Function],
    apertures: &Apertures<'_>,
) -> (Assignment, Vec<Function>) {
    let roots = [BusRange::ALL];
    let mut storage = vec![Function::default(); count(pci, &roots)];
    // SAFETY: there is no device.
    let mut topology = unsafe { Topology::rescan(pci, &roots, known, &mut storage) }.unwrap();
    // SAFETY: there is no device.
    let assignment = unsafe { assign(pci, &mut topology, apertures) };
    check(pci, &storage);
    (assignment, storage)
}

fn window(functions: &[Function], device: u8, kind: WindowKind) -> Option<AddressRange> {
    at(functions, 0, device, 0)
        .bridge()
        .unwrap()
        .window(kind)
        .range
}

fn sizes(functions: &[Function], device: u8) -> [Option<u64>; 3] {
    WindowKind::ALL.map(|kind| window(functions, device, kind).map(|range| range.size()))
}

/// A device on the root bus, a port with one, and two empty ports, of which the
/// second does not support hot-plug.
fn machine() -> FakePci {
    FakePci::new()
        .with(1, 0, FakeFunction::transitional_rng())
        .with(2, 0, port().child(0, 0, FakeFunction::transitional_rng()))
        .with(3, 0, port())
        .with(4, 0, FakeFunction::slot(4, 0))
}

#[test]
fn an_empty_slot_has_windows_for_a_device_to_come() {
    let (assignment, functions) = run(&machine(), &ALL);
    assert_eq!(assignment.without, 0);
    assert_eq!(
        sizes(&functions, 2),
        [Some(0x1000), Some(1 << 20), Some(1 << 20)]
    );
    assert_eq!(sizes(&functions, 3), [None, Some(2 << 20), Some(2 << 20)]);
    assert_eq!(sizes(&functions, 4), [None; 3], "nothing can come");
    assert!(at(&functions, 0, 3, 0).hot_plug && !at(&functions, 0, 4, 0).hot_plug);
    // Neither does a slot need any that something is in, whatever that is.
    let taken = FakePci::new().with(3, 0, port().child(0, 0, endpoint().io_bar(0, 8)));
    assert_eq!(sizes(&run(&taken, &ALL).1, 3), [Some(0x1000), None, None]);
    // A bridge that leads nowhere needs none.
    let roots = [BusRange {
        last: 0,
        ..BusRange::ALL
    }];
    let pci = FakePci::new().with(3, 0, port());
    let mut storage = [Function::default()];
    // SAFETY: there is no device, and so below.
    let mut topology = unsafe { Topology::enumerate(&pci, &roots, &mut storage) }.unwrap();
    // SAFETY: as above.
    unsafe { assign(&pci, &mut topology, &ALL) };
    assert_eq!(sizes(&storage, 3), [None; 3]);
}

#[test]
fn what_is_there_comes_first() {
    // 3 MiB for the root port's own BAR, and for the device behind the other.
    let mem32 = [AddressRange {
        first: 0xc000_0000,
        last: 0xc02f_ffff,
    }];
    let small = Apertures {
        mem32: &mem32,
        mem64: &[],
        ..ALL
    };
    let pci = FakePci::new().with(2, 0, port()).with(
        3,
        0,
        FakeFunction::bridge().child(0, 0, FakeFunction::transitional_rng()),
    );
    let (assignment, functions) = run(&pci, &small);
    assert_eq!(assignment.without, 0);
    assert_eq!(sizes(&functions, 2), [None; 3]);
    // A device gets what it needs of what is left, and says what it lacks.
    let before = pci.audit();
    pci.plug(
        PciAddress::new(0, 1, 0, 0),
        FakeFunction::transitional_rng(),
    );
    let (assignment, functions) = rescan(&pci, &functions, &small);
    assert_eq!((assignment.kept, assignment.assigned), (4, 1));
    let device = at(&functions, 1, 0, 0);
    assert!(bar(&device, 0).address.is_some());
    assert_eq!(
        reason(&device, 4),
        "no memory space left: 1 MiB window for bridge 0000:00:02.0 does not fit in \
         0xc0000000-0xc02fffff"
    );
    assert!(before.iter().all(|one| pci.audit().contains(one)));
}

#[test]
fn a_device_that_comes_gets_addresses_and_nothing_else_is_touched() {
    let smbus = endpoint().io_bar(4, 64).at(4, 0x700).command(1);
    let pci = machine().with(31, 0, smbus);
    let (_, known) = run(&pci, &ALL);
    // A driver has its device not use the interrupt pin, and others sleep.
    let (busy, asleep) = (PciAddress::new(0, 1, 0, 0), PciAddress::new(0, 0, 1, 0));
    pci.change(busy, 4, 0x407, 0x406);
    pci.change(asleep, 4, 0x407, 0);
    pci.change(PciAddress::new(0, 0, 31, 0), 4, 0x407, 0);
    let before = pci.audit();
    pci.take_writes();
    let (port, new) = (PciAddress::new(0, 0, 3, 0), PciAddress::new(0, 2, 0, 0));
    pci.plug(new, FakeFunction::transitional_rng());
    let (assignment, functions) = rescan(&pci, &known, &ALL);
    assert_eq!(
        assignment,
        Assignment {
            kept: 9,
            assigned: 3,
            without: 0
        }
    );
    let device = at(&functions, 2, 0, 0);
    assert_eq!(device.command.bits() & 7, 7);
    assert_eq!(functions[device.parent.unwrap()].address, port);
    // The window of IO was opened for it, the others were there.
    assert_eq!(
        sizes(&functions, 3),
        [Some(0x1000), Some(2 << 20), Some(2 << 20)]
    );
    for (index, kind) in [(0, WindowKind::Io), (1, WindowKind::Memory)] {
        let range = bar(&device, index).range().unwrap();
        assert!(window(&functions, 3, kind).unwrap().contains(range));
    }
    let written: Vec<_> = pci.take_writes();
    assert!(
        written
            .iter()
            .all(|(address, ..)| [port, new].contains(address)),
        "{written:?}"
    );
    let after = pci.audit();
    assert!(before.iter().all(|one| after.contains(one)));
    assert_eq!(at(&functions, 0, 1, 0).command.bits(), 0);
    assert_eq!(at(&functions, 1, 0, 0).command.bits(), 0x406);

    // Again, and there is nothing to do.
    let (assignment, again) = rescan(&pci, &functions, &ALL);
    assert_eq!((assignment.kept, assignment.assigned), (12, 0));
    assert!(pci.take_writes().is_empty());
    assert_eq!(again.len(), functions.len());
}

#[test]
fn a_device_that_went_leaves_room_for_another() {
    let pci = machine();
    let (_, known) = run(&pci, &ALL);
    let place = PciAddress::new(0, 1, 0, 0);
    let first = bar(&at(&known, 1, 0, 0), 1).address;
    pci.unplug(place);
    let (assignment, without) = rescan(&pci, &known, &ALL);
    assert_eq!((assignment.kept, assignment.assigned), (5, 0));
    assert!(without.iter().all(|function| function.address != place));
    pci.plug(place, FakeFunction::transitional_rng());
    let (_, functions) = rescan(&pci, &without, &ALL);
    assert_eq!(bar(&at(&functions, 1, 0, 0), 1).address, first);
    // One that does not fit gets larger windows: nothing else is behind the port.
    pci.unplug(place);
    pci.plug(place, endpoint().memory_bar(0, 16 << 20));
    let (assignment, functions) = rescan(&pci, &functions, &ALL);
    assert_eq!((assignment.assigned, assignment.without), (1, 0));
    assert_eq!(sizes(&functions, 2)[1], Some(16 << 20));
}

#[test]
fn one_that_took_anothers_place_is_new() {
    let pci = machine();
    let (_, known) = run(&pci, &ALL);
    let place = PciAddress::new(0, 1, 0, 0);
    let replace = |with: FakeFunction| {
        pci.unplug(place);
        pci.plug(place, with);
        let (assignment, functions) = rescan(&pci, &known, &ALL);
        let device = at(&functions, 1, 0, 0);
        (
            assignment.kept,
            assignment.assigned,
            device.command.bits() & 7,
        )
    };
    // The same again, out of reset.
    assert_eq!(replace(FakeFunction::transitional_rng()), (5, 3, 7));
    // What answers now, at the same addresses, is not what was there.
    let at_the_same = |mut other: FakeFunction| {
        for (index, bar) in at(&known, 1, 0, 0).bars.iter().enumerate() {
            if let Some(bar) = bar {
                other = other.at(index as u8, bar.address.unwrap());
            }
        }
        other.command(7)
    };
    let same = at_the_same(FakeFunction::transitional_rng());
    assert_eq!(replace(same), (8, 0, 7), "nobody could tell");
    let revised = at_the_same(FakeFunction::transitional_rng().class(0xff_0001));
    assert_eq!(replace(revised), (5, 3, 7));
    let other = at_the_same(FakeFunction::transitional_rng().register(0, 0x1044_1af4));
    assert_eq!(replace(other), (5, 3, 7));
    let moved = at_the_same(FakeFunction::transitional_rng()).register(0x24, 0x99);
    assert_eq!(replace(moved), (5, 3, 7), "the upper half counts");
}

#[test]
fn addresses_that_a_new_function_brings_along_do_not_count() {
    let pci = machine();
    let (_, known) = run(&pci, &ALL);
    // It claims to be where the device on the root bus is.
    let taken = bar(&at(&known, 0, 1, 0), 1).address.unwrap();
    let before = pci.audit();
    let thief = endpoint().memory_bar(1, 4096).at(1, taken).command(7);
    pci.plug(PciAddress::new(0, 2, 0, 0), thief);
    let (assignment, functions) = rescan(&pci, &known, &ALL);
    assert_eq!((assignment.kept, assignment.assigned), (8, 1));
    assert_ne!(bar(&at(&functions, 2, 0, 0), 1).address, Some(taken));
    assert!(before.iter().all(|one| pci.audit().contains(one)));
}

#[test]
fn what_is_behind_a_new_bridge_has_no_number() {
    // The same again, out of reset: its windows are not what they were.
    let bridge = || FakeFunction::bridge().child(1, 0, endpoint().memory_bar(0, 4096));
    let pci = FakePci::new().with(2, 0, port().child(0, 0, bridge()));
    let (_, known) = run(&pci, &ALL);
    assert_eq!(known.len(), 3);
    let place = PciAddress::new(0, 1, 0, 0);
    pci.unplug(place);
    pci.plug(place, bridge());
    let (_, functions) = rescan(&pci, &known, &ALL);
    assert_eq!(functions.len(), 2);
    let new = functions[1].bridge().unwrap();
    assert!(new.unnumbered.is_some());
    assert_eq!(new.window(WindowKind::Memory).range, None);

    let pci = machine();
    let (_, known) = run(&pci, &ALL);
    let stale = FakeFunction::bridge()
        .buses(2, 3, 3)
        .memory_window(0xc000_0000, 0xc00f_ffff)
        .command(7);
    pci.plug(PciAddress::new(0, 2, 0, 0), stale.child(0, 0, endpoint()));
    let (_, functions) = rescan(&pci, &known, &ALL);
    assert_eq!(functions.len(), known.len() + 1);
    let bridge = at(&functions, 2, 0, 0);
    let bridge = bridge.bridge().unwrap();
    assert_eq!(
        bridge.unnumbered.unwrap().to_string(),
        "no bus number left: none after 0x02 leads to it"
    );
    assert_eq!(bridge.window(WindowKind::Memory).range, None);
}

#[test]
fn behind_a_switch_there_is_what_its_windows_have_left() {
    let slot = || FakeFunction::slot(6, HOT_PLUG);
    let switch = |present: FakeFunction| {
        let upstream = FakeFunction::bridge().express(5);
        upstream.child(0, 0, slot()).child(1, 0, present)
    };
    let of = |pci: &FakePci| {
        let (assignment, functions) = run(pci, &ALL);
        assert_eq!(assignment.without, 0);
        let slot = functions.iter().find(|one| one.address.bus() == 2).unwrap();
        slot.bridge().unwrap().window(WindowKind::Memory).range
    };
    let root =
        |switch| FakePci::new().with(1, 0, FakeFunction::bridge().express(4).child(0, 0, switch));
    // An empty switch has windows for all of its slots.
    assert_eq!(of(&root(switch(slot()))).unwrap().size(), 2 << 20);
    let full = slot().child(0, 0, endpoint().memory_bar(0, 1 << 20));
    assert_eq!(of(&root(switch(full))), None);
}
