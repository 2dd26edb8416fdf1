use core::cell::UnsafeCell;
use core::ptr::NonNull;

use super::*;
use crate::transport::Notify;
use crate::virtio::Polls;

/// Registers that keep what is written to them.
struct Slot(std::boxed::Box<UnsafeCell<[u32; 0x80]>>);

impl Slot {
    fn new(version: u32, device: u32) -> Self {
        let mut slot = Self(std::boxed::Box::new(UnsafeCell::new([0; 0x80])));
        slot.set(register::MAGIC_VALUE, MAGIC);
        slot.set(register::VERSION, version);
        slot.set(register::DEVICE_ID, device);
        slot.set(register::QUEUE_SIZE_MAX, 128);
        slot
    }

    fn set(&mut self, offset: u64, value: u32) {
        // SAFETY: nobody holds a reference to the registers.
        unsafe { (*self.0.get())[offset as usize / 4] = value }
    }

    fn get(&self, offset: u64) -> u32 {
        // SAFETY: as in `set`.
        unsafe { (*self.0.get())[offset as usize / 4] }
    }

    fn region(&mut self) -> MmioRegion {
        // SAFETY: the slot outlives the transport in each test.
        unsafe { MmioRegion::new(NonNull::new(self.0.get()).unwrap().cast(), 0x200) }
    }
}

const RING: RingAddresses = RingAddresses {
    descriptors: 0x1_0000_3000,
    driver: 0x1_0000_4000,
    device: 0x5000,
};

#[test]
fn version_2_takes_three_addresses() {
    let mut slot = Slot::new(2, 4);
    let mut mmio = Mmio::probe(slot.region()).unwrap().unwrap();
    assert_eq!(
        (mmio.interface(), mmio.device_type()),
        (Interface::MmioV2, 4)
    );
    mmio.reset(&mut Polls(1)).unwrap();
    assert_eq!(mmio.queue_size(3), Ok(QueueSize::UpTo(128)));
    // SAFETY: nobody reads the ring.
    unsafe { mmio.enable_queue(3, 64, &RING) }.unwrap();
    assert_eq!(slot.get(register::QUEUE_SEL), 3);
    assert_eq!(slot.get(register::QUEUE_SIZE), 64);
    assert_eq!(slot.get(register::QUEUE_DESC), 0x3000);
    assert_eq!(slot.get(register::QUEUE_DESC + 4), 1);
    assert_eq!(slot.get(register::QUEUE_DRIVER), 0x4000);
    assert_eq!(slot.get(register::QUEUE_DEVICE), 0x5000);
    assert_eq!(slot.get(register::QUEUE_READY), 1);
    // SAFETY: as above.
    let again = unsafe { mmio.enable_queue(3, 64, &RING) };
    assert_eq!(again.unwrap_err(), TransportError::QueueInUse { queue: 3 });
}

#[test]
fn version_1_takes_a_page_number() {
    let mut slot = Slot::new(1, 2);
    let mut mmio = Mmio::probe(slot.region()).unwrap().unwrap();
    assert_eq!(mmio.ring_layout(), RingLayout::Contiguous { align: 4096 });
    // SAFETY: nobody reads the ring.
    unsafe { mmio.enable_queue(0, 128, &RING) }.unwrap();
    assert_eq!(slot.get(register::QUEUE_PFN), 0x10_0003);
    assert_eq!(slot.get(register::QUEUE_ALIGN), 4096);
    assert_eq!(slot.get(register::GUEST_PAGE_SIZE), 4096);
}

#[test]
fn what_is_no_device_is_named() {
    assert!(
        Mmio::probe(Slot::new(2, 0).region()).unwrap().is_none(),
        "an empty slot"
    );
    let error = Mmio::probe(Slot::new(3, 4).region()).unwrap_err();
    assert_eq!(error, ProbeError::Version { version: 3 });
    let mut slot = Slot::new(2, 4);
    slot.set(register::MAGIC_VALUE, 0xffff_ffff);
    let error = Mmio::probe(slot.region()).unwrap_err();
    assert_eq!(
        std::format!("{error}"),
        "no virtio-mmio device: the magic value is 0xffffffff"
    );
}

#[test]
fn a_queue_must_fit_the_device() {
    let mut slot = Slot::new(2, 4);
    let mut mmio = Mmio::probe(slot.region()).unwrap().unwrap();
    // SAFETY: nobody reads the ring.
    let error = unsafe { mmio.enable_queue(0, 256, &RING) }.unwrap_err();
    assert_eq!(
        error,
        TransportError::QueueSize {
            queue: 0,
            size: 256
        }
    );
    slot.set(register::QUEUE_SIZE_MAX, 0);
    assert_eq!(
        mmio.queue_size(9),
        Err(TransportError::NoQueue { queue: 9 })
    );
}

#[test]
fn configuration_is_read_by_its_fields_width_and_inside_its_bounds() {
    let mut slot = Slot::new(2, 2);
    slot.set(register::CONFIG, 0x0403_0201);
    slot.set(register::CONFIG + 4, 0x0807_0605);
    let mmio = Mmio::probe(slot.region()).unwrap().unwrap();
    assert_eq!(
        super::super::read_config_u64(&mmio, 0),
        Ok(0x0807_0605_0403_0201)
    );
    assert_eq!(super::super::read_config_u32(&mmio, 6, 2), Ok(0x0807));
    let error = super::super::read_config_u32(&mmio, 0xfe, 4).unwrap_err();
    assert_eq!(
        error,
        TransportError::ConfigRange {
            offset: 0xfe,
            len: 4,
            available: 0x100
        }
    );
}

