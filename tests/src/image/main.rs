//! The test image: boots like the unikernel, and tests the driver library against
//! the devices that it finds. The host watches from outside (`cargo xtask test`).
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(
    clippy::result_large_err,
    reason = "a test's outcome holds its reason, as the runner's crate explains"
)]

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("the test image runs in a virtual machine: see `cargo xtask test --help`");
    std::process::exit(2);
}

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod balloon;
#[cfg(target_os = "none")]
mod bench;
#[cfg(target_os = "none")]
mod blk;
#[cfg(target_os = "none")]
mod console;
#[cfg(target_os = "none")]
mod hotplug;
#[cfg(target_os = "none")]
mod interrupt;
#[cfg(target_os = "none")]
mod lifecycle;
#[cfg(target_os = "none")]
mod machine;
#[cfg(target_os = "none")]
mod net;
#[cfg(target_os = "none")]
mod pattern;
#[cfg(target_os = "none")]
mod rng;
#[cfg(target_os = "none")]
mod session;
#[cfg(target_os = "none")]
mod shared_line;
#[cfg(target_os = "none")]
mod upstream;
#[cfg(target_os = "none")]
mod witness;

#[cfg(target_os = "none")]
mod bare_metal {
    use core::fmt;
    use core::panic::PanicInfo;

    use doorbell::device;
    use doorbell_boot::{BootError, BootInfo};
    use doorbell_kernel::drive::{self, Unit};
    use doorbell_kernel::machine::Machine;
    use doorbell_kernel::{print, run};
    use doorbell_tests::{Runner, Stop};

    use crate::session;
    use crate::witness::Witness;

    doorbell_boot::entry!(main);

    /// The console, as what a runner prints to.
    struct Console;

    impl fmt::Write for Console {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            print!("{text}");
            Ok(())
        }
    }

    fn main(boot: Result<&'static BootInfo, BootError>) -> ! {
        // SAFETY: the first thing that happens, and on the only CPU.
        let mut machine = unsafe { run::begin("doorbell-tests", boot) };
        let witness = Witness::new(&machine);
        let mut console = Console;
        let mut runner = Runner::new(&mut console);

        crate::machine::run(&mut runner, &machine);
        crate::interrupt::run(&mut runner, &machine);
        witness.pci(&machine);
        let (units, problems) = drive::units(&machine);
        for (place, problem) in problems {
            let at = place.at();
            runner.run(format_args!("virtio-mmio/{at}"), || {
                Err(Stop::failed(problem))
            });
        }
        if crate::upstream::is_asked_for(&machine) {
            crate::upstream::run(&mut runner, &machine, &units, &witness);
        } else {
            ours(&mut runner, &mut machine, &units, &witness);
        }

        let failed = runner.failed();
        let success = runner.finish();
        run::end(if success { 0 } else { failed.max(1) })
    }

    /// Tests this library's own drivers.
    fn ours(runner: &mut Runner<'_>, machine: &mut Machine, units: &[Unit], witness: &Witness) {
        for unit in units {
            let test = match unit.device_type {
                device::blk::DEVICE_TYPE => crate::blk::test,
                device::net::DEVICE_TYPE => crate::net::test,
                device::console::DEVICE_TYPE => crate::console::test,
                device::rng::DEVICE_TYPE => crate::rng::test,
                device::balloon::DEVICE_TYPE => crate::balloon::test,
                _ => continue,
            };
            for way in drive::ways(machine, unit) {
                session::each(runner, machine, unit, "", way, witness, test);
            }
        }
        crate::lifecycle::run(runner, machine, units, witness);
        crate::shared_line::run(runner, machine, units, witness);
        crate::bench::run(runner, machine, units, witness);
        // Last: what was found before is not all there is then.
        crate::hotplug::run(runner, machine, witness);
    }

    #[panic_handler]
    fn panic(info: &PanicInfo<'_>) -> ! {
        run::panicked(info)
    }
}
