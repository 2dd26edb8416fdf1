//! Base address registers (PCI 3.0, 6.2.5.1): what they are, and how large.

use core::fmt;

use pci_types::PciAddress;

use super::config::ConfigSpace;
use super::range::AddressRange;
use super::registers;
use super::unassigned::{Space, Unassigned};

/// What a BAR says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// IO ports.
    Io,
    /// Memory below 4 GiB.
    Memory32,
    /// Memory anywhere; it takes two registers.
    Memory64,
    /// A memory type that PCI reserves: it gets no address.
    Reserved,
}

impl BarKind {
    /// The space that it decodes.
    pub fn space(self) -> Space {
        match self {
            Self::Io => Space::Io,
            Self::Memory32 | Self::Memory64 | Self::Reserved => Space::Memory,
        }
    }
}

impl fmt::Display for BarKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Io => "io",
            Self::Memory32 => "mem32",
            Self::Memory64 => "mem64",
            Self::Reserved => "reserved",
        })
    }
}

/// A BAR that a function has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Number of its (first) register, 0 to 5.
    pub index: u8,
    /// IO, or memory of which width.
    pub kind: BarKind,
    /// Whether reads have no side effects.
    pub prefetchable: bool,
    /// Bytes or ports, a power of two; 0 where it could not be told, as `reason`
    /// says.
    pub size: u64,
    /// Where it was assigned to, a multiple of its size. The function answers
    /// there once its command register says so.
    pub address: Option<u64>,
    /// Why it has no address: there is one of the two.
    pub reason: Option<Unassigned>,
}

impl Bar {
    /// Its addresses, if it has any.
    pub fn range(&self) -> Option<AddressRange> {
        AddressRange::sized(self.address?, self.size)
    }

    /// Gives it an address.
    pub(crate) fn place(&mut self, address: u64) {
        (self.address, self.reason) = (Some(address), None);
    }

    /// Takes its address away.
    pub(crate) fn displace(&mut self, reason: Unassigned) {
        (self.address, self.reason) = (None, Some(reason));
    }

    /// Whether it waits for an address, and could take one.
    pub(crate) fn is_pending(&self) -> bool {
        matches!(self.reason, Some(Unassigned::Unset { .. })) && self.size != 0
    }
}

/// Reads and sizes the first `count` BARs of a function.
///
/// # Safety
///
/// The function is the caller's, and decodes neither IO nor memory now: while a
/// BAR is sized it holds addresses that are not its own.
pub(crate) unsafe fn read(
    config: &(impl ConfigSpace + ?Sized),
    address: PciAddress,
    count: u8,
) -> [Option<Bar>; 6] {
    let mut bars = [None; 6];
    let mut index = 0;
    while index < count {
        // SAFETY: the caller's promise.
        let bar = unsafe { read_one(config, address, index, index + 1 < count) };
        bars[usize::from(index)] = bar;
        let wide = bar.is_some_and(|bar| bar.kind == BarKind::Memory64);
        index += 1 + u8::from(wide);
    }
    bars
}

/// Reads and sizes one BAR; `None` if the function has none there.
///
/// # Safety
///
/// As for [`read`].
unsafe fn read_one(
    config: &(impl ConfigSpace + ?Sized),
    address: PciAddress,
    index: u8,
    has_next: bool,
) -> Option<Bar> {
    let offset = registers::BAR0 + 4 * u16::from(index);
    // SAFETY: the caller's promise.
    let (raw, mask) = unsafe { size_register(config, address, offset, !0) };
    if mask == 0 || mask == !0 {
        return None;
    }
    let mut bar = Bar {
        index,
        kind: BarKind::Io,
        prefetchable: false,
        size: 0,
        address: None,
        reason: None,
    };
    if mask & 1 != 0 {
        // A device may decode the lower 16 bits only.
        let upper = if mask >> 16 == 0 { 0xffff_0000 } else { 0 };
        bar.settle(u64::from(raw & !3), sign_extend(mask & !3 | upper), 0xffff);
        return Some(bar);
    }
    bar.prefetchable = mask & 8 != 0;
    match mask >> 1 & 3 {
        0 => {
            bar.kind = BarKind::Memory32;
            bar.settle(
                u64::from(raw & !0xf),
                sign_extend(mask & !0xf),
                u64::from(u32::MAX),
            );
        }
        2 if has_next => {
            bar.kind = BarKind::Memory64;
            // SAFETY: the caller's promise; the next register is the upper half.
            let (raw_upper, mask_upper) = unsafe { size_register(config, address, offset + 4, !0) };
            let join = |upper: u32, lower: u32| u64::from(upper) << 32 | u64::from(lower & !0xf);
            bar.settle(join(raw_upper, raw), join(mask_upper, mask), u64::MAX);
        }
        2 => {
            bar.kind = BarKind::Memory64;
            bar.reason = Some(Unassigned::NoUpperHalf { index });
        }
        bits => {
            bar.kind = BarKind::Reserved;
            bar.reason = Some(Unassigned::ReservedType { bits: bits as u8 });
        }
    }
    Some(bar)
}

impl Bar {
    /// Works out the size from the bits that can be written, and whether the
    /// address `raw` can be the BAR's own; `limit` is the highest there is.
    fn settle(&mut self, raw: u64, mask: u64, limit: u64) {
        let size = mask & mask.wrapping_neg();
        if size == 0 || mask != size.wrapping_neg() {
            self.reason = Some(Unassigned::BadSize { mask });
            return;
        }
        self.size = size;
        let range = AddressRange::sized(raw, size).filter(|range| range.last <= limit);
        // All ones are what sizing leaves in a register.
        let own = raw != 0 && raw.is_multiple_of(size) && raw != mask & limit && range.is_some();
        if own {
            self.place(raw);
        } else {
            self.displace(Unassigned::Unset { raw });
        }
    }
}

