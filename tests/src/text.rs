//! Text without an allocator.

use core::fmt::{self, Write};

/// The most bytes that a reason has; the rest is cut off.
const MAX: usize = 200;

/// A short text of its own.
#[derive(Clone, PartialEq, Eq)]
pub struct Text {
    bytes: [u8; MAX],
    len: usize,
}

impl Text {
    /// The text that `arguments` make, or as much of it as fits.
    pub fn new(arguments: fmt::Arguments<'_>) -> Self {
        let mut text = Self {
            bytes: [0; MAX],
            len: 0,
        };
        // An error means that it was cut off.
        let _ = text.write_fmt(arguments);
        text
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        // Only whole characters are added.
        core::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = MAX - self.len;
        let fits = text.floor_char_boundary(room.min(text.len()));
        self.bytes[self.len..self.len + fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.len += fits;
        if fits == text.len() {
            Ok(())
        } else {
            Err(fmt::Error)
        }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Shows a value as the inside of a JSON string (RFC 8259, section 7).
pub(crate) struct Json<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for Json<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Escape<'a, 'f>(&'a mut fmt::Formatter<'f>);
        impl Write for Escape<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                text.chars().try_for_each(|c| match c {
                    '"' | '\\' => write!(self.0, "\\{c}"),
                    c if c < ' ' => write!(self.0, "\\u{:04x}", u32::from(c)),
                    c => self.0.write_char(c),
                })
            }
        }
        write!(Escape(f), "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_cut_at_a_character() {
        let long = "é".repeat(MAX);
        assert_eq!(Text::new(format_args!("x{long}")).as_str().len(), MAX - 1);
        assert_eq!(Text::new(format_args!("{}-{}", 1, "b")).as_str(), "1-b");
    }

    #[test]
    fn json_is_escaped() {
        assert_eq!(
            std::format!("{}", Json("a\"\\\n\u{1}é")),
            "a\\\"\\\\\\u000a\\u0001é"
        );
    }
}
