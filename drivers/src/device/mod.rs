//! Device drivers: each owns its queues, takes requests by token, so that many
//! are in flight, and has blocking calls built on that.
//!
//! A driver holds the memory of a request until the device has given the request
//! back. When the driver is dropped, the device is reset first; where it does
//! not reset, its memory is never used for anything else. From a device that was
//! given up, or a queue that was reset, the requests in flight come back as
//! [`DeviceError::Aborted`].

use core::fmt;

use crate::dma::DmaError;
use crate::queue::{QueueError, Ring, SetupError, VirtQueue};
use crate::transport::{Transport, TransportError};
use crate::virtio::InitError;

pub mod balloon;
pub mod blk;
pub mod console;
mod driver;
mod link;
pub mod net;
pub mod rng;
mod setup;
mod slots;

pub use balloon::Balloon;
pub use blk::Blk;
pub use console::Console;
pub use driver::Driver;
pub use net::Net;
pub use rng::Rng;
pub use setup::{Setup, Vectors};

/// Checks that the transport leads to the kind of device that a driver is for.
fn check_type<T: Transport>(transport: &T, expected: u16) -> Result<(), DeviceError> {
    match transport.device_type() {
        found if found == expected => Ok(()),
        found => Err(DeviceError::WrongType { expected, found }),
    }
}

/// Checks that a blocking call would meet no other request's end.
fn check_idle<R: Ring>(queue: &VirtQueue<R>) -> Result<(), DeviceError> {
    // What a device had that was given up stays in flight for ever.
    if let Err(error @ QueueError::Broken) = queue.next_token() {
        return Err(error.into());
    }
    match queue.in_flight() {
        0 => Ok(()),
        in_flight => Err(DeviceError::Busy { in_flight }),
    }
}

/// Checks a buffer's length in bytes.
fn check_len(len: usize, multiple: usize, max: usize) -> Result<(), DeviceError> {
    if len > 0 && len <= max && len.is_multiple_of(multiple) {
        Ok(())
    } else {
        Err(DeviceError::BufferLength { len, multiple, max })
    }
}

/// The length in bytes of a buffer for one descriptor: at most `max`, and 32 bits
/// (2.7.5).
fn one_len(len: usize, max: usize) -> Result<u32, DeviceError> {
    check_len(len, 1, max.min(u32::MAX as usize))?;
    Ok(len as u32)
}

