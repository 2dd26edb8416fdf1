//! A sweep: each cell of an experiment is booted, and all of them again, until each had
//! its boots, so that drift hits all alike. Where nothing is timed, as many run at once as
//! there are CPUs.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

use super::firmware;
use super::libvirt::Libvirt;
use super::plan::{Cell, Labels, Plan};
use super::probe::Probe;
use super::real::{self, Guests};
use super::schema::Subject;
use super::set::{Experiment, Journal, Run, Skipped};
use crate::image::Image;
use crate::lock::{into_inner, lock};
use crate::qemu::host::open_kvm;
use crate::qemu::input::Input;
use crate::qemu::launch::{Echo, Launch, interrupted, launch};
use crate::qemu::outcome::Outcome;
use crate::qemu::{self, Accelerator, Files, Firmware, host};
use crate::record::Record;
use crate::{results, say};

/// No run of a guest takes longer.
const LONGEST: Duration = Duration::from_secs(900);

/// What all sweeps share.
pub(crate) struct Bench<'a> {
    pub(crate) qemu: &'a Path,
    /// The unikernel.
    pub(crate) image: &'a Image,
    pub(crate) probe: Probe,
    /// Guests that nobody here wrote.
    pub(crate) guests: Guests<'a>,
    pub(crate) libvirt: Libvirt<'a>,
    /// Boots of each cell, if not as many as the file says.
    pub(crate) boots: Option<u32>,
    /// Runs at once, where nothing is timed.
    pub(crate) jobs: usize,
}

/// What a sweep came to.
pub(crate) struct Swept {
    pub(crate) experiment: Experiment,
    /// Whether all runs were done.
    pub(crate) complete: bool,
}

/// Sweeps an experiment, in the folder `name` below `set`. Runs that are done there
/// already stay.
///
/// # Errors
/// When a file cannot be read or written. What a guest does is no error.
pub(crate) fn sweep(bench: &Bench<'_>, plan: &Plan, set: &Path) -> Result<Swept> {
    let interrupted = interrupted()?;
    let (journal, mut runs) = Journal::open(&set.join(&plan.name))?;
    let mut experiment = Experiment::new(plan);
    experiment.boots = bench.boots.unwrap_or(experiment.boots);
    let mut cells = Vec::new();
    for cell in &plan.cells {
        match unfit(bench, plan, cell) {
            None => cells.push(cell),
            Some(reason) => experiment.skipped.push(Skipped {
                cell: cell.labels.clone(),
                reason,
            }),
        }
    }
    // What cannot run here any more counts neither as done nor as to be done.
    let known: BTreeSet<&Labels> = cells.iter().map(|cell| &cell.labels).collect();
    runs.retain(|run| known.contains(&run.cell) && run.boot < experiment.boots);
    let done: BTreeSet<(Labels, u32)> = runs
        .iter()
        .map(|run| (run.cell.clone(), run.boot))
        .collect();
    let all = (0..experiment.boots).flat_map(|boot| cells.iter().map(move |cell| (*cell, boot)));
    let to_do: VecDeque<(&Cell, u32)> = all
        .filter(|(cell, boot)| !done.contains(&(cell.labels.clone(), *boot)))
        .collect();
    let total = to_do.len();
    if to_do.iter().any(|(cell, _)| cell.libvirt.is_some()) {
        bench.libvirt.prepare();
    }
    let meter = Meter::new(&plan.name, total);
    if total < cells.len() * experiment.boots as usize {
        meter.say(&format!(
            "{}: {} runs are there already",
            plan.name,
            runs.len()
        ));
    }
    let (queue, found) = (Mutex::new(to_do), Mutex::new(runs));
    let failed = Mutex::new(None);
    let stop = AtomicBool::new(false);
    let work = || {
        while !stop.load(Ordering::Relaxed) && !interrupted.load(Ordering::Relaxed) {
            let next = lock(&queue).pop_front();
            let Some((cell, boot)) = next else { return };
            let ran = run(bench, plan, cell, boot, set);
            let ran = ran.and_then(|ran| {
                let Some(ran) = ran else { return Ok(()) };
                journal.add(&ran)?;
                meter.done(&ran, &cell.name);
                lock(&found).push(ran);
                Ok(())
            });
            if let Err(error) = ran {
                stop.store(true, Ordering::Relaxed);
                *lock(&failed) = Some(error);
            }
        }
    };
    let jobs = if plan.file.timed { 1 } else { bench.jobs };
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(work);
        }
    });
    meter.end();
    if let Some(error) = into_inner(failed) {
        return Err(error);
    }
    let mut runs = into_inner(found);
    let order = |labels: &Labels| plan.cells.iter().position(|cell| cell.labels == *labels);
    runs.sort_by_key(|run| (order(&run.cell), run.boot));
    let complete = runs.len() == cells.len() * experiment.boots as usize;
    experiment.runs = runs;
    Ok(Swept {
        experiment,
        complete,
    })
}

