//! CPU exceptions: each is reported in full and ends the run. None is
//! expected, so no handler returns.

use core::arch::naked_asm;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use x86_64::registers::control::Cr2;
use x86_64::structures::idt::PageFaultErrorCode;

use super::backtrace;
use super::exit::{ExitCode, exit};
use super::idt::EXCEPTIONS;
use crate::platform::json::Escaped;
use crate::terminal;

/// Where the stubs of exceptions go: stores the registers as [`Frame`] names
/// them, and reports.
#[unsafe(naked)]
pub(super) extern "C" fn entry() -> ! {
    naked_asm!(
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
        report = sym report,
    )
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

pub(super) const DOUBLE_FAULT: u8 = 8;
pub(super) const PAGE_FAULT: u8 = 14;

/// Says what happened and ends the run.
extern "C" fn report(frame: &Frame) -> ! {
    static REPORTING: AtomicBool = AtomicBool::new(false);
    // An exception in this function must not begin it again.
    if REPORTING.swap(true, Ordering::Relaxed) {
        exit(ExitCode::Exception);
    }
    terminal::take_over();
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
        let page_fault = vector == u64::from(PAGE_FAULT);
        if page_fault || vector == u64::from(DOUBLE_FAULT) {
            write!(f, ", cr2 {:#x}", self.address)?;
        }
        if page_fault {
            write!(f, ": {}", Access(error_code))?;
        }
        match cause_at(self.address) {
            Some(cause) if page_fault => write!(f, ", {cause}"),
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

    fn frame(vector: u8, error_code: u64) -> Frame {
        // SAFETY: a frame is integers only, for which all zeroes are valid.
        let zero: Frame = unsafe { core::mem::zeroed() };
        Frame {
            vector: vector.into(),
            error_code,
            rip: 0x10_0040,
            ..zero
        }
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
