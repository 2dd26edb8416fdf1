//! `cargo xtask test`: one table of cases, each with its own folder of logs in
//! `target/doorbell/test/`; `report.txt` there names each check that was skipped. [`host`] runs cargo's tests, [`guest`] boots the
//! guest tests on all [`cells`] with [`witness`]es and [`peer`]s, [`embed`] the drivers
//! in another kernel, [`virt`] on another architecture, [`tool`] tries this tool on bad
//! worlds, [`faults`] the unikernel, [`sweep`] its experiments, and [`browser`] looks at
//! their page.

mod browser;
mod cells;
mod embed;
mod faults;
mod guest;
mod host;
mod http;
mod paths;
mod peer;
mod report;
mod running;
mod sweep;
mod tool;
mod upstream;
mod virt;
mod witness;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use self::report::{Report, Total};
use crate::fuzz;
use crate::image::{self, EMBED, Image, KERNEL, Package, TESTS};
use crate::lock::lock;
use crate::qemu::launch::interrupted;
use crate::say::{self, Progress};
use crate::setup::toolchain::Toolchain;
use crate::setup::{self, SetupArgs};
use crate::usage::BadUsage;

/// How many guests run at once. More would only wait for each other: each has a
/// vCPU and an iothread that want a processor of their own.
const AT_ONCE: usize = 2;

/// The exit statuses of `cargo xtask test`, for --help.
pub(crate) const EXIT_STATUS_HELP: &str = "\
Exit status:
    0  something was tested, and all of it passed; the rest was skipped
    1  a test failed, all were skipped, the tool failed (set-up, build, files), or was interrupted
    2  bad usage";

/// The options of `test`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct TestArgs {
    /// Only the cases whose name has this word in it
    #[arg(long, value_name = "WORD")]
    filter: Option<String>,
    /// Print the names of the cases, and run none
    #[arg(long)]
    list: bool,
    /// Only what boots a guest
    #[arg(long, conflicts_with = "host_only")]
    guest_only: bool,
    /// Only what boots none
    #[arg(long)]
    host_only: bool,
    #[command(flatten)]
    setup: SetupArgs,
}

/// One line of the table.
struct Case {
    name: String,
    job: Job,
}

