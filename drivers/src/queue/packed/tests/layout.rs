use super::*;
use crate::queue::packed::place::LINE;
use crate::queue::tests::rig::Make;

#[test]
fn parts_are_aligned_and_do_not_overlap() {
    // The table in 2.8.10.1.
    for size in 1..=0x8000 {
        let (layout, n) = (Layout::new(size), usize::from(size));
        assert!(layout.driver >= 16 * n && layout.driver.is_multiple_of(4));
        assert!(layout.device >= layout.driver + 4 && layout.device.is_multiple_of(4));
        assert!(layout.len >= layout.device + 4);
        assert!(layout.len <= 16 * n + 3 * LINE, "no more than needed");
    }
    let dma = FakeDma::default();
    for size in sizes() {
        let at = Rig::new(&dma, size, 0, PACKED).ring.addresses();
        assert!(at.descriptors.is_multiple_of(16), "2.8.11");
        assert!(at.driver.is_multiple_of(4) && at.device.is_multiple_of(4));
        assert!(dma.is_shared(at.descriptors, 16 * usize::from(size)));
        assert!(dma.is_shared(at.driver, 4) && dma.is_shared(at.device, 4));
        // No processor's write to the one takes the other's line away.
        assert_ne!(at.driver / LINE as u64, at.device / LINE as u64);
    }
}

#[test]
fn a_ring_starts_empty() {
    // 2.8.13: the descriptor ring is zero-initialized.
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, 7, 3, PACKED | Features::INDIRECT_DESC);
    let at = rig.ring.addresses();
    let memory = dma.cpu_pointer(at.descriptors, rig.ring.layout.len);
    for offset in 0..rig.ring.layout.len {
        // SAFETY: inside the ring, which nobody writes now.
        assert_eq!(unsafe { memory.add(offset).read() }, 0);
    }
}

#[test]
fn without_memory_there_is_no_ring_and_no_leak() {
    let features = PACKED | Features::INDIRECT_DESC;
    let dma = FakeDma::default();
    // SAFETY: no device was told of the ring.
    unsafe { PackedRing::make(&dma, 7, 3, features).release() };
    assert_eq!(dma.live(), 0);
    let mut failures = 0;
    for budget in (0..1024).step_by(8) {
        let dma = FakeDma::with_budget(budget);
        match PackedRing::new(7, 3, features, &dma) {
            // SAFETY: as above.
            Ok(mut ring) => unsafe { ring.release() },
            Err(error) => {
                assert!(error.size > 0);
                failures += 1;
            }
        }
        assert_eq!(dma.live(), 0, "with {budget} bytes");
    }
    assert!((40..120).contains(&failures), "{failures}");
}
