//! Where a person is: what is printed goes to the serial line, and to a [`Terminal`]
//! beside it while one is attached ([`with`]). What is typed then comes from there.
//!
//! Records go to the serial line alone, where programs read them. So does what is said
//! of a panic or an exception: the terminal's own driver may have met it.

use core::fmt;

use spin::Mutex;

use crate::platform::serial;

/// ASCII's end of transmission: nothing more will be typed.
pub const END_OF_INPUT: u8 = 4;

/// A terminal beside the serial line. It does not print.
pub trait Terminal {
    /// Shows text, whose lines end with `\r\n`. What nobody takes is lost; the
    /// serial line has it.
    fn show(&self, text: &[u8]);

    /// Takes a byte that was typed, if there is one.
    fn read_byte(&self) -> Option<u8>;

    /// Waits for a byte that is typed; `None` if none will come any more.
    fn wait_for_byte(&self) -> Option<u8>;
}

#[derive(Clone, Copy)]
struct Attached(&'static dyn Terminal);

// SAFETY: there is one CPU, and an interrupt's handler neither prints nor reads.
unsafe impl Send for Attached {}

static ATTACHED: Mutex<Option<Attached>> = Mutex::new(None);

fn attached() -> Option<&'static dyn Terminal> {
    let attached = *ATTACHED.lock();
    attached.map(|Attached(terminal)| terminal)
}

/// Runs `f` with a terminal attached, in the place of another one until then.
pub fn with<R>(terminal: &dyn Terminal, f: impl FnOnce() -> R) -> R {
    /// Puts back what was there, however `f` ends.
    struct Before(Option<Attached>);
    impl Drop for Before {
        fn drop(&mut self) {
            *ATTACHED.lock() = self.0;
        }
    }
    // SAFETY: `Before` takes it away again before the reference ends, and nobody
    // keeps what `attached` hands out.
    let terminal: &'static dyn Terminal = unsafe { core::mem::transmute(terminal) };
    let _before = Before(ATTACHED.lock().replace(Attached(terminal)));
    f()
}

/// Prints, for people. Use [`print!`](crate::print).
pub fn print(arguments: fmt::Arguments<'_>) {
    serial::write(arguments);
    if let Some(terminal) = attached() {
        let mut loads = Loads::new(|load: &[u8]| terminal.show(load));
        // As on the serial line.
        let _ = fmt::Write::write_fmt(&mut loads, arguments);
        loads.flush();
    }
}

/// Takes a byte that was typed, if there is one.
pub fn read_byte() -> Option<u8> {
    match attached() {
        Some(terminal) => terminal.read_byte(),
        None => serial::read_byte(),
    }
}

/// Waits for a byte that is typed; `None` if none will come any more.
pub fn wait_for_byte() -> Option<u8> {
    if let Some(terminal) = attached() {
        return terminal.wait_for_byte();
    }
    loop {
        match serial::read_byte() {
            Some(byte) => return Some(byte),
            None => core::hint::spin_loop(),
        }
    }
}

/// Frees the serial line, and takes the terminal away, for a report about code that
/// may have been printing and will never continue: call it in panics and exceptions
/// only.
pub fn take_over() {
    serial::take_over();
    // SAFETY: there is one CPU, and the code that may hold the lock does not run
    // again.
    unsafe { ATTACHED.force_unlock() };
    *ATTACHED.lock() = None;
}

/// Collects fragments of text into loads, with a carriage return before each line
/// feed: a terminal in raw mode needs it.
struct Loads<S: FnMut(&[u8])> {
    show: S,
    bytes: [u8; LOAD],
    len: usize,
}

/// Bytes in a load.
const LOAD: usize = 256;

impl<S: FnMut(&[u8])> Loads<S> {
    fn new(show: S) -> Self {
        Self {
            show,
            bytes: [0; LOAD],
            len: 0,
        }
    }

    fn push(&mut self, byte: u8) {
        if self.len == LOAD {
            self.flush();
        }
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    fn flush(&mut self) {
        if self.len > 0 {
            (self.show)(&self.bytes[..self.len]);
            self.len = 0;
        }
    }
}

impl<S: FnMut(&[u8])> fmt::Write for Loads<S> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.push(b'\r');
            }
            self.push(byte);
        }
        Ok(())
    }
}

/// Prints for people, as the standard library's macro does.
#[macro_export]
macro_rules! print {
    ($($argument:tt)*) => {
        $crate::terminal::print(::core::format_args!($($argument)*))
    };
}

/// Prints for people, and a line feed after.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($argument:tt)*) => {
        $crate::terminal::print(::core::format_args!(
            "{}\n", ::core::format_args!($($argument)*)
        ))
    };
}

#[cfg(test)]
mod tests {
    use core::cell::RefCell;
    use core::fmt::Write;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn lines_end_as_a_raw_terminal_wants_them() {
        let mut loads: Vec<Vec<u8>> = Vec::new();
        let mut writer = Loads::new(|load: &[u8]| loads.push(load.to_vec()));
        let (letter, end) = ('b', "c\n");
        write!(writer, "a{letter}\n\n{end:>300}").unwrap();
        writer.flush();
        writer.flush();
        let lens: Vec<usize> = loads.iter().map(Vec::len).collect();
        assert_eq!(lens, [LOAD, 2 + 4 + 301 - LOAD]);
        let all = loads.concat();
        assert!(all.starts_with(b"ab\r\n\r\n  "));
        assert!(all.ends_with(b"  c\r\n"));
    }

    struct Typed(RefCell<Vec<u8>>);

    impl Terminal for Typed {
        fn show(&self, _: &[u8]) {}

        fn read_byte(&self) -> Option<u8> {
            self.0.borrow_mut().pop()
        }

        fn wait_for_byte(&self) -> Option<u8> {
            self.read_byte()
        }
    }

    #[test]
    fn the_last_one_attached_is_typed_at_and_goes() {
        let [outer, inner] = [b"a", b"b"].map(|typed| Typed(RefCell::new(typed.to_vec())));
        with(&outer, || {
            with(&inner, || {
                assert_eq!((read_byte(), wait_for_byte()), (Some(b'b'), None));
            });
            assert_eq!(wait_for_byte(), Some(b'a'));
        });
        assert!(attached().is_none());
    }
}
