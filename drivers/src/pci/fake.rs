//! Configuration space for tests: a tree of functions with registers that behave
//! as PCI says, reached only through the bus numbers that their bridges hold.
//!
//! It panics, so that the test fails, where a BAR or window is written while the
//! function decodes it.

use core::cell::RefCell;
use std::string::{String, ToString};
use std::vec::Vec;
use std::{format, vec};

use pci_types::{ConfigRegionAccess, PciAddress};

use super::config::ConfigSpace;
use super::range::AddressRange;
use super::registers as reg;
use super::unassigned::Space;
use crate::transport::Notifier;

const IO: u32 = 1;
const MEMORY: u32 = 2;
/// Status bits that are set from the start, and that nobody should clear: a
/// received master abort.
const STATUS: u32 = 0x2000_0000;

/// The functions of a bus, by their device and function number.
type Functions = Vec<(u8, FakeFunction)>;

/// A function, and for a bridge what is behind it.
#[derive(Clone)]
pub struct FakeFunction {
    registers: Vec<u32>,
    /// Bits that can be written.
    writable: Vec<u32>,
    /// Bits that writing ones clears.
    clear_by_one: Vec<u32>,
    children: Functions,
    /// Where the next capability goes, and the link that leads there.
    next_capability: (u16, u16),
}

impl FakeFunction {
    fn new(vendor: u16, device: u16) -> Self {
        let mut function = Self {
            registers: vec![0; 1024],
            writable: vec![0; 1024],
            clear_by_one: vec![0; 1024],
            children: Vec::new(),
            next_capability: (0x40, reg::CAPABILITIES),
        };
        function.set(reg::ID, !0, u32::from(vendor) | u32::from(device) << 16);
        function.set(reg::COMMAND, !0, STATUS);
        function.writable[1] = 0x0407;
        function.clear_by_one[1] = 0xf900_0000;
        function.set_writable(reg::INTERRUPT, 0xff);
        function
    }

    /// An endpoint without BARs.
    pub fn endpoint(vendor: u16, device: u16) -> Self {
        Self::new(vendor, device).class(0xff_0000)
    }

    /// A PCI-to-PCI bridge as it comes out of reset: a 16-bit IO window, a
    /// 64-bit prefetchable one, everything zero.
    pub fn bridge() -> Self {
        let mut bridge = Self::new(0x1b36, 1).class(0x06_0400);
        bridge.set(reg::HEADER_TYPE, 0x7f_0000, 0x01_0000);
        bridge.set_writable(reg::BUS_NUMBERS, !0);
        bridge.set_writable(reg::IO_WINDOW, 0xf0f0);
        bridge.set(reg::IO_WINDOW, !0, STATUS);
        bridge.clear_by_one[usize::from(reg::IO_WINDOW / 4)] = 0xf900_0000;
        bridge.set_writable(reg::MEMORY_WINDOW, 0xfff0_fff0);
        bridge.set_writable(reg::PREFETCHABLE_WINDOW, 0xfff0_fff0);
        bridge.set(reg::PREFETCHABLE_WINDOW, !0, 0x0001_0001);
        bridge.set_writable(reg::PREFETCHABLE_BASE_UPPER, !0);
        bridge.set_writable(reg::PREFETCHABLE_LIMIT_UPPER, !0);
        bridge
    }

    /// A PCI Express root port with a BAR of its own, as QEMU's `pcie-root-port`.
    pub fn root_port() -> Self {
        Self::bridge().express(4).memory_bar(0, 4096)
    }

    /// A port of this type whose slot has these capabilities. Its slot registers
    /// begin at 0x54.
    pub fn slot(port_type: u8, capabilities: u32) -> Self {
        let mut body = [0; 0x3a];
        body[..2].copy_from_slice(&[2 | port_type << 4, 1]);
        body[0x12..0x16].copy_from_slice(&capabilities.to_le_bytes());
        let mut slot = Self::bridge().capability(0x10, &body);
        slot.set_writable(0x58, 0x17ff);
        slot.clear_by_one[0x58 / 4] = 0x011f_0000;
        slot
    }

    /// QEMU's `virtio-rng-pci-transitional`.
    pub fn transitional_rng() -> Self {
        Self::endpoint(0x1af4, 0x1005)
            .subsystem(0x1af4, 4)
            .io_bar(0, 32)
            .memory_bar(1, 4096)
            .memory64_bar(4, 16384, true)
    }

