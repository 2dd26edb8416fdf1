//! The device's side of a packed ring (virtio 1.2, 2.8).

use std::format;
use std::string::String;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use super::Chain;
use super::ring::{Descriptor, INDIRECT, NEXT, Side, WRITE};
use crate::queue::Buffer;

const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// `RING_EVENT_FLAGS_*` (2.8.10).
const ENABLE: u16 = 0;
const DISABLE: u16 = 1;
const DESC: u16 = 2;

/// Where the device is in a packed ring. Descriptors are counted from the start of
/// the first of two laps: the wrap counter is 1 in the first and 0 in the second
/// (2.8.1).
#[derive(Debug)]
pub(super) struct Packed {
    /// The next descriptor to look at.
    avail: u32,
    /// The next one to be written.
    used: u32,
    /// How many were looked at and are not written over.
    held: u16,
}

impl Packed {
    pub(super) fn new() -> Self {
        Self {
            avail: 0,
            used: 0,
            held: 0,
        }
    }

    /// Whether the next descriptor is available (2.8.2).
    pub(super) fn is_waiting(&self, side: &mut Side<'_>) -> bool {
        let flags = side.load(flags_at(side, self.avail), Ordering::Acquire);
        flags & (AVAIL | USED) == available(side, self.avail)
    }

    pub(super) fn take<'d>(&mut self, side: &mut Side<'d>) -> Result<Chain<'d>, String> {
        check_driver_event(side);
        let first = self.avail;
        let chain = self.walk(side);
        chain.map_err(|what| format!("the request at descriptor {first}: {what}"))
    }

    /// Follows a request's descriptors, and checks them.
    fn walk<'d>(&mut self, side: &Side<'d>) -> Result<Chain<'d>, String> {
        let mut chain = Chain::new(side.dma, 0);
        loop {
            let (at, size) = (self.avail, u32::from(side.size));
            let index = (at % size) as u16;
            let Descriptor {
                address,
                len,
                rest: [id, flags],
            } = side.descriptor(side.at.descriptors, index);
            if self.held == side.size {
                return Err(format!("descriptor {index} is in use already (2.8.16)"));
            }
            (self.avail, self.held) = (step(side, at, 1), self.held + 1);
            chain.descriptors.push(index);
            if flags & (AVAIL | USED) != available(side, at) {
                return Err(format!(
                    "descriptor {index} of a chain has flags {flags:#x} (2.8.6)"
                ));
            }
            if flags & !(NEXT | WRITE | INDIRECT | AVAIL | USED) != 0 {
                return Err(format!("descriptor flags {flags:#x} (2.8.13)"));
            }
            if flags & INDIRECT != 0 {
                if chain.descriptors.len() > 1 {
                    return Err("a table in a chain (2.8.19)".into());
                }
                chain.indirect = true;
                for entry in 0..side.table_len(len, flags)? {
                    push_entry(side, &mut chain, address, entry)?;
                }
            } else {
                let writable = flags & WRITE != 0;
                let buffer = Buffer {
                    address,
                    len,
                    writable,
                };
                chain.push(buffer, side.size)?;
            }
            if flags & NEXT == 0 {
                // Only this one's ID counts (2.8.6).
                if id >= side.size || side.taken.contains_key(&id) {
                    return Err(format!("its ID {id} is in use, or none"));
                }
                chain.head = id;
                return Ok(chain);
            }
        }
    }

    /// Writes a used descriptor for `descriptors` of the ring's, and says whether an
    /// interrupt is due (2.8.10).
    pub(super) fn put(
        &mut self,
        side: &mut Side<'_>,
        id: u32,
        descriptors: u16,
        written: u32,
    ) -> bool {
        let old = self.used;
        let at = side.at.descriptors + 16 * u64::from(old % u32::from(side.size));
        let into = side.dma.cpu_pointer(at, 16);
        let id = id as u16;
        // SAFETY: inside allocated memory; the driver reads it once the flags below
        // say that it is used.
        unsafe {
            into.add(8)
                .cast::<[u8; 4]>()
                .write_volatile(written.to_le_bytes());
            into.add(12)
                .cast::<[u8; 2]>()
                .write_volatile(id.to_le_bytes());
        }
        // 2.8.3
        let write = if written > 0 { WRITE } else { 0 };
        let flags = used(side, old) | write;
        side.store(flags_at(side, old), flags, Ordering::Release);
        self.used = step(side, old, descriptors);
        self.held = self.held.saturating_sub(descriptors);
        fence(Ordering::SeqCst);
        let (event, flags) = driver_event(side);
        match flags {
            ENABLE => true,
            DISABLE => false,
            _ => (0..descriptors).any(|n| place(side, step(side, old, n)) == event),
        }
    }

    /// Marks `by` descriptors as used, with what is in them: of a request that is in
    /// one of them, that gives it back.
    pub(super) fn run_ahead(&self, side: &mut Side<'_>, by: u16) {
        for n in (0..by).rev() {
            let at = step(side, self.used, n);
            let index = (at % u32::from(side.size)) as u16;
            side.taken.retain(|_, chain| chain.descriptors != [index]);
            side.store(flags_at(side, at), used(side, at), Ordering::Release);
        }
    }

    pub(super) fn sleep(&self, side: &Side<'_>) {
        if side.event_idx {
            self.ask_at(side, place(side, self.avail));
        } else {
            set_device_event(side, 0, ENABLE);
        }
        fence(Ordering::SeqCst);
    }

    pub(super) fn ask_at(&self, side: &Side<'_>, place: u16) {
        set_device_event(side, place, DESC);
    }

    pub(super) fn poll(&self, side: &Side<'_>) {
        set_device_event(side, 0, DISABLE);
    }
}

