//! The two 8259s: masked, and moved away from the vectors of exceptions, where
//! firmware has them. Even a masked 8259 can raise its last input's vector, for
//! an interrupt that went away (8259A datasheet, "Edge and level triggered
//! modes").

use doorbell::port::{IoSpace, X86Ports};

use crate::arch::idt::EXCEPTIONS;

/// The first of the vectors that the 8259s have: 8 each.
const FIRST: u8 = EXCEPTIONS;
/// The first vector behind theirs.
pub const END: u8 = FIRST + 16;

/// The command and data port of each, and the initialisation command word that
/// says how they are wired: the second hangs on input 2 of the first.
const CHIPS: [(u16, u16, u8); 2] = [(0x20, 0x21, 1 << 2), (0xa0, 0xa1, 2)];
/// Edge-triggered, cascaded, with a fourth command word.
const ICW1: u8 = 0x11;
/// 8086 mode.
const ICW4: u8 = 0x01;
/// All eight inputs.
const MASK_ALL: u8 = 0xff;

/// Programs and masks both.
pub fn switch_off() {
    for ((command, data, wiring), vector) in CHIPS.into_iter().zip([FIRST, FIRST + 8]) {
        // SAFETY: these ports belong to the 8259s or to nobody, and nothing in
        // this kernel takes interrupts from them.
        unsafe {
            X86Ports.write8(command, ICW1);
            X86Ports.write8(data, vector);
            X86Ports.write8(data, wiring);
            X86Ports.write8(data, ICW4);
            X86Ports.write8(data, MASK_ALL);
        }
    }
}
