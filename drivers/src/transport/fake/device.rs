//! The fake device: its registers, its options, and its watch over the driver.

use core::ptr::NonNull;
use std::boxed::Box;
use std::cell::RefCell;
use std::format;
use std::rc::Rc;
use std::string::{String, ToString};
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};
use std::vec::Vec;

use virtio_spec::DeviceStatus;

use super::{Chain, DeviceRing, Event, FakePorts, FakeTransport, Lie, Options};
use crate::dma::fake::FakeDma;
use crate::mmio::MmioRegion;
use crate::transport::{Interrupt, IsrStatus, Notifier, RingAddresses, RingLayout};
use crate::virtio::Features;

/// What a doorbell holds that was not rung: no queue's index.
const SILENT: u16 = 0xffff;

/// What both sides hold.
pub(super) struct Shared<'d> {
    pub(super) core: RefCell<Core<'d>>,
    /// A doorbell a queue: it holds the value last written to it.
    bells: Box<[AtomicU16]>,
    isr: AtomicU8,
}

pub(super) struct Core<'d> {
    dma: &'d FakeDma,
    pub(super) options: Options,
    pub(super) generation: u32,
    status: u8,
    /// The bits that the driver has set since the last reset.
    set: u8,
    /// A reset that is not finished: for how many reads of the status yet.
    resetting: Option<u32>,
    features: Features,
    pub(super) rings: Vec<Option<DeviceRing<'d>>>,
    /// Whether the size of a queue was looked at.
    looked: bool,
    events: Vec<Event>,
    pub(super) violations: Vec<String>,
}

/// The device's side; see the module.
#[derive(Clone)]
pub struct FakeDevice<'d> {
    shared: Rc<Shared<'d>>,
}

impl Shared<'_> {
    /// What rings `queue`'s doorbell.
    pub(super) fn notifier(&self, queue: u16) -> Notifier {
        let bell = NonNull::new(self.bells[usize::from(queue)].as_ptr()).unwrap();
        // SAFETY: the cell is shared by both sides. A test that rings after both
        // are gone is itself at fault.
        unsafe { Notifier::store16(bell, queue) }
    }

    pub(super) fn isr_status(&self) -> IsrStatus {
        let cell = NonNull::new(self.isr.as_ptr()).unwrap();
        // SAFETY: as in `notifier`.
        let region = unsafe { MmioRegion::new(cell, 1) };
        IsrStatus::byte(region.registers(0).unwrap())
    }

    pub(super) fn write_status(&self, status: u8) {
        self.check_bells();
        if status == 0 {
            // What was rung in time, and not heard, was not rung after the reset.
            (0..self.bells.len()).for_each(|queue| _ = self.take_bell(queue));
        }
        self.core.borrow_mut().write_status(status);
    }

    /// Whether the bell was rung since the last question.
    fn take_bell(&self, queue: usize) -> bool {
        let value = self.bells[queue].swap(SILENT, Ordering::Relaxed);
        if value != SILENT && usize::from(value) != queue {
            let mut core = self.core.borrow_mut();
            core.violation(format!(
                "{value} was written to the doorbell of queue {queue}"
            ));
        }
        value != SILENT
    }

    /// Looks for doorbells that may not have been rung.
    fn check_bells(&self) {
        let live = self.core.borrow().is_live();
        for queue in 0..self.bells.len() {
            if !live && self.take_bell(queue) {
                let what = format!("queue {queue} was rung without DRIVER_OK (3.1.1)");
                self.core.borrow_mut().violation(what);
            }
        }
    }
}

