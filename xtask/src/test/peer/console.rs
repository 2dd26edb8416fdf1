//! The other end of each serial port: who connects, sends and reads.
//!
//! | action | arguments | answer |
//! |---|---|---|
//! | `port-open` | `name` | once the host has connected |
//! | `port-close` | `name` | once it has gone |
//! | `port-send` | `name`, `bytes`, `seed` | at once; the stream then goes to the guest as it takes it |
//! | `port-expect` | `name`, `bytes`, `seed` | at once; so much is then read and compared with the stream |
//! | `port-cut` | `name`, `after`, `seed` | as `port-expect`, but the host goes after so many bytes |
//! | `port-done` | `name` | `SENT READ`, digests or `-`, once both are through; or the first wrong byte |

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use super::{Answer, Ask};
use crate::pattern::{self, Digest};
use crate::qemu::devices::{self, PORTS, port_name};
use crate::qemu::{Files, Options};
use crate::qmp;

/// How long to wait for QEMU's socket.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a guest may neither take nor send anything.
const LIMIT: Duration = Duration::from_secs(20);
/// How long `port-done` waits for a direction.
const DONE: Duration = Duration::from_secs(40);
/// How much is written or read at once.
const CHUNK: usize = 32 << 10;

/// All serial ports of one run.
pub(crate) struct Consoles(Vec<Port>);

struct Port {
    name: String,
    socket: PathBuf,
    stream: Option<UnixStream>,
    sending: Option<Job>,
    reading: Option<Job>,
}

/// What becomes of one direction.
type Job = Receiver<Result<Digest, String>>;

impl Consoles {
    pub(crate) fn new(options: &Options, files: &Files) -> Self {
        let consoles = devices::consoles(options).into_iter();
        let ports = consoles.flat_map(|n| {
            let id = format!("con{n}");
            PORTS.map(|port| Port {
                name: port_name(&id, port),
                socket: files.port(&id, port),
                stream: None,
                sending: None,
                reading: None,
            })
        });
        Self(ports.collect())
    }

    pub(crate) fn answer(&mut self, ask: &Ask<'_>) -> Answer {
        let name = ask.text("name")?;
        let port = self.0.iter_mut().find(|port| port.name == name);
        let port = port.ok_or_else(|| format!("there is no port {name:?}"))?;
        let stream = || Stream {
            seed: ask.number("seed"),
            bytes: ask.number("bytes"),
        };
        match ask.action() {
            "port-open" => port.open()?,
            "port-close" => port.close()?,
            "port-send" => port.send(stream())?,
            "port-expect" => port.expect(stream(), false)?,
            "port-cut" => {
                let bytes = ask.number("after");
                port.expect(Stream { bytes, ..stream() }, true)?;
            }
            _ => return port.done(),
        }
        Ok(String::new())
    }
}

/// What goes through a port, if the guest said it well.
struct Stream {
    seed: Result<u64, String>,
    bytes: Result<u64, String>,
}

impl Port {
    fn open(&mut self) -> Result<(), String> {
        if self.stream.is_some() {
            return Err(format!("{} is open already", self.name));
        }
        let connected = qmp::connect(&self.socket, PATIENCE).and_then(|stream| {
            stream.set_read_timeout(Some(LIMIT))?;
            stream.set_write_timeout(Some(LIMIT))?;
            Ok(stream)
        });
        let stream = connected.map_err(|error| format!("{}: {error}", self.name))?;
        self.stream = Some(stream);
        Ok(())
    }

    /// What still goes on ends with an error that nobody asks for any more.
    fn close(&mut self) -> Result<(), String> {
        let stream = self.stream.take().ok_or_else(|| self.closed())?;
        (self.sending, self.reading) = (None, None);
        let gone = stream.shutdown(Shutdown::Both);
        gone.map_err(|error| format!("{}: {error}", self.name))
    }

    fn closed(&self) -> String {
        format!("{} is not open", self.name)
    }

    /// One more handle of the connection.
    fn handle(&self) -> Result<UnixStream, String> {
        let stream = self.stream.as_ref().ok_or_else(|| self.closed())?;
        stream.try_clone().map_err(|error| error.to_string())
    }

    fn send(&mut self, what: Stream) -> Result<(), String> {
        let (stream, seed, bytes) = (self.handle()?, what.seed?, what.bytes?);
        if self.sending.is_some() {
            return Err(format!("{} sends already", self.name));
        }
        self.sending = Some(job(move || write(stream, bytes, seed)));
        Ok(())
    }

