//! Configuration space through ports 0xCF8 and 0xCFC (PCI 3.0, 3.2.2.3.2).

use core::fmt;

use pci_types::{ConfigRegionAccess, PciAddress};

use super::config::ConfigSpace;
use crate::port::IoSpace;
use crate::transport::Notifier;

/// The port that takes the register's address.
pub const CONFIG_ADDRESS: u16 = 0xcf8;
/// The port that reads and writes the register.
pub const CONFIG_DATA: u16 = 0xcfc;

/// Turns an access to [`CONFIG_DATA`] into a configuration cycle.
const ENABLE: u32 = 1 << 31;

/// Configuration space through two ports: 256 bytes a function, segment 0 only.
///
/// Each access is two port accesses. Whoever interrupts one between the two must
/// not use configuration space itself.
#[derive(Clone, Copy)]
pub struct Cam<S> {
    ports: S,
}

impl<S: IoSpace> Cam<S> {
    /// Uses the ports of `ports`.
    ///
    /// # Safety
    ///
    /// The machine has this mechanism at ports 0xCF8 to 0xCFF, and nobody else
    /// uses it at the same time.
    pub unsafe fn new(ports: S) -> Self {
        Self { ports }
    }

    fn answers(&self) -> bool {
        // SAFETY: the ports are the mechanism's, or nothing's.
        unsafe {
            let before = self.ports.read32(CONFIG_ADDRESS);
            self.ports.write32(CONFIG_ADDRESS, ENABLE);
            let answers = self.ports.read32(CONFIG_ADDRESS) == ENABLE;
            if answers {
                self.ports.write32(CONFIG_ADDRESS, before);
            }
            answers
        }
    }

    /// Uses the ports of `ports` if the mechanism answers there: the address that
    /// is written can be read back (PCI 3.0, 3.2.2.3.2).
    ///
    /// # Safety
    ///
    /// Ports 0xCF8 to 0xCFF belong to this mechanism or to nothing, and nobody
    /// else uses it at the same time.
    pub unsafe fn probe(ports: S) -> Option<Self> {
        // SAFETY: the caller's promise.
        let cam = unsafe { Self::new(ports) };
        cam.answers().then_some(cam)
    }

    /// What goes into [`CONFIG_ADDRESS`]; `None` for a register that is out of
    /// the mechanism's reach.
    fn select(address: PciAddress, offset: u16) -> Option<u32> {
        if address.segment() != 0 || offset > 0xff {
            return None;
        }
        Some(
            ENABLE
                | u32::from(address.bus()) << 16
                | u32::from(address.device()) << 11
                | u32::from(address.function()) << 8
                | u32::from(offset & 0xfc),
        )
    }
}

impl<S: IoSpace> ConfigRegionAccess for Cam<S> {
    unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
        let Some(select) = Self::select(address, offset) else {
            return !0;
        };
        // SAFETY: the ports are the mechanism's (`new`).
        unsafe {
            self.ports.write32(CONFIG_ADDRESS, select);
            self.ports.read32(CONFIG_DATA)
        }
    }

    unsafe fn write(&self, address: PciAddress, offset: u16, value: u32) {
        let Some(select) = Self::select(address, offset) else {
            return;
        };
        // SAFETY: the ports are the mechanism's (`new`); the caller answers for
        // what the write does.
        unsafe {
            self.ports.write32(CONFIG_ADDRESS, select);
            self.ports.write32(CONFIG_DATA, value);
        }
    }
}

// SAFETY: reads of configuration registers are harmless by PCI's rules; what the
// mechanism does not reach is not accessed at all.
unsafe impl<S: IoSpace> ConfigSpace for Cam<S> {
    fn size(&self) -> u16 {
        256
    }

    fn method(&self) -> &'static str {
        "cam"
    }

    unsafe fn notifier(&self, address: PciAddress, offset: u16, value: u32) -> Option<Notifier> {
        let select = Self::select(address, offset)?;
        // SAFETY: the caller's promise.
        unsafe { self.ports.cam_notifier(select, value) }
    }

    unsafe fn write16(&self, address: PciAddress, offset: u16, value: u16) {
        let Some(select) = Self::select(address, offset) else {
            return;
        };
        // SAFETY: as in `write`. The port in the data register chooses the half
        // (PCI 3.0, 3.2.2.3.2).
        unsafe {
            self.ports.write32(CONFIG_ADDRESS, select);
            self.ports.write16(CONFIG_DATA + (offset & 2), value);
        }
    }
}

