//! A result set: what a sweep leaves in its folder.
//!
//! `runs.jsonl` grows by a line a run, so that nothing of a finished run is lost however
//! the sweep ends, and a sweep that is resumed knows what it has. `results.json` is made
//! of it at the end, or when the sweep is interrupted.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::findings::{Analysis, Findings};
use super::plan::{Labels, Plan};
use crate::lock::lock;
use crate::results;

/// The version of these files.
pub(crate) const VERSION: u32 = 1;
/// What these files are.
const KIND: &str = "doorbell-experiments";
/// The vendor of virtio devices (virtio 1.2, 4.1.2).
const VIRTIO_VENDOR: &str = "1af4";
/// The name of the file that holds everything.
pub(crate) const RESULTS: &str = "results.json";

/// Everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Set {
    pub(crate) v: u32,
    pub(crate) kind: String,
    /// When it was begun, and when its last run ended: ISO 8601.
    pub(crate) begun: String,
    pub(crate) ended: String,
    /// Whether all runs were done.
    pub(crate) complete: bool,
    /// What it was measured on: `qemu`, `host_cpu`, `host_kernel`, `cpus`,
    /// `hardware_virtualization`, `guest`.
    pub(crate) host: Value,
    pub(crate) experiments: Vec<Experiment>,
}

/// One experiment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Experiment {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) claim: String,
    pub(crate) false_if: String,
    pub(crate) analysis: Analysis,
    /// The axes, in order.
    pub(crate) axes: Vec<String>,
    /// The experiment's file.
    pub(crate) plan: String,
    pub(crate) boots: u32,
    pub(crate) runs: Vec<Run>,
    pub(crate) skipped: Vec<Skipped>,
    pub(crate) findings: Findings,
}

/// One boot of one cell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// A name on each axis.
    pub(crate) cell: Labels,
    /// From 0.
    pub(crate) boot: u32,
    /// Its logs, below the set's folder.
    pub(crate) folder: String,
    /// How it ended: `pass`, `fail`, ... (see `qemu::outcome`).
    pub(crate) verdict: String,
    /// What there is to say about that.
    pub(crate) message: Option<String>,
    pub(crate) took_ms: f64,
    /// What must be said beside each figure, if they are not hardware's.
    pub(crate) note: Option<String>,
    /// The guest's records; for a real guest what was observed, as records as well.
    pub(crate) records: Vec<Value>,
}

/// A cell that was not run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Skipped {
    pub(crate) cell: Labels,
    pub(crate) reason: String,
}

/// Whether a `pci` record's function has an IO BAR with an address.
pub(crate) fn has_io(function: &Value) -> bool {
    let bars = function["bars"].as_array();
    bars.into_iter()
        .flatten()
        .any(|bar| bar["kind"] == "io" && bar["address"].is_string())
}

impl Run {
    /// The value on an axis; empty if there is none.
    pub(crate) fn label(&self, axis: &str) -> &str {
        self.cell.get(axis).map_or("", String::as_str)
    }

    /// The virtio devices on PCI that the guest found: their `pci` records.
    pub(crate) fn virtio_functions(&self) -> impl Iterator<Item = &Value> {
        self.of_kind("pci").filter(|function| {
            let vendor = function["vendor"].as_str();
            vendor.is_some_and(|vendor| vendor.ends_with(VIRTIO_VENDOR))
        })
    }

    /// The records of a kind.
    pub(crate) fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.records
            .iter()
            .filter(move |record| record["kind"] == kind)
    }

    pub(crate) fn passed(&self) -> bool {
        self.verdict == "pass"
    }
}

impl Experiment {
    /// Whether a boot passed, or there was none to do.
    pub(crate) fn any_passed(&self) -> bool {
        self.runs.is_empty() || self.runs.iter().any(Run::passed)
    }

    /// An experiment of which nothing was run yet.
    pub(crate) fn new(plan: &Plan) -> Self {
        let skipped = plan.excluded.iter().map(|(cell, reason)| Skipped {
            cell: cell.clone(),
            reason: reason.clone(),
        });
        Self {
            name: plan.name.clone(),
            title: plan.file.title.clone(),
            claim: plan.file.claim.clone(),
            false_if: plan.file.false_if.clone(),
            analysis: plan.file.analysis,
            axes: plan.axes.clone(),
            plan: plan.text.clone(),
            boots: *plan.file.boots.get_ref() as u32,
            runs: Vec::new(),
            skipped: skipped.collect(),
            findings: Findings::default(),
        }
    }
}

