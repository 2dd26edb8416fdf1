//! The rings, model-checked: all that can happen between a driver and a device at
//! small sizes.
//!
//! What runs is [`SplitRing`](super::SplitRing) and
//! [`PackedRing`](super::PackedRing) themselves. Their accesses to the ring
//! ([`memory`](super::memory)) and their barriers ([`barrier`](super::barrier)) come
//! here while a model runs on the thread, and act on a [`Memory`] that keeps no order
//! which C11 does not ask for ([`history`]): weaker than x86's with its store buffer,
//! and as weak as Arm's or RISC-V's but for what is below. Before each load and
//! barrier the device may take any number of steps, and a load may find each value
//! that the memory allows. The devices ([`split`], [`packed`]) are models, written
//! from the specification.
//!
//! [`explore`] goes through all choices, with states that were seen before left out
//! (they are told apart by a hash of 64 bits). What it looks for:
//!
//! - A side that waits for ever: a doorbell or an interrupt that was not given while
//!   the other side slept.
//! - A request that is not the next one, or not whole, when the device finds it, or
//!   in descriptors whose bytes may still be old.
//! - A request that comes back while the device has it, or twice, or with another
//!   length; an error about a device that keeps the rules.
//! - Bytes that both sides write, in no order.
//!
//! What it leaves out: indirect tables; sizes and numbers of requests above those of
//! the tests; stores that come before loads which the program has before them (load
//! buffering); what a compiler does; and devices that break the rules, which have
//! tests of their own (`tests/lies`).

use core::cell::RefCell;
use core::hash::{Hash, Hasher};
use core::ptr::NonNull;
use core::sync::atomic::Ordering;
use std::collections::HashSet;
use std::string::String;
use std::vec::Vec;

mod device;
mod explore;
mod history;
mod packed;
mod split;
mod tests;

use device::{Device, Hands};
pub(in crate::queue) use explore::Modelled;
use history::{Memory, Order, Side};

/// What is taken out of the ring's code, to see that it is missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutation {
    /// The full barrier between publishing and the question whether to ring.
    KickBarrier,
    /// The full barrier between asking for an interrupt and another look.
    PopBarrier,
    /// Releases: they are plain stores.
    Release,
    /// Acquires: they are plain loads.
    Acquire,
    /// The wrapping in the event-index test.
    Wrapping,
}

std::thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// A ring's memory and its device, while the model runs.
struct World {
    memory: Memory,
    device: Device,
    choices: Choices,
    fault: Option<String>,
    mutation: Option<Mutation>,
    /// Whether the driver takes a request back, or else makes one available or asks
    /// whether to ring.
    pops: bool,
    /// Where the ring is for the CPU.
    base: usize,
}

/// What is chosen where several things can happen: all of it in turn.
#[derive(Default)]
struct Choices {
    /// What was chosen, and of how many.
    path: Vec<(usize, usize)>,
    at: usize,
    /// The states that were seen.
    seen: HashSet<u64>,
    /// Where the driver is: what it called, and what it has loaded since.
    driver: u64,
    /// From here on all was seen before.
    known: bool,
}

impl Choices {
    /// Any of `0..of`.
    fn choose(&mut self, of: usize) -> usize {
        if of == 1 || self.known && self.at == self.path.len() {
            return 0;
        }
        if self.at == self.path.len() {
            self.path.push((0, of));
        }
        let (chosen, count) = self.path[self.at];
        assert_eq!(count, of, "the same happens again");
        self.at += 1;
        chosen
    }

    /// As [`choose`](Self::choose), in a state that may have been seen before.
    fn choose_in(&mut self, of: usize, state: impl FnOnce() -> u64) -> usize {
        if self.at == self.path.len() && !self.known {
            self.known = !self.seen.insert(hash(&(self.driver, state())));
        }
        self.choose(of)
    }

    /// Begins another run, which is the driver's `call`.
    fn begin(&mut self, call: u64) {
        (self.at, self.driver, self.known) = (0, call, false);
    }

    /// Moves on to what was not chosen yet, if there is something.
    fn next(&mut self) -> bool {
        while let Some((chosen, of)) = self.path.pop() {
            if chosen + 1 < of {
                self.path.push((chosen + 1, of));
                return true;
            }
        }
        false
    }

    /// The driver found `value`.
    fn found(&mut self, value: u128) {
        self.driver = hash(&(self.driver, value));
    }
}

impl World {
    fn device_steps(&mut self) {
        let mut hands = Hands {
            memory: &mut self.memory,
            choices: &mut self.choices,
            fault: &mut self.fault,
        };
        self.device.step(&mut hands);
    }

    fn device_can_step(&mut self) -> bool {
        self.fault.is_none() && self.device.can_step(&self.memory)
    }

    /// A choice between the driver's going on and a step of the device's.
    fn device_goes_first(&mut self) -> bool {
        let (memory, device) = (&mut self.memory, &self.device);
        let state = || {
            memory.forget();
            hash(&(&*memory, device))
        };
        self.choices.choose_in(2, state) == 1
    }

