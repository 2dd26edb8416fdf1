//! The way in: the PVH entry point, and what the loader says of the machine.

use core::ops::Range;
use core::slice;

use x86_64::registers::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};

use super::memory;

/// Bytes of the only stack.
const STACK_SIZE: usize = 64 * 1024;

#[repr(align(16))]
#[expect(dead_code, reason = "only the CPU uses it")]
struct Stack([u8; STACK_SIZE]);

static mut STACK: Stack = Stack([0; STACK_SIZE]);

core::arch::global_asm!(
    include_str!("boot.s"),
    stack = sym STACK,
    stack_size = const STACK_SIZE,
    kernel_main = sym super::kernel_main,
);

/// Xen's `hvm_start_info`, version 1 (xen/include/public/arch-x86/hvm/start_info.h).
#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    nr_modules: u32,
    modlist_paddr: u64,
    cmdline_paddr: u64,
    rsdp_paddr: u64,
    memmap_paddr: u64,
    memmap_entries: u32,
    reserved: u32,
}

/// Xen's `hvm_memmap_table_entry`.
#[repr(C)]
struct Region {
    addr: u64,
    size: u64,
    kind: u32,
    reserved: u32,
}

const MAGIC: u32 = 0x336e_c578;
const RAM: u32 = 1;

/// Whether the command line is `word`.
///
/// # Safety
///
/// As for [`free_ram`].
pub(super) unsafe fn was_told(start_info: u32, word: &core::ffi::CStr) -> bool {
    // SAFETY: the loader's structures, in the first GiB as QEMU has them; the text ends
    // with a zero.
    unsafe {
        let info = &*memory::at(start_info.into()).cast::<StartInfo>().as_ptr();
        let text = memory::at(info.cmdline_paddr).cast();
        info.cmdline_paddr != 0 && core::ffi::CStr::from_ptr(text.as_ptr()) == word
    }
}

/// The RAM that the kernel lies in, from its end on.
///
/// # Panics
///
/// If the start info is none.
///
/// # Safety
///
/// `start_info` is what the loader gave, and nothing has overwritten it.
pub(super) unsafe fn free_ram(start_info: u32) -> Range<u64> {
    unsafe extern "C" {
        static __kernel_end: u8;
    }
    let kernel_end = (&raw const __kernel_end).addr() as u64;
    // SAFETY: the loader's structures, in the first GiB as QEMU has them.
    let regions = unsafe {
        let info = &*memory::at(start_info.into()).cast::<StartInfo>().as_ptr();
        assert!(info.magic == MAGIC && info.version >= 1, "no start info");
        let table = memory::at(info.memmap_paddr).cast::<Region>();
        slice::from_raw_parts(table.as_ptr(), info.memmap_entries as usize)
    };
    let ours = |region: &&Region| {
        region.kind == RAM && (region.addr..region.addr + region.size).contains(&kernel_end)
    };
    let region = regions.iter().find(ours).expect("RAM behind the kernel");
    kernel_end..region.addr + region.size
}

/// Loads a descriptor table that is not in the lower half.
pub(super) fn leave_first_gdt() {
    static GDT: spin::Once<(GlobalDescriptorTable, SegmentSelector)> = spin::Once::new();
    let (gdt, code) = GDT.call_once(|| {
        let mut gdt = GlobalDescriptorTable::new();
        let code = gdt.append(Descriptor::kernel_code_segment());
        (gdt, code)
    });
    gdt.load();
    // SAFETY: the table just loaded has a code segment there; 64-bit mode takes null
    // for data.
    unsafe {
        CS::set_reg(*code);
        SS::set_reg(SegmentSelector::NULL);
        DS::set_reg(SegmentSelector::NULL);
        ES::set_reg(SegmentSelector::NULL);
    }
}
