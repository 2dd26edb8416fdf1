//! The other end of a port, as the host holds it.

use alloc::string::{String, ToString};

use doorbell_kernel::record::Place;
use doorbell_tests::{Outcome, Stop};

use crate::witness::Witness;

/// The host's end of a port.
pub(crate) struct Far<'a> {
    witness: &'a Witness,
    name: String,
    /// Whether the host has opened it.
    open: bool,
}

impl<'a> Far<'a> {
    /// That of the port of this name.
    pub(crate) fn new(witness: &'a Witness, name: &str) -> Self {
        Self {
            witness,
            name: name.to_string(),
            open: false,
        }
    }

    /// Has the host connect.
    pub(crate) fn open(&mut self) -> Outcome {
        self.simple("port-open")?;
        self.open = true;
        Ok(())
    }

    /// Has the host disconnect.
    pub(crate) fn close(&mut self) -> Outcome {
        self.open = false;
        self.simple("port-close").map(drop)
    }

    /// The same, if a test that failed left it open.
    pub(crate) fn hang_up(&mut self) -> Outcome {
        if self.open { self.close() } else { Ok(()) }
    }

    /// Has the host send so much of a stream.
    pub(crate) fn send(&self, bytes: u64, seed: u64) -> Outcome {
        self.stream("port-send", "bytes", bytes, seed)
    }

    /// Has the host read so much, and compare it with a stream.
    pub(crate) fn expect(&self, bytes: u64, seed: u64) -> Outcome {
        self.stream("port-expect", "bytes", bytes, seed)
    }

    /// The same, and disconnect at the end of it.
    pub(crate) fn cut(&mut self, after: u64, seed: u64) -> Outcome {
        self.open = false;
        self.stream("port-cut", "after", after, seed)
    }

    /// The digests of what the host sent and of what it read, once it is through.
    pub(crate) fn done(&self) -> Result<String, Stop> {
        self.simple("port-done")
    }

    fn simple(&self, action: &str) -> Result<String, Stop> {
        let name = ("name", self.name.as_str().into());
        self.witness.ask(&Place::default(), action, [name])
    }

    fn stream(&self, action: &str, limit: &str, bytes: u64, seed: u64) -> Outcome {
        let arguments = [
            ("name", self.name.as_str().into()),
            (limit, bytes.into()),
            ("seed", seed.into()),
        ];
        let answer = self.witness.ask(&Place::default(), action, arguments);
        answer.map(drop)
    }
}
