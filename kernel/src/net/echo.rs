//! The echo service over UDP (RFC 862).

use alloc::string::{String, ToString};
use alloc::vec;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::udp;

/// The service's port.
pub const PORT: u16 = 7;

/// Bytes that the datagrams which wait in one direction have together.
const ROOM: usize = 16 * 1024;

/// How many they are.
const DATAGRAMS: usize = 32;

/// Sends each datagram back to where it came from.
pub struct Echo {
    socket: SocketHandle,
    /// How many went back.
    pub echoed: u64,
    /// How many did not: there was no room to send them, or their sender is such
    /// a service itself, which would echo them for ever.
    pub dropped: u64,
}

impl Echo {
    /// Begins to listen.
    ///
    /// # Errors
    ///
    /// The socket's.
    pub fn new(sockets: &mut SocketSet<'static>) -> Result<Self, String> {
        let buffer =
            || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; DATAGRAMS], vec![0; ROOM]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(PORT).map_err(|error| error.to_string())?;
        Ok(Self {
            socket: sockets.add(socket),
            echoed: 0,
            dropped: 0,
        })
    }

    /// Answers what has arrived.
    pub fn poll(&mut self, sockets: &mut SocketSet<'static>) {
        let socket = sockets.get_mut::<udp::Socket<'_>>(self.socket);
        for _ in 0..DATAGRAMS {
            let Ok((data, from)) = socket.recv() else {
                break;
            };
            let data = data.to_vec();
            let sent =
                from.endpoint.port != PORT && socket.send_slice(&data, from.endpoint).is_ok();
            match sent {
                true => self.echoed += 1,
                false => self.dropped += 1,
            }
        }
    }

    /// Ends it.
    pub fn close(self, sockets: &mut SocketSet<'static>) {
        sockets.remove(self.socket);
    }
}
