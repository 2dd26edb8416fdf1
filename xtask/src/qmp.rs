//! A small QMP client: QEMU's own word about its devices, over a Unix socket.
//! The protocol is QEMU's docs/interop/qmp-spec: a greeting, then
//! `qmp_capabilities`, then commands; events may stand
//! between, and are kept.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(20);
/// How often a socket is tried that isn't there yet.
const STEP: Duration = Duration::from_millis(20);
/// How many events are kept for who may want them.
const EVENTS: usize = 1000;

/// Why QMP gave no answer.
#[derive(Debug)]
pub(crate) enum QmpError {
    /// The connection failed, was closed, or stayed silent.
    Io(std::io::Error),
    /// What came is not QMP.
    Protocol(String),
    /// QEMU doesn't know the command, as versions before 7.2 don't know `x-query-virtio`.
    Unknown(String),
    /// QEMU refused the command.
    Refused { command: String, why: String },
}

impl fmt::Display for QmpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "QMP gave no answer: {error}"),
            Self::Protocol(line) => write!(f, "this is not QMP: {line}"),
            Self::Unknown(command) => write!(f, "this QEMU does not know `{command}`"),
            Self::Refused { command, why } => write!(f, "QEMU refused `{command}`: {why}"),
        }
    }
}

impl std::error::Error for QmpError {}

impl From<std::io::Error> for QmpError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// A connection whose capabilities are negotiated.
pub(crate) struct Qmp {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
    /// What came of a line so far: a wait for an event may end inside one.
    line: Vec<u8>,
    /// What was asked so far. An answer bears its question's number, so that one
    /// which comes too late is not taken for another's.
    asked: u64,
    /// Events that nobody has waited for yet.
    events: Vec<Value>,
}

impl Qmp {
    /// Connects to the socket that QEMU listens on, waiting up to `patience`
    /// for QEMU to make it.
    ///
    /// # Errors
    /// When there is no QEMU behind it.
    pub(crate) fn connect(path: &Path, patience: Duration) -> Result<Self, QmpError> {
        Self::negotiate(connect(path, patience)?)
    }

    fn negotiate(stream: UnixStream) -> Result<Self, QmpError> {
        stream.set_write_timeout(Some(ANSWER))?;
        let mut qmp = Self {
            writer: stream.try_clone()?,
            reader: BufReader::new(stream),
            line: Vec::new(),
            asked: 0,
            events: Vec::new(),
        };
        let greeting = qmp.message(Instant::now() + ANSWER)?;
        if greeting.get("QMP").is_none() {
            return Err(QmpError::Protocol(greeting.to_string()));
        }
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs one command and returns what it returns.
    ///
    /// # Errors
    /// See [`QmpError`].
    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        self.asked += 1;
        let request = json!({"execute": command, "arguments": arguments, "id": self.asked});
        writeln!(self.writer, "{request}")?;
        self.writer.flush()?;
        let deadline = Instant::now() + ANSWER;
        loop {
            let mut message = self.message(deadline)?;
            if message.get("event").is_some() {
                self.keep(message);
                continue;
            }
            // A line that QEMU can't read at all has no number.
            if message.get("id").is_some_and(|id| *id != self.asked) {
                continue;
            }
            if let Some(value) = message.get_mut("return") {
                return Ok(value.take());
            }
            let error = &message["error"];
            return Err(match error["class"].as_str() {
                Some("CommandNotFound") => QmpError::Unknown(command.to_owned()),
                Some(_) => QmpError::Refused {
                    command: command.to_owned(),
                    why: error["desc"].as_str().unwrap_or_default().to_owned(),
                },
                None => QmpError::Protocol(message.to_string()),
            });
        }
    }

