//! What devices of both kinds of ring have in common in the model.
//!
//! A device takes a step at a time: one load or one full barrier, and the stores
//! behind it. (When stores happen is no choice: a load may always find what was
//! before.) It sleeps when it finds nothing, and only a doorbell wakes it.

use std::format;
use std::string::String;
use std::vec::Vec;

use super::Choices;
use super::history::{Memory, Order, Side};
use super::packed::Packed;
use super::split::Split;

/// The buffers' length in bytes.
pub(super) const BUFFER: u32 = 16;

/// Where buffer `position` of request `number` is.
pub(super) fn address(number: usize, position: usize) -> u64 {
    0x1000 * (number as u64 + 1) + 0x10 * position as u64
}

/// A request that the device has, or had.
#[derive(Clone, Hash, PartialEq, Eq)]
pub(super) struct Held {
    /// The head in a split ring, the buffer ID in a packed one.
    pub(super) id: u16,
    pub(super) number: usize,
    pub(super) descriptors: u16,
}

impl Held {
    /// What the device says that it wrote.
    pub(super) fn written(&self) -> u32 {
        self.number as u32 + 1
    }
}

/// What a device does next.
#[derive(Clone, Copy, Hash, PartialEq, Eq)]
pub(super) enum At {
    Asleep,
    /// Looks for the next request.
    Look,
    /// Wants a doorbell for the next: orders that before it looks once more.
    SleepFence,
    LookAgain,
    /// Has given one back: orders that before it looks whether the driver wants to
    /// hear of it.
    GaveFence,
    Gave,
}

/// What a device of either kind notes.
#[derive(Clone, Hash)]
pub(super) struct Notes {
    pub(super) at: At,
    pub(super) event_idx: bool,
    pub(super) size: u16,
    /// How many buffers each request has.
    pub(super) script: &'static [usize],
    /// How many were taken.
    pub(super) taken: usize,
    /// Taken, and not given back.
    pub(super) held: Vec<Held>,
    /// Given back, and not seen by the driver.
    pub(super) given: Vec<Held>,
}

#[derive(Clone, Hash)]
pub(super) enum Device {
    Split(Split),
    Packed(Packed),
}

/// What a device acts with.
pub(super) struct Hands<'w> {
    pub(super) memory: &'w mut Memory,
    pub(super) choices: &'w mut Choices,
    pub(super) fault: &'w mut Option<String>,
}

impl Hands<'_> {
    pub(super) fn fault(&mut self, what: String) {
        self.fault.get_or_insert(what);
    }

    pub(super) fn load(&mut self, offset: u16, len: u8, order: Order) -> u32 {
        let choice = self.memory.choices(Side::Device, offset, len);
        let choice = self.choices.choose(choice);
        self.memory.load(Side::Device, offset, len, order, choice) as u32
    }

    /// Reads what must not be changing: it is ordered behind what covers it.
    pub(super) fn read(&mut self, offset: u16, len: u8) -> u128 {
        if self.memory.choices(Side::Device, offset, len) > 1 {
            self.fault(format!("the device may read old bytes at {offset}"));
        }
        self.memory
            .load(Side::Device, offset, len, Order::Relaxed, 0)
    }

    pub(super) fn store(&mut self, offset: u16, len: u8, value: u128, order: Order) {
        let stored = self.memory.store(Side::Device, offset, len, value, order);
        if stored.is_err() {
            self.fault(format!("both sides write the bytes at {offset}"));
        }
    }
}

/// What the device's kind makes of it.
macro_rules! each {
    ($device:expr, $kind:ident => $what:expr) => {
        match $device {
            Device::Split($kind) => $what,
            Device::Packed($kind) => $what,
        }
    };
}

impl Device {
    pub(super) fn notes(&mut self) -> &mut Notes {
        each!(self, kind => &mut kind.notes)
    }

    pub(super) fn can_step(&mut self, memory: &Memory) -> bool {
        self.notes().at != At::Asleep || memory.is_signalled(Side::Driver)
    }

    /// Takes a step.
    pub(super) fn step(&mut self, hands: &mut Hands<'_>) {
        let at = self.notes().at;
        match at {
            At::Asleep => {
                hands.memory.hear(Side::Driver);
                each!(self, kind => kind.wake(hands));
                self.notes().at = At::Look;
            }
            At::Look | At::LookAgain => {
                let held = self.notes().held.len();
                match each!(self, kind => kind.take(hands)) {
                    Some(taken) => self.took(taken, hands),
                    None if held > 0 => self.give(hands),
                    None if at == At::LookAgain => self.notes().at = At::Asleep,
                    None => {
                        each!(self, kind => kind.sleep(hands));
                        self.notes().at = At::SleepFence;
                    }
                }
            }
            At::SleepFence => {
                hands.memory.fence(Side::Device);
                self.notes().at = At::LookAgain;
            }
            At::GaveFence => {
                hands.memory.fence(Side::Device);
                self.notes().at = At::Gave;
            }
            At::Gave => {
                if each!(self, kind => kind.wants_interrupt(hands)) {
                    hands.memory.signal(Side::Device);
                }
                self.notes().at = At::Look;
            }
        }
    }

    /// Has a request: checks that it is the next one, and whole.
    fn took(&mut self, (id, buffers): (u16, Vec<(u64, bool)>), hands: &mut Hands<'_>) {
        let again = self.notes().at == At::LookAgain;
        if again {
            each!(self, kind => kind.wake(hands));
        }
        let notes = self.notes();
        let number = notes.taken;
        let count = notes.script.get(number).copied().unwrap_or(0);
        let expected = (0..count).map(|at| (address(number, at), at + 1 == count));
        if !buffers.iter().copied().eq(expected) {
            return hands.fault(format!("request {number} has the buffers {buffers:x?}"));
        }
        if notes.held.iter().any(|held| held.id == id) {
            return hands.fault(format!("request {number} has the ID {id} of another"));
        }
        notes.taken += 1;
        notes.held.push(Held {
            id,
            number,
            descriptors: count as u16,
        });
        let more = notes.taken < notes.script.len();
        if more && hands.choices.choose(2) == 1 {
            notes.at = At::Look;
        } else {
            self.give(hands);
        }
    }

    /// Gives one of the requests back that it has, whichever.
    fn give(&mut self, hands: &mut Hands<'_>) {
        let which = hands.choices.choose(self.notes().held.len());
        let held = self.notes().held.remove(which);
        each!(self, kind => kind.put(&held, hands));
        self.notes().given.push(held);
        self.notes().at = At::GaveFence;
    }
}