enum Job {
    Host,
    Guest(cells::Cell),
    Tool(tool::Case),
    Http(http::Case),
    Faults(&'static faults::Case),
    Sweep(sweep::Case),
    Embed(embed::Case),
    Virt(virt::Case),
    Browser,
    /// A fuzz target, by its name.
    Fuzz(&'static str),
}

impl Case {
    /// The image that it boots.
    fn boots(&self) -> Option<Package> {
        match &self.job {
            // Another machine's kernel, by another QEMU.
            Job::Host | Job::Browser | Job::Fuzz(_) | Job::Virt(_) => None,
            Job::Guest(_) => Some(TESTS),
            Job::Tool(case) => case.boots().then_some(KERNEL),
            Job::Embed(case) => case.boots().then_some(EMBED),
            Job::Http(_) | Job::Faults(_) | Job::Sweep(_) => Some(KERNEL),
        }
    }

    /// Whether it boots a guest, of whatever architecture.
    fn is_guest(&self) -> bool {
        self.boots().is_some() || matches!(self.job, Job::Virt(_))
    }

    /// Cargo's tests use every processor already; and two guests whose CPUs KVM may
    /// have to emulate keep each other's devices from answering.
    fn runs_alone(&self) -> bool {
        match &self.job {
            Job::Host => true,
            Job::Tool(case) => case.takes_kvm(),
            Job::Guest(cell) => cell.takes_kvm(),
            Job::Http(_) | Job::Sweep(_) | Job::Embed(_) => false,
            Job::Faults(_) | Job::Browser | Job::Fuzz(_) | Job::Virt(_) => false,
        }
    }
}

/// All cases, in the order in which they begin.
fn table() -> Vec<Case> {
    let host = [Case {
        name: "host/cargo-test".into(),
        job: Job::Host,
    }];
    let guests = cells::all().into_iter().map(|cell| Case {
        name: format!("guest/{}", cell.name()),
        job: Job::Guest(cell),
    });
    let tools = tool::CASES.map(|case| Case {
        name: format!("tool/{}", case.name),
        job: Job::Tool(case),
    });
    let servers = http::CASES.map(|case| Case {
        name: format!("http/{}", case.name),
        job: Job::Http(case),
    });
    let faults = faults::CASES.iter().map(|case| Case {
        name: format!("faults/{}", case.name),
        job: Job::Faults(case),
    });
    let sweeps = sweep::CASES.map(|case| Case {
        name: format!("experiment/{}", case.name),
        job: Job::Sweep(case),
    });
    let embedded = embed::CASES.map(|case| Case {
        name: format!("embed/{}", case.name()),
        job: Job::Embed(case),
    });
    let others = virt::CASES.map(|case| Case {
        name: format!("virt/{}", case.name),
        job: Job::Virt(case),
    });
    let browser = [Case {
        name: format!("browser/{}", browser::NAME),
        job: Job::Browser,
    }];
    let fuzzed = fuzz::TARGETS.map(|target| Case {
        name: format!("fuzz/{target}"),
        job: Job::Fuzz(target),
    });
    host.into_iter()
        .chain(guests)
        .chain(embedded)
        .chain(others)
        .chain(servers)
        .chain(tools)
        .chain(faults)
        .chain(sweeps)
        .chain(browser)
        .chain(fuzzed)
        .collect()
}

/// What the cases run with.
struct World {
    /// This tool's own binary.
    tool: PathBuf,
    qemu: PathBuf,
    kernel: Result<Image, String>,
    tests: Result<Image, String>,
    embed: Result<Image, String>,
    /// What fetches the pages that a guest serves.
    curl: Result<PathBuf, String>,
    /// What the report page is looked at with.
    chromium: Result<PathBuf, String>,
    /// What runs the machine without IO ports, and its kernel.
    virt: virt::Needs,
    /// The folder of the fuzz targets' programs.
    fuzzers: Result<PathBuf, String>,
    folder: PathBuf,
}

/// `cargo xtask test`; ends with the line of the totals.
///
/// # Errors
/// When no test can be run at all.
pub(crate) fn main(args: &TestArgs) -> Result<ExitCode> {
    let cases = select(args)?;
    if args.list {
        for case in &cases {
            println!("{}", case.name);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let interrupted = interrupted()?;
    let world = World::new(args, &cases)?;
    let progress = Progress::start(format!("{} test cases", cases.len()));
    let total = Mutex::new(Total::default());
    let running = Mutex::new(Vec::<String>::new());
    let show = || {
        progress.update(lock(&running).join(", "));
    };
    let run = |case: &Case| {
        let name = case.name.as_str();
        lock(&running).push(name.to_owned());
        show();
        progress.begin(name);
        let begun = Instant::now();
        let mut report = world.run(case);
        report.took = begun.elapsed();
        lock(&running).retain(|other| other != name);
        show();
        progress.print(report.lines(name));
        lock(&total).add(name, &report);
    };

    let (alone, together): (Vec<&Case>, Vec<&Case>) =
        cases.iter().partition(|case| case.runs_alone());
    alone.into_iter().for_each(run);
    let waiting = Mutex::new(together.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while !interrupted.load(Ordering::Relaxed) {
                    let Some(case) = lock(&waiting).next() else {
                        break;
                    };
                    run(case);
                }
            });
        }
    });

