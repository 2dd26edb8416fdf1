//! A port: what the device said of it, and what the driver keeps for it.

use core::{fmt, str};

use super::stream::{Reading, Writes};
use crate::dma::Dma;

/// The most bytes of a port's name that the driver keeps.
pub const NAME_LEN: usize = 64;

/// What is known of a port that is there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Port {
    name: Option<Name>,
    console: bool,
    open: bool,
    /// `None` while the device has not said it.
    host_open: Option<bool>,
    size: Option<(u16, u16)>,
}

#[derive(Clone, Copy)]
struct Name {
    bytes: [u8; NAME_LEN],
    len: usize,
}

impl Name {
    fn as_str(&self) -> &str {
        // It was one when it was noted.
        str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl Port {
    /// The port of a device that has one.
    pub(super) fn single() -> Self {
        Self {
            console: true,
            open: true,
            host_open: Some(true),
            ..Self::default()
        }
    }

    /// Its name, if the device gave it one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_ref().map(Name::as_str)
    }

    /// Whether it is a console, as opposed to a port for programs.
    pub fn is_console(&self) -> bool {
        self.console
    }

    /// Whether it is open at the driver's end.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Whether it is open at the host's end.
    pub fn is_host_open(&self) -> bool {
        self.host_open == Some(true)
    }

    /// The columns and rows that a control message told last.
    pub fn size(&self) -> Option<(u16, u16)> {
        self.size
    }

    /// Whether anybody takes what is sent. A console is written to whoever listens,
    /// unless the host closed it.
    pub(super) fn takes_data(&self) -> bool {
        self.open && self.host_open.unwrap_or(self.console)
    }

    /// Notes the name, if it is not too long.
    pub(super) fn set_name(&mut self, name: &str) -> bool {
        let mut bytes = [0; NAME_LEN];
        let Some(into) = bytes.get_mut(..name.len()) else {
            return false;
        };
        into.copy_from_slice(name.as_bytes());
        self.name = Some(Name {
            bytes,
            len: name.len(),
        });
        true
    }

    pub(super) fn set_size(&mut self, size: (u16, u16)) {
        self.size = Some(size);
    }
}

/// A pair of queues, and the port that they are for.
pub(super) struct Channel<D: Dma> {
    /// `None` while it is not there.
    pub(super) port: Option<Port>,
    /// Whether the device waits to be told that the port is ready.
    ready_owed: bool,
    /// The state of the driver's end that the device was not told of yet.
    open_owed: Option<bool>,
    /// How many of the caller's transmit requests are in flight.
    pub(super) submitted: u16,
    pub(super) reading: Option<Reading<D>>,
    pub(super) writes: Writes<D>,
}

/// What a driver tells of a port.
#[derive(Clone, Copy)]
pub(super) enum Owed {
    Ready,
    Open(bool),
}

impl<D: Dma> Channel<D> {
    pub(super) fn new(port: Option<Port>) -> Self {
        Self {
            port,
            ready_owed: false,
            open_owed: None,
            submitted: 0,
            reading: None,
            writes: Writes::new(),
        }
    }

    /// Notes that the port is there, if it was not.
    pub(super) fn add(&mut self) -> bool {
        let new = self.port.is_none();
        if new {
            self.port = Some(Port::default());
            self.ready_owed = true;
        }
        new
    }

    /// Notes that the port is not there any more.
    pub(super) fn remove(&mut self) {
        self.port = None;
        (self.ready_owed, self.open_owed) = (false, None);
        self.writes.end_session();
    }

    /// Opens or closes the driver's end of a port that is there.
    pub(super) fn set_open(&mut self, open: bool) {
        if let Some(port) = &mut self.port {
            port.open = open;
            self.open_owed = Some(open);
        }
    }

    /// Notes that a port that is there is a console, which has to be opened
    /// (5.3.6.2.2).
    pub(super) fn set_console(&mut self) {
        if let Some(port) = &mut self.port {
            port.console = true;
        }
        self.set_open(true);
    }

    /// Notes the state of the host's end of a port that is there.
    pub(super) fn set_host_open(&mut self, open: bool) {
        if let Some(port) = &mut self.port {
            port.host_open = Some(open);
        }
        if !open {
            self.writes.end_session();
        }
    }

    /// What the device has to be told first.
    pub(super) fn owed(&self) -> Option<Owed> {
        if self.ready_owed {
            Some(Owed::Ready)
        } else {
            self.open_owed.map(Owed::Open)
        }
    }

    /// Notes that it was told.
    pub(super) fn told(&mut self, owed: Owed) {
        match owed {
            Owed::Ready => self.ready_owed = false,
            Owed::Open(_) => self.open_owed = None,
        }
    }
}
