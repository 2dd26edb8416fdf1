//! The host's part in the guest's tests: what a guest asks for in an `ask` record
//! while it waits. Each actor knows some actions, which its own page lists:
//! [`block`], [`net`], [`tap`], [`console`], [`balloon`], [`hotplug`], [`screen`],
//! [`keys`], [`share`], [`sound`], [`vsock`].
//!
//! A record `{"kind":"ask","action":"...","bdf":"..."}` names the device that is
//! meant, where one is, and the action's arguments. The answer is one line: `ok`, or
//! `ok` with something that the guest reads, or `no` with the reason. Whatever an
//! action waits for, it waits with an end.

mod balloon;
pub(crate) mod block;
mod console;
mod hotplug;
mod keys;
mod net;
mod screen;
mod share;
mod sound;
mod tap;
mod vsock;

use serde_json::Value;

use self::block::Blocks;
use self::console::Consoles;
use self::net::Nets;
use self::sound::Sounds;
use self::tap::Tap;
use self::vsock::Sockets;
use super::lock;
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

    /// A text.
    ///
    /// # Errors
    /// When there is none of that name.
    pub(crate) fn text(&self, name: &str) -> Result<&'a str, String> {
        let text = self.argument(name).as_str();
        text.ok_or_else(|| self.lacks("a text", name))
    }

    /// Something that is true or false.
    ///
    /// # Errors
    /// When there is none of that name.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, String> {
        let flag = self.argument(name).as_bool();
        flag.ok_or_else(|| self.lacks("a flag", name))
    }

    /// All arguments that are this action's own.
    pub(crate) fn others(&self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let all = self.record.value().as_object().into_iter().flatten();
        let common = ["v", "kind", "action", "bdf", "mmio"];
        all.map(|(name, value)| (name.as_str(), value))
            .filter(move |(name, _)| !common.contains(name))
    }

    /// The argument as `get` has it, if there is one of that name at all.
    ///
    /// # Errors
    /// When it is of another kind.
    pub(crate) fn optional<T>(
        &self,
        name: &str,
        get: impl FnOnce(&Self, &str) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        if self.argument(name).is_null() {
            return Ok(None);
        }
        get(self, name).map(Some)
    }
}

/// All actors of one run.
pub(crate) struct Peers {
    options: Options,
    files: Files,
    pub(crate) blocks: Blocks,
    nets: Nets,
    tap: Tap,
    consoles: Consoles,
    pub(crate) sounds: Sounds,
    sockets: Sockets,
}

impl Peers {
    pub(crate) fn new(options: &Options, files: &Files) -> Self {
        Self {
            options: options.clone(),
            files: files.clone(),
            blocks: Blocks::new(options, files),
            nets: Nets::new(options, files),
            tap: Tap::new(files),
            consoles: Consoles::new(options, files),
            sounds: Sounds::default(),
            sockets: Sockets::default(),
        }
    }

    /// Connects to QEMU, which has begun.
    ///
    /// # Errors
    /// When it is not as the launcher told it to be.
    pub(crate) fn start(&mut self) -> Result<(), String> {
        self.nets.start()
    }

    /// Does what is asked for.
    ///
    /// # Errors
    /// A sentence about what is not as it has to be.
    pub(crate) fn answer(&mut self, ask: &Ask<'_>, qmp: &mut Qmp) -> Answer {
        match ask.action() {
            "disk" | "zeroes" | "resize" => self.blocks.answer(ask, qmp),
            "net-moved" | "net-send" | "net-sent" | "net-link" | "rx-filter" => {
                self.nets.answer(ask, qmp)
            }
            "tap-moved" => self.tap.answer(ask),
            "port-open" | "port-close" | "port-send" | "port-expect" | "port-cut" | "port-done" => {
                self.consoles.answer(ask)
            }
            "balloon" | "balloon-is" | "guest-stats" => balloon::answer(ask, qmp),
            "unplug" | "unplugged" | "plug" => hotplug::answer(ask, qmp, &self.options),
            "screen" => screen::answer(ask, qmp, &self.files),
            "keys" => keys::answer(ask, qmp),
            "vsock-listen" | "vsock-moved" => self.sockets.answer(ask),
            "played" => self.sounds.answer(ask),
            "file" => share::answer(ask, &self.files),
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
        assert_eq!(ask.optional("count", Ask::number), Ok(None));
        assert_eq!(ask.optional("sector", Ask::number), Ok(Some(16)));
        assert!(ask.optional("sector", Ask::flag).is_err());
    }
}
