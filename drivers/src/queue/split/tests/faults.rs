//! What a device gets that breaks the rules: an error that names the value, and a
//! queue that is not used any more.

use super::*;

/// A ring of 8 with requests in flight that start with descriptors 0 and 3.
fn two_in_flight(dma: &FakeDma, features: Features) -> Rig<'_> {
    let mut rig = Rig::new(dma, 8, 0, features);
    for head in [0, 3] {
        assert_eq!(rig.add(&[false, true, true]), Ok(Token(head)));
        rig.device.take().unwrap();
    }
    rig
}

#[test]
fn a_legacy_devices_length_is_cut_to_what_was_writable() {
    // 2.7.8.1, 5.2.6.3: such devices may report more than they wrote.
    let dma = FakeDma::default();
    for (says, written) in [(48, 32), (u32::MAX, 32), (7, 7)] {
        let mut rig = two_in_flight(&dma, Features::empty());
        rig.device.publish(3, says);
        assert_eq!(
            rig.ring.pop(),
            Ok(Some(Used {
                token: Token(3),
                written
            }))
        );
    }
}

#[test]
fn an_index_that_runs_ahead() {
    let dma = FakeDma::default();
    for index in [3, 8, 9, 0x8000, 0xffff] {
        let mut rig = two_in_flight(&dma, DIRECT);
        rig.device.run_ahead(index);
        rig.breaks(QueueError::UsedIndex {
            index,
            seen: 0,
            in_flight: 2,
        });
    }
    // Two were in flight, one of them is back: one more may be.
    let mut rig = two_in_flight(&dma, DIRECT);
    rig.device.finish(0, 0);
    rig.ring.pop().unwrap().unwrap();
    rig.device.run_ahead(2);
    rig.breaks(QueueError::UsedIndex {
        index: 3,
        seen: 1,
        in_flight: 1,
    });
}

#[test]
fn an_answer_to_nothing() {
    let dma = FakeDma::default();
    let mut rig = Rig::new(&dma, 8, 0, DIRECT);
    rig.device.publish(0, 0);
    rig.breaks(QueueError::UsedIndex {
        index: 1,
        seen: 0,
        in_flight: 0,
    });
}

#[test]
fn what_a_device_writes_into_descriptors_is_not_believed() {
    let dma = FakeDma::default();
    let mut rig = two_in_flight(&dma, DIRECT);
    // A device that writes the descriptor table makes all chains endless.
    let table = dma.cpu_pointer(rig.ring.addresses().descriptors, 8 * 16);
    for index in 0..8 {
        // SAFETY: inside the table; the driver does not read it.
        unsafe {
            table
                .add(16 * index + 12)
                .cast::<[u16; 2]>()
                .write([1, index as u16])
        };
    }
    for head in [0, 3] {
        rig.device.finish(head, 0);
        rig.ring.pop().unwrap().unwrap();
    }
    for _ in 0..8 {
        rig.add(&[true]).unwrap();
        rig.device.take().unwrap();
    }
    rig.no_violations();
}
