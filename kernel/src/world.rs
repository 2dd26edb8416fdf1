//! The world that a figure was measured in. A figure without it is none.

use alloc::format;
use alloc::string::{String, ToString};

use crate::arch::cpu::{self, Text};
use crate::arch::tsc::{self, Frequency};
use crate::record::Record;

/// An instruction that does nothing takes a cycle at the most on hardware, and a
/// few under a translator. Where one takes this many, each is emulated by itself.
const EMULATED: u64 = 50;

/// What figures depend on, as far as the guest can see it.
pub struct World {
    cpu: Option<Text<48>>,
    hypervisor: Option<Text<12>>,
    frequency: Option<Frequency>,
    /// The step in which the TSC moves, in cycles.
    pub tsc_step: u64,
    /// What two readings of the TSC cost at least, in cycles.
    tsc_read: u64,
    /// What an instruction that does nothing costs, in cycles.
    nop: u64,
}

impl World {
    /// Looks around.
    pub fn look(frequency: Option<Frequency>) -> Self {
        let read = || {
            let start = tsc::start();
            tsc::stop().wrapping_sub(start)
        };
        let tsc_read = (0..16).map(|_| read()).min().unwrap_or(0);
        let nops = (0..16).map(|_| sixteen_nops()).min().unwrap_or(0);
        Self {
            cpu: cpu::brand(),
            hypervisor: cpu::hypervisor(),
            frequency,
            tsc_step: tsc::step(),
            tsc_read,
            nop: nops.saturating_sub(tsc_read) / 16,
        }
    }

    /// Whether the guest's instructions are emulated one by one.
    pub fn is_emulated(&self) -> bool {
        self.nop >= EMULATED
    }

    /// What must be said about figures from here; `None` on hardware.
    fn caveat(&self) -> Option<&'static str> {
        match self.hypervisor.as_ref().map(Text::as_str) {
            Some("TCGTCGTCGTCG") => {
                Some("TCG translates the guest: these are not hardware's figures")
            }
            _ if self.is_emulated() => Some(
                "the guest's instructions are emulated one by one: these are not hardware's figures",
            ),
            _ => None,
        }
    }

    /// The record.
    pub fn record(&self) -> Record<'_> {
        Record::World {
            cpu: self.cpu.as_ref().map(Text::as_str),
            hypervisor: self.hypervisor.as_ref().map(Text::as_str),
            tsc_hz: self.frequency.map(|frequency| frequency.hz),
            tsc_source: self.frequency.map(|frequency| frequency.source.to_string()),
            tsc_step: self.tsc_step,
            tsc_read: self.tsc_read,
            nop: self.nop,
            caveat: self.caveat(),
        }
    }

    /// The same in words.
    pub fn describe(&self) -> String {
        let cpu = self.cpu.as_ref().map_or("CPU", Text::as_str);
        let hypervisor = self
            .hypervisor
            .as_ref()
            .map_or("no hypervisor", Text::as_str);
        let clock = match self.frequency {
            Some(Frequency { hz, source }) => format!("TSC {} MHz by {source}", hz / 1_000_000),
            None => "TSC of unknown frequency".to_string(),
        };
        let caveat = self
            .caveat()
            .map_or(String::new(), |caveat| format!("\nNote: {caveat}."));
        format!(
            "{cpu}; {hypervisor}; {clock}, in steps of {}.{caveat}",
            self.tsc_step
        )
    }
}

/// The cycles that 16 instructions take that do nothing.
fn sixteen_nops() -> u64 {
    let start = tsc::start();
    // SAFETY: they do nothing.
    unsafe {
        core::arch::asm!(
            ".rept 16",
            "nop",
            ".endr",
            options(nostack, preserves_flags)
        )
    };
    tsc::stop().wrapping_sub(start)
}
