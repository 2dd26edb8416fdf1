//! Return addresses, by the chain of frame pointers.
//!
//! `.cargo/config.toml` forces frame pointers: each function's frame begins
//! with the caller's frame pointer, and the return address lies above it. The
//! entry code starts the chain with 0. `addr2line -e doorbell ADDRESS` names
//! the function.

use core::ops::Range;

/// A chain longer than this is damaged, or nobody wants to read it.
const MAX_DEPTH: usize = 32;

/// Prints `rip` and the return addresses from frame pointer `rbp` on.
pub fn print(rip: u64, rbp: u64) {
    crate::println!("    {rip:#x}");
    let Some(layout) = doorbell_boot::layout() else {
        return;
    };
    // SAFETY: `walk` asks for aligned words of the stack only, which is mapped.
    let read = |address: u64| unsafe { (address as *const u64).read_volatile() };
    for return_address in walk(rbp, layout.stack, layout.text, read) {
        crate::println!("    {return_address:#x}");
    }
}

/// The return addresses from frame pointer `rbp` on. Each frame must lie in
/// `stack`, above the one before, and each address in `text`; the walk ends
/// where one does not. `read` is given 8-byte-aligned addresses in `stack`.
fn walk(
    mut rbp: u64,
    stack: Range<u64>,
    text: Range<u64>,
    read: impl Fn(u64) -> u64,
) -> impl Iterator<Item = u64> {
    let mut lowest = stack.start;
    core::iter::from_fn(move || {
        let room = rbp.is_multiple_of(8) && rbp >= lowest && rbp < stack.end.checked_sub(8)?;
        if !room {
            return None;
        }
        let return_address = read(rbp + 8);
        lowest = rbp + 8;
        rbp = read(rbp);
        text.contains(&return_address).then_some(return_address)
    })
    .take(MAX_DEPTH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    const BASE: u64 = 0x1000;
    const TEXT: Range<u64> = 0x100..0x200;

    fn walk_words(words: &[u64], rbp: u64) -> Vec<u64> {
        let stack = BASE..BASE + 8 * words.len() as u64;
        walk(rbp, stack, TEXT, |address| {
            words[((address - BASE) / 8) as usize]
        })
        .collect()
    }

    #[test]
    fn follows_the_chain_to_its_end() {
        let words = [BASE + 0x18, 0x110, 7, 0, 0x120, 9];
        assert_eq!(walk_words(&words, BASE), [0x110, 0x120]);
    }

    #[test]
    fn stops_at_a_frame_outside_the_stack() {
        assert_eq!(walk_words(&[0xdead_0000, 0x110], BASE), [0x110]);
        // The last word has no room for a return address above it.
        assert!(walk_words(&[0, 0x110], BASE + 8).is_empty());
        assert!(walk_words(&[0, 0x110], BASE + 4).is_empty());
        assert!(walk_words(&[0, 0x110], u64::MAX - 7).is_empty());
    }

    #[test]
    fn stops_at_an_address_that_is_not_code() {
        assert!(walk_words(&[BASE + 0x10, 0x300, 0, 0x110], BASE).is_empty());
    }

    #[test]
    fn a_loop_ends() {
        assert_eq!(walk_words(&[BASE, 0x110], BASE), [0x110]);
    }

    #[test]
    fn depth_is_bounded() {
        let words: Vec<u64> = (0..100)
            .flat_map(|i| vec![BASE + 16 * (i + 1), 0x110])
            .collect();
        assert_eq!(walk_words(&words, BASE).len(), MAX_DEPTH);
    }
}
