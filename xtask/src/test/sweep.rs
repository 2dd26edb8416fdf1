//! `cargo xtask experiment` and `compare` as a user meets them: a file of one's own, a
//! sweep that is interrupted or finds the disk full, mistakes, and results that are
//! corrupt.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::World;
use super::report::Report;
use super::running::Running;

/// How long a call of the tool may take.
const LIMIT: Duration = Duration::from_secs(120);

/// An experiment of two cells that takes a moment.
const QUICK: &str = r#"
title = "What is on the bus?"
claim = "There is a device."
false-if = "there is none"
takes = "a second"
boots = 3
timed = false
commands = "devices"

[axes]
machine = ["q35"]
model = ["transitional", "non-transitional"]

[[device]]
qemu = "virtio-rng-pci-{model}"
"#;

/// One story.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    run: fn(&Stage<'_>, &mut Report) -> Result<()>,
}

/// All cases.
pub(crate) const CASES: [Case; 5] = [
    Case {
        name: "a-file-of-ones-own",
        run: own_file,
    },
    Case {
        name: "interrupted-and-resumed",
        run: interrupted,
    },
    Case {
        name: "full-disk",
        run: full_disk,
    },
    Case {
        name: "mistakes",
        run: mistakes,
    },
    Case {
        name: "what-qemu-lacks",
        run: lacks,
    },
];

/// Runs a story.
pub(super) fn run(case: &Case, world: &World, folder: &Path) -> Result<Report> {
    let mut report = Report::default();
    match &world.kernel {
        Ok(kernel) => {
            let stage = Stage {
                tool: &world.tool,
                kernel: &kernel.path,
                folder,
            };
            (case.run)(&stage, &mut report)?;
        }
        Err(why) => report.fail("", why.as_str()),
    }
    Ok(report)
}

/// Where a story is played.
struct Stage<'a> {
    tool: &'a Path,
    kernel: &'a Path,
    folder: &'a Path,
}

/// What the tool said, and its exit status.
struct Said {
    status: Option<i32>,
    text: String,
}

impl Said {
    /// Whether it ended so, and said all of this.
    fn is(&self, status: i32, words: &[&str]) -> Result<(), String> {
        if self.status != Some(status) {
            let (found, last) = (self.status, self.text.lines().last());
            return Err(format!("exit status {found:?}, not {status}: {last:?}"));
        }
        match words.iter().find(|words| !self.text.contains(**words)) {
            Some(words) => Err(format!("it does not say {words:?}, but: {}", self.text)),
            None => Ok(()),
        }
    }
}

impl Stage<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn file(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// The tool's command line, through a shell's `before`.
    fn command(&self, before: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("{before} exec \"$@\""), "sh"])
            .arg(self.tool)
            .args(arguments)
            .stdin(Stdio::null());
        if arguments[0] == "experiment" {
            command.arg("--kernel").arg(self.kernel);
        }
        command
    }

    fn spawn(&self, log: &Path, mut command: Command) -> Result<Running> {
        let output = File::create(log).context("cannot write the log")?;
        let child = command
            .stdout(output.try_clone().context("cannot share the log")?)
            .stderr(output)
            .spawn()
            .context("cannot execute this tool")?;
        Ok(Running(child))
    }

    /// Runs the tool to its end.
    fn call(&self, name: &str, before: &str, arguments: &[&str]) -> Result<Said> {
        let log = self.path(&format!("{name}.log"));
        let mut running = self.spawn(&log, self.command(before, arguments))?;
        let ended = running.wait(LIMIT, Ok)?;
        let text = std::fs::read(&log).context("cannot read the log")?;
        Ok(Said {
            status: ended.and_then(|status| status.code()),
            text: String::from_utf8_lossy(&text).into_owned(),
        })
    }

    /// A folder's results.
    fn results(&self, folder: &str) -> Result<Value> {
        let text = std::fs::read_to_string(self.path(folder).join("results.json"))?;
        serde_json::from_str(&text).context("results.json")
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("the path is not UTF-8")
}

