//! CPU exceptions: each is reported in full and ends the run. None is
//! expected, so no handler returns.
//!
//! The entry stubs are assembly because the `x86-interrupt` calling
//! convention is not stable. They store the registers as `Frame` names them.

use core::arch::global_asm;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use spin::Once;
use x86_64::VirtAddr;
use x86_64::registers::control::Cr2;
use x86_64::structures::idt::{InterruptDescriptorTable, PageFaultErrorCode};

use super::exit::{ExitCode, exit};
use super::{backtrace, gdt};
use crate::platform::json::Escaped;
use crate::platform::serial;

/// Vectors that the architecture keeps for exceptions.
const EXCEPTIONS: u64 = 32;
/// Bytes from one stub to the next: more than the longest stub's 9.
const STUB_SIZE: u64 = 16;
/// The vectors for which the CPU pushes an error code, a bit each (Intel SDM
/// volume 3, table 6-1). The stubs of the others push a 0 in its place.
const WITH_ERROR_CODE: u32 = 0x6022_7d00;

global_asm!(
    ".balign {stub_size}",
    "exception_stubs:",
    ".set vector, 0",
    ".rept {exceptions}",
    ".balign {stub_size}",
    ".if (({with_error_code} >> vector) & 1) == 0",
    "push 0",
    ".endif",
    "push vector",
    "jmp exception_common",
    ".set vector, vector + 1",
    ".endr",
    "exception_common:",
    "push rax",
    "push rbx",
    "push rcx",
    "push rdx",
    "push rsi",
    "push rdi",
    "push rbp",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "cld",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {report}",
    "ud2",
    stub_size = const STUB_SIZE,
    with_error_code = const WITH_ERROR_CODE,
    exceptions = const EXCEPTIONS,
    report = sym report,
);

unsafe extern "C" {
    static exception_stubs: u8;
}

/// What the stubs leave on the stack, lowest address first: our pushes, then
/// the CPU's (Intel SDM volume 3, 6.14.2).
#[repr(C)]
struct Frame {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    rbp: u64,
    rdi: u64,
    rsi: u64,
    rdx: u64,
    rcx: u64,
    rbx: u64,
    rax: u64,
    vector: u64,
    error_code: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// Mnemonic and name of each exception (Intel SDM volume 3, table 6-1).
const NAMES: [&str; EXCEPTIONS as usize] = [
    "#DE divide error",
    "#DB debug",
    "NMI",
    "#BP breakpoint",
    "#OF overflow",
    "#BR bound range exceeded",
    "#UD invalid opcode",
    "#NM device not available",
    "#DF double fault",
    "coprocessor segment overrun",
    "#TS invalid TSS",
    "#NP segment not present",
    "#SS stack-segment fault",
    "#GP general protection",
    "#PF page fault",
    "reserved exception 15",
    "#MF x87 floating-point error",
    "#AC alignment check",
    "#MC machine check",
    "#XM SIMD floating-point exception",
    "#VE virtualization exception",
    "#CP control protection exception",
    "reserved exception 22",
    "reserved exception 23",
    "reserved exception 24",
    "reserved exception 25",
    "reserved exception 26",
    "reserved exception 27",
    "#HV hypervisor injection exception",
    "#VC VMM communication exception",
    "#SX security exception",
    "reserved exception 31",
];

const DOUBLE_FAULT: u64 = 8;
const PAGE_FAULT: u64 = 14;

static IDT: Once<InterruptDescriptorTable> = Once::new();

/// Loads an interrupt descriptor table that reports every exception.
pub(super) fn init() {
    let first_stub = (&raw const exception_stubs).addr() as u64;
    let stub = |vector: u64| VirtAddr::new(first_stub + vector * STUB_SIZE);
    IDT.call_once(|| {
        let mut idt = InterruptDescriptorTable::new();
        // SAFETY: each stub takes the stack that the CPU leaves for its
        // vector, and never returns; the interrupt stacks are in the TSS that
        // `gdt::init` loaded.
        unsafe {
            idt.divide_error.set_handler_addr(stub(0));
            idt.debug.set_handler_addr(stub(1));
            idt.non_maskable_interrupt.set_handler_addr(stub(2));
            idt.breakpoint.set_handler_addr(stub(3));
            idt.overflow.set_handler_addr(stub(4));
            idt.bound_range_exceeded.set_handler_addr(stub(5));
            idt.invalid_opcode.set_handler_addr(stub(6));
            idt.device_not_available.set_handler_addr(stub(7));
            idt.double_fault
                .set_handler_addr(stub(DOUBLE_FAULT))
                .set_stack_index(gdt::DOUBLE_FAULT_IST);
            idt.invalid_tss.set_handler_addr(stub(10));
            idt.segment_not_present.set_handler_addr(stub(11));
            idt.stack_segment_fault.set_handler_addr(stub(12));
            idt.general_protection_fault.set_handler_addr(stub(13));
            idt.page_fault
                .set_handler_addr(stub(PAGE_FAULT))
                .set_stack_index(gdt::PAGE_FAULT_IST);
            idt.x87_floating_point.set_handler_addr(stub(16));
            idt.alignment_check.set_handler_addr(stub(17));
            idt.machine_check.set_handler_addr(stub(18));
            idt.simd_floating_point.set_handler_addr(stub(19));
            idt.virtualization.set_handler_addr(stub(20));
            idt.cp_protection_exception.set_handler_addr(stub(21));
            idt.hv_injection_exception.set_handler_addr(stub(28));
            idt.vmm_communication_exception.set_handler_addr(stub(29));
            idt.security_exception.set_handler_addr(stub(30));
        }
        idt
    })
    .load();
}

/// Called by the stubs: says what happened and ends the run.
extern "C" fn report(frame: &Frame) -> ! {
    static REPORTING: AtomicBool = AtomicBool::new(false);
    // An exception in this function must not begin it again.
    if REPORTING.swap(true, Ordering::Relaxed) {
        exit(ExitCode::Exception);
    }
    serial::take_over();
    let summary = Summary {
        frame,
        address: Cr2::read_raw(),
    };
    crate::println!("\n{summary}");
    crate::print!("{frame}");
    crate::println!("  called from:");
    backtrace::print(frame.rip, frame.rbp);
    crate::println!(
        "@{{\"v\":1,\"kind\":\"error\",\"what\":\"exception\",\"message\":\"{}\"}}",
        Escaped(&summary)
    );
    exit(ExitCode::Exception)
}

/// The exception in one sentence.
struct Summary<'a> {
    frame: &'a Frame,
    /// CR2, which means something for page faults and what follows from them.
    address: u64,
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Frame {
            vector,
            error_code,
            rip,
            ..
        } = *self.frame;
        let name = NAMES
            .get(vector as usize)
            .copied()
            .unwrap_or("unknown exception");
        write!(
            f,
            "exception {vector} ({name}) at rip {rip:#x}, error code {error_code:#x}"
        )?;
        if vector == PAGE_FAULT || vector == DOUBLE_FAULT {
            write!(f, ", cr2 {:#x}", self.address)?;
        }
        if vector == PAGE_FAULT {
            write!(f, ": {}", Access(error_code))?;
        }
        match cause_at(self.address) {
            Some(cause) if vector == PAGE_FAULT => write!(f, ", {cause}"),
            _ => Ok(()),
        }
    }
}

