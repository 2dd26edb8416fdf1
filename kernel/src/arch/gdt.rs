//! The segment descriptors that 64-bit mode still needs, and a task state
//! segment for the exceptions that cannot run on the stack they interrupt.

use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::tss::TaskStateSegment;

/// Index in the interrupt stack table of the stack for double faults.
pub const DOUBLE_FAULT_IST: u16 = 0;
/// Index in the interrupt stack table of the stack for page faults: one is
/// how the stack's guard page announces that the stack is full.
pub const PAGE_FAULT_IST: u16 = 1;

const IST_STACK_SIZE: usize = 16 * 1024;

#[repr(C, align(16))]
struct Stack([u8; IST_STACK_SIZE]);

static mut DOUBLE_FAULT_STACK: Stack = Stack([0; IST_STACK_SIZE]);
static mut PAGE_FAULT_STACK: Stack = Stack([0; IST_STACK_SIZE]);
static TSS: Once<TaskStateSegment> = Once::new();
static GDT: Once<GlobalDescriptorTable> = Once::new();

/// Loads the segment registers and the task register.
pub(super) fn init() {
    let top = |stack: *const Stack| VirtAddr::from_ptr(stack.wrapping_add(1));
    let tss = TSS.call_once(|| {
        let mut tss = TaskStateSegment::new();
        tss.interrupt_stack_table[usize::from(DOUBLE_FAULT_IST)] =
            top(&raw const DOUBLE_FAULT_STACK);
        tss.interrupt_stack_table[usize::from(PAGE_FAULT_IST)] = top(&raw const PAGE_FAULT_STACK);
        tss
    });
    let mut table = GlobalDescriptorTable::new();
    let code = table.append(Descriptor::kernel_code_segment());
    let data = table.append(Descriptor::kernel_data_segment());
    let task = table.append(Descriptor::tss_segment(tss));
    GDT.call_once(|| table).load();
    // SAFETY: the selectors are those of the table just loaded, which is
    // static, and so are the task state segment and its stacks.
    unsafe {
        CS::set_reg(code);
        SS::set_reg(data);
        DS::set_reg(data);
        ES::set_reg(data);
        load_tss(task);
    }
}
