//! A split ring's device in the model (virtio 1.2, 2.7).

use std::vec::Vec;

use super::device::{BUFFER, Hands, Held, Notes};
use super::history::Order;

const NEXT: u32 = 1;
const WRITE: u32 = 2;
/// `VIRTQ_AVAIL_F_NO_INTERRUPT` and `VIRTQ_USED_F_NO_NOTIFY`.
const SUPPRESSED: u32 = 1;

#[derive(Clone, Hash)]
pub(super) struct Split {
    pub(super) notes: Notes,
    /// Where the two rings are.
    pub(super) avail: u16,
    pub(super) used: u16,
    pub(super) avail_idx: u16,
    pub(super) used_idx: u16,
}

impl Split {
    /// The cells of a ring: offset and length.
    pub(super) fn cells(size: u16, avail: u16, used: u16) -> Vec<(u16, u8)> {
        let ring = |at: u16| [(at, 2), (at + 2, 2)];
        let mut cells = Vec::from_iter(ring(avail).into_iter().chain(ring(used)));
        for index in 0..size {
            cells.push((16 * index, 16));
            cells.push((avail + 4 + 2 * index, 2));
            cells.push((used + 4 + 8 * index, 8));
        }
        cells.push((avail + 4 + 2 * size, 2));
        cells.push((used + 4 + 8 * size, 2));
        cells
    }

    /// Where the device says by which request it wants a doorbell.
    fn avail_event(&self) -> u16 {
        self.used + 4 + 8 * self.notes.size
    }

    /// Awake, it wants none.
    pub(super) fn wake(&self, hands: &mut Hands<'_>) {
        if !self.notes.event_idx {
            hands.store(self.used, 2, SUPPRESSED.into(), Order::Relaxed);
        }
    }

    pub(super) fn sleep(&self, hands: &mut Hands<'_>) {
        if self.notes.event_idx {
            let event = self.avail_idx.into();
            hands.store(self.avail_event(), 2, event, Order::Relaxed);
        } else {
            hands.store(self.used, 2, 0, Order::Relaxed);
        }
    }

    /// Takes the next request, if there is one: its head, and its buffers.
    pub(super) fn take(&mut self, hands: &mut Hands<'_>) -> Option<(u16, Vec<(u64, bool)>)> {
        let idx = hands.load(self.avail + 2, 2, Order::Ordered) as u16;
        if idx == self.avail_idx {
            return None;
        }
        let slot = self.avail_idx % self.notes.size;
        self.avail_idx = self.avail_idx.wrapping_add(1);
        let head = hands.read(self.avail + 4 + 2 * slot, 2) as u16;
        let (mut index, mut buffers) = (head, Vec::new());
        while index < self.notes.size && buffers.len() < self.notes.size.into() {
            let desc = hands.read(16 * index, 16);
            let (len, flags) = ((desc >> 64) as u32, (desc >> 96) as u32 & 0xffff);
            if len != BUFFER {
                break;
            }
            buffers.push((desc as u64, flags & WRITE != 0));
            if flags & NEXT == 0 {
                break;
            }
            index = (desc >> 112) as u16;
        }
        Some((head, buffers))
    }

    pub(super) fn put(&mut self, held: &Held, hands: &mut Hands<'_>) {
        let entry = self.used + 4 + 8 * (self.used_idx % self.notes.size);
        let element = u128::from(held.id) | u128::from(held.written()) << 32;
        hands.store(entry, 8, element, Order::Relaxed);
        self.used_idx = self.used_idx.wrapping_add(1);
        hands.store(self.used + 2, 2, self.used_idx.into(), Order::Ordered);
    }

    /// 2.7.7.2
    pub(super) fn wants_interrupt(&mut self, hands: &mut Hands<'_>) -> bool {
        if self.notes.event_idx {
            let event = self.avail + 4 + 2 * self.notes.size;
            let event = hands.load(event, 2, Order::Relaxed) as u16;
            event == self.used_idx.wrapping_sub(1)
        } else {
            hands.load(self.avail, 2, Order::Relaxed) & SUPPRESSED == 0
        }
    }
}