/// What a sweep began with: it goes on with nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Begun {
    pub(crate) begun: String,
    pub(crate) host: Value,
    /// Boots of each cell, if not as many as the files say.
    pub(crate) boots: Option<u32>,
}

impl Begun {
    /// A sweep that begins now.
    pub(crate) fn new(host: Value, boots: Option<u32>) -> Self {
        let begun = results::timestamp(results::now());
        Self { begun, host, boots }
    }

    fn path(folder: &Path) -> PathBuf {
        folder.join("begun.json")
    }

    /// # Errors
    /// Whatever the file system says, with the path.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        results::write(&Self::path(folder), &serde_json::to_value(self)?)
    }

    /// What the sweep in `folder` began with.
    ///
    /// # Errors
    /// When that cannot be read, or the world is another one now: figures of two worlds in
    /// one set would say nothing.
    pub(crate) fn read(folder: &Path, host: &Value) -> Result<Self> {
        let path = Self::path(folder);
        let name = path.display();
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {name}"))?;
        let begun: Self =
            serde_json::from_str(&text).with_context(|| format!("{name} is corrupt"))?;
        let (Some(old), Some(new)) = (begun.host.as_object(), host.as_object()) else {
            bail!("{name} is corrupt: `host` is no object");
        };
        let differ = old.iter().find(|(key, value)| new.get(*key) != Some(value));
        if let Some((key, was)) = differ {
            let is = new.get(key).unwrap_or(&Value::Null);
            bail!(
                "the runs there are of another world: `{key}` was {was}, and is {is}; begin anew, or \
                 go back to what they were made with"
            );
        }
        Ok(begun)
    }
}

impl Set {
    /// A set of which nothing was run yet, on this host, that begins now.
    pub(crate) fn new(host: Value) -> Self {
        Self::of(&Begun::new(host, None))
    }

    /// The set of a sweep, without its runs.
    pub(crate) fn of(begun: &Begun) -> Self {
        Self {
            v: VERSION,
            kind: KIND.to_owned(),
            begun: begun.begun.clone(),
            ended: begun.begun.clone(),
            complete: false,
            host: begun.host.clone(),
            experiments: Vec::new(),
        }
    }

    /// Writes `results.json` whole or not at all.
    ///
    /// # Errors
    /// Whatever the file system says, with the path.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let value = serde_json::to_value(self)?;
        results::write(&folder.join(RESULTS), &value)
    }

    /// Reads a set: `path` is its folder, or its `results.json`.
    ///
    /// # Errors
    /// When it is missing, corrupt, something else, or of another version; with the path.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let path = match path.is_dir() {
            true => path.join(RESULTS),
            false => path.to_owned(),
        };
        let name = path.display();
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {name}"))?;
        let value: Value = serde_json::from_str(&text)
            .with_context(|| format!("{name} is corrupt: it is not JSON"))?;
        if value["kind"] != KIND {
            bail!(
                "{name} is not the result of `cargo xtask experiment`; one run's results cannot \
                 be compared, since they do not show how runs differ"
            );
        }
        if value["v"] != VERSION {
            let found = &value["v"];
            bail!(
                "{name} has version {found}, and this tool reads version {VERSION}: run the \
                 experiment again, or take the tool that wrote it"
            );
        }
        serde_json::from_value(value).with_context(|| format!("{name} is corrupt"))
    }
}

/// The runs of one experiment that are done, in its folder.
pub(crate) struct Journal {
    path: PathBuf,
    file: Mutex<File>,
}

impl Journal {
    /// Opens the journal in `folder`, which is made if need be, and reads what it holds.
    ///
    /// # Errors
    /// When a line is corrupt, except the last: a run that was cut off is run again.
    pub(crate) fn open(folder: &Path) -> Result<(Self, Vec<Run>)> {
        let path = folder.join("runs.jsonl");
        let cannot = |what: &str| format!("cannot {what} {}", path.display());
        std::fs::create_dir_all(folder).with_context(|| cannot("make the folder of"))?;
        let text = match path.exists() {
            true => std::fs::read_to_string(&path).with_context(|| cannot("read"))?,
            false => String::new(),
        };
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut runs = Vec::new();
        for (n, line) in text[..whole].lines().enumerate() {
            let run = serde_json::from_str(line);
            let line = n + 1;
            runs.push(
                run.with_context(|| format!("{} is corrupt in line {line}", path.display()))?,
            );
        }
        let file = File::options().append(true).create(true).open(&path);
        let file = file.with_context(|| cannot("write"))?;
        // A line that was cut off goes; its run is done again.
        file.set_len(whole as u64)
            .with_context(|| cannot("write"))?;
        let file = Mutex::new(file);
        Ok((Self { path, file }, runs))
    }

