//! Guests that nobody here wrote: each is booted with the cell's devices, and told by its
//! own output and by what QMP says of its device.
//!
//! A guest works if it prints a record ([`proof`]) that it can only have read through its
//! virtio driver. It fails if it says itself ([`own`]) that it found nothing to read; any
//! other end tells nothing. Which interface that driver took is QMP's word ([`mod@watch`]), beside the
//! guest's own where it says so ([`own`]).

mod guests;
mod initrd;
mod own;
mod proof;
mod watch;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

pub(crate) use self::guests::Guests;
use self::guests::{KINDS, Kind, Ready};
use self::own::Own;
use self::watch::{Flags, Watched, watch};
use super::firmware;
use super::plan::Cell;
use crate::qemu::input::Input;
use crate::qemu::launch::{Echo, Ended, Launch, launch};
use crate::qemu::outcome::Outcome;
use crate::qemu::{self, Files, Firmware, escape};
use crate::record::Record;

/// The device that is watched: a cell's first.
const DEVICE: &str = "device0";
/// A guest may go on talking for so many times the silence that ends it.
const LONGEST: u32 = 3;

/// What was seen of a guest.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    /// `pass` if the guest did what it is there for, `fail` if it says itself that it could
    /// not, else a word that says what became of it.
    pub(crate) verdict: String,
    pub(crate) message: Option<String>,
    pub(crate) took: Duration,
    /// What was observed, as records.
    pub(crate) records: Vec<Value>,
}

/// The names that the axis `guest` may have.
pub(crate) fn names() -> [&'static str; 5] {
    KINDS.map(|(name, _)| name)
}

/// Boots the guest that the cell's axis `guest` names; `None` if it was interrupted.
///
/// # Errors
/// When a file cannot be written. What the guest does is no error.
pub(crate) fn run(
    qemu: &Path,
    guests: &Guests<'_>,
    cell: &Cell,
    files: &Files,
    silence: Duration,
) -> Result<Option<Seen>> {
    let name = cell.labels.get("guest").map_or("", String::as_str);
    let ready = guests.ready(name).map_err(anyhow::Error::msg)?;
    let socket = files.socket("watch");
    let mut options = cell.options.clone();
    options.firmware = Firmware::Seabios;
    options.extra = ready.arguments(files)?;
    let path = escape(&socket.to_string_lossy());
    let server = format!("unix:{path},server=on,wait=off");
    options.extra.extend(["-qmp".to_owned(), server]);
    options.extra.extend(cell.options.extra.iter().cloned());
    let kernel = ready.kernel.as_deref();
    let command = qemu::command_line(qemu, kernel, &options, files, &ready.words, false)?;
    let flags = Flags::default();
    let run = Launch {
        command: &command,
        files,
        firmware: Some(firmware::log(files)),
        silence: Some(silence),
        total: Some(silence * LONGEST),
        input: Input::Nothing,
        echo: Echo::Nobody,
    };
    let (ended, watched) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(&socket, DEVICE, &flags));
        let ended = launch(&run, &mut |record, _| {
            if record.kind() == proof::KIND {
                flags.proved.store(true, Ordering::Relaxed);
            }
            None
        });
        flags.over.store(true, Ordering::Relaxed);
        let watched = watcher.join().unwrap_or_default();
        ended.map(|ended| (ended, watched))
    })?;
    // QEMU removes it itself, unless it was killed.
    let _ = std::fs::remove_file(&socket);
    if Outcome::of(&ended) == Outcome::Interrupted {
        return Ok(None);
    }
    let log = |path| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
    let own = Own::read(
        ready.kind,
        &log(files.serial()),
        &log(firmware::log(files)),
        &ended.records,
    );
    Ok(Some(judge(name, &ready, &ended, &watched, &own)))
}

fn interface(modern: bool) -> &'static str {
    if modern { "modern" } else { "legacy" }
}

/// Puts together what is known of a run.
fn judge(name: &str, ready: &Ready, ended: &Ended, watched: &Watched, own: &Own) -> Seen {
    let works = ended
        .records
        .iter()
        .any(|record| record.kind() == proof::KIND);
    let qmp = watched
        .driven
        .as_ref()
        .map(|driven| interface(driven.modern));
    let said = own.modern.map(interface);
    // What took the device of a guest that failed may be the firmware before it.
    let found = qmp.or(said).filter(|_| works);
    let by = match (qmp, said) {
        _ if found.is_none() => None,
        (Some(_), Some(_)) => Some("QMP and the guest"),
        (Some(_), None) => Some("QMP"),
        _ => Some("the guest"),
    };
    let outcome = Outcome::of(ended);
    let stopped = match (&watched.driven, &watched.silent) {
        _ if outcome == Outcome::NotStarted => "QEMU did not start".to_owned(),
        (Some(driven), _) => format!(
            "no proof came; the device's last driver was a {} one",
            interface(driven.modern)
        ),
        (None, Some(silent)) => format!("no proof came, and {silent}"),
        (None, None) => "no proof came, and no driver took the device".to_owned(),
    };
    let (verdict, message) = match (qmp, said) {
        _ if !works => {
            let word = match own.failed {
                Some(_) => "fail",
                None => outcome.word(),
            };
            let explained = match outcome {
                Outcome::NotStarted => outcome.explain(ended),
                _ => {
                    let line = own.failed.as_deref().unwrap_or(&own.serial_end);
                    Some(format!("{stopped}; its last line: {}", last(line)))
                }
            };
            (word.to_owned(), explained)
        }
        (Some(qmp), Some(said)) if qmp != said => {
            let message = format!("QMP says that the driver is {qmp}, and the guest says {said}");
            ("contradiction".to_owned(), Some(message))
        }
        _ => ("pass".to_owned(), None),
    };
    // Of a guest that works.
    let unknown = match (found, &watched.silent) {
        (Some(_), _) => None,
        (None, Some(silent)) => Some(silent.as_str()),
        (None, None) => Some("QMP saw no driver at the device"),
    };
    let features = watched.driven.as_ref().map(|driven| &driven.features);
    let mut records: Vec<Value> = ended.records.iter().map(Record::value).cloned().collect();
    records.push(json!({
        "v": 1,
        "kind": "real-guest",
        "guest": name,
        "version": version(own.version.as_deref(), ready.version.as_deref()),
        "works": works,
        "interface": found,
        "by": by,
        "unknown": unknown.filter(|_| works),
        "told": (ready.kind == Kind::LinuxLegacy).then_some("legacy"),
        "said": own.said,
        "features": features.filter(|_| works),
        "failed": own.failed.as_ref().filter(|_| !works),
        "stopped": (!works).then_some(stopped),
    }));
    Seen {
        verdict,
        message,
        took: ended.took,
        records,
    }
}

