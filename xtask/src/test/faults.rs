//! Faults from outside while the unikernel runs: each case is one run in a bad world,
//! which has to end by itself, in time, and with a report of what went wrong.
//!
//! | fault | where it is tried |
//! |---|---|
//! | a disk that cannot be read; one that hardly answers | here |
//! | single bad sectors, a full disk, with others in flight | `guest/*`: blk/faults |
//! | an entropy source that goes dry | here |
//! | the link goes down under load | here |
//! | the link goes down and up, and the driver hears of it | `guest/*`: net/link |
//! | a device vanishes with requests in flight; one is asked to leave, and nobody lets it | here |
//! | a device is unplugged as PCI Express has it, with requests in flight | `guest/*`: hotplug |
//! | a device is reset by its driver, with requests in flight | `guest/*`: lifecycle, net/reset |
//! | the machine is reset under load | here |
//! | a triple fault; QEMU dies of a signal | `tool/guest-resets`, `tool/qemu-dies-of-a-signal` |
//! | a load that wants more memory than there is; more devices than can be timed in it | here |
//! | as little memory as the main job needs | `tool/sixteen-mib` |
//! | memory that the host takes back | `guest/*`: balloon |
//! | control characters, junk, and too many bytes on the command line | here |
//! | an unknown command, key or value; a command after the shell | `tool/unknown-guest-command`, `tool/bad-*`, `tool/command-after-the-shell` |
//! | bytes that are no UTF-8, or without an end, on the command line | `boot`'s own tests; fuzz target `command_line` |
//! | no ACPI; no MCFG and no ECAM | here; microvm: `tool/microvm-without-acpi` |
//! | 248 devices behind eight bridges | here |

mod cases;

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

pub(super) use self::cases::CASES;
use super::World;
use super::report::Report;
use super::running::Running;
use crate::qemu::Files;
use crate::qmp::Qmp;

/// What the tool says in a case.
const LOG: &str = "output.log";
/// After which the guest has a load in flight.
const UNDER_LOAD: &str = "Drivers take turns";
/// How much longer than it may take a case is waited for, to tell by how much.
const GRACE: Duration = Duration::from_secs(60);
/// How long QEMU may take until its socket is there.
const SOCKET: Duration = Duration::from_secs(10);

/// A run in a bad world, and how it has to end.
pub(super) struct Case {
    pub(super) name: &'static str,
    /// Options of `run`.
    options: &'static [&'static str],
    /// QEMU's own arguments, as they would be typed. `BRIDGE` stands for a bridge with
    /// 31 entropy devices, `BRIDGES` for eight.
    qemu: &'static [&'static str],
    guest: Guest,
    /// A command of QMP's and its arguments as JSON, once the guest is [`UNDER_LOAD`].
    fault: Option<(&'static str, &'static str)>,
    /// The run's exit status, by which its verdict is known.
    status: i32,
    /// Each has to be in an error record. A run that passes has no others.
    errors: &'static [&'static str],
    /// Each has to be in what the run says.
    says: &'static [&'static str],
    /// The run has to end by itself within so many seconds: several times what it takes
    /// where nothing else runs.
    within: u64,
}

/// The guest's command line.
#[derive(Clone, Copy, Debug)]
enum Guest {
    Line(&'static str),
    /// A letter, so many times.
    Junk(usize),
}

impl Guest {
    fn line(self) -> String {
        match self {
            Self::Line(line) => line.to_owned(),
            Self::Junk(bytes) => "x".repeat(bytes),
        }
    }
}

/// QEMU's arguments for many devices.
fn bridges(count: usize) -> Vec<String> {
    let mut words = vec!["-object".to_owned(), "rng-builtin,id=entropy".to_owned()];
    let mut device = |text: String| words.extend(["-device".to_owned(), text]);
    for bridge in 1..=count {
        device(format!("pci-bridge,id=bridge{bridge},chassis_nr={bridge}"));
        for slot in 1..=31 {
            device(format!(
                "virtio-rng-pci,rng=entropy,bus=bridge{bridge},addr={slot:#x}.0"
            ));
        }
    }
    words
}

/// Runs the guest, does it harm, and looks at what the run left.
pub(super) fn run(case: &Case, world: &World, folder: &Path) -> Result<Report> {
    let mut report = Report::default();
    let kernel = match &world.kernel {
        Ok(kernel) => kernel,
        Err(why) => {
            report.fail("", why.as_str());
            return Ok(report);
        }
    };
    let files = Files::new(folder.join("out"))?;
    let socket = files.socket("fault");
    let mut qemu: Vec<String> = Vec::new();
    for &word in case.qemu {
        match word {
            "BRIDGE" => qemu.extend(bridges(1)),
            "BRIDGES" => qemu.extend(bridges(8)),
            word => qemu.push(word.to_owned()),
        }
    }
    if case.fault.is_some() {
        qemu.push("-qmp".to_owned());
        qemu.push(format!("unix:{},server=on,wait=off", socket.display()));
    }
    let log = folder.join(LOG);
    let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let begun = Instant::now();
    let child = Command::new(&world.tool)
        .arg("run")
        .args(case.options)
        .arg("--kernel")
        .arg(&kernel.path)
        .arg("--out")
        .arg(folder.join("out"))
        .args(qemu.iter().map(|word| format!("--qemu-arg={word}")))
        .arg(case.guest.line())
        .stdin(Stdio::null())
        .stdout(output.try_clone().context("cannot share the log")?)
        .stderr(output)
        .spawn()
        .context("cannot execute this tool")?;
    let mut running = Running(child);
    let limit = Duration::from_secs(case.within) + GRACE;
    if let Some((command, arguments)) = case.fault {
        let arguments = serde_json::from_str(arguments).context("the fault's arguments")?;
        let under_load = running.wait(limit, |ended| {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let answer = said.contains(UNDER_LOAD).then_some(true);
            Ok(answer.or(ended.map(|_| false)))
        })?;
        let done = match under_load {
            Some(true) => strike(&socket, command, arguments),
            _ => Err("the guest was never under load".to_owned()),
        };
        report.check("fault", done);
    }
    let ended = running.wait(limit, Ok)?;
    let took = begun.elapsed();
    let Some(ended) = ended else {
        report.fail("", format!("it did not end within {} s", limit.as_secs()));
        return Ok(report);
    };
    report.check("time", in_time(took, case.within));
    let text = std::fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let text = String::from_utf8_lossy(&text);
    let results = std::fs::read_to_string(files.results())
        .map_err(|error| format!("there are no results: {error}"))
        .and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string()));
    report.check(
        "report",
        results.and_then(|results| judge(case, ended.code(), &results, &text)),
    );
    Ok(report)
}

