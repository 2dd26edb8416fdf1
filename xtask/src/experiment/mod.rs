//! `cargo xtask experiment`: the claims of the argument, put to the test on this host.
//!
//! A file in `experiments/` ([`schema`]) becomes cells ([`mod@plan`], [`topology`]), which are
//! booted in turns ([`mod@sweep`]) and leave a result set ([`set`]). From that come the
//! findings ([`analysis`], [`findings`], [`stats`]) and what is shown of them ([`report`]).

mod analysis;
pub(crate) mod compare;
pub(crate) mod findings;
mod firmware;
mod libvirt;
pub(crate) mod plan;
mod probe;
mod real;
pub(crate) mod report;
mod schema;
pub(crate) mod set;
pub(crate) mod stats;
mod sweep;
mod topology;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use self::libvirt::Libvirt;
use self::plan::Plan;
use self::probe::Probe;
use self::real::Guests;
use self::schema::File;
use self::set::{Begun, Set};
use self::sweep::{Bench, sweep};
use crate::image::{self, Image, KERNEL};
use crate::qemu::host;
use crate::setup::{self, SetupArgs};
use crate::usage::BadUsage;
use crate::{folder, results, say};

/// The experiments' files end so.
const EXTENSION: &str = "toml";
/// An experiment's file in the folder of its results.
const PLAN: &str = "plan.toml";
/// The exit status of an interrupted sweep.
const INTERRUPTED: u8 = 130;

/// The options of `experiment`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ExperimentArgs {
    /// Names of experiments, `all`, or paths of your own files [default: list them]
    #[arg(value_name = "EXPERIMENT")]
    names: Vec<String>,
    /// Where the results go: a new folder [default: a new one in target/doorbell]
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    out: Option<PathBuf>,
    /// Go on with what was interrupted in this folder: finished runs are kept
    #[arg(long, value_name = "DIR", conflicts_with = "names")]
    resume: Option<PathBuf>,
    /// Boot each cell so often, instead of as often as the file says
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    boots: Option<u32>,
    /// Boot this image instead of building one
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,
    #[command(flatten)]
    setup: SetupArgs,
}

/// The options of `report`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ReportArgs {
    /// The folder that `experiment` left, or its results.json
    #[arg(value_name = "DIR")]
    set: PathBuf,
}

/// The folder of the experiments.
fn home() -> PathBuf {
    image::workspace().join("experiments")
}

/// The names of the experiments, in order.
fn known() -> Result<Vec<String>> {
    let home = home();
    let entries = std::fs::read_dir(&home)
        .with_context(|| format!("cannot read the folder {}", home.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == EXTENSION)
        })
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// Reads an experiment by its name, or by its file's path.
fn read(name: &str) -> Result<Plan> {
    let path = match name.ends_with(&format!(".{EXTENSION}")) {
        true => PathBuf::from(name),
        false => home().join(format!("{name}.{EXTENSION}")),
    };
    if !path.is_file() {
        let known = known()?.join(", ");
        bail!(BadUsage(format!(
            "there is no experiment `{name}`; there are: {known}, all. A file of your own is \
             named by its path, which ends in .{EXTENSION}"
        )));
    }
    let (file, text) = File::read(&path)?;
    plan(&path, file, text)
}

/// The plan of a file, whose name it gets from `path`.
fn plan(path: &Path, file: File, text: String) -> Result<Plan> {
    let name = path.file_stem().and_then(|stem| stem.to_str());
    let name = name.with_context(|| format!("{}: the name must be UTF-8", path.display()))?;
    Plan::new(name, file, text).with_context(|| path.display().to_string())
}

/// `cargo xtask experiment`.
///
/// # Errors
/// When an experiment cannot be read or its runs cannot be done.
pub(crate) fn main(args: &ExperimentArgs) -> Result<ExitCode> {
    if args.names.is_empty() && args.resume.is_none() {
        return list();
    }
    let folder = match (&args.resume, &args.out) {
        (Some(folder), _) => existing(folder)?,
        (None, Some(out)) => std::path::absolute(out)?,
        (None, None) => default_folder(),
    };
    let plans = match args.resume {
        Some(_) => begun(&folder)?,
        None => named(&args.names)?,
    };
    let (qemu, image) = match &args.kernel {
        Some(path) => (setup::qemu(&args.setup)?, Image::at(path)?),
        None => {
            let (qemu, toolchain) = setup::everything(&args.setup)?;
            (qemu, Image::build(KERNEL, &toolchain)?)
        }
    };
    let folder = match args.resume {
        Some(_) => folder,
        None => folder::new(&folder)?,
    };
    for plan in &plans {
        keep(plan, &folder)?;
    }
    let host = host_of(&qemu, &image);
    let begun = match args.resume {
        Some(_) => Begun::read(&folder, &host)?,
        None => Begun::new(host, args.boots),
    };
    begun.write(&folder)?;
    say::note(format!("results go to {}", folder.display()));
    let bench = Bench {
        qemu: &qemu,
        image: &image,
        probe: Probe::new(&qemu),
        guests: Guests::new(&qemu, &args.setup),
        libvirt: Libvirt::new(&args.setup),
        boots: args.boots.or(begun.boots),
        jobs: std::thread::available_parallelism().map_or(1, usize::from),
    };
    let mut set = Set::of(&begun);
    let mut complete = true;
    for plan in &plans {
        let swept = sweep(&bench, plan, &folder)?;
        let mut experiment = swept.experiment;
        experiment.findings = analysis::analyse(&experiment);
        set.experiments.push(experiment);
        if !swept.complete {
            complete = false;
            break;
        }
    }
    set.complete = complete;
    set.ended = results::timestamp(results::now());
    set.write(&folder)?;
    print!(
        "{}",
        report::terminal::render(&set, report::terminal::width())
    );
    println!("{}", folder.join(set::RESULTS).display());
    println!("{}", report::page::write(&set, &folder)?.display());
    let hopeless = set
        .experiments
        .iter()
        .find(|experiment| !experiment.any_passed());
    if let Some(experiment) = hopeless.filter(|_| complete) {
        say::note(format!(
            "{}: no boot passed, so that it shows nothing; the reasons are above",
            experiment.name
        ));
        return Ok(ExitCode::FAILURE);
    }
    if complete {
        return Ok(ExitCode::SUCCESS);
    }
    say::note(format!(
        "interrupted; what is finished is kept. To go on: cargo xtask experiment --resume {}",
        folder.display()
    ));
    Ok(ExitCode::from(INTERRUPTED))
}

