//! A packed ring's device in the model (virtio 1.2, 2.8).

use std::vec::Vec;

use super::device::{BUFFER, Hands, Held, Notes};
use super::history::Order;

const NEXT: u32 = 1;
const WRITE: u32 = 2;
const AVAIL: u32 = 1 << 7;
const USED: u32 = 1 << 15;
/// `RING_EVENT_FLAGS_*` (2.8.10).
const ENABLE: u32 = 0;
const DISABLE: u32 = 1;
const DESC: u32 = 2;

/// A descriptor, and the wrap counter there.
#[derive(Clone, Copy, Hash, PartialEq, Eq)]
pub(super) struct Place(pub(super) u16, pub(super) bool);

impl Place {
    fn step(self, by: u16, size: u16) -> Self {
        let Self(index, wrap) = self;
        match index + by {
            next if next < size => Self(next, wrap),
            next => Self(next - size, !wrap),
        }
    }

    /// Offset and wrap counter, as an event suppression structure has them (2.8.14).
    fn event(self) -> u32 {
        u32::from(self.0) | u32::from(self.1) << 15
    }
}

#[derive(Clone, Hash)]
pub(super) struct Packed {
    pub(super) notes: Notes,
    /// Where the event suppression structures are.
    pub(super) driver: u16,
    pub(super) device: u16,
    pub(super) avail: Place,
    pub(super) used: Place,
    /// Where the last used descriptor was written, and for how many it stands.
    pub(super) gave: (Place, u16),
}

impl Packed {
    /// The cells of a ring: offset and length.
    pub(super) fn cells(size: u16, driver: u16, device: u16) -> Vec<(u16, u8)> {
        let desc = |at: u16| [(at, 8), (at + 8, 4), (at + 12, 2), (at + 14, 2)];
        let descriptors = (0..size).flat_map(|index| desc(16 * index));
        descriptors.chain([(driver, 4), (device, 4)]).collect()
    }

    /// Awake, it wants no doorbells.
    pub(super) fn wake(&self, hands: &mut Hands<'_>) {
        let flags = u128::from(DISABLE) << 16;
        hands.store(self.device, 4, flags, Order::Relaxed);
    }

    pub(super) fn sleep(&self, hands: &mut Hands<'_>) {
        let event = match self.notes.event_idx {
            true => self.avail.event() | DESC << 16,
            false => ENABLE << 16,
        };
        hands.store(self.device, 4, event.into(), Order::Relaxed);
    }

    /// Takes the next request, if there is one: its buffer ID, and its buffers.
    pub(super) fn take(&mut self, hands: &mut Hands<'_>) -> Option<(u16, Vec<(u64, bool)>)> {
        let (mut id, mut buffers) = (0, Vec::new());
        loop {
            let at = 16 * self.avail.0;
            // The rest of a chain is there when its first descriptor is (2.8.21.1).
            let flags = match buffers.len() {
                0 => hands.load(at + 14, 2, Order::Ordered),
                _ => hands.read(at + 14, 2) as u32,
            };
            let available = if self.avail.1 { AVAIL } else { USED };
            if flags & (AVAIL | USED) != available || buffers.len() == self.notes.size.into() {
                return (!buffers.is_empty()).then_some((id, buffers));
            }
            let address = hands.read(at, 8) as u64;
            if hands.read(at + 8, 4) as u32 != BUFFER {
                return Some((id, buffers));
            }
            id = hands.read(at + 12, 2) as u16;
            buffers.push((address, flags & WRITE != 0));
            self.avail = self.avail.step(1, self.notes.size);
            if flags & NEXT == 0 {
                return Some((id, buffers));
            }
        }
    }

    pub(super) fn put(&mut self, held: &Held, hands: &mut Hands<'_>) {
        let at = 16 * self.used.0;
        hands.store(at + 8, 4, held.written().into(), Order::Relaxed);
        hands.store(at + 12, 2, held.id.into(), Order::Relaxed);
        let used = if self.used.1 { AVAIL | USED } else { 0 };
        let flags = u128::from(used | WRITE);
        hands.store(at + 14, 2, flags, Order::Ordered);
        self.gave = (self.used, held.descriptors);
        self.used = self.used.step(held.descriptors, self.notes.size);
    }

    /// 2.8.10: of the request that was given back last.
    pub(super) fn wants_interrupt(&mut self, hands: &mut Hands<'_>) -> bool {
        let event = hands.load(self.driver, 4, Order::Relaxed);
        let size = self.notes.size;
        match event >> 16 {
            ENABLE => true,
            DISABLE => false,
            _ => (0..self.gave.1).any(|n| self.gave.0.step(n, size).event() == event & 0xffff),
        }
    }
}
