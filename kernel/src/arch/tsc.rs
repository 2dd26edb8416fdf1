//! The time stamp counter: reading it in order, its step, its frequency.

use core::arch::asm;
use core::arch::x86_64::CpuidResult;
use core::fmt;

use doorbell::port::{IoSpace, X86Ports};

use super::cpu;
use crate::platform::acpi::PmTimer;

/// CPUID leaf: TSC and crystal clock.
const LEAF_TSC: u32 = 0x15;
/// CPUID leaf: processor frequency.
const LEAF_FREQUENCY: u32 = 0x16;
/// CPUID leaf: TSC frequency as a hypervisor announces it, in kHz.
const LEAF_HYPERVISOR_TSC: u32 = 0x4000_0010;
/// The ACPI PM timer's frequency, in Hz (ACPI 6.5, 4.8.2.1).
const PM_TIMER_HZ: u64 = 3_579_545;
/// The 8254's frequency, in Hz.
const PIT_HZ: u64 = 1_193_182;
/// One of a calibration's measurements takes 1/333 s. Its error is one tick of
/// the other clock at either end, so below 0.06 %.
const MEASUREMENTS_A_SECOND: u64 = 333;
/// A clock that shows the same value this often in a row stands still: even at
/// 10 ns a read, either clock ticks after 100 of them.
const STUCK_READS: u32 = 10_000;

/// Reads the counter at the beginning of a timed section.
///
/// The first `lfence` waits until all earlier instructions are done, so none
/// of them is timed; the second keeps the timed ones from starting before the
/// counter is read. `asm!` without `nomem` stops the compiler from moving
/// memory accesses across. Stores may still sit in the store buffer: `lfence`
/// does not wait for it, and a port or device access that leaves the virtual
/// machine drains it.
#[inline(always)]
pub fn start() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reading the counter changes nothing but eax and edx.
    unsafe {
        asm!(
            "lfence", "rdtsc", "lfence",
            out("eax") low, out("edx") high,
            options(nostack, preserves_flags)
        );
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Reads the counter at the end of a timed section.
///
/// The fences do the same as in [`start`]: the timed instructions are done
/// before the counter is read, and none that follow begins earlier. Both being
/// the same code, an empty section measures exactly what every section pays.
#[inline(always)]
pub fn stop() -> u64 {
    start()
}

/// The step in which the counter moves, in cycles: the greatest number that
/// divides all of a few differences. 26 where a 2.6 GHz counter is fed by a
/// 100 MHz clock, 1 where it moves by single cycles.
pub fn step() -> u64 {
    /// Enough that all differences share a larger factor by accident once in
    /// 2^63.
    const READS: usize = 64;
    let mut previous = start();
    let differences = core::iter::repeat_with(|| {
        let now = start();
        let difference = now.wrapping_sub(previous);
        previous = now;
        difference
    });
    differences
        .take(READS)
        .fold(0, greatest_common_divisor)
        .max(1)
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// How a frequency became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// CPUID leaf 0x15, which states the crystal clock too.
    CpuidCrystal,
    /// CPUID leaf 0x15 has no crystal clock; leaf 0x16's base frequency.
    CpuidBase,
    /// CPUID leaf 0x40000010, from the hypervisor.
    Hypervisor,
    /// Measured against the ACPI PM timer.
    PmTimer,
    /// Measured against the 8254 timer.
    Pit,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::CpuidCrystal => "cpuid-0x15",
            Self::CpuidBase => "cpuid-0x16",
            Self::Hypervisor => "cpuid-0x40000010",
            Self::PmTimer => "acpi-pm-timer",
            Self::Pit => "pit",
        })
    }
}

/// The counter's frequency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frequency {
    /// Cycles in a second.
    pub hz: u64,
    /// How it became known.
    pub source: Source,
}

/// The frequency, if CPUID tells it. Takes no time worth speaking of.
pub fn announced() -> Option<Frequency> {
    announced_by(cpu::cpuid)
}

