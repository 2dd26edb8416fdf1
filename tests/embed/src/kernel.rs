//! The kernel, read from the top down.

mod boot;
mod disk;
mod exit;
mod failed;
mod glue;
mod interrupts;
mod iommu;
mod memory;
mod network;
mod serial;

use failed::Failed;
use serial::println;

/// Where boot.s goes, once.
extern "C" fn kernel_main(start_info: u32) -> ! {
    serial::init();
    boot::leave_first_gdt();
    // SAFETY: the loader's own word, and nothing has run that could overwrite it.
    let (ram, has_iommu) = unsafe {
        let has_iommu = boot::was_told(start_info, c"iommu");
        (boot::free_ram(start_info), has_iommu)
    };
    println!("somebody else's kernel, with RAM at {ram:#x?}");
    // SAFETY: the RAM behind the kernel is nobody's; the stack, the code and the tables
    // in use are in the upper half.
    unsafe { memory::init(ram) };
    interrupts::init();
    match drive(has_iommu) {
        Ok(()) => exit::success(),
        Err(Failed) => exit::failure(),
    }
}

fn drive(has_iommu: bool) -> Result<(), Failed> {
    let iommu = if has_iommu {
        // SAFETY: the command line says that there is one, and no driver has begun.
        Some(unsafe { iommu::Iommu::start() }?)
    } else {
        None
    };
    let mut storage = [doorbell::pci::Function::default(); 32];
    let functions = glue::functions(&mut storage)?;
    println!("{} PCI functions", functions.len());
    disk::run(functions)?;
    network::run(functions)?;
    iommu.map_or(Ok(()), iommu::Iommu::check)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    println!("{info}");
    exit::failure()
}