/// `cargo xtask report`: the conclusions are drawn anew as well.
///
/// # Errors
/// When the set cannot be read, or the page cannot be written.
pub(crate) fn report_again(args: &ReportArgs) -> Result<()> {
    let mut set = Set::read(&args.set)?;
    let folder = match args.set.is_dir() {
        true => &args.set,
        false => args.set.parent().unwrap_or(Path::new("")),
    };
    for experiment in &mut set.experiments {
        experiment.findings = analysis::analyse(experiment);
    }
    print!(
        "{}",
        report::terminal::render(&set, report::terminal::width())
    );
    println!("{}", report::page::write(&set, folder)?.display());
    Ok(())
}

/// A folder to go on in.
fn existing(folder: &Path) -> Result<PathBuf> {
    if !folder.is_dir() {
        bail!(BadUsage(format!(
            "--resume {}: there is no such folder",
            folder.display()
        )));
    }
    Ok(std::path::absolute(folder)?)
}

/// The experiments that were asked for.
fn named(names: &[String]) -> Result<Vec<Plan>> {
    if names.iter().any(|name| name == "all") {
        return known()?.iter().map(|name| read(name)).collect();
    }
    let plans: Vec<Plan> = names.iter().map(|name| read(name)).collect::<Result<_>>()?;
    for (n, plan) in plans.iter().enumerate() {
        if plans[..n].iter().any(|other| other.name == plan.name) {
            let name = &plan.name;
            bail!(BadUsage(format!(
                "there are two experiments called `{name}`"
            )));
        }
    }
    Ok(plans)
}

/// Leaves an experiment's file with its results, from which it can go on.
fn keep(plan: &Plan, folder: &Path) -> Result<()> {
    let folder = folder.join(&plan.name);
    let path = folder.join(PLAN);
    std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::write(&path, &plan.text))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The experiments that were begun in a folder.
fn begun(folder: &Path) -> Result<Vec<Plan>> {
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("cannot read the folder {}", folder.display()))?;
    let mut folders: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join(PLAN).is_file())
        .collect();
    folders.sort();
    if folders.is_empty() {
        bail!(BadUsage(format!(
            "--resume {}: nothing was begun there",
            folder.display()
        )));
    }
    let plans = folders.iter().map(|path| {
        let (file, text) = File::read(&path.join(PLAN))?;
        plan(path, file, text)
    });
    plans.collect()
}

fn default_folder() -> PathBuf {
    let time = results::timestamp(results::now()).replace(':', "");
    image::target_folder()
        .join("doorbell")
        .join(format!("{time}-experiment"))
}

/// What figures depend on.
fn host_of(qemu: &Path, image: &Image) -> Value {
    json!({
        "qemu": host::version(qemu),
        "host_cpu": host::cpu_model(),
        "host_kernel": host::first_line(std::process::Command::new("uname").arg("-sr")),
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "hardware_virtualization": host::hardware_virtualization(),
        "tool": env!("CARGO_PKG_VERSION"),
        "image_sha256": image.sha256,
        "built_by": image.built_by,
    })
}

/// Lists the experiments.
fn list() -> Result<ExitCode> {
    for name in known()? {
        let plan = read(&name)?;
        println!("{name:14} {}", plan.file.title);
        println!("{:14} {} cells; {}", "", plan.cells.len(), plan.file.takes);
    }
    println!("\ncargo xtask experiment NAME, or all; experiments/README.md says how to write one");
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_experiment_of_the_house_makes_sense() {
        let names = known().unwrap();
        assert!(!names.is_empty());
        for name in names {
            let plan = read(&name).unwrap_or_else(|error| panic!("{error:#}"));
            assert!(!plan.cells.is_empty(), "{name}");
        }
    }
}
