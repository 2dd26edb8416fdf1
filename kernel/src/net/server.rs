//! The HTTP server: a few connections at once, each of which serves one request,
//! and takes a bounded time and a bounded amount of memory.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Duration as Span;

use super::http::{self, MAX_HEAD, Refusal, Request, Response, Status};

/// Connections at once.
const CONNECTIONS: usize = 16;

/// Bytes that wait to be read from a connection.
const RECEIVE_ROOM: usize = 4 * 1024;

/// Bytes that wait to be sent, or to be acknowledged, on a connection.
const SEND_ROOM: usize = 16 * 1024;

/// How long a client may take to say what it wants.
const REQUEST_PATIENCE: Duration = Duration::from_secs(10);

/// How long a client may take none of the response.
const SEND_PATIENCE: Duration = Duration::from_secs(10);

/// How long a client may acknowledge nothing at all, with a connection half open
/// for one. It is longer than all others, which end in a better way.
const SOCKET_PATIENCE: Span = Span::from_secs(30);

/// How long a client may go on sending what nobody reads, or leave its end open.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// What was served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Connections.
    pub connections: u64,
    /// Requests that were answered, with whatever status.
    pub requests: u64,
    /// Those that got what they asked for.
    pub ok: u64,
    /// Those that were refused.
    pub refused: u64,
    /// Bytes of responses, heads included.
    pub bytes: u64,
    /// Connections that were cut off: the client went away, or took too long.
    pub aborted: u64,
}

/// The server.
pub struct Server {
    port: u16,
    connections: Vec<Connection>,
    open: bool,
    /// What was served so far.
    pub tally: Tally,
}

struct Connection {
    socket: SocketHandle,
    phase: Phase,
    /// When the phase began, or went on.
    since: Duration,
}

enum Phase {
    /// Nobody is there.
    Waiting,
    /// A request's head comes in.
    Reading(Vec<u8>),
    /// The response goes out.
    Sending(Box<Sending>),
    /// All was said; the client reads, and may go on sending.
    Closing,
}

/// A response on its way.
struct Sending {
    head: String,
    response: Response,
    /// Whether the body goes too.
    body: bool,
    /// Which part is next: 0 for the head, and then the body's pieces.
    part: usize,
    /// How many of its bytes have gone.
    done: usize,
    /// How much of what has gone was not acknowledged at the last look.
    queued: usize,
}

impl Server {
    /// Begins to listen.
    ///
    /// # Errors
    ///
    /// The socket's.
    pub fn new(port: u16, sockets: &mut SocketSet<'static>) -> Result<Self, String> {
        let connections = (0..CONNECTIONS).map(|_| {
            Ok(Connection {
                socket: sockets.add(listener(port)?),
                phase: Phase::Waiting,
                since: Duration::ZERO,
            })
        });
        Ok(Self {
            port,
            connections: connections.collect::<Result<_, String>>()?,
            open: true,
            tally: Tally::default(),
        })
    }

    /// Takes no more connections.
    pub fn close(&mut self) {
        self.open = false;
    }

    /// Whether a connection is being served.
    pub fn is_busy(&self) -> bool {
        let mut connections = self.connections.iter();
        connections.any(|connection| !matches!(connection.phase, Phase::Waiting))
    }

    /// Takes its sockets away.
    pub fn remove(self, sockets: &mut SocketSet<'static>) {
        for connection in self.connections {
            sockets.remove(connection.socket);
        }
    }

    /// Goes on with each connection. `answer` answers a request.
    pub fn poll(
        &mut self,
        sockets: &mut SocketSet<'static>,
        now: Duration,
        answer: &mut dyn FnMut(&Request<'_>) -> Response,
    ) {
        for connection in &mut self.connections {
            let socket = sockets.get_mut::<Socket<'_>>(connection.socket);
            if let Phase::Waiting = connection.phase {
                if !self.open {
                    // What had come up to here is refused.
                    socket.abort();
                }
                match socket.state() {
                    State::Listen | State::SynReceived => continue,
                    State::Closed if !self.open => continue,
                    State::Closed => {}
                    _ => {
                        self.tally.connections += 1;
                        connection.enter(Phase::Reading(Vec::new()), now);
                    }
                }
            }
            connection.poll(socket, now, answer, &mut self.tally);
            if connection.is_over(socket)
                && let Ok(fresh) = listener(self.port)
            {
                // A new socket, since the old one would be in TIME-WAIT for a
                // while. That is to keep old packets from new connections, and
                // on a virtual network there are none.
                *socket = fresh;
                connection.phase = Phase::Waiting;
            }
        }
    }
}

/// A socket that waits for a connection.
fn listener(port: u16) -> Result<Socket<'static>, String> {
    let buffer = |size| SocketBuffer::new(vec![0; size]);
    let mut socket = Socket::new(buffer(RECEIVE_ROOM), buffer(SEND_ROOM));
    socket.set_timeout(Some(SOCKET_PATIENCE));
    // All that there is to send is at hand: nothing is gained by waiting.
    socket.set_nagle_enabled(false);
    socket.listen(port).map_err(|error| error.to_string())?;
    Ok(socket)
}

