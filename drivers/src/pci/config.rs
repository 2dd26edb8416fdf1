//! Configuration space: what ECAM and CAM have in common.

use pci_types::{CommandRegister, ConfigRegionAccess, PciAddress};

use super::registers;
use crate::transport::Notifier;

/// A way to configuration space that says how far it reaches.
///
/// Reading is safe, because a read of a configuration register has no effect on
/// memory. Writing is not: a write can move a device over other memory, or let
/// it read and write main memory by itself.
///
/// # Safety
///
/// An implementer owes that [`ConfigRegionAccess::read`] is harmless for any
/// address and any offset, and that where no function answers it gives all ones
/// and a write does nothing.
pub unsafe trait ConfigSpace: ConfigRegionAccess {
    /// The bytes of configuration space each function has here: 4096 where the
    /// extended part (PCI Express 7.2.2) is in reach, else 256.
    fn size(&self) -> u16;

    /// The mechanism's short name: `ecam` or `cam`.
    fn method(&self) -> &'static str;

    /// A notifier that writes `value` to the dword at `offset`; `None` where the
    /// mechanism has no notifier or does not reach the register.
    ///
    /// # Safety
    ///
    /// The register is a doorbell of a device that the caller owns, for as long
    /// as the notifier is used; through ports 0xCF8 and 0xCFC also: nobody else
    /// uses configuration space at the moment the notifier rings.
    unsafe fn notifier(&self, address: PciAddress, offset: u16, value: u32) -> Option<Notifier>;

    /// Writes the 16-bit field at the even `offset`, and nothing beside it: the
    /// other half of its dword may hold bits that a write of what was read would
    /// clear, or be a register where any write is a command.
    ///
    /// # Safety
    ///
    /// The function is the caller's, and so is what the write makes it do.
    unsafe fn write16(&self, address: PciAddress, offset: u16, value: u16);

    /// The dword that holds `offset`.
    fn read32(&self, address: PciAddress, offset: u16) -> u32 {
        // SAFETY: the implementer's promise is that any read is harmless.
        unsafe { self.read(address, offset & !3) }
    }

    /// The 16-bit field at the even `offset`.
    fn read16(&self, address: PciAddress, offset: u16) -> u16 {
        (self.read32(address, offset) >> ((offset & 2) * 8)) as u16
    }

    /// The byte at `offset`.
    fn read8(&self, address: PciAddress, offset: u16) -> u8 {
        (self.read32(address, offset) >> ((offset & 3) * 8)) as u8
    }

    /// Writes the byte at `offset`, by reading and writing its 16-bit field.
    ///
    /// # Safety
    ///
    /// As for [`write16`](Self::write16).
    unsafe fn write8(&self, address: PciAddress, offset: u16, value: u8) {
        let half = self.read16(address, offset & !1);
        let shift = (offset & 1) * 8;
        let half = half & !(0xff << shift) | u16::from(value) << shift;
        // SAFETY: the caller's promise.
        unsafe { self.write16(address, offset & !1, half) }
    }

    /// The command register.
    fn command(&self, address: PciAddress) -> CommandRegister {
        CommandRegister::from_bits_retain(self.read16(address, registers::COMMAND))
    }

    /// Writes the command register and leaves the status register's bits (which
    /// ones would clear) as they are.
    ///
    /// # Safety
    ///
    /// The function is the caller's. With [`CommandRegister::BUS_MASTER_ENABLE`]
    /// it may access any memory; with the decoding bits it answers at the
    /// addresses in its BARs.
    unsafe fn set_command(&self, address: PciAddress, command: CommandRegister) {
        // SAFETY: the caller's promise; zeros in the status half change nothing.
        unsafe { self.write(address, registers::COMMAND, u32::from(command.bits())) }
    }
}

// SAFETY: it is the referent's own promise.
unsafe impl<C: ConfigSpace + ?Sized> ConfigSpace for &C {
    fn size(&self) -> u16 {
        (**self).size()
    }

    fn method(&self) -> &'static str {
        (**self).method()
    }

    unsafe fn notifier(&self, address: PciAddress, offset: u16, value: u32) -> Option<Notifier> {
        // SAFETY: the caller's promise.
        unsafe { (**self).notifier(address, offset, value) }
    }

    unsafe fn write16(&self, address: PciAddress, offset: u16, value: u16) {
        // SAFETY: the caller's promise.
        unsafe { (**self).write16(address, offset, value) }
    }
}