/// `by` descriptors behind `at`, within two laps.
fn step(side: &Side<'_>, at: u32, by: u16) -> u32 {
    (at + u32::from(by)) % (2 * u32::from(side.size))
}

/// The wrap counter of who is at `at`.
fn wrap(side: &Side<'_>, at: u32) -> bool {
    at < u32::from(side.size)
}

/// The flags of an available descriptor at `at`: `AVAIL` as the counter, `USED` its
/// inverse.
fn available(side: &Side<'_>, at: u32) -> u16 {
    if wrap(side, at) { AVAIL } else { USED }
}

/// The flags of a used descriptor at `at`: both as the counter.
fn used(side: &Side<'_>, at: u32) -> u16 {
    if wrap(side, at) { AVAIL | USED } else { 0 }
}

/// Offset and wrap counter, as an event suppression structure has them (2.8.14).
fn place(side: &Side<'_>, at: u32) -> u16 {
    (at % u32::from(side.size)) as u16 | u16::from(wrap(side, at)) << 15
}

/// Where the flags of the descriptor at `at` are.
fn flags_at(side: &Side<'_>, at: u32) -> u64 {
    side.at.descriptors + 16 * u64::from(at % u32::from(side.size)) + 14
}

/// Checks an entry of a table of indirect descriptors, and adds it.
fn push_entry(
    side: &Side<'_>,
    chain: &mut Chain<'_>,
    table: u64,
    entry: u16,
) -> Result<(), String> {
    let desc = side.descriptor(table, entry);
    let [_, flags] = desc.rest;
    if flags & !WRITE != 0 {
        return Err(format!("flags {flags:#x} in a table (2.8.19)"));
    }
    let buffer = Buffer {
        address: desc.address,
        len: desc.len,
        writable: flags & WRITE != 0,
    };
    chain.push(buffer, side.size)
}

/// An event suppression structure.
fn event<'a>(side: &'a Side<'_>, address: u64) -> &'a AtomicU32 {
    let pointer = side.dma.cpu_pointer(address, 4).cast::<u32>();
    assert!(
        pointer.is_aligned(),
        "an event suppression structure is not aligned (2.8.10.1)"
    );
    // SAFETY: inside allocated memory, aligned, and accessed atomically by both
    // sides.
    unsafe { AtomicU32::from_ptr(pointer) }
}

/// The driver's place and flags.
fn driver_event(side: &Side<'_>) -> (u16, u16) {
    let value = u32::from_le(event(side, side.at.driver).load(Ordering::Relaxed));
    (value as u16, (value >> 16) as u16)
}

fn check_driver_event(side: &mut Side<'_>) {
    let (place, flags) = driver_event(side);
    let in_ring = flags != DESC || place & 0x7fff < side.size;
    if flags > DESC || flags == DESC && !side.event_idx || !in_ring {
        side.violation(format!(
            "driver event suppression is {place:#x}, {flags:#x} (2.8.10)"
        ));
    }
}

fn set_device_event(side: &Side<'_>, place: u16, flags: u16) {
    let value = u32::from(place) | u32::from(flags) << 16;
    event(side, side.at.device).store(value.to_le(), Ordering::Relaxed);
}
