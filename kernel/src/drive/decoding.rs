//! IO decoding: whether accesses to ports reach a function, and doing without them.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use doorbell::pci::{CommandRegister, ConfigSpace, Function, PciAddress};

const IO: CommandRegister = CommandRegister::IO_ENABLE;

/// A function, number `index` of `functions`, and the bridges above it.
fn path(functions: &[Function], index: usize) -> impl Iterator<Item = &Function> {
    core::iter::successors(functions.get(index), |function| {
        functions.get(function.parent?)
    })
}

/// Whether function number `index` decodes IO, and all bridges above it forward it, as
/// their command registers say now.
pub fn io_reaches(config: &dyn ConfigSpace, functions: &[Function], index: usize) -> bool {
    path(functions, index).all(|function| config.command(function.address).contains(IO))
}

/// IO decoding that is switched off.
#[must_use = "it stays off until `restore`"]
pub struct IoOff<'c> {
    config: &'c dyn ConfigSpace,
    /// Those that had it on.
    cleared: Vec<PciAddress>,
}

impl<'c> IoOff<'c> {
    /// Switches IO decoding off: that of function number `index`, and the forwarding of
    /// the bridges above it, which all that is behind them does without as well.
    ///
    /// # Errors
    ///
    /// The function or bridge that keeps it on; then all is as it was.
    ///
    /// # Safety
    ///
    /// The functions are the caller's, and nobody uses the IO BARs of one that is behind
    /// these bridges before [`restore`](Self::restore).
    pub unsafe fn new(
        config: &'c dyn ConfigSpace,
        functions: &[Function],
        index: usize,
    ) -> Result<Self, String> {
        let mut off = Self {
            config,
            cleared: Vec::new(),
        };
        for function in path(functions, index) {
            let address = function.address;
            let command = config.command(address);
            if !command.contains(IO) {
                continue;
            }
            off.cleared.push(address);
            // SAFETY: the caller's promise.
            unsafe { config.set_command(address, command - IO) };
            if config.command(address).contains(IO) {
                off.restore()?;
                return Err(format!("{address} keeps its IO decoding on"));
            }
        }
        Ok(off)
    }

    /// Those that had it on: the function, and the bridges above it.
    pub fn cleared(&self) -> &[PciAddress] {
        &self.cleared
    }

    /// Switches it on again where it was on. What else changed in the command registers
    /// since stays changed.
    ///
    /// # Errors
    ///
    /// The function or bridge that leaves it off.
    pub fn restore(self) -> Result<(), String> {
        let mut lost = Ok(());
        for &address in self.cleared.iter().rev() {
            // SAFETY: it decodes what it did before `new`.
            unsafe {
                let command = self.config.command(address);
                self.config.set_command(address, command | IO);
            }
            if !self.config.command(address).contains(IO) {
                lost = Err(format!("{address} leaves its IO decoding off"));
            }
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use doorbell::pci::fake::{FakeFunction, FakePci};
    use doorbell::pci::{BusRange, Topology};

    use super::*;

    /// A bridge at 00:01.0 with a device behind it and one beside it; all decode IO and
    /// memory.
    fn machine() -> (FakePci, Vec<Function>) {
        let device = || FakeFunction::transitional_rng().at(0, 0x1000).command(3);
        let bridge = FakeFunction::bridge().buses(0, 1, 1).command(3);
        let pci = FakePci::new()
            .with(1, 0, bridge.io_window(0x1000, 0x1fff).child(0, 0, device()))
            .with(2, 0, device());
        let mut functions = vec![Function::default(); 3];
        // SAFETY: there is no device.
        unsafe { Topology::enumerate(&pci, &[BusRange::ALL], &mut functions) }.unwrap();
        (pci, functions)
    }

    fn commands(pci: &FakePci, functions: &[Function]) -> Vec<u16> {
        let command = |function: &Function| pci.command(function.address).bits();
        functions.iter().map(command).collect()
    }

    #[test]
    fn io_is_off_from_the_device_up_and_comes_back() {
        let (pci, functions) = machine();
        assert_eq!(functions[1].parent, Some(0));
        assert!(io_reaches(&pci, &functions, 1));
        // SAFETY: there is no device.
        let off = unsafe { IoOff::new(&pci, &functions, 1) }.unwrap();
        assert_eq!(commands(&pci, &functions), [2, 2, 3]);
        assert_eq!(off.cleared(), [functions[1].address, functions[0].address]);
        assert!(!io_reaches(&pci, &functions, 1));
        assert!(io_reaches(&pci, &functions, 2));
        // A driver changes other bits meanwhile.
        pci.change(functions[1].address, 4, 4, 4);
        off.restore().unwrap();
        assert_eq!(commands(&pci, &functions), [3, 7, 3]);
    }

    #[test]
    fn what_was_off_stays_off_and_what_stays_on_is_named() {
        let (pci, functions) = machine();
        pci.change(functions[0].address, 4, 1, 0);
        assert!(!io_reaches(&pci, &functions, 1), "no bridge forwards it");
        // SAFETY: there is no device.
        let off = unsafe { IoOff::new(&pci, &functions, 1) }.unwrap();
        assert_eq!(off.cleared(), [functions[1].address]);
        off.restore().unwrap();
        assert_eq!(commands(&pci, &functions), [2, 3, 3]);

        let stuck = FakeFunction::transitional_rng()
            .register(4, 3)
            .writable(4, 6);
        let pci = FakePci::new().with(1, 0, stuck);
        let mut function = Function::default();
        function.address = PciAddress::new(0, 0, 1, 0);
        // SAFETY: there is no device.
        let error = unsafe { IoOff::new(&pci, &[function], 0) }.err().unwrap();
        assert_eq!(error, "0000:00:01.0 keeps its IO decoding on");
    }
}
