//! `cargo xtask fuzz`: builds the targets of `tests/fuzz` with coverage, as `cargo fuzz`
//! does but with the toolchain that is there, and lets each run for a while.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::image;
use crate::lock::{into_inner, lock};
use crate::say::{self, Progress};
use crate::setup::{self, SetupArgs, toolchain};
use crate::usage::BadUsage;

/// The targets: one program each.
pub(crate) const TARGETS: [&str; 9] = [
    "configuration",
    "assignment",
    "acpi",
    "start_info",
    "split_ring",
    "packed_ring",
    "console",
    "net",
    "command_line",
];
/// What makes LLVM count where a program goes. All of it is stable; a sanitizer is not.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Clink-dead-code";
/// An input that takes longer is a finding: something waits without end.
const INPUT_SECONDS: u32 = 10;
/// So is one that takes more memory, in MiB.
const INPUT_MIB: u32 = 1024;
/// How much longer than asked for a target may take: it reads its corpus first.
const GRACE: Duration = Duration::from_secs(120);

/// The options of `fuzz`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct FuzzArgs {
    /// Names of targets [default: all]
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// How long each runs
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// How many run at once [default: as many as there are CPUs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Put what reaches new places into the corpus that is kept, tests/fuzz/corpus
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    setup: SetupArgs,
}

/// What a target did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    /// Inputs that were tried.
    pub(crate) executions: u64,
    pub(crate) took: Duration,
    /// What was found, with where the input is.
    pub(crate) finding: Option<String>,
}

/// The package's folder.
fn home() -> PathBuf {
    image::workspace().join("tests").join("fuzz")
}

/// Where everything that is not kept goes.
fn out() -> PathBuf {
    image::target_folder().join("fuzz")
}

/// The host's target triple, for which alone the flags are: not for build scripts.
///
/// # Errors
/// When the compiler does not tell.
pub(crate) fn triple() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output();
    let output = output.context("cannot execute rustc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line
        .context("rustc does not say for what it compiles")?
        .to_owned())
}

/// Builds all targets; returns the folder of the programs.
///
/// # Errors
/// When cargo fails.
pub(crate) fn build() -> Result<PathBuf> {
    let triple = triple()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    toolchain::clean(&mut command, false);
    let output = command
        .args(["build", "--release", "--bins", "--target", &triple])
        .arg("--manifest-path")
        .arg(home().join("Cargo.toml"))
        .arg("--target-dir")
        .arg(out())
        .env("RUSTFLAGS", FLAGS)
        .stdin(Stdio::null())
        .output()
        .context("cannot execute cargo")?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("the fuzz targets did not build: {errors}");
    }
    Ok(out().join(triple).join("release"))
}