    fn set(&mut self, offset: u16, mask: u32, value: u32) {
        let register = &mut self.registers[usize::from(offset / 4)];
        *register = *register & !mask | value & mask;
    }

    fn set_writable(&mut self, offset: u16, mask: u32) {
        self.writable[usize::from(offset / 4)] = mask;
    }

    fn get(&self, offset: u16) -> u32 {
        self.registers[usize::from(offset / 4)]
    }

    /// Sets what a register holds, whether or not it can be written.
    #[must_use]
    pub fn register(mut self, offset: u16, value: u32) -> Self {
        self.set(offset, !0, value);
        self
    }

    /// Sets which bits of a register can be written.
    #[must_use]
    pub fn writable(mut self, offset: u16, mask: u32) -> Self {
        self.set_writable(offset, mask);
        self
    }

    /// Sets the class code, 24 bits.
    #[must_use]
    pub fn class(mut self, class: u32) -> Self {
        self.set(reg::CLASS, 0xffff_ff00, class << 8);
        self
    }

    /// Sets the subsystem IDs.
    #[must_use]
    pub fn subsystem(self, vendor: u16, device: u16) -> Self {
        self.register(reg::SUBSYSTEM, u32::from(vendor) | u32::from(device) << 16)
    }

    /// Sets the command register.
    #[must_use]
    pub fn command(mut self, command: u16) -> Self {
        self.set(reg::COMMAND, 0xffff, u32::from(command));
        self
    }

    /// Says that the device has more functions than the first.
    #[must_use]
    pub fn multi_function(mut self) -> Self {
        self.set(reg::HEADER_TYPE, 0x80_0000, 0x80_0000);
        self
    }

    /// An IO BAR.
    #[must_use]
    pub fn io_bar(self, index: u8, size: u32) -> Self {
        self.bar(index, 1, !(size - 1))
    }

    /// A 32-bit memory BAR.
    #[must_use]
    pub fn memory_bar(self, index: u8, size: u32) -> Self {
        self.bar(index, 0, !(size - 1))
    }

    /// A 64-bit memory BAR.
    #[must_use]
    pub fn memory64_bar(self, index: u8, size: u64, prefetchable: bool) -> Self {
        let mask = !(size - 1);
        let bits = 4 | if prefetchable { 8 } else { 0 };
        self.bar(index, bits, mask as u32)
            .bar(index + 1, 0, (mask >> 32) as u32)
    }

    /// A BAR register by its fixed and its writable bits.
    #[must_use]
    pub fn bar(self, index: u8, fixed: u32, mask: u32) -> Self {
        let offset = reg::BAR0 + 4 * u16::from(index);
        self.register(offset, fixed).writable(offset, mask)
    }

    /// What firmware wrote into a BAR; `address` may have 64 bits.
    #[must_use]
    pub fn at(mut self, index: u8, address: u64) -> Self {
        let offset = reg::BAR0 + 4 * u16::from(index);
        let low = self.get(offset) & 0xf | address as u32;
        let wide = low & 7 == 4;
        self.set(offset, !0, low);
        if wide {
            self.set(offset + 4, !0, (address >> 32) as u32);
        }
        self
    }

