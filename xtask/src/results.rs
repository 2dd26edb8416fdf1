//! results.json: every record of a run, and the world it ran in.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::image::{self, Image};
use crate::qemu::launch::Ended;
use crate::qemu::outcome::Outcome;
use crate::qemu::{Accelerator, Options, host};
use crate::record::{Record, VERSION};

/// Everything outside the guest that a result depends on.
pub(crate) fn world(
    image: &Image,
    options: &Options,
    qemu: &Path,
    command: &[String],
    records: &[Record],
) -> Value {
    let guest = records.iter().find(|record| record.kind() == "world");
    let field = |key: &str| guest.map_or(Value::Null, |guest| guest.value()[key].clone());
    let virtualization = host::hardware_virtualization();
    json!({
        "guest": {
            "version": env!("CARGO_PKG_VERSION"),
            "git": host::first_line(
                Command::new("git")
                    .args(["describe", "--always", "--dirty", "--tags"])
                    .current_dir(image::workspace()),
            ),
            "profile": image.profile,
            "built_by": image.built_by,
            "image": image.path,
            "image_bytes": image.bytes,
            "image_sha256": image.sha256,
        },
        "qemu": host::version(qemu),
        "qemu_command": command,
        "machine": options.machine.name(),
        "firmware": options.firmware.name(),
        "cpu": cpu_option(command),
        "accelerator": options.accelerator.name(),
        "hardware_virtualization": virtualization,
        "note": note(options.accelerator, virtualization, host::is_guest()),
        "host_cpu": host::cpu_model(),
        "host_kernel": host::first_line(Command::new("uname").arg("-sr")),
        "tsc_hz": field("tsc_hz"),
        "tsc_source": field("tsc_source"),
        "tsc_step": field("tsc_step"),
        "guest_cpu": field("cpu"),
        "date": timestamp(now()),
    })
}

/// Whether `path` is a file that [`write()`] wrote.
pub(crate) fn is_ours(path: &Path) -> bool {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    serde_json::from_str(&text).is_ok_and(|found: Value| {
        found["v"].is_u64() && found["world"].is_object() && found["records"].is_array()
    })
}

/// What must be said beside every figure of this world: whether the host has hardware
/// virtualization, and is a guest itself, is in it.
pub(crate) fn note(
    accelerator: Accelerator,
    virtualization: bool,
    guest: bool,
) -> Option<&'static str> {
    match (accelerator, virtualization, guest) {
        (Accelerator::Tcg, ..) => Some("TCG: the translator's figures, not hardware's"),
        (Accelerator::Kvm, false, _) => {
            Some("KVM without hardware virtualization: not hardware's figures")
        }
        (Accelerator::Kvm, true, true) => {
            Some("KVM in a guest: another hypervisor takes each exit first")
        }
        (Accelerator::Kvm, true, false) => None,
    }
}

fn cpu_option(command: &[String]) -> Option<&str> {
    let at = command.iter().rposition(|word| word == "-cpu")?;
    command.get(at + 1).map(String::as_str)
}

/// Puts the parts together.
pub(crate) fn results(world: Value, ended: &Ended, outcome: &Outcome) -> Value {
    let records: Vec<&Value> = ended.records.iter().map(Record::value).collect();
    let malformed: Vec<String> = ended.malformed.iter().map(ToString::to_string).collect();
    json!({
        "v": VERSION,
        "world": world,
        "records": records,
        "malformed": malformed,
        "verdict": outcome.word(),
        "exit_status": outcome.exit_status(),
        "message": outcome.explain(ended),
        "qemu_exit_status": ended.status,
        "first_record_ms": ended.first_record.map(|time| time.as_secs_f64() * 1e3),
        "took_ms": ended.took.as_secs_f64() * 1e3,
    })
}

/// Writes the file whole or not at all.
///
/// # Errors
/// Whatever the file system says, with the path.
pub(crate) fn write(path: &Path, results: &Value) -> Result<()> {
    let new = path.with_extension("json.new");
    std::fs::write(&new, format!("{results:#}\n"))
        .and_then(|()| std::fs::rename(&new, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Seconds since 1970, UTC.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

/// The time as ISO 8601 writes it: `2026-11-22T11:37:49Z`.
pub(crate) fn timestamp(seconds: u64) -> String {
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a day counted from 1970-01-01.
fn date(mut day: u64) -> (u64, u64, u64) {
    let mut year = 1970;
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    (year, month, day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::launch::tests::ended;

    #[test]
    fn dates_are_the_calendars() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(timestamp(1_795_347_469), "2026-11-22T11:37:49Z");
        assert_eq!(timestamp(1_798_761_599), "2026-12-31T23:59:59Z");
        assert_eq!(timestamp(4_107_542_400), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn figures_that_are_not_hardwares_say_so() {
        assert!(note(Accelerator::Tcg, true, false).is_some());
        let emulated = note(Accelerator::Kvm, false, true).unwrap();
        assert!(emulated.contains("without hardware"));
        assert!(
            note(Accelerator::Kvm, true, true)
                .unwrap()
                .contains("in a guest")
        );
        assert_eq!(note(Accelerator::Kvm, true, false), None);
    }

    #[test]
    fn results_hold_every_record_and_the_verdict() {
        let mut ended = ended();
        ended.status = Some(35);
        ended
            .records
            .push(Record::parse(r#"{"v":1,"kind":"pci","bdf":"x"}"#).unwrap());
        ended.malformed.push(Record::parse("[]").unwrap_err());
        let results = results(json!({"machine": "q35"}), &ended, &Outcome::Fail);
        assert_eq!(results["v"], 1);
        assert_eq!(results["records"][0]["bdf"], "x");
        assert_eq!(results["world"]["machine"], "q35");
        assert_eq!(results["verdict"], "fail");
        assert_eq!(results["exit_status"], 10);
        assert_eq!(results["malformed"].as_array().unwrap().len(), 1);

        let path = std::env::temp_dir().join(format!("doorbell-{}.json", std::process::id()));
        write(&path, &results).unwrap();
        assert!(is_ours(&path));
        std::fs::write(&path, r#"{"v": 1}"#).unwrap();
        assert!(!is_ours(&path));
        std::fs::remove_file(&path).unwrap();
        assert!(!is_ours(&path));
    }

    #[test]
    fn the_last_cpu_option_counts() {
        let words = ["-cpu", "max", "-cpu", "qemu64"].map(str::to_owned);
        assert_eq!(cpu_option(&words), Some("qemu64"));
        assert_eq!(cpu_option(&words[..1]), None);
    }
}
