//! Interrupts: exceptions end the kernel; the two 8259s bring a clock and the lines
//! of devices; the local APIC brings messages.
//!
//! They are off but for [`Deadline::sleep`], so handlers share data with nobody.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering};

use spin::{Mutex, Once};
use x86_64::VirtAddr;
use x86_64::instructions::interrupts;
use x86_64::instructions::port::Port;
use x86_64::registers::control::Cr2;
use x86_64::structures::idt::InterruptDescriptorTable;

use super::failed::{Failed, missing};
use super::serial::println;
use super::{exit, memory};

/// The first vectors of the 8259s' 16 lines, and of messages.
const LINES: u8 = 32;
const MESSAGES: u8 = 48;
const END: u8 = 64;
const VECTORS: usize = (END - LINES) as usize;
/// The line of the clock, and that of the second 8259 at the first.
const CLOCK: u8 = 0;
const CASCADE: u8 = 2;
/// Ticks a second; the 8254 counts 1,193,182 times.
const HERTZ: u64 = 100;
const DIVISOR: u16 = (1_193_182 / HERTZ) as u16;
/// Where the local APIC is, and where messages go that are for this CPU.
const LOCAL_APIC: u64 = 0xfee0_0000;
/// Offsets of its registers (Intel SDM volume 3, table 11-1).
const END_OF_INTERRUPT: usize = 0xb0;
const SPURIOUS: usize = 0xf0;
const LINT0: usize = 0x350;
/// Software enable, and a vector that is not used.
const ENABLED: u32 = 0x1ff;
/// What LINT0 brings is the 8259s'.
const EXTERNAL: u32 = 0x700;

/// What is called when an interrupt comes.
type Handler = fn();

static TICKS: AtomicU64 = AtomicU64::new(0);
static HANDLERS: Mutex<[Option<Handler>; VECTORS]> = Mutex::new([None; VECTORS]);
static APIC: Once<usize> = Once::new();

// A stub of 16 bytes for each vector, which pushes its number.
global_asm!(
    ".balign 16",
    "vector_table:",
    ".set vector, 0",
    ".rept {end}",
    ".balign 16",
    "push vector",
    ".if vector < {lines}",
    "jmp 2f",
    ".else",
    "jmp 3f",
    ".endif",
    ".set vector, vector + 1",
    ".endr",
    // The vector, then what the CPU pushed.
    "2: mov rdi, [rsp]",
    "lea rsi, [rsp + 8]",
    "and rsp, -16",
    "call {exception}",
    "3: push rax",
    "push rcx",
    "push rdx",
    "push rsi",
    "push rdi",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "mov rdi, [rsp + 9 * 8]",
    "sub rsp, 8",
    "cld",
    "call {interrupt}",
    "add rsp, 8",
    "pop r11",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rdi",
    "pop rsi",
    "pop rdx",
    "pop rcx",
    "pop rax",
    "add rsp, 8",
    "iretq",
    lines = const LINES,
    end = const END,
    exception = sym exception,
    interrupt = sym interrupt,
);

extern "C" fn exception(vector: u64, pushed: &[u64; 3]) -> ! {
    println!(
        "exception {vector}: the CPU pushed {pushed:#x?}, cr2 {:#x}",
        Cr2::read_raw()
    );
    exit::failure()
}

extern "C" fn interrupt(vector: u8) {
    if vector == LINES + CLOCK {
        TICKS.fetch_add(1, Ordering::SeqCst);
    } else if let Some(handler) = HANDLERS.lock()[usize::from(vector - LINES)] {
        handler();
    }
    if vector >= MESSAGES {
        write_apic(END_OF_INTERRUPT, 0);
        return;
    }
    // SAFETY: a non-specific end of interrupt for the 8259s that have it in service.
    unsafe {
        if vector >= LINES + 8 {
            Port::<u8>::new(0xa0).write(0x20);
        }
        Port::<u8>::new(0x20).write(0x20);
    }
}

