//! A legacy device's registers in a port space (virtio 1.2, 4.1.4.10) that
//! checks each access: its port, its direction and its width.

use core::fmt;
use std::cell::Cell;
use std::rc::Rc;

use super::device::{Shared, legacy_addresses};
use crate::port::IoSpace;
use crate::transport::{Interrupt, IsrStatus, Notifier};
use crate::virtio::Features;

/// Bytes in a page, the unit of the queue address.
const PAGE: u64 = 4096;

/// Ports that lead to a [`FakeDevice`](super::FakeDevice): made by its
/// [`ports`](super::FakeDevice::ports). An access that the interface does not
/// have panics.
#[derive(Clone)]
pub struct FakePorts<'d> {
    device: Rc<Shared<'d>>,
    base: u16,
    /// Offset of the device's configuration.
    config: usize,
    selected: Rc<Cell<u16>>,
    /// What the vector register that was written last reads.
    vector: Rc<Cell<u16>>,
}

impl fmt::Debug for FakePorts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakePorts")
    }
}

impl<'d> FakePorts<'d> {
    pub(super) fn new(device: Rc<Shared<'d>>, base: u16, msix: bool) -> Self {
        assert!(
            device.core.borrow().is_legacy(),
            "a legacy interface has a contiguous ring"
        );
        let config = if msix { 24 } else { 20 };
        Self {
            device,
            base,
            config,
            selected: Rc::default(),
            vector: Rc::default(),
        }
    }

    fn offset(&self, port: u16) -> usize {
        port.checked_sub(self.base)
            .expect("a port below the BAR")
            .into()
    }

    /// Where in the configuration the field of `width` bytes at `port` is.
    fn field(&self, port: u16, width: usize) -> usize {
        let offset = self.offset(port);
        let len = self.device.core.borrow().options.config.len();
        let inside = offset >= self.config && offset + width <= self.config + len;
        assert!(
            inside,
            "{width} bytes accessed at offset {offset}: no such register"
        );
        let at = offset - self.config;
        assert!(
            at.is_multiple_of(width),
            "{width} bytes accessed at {at}: not a field (4.1.3.1)"
        );
        at
    }

    /// Reads configuration of the width of `into` at `port`.
    fn read_config(&self, port: u16, into: &mut [u8]) {
        let at = self.field(port, into.len());
        self.device.core.borrow_mut().read_config(at, into);
    }

    fn write_config(&self, port: u16, from: &[u8]) {
        let at = self.field(port, from.len());
        self.device.core.borrow_mut().write_config(at, from);
    }

    fn size(&self) -> u16 {
        self.device
            .core
            .borrow_mut()
            .queue_size(self.selected.get())
    }

    fn write_address(&self, page: u32) {
        let queue = self.selected.get();
        let mut core = self.device.core.borrow_mut();
        if page == 0 {
            core.rings[usize::from(queue)] = None;
        } else {
            let size = core.queue_size(queue);
            let at = legacy_addresses(u64::from(page) * PAGE, size, PAGE as u32);
            core.enable(queue, size, at);
        }
    }

    fn address(&self) -> u32 {
        let core = self.device.core.borrow();
        let ring = core
            .rings
            .get(usize::from(self.selected.get()))
            .and_then(Option::as_ref);
        if core.options.refuse_queue {
            return 0;
        }
        ring.map_or(0, |ring| (ring.addresses().descriptors / PAGE) as u32)
    }
}

// SAFETY: no access reaches a port; doorbells and the ISR status are memory of
// the fake device's.
unsafe impl IoSpace for FakePorts<'_> {
    unsafe fn read8(&self, port: u16) -> u8 {
        match self.offset(port) {
            18 => self.device.core.borrow_mut().read_status(),
            _ => {
                let mut byte = [0];
                self.read_config(port, &mut byte);
                byte[0]
            }
        }
    }

    unsafe fn read16(&self, port: u16) -> u16 {
        match self.offset(port) {
            12 => self.size(),
            14 => self.selected.get(),
            20 | 22 if self.config == 24 => self.vector.get(),
            _ => {
                let mut bytes = [0; 2];
                self.read_config(port, &mut bytes);
                u16::from_le_bytes(bytes)
            }
        }
    }

    unsafe fn read32(&self, port: u16) -> u32 {
        match self.offset(port) {
            0 => self.device.core.borrow_mut().read_features().bits() as u32,
            8 => self.address(),
            _ => {
                let mut bytes = [0; 4];
                self.read_config(port, &mut bytes);
                u32::from_le_bytes(bytes)
            }
        }
    }

    unsafe fn write8(&self, port: u16, value: u8) {
        match self.offset(port) {
            18 => self.device.write_status(value),
            _ => self.write_config(port, &[value]),
        }
    }

    unsafe fn write16(&self, port: u16, value: u16) {
        match self.offset(port) {
            14 => self.selected.set(value),
            offset @ (20 | 22) if self.config == 24 => {
                let interrupt = match offset {
                    20 => Interrupt::ConfigChange,
                    _ => Interrupt::Queue(self.selected.get()),
                };
                let vector = (value != 0xffff).then_some(value);
                let mut core = self.device.core.borrow_mut();
                self.vector.set(core.set_vector(interrupt, vector));
            }
            _ => self.write_config(port, &value.to_le_bytes()),
        }
    }

    unsafe fn write32(&self, port: u16, value: u32) {
        match self.offset(port) {
            4 => self
                .device
                .core
                .borrow_mut()
                .accept(Features::from_bits_retain(value.into())),
            8 => self.write_address(value),
            _ => self.write_config(port, &value.to_le_bytes()),
        }
    }

    unsafe fn notifier(&self, port: u16, value: u16) -> Notifier {
        assert_eq!(self.offset(port), 16, "queue notify is at offset 16");
        self.device.notifier(value)
    }

    unsafe fn isr_status(&self, port: u16) -> IsrStatus {
        assert_eq!(self.offset(port), 19, "the ISR status is at offset 19");
        self.device.isr_status()
    }
}
