//! IO-APICs (Intel 82093AA datasheet): each input has a redirection entry, which
//! says what interrupt to send, and to whom.

use core::fmt;

use doorbell::mmio::{MapError, MmioRegion, Registers};

use crate::platform::acpi;
use crate::platform::dma::KernelMmio;
use crate::platform::gsi::{Gsi, Polarity, Trigger};

/// Bytes of registers: one that selects, and a window onto the selected one.
const SIZE: u64 = 0x20;
const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;

/// Register: version, and the number of the last redirection entry in bits 16
/// to 23.
const VERSION: u32 = 0x01;
/// The first of the redirection entries, two registers each.
const REDIRECTION: u32 = 0x10;
/// An IO-APIC has no more inputs than its index reaches.
const MAX_INPUTS: u32 = (0x100 - REDIRECTION) / 2;

/// Redirection entry: which level of the line is its interrupt; low with it.
const ACTIVE_LOW: u64 = 1 << 13;
/// Redirection entry: triggered by the level; by the edge without it.
const LEVEL: u64 = 1 << 15;
/// Redirection entry: nothing is sent.
const MASKED: u32 = 1 << 16;

/// Why an IO-APIC cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoApicError {
    /// Its registers cannot be mapped.
    Unmapped(MapError),
    /// What answers at its address is none.
    Absent {
        /// The address.
        address: u64,
        /// What its version register says.
        version: u32,
    },
}

impl fmt::Display for IoApicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unmapped(error) => write!(f, "an IO-APIC is out of reach: {error}"),
            Self::Absent { address, version } => write!(
                f,
                "there is no IO-APIC at {address:#x}: its version register says {version:#x}"
            ),
        }
    }
}

impl core::error::Error for IoApicError {}

/// An IO-APIC, all of its inputs masked until they are connected.
#[derive(Debug)]
pub struct IoApic {
    select: Registers<u32>,
    window: Registers<u32>,
    address: u64,
    gsi_base: u32,
    inputs: u32,
}

impl IoApic {
    /// Finds out how many inputs it has, and masks them.
    ///
    /// # Errors
    /// Where there is none.
    ///
    /// # Safety
    ///
    /// Its registers are at the address, and belong to the result from then on.
    pub unsafe fn new(announced: &acpi::IoApic) -> Result<Self, IoApicError> {
        let address = announced.address;
        // SAFETY: the caller's promise.
        let region = unsafe { MmioRegion::map(&KernelMmio, address, SIZE) };
        let region = region.map_err(IoApicError::Unmapped)?;
        let register = |offset| {
            let len = SIZE;
            let unmapped = IoApicError::Unmapped(MapError { address, len });
            region.registers(offset).ok_or(unmapped)
        };
        let mut io_apic = Self {
            select: register(SELECT)?,
            window: register(WINDOW)?,
            address,
            gsi_base: announced.gsi_base,
            inputs: 0,
        };
        let version = io_apic.read(VERSION);
        io_apic.inputs = inputs(version).ok_or(IoApicError::Absent { address, version })?;
        for input in 0..io_apic.inputs {
            io_apic.mask_input(input);
        }
        Ok(io_apic)
    }

    /// The input that a global system interrupt is, if it is one of these.
    pub fn input(&self, gsi: u32) -> Option<u32> {
        let input = gsi.checked_sub(self.gsi_base)?;
        (input < self.inputs).then_some(input)
    }

    /// Lets `gsi` raise `vector` on the CPU with this APIC ID. Nothing happens if
    /// it is no input of this one's.
    pub fn connect(&mut self, gsi: Gsi, vector: u8, destination: u8) {
        if let Some(input) = self.input(gsi.number) {
            let entry = entry(gsi, vector, destination);
            // The half with the mask goes last, so that nothing is sent before.
            self.write(register(input) + 1, (entry >> 32) as u32);
            self.write(register(input), entry as u32);
        }
    }

    /// Masks the input that is `gsi`.
    pub fn mask(&mut self, gsi: u32) {
        if let Some(input) = self.input(gsi) {
            self.mask_input(input);
        }
    }

    /// All else stays as it is: for a level-triggered interrupt that was sent, the
    /// IO-APIC waits until the CPU says that it is done with that vector, and
    /// would wait for ever if the entry had another one by then.
    fn mask_input(&mut self, input: u32) {
        let low = self.read(register(input));
        self.write(register(input), low | MASKED);
    }

