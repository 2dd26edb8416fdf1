//! The console device (virtio 1.2, 5.3).
//!
//! [`Console`] is the device with its ports. Data goes by token and without a
//! copy ([`submit_receive`](Console::submit_receive),
//! [`submit_transmit`](Console::submit_transmit)), or by calls that copy
//! ([`write_all`](Console::write_all), [`read`](Console::read)); what the device
//! says of its ports comes as [`Event`]s.
//!
//! # One port, or several
//!
//! With [`Setup::queues`] = 1 there is one port, number 0, that is always open at
//! both ends. With more the driver asks for VIRTIO_CONSOLE_F_MULTIPORT: then
//! ports come, go, are named, opened and closed by control messages, and
//! [`poll_event`](Console::poll_event) has to be called for any of it to happen.
//!
//! ```no_run
//! # use doorbell::device::{Console, DeviceError, Setup};
//! # use doorbell::virtio::{Features, Polls};
//! # fn f<T: doorbell::transport::Transport, D: doorbell::dma::Dma + Clone>(
//! #     transport: T, dma: D) -> Result<(), DeviceError> {
//! let mut patience = Polls(10_000_000);
//! let setup = Setup::new(64, Features::EVENT_IDX);
//! let mut console = Console::new(transport, &setup, dma, &mut patience)?;
//! let port = console.console_port(&mut patience)?;
//! console.fill_receive(port, 4, 256)?;
//! console.write_all(port, b"Who is there? ", &mut patience)?;
//! let mut line = [0; 80];
//! let len = console.read(port, &mut line)?;
//! # let _ = len; Ok(()) }
//! ```
//!
//! # What closing and removing do to what is in flight
//!
//! QEMU holds back what the host sends to a port that is closed at the driver's end,
//! but for what comes before its main loop has noticed: that is dropped, so whoever
//! closes a port tells the other side in some other way.
//!
//! Received data stays valid: it can be polled and read after the host closed the
//! port, and after the port was removed. Empty receive buffers stay the device's,
//! and serve the port again once it is opened or added again; they come back
//! earlier only if the queue or the device is reset.
//!
//! A transmit request that comes back says that the device is done with its
//! buffer, not that anybody read it. QEMU gives back at once, unread, what is sent
//! to a port whose host side is not connected, and whatever was pending when the
//! host closes or removes the port. It reads no further from a generic port whose
//! host side is full, so that requests stay in flight for as long as the host
//! likes; to a console port, what the host side has no room for is dropped. The
//! request that it had read half of when such a full port is closed is not given
//! back before a reset: [`write`](Console::write) and [`flush`](Console::flush)
//! count it as gone after [`Event::HostClosed`].
//!
//! A name has at most [`NAME_LEN`] bytes; a longer one is told as an
//! [`Event::Ignored`], and from 248 bytes on QEMU says that it wrote more than
//! there was room for, for which it is given up.

use core::fmt;
use core::mem::ManuallyDrop;

use virtio_spec::console::F;

use super::driver::impl_driver;
use super::link::{Link, Plan};
use super::{DeviceError, Setup};
use crate::dma::{Dma, DmaRegion, Table};
use crate::transport::{self, Transport, TransportError};
use crate::virtio::{Features, Init, Wait};

mod control;
mod event;
mod port;
mod stream;
mod transfer;

pub use control::ControlError;
pub use event::Event;
pub use port::{NAME_LEN, Port};
pub use transfer::{Received, Sent};

use control::Mail;
use port::Channel;

/// The device type (virtio 1.2, section 5).
pub const DEVICE_TYPE: u16 = 3;

/// Offsets in `struct virtio_console_config` (5.3.4).
mod config {
    /// `cols` and, behind it, `rows`, of 16 bits each.
    pub(super) const SIZE: u16 = 0;
    pub(super) const MAX_NR_PORTS: u16 = 4;
    pub(super) const EMERG_WR: u16 = 8;
}

/// The most ports whose queues, and those for control, have 16-bit indices.
const MOST_PORTS: u32 = (1 << 15) - 1;

/// The number of a port's receive queue (5.3.2), for
/// [`Driver::queue`](super::Driver::queue).
pub const fn receive_queue(port: u32) -> usize {
    match port as usize {
        0 => 0,
        port => port.saturating_mul(2).saturating_add(2),
    }
}