impl Core<'_> {
    pub(super) fn violation(&mut self, what: impl ToString) {
        self.violations.push(what.to_string());
    }

    fn has(&self, bits: DeviceStatus) -> bool {
        self.status & bits.bits() == bits.bits()
    }

    fn is_live(&self) -> bool {
        self.has(DeviceStatus::DRIVER_OK)
    }

    pub(super) fn is_legacy(&self) -> bool {
        matches!(self.options.layout, RingLayout::Contiguous { .. })
    }

    pub(super) fn read_status(&mut self) -> u8 {
        if self.options.gone {
            return u8::MAX;
        }
        match self.resetting {
            Some(0) => self.finish_reset(),
            Some(u32::MAX) | None => {}
            Some(reads) => self.resetting = Some(reads - 1),
        }
        self.status
    }

    fn write_status(&mut self, status: u8) {
        self.events.push(Event::Status(status));
        if status == 0 {
            self.set = 0;
            // A device that is reset already has nothing to do.
            let reads = if self.status == 0 {
                0
            } else {
                self.options.reset_reads
            };
            self.resetting = Some(reads);
            return;
        }
        let bits = DeviceStatus::from_bits_retain(status);
        if self.resetting.is_some() && !bits.contains(DeviceStatus::FAILED) {
            self.violation("the status was written before the reset was finished (2.4.2)");
        }
        if self.set & !status != 0 {
            self.violation(format!(
                "status {:#x} was changed to {status:#x} (2.1.1)",
                self.set
            ));
        }
        let known = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
        let further = DeviceStatus::FEATURES_OK | DeviceStatus::DRIVER_OK;
        if bits.intersects(further) && !bits.contains(known) {
            self.violation(format!("status {status:#x} skips a step (3.1.1)"));
        }
        let mut kept = bits;
        if self.options.refuse_features {
            kept.remove(DeviceStatus::FEATURES_OK);
        }
        let ready = self.is_legacy() || kept.contains(DeviceStatus::FEATURES_OK);
        if kept.contains(DeviceStatus::DRIVER_OK) && !ready {
            self.violation("DRIVER_OK without FEATURES_OK (3.1.1)");
        }
        self.set |= status;
        self.status = kept.bits();
    }

    /// Takes a queue back from the device (2.6.1), after a last look that its memory
    /// was not freed before.
    pub(super) fn reset_queue(&mut self, queue: u16) {
        self.events.push(Event::ResetQueue(queue));
        if !self.features.contains(Features::RING_RESET) {
            self.violation(format!(
                "queue {queue} was reset without VIRTIO_F_RING_RESET"
            ));
        }
        if self.options.refuse_queue_reset {
            return;
        }
        match self
            .rings
            .get_mut(usize::from(queue))
            .and_then(Option::take)
        {
            Some(ring) => self.check_ring(ring),
            None => self.violation(format!("queue {queue} was reset, and is not enabled")),
        }
    }

    /// Binds an interrupt to a vector, and says what the register reads then.
    pub(super) fn set_vector(&mut self, interrupt: Interrupt, vector: Option<u16>) -> u16 {
        self.events.push(Event::Vector(interrupt, vector));
        if let Interrupt::Queue(queue) = interrupt
            && self
                .rings
                .get(usize::from(queue))
                .is_some_and(Option::is_some)
        {
            self.violation(format!(
                "queue {queue} got its vector after it was enabled (4.1.5.1.3)"
            ));
        }
        vector
            .filter(|&vector| vector < self.options.vectors)
            .unwrap_or(0xffff)
    }

    /// The driver may take its memory back now, and not earlier: a last look that
    /// it did not.
    fn finish_reset(&mut self) {
        self.check_memory();
        self.rings = self.options.queues.iter().map(|_| None).collect();
        (self.status, self.features, self.resetting) = (0, Features::empty(), None);
    }

    fn check_memory(&mut self) {
        for ring in core::mem::take(&mut self.rings).into_iter().flatten() {
            self.check_ring(ring);
        }
    }

    fn check_ring(&mut self, mut ring: DeviceRing<'_>) {
        if !ring.is_shared() {
            self.violation("a ring's memory was freed before the reset (2.4)");
            return;
        }
        while ring.take().is_some() {}
        self.violations.append(&mut ring.violations());
        if !ring.are_requests_shared() {
            self.violation("a request's memory was freed before the reset (2.4)");
        }
    }

    pub(super) fn read_features(&mut self) -> Features {
        self.events.push(Event::ReadFeatures);
        if !self.has(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER) {
            self.violation("features were read before DRIVER was set (3.1.1)");
        }
        self.options.features
    }

    pub(super) fn accept(&mut self, features: Features) {
        self.events.push(Event::Accept(features));
        let excess = features.difference(self.options.features);
        if excess != Features::empty() {
            self.violation(format!(
                "features {excess} were accepted, not offered (2.2.1)"
            ));
        }
        if self.is_legacy() && features.contains(Features::RING_PACKED) {
            self.violation("a legacy interface was asked for packed rings");
        }
        if self.status & (DeviceStatus::FEATURES_OK | DeviceStatus::DRIVER_OK).bits() != 0 {
            self.violation("features were accepted too late (3.1.1)");
        }
        self.features = features;
    }

    pub(super) fn queue_size(&mut self, queue: u16) -> u16 {
        let Some(&size) = self.options.queues.get(usize::from(queue)) else {
            return 0;
        };
        let again = core::mem::replace(&mut self.looked, true);
        if self.options.fickle && again {
            size * 2
        } else {
            size
        }
    }

    /// Takes a queue; the answer is whether it shows as enabled.
    pub(super) fn enable(&mut self, queue: u16, size: u16, at: RingAddresses) -> bool {
        self.events.push(Event::Enable(queue));
        let max = self.queue_size(queue);
        let fits = if self.is_legacy() {
            size == max
        } else {
            size <= max
        };
        let packed = self.features.contains(Features::RING_PACKED);
        let sound = if packed {
            (1..=0x8000).contains(&size)
        } else {
            size.is_power_of_two()
        };
        if !sound || !fits {
            self.violation(format!(
                "queue {queue} was given the size {size} of {max} (2.7, 2.8)"
            ));
        }
        // A queue that was reset may be enabled again at any time (2.6.1.2).
        let again = self.events.contains(&Event::ResetQueue(queue));
        let live = self.has(DeviceStatus::DRIVER_OK);
        if live && !again || !self.has(DeviceStatus::DRIVER) {
            self.violation(format!("queue {queue} was enabled out of turn (3.1.1)"));
        }
        if !self.is_legacy() && !self.has(DeviceStatus::FEATURES_OK) {
            self.violation(format!(
                "queue {queue} was enabled before FEATURES_OK (3.1.1)"
            ));
        }
        let driver = if packed { 4 } else { 2 };
        let parts = [(at.descriptors, 16), (at.driver, driver), (at.device, 4)];
        if !parts
            .iter()
            .all(|(address, align)| address.is_multiple_of(*align))
        {
            self.violation(format!(
                "queue {queue} is not aligned (2.7.1, 2.8.11): {at:x?}"
            ));
        }
        if let RingLayout::Contiguous { align } = self.options.layout
            && at != legacy_addresses(at.descriptors, size, align)
        {
            self.violation(format!("queue {queue} is not laid out by 2.7.2: {at:x?}"));
        }
        if self.rings[usize::from(queue)].is_some() {
            self.violation(format!("queue {queue} was enabled twice"));
        }
        let mut ring = DeviceRing::new(self.dma, size, at, self.features);
        if !ring.is_shared() {
            self.violation(format!("queue {queue} is not in shared memory"));
            return false;
        }
        if self.options.polls {
            ring.poll();
        }
        self.rings[usize::from(queue)] = Some(ring);
        !self.options.refuse_queue
    }

    pub(super) fn read_config(&mut self, at: usize, into: &mut [u8]) {
        self.events.push(Event::ReadConfig);
        if !self.has(DeviceStatus::DRIVER) {
            self.violation("configuration was read before DRIVER was set (3.1.1)");
        }
        if let Some(hook) = &mut self.options.config_hook {
            hook(&mut self.options.config, &mut self.generation);
        }
        into.copy_from_slice(&self.options.config[at..at + into.len()]);
    }

    pub(super) fn write_config(&mut self, at: usize, from: &[u8]) {
        self.events.push(Event::WriteConfig(at));
        // A console's `emerg_wr` may be written at any time (5.3.5).
        let emergency = (self.options.device_type, at) == (3, 8);
        if !self.has(DeviceStatus::DRIVER) && !emergency {
            self.violation("configuration was written before DRIVER was set (3.1.1)");
        }
        self.options.config[at..at + from.len()].copy_from_slice(from);
    }
}

