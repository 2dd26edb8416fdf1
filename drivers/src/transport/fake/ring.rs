//! The device's side of a ring, written from the specification and apart from the
//! driver's: what both kinds of ring have in common.

use std::collections::BTreeMap;
use std::format;
use std::string::String;
use std::sync::atomic::{AtomicU16, Ordering};
use std::vec::Vec;

use super::Chain;
use super::packed::Packed;
use super::split::Split;
use crate::dma::fake::FakeDma;
use crate::transport::RingAddresses;
use crate::virtio::Features;

pub(super) const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;
pub(super) const INDIRECT: u16 = 4;

/// A ring as its device sees it.
#[derive(Debug)]
pub struct DeviceRing<'d> {
    side: Side<'d>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Split(Split),
    Packed(Packed),
}

/// What the device has of a ring of either kind.
#[derive(Debug)]
pub(super) struct Side<'d> {
    pub(super) dma: &'d FakeDma,
    pub(super) size: u16,
    pub(super) at: RingAddresses,
    pub(super) event_idx: bool,
    pub(super) indirect: bool,
    /// Requests taken and not given back, by head.
    pub(super) taken: BTreeMap<u16, Chain<'d>>,
    pub(super) interrupts: u64,
    pub(super) violations: Vec<String>,
}

/// A descriptor's bytes, in numbers.
pub(super) struct Descriptor {
    pub(super) address: u64,
    pub(super) len: u32,
    /// The two fields behind these, in their order.
    pub(super) rest: [u16; 2],
}

impl<'d> Side<'d> {
    pub(super) fn violation(&mut self, what: String) {
        self.violations.push(what);
    }

    /// A 16-bit field that both sides access.
    pub(super) fn word(&self, address: u64) -> &AtomicU16 {
        let pointer = self.dma.cpu_pointer(address, 2).cast::<u16>();
        assert!(
            pointer.is_aligned(),
            "a ring's part is not aligned (2.7.1, 2.8.10.1)"
        );
        // SAFETY: inside allocated memory, aligned, and accessed atomically by
        // both sides.
        unsafe { AtomicU16::from_ptr(pointer) }
    }

    pub(super) fn load(&self, address: u64, order: Ordering) -> u16 {
        u16::from_le(self.word(address).load(order))
    }

    pub(super) fn store(&self, address: u64, value: u16, order: Ordering) {
        self.word(address).store(value.to_le(), order);
    }

    /// Reads the descriptor `index` of the table or ring at `table`.
    pub(super) fn descriptor(&self, table: u64, index: u16) -> Descriptor {
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
        Descriptor {
            address: part(0, 8),
            len: part(8, 4) as u32,
            rest: [part(12, 2) as u16, part(14, 2) as u16],
        }
    }

    /// Checks a descriptor that refers to a table, and says how many descriptors
    /// the table has.
    pub(super) fn table_len(&self, len: u32, flags: u16) -> Result<u16, String> {
        if !self.indirect || flags & NEXT != 0 {
            return Err(format!(
                "an indirect descriptor, flags {flags:#x} (2.7.5.3.1, 2.8.19)"
            ));
        }
        if len == 0 || !len.is_multiple_of(16) {
            return Err(format!("an indirect table of {len} bytes (2.7.5.3, 2.8.7)"));
        }
        Ok((len / 16) as u16)
    }
}

/// What the ring's kind makes of it.
macro_rules! each {
    ($self:ident, $ring:ident, $side:ident => $what:expr) => {{
        let Self { side: $side, kind } = $self;
        match kind {
            Kind::Split($ring) => $what,
            Kind::Packed($ring) => $what,
        }
    }};
}

impl<'d> DeviceRing<'d> {
    /// The ring of `size` descriptors at `at`, under these features.
    pub fn new(dma: &'d FakeDma, size: u16, at: RingAddresses, features: Features) -> Self {
        let kind = if features.contains(Features::RING_PACKED) {
            Kind::Packed(Packed::new())
        } else {
            Kind::Split(Split::default())
        };
        let side = Side {
            dma,
            size,
            at,
            event_idx: features.contains(Features::EVENT_IDX),
            indirect: features.contains(Features::INDIRECT_DESC),
            taken: BTreeMap::new(),
            interrupts: 0,
            violations: Vec::new(),
        };
        Self { side, kind }
    }

    /// How many interrupts were due.
    pub fn interrupts(&self) -> u64 {
        self.side.interrupts
    }

    /// What the driver did against the specification; forgotten after this.
    pub fn violations(&mut self) -> Vec<String> {
        core::mem::take(&mut self.side.violations)
    }

    /// Whether the ring is in memory that is allocated.
    pub(super) fn is_shared(&self) -> bool {
        let Side { dma, size, at, .. } = &self.side;
        let size = usize::from(*size);
        let (driver, device) = match self.kind {
            Kind::Split(_) => (6 + 2 * size, 6 + 8 * size),
            Kind::Packed(_) => (4, 4),
        };
        dma.is_shared(at.descriptors, 16 * size)
            && dma.is_shared(at.driver, driver)
            && dma.is_shared(at.device, device)
    }

    /// Whether the requests that were taken are in memory that is allocated.
    pub(super) fn are_requests_shared(&self) -> bool {
        self.side.taken.values().all(Chain::is_shared)
    }

    /// Where the ring is.
    pub fn addresses(&self) -> RingAddresses {
        self.side.at
    }

    /// Whether the driver has made a request available that is not taken.
    pub fn is_waiting(&mut self) -> bool {
        each!(self, ring, side => ring.is_waiting(side))
    }

    /// Takes the next request that the driver has made available.
    pub fn take(&mut self) -> Option<Chain<'d>> {
        each!(self, ring, side => {
            if !ring.is_waiting(side) {
                return None;
            }
            match ring.take(side) {
                Ok(chain) => {
                    side.taken.insert(chain.head(), chain.clone());
                    Some(chain)
                }
                Err(what) => {
                    side.violation(what);
                    None
                }
            }
        })
    }

    /// Gives a request back, having written `written` bytes, and notes whether
    /// an interrupt is due.
    pub fn finish(&mut self, head: u16, written: u32) {
        self.publish(head.into(), written);
        let chain = self.side.taken.remove(&head);
        if let (Some(chain), Kind::Split(ring)) = (chain, &mut self.kind) {
            ring.forget(&chain);
        }
    }

    /// Says of whatever request that it is given back.
    pub fn publish(&mut self, id: u32, written: u32) {
        let head = u16::try_from(id).ok();
        let chain = head.and_then(|head| self.side.taken.get(&head));
        let descriptors = chain.map_or(1, Chain::descriptors) as u16;
        each!(self, ring, side => {
            let due = ring.put(side, id, descriptors, written);
            side.interrupts += u64::from(due);
        });
    }

    /// Shows `by` requests as given back, and does not say which.
    pub fn run_ahead(&mut self, by: u16) {
        each!(self, ring, side => ring.run_ahead(side, by));
    }

    /// Asks to be notified of the next request. `false` if one has come since:
    /// then the device has to look again.
    pub fn sleep(&mut self) -> bool {
        each!(self, ring, side => ring.sleep(side));
        !self.is_waiting()
    }

    /// Asks to be notified of the step past `event`, with `VIRTIO_F_EVENT_IDX`: an
    /// index in a split ring (2.7.10.2), an offset and a wrap counter in a packed
    /// one (2.8.14).
    pub fn ask_at(&self, event: u16) {
        each!(self, ring, side => ring.ask_at(side, event));
    }

    /// Asks not to be notified.
    pub fn poll(&mut self) {
        each!(self, ring, side => ring.poll(side));
    }
}
