//! The host's end of a vsock connection.
//!
//! | action | arguments | answer |
//! |---|---|---|
//! | `vsock-listen` | | the port at which the host now waits for one connection, to send back what comes |
//! | `vsock-moved` | | `BYTES DIGEST`, of what was sent back, once the guest has closed the connection |

use std::io::{ErrorKind, Read, Write};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener};

use super::{Answer, Ask};
use crate::pattern::Digest;

/// How long a guest may do nothing.
const LIMIT: Duration = Duration::from_secs(20);
/// How often it is looked whether somebody connects.
const STEP: Duration = Duration::from_millis(5);
/// `VMADDR_PORT_ANY`: the kernel chooses.
const ANY_PORT: u32 = u32::MAX;

/// What becomes of a connection: the bytes that were sent back.
type Moved = Result<(u64, Digest), String>;

/// The connection of a run.
#[derive(Default)]
pub(crate) struct Sockets {
    echo: Option<Receiver<Moved>>,
}

impl Sockets {
    pub(crate) fn answer(&mut self, ask: &Ask<'_>) -> Answer {
        if ask.action() == "vsock-listen" {
            let (port, echo) = listen().map_err(|error| error.to_string())?;
            self.echo = Some(echo);
            return Ok(port.to_string());
        }
        let echo = self.echo.take().ok_or("nobody listens")?;
        let moved = echo.recv_timeout(LIMIT);
        let (bytes, digest) = moved.map_err(|_| "the connection is still open")??;
        Ok(format!("{bytes} {digest}"))
    }
}

/// A thread that serves one connection, and its port.
fn listen() -> std::io::Result<(u32, Receiver<Moved>)> {
    let listener = VsockListener::bind(&VsockAddr::new(VMADDR_CID_ANY, ANY_PORT))?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let (tell, told) = channel();
    thread::spawn(move || {
        let moved = accept(&listener).and_then(|stream| echo(&stream, &stream));
        // Nobody may ask any more.
        let _ = tell.send(moved.map_err(|error| format!("vsock: {error}")));
    });
    Ok((port, told))
}

fn accept(listener: &VsockListener) -> std::io::Result<vsock::VsockStream> {
    let start = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(LIMIT))?;
                stream.set_write_timeout(Some(LIMIT))?;
                return Ok(stream);
            }
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
            Err(error) if start.elapsed() >= LIMIT => return Err(error),
            Err(_) => thread::sleep(STEP),
        }
    }
}

/// Sends back what comes until the other end closes: a guest that closes by force resets
/// the connection.
fn echo(mut from: impl Read, mut to: impl Write) -> std::io::Result<(u64, Digest)> {
    let (mut bytes, mut digest) = (0, Digest::new());
    let mut buffer = [0; 4096];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok((bytes, digest)),
            Ok(len) => {
                digest.add(&buffer[..len]);
                bytes += len as u64;
                to.write_all(&buffer[..len])?;
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                return Ok((bytes, digest));
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::super::tests::ask;
    use super::*;

    #[test]
    fn what_comes_goes_back_and_is_counted() {
        let (mut guest, host) = UnixStream::pair().unwrap();
        let served = thread::spawn(move || echo(&host, &host).unwrap());
        for part in [b"foo", b"bar"] {
            guest.write_all(part).unwrap();
            let mut back = [0; 3];
            guest.read_exact(&mut back).unwrap();
            assert_eq!(back, *part);
        }
        drop(guest);
        let (bytes, digest) = served.join().unwrap();
        assert_eq!(
            (bytes, digest.to_string().as_str()),
            (6, "85944171f73967e8")
        );
    }

    #[test]
    fn who_did_not_listen_moved_nothing() {
        let record = ask(r#""action":"vsock-moved""#);
        let answer = Sockets::default().answer(&Ask::new(&record, Some("vsock0")));
        assert_eq!(answer, Err("nobody listens".into()));
    }
}
