//! The vectors that devices have, and whose each is.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use super::{InterruptError, Source};
use crate::arch::apic::pic;
use crate::platform::gsi::Gsi;

/// The vectors for devices: behind those of the 8259s, which still may raise one,
/// and before the kernel's own.
pub(super) const DEVICES: RangeInclusive<u8> = pic::END..=0xef;
/// The local APIC's timer.
pub(super) const TIMER: u8 = 0xf0;
/// What the local APIC raises where an interrupt went away in the last moment
/// (Intel SDM volume 3, 11.9). Some have the lower four bits wired to 1.
pub(super) const SPURIOUS: u8 = 0xff;

/// A line of which so many interrupts in a row are nobody's is stuck. A few can be,
/// where a device takes its interrupt back by itself. So many take less than a
/// millisecond, or a second where KVM emulates the CPU.
pub(super) const STORM: u32 = 200;

/// What became of an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// At least one source counted it.
    Claimed,
    /// No source of its line says that it was its.
    Unclaimed,
    /// The same, so often that the line must be masked.
    Storm(Gsi),
    /// The vector is nobody's.
    Stray,
}

/// A vector: free while it has no sources.
#[derive(Debug, Default)]
struct Slot {
    sources: Vec<Arc<Source>>,
    /// The wired interrupt that raises it; `None` for messages.
    line: Option<Line>,
}

#[derive(Debug)]
struct Line {
    gsi: Gsi,
    /// How many interrupts in a row nobody claimed.
    unclaimed: u32,
}

/// All vectors for devices, as far as they were ever used.
#[derive(Debug, Default)]
pub(super) struct Vectors(Vec<Slot>);

impl Vectors {
    /// A vector of its own for `source`.
    pub(super) fn connect_message(&mut self, source: Arc<Source>) -> Result<u8, InterruptError> {
        let (vector, slot) = self.free()?;
        slot.sources.push(source);
        Ok(vector)
    }

    /// The vector of a wired interrupt, shared by all of its sources.
    pub(super) fn connect_line(
        &mut self,
        gsi: Gsi,
        source: Arc<Source>,
    ) -> Result<u8, InterruptError> {
        let shared = DEVICES
            .zip(&mut self.0)
            .find_map(|(vector, slot)| match &mut slot.line {
                Some(line) if line.gsi.number == gsi.number => Some((vector, slot)),
                _ => None,
            });
        let (vector, slot) = match shared {
            Some(shared) => shared,
            None => self.free()?,
        };
        match &mut slot.line {
            Some(line) if line.gsi != gsi => {
                return Err(InterruptError::Conflict {
                    connected: line.gsi,
                    asked: gsi,
                });
            }
            // It may be what the line waited for.
            Some(line) => line.unclaimed = 0,
            None => slot.line = Some(Line { gsi, unclaimed: 0 }),
        }
        slot.sources.push(source);
        Ok(vector)
    }

    fn free(&mut self) -> Result<(u8, &mut Slot), InterruptError> {
        let free = self.0.iter().position(|slot| slot.sources.is_empty());
        let index = free.unwrap_or(self.0.len());
        let vector = DEVICES.clone().nth(index).ok_or(InterruptError::NoVector)?;
        if index == self.0.len() {
            self.0.push(Slot::default());
        }
        Ok((vector, &mut self.0[index]))
    }

    /// The wired interrupt that only `source` is on, at this vector.
    pub(super) fn line_of_last(&self, vector: u8, source: &Arc<Source>) -> Option<Gsi> {
        let slot = self.0.get(index(vector)?)?;
        let others = slot.sources.iter().any(|other| !Arc::ptr_eq(other, source));
        if others {
            None
        } else {
            Some(slot.line.as_ref()?.gsi)
        }
    }

    /// Takes one connection of `source` back. The last one frees the vector.
    pub(super) fn disconnect(&mut self, vector: u8, source: &Arc<Source>) {
        let Some(slot) = index(vector).and_then(|index| self.0.get_mut(index)) else {
            return;
        };
        let position = slot.sources.iter().position(|own| Arc::ptr_eq(own, source));
        if let Some(position) = position {
            slot.sources.swap_remove(position);
        }
        if slot.sources.is_empty() {
            slot.line = None;
        }
    }

