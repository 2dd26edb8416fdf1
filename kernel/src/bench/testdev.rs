//! QEMU's `pci-testdev`: the notification path without a device behind it
//! (docs/specs/pci-testdev in QEMU's sources).
//!
//! Each of its two BARs, memory and IO, has a list of subtests. A subtest names
//! an offset and a byte; the device counts the writes of it there, except those
//! that an eventfd takes, which nobody consumes. So a count of 0 is what an
//! eventfd's subtest must leave, and n what the others must.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use doorbell::mmio::{MmioRegion, Registers};
use doorbell::pci::Function;
use doorbell::port::{IoRegion, IoSpace, X86Ports};
use doorbell::transport::Notify;
use doorbell::transport::pci::{self as virtio_pci, PciError, Structure};

use super::harness::time;
use super::{Case, Series, Timer};
use crate::machine::Machine;
use crate::platform::dma::KernelMmio;
use crate::record::Place;

/// The device, as QEMU has it.
pub const NAME: &str = "pci-testdev";

/// Vendor and device ID.
const ID: (u16, u16) = (0x1b36, 0x0005);

/// The BARs: the same registers in both.
const MEMORY_BAR: u8 = 0;
const IO_BAR: u8 = 1;

/// Offsets in a BAR of the header of the subtest that is selected.
mod header {
    pub(super) const TEST: u16 = 0;
    pub(super) const WIDTH: u16 = 1;
    pub(super) const OFFSET: u16 = 4;
    pub(super) const DATA: u16 = 8;
    pub(super) const COUNT: u16 = 12;
    pub(super) const NAME: u16 = 16;
}

/// The longest name that is read, in bytes.
const MAX_NAME: u16 = 64;

/// The longest list of subtests that is followed.
const MAX_SUBTESTS: u8 = 64;

/// One of the device's BARs.
#[derive(Clone, Copy)]
enum Bar {
    Memory(MmioRegion),
    Io(IoRegion<X86Ports>),
}

impl Bar {
    /// Reads a byte; 0 outside the BAR, as the device itself answers there.
    fn read8(&self, offset: u16) -> u8 {
        match self {
            Self::Memory(region) => region
                .registers::<u8>(offset.into())
                .map_or(0, |register| register.ptr().read()),
            Self::Io(ports) if offset < ports.len() => ports.read8(offset),
            Self::Io(_) => 0,
        }
    }

    /// Reads 32 bits, by bytes: the device takes no other accesses.
    fn read32(&self, offset: u16) -> u32 {
        u32::from_le_bytes([0, 1, 2, 3].map(|byte| self.read8(offset + byte)))
    }

    /// Selects a subtest: its count becomes 0, and its eventfd is registered.
    fn select(&self, test: u8) {
        match self {
            Self::Memory(region) => {
                if let Some(register) = region.registers::<u8>(header::TEST.into()) {
                    register.ptr().write(test);
                }
            }
            Self::Io(ports) => ports.write8(header::TEST, test),
        }
    }

    fn text(&self, offset: u16) -> String {
        let bytes = (offset..offset + MAX_NAME).map(|at| self.read8(at));
        bytes
            .take_while(|&byte| byte != 0)
            .filter(u8::is_ascii_graphic)
            .map(char::from)
            .collect()
    }
}

/// What a subtest writes, as one instruction.
enum Doorbell {
    Store(Store8),
    Out(Out8),
}

struct Store8 {
    register: Registers<u8>,
    value: u8,
}

impl Notify for Store8 {
    #[inline(always)]
    fn notify(&self) {
        self.register.ptr().write(self.value);
    }
}

struct Out8 {
    port: u16,
    value: u8,
}

impl Notify for Out8 {
    #[inline(always)]
    fn notify(&self) {
        // SAFETY: inside the device's own IO BAR (`Subtest::read`).
        unsafe { X86Ports.write8(self.port, self.value) }
    }
}

/// A subtest of a `pci-testdev`.
pub struct Subtest {
    bar: Bar,
    test: u8,
    doorbell: Doorbell,
    /// Whether an eventfd takes the writes, so that the device counts none.
    eventfd: bool,
    series: Series,
}

