//! Requests on their way there and back, in both kinds of ring.

use super::*;

#[test]
fn a_request_arrives_as_it_was_made() {
    // 2.7.13.1, 2.8.21.1
    let dma = FakeDma::default();
    for kind in KINDS {
        let mut rig = Rig::new(&dma, 8, 0, kind);
        let token = rig.add(&[false, false, true, true]).unwrap();
        let buffers = rig.buffers(&[false, false, true, true]);
        let chain = rig.device.take().unwrap();
        assert_eq!(usize::from(chain.head()), token.index());
        assert_eq!(chain.buffers(), buffers, "in order, with flags");
        assert_eq!(chain.descriptors(), 4);
        assert!(rig.device.take().is_none());
        rig.no_violations();

        assert!(!rig.ring.has_used());
        assert_eq!(rig.ring.pop(), Ok(None));
        assert_eq!(rig.ring.in_flight(), 1);
        rig.device.finish(chain.head(), 20);
        assert!(rig.ring.has_used());
        assert_eq!(rig.ring.pop(), Ok(Some(Used { token, written: 20 })));
        assert_eq!(rig.ring.in_flight(), 0);
        assert!(!rig.ring.has_used());
        assert_eq!(rig.ring.pop(), Ok(None));
    }
}

#[test]
fn a_table_takes_one_descriptor_of_the_ring() {
    // 2.7.5.3, 2.8.7
    let dma = FakeDma::default();
    for kind in KINDS {
        let mut rig = Rig::new(&dma, 4, 3, kind | Features::INDIRECT_DESC);
        for _ in 0..4 {
            rig.add(&[false, true, true]).unwrap();
        }
        let error = QueueError::Full { needed: 1, free: 0 };
        assert_eq!(
            rig.add(&[false, true]),
            Err(error),
            "four descriptors, four requests"
        );
        let buffers = rig.buffers(&[false, true, true]);
        for _ in 0..4 {
            let chain = rig.device.take().unwrap();
            assert!(chain.is_indirect());
            assert_eq!((chain.descriptors(), chain.buffers()), (1, &buffers[..]));
        }
        rig.no_violations();
    }
}

#[test]
fn a_table_is_used_only_where_it_helps_and_may_be() {
    let dma = FakeDma::default();
    for kind in KINDS {
        let with = kind | Features::INDIRECT_DESC;
        // One buffer; more than a table holds; without the feature (2.7.5.3.1,
        // 2.8.19).
        for (indirect, features, count) in [(3, with, 1), (3, with, 4), (4, kind, 4)] {
            let mut rig = Rig::new(&dma, 8, indirect, features);
            rig.add(&[true; 4][..count]).unwrap();
            let chain = rig.device.take().unwrap();
            assert_eq!((chain.is_indirect(), chain.descriptors()), (false, count));
            rig.no_violations();
        }
        let before = dma.live();
        drop(AnyRing::make(&dma, 8, 1, with));
        // What is left is the ring itself; no tables.
        assert_eq!(dma.live(), before + 1);
    }
}

#[test]
fn a_request_that_no_queue_takes_is_refused() {
    let dma = FakeDma::default();
    for kind in KINDS {
        for features in [kind, kind | Features::INDIRECT_DESC] {
            let mut rig = Rig::new(&dma, 4, 8, features);
            let refused = |buffers| Err(QueueError::Chain { buffers });
            assert_eq!(rig.add(&[]), refused(0), "empty (2.7.13.1, 2.8)");
            assert_eq!(
                rig.add(&[true; 5]),
                refused(5),
                "longer than the queue (2.7.5.3.1, 2.8.17)"
            );
            assert_eq!(
                rig.add(&[true, false]),
                refused(2),
                "writable ones go last (2.7.4.2, 2.8.17)"
            );
            let mut buffers = rig.buffers(&[false, true]);
            buffers[1].len = 0;
            // SAFETY: no buffer is taken.
            let empty = unsafe { rig.ring.add(&buffers) };
            assert_eq!(empty, refused(2), "a buffer without bytes");
            (buffers[0].len, buffers[1].len) = (u32::MAX, 1);
            // SAFETY: no buffer is taken.
            let huge = unsafe { rig.ring.add(&buffers) };
            assert_eq!(huge, refused(2), "4 GiB (2.7.5.2)");
            assert_eq!(rig.ring.in_flight(), 0);
            assert!(!rig.device.is_waiting());
            rig.add(&[true; 4]).unwrap();
            assert!(rig.device.take().is_some());
            rig.no_violations();
        }
    }
}