/// Loads the table, starts the clock and enables the local APIC.
///
/// # Panics
///
/// If the local APIC cannot be mapped.
pub(super) fn init() {
    unsafe extern "C" {
        static vector_table: u8;
    }
    static IDT: Once<InterruptDescriptorTable> = Once::new();
    let stub = |vector: u8| VirtAddr::from_ptr(&raw const vector_table) + 16 * u64::from(vector);
    let idt = IDT.call_once(|| {
        let mut idt = InterruptDescriptorTable::new();
        // SAFETY: the stubs of these vectors take what the CPU leaves on the stack:
        // one never returns, the others by `iretq`.
        unsafe {
            idt.invalid_opcode.set_handler_addr(stub(6));
            idt.double_fault.set_handler_addr(stub(8));
            idt.general_protection_fault.set_handler_addr(stub(13));
            idt.page_fault.set_handler_addr(stub(14));
            for vector in LINES..END {
                idt[vector].set_handler_addr(stub(vector));
            }
        }
        idt
    });
    idt.load();
    let apic = memory::map_device(LOCAL_APIC, 4096).expect("the local APIC can be mapped");
    APIC.call_once(|| apic.as_ptr().expose_provenance());
    write_apic(LINT0, EXTERNAL);
    write_apic(SPURIOUS, ENABLED);
    // SAFETY: the ports of the 8259s and the 8254, which every PC has, in the order
    // that their data sheets give; interrupts are off.
    unsafe {
        for (command, data, vector, wiring) in [
            (0x20, 0x21, LINES, 1 << CASCADE),
            (0xa0, 0xa1, LINES + 8, CASCADE),
        ] {
            Port::<u8>::new(command).write(0x11);
            for word in [vector, wiring, 1] {
                Port::<u8>::new(data).write(word);
            }
            Port::<u8>::new(data).write(0xff);
        }
        Port::<u8>::new(0x43).write(0x34);
        for byte in DIVISOR.to_le_bytes() {
            Port::<u8>::new(0x40).write(byte);
        }
    }
    unmask(CLOCK);
    unmask(CASCADE);
}

/// Calls `handler` when this line of the 8259s is active.
///
/// # Panics
///
/// If there is no such line: there are 16.
pub(super) fn on_line(line: u8, handler: Handler) {
    assert!(line < 16, "there is no line {line}");
    HANDLERS.lock()[usize::from(line)] = Some(handler);
    unmask(line);
}

/// Calls `handler` when a device writes the second value returned to the first.
///
/// # Panics
///
/// If all are taken: there are 16.
pub(super) fn on_message(handler: Handler) -> (u64, u32) {
    let mut handlers = HANDLERS.lock();
    let messages = &mut handlers[usize::from(MESSAGES - LINES)..];
    let free = messages.iter().position(Option::is_none);
    let n = free.expect("a vector that is free");
    messages[n] = Some(handler);
    (LOCAL_APIC, u32::from(MESSAGES) + n as u32)
}

/// A tick of the clock that ends a wait.
pub(super) struct Deadline(u64);

impl Deadline {
    /// The time in so many seconds.
    pub(super) fn after(seconds: u64) -> Self {
        Self(TICKS.load(Ordering::SeqCst) + seconds * HERTZ)
    }

    /// Lets the CPU sleep until the next interrupt was handled (one that waits already
    /// is taken at once), and says whether there is time left.
    pub(super) fn sleep(&mut self) -> bool {
        interrupts::enable_and_hlt();
        interrupts::disable();
        TICKS.load(Ordering::SeqCst) < self.0
    }

    /// Sleeps until `done`.
    pub(super) fn until(&mut self, done: impl Fn() -> bool) -> Result<(), Failed> {
        while !done() {
            if !self.sleep() {
                return Err(missing("interrupt in time"));
            }
        }
        Ok(())
    }
}

fn unmask(line: u8) {
    let mut mask = Port::<u8>::new(if line < 8 { 0x21 } else { 0xa1 });
    // SAFETY: the 8259's mask, which is this module's.
    unsafe {
        let old = mask.read();
        mask.write(old & !(1 << (line % 8)));
    }
}

fn write_apic(register: usize, value: u32) {
    let Some(base) = APIC.get() else { return };
    // SAFETY: mapped for ever (`init`), and this module's.
    unsafe { core::ptr::with_exposed_provenance_mut::<u32>(base + register).write_volatile(value) }
}
