//! The device's side of a split ring (virtio 1.2, 2.7).

use std::collections::BTreeSet;
use std::format;
use std::string::String;
use std::sync::atomic::{Ordering, fence};

use super::Chain;
use super::ring::{Descriptor, INDIRECT, NEXT, Side, WRITE};
use crate::queue::Buffer;

/// `VIRTQ_AVAIL_F_NO_INTERRUPT` and `VIRTQ_USED_F_NO_NOTIFY`.
const SUPPRESSED: u16 = 1;

/// Where the device is in a split ring.
#[derive(Debug, Default)]
pub(super) struct Split {
    last_avail: u16,
    used_idx: u16,
    /// The descriptors of the requests that were taken.
    in_use: BTreeSet<u16>,
}

impl Split {
    pub(super) fn is_waiting(&self, side: &mut Side<'_>) -> bool {
        let idx = side.load(side.at.driver + 2, Ordering::Acquire);
        let waiting = idx.wrapping_sub(self.last_avail);
        if waiting > side.size {
            side.violation(format!(
                "avail.idx went from {} to {idx} (2.7.6.1)",
                self.last_avail
            ));
            return false;
        }
        waiting > 0
    }

    pub(super) fn take<'d>(&mut self, side: &mut Side<'d>) -> Result<Chain<'d>, String> {
        let flags = avail_flags(side);
        if flags > SUPPRESSED || side.event_idx && flags != 0 {
            side.violation(format!("avail.flags is {flags} (2.7.7.1)"));
        }
        let slot = u64::from(self.last_avail % side.size);
        let head = side.load(side.at.driver + 4 + 2 * slot, Ordering::Relaxed);
        self.last_avail = self.last_avail.wrapping_add(1);
        let chain = self.walk(side, head);
        let chain = chain.map_err(|what| format!("request {head}: {what}"))?;
        self.in_use.extend(&chain.descriptors);
        Ok(chain)
    }

    /// Notes that a request's descriptors are the driver's again.
    pub(super) fn forget(&mut self, chain: &Chain<'_>) {
        for descriptor in &chain.descriptors {
            self.in_use.remove(descriptor);
        }
    }

    /// Follows a request's descriptors, and checks them.
    fn walk<'d>(&self, side: &Side<'d>, head: u16) -> Result<Chain<'d>, String> {
        let mut chain = Chain::new(side.dma, head);
        let (mut table, mut len, mut index) = (side.at.descriptors, side.size, head);
        loop {
            if index >= len {
                return Err(format!("descriptor {index} of a table of {len}"));
            }
            let Descriptor {
                address,
                len: bytes,
                rest: [flags, next],
            } = side.descriptor(table, index);
            if !chain.indirect {
                if self.in_use.contains(&index) || chain.descriptors.contains(&index) {
                    return Err(format!("descriptor {index} is in use already"));
                }
                chain.descriptors.push(index);
            }
            if flags & !(NEXT | WRITE | INDIRECT) != 0 {
                return Err(format!("descriptor flags {flags:#x} (2.7.5)"));
            }
            if flags & INDIRECT != 0 {
                if chain.indirect {
                    return Err("a table in a table (2.7.5.3.1)".into());
                }
                chain.indirect = true;
                (table, len, index) = (address, side.table_len(bytes, flags)?, 0);
                continue;
            }
            let buffer = Buffer {
                address,
                len: bytes,
                writable: flags & WRITE != 0,
            };
            chain.push(buffer, side.size)?;
            if flags & NEXT == 0 {
                return Ok(chain);
            }
            index = next;
        }
    }

    /// Puts an entry into the used ring, and says whether an interrupt is due
    /// (2.7.7.2).
    pub(super) fn put(&mut self, side: &mut Side<'_>, id: u32, _: u16, written: u32) -> bool {
        let entry = side.at.device + 4 + 8 * u64::from(self.used_idx % side.size);
        let into = side.dma.cpu_pointer(entry, 8).cast::<[u32; 2]>();
        assert!(into.is_aligned(), "the used ring is not aligned (2.7.1)");
        // SAFETY: inside allocated memory and aligned; the driver reads it once
        // the index below covers it.
        unsafe { into.write_volatile([id.to_le(), written.to_le()]) }
        let old = self.used_idx;
        self.used_idx = old.wrapping_add(1);
        self.run_ahead(side, 0);
        fence(Ordering::SeqCst);
        if side.event_idx {
            // Where the driver's `used_event` is.
            let event = side.at.driver + 4 + 2 * u64::from(side.size);
            side.load(event, Ordering::Relaxed) == old
        } else {
            avail_flags(side) & SUPPRESSED == 0
        }
    }

    /// Shows a used index that is ahead of the used ring.
    pub(super) fn run_ahead(&self, side: &Side<'_>, by: u16) {
        let idx = self.used_idx.wrapping_add(by);
        side.store(side.at.device + 2, idx, Ordering::Release);
    }

    pub(super) fn sleep(&self, side: &Side<'_>) {
        if side.event_idx {
            self.ask_at(side, self.last_avail);
        } else {
            side.store(side.at.device, 0, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
    }

    pub(super) fn ask_at(&self, side: &Side<'_>, idx: u16) {
        // Where the device's `avail_event` is.
        let event = side.at.device + 4 + 8 * u64::from(side.size);
        side.store(event, idx, Ordering::Relaxed);
    }

    pub(super) fn poll(&self, side: &Side<'_>) {
        if side.event_idx {
            self.ask_at(side, self.last_avail.wrapping_sub(1));
        } else {
            side.store(side.at.device, SUPPRESSED, Ordering::Relaxed);
        }
    }
}

fn avail_flags(side: &Side<'_>) -> u16 {
    side.load(side.at.driver, Ordering::Relaxed)
}
