//! ICMP echo requests, one after the other.

use alloc::string::{String, ToString};
use alloc::vec;
use core::time::Duration;

use smoltcp::iface::SocketHandle;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::icmp;
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, IpAddress, Ipv4Address};

use super::Watch;
use super::stack::Stack;
use super::wire::Wire;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// What identifies the requests as ours.
const IDENT: u16 = 0xd00b;

/// What a request carries, and its answer has to.
const PAYLOAD: &[u8] = b"doorbell: is anyone at home, or are these bytes on their own?";

/// What came of some requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pings {
    /// How many requests went out.
    pub sent: u32,
    /// How many were answered, in time.
    pub received: u32,
    /// The shortest time to an answer; 0 without any.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
    /// All times together.
    pub total: Duration,
}

impl Pings {
    /// The mean time to an answer, if there was one.
    pub fn mean(&self) -> Option<Duration> {
        self.total.checked_div(self.received)
    }

    fn add(&mut self, time: Duration) {
        self.min = match self.received {
            0 => time,
            _ => self.min.min(time),
        };
        self.max = self.max.max(time);
        self.total += time;
        self.received += 1;
    }
}

/// Sends `count` echo requests, each after the answer to the one before, or when
/// its time is over.
///
/// # Errors
///
/// The adapter's. Requests that stay without an answer are none.
pub fn ping<W: Wire>(
    stack: &mut Stack<W>,
    watch: &mut impl Watch,
    target: Ipv4Address,
    count: u16,
) -> Result<Pings, String> {
    let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 1024]);
    let mut socket = icmp::Socket::new(buffer(), buffer());
    socket
        .bind(icmp::Endpoint::Ident(IDENT))
        .map_err(|error| error.to_string())?;
    let handle = stack.sockets.add(socket);
    let mut pings = Pings::default();
    let mut result = Ok(());
    for sequence in 0..count {
        result = one(stack, watch, target, handle, sequence).map(|time| {
            pings.sent += 1;
            if let Some(time) = time {
                pings.add(time);
            }
        });
        if result.is_err() || watch.called_off() {
            break;
        }
    }
    stack.sockets.remove(handle);
    result.map(|()| pings)
}

/// Sends a request. The result is how long the answer took, if one came.
fn one<W: Wire>(
    stack: &mut Stack<W>,
    watch: &mut impl Watch,
    target: Ipv4Address,
    handle: SocketHandle,
    sequence: u16,
) -> Result<Option<Duration>, String> {
    let checksum = ChecksumCapabilities::default();
    let request = Icmpv4Repr::EchoRequest {
        ident: IDENT,
        seq_no: sequence,
        data: PAYLOAD,
    };
    let socket = stack.sockets.get_mut::<icmp::Socket<'_>>(handle);
    let start = watch.now();
    // One that found no room is one that got lost.
    if let Ok(room) = socket.send(request.buffer_len(), IpAddress::Ipv4(target)) {
        request.emit(&mut Icmpv4Packet::new_unchecked(room), &checksum);
    }
    loop {
        stack.poll(watch.now())?;
        let now = watch.now();
        let socket = stack.sockets.get_mut::<icmp::Socket<'_>>(handle);
        while let Ok((bytes, from)) = socket.recv() {
            if from == IpAddress::Ipv4(target) && answers(bytes, sequence, &checksum) {
                return Ok(Some(now - start));
            }
        }
        if now - start >= PATIENCE {
            return Ok(None);
        }
        watch.idle();
    }
}

/// Whether a packet is the answer to a request.
fn answers(bytes: &[u8], sequence: u16, checksum: &ChecksumCapabilities) -> bool {
    let Ok(packet) = Icmpv4Packet::new_checked(bytes) else {
        return false;
    };
    let expected = Icmpv4Repr::EchoReply {
        ident: IDENT,
        seq_no: sequence,
        data: PAYLOAD,
    };
    Icmpv4Repr::parse(&packet, checksum) == Ok(expected)
}
