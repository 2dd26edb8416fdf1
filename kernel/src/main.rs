//! The doorbell unikernel: boots, finds virtio devices, and does what its command
//! line asks for.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("doorbell runs in a virtual machine: see `cargo xtask run --help`");
    std::process::exit(2);
}

#[cfg(target_os = "none")]
mod bare_metal {
    use core::panic::PanicInfo;

    use doorbell_boot::{BootError, BootInfo};
    use doorbell_kernel::{commands, run};

    doorbell_boot::entry!(main);

    fn main(boot: Result<&'static BootInfo, BootError>) -> ! {
        // SAFETY: the first thing that happens, and on the only CPU.
        let machine = unsafe { run::begin("doorbell", boot) };
        let errors = commands::run_command_line(&machine);
        run::end(errors)
    }

    #[panic_handler]
    fn panic(info: &PanicInfo<'_>) -> ! {
        run::panicked(info)
    }
}
