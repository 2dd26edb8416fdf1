//! Configuration space in memory: the Enhanced Configuration Access Mechanism
//! (PCI Express 7.2.2), found through ACPI's MCFG.

use core::fmt;

use pci_types::{ConfigRegionAccess, PciAddress};

use super::config::ConfigSpace;
use crate::mmio::{MapError, MapMmio, MmioRegion, Plain, Registers};
use crate::transport::Notifier;

/// Bytes of configuration space of one bus: 32 devices of 8 functions of 4 KiB.
const BUS: u64 = 1 << 20;

/// The mapped configuration space of some buses of one segment: an entry of the
/// MCFG, or a part of one.
#[derive(Clone, Copy, Debug)]
pub struct EcamWindow {
    segment: u16,
    first: u8,
    last: u8,
    region: MmioRegion,
}

impl EcamWindow {
    /// The buses `first` to `last`, both included; `region` begins with the
    /// configuration space of `first`.
    ///
    /// # Errors
    ///
    /// [`EcamError`] if the buses are not in order or the region is not 1 MiB a
    /// bus long.
    ///
    /// # Safety
    ///
    /// The region is the ECAM of these buses, and the caller owns their
    /// configuration space.
    pub unsafe fn new(
        segment: u16,
        first: u8,
        last: u8,
        region: MmioRegion,
    ) -> Result<Self, EcamError> {
        let needed = length(first, last)?;
        if (region.len() as u64) < needed {
            return Err(EcamError::TooShort {
                first,
                last,
                len: region.len() as u64,
            });
        }
        Ok(Self {
            segment,
            first,
            last,
            region,
        })
    }

    /// Maps the buses `first` to `last` of an MCFG entry whose base address is
    /// `base`. That address is bus 0's, whichever bus the entry begins with (PCI
    /// Firmware Specification 3.3, 4.1.2).
    ///
    /// # Errors
    ///
    /// [`EcamError`] if the buses are not in order, the address is misaligned or
    /// too high, or the mapper refuses.
    ///
    /// # Safety
    ///
    /// As for [`new`](Self::new).
    pub unsafe fn map(
        mapper: &impl MapMmio,
        base: u64,
        segment: u16,
        first: u8,
        last: u8,
    ) -> Result<Self, EcamError> {
        let len = length(first, last)?;
        let start = base
            .checked_add(u64::from(first) * BUS)
            .filter(|start| start % BUS == 0 && start.checked_add(len - 1).is_some())
            .ok_or(EcamError::BadBase { base })?;
        // SAFETY: the caller says that this is an ECAM that it owns.
        let region = unsafe { MmioRegion::map(mapper, start, len) }.map_err(EcamError::Map)?;
        // SAFETY: as above.
        unsafe { Self::new(segment, first, last, region) }
    }
}

fn length(first: u8, last: u8) -> Result<u64, EcamError> {
    let buses = last
        .checked_sub(first)
        .ok_or(EcamError::BusOrder { first, last })?;
    Ok((u64::from(buses) + 1) * BUS)
}

/// An ECAM that cannot be used as it was described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are what `Display` prints")]
#[non_exhaustive]
pub enum EcamError {
    /// The first bus comes after the last.
    BusOrder { first: u8, last: u8 },
    /// The mapped region is shorter than its buses need.
    TooShort { first: u8, last: u8, len: u64 },
    /// The base address is not aligned to 1 MiB, or the end is not an address.
    BadBase { base: u64 },
    /// The mapper refused.
    Map(MapError),
}

impl fmt::Display for EcamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::BusOrder { first, last } => {
                write!(
                    f,
                    "ECAM begins with bus {first:#04x}, after its last bus {last:#04x}"
                )
            }
            Self::TooShort { first, last, len } => {
                write!(
                    f,
                    "{len:#x} bytes are too few for the ECAM of buses {first:#04x} to {last:#04x}"
                )
            }
            Self::BadBase { base } => write!(f, "no ECAM can be at {base:#x}"),
            Self::Map(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for EcamError {}

/// Configuration space through ECAM, 4 KiB a function.
///
/// An address outside of the windows has no function: it reads as all ones.
#[derive(Clone, Copy, Debug)]
pub struct Ecam<'a> {
    windows: &'a [EcamWindow],
}

impl<'a> Ecam<'a> {
    /// Takes the windows of all segments. Where two overlap the first counts.
    pub fn new(windows: &'a [EcamWindow]) -> Self {
        Self { windows }
    }

    fn register<T: Plain>(&self, address: PciAddress, offset: u16) -> Option<Registers<T>> {
        let bus = address.bus();
        let window = self.windows.iter().find(|window| {
            window.segment == address.segment() && (window.first..=window.last).contains(&bus)
        })?;
        if offset >= 4096 {
            return None;
        }
        let offset = u64::from(bus - window.first) << 20
            | u64::from(address.device()) << 15
            | u64::from(address.function()) << 12
            | u64::from(offset);
        window.region.registers(offset)
    }
}

