//! The other end of each network adapter's wire.
//!
//! It sends each frame with EtherType [`ECHOED`] back to where it came from, and
//! keeps what came of them: how many, their payloads' bytes, and a digest of these in order.
//!
//! | action | arguments | answer |
//! |---|---|---|
//! | `net-moved` | `frames` | `FRAMES BYTES DIGEST` echoed since the last question, after waiting for so many |
//! | `net-send` | `frames`, `bytes`, `seed`; `ethertype`, `to` | at once; the frames then come as the guest takes them |
//! | `net-sent` | | how many frames left, once all did |
//! | `net-link` | `up` | after QEMU's `set_link` |
//! | `rx-filter` | `promiscuous`, `mac` | QEMU's `query-rx-filter`, if those given are right |

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Answer, Ask, lock};
use crate::pattern::{self, Digest};
use crate::qemu::{Files, Options, devices};
use crate::qmp::{self, Qmp};

/// The EtherType of what is sent back: the first for local experiments (IEEE 802).
const ECHOED: u16 = 0x88B5;
/// The one of what the host sends by itself: the second.
const SENT: u64 = 0x88B6;
/// Two addresses and the EtherType.
const HEADER: usize = 14;
/// More than any frame, even of a guest that joins segments.
const LONGEST: usize = 128 << 10;
/// How long to wait for QEMU's socket.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait for frames, and for a guest that takes none.
const LIMIT: Duration = Duration::from_secs(20);

/// The address that frames come from which the host sends by itself.
const HOST_MAC: [u8; 6] = [0x52, 0x54, 0x00, 0xdb, 0xff, 0xff];

/// All adapters of one run.
pub(crate) struct Nets {
    files: Files,
    adapters: Vec<Adapter>,
}

struct Adapter {
    id: String,
    mac: [u8; 6],
    wire: Option<Wire>,
}

impl Nets {
    pub(crate) fn new(options: &Options, files: &Files) -> Self {
        let adapters = devices::adapters(options).into_iter().map(|n| Adapter {
            id: format!("net{n}"),
            mac: devices::mac(n),
            wire: None,
        });
        Self {
            files: files.clone(),
            adapters: adapters.collect(),
        }
    }

    /// Plugs the wires in.
    ///
    /// # Errors
    /// When QEMU has no socket for one.
    pub(crate) fn start(&mut self) -> Result<(), String> {
        for adapter in &mut self.adapters {
            let stream = qmp::connect(&self.files.socket(&adapter.id), PATIENCE);
            let wire = stream.and_then(Wire::new);
            adapter.wire = Some(wire.map_err(|error| format!("{}: {error}", adapter.id))?);
        }
        Ok(())
    }

    pub(crate) fn answer(&mut self, ask: &Ask<'_>, qmp: &mut Qmp) -> Answer {
        let id = ask.device()?;
        // QEMU answers these for any adapter, whatever its back end.
        match ask.action() {
            "net-link" => {
                let arguments = json!({"name": id, "up": ask.flag("up")?});
                let done = qmp.execute("set_link", arguments);
                return done.map(|_| String::new()).map_err(|e| e.to_string());
            }
            "rx-filter" => return rx_filter(ask, qmp, id),
            _ => {}
        }
        let adapter = self.adapters.iter_mut().find(|adapter| adapter.id == id);
        let adapter = adapter.ok_or_else(|| format!("no wire of {id} ends here"))?;
        let wire = adapter.wire.as_ref();
        let wire = wire.ok_or_else(|| format!("{id} is not connected"))?;
        match ask.action() {
            "net-moved" => wire.moved(ask.number("frames")?),
            "net-send" => wire.send(Frames {
                to: match ask.optional("to", Ask::text)? {
                    Some(text) => mac(text)?,
                    None => adapter.mac,
                },
                ethertype: ask.optional("ethertype", Ask::number)?.unwrap_or(SENT),
                frames: ask.number("frames")?,
                bytes: ask.number("bytes")?,
                seed: ask.number("seed")?,
            }),
            "net-sent" => wire.sent(),
            other => Err(format!("{other:?} is no action of a network's peer")),
        }
    }
}

/// An address as people write it.
fn mac(text: &str) -> Result<[u8; 6], String> {
    let bytes = text.split(':').map(|byte| u8::from_str_radix(byte, 16));
    let bytes: Result<Vec<u8>, _> = bytes.collect();
    let bytes = bytes.ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| format!("{text:?} is no MAC address"))
}

