//! The device's side of a split ring (virtio 1.2, 2.7), written from the
//! specification and apart from the driver's.

use std::collections::{BTreeMap, BTreeSet};
use std::format;
use std::string::String;
use std::sync::atomic::{AtomicU16, Ordering, fence};
use std::vec::Vec;

use crate::dma::fake::FakeDma;
use crate::queue::Buffer;
use crate::transport::RingAddresses;
use crate::virtio::Features;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// `VIRTQ_AVAIL_F_NO_INTERRUPT` and `VIRTQ_USED_F_NO_NOTIFY`.
const SUPPRESSED: u16 = 1;

/// A request that the device has taken.
#[derive(Clone, Debug)]
pub struct Chain<'d> {
    dma: &'d FakeDma,
    head: u16,
    buffers: Vec<Buffer>,
    /// Which of the ring's descriptors it takes.
    descriptors: Vec<u16>,
    indirect: bool,
}

impl Chain<'_> {
    /// Index of the first descriptor.
    pub fn head(&self) -> u16 {
        self.head
    }

    /// The buffers, in the driver's order.
    pub fn buffers(&self) -> &[Buffer] {
        &self.buffers
    }

    /// How many of the ring's descriptors the request takes.
    pub fn descriptors(&self) -> usize {
        self.descriptors.len()
    }

    /// Whether it came in a table of indirect descriptors.
    pub fn is_indirect(&self) -> bool {
        self.indirect
    }

    /// All bytes that the device may read.
    pub fn readable(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for buffer in self.buffers.iter().filter(|buffer| !buffer.writable) {
            let len = buffer.len as usize;
            let from = self.dma.cpu_pointer(buffer.address, len);
            // SAFETY: `cpu_pointer` found the bytes inside allocated memory.
            bytes.extend((0..len).map(|at| unsafe { from.add(at).read_volatile() }));
        }
        bytes
    }

    /// How many bytes the device may write.
    pub fn writable(&self) -> u32 {
        self.buffers
            .iter()
            .filter(|buffer| buffer.writable)
            .map(|buffer| buffer.len)
            .sum()
    }

    /// Writes `bytes` from byte `offset` of the writable part on; what does not
    /// fit is cut off.
    pub fn write(&self, mut offset: usize, mut bytes: &[u8]) {
        for buffer in self.buffers.iter().filter(|buffer| buffer.writable) {
            let len = buffer.len as usize;
            let into = self.dma.cpu_pointer(buffer.address, len);
            let (here, rest) = bytes.split_at(bytes.len().min(len.saturating_sub(offset)));
            for (at, &byte) in here.iter().enumerate() {
                // SAFETY: `cpu_pointer` found the buffer inside allocated memory.
                unsafe { into.add(offset + at).write_volatile(byte) }
            }
            (offset, bytes) = (offset.saturating_sub(len), rest);
        }
    }

    /// Whether all of its buffers are in memory that is allocated.
    pub(super) fn is_shared(&self) -> bool {
        self.buffers
            .iter()
            .all(|buffer| self.dma.is_shared(buffer.address, buffer.len as usize))
    }
}

/// A split ring as its device sees it.
#[derive(Debug)]
pub struct DeviceRing<'d> {
    dma: &'d FakeDma,
    size: u16,
    at: RingAddresses,
    event_idx: bool,
    indirect: bool,
    last_avail: u16,
    used_idx: u16,
    /// Requests taken and not given back, by head.
    pub(super) taken: BTreeMap<u16, Chain<'d>>,
    /// How many interrupts were due.
    pub interrupts: u64,
    /// What the driver did against the specification.
    pub violations: Vec<String>,
}

impl<'d> DeviceRing<'d> {
    /// The ring of `size` descriptors at `at`, under these features.
    pub fn new(dma: &'d FakeDma, size: u16, at: RingAddresses, features: Features) -> Self {
        Self {
            dma,
            size,
            at,
            event_idx: features.contains(Features::EVENT_IDX),
            indirect: features.contains(Features::INDIRECT_DESC),
            last_avail: 0,
            used_idx: 0,
            taken: BTreeMap::new(),
            interrupts: 0,
            violations: Vec::new(),
        }
    }

