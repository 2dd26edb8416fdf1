//! This tool in bad worlds: each case runs `cargo xtask run` and says which exit
//! status and which words it must end with.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::World;
use super::report::Report;
use crate::qemu::host::QEMU_VARIABLE;

/// Longer than any case may take by its own options.
const LIMIT: Duration = Duration::from_secs(180);

/// One run of the tool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// After `run`; `KERNEL` and `OUT` stand for the image and a folder.
    arguments: &'static [&'static str],
    qemu: Qemu,
    input: &'static str,
    status: i32,
    /// What stdout or stderr must have in it.
    says: &'static [&'static str],
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
        self.qemu == Qemu::Real && self.arguments.contains(&"KERNEL")
    }
}

const CASE: Case = Case {
    name: "",
    arguments: &["--kernel", "KERNEL", "--out", "OUT"],
    qemu: Qemu::Real,
    input: "",
    status: 0,
    says: &[],
};

/// The table.
pub(crate) const CASES: [Case; 23] = [
    Case {
        name: "no-virtio-device-is-no-error",
        arguments: &["--no-devices", "--kernel", "KERNEL", "--out", "OUT"],
        says: &["no virtio device", "results.json"],
        ..CASE
    },
    Case {
        name: "sixteen-mib",
        arguments: &["--mem", "16", "--kernel", "KERNEL", "--out", "OUT", "lspci"],
        says: &["results.json"],
        ..CASE
    },
    // QEMU then announces the devices on the kernel's command line instead.
    Case {
        name: "microvm-without-acpi",
        arguments: &[
            "--machine",
            "microvm",
            "--qemu-arg",
            "-machine",
            "--qemu-arg",
            "acpi=off",
            "--kernel",
            "KERNEL",
            "--out",
            "OUT",
            "devices",
        ],
        says: &["virtio-blk", "mmio-v2", "doorbell-disk0", "results.json"],
        ..CASE
    },
    Case {
        name: "shell-from-a-pipe",
        arguments: &[
            "--timeout",
            "60",
            "--kernel",
            "KERNEL",
            "--out",
            "OUT",
            "shell",
        ],
        input: "lspci\nexit\n",
        says: &["00:00.0", "results.json"],
        ..CASE
    },
    Case {
        name: "guest-hangs",
        arguments: &[
            "--timeout",
            "5",
            "--kernel",
            "KERNEL",
            "--out",
            "OUT",
            "lspci; hang",
        ],
        status: 14,
        says: &["within 5 s", "`hang`", "--timeout"],
        ..CASE
    },
    Case {
        name: "guest-panics",
        arguments: &["--kernel", "KERNEL", "--out", "OUT", "crash panic"],
        status: 11,
        says: &["the guest panicked", "`crash panic`"],
        ..CASE
    },
    Case {
        name: "guest-takes-an-exception",
        arguments: &["--kernel", "KERNEL", "--out", "OUT", "crash null"],
        status: 12,
        says: &["CPU exception", "`crash null`", "results.json"],
        ..CASE
    },
    Case {
        name: "unknown-guest-command",
        arguments: &["--kernel", "KERNEL", "--out", "OUT", "nonsense"],
        status: 10,
        says: &["nonsense"],
        ..CASE
    },
    Case {
        name: "bad-guest-argument",
        arguments: &["--kernel", "KERNEL", "--out", "OUT", "doorbell rounds=many"],
        status: 10,
        says: &["rounds", "many"],
        ..CASE
    },
    Case {
        name: "bad-qemu-argument",
        arguments: &[
            "--qemu-arg",
            "-no-such-option",
            "--kernel",
            "KERNEL",
            "--out",
            "OUT",
        ],
        status: 15,
        says: &["QEMU did not start", "-no-such-option: invalid option"],
        ..CASE
    },
    Case {
        name: "unknown-option",
        arguments: &["--no-such-option"],
        status: 2,
        says: &["--no-such-option"],
        ..CASE
    },
    Case {
        name: "unknown-machine",
        arguments: &["--machine", "isapc"],
        status: 2,
        says: &["isapc", "q35"],
        ..CASE
    },
    Case {
        name: "no-memory",
        arguments: &["--mem", "0"],
        status: 2,
        says: &["--mem"],
        ..CASE
    },
    Case {
        name: "mmio-without-microvm",
        arguments: &["--mmio-version", "1"],
        status: 1,
        says: &["--mmio-version", "microvm"],
        ..CASE
    },
    Case {
        name: "missing-image",
        arguments: &["--kernel", "/no/such/image", "--out", "OUT"],
        qemu: Qemu::Script("exit 33"),
        status: 1,
        says: &["/no/such/image"],
        ..CASE
    },
    Case {
        name: "missing-qemu",
        arguments: &["--no-install", "--kernel", "/dev/null", "--out", "OUT"],
        qemu: Qemu::Missing,
        status: 1,
        says: &["qemu-system-x86_64 is not on the PATH", "--no-install"],
        ..CASE
    },
    Case {
        name: "dry-run-does-nothing",
        arguments: &[
            "--dry-run",
            "--out",
            "/no/such/folder",
            "--qemu-arg",
            "-S",
            "lspci; shell",
        ],
        qemu: Qemu::Script("exit 1"),
        says: &["-append 'lspci; shell'", "-S\n", "-smp 1,maxcpus=2"],
        ..CASE
    },
    Case {
        name: "a-pass",
        arguments: FAKE,
        qemu: Qemu::Script(r#"echo '@{"v":1,"kind":"end","verdict":"pass"}'; exit 33"#),
        says: &["hello", "results.json"],
        ..CASE
    },
    Case {
        name: "verdict-without-end-record",
        arguments: FAKE,
        qemu: Qemu::Script("exit 33"),
        status: 17,
        says: &["without an `end` record"],
        ..CASE
    },
    Case {
        name: "malformed-record",
        arguments: FAKE,
        qemu: Qemu::Script(
            r#"echo '@{"v":1,'; echo '@{"v":1,"kind":"end","verdict":"pass"}'; exit 33"#,
        ),
        status: 17,
        says: &["malformed", r#"`@{"v":1,`"#, "results.json"],
        ..CASE
    },
    Case {
        name: "qemu-dies-of-a-signal",
        arguments: FAKE,
        qemu: Qemu::Script("kill -SEGV $$"),
        status: 16,
        says: &["QEMU died of signal 11", "results.json"],
        ..CASE
    },
    Case {
        name: "guest-resets",
        arguments: FAKE,
        qemu: Qemu::Script("exit 0"),
        status: 13,
        says: &["without a verdict", "triple fault", "results.json"],
        ..CASE
    },
    Case {
        name: "kvm-gives-up",
        arguments: FAKE,
        qemu: Qemu::Script("echo 'KVM internal error. Suberror: 1' >&2; exec sleep 60"),
        status: 14,
        says: &["cannot go on", "Suberror: 1", "--accel tcg"],
        ..CASE
    },
];

const FAKE: &[&str] = &["--kernel", "/dev/null", "--no-devices", "--out", "OUT"];

/// Runs the tool and compares; its words go to `output.log`.
pub(super) fn run(case: &Case, world: &World, folder: &Path) -> Result<Report> {
    let mut report = Report::default();
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
    for &word in case.arguments {
        match word {
            "KERNEL" => command.arg(&kernel),
            "OUT" => command.arg(folder.join("out")),
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
    let (status, text) = output(&mut command, case.input, folder)?;
    report.check("", judge(case, status, &text));
    Ok(report)
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
    let (stdin, log) = (folder.join("stdin"), folder.join("output.log"));
    std::fs::write(&stdin, input).context("cannot write the input")?;
    let file = File::create(&log).context("cannot write output.log")?;
    let mut child = command
        .stdin(File::open(&stdin).context("cannot read the input")?)
        .stdout(file.try_clone().context("cannot share output.log")?)
        .stderr(file)
        .spawn()
        .context("cannot execute this tool")?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().context("cannot wait for the tool")? {
            break status.code();
        }
        if start.elapsed() > LIMIT {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
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
            ..CASE
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