/// QEMU's word about what an adapter lets through.
fn rx_filter(ask: &Ask<'_>, qmp: &mut Qmp, id: &str) -> Answer {
    let answer = qmp.execute("query-rx-filter", json!({"name": id}));
    let mut filter = answer.map_err(|error| error.to_string())?[0].take();
    if let Some(promiscuous) = ask.optional("promiscuous", Ask::flag)?
        && filter["promiscuous"] != promiscuous
    {
        let theirs = &filter["promiscuous"];
        return Err(format!(
            "promiscuous is {theirs} in QEMU, not {promiscuous}"
        ));
    }
    if let Some(mac) = ask.optional("mac", Ask::text)?
        && filter["main-mac"] != mac
    {
        let theirs = &filter["main-mac"];
        return Err(format!("the MAC is {theirs} in QEMU, not {mac:?}"));
    }
    // It lists all 4096 where VLANs are not filtered.
    if let Some(filter) = filter.as_object_mut()
        && let Some(Value::Array(vlans)) = filter.remove("vlan-table")
    {
        filter.insert("vlans".into(), vlans.len().into());
    }
    Ok(filter.to_string())
}

/// What the host is to send.
#[derive(Clone, Copy)]
struct Frames {
    to: [u8; 6],
    ethertype: u64,
    frames: u64,
    /// Of each payload. All payloads together are one stream.
    bytes: u64,
    seed: u64,
}

/// What came and was sent back.
#[derive(Clone, Copy)]
struct Moved {
    frames: u64,
    bytes: u64,
    digest: Digest,
}

impl Moved {
    const fn nothing() -> Self {
        Self {
            frames: 0,
            bytes: 0,
            digest: Digest::new(),
        }
    }
}

/// What the threads of a wire share.
struct Shared {
    /// Taken for each whole frame.
    writer: Mutex<UnixStream>,
    moved: Mutex<Moved>,
    /// Frames that are yet to be sent, and that were.
    sending: Mutex<(u64, u64)>,
    /// Why the wire is of no use any more.
    broken: Mutex<Option<String>>,
}

/// A connection to QEMU's `-netdev stream`: each frame comes after its length, 4
/// bytes, the most significant first.
struct Wire {
    stream: UnixStream,
    shared: Arc<Shared>,
}

impl Wire {
    fn new(stream: UnixStream) -> std::io::Result<Self> {
        let (reader, writer) = (stream.try_clone()?, stream.try_clone()?);
        writer.set_write_timeout(Some(LIMIT))?;
        let shared = Arc::new(Shared {
            writer: Mutex::new(writer),
            moved: Mutex::new(Moved::nothing()),
            sending: Mutex::new((0, 0)),
            broken: Mutex::new(None),
        });
        // QEMU waits, and its guest with it, until what it writes is read. So what
        // the guest does not take yet must not keep this from reading.
        let (echoed, waiting) = channel();
        let echo = shared.clone();
        thread::spawn(move || {
            let result = echo.echo(reader, &echoed);
            echo.end(result);
        });
        let back = shared.clone();
        thread::spawn(move || {
            let result = waiting.iter().try_for_each(|frame| back.write(&frame));
            back.end(result);
        });
        Ok(Self { stream, shared })
    }

    /// Waits until so many frames were sent back, if they come in time.
    fn moved(&self, frames: u64) -> Answer {
        self.wait(|| lock(&self.shared.moved).frames >= frames)?;
        let Moved {
            frames,
            bytes,
            digest,
        } = std::mem::replace(&mut *lock(&self.shared.moved), Moved::nothing());
        Ok(format!("{frames} {bytes} {digest}"))
    }

    fn send(&self, what: Frames) -> Answer {
        if HEADER as u64 + what.bytes > LONGEST as u64 {
            return Err(format!("no frame has {} bytes", what.bytes));
        }
        {
            let mut sending = lock(&self.shared.sending);
            if sending.0 > 0 {
                return Err(format!("{} frames are still to be sent", sending.0));
            }
            *sending = (what.frames, 0);
        }
        let shared = self.shared.clone();
        thread::spawn(move || {
            let result = shared.send(what);
            shared.end(result);
        });
        Ok(String::new())
    }

