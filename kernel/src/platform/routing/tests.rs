//! Machines as QEMU makes them, and tables as a compiler writes them.

use std::format;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use doorbell::pci::fake::{FakeFunction, FakePci};
use doorbell::pci::{self, BusRange, PciAddress, Topology};

use super::*;

const INTERRUPT: u16 = 0x3c;
const PIRQS: u16 = 0x60;

/// A device with an interrupt pin, and a line that firmware noted.
fn device(pin: u8, line: u8) -> FakeFunction {
    wired(FakeFunction::endpoint(0x1af4, 0x1005), pin, line)
}

fn wired(function: FakeFunction, pin: u8, line: u8) -> FakeFunction {
    function.register(INTERRUPT, u32::from_le_bytes([line, pin, 0, 0]))
}

fn piix3(pirqs: [u8; 4]) -> FakeFunction {
    FakeFunction::endpoint(0x8086, 0x7000)
        .class(0x06_0100)
        .register(PIRQS, u32::from_le_bytes(pirqs))
        .writable(PIRQS, !0)
}

fn ich9() -> FakeFunction {
    FakeFunction::endpoint(0x8086, 0x2918).class(0x06_0100)
}

/// The routes of all functions, by what `lspci` calls them.
fn find(pci: &FakePci, aml: &[u8]) -> Vec<(String, Result<Route, RouteError>)> {
    let acpi = Acpi {
        aml: vec![aml],
        ..Acpi::default()
    };
    // Root buses 0 and, for those with a second, 0x80.
    let bus = |first, last| BusRange {
        segment: 0,
        first,
        last,
    };
    let roots = [bus(0, 0x7f), bus(0x80, 0xff)];
    let mut functions = vec![Function::default(); pci::count(pci, &roots)];
    // SAFETY: there is no device.
    let routes = unsafe {
        pci::number_buses(pci, &roots);
        functions.resize(pci::count(pci, &roots), Function::default());
        Topology::enumerate(pci, &roots, &mut functions).unwrap();
        routes(&acpi, pci, &functions)
    };
    let names = functions
        .iter()
        .map(|function| function.address.to_string()[5..].to_string());
    names.zip(routes).collect()
}

/// As GSIs, of those that have one.
fn gsis(pci: &FakePci, aml: &[u8]) -> Vec<(String, u32)> {
    find(pci, aml)
        .into_iter()
        .filter_map(|(name, route)| Some((name, route.ok()?.gsi.number)))
        .collect()
}

fn names(of: &[(&str, u32)]) -> Vec<(String, u32)> {
    of.iter()
        .map(|&(name, gsi)| (name.to_string(), gsi))
        .collect()
}

/// What a package length counts, after it.
fn counted(body: &[u8]) -> Vec<u8> {
    let length = body.len() + 3;
    assert!(length < 1 << 12, "{length}");
    let (low, high) = ((length & 0xf) as u8, (length >> 4) as u8);
    // In the longest form that it fits into, so that there is one only.
    [&[0x80 | low, high, 0], body].concat()
}

fn package(count: u8, elements: &[u8]) -> Vec<u8> {
    [&[0x12][..], &counted(&[&[count], elements].concat())].concat()
}

fn entry(device: u8, pin: u8, source: &[u8], index: u8) -> Vec<u8> {
    let address = u32::from(device) << 16 | 0xffff;
    let pin: &[u8] = match pin {
        0 => &[0],
        1 => &[1],
        2 => &[0x0a, 2],
        _ => &[0x0a, 3],
    };
    let fields = [
        &[0x0c][..],
        &address.to_le_bytes(),
        pin,
        source,
        &[0x0a, index],
    ];
    package(4, &fields.concat())
}

/// A table for devices 1 to 3, each with a link of its own for all pins.
fn table(prefix: &str) -> Vec<u8> {
    let devices = [(1, 'A'), (2, 'B'), (3, 'C')];
    let entries = devices.iter().flat_map(|&(device, letter)| {
        let link = format!("{prefix}{letter}");
        (0..4).flat_map(move |pin| entry(device, pin, link.as_bytes(), 0))
    });
    package(12, &entries.collect::<Vec<_>>())
}

/// A link whose object `name` has these interrupts to choose from.
fn link(link: &str, name: &str, interrupts: &[u8]) -> Vec<u8> {
    let mut template = vec![0x89, 2 + 4 * interrupts.len() as u8, 0, 0x09];
    template.push(interrupts.len() as u8);
    for &interrupt in interrupts {
        template.extend(u32::from(interrupt).to_le_bytes());
    }
    template.extend([0x79, 0]);
    let sized = [&[0x0a, template.len() as u8][..], &template].concat();
    let object = [b"\x08", name.as_bytes(), b"\x11", &counted(&sized)].concat();
    let id = b"\x08_HID\x0c\x41\xd0\x0c\x0f";
    let body = [link.as_bytes(), id, &object].concat();
    [&[0x5b, 0x82][..], &counted(&body)].concat()
}