    /// Handles an interrupt: asks each of its sources.
    pub(super) fn interrupt(&mut self, vector: u8, entered: u64) -> Verdict {
        let slot = index(vector).and_then(|index| self.0.get_mut(index));
        let Some(slot) = slot.filter(|slot| !slot.sources.is_empty()) else {
            return Verdict::Stray;
        };
        let mut claimed = false;
        for source in &slot.sources {
            claimed |= source.take(entered);
        }
        match &mut slot.line {
            _ if claimed => {
                slot.line.iter_mut().for_each(|line| line.unclaimed = 0);
                Verdict::Claimed
            }
            None => Verdict::Unclaimed,
            Some(line) => {
                line.unclaimed = line.unclaimed.saturating_add(1);
                // Masking may come too late for the next one. It is no storm yet.
                if line.unclaimed.is_multiple_of(STORM) {
                    Verdict::Storm(line.gsi)
                } else {
                    Verdict::Unclaimed
                }
            }
        }
    }

    /// The lines that are masked because nobody claimed their interrupts.
    pub(super) fn masked(&self) -> impl Iterator<Item = Gsi> {
        let lines = self.0.iter().filter_map(|slot| slot.line.as_ref());
        lines
            .filter(|line| line.unclaimed >= STORM)
            .map(|line| line.gsi)
    }
}

/// A vector's place among those for devices.
fn index(vector: u8) -> Option<usize> {
    DEVICES
        .contains(&vector)
        .then(|| usize::from(vector - DEVICES.start()))
}

#[cfg(test)]
mod tests {
    use core::ptr::NonNull;
    use core::sync::atomic::{AtomicU8, Ordering};
    use std::boxed::Box;

    use doorbell::mmio::MmioRegion;
    use doorbell::transport::{IsrBits, IsrStatus};

    use super::*;
    use crate::platform::gsi::{Polarity, Trigger};

    fn gsi(number: u32) -> Gsi {
        Gsi {
            number,
            trigger: Trigger::Level,
            polarity: Polarity::High,
        }
    }

    fn message() -> Arc<Source> {
        Arc::new(Source::message(IsrBits::QUEUE_INTERRUPT))
    }

    /// A source whose ISR status reads as `isr`. Being memory, it stays so.
    fn line(isr: u8) -> Arc<Source> {
        line_at(Box::leak(Box::new(AtomicU8::new(isr))))
    }

    fn line_at(isr: &'static AtomicU8) -> Arc<Source> {
        let memory = NonNull::from(isr).cast();
        // SAFETY: the byte is never freed.
        let region = unsafe { MmioRegion::new(memory, 1) };
        let register = region.registers(0).unwrap();
        Arc::new(Source::line(IsrStatus::byte(register)))
    }

    #[test]
    fn each_message_has_a_vector_until_they_run_out() {
        let mut vectors = Vectors::default();
        let source = message();
        for expected in DEVICES {
            assert_eq!(vectors.connect_message(source.clone()), Ok(expected));
        }
        let full = Err(InterruptError::NoVector);
        assert_eq!(vectors.connect_message(source.clone()), full);
        assert_eq!(vectors.connect_line(gsi(16), line(0)), full);
        vectors.disconnect(0x50, &source);
        assert_eq!(vectors.connect_message(source), Ok(0x50));
    }

    #[test]
    fn a_message_counts_at_its_own_source() {
        let mut vectors = Vectors::default();
        let both = IsrBits::QUEUE_INTERRUPT | IsrBits::DEVICE_CONFIGURATION_INTERRUPT;
        let (queue, shared) = (message(), Arc::new(Source::message(both)));
        let vector = vectors.connect_message(queue.clone()).unwrap();
        let other = vectors.connect_message(shared.clone()).unwrap();
        assert_eq!(vectors.interrupt(vector, 5), Verdict::Claimed);
        assert_eq!(vectors.interrupt(vector, 7), Verdict::Claimed);
        assert_eq!(vectors.interrupt(other, 9), Verdict::Claimed);
        let counts = |source: &Source| {
            let (queue, config) = (source.queue_interrupts(), source.config_interrupts());
            (queue, config, source.entered())
        };
        assert_eq!(counts(&queue), (2, 0, 7));
        assert_eq!(counts(&shared), (1, 1, 9));
    }