/// A 32-bit mask for the lower half of addresses whose upper half is fixed.
fn sign_extend(mask: u32) -> u64 {
    u64::from(mask) | 0xffff_ffff_0000_0000
}

/// What a register holds, and which of its bits can be written; it is left as it
/// was.
///
/// # Safety
///
/// As for [`read`].
unsafe fn size_register(
    config: &(impl ConfigSpace + ?Sized),
    address: PciAddress,
    offset: u16,
    ones: u32,
) -> (u32, u32) {
    let raw = config.read32(address, offset);
    // SAFETY: the caller's promise: no access can reach the function's BARs.
    unsafe { config.write(address, offset, ones) };
    let mask = config.read32(address, offset);
    // SAFETY: as above; it is what the register held before.
    unsafe { config.write(address, offset, raw) };
    (raw, mask)
}

/// The size in bytes of the expansion ROM whose register is at `offset`; `None`
/// if there is none.
///
/// # Safety
///
/// As for [`read`].
pub(crate) unsafe fn read_rom(
    config: &(impl ConfigSpace + ?Sized),
    address: PciAddress,
    offset: u16,
) -> Option<u64> {
    // The lowest bit would switch the ROM on.
    // SAFETY: the caller's promise.
    let (_, mask) = unsafe { size_register(config, address, offset, !1) };
    let mask = mask & !0x7ff;
    let size = mask & mask.wrapping_neg();
    (size != 0 && mask == size.wrapping_neg()).then_some(u64::from(size))
}

#[cfg(test)]
mod tests {
    use std::string::ToString;
    use std::vec::Vec;

    use super::*;
    use crate::pci::fake::{FakeFunction, FakePci};

    fn bars(function: FakeFunction) -> [Option<Bar>; 6] {
        let pci = FakePci::new().with(0, 0, function);
        let registers = || -> Vec<u32> {
            (4..10)
                .map(|dword| pci.read32(PciAddress::new(0, 0, 0, 0), dword * 4))
                .collect()
        };
        let before = registers();
        // SAFETY: there is no device.
        let bars = unsafe { read(&pci, PciAddress::new(0, 0, 0, 0), 6) };
        assert_eq!(
            registers(),
            before,
            "sizing leaves the registers as they were"
        );
        bars
    }

    #[test]
    fn kinds_sizes_and_addresses() {
        let all = bars(
            FakeFunction::transitional_rng()
                .at(0, 0xc040)
                .at(1, 0xfebd_1000)
                .at(4, 0x8_0000_4000),
        );
        let said: Vec<_> = all
            .iter()
            .flatten()
            .map(|bar| (bar.index, bar.kind, bar.prefetchable, bar.size, bar.address))
            .collect();
        assert_eq!(
            said,
            [
                (0, BarKind::Io, false, 32, Some(0xc040)),
                (1, BarKind::Memory32, false, 4096, Some(0xfebd_1000)),
                (4, BarKind::Memory64, true, 16384, Some(0x8_0000_4000)),
            ]
        );
        assert!(all[5].is_none(), "the upper half is no BAR");
    }

    #[test]
    fn large_and_narrow_ones() {
        let all = bars(
            FakeFunction::endpoint(1, 1)
                .memory64_bar(0, 8 << 30, true)
                .bar(2, 1, 0xff00),
        );
        assert_eq!(all[0].unwrap().size, 8 << 30);
        assert_eq!(all[2].unwrap().size, 256, "a decoder of 16 bits");
    }

    #[test]
    fn what_cannot_be_an_address_is_none() {
        let unset = |function| bars(function)[0].unwrap().reason.unwrap().to_string();
        let memory = || FakeFunction::endpoint(1, 1).memory_bar(0, 4096);
        assert_eq!(unset(memory()), "not assigned");
        assert_eq!(
            unset(memory().at(0, 0xffff_f000)),
            "not assigned: 0xfffff000 is no address for it",
            "what sizing leaves"
        );
        let io = FakeFunction::endpoint(1, 1).io_bar(0, 16).at(0, 0x1_2340);
        assert_eq!(unset(io), "not assigned: 0x12340 is no address for it");
    }

    #[test]
    fn broken_ones_say_why() {
        let reason = |function, index: usize| bars(function)[index].unwrap().reason.unwrap();
        let endpoint = || FakeFunction::endpoint(1, 1);
        assert_eq!(
            reason(endpoint().bar(2, 6, !0xfff), 2).to_string(),
            "its memory type 0b11 is reserved"
        );
        assert_eq!(
            reason(endpoint().bar(5, 4, !0xfff), 5).to_string(),
            "it is 64 bits wide, and there is no register after BAR 5"
        );
        assert_eq!(
            reason(endpoint().bar(0, 0, 0xffff_5000), 0).to_string(),
            "its size is no power of two: bits 0xffffffffffff5000 can be written"
        );
        let narrow = endpoint().bar(0, 4, 0xfff0_0000).bar(1, 0, 0);
        assert_eq!(reason(narrow, 0), Unassigned::BadSize { mask: 0xfff0_0000 });
        let empty = endpoint().bar(0, 0xc, 0);
        assert_eq!(reason(empty, 0), Unassigned::BadSize { mask: 0 });
    }
}
