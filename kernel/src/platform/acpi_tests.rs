//! Firmware as it should be, and as it should not.

use super::super::gsi::{Gsi, Polarity, Trigger};
use super::super::madt::FIXED as MADT_FIXED;
use super::*;
use std::vec;

/// Memory made of pieces; what lies between them is unreadable.
struct Pieces(Vec<(u64, Vec<u8>)>);

impl FirmwareMemory for Pieces {
    fn bytes(&self, address: u64, length: usize) -> Result<&[u8], MapError> {
        let piece = self.0.iter().find_map(|(base, bytes)| {
            let start = usize::try_from(address.checked_sub(*base)?).ok()?;
            bytes.get(start..start.checked_add(length)?)
        });
        piece.ok_or(MapError::NotFirmware {
            physical: address,
            length,
        })
    }
}

/// Makes the bytes add up to 0 by the one at `offset`.
fn seal(mut bytes: Vec<u8>, offset: usize) -> Vec<u8> {
    bytes[offset] = 0;
    bytes[offset] = bytes.iter().fold(0u8, |sum, &byte| sum.wrapping_sub(byte));
    bytes
}

fn table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes[..4].copy_from_slice(signature);
    bytes[4..8].copy_from_slice(&((HEADER + body.len()) as u32).to_le_bytes());
    bytes.extend_from_slice(body);
    seal(bytes, 9)
}

