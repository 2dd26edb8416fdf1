//! What the device says of its ports, and what it is told.

use virtio_spec::console::Device;

use super::control::{self, ControlError, Message, News};
use super::port::{Channel, Owed};
use super::{Console, Request};
use crate::device::DeviceError;
use crate::dma::Dma;
use crate::transport::Transport;
use crate::virtio::Wait;

/// The most messages by which a device answers that a port is ready: that it is a
/// console, its name, its size, and that the host has it open.
const ANSWERS: u16 = 4;

/// Something that the device said of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The port is there now. The driver tells the device that it is ready.
    PortAdded(u32),
    /// A port was added for which the driver set up no queues. The driver tells the
    /// device that it is not ready.
    PortRefused(u32),
    /// The port is not there any more.
    PortRemoved(u32),
    /// The port is a console. The driver has opened it (5.3.6.2.2).
    Console(u32),
    /// The port's console has another size.
    Resized {
        /// The port.
        port: u32,
        /// Its columns.
        cols: u16,
        /// Its rows.
        rows: u16,
    },
    /// The port was opened at the host's end.
    HostOpened(u32),
    /// The port was closed at the host's end.
    HostClosed(u32),
    /// The port has a name: [`Port::name`](super::Port::name).
    Named(u32),
    /// A message that makes no sense was ignored.
    Ignored(ControlError),
}

impl<T: Transport, D: Dma + Clone> Console<T, D> {
    /// Takes a control message, and tells the device what is due. To be called
    /// until it answers `None`, whenever the device may have said something: only
    /// then are the device's messages answered. It rings itself.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Queue`] after a device's fault. A message that makes no sense
    /// is none: it is an [`Event::Ignored`].
    pub fn poll_event(&mut self) -> Result<Option<Event>, DeviceError> {
        if self.mail.is_none() {
            return Ok(None);
        }
        while let Some(back) = self.link.pop(control::RECEIVE)? {
            // What a reset took back says nothing.
            if let (Some(written), Some(mail)) = (back.written, &*self.mail) {
                let (bytes, len) = mail.read(back.token, written);
                self.post_inboxes();
                return Ok(Some(
                    self.follow(&bytes[..len]).unwrap_or_else(Event::Ignored),
                ));
            }
        }
        self.post_inboxes();
        self.answer()?;
        Ok(None)
    }

    /// The first console port there is, open at the driver's end: port 0 where
    /// there is but one, else the first that the device says is one. Other events
    /// until then are passed over; [`port`](Self::port) has what they said.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Timeout`] if there is none in time; otherwise as
    /// [`poll_event`](Self::poll_event).
    pub fn console_port(&mut self, wait: &mut dyn Wait) -> Result<u32, DeviceError> {
        loop {
            let event = self.poll_event()?;
            let mut ports = self.ports();
            let console = ports.find(|(_, port)| port.is_console() && port.is_open());
            // The device is told that it is open when there are no more events.
            if let (None, Some((number, _))) = (event, console) {
                return Ok(number);
            }
            drop(ports);
            if !wait.again() {
                return Err(self.late());
            }
        }
    }

    /// Why a device that has a right to be slow did not answer.
    pub(super) fn late(&self) -> DeviceError {
        self.link.health().err().unwrap_or(DeviceError::Timeout)
    }

    /// Does what a message says.
    fn follow(&mut self, bytes: &[u8]) -> Result<Event, ControlError> {
        let Some(mail) = &*self.mail else {
            unreachable!("only a device with control queues sends messages")
        };
        let (port, message) = mail.decode(bytes)?;
        let channel = self.ports.get_mut(port as usize);
        match (message, channel) {
            (Message::Add, None) => {
                self.refuse(port);
                Ok(Event::PortRefused(port))
            }
            (Message::Add, Some(channel)) => {
                if channel.add() {
                    Ok(Event::PortAdded(port))
                } else {
                    Err(ControlError::Exists { port })
                }
            }
            (Message::News(news), Some(channel)) => channel.learn(port, news),
            (Message::News(news), None) => Err(ControlError::Absent {
                port,
                event: news.event(),
            }),
        }
    }