/// Where the parts of a legacy ring are whose first byte is at `first`.
pub(super) fn legacy_addresses(first: u64, size: u16, align: u32) -> RingAddresses {
    let (size, align) = (u64::from(size), u64::from(align));
    let driver = first + 16 * size;
    let end = driver + 2 * (3 + size);
    // 2.7.2, with `qalign - 1` where it prints `qalign`.
    let device = (end + (align - 1)) & !(align - 1);
    RingAddresses {
        descriptors: first,
        driver,
        device,
    }
}

impl Drop for Core<'_> {
    fn drop(&mut self) {
        // A device that was never reset still has its rings.
        self.check_memory();
        if !std::thread::panicking() {
            assert!(
                self.violations.is_empty(),
                "the driver broke the rules: {:#?}",
                self.violations
            );
        }
    }
}

impl<'d> FakeDevice<'d> {
    /// A device that reaches the memory of `dma`.
    pub fn new(dma: &'d FakeDma, options: Options) -> Self {
        let queues = options.queues.len();
        let core = Core {
            dma,
            options,
            generation: 0,
            status: 0,
            set: 0,
            resetting: None,
            features: Features::empty(),
            rings: (0..queues).map(|_| None).collect(),
            looked: false,
            events: Vec::new(),
            violations: Vec::new(),
        };
        let bells = (0..queues).map(|_| AtomicU16::new(SILENT)).collect();
        let shared = Shared {
            core: RefCell::new(core),
            bells,
            isr: AtomicU8::new(0),
        };
        Self {
            shared: Rc::new(shared),
        }
    }