fn own_file(stage: &Stage<'_>, report: &mut Report) -> Result<()> {
    let file = stage.file("bus.toml", QUICK)?;
    for out in ["first", "second"] {
        let folder = stage.path(out);
        let arguments = ["experiment", text(&file)?, "--out", text(&folder)?];
        let said = stage.call(out, "", &arguments)?;
        report.check(out, said.is(0, &["== bus: What is on the bus?", "3 pass"]));
    }
    let results = stage.results("first")?;
    let runs = results["experiments"][0]["runs"]
        .as_array()
        .map_or(0, Vec::len);
    report.check("runs", wanted("runs", runs, 6));
    let files = ["results.json", "report.html", "bus/runs.jsonl"];
    let mut files: Vec<String> = files.map(str::to_owned).into();
    for log in ["qemu.cmd", "serial.log", "qemu.log"] {
        files.push(format!("bus/q35_non-transitional/2/{log}"));
    }
    for file in files {
        let path = stage.path("first").join(&file);
        let there = path.is_file().then_some(());
        report.check(&file, there.ok_or_else(|| "it is missing".into()));
    }
    let (first, second) = (stage.path("first"), stage.path("second"));
    let page = first.join("report.html");
    let before = std::fs::read_to_string(&page)?;
    std::fs::remove_file(&page)?;
    let said = stage.call("report", "", &["report", text(&first)?])?;
    report.check("report", said.is(0, &["== bus", "report.html"]));
    let same = std::fs::read_to_string(&page)? == before;
    let same = same.then_some(());
    report.check(
        "page",
        same.ok_or_else(|| "it is another than before".into()),
    );
    let said = stage.call("same", "", &["compare", text(&first)?, text(&second)?])?;
    report.check("compare", said.is(0, &["== bus"]));
    // A guest that fails now is a change.
    let results = second.join("results.json");
    let changed = std::fs::read_to_string(&results)?.replace("\"pass\"", "\"panic\"");
    std::fs::write(&results, changed)?;
    let said = stage.call("changed", "", &["compare", text(&first)?, text(&second)?])?;
    report.check("changed", said.is(3, &["before, panic"]));
    Ok(())
}

fn wanted(what: &str, found: usize, wanted: usize) -> Result<(), String> {
    if found == wanted {
        return Ok(());
    }
    Err(format!("{found} {what}, not {wanted}"))
}

