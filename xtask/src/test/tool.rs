//! This tool in bad worlds: each case runs `cargo xtask run` and says which exit
//! status and which words it must end with.

mod cases;
mod talk;

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

pub(crate) use self::cases::CASES;
use self::talk::Turn;
use super::report::Report;
use super::running::Running;
use super::{World, paths};
use crate::qemu::Machine;
use crate::qemu::host::{QEMU_VARIABLE, open_kvm};

/// What the tool says in a case.
const LOG: &str = "output.log";

/// Longer than any case may take by its own options.
const LIMIT: Duration = Duration::from_secs(180);

/// One run of the tool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// After `run`. `KERNEL` stands for the image, `OUT` for a folder that isn't
    /// there yet, `FOREIGN` for one with somebody's `serial.log` in it.
    start: &'static [&'static str],
    /// After those.
    arguments: &'static [&'static str],
    qemu: Qemu,
    input: &'static str,
    status: i32,
    /// What stdout or stderr must have in it.
    says: &'static [&'static str],
    /// What is said at the guest's serial ports meanwhile.
    talk: &'static [Turn],
    /// How often each path of q35 must have been timed, by `results.json`; 0 for
    /// no look at it.
    times: u64,
}

/// Which QEMU the tool finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Qemu {
    Real,
    /// None on the PATH.
    Missing,
    /// A shell script in its place, after the first records.
    Script(&'static str),
}

impl Case {
    /// Whether it needs the unikernel.
    pub(crate) fn boots(&self) -> bool {
        self.qemu == Qemu::Real && self.start.contains(&"KERNEL")
    }

    pub(super) fn takes_kvm(&self) -> bool {
        self.arguments.contains(&"kvm")
    }
}

/// Runs the tool and compares; its words go to [`LOG`].
pub(super) fn run(case: &Case, world: &World, folder: &Path) -> Result<Report> {
    let mut report = Report::default();
    if case.takes_kvm()
        && let Err(error) = open_kvm()
    {
        report.skip("", format!("cannot open /dev/kvm: {error}"));
        return Ok(report);
    }
    let kernel = match (&world.kernel, case.boots()) {
        (Ok(image), _) => image.path.clone(),
        (Err(why), true) => {
            report.fail("", why.as_str());
            return Ok(report);
        }
        (Err(_), false) => "/dev/null".into(),
    };
    let mut command = Command::new(&world.tool);
    command.arg("run");
    for &word in case.start.iter().chain(case.arguments) {
        match word {
            "KERNEL" => command.arg(&kernel),
            "OUT" => command.arg(folder.join("out")),
            "FOREIGN" => command.arg(foreign(folder)?),
            word => command.arg(word),
        };
    }
    command.env_remove(QEMU_VARIABLE);
    match case.qemu {
        Qemu::Real => {}
        Qemu::Missing => {
            command.env("PATH", folder);
        }
        Qemu::Script(script) => {
            let path = folder.join("qemu.sh");
            write_script(&path, script)?;
            command.env(QEMU_VARIABLE, path);
        }
    }
    let talk = talk::start(case.talk, &folder.join(LOG));
    let (status, text) = output(&mut command, case.input, folder)?;
    report.check("", judge(case, status, &text));
    if !case.talk.is_empty() {
        report.check("talk", talk::end(talk));
    }
    if case.times > 0 {
        let results = folder.join("out/results.json");
        report.check("table", table(&results, case.times));
    }
    Ok(report)
}

/// Looks for every row of the doorbell table of q35's default devices.
fn table(results: &Path, times: u64) -> Result<(), String> {
    let text = std::fs::read_to_string(results)
        .map_err(|error| format!("cannot read {}: {error}", results.display()))?;
    let results: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let records = results["records"].as_array().into_iter().flatten();
    paths::timed(Machine::Q35, 2, times, records)
}

/// A folder in which a file is that the tool would write, but did not.
fn foreign(folder: &Path) -> Result<PathBuf> {
    let foreign = folder.join("foreign");
    std::fs::create_dir_all(&foreign)
        .and_then(|()| std::fs::write(foreign.join("serial.log"), "precious"))
        .with_context(|| format!("cannot write into {}", foreign.display()))?;
    Ok(foreign)
}

fn write_script(path: &Path, script: &str) -> Result<()> {
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && exit 0\necho hello\n\
         echo '@{{\"v\":1,\"kind\":\"boot\"}}'\n{script}\n"
    );
    std::fs::write(path, text)
        .and_then(|()| std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The exit status (none if it took too long or died of a signal) and all words.
fn output(command: &mut Command, input: &str, folder: &Path) -> Result<(Option<i32>, String)> {
    let (stdin, log) = (folder.join("stdin"), folder.join(LOG));
    std::fs::write(&stdin, input).context("cannot write the input")?;
    let file = File::create(&log).context("cannot write output.log")?;
    let child = command
        .stdin(File::open(&stdin).context("cannot read the input")?)
        .stdout(file.try_clone().context("cannot share output.log")?)
        .stderr(file)
        .spawn()
        .context("cannot execute this tool")?;
    let ended = Running(child).wait(LIMIT, Ok)?;
    let status = ended.and_then(|status| status.code());
    let text = std::fs::read(&log).context("cannot read output.log")?;
    Ok((status, String::from_utf8_lossy(&text).into_owned()))
}

fn judge(case: &Case, status: Option<i32>, text: &str) -> Result<(), String> {
    if status != Some(case.status) {
        let ours = text.lines().rfind(|line| line.starts_with("doorbell: "));
        let last = ours.or(text.lines().last()).unwrap_or_default();
        return Err(match status {
            Some(status) => format!(
                "exit status {status}, expected {}; it says: {last}",
                case.status
            ),
            None => format!("no exit status, expected {}; it says: {last}", case.status),
        });
    }
    match case.says.iter().find(|words| !text.contains(**words)) {
        None => Ok(()),
        Some(words) => Err(format!("its output.log does not say {words:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_words_must_both_be_right() {
        let case = Case {
            status: 14,
            says: &["`hang`"],
            ..CASES[0]
        };
        assert_eq!(judge(&case, Some(14), "in `hang`"), Ok(()));
        assert!(
            judge(&case, Some(0), "in `hang`")
                .unwrap_err()
                .contains("expected 14")
        );
        assert!(judge(&case, None, "in `hang`").is_err());
        assert!(judge(&case, Some(14), "in `lspci`").is_err());
    }
}
