//! What the handler works on: the interrupt controllers and the vectors, behind
//! one lock.

use alloc::vec::Vec;

use spin::{Mutex, Once};

use super::vectors::{SPURIOUS, TIMER, Vectors, Verdict};
use crate::arch;
use crate::arch::apic::local::TimerRate;
use crate::arch::apic::{IoApic, LocalApic};
use crate::arch::tsc;

/// The controller, once there is one.
static CONTROLLER: Once<Guarded> = Once::new();

/// The controller. Whoever works on it has interrupts disabled: so has the handler,
/// and so it never finds the lock taken.
#[derive(Debug)]
pub(super) struct Guarded(Mutex<Controller>);

impl Guarded {
    /// Works on the controller.
    pub(super) fn with<R>(&self, work: impl FnOnce(&mut Controller) -> R) -> R {
        arch::interrupt::disabled(|| work(&mut self.0.lock()))
    }
}

/// How many interrupts came that are no device's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// With a vector that is nobody's.
    pub strays: u64,
    /// With the local APIC's vector for those that went away in the last moment.
    pub spurious: u64,
    /// On a line of which no source claimed it.
    pub unclaimed: u64,
    /// Of the timer.
    pub timer: u64,
    /// How often a line was masked, because it would not stop.
    pub storms: u64,
}

/// All there is to interrupts.
#[derive(Debug)]
pub(super) struct Controller {
    pub(super) local: LocalApic,
    pub(super) io: Vec<IoApic>,
    pub(super) vectors: Vectors,
    pub(super) counts: Counts,
    timer: Option<Timer>,
}

#[derive(Debug)]
struct Timer {
    rate: TimerRate,
    /// The TSC at which its interrupt is due at the latest.
    due: Option<u64>,
}

impl Controller {
    /// Takes the controllers over. From here on interrupts are handled.
    ///
    /// The timer's rate is measured, which takes half a millisecond.
    pub(super) fn begin(mut local: LocalApic, io: Vec<IoApic>) -> &'static Guarded {
        let rate = local.start_timer(TIMER);
        let controller = CONTROLLER.call_once(|| {
            Guarded(Mutex::new(Self {
                local,
                io,
                vectors: Vectors::default(),
                counts: Counts::default(),
                timer: rate.map(|rate| Timer { rate, due: None }),
            }))
        });
        arch::interrupt::set_handler(|vector, entered| {
            if let Some(controller) = CONTROLLER.get() {
                controller.with(|controller| controller.handle(vector, entered));
            }
        });
        controller
    }

    /// Handles one interrupt.
    fn handle(&mut self, vector: u8, entered: u64) {
        match vector {
            // The one that must not be ended (Intel SDM volume 3, 11.9).
            SPURIOUS => {
                self.counts.spurious += 1;
                return;
            }
            TIMER => {
                self.counts.timer += 1;
                self.timer.iter_mut().for_each(|timer| timer.due = None);
            }
            _ => match self.vectors.interrupt(vector, entered) {
                Verdict::Claimed => {}
                Verdict::Unclaimed => self.counts.unclaimed += 1,
                Verdict::Storm(gsi) => {
                    self.counts.unclaimed += 1;
                    self.counts.storms += 1;
                    self.mask(gsi.number);
                }
                Verdict::Stray => self.counts.strays += 1,
            },
        }
        self.local.end_of_interrupt();
    }

    /// The IO-APIC that a global system interrupt is an input of.
    pub(super) fn io_apic(&mut self, gsi: u32) -> Option<&mut IoApic> {
        self.io.iter_mut().find(|apic| apic.input(gsi).is_some())
    }

    /// Masks a wired interrupt.
    pub(super) fn mask(&mut self, gsi: u32) {
        if let Some(apic) = self.io_apic(gsi) {
            apic.mask(gsi);
        }
    }

    /// How fast the timer counts; `None` if it does not.
    pub(super) fn timer_rate(&self) -> Option<TimerRate> {
        self.timer.as_ref().map(|timer| timer.rate)
    }

    /// Sees to it that the timer raises an interrupt in `cycles` of the TSC at the
    /// latest. `false` if there is no timer.
    ///
    /// An interrupt that is due sooner anyway is left alone. So of many waits to
    /// one deadline only the first has to write to the timer, which may leave
    /// the virtual machine.
    pub(super) fn wake_in(&mut self, cycles: u64) -> bool {
        let Some(timer) = &mut self.timer else {
            return false;
        };
        let now = tsc::start();
        let from_now = |due: u64| due.wrapping_sub(now);
        if timer.due.is_none_or(|due| from_now(due) > cycles) {
            self.local.set_timer(timer.rate, cycles);
            timer.due = Some(now.wrapping_add(cycles));
        }
        true
    }
}
