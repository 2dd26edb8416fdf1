//! IO space without IO ports: a window of memory that the host bridge turns into IO
//! cycles. PowerPC, Arm, RISC-V and others have PCI and reach its IO BARs like this;
//! their firmware says where the window is (in a device tree: the `ranges` of the host
//! bridge, space code 1).

use super::{IoSpace, order};
use crate::mmio::{MmioRegion, Plain, Registers};
use crate::transport::{IsrStatus, Notifier};

/// A memory-mapped IO window: port n is the byte `n - first` behind its base.
///
/// The doorbell of an IO BAR is then a store like that of a memory BAR, and costs what
/// the host bridge makes of it.
#[derive(Clone, Copy, Debug)]
pub struct IoWindow {
    region: MmioRegion,
    first: u16,
}

impl IoWindow {
    /// The window in `region`, whose first byte is port `first` (0 on most machines).
    /// What would come after port 0xFFFF is not used. `None` if the region is not
    /// aligned to 4 bytes, as ports are, or `first` is not.
    ///
    /// The safety is [`MmioRegion`]'s: its bytes are the host bridge's window.
    pub fn new(region: MmioRegion, first: u16) -> Option<Self> {
        region.registers::<u32>(0)?;
        let len = (region.len() as u64).min(0x1_0000 - u64::from(first));
        let region = region.part(0, len)?;
        first.is_multiple_of(4).then_some(Self { region, first })
    }

    /// # Panics
    ///
    /// If the port is outside of the window or not aligned to its width: an
    /// [`IoRegion`](super::IoRegion) is inside (`holds`), and its offsets are the
    /// driver's own constants or were checked when they were read.
    fn register<T: Plain>(&self, port: u16) -> Registers<T> {
        port.checked_sub(self.first)
            .and_then(|offset| self.region.registers(offset.into()))
            .unwrap_or_else(|| {
                panic!(
                    "no port {port:#06x}, {} bytes wide, in {self:?}",
                    size_of::<T>()
                )
            })
    }
}

/// Reads and writes of one width. Before each stands what orders it after all earlier
/// accesses, to memory as well, and behind a read what keeps later ones there: a volatile
/// access alone is ordered by the compiler, not by the processor ([`order`]).
macro_rules! access {
    ($read:ident, $write:ident, $type:ty) => {
        #[inline]
        unsafe fn $read(&self, port: u16) -> $type {
            let register = self.register::<$type>(port);
            order::device();
            let value = register.ptr().read();
            order::device();
            <$type>::from_le(value)
        }

        #[inline]
        unsafe fn $write(&self, port: u16, value: $type) {
            let register = self.register::<$type>(port);
            order::device();
            register.ptr().write(value.to_le());
        }
    };
}

// SAFETY: each method is one volatile access of the width in its name, with a barrier
// before it that orders it after all earlier writes to memory.
unsafe impl IoSpace for IoWindow {
    access!(read8, write8, u8);
    access!(read16, write16, u16);
    access!(read32, write32, u32);

    fn holds(&self, base: u16, len: u16) -> bool {
        base.checked_sub(self.first)
            .is_some_and(|offset| self.region.part(offset.into(), len.into()).is_some())
    }

    unsafe fn notifier(&self, port: u16, value: u16) -> Notifier {
        let register = self.register::<u16>(port);
        // SAFETY: inside the mapped window; the caller says that the port is its
        // device's doorbell.
        unsafe { Notifier::store16(register.address(), value) }
    }

    unsafe fn isr_status(&self, port: u16) -> IsrStatus {
        IsrStatus::byte(self.register(port))
    }
}

#[cfg(test)]
mod tests {
    use core::ptr::NonNull;

    use super::super::IoRegion;
    use super::*;
    use crate::transport::Notify;

    /// A window of 64 bytes over `memory`, from port `first`.
    fn window(memory: &mut [u32; 16], first: u16) -> IoWindow {
        let base = NonNull::from(memory).cast();
        // SAFETY: the memory outlives the window in each test.
        IoWindow::new(unsafe { MmioRegion::new(base, 64) }, first).unwrap()
    }

    #[test]
    fn a_port_is_a_byte_of_the_window_whatever_the_width() {
        let mut memory = [0; 16];
        let window = window(&mut memory, 0x1000);
        // SAFETY: plain memory.
        let ports = unsafe { IoRegion::new(window, 0x1010, 8) }.unwrap();
        ports.write8(1, 0x11);
        ports.write16(2, 0x3322);
        ports.write32(4, 0x7766_5544);
        assert_eq!(ports.read8(1), 0x11);
        assert_eq!((ports.read16(2), ports.read32(4)), (0x3322, 0x7766_5544));
        // Little-endian on the bus, and nothing beside.
        let mut expected = [0; 16];
        expected[4] = 0x3322_1100_u32.to_le();
        expected[5] = 0x7766_5544_u32.to_le();
        assert_eq!(memory, expected);
    }

    #[test]
    fn a_doorbell_is_a_store_of_its_value() {
        let mut memory = [0; 16];
        let window = window(&mut memory, 0);
        // SAFETY: plain memory.
        let ports = unsafe { IoRegion::new(window, 0x20, 0x20) }.unwrap();
        let bell = ports.notifier(16, 0x0102);
        assert!(matches!(bell, Notifier::Store16(_)), "{bell:?}");
        bell.notify();
        let isr = ports.isr_status(19);
        ports.write8(19, 3);
        assert_eq!(isr.take().bits(), 3);
        assert_eq!(memory[12].to_le(), 0x0300_0102);
    }

    #[test]
    fn a_region_must_be_inside_the_window() {
        let mut memory = [0; 16];
        let window = window(&mut memory, 0x1000);
        // SAFETY: nothing is accessed.
        let holds = |base, len| unsafe { IoRegion::new(window, base, len) }.is_some();
        assert!(holds(0x1000, 64) && holds(0x103f, 1));
        assert!(!holds(0xfff, 1) && !holds(0, 4) && !holds(0x1000, 65) && !holds(0x1040, 1));
    }

    #[test]
    fn a_window_ends_with_the_last_port_and_is_aligned() {
        let mut memory = [0; 16];
        let all = window(&mut memory, 0xffe0);
        assert!(all.holds(0xffe0, 32) && !all.holds(0xffe0, 33));
        let base = NonNull::from(&mut memory).cast::<u8>();
        // SAFETY: inside of the memory, and not accessed.
        let odd = unsafe { MmioRegion::new(base.add(2), 32) };
        assert!(IoWindow::new(odd, 0).is_none());
        // SAFETY: as above.
        let even = unsafe { MmioRegion::new(base, 32) };
        assert!(IoWindow::new(even, 2).is_none() && IoWindow::new(even, 4).is_some());
        // SAFETY: as above.
        let short = unsafe { MmioRegion::new(base, 3) };
        assert!(IoWindow::new(short, 0).is_none());
    }

    #[test]
    #[should_panic(expected = "no port 0x0011, 2 bytes wide")]
    fn a_port_that_is_not_aligned_is_refused() {
        let mut memory = [0; 16];
        let window = window(&mut memory, 0);
        // SAFETY: it does not come to an access.
        unsafe { window.write16(0x11, 0) };
    }
}