/// As on q35: one table for the 8259s, whose links leave a choice, and one for the
/// IO-APIC.
fn q35() -> Vec<u8> {
    let mut code = b"\x08PRTP".to_vec();
    code.extend(table("LNK"));
    code.extend(b"\x08PRTA");
    code.extend(table("GSI"));
    for letter in ["A", "B", "C"] {
        code.extend(link(&format!("LNK{letter}"), "_PRS", &[5, 10, 11]));
    }
    code.extend(link("GSIA", "_CRS", &[16]));
    code.extend(link("GSIB", "_CRS", &[17]));
    code.extend(link("GSIC", "_PRS", &[18]));
    code
}

#[test]
fn a_pin_is_turned_at_each_bridge() {
    let port = || wired(FakeFunction::root_port(), 1, 0);
    let behind = FakeFunction::bridge().child(5, 0, device(4, 0));
    let pci = FakePci::new()
        .with(1, 0, device(2, 0))
        .with(2, 0, port().child(0, 0, device(1, 0)))
        .with(
            3,
            0,
            FakeFunction::bridge()
                .child(1, 0, behind)
                .child(2, 0, device(1, 0)),
        )
        .with(31, 0, ich9());
    // On the root bus, ICH9 has devices' and pins' sums from input 20 on, in turn.
    // D of device 5 is A of device 1, and that is B of device 3.
    let input = |device: u32, pin: u32| 20 + (device + pin) % 4;
    let expected = [
        ("00:01.0", input(1, 1)),
        ("00:02.0", input(2, 0)),
        ("01:00.0", input(2, 0)),
        ("02:02.0", input(3, 2)),
        ("03:05.0", input(3, 1)),
    ];
    let mut found = gsis(&pci, &[]);
    found.sort();
    let mut expected = names(&expected);
    expected.sort();
    assert_eq!(found, expected);
    assert!(find(&pci, &[]).iter().all(|(_, route)| match route {
        Ok(route) => route.origin == Origin::Ich9 && route.gsi.polarity == Polarity::Low,
        Err(error) => *error == RouteError::NoPin,
    }));
}

#[test]
fn acpi_is_believed_first() {
    let pci = FakePci::new()
        .with(1, 0, device(1, 11))
        .with(2, 0, device(3, 11))
        .with(3, 0, device(4, 11))
        .with(4, 0, device(1, 11))
        .with(31, 0, ich9());
    let found = find(&pci, &q35());
    let prt = |number| {
        Ok(Route {
            gsi: Gsi {
                number,
                trigger: Trigger::Level,
                polarity: Polarity::High,
            },
            origin: Origin::Prt,
        })
    };
    let routes: Vec<_> = found.into_iter().map(|(_, route)| route).collect();
    assert_eq!(routes[..3], [prt(16), prt(17), prt(18)]);
    // The table does not have device 4.
    assert_eq!(routes[3].unwrap().origin, Origin::Ich9);
}

#[test]
fn of_two_tables_that_lead_somewhere_the_one_for_the_io_apic_is_taken() {
    let mut code = table("LNK");
    code.extend(package(1, &entry(1, 0, b"GSIA", 0)));
    code.extend(link("LNKA", "_CRS", &[11]));
    code.extend(link("GSIA", "_CRS", &[16]));
    let route = Prt::find(&[&code]).unwrap().route(1, 0);
    assert_eq!(route.unwrap().number, 16);
}

#[test]
fn a_table_may_have_numbers_longer_names_and_a_count_of_any_width() {
    let entries = [
        entry(1, 0, &[0], 19),
        entry(2, 0, b"\\\x2e_SB_LNKA", 0),
        entry(3, 0, b"\\\x2f\x03_SB_PCI0LNKA", 0),
        entry(4, 0, b"^LNKA", 0),
    ]
    .concat();
    let list = [&[0x0b, 4, 0][..], &entries].concat();
    let code = [&[0x13][..], &counted(&list), &link("LNKA", "_CRS", &[33])].concat();
    let pci = FakePci::new()
        .with(1, 0, device(1, 0))
        .with(2, 0, device(1, 0))
        .with(3, 0, device(1, 0))
        .with(4, 0, device(1, 0));
    let expected = [
        ("00:01.0", 19),
        ("00:02.0", 33),
        ("00:03.0", 33),
        ("00:04.0", 33),
    ];
    assert_eq!(gsis(&pci, &code), names(&expected));
}

