//! Configuration space that says anything, and machines that chance made.

use doorbell::pci::fake::{FakeFunction, FakePci};
use doorbell::pci::{AddressRange, Apertures, BusRange, Function, Topology};
use doorbell::pci::{assign, count, number_buses};
use doorbell::transport::pci::Structures;
use doorbell::transport::pci_legacy;

use crate::bytes::Bytes;

/// Functions whose registers hold whatever the bytes say: capabilities that loop, BARs of
/// any size, headers of any type.
pub fn configuration(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let mut pci = FakePci::new();
    for device in 0..1 + bytes.u8() % 3 {
        let mut function = FakeFunction::endpoint(0x1af4, 0x1000 + u16::from(bytes.u8() % 0x60));
        for _ in 0..bytes.u8() % 64 {
            // Behind the identity, the command and the header's type.
            let offset = match bytes.u8() {
                at @ 0..4 => 0x10 + 4 * u16::from(at),
                at => 4 * u16::from(at % 64).max(4),
            };
            let value = bytes.u32();
            function = function.register(offset, value);
            if (0x10..0x28).contains(&offset) && bytes.u8() & 1 != 0 {
                function = function.writable(offset, bytes.u32());
            }
        }
        let class = bytes.u8();
        if class & 1 != 0 {
            function = function.multi_function();
        }
        pci = pci.with(device, 0, function);
    }
    let mut storage = vec![Function::default(); count(&pci, &[BusRange::ALL])];
    // SAFETY: there is no device.
    let Ok(topology) = (unsafe { Topology::enumerate(&pci, &[BusRange::ALL], &mut storage) })
    else {
        return;
    };
    for function in topology.functions() {
        let _ = doorbell::transport::pci::device_type(function);
        let _ = pci_legacy::check(function);
        if let Ok(structures) = Structures::read(&pci, function) {
            assert!(structures.notify().count() < 64);
        }
    }
}

/// Bridges in bridges, BARs of all kinds and sizes, windows that firmware left, and little
/// room: [`FakePci::audit`] checks that what answers can be reached, and is alone there.
pub fn assignment(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let io = [AddressRange {
        first: 0x1000,
        last: 0x1fff + 0x1000 * u64::from(bytes.u8() % 15),
    }];
    let mem32 = [AddressRange {
        first: 0xc000_0000,
        last: 0xc00f_ffff + (u64::from(bytes.u8()) << 20),
    }];
    let mem64 = [AddressRange {
        first: 0x80_0000_0000,
        last: 0x80_000f_ffff + (u64::from(bytes.u16()) << 20),
    }];
    let apertures = Apertures {
        io: &io,
        mem32: &mem32,
        mem64: &mem64,
    };
    let mut pci = FakePci::new();
    for device in 0..bytes.u8() % 9 {
        pci = pci.with(device, 0, function(&mut bytes, 0));
    }
    for _ in 0..2 {
        // SAFETY: there is no device.
        unsafe { number_buses(&pci, &[BusRange::ALL]) };
        let mut storage = vec![Function::default(); count(&pci, &[BusRange::ALL])];
        // SAFETY: there is no device.
        let topology = unsafe { Topology::enumerate(&pci, &[BusRange::ALL], &mut storage) };
        let mut topology = topology.unwrap();
        // SAFETY: there is no device.
        unsafe { assign(&pci, &mut topology, &apertures) };
        pci.audit();
        for bar in storage.iter().flat_map(|function| function.bars).flatten() {
            assert!(bar.address.is_some() != bar.reason.is_some(), "{bar:?}");
        }
    }
}

fn function(bytes: &mut Bytes<'_>, depth: u8) -> FakeFunction {
    if depth < 4 && bytes.u8() % 3 == 0 {
        let mut bridge = FakeFunction::bridge().memory_bar(0, 4096);
        if bytes.u8() % 2 == 0 {
            bridge = bridge.buses(bytes.u8() % 4, bytes.u8() % 9, bytes.u8() % 9);
            let base = 0xc000_0000 + (u32::from(bytes.u8() % 16) << 20);
            let size = u32::from(bytes.u8() % 4) << 20;
            bridge = bridge.memory_window(base, base.wrapping_add(size).wrapping_sub(1));
            let io = 0x1000 * u32::from(bytes.u8() % 4);
            bridge = bridge.io_window(io, 0x1000 * u32::from(bytes.u8() % 9) + 0xfff);
            bridge = bridge.command(u16::from(bytes.u8() % 4));
        }
        for device in 0..bytes.u8() % 5 {
            bridge = bridge.child(device, 0, function(bytes, depth + 1));
        }
        return bridge;
    }
    let mut endpoint = FakeFunction::endpoint(0x1af4, 0x1044);
    let mut index = 0;
    while index < 6 && bytes.u8() % 4 != 0 {
        let shift = bytes.u8();
        match bytes.u8() % 4 {
            0 => endpoint = endpoint.io_bar(index, 4 << (shift % 7)),
            1 => endpoint = endpoint.memory_bar(index, 16 << (shift % 24)),
            kind if index < 5 => {
                endpoint = endpoint.memory64_bar(index, 16 << (shift % 40), kind == 2);
                index += 1;
            }
            _ => {}
        }
        index += 1;
    }
    endpoint
}