/// What can go wrong with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceError {
    /// The transport leads to a device of another type.
    WrongType {
        /// The type that the driver is for.
        expected: u16,
        /// The device's type.
        found: u16,
    },
    /// The device did not come up.
    Init(InitError),
    /// A queue could not be set up.
    Setup(SetupError),
    /// The device's registers failed.
    Transport(TransportError),
    /// A queue failed. After a device's fault the device has been reset and
    /// marked FAILED.
    Queue(QueueError),
    /// A blocking call was made while requests were in flight.
    Busy {
        /// How many.
        in_flight: u16,
    },
    /// There was no memory for the request.
    Dma(DmaError),
    /// The device has no such queue, or the driver did not set it up.
    NoQueue {
        /// Its number.
        queue: usize,
        /// How many the driver has.
        queues: usize,
    },
    /// The request was taken back before the device was done with it: the device
    /// or the queue was reset.
    Aborted,
    /// The device says that it cannot go on without a reset (2.1.2).
    NeedsReset,
    /// The device does not answer any more, or forgot its driver: it was unplugged or
    /// switched off.
    Gone,
    /// The device did not answer within the caller's patience.
    Timeout,
    /// A configuration field has a value that the specification rules out.
    Config {
        /// The field's name in the specification.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// A block request goes past the end of the device.
    OutOfRange {
        /// Its first sector, of 512 bytes.
        sector: u64,
        /// How many sectors it has.
        count: u64,
        /// The device's capacity in sectors.
        capacity: u64,
    },
    /// The driver set up no such port.
    NoPort {
        /// Its number.
        port: u32,
        /// How many ports the driver set up queues for.
        ports: u32,
    },
    /// The port is not there: the device has not added it yet, or has removed it.
    PortAbsent {
        /// Its number.
        port: u32,
    },
    /// The port is not open at the driver's end or at the host's.
    PortClosed {
        /// Its number.
        port: u32,
    },
    /// A buffer's length does not fit the request.
    BufferLength {
        /// Its length in bytes.
        len: usize,
        /// What it has to be a multiple of.
        multiple: usize,
        /// The most that it may be.
        max: usize,
    },
    /// A block request is not of whole blocks, or of none.
    NotBlocks {
        /// Its first sector, of 512 bytes.
        sector: u64,
        /// How many sectors it has.
        count: u64,
        /// The device's block size in bytes.
        block_size: u32,
    },
    /// A request exceeds a limit that the device's configuration sets.
    Limit {
        /// The limit's name in the specification.
        field: &'static str,
        /// What the request has.
        value: u64,
        /// The most that it may have.
        max: u64,
    },
    /// The device is read-only (VIRTIO_BLK_F_RO).
    ReadOnly,
    /// A balloon's device cannot be told of pages: they do not start with a page of
    /// 4096 bytes, or have no number of 32 bits.
    PageAddress {
        /// Device address of the first of them.
        address: u64,
    },
    /// Pages are in another device's balloon.
    ForeignPages {
        /// Device address of the first of them.
        address: u64,
    },
    /// A statistic is there twice; or it is missing and was there at the start, or
    /// the other way round.
    Statistic {
        /// Its tag.
        tag: u16,
    },
    /// The device does not know this kind of request.
    Unsupported,
    /// The device failed the request (VIRTIO_BLK_S_IOERR).
    Io,
    /// The device answered with a status that the specification does not have,
    /// or with less data than it owed.
    BadAnswer {
        /// The status byte, or 0xFF if none was written.
        status: u8,
        /// How many bytes were written.
        written: u32,
    },
    /// There is no such pair of a receive and a transmit queue, or it is not
    /// switched on.
    NoPair {
        /// Its number, from 0.
        pair: u16,
        /// How many there are.
        pairs: u16,
    },
    /// So many pairs of queues cannot be switched on.
    PairCount {
        /// How many were asked for.
        wanted: u16,
        /// How many are set up.
        pairs: u16,
    },
    /// A frame is longer than the network takes, or shorter than an Ethernet
    /// header, of 14 bytes.
    FrameLength {
        /// Its length in bytes, with the Ethernet header.
        len: usize,
        /// The most bytes behind the Ethernet header.
        mtu: u16,
    },
    /// A buffer is too short for what goes into it.
    BufferTooShort {
        /// Its length in bytes.
        len: usize,
        /// How many it takes.
        needed: usize,
    },
    /// A MAC address is of the wrong kind.
    MacAddress {
        /// The address.
        mac: [u8; 6],
        /// Whether it had to be a group's: a multicast address.
        group: bool,
    },
    /// The device refused a command (5.1.6.5: VIRTIO_NET_ERR).
    Refused {
        /// The command's name in the specification.
        command: &'static str,
    },
    /// The device says that a packet is in an impossible number of buffers
    /// (5.1.6.4).
    BufferCount {
        /// How many it says.
        num_buffers: u16,
        /// How many it had.
        posted: u16,
    },
    /// The device did not give back all buffers of a packet together (5.1.6.4.1).
    IncompletePacket {
        /// How many are missing.
        missing: u16,
    },
    /// The device wrote less than the header that each packet begins with.
    ShortPacket {
        /// How many bytes it wrote.
        written: usize,
        /// How many the header has.
        header: usize,
    },
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongType { expected, found } => {
                write!(f, "the device is of type {found}, not {expected}")
            }
            Self::Init(error) => error.fmt(f),
            Self::Setup(error) => error.fmt(f),
            Self::Transport(error) => error.fmt(f),
            Self::Queue(error) => error.fmt(f),
            Self::Dma(error) => error.fmt(f),
            Self::Busy { in_flight } => {
                write!(
                    f,
                    "a blocking call has to wait for the {in_flight} requests in flight"
                )
            }
            Self::NoQueue { queue, queues } => {
                write!(f, "there is no queue {queue}, only {queues}")
            }
            Self::Aborted => {
                f.write_str("the request was taken back before the device was done with it")
            }
            Self::NeedsReset => f.write_str("the device asks to be reset"),
            Self::Gone => TransportError::Gone.fmt(f),
            Self::Timeout => f.write_str("the device did not answer in time"),
            Self::Config { field, value } => {
                write!(
                    f,
                    "the device's configuration has {field} = {value}, which cannot be"
                )
            }
            Self::OutOfRange {
                sector,
                count,
                capacity,
            } => write!(
                f,
                "{count} sectors from {sector} go past the device's {capacity} sectors"
            ),
            Self::NoPort { port, ports } => {
                write!(f, "there is no port {port}, only {ports}")
            }
            Self::PortAbsent { port } => write!(f, "port {port} is not there"),
            Self::PortClosed { port } => write!(f, "port {port} is closed"),
            Self::BufferLength { len, multiple, max } => write!(
                f,
                "a buffer of {len} bytes: it has to be a multiple of {multiple}, more than 0 and at most {max}"
            ),
            Self::NotBlocks {
                sector,
                count,
                block_size,
            } => write!(
                f,
                "{count} sectors from {sector} are not whole blocks of {block_size} bytes"
            ),
            Self::Limit { field, value, max } => {
                write!(f, "{value} is more than the device's {field} of {max}")
            }
            Self::ReadOnly => f.write_str("the device is read-only"),
            Self::PageAddress { address } => write!(
                f,
                "a balloon cannot take the pages at {address:#x}: not at a multiple of 4096, or beyond 16 TiB"
            ),
            Self::ForeignPages { address } => {
                write!(
                    f,
                    "the pages at {address:#x} are in another device's balloon"
                )
            }
            Self::Statistic { tag } => write!(
                f,
                "statistic {tag} is there twice, or not as it was at the start"
            ),
            Self::Unsupported => f.write_str("the device does not support the request"),
            Self::Io => f.write_str("the device reports an IO error"),
            Self::BadAnswer { status, written } => write!(
                f,
                "the device's answer makes no sense: status {status}, {written} bytes written"
            ),
            Self::NoPair { pair, pairs } => {
                write!(f, "there is no pair of queues {pair}, only {pairs}")
            }
            Self::PairCount { wanted, pairs } => write!(
                f,
                "{wanted} pairs of queues cannot be switched on: 1 to {pairs} can"
            ),
            Self::FrameLength { len, mtu } => write!(
                f,
                "a frame of {len} bytes: an Ethernet header of 14 and up to {mtu} (the MTU) are allowed"
            ),
            Self::BufferTooShort { len, needed } => {
                write!(f, "a buffer of {len} bytes where it takes {needed}")
            }
            Self::MacAddress { mac, group } => {
                let [a, b, c, d, e, g] = mac;
                let wanted = if *group { "a group" } else { "one station" };
                write!(
                    f,
                    "the MAC address {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x} is not {wanted}'s"
                )
            }
            Self::Refused { command } => write!(f, "the device refused {command}"),
            Self::BufferCount {
                num_buffers,
                posted,
            } => write!(
                f,
                "the device says that a packet is in {num_buffers} buffers of the {posted} that it had"
            ),
            Self::IncompletePacket { missing } => write!(
                f,
                "the device did not give back {missing} buffers of a packet"
            ),
            Self::ShortPacket { written, header } => write!(
                f,
                "the device wrote {written} bytes where a packet's header alone has {header}"
            ),
        }
    }
}

impl core::error::Error for DeviceError {}

impl From<InitError> for DeviceError {
    fn from(error: InitError) -> Self {
        Self::Init(error)
    }
}

impl From<SetupError> for DeviceError {
    fn from(error: SetupError) -> Self {
        Self::Setup(error)
    }
}

impl From<TransportError> for DeviceError {
    fn from(error: TransportError) -> Self {
        Self::Transport(error)
    }
}

impl From<QueueError> for DeviceError {
    fn from(error: QueueError) -> Self {
        Self::Queue(error)
    }
}

impl From<DmaError> for DeviceError {
    fn from(error: DmaError) -> Self {
        Self::Dma(error)
    }
}