    fn sent(&self) -> Answer {
        self.wait(|| lock(&self.shared.sending).0 == 0)?;
        match *lock(&self.shared.sending) {
            (0, sent) => Ok(sent.to_string()),
            (left, sent) => Err(format!(
                "after {sent} frames {left} are still to be sent: the guest takes none"
            )),
        }
    }

    /// Waits for something, but not for ever.
    ///
    /// # Errors
    /// When the wire broke.
    fn wait(&self, done: impl Fn() -> bool) -> Result<(), String> {
        let start = Instant::now();
        loop {
            if let Some(why) = &*lock(&self.shared.broken) {
                return Err(why.clone());
            }
            if done() || start.elapsed() >= LIMIT {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A wire that is dropped is unplugged.
impl Drop for Wire {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Shared {
    /// Keeps why a thread ended, if it is the first.
    fn end(&self, result: std::io::Result<()>) {
        if let Err(error) = result {
            let why = || format!("the wire broke: {error}");
            lock(&self.broken).get_or_insert_with(why);
        }
    }

    fn echo(&self, mut reader: UnixStream, back: &Sender<Vec<u8>>) -> std::io::Result<()> {
        loop {
            let mut length = [0; 4];
            reader.read_exact(&mut length)?;
            let length = u32::from_be_bytes(length) as usize;
            if !(HEADER..=LONGEST).contains(&length) {
                let why = format!("QEMU sent a frame of {length} bytes");
                return Err(std::io::Error::new(ErrorKind::InvalidData, why));
            }
            let mut frame = vec![0; length];
            reader.read_exact(&mut frame)?;
            if frame[12..HEADER] != ECHOED.to_be_bytes() {
                continue;
            }
            let (to, from) = frame.split_at_mut(6);
            to.swap_with_slice(&mut from[..6]);
            {
                // Before it goes: the guest may ask as soon as it has it.
                let mut moved = lock(&self.moved);
                moved.frames += 1;
                moved.bytes += (length - HEADER) as u64;
                moved.digest.add(&frame[HEADER..]);
            }
            // Once the wire is broken, nobody takes it.
            let _ = back.send(frame);
        }
    }

    fn send(&self, what: Frames) -> std::io::Result<()> {
        let mut frame = vec![0; HEADER + what.bytes as usize];
        frame[..6].copy_from_slice(&what.to);
        frame[6..12].copy_from_slice(&HOST_MAC);
        frame[12..HEADER].copy_from_slice(&(what.ethertype as u16).to_be_bytes());
        for n in 0..what.frames {
            pattern::fill(n * what.bytes, what.seed, &mut frame[HEADER..]);
            self.write(&frame)?;
            let mut sending = lock(&self.sending);
            *sending = (sending.0 - 1, sending.1 + 1);
        }
        Ok(())
    }

    fn write(&self, frame: &[u8]) -> std::io::Result<()> {
        let mut writer = lock(&self.writer);
        writer.write_all(&(frame.len() as u32).to_be_bytes())?;
        writer.write_all(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::ask;
    use super::*;
    use crate::qmp::tests::{fake, obedient};

    /// A guest's end of a wire.
    struct Guest(UnixStream);

    impl Guest {
        fn send(&mut self, frame: &[u8]) {
            let length = (frame.len() as u32).to_be_bytes();
            self.0.write_all(&[&length, frame].concat()).unwrap();
        }

        fn receive(&mut self) -> Vec<u8> {
            let mut length = [0; 4];
            self.0.read_exact(&mut length).unwrap();
            let mut frame = vec![0; u32::from_be_bytes(length) as usize];
            self.0.read_exact(&mut frame).unwrap();
            frame
        }
    }

    fn wire() -> (Nets, Guest) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let adapter = Adapter {
            id: "net0".into(),
            mac: [1, 2, 3, 4, 5, 6],
            wire: Some(Wire::new(ours).unwrap()),
        };
        let nets = Nets {
            files: Files::new("/".into()).unwrap(),
            adapters: vec![adapter],
        };
        (nets, Guest(theirs))
    }

    fn answer(nets: &mut Nets, qmp: &mut Qmp, text: &str) -> Answer {
        nets.answer(&Ask::new(&ask(text), Some("net0")), qmp)
    }

    fn frame(ethertype: u16, payload: &[u8]) -> Vec<u8> {
        [b"tototofromme", &ethertype.to_be_bytes()[..], payload].concat()
    }

    #[test]
    fn frames_come_back_and_are_counted() {
        let (mut nets, mut guest) = wire();
        let mut qmp = obedient().0;
        guest.send(&frame(ECHOED, b"foo"));
        guest.send(&frame(0x0800, b"not for us"));
        guest.send(&frame(ECHOED, b"bar"));
        let back = [&b"frommetototo"[..], &ECHOED.to_be_bytes(), b"foo"].concat();
        assert_eq!(guest.receive(), back);
        assert_eq!(guest.receive()[HEADER..], *b"bar");
        let moved = r#""action":"net-moved","frames":2"#;
        let told = answer(&mut nets, &mut qmp, moved);
        assert_eq!(told, Ok("2 6 85944171f73967e8".into()));
        let moved = r#""action":"net-moved","frames":0"#;
        let told = answer(&mut nets, &mut qmp, moved);
        assert_eq!(told, Ok("0 0 cbf29ce484222325".into()));
    }

    #[test]
    fn a_guest_may_send_before_it_takes_anything() {
        let (_nets, mut guest) = wire();
        let frames = 300u16;
        // Far more than the socket holds.
        for n in 0..frames {
            guest.send(&frame(ECHOED, &[&n.to_le_bytes()[..], &[0; 8998]].concat()));
        }
        for n in 0..frames {
            assert_eq!(guest.receive()[HEADER..HEADER + 2], n.to_le_bytes());
        }
    }

    #[test]
    fn frames_are_sent_as_they_are_taken() {
        let (mut nets, mut guest) = wire();
        let mut qmp = obedient().0;
        // Far more than the socket holds.
        let send = r#""action":"net-send","frames":1000,"bytes":9000,"seed":5"#;
        assert_eq!(answer(&mut nets, &mut qmp, send), Ok(String::new()));
        assert!(answer(&mut nets, &mut qmp, send).is_err());
        for n in 0..1000 {
            let frame = guest.receive();
            assert_eq!(frame[..6], [1, 2, 3, 4, 5, 6]);
            assert_eq!(frame[12..HEADER], [0x88, 0xb6]);
            assert_eq!(pattern::difference(n * 9000, 5, &frame[HEADER..]), None);
        }
        let sent = r#""action":"net-sent""#;
        assert_eq!(answer(&mut nets, &mut qmp, sent), Ok("1000".into()));
        let send = r#""action":"net-send","frames":1,"bytes":1,"seed":5,"ethertype":2048,"to":"0a:00:00:00:00:ff""#;
        assert_eq!(answer(&mut nets, &mut qmp, send), Ok(String::new()));
        assert_eq!(guest.receive()[..6], [10, 0, 0, 0, 0, 255]);
        let bad = send.replace("0a:", "0a-");
        assert!(answer(&mut nets, &mut qmp, &bad).is_err());
    }

    #[test]
    fn a_broken_wire_is_named() {
        let (mut nets, mut guest) = wire();
        guest.0.write_all(&[0, 0, 0, 3, 1, 2, 3]).unwrap();
        let moved = r#""action":"net-moved","frames":1"#;
        let why = answer(&mut nets, &mut obedient().0, moved).unwrap_err();
        assert!(why.contains("a frame of 3 bytes"), "{why}");
    }

    #[test]
    fn link_and_filter_are_qemus_own() {
        let (mut nets, _guest) = wire();
        let (mut qmp, asked) = fake(|command, _| {
            let filter = json!([{"promiscuous": true, "main-mac": "aa:bb", "vlan-table": [1, 2]}]);
            let answer = if command == "query-rx-filter" {
                filter
            } else {
                json!({})
            };
            vec![json!({"return": answer})]
        });
        let mut answer = |text: &str| answer(&mut nets, &mut qmp, text);
        assert_eq!(
            answer(r#""action":"net-link","up":false"#),
            Ok(String::new())
        );
        assert!(answer(r#""action":"net-link""#).is_err());
        let filter = answer(r#""action":"rx-filter","promiscuous":true,"mac":"aa:bb""#).unwrap();
        assert_eq!(
            filter,
            r#"{"main-mac":"aa:bb","promiscuous":true,"vlans":2}"#
        );
        assert!(answer(r#""action":"rx-filter","promiscuous":false"#).is_err());
        assert!(answer(r#""action":"rx-filter","mac":"aa:bc""#).is_err());
        let link = ("set_link".into(), json!({"name": "net0", "up": false}));
        assert_eq!(asked.lock().unwrap()[0], link);
    }
}
