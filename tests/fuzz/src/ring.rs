//! Rings whose device writes whatever it likes, wherever it may write.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ptr::NonNull;

use doorbell::dma::{Dma, DmaError, DmaMemory};
use doorbell::queue::{AnyRing, Buffer, QueueError, Ring, Token};
use doorbell::transport::RingLayout;
use doorbell::virtio::Features;

use crate::bytes::Bytes;

/// Memory that is freed at the end, whatever a ring keeps for its device.
#[derive(Default)]
struct Arena(RefCell<Vec<(NonNull<u8>, Layout)>>);

// SAFETY: it is the host's allocator's, zeroed, and lives as long as the arena.
unsafe impl Dma for &Arena {
    fn allocate(&self, size: usize, align: usize) -> Result<DmaMemory, DmaError> {
        let error = DmaError { size, align };
        let layout = Layout::from_size_align(size, align).map_err(|_| error)?;
        if size == 0 {
            return Err(error);
        }
        // SAFETY: the size is not 0.
        let pointer = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(error)?;
        self.0.borrow_mut().push((pointer, layout));
        Ok(DmaMemory {
            pointer,
            address: pointer.as_ptr().expose_provenance() as u64,
            size,
            align,
        })
    }

    unsafe fn free(&self, _: DmaMemory) {}
}

impl Drop for Arena {
    fn drop(&mut self) {
        for (pointer, layout) in self.0.borrow_mut().drain(..) {
            // SAFETY: from `allocate`, and freed once.
            unsafe { dealloc(pointer.as_ptr(), layout) };
        }
    }
}

/// The part of a ring that its device writes.
struct Written {
    address: u64,
    len: usize,
}

impl Written {
    /// Writes `value` at an even offset, as far as it is inside.
    fn put(&self, offset: usize, value: u16) {
        let offset = offset % self.len & !1;
        if offset + 2 <= self.len {
            let pointer =
                std::ptr::with_exposed_provenance_mut::<u16>(self.address as usize + offset);
            // SAFETY: inside the ring's memory, aligned, and nobody reads it meanwhile.
            unsafe { pointer.write_volatile(value) };
        }
    }
}

/// A split ring (virtio 1.2, 2.7): the device writes the used ring.
pub fn split_ring(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let size = 1 << (bytes.u8() % 6);
    let features = features(&mut bytes);
    let arena = Arena::default();
    let ring = make(size, &mut bytes, features, &arena);
    let written = Written {
        address: ring.addresses().device,
        len: 4 + 8 * usize::from(size) + 2,
    };
    drive(bytes, ring, &written, features);
}

/// A packed ring (2.8): the device writes descriptors, and its event suppression.
pub fn packed_ring(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let size = 1 + u16::from(bytes.u8() % 33);
    let features = features(&mut bytes) | Features::RING_PACKED;
    let arena = Arena::default();
    let ring = make(size, &mut bytes, features, &arena);
    let written = match bytes.u8() % 4 {
        0 => Written {
            address: ring.addresses().device,
            len: 4,
        },
        _ => Written {
            address: ring.addresses().descriptors,
            len: 16 * usize::from(size),
        },
    };
    drive(bytes, ring, &written, features);
}

fn features(bytes: &mut Bytes<'_>) -> Features {
    let choice = bytes.u8();
    let mut features = Features::VERSION_1;
    features.set(Features::INDIRECT_DESC, choice & 1 != 0);
    features.set(Features::EVENT_IDX, choice & 2 != 0);
    features
}

fn make<'a>(
    size: u16,
    bytes: &mut Bytes<'_>,
    features: Features,
    arena: &'a Arena,
) -> AnyRing<&'a Arena> {
    let indirect = u16::from(bytes.u8() % 5);
    AnyRing::new(size, RingLayout::Separate, indirect, features, arena).unwrap()
}

/// Lets driver and device do what the bytes say.
fn drive(mut bytes: Bytes<'_>, mut ring: AnyRing<&Arena>, written: &Written, features: Features) {
    let mut in_flight: BTreeMap<usize, u32> = BTreeMap::new();
    let mut broken = false;
    while !bytes.is_empty() {
        match bytes.u8() % 8 {
            0..=1 => submit(&mut bytes, &mut ring, &mut in_flight, broken),
            2..=4 => {
                let offset = bytes.u16();
                written.put(offset.into(), bytes.u16());
            }
            5 => {
                ring.needs_notification();
            }
            6 => ring.set_interrupts(bytes.u8() & 1 != 0),
            _ => {
                let has_used = ring.has_used();
                match ring.pop() {
                    Ok(None) => assert!(!has_used && !broken),
                    Ok(Some(used)) => {
                        assert!(!broken);
                        let writable = in_flight.remove(&used.token.index());
                        let writable = writable.expect("a token that is not in flight");
                        assert!(used.written <= writable);
                    }
                    Err(error) => {
                        assert!(!broken || error == QueueError::Broken, "{error}");
                        broken = true;
                    }
                }
            }
        }
        assert_eq!(
            usize::from(ring.in_flight()),
            in_flight.len(),
            "{features:?}"
        );
    }
}

fn submit(
    bytes: &mut Bytes<'_>,
    ring: &mut AnyRing<&Arena>,
    in_flight: &mut BTreeMap<usize, u32>,
    broken: bool,
) {
    let count = usize::from(bytes.u8() % 6);
    let kinds = bytes.u8();
    let buffers: Vec<Buffer> = (0..count)
        .map(|n| {
            let len = u32::from(bytes.u8() % 64) * u32::from(bytes.u8());
            match kinds >> n & 1 {
                0 => Buffer::readable(0x1000, len),
                _ => Buffer::writable(0x2000, len),
            }
        })
        .collect();
    let writable = buffers
        .iter()
        .filter(|buffer| buffer.writable)
        .map(|buffer| buffer.len);
    let writable = writable.sum();
    // SAFETY: the device is this program, which never follows an address.
    match unsafe { ring.add(&buffers) } {
        Ok(token) => {
            assert!(!broken);
            assert!(token.index() < usize::from(ring.size()));
            assert_eq!(
                in_flight.insert(token.index(), writable),
                None,
                "a token twice"
            );
        }
        Err(QueueError::Broken) => assert!(broken),
        Err(QueueError::Full { .. } | QueueError::Chain { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    let _: Result<Token, QueueError> = ring.next_token();
}