    /// With `cut` the connection ends with the last of these bytes.
    fn expect(&mut self, what: Stream, cut: bool) -> Result<(), String> {
        let (stream, seed, bytes) = (self.handle()?, what.seed?, what.bytes?);
        if self.reading.is_some() {
            return Err(format!("{} reads already", self.name));
        }
        if cut {
            self.stream = None;
        }
        self.reading = Some(job(move || {
            let digest = read(&stream, bytes, seed);
            if cut {
                let _ = stream.shutdown(Shutdown::Both);
            }
            digest
        }));
        Ok(())
    }

    fn done(&mut self) -> Answer {
        let mut words = Vec::new();
        for (direction, job) in [("send", self.sending.take()), ("read", self.reading.take())] {
            words.push(match job {
                None => "-".to_owned(),
                Some(job) => wait(&job)
                    .map_err(|why| format!("{}, {direction}: {why}", self.name))?
                    .to_string(),
            });
        }
        Ok(words.join(" "))
    }
}

fn job(work: impl FnOnce() -> Result<Digest, String> + Send + 'static) -> Job {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        // Nobody may want to know any more.
        let _ = sender.send(work());
    });
    receiver
}

fn wait(job: &Job) -> Result<Digest, String> {
    match job.recv_timeout(DONE) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => Err(format!("not through after {} s", DONE.as_secs())),
        Err(RecvTimeoutError::Disconnected) => Err("it ended without a word".into()),
    }
}

fn write(mut stream: UnixStream, bytes: u64, seed: u64) -> Result<Digest, String> {
    let (mut digest, mut chunk, mut at) = (Digest::new(), vec![0; CHUNK], 0);
    while at < bytes {
        let now = &mut chunk[..(bytes - at).min(CHUNK as u64) as usize];
        pattern::fill(at, seed, now);
        let mut left = &now[..];
        while !left.is_empty() {
            match stream.write(left) {
                Ok(0) => return Err(format!("the port takes no more after {at} bytes")),
                Ok(n) => {
                    at += n as u64;
                    left = &left[n..];
                }
                Err(error) => return Err(format!("after {at} bytes: {error}")),
            }
        }
        digest.add(now);
    }
    Ok(digest)
}

