use super::*;

fn sizes() -> impl Iterator<Item = u16> {
    (0..=15).map(|power| 1 << power)
}

/// The bytes that a legacy queue takes: the formula in 2.7.2, with `qalign - 1`
/// where it prints `qalign`.
fn virtq_size(queue_size: usize, queue_align: usize) -> usize {
    let align = |x: usize| (x + (queue_align - 1)) & !(queue_align - 1);
    align(16 * queue_size + 2 * (3 + queue_size)) + align(2 * 3 + 8 * queue_size)
}

#[test]
fn parts_are_aligned_and_do_not_overlap() {
    // The table in 2.7; 2.7.1.
    for size in sizes() {
        let (layout, n) = (Layout::new(size, RingLayout::Separate), usize::from(size));
        assert_eq!(layout.avail, 16 * n);
        assert!(layout.used >= layout.avail + 6 + 2 * n && layout.used.is_multiple_of(4));
        assert!(
            layout.used < layout.avail + 6 + 2 * n + 4,
            "no more padding than needed"
        );
        assert!(layout.len >= layout.used + 6 + 8 * n);
    }
}

#[test]
fn a_legacy_queue_is_laid_out_by_the_formula() {
    // 2.7.2
    for align in [64, 4096] {
        for size in sizes() {
            let n = usize::from(size);
            let layout = Layout::new(size, RingLayout::Contiguous { align });
            let align = align as usize;
            assert_eq!(layout.avail, 16 * n);
            assert_eq!(layout.used, (16 * n + 2 * (3 + n)).div_ceil(align) * align);
            assert_eq!(layout.len, virtq_size(n, align), "size {size}");
        }
    }
    // Two figures worked out by hand.
    assert_eq!(virtq_size(256, 4096), 3 * 4096);
    assert_eq!(virtq_size(8, 4096), 2 * 4096);
}

#[test]
fn a_legacy_queue_starts_with_a_page_and_is_contiguous() {
    let dma = FakeDma::default();
    for size in [1, 8, 256] {
        let ring = SplitRing::new(size, LEGACY, 0, Features::empty(), &dma).unwrap();
        let at = ring.addresses();
        assert!(at.descriptors.is_multiple_of(4096));
        assert_eq!(at.driver, at.descriptors + 16 * u64::from(size));
        assert_eq!((at.device - at.descriptors) % 4096, 0);
        let len = virtq_size(size.into(), 4096);
        assert!(
            dma.is_shared(at.descriptors, len),
            "all of it is allocated (2.7.2)"
        );
    }
}

#[test]
fn a_ring_starts_empty() {
    // 2.7.10.1: the used ring's flags are 0; so is all else.
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, 8, 3, INDIRECT);
    let at = rig.ring.addresses();
    let memory = dma.cpu_pointer(at.descriptors, rig.ring.layout.len);
    for offset in 0..rig.ring.layout.len {
        // SAFETY: inside the ring, which nobody writes now.
        assert_eq!(unsafe { memory.add(offset).read() }, 0);
    }
}

#[test]
fn without_memory_there_is_no_ring_and_no_leak() {
    let dma = FakeDma::default();
    // SAFETY: no device was told of the ring.
    unsafe {
        SplitRing::new(8, LEGACY, 3, INDIRECT, &dma)
            .unwrap()
            .release()
    };
    assert_eq!(dma.live(), 0);
    let mut failures = 0;
    for budget in (0..16384).step_by(128) {
        let dma = FakeDma::with_budget(budget);
        match SplitRing::new(8, LEGACY, 3, INDIRECT, &dma) {
            // SAFETY: as above.
            Ok(mut ring) => unsafe { ring.release() },
            Err(error) => {
                assert!(error.size > 0);
                failures += 1;
            }
        }
        assert_eq!(dma.live(), 0, "with {budget} bytes");
    }
    assert!(failures > 64, "a ring takes two pages: {failures}");
}
