//! Asks QEMU over QMP, while a guest runs, which features its driver accepted, and ends
//! QEMU when the guest has given its proof.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::qmp::{self, Qmp, QmpError};

/// How often QEMU is asked.
const STEP: Duration = Duration::from_millis(100);
/// What a driver accepts that knows virtio 1.0 (virtio 1.2, 6.1).
const VERSION_1: &str = "VIRTIO_F_VERSION_1";
const DRIVER_OK: &str = "VIRTIO_CONFIG_S_DRIVER_OK";

/// A device under its driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Driven {
    /// Whether by the interface of virtio 1.0, not the legacy one.
    pub(super) modern: bool,
    /// Those that the driver accepted.
    pub(super) features: Vec<String>,
}

/// What QEMU said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Watched {
    /// The device as it was last driven; `None` if it never was.
    pub(super) driven: Option<Driven>,
    /// Why QEMU has nothing to say, if that is so.
    pub(super) silent: Option<String>,
}

/// Between the run and who watches it.
#[derive(Debug, Default)]
pub(super) struct Flags {
    /// The guest has given its proof.
    pub(super) proved: AtomicBool,
    /// QEMU is gone.
    pub(super) over: AtomicBool,
}

/// Watches the device with this `id=` until QEMU ends, or ends it.
pub(super) fn watch(socket: &Path, id: &str, flags: &Flags) -> Watched {
    while !flags.over.load(Ordering::Relaxed) {
        match Qmp::connect(socket, STEP) {
            Ok(mut qmp) => return follow(&mut qmp, id, flags),
            Err(_) => std::thread::sleep(STEP),
        }
    }
    Watched::default()
}

fn follow(qmp: &mut Qmp, id: &str, flags: &Flags) -> Watched {
    let mut watched = Watched::default();
    while !flags.over.load(Ordering::Relaxed) {
        // Looked at first: an answer that comes after is about a guest that has proved.
        let proved = flags.proved.load(Ordering::Relaxed);
        match ask(qmp, id) {
            Ok(driven) => watched.driven = driven.or(watched.driven),
            Err(error @ (QmpError::Unknown(_) | QmpError::Refused { .. })) => {
                watched.silent = Some(error.to_string());
            }
            // QEMU ends.
            Err(_) => break,
        }
        if proved {
            let _ = qmp.execute("quit", json!({}));
            break;
        }
        std::thread::sleep(STEP);
    }
    watched
}

/// The device as it is driven now.
fn ask(qmp: &mut Qmp, id: &str) -> Result<Option<Driven>, QmpError> {
    let list = qmp.execute("x-query-virtio", json!({}))?;
    let mut paths = list.as_array().into_iter().flatten();
    let path = paths.find_map(|device| {
        let path = device["path"].as_str()?;
        path.split('/').any(|part| part == id).then_some(path)
    });
    let Some(path) = path else { return Ok(None) };
    let status = qmp.execute("x-query-virtio-status", json!({"path": path}))?;
    Ok(driven(&status))
}

fn driven(status: &Value) -> Option<Driven> {
    let statuses = qmp::names(&status["status"]["statuses"]);
    if !statuses.contains(DRIVER_OK) {
        return None;
    }
    let accepted = &status["guest-features"];
    let mut features = qmp::names(&accepted["transports"]);
    features.extend(qmp::names(&accepted["dev-features"]));
    Some(Driven {
        modern: features.contains(VERSION_1),
        features: features.into_iter().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qmp::tests::fake;

    fn status(names: &[&str], features: &[&str]) -> Value {
        json!({
            "status": {"statuses": names},
            "guest-features": {"transports": features, "dev-features": ["VIRTIO_BLK_F_FLUSH: x"]},
        })
    }

    #[test]
    fn a_device_is_driven_from_driver_ok_on() {
        let ready = ["VIRTIO_CONFIG_S_DRIVER: x", "VIRTIO_CONFIG_S_DRIVER_OK: x"];
        assert_eq!(driven(&status(&ready[..1], &[])), None);
        let legacy = driven(&status(&ready, &[])).unwrap();
        assert_eq!((legacy.modern, legacy.features.len()), (false, 1));
        let modern = driven(&status(&ready, &["VIRTIO_F_VERSION_1: Device"])).unwrap();
        assert!(modern.modern);
    }

    #[test]
    fn a_device_that_was_driven_stays_so_and_a_proof_ends_qemu() {
        let mut asked = 0;
        let flags = std::sync::Arc::new(Flags::default());
        let theirs = flags.clone();
        let (mut qmp, log) = fake(move |command, _| match command {
            "x-query-virtio" => {
                let path = "/machine/peripheral/device0/virtio-backend";
                vec![json!({"return": [{"path": "/machine/x"}, {"path": path}]})]
            }
            "x-query-virtio-status" => {
                asked += 1;
                // Driven once, and reset by who came next.
                theirs.proved.store(asked == 2, Ordering::Relaxed);
                let names: &[&str] = if asked == 1 { &[DRIVER_OK] } else { &[] };
                vec![json!({"return": status(names, &["VIRTIO_F_VERSION_1"])})]
            }
            _ => vec![json!({"return": {}})],
        });
        let watched = follow(&mut qmp, "device0", &flags);
        assert!(watched.driven.unwrap().modern);
        assert_eq!(log.lock().unwrap().last().unwrap().0, "quit");
    }

    #[test]
    fn a_qemu_without_the_question_still_ends_at_the_proof() {
        let flags = Flags::default();
        flags.proved.store(true, Ordering::Relaxed);
        let (mut qmp, log) = fake(|command, _| match command {
            "quit" => vec![json!({"return": {}})],
            _ => vec![json!({"error": {"class": "CommandNotFound", "desc": "no"}})],
        });
        let watched = follow(&mut qmp, "device0", &flags);
        assert_eq!(watched.driven, None);
        assert!(watched.silent.unwrap().contains("x-query-virtio"));
        assert_eq!(log.lock().unwrap().len(), 2);
    }
}