#[test]
fn a_legacy_slot_negotiates_32_bits() {
    for (version, offered) in [(1, 0xffff_ffff), (2, u64::MAX)] {
        let mut slot = Slot::new(version, 4);
        slot.set(register::DEVICE_FEATURES, u32::MAX);
        let mut mmio = Mmio::probe(slot.region()).unwrap().unwrap();
        assert_eq!(mmio.device_features(), Features::from_bits_retain(offered));
    }
}

#[test]
fn interrupts_are_acknowledged_and_doorbells_take_the_queues_index() {
    // 4.2.2, 4.2.3.3
    let mut slot = Slot::new(2, 4);
    slot.set(register::INTERRUPT_STATUS, 3);
    slot.set(register::QUEUE_NOTIFY, u32::MAX);
    let mut mmio = Mmio::probe(slot.region()).unwrap().unwrap();
    assert_eq!(mmio.isr_status().take().bits(), 3);
    assert_eq!(slot.get(register::INTERRUPT_ACK), 3);
    // SAFETY: nobody reads the ring.
    unsafe { mmio.enable_queue(5, 64, &RING) }.unwrap().notify();
    assert_eq!(slot.get(register::QUEUE_NOTIFY), 5);
}

#[test]
fn configuration_is_written_by_its_fields_width_and_inside_its_bounds() {
    for version in [1, 2] {
        let mut slot = Slot::new(version, 1);
        slot.set(register::CONFIG, 0x4444_4444);
        slot.set(register::CONFIG + 8, 0x4444_4444);
        let mut mmio = Mmio::probe(slot.region()).unwrap().unwrap();
        mmio.write_config(1, 1, &[1, 2]).unwrap();
        assert_eq!(slot.get(register::CONFIG), 0x4402_0144);
        mmio.write_config(2, 2, &[3, 4]).unwrap();
        assert_eq!(slot.get(register::CONFIG), 0x0403_0144);
        mmio.write_config(4, 4, &[5, 6, 7, 8, 9, 10, 11, 12])
            .unwrap();
        assert_eq!(slot.get(register::CONFIG + 4), 0x0807_0605);
        assert_eq!(slot.get(register::CONFIG + 8), 0x0c0b_0a09);
        for (offset, width, len) in [(0xfe, 4, 4), (0, 4, 6), (0, 3, 3), (2, 4, 4), (1, 2, 2)] {
            let error = TransportError::ConfigRange {
                offset,
                len,
                available: 0x100,
            };
            let written = mmio.write_config(offset, width, &[0xff; 8][..len]);
            assert_eq!(written, Err(error));
        }
        assert_eq!(slot.get(register::CONFIG), 0x0403_0144, "untouched");
    }
}

#[test]
fn there_are_no_vectors() {
    let mut slot = Slot::new(2, 4);
    let mut mmio = Mmio::probe(slot.region()).unwrap().unwrap();
    for interrupt in [Interrupt::ConfigChange, Interrupt::Queue(0)] {
        let error = mmio.set_vector(interrupt, Some(0));
        assert_eq!(error, Err(TransportError::NoVectors));
    }
}

#[test]
fn a_queue_is_reset_when_both_registers_say_so() {
    // 4.2.2
    let mut slot = Slot::new(2, 4);
    let mut mmio = Mmio::probe(slot.region()).unwrap().unwrap();
    // SAFETY: nobody reads the ring.
    let enable = |mmio: &mut Mmio| unsafe { mmio.enable_queue(3, 64, &RING) }.map(drop);
    enable(&mut mmio).unwrap();
    mmio.write(register::QUEUE_SEL, 0);
    let mut looks = 0;
    let mut wait = || {
        looks += 1;
        assert_eq!(slot.get(register::QUEUE_SEL), 3);
        assert_eq!(slot.get(register::QUEUE_RESET), 1);
        if looks == 3 {
            slot.set(register::QUEUE_RESET, 0);
            slot.set(register::QUEUE_READY, 0);
        }
        true
    };
    mmio.reset_queue(3, &mut wait).unwrap();
    assert_eq!(looks, 3);
    enable(&mut mmio).unwrap();

    let timeout = TransportError::QueueResetTimeout { queue: 3 };
    assert_eq!(mmio.reset_queue(3, &mut Polls(5)), Err(timeout));
    // A device that only says that it did still has the queue.
    let mut wait = || {
        slot.set(register::QUEUE_RESET, 0);
        true
    };
    let error = mmio.reset_queue(3, &mut wait);
    assert_eq!(error, Err(TransportError::NoQueueReset { queue: 3 }));
    slot.set(register::QUEUE_SIZE_MAX, 0);
    let error = mmio.reset_queue(9, &mut Polls(1));
    assert_eq!(error, Err(TransportError::NoQueue { queue: 9 }));
}

#[test]
fn a_legacy_slot_resets_no_queue_by_itself() {
    let mut slot = Slot::new(1, 4);
    let mut mmio = Mmio::probe(slot.region()).unwrap().unwrap();
    let error = mmio.reset_queue(0, &mut Polls(1));
    assert_eq!(error, Err(TransportError::NoQueueReset { queue: 0 }));
    assert_eq!(slot.get(register::QUEUE_RESET), 0);
}