/// A page fault's error code in words (Intel SDM volume 3, 4.7).
struct Access(u64);

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = PageFaultErrorCode::from_bits_truncate(self.0);
        f.write_str(if code.contains(PageFaultErrorCode::INSTRUCTION_FETCH) {
            "execution of "
        } else if code.contains(PageFaultErrorCode::CAUSED_BY_WRITE) {
            "write to "
        } else {
            "read of "
        })?;
        f.write_str(if code.contains(PageFaultErrorCode::PROTECTION_VIOLATION) {
            "a page that forbids it"
        } else {
            "a page that is not mapped"
        })
    }
}

/// Names the parts of memory whose faults have a known cause.
fn cause_at(address: u64) -> Option<&'static str> {
    let layout = doorbell_boot::layout()?;
    if layout.guard.contains(&address) {
        Some("the stack's guard page: stack overflow")
    } else if address < 4096 {
        Some("page 0: null pointer")
    } else if layout.text.contains(&address) {
        Some("the kernel's code")
    } else if layout.rodata.contains(&address) {
        Some("the kernel's constants")
    } else {
        None
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let registers = [
            ("rax", self.rax),
            ("rbx", self.rbx),
            ("rcx", self.rcx),
            ("rdx", self.rdx),
            ("rsi", self.rsi),
            ("rdi", self.rdi),
            ("rbp", self.rbp),
            ("rsp", self.rsp),
            ("r8", self.r8),
            ("r9", self.r9),
            ("r10", self.r10),
            ("r11", self.r11),
            ("r12", self.r12),
            ("r13", self.r13),
            ("r14", self.r14),
            ("r15", self.r15),
            ("rip", self.rip),
            ("cs", self.cs),
            ("rflags", self.rflags),
            ("ss", self.ss),
        ];
        for row in registers.chunks(4) {
            for (name, value) in row {
                write!(f, "  {name:>6} {value:016x}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(vector: u64, error_code: u64) -> Frame {
        // SAFETY: a frame is integers only, for which all zeroes are valid.
        let zero: Frame = unsafe { core::mem::zeroed() };
        Frame {
            vector,
            error_code,
            rip: 0x10_0040,
            ..zero
        }
    }

    #[test]
    fn these_vectors_have_an_error_code() {
        let vectors = [8, 10, 11, 12, 13, 14, 17, 21, 29, 30];
        let mask: u32 = vectors.iter().map(|vector| 1u32 << vector).sum();
        assert_eq!(WITH_ERROR_CODE, mask);
    }

    #[test]
    fn a_null_write_reads_as_a_sentence() {
        let frame = frame(PAGE_FAULT, 2);
        let text = std::format!(
            "{}",
            Summary {
                frame: &frame,
                address: 0
            }
        );
        assert_eq!(
            text,
            "exception 14 (#PF page fault) at rip 0x100040, error code 0x2, cr2 0x0: \
             write to a page that is not mapped"
        );
    }

    #[test]
    fn cr2_is_left_out_where_it_means_nothing() {
        let frame = frame(0, 0);
        let text = std::format!(
            "{}",
            Summary {
                frame: &frame,
                address: 0x1234
            }
        );
        assert_eq!(
            text,
            "exception 0 (#DE divide error) at rip 0x100040, error code 0x0"
        );
    }

    #[test]
    fn access_names_direction_and_cause() {
        assert_eq!(
            std::format!("{}", Access(0x11)),
            "execution of a page that forbids it"
        );
        assert_eq!(
            std::format!("{}", Access(0x3)),
            "write to a page that forbids it"
        );
        assert_eq!(
            std::format!("{}", Access(0x0)),
            "read of a page that is not mapped"
        );
    }
}
