//! From the 32-bit entry code to the image's `main`. Bare metal only.

use core::mem::MaybeUninit;
use core::ops::Range;
use core::ptr;

use x86_64::PhysAddr;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr3, Cr3Flags};
use x86_64::registers::model_specific::{Efer, EferFlags};
use x86_64::structures::paging::PhysFrame;

use crate::error::BootError;
use crate::paging::{self, Layout};
use crate::start_info::{self, BootInfo, PhysicalMemory};

core::arch::global_asm!(include_str!("entry.s"), rust_entry = sym rust_entry);

unsafe extern "Rust" {
    /// Defined by [`crate::entry!`].
    safe fn doorbell_main(boot: Result<&'static BootInfo, BootError>) -> !;
}

unsafe extern "C" {
    static __text_start: u8;
    static __text_end: u8;
    static __rodata_start: u8;
    static __rodata_end: u8;
    static __data_start: u8;
    static __data_end: u8;
    static __stack_bottom: u8;
    static __stack_top: u8;
}

/// Where the linker script put the image's parts.
pub(crate) fn layout() -> Layout {
    let range = |start, end| address(start)..address(end);
    let stack = range(&raw const __stack_bottom, &raw const __stack_top);
    Layout {
        text: range(&raw const __text_start, &raw const __text_end),
        rodata: range(&raw const __rodata_start, &raw const __rodata_end),
        data: range(&raw const __data_start, &raw const __data_end),
        guard: stack.start - 4096..stack.start,
        stack,
    }
}

/// A linker symbol is its address; there is nothing to read behind it.
fn address(symbol: *const u8) -> u64 {
    symbol.addr() as u64
}

/// The first 4 GiB, as the entry code mapped them.
struct FirstMapping;

impl PhysicalMemory for FirstMapping {
    fn read(&self, address: u64, buffer: &mut [u8]) -> bool {
        let bytes: Range<u64> = address..address.saturating_add(buffer.len() as u64);
        // Nobody puts a structure at 0; a pointer there means "none".
        if address == 0 || bytes.end > 1 << 32 {
            return false;
        }
        // SAFETY: the entry code mapped these addresses, and `buffer` is a
        // local of the caller, which no boot structure shares memory with.
        unsafe { ptr::copy(address as *const u8, buffer.as_mut_ptr(), buffer.len()) };
        true
    }
}

/// Called once by entry.s, on the final stack.
extern "C" fn rust_entry(start_info: u32) -> ! {
    doorbell_main(prepare(start_info.into()))
}

fn prepare(start_info: u64) -> Result<&'static BootInfo, BootError> {
    static mut BOOT_INFO: MaybeUninit<BootInfo> = MaybeUninit::uninit();
    let slot = &raw mut BOOT_INFO;
    // SAFETY: this function runs once, so this is the only reference.
    let slot = unsafe { &mut *slot };
    let info = slot.write(start_info::parse(&FirstMapping, start_info)?);
    let nx = cpu_has_no_execute();
    // SAFETY: nothing uses RAM outside the image: `parse` copied what it kept,
    // and firmware claims its memory in the map. Below 4 GiB the entry code
    // mapped all addresses to themselves.
    let root = unsafe { paging::build(info, &layout(), 0, nx)? };
    // SAFETY: the new tables map the code, stack and data in use at the same
    // addresses, with the rights that they need; NXE is set because the tables
    // use its bit, and only on a CPU that has it.
    unsafe {
        if nx {
            Efer::update(|flags| flags.insert(EferFlags::NO_EXECUTE_ENABLE));
        }
        Cr3::write(
            PhysFrame::containing_address(PhysAddr::new(root)),
            Cr3Flags::empty(),
        );
        // Without this ring 0 would write to read-only pages.
        Cr0::update(|flags| flags.insert(Cr0Flags::WRITE_PROTECT));
    }
    Ok(info)
}

/// CPUID 0x80000001 edx bit 20; entry.s made sure that this leaf exists.
fn cpu_has_no_execute() -> bool {
    core::arch::x86_64::__cpuid(0x8000_0001).edx & (1 << 20) != 0
}