/// The number of a port's transmit queue (5.3.2), for
/// [`Driver::queue`](super::Driver::queue).
pub const fn transmit_queue(port: u32) -> usize {
    receive_queue(port).saturating_add(1)
}

/// Outputs a byte without a queue, where the device offers
/// VIRTIO_CONSOLE_F_EMERG_WRITE: at any time, before a driver and after its end
/// (5.3.5). QEMU takes no byte 0.
///
/// # Errors
///
/// [`TransportError::ConfigRange`] if the configuration has no room for it.
pub fn emergency_write<T: Transport + ?Sized>(
    transport: &mut T,
    byte: u8,
) -> Result<(), TransportError> {
    transport.write_config(config::EMERG_WR, 4, &u32::from(byte).to_le_bytes())
}

/// A console device.
pub struct Console<T: Transport, D: Dma + Clone> {
    link: Link<T, Request<D>, D>,
    /// By port number.
    ports: Table<Channel<D>, D>,
    /// The memory of control messages, with VIRTIO_CONSOLE_F_MULTIPORT. Kept as
    /// long as the device may write into it.
    mail: ManuallyDrop<Option<Mail<D>>>,
    dma: D,
}

/// What a request owns while the device has it.
enum Request<D: Dma> {
    /// A control message, in the driver's mail.
    Control,
    /// A buffer that was submitted.
    Buffer(DmaRegion<D>),
    /// A copy that `write` made, in this session of the port.
    Copy(DmaRegion<D>, u32),
}

impl_driver!(Console);

impl<T: Transport, D: Dma + Clone> fmt::Debug for Console<T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console")
            .field("ports", &self.ports.len())
            .finish_non_exhaustive()
    }
}

impl<T: Transport, D: Dma + Clone> Console<T, D> {
    /// Brings the device up, with queues for as many ports as it can have, but at
    /// most [`Setup::queues`]. That being more than 1 asks for
    /// VIRTIO_CONSOLE_F_MULTIPORT.
    ///
    /// # Errors
    ///
    /// [`DeviceError`] that says what failed; the device is then reset and
    /// marked FAILED.
    pub fn new(
        transport: T,
        setup: &Setup,
        dma: D,
        wait: &mut dyn Wait,
    ) -> Result<Self, DeviceError> {
        super::check_type(&transport, DEVICE_TYPE)?;
        let mut own = F::SIZE | F::EMERG_WRITE;
        own.set(F::MULTIPORT, setup.queues > 1);
        let wanted = setup.features | own.into();
        let mut init = Init::begin(transport, wanted, Features::empty(), wait)?;
        let features = init.features();
        let max_ports = max_ports(init.transport(), features)?;
        let ports = ports_set_up(max_ports, setup.queues);
        let (queues, control_size) = match max_ports {
            Some(max) => (2 * (ports as usize + 1), control::queue_size(max)),
            None => (2, 0),
        };
        let plan = |n| Plan {
            index: n as u16,
            size: match n {
                control::RECEIVE | control::TRANSMIT => control_size,
                _ => setup.queue_size,
            },
            buffers: 1,
        };
        let prepare = |_: &mut T, sizes: &[u16]| {
            let mail = match max_ports {
                Some(max) => Some(Mail::new(dma.clone(), sizes, features, max)?),
                None => None,
            };
            let single = max_ports.is_none().then(Port::single);
            let ports = Table::new(dma.clone(), ports as usize, |_| Channel::new(single))?;
            Ok((mail, ports))
        };
        let (link, (mail, ports)) = Link::open(init, queues, plan, setup, dma.clone(), prepare)?;
        let mut console = Self {
            link,
            ports,
            mail: ManuallyDrop::new(mail),
            dma,
        };
        console.say_ready();
        Ok(console)
    }

    /// The console's size in columns and rows, as the configuration has it now,
    /// with VIRTIO_CONSOLE_F_SIZE; it applies to port 0. A configuration change
    /// says that it is another. With VIRTIO_CONSOLE_F_MULTIPORT there is
    /// [`Port::size`] too.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Transport`] if the configuration cannot be read.
    pub fn size(&self) -> Result<Option<(u16, u16)>, DeviceError> {
        if !self.link.has(F::SIZE) {
            return Ok(None);
        }
        let transport = self.link.transport();
        let [a, b, c, d] = transport::read_config_untorn(transport, config::SIZE, |transport| {
            let mut bytes = [0; 4];
            transport.read_config(config::SIZE, 2, &mut bytes)?;
            Ok(bytes)
        })?;
        Ok(Some((
            u16::from_le_bytes([a, b]),
            u16::from_le_bytes([c, d]),
        )))
    }