/// Lets a target run.
///
/// # Errors
/// When it cannot be run. What it finds is no error.
pub(crate) fn run(programs: &Path, target: &str, seconds: u32) -> Result<Ran> {
    let (new, seeds) = (
        out().join("corpus").join(target),
        home().join("corpus").join(target),
    );
    let findings = out().join("findings");
    for folder in [&new, &findings] {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    let log = out().join(format!("{target}.log"));
    let file = std::fs::File::create(&log);
    let file = file.with_context(|| format!("cannot write {}", log.display()))?;
    let begun = Instant::now();
    let mut child = Command::new(programs.join(target))
        .arg(&new)
        .arg(&seeds)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={INPUT_SECONDS}"))
        .arg(format!("-rss_limit_mb={INPUT_MIB}"))
        .arg("-print_final_stats=1")
        .arg(format!("-artifact_prefix={}/{target}-", findings.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file)
        .spawn()
        .with_context(|| format!("cannot execute the fuzz target {target}"))?;
    let limit = Duration::from_secs(seconds.into()) + GRACE;
    let status = loop {
        if let Some(status) = child.try_wait().context("cannot wait for a fuzz target")? {
            break Some(status);
        }
        if begun.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let text = std::fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let text = String::from_utf8_lossy(&text);
    let passed = status.is_some_and(|status| status.success());
    Ok(Ran {
        executions: executions(&text),
        took: begun.elapsed(),
        finding: (!passed).then(|| format!("{}; see {}", finding(&text), log.display())),
    })
}

/// How many inputs libFuzzer says it tried.
fn executions(log: &str) -> u64 {
    let line = log.lines().rev();
    let mut counts = line.filter_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    counts
        .next()
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

/// What libFuzzer says it found: the panic, and the input's file.
fn finding(log: &str) -> String {
    let wanted = |line: &&str| {
        line.contains("panicked at")
            || line.contains("ERROR: libFuzzer")
            || line.contains("Test unit written to")
    };
    let mut lines: Vec<&str> = Vec::new();
    let mut rest = log.lines();
    while let Some(line) = rest.next() {
        if wanted(&line) {
            lines.push(line.trim());
            if line.contains("panicked at") {
                // Its message is on the next line.
                lines.extend(rest.next());
            }
        }
    }
    match lines.as_slice() {
        [] => "it ended without a word".into(),
        lines => lines.join("; "),
    }
}

/// `cargo xtask fuzz`.
///
/// # Errors
/// When the targets do not build or run, or one found something.
pub(crate) fn main(args: &FuzzArgs) -> Result<ExitCode> {
    let targets: Vec<&str> = match args.targets.as_slice() {
        [] => TARGETS.to_vec(),
        names => names.iter().map(String::as_str).collect(),
    };
    if let Some(name) = targets.iter().find(|name| !TARGETS.contains(name)) {
        let known = TARGETS.join(", ");
        bail!(BadUsage(format!(
            "there is no fuzz target `{name}`; there are: {known}"
        )));
    }
    setup::cxx(&args.setup)?;
    let programs = {
        let _progress = Progress::start("building the fuzz targets");
        build()?
    };
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = args.jobs.map_or(cpus, usize::from).min(targets.len());
    let rounds = targets.len().div_ceil(jobs);
    let progress = Progress::start(format!(
        "{} targets, {jobs} at once, {} s each: about {} s",
        targets.len(),
        args.seconds,
        rounds * args.seconds as usize
    ));
    let next = AtomicUsize::new(0);
    let all = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let ran = run(&programs, target, args.seconds);
                    if let Ok(ran) = &ran {
                        progress.print(line(target, ran));
                    }
                    lock(&all).push((*target, ran));
                }
            });
        }
    });
    drop(progress);
    let all = into_inner(all);
    let mut found = Vec::new();
    for (target, ran) in all {
        found.extend(ran?.finding.map(|_| target));
        if args.keep {
            keep(&programs, target)?;
        }
    }
    if found.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    say::note(format!(
        "found something: {}. An input goes through again by giving its file to the program in {}",
        found.join(", "),
        programs.display()
    ));
    Ok(ExitCode::FAILURE)
}

fn line(target: &str, ran: &Ran) -> String {
    let (executions, seconds) = (ran.executions, ran.took.as_secs());
    match &ran.finding {
        None => format!("{target:14} {executions:>12} executions in {seconds} s, nothing found"),
        Some(finding) => format!("{target:14} FOUND after {seconds} s: {finding}"),
    }
}

/// Adds to the corpus that is kept what reaches places that nothing in it reaches.
fn keep(programs: &Path, target: &str) -> Result<()> {
    let seeds = home().join("corpus").join(target);
    let status = Command::new(programs.join(target))
        .arg("-merge=1")
        .arg(&seeds)
        .arg(out().join("corpus").join(target))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .with_context(|| format!("cannot execute the fuzz target {target}"))?;
    if !status.success() {
        bail!("{target}: its corpus could not be merged");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_a_program_of_the_package_and_has_a_corpus() {
        let manifest = std::fs::read_to_string(home().join("Cargo.toml")).unwrap();
        for target in TARGETS {
            assert!(
                manifest.contains(&format!("name = \"{target}\"")),
                "{target}"
            );
            let corpus = std::fs::read_dir(home().join("corpus").join(target));
            assert!(corpus.unwrap().count() > 0, "{target}");
        }
        assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
    }

    #[test]
    fn libfuzzers_words_are_understood() {
        let log = "#2\tINITED\nstat::number_of_executed_units: 1234\nstat::peak_rss_mb: 40\n";
        assert_eq!(executions(log), 1234);
        assert_eq!(executions("nothing"), 0);
        let log = "thread 'x' panicked at src/ring.rs:1:2:\na token twice\nnoise\n\
                   ==1== ERROR: libFuzzer: deadly signal\nTest unit written to /f/crash-1\n";
        assert_eq!(
            finding(log),
            "thread 'x' panicked at src/ring.rs:1:2:; a token twice; \
             ==1== ERROR: libFuzzer: deadly signal; Test unit written to /f/crash-1"
        );
        assert_eq!(finding(""), "it ended without a word");
    }
}
