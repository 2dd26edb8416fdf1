use super::*;
use crate::platform::acpi::EcamRegion;

fn machine() -> Input<'static> {
    Input {
        memory: [
            0..0x9_fc00,
            0x10_0000..0x400_0000,
            0xfffc_0000..0x1_0000_0000,
        ]
        .into(),
        ram_end: 0x400_0000,
        low_ram_end: 0x400_0000,
        ecam: core::iter::once(0xb000_0000..0xc000_0000).collect(),
        apics: [0xfee0_0000, 0xfec0_0000].into(),
        ports: [0x600..0x604, 0xafe0..0xafe4].into(),
        aml: &[],
        address_limit: 1 << 40,
    }
}

fn pairs(ranges: &[AddressRange]) -> Vec<(u64, u64)> {
    ranges
        .iter()
        .map(|range| (range.first, range.last))
        .collect()
}

#[test]
fn without_an_announcement_the_holes_count() {
    let found = compute(&machine());
    assert_eq!(pairs(&found.io), [(0x1000, 0x9fff), (0xb000, 0xffff)]);
    assert_eq!(
        pairs(&found.mem32),
        [(0x400_0000, 0xafff_ffff), (0xc000_0000, 0xfebf_ffff)]
    );
    assert_eq!(pairs(&found.mem64), [(0x1_0000_0000, (1 << 40) - 1)]);
}

/// A host bridge with bus numbers, IO 0xd00-0xffff and memory
/// 0xc0000000-0xdfffffff; then a device with IO ports 0xae00-0xae17.
fn code() -> Vec<u8> {
    let mut host = Vec::from([0x88, 13, 0, 2, 0, 0, 0, 0, 0, 0, 0xff, 0, 0, 0, 0, 1]);
    host.extend([
        0x88, 13, 0, 1, 0, 0, 0, 0, 0x00, 0x0d, 0xff, 0xff, 0, 0, 0x00, 0xf3,
    ]);
    host.extend([0x87, 23, 0, 0, 0, 0]);
    for value in [0u32, 0xc000_0000, 0xdfff_ffff, 0, 0x2000_0000] {
        host.extend(value.to_le_bytes());
    }
    host.extend([0x79, 0]);
    let device = [0x47, 1, 0x00, 0xae, 0x00, 0xae, 1, 0x18, 0x79, 0];
    let mut code = Vec::new();
    for template in [&host[..], &device] {
        code.extend(b"\x08_CRS\x11");
        let length = template.len() + 4;
        code.extend([0x40 | (length & 0xf) as u8, (length >> 4) as u8]);
        code.extend([0x0a, template.len() as u8]);
        code.extend(template);
    }
    code
}

#[test]
fn what_a_host_bridge_announces_counts_less_what_others_claim() {
    let code = code();
    let aml = [&code[..]];
    let found = compute(&Input {
        aml: &aml,
        ports: Vec::new(),
        ..machine()
    });
    assert_eq!(pairs(&found.io), [(0x1000, 0xadff), (0xae18, 0xffff)]);
    assert_eq!(pairs(&found.mem32), [(0xc000_0000, 0xdfff_ffff)]);
    assert_eq!(pairs(&found.mem64), []);
}

// Byte code of QEMU 7.2 with 64 MiB: the declarations of resources above port
// 0x1000, as they stand in the DSDT.

/// `q35`: ECAM, HPET, the host bridge.
const Q35: &str = "\
    085f435253111f0a1c871700000c0100000000000000b0ffffffbf00000000000000107900085f43\
    525311110a0e860900000000d0fe000400007900085f435253114a0b0ab6880d00020c0000000000\
    ff00000000014701f80cf80c0108880d00010c0300000000f70c0000f80c880d00010c030000000d\
    ffff000000f3871700000c030000000000000a00ffff0b000000000000000200871700000c010000\
    000000000004ffffffaf00000000000000ac871700000c0100000000000000c0ffffbffe00000000\
    0000c03e8a2b00000c0300000000000000000000000001000000ffffffff08000000000000000000\
    000000000000080000007900";