    /// Adds a run.
    ///
    /// # Errors
    /// Whatever the file system says, with the path: what is there stays.
    pub(crate) fn add(&self, run: &Run) -> Result<()> {
        let line = format!("{}\n", serde_json::to_string(run)?);
        let mut file = lock(&self.file);
        let before = file.metadata().map(|meta| meta.len());
        let written = file.write_all(line.as_bytes());
        if let (Err(_), Ok(before)) = (&written, before) {
            // Half a line is none.
            let _ = file.set_len(before);
        }
        written.with_context(|| {
            let path = self.path.display();
            format!("cannot write {path}; the runs before are kept: make room, and --resume")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("doorbell-{}-set-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    fn run(boot: u32) -> Run {
        Run {
            cell: [("machine".to_owned(), "q35".to_owned())].into(),
            boot,
            verdict: "pass".into(),
            records: vec![serde_json::json!({"v": 1, "kind": "end"})],
            ..Run::default()
        }
    }

    #[test]
    fn a_journal_gives_back_what_it_took_and_forgets_half_a_line() {
        let folder = folder("journal");
        let (journal, runs) = Journal::open(&folder).unwrap();
        assert!(runs.is_empty());
        journal.add(&run(0)).unwrap();
        journal.add(&run(1)).unwrap();
        drop(journal);
        let path = folder.join("runs.jsonl");
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str("{\"cell\":{");
        std::fs::write(&path, &text).unwrap();
        let (journal, runs) = Journal::open(&folder).unwrap();
        assert_eq!(runs, [run(0), run(1)]);
        journal.add(&run(2)).unwrap();
        drop(journal);
        assert_eq!(Journal::open(&folder).unwrap().1.len(), 3);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replacen("\"boot\":0", "\"boot\":x", 1)).unwrap();
        let error = format!("{:#}", Journal::open(&folder).err().unwrap());
        assert!(error.contains("corrupt in line 1"), "{error}");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_sweep_goes_on_in_its_own_world_only() {
        let folder = folder("begun");
        let host = |qemu: &str| serde_json::json!({"cpus": 2, "qemu": qemu});
        let begun = Begun::new(host("7.2"), Some(3));
        begun.write(&folder).unwrap();
        assert_eq!(Begun::read(&folder, &host("7.2")).unwrap(), begun);
        let error = Begun::read(&folder, &host("8.0")).unwrap_err().to_string();
        assert!(
            error.contains("`qemu` was \"7.2\", and is \"8.0\""),
            "{error}"
        );
        std::fs::write(Begun::path(&folder), "{").unwrap();
        let error = format!("{:#}", Begun::read(&folder, &host("7.2")).unwrap_err());
        assert!(error.contains("is corrupt"), "{error}");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_set_is_read_as_it_was_written_and_nothing_else_is() {
        let folder = folder("set");
        let mut set = Set::new(serde_json::json!({"cpus": 2}));
        set.experiments.push(Experiment {
            name: "doorbell".into(),
            runs: vec![run(0)],
            ..Experiment::default()
        });
        set.write(&folder).unwrap();
        assert_eq!(Set::read(&folder).unwrap(), set);
        let path = folder.join(RESULTS);
        assert_eq!(Set::read(&path).unwrap(), set);
        let text = std::fs::read_to_string(&path).unwrap();
        for (from, to, says) in [
            ("\"v\": 1", "\"v\": 7", "has version 7"),
            (KIND, "other", "is not the result of"),
            ("\"boot\": 0", "\"boot\": \"x\"", "is corrupt"),
            ("{", "", "is not JSON"),
        ] {
            let changed = text.replace(from, to);
            assert_ne!(changed, text, "{from}");
            std::fs::write(&path, changed).unwrap();
            let error = format!("{:#}", Set::read(&folder).unwrap_err());
            assert!(error.contains(says), "{error}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}
