use std::vec::Vec;

use super::*;
use crate::pci::fake::{FakeFunction, FakePci};
use crate::pci::{BusRange, Topology};

/// A virtio capability without its first two bytes (4.1.4).
pub(crate) fn capability(kind: u8, bar: u8, offset: u32, length: u32) -> Vec<u8> {
    let mut body = Vec::from([16, kind, bar, 0, 0, 0]);
    body.extend(offset.to_le_bytes());
    body.extend(length.to_le_bytes());
    body
}

/// A notification capability (4.1.4.4), or the window (4.1.4.9): what follows is
/// the multiplier, or the data.
pub(crate) fn longer(kind: u8, bar: u8, offset: u32, length: u32, more: u32) -> Vec<u8> {
    let mut body = capability(kind, bar, offset, length);
    body[0] = 20;
    body.extend(more.to_le_bytes());
    body
}

/// The function, as it is found at 00:01.0.
pub(crate) fn found(pci: &FakePci) -> Function {
    let mut storage = [Function::default(); 4];
    // SAFETY: there is no device.
    unsafe { Topology::enumerate(pci, &[BusRange::ALL], &mut storage) }.unwrap();
    storage[0]
}

fn device() -> FakeFunction {
    FakeFunction::endpoint(VENDOR, 0x1042)
        .io_bar(2, 4)
        .memory64_bar(4, 0x4000, true)
        .at(2, 0x1000)
        .at(4, 0x8_0000_0000)
}

fn read(function: FakeFunction) -> Result<Structures, CapabilityError> {
    let pci = FakePci::new().with(1, 0, function);
    Structures::read(&pci, &found(&pci))
}

fn at(bar: u8, offset: u32, length: u32) -> Structure {
    Structure {
        bar,
        offset,
        length,
    }
}

#[test]
fn both_ranges_of_ids_are_virtio() {
    // 4.1.2, 4.1.2.2: any revision
    let function = |vendor, device, subsystem_device| Function {
        vendor,
        device,
        subsystem_device,
        revision: 77,
        ..Function::default()
    };
    for (id, device_type, transitional) in [
        (0x0fff, None, false),
        (0x1000, Some(9), true),
        (0x103f, Some(9), true),
        (0x1041, Some(1), false),
        (0x107f, Some(63), false),
        (0x1080, None, false),
    ] {
        let function = function(0x1af4, id, 9);
        assert_eq!(super::device_type(&function), device_type, "{id:#x}");
        assert_eq!(is_transitional(&function), transitional, "{id:#x}");
    }
    assert_eq!(super::device_type(&function(0x1b36, 0x1042, 9)), None);
}

#[test]
fn structures_are_found_as_qemu_lays_them_out() {
    let structures = read(
        device()
            .capability(0x11, &[0; 10])
            .capability(9, &longer(2, 2, 0, 4, 0))
            .capability(9, &longer(5, 0, 0, 0, 0))
            .capability(9, &longer(2, 4, 0x3000, 0x1000, 4))
            .capability(9, &capability(4, 4, 0x2000, 0x1000))
            .capability(9, &capability(3, 4, 0x1000, 0x1000))
            .capability(9, &capability(1, 4, 0, 0x1000)),
    )
    .unwrap();
    assert_eq!(structures.common, Some(at(4, 0, 0x1000)));
    assert_eq!(structures.isr, Some(at(4, 0x1000, 0x1000)));
    assert_eq!(structures.device, Some(at(4, 0x2000, 0x1000)));
    assert_eq!(structures.window, Some(0x40 + 12 + 20));
    let notify: Vec<_> = structures.notify().collect();
    assert_eq!(
        notify,
        [
            NotifyStructure {
                at: at(2, 0, 4),
                multiplier: 0,
                io: true
            },
            NotifyStructure {
                at: at(4, 0x3000, 0x1000),
                multiplier: 4,
                io: false
            },
        ],
        "in the device's order (4.1.4.4)"
    );
}

#[test]
fn what_cannot_be_used_is_passed_over() {
    // 4.1.4.1: reserved kinds and BARs are ignored; the first usable one counts.
    let structures = read(
        device()
            .capability(9, &capability(1, 6, 0, 0x100))
            .capability(9, &capability(1, 0xff, 0, 0x100))
            // No BAR there, or only the upper half of one.
            .capability(9, &capability(1, 0, 0, 0x100))
            .capability(9, &capability(1, 5, 0, 0x100))
            // Past the end; and past the end by an overflow in 32 bits.
            .capability(9, &capability(1, 4, 0x3f01, 0x100))
            .capability(9, &capability(1, 4, 0xffff_ff00, 0x200))
            // In IO space.
            .capability(9, &capability(1, 2, 0, 4))
            .capability(9, &capability(0, 4, 0, 0x100))
            .capability(9, &capability(99, 4, 0, 0x100))
            // Too short for what it is.
            .capability(9, &[8, 1, 4, 0, 0, 0])
            .capability(9, &capability(2, 4, 0x3000, 0x1000)),
    )
    .unwrap();
    assert_eq!(structures.common, None);
    assert_eq!(
        (structures.isr, structures.device, structures.window),
        (None, None, None)
    );
    assert_eq!(structures.notify().count(), 0);

    let twice = device()
        .capability(9, &capability(1, 4, 0x3f01, 0x100))
        .capability(9, &capability(1, 4, 0x100, 0x38))
        .capability(9, &capability(1, 4, 0x200, 0x38));
    assert_eq!(read(twice).unwrap().common, Some(at(4, 0x100, 0x38)));
}

#[test]
fn more_doorbells_than_are_remembered() {
    let many = (0..6).fold(device(), |device, index| {
        device.capability(9, &longer(2, 4, 0x100 * index, 0x100, index))
    });
    let multipliers: Vec<_> = read(many)
        .unwrap()
        .notify()
        .map(|notify| notify.multiplier)
        .collect();
    assert_eq!(multipliers, [0, 1, 2, 3]);
}

#[test]
fn a_list_that_goes_round_is_an_error() {
    let looping = device()
        .capability(9, &capability(1, 4, 0, 0x100))
        .register(0x40, 0x0110_4009);
    let error = read(looping).unwrap_err();
    assert!(
        matches!(error, CapabilityError::Loop { offset: 0x40, .. }),
        "{error}"
    );
}