/// Does the harm.
fn strike(socket: &Path, command: &str, arguments: Value) -> Result<(), String> {
    let why = |error: crate::qmp::QmpError| error.to_string();
    let mut qmp = Qmp::connect(socket, SOCKET).map_err(why)?;
    qmp.execute(command, arguments).map(drop).map_err(why)
}

fn in_time(took: Duration, within: u64) -> Result<(), String> {
    if took <= Duration::from_secs(within) {
        return Ok(());
    }
    Err(format!(
        "it took {:.1} s, and not {within} s at most",
        took.as_secs_f64()
    ))
}

/// The verdict that goes with an exit status.
fn verdict(status: i32) -> &'static str {
    match status {
        0 => "pass",
        10 => "fail",
        13 => "no-verdict",
        _ => "another",
    }
}

/// Whether the run's status and what it left are as they have to be.
fn judge(case: &Case, status: Option<i32>, results: &Value, text: &str) -> Result<(), String> {
    if status != Some(case.status) {
        let last = text.lines().rfind(|line| line.starts_with("doorbell: "));
        return Err(format!(
            "exit status {status:?}, not {}; it says: {}",
            case.status,
            last.unwrap_or_default()
        ));
    }
    let wanted = json!([verdict(case.status), case.status]);
    let found = json!([results["verdict"], results["exit_status"]]);
    if found != wanted {
        return Err(format!("results.json has {found}, not {wanted}"));
    }
    let records = results["records"].as_array().into_iter().flatten();
    let errors: Vec<String> = records
        .filter(|record| record["kind"] == "error")
        .map(|record| {
            let field = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
            format!("{}: {}", field("what"), field("message"))
        })
        .collect();
    for words in case.errors {
        if !errors.iter().any(|error| error.contains(words)) {
            return Err(format!("no error record says {words:?}, but {errors:?}"));
        }
    }
    let unexpected = |error: &&String| !case.errors.iter().any(|words| error.contains(words));
    if case.status == 0
        && let Some(error) = errors.iter().find(unexpected)
    {
        return Err(format!("an error record says {error:?}"));
    }
    match case.says.iter().find(|words| !text.contains(**words)) {
        None => Ok(()),
        Some(words) => Err(format!("its {LOG} does not say {words:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CASE: Case = Case {
        name: "",
        options: &[],
        qemu: &[],
        guest: Guest::Line("blk"),
        fault: None,
        status: 10,
        errors: &["blk: an IO error"],
        says: &["turns"],
        within: 5,
    };

    #[test]
    fn a_report_is_more_than_an_exit_status() {
        let error = json!({"kind": "error", "what": "blk", "message": "an IO error"});
        let results = |verdict: &str, records: Value| json!({"verdict": verdict, "exit_status": 10, "records": records});
        let right = results("fail", json!([{"kind": "boot"}, error]));
        assert_eq!(judge(&CASE, Some(10), &right, "in turns"), Ok(()));
        for (status, results, text, why) in [
            (Some(14), right.clone(), "in turns", "exit status Some(14)"),
            (None, right.clone(), "in turns", "exit status None"),
            (
                Some(10),
                results("pass", json!([error])),
                "in turns",
                "results.json has",
            ),
            (
                Some(10),
                results("fail", json!([])),
                "in turns",
                "no error record",
            ),
            (Some(10), right.clone(), "in vain", "does not say \"turns\""),
        ] {
            let found = judge(&CASE, status, &results, text).unwrap_err();
            assert!(found.contains(why), "{found}");
        }
        let pass = Case {
            status: 0,
            errors: &[],
            ..CASE
        };
        let passed = json!({"verdict": "pass", "exit_status": 0, "records": [error]});
        let found = judge(&pass, Some(0), &passed, "in turns").unwrap_err();
        assert!(found.contains("an error record says"), "{found}");
    }

    #[test]
    fn time_is_bounded() {
        assert_eq!(in_time(Duration::from_millis(4999), 5), Ok(()));
        assert!(in_time(Duration::from_millis(5001), 5).is_err());
    }

    #[test]
    fn there_are_so_many_devices() {
        let words = bridges(8);
        let devices = words.iter().filter(|word| word.starts_with("virtio-rng"));
        assert_eq!(devices.count(), 248);
        assert!(
            words
                .iter()
                .any(|word| word.contains("bus=bridge8,addr=0x1f.0"))
        );
    }
}