impl ConfigRegionAccess for Ecam<'_> {
    unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
        self.register::<u32>(address, offset & !3)
            .map_or(!0, |register| u32::from_le(register.ptr().read()))
    }

    unsafe fn write(&self, address: PciAddress, offset: u16, value: u32) {
        if let Some(register) = self.register::<u32>(address, offset & !3) {
            register.ptr().write(value.to_le());
        }
    }
}

// SAFETY: reads of an ECAM's registers are harmless by PCI's rules; what is
// outside of the windows is not accessed at all.
unsafe impl ConfigSpace for Ecam<'_> {
    fn size(&self) -> u16 {
        4096
    }

    fn method(&self) -> &'static str {
        "ecam"
    }

    unsafe fn notifier(&self, address: PciAddress, offset: u16, value: u32) -> Option<Notifier> {
        let register = self.register(address, offset & !3)?;
        // SAFETY: the register is inside the mapped window; the caller says that
        // it is its device's doorbell.
        Some(unsafe { Notifier::store32(register.address(), value) })
    }

    unsafe fn write16(&self, address: PciAddress, offset: u16, value: u16) {
        if let Some(register) = self.register::<u16>(address, offset & !1) {
            register.ptr().write(value.to_le());
        }
    }
}

#[cfg(test)]
mod tests {
    use core::ptr::NonNull;
    use std::vec::Vec;

    use super::*;
    use crate::transport::Notify;

    /// Two buses' memory, and a window over it for the buses 4 and 5.
    fn window(memory: &mut Vec<u32>) -> EcamWindow {
        memory.resize(2 << 18, 0);
        let base = NonNull::new(memory.as_mut_ptr()).unwrap().cast();
        // SAFETY: the memory lives as long as its test.
        unsafe { EcamWindow::new(1, 4, 5, MmioRegion::new(base, 2 << 20)).unwrap() }
    }

    #[test]
    fn registers_are_where_the_specification_puts_them() {
        let mut memory = Vec::new();
        let windows = [window(&mut memory)];
        let ecam = Ecam::new(&windows);
        let address = PciAddress::new(1, 5, 3, 2);
        // SAFETY: plain memory.
        unsafe { ecam.write(address, 0xffc, 0x1234_5678) };
        assert_eq!(ecam.read16(address, 0xffe), 0x1234);
        let place = (1 << 20 | 3 << 15 | 2 << 12 | 0xffc) / 4;
        assert_eq!(memory[place], 0x1234_5678);
        // SAFETY: as above.
        unsafe { ecam.write16(address, 0xffe, 0x9abc) };
        assert_eq!(memory[place], 0x9abc_5678);
    }

    #[test]
    fn outside_of_the_windows_is_nothing() {
        let mut memory = Vec::new();
        let windows = [window(&mut memory)];
        let ecam = Ecam::new(&windows);
        for address in [
            PciAddress::new(1, 6, 0, 0),
            PciAddress::new(1, 3, 0, 0),
            PciAddress::new(0, 4, 0, 0),
        ] {
            assert_eq!(ecam.read32(address, 0), !0);
            // SAFETY: nothing is there.
            unsafe { ecam.write(address, 0, 7) };
            // SAFETY: as above.
            assert!(unsafe { ecam.notifier(address, 0, 7) }.is_none());
        }
        assert_eq!(ecam.read32(PciAddress::new(1, 4, 0, 0), 4096), !0);
        assert!(memory.iter().all(|dword| *dword == 0));
    }

    #[test]
    fn a_notifier_writes_one_register() {
        let mut memory = Vec::new();
        let windows = [window(&mut memory)];
        // SAFETY: plain memory.
        unsafe { Ecam::new(&windows).notifier(PciAddress::new(1, 4, 0, 1), 0x90, 0xabcd) }
            .unwrap()
            .notify();
        assert_eq!(memory[(1 << 12 | 0x90) / 4], 0xabcd);
        assert_eq!(memory.iter().filter(|dword| **dword != 0).count(), 1);
    }

    #[test]
    fn a_window_must_be_long_enough() {
        let mut memory = [0u32; 4];
        let base = NonNull::new(memory.as_mut_ptr()).unwrap().cast();
        // SAFETY: the memory outlives the region.
        let region = unsafe { MmioRegion::new(base, 16) };
        // SAFETY: it is never accessed.
        let error = unsafe { EcamWindow::new(0, 0, 0xff, region) }.unwrap_err();
        assert_eq!(
            std::format!("{error}"),
            "0x10 bytes are too few for the ECAM of buses 0x00 to 0xff"
        );
        // SAFETY: it is never accessed.
        let error = unsafe { EcamWindow::new(0, 2, 1, region) }.unwrap_err();
        assert_eq!(error, EcamError::BusOrder { first: 2, last: 1 });
    }
}