fn announced_by(cpuid: impl Fn(u32) -> CpuidResult) -> Option<Frequency> {
    let frequency = |hz, source| (hz != 0).then_some(Frequency { hz, source });
    let from_cpu = || {
        let CpuidResult {
            eax: denominator,
            ebx: numerator,
            ecx: crystal,
            ..
        } = cpu::leaf(&cpuid, LEAF_TSC)?;
        if denominator == 0 || numerator == 0 {
            return None;
        }
        if crystal != 0 {
            let hz = u64::from(crystal) * u64::from(numerator) / u64::from(denominator);
            return frequency(hz, Source::CpuidCrystal);
        }
        // Where the crystal is not stated, the TSC runs at the base frequency.
        let base_mhz = cpu::leaf(&cpuid, LEAF_FREQUENCY)?.eax & 0xffff;
        frequency(u64::from(base_mhz) * 1_000_000, Source::CpuidBase)
    };
    let from_hypervisor = || {
        let khz = cpu::leaf(&cpuid, LEAF_HYPERVISOR_TSC)?.eax;
        frequency(u64::from(khz) * 1000, Source::Hypervisor)
    };
    // The hypervisor first: it may scale the counter, and CPUID not know.
    from_hypervisor().or_else(from_cpu)
}

/// The frequency: announced, or else measured for 9 ms against the ACPI PM
/// timer, or else against the 8254 timer. `None` if there is no clock.
///
/// Reprograms channel 0 of the 8254 when it needs it, and stops it after.
pub fn frequency(pm_timer: Option<PmTimer>) -> Option<Frequency> {
    announced()
        .or_else(|| measure_pm_timer(pm_timer?))
        .or_else(measure_pit)
}

fn measure_pm_timer(timer: PmTimer) -> Option<Frequency> {
    let hz = calibrate(PM_TIMER_HZ, timer.mask(), || timer.read())?;
    Some(Frequency {
        hz,
        source: Source::PmTimer,
    })
}

/// Channel 0, because channel 2's gate is behind port 0x61, which microvm does
/// not have.
fn measure_pit() -> Option<Frequency> {
    const CHANNEL_0: u16 = 0x40;
    const COMMAND: u16 = 0x43;
    const LATCH_CHANNEL_0: u8 = 0;
    /// Count down from 65536, low byte first, and begin again.
    const RATE_GENERATOR: u8 = 0x34;
    /// Wait for a count that is never written.
    const ONE_SHOT: u8 = 0x30;
    // SAFETY: these ports belong to the 8254 or to nobody. This kernel has no
    // other use for channel 0, and its interrupt is masked.
    let read = || unsafe {
        X86Ports.write8(COMMAND, LATCH_CHANNEL_0);
        let low = X86Ports.read8(CHANNEL_0);
        u32::from(u16::from_le_bytes([low, X86Ports.read8(CHANNEL_0)]))
    };
    // SAFETY: as above.
    unsafe {
        X86Ports.write8(COMMAND, RATE_GENERATOR);
        X86Ports.write8(CHANNEL_0, 0);
        X86Ports.write8(CHANNEL_0, 0);
    }
    // It counts down: the complement counts up.
    let hz = calibrate(PIT_HZ, 0xffff, || !read() & 0xffff);
    // SAFETY: as above.
    unsafe { X86Ports.write8(COMMAND, ONE_SHOT) };
    Some(Frequency {
        hz: hz?,
        source: Source::Pit,
    })
}

/// The TSC's frequency by a clock of `clock_hz` that counts up modulo
/// `mask + 1`. `None` if it stands still.
///
/// The median of three measurements: the host may stop this CPU for longer
/// than the other clock takes to wrap, but hardly twice in a row.
fn calibrate(clock_hz: u64, mask: u32, mut read: impl FnMut() -> u32) -> Option<u64> {
    let mut once = || measure(clock_hz, mask, &mut read);
    let mut frequencies = [once()?, once()?, once()?];
    frequencies.sort_unstable();
    Some(frequencies[1]).filter(|&hz| hz != 0)
}

fn measure(clock_hz: u64, mask: u32, read: &mut impl FnMut() -> u32) -> Option<u64> {
    let target = clock_hz / MEASUREMENTS_A_SECOND;
    let begin = sample(read);
    let mut last = begin.clock;
    let mut repeated = 0;
    while u64::from(last.wrapping_sub(begin.clock) & mask) < target {
        let now = read();
        repeated = if now == last { repeated + 1 } else { 0 };
        if repeated == STUCK_READS {
            return None;
        }
        last = now;
    }
    let end = sample(read);
    let ticks = u128::from(end.clock.wrapping_sub(begin.clock) & mask);
    let cycles = u128::from(end.tsc.wrapping_sub(begin.tsc));
    u64::try_from(cycles * u128::from(clock_hz) / ticks.max(1)).ok()
}

/// The TSC and another clock at one moment.
pub(super) struct Sample {
    pub(super) tsc: u64,
    pub(super) clock: u32,
}