    /// A capability with what follows its two-byte header.
    #[must_use]
    pub fn capability(mut self, id: u8, body: &[u8]) -> Self {
        let (offset, link) = self.next_capability;
        let shift = u32::from(link % 4) * 8;
        self.set(link, 0xff << shift, u32::from(offset) << shift);
        self.set(reg::COMMAND, 0x10_0000, 0x10_0000);
        let mut bytes = vec![id, 0];
        bytes.extend_from_slice(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        for (index, dword) in bytes.chunks(4).enumerate() {
            let value = u32::from_le_bytes([dword[0], dword[1], dword[2], dword[3]]);
            self.set(offset + 4 * index as u16, !0, value);
        }
        self.next_capability = (offset + bytes.len() as u16, offset + 1);
        self
    }

    /// A PCI Express capability of a port of this type.
    #[must_use]
    pub fn express(self, port_type: u8) -> Self {
        self.capability(0x10, &[2 | port_type << 4, 0])
    }

    /// Bus numbers from firmware.
    #[must_use]
    pub fn buses(mut self, primary: u8, secondary: u8, subordinate: u8) -> Self {
        let numbers = u32::from_le_bytes([primary, secondary, subordinate, 0]);
        self.set(reg::BUS_NUMBERS, 0xff_ffff, numbers);
        self
    }

    /// An IO window from firmware.
    #[must_use]
    pub fn io_window(mut self, first: u32, last: u32) -> Self {
        self.set(reg::IO_WINDOW, 0xf0f0, first >> 8 & 0xf0 | last & 0xf000);
        self
    }

    /// A memory window from firmware.
    #[must_use]
    pub fn memory_window(mut self, first: u32, last: u32) -> Self {
        let window = first >> 16 & 0xfff0 | last & 0xfff0_0000;
        self.set(reg::MEMORY_WINDOW, 0xfff0_fff0, window);
        self
    }

    /// A prefetchable window from firmware.
    #[must_use]
    pub fn prefetchable_window(mut self, first: u64, last: u64) -> Self {
        let window = (first >> 16 & 0xfff0) as u32 | last as u32 & 0xfff0_0000;
        self.set(reg::PREFETCHABLE_WINDOW, 0xfff0_fff0, window);
        self.set(reg::PREFETCHABLE_BASE_UPPER, !0, (first >> 32) as u32);
        self.set(reg::PREFETCHABLE_LIMIT_UPPER, !0, (last >> 32) as u32);
        self
    }

    /// Puts a function on the bus behind this bridge.
    #[must_use]
    pub fn child(mut self, device: u8, function: u8, child: FakeFunction) -> Self {
        self.children.push((device << 3 | function, child));
        self
    }

    /// Writes the bits of a register that are in `mask`.
    fn write(&mut self, offset: u16, mask: u32, value: u32) {
        let bridge = self.get(reg::HEADER_TYPE) >> 16 & 0x7f == 1;
        let decodes = self.get(reg::COMMAND);
        let index = usize::from(offset / 4);
        let busy = match offset {
            0x10..=0x14 => self.bar_space(offset),
            0x18..=0x24 if !bridge => self.bar_space(offset),
            reg::IO_WINDOW | reg::IO_WINDOW_UPPER if bridge => IO,
            reg::MEMORY_WINDOW..=reg::PREFETCHABLE_LIMIT_UPPER if bridge => MEMORY,
            _ => 0,
        };
        assert!(
            decodes & busy == 0,
            "register {offset:#x} written while the function decodes it"
        );
        let (old, writable) = (self.registers[index], self.writable[index] & mask);
        let kept = old & !writable & !(value & mask & self.clear_by_one[index]);
        self.registers[index] = kept | value & writable;
    }

    /// The decoding bit of the BAR register at `offset`.
    fn bar_space(&self, offset: u16) -> u32 {
        let upper = offset > reg::BAR0 && self.get(offset - 4) & 7 == 4;
        match self.writable[usize::from(offset / 4)] {
            0 => 0,
            _ if !upper && self.get(offset) & 1 != 0 => IO,
            _ => MEMORY,
        }
    }

    fn window(&self, space: Space) -> Vec<AddressRange> {
        let register = |offset| u64::from(self.get(offset));
        let decodes = self.get(reg::COMMAND);
        let io = register(reg::IO_WINDOW);
        let memory = |offset: u16, upper: [u64; 2]| {
            let window = register(offset);
            AddressRange::new(
                (window & 0xfff0) << 16 | upper[0] << 32,
                window & 0xfff0_0000 | 0xf_ffff | upper[1] << 32,
            )
        };
        let uppers = [reg::PREFETCHABLE_BASE_UPPER, reg::PREFETCHABLE_LIMIT_UPPER].map(register);
        let windows = match space {
            Space::Io if decodes & IO == 0 => vec![],
            Space::Memory if decodes & MEMORY == 0 => vec![],
            Space::Io => vec![AddressRange::new((io & 0xf0) << 8, io & 0xf000 | 0xfff)],
            Space::Memory => vec![
                memory(reg::MEMORY_WINDOW, [0, 0]),
                memory(reg::PREFETCHABLE_WINDOW, uppers),
            ],
        };
        windows.into_iter().flatten().collect()
    }

    /// What its BARs answer to.
    fn decoded(&self) -> Vec<(u8, Space, AddressRange)> {
        let bridge = self.get(reg::HEADER_TYPE) >> 16 & 0x7f == 1;
        let command = self.get(reg::COMMAND);
        let mut decoded = Vec::new();
        let mut index = 0;
        while index < if bridge { 2 } else { 6 } {
            let offset = reg::BAR0 + 4 * index;
            let (value, mask) = (self.get(offset), self.writable[usize::from(offset / 4)]);
            let number = index as u8;
            index += 1;
            if mask == 0 && value & 0xf == 0 {
                continue;
            }
            let (bit, space) = if value & 1 != 0 {
                (IO, Space::Io)
            } else {
                (MEMORY, Space::Memory)
            };
            let (mut address, mut ones) = (u64::from(value & mask), u64::from(mask) | !0 << 32);
            if value & 7 == 4 {
                address |= u64::from(self.get(offset + 4)) << 32;
                ones =
                    u64::from(self.writable[usize::from(offset / 4) + 1]) << 32 | u64::from(mask);
                index += 1;
            }
            // As in QEMU, a BAR at 0 answers to nothing.
            if command & bit != 0 && address != 0 {
                decoded.push((
                    number,
                    space,
                    AddressRange::sized(address, ones.wrapping_neg()).unwrap(),
                ));
            }
        }
        decoded
    }
}

/// A BAR that answers, as [`FakePci::audit`] found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The device and function numbers on the way, from the root down:
    /// `00.0/01.0`.
    pub path: String,
    /// Number of the BAR.
    pub bar: u8,
    /// Which space it is in.
    pub space: Space,
    /// The addresses.
    pub range: AddressRange,
}