/// All subtests of all such devices, and for each BAR that could not be used,
/// why.
pub fn subtests(machine: &Machine, timer: &mut Timer) -> (Vec<Subtest>, Vec<(Place, String)>) {
    let mut found = Vec::new();
    let mut skipped = Vec::new();
    let functions = machine.pci.iter().flat_map(|pci| &pci.functions);
    for function in functions.filter(|function| (function.vendor, function.device) == ID) {
        let place = Place {
            bdf: Some(function.address.to_string()),
            mmio: None,
        };
        for index in [MEMORY_BAR, IO_BAR] {
            match bar(function, index) {
                Ok(bar) => {
                    for test in 0..MAX_SUBTESTS {
                        match Subtest::read(bar, test, &place, timer) {
                            Ok(Some(subtest)) => found.push(subtest),
                            Ok(None) => break,
                            Err(reason) => skipped.push((place.clone(), reason)),
                        }
                    }
                }
                Err(error) => skipped.push((place.clone(), error.to_string())),
            }
        }
    }
    (found, skipped)
}

/// Maps a BAR of the device.
fn bar(function: &Function, index: u8) -> Result<Bar, PciError> {
    let io = index == IO_BAR;
    let (bar, address) = virtio_pci::assigned(function, index, io)?;
    if io {
        let length = u32::try_from(bar.size).unwrap_or(u32::MAX);
        let all = Structure {
            bar: index,
            offset: 0,
            length,
        };
        // SAFETY: this kernel owns the function.
        unsafe { virtio_pci::ports(function, all, "the test BAR", X86Ports) }.map(Bar::Io)
    } else {
        // SAFETY: as above.
        let region = unsafe { MmioRegion::map(&KernelMmio, address, bar.size) }?;
        Ok(Bar::Memory(region))
    }
}

impl Subtest {
    /// Reads a subtest's header; `None` after the last.
    fn read(bar: Bar, test: u8, place: &Place, timer: &mut Timer) -> Result<Option<Self>, String> {
        bar.select(test);
        match bar.read8(header::WIDTH) {
            0 => return Ok(None),
            1 => {}
            width => return Err(format!("subtest {test} wants writes of {width} bytes")),
        }
        let offset = bar.read32(header::OFFSET);
        let value = bar.read8(header::DATA);
        let name = bar.text(header::NAME);
        let outside = || format!("subtest {name} is at {offset:#x}, outside its BAR");
        let (doorbell, notify) = match &bar {
            Bar::Memory(region) => {
                let register = region.registers::<u8>(offset.into()).ok_or_else(outside)?;
                (Doorbell::Store(Store8 { register, value }), "mmio")
            }
            Bar::Io(ports) => {
                let offset = u16::try_from(offset)
                    .ok()
                    .filter(|&offset| offset < ports.len());
                let port = ports.base() + offset.ok_or_else(outside)?;
                (Doorbell::Out(Out8 { port, value }), "pio")
            }
        };
        let mut series = Series::new("testdev", NAME.to_string(), place.clone());
        series.batch = match &doorbell {
            Doorbell::Store(store) => timer.batch_for(store),
            Doorbell::Out(out) => timer.batch_for(out),
        };
        series.notify = Some(notify.to_string());
        series.subtest = Some(name.clone().into());
        let eventfd = !name.contains("no-eventfd");
        Ok(Some(Self {
            bar,
            test,
            doorbell,
            eventfd,
            series,
        }))
    }
}

impl Case for Subtest {
    fn name(&self) -> String {
        self.series
            .subtest
            .as_deref()
            .unwrap_or_default()
            .to_string()
    }

    fn round(&mut self, _: &mut Timer, count: u32) -> Result<(), String> {
        self.bar.select(self.test);
        let series = &mut self.series;
        let before = series.operations();
        for _ in 0..count.div_ceil(series.batch) {
            let cycles = match &self.doorbell {
                Doorbell::Store(store) => time(store, series.batch),
                Doorbell::Out(out) => time(out, series.batch),
            };
            series.record(cycles);
        }
        let rung = series.operations() - before;
        let counted = u64::from(self.bar.read32(header::COUNT));
        let delivered = if self.eventfd {
            rung.saturating_sub(counted)
        } else {
            counted
        };
        series.delivered += delivered;
        if delivered == rung {
            Ok(())
        } else {
            Err(format!("the device counted {counted} of {rung} writes"))
        }
    }

    fn series(&self) -> Vec<&Series> {
        [&self.series].into()
    }
}
