//! Control messages (virtio 1.2, 5.3.6.2), and the memory that they are in.

use core::mem::offset_of;
use core::{fmt, ptr, str};

use virtio_spec::console::{Control, Device, Resize};

use super::port::NAME_LEN;
use crate::dma::{Dma, DmaError, DmaRegion};
use crate::queue::{Buffer, Token};
use crate::virtio::Features;

/// The queues that they come and go by (5.3.2).
pub(super) const RECEIVE: usize = 2;
pub(super) const TRANSMIT: usize = 3;

/// Bytes of a message without what follows it.
const HEADER: usize = size_of::<Control>();
/// Bytes of room for a message from the device. QEMU says that it wrote all of a
/// name that it had no room for, which is a ring's fault: so there is more than for
/// a name of the length that is kept.
const INBOX: usize = 256;

/// About how many messages the control queues have room for, of a device that can
/// have `max_ports` ports. QEMU tells of all its ports at once, and drops what it
/// finds no buffer for.
pub(super) fn queue_size(max_ports: u32) -> u16 {
    max_ports.clamp(32, 1024) as u16
}

/// A control message that the driver did not follow, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ControlError {
    /// It is too short for what it is.
    Short {
        /// Its length in bytes.
        len: usize,
        /// What it takes at least.
        needed: usize,
    },
    /// Its port is none that the device can have.
    NoPort {
        /// The port that it names.
        port: u32,
        /// How many the device said that it can have (`max_nr_ports`).
        max: u32,
    },
    /// The port is not there: it was not added, or refused, or removed.
    Absent {
        /// The port.
        port: u32,
        /// The message's event (5.3.6.2).
        event: u16,
    },
    /// The port that it adds is there already.
    Exists {
        /// The port.
        port: u32,
    },
    /// Its event is unknown, or none that a device sends.
    Unexpected {
        /// The port.
        port: u32,
        /// The event.
        event: u16,
    },
    /// It opens the port by a value that is neither 0 nor 1.
    Value {
        /// The port.
        port: u32,
        /// The value.
        value: u16,
    },
    /// The name is longer than the driver keeps ([`NAME_LEN`]).
    NameLength {
        /// The port.
        port: u32,
        /// The name's length in bytes.
        len: usize,
    },
    /// The name is not UTF-8.
    NameText {
        /// The port.
        port: u32,
    },
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short { len, needed } => {
                write!(
                    f,
                    "a control message of {len} bytes, where {needed} are due"
                )
            }
            Self::NoPort { port, max } => {
                write!(f, "a control message for port {port}, of at most {max}")
            }
            Self::Absent { port, event } => {
                write!(
                    f,
                    "the control event {event} for port {port}, which is not there"
                )
            }
            Self::Exists { port } => write!(f, "port {port} was added, and is there already"),
            Self::Unexpected { port, event } => {
                write!(
                    f,
                    "the control event {event} for port {port} is none of a device's"
                )
            }
            Self::Value { port, value } => {
                write!(f, "port {port} was opened by the value {value}, not 0 or 1")
            }
            Self::NameLength { port, len } => {
                write!(
                    f,
                    "the name of port {port} has {len} bytes, more than {NAME_LEN}"
                )
            }
            Self::NameText { port } => write!(f, "the name of port {port} is not UTF-8"),
        }
    }
}

impl core::error::Error for ControlError {}

/// What the device says.
pub(super) enum Message<'m> {
    /// The port is there.
    Add,
    /// Something of a port that is there.
    News(News<'m>),
}

/// What the device says of a port that is there.
pub(super) enum News<'m> {
    Removed,
    Console,
    Size { cols: u16, rows: u16 },
    Open(bool),
    Name(&'m str),
}

/// In which order the bytes of a message's fields are (5.3.6.3).
#[derive(Clone, Copy)]
enum ByteOrder {
    Little,
    /// The guest's own: a legacy device's.
    Native,
}

impl ByteOrder {
    fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            Self::Little => u16::from_le_bytes(bytes),
            Self::Native => u16::from_ne_bytes(bytes),
        }
    }

    fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Native => u32::from_ne_bytes(bytes),
        }
    }

    fn bytes16(self, value: u16) -> [u8; 2] {
        // Back and forth is the same.
        self.u16(value.to_ne_bytes()).to_ne_bytes()
    }

    fn bytes32(self, value: u32) -> [u8; 4] {
        self.u32(value.to_ne_bytes()).to_ne_bytes()
    }
}

/// The memory of all messages: an inbox for each token of the receive queue, and
/// behind them an outbox for each of the transmit queue.
pub(super) struct Mail<D: Dma> {
    region: DmaRegion<D>,
    outboxes: usize,
    order: ByteOrder,
    max_ports: u32,
}

