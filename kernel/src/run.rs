//! How a run begins and ends, for every image that is made with this kernel.

use core::fmt::Display;
use core::panic::PanicInfo;

use doorbell_boot::{BootError, BootInfo};

use crate::arch;
use crate::arch::exit::{ExitCode, exit};
use crate::machine::Machine;
use crate::platform::json::Escaped;
use crate::platform::{memory, serial};
use crate::println;
use crate::record::Record;
use crate::terminal;

/// Sets the kernel up: exceptions, the console, the heap, and then the machine.
/// The first record goes out before anything that takes time.
///
/// # Safety
///
/// Called once, by the only CPU, as the first thing.
pub unsafe fn begin(name: &str, boot: Result<&'static BootInfo, BootError>) -> Machine {
    arch::init();
    serial::init();
    let boot = boot.unwrap_or_else(|error| fail("boot", error));
    if let Err(error) = memory::init(boot) {
        fail("memory", error);
    }
    Record::Boot {
        name,
        version: env!("CARGO_PKG_VERSION"),
        build: if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        },
        entry: "pvh",
        cmdline: boot.command_line(),
        memory_kib: boot.ram_size() / 1024,
    }
    .emit();
    // SAFETY: the caller's promise.
    let machine = unsafe { Machine::discover(boot) };
    machine.world.record().emit();
    machine.report_problems();
    machine
}

/// Ends the run with the verdict.
pub fn end(errors: u32) -> ! {
    let (verdict, code) = match errors {
        0 => ("pass", ExitCode::Success),
        _ => ("fail", ExitCode::Failure),
    };
    Record::End { verdict, errors }.emit();
    exit(code)
}

/// Ends a run that could not even begin: there may be no heap.
fn fail(what: &str, message: impl Display) -> ! {
    println!("error: {what}: {message}");
    error_record(what, message);
    exit(ExitCode::Failure)
}

/// Ends a run after a panic, which may have had the heap or the console locked.
pub fn panicked(info: &PanicInfo<'_>) -> ! {
    arch::interrupt::disable();
    terminal::take_over();
    println!("\n{info}");
    error_record("panic", info);
    exit(ExitCode::Panic)
}

/// An error record without the heap.
fn error_record(what: &str, message: impl Display) {
    println!(
        "@{{\"v\":1,\"kind\":\"error\",\"what\":\"{what}\",\"message\":\"{}\"}}",
        Escaped(message)
    );
}