    #[test]
    fn a_line_is_shared_and_each_source_is_asked() {
        let mut vectors = Vectors::default();
        let (idle, busy, changed) = (line(0), line(1), line(3));
        let vector = vectors.connect_line(gsi(16), idle.clone()).unwrap();
        for source in [&busy, &changed] {
            assert_eq!(vectors.connect_line(gsi(16), source.clone()), Ok(vector));
        }
        assert_ne!(vectors.connect_line(gsi(17), line(1)), Ok(vector));
        assert_eq!(vectors.interrupt(vector, 3), Verdict::Claimed);
        assert_eq!((idle.queue_interrupts(), idle.entered()), (0, 0));
        assert_eq!((busy.queue_interrupts(), busy.config_interrupts()), (1, 0));
        assert_eq!(
            (changed.queue_interrupts(), changed.config_interrupts()),
            (1, 1)
        );

        assert_eq!(vectors.line_of_last(vector, &busy), None);
        vectors.disconnect(vector, &busy);
        vectors.disconnect(vector, &changed);
        assert_eq!(vectors.line_of_last(vector, &idle), Some(gsi(16)));
        assert_eq!(vectors.interrupt(vector, 4), Verdict::Unclaimed);
        assert_eq!(busy.queue_interrupts(), 1, "it left");
        vectors.disconnect(vector, &idle);
        assert_eq!(vectors.interrupt(vector, 5), Verdict::Stray);
    }

    #[test]
    fn lines_that_differ_in_kind_are_not_shared() {
        let mut vectors = Vectors::default();
        let source = line(0);
        let vector = vectors.connect_line(gsi(10), source.clone()).unwrap();
        let asked = Gsi {
            polarity: Polarity::Low,
            ..gsi(10)
        };
        let connected = gsi(10);
        let conflict = Err(InterruptError::Conflict { connected, asked });
        assert_eq!(vectors.connect_line(asked, line(0)), conflict);
        vectors.disconnect(vector, &source);
        assert_eq!(vectors.connect_line(asked, line(0)), Ok(vector));
    }

    #[test]
    fn what_nobody_claims_is_a_storm_after_a_while() {
        let mut vectors = Vectors::default();
        let idle = line(0);
        let vector = vectors.connect_line(gsi(16), idle.clone()).unwrap();
        for _ in 1..STORM {
            assert_eq!(vectors.interrupt(vector, 1), Verdict::Unclaimed);
        }
        assert_eq!(vectors.masked().count(), 0);
        assert_eq!(vectors.interrupt(vector, 1), Verdict::Storm(gsi(16)));
        assert_eq!(vectors.interrupt(vector, 1), Verdict::Unclaimed, "late");
        assert_eq!(vectors.masked().collect::<Vec<_>>(), [gsi(16)]);
        // Another source opens the line again. One that claims an interrupt now
        // and then keeps it open.
        static ISR: AtomicU8 = AtomicU8::new(0);
        vectors.connect_line(gsi(16), line_at(&ISR)).unwrap();
        assert_eq!(vectors.masked().count(), 0);
        for round in 1..3 * STORM {
            let (isr, verdict) = if round % (STORM - 1) == 0 {
                (1, Verdict::Claimed)
            } else {
                (0, Verdict::Unclaimed)
            };
            ISR.store(isr, Ordering::Relaxed);
            assert_eq!(vectors.interrupt(vector, 1), verdict, "{round}");
        }
    }

    #[test]
    fn vectors_that_are_not_for_devices_are_strays() {
        let mut vectors = Vectors::default();
        vectors.connect_message(message()).unwrap();
        for vector in [0, 31, 32, 47, 49, 0xef, 0xf1, 0xfe] {
            assert_eq!(vectors.interrupt(vector, 1), Verdict::Stray, "{vector}");
        }
    }
}
