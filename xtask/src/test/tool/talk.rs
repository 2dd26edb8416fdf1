//! Somebody at the serial ports of a run's guest.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::qmp;

/// How long a run may take until it says where the ports are, and until one answers.
const LIMIT: Duration = Duration::from_secs(60);

/// What a run says before the path of its console's socket.
const MARK: &str = "UNIX-CONNECT:";

/// Something that is typed at a port, and what then has to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) port: &'static str,
    pub(super) types: &'static str,
    pub(super) reads: &'static str,
}

/// Begins to talk to the guest of the run that writes this log.
pub(super) fn start(turns: &'static [Turn], log: &Path) -> JoinHandle<Result<(), String>> {
    let log = log.to_owned();
    std::thread::spawn(move || match turns {
        [] => Ok(()),
        turns => talk(turns, &console(&log)?),
    })
}

/// What came of it, once the run is over.
pub(super) fn end(talk: JoinHandle<Result<(), String>>) -> Result<(), String> {
    let ended = talk.join();
    ended.unwrap_or_else(|_| Err("whoever talked to the guest panicked".into()))
}

/// The socket of the guest's console, as the run says it.
fn console(log: &Path) -> Result<PathBuf, String> {
    let start = Instant::now();
    while start.elapsed() < LIMIT {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        // The end of the line says that the path is all there.
        let said = text.split_once(MARK).map(|(_, rest)| rest);
        if let Some((path, _)) = said.and_then(|rest| rest.split_once(char::is_whitespace)) {
            return Ok(path.into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(format!("the run does not say {MARK:?}"))
}

fn talk(turns: &[Turn], console: &Path) -> Result<(), String> {
    let mut streams = HashMap::new();
    for turn in turns {
        let failed = |why: String| format!("{} after {:?}: {why}", turn.port, turn.types);
        let stream = match streams.entry(turn.port) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let stream = connect(&sibling(console, turn.port));
                entry.insert(stream.map_err(|error| failed(error.to_string()))?)
            }
        };
        let written = stream.write_all(turn.types.as_bytes());
        written.map_err(|error| failed(error.to_string()))?;
        read_until(stream, turn.reads).map_err(failed)?;
    }
    Ok(())
}

/// The socket of another port of the same device.
fn sibling(console: &Path, port: &str) -> PathBuf {
    let name = console.file_name().unwrap_or_default().to_string_lossy();
    console.with_file_name(name.replace("-console.", &format!("-{port}.")))
}

fn connect(socket: &Path) -> std::io::Result<UnixStream> {
    let stream = qmp::connect(socket, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// Reads until the text has come, and forgets it.
fn read_until(stream: &mut UnixStream, text: &str) -> Result<(), String> {
    let (mut all, mut piece, start) = (Vec::new(), [0; 4096], Instant::now());
    while start.elapsed() < LIMIT {
        match stream.read(&mut piece) {
            Ok(0) => return Err(format!("the port closed before {text:?} came")),
            Ok(n) => all.extend(&piece[..n]),
            Err(error) => return Err(format!("{text:?} did not come: {error}")),
        }
        if String::from_utf8_lossy(&all).contains(text) {
            return Ok(());
        }
    }
    Err(format!("{text:?} did not come among {} bytes", all.len()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_other_end_has_to_answer() {
        let folder = std::env::temp_dir().join(format!("doorbell-{}-talk", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (log, socket) = (folder.join("log"), folder.join("con0-data0.sock"));
        let listener = UnixListener::bind(&socket).unwrap();
        let said = folder.join("con0-console.sock");
        std::fs::write(&log, format!("x {MARK}{} y", said.display())).unwrap();
        const TURN: Turn = Turn {
            port: "data0",
            types: "ping",
            reads: "pong",
        };
        for (answer, right) in [("po", false), ("xpong", true), ("pin", false)] {
            let talk = start(&[TURN], &log);
            let (mut stream, _) = listener.accept().unwrap();
            let mut typed = [0; 4];
            stream.read_exact(&mut typed).unwrap();
            assert_eq!(&typed, b"ping");
            stream.write_all(answer.as_bytes()).unwrap();
            drop(stream);
            assert_eq!(end(talk).is_ok(), right, "{answer}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}