    /// Outputs a byte without a queue, as [`emergency_write`] does: it works after
    /// the device was given up, too.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Unsupported`] without VIRTIO_CONSOLE_F_EMERG_WRITE;
    /// [`DeviceError::Transport`].
    pub fn emergency_write(&mut self, byte: u8) -> Result<(), DeviceError> {
        if !self.link.has(F::EMERG_WRITE) {
            return Err(DeviceError::Unsupported);
        }
        Ok(emergency_write(self.link.transport_mut(), byte)?)
    }

    /// A port, while it is there.
    pub fn port(&self, port: u32) -> Option<&Port> {
        self.ports.get(port as usize)?.port.as_ref()
    }

    /// The ports that are there, with their numbers.
    pub fn ports(&self) -> impl Iterator<Item = (u32, &Port)> {
        let all = (0..).zip(self.ports.iter());
        all.filter_map(|(number, channel)| Some((number, channel.port.as_ref()?)))
    }

    /// The number of the port that has this name.
    pub fn find(&self, name: &str) -> Option<u32> {
        self.ports()
            .find_map(|(number, port)| (port.name() == Some(name)).then_some(number))
    }

    /// Opens the port at the driver's end, and tells the device. If the device has
    /// not taken earlier messages yet, a later
    /// [`poll_event`](Self::poll_event) tells it.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoPort`], [`DeviceError::PortAbsent`], or what made the device
    /// be given up.
    pub fn open_port(&mut self, port: u32) -> Result<(), DeviceError> {
        self.set_open(port, true)
    }

    /// Closes the port at the driver's end, as [`open_port`](Self::open_port) opens it. What
    /// is in flight stays in flight.
    ///
    /// # Errors
    ///
    /// As [`open_port`](Self::open_port), and [`DeviceError::Unsupported`] without
    /// VIRTIO_CONSOLE_F_MULTIPORT: a port is always open then.
    pub fn close_port(&mut self, port: u32) -> Result<(), DeviceError> {
        self.set_open(port, false)
    }

    fn set_open(&mut self, port: u32, open: bool) -> Result<(), DeviceError> {
        let index = self.present(port)?;
        if self.mail.is_some() {
            self.ports[index].set_open(open);
            self.answer()
        } else if open {
            Ok(())
        } else {
            Err(DeviceError::Unsupported)
        }
    }

    /// The place of a port that has queues.
    fn index(&self, port: u32) -> Result<usize, DeviceError> {
        let (index, ports) = (port as usize, self.ports.len());
        if index < ports {
            Ok(index)
        } else {
            Err(DeviceError::NoPort {
                port,
                ports: ports as u32,
            })
        }
    }

    /// The place of a port that is there.
    fn present(&self, port: u32) -> Result<usize, DeviceError> {
        let index = self.index(port)?;
        match self.ports[index].port {
            Some(_) => Ok(index),
            None => Err(DeviceError::PortAbsent { port }),
        }
    }
}

/// How many ports get queues, of those that a device can have.
fn ports_set_up(max_ports: Option<u32>, wanted: u16) -> u32 {
    let max = max_ports.unwrap_or(1).min(MOST_PORTS);
    max.min(wanted.max(1).into())
}

/// How many ports the device can have, if it has several.
fn max_ports<T: Transport>(transport: &T, features: Features) -> Result<Option<u32>, DeviceError> {
    if !features.contains(F::MULTIPORT.into()) {
        return Ok(None);
    }
    match transport::read_config_u32(transport, config::MAX_NR_PORTS, 4)? {
        0 => Err(DeviceError::Config {
            field: "max_nr_ports",
            value: 0,
        }),
        max => Ok(Some(max)),
    }
}

impl<T: Transport, D: Dma + Clone> Drop for Console<T, D> {
    fn drop(&mut self) {
        if self.link.close() {
            // SAFETY: dropped once; a device that was reset accesses nothing
            // (2.4.1).
            unsafe { ManuallyDrop::drop(&mut self.mail) }
        }
    }
}

#[cfg(test)]
mod tests;