    /// A way to the device for a driver.
    pub fn transport(&self) -> FakeTransport<'d> {
        FakeTransport::new(self.shared.clone())
    }

    /// The device's legacy interface, at port `base`. Its configuration starts
    /// behind the vectors if `msix` is enabled.
    pub fn ports(&self, base: u16, msix: bool) -> FakePorts<'d> {
        FakePorts::new(self.shared.clone(), base, msix)
    }

    /// Changes what the device is.
    pub fn change(&self, change: impl FnOnce(&mut Options)) {
        change(&mut self.shared.core.borrow_mut().options);
    }

    /// Takes the device away: nothing answers any more, and it forgets its queues.
    pub fn unplug(&self) {
        let mut core = self.shared.core.borrow_mut();
        core.options.gone = true;
        core.rings.iter_mut().for_each(|ring| *ring = None);
    }

    /// Starts with a status that an earlier driver left.
    pub fn leave_status(&self, status: u8) {
        self.shared.core.borrow_mut().status = status;
    }

    /// Sets bits of the ISR status.
    pub fn raise(&self, bits: u8) {
        self.shared.isr.fetch_or(bits, Ordering::Relaxed);
    }

    /// The status, as it is without a look that would move a reset on.
    pub fn status(&self) -> DeviceStatus {
        DeviceStatus::from_bits_retain(self.shared.core.borrow().status)
    }

    /// The features that the driver accepted.
    pub fn features(&self) -> Features {
        self.shared.core.borrow().features
    }

    /// What the driver has done.
    pub fn events(&self) -> Vec<Event> {
        self.shared.core.borrow().events.clone()
    }

    /// What the driver did against the specification; forgotten after this.
    pub fn violations(&self) -> Vec<String> {
        self.shared.check_bells();
        let mut core = self.shared.core.borrow_mut();
        let mut all = core::mem::take(&mut core.violations);
        for ring in core.rings.iter_mut().flatten() {
            all.append(&mut ring.violations());
        }
        all
    }

    /// Whether the doorbell was rung since this was last asked, or requests
    /// processed.
    pub fn rang(&self, queue: u16) -> bool {
        self.shared.check_bells();
        self.shared.take_bell(queue.into())
    }

    fn with_ring<R>(&self, queue: u16, f: impl FnOnce(&mut DeviceRing<'d>) -> R) -> Option<R> {
        self.shared.check_bells();
        let mut core = self.shared.core.borrow_mut();
        if !core.is_live() {
            return None;
        }
        let ring = core.rings.get_mut(usize::from(queue))?.as_mut()?;
        let freed = !ring.is_shared();
        let result = (!freed).then(|| f(ring));
        let mut violations = ring.violations();
        core.violations.append(&mut violations);
        if freed {
            core.violation(format!(
                "the ring of queue {queue} was freed while it was in use"
            ));
        }
        result
    }

    /// Takes the next available request of a live queue, whether or not its
    /// doorbell rang.
    pub fn take(&self, queue: u16) -> Option<Chain<'d>> {
        self.with_ring(queue, DeviceRing::take)?
    }

    /// Gives a request back, or lies about it. A device that was reset since
    /// forgets it.
    pub fn finish(&self, queue: u16, chain: &Chain<'d>, written: u32) {
        let lie = self.shared.core.borrow().options.lie;
        let head = chain.head();
        self.with_ring(queue, |ring| match lie {
            None => ring.finish(head, written),
            Some(Lie::Id(id)) => ring.publish(id, written),
            Some(Lie::Replay) => {
                ring.finish(head, written);
                ring.publish(head.into(), written);
            }
            Some(Lie::Longer(more)) => ring.finish(head, written + more),
            Some(Lie::IndexAhead(by)) => ring.run_ahead(by),
            Some(Lie::Silent) => {}
        });
    }

    /// Serves all that is available, if the doorbell rang or the device polls:
    /// each request by `serve`, which says how much it wrote. Then asks for the
    /// doorbell again. Returns how many it served.
    pub fn process(&self, queue: u16, mut serve: impl FnMut(&Chain<'d>) -> u32) -> usize {
        let polls = self.shared.core.borrow().options.polls;
        if !self.rang(queue) && !polls {
            return 0;
        }
        let mut served = 0;
        loop {
            while let Some(chain) = self.take(queue) {
                let written = serve(&chain);
                self.finish(queue, &chain, written);
                served += 1;
            }
            let idle = self.with_ring(queue, |ring| {
                if polls {
                    ring.poll();
                    true
                } else {
                    ring.sleep()
                }
            });
            if idle.unwrap_or(true) {
                return served;
            }
        }
    }

    /// How many interrupts were due on a queue since it was enabled.
    pub fn interrupts(&self, queue: u16) -> u64 {
        self.with_ring(queue, |ring| ring.interrupts()).unwrap_or(0)
    }
}