    /// Waits for an event for which `is_it` holds of its name and data, or takes one
    /// that came before and was not taken. `None` if it doesn't come in time.
    ///
    /// # Errors
    /// See [`QmpError`].
    pub(crate) fn event(
        &mut self,
        is_it: impl Fn(&str, &Value) -> bool,
        patience: Duration,
    ) -> Result<Option<Value>, QmpError> {
        let is_it = |event: &Value| is_it(event["event"].as_str().unwrap_or(""), &event["data"]);
        if let Some(at) = self.events.iter().position(is_it) {
            return Ok(Some(self.events.remove(at)));
        }
        let deadline = Instant::now() + patience;
        loop {
            match self.message(deadline) {
                Ok(event) if is_it(&event) => return Ok(Some(event)),
                Ok(message) if message.get("event").is_some() => self.keep(message),
                // An answer that came too late.
                Ok(_) => {}
                Err(QmpError::Io(error)) if is_timeout(&error) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    fn keep(&mut self, event: Value) {
        if self.events.len() == EVENTS {
            self.events.remove(0);
        }
        self.events.push(event);
    }

    fn message(&mut self, deadline: Instant) -> Result<Value, QmpError> {
        while self.line.last() != Some(&b'\n') {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(std::io::Error::from(ErrorKind::TimedOut).into());
            }
            self.reader.get_ref().set_read_timeout(Some(left))?;
            if self.reader.read_until(b'\n', &mut self.line)? == 0 {
                return Err(std::io::Error::from(ErrorKind::UnexpectedEof).into());
            }
        }
        let line = std::mem::take(&mut self.line);
        serde_json::from_slice(&line)
            .map_err(|_| QmpError::Protocol(String::from_utf8_lossy(&line).trim_end().to_owned()))
    }
}

/// The names in a list of features or statuses: QEMU writes `NAME: what it means`.
pub(crate) fn names(list: &Value) -> BTreeSet<String> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(|text| text.split(':').next().unwrap_or_default().to_owned())
        .collect()
}

/// How a read that took too long ends, by system.
fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Connects to a socket that QEMU listens on, waiting up to `patience` for QEMU to
/// make it.
///
/// # Errors
/// What the last attempt came to.
pub(crate) fn connect(path: &Path, patience: Duration) -> std::io::Result<UnixStream> {
    let start = Instant::now();
    loop {
        match UnixStream::connect(path) {
            Err(_) if start.elapsed() < patience => std::thread::sleep(STEP),
            result => return result,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What a [`fake`] was asked, in order: each command with its arguments.
    pub(crate) type Asked = Arc<Mutex<Vec<(String, Value)>>>;

    /// A connection to a QEMU that says what `answer` makes of a command and its
    /// arguments, message by message; a `return` or `error` among them gets its number.
    pub(crate) fn fake(
        mut answer: impl FnMut(&str, &Value) -> Vec<Value> + Send + 'static,
    ) -> (Qmp, Asked) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let asked = Asked::default();
        let seen = asked.clone();
        let mut writer = theirs.try_clone().unwrap();
        writeln!(writer, "{{\"QMP\":{{}}}}").unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(theirs).lines().map_while(Result::ok) {
                let request: Value = serde_json::from_str(&line).unwrap();
                let command = request["execute"].as_str().unwrap().to_owned();
                let messages = if command == "qmp_capabilities" {
                    vec![json!({"return": {}})]
                } else {
                    let messages = answer(&command, &request["arguments"]);
                    let arguments = request["arguments"].clone();
                    seen.lock().unwrap().push((command, arguments));
                    messages
                };
                for mut message in messages {
                    if message.get("event").is_none() && message.get("id").is_none() {
                        message["id"] = request["id"].clone();
                    }
                    writeln!(writer, "{message}").unwrap();
                }
            }
        });
        (Qmp::negotiate(ours).unwrap(), asked)
    }

    /// A QEMU that does all that it is told.
    pub(crate) fn obedient() -> (Qmp, Asked) {
        fake(|_, _| vec![json!({"return": {}})])
    }

    #[test]
    fn events_are_kept_and_errors_told_apart() {
        let (mut qmp, asked) = fake(|command, _| match command {
            "a" => vec![
                json!({"event": "RESET", "data": {"n": 1}}),
                json!({"return": "another's", "id": 77}),
                json!({"return": [1]}),
            ],
            "b" => vec![json!({"error": {"class": "CommandNotFound", "desc": "no"}})],
            "c" => vec![json!({"error": {"class": "GenericError", "desc": "bad path"}})],
            _ => vec![json!({"neither": 1})],
        });
        assert_eq!(qmp.execute("a", json!({"x": 1})).unwrap(), json!([1]));
        assert!(matches!(qmp.execute("b", json!({})), Err(QmpError::Unknown(c)) if c == "b"));
        let refused = qmp.execute("c", json!({})).unwrap_err().to_string();
        assert!(refused.contains("bad path"), "{refused}");
        assert!(matches!(
            qmp.execute("d", json!({})),
            Err(QmpError::Protocol(_))
        ));
        assert_eq!(asked.lock().unwrap()[0], ("a".into(), json!({"x": 1})));

        let reset = |n: u64| move |name: &str, data: &Value| name == "RESET" && data["n"] == n;
        let moment = Duration::from_millis(50);
        assert_eq!(qmp.event(reset(2), moment).unwrap(), None);
        assert!(qmp.event(reset(1), moment).unwrap().is_some());
        assert_eq!(qmp.event(reset(1), moment).unwrap(), None);
    }

    /// What comes of a peer that says `script` whatever it is asked, and goes.
    fn scripted(script: &str) -> Result<Qmp, QmpError> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(script.as_bytes()).unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        let result = Qmp::negotiate(ours);
        // Not before: a write to nobody is an error of its own.
        drop(theirs);
        result
    }

    #[test]
    fn a_peer_without_the_greeting_is_no_qemu() {
        assert!(matches!(
            scripted("{\"hello\":1}\n"),
            Err(QmpError::Protocol(_))
        ));
        assert!(matches!(
            scripted("gibberish\n"),
            Err(QmpError::Protocol(text)) if text == "gibberish"
        ));
        let hello = "{\"QMP\":{\"version\":{}}}\n";
        assert!(matches!(scripted(hello), Err(QmpError::Io(_))));
        assert!(scripted(&format!("{hello}{{\"return\":{{}}}}\n")).is_ok());
    }

    #[test]
    fn an_event_that_comes_in_pieces_is_whole() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let hello = "{\"QMP\":{}}\n{\"return\":{}}\n{\"event\":\"DEV";
        theirs.write_all(hello.as_bytes()).unwrap();
        let mut qmp = Qmp::negotiate(ours).unwrap();
        let moment = Duration::from_millis(50);
        assert_eq!(qmp.event(|_, _| true, moment).unwrap(), None);
        theirs.write_all(b"ICE\"}\n").unwrap();
        let event = qmp.event(|name, _| name == "DEVICE", moment).unwrap();
        assert_eq!(event, Some(json!({"event": "DEVICE"})));
        drop(theirs);
        assert!(qmp.event(|_, _| true, moment).is_err());
    }
}