#[test]
fn what_is_no_table_is_left_out() {
    let good = entry(1, 0, &[0], 19);
    let bad = [
        package(0, &[]),
        entry(32, 0, &[0], 19),
        entry(1, 0, &[1], 19),
        entry(1, 0, b"lnka", 0),
        entry(1, 0, b"\x2f\x00", 0),
        package(4, &[0x0c, 0, 0, 1, 0, 0, 0, 0x0a, 19]),
        package(5, &[0x0c, 0xff, 0xff, 1, 0, 0, 0, 0x0a, 19, 0]),
        package(4, &[0x0c, 0xff, 0xff, 1, 0, 0x0a, 4, 0, 0x0a, 19]),
        [&good[..], &[0]].concat(),
    ];
    for bad in bad {
        let code = package(2, &[&good[..], &bad].concat());
        assert_eq!(Prt::find(&[&code]), None, "{code:x?}");
    }
    assert!(Prt::find(&[&package(1, &good)]).is_some());
    // A link that is not there, or that leaves a choice.
    let code = table("LNK");
    assert_eq!(Prt::find(&[&code]), None);
}

#[test]
fn a_table_that_is_cut_off_is_none() {
    let code = q35();
    let whole = Prt::find(&[&code]).unwrap();
    for length in 0..code.len() {
        // It must not panic, and never find what is not there.
        if let Some(found) = Prt::find(&[&code[..length]]) {
            for device in 0..32 {
                let route = found.route(device, 0);
                assert!(route.is_none() || route == whole.route(device, 0));
            }
        }
    }
}

#[test]
fn piix_routes_what_firmware_routed() {
    let pci = FakePci::new()
        .with(1, 0, piix3([10, 10, 11, 5]))
        .with(2, 0, device(1, 7))
        .with(3, 0, device(2, 7))
        .with(4, 0, device(2, 7));
    let expected = [("00:02.0", 10), ("00:03.0", 5), ("00:04.0", 10)];
    assert_eq!(gsis(&pci, &[]), names(&expected));
    let (_, route) = find(&pci, &[]).remove(1);
    assert_eq!(route.unwrap().origin, Origin::Piix { chosen: false });
    assert!(
        pci.take_writes()
            .iter()
            .all(|&(_, offset, _)| offset != PIRQS)
    );
}

#[test]
fn piix_gets_routes_where_firmware_left_none() {
    // Not routed, and routed to interrupts that cannot be.
    let pci = FakePci::new()
        .with(1, 0, piix3([0x8b, 9, 0x00, 13]))
        .with(2, 0, device(1, 0))
        .with(3, 0, device(1, 0));
    let found = find(&pci, &[]);
    let route = |index: usize| found[index].1.unwrap();
    assert_eq!((route(1).gsi.number, route(2).gsi.number), (9, 11));
    assert_eq!(route(1).origin, Origin::Piix { chosen: false });
    assert_eq!(route(2).origin, Origin::Piix { chosen: true });
    let bridge = PciAddress::new(0, 0, 1, 0);
    assert_eq!(pci.read32(bridge, PIRQS).to_le_bytes(), [10, 9, 11, 11]);
}

#[test]
fn interrupt_line_is_the_last_to_be_asked() {
    let pci = FakePci::new()
        .with(1, 0, device(1, 11))
        .with(2, 0, device(1, 0))
        .with(3, 0, device(1, 0xff))
        .with(4, 0, device(0, 11))
        .with(5, 0, device(5, 11));
    let found: Vec<_> = find(&pci, &[])
        .into_iter()
        .map(|(_, route)| route)
        .collect();
    assert_eq!(found[0].unwrap().gsi.number, 11);
    assert_eq!(found[0].unwrap().origin, Origin::InterruptLine);
    let unknown = |device, line| {
        Err(RouteError::Unknown {
            device,
            pin: 0,
            line,
        })
    };
    assert_eq!(found[1], unknown(2, 0));
    assert_eq!(found[2], unknown(3, 0xff));
    assert_eq!(found[3], Err(RouteError::NoPin));
    assert_eq!(found[4], Err(RouteError::BadPin(5)));
    assert_eq!(
        found[2].unwrap_err().to_string(),
        "neither ACPI nor the chipset says where INTA of device 00:03 leads, and the \
         function's Interrupt Line is 0xff"
    );
}

#[test]
fn another_root_bus_is_not_the_chipsets() {
    let pci = FakePci::new()
        .with(1, 0, device(1, 11))
        .with(31, 0, ich9())
        .root(0x80)
        .with(1, 0, device(1, 10))
        .with(2, 0, device(1, 0));
    let found = find(&pci, &q35());
    assert_eq!(found[0].1.unwrap().origin, Origin::Prt);
    let other = Err(RouteError::OtherRoot { bus: 0x80 });
    assert_eq!((found[2].1, found[3].1), (other, other));
}
