//! The guest's records: one JSON object a line after `@`, with `"v":1` and a
//! `"kind"`. Everything else on the serial line is for people.

use std::fmt;
use std::io::Write;

use serde_json::Value;

/// The version of the records that this tool reads and of the results it writes.
pub(crate) const VERSION: u64 = 1;
/// A longer line is cut: a guest that prints without end must not fill the
/// host's memory.
const LONGEST_LINE: usize = 1 << 20;
/// How much of a malformed record its error shows.
const SHOWN: usize = 120;

/// One well-formed record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record(Value);

impl Record {
    /// Reads the part of a line that follows the `@`.
    ///
    /// # Errors
    /// When it isn't an object of version 1 with a kind.
    pub(crate) fn parse(text: &str) -> Result<Self, BadRecord> {
        let bad = |why: String| BadRecord {
            line: text.chars().take(SHOWN).collect(),
            why,
        };
        let value: Value = serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
        if !value.is_object() {
            return Err(bad("it is not an object".into()));
        }
        if value["v"] != VERSION {
            return Err(bad(format!("\"v\" is {}, not {VERSION}", value["v"])));
        }
        if !value["kind"].is_string() {
            return Err(bad(format!("\"kind\" is {}, not a string", value["kind"])));
        }
        Ok(Self(value))
    }

    /// The whole object.
    pub(crate) fn value(&self) -> &Value {
        &self.0
    }

    /// The record's `"kind"`.
    pub(crate) fn kind(&self) -> &str {
        self.text("kind").unwrap_or_default()
    }

    /// A field that is a string.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.0[key].as_str()
    }

    /// A field that is a whole number.
    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        self.0[key].as_u64()
    }

    /// What tells one device from another: its `bdf`, or its `mmio` address.
    pub(crate) fn address(&self) -> Option<&str> {
        self.text("bdf").or_else(|| self.text("mmio"))
    }
}

/// A line that begins with `@` and is no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadRecord {
    pub(crate) line: String,
    pub(crate) why: String,
}

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the record `@{}` is malformed: {}", self.line, self.why)
    }
}

/// One complete line of the guest.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Line {
    Text(String),
    Record(Result<Record, BadRecord>),
}

/// Cuts the serial stream into lines, and passes what is for people on at once,
/// byte by byte, so that a prompt without a newline is seen.
pub(crate) struct Splitter {
    line: Vec<u8>,
    verbose: bool,
}

impl Splitter {
    /// With `verbose` the records are shown as well.
    pub(crate) fn new(verbose: bool) -> Self {
        Self {
            line: Vec::new(),
            verbose,
        }
    }

    /// Takes what came in, and returns the lines that are now complete.
    pub(crate) fn feed(&mut self, bytes: &[u8], echo: &mut dyn Write) -> Vec<Line> {
        let mut shown = Vec::with_capacity(bytes.len());
        let mut lines = Vec::new();
        for &byte in bytes {
            let first = *self.line.first().unwrap_or(&byte);
            if first != b'@' || self.verbose {
                shown.push(byte);
            }
            if byte == b'\n' {
                lines.push(self.complete());
            } else if self.line.len() < LONGEST_LINE {
                self.line.push(byte);
            }
        }
        // Output that nobody reads any more must not end the run.
        let _ = echo.write_all(&shown).and_then(|()| echo.flush());
        lines
    }

    /// The guest is gone: what it left of a line without its end.
    pub(crate) fn finish(&mut self) -> Option<Line> {
        (!self.line.is_empty()).then(|| self.complete())
    }

    fn complete(&mut self) -> Line {
        let bytes = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_end_matches('\r');
        match text.strip_prefix('@') {
            Some(record) => Line::Record(Record::parse(record)),
            None => Line::Text(text.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_needs_version_and_kind() {
        let record = Record::parse(r#"{"v":1,"kind":"boot","n":3,"mmio":"0xfeb0"}"#).unwrap();
        assert_eq!(record.kind(), "boot");
        assert_eq!(record.number("n"), Some(3));
        assert_eq!(record.address(), Some("0xfeb0"));
        for bad in [
            "",
            "{",
            "[]",
            "{}",
            r#"{"v":2,"kind":"boot"}"#,
            r#"{"v":"1","kind":"boot"}"#,
            r#"{"v":1}"#,
            r#"{"v":1,"kind":5}"#,
            r#"{"v":1,"kind":"boot"} and more"#,
        ] {
            let error = Record::parse(bad).unwrap_err();
            assert!(error.to_string().contains("malformed"), "{bad}");
        }
    }

    #[test]
    fn the_stream_is_cut_whatever_the_pieces() {
        let stream = b"hello\r\n@{\"v\":1,\"kind\":\"end\"}\nprompt> ";
        for size in 1..stream.len() {
            let mut splitter = Splitter::new(false);
            let (mut echo, mut lines) = (Vec::new(), Vec::new());
            for piece in stream.chunks(size) {
                lines.extend(splitter.feed(piece, &mut echo));
            }
            assert_eq!(echo, b"hello\r\nprompt> ");
            assert_eq!(lines.len(), 2);
            assert_eq!(lines[0], Line::Text("hello".into()));
            assert!(matches!(&lines[1], Line::Record(Ok(r)) if r.kind() == "end"));
            assert_eq!(splitter.finish(), Some(Line::Text("prompt> ".into())));
            assert_eq!(splitter.finish(), None);
        }
    }

    #[test]
    fn verbose_shows_records_and_a_cut_record_is_malformed() {
        let mut splitter = Splitter::new(true);
        let mut echo = Vec::new();
        assert!(splitter.feed(b"@{\"v\":1,", &mut echo).is_empty());
        assert_eq!(echo, b"@{\"v\":1,");
        assert!(matches!(splitter.finish(), Some(Line::Record(Err(_)))));
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let mut splitter = Splitter::new(false);
        for _ in 0..3 {
            splitter.feed(&vec![b'x'; LONGEST_LINE / 2], &mut std::io::sink());
        }
        let Some(Line::Text(text)) = splitter.finish() else {
            panic!("no text")
        };
        assert_eq!(text.len(), LONGEST_LINE);
    }
}