    fn read(&mut self, index: u32) -> u32 {
        self.select.ptr().write(index);
        self.window.ptr().read()
    }

    fn write(&mut self, index: u32, value: u32) {
        self.select.ptr().write(index);
        self.window.ptr().write(value);
    }
}

impl fmt::Display for IoApic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.gsi_base + (self.inputs - 1);
        write!(
            f,
            "at {:#x}: GSIs {} to {last}",
            self.address, self.gsi_base
        )
    }
}

/// The register that is the lower half of an input's redirection entry; the upper
/// half follows.
fn register(input: u32) -> u32 {
    REDIRECTION + 2 * input
}

/// How many inputs there are, by the version register. Where nothing answers,
/// all bits of it are 1, or none is.
fn inputs(version: u32) -> Option<u32> {
    let inputs = (version >> 16 & 0xff) + 1;
    let answers = version != 0 && version != u32::MAX;
    (answers && inputs <= MAX_INPUTS).then_some(inputs)
}

/// A redirection entry: fixed delivery to one CPU by its APIC ID.
fn entry(gsi: Gsi, vector: u8, destination: u8) -> u64 {
    let trigger = match gsi.trigger {
        Trigger::Edge => 0,
        Trigger::Level => LEVEL,
    };
    let polarity = match gsi.polarity {
        Polarity::High => 0,
        Polarity::Low => ACTIVE_LOW,
    };
    u64::from(destination) << 56 | trigger | polarity | u64::from(vector)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gsi(trigger: Trigger, polarity: Polarity) -> Gsi {
        Gsi {
            number: 16,
            trigger,
            polarity,
        }
    }

    #[test]
    fn an_entry_says_vector_trigger_polarity_and_destination() {
        let high = gsi(Trigger::Level, Polarity::High);
        assert_eq!(entry(high, 0x31, 0), 0x8031);
        let low = gsi(Trigger::Level, Polarity::Low);
        assert_eq!(entry(low, 0x31, 2), 0x0200_0000_0000_a031);
        let isa = gsi(Trigger::Edge, Polarity::High);
        assert_eq!(entry(isa, 0xef, 0xff), 0xff00_0000_0000_00ef);
    }

    #[test]
    fn the_version_register_has_the_number_of_inputs() {
        assert_eq!(inputs(0x0017_0011), Some(24));
        assert_eq!(inputs(0x0017_0020), Some(24));
        assert_eq!(inputs(0x0077_0020), Some(120));
        for nobody in [0, u32::MAX, 0x00f0_0020] {
            assert_eq!(inputs(nobody), None, "{nobody:#x}");
        }
    }

    /// Registers that are plain memory: what was written last is in the window.
    fn in_memory(memory: &mut [u32; 8], gsi_base: u32, inputs: u32) -> IoApic {
        let base = core::ptr::NonNull::from(memory).cast();
        // SAFETY: the memory is the test's own, and as long.
        let region = unsafe { MmioRegion::new(base, SIZE as usize) };
        IoApic {
            select: region.registers(SELECT).unwrap(),
            window: region.registers(WINDOW).unwrap(),
            address: 0xfec1_0000,
            gsi_base,
            inputs,
        }
    }

    #[test]
    fn inputs_are_counted_from_the_base() {
        let mut memory = [0; 8];
        let io_apic = in_memory(&mut memory, 24, 24);
        assert_eq!(io_apic.input(23), None);
        assert_eq!(io_apic.input(24), Some(0));
        assert_eq!(io_apic.input(47), Some(23));
        assert_eq!(io_apic.input(48), None);
        assert_eq!(std::format!("{io_apic}"), "at 0xfec10000: GSIs 24 to 47");
    }

    #[test]
    fn an_input_opens_last_and_closes_without_forgetting() {
        let mut memory = [0; 8];
        let mut io_apic = in_memory(&mut memory, 0, 24);
        io_apic.connect(gsi(Trigger::Level, Polarity::Low), 0x40, 1);
        assert_eq!(
            (io_apic.select.ptr().read(), io_apic.window.ptr().read()),
            (0x10 + 2 * 16, 0xa040)
        );
        io_apic.mask(16);
        assert_eq!(io_apic.window.ptr().read(), 0x1_a040);
    }
}
