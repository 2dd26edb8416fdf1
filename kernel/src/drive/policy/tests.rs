use alloc::vec;

use doorbell::pci::fake::{FakeFunction, FakePci};
use doorbell::pci::{BusRange, Topology};

use super::*;

/// The function, as it is found, and its structures.
fn found(function: FakeFunction) -> (Function, Structures) {
    let pci = FakePci::new().with(1, 0, function);
    let mut storage = vec![Function::default(); 1];
    // SAFETY: there is no device.
    unsafe { Topology::enumerate(&pci, &[BusRange::ALL], &mut storage) }.unwrap();
    let structures = Structures::read(&pci, &storage[0]).unwrap();
    (storage[0], structures)
}

/// QEMU's transitional device, placed.
fn transitional() -> FakeFunction {
    let device = FakeFunction::transitional_rng();
    device.at(0, 0x1000).at(1, 0xfe00_0000).at(4, 0xfd00_0000)
}

/// Its virtio capabilities, and a doorbell in the IO BAR 2 that comes first.
fn modern(device: FakeFunction) -> FakeFunction {
    let structure = |kind, bar, offset: u32, length: u32| {
        let mut body = vec![20, kind, bar, 0, 0, 0];
        body.extend(offset.to_le_bytes());
        body.extend(length.to_le_bytes());
        body.extend(4u32.to_le_bytes());
        body
    };
    device
        .io_bar(2, 4)
        .at(2, 0x2000)
        .capability(9, &structure(2, 2, 0, 4))
        .capability(9, &structure(2, 4, 0x3000, 0x1000))
        .capability(9, &structure(3, 4, 0x1000, 0x1000))
        .capability(9, &structure(1, 4, 0, 0x1000))
}

fn legacy(policy: Policy, change: impl FnOnce(&mut Function)) -> Result<(), Obstacle> {
    let (mut function, _) = found(transitional());
    change(&mut function);
    policy.takes_legacy(&function)
}

#[test]
fn a_guest_of_2013_goes_by_id_revision_and_bars() {
    const OLD: Policy = Policy::Legacy2013;
    assert_eq!(legacy(OLD, |_| {}), Ok(()));
    type Change = fn(&mut Function);
    let cases: [(Change, &str, &str); 6] = [
        (
            |own| own.device = 0x1044,
            "device-id",
            "device ID 0x1044 is not in 0x1000-0x103f",
        ),
        (|own| own.revision = 1, "revision", "revision 1, not 0"),
        (|own| own.bars[0] = None, "no-bar0", "there is no BAR0"),
        (
            |own| own.bars[0] = own.bars[1],
            "bar0-in-memory",
            "BAR0 is not an IO BAR",
        ),
        (
            |own| own.bars[0].as_mut().unwrap().address = None,
            "no-io-address",
            "BAR0 has no address",
        ),
        (
            |own| own.bars[4].as_mut().unwrap().address = None,
            "no-memory-address",
            "BAR4 has no address",
        ),
    ];
    for (change, code, sentence) in cases {
        let obstacle = legacy(OLD, change).unwrap_err();
        assert_eq!(obstacle.code(), code);
        assert_eq!(obstacle.to_string(), sentence);
    }
    // The first and the last of its IDs.
    assert_eq!(legacy(OLD, |own| own.device = 0x1000), Ok(()));
    assert_eq!(legacy(OLD, |own| own.device = 0x103f), Ok(()));
    assert!(legacy(OLD, |own| own.device = 0x1040).is_err());
}

#[test]
fn a_dual_guest_needs_the_address_of_bar0_alone() {
    let without = |bar: usize| {
        legacy(Policy::Dual, |own| {
            own.bars[bar].as_mut().unwrap().address = None;
        })
    };
    assert_eq!(without(4), Ok(()));
    assert_eq!(without(0).unwrap_err().code(), "no-io-address");
}

#[test]
fn the_first_usable_doorbell_is_the_one() {
    let usable = |function: &Function, structures: &Structures, io| {
        let doorbells = doorbells(function, structures, io).unwrap();
        let codes = doorbells.into_iter().map(|offered| {
            let reason = offered.usable.err().map(|obstacle| obstacle.code());
            (offered.notify.at.bar, reason)
        });
        codes.collect::<Vec<_>>()
    };
    let (function, structures) = found(modern(transitional()));
    assert_eq!(
        usable(&function, &structures, true),
        [(2, None), (4, None)],
        "4.1.4: best first"
    );
    assert_eq!(
        usable(&function, &structures, false),
        [(2, Some("io-off")), (4, None)]
    );
    let mut lacking = function;
    lacking.bars[2].as_mut().unwrap().address = None;
    assert_eq!(
        usable(&lacking, &structures, true),
        [(2, Some("no-io-address")), (4, None)]
    );
}

#[test]
fn a_modern_guest_needs_the_structures_and_their_bar() {
    let code = |device: FakeFunction| {
        let (function, structures) = found(device);
        doorbells(&function, &structures, true).unwrap_err().code()
    };
    assert_eq!(code(transitional()), "no-capabilities");
    let nowhere = FakeFunction::transitional_rng();
    assert_eq!(code(modern(nowhere)), "no-memory-address");
    let common = [16, 1, 4, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0];
    assert_eq!(code(transitional().capability(9, &common)), "bad-structure");
}

#[test]
fn what_a_device_has_shows_without_its_addresses() {
    let has = |device: FakeFunction| {
        let (function, structures) = found(device);
        offers(&function, Some(&structures))
    };
    let nowhere = FakeFunction::transitional_rng;
    assert_eq!(has(nowhere()), [Face::Legacy]);
    assert_eq!(has(modern(nowhere())), [Face::Legacy, Face::Modern]);
    let new = FakeFunction::endpoint(0x1af4, 0x1044).memory64_bar(4, 0x4000, true);
    assert_eq!(has(modern(new)), [Face::Modern]);
}

#[test]
fn virtio_mmio_had_one_version_in_2013() {
    let takes = |policy: Policy| {
        [Interface::MmioV1, Interface::MmioV2].map(|version| policy.takes_mmio(version).is_ok())
    };
    assert_eq!(takes(Policy::Legacy2013), [true, false]);
    assert_eq!(takes(Policy::Modern), [false, true]);
    assert_eq!(takes(Policy::Dual), [true, true]);
    let refused = Policy::Modern.takes_mmio(Interface::MmioV1).unwrap_err();
    assert_eq!(
        (refused.code(), refused.to_string().as_str()),
        ("mmio-version", "it is mmio-v1")
    );
}

#[test]
fn policies_have_names() {
    for policy in Policy::ALL {
        assert_eq!(Policy::parse(Some(policy.name())), Ok(policy));
    }
    for wrong in [Some("legacy"), Some(""), None] {
        assert!(Policy::parse(wrong).unwrap_err().contains("legacy-2013"));
    }
    assert_eq!(Policy::Dual.faces(), [Face::Modern, Face::Legacy]);
}
