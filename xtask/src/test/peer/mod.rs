//! The host's part in the guest's tests: what a guest asks for in an `ask` record
//! while it waits. Each actor knows some actions: [`block`] ...
//!
//! A record `{"kind":"ask","action":"...","bdf":"..."}` names the device that is
//! meant, where one is, and the action's arguments. The answer is one line: `ok`, or
//! `ok` with something that the guest reads, or `no` with the reason. Whatever an
//! action waits for, it waits with an end.

pub(crate) mod block;

use serde_json::Value;

use self::block::Blocks;
use super::witness::hex;
use crate::qemu::{Files, Options};
use crate::qmp::Qmp;
use crate::record::Record;

/// What comes of an action: what the guest is told, or why it is told no.
pub(crate) type Answer = Result<String, String>;

/// Something that a guest asks for.
pub(crate) struct Ask<'a> {
    record: &'a Record,
    /// The `id=` of the device that is meant.
    device: Option<&'a str>,
}

impl<'a> Ask<'a> {
    pub(crate) fn new(record: &'a Record, device: Option<&'a str>) -> Self {
        Self { record, device }
    }

    /// What is to be done.
    pub(crate) fn action(&self) -> &'a str {
        self.record.text("action").unwrap_or_default()
    }

    /// # Errors
    /// When the guest names no device.
    pub(crate) fn device(&self) -> Result<&'a str, String> {
        self.device
            .ok_or_else(|| format!("`{}` needs a device", self.action()))
    }

    fn argument(&self, name: &str) -> &'a Value {
        &self.record.value()[name]
    }

    fn lacks(&self, what: &str, name: &str) -> String {
        let found = self.argument(name);
        format!("`{}` needs {what} {name:?}, not {found}", self.action())
    }

    /// A whole number.
    ///
    /// # Errors
    /// When there is none of that name.
    pub(crate) fn number(&self, name: &str) -> Result<u64, String> {
        hex(self.argument(name)).ok_or_else(|| self.lacks("a number", name))
    }
}

/// All actors of one run.
pub(crate) struct Peers {
    pub(crate) blocks: Blocks,
}

impl Peers {
    pub(crate) fn new(options: &Options, files: &Files) -> Self {
        Self {
            blocks: Blocks::new(options, files),
        }
    }

    /// Does what is asked for.
    ///
    /// # Errors
    /// A sentence about what is not as it has to be.
    pub(crate) fn answer(&mut self, ask: &Ask<'_>, qmp: &mut Qmp) -> Answer {
        match ask.action() {
            "disk" | "zeroes" | "resize" => self.blocks.answer(ask, qmp),
            other => Err(format!("the host knows no action {other:?}")),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The record of an action.
    pub(crate) fn ask(text: &str) -> Record {
        let record = format!(r#"{{"v":1,"kind":"ask",{text}}}"#);
        Record::parse(&record).unwrap()
    }

    #[test]
    fn what_is_missing_is_named() {
        let record = ask(r#""action":"disk","sector":"0x10","seed":18446744073709551615"#);
        let ask = Ask::new(&record, None);
        assert_eq!(ask.number("sector"), Ok(16));
        assert_eq!(ask.number("seed"), Ok(u64::MAX));
        assert_eq!(
            ask.number("count").unwrap_err(),
            "`disk` needs a number \"count\", not null"
        );
        assert_eq!(ask.device().unwrap_err(), "`disk` needs a device");
    }
}