/// The runs that a journal has.
fn journal(folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join("bus/runs.jsonl")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn interrupted(stage: &Stage<'_>, report: &mut Report) -> Result<()> {
    const RUNS: usize = 2 * 40;
    let file = stage.file("bus.toml", &QUICK.replace("boots = 3", "boots = 40"))?;
    let folder = stage.path("out");
    let arguments = ["experiment", text(&file)?, "--out", text(&folder)?];
    let log = stage.path("interrupted.log");
    let mut running = stage.spawn(&log, stage.command("", &arguments))?;
    let some = running.wait(LIMIT, |ended| {
        if ended.is_some() {
            bail!("the sweep ended before it was interrupted");
        }
        Ok((journal(&folder).len() >= 4).then_some(()))
    })?;
    some.context("no run was finished")?;
    if let Some(pid) = Pid::from_raw(running.0.id().cast_signed()) {
        kill_process(pid, Signal::INT)?;
    }
    let ended = running.wait(LIMIT, Ok)?;
    let said = Said {
        status: ended.and_then(|status| status.code()),
        text: std::fs::read_to_string(&log)?,
    };
    report.check(
        "interrupted",
        said.is(130, &["--resume", "3 pass"]).or_else(|_| {
            // How many boots there were is chance.
            said.is(130, &["--resume", "== bus"])
        }),
    );
    let before = journal(&folder);
    report.check(
        "results",
        match stage.results("out")?["complete"] == false {
            true => Ok(()),
            false => Err("the results do not say that they are not complete".into()),
        },
    );
    let page = std::fs::read_to_string(folder.join("report.html"))?;
    let says = page.contains("The sweep was interrupted").then_some(());
    report.check("page", says.ok_or_else(|| "it does not say so".into()));
    let arguments = ["experiment", "--resume", text(&folder)?];
    let said = stage.call("resumed", "", &arguments)?;
    report.check(
        "resumed",
        said.is(0, &["runs are there already", "40 pass"]),
    );
    let after = journal(&folder);
    report.check("all", wanted("runs", after.len(), RUNS));
    let kept = after.starts_with(&before) && before.len() < RUNS;
    report.check(
        "kept",
        kept.then_some(())
            .ok_or_else(|| format!("of {} finished runs not all were kept", before.len())),
    );
    Ok(())
}

fn full_disk(stage: &Stage<'_>, report: &mut Report) -> Result<()> {
    let file = stage.file("bus.toml", &QUICK.replace("boots = 3", "boots = 10"))?;
    let folder = stage.path("out");
    let arguments = ["experiment", text(&file)?, "--out", text(&folder)?];
    // No file may be larger than 16 blocks of 512 bytes or 1 KiB: the journal cannot grow
    // on, which is what a full disk says, too.
    let said = stage.call("full", "trap '' XFSZ; ulimit -f 16;", &arguments)?;
    report.check(
        "full",
        said.is(1, &["runs.jsonl", "the runs before are kept"]),
    );
    let before = journal(&folder);
    let some = !before.is_empty() && before.iter().all(|line| line.ends_with('}'));
    report.check(
        "before",
        some.then_some(())
            .ok_or_else(|| "nothing whole was kept".into()),
    );
    let arguments = ["experiment", "--resume", text(&folder)?];
    let said = stage.call("resumed", "", &arguments)?;
    report.check("resumed", said.is(0, &["10 pass"]));
    report.check("kept", wanted("runs", journal(&folder).len(), 20));
    Ok(())
}

fn mistakes(stage: &Stage<'_>, report: &mut Report) -> Result<()> {
    for (name, from, to, says) in [
        (
            "key",
            "boots = 3",
            "boot = 3",
            "line 6: unknown field `boot`",
        ),
        (
            "machine",
            "[\"q35\"]",
            "[\"q53\"]",
            "line 11: `machine` is `q53`",
        ),
        (
            "placeholder",
            "-{model}",
            "-{modle}",
            "line 15: `{modle}`: there is no such axis",
        ),
    ] {
        let changed = QUICK.replace(from, to);
        let file = stage.file(&format!("{name}.toml"), &changed)?;
        let said = stage.call(name, "", &["experiment", text(&file)?])?;
        report.check(name, said.is(1, &[says, &format!("{name}.toml")]));
    }
    let said = stage.call("name", "", &["experiment", "dorbell"])?;
    report.check("name", said.is(2, &["no experiment `dorbell`", "doorbell"]));
    let nowhere = stage.path("nowhere");
    let said = stage.call("resume", "", &["experiment", "--resume", text(&nowhere)?])?;
    report.check("resume", said.is(2, &["there is no such folder"]));
    for (name, results, says) in [
        ("corrupt", "{\"v\": 1", "is corrupt"),
        (
            "older",
            "{\"v\": 0, \"kind\": \"doorbell-experiments\"}",
            "has version 0",
        ),
        (
            "a-run",
            "{\"v\": 1, \"records\": []}",
            "is not the result of",
        ),
    ] {
        let folder = stage.path(name);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("results.json"), results)?;
        let said = stage.call(name, "", &["compare", text(&folder)?, text(&folder)?])?;
        report.check(name, said.is(1, &[says, "results.json"]));
    }
    Ok(())
}

fn lacks(stage: &Stage<'_>, report: &mut Report) -> Result<()> {
    let changed = QUICK.replace("-{model}\"", "-{model},fly=on\"")
        + "\n[since]\n\"virtio-rng-pci-transitional.fly\" = \"99.1\"\n";
    let file = stage.file("bus.toml", &changed)?;
    let folder = stage.path("out");
    let arguments = ["experiment", text(&file)?, "--out", text(&folder)?];
    let said = stage.call("lacks", "", &arguments)?;
    let words = "has no property `fly`; QEMU 99.1 has it";
    report.check("lacks", said.is(0, &[words]));
    let skipped = stage.results("out")?["experiments"][0]["skipped"].clone();
    report.check(
        "skipped",
        wanted("skipped", skipped.as_array().map_or(0, Vec::len), 2),
    );
    Ok(())
}