    /// Whether the ring is in memory that is allocated.
    pub(super) fn is_shared(&self) -> bool {
        let size = usize::from(self.size);
        self.dma.is_shared(self.at.descriptors, 16 * size)
            && self.dma.is_shared(self.at.driver, 6 + 2 * size)
            && self.dma.is_shared(self.at.device, 6 + 8 * size)
    }

    /// Where the ring is.
    pub fn addresses(&self) -> RingAddresses {
        self.at
    }

    fn violation(&mut self, what: String) {
        self.violations.push(what);
    }

    fn word(&self, address: u64) -> &AtomicU16 {
        let pointer = self.dma.cpu_pointer(address, 2).cast::<u16>();
        assert!(pointer.is_aligned(), "a ring's part is not aligned (2.7.1)");
        // SAFETY: inside allocated memory, aligned, and accessed atomically by
        // both sides.
        unsafe { AtomicU16::from_ptr(pointer) }
    }

    fn load(&self, address: u64, order: Ordering) -> u16 {
        u16::from_le(self.word(address).load(order))
    }

    fn store(&self, address: u64, value: u16, order: Ordering) {
        self.word(address).store(value.to_le(), order);
    }

    fn avail_flags(&self) -> u16 {
        self.load(self.at.driver, Ordering::Relaxed)
    }

    /// Where the driver's `used_event` is.
    fn used_event(&self) -> u64 {
        self.at.driver + 4 + 2 * u64::from(self.size)
    }

    /// Where the device's `avail_event` is.
    fn avail_event(&self) -> u64 {
        self.at.device + 4 + 8 * u64::from(self.size)
    }

    /// How many requests the driver has made available that are not taken.
    pub fn waiting(&mut self) -> u16 {
        let idx = self.load(self.at.driver + 2, Ordering::Acquire);
        let waiting = idx.wrapping_sub(self.last_avail);
        if waiting > self.size {
            self.violation(format!(
                "avail.idx went from {} to {idx} (2.7.6.1)",
                self.last_avail
            ));
            return 0;
        }
        waiting
    }