impl Connection {
    fn enter(&mut self, phase: Phase, now: Duration) {
        self.phase = phase;
        self.since = now;
    }

    /// Whether the next one may be waited for.
    fn is_over(&self, socket: &Socket<'_>) -> bool {
        match socket.state() {
            State::TimeWait => true,
            // A reset that is still to be sent needs the socket once more.
            State::Closed => socket.remote_endpoint().is_none(),
            _ => false,
        }
    }

    fn poll(
        &mut self,
        socket: &mut Socket<'static>,
        now: Duration,
        answer: &mut dyn FnMut(&Request<'_>) -> Response,
        tally: &mut Tally,
    ) {
        let waited = now.saturating_sub(self.since);
        match &mut self.phase {
            Phase::Waiting => {}
            Phase::Reading(head) => {
                let reading = read(socket, head, answer);
                let (response, body) = match reading {
                    Reading::Done(response, body) => (response, body),
                    Reading::More if waited < REQUEST_PATIENCE => return,
                    Reading::More => {
                        let message = "the request did not come in time".to_string();
                        (Refusal(Status::RequestTimeout, message).into(), true)
                    }
                    Reading::Nothing => {
                        socket.close();
                        return self.enter(Phase::Closing, now);
                    }
                };
                tally.requests += 1;
                match response.status {
                    Status::Ok => tally.ok += 1,
                    _ => tally.refused += 1,
                }
                let sending = Sending {
                    head: response.head(),
                    response,
                    body,
                    part: 0,
                    done: 0,
                    queued: 0,
                };
                self.enter(Phase::Sending(Box::new(sending)), now);
                self.poll(socket, now, answer, tally);
            }
            Phase::Sending(sending) => match sending.go_on(socket, tally) {
                Progress::Finished => {
                    socket.close();
                    self.enter(Phase::Closing, now);
                }
                Progress::Some => self.since = now,
                Progress::None if waited < SEND_PATIENCE => {}
                Progress::None | Progress::Lost => {
                    tally.aborted += 1;
                    socket.abort();
                    self.enter(Phase::Closing, now);
                }
            },
            Phase::Closing => {
                // What is not read would make the client hear of a reset before it
                // has read the response.
                while discard(socket) > 0 {}
                let unsent = socket.send_queue() > 0;
                if waited >= CLOSE_PATIENCE && !unsent || waited >= SEND_PATIENCE {
                    tally.aborted += u64::from(unsent);
                    socket.abort();
                }
            }
        }
    }
}

enum Reading {
    /// The request's answer, and whether its body is wanted.
    Done(Response, bool),
    /// More has to come.
    More,
    /// The client ended the connection without a word.
    Nothing,
}

fn read(
    socket: &mut Socket<'_>,
    head: &mut Vec<u8>,
    answer: &mut dyn FnMut(&Request<'_>) -> Response,
) -> Reading {
    let before = head.len();
    while head.len() < MAX_HEAD && socket.can_recv() {
        let room = MAX_HEAD - head.len();
        let taken = socket.recv(|bytes| {
            let taken = bytes.len().min(room);
            head.extend_from_slice(&bytes[..taken]);
            (taken, taken)
        });
        if taken.is_err() {
            break;
        }
    }
    if head.len() > before {
        match http::parse(head) {
            Ok(None) => {}
            Ok(Some(request)) => return Reading::Done(answer(&request), request.method != "HEAD"),
            Err(refusal) => return Reading::Done(refusal.into(), true),
        }
    }
    if socket.may_recv() {
        Reading::More
    } else if head.is_empty() {
        Reading::Nothing
    } else {
        let message = "the request ends before its head does".to_string();
        Reading::Done(Refusal(Status::BadRequest, message).into(), true)
    }
}

/// Passes over what has come in. The result is how much it was.
fn discard(socket: &mut Socket<'_>) -> usize {
    let taken = socket.recv(|bytes| (bytes.len(), bytes.len()));
    taken.unwrap_or(0)
}

enum Progress {
    /// All has gone out.
    Finished,
    /// Some has.
    Some,
    /// None has.
    None,
    /// Nothing can any more.
    Lost,
}

impl Sending {
    fn go_on(&mut self, socket: &mut Socket<'_>, tally: &mut Tally) -> Progress {
        discard(socket);
        let before = (self.part, self.done, self.queued);
        loop {
            let text = match self.part.checked_sub(1) {
                None => Some(self.head.as_str()),
                Some(piece) if self.body => self.response.body.get(piece).map(AsRef::as_ref),
                Some(_) => None,
            };
            let Some(text) = text else {
                return Progress::Finished;
            };
            let rest = &text.as_bytes()[self.done..];
            let Ok(sent) = socket.send_slice(rest) else {
                return Progress::Lost;
            };
            tally.bytes += sent as u64;
            if sent < rest.len() {
                self.done += sent;
                break;
            }
            (self.part, self.done) = (self.part + 1, 0);
        }
        self.queued = socket.send_queue();
        match before == (self.part, self.done, self.queued) {
            true => Progress::None,
            false => Progress::Some,
        }
    }
}
