//! From a virtual machine's PVH entry point to Rust's `main`.
//!
//! A virtual machine monitor that boots by PVH (QEMU's `-kernel`, Firecracker,
//! Cloud Hypervisor) finds the entry point in an ELF note. It starts there in
//! 32-bit mode with one register: the address of the *start info*, which holds
//! the command line, the memory map and the ACPI root pointer. This package
//! gets from there to 64-bit Rust:
//!
//! - `entry.s` maps the first 4 GiB and enters 64-bit mode,
//! - [`start_info`] checks the start info and copies it into a [`BootInfo`],
//! - [`paging`] builds the final page tables,
//! - [`entry!`] names the function that is called then.
//!
//! `link.ld` lays the image out. A package that links one reads the script's
//! path from `DEP_DOORBELL_BOOT_LINKER_SCRIPT` in its build script, and needs
//! `-C relocation-model=static`.
//!
//! The image is told of errors rather than left hanging: if the start info
//! cannot be used, `main` gets a [`BootError`] and runs on the entry code's
//! page tables, where the first 4 GiB are mapped and writable.

#![cfg_attr(not(test), no_std)]

#[cfg(target_os = "none")]
mod entry;
mod error;
pub mod paging;
pub mod start_info;

pub use error::BootError;
pub use start_info::{BootInfo, MemoryRegion, RegionKind};

/// Names the function that the image begins with.
///
/// ```
/// # #![cfg_attr(target_os = "none", no_std, no_main)]
/// use doorbell_boot::{BootError, BootInfo};
///
/// fn kernel_main(boot: Result<&'static BootInfo, BootError>) -> ! {
///     loop {}
/// }
/// doorbell_boot::entry!(kernel_main);
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[unsafe(no_mangle)]
        extern "Rust" fn doorbell_main(
            boot: ::core::result::Result<&'static $crate::BootInfo, $crate::BootError>,
        ) -> ! {
            $main(boot)
        }
    };
}

/// The image's parts in memory; `None` on a host, where no script links it.
pub fn layout() -> Option<paging::Layout> {
    #[cfg(target_os = "none")]
    return Some(entry::layout());
    #[cfg(not(target_os = "none"))]
    None
}