/// Root buses with their functions.
pub struct FakePci {
    roots: RefCell<Vec<(u8, Functions)>>,
    writes: RefCell<Vec<(PciAddress, u16, u32)>>,
}

impl Default for FakePci {
    fn default() -> Self {
        Self::new()
    }
}

impl FakePci {
    /// A root bus 0 with nothing on it.
    pub fn new() -> Self {
        Self {
            roots: RefCell::new(vec![(0, Vec::new())]),
            writes: RefCell::default(),
        }
    }

    /// Puts a function on the last root bus.
    #[must_use]
    pub fn with(self, device: u8, function: u8, what: FakeFunction) -> Self {
        let place = (device << 3 | function, what);
        self.roots.borrow_mut().last_mut().unwrap().1.push(place);
        self
    }

    /// Adds another root bus.
    #[must_use]
    pub fn root(self, bus: u8) -> Self {
        self.roots.borrow_mut().push((bus, Vec::new()));
        self
    }

    /// Changes bits of a register as the function itself would, without a write.
    pub fn change(&self, address: PciAddress, offset: u16, mask: u32, value: u32) {
        self.with_function(address, |function| function.set(offset, mask, value));
    }

    /// Puts a function on a bus that bridges lead to.
    pub fn plug(&self, address: PciAddress, function: FakeFunction) {
        let put = |functions: &mut Functions| functions.push((place(address), function));
        self.with_bus(address.bus(), put).unwrap();
    }

    /// Takes a function off its bus, with all that is behind it.
    pub fn unplug(&self, address: PciAddress) {
        let place = place(address);
        self.with_bus(address.bus(), |functions| {
            functions.retain(|(there, _)| *there != place)
        });
    }

    /// The writes since the last call.
    pub fn take_writes(&self) -> Vec<(PciAddress, u16, u32)> {
        self.writes.take()
    }

    /// Everything that answers to an address, in the order of the tree. Panics
    /// if two answer to the same, if something answers that no bridge would
    /// forward to it, or if a status bit was cleared.
    pub fn audit(&self) -> Vec<Decoded> {
        let mut all = Vec::new();
        for (_, functions) in self.roots.borrow().iter() {
            audit(functions, "", None, &mut all);
        }
        for (index, one) in all.iter().enumerate() {
            for other in &all[..index] {
                let clash = one.space == other.space && one.range.overlaps(other.range);
                assert!(!clash, "{one:?} overlaps {other:?}");
            }
        }
        all
    }
}

