//! The CPU's local APIC (Intel SDM volume 3, chapter 11): xAPIC, whose registers
//! are in memory, or x2APIC, whose registers are MSRs, as firmware left it.

use core::fmt;

use doorbell::mmio::{MapError, MmioRegion, Registers};
use x86_64::registers::model_specific::{ApicBase, ApicBaseFlags, Msr};

use crate::arch::{cpu, tsc};
use crate::platform::dma::KernelMmio;

/// Bytes of registers in memory.
const SIZE: u64 = 0x1000;
/// The MSR that is register 0 in x2APIC mode; the others follow, one for each
/// 16 bytes of memory (SDM volume 3, 11.12.1.2).
const X2APIC_BASE: u32 = 0x800;

/// A one-shot count from the timer's highest takes this many cycles of the TSC
/// when its rate is measured: about half a millisecond, in which a TSC that is
/// read late by 100 ns makes an error of 0.02 %.
const CALIBRATION_CYCLES: u64 = 1_000_000;

/// Registers, by their offset in memory (SDM volume 3, table 11-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Register {
    Id = 0x20,
    TaskPriority = 0x80,
    EndOfInterrupt = 0xb0,
    SpuriousVector = 0xf0,
    /// The first of eight, with a bit for each vector that waits for the CPU.
    InterruptRequest = 0x200,
    InterruptCommand = 0x300,
    LvtTimer = 0x320,
    LvtLint0 = 0x350,
    TimerInitialCount = 0x380,
    TimerCurrentCount = 0x390,
    TimerDivide = 0x3e0,
}

/// Spurious vector register: the APIC is on (11.9).
const SOFTWARE_ENABLE: u32 = 1 << 8;
/// An entry of the local vector table: masked (11.5.1).
const MASKED: u32 = 1 << 16;
/// Interrupt command: to the CPU itself, and "assert" (11.6.1). Delivery is
/// "fixed", which is 0.
const TO_SELF: u32 = 1 << 18 | 1 << 14;
/// The timer counts once in 16 of its clock's cycles (11.5.4): then its 32 bits
/// last for some seconds.
const DIVIDE_BY_16: u32 = 0b0011;

/// Why there is no local APIC to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalApicError {
    /// CPUID says that there is none.
    Missing,
    /// Firmware switched it off, by the MSR IA32_APIC_BASE.
    SwitchedOff,
    /// Its registers cannot be mapped.
    Unmapped(MapError),
}

impl fmt::Display for LocalApicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("the CPU has no local APIC"),
            Self::SwitchedOff => f.write_str("firmware switched the local APIC off"),
            Self::Unmapped(error) => write!(f, "the local APIC is out of reach: {error}"),
        }
    }
}

impl core::error::Error for LocalApicError {}

/// How the registers are reached.
#[derive(Clone, Copy, Debug)]
enum Access {
    /// From this address on.
    Memory(u64, MmioRegion),
    Msr,
}

/// The CPU's local APIC, switched on.
#[derive(Debug)]
pub struct LocalApic {
    access: Access,
    id: u32,
}

/// How fast the timer counts: so many counts in so many cycles of the TSC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerRate {
    counts: u32,
    cycles: u64,
}

impl TimerRate {
    /// The count that lasts for `cycles` of the TSC, or for as long as the timer
    /// can. At least 1: a count of 0 would stop the timer.
    fn count(self, cycles: u64) -> u32 {
        let count = u128::from(cycles) * u128::from(self.counts) / u128::from(self.cycles);
        u32::try_from(count).unwrap_or(u32::MAX).max(1)
    }

    /// Counts in a second, where the TSC has `hz` cycles in one.
    pub fn hz(self, hz: u64) -> u64 {
        (u128::from(hz) * u128::from(self.counts) / u128::from(self.cycles)) as u64
    }
}

impl LocalApic {
    /// Switches the local APIC on, in the mode that firmware left it in. Its own
    /// sources stay masked, and the 8259s are cut off from the CPU.
    ///
    /// # Errors
    /// Where there is none to use.
    ///
    /// # Safety
    ///
    /// Called once; the local APIC belongs to the result from then on.
    pub unsafe fn new(spurious_vector: u8) -> Result<Self, LocalApicError> {
        if !cpu::has_local_apic() {
            return Err(LocalApicError::Missing);
        }
        // A CPU with a local APIC has this MSR (SDM volume 3, 11.4.4).
        let (frame, flags) = ApicBase::read();
        if !flags.contains(ApicBaseFlags::LAPIC_ENABLE) {
            return Err(LocalApicError::SwitchedOff);
        }
        let access = if flags.contains(ApicBaseFlags::X2APIC_ENABLE) {
            Access::Msr
        } else {
            let address = frame.start_address().as_u64();
            // SAFETY: the CPU says that its APIC is there, and the caller that
            // it is ours.
            let region = unsafe { MmioRegion::map(&KernelMmio, address, SIZE) };
            Access::Memory(address, region.map_err(LocalApicError::Unmapped)?)
        };
        let mut apic = Self { access, id: 0 };
        apic.id = match access {
            Access::Memory(..) => apic.read(Register::Id) >> 24,
            Access::Msr => apic.read(Register::Id),
        };
        apic.write(Register::TaskPriority, 0);
        apic.write(Register::LvtTimer, MASKED);
        apic.write(Register::LvtLint0, MASKED);
        apic.write(
            Register::SpuriousVector,
            SOFTWARE_ENABLE | u32::from(spurious_vector),
        );
        Ok(apic)
    }

