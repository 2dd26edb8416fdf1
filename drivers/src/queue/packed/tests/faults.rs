//! What a device gets that breaks the rules of a packed ring.

use super::*;

/// A ring of 7 with requests 0 and 1 in flight, in descriptors 0 to 2 and 3 to 5.
fn two_in_flight(dma: &FakeDma) -> Rig<'_> {
    let mut rig = Rig::new(dma, 7, 0, EVENT_IDX);
    for id in [0, 1] {
        assert_eq!(rig.add(&[false, true, true]), Ok(Token(id)));
        rig.device.take().unwrap();
    }
    rig
}

/// Writes the flags of descriptor `index`, as a device could.
fn write_flags(rig: &Rig<'_>, index: u16, flags: u16) {
    rig.ring
        .flags(index)
        .store(flags.to_le(), Ordering::Relaxed);
}

#[test]
fn flags_that_are_neither_of_an_available_nor_of_a_used_descriptor() {
    // 2.8.1, 2.8.15: the driver waits at descriptor 0 with counter 1.
    let dma = FakeDma::default();
    for flags in [0, WRITE, USED, USED | NEXT] {
        let mut rig = two_in_flight(&dma);
        write_flags(&rig, 0, flags);
        assert!(!rig.ring.has_used());
        rig.breaks(QueueError::UsedFlags { index: 0, flags });
    }
    // Other flags of one that is still the device's do not matter.
    let mut rig = two_in_flight(&dma);
    write_flags(&rig, 0, AVAIL | 0x7f7f);
    assert_eq!(rig.ring.pop(), Ok(None));
    // Nor does anything with nothing in flight, but what would be used.
    for flags in [0, AVAIL, USED, 0xffff] {
        let mut rig = Rig::new(&dma, 7, 0, EVENT_IDX);
        write_flags(&rig, 0, flags);
        if flags == 0xffff {
            rig.breaks(QueueError::UsedId { id: 0 });
        } else {
            assert_eq!(rig.ring.pop(), Ok(None));
        }
    }
}

#[test]
fn an_id_that_is_still_in_a_descriptor_of_old() {
    // The device marks more as used than it has, and leaves what is in them.
    let dma = FakeDma::default();
    let mut rig = Rig::new(&dma, 7, 0, PACKED);
    for _ in 0..9 {
        rig.round(&[true], 3);
    }
    let token = rig.add(&[true]).unwrap();
    rig.device.take().unwrap();
    rig.device.run_ahead(3);
    let used = rig.ring.pop().unwrap().unwrap();
    assert_eq!(used.token, token);
    rig.breaks(QueueError::UsedId { id: 0 });
}

#[test]
fn a_length_counts_for_what_it_can_be_without_the_write_flag() {
    // 2.8.3, 2.8.4: then it is reserved. QEMU (to 9 at least) sets no such flag, but
    // the length.
    let dma = FakeDma::default();
    for (says, written) in [(0, 0), (7, 7), (32, 32), (33, 0), (u32::MAX, 0)] {
        let mut rig = two_in_flight(&dma);
        rig.device.finish(0, says);
        write_flags(&rig, 0, AVAIL | USED);
        let token = Token(0);
        assert_eq!(rig.ring.pop(), Ok(Some(Used { token, written })));
    }
    // 2.8.6: NEXT in a used descriptor is to be ignored.
    let mut rig = two_in_flight(&dma);
    rig.device.finish(0, 5);
    write_flags(&rig, 0, AVAIL | USED | NEXT | WRITE | INDIRECT);
    assert_eq!(rig.ring.pop().unwrap().unwrap().written, 5);
}

#[test]
fn what_a_device_writes_into_descriptors_is_not_believed() {
    // Lengths and IDs of requests in flight are the driver's own notes.
    let dma = FakeDma::default();
    let mut rig = two_in_flight(&dma);
    let ring = dma.cpu_pointer(rig.ring.addresses().descriptors, 7 * 16);
    for index in 0..7 {
        // SAFETY: inside the ring; the driver reads it only where it is used.
        unsafe { ring.add(16 * index).cast::<[u8; 14]>().write([0xff; 14]) };
    }
    for id in [1, 0] {
        rig.device.finish(id, 32);
        let used = rig.ring.pop().unwrap().unwrap();
        assert_eq!((used.token, used.written), (Token(id), 32));
    }
    for _ in 0..7 {
        rig.add(&[true]).unwrap();
        rig.device.take().unwrap();
    }
    rig.no_violations();
}