    drop(progress);
    if interrupted.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    let total = lock(&total);
    println!("{}", total.lines());
    if total.is_empty() {
        say::note("nothing was tested: every case was skipped, and that counts as a failure");
    }
    Ok(if total.is_success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The cases that are asked for.
fn select(args: &TestArgs) -> Result<Vec<Case>> {
    let cases: Vec<Case> = table()
        .into_iter()
        .filter(|case| !args.guest_only || case.is_guest())
        .filter(|case| !args.host_only || !case.is_guest())
        .filter(|case| {
            args.filter
                .as_ref()
                .is_none_or(|word| case.name.contains(word))
        })
        .collect();
    if cases.is_empty() {
        bail!(BadUsage(format!(
            "no test case has {:?} in its name; `cargo xtask test --list` shows them",
            args.filter.as_deref().unwrap_or_default()
        )));
    }
    Ok(cases)
}

impl World {
    /// Sets up what `cases` need, and builds what they boot.
    fn new(args: &TestArgs, cases: &[Case]) -> Result<Self> {
        // Before cargo's tests put another binary in this one's place.
        let tool = std::env::current_exe().context("cannot find this tool's own binary")?;
        let boots = |package: Package| {
            cases
                .iter()
                .any(|case| case.boots().is_some_and(|boots| boots.name == package.name))
        };
        let (qemu, toolchain) = if cases.iter().any(|case| case.boots().is_some()) {
            let (qemu, toolchain) = setup::everything(&args.setup)?;
            (qemu, Some(toolchain))
        } else {
            (PathBuf::new(), None)
        };
        let build = |package: Package, toolchain: Option<&Toolchain>| match toolchain {
            Some(toolchain) if boots(package) => {
                Image::build(package, toolchain).map_err(|error| format!("{error:#}"))
            }
            _ => Err(format!("{} was not built", package.name)),
        };
        let served = cases.iter().any(|case| matches!(case.job, Job::Http(_)));
        let curl = if served {
            setup::curl(&args.setup).map_err(|error| format!("{error:#}"))
        } else {
            Err("no case needs curl".to_owned())
        };
        let fuzzed = cases.iter().any(|case| matches!(case.job, Job::Fuzz(_)));
        let fuzzers = if fuzzed {
            let _progress = Progress::start("building the fuzz targets");
            let built = setup::cxx(&args.setup).and_then(|_| fuzz::build());
            built.map_err(|error| format!("{error:#}"))
        } else {
            Err("no case needs the fuzz targets".to_owned())
        };
        let looked_at = cases.iter().any(|case| matches!(case.job, Job::Browser));
        let chromium = if looked_at {
            setup::chromium(&args.setup).map_err(|error| format!("{error:#}"))
        } else {
            Err("no case needs Chromium".to_owned())
        };
        let other_machine = cases.iter().any(|case| matches!(case.job, Job::Virt(_)));
        let virt = if other_machine {
            virt::needs(&args.setup).map_err(|error| format!("{error:#}"))
        } else {
            Err("no case needs another machine".to_owned())
        };
        Ok(Self {
            tool,
            qemu,
            curl,
            virt,
            chromium,
            fuzzers,
            kernel: build(KERNEL, toolchain.as_ref()),
            tests: build(TESTS, toolchain.as_ref()),
            embed: build(EMBED, toolchain.as_ref()),
            folder: image::target_folder().join("doorbell").join("test"),
        })
    }

    fn run(&self, case: &Case) -> Report {
        let folder = self.folder.join(&case.name);
        let result = fresh(&folder).and_then(|()| match &case.job {
            Job::Host => host::run(&folder),
            Job::Guest(cell) => guest::run(cell, self, &folder),
            Job::Tool(case) => tool::run(case, self, &folder),
            Job::Http(case) => http::run(case, self, &folder),
            Job::Faults(case) => faults::run(case, self, &folder),
            Job::Sweep(case) => sweep::run(case, self, &folder),
            Job::Embed(case) => embed::run(*case, self, &folder),
            Job::Virt(case) => virt::run(*case, &self.virt, &folder),
            Job::Browser => browser::run(self, &folder),
            Job::Fuzz(target) => self.fuzz(target),
        });
        let mut report = result.unwrap_or_else(|error| {
            let mut report = Report::default();
            report.fail("", format!("{error:#}"));
            report
        });
        let file = folder.join("report.txt");
        if let Err(error) = std::fs::write(&file, report.in_full(&case.name)) {
            report.fail("", format!("cannot write {}: {error}", file.display()));
        }
        report
    }
}

/// How long a fuzz target runs here: as long as a change is likely to be caught at once.
const FUZZ_SECONDS: u32 = 5;

impl World {
    /// Lets a fuzz target run for a moment, from the corpus that is kept.
    fn fuzz(&self, target: &str) -> Result<Report> {
        let mut report = Report::default();
        match &self.fuzzers {
            Err(why) => report.fail("", why.as_str()),
            Ok(programs) => {
                let ran = fuzz::run(programs, target, FUZZ_SECONDS)?;
                let found = ran.finding.map_or(Ok(()), Err);
                report.check("", found);
                let some = (ran.executions > 0).then_some(());
                report.check("ran", some.ok_or_else(|| "no input was tried".into()));
            }
        }
        Ok(report)
    }
}

/// An empty folder for a case's logs.
fn fresh(folder: &std::path::Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => std::fs::create_dir_all(folder),
    }
    .with_context(|| format!("cannot make the folder {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_fits_nothing_is_bad_usage() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            test: TestArgs,
        }
        let words = ["test", "--filter", "host/cargo"];
        let mut args = <Line as clap::Parser>::try_parse_from(words).unwrap().test;
        assert_eq!(select(&args).unwrap().len(), 1);
        args.guest_only = true;
        let error = select(&args).err().unwrap();
        assert!(error.is::<BadUsage>(), "{error}");
    }

    #[test]
    fn names_are_unique_and_both_halves_make_the_whole() {
        let cases = table();
        let mut names: Vec<_> = cases.iter().map(|case| &case.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), cases.len());
        let guests = cases.iter().filter(|case| case.is_guest()).count();
        assert!(guests > 0 && guests < cases.len());
    }
}
