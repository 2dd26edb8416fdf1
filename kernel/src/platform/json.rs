//! JSON strings without the heap, for reports that must not depend on it.

use core::fmt::{self, Write};

/// Shows a value as the inside of a JSON string (RFC 8259, section 7).
pub struct Escaped<T>(pub T);

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaper(f), "{}", self.0)
    }
}

struct Escaper<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl Write for Escaper<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| match c {
            '"' => self.0.write_str("\\\""),
            '\\' => self.0.write_str("\\\\"),
            '\n' => self.0.write_str("\\n"),
            c if c < ' ' => write!(self.0, "\\u{:04x}", u32::from(c)),
            c => self.0.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_json_reserves_is_escaped() {
        let text = std::format!("{}", Escaped("a\"b\\c\nd\u{1}é"));
        assert_eq!(text, "a\\\"b\\\\c\\nd\\u0001é");
        let back: std::string::String = serde_json::from_str(&std::format!("\"{text}\"")).unwrap();
        assert_eq!(back, "a\"b\\c\nd\u{1}é");
    }
}