    /// Takes the next request that the driver has made available.
    pub fn take(&mut self) -> Option<Chain<'d>> {
        if self.waiting() == 0 {
            return None;
        }
        let flags = self.avail_flags();
        if flags > SUPPRESSED || self.event_idx && flags != 0 {
            self.violation(format!("avail.flags is {flags} (2.7.7.1)"));
        }
        let slot = u64::from(self.last_avail % self.size);
        let head = self.load(self.at.driver + 4 + 2 * slot, Ordering::Relaxed);
        self.last_avail = self.last_avail.wrapping_add(1);
        match self.walk(head) {
            Ok(chain) => {
                self.taken.insert(head, chain.clone());
                Some(chain)
            }
            Err(what) => {
                self.violation(format!("request {head}: {what}"));
                None
            }
        }
    }

    /// Reads the descriptor `index` of the table at `table`.
    fn descriptor(&self, table: u64, index: u16) -> (Buffer, u16, u16) {
        let address = table + 16 * u64::from(index);
        let from = self.dma.cpu_pointer(address, 16).cast::<[u8; 16]>();
        // SAFETY: `cpu_pointer` found it inside allocated memory; the driver
        // writes no descriptor of an available request.
        let bytes = unsafe { from.read_volatile() };
        let part = |from: usize, len: usize| {
            bytes[from..from + len]
                .iter()
                .rev()
                .fold(0, |value, &byte| value << 8 | u64::from(byte))
        };
        let flags = part(12, 2) as u16;
        let writable = flags & WRITE != 0;
        (
            Buffer {
                address: part(0, 8),
                len: part(8, 4) as u32,
                writable,
            },
            flags,
            part(14, 2) as u16,
        )
    }

    /// Follows a request's descriptors, and checks them.
    fn walk(&self, head: u16) -> Result<Chain<'d>, String> {
        let mut chain = Chain {
            dma: self.dma,
            head,
            buffers: Vec::new(),
            descriptors: Vec::new(),
            indirect: false,
        };
        let (mut table, mut len, mut index) = (self.at.descriptors, self.size, head);
        let others: BTreeSet<u16> = self
            .taken
            .values()
            .flat_map(|chain| chain.descriptors.iter().copied())
            .collect();
        loop {
            if index >= len {
                return Err(format!("descriptor {index} of a table of {len}"));
            }
            let (buffer, flags, next) = self.descriptor(table, index);
            if !chain.indirect {
                if others.contains(&index) || chain.descriptors.contains(&index) {
                    return Err(format!("descriptor {index} is in use already"));
                }
                chain.descriptors.push(index);
            }
            if flags & !(NEXT | WRITE | INDIRECT) != 0 {
                return Err(format!("descriptor flags {flags:#x} (2.7.5)"));
            }
            if flags & INDIRECT != 0 {
                if !self.indirect || chain.indirect || flags & NEXT != 0 {
                    return Err(format!(
                        "an indirect descriptor, flags {flags:#x} (2.7.5.3.1)"
                    ));
                }
                if buffer.len == 0 || !buffer.len.is_multiple_of(16) {
                    return Err(format!(
                        "an indirect table of {} bytes (2.7.5.3)",
                        buffer.len
                    ));
                }
                chain.indirect = true;
                (table, len, index) = (buffer.address, (buffer.len / 16) as u16, 0);
                continue;
            }
            if !self.dma.is_shared(buffer.address, buffer.len as usize) || buffer.len == 0 {
                return Err(format!("{buffer:?} is no shared memory"));
            }
            if !buffer.writable && chain.buffers.last().is_some_and(|last| last.writable) {
                return Err("a readable buffer behind a writable one (2.7.4.2)".into());
            }
            chain.buffers.push(buffer);
            if chain.buffers.len() > self.size.into() {
                return Err(format!(
                    "longer than the queue of {} (2.7.5.3.1)",
                    self.size
                ));
            }
            if flags & NEXT == 0 {
                return Ok(chain);
            }
            index = next;
        }
    }

    /// Gives a request back, having written `written` bytes, and notes whether
    /// an interrupt is due (2.7.7.2).
    pub fn finish(&mut self, head: u16, written: u32) {
        self.taken.remove(&head);
        self.publish(head.into(), written);
    }

    /// Puts an entry into the used ring, whatever it says.
    pub fn publish(&mut self, id: u32, written: u32) {
        let entry = self.at.device + 4 + 8 * u64::from(self.used_idx % self.size);
        let into = self.dma.cpu_pointer(entry, 8).cast::<[u32; 2]>();
        assert!(into.is_aligned(), "the used ring is not aligned (2.7.1)");
        // SAFETY: inside allocated memory and aligned; the driver reads it once
        // the index below covers it.
        unsafe { into.write_volatile([id.to_le(), written.to_le()]) }
        let old = self.used_idx;
        self.used_idx = old.wrapping_add(1);
        self.show_used_idx(self.used_idx);
        fence(Ordering::SeqCst);
        let due = if self.event_idx {
            self.load(self.used_event(), Ordering::Relaxed) == old
        } else {
            self.avail_flags() & SUPPRESSED == 0
        };
        self.interrupts += u64::from(due);
    }

    /// Shows a used index, whatever was put into the ring.
    pub fn show_used_idx(&self, idx: u16) {
        self.store(self.at.device + 2, idx, Ordering::Release);
    }

    /// Asks to be notified of the next request. `false` if one has come since:
    /// then the device has to look again.
    pub fn sleep(&mut self) -> bool {
        if self.event_idx {
            self.ask_at(self.last_avail);
        } else {
            self.store(self.at.device, 0, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
        self.waiting() == 0
    }

    /// Asks to be notified of the request that gets index `idx` in the available
    /// ring, with `VIRTIO_F_EVENT_IDX` (2.7.10.2).
    pub fn ask_at(&self, idx: u16) {
        self.store(self.avail_event(), idx, Ordering::Relaxed);
    }

    /// Asks not to be notified.
    pub fn poll(&mut self) {
        if self.event_idx {
            self.ask_at(self.last_avail.wrapping_sub(1));
        } else {
            self.store(self.at.device, SUPPRESSED, Ordering::Relaxed);
        }
    }
}