impl<S> fmt::Debug for Cam<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cam")
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::vec::Vec;

    use super::*;
    use crate::port::X86Ports;
    use crate::transport::IsrStatus;

    /// A port, and what was written to it.
    #[derive(Debug, PartialEq)]
    enum Access {
        Read(u16),
        Write(u16, u32),
        Write16(u16, u16),
    }

    #[derive(Default)]
    struct Log(RefCell<Vec<Access>>);

    // SAFETY: it accesses no ports.
    unsafe impl IoSpace for &Log {
        unsafe fn read8(&self, port: u16) -> u8 {
            panic!("8-bit read of {port:#x}")
        }
        unsafe fn read16(&self, port: u16) -> u16 {
            panic!("16-bit read of {port:#x}")
        }
        unsafe fn read32(&self, port: u16) -> u32 {
            self.0.borrow_mut().push(Access::Read(port));
            0x1005_1af4
        }
        unsafe fn write8(&self, port: u16, _: u8) {
            panic!("8-bit write to {port:#x}")
        }
        unsafe fn write16(&self, port: u16, value: u16) {
            self.0.borrow_mut().push(Access::Write16(port, value));
        }
        unsafe fn write32(&self, port: u16, value: u32) {
            self.0.borrow_mut().push(Access::Write(port, value));
        }
        unsafe fn notifier(&self, port: u16, _: u16) -> Notifier {
            panic!("notifier for {port:#x}")
        }
        unsafe fn isr_status(&self, port: u16) -> IsrStatus {
            panic!("interrupt status at {port:#x}")
        }
    }

    #[test]
    fn an_access_selects_its_register_first() {
        let log = Log::default();
        // SAFETY: no ports are accessed.
        let cam = unsafe { Cam::new(&log) };
        assert_eq!(cam.read16(PciAddress::new(0, 2, 3, 1), 2), 0x1005);
        // SAFETY: as above.
        unsafe { cam.write(PciAddress::new(0, 0xff, 31, 7), 0xfc, 9) };
        assert_eq!(
            *log.0.borrow(),
            [
                Access::Write(0xcf8, 0x8002_1900),
                Access::Read(0xcfc),
                Access::Write(0xcf8, 0x80ff_fffc),
                Access::Write(0xcfc, 9),
            ]
        );
    }

    #[test]
    fn what_is_out_of_reach_reads_as_ones_and_touches_no_port() {
        let log = Log::default();
        // SAFETY: no ports are accessed.
        let cam = unsafe { Cam::new(&log) };
        assert_eq!(cam.read32(PciAddress::new(0, 0, 0, 0), 0x100), !0);
        assert_eq!(cam.read32(PciAddress::new(1, 0, 0, 0), 0), !0);
        // SAFETY: as above.
        unsafe { cam.write(PciAddress::new(1, 0, 0, 0), 0, 1) };
        // SAFETY: as above.
        unsafe { cam.write(PciAddress::new(0, 0, 0, 0), 0x100, 1) };
        // SAFETY: as above.
        unsafe { cam.write16(PciAddress::new(0, 0, 0, 0), 0x100, 1) };
        assert!(log.0.borrow().is_empty());
    }

    #[test]
    fn a_narrow_write_leaves_the_rest_of_the_dword_alone() {
        let log = Log::default();
        // SAFETY: no ports are accessed.
        let cam = unsafe { Cam::new(&log) };
        // SAFETY: as above.
        unsafe { cam.write16(PciAddress::new(0, 0, 1, 0), 0x6a, 7) };
        assert_eq!(
            *log.0.borrow(),
            [Access::Write(0xcf8, 0x8000_0868), Access::Write16(0xcfe, 7)]
        );
        // SAFETY: as above.
        unsafe { cam.write8(PciAddress::new(0, 0, 1, 0), 0x3c, 0xb) };
        assert_eq!(log.0.borrow().last(), Some(&Access::Write16(0xcfc, 0x1a0b)));
    }

    #[test]
    fn a_port_that_does_not_hold_the_address_is_no_mechanism() {
        let log = Log::default();
        // SAFETY: no ports are accessed.
        let cam = unsafe { Cam::new(&log) };
        assert!(!cam.answers(), "the fake reads as a vendor ID");
        assert_eq!(log.0.borrow()[1], Access::Write(0xcf8, 1 << 31));
        assert_eq!(log.0.borrow().len(), 3, "nothing is written back");
    }

    #[test]
    fn notifiers_are_the_ports_to_give() {
        let address = PciAddress::new(0, 0, 1, 0);
        // SAFETY: no port is accessed: the notifiers are not rung.
        unsafe {
            assert!(Cam::new(X86Ports).notifier(address, 0x90, 1).is_some());
            assert!(Cam::new(X86Ports).notifier(address, 0x190, 1).is_none());
            let log = Log::default();
            assert!(Cam::new(&log).notifier(address, 0x90, 1).is_none());
        }
    }
}