fn rsdp(revision: u8, rsdt: u32, xsdt: u64) -> Vec<u8> {
    let mut bytes = b"RSD PTR \0BOCHS ".to_vec();
    bytes.push(revision);
    bytes.extend_from_slice(&rsdt.to_le_bytes());
    let mut bytes = seal(bytes, 8);
    if revision > 0 {
        bytes.extend_from_slice(&36u32.to_le_bytes());
        bytes.extend_from_slice(&xsdt.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes = seal(bytes, 32);
    }
    bytes
}

const RSDP: u64 = 0xf_5000;
const ROOT: u64 = 0x80_0000;

/// A machine whose version 1 root table lists `tables`, at 0x10000 each.
fn machine(tables: &[Vec<u8>]) -> Pieces {
    let place = |index: usize| 0x81_0000 + 0x1_0000 * index as u64;
    let list: Vec<u8> = (0..tables.len())
        .flat_map(|index| (place(index) as u32).to_le_bytes())
        .collect();
    let mut pieces = vec![
        (RSDP, rsdp(0, ROOT as u32, 0)),
        (ROOT, table(b"RSDT", &list)),
    ];
    pieces.extend(
        tables
            .iter()
            .enumerate()
            .map(|(index, table)| (place(index), table.clone())),
    );
    Pieces(pieces)
}

fn mcfg() -> Vec<u8> {
    let mut body = vec![0; 8];
    body.extend_from_slice(&0xb000_0000_u64.to_le_bytes());
    body.extend_from_slice(&[1, 0, 0, 0xff, 0, 0, 0, 0]);
    table(b"MCFG", &body)
}

fn madt(entries: &[u8]) -> Vec<u8> {
    let mut body = 0xfee0_0000_u32.to_le_bytes().to_vec();
    body.extend_from_slice(&[1, 0, 0, 0]);
    body.extend_from_slice(entries);
    table(b"APIC", &body)
}

const IO_APIC: [u8; 12] = [1, 12, 7, 0, 0, 0, 0xc0, 0xfe, 24, 0, 0, 0];

#[test]
fn a_machine_is_read() {
    let mut fadt = vec![0; 80];
    fadt[4..8].copy_from_slice(&0x70_0000_u32.to_le_bytes());
    let local_apic = [0u8, 8, 0, 0, 1, 0, 0, 0];
    let mut memory = machine(&[
        table(b"SSDT", b"ssdt code"),
        mcfg(),
        madt(&[&local_apic[..], &IO_APIC].concat()),
        table(b"FACP", &fadt),
    ]);
    memory.0.push((0x70_0000, table(b"DSDT", b"dsdt code")));
    let acpi = discover(&memory, Some(RSDP)).unwrap();
    assert_eq!(acpi.problems, []);
    assert_eq!(
        acpi.tables,
        [*b"SSDT", *b"MCFG", *b"APIC", *b"DSDT", *b"FACP"]
    );
    let ecam = EcamRegion {
        base: 0xb000_0000,
        segment: 1,
        bus_start: 0,
        bus_end: 0xff,
    };
    assert_eq!(acpi.ecam, [ecam]);
    assert_eq!(acpi.local_apic, Some(0xfee0_0000));
    assert_eq!(
        acpi.io_apics,
        [IoApic {
            id: 7,
            address: 0xfec0_0000,
            gsi_base: 24
        }]
    );
    assert_eq!(acpi.aml, [b"dsdt code", b"ssdt code"]);
}

#[test]
fn later_versions_have_a_root_table_of_64_bit_addresses() {
    let address = 0x1_0000_0000_u64;
    let memory = Pieces(vec![
        (RSDP, rsdp(2, 0, ROOT)),
        (ROOT, table(b"XSDT", &address.to_le_bytes())),
        (address, mcfg()),
    ]);
    assert_eq!(discover(&memory, Some(RSDP)).unwrap().ecam.len(), 1);
}

#[test]
fn an_unannounced_root_pointer_is_searched_for() {
    let mut bios = vec![0; 0x2_0000];
    // A damaged one first, and one that is not on a 16-byte boundary.
    bios[0x100..0x108].copy_from_slice(b"RSD PTR ");
    bios[0x208..0x208 + 20].copy_from_slice(&rsdp(0, 0x66, 0));
    bios[0x1_5000..0x1_5000 + 20].copy_from_slice(&rsdp(0, ROOT as u32, 0));
    let memory = Pieces(vec![(0xe_0000, bios), (ROOT, table(b"RSDT", &[]))]);
    assert_eq!(discover(&memory, None).unwrap().tables.len(), 0);
    assert_eq!(
        discover(&Pieces(vec![]), None).unwrap_err(),
        AcpiError::NoRootPointer
    );
}

#[test]
fn a_damaged_root_pointer_is_an_error() {
    let bad = Some(AcpiError::BadRootPointer { address: RSDP });
    for (offset, value) in [(0, b'X'), (17, 1), (8, 0)] {
        let mut bytes = rsdp(0, ROOT as u32, 0);
        bytes[offset] ^= value | 0x80;
        assert_eq!(
            discover(&Pieces(vec![(RSDP, bytes)]), Some(RSDP)).err(),
            bad
        );
    }
    // A length that would make the checksum run over other memory.
    let mut bytes = rsdp(2, 0, ROOT);
    bytes[20..24].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(
        discover(&Pieces(vec![(RSDP, bytes)]), Some(RSDP)).err(),
        bad
    );
}

#[test]
fn a_bad_table_costs_its_own_contents_only() {
    let mut damaged = mcfg();
    damaged[40] ^= 1;
    let mut short = table(b"SSDT", b"code");
    short[4..8].copy_from_slice(&20u32.to_le_bytes());
    let mut long = table(b"SSDT", b"code");
    long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut ragged = table(b"SSDT", b"code");
    ragged[4..8].copy_from_slice(&(HEADER as u32 + 5).to_le_bytes());
    let mut memory = machine(&[damaged, short, long, ragged, mcfg(), vec![]]);
    memory.0.pop();
    let acpi = discover(&memory, Some(RSDP)).unwrap();
    assert_eq!(acpi.ecam.len(), 1);
    let ssdt = |address, length| AcpiError::BadLength {
        address,
        signature: *b"SSDT",
        length,
    };
    assert_eq!(
        acpi.problems[0],
        AcpiError::BadTable {
            address: 0x81_0000,
            signature: *b"MCFG"
        }
    );
    assert_eq!(acpi.problems[1], ssdt(0x82_0000, 20));
    assert_eq!(acpi.problems[2], ssdt(0x83_0000, u32::MAX));
    for (problem, physical, length) in [(3, 0x84_0000, HEADER + 5), (4, 0x86_0000, HEADER)] {
        let error = MapError::NotFirmware { physical, length };
        assert_eq!(acpi.problems[problem], AcpiError::Unreadable(error));
    }
    assert_eq!(acpi.problems.len(), 5);
}

#[test]
fn bad_entries_end_a_table() {
    let bad = |table: Vec<u8>| {
        let memory = machine(&[table]);
        let acpi = discover(&memory, Some(RSDP)).unwrap();
        match acpi.problems[..] {
            [AcpiError::BadEntry { offset, .. }] => offset as isize - MADT_FIXED as isize,
            ref other => panic!("{other:?}"),
        }
    };
    assert_eq!(bad(madt(&[0, 0])), 0); // length 0 would never end
    assert_eq!(bad(madt(&[0, 1])), 0); // shorter than its own header
    assert_eq!(bad(madt(&[&IO_APIC[..], &[4]].concat())), 12);
    assert_eq!(bad(madt(&[1, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0])), 0);
    assert_eq!(bad(madt(&[0, 8, 0, 0])), 0);
    let mut cut = mcfg();
    cut.truncate(MCFG_FIXED + 15);
    assert_eq!(bad(table(b"MCFG", &cut[HEADER..])), 0);
    assert_eq!(bad(table(b"MCFG", &[])), -8);
}

#[test]
fn the_local_apic_address_can_be_overridden() {
    let entry = [5, 12, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
    let memory = machine(&[madt(&entry)]);
    let acpi = discover(&memory, Some(RSDP)).unwrap();
    assert_eq!(acpi.local_apic, Some(0x1_0000_0000));
}

#[test]
fn isa_interrupts_can_be_overridden() {
    // As QEMU has them: the timer is on input 2; 9 is level-triggered.
    let entries = [
        [2, 10, 0, 0, 2, 0, 0, 0, 0, 0],
        [2, 10, 0, 9, 9, 0, 0, 0, 0xd, 0],
        [2, 10, 0, 10, 20, 0, 0, 0, 0xf, 0],
        // Another bus's.
        [2, 10, 1, 11, 30, 0, 0, 0, 0, 0],
    ];
    let memory = machine(&[madt(entries.as_flattened())]);
    let acpi = discover(&memory, Some(RSDP)).unwrap();
    assert_eq!(acpi.problems, []);
    let isa = |number, trigger, polarity| Gsi {
        number,
        trigger,
        polarity,
    };
    let (edge, level) = (Trigger::Edge, Trigger::Level);
    let (high, low) = (Polarity::High, Polarity::Low);
    assert_eq!(acpi.isa(0, edge, high), isa(2, edge, high));
    assert_eq!(acpi.isa(9, edge, low), isa(9, level, high));
    assert_eq!(acpi.isa(10, edge, high), isa(20, level, low));
    assert_eq!(acpi.isa(11, level, high), isa(11, level, high));
}

#[test]
fn reserved_flags_of_an_override_are_refused() {
    for flags in [2, 8] {
        let memory = machine(&[madt(&[2, 10, 0, 9, 9, 0, 0, 0, flags, 0])]);
        let acpi = discover(&memory, Some(RSDP)).unwrap();
        assert!(matches!(acpi.problems[..], [AcpiError::BadEntry { .. }]));
        assert_eq!(acpi.isa_overrides, []);
    }
}