/// Why a cell cannot run here, if it cannot.
fn unfit(bench: &Bench<'_>, plan: &Plan, cell: &Cell) -> Option<String> {
    if cell.options.accelerator == Accelerator::Kvm
        && let Err(error) = open_kvm()
    {
        return Some(format!("/dev/kvm cannot be opened: {error}"));
    }
    if cell.options.accelerator == Accelerator::Kvm
        && !plan.file.emulated_kvm
        && !host::hardware_virtualization()
    {
        let why = "without vmx or svm KVM emulates the CPU, and a boot of this takes minutes";
        return Some(why.into());
    }
    if plan.file.subject == Subject::RealGuest {
        let guest = cell.labels.get("guest").map_or("", String::as_str);
        if let Some(reason) = bench.guests.lacks(guest) {
            return Some(reason);
        }
    }
    let since = &plan.file.since;
    let mut devices = cell.devices.iter().filter(|devices| devices.count > 0);
    devices.find_map(|devices| bench.probe.lacks(&devices.qemu, since))
}

/// Runs one boot of a cell; `None` if it was interrupted.
fn run(bench: &Bench<'_>, plan: &Plan, cell: &Cell, boot: u32, set: &Path) -> Result<Option<Run>> {
    let folder = format!("{}/{}/{boot}", plan.name, cell.name);
    let path = set.join(&folder);
    std::fs::create_dir_all(&path)?;
    let files = Files::new(path)?;
    let silence = Duration::from_secs((*plan.file.timeout.get_ref()).cast_unsigned());
    let virtualization = host::hardware_virtualization();
    let note = results::note(cell.options.accelerator, virtualization, host::is_guest());
    let mut run = Run {
        cell: cell.labels.clone(),
        boot,
        folder,
        note: note.map(str::to_owned),
        ..Run::default()
    };
    if plan.file.subject == Subject::RealGuest {
        let seen = real::run(bench.qemu, &bench.guests, cell, &files, silence)?;
        let Some(seen) = seen else { return Ok(None) };
        run.verdict = seen.verdict;
        run.message = seen.message;
        run.took_ms = seen.took.as_secs_f64() * 1e3;
        run.records = seen.records;
        return Ok(Some(run));
    }
    let mut options = cell.options.clone();
    if options.firmware == Firmware::Seabios {
        options.extra.extend(firmware::arguments(&files)?);
    }
    let word = match &cell.libvirt {
        Some(devices) => {
            let kernel = &bench.image.path;
            Some(
                bench
                    .libvirt
                    .check(bench.qemu, kernel, cell, devices, &files)?,
            )
        }
        None => None,
    };
    let command = qemu::command_line(
        bench.qemu,
        Some(&bench.image.path),
        &options,
        &files,
        &cell.commands,
        false,
    )?;
    let ended = launch(
        &Launch {
            command: &command,
            files: &files,
            firmware: options
                .firmware
                .eq(&Firmware::Seabios)
                .then(|| firmware::log(&files)),
            silence: Some(silence),
            total: Some(LONGEST),
            input: Input::Nothing,
            echo: Echo::Nobody,
        },
        &mut |_, _| None,
    )?;
    let outcome = Outcome::of(&ended);
    if outcome == Outcome::Interrupted {
        return Ok(None);
    }
    run.verdict = outcome.word().to_owned();
    run.message = match outcome {
        Outcome::Fail => first_error(&ended.records).or_else(|| outcome.explain(&ended)),
        _ => outcome.explain(&ended),
    };
    run.took_ms = ended.took.as_secs_f64() * 1e3;
    run.records = ended.records.iter().map(Record::value).cloned().collect();
    // No guest spoke: what did firmware say last?
    run.records
        .extend(firmware::last_words(&files).filter(|_| ended.records.is_empty()));
    run.records.extend(word);
    Ok(Some(run))
}

/// What the guest says went wrong first.
fn first_error(records: &[Record]) -> Option<String> {
    let error = records.iter().find(|record| record.kind() == "error")?;
    Some(format!(
        "{}: {}",
        error.text("what")?,
        error.text("message")?
    ))
}

/// Shows how far a sweep is: a bar with the time left, or now and then a line.
struct Meter {
    name: String,
    total: usize,
    done: Mutex<usize>,
    bar: Option<ProgressBar>,
}

impl Meter {
    fn new(name: &str, total: usize) -> Self {
        use std::io::IsTerminal;
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total as u64).with_prefix(name.to_owned());
            let style = ProgressStyle::with_template(
                "doorbell: {prefix:12} {wide_bar} {pos}/{len}, {eta} left",
            );
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        Self {
            name: name.to_owned(),
            total,
            done: Mutex::new(0),
            bar,
        }
    }

    fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say::note(line)),
            None => say::note(line),
        }
    }

    fn done(&self, run: &Run, cell: &str) {
        let mut done = lock(&self.done);
        *done += 1;
        match &self.bar {
            Some(bar) => bar.inc(1),
            // About ten lines a sweep.
            None if done.is_multiple_of(self.total.div_ceil(10)) || *done == self.total => {
                say::note(format!("{}: {done} of {} runs", self.name, self.total));
            }
            None => {}
        }
        // Of each cell once: its other boots end alike, or stand in the report.
        if run.verdict == "pass" || run.boot > 0 {
            return;
        }
        let (name, verdict) = (&self.name, &run.verdict);
        let why = run.message.as_deref().unwrap_or_default();
        self.say(&format!("{name}: {cell}: {verdict}: {why}"));
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