/// `pc`: HPET, CPU hot-plug, the host bridge, GPE0, PCI hot-plug.
pub(super) const PC: &str = "\
    085f43525311110a0e860900000000d0fe000400007900085f435253110d0a0a470100af00af010c\
    7900085f43525311400a0a9c880d00020c0000000000ff00000000014701f80cf80c0108880d0001\
    0c0300000000f70c0000f80c880d00010c030000000dffff000000f3871700000c03000000000000\
    0a00ffff0b000000000000000200871700000c010000000000000004ffffbffe000000000000c0fa\
    8a2b00000c0300000000000000000000000001000000ffffff7f0100000000000000000000000000\
    0080000000007900085f435253110d0a0a4701e0afe0af01047900085f435253110d0a0a470100ae\
    00ae01187900";

/// `microvm` with `pcie=on`: `_CBA`, the host bridge, ECAM.
const MICROVM: &str = "\
    140c5f43424100a40c000000e0085f435253114e050a5a880d00020c0000000000ff000000000187\
    1700000c0100000000000000c0ffffffdf00000000000000208a2b00000c01000000000000000000\
    000000c0000000ffffffffff000000000000000000000000000000400000007900085f4352531133\
    0a308a2b00000c010000000000000000000000e000000000ffffffef000000000000000000000000\
    00000010000000007900";

pub(super) fn bytes(hex: &str) -> Vec<u8> {
    let digit = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digit).collect()
}

#[test]
fn q35_as_it_announces_itself() {
    let code = bytes(Q35);
    let aml = [&code[..]];
    let ports = [0x600..0x604, 0x620..0x630].into();
    let input = Input {
        aml: &aml,
        ecam: Vec::new(),
        ports,
        ..machine()
    };
    let found = compute(&input);
    assert_eq!(pairs(&found.io), [(0x1000, 0xffff)]);
    assert_eq!(
        pairs(&found.mem32),
        [(0x400_0000, 0xafff_ffff), (0xc000_0000, 0xfebf_ffff)],
        "without ECAM, though no MCFG says so"
    );
    assert_eq!(pairs(&found.mem64), [(0x1_0000_0000, 0x8_ffff_ffff)]);
    let narrow = compute(&Input {
        address_limit: 1 << 33,
        ..input
    });
    assert_eq!(pairs(&narrow.mem64), [(0x1_0000_0000, 0x1_ffff_ffff)]);
}

#[test]
fn pc_as_it_announces_itself() {
    let code = bytes(PC);
    let aml = [&code[..]];
    let found = compute(&Input {
        aml: &aml,
        ecam: Vec::new(),
        ..machine()
    });
    assert_eq!(pairs(&found.io), [(0x1000, 0x9fff), (0xb000, 0xffff)]);
    assert_eq!(pairs(&found.mem32), [(0x400_0000, 0xfebf_ffff)]);
    assert_eq!(pairs(&found.mem64), [(0x1_0000_0000, 0x1_7fff_ffff)]);
    // Without the FADT it is only what the name space says.
    let found = compute(&Input {
        aml: &aml,
        ports: Vec::new(),
        ..machine()
    });
    assert_eq!(
        pairs(&found.io),
        [
            (0x1000, 0xadff),
            (0xae18, 0xaeff),
            (0xaf0c, 0xafdf),
            (0xafe4, 0xffff),
        ]
    );
}

#[test]
fn microvm_as_it_announces_itself() {
    let code = bytes(MICROVM);
    let acpi = Acpi {
        aml: [&code[..]].into(),
        ..Acpi::default()
    };
    let (bus_start, bus_end) = (0, 0xff);
    assert_eq!(
        ecam(&acpi),
        [EcamRegion {
            base: 0xe000_0000,
            segment: 0,
            bus_start,
            bus_end
        }]
    );
    let found = compute(&Input {
        aml: &acpi.aml,
        ecam: Vec::new(),
        ..machine()
    });
    assert_eq!(pairs(&found.io), []);
    assert_eq!(pairs(&found.mem32), [(0xc000_0000, 0xdfff_ffff)]);
    assert_eq!(pairs(&found.mem64), [(0xc0_0000_0000, 0xff_ffff_ffff)]);
}

#[test]
fn taking_out_of_the_middle_leaves_both_ends() {
    let mut ranges = Vec::new();
    add(&mut ranges, 10, 20);
    take(&mut ranges, 0..5);
    take(&mut ranges, 14..16);
    take(&mut ranges, 15..15);
    assert_eq!(pairs(&ranges), [(10, 13), (16, 19)]);
    take(&mut ranges, 0..u64::MAX);
    assert_eq!(pairs(&ranges), []);
}