    /// Tells the device that a port is not ready. If it has not even taken earlier
    /// messages it is not told: that the port is never ready says the same.
    fn refuse(&mut self, port: u32) {
        if self.send(port, Device::PortReady, 0) {
            self.link.queue(control::TRANSMIT).kick();
        }
    }

    /// Gives the device all inboxes that it does not have.
    fn post_inboxes(&mut self) {
        let Some(mail) = &*self.mail else { return };
        let mut posted = false;
        while let Ok(token) = self.link.queue(control::RECEIVE).next_token() {
            let inbox = mail.inbox(token);
            // SAFETY: the inbox belongs to the token, and its memory goes only
            // after the device was reset (`drop`).
            let submitted = unsafe {
                self.link
                    .submit(control::RECEIVE, &[inbox], Request::Control)
            };
            if submitted.is_err() {
                break;
            }
            posted = true;
        }
        if posted {
            self.link.queue(control::RECEIVE).kick();
        }
    }

    /// Says that the driver takes control messages, with
    /// VIRTIO_CONSOLE_F_MULTIPORT.
    pub(super) fn say_ready(&mut self) {
        if self.mail.is_none() {
            return;
        }
        self.post_inboxes();
        // The queue is empty.
        self.send(0, Device::DeviceReady, 1);
        self.link.queue(control::TRANSMIT).kick();
    }

    /// Tells the device what is due, as far as there is room; it waits for none, so
    /// that neither side can wait for the other.
    pub(super) fn answer(&mut self) -> Result<(), DeviceError> {
        while self.link.pop(control::TRANSMIT)?.is_some() {}
        let mut told = false;
        for index in 0..self.ports.len() {
            while let Some(owed) = self.ports[index].owed() {
                let (event, value) = match owed {
                    Owed::Ready if !self.has_room_for_answers() => break,
                    Owed::Ready => (Device::PortReady, 1),
                    Owed::Open(open) => (Device::PortOpen, u16::from(open)),
                };
                if !self.send(index as u32, event, value) {
                    break;
                }
                self.ports[index].told(owed);
                told = true;
            }
        }
        if told {
            self.link.queue(control::TRANSMIT).kick();
        }
        Ok(())
    }

    /// Whether the device has inboxes for what it answers to one message more: QEMU
    /// drops what it finds none for.
    fn has_room_for_answers(&mut self) -> bool {
        let sent = self.link.queue(control::TRANSMIT).in_flight();
        let inboxes = self.link.queue(control::RECEIVE);
        !inboxes.has_used()
            && (sent == 0 || inboxes.in_flight() >= ANSWERS.saturating_mul(sent + 1))
    }

    /// Sends a message, if there is room for it; it does not ring.
    fn send(&mut self, port: u32, event: Device, value: u16) -> bool {
        let Some(mail) = &*self.mail else {
            return false;
        };
        let Ok(token) = self.link.queue(control::TRANSMIT).next_token() else {
            return false;
        };
        let outbox = mail.write(token, port, event, value);
        // SAFETY: the outbox belongs to the token, and its memory goes only after
        // the device was reset (`drop`).
        unsafe {
            self.link
                .submit(control::TRANSMIT, &[outbox], Request::Control)
        }
        .is_ok()
    }
}

impl<D: Dma> Channel<D> {
    /// Notes what the device says of the port.
    fn learn(&mut self, number: u32, news: News) -> Result<Event, ControlError> {
        let Some(port) = &mut self.port else {
            return Err(ControlError::Absent {
                port: number,
                event: news.event(),
            });
        };
        Ok(match news {
            News::Removed => {
                self.remove();
                Event::PortRemoved(number)
            }
            News::Console => {
                self.set_console();
                Event::Console(number)
            }
            News::Size { cols, rows } => {
                port.set_size((cols, rows));
                Event::Resized {
                    port: number,
                    cols,
                    rows,
                }
            }
            News::Open(open) => {
                self.set_host_open(open);
                if open {
                    Event::HostOpened(number)
                } else {
                    Event::HostClosed(number)
                }
            }
            News::Name(name) if port.set_name(name) => Event::Named(number),
            News::Name(name) => {
                return Err(ControlError::NameLength {
                    port: number,
                    len: name.len(),
                });
            }
        })
    }
}
