//! A transport that notes what goes through it, so that the host can be shown what
//! upstream's drivers keep to themselves.

use alloc::string::ToString;
use alloc::vec::Vec;
use alloc::{format, string::String};
use core::cell::{Cell, RefCell};

use doorbell::transport::{
    DeviceStatus, Interface, Interrupt, IsrStatus, Notifier, NotifyPath, QueueSize, RingAddresses,
    RingLayout, Transport, TransportError,
};
use doorbell::virtio::{Features, Wait};
use doorbell_kernel::drive::{Mode, Unit};
use doorbell_kernel::record::{DeviceRecord, QueueRecord};

use super::gpu;

/// What went through.
#[derive(Default)]
pub(super) struct Notes {
    features: Cell<Features>,
    queues: RefCell<Vec<Queue>>,
}

struct Queue {
    index: u16,
    size: u16,
    ring: RingAddresses,
}

impl Queue {
    /// The index with which a part of the ring begins, behind its flags (2.7.6, 2.7.8).
    ///
    /// # Safety
    ///
    /// The ring is still there.
    unsafe fn index_at(part: u64) -> u16 {
        let index = core::ptr::with_exposed_provenance::<u16>(part as usize + 2);
        // SAFETY: all memory is mapped at its own address, and by the caller's word
        // this is a ring's.
        unsafe { index.read_volatile() }
    }

    fn record(&self) -> QueueRecord {
        let (size, ring) = (self.size, self.ring);
        // SAFETY: who shows a device has a driver that is up, and so its rings.
        let (avail_idx, used_idx) =
            unsafe { (Self::index_at(ring.driver), Self::index_at(ring.device)) };
        QueueRecord {
            index: self.index,
            size,
            descriptors: ring.descriptors,
            driver: ring.driver,
            device: ring.device,
            avail_idx,
            used_idx,
        }
    }
}

/// The name of a feature bit, as the host has it.
fn feature(bit: u32, device_type: u16) -> String {
    match (device_type, Features::name(bit, device_type)) {
        (_, Some((prefix, name))) => format!("{prefix}{name}"),
        (gpu::DEVICE_TYPE, None) if bit == gpu::EDID => "VIRTIO_GPU_F_EDID".to_string(),
        (_, None) => format!("bit {bit}"),
    }
}

impl Notes {
    /// The record of a device that is up.
    pub(super) fn record(&self, unit: &Unit, path: (Interface, NotifyPath)) -> DeviceRecord {
        let features = self.features.get().numbers();
        DeviceRecord {
            device: unit.name(),
            place: unit.place.clone(),
            transport: path.0.to_string(),
            notify: path.1.to_string(),
            interrupts: Mode::Polling.name(),
            features: features.map(|bit| feature(bit, unit.device_type)).collect(),
            queues: self.queues.borrow().iter().map(Queue::record).collect(),
            about: "driven by virtio-drivers".to_string(),
        }
    }
}

/// A transport whose driver is noted.
pub(super) struct Observed<'t> {
    transport: &'t mut dyn Transport,
    notes: &'t Notes,
}

impl<'t> Observed<'t> {
    pub(super) fn new(transport: &'t mut dyn Transport, notes: &'t Notes) -> Self {
        Self { transport, notes }
    }
}

// SAFETY: all is the inner transport's own.
unsafe impl Transport for Observed<'_> {
    fn interface(&self) -> Interface {
        self.transport.interface()
    }

    fn notify_path(&self) -> NotifyPath {
        self.transport.notify_path()
    }

    fn device_type(&self) -> u16 {
        self.transport.device_type()
    }

    fn status(&self) -> DeviceStatus {
        self.transport.status()
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.transport.set_status(status);
    }

    fn reset(&mut self, wait: &mut dyn Wait) -> Result<(), TransportError> {
        self.notes.queues.borrow_mut().clear();
        self.transport.reset(wait)
    }

    fn device_features(&mut self) -> Features {
        self.transport.device_features()
    }

    fn accept_features(&mut self, features: Features) -> Result<(), TransportError> {
        self.notes.features.set(features);
        self.transport.accept_features(features)
    }

    fn queue_size(&mut self, queue: u16) -> Result<QueueSize, TransportError> {
        self.transport.queue_size(queue)
    }

    fn ring_layout(&self) -> RingLayout {
        self.transport.ring_layout()
    }

    unsafe fn enable_queue(
        &mut self,
        queue: u16,
        size: u16,
        ring: &RingAddresses,
    ) -> Result<Notifier, TransportError> {
        // SAFETY: the caller's promise.
        let notifier = unsafe { self.transport.enable_queue(queue, size, ring) }?;
        self.notes.queues.borrow_mut().push(Queue {
            index: queue,
            size,
            ring: *ring,
        });
        Ok(notifier)
    }

    fn reset_queue(&mut self, queue: u16, wait: &mut dyn Wait) -> Result<(), TransportError> {
        self.transport.reset_queue(queue, wait)
    }

    fn set_vector(
        &mut self,
        interrupt: Interrupt,
        vector: Option<u16>,
    ) -> Result<(), TransportError> {
        self.transport.set_vector(interrupt, vector)
    }

    fn isr_status(&self) -> IsrStatus {
        self.transport.isr_status()
    }

    fn config_generation(&self) -> u32 {
        self.transport.config_generation()
    }

    fn read_config(&self, offset: u16, width: u8, into: &mut [u8]) -> Result<(), TransportError> {
        self.transport.read_config(offset, width, into)
    }

    fn write_config(&mut self, offset: u16, width: u8, from: &[u8]) -> Result<(), TransportError> {
        self.transport.write_config(offset, width, from)
    }
}
