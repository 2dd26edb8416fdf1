//! A small QMP client: QEMU's own word about its devices, over a Unix socket.
//! The protocol is QEMU's docs/interop/qmp-spec: a greeting, then
//! `qmp_capabilities`, then commands; events may stand between.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(20);

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
pub(crate) struct Qmp<S = UnixStream> {
    reader: BufReader<S>,
    writer: S,
}

impl Qmp {
    /// Connects to the socket that QEMU listens on, waiting up to `patience`
    /// for QEMU to make it.
    ///
    /// # Errors
    /// When there is no QEMU behind it.
    pub(crate) fn connect(path: &Path, patience: Duration) -> Result<Self, QmpError> {
        let start = Instant::now();
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(error) if start.elapsed() >= patience => return Err(error.into()),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        let writer = stream.try_clone()?;
        Self::negotiate(stream, writer)
    }
}

impl<S: std::io::Read + Write> Qmp<S> {
    fn negotiate(reader: S, writer: S) -> Result<Self, QmpError> {
        let mut qmp = Self {
            reader: BufReader::new(reader),
            writer,
        };
        let greeting = qmp.message()?;
        if greeting.get("QMP").is_none() {
            return Err(QmpError::Protocol(greeting.to_string()));
        }
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs one command and returns what it returns; events are skipped.
    ///
    /// # Errors
    /// See [`QmpError`].
    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let request = json!({"execute": command, "arguments": arguments});
        writeln!(self.writer, "{request}")?;
        self.writer.flush()?;
        loop {
            let mut message = self.message()?;
            if message.get("event").is_some() {
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

    fn message(&mut self) -> Result<Value, QmpError> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
        serde_json::from_str(&line).map_err(|_| QmpError::Protocol(line.trim_end().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `f` against a peer that says `script` whatever it is asked.
    fn with_peer<T>(
        script: &'static str,
        f: impl FnOnce(Result<Qmp, QmpError>) -> T,
    ) -> (T, String) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(script.as_bytes()).unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        let writer = ours.try_clone().unwrap();
        let result = f(Qmp::negotiate(ours, writer));
        let mut asked = String::new();
        std::io::Read::read_to_string(&mut theirs, &mut asked).unwrap();
        (result, asked)
    }

    const HELLO: &str = "{\"QMP\":{\"version\":{}}}\n{\"return\":{}}\n";

    #[test]
    fn events_are_skipped_and_errors_told_apart() {
        let script = concat!(
            "{\"QMP\":{\"version\":{}}}\n{\"return\":{}}\n",
            "{\"event\":\"RESET\",\"data\":{}}\n{\"return\":[1]}\n",
            "{\"error\":{\"class\":\"CommandNotFound\",\"desc\":\"no\"}}\n",
            "{\"error\":{\"class\":\"GenericError\",\"desc\":\"bad path\"}}\n",
            "gibberish\n",
        );
        let ((), asked) = with_peer(script, |qmp| {
            let mut qmp = qmp.unwrap();
            assert_eq!(qmp.execute("a", json!({"x": 1})).unwrap(), json!([1]));
            assert!(matches!(qmp.execute("b", json!({})), Err(QmpError::Unknown(c)) if c == "b"));
            let refused = qmp.execute("c", json!({})).unwrap_err().to_string();
            assert!(refused.contains("bad path"), "{refused}");
            assert!(matches!(
                qmp.execute("d", json!({})),
                Err(QmpError::Protocol(_))
            ));
            assert!(matches!(qmp.execute("e", json!({})), Err(QmpError::Io(_))));
        });
        let first = asked.lines().next().unwrap();
        assert!(
            first.contains("\"execute\":\"qmp_capabilities\""),
            "{first}"
        );
        assert!(asked.contains("\"arguments\":{\"x\":1}"));
    }

    #[test]
    fn a_peer_without_the_greeting_is_no_qemu() {
        let (result, _) = with_peer("{\"hello\":1}\n", |qmp| qmp.map(drop));
        assert!(matches!(result, Err(QmpError::Protocol(_))));
        let (result, _) = with_peer(HELLO, |qmp| qmp.map(drop));
        assert!(result.is_ok());
    }
}