/// The best of eight reads: the one during which the fewest cycles passed.
pub(super) fn sample(read: &mut impl FnMut() -> u32) -> Sample {
    let mut best = Sample { tsc: 0, clock: 0 };
    let mut shortest = u64::MAX;
    for _ in 0..8 {
        let begin = start();
        let clock = read();
        let cycles = stop().wrapping_sub(begin);
        if cycles < shortest {
            shortest = cycles;
            best = Sample {
                tsc: begin.wrapping_add(cycles / 2),
                clock,
            };
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: CpuidResult = CpuidResult {
        eax: 0,
        ebx: 0,
        ecx: 0,
        edx: 0,
    };
    const HYPERVISOR_BIT: u32 = 1 << 31;

    #[test]
    fn the_step_divides_every_difference() {
        assert_eq!(
            [52, 78, 130].into_iter().fold(0, greatest_common_divisor),
            26
        );
        assert_eq!([0, 0].into_iter().fold(0, greatest_common_divisor), 0);
        let step = step();
        let (before, after) = (start(), stop());
        assert!(step > 0 && after.wrapping_sub(before).is_multiple_of(step));
    }

    #[test]
    fn the_crystal_clock_gives_the_frequency() {
        let cpu = |leaf| match leaf {
            0 => CpuidResult {
                eax: 0x16,
                ..NOTHING
            },
            LEAF_TSC => CpuidResult {
                eax: 2,
                ebx: 216,
                ecx: 24_000_000,
                edx: 0,
            },
            _ => NOTHING,
        };
        let expected = Frequency {
            hz: 2_592_000_000,
            source: Source::CpuidCrystal,
        };
        assert_eq!(announced_by(cpu), Some(expected));
    }

    #[test]
    fn without_a_crystal_the_base_frequency_counts() {
        let cpu = |leaf| match leaf {
            0 => CpuidResult {
                eax: 0x16,
                ..NOTHING
            },
            LEAF_TSC => CpuidResult {
                eax: 2,
                ebx: 200,
                ..NOTHING
            },
            LEAF_FREQUENCY => CpuidResult {
                eax: 2600,
                ..NOTHING
            },
            _ => NOTHING,
        };
        let expected = Frequency {
            hz: 2_600_000_000,
            source: Source::CpuidBase,
        };
        assert_eq!(announced_by(cpu), Some(expected));
    }

    #[test]
    fn the_hypervisor_is_believed_first() {
        let cpu = |leaf| match leaf {
            0 => CpuidResult {
                eax: 0x15,
                ..NOTHING
            },
            1 => CpuidResult {
                ecx: HYPERVISOR_BIT,
                ..NOTHING
            },
            LEAF_TSC => CpuidResult {
                eax: 1,
                ebx: 1,
                ecx: 1,
                edx: 0,
            },
            0x4000_0000 => CpuidResult {
                eax: 0x4000_0010,
                ..NOTHING
            },
            LEAF_HYPERVISOR_TSC => CpuidResult {
                eax: 2_100_000,
                ..NOTHING
            },
            _ => NOTHING,
        };
        let expected = Frequency {
            hz: 2_100_000_000,
            source: Source::Hypervisor,
        };
        assert_eq!(announced_by(cpu), Some(expected));
    }

    #[test]
    fn zeroes_announce_nothing() {
        assert_eq!(announced_by(|_| NOTHING), None);
        let cpu = |leaf| match leaf {
            0 => CpuidResult {
                eax: 0x16,
                ..NOTHING
            },
            LEAF_TSC => CpuidResult {
                eax: 0,
                ebx: 1,
                ecx: 1,
                edx: 0,
            },
            _ => NOTHING,
        };
        assert_eq!(announced_by(cpu), None);
    }

    #[test]
    fn a_clock_that_stands_still_is_no_clock() {
        assert_eq!(calibrate(PM_TIMER_HZ, 0xff_ffff, || 0xff_ffff), None);
        let mut reads = 0;
        let stops_later = || {
            reads += 1;
            if reads < 20 { reads } else { 20 }
        };
        assert_eq!(calibrate(PM_TIMER_HZ, 0xff_ffff, stops_later), None);
    }

    #[test]
    fn a_measured_clock_may_wrap() {
        // A clock derived from the TSC itself: 1024 cycles a tick, 16 bits wide.
        let clock = || (start() >> 10) as u32 & 0xffff;
        for _ in 0..20 {
            let hz = calibrate(1_000_000, 0xffff, clock).expect("it runs");
            assert!((1_020_000_000..1_028_000_000).contains(&hz), "{hz}");
        }
    }
}
