use super::*;

/// Whether the step from `old` to `new` writes the entry with index `event`: what
/// 2.7.10.1 asks for each single entry.
fn reference(event: u16, new: u16, old: u16) -> bool {
    (0..new.wrapping_sub(old)).any(|step| old.wrapping_add(step) == event)
}

#[test]
fn an_event_is_met_exactly_when_a_step_passes_it() {
    // 2.7.10
    let edges = [
        0, 1, 2, 0x7ffe, 0x7fff, 0x8000, 0x8001, 0xfffd, 0xfffe, 0xffff,
    ];
    let edges = if cfg!(miri) { &edges[..2] } else { &edges[..] };
    for &event in edges {
        for &new in edges {
            for &old in edges {
                assert_eq!(
                    need_event(event, new, old),
                    reference(event, new, old),
                    "event {event} new {new} old {old}"
                );
            }
        }
    }
    let mut random = Random(7);
    for _ in 0..if cfg!(miri) { 50 } else { 10_000 } {
        let old = random.below(0x1_0000) as u16;
        let new = old.wrapping_add(random.below(40) as u16);
        let event = old.wrapping_add(random.below(80) as u16).wrapping_sub(20);
        assert_eq!(need_event(event, new, old), reference(event, new, old));
    }
}

#[test]
fn indices_wrap() {
    // 2.7.13.3: an index wraps at 65536. The device sleeps after each batch, so
    // each batch is due a doorbell (2.7.10.1).
    let dma = FakeDma::default();
    for features in [DIRECT, EVENT_IDX] {
        let mut rig = Rig::new(&dma, 8, 0, features);
        let mut random = Random(3);
        let mut requests = 0;
        while requests < if cfg!(miri) { 100 } else { 140_000 } {
            assert!(!rig.ring.needs_notification(), "nothing new");
            assert!(rig.device.sleep());
            let batch = 1 + random.below(8) as u32;
            for _ in 0..batch {
                rig.add(&[true]).unwrap();
            }
            assert!(
                rig.ring.needs_notification(),
                "a doorbell is lost after {requests}"
            );
            for request in requests..requests + batch {
                rig.serve(request % 17);
                let used = rig.ring.pop().unwrap().expect("it was finished");
                assert_eq!(used.written, request % 17);
            }
            requests += batch;
        }
        rig.no_violations();
    }
}

/// Moves both sides' indices on, to `index`.
fn advance(rig: &mut Rig, index: u16) {
    while rig.ring.avail_idx != index {
        rig.add(&[true]).unwrap();
        rig.serve(0);
        rig.ring.pop().unwrap().unwrap();
    }
    rig.ring.needs_notification();
}

#[test]
fn a_batch_that_spans_the_wrap_meets_each_event_in_it_and_no_other() {
    // 2.7.10.1
    let first = if cfg!(miri) { 3u16 } else { 0xfffd };
    for offset in 0..12u16 {
        let dma = FakeDma::default();
        let mut rig = Rig::new(&dma, 8, 0, EVENT_IDX);
        advance(&mut rig, first);
        // From two entries before the batch of 6 to four behind it.
        rig.device
            .ask_at(first.wrapping_add(offset).wrapping_sub(2));
        for _ in 0..6 {
            rig.add(&[true]).unwrap();
        }
        assert_eq!(
            rig.ring.needs_notification(),
            (2..8).contains(&offset),
            "offset {offset}"
        );
        assert!(!rig.ring.needs_notification(), "once is enough");
    }
}

#[test]
#[cfg_attr(miri, ignore = "too many steps")]
fn a_batch_that_went_all_the_way_round_rings() {
    let dma = FakeDma::default();
    let mut rig = Rig::new(&dma, 8, 0, EVENT_IDX);
    for _ in 0..0x1_0000 {
        rig.add(&[true]).unwrap();
        rig.serve(0);
        rig.ring.pop().unwrap().unwrap();
    }
    assert!(rig.ring.needs_notification());
    assert!(!rig.ring.needs_notification());
}

#[test]
fn unwanted_interrupts_are_not_provoked_by_taking_requests_back() {
    // 2.7.7.2: the device writes its index, and then asks whether that step
    // passed `used_event`. The driver may take the request back in between.
    let dma = FakeDma::default();
    let mut rig = Rig::new(&dma, 8, 0, EVENT_IDX);
    rig.ring.set_interrupts(false);
    for old in 0..20u16 {
        rig.add(&[true]).unwrap();
        rig.serve(1);
        assert!(rig.ring.pop().unwrap().is_some());
        let event = u16::from_le(rig.ring.used_event().load(Ordering::Relaxed));
        let new = old.wrapping_add(1);
        assert!(!need_event(event, new, old), "event {event} at {new}");
    }
}
