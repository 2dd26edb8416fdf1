//! What a device gets that breaks the rules, of either kind of ring: an error that
//! names the value, and a queue that is not used any more.

use super::*;

/// A ring of 8 with two requests in flight, of a readable buffer and two writable
/// ones of 16 bytes each.
fn two_in_flight(dma: &FakeDma, features: Features) -> (Rig<'_>, [u32; 2]) {
    let mut rig = Rig::new(dma, 8, 0, features);
    let ids = [(); 2].map(|()| {
        let token = rig.add(&[false, true, true]).unwrap();
        rig.device.take().unwrap();
        token.index() as u32
    });
    (rig, ids)
}

#[test]
fn an_id_out_of_range() {
    // A packed ring's has 16 bits. In a split ring's 0x1_0003 is not 3.
    let dma = FakeDma::default();
    for kind in KINDS {
        let wide = [0x1_0000, 0x1_0003, u32::MAX];
        let split = !kind.contains(Features::RING_PACKED);
        let wide = wide.into_iter().filter(|_| split);
        for id in [8, 0x8000, 0xffff].into_iter().chain(wide) {
            let (mut rig, _) = two_in_flight(&dma, kind | Features::EVENT_IDX);
            rig.device.publish(id, 0);
            rig.breaks(QueueError::UsedId { id });
        }
    }
}

#[test]
fn an_id_that_is_not_in_flight() {
    // In a split ring also the middle and the end of a request, and a free one.
    let dma = FakeDma::default();
    for kind in KINDS {
        for id in 0..8 {
            let (mut rig, ids) = two_in_flight(&dma, kind);
            rig.device.publish(id, 0);
            if ids.contains(&id) {
                assert!(rig.ring.pop().unwrap().is_some());
            } else {
                rig.breaks(QueueError::UsedId { id });
            }
        }
    }
}

#[test]
fn a_request_that_comes_back_twice() {
    let dma = FakeDma::default();
    for kind in KINDS {
        let (mut rig, [_, id]) = two_in_flight(&dma, kind);
        rig.device.finish(id as u16, 0);
        rig.device.publish(id, 0);
        let (token, written) = (Token(id as u16), 0);
        assert_eq!(rig.ring.pop(), Ok(Some(Used { token, written })));
        rig.breaks(QueueError::UsedId { id });
    }
}

#[test]
fn a_length_that_is_more_than_was_writable() {
    // 32 bytes are writable, 48 are there.
    let dma = FakeDma::default();
    for kind in KINDS {
        for written in [33, 48, u32::MAX] {
            let (mut rig, [id, _]) = two_in_flight(&dma, kind);
            rig.device.publish(id, written);
            let writable = 32;
            rig.breaks(QueueError::UsedLength { written, writable });
        }
        let (mut rig, [id, _]) = two_in_flight(&dma, kind);
        rig.device.publish(id, 32);
        let (token, written) = (Token(id as u16), 32);
        assert_eq!(rig.ring.pop(), Ok(Some(Used { token, written })));
    }
}
