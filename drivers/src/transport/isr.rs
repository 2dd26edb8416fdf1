//! The ISR status: which kind of interrupt is pending (virtio 1.2, 4.1.4.5).

pub use virtio_spec::pci::IsrStatus as IsrBits;

use crate::mmio::Registers;
use crate::port::{PortByte, order};

/// A handle on a device's ISR status. It is apart from the device, so that an
/// interrupt handler needs no `&mut` to it.
#[derive(Clone, Copy, Debug)]
pub struct IsrStatus(Kind);

#[derive(Clone, Copy, Debug)]
enum Kind {
    Port(PortByte),
    Byte(Registers<u8>),
    Acknowledged {
        status: Registers<u32>,
        acknowledge: Registers<u32>,
    },
}

/// A byte in the processor's IO space.
impl From<PortByte> for IsrStatus {
    fn from(port: PortByte) -> Self {
        Self(Kind::Port(port))
    }
}

impl IsrStatus {
    /// A byte in device memory.
    pub fn byte(register: Registers<u8>) -> Self {
        Self(Kind::Byte(register))
    }

    /// virtio-mmio's pair of registers, `InterruptStatus` and `InterruptACK`
    /// (4.2.2).
    pub fn acknowledged(status: Registers<u32>, acknowledge: Registers<u32>) -> Self {
        Self(Kind::Acknowledged {
            status,
            acknowledge,
        })
    }

    /// Reads the pending interrupts and clears them: on PCI the read itself
    /// does (4.1.4.5.1), on virtio-mmio they are acknowledged (4.2.2). What is then
    /// read from a ring is at least as new as the interrupt.
    pub fn take(&self) -> IsrBits {
        let bits = match self.0 {
            Kind::Port(port) => port.read(),
            Kind::Byte(register) => register.ptr().read(),
            Kind::Acknowledged {
                status,
                acknowledge,
            } => {
                let bits = u32::from_le(status.ptr().read());
                acknowledge.ptr().write(bits.to_le());
                bits as u8
            }
        };
        // A device updates its ring before it interrupts; so look at it afterwards.
        order::device();
        // Where nothing answers all bits are read as ones: no interrupt of this
        // device's, which has two (4.1.4.5).
        let known = IsrBits::QUEUE_INTERRUPT | IsrBits::DEVICE_CONFIGURATION_INTERRUPT;
        if bits & !known.bits() == 0 {
            IsrBits::from_bits_retain(bits)
        } else {
            IsrBits::empty()
        }
    }
}

#[cfg(test)]
mod tests {
    use core::ptr::NonNull;

    use super::*;
    use crate::mmio::MmioRegion;

    #[test]
    fn a_device_that_is_gone_claims_no_interrupt() {
        for (mut byte, bits) in [(0u8, 0), (1, 1), (2, 2), (3, 3), (0xff, 0)] {
            // SAFETY: the byte outlives the handle.
            let region = unsafe { MmioRegion::new(NonNull::from(&mut byte), 1) };
            let isr = IsrStatus::byte(region.registers(0).unwrap());
            assert_eq!(isr.take().bits(), bits);
        }
    }
}