    /// Its ID, by which messages reach it.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Physical address of its registers; `None` in x2APIC mode.
    pub fn address(&self) -> Option<u64> {
        match self.access {
            Access::Memory(address, _) => Some(address),
            Access::Msr => None,
        }
    }

    /// Tells it that the interrupt being handled is done with. A level-triggered
    /// one is asked for again by its IO-APIC, if its line still says so.
    pub fn end_of_interrupt(&mut self) {
        self.write(Register::EndOfInterrupt, 0);
    }

    /// Whether an interrupt of this vector waits for the CPU.
    pub fn is_pending(&self, vector: u8) -> bool {
        let bits = self.read_at(Register::InterruptRequest as u32 + u32::from(vector / 32) * 0x10);
        bits & 1 << (vector % 32) != 0
    }

    /// Interrupts this CPU with `vector`.
    pub fn interrupt_self(&mut self, vector: u8) {
        self.write(Register::InterruptCommand, TO_SELF | u32::from(vector));
    }

    /// Measures the timer's rate against the TSC; `None` if it does not count.
    /// The timer raises `vector` from then on.
    pub fn start_timer(&mut self, vector: u8) -> Option<TimerRate> {
        self.write(Register::TimerDivide, DIVIDE_BY_16);
        self.write(Register::TimerInitialCount, u32::MAX);
        let mut elapsed = || u32::MAX - self.read(Register::TimerCurrentCount);
        let begin = tsc::sample(&mut elapsed);
        while tsc::start().wrapping_sub(begin.tsc) < CALIBRATION_CYCLES {
            core::hint::spin_loop();
        }
        let end = tsc::sample(&mut elapsed);
        self.write(Register::TimerInitialCount, 0);
        // Mode "one-shot" is 0.
        self.write(Register::LvtTimer, vector.into());
        let rate = TimerRate {
            counts: end.clock.wrapping_sub(begin.clock),
            cycles: end.tsc.wrapping_sub(begin.tsc),
        };
        (rate.counts != 0 && rate.cycles != 0).then_some(rate)
    }

    /// Lets the timer raise its interrupt in `cycles` of the TSC, or at the end of
    /// the time that it can count, if that is sooner. The last call counts.
    pub fn set_timer(&mut self, rate: TimerRate, cycles: u64) {
        self.write(Register::TimerInitialCount, rate.count(cycles));
    }

    fn read(&self, register: Register) -> u32 {
        self.read_at(register as u32)
    }

    fn read_at(&self, offset: u32) -> u32 {
        match self.access {
            Access::Memory(_, region) => {
                in_memory(region, offset).map_or(0, |register| register.ptr().read())
            }
            // SAFETY: in x2APIC mode these MSRs exist (11.12.1.2), and those
            // that `Register` names can be read, but for the write-only
            // `EndOfInterrupt`, which is not.
            Access::Msr => unsafe { Msr::new(X2APIC_BASE + offset / 0x10).read() as u32 },
        }
    }

    fn write(&mut self, register: Register, value: u32) {
        let offset = register as u32;
        match self.access {
            Access::Memory(_, region) => {
                if let Some(register) = in_memory(region, offset) {
                    register.ptr().write(value);
                }
            }
            // SAFETY: as for reading; what is written has no reserved bits. An
            // interrupt that it raises finds its way (`arch::interrupt`).
            Access::Msr => unsafe { Msr::new(X2APIC_BASE + offset / 0x10).write(value.into()) },
        }
    }
}

/// A register in memory. All that are asked for are inside.
fn in_memory(region: MmioRegion, offset: u32) -> Option<Registers<u32>> {
    region.registers(offset.into())
}

impl fmt::Display for LocalApic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.access {
            Access::Memory(address, _) => write!(f, "xAPIC {} at {address:#x}", self.id),
            Access::Msr => write!(f, "x2APIC {}", self.id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timer_rounds_to_what_it_can_count() {
        let rate = TimerRate {
            counts: 31_250,
            cycles: 1_300_000,
        };
        assert_eq!(rate.count(2_600_000_000), 62_500_000);
        assert_eq!(rate.hz(2_600_000_000), 62_500_000);
        assert_eq!(rate.count(0), 1, "0 would stop it");
        assert_eq!(rate.count(u64::MAX), u32::MAX);
    }
}