/// What the guest says of itself, and the version of the package that it is from.
fn version(own: Option<&str>, package: Option<&str>) -> Option<String> {
    match (own, package) {
        (Some(own), Some(package)) => Some(format!("{own}, package {package}")),
        (one, other) => one.or(other).map(str::to_owned),
    }
}

fn last(line: &str) -> &str {
    if line.is_empty() { "(none)" } else { line }
}

#[cfg(test)]
mod tests {
    use super::watch::Driven;
    use super::*;
    use crate::qemu::launch::tests::ended;

    fn ready() -> Ready {
        let mut ready = Ready::bare(Kind::Seabios);
        ready.version = Some("1.16".into());
        ready
    }

    fn driven(modern: bool) -> Watched {
        let features = vec!["VIRTIO_BLK_F_FLUSH".to_owned()];
        Watched {
            driven: Some(Driven { modern, features }),
            silent: None,
        }
    }

    fn judged(proved: bool, watched: &Watched, modern: Option<bool>) -> (Seen, Value) {
        judged_by(proved, watched, modern, None)
    }

    fn judged_by(
        proved: bool,
        watched: &Watched,
        modern: Option<bool>,
        failed: Option<&str>,
    ) -> (Seen, Value) {
        let mut ended = ended();
        ended.status = Some(0);
        if proved {
            let record = Record::parse(r#"{"v":1,"kind":"proof","from":"disk"}"#).unwrap();
            ended.records.push(record);
        }
        let own = Own {
            modern,
            failed: failed.map(str::to_owned),
            serial_end: "Booting from Hard Disk...".into(),
            ..Own::default()
        };
        let seen = judge("seabios", &ready(), &ended, watched, &own);
        let found = seen.records.last().unwrap().clone();
        (seen, found)
    }

    #[test]
    fn a_guest_works_that_gave_its_proof_by_the_interface_that_qmp_names() {
        let (seen, found) = judged(true, &driven(true), Some(true));
        assert_eq!(seen.verdict, "pass");
        assert_eq!(found["interface"], "modern");
        assert_eq!(found["by"], "QMP and the guest");
        assert_eq!(found["version"], "1.16");
        let (_, found) = judged(true, &driven(false), None);
        assert_eq!(
            (&found["interface"], &found["by"]),
            (&json!("legacy"), &json!("QMP"))
        );
        let (_, found) = judged(true, &Watched::default(), Some(false));
        assert_eq!(found["by"], "the guest");
        let (seen, found) = judged(true, &Watched::default(), None);
        assert_eq!(seen.verdict, "pass");
        assert_eq!(found["interface"], Value::Null);
        assert_eq!(found["unknown"], "QMP saw no driver at the device");
        let silent = Some("CommandNotFound: x-query-virtio".to_owned());
        let watched = Watched {
            driven: None,
            silent,
        };
        let (_, found) = judged(true, &watched, None);
        assert_eq!(found["unknown"], "CommandNotFound: x-query-virtio");
        let both = version(Some("Linux 6.1"), Some("6.1-2"));
        assert_eq!(both.as_deref(), Some("Linux 6.1, package 6.1-2"));
        assert_eq!(version(None, None), None);
    }

    #[test]
    fn a_guest_without_proof_fails_and_says_how_far_it_came() {
        let (seen, found) = judged(false, &driven(false), Some(false));
        assert_eq!(seen.verdict, "no-verdict");
        assert_eq!(
            (&found["works"], &found["interface"]),
            (&json!(false), &Value::Null)
        );
        let message = seen.message.unwrap();
        assert!(
            message.contains("last driver was a legacy one"),
            "{message}"
        );
        assert!(message.contains("Booting from Hard Disk..."), "{message}");
        let (_, found) = judged(false, &Watched::default(), None);
        assert!(
            found["stopped"]
                .as_str()
                .unwrap()
                .contains("no driver took")
        );
    }

    #[test]
    fn a_guest_fails_only_by_its_own_words() {
        let words = Some("No bootable device.");
        let (seen, found) = judged_by(false, &driven(true), None, words);
        assert_eq!(seen.verdict, "fail");
        assert_eq!(found["failed"], "No bootable device.");
        assert!(seen.message.unwrap().ends_with("No bootable device."));
        // What comes after the proof is no failure.
        let (seen, found) = judged_by(true, &driven(true), None, words);
        assert_eq!(
            (seen.verdict.as_str(), &found["failed"]),
            ("pass", &Value::Null)
        );
    }

    #[test]
    fn two_witnesses_that_differ_are_no_pass() {
        let (seen, _) = judged(true, &driven(true), Some(false));
        assert_eq!(seen.verdict, "contradiction");
        assert!(
            seen.message
                .unwrap()
                .contains("QMP says that the driver is modern")
        );
    }
}