#[test]
fn a_full_queue_says_so_and_takes_more_later() {
    // 2.7.13, 2.8.17: room for the whole request comes first.
    let dma = FakeDma::default();
    for kind in KINDS {
        let mut rig = Rig::new(&dma, 8, 0, kind);
        rig.add(&[true; 3]).unwrap();
        rig.add(&[true; 3]).unwrap();
        assert_eq!(
            rig.add(&[true; 3]),
            Err(QueueError::Full { needed: 3, free: 2 })
        );
        rig.add(&[true; 2]).unwrap();
        let full = QueueError::Full { needed: 1, free: 0 };
        assert_eq!(rig.add(&[true]), Err(full));
        assert_eq!(rig.ring.next_token(), Err(full));
        assert!(!full.is_device_fault());
        rig.serve(0);
        assert_eq!(rig.add(&[true]), Err(full), "not before it is taken back");
        rig.ring.pop().unwrap().unwrap();
        let next = rig.ring.next_token().unwrap();
        assert_eq!(rig.add(&[true; 3]), Ok(next));
        rig.no_violations();
    }
}

#[test]
fn requests_may_finish_in_any_order() {
    // 2.7.8, 2.8: a packed ring is skipped forward by the length of the chain that
    // was used, not of the one that lay there (2.8.6).
    let dma = FakeDma::default();
    for kind in KINDS {
        let with = kind | Features::INDIRECT_DESC;
        for (indirect, features) in [(0, kind), (3, with), (2, with | Features::EVENT_IDX)] {
            let mut rig = Rig::new(&dma, 16, indirect, features);
            let mut random = Random(1);
            let (mut taken, mut tokens) = (Vec::new(), Vec::new());
            for _ in 0..if cfg!(miri) { 300 } else { 20_000 } {
                match random.below(4) {
                    0 | 1 => match rig.add(&[true; 4][..1 + random.below(4)]) {
                        Ok(token) => tokens.push(token),
                        Err(error) => assert!(matches!(error, QueueError::Full { .. }), "{error}"),
                    },
                    2 => taken.extend(rig.device.take()),
                    _ if taken.is_empty() => {}
                    _ => {
                        let chain = taken.swap_remove(random.below(taken.len()));
                        let written = random.below(16) as u32;
                        rig.device.finish(chain.head(), written);
                        let used = rig.ring.pop().unwrap().unwrap();
                        assert_eq!(used.token.index(), usize::from(chain.head()));
                        assert_eq!(used.written, written);
                        let at = tokens.iter().position(|&token| token == used.token);
                        tokens.swap_remove(at.expect("it was in flight, once"));
                    }
                }
                assert_eq!(usize::from(rig.ring.in_flight()), tokens.len());
            }
            taken.extend(core::iter::from_fn(|| rig.device.take()));
            for chain in taken {
                rig.device.finish(chain.head(), 0);
                rig.ring.pop().unwrap().unwrap();
            }
            // No descriptor was lost, and none is there twice.
            for _ in 0..16 {
                rig.add(&[true]).unwrap();
                assert!(rig.device.take().is_some());
            }
            rig.no_violations();
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "too many steps")]
fn the_largest_ring_holds_as_many_requests() {
    // 2.7, 2.8: 32768.
    let dma = FakeDma::default();
    for kind in KINDS {
        let mut rig = Rig::new(&dma, 0x8000, 0, kind | Features::EVENT_IDX);
        for _ in 0..3 {
            let mut heads = Vec::new();
            for _ in 0..0x8000 {
                rig.add(&[true]).unwrap();
            }
            let full = QueueError::Full { needed: 1, free: 0 };
            assert_eq!(rig.add(&[true]), Err(full));
            rig.add(&[true; 40]).unwrap_err();
            heads.extend(core::iter::from_fn(|| {
                rig.device.take().map(|it| it.head())
            }));
            assert_eq!(heads.len(), 0x8000);
            // The device finishes them all before the driver looks.
            for &head in heads.iter().rev() {
                rig.device.finish(head, 1);
            }
            for &head in heads.iter().rev() {
                let used = rig.ring.pop().unwrap().unwrap();
                assert_eq!(used.token, Token(head));
            }
            assert_eq!(rig.ring.pop(), Ok(None));
            // So that the next lot does not begin where this one did.
            rig.round(&[true; 5], 80);
        }
        rig.no_violations();
    }
}

#[test]
fn the_ring_is_freed_on_release_only() {
    let dma = FakeDma::default();
    for kind in KINDS {
        let before = dma.live();
        let mut rig = Rig::new(&dma, 8, 3, kind | Features::INDIRECT_DESC);
        rig.add(&[false, true]).unwrap();
        assert_eq!(dma.live(), before + 4, "ring, tables, notes, data");
        // SAFETY: the device is a fake, and does nothing more.
        unsafe { rig.ring.release() };
        assert_eq!(dma.live(), before + 2, "notes, data");
        assert_eq!(rig.add(&[true]), Err(QueueError::Broken));
        assert_eq!(rig.ring.pop(), Err(QueueError::Broken));
        assert!(!rig.ring.has_used());
        assert!(!rig.ring.needs_notification());
        rig.ring.set_interrupts(true);
        // SAFETY: as above.
        unsafe { rig.ring.clear() };
        assert_eq!(rig.add(&[true]), Err(QueueError::Broken));
        drop(rig);
        assert_eq!(dma.live(), before);

        drop(Rig::new(&dma, 8, 3, kind | Features::INDIRECT_DESC));
        assert_eq!(
            dma.live(),
            before + 2,
            "a device may still use ring and tables"
        );
    }
}

#[test]
fn a_ring_that_is_cleared_is_as_new() {
    // 2.6.1
    let dma = FakeDma::default();
    for kind in KINDS {
        for wanted in [true, false] {
            let features = kind | Features::EVENT_IDX;
            let mut rig = Rig::new(&dma, 4, 0, features);
            rig.ring.set_interrupts(wanted);
            rig.round(&[true; 2], 1);
            // One stays in flight, and the free numbers are out of order.
            let tokens = [(); 3].map(|()| rig.add(&[true]).unwrap());
            while rig.device.take().is_some() {}
            for token in [tokens[1], tokens[0]] {
                rig.device.finish(token.index() as u16, 1);
                assert_eq!(rig.ring.pop().unwrap().unwrap().token, token);
            }
            // SAFETY: the device is a fake, and does nothing more.
            unsafe { rig.ring.clear() };
            let at = rig.ring.addresses();
            rig.device = DeviceRing::new(&dma, 4, at, features);
            let start = u16::from(rig.ring.is_packed()) << 15;
            assert_eq!((rig.ring.in_flight(), rig.ring.avail_idx()), (0, start));
            for number in 0..4 {
                assert_eq!(rig.add(&[true]), Ok(Token(number)), "as they were first");
                rig.serve(1);
            }
            while rig.ring.pop().unwrap().is_some() {}
            let before = rig.device.interrupts();
            assert_eq!(before > 0, wanted);
            for round in 1..=20 {
                rig.round(&[true; 3], 1);
                let more = if wanted { round } else { 0 };
                assert_eq!(rig.device.interrupts(), before + more, "as before");
            }
            rig.no_violations();
        }
    }
}