fn read(mut stream: &UnixStream, bytes: u64, seed: u64) -> Result<Digest, String> {
    let (mut digest, mut chunk, mut at) = (Digest::new(), vec![0; CHUNK], 0);
    while at < bytes {
        let room = (bytes - at).min(CHUNK as u64) as usize;
        let now = match stream.read(&mut chunk[..room]) {
            Ok(0) => return Err(format!("the port closed after {at} of {bytes} bytes")),
            Ok(n) => &chunk[..n],
            Err(error) => return Err(format!("after {at} of {bytes} bytes: {error}")),
        };
        if let Some((place, found, expected)) = pattern::difference(at, seed, now) {
            return Err(format!("byte {place} is {found:#04x}, not {expected:#04x}"));
        }
        digest.add(now);
        at += now.len() as u64;
    }
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::super::tests::ask;
    use super::*;

    /// A port whose connection is there, and the guest's end of it.
    fn port() -> (Consoles, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let port = Port {
            name: "a.b".into(),
            socket: "/no/such/socket".into(),
            stream: Some(ours),
            sending: None,
            reading: None,
        };
        (Consoles(vec![port]), theirs)
    }

    fn answer(consoles: &mut Consoles, action: &str, more: &str) -> Answer {
        let text = format!(r#""action":"{action}","name":"a.b"{more}"#);
        consoles.answer(&Ask::new(&ask(&text), None))
    }

    fn digest(bytes: &[u8]) -> String {
        let mut digest = Digest::new();
        digest.add(bytes);
        digest.to_string()
    }

    #[test]
    fn a_megabyte_goes_each_way_at_the_same_time() {
        let (mut consoles, mut guest) = port();
        let (bytes, mut sent) = (1 << 20, vec![0; 1 << 20]);
        let sends = format!(r#","bytes":{bytes},"seed":3"#);
        let reads = format!(r#","bytes":{bytes},"seed":4"#);
        assert_eq!(
            answer(&mut consoles, "port-send", &sends),
            Ok(String::new())
        );
        assert_eq!(
            answer(&mut consoles, "port-expect", &reads),
            Ok(String::new())
        );
        assert!(answer(&mut consoles, "port-expect", &reads).is_err());
        pattern::fill(0, 4, &mut sent);
        let mut received = vec![0; bytes];
        for (out, into) in sent.chunks(3000).zip(received.chunks_mut(3000)) {
            guest.write_all(out).unwrap();
            guest.read_exact(into).unwrap();
        }
        assert_eq!(pattern::difference(0, 3, &received), None);
        assert_eq!(
            answer(&mut consoles, "port-done", ""),
            Ok(format!("{} {}", digest(&received), digest(&sent)))
        );
        assert_eq!(answer(&mut consoles, "port-done", ""), Ok("- -".into()));
    }

    #[test]
    fn the_first_wrong_byte_is_named() {
        let (mut consoles, mut guest) = port();
        let mut bytes = [0; 100];
        pattern::fill(0, 4, &mut bytes);
        bytes[77] = !bytes[77];
        answer(&mut consoles, "port-expect", r#","bytes":100,"seed":4"#).unwrap();
        guest.write_all(&bytes).unwrap();
        let why = answer(&mut consoles, "port-done", "").unwrap_err();
        assert!(why.starts_with("a.b, read: byte 77 is"), "{why}");
        // A guest that goes in between is told from a wrong one.
        answer(&mut consoles, "port-expect", r#","bytes":100,"seed":4"#).unwrap();
        drop(guest);
        let why = answer(&mut consoles, "port-done", "").unwrap_err();
        assert!(why.contains("closed after 0 of 100"), "{why}");
    }

    #[test]
    fn a_port_is_cut_in_the_middle() {
        let (mut consoles, mut guest) = port();
        let mut bytes = [0; 1000];
        pattern::fill(0, 4, &mut bytes);
        // More than the socket holds: it is still being sent when the port goes.
        answer(&mut consoles, "port-send", r#","bytes":10000000,"seed":1"#).unwrap();
        answer(&mut consoles, "port-cut", r#","after":600,"seed":4"#).unwrap();
        guest.write_all(&bytes).unwrap();
        let why = answer(&mut consoles, "port-done", "").unwrap_err();
        assert!(why.starts_with("a.b, send: after"), "{why}");
        guest.set_read_timeout(Some(LIMIT)).unwrap();
        let mut rest = Vec::new();
        // It may learn of what it sent in vain too.
        let end = guest.read_to_end(&mut rest).map_err(|error| error.kind());
        assert!(
            matches!(end, Ok(_) | Err(ErrorKind::ConnectionReset)),
            "{end:?}"
        );
        assert!(rest.len() < 10_000_000);
        let why = answer(&mut consoles, "port-close", "").unwrap_err();
        assert_eq!(why, "a.b is not open");
    }

    #[test]
    fn what_came_before_a_cut_is_told() {
        let (mut consoles, mut guest) = port();
        let mut bytes = [0; 1000];
        pattern::fill(0, 4, &mut bytes);
        answer(&mut consoles, "port-cut", r#","after":600,"seed":4"#).unwrap();
        guest.write_all(&bytes).unwrap();
        let done = answer(&mut consoles, "port-done", "").unwrap();
        assert_eq!(done, format!("- {}", digest(&bytes[..600])));
    }

    #[test]
    fn a_port_opens_and_closes() {
        let path = std::env::temp_dir().join(format!("doorbell-{}-port", std::process::id()));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let (mut consoles, _) = port();
        consoles.0[0].socket = path.clone();
        assert!(answer(&mut consoles, "port-open", "").is_err());
        for _ in 0..2 {
            assert_eq!(answer(&mut consoles, "port-close", ""), Ok(String::new()));
            assert!(answer(&mut consoles, "port-send", r#","bytes":1,"seed":1"#).is_err());
            assert_eq!(answer(&mut consoles, "port-open", ""), Ok(String::new()));
            assert!(listener.accept().is_ok());
        }
        std::fs::remove_file(path).unwrap();
        let record = ask(r#""action":"port-open","name":"c""#);
        assert!(consoles.answer(&Ask::new(&record, None)).is_err());
    }

    #[test]
    fn every_console_has_its_ports() {
        let options = Options {
            groups: vec![devices::Group::Console, devices::Group::ConsoleBehind],
            ..crate::qemu::tests::options(crate::qemu::Machine::Q35)
        };
        let files = Files::new("/o".into()).unwrap();
        let consoles = Consoles::new(&options, &files);
        let names: Vec<_> = consoles.0.iter().map(|port| port.name.as_str()).collect();
        assert_eq!(names.len(), 6);
        assert_eq!(names[0], "org.doorbell.con0.console");
        assert_eq!(names[5], "org.doorbell.con1.data1");
    }
}