    /// The device takes steps, as many as it likes, before the driver's next.
    fn let_device(&mut self) {
        while self.device_can_step() && self.device_goes_first() {
            self.device_steps();
        }
    }

    fn offset<T>(&self, at: *const T) -> (u16, u8) {
        let offset = (at as usize).wrapping_sub(self.base);
        let offset = u16::try_from(offset).expect("an access in the ring");
        (offset, size_of::<T>() as u8)
    }

    fn order(&self, order: Ordering, without: Mutation) -> Order {
        match order {
            Ordering::Relaxed => Order::Relaxed,
            _ if self.mutation == Some(without) => Order::Relaxed,
            _ => Order::Ordered,
        }
    }

    fn store(&mut self, at: (u16, u8), value: u128, order: Order) {
        let stored = self.memory.store(Side::Driver, at.0, at.1, value, order);
        if stored.is_err() && self.fault.is_none() {
            self.fault = Some(std::format!("both sides write the bytes at {}", at.0));
        }
    }
}

/// Does something with the thread's model, if one runs.
fn with<R>(f: impl FnOnce(&mut World) -> R) -> Option<R> {
    WORLD.with_borrow_mut(|world| world.as_mut().map(f))
}

/// FNV-1a with 64 bits, in words.
struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for word in bytes.chunks(8) {
            let mut whole = [0; 8];
            whole[..word.len()].copy_from_slice(word);
            self.write_u64(u64::from_le_bytes(whole));
        }
    }

    fn write_u128(&mut self, word: u128) {
        self.write_u64(word as u64);
        self.write_u64((word >> 64) as u64);
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 ^= self.0 >> 29;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

fn hash(what: &impl Hash) -> u64 {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    what.hash(&mut hasher);
    hasher.finish()
}

/// A value's bytes, and back.
fn to_bytes<T>(value: &T) -> u128 {
    let mut bytes = [0; 16];
    assert!(size_of::<T>() <= bytes.len());
    // SAFETY: as many bytes as the value has, and none of the rings' types has any
    // that is not a field's.
    unsafe {
        let from = (&raw const *value).cast::<u8>();
        bytes
            .as_mut_ptr()
            .copy_from_nonoverlapping(from, size_of::<T>());
    }
    u128::from_le_bytes(bytes)
}

fn from_bytes<T: Copy>(bytes: u128) -> T {
    let bytes = bytes.to_le_bytes();
    assert!(size_of::<T>() <= bytes.len());
    // SAFETY: as many bytes, and the rings' types are made of numbers.
    unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
}

/// The driver loads a field, if a model runs.
pub(super) fn driver_loads<T: Copy>(at: *const T, order: Ordering) -> Option<T> {
    with(|world| {
        world.let_device();
        let ((offset, len), order) = (world.offset(at), world.order(order, Mutation::Acquire));
        let choice = world.memory.choices(Side::Driver, offset, len);
        let choice = world.choices.choose(choice);
        let memory = &mut world.memory;
        let value = memory.load(Side::Driver, offset, len, order, choice);
        world.choices.found(value);
        from_bytes(value)
    })
}

/// The driver stores a field; whether a model runs.
pub(super) fn driver_stores<T: Copy>(at: *const T, value: T, order: Ordering) -> bool {
    let stores = |world: &mut World| {
        let order = world.order(order, Mutation::Release);
        world.store(world.offset(at), to_bytes(&value), order);
    };
    with(stores).is_some()
}

/// The driver writes what the device does not read yet; whether a model runs.
pub(super) fn driver_writes<T>(at: NonNull<T>, value: &T) -> bool {
    let writes = |world: &mut World| {
        let at = world.offset(at.as_ptr());
        world.store(at, to_bytes(value), Order::Relaxed);
    };
    with(writes).is_some()
}

/// The driver reads what the device writes no more, if a model runs: of old bytes
/// that it may find, it does.
pub(super) fn driver_reads<T: Copy>(at: NonNull<T>) -> Option<T> {
    with(|world| {
        let (offset, len) = world.offset(at.as_ptr());
        if world.memory.choices(Side::Driver, offset, len) > 1 && world.fault.is_none() {
            world.fault = Some(std::format!("the driver may read old bytes at {offset}"));
        }
        let memory = &mut world.memory;
        from_bytes(memory.load(Side::Driver, offset, len, Order::Relaxed, 0))
    })
}

/// A full barrier of the driver's; whether a model runs.
pub(super) fn driver_fences() -> bool {
    let fences = |world: &mut World| {
        let without = match world.pops {
            true => Mutation::PopBarrier,
            false => Mutation::KickBarrier,
        };
        if world.mutation != Some(without) {
            world.let_device();
            world.memory.fence(Side::Driver);
            world.choices.found(u128::MAX);
        }
    };
    with(fences).is_some()
}

/// Whether the event-index test is to be the one that does not know of the wrap.
pub(super) fn forgets_to_wrap() -> bool {
    with(|world| world.mutation == Some(Mutation::Wrapping)) == Some(true)
}