impl<D: Dma> Mail<D> {
    /// For queues of `sizes`, and a device that can have `max_ports` ports.
    pub(super) fn new(
        dma: D,
        sizes: &[u16],
        features: Features,
        max_ports: u32,
    ) -> Result<Self, DmaError> {
        let outboxes = usize::from(sizes[RECEIVE]) * INBOX;
        let len = outboxes + usize::from(sizes[TRANSMIT]) * HEADER;
        let order = if features.contains(Features::VERSION_1) {
            ByteOrder::Little
        } else {
            ByteOrder::Native
        };
        Ok(Self {
            region: DmaRegion::new(dma, len, align_of::<Control>())?,
            outboxes,
            order,
            max_ports,
        })
    }

    /// Where the device writes the message of this token.
    pub(super) fn inbox(&self, token: Token) -> Buffer {
        let at = token.index() * INBOX;
        Buffer::writable(self.region.address() + at as u64, INBOX as u32)
    }

    /// The message of a token that the device has given back, `written` bytes of it.
    pub(super) fn read(&self, token: Token, written: u32) -> ([u8; INBOX], usize) {
        let mut bytes = [0; INBOX];
        let len = INBOX.min(written as usize);
        // SAFETY: the region has an inbox for each token of the queue. The device
        // wrote this one before the used index that `pop` acquired, and has only
        // others now, which is why there is no reference to the region.
        unsafe {
            let inbox = self.region.pointer().add(token.index() * INBOX);
            ptr::copy_nonoverlapping(inbox.as_ptr(), bytes.as_mut_ptr(), len);
        }
        (bytes, len)
    }

    /// Writes a message into the outbox of a token that is not in flight, and says
    /// where the device finds it.
    pub(super) fn write(&self, token: Token, port: u32, event: Device, value: u16) -> Buffer {
        let mut bytes = [0; HEADER];
        let mut put = |at: usize, field: &[u8]| bytes[at..][..field.len()].copy_from_slice(field);
        put(offset_of!(Control, id), &self.order.bytes32(port));
        put(
            offset_of!(Control, event),
            &self.order.bytes16(event.into()),
        );
        put(offset_of!(Control, value), &self.order.bytes16(value));
        let at = self.outboxes + token.index() * HEADER;
        // SAFETY: the region has an outbox for each token of the queue, and the
        // device has this one not.
        unsafe {
            let outbox = self.region.pointer().add(at);
            ptr::copy_nonoverlapping(bytes.as_ptr(), outbox.as_ptr(), HEADER);
        }
        Buffer::readable(self.region.address() + at as u64, HEADER as u32)
    }

    /// What a message says, and of which port.
    pub(super) fn decode<'m>(&self, bytes: &'m [u8]) -> Result<(u32, Message<'m>), ControlError> {
        let needed = |needed| ControlError::Short {
            len: bytes.len(),
            needed,
        };
        let (header, rest) = bytes.split_first_chunk().ok_or(needed(HEADER))?;
        let port = self
            .order
            .u32(field::<HEADER, 4>(header, offset_of!(Control, id)));
        let event = self.order.u16(field(header, offset_of!(Control, event)));
        let value = self.order.u16(field(header, offset_of!(Control, value)));
        let max = self.max_ports;
        if port >= max {
            return Err(ControlError::NoPort { port, max });
        }
        let news = match Device::try_from(event) {
            Ok(Device::DeviceAdd) => return Ok((port, Message::Add)),
            Ok(Device::DeviceRemove) => News::Removed,
            Ok(Device::ConsolePort) => News::Console,
            Ok(Device::Resize) => {
                const LEN: usize = size_of::<Resize>();
                let size = rest.first_chunk().ok_or(needed(HEADER + LEN))?;
                News::Size {
                    cols: self
                        .order
                        .u16(field::<LEN, 2>(size, offset_of!(Resize, cols))),
                    rows: self.order.u16(field(size, offset_of!(Resize, rows))),
                }
            }
            Ok(Device::PortOpen) => match value {
                0 | 1 => News::Open(value == 1),
                value => return Err(ControlError::Value { port, value }),
            },
            Ok(Device::PortName) => {
                // The specification has no NUL at the end; QEMU sends one.
                let name = rest.strip_suffix(b"\0").unwrap_or(rest);
                let text = str::from_utf8(name);
                News::Name(text.map_err(|_| ControlError::NameText { port })?)
            }
            _ => return Err(ControlError::Unexpected { port, event }),
        };
        Ok((port, Message::News(news)))
    }
}

impl News<'_> {
    /// The event by which it is said.
    pub(super) fn event(&self) -> u16 {
        let event = match self {
            Self::Removed => Device::DeviceRemove,
            Self::Console => Device::ConsolePort,
            Self::Size { .. } => Device::Resize,
            Self::Open(_) => Device::PortOpen,
            Self::Name(_) => Device::PortName,
        };
        event.into()
    }
}

/// The `N` bytes at `at` of what is `LEN` bytes long and has them.
fn field<const LEN: usize, const N: usize>(from: &[u8; LEN], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&from[at..at + N]);
    bytes
}