fn audit(
    functions: &[(u8, FakeFunction)],
    above: &str,
    bridge: Option<&FakeFunction>,
    all: &mut Vec<Decoded>,
) {
    let mut siblings: Vec<(Space, AddressRange)> = Vec::new();
    for (place, function) in functions {
        let path = format!("{above}{:02x}.{}", place >> 3, place & 7);
        assert_eq!(
            function.get(reg::COMMAND) & STATUS,
            STATUS,
            "{path}: status lost"
        );
        let forwarded = |space, range| {
            bridge.is_none_or(|bridge| {
                bridge
                    .window(space)
                    .iter()
                    .any(|window| window.contains(range))
            })
        };
        for (bar, space, range) in function.decoded() {
            assert!(
                forwarded(space, range),
                "{path}: BAR {bar} at {range} cannot be reached"
            );
            all.push(Decoded {
                path: path.to_string(),
                bar,
                space,
                range,
            });
        }
        if function.get(reg::HEADER_TYPE) >> 16 & 0x7f != 1 {
            continue;
        }
        assert_eq!(
            function.get(reg::IO_WINDOW) & STATUS,
            STATUS,
            "{path}: secondary status lost"
        );
        for space in [Space::Io, Space::Memory] {
            for range in function.window(space) {
                assert!(
                    forwarded(space, range),
                    "{path}: window {range} cannot be reached"
                );
                let clash = siblings
                    .iter()
                    .any(|(s, r)| *s == space && r.overlaps(range));
                assert!(!clash, "{path}: window {range} overlaps another");
                siblings.push((space, range));
            }
        }
        // A closed bridge takes nothing to what is behind it.
        if function.get(reg::BUS_NUMBERS) & 0xff00 != 0 {
            audit(&function.children, &format!("{path}/"), Some(function), all);
        }
    }
}

/// The functions on bus `bus`, looked for where configuration cycles would go.
fn route(on: u8, functions: &mut Functions, bus: u8) -> Option<&mut Functions> {
    if on == bus {
        return Some(functions);
    }
    functions.iter_mut().find_map(|(_, function)| {
        let [_, secondary, subordinate, _] = function.get(reg::BUS_NUMBERS).to_le_bytes();
        let bridge = function.get(reg::HEADER_TYPE) >> 16 & 0x7f == 1;
        let leads = bridge && (secondary..=subordinate).contains(&bus);
        leads.then(|| route(secondary, &mut function.children, bus))?
    })
}

/// Device and function number.
fn place(address: PciAddress) -> u8 {
    address.device() << 3 | address.function()
}

impl FakePci {
    fn with_bus<T>(&self, bus: u8, f: impl FnOnce(&mut Functions) -> T) -> Option<T> {
        let mut roots = self.roots.borrow_mut();
        let (root, functions) = roots.iter_mut().rev().find(|(root, _)| *root <= bus)?;
        route(*root, functions, bus).map(f)
    }

    fn with_function<T>(
        &self,
        address: PciAddress,
        f: impl FnOnce(&mut FakeFunction) -> T,
    ) -> Option<T> {
        if address.segment() != 0 {
            return None;
        }
        self.with_bus(address.bus(), |functions| {
            let place = place(address);
            let found = functions.iter_mut().find(|(there, _)| *there == place)?;
            Some(f(&mut found.1))
        })?
    }
}

impl ConfigRegionAccess for FakePci {
    unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
        assert!(
            offset.is_multiple_of(4) && offset < 4096,
            "dword {offset:#x} read"
        );
        self.with_function(address, |function| function.get(offset))
            .unwrap_or(!0)
    }

    unsafe fn write(&self, address: PciAddress, offset: u16, value: u32) {
        assert!(
            offset.is_multiple_of(4) && offset < 4096,
            "dword {offset:#x} written"
        );
        self.writes.borrow_mut().push((address, offset, value));
        self.with_function(address, |function| function.write(offset, !0, value));
    }
}

// SAFETY: there is no hardware.
unsafe impl ConfigSpace for FakePci {
    fn size(&self) -> u16 {
        4096
    }

    fn method(&self) -> &'static str {
        "fake"
    }

    unsafe fn notifier(&self, _: PciAddress, _: u16, _: u32) -> Option<Notifier> {
        None
    }

    unsafe fn write16(&self, address: PciAddress, offset: u16, value: u16) {
        assert!(
            offset.is_multiple_of(2) && offset < 4096,
            "{offset:#x} written, 16 bits wide"
        );
        self.writes
            .borrow_mut()
            .push((address, offset, value.into()));
        let shift = offset % 4 * 8;
        self.with_function(address, |function| {
            function.write(offset & !3, 0xffff << shift, u32::from(value) << shift)
        });
    }
}
