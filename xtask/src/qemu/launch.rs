//! One run of QEMU: start it, pass the guest's lines on as they come, keep
//! everything in files, and end it when it has been silent for too long.
//!
//! The folder of the run gets `qemu.cmd` (the command line), `qemu.log` (QEMU's
//! stderr) and `serial.log` (every byte the guest printed).

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

use super::input::{Input, pass_input};
use super::{Files, shell_line};
use crate::qmp::Qmp;
use crate::record::{BadRecord, Line, Record, Splitter};
use crate::say;

/// How often the clock is looked at while the guest is silent.
const TICK: Duration = Duration::from_millis(50);
/// How long QEMU may take to leave when it is asked to.
const FAREWELL: Duration = Duration::from_secs(2);
/// How much of QEMU's stderr a message shows, from its end.
const SHOWN: usize = 2000;
/// What QEMU prints before it holds a guest that KVM can't run.
const KVM_STUCK: &str = "KVM internal error";
/// What SeaBIOS says when IO space has run out (its `pci_bios_init_root_regions_io`), in
/// QEMU's debug console: it stops there.
const FIRMWARE_GAVE_UP: &str = "PCI: out of I/O address space";

/// Who sees the guest's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Echo {
    Nobody,
    /// What is for people.
    Text,
    /// The records as well.
    Everything,
}

/// Sees each record as it comes, with those before it, and may answer with
/// text for the guest's serial line ([`Input::Answers`]).
pub(crate) type Observe<'a> = dyn FnMut(&Record, &[Record]) -> Option<String> + 'a;

/// A run to be done.
pub(crate) struct Launch<'a> {
    pub(crate) command: &'a [String],
    pub(crate) files: &'a Files,
    /// The run ends when the guest has printed nothing for so long.
    pub(crate) silence: Option<Duration>,
    /// The run ends after so long, whatever it prints.
    pub(crate) total: Option<Duration>,
    pub(crate) input: Input,
    pub(crate) echo: Echo,
    /// Firmware's log, if it is kept: it may say that it gives up.
    pub(crate) firmware: Option<PathBuf>,
}

impl<'a> Launch<'a> {
    /// A run that nobody watches and that hears nothing, within `limit`.
    pub(crate) fn unseen(command: &'a [String], files: &'a Files, limit: Duration) -> Self {
        Self {
            command,
            files,
            silence: Some(limit),
            total: Some(limit),
            input: Input::Nothing,
            echo: Echo::Nobody,
            firmware: None,
        }
    }
}

/// Why QEMU was ended before its guest ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The guest printed nothing for so long.
    Silent(Duration),
    /// The guest did not end in so long.
    TooLong(Duration),
    Stuck,
    /// Firmware stopped before any guest.
    FirmwareGaveUp,
    Interrupted,
}

/// What a run left.
#[derive(Debug)]
pub(crate) struct Ended {
    /// QEMU's exit status, if it ended by itself.
    pub(crate) status: Option<i32>,
    /// The signal QEMU died of.
    pub(crate) signal: Option<i32>,
    pub(crate) cut: Option<Cut>,
    pub(crate) records: Vec<Record>,
    pub(crate) malformed: Vec<BadRecord>,
    /// The last line for people that wasn't empty.
    pub(crate) last_line: String,
    /// The last guest command that began.
    pub(crate) last_command: Option<String>,
    /// QEMU's stderr.
    pub(crate) stderr: String,
    /// From QEMU's start to the guest's first record.
    pub(crate) first_record: Option<Duration>,
    /// From QEMU's start to its end.
    pub(crate) took: Duration,
}

impl Ended {
    /// The end of QEMU's own messages, indented.
    pub(crate) fn qemu_says(&self) -> String {
        let text = self.stderr.trim_end();
        let cut = (text.len().saturating_sub(SHOWN)..=text.len())
            .find(|&at| text.is_char_boundary(at))
            .unwrap_or_default();
        match &text[cut..] {
            "" => "    (nothing)".to_owned(),
            tail => format!("    {}", tail.replace('\n', "\n    ")),
        }
    }

    /// The same after its own introduction, or nothing if QEMU was silent.
    pub(crate) fn qemu_said(&self) -> String {
        if self.stderr.trim().is_empty() {
            String::new()
        } else {
            format!(". QEMU says:\n{}", self.qemu_says())
        }
    }
}

/// Set by SIGINT and SIGTERM from the first call on. The run that goes on then
/// is ended, and what it left is kept.
pub(crate) fn interrupted() -> Result<Arc<AtomicBool>> {
    static FLAG: std::sync::OnceLock<Arc<AtomicBool>> = std::sync::OnceLock::new();
    if let Some(flag) = FLAG.get() {
        return Ok(flag.clone());
    }
    let flag = FLAG.get_or_init(Arc::default);
    for signal in [
        signal_hook::consts::SIGINT,
        signal_hook::consts::SIGTERM,
        signal_hook::consts::SIGHUP,
    ] {
        signal_hook::flag::register(signal, flag.clone()).context("cannot watch for Ctrl-C")?;
    }
    Ok(flag.clone())
}

/// Runs QEMU until it ends or must be ended.
///
/// # Errors
/// When a file can't be written or the program can't be executed. Whatever QEMU
/// or the guest does is no error but part of [`Ended`].
pub(crate) fn launch(run: &Launch, observe: &mut Observe) -> Result<Ended> {
    let interrupted = interrupted()?;
    let file = |path: PathBuf| {
        File::create(&path).with_context(|| format!("cannot write {}", path.display()))
    };
    writeln!(file(run.files.command())?, "{}", shell_line(run.command))?;
    let serial = file(run.files.serial())?;
    let stderr = file(run.files.log())?;

    let (program, arguments) = run.command.split_first().context("no command")?;
    let start = Instant::now();
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(match run.input {
            Input::Nothing => Stdio::null(),
            Input::Terminal => Stdio::inherit(),
            Input::Pipe | Input::Answers => Stdio::piped(),
        })
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .with_context(|| format!("cannot execute {program}"))?;
    let (sender, output) = sync_channel(64);
    let mut stdout = child.stdout.take().context("QEMU has no stdout")?;
    std::thread::spawn(move || pass_output(&mut stdout, &sender));

    let mut session = Session {
        run,
        qmp: run.files.qmp(),
        stdin: child.stdin.take(),
        splitter: Splitter::new(run.echo == Echo::Everything),
        serial,
        start,
        heard: start,
        ended: Ended {
            status: None,
            signal: None,
            cut: None,
            records: Vec::new(),
            malformed: Vec::new(),
            last_line: String::new(),
            last_command: None,
            stderr: String::new(),
            first_record: None,
            took: Duration::ZERO,
        },
        log: run.files.log(),
        log_seen: 0,
    };
    session.follow(&output, &interrupted, observe)?;
    let status = session.farewell(&mut child)?;
    // Ctrl-C reaches QEMU too, and may end it first.
    if interrupted.load(Ordering::Relaxed) {
        session.ended.cut = Some(Cut::Interrupted);
    }
    if session.ended.cut.is_none() {
        session.ended.status = status.code();
        session.ended.signal = status.signal();
    }
    session.ended.took = start.elapsed();
    session.ended.stderr = session.read_log();
    // QEMU removes its socket itself, unless it was killed.
    let _ = std::fs::remove_file(&session.qmp);
    Ok(session.ended)
}

fn pass_output(stdout: &mut dyn Read, sender: &SyncSender<Vec<u8>>) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(n) = stdout.read(&mut buffer) {
        if n == 0 || sender.send(buffer[..n].to_vec()).is_err() {
            return;
        }
    }
}

struct Session<'a> {
    run: &'a Launch<'a>,
    qmp: PathBuf,
    stdin: Option<ChildStdin>,
    splitter: Splitter,
    serial: File,
    start: Instant,
    /// When the guest last printed something.
    heard: Instant,
    ended: Ended,
    log: PathBuf,
    log_seen: u64,
}

impl Session<'_> {
    /// Takes in what the guest prints until its output ends or the run is cut.
    fn follow(
        &mut self,
        output: &Receiver<Vec<u8>>,
        interrupted: &AtomicBool,
        observe: &mut Observe,
    ) -> Result<()> {
        loop {
            match output.recv_timeout(TICK) {
                Ok(bytes) => self.take(&bytes, observe)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.ended.cut = if interrupted.load(Ordering::Relaxed) {
                Some(Cut::Interrupted)
            } else if let Some(cut) = self.overdue() {
                Some(cut)
            } else if self.firmware_gave_up() {
                Some(Cut::FirmwareGaveUp)
            } else {
                self.is_stuck().then_some(Cut::Stuck)
            };
            if self.ended.cut.is_some() {
                break;
            }
        }
        if let Some(line) = self.splitter.finish() {
            self.line(line, observe)?;
        }
        Ok(())
    }

    /// Whether the guest's time is over, and which.
    fn overdue(&self) -> Option<Cut> {
        let over = |since: Instant| move |limit: &Duration| since.elapsed() >= *limit;
        let silent = self.run.silence.filter(over(self.heard)).map(Cut::Silent);
        silent.or_else(|| self.run.total.filter(over(self.start)).map(Cut::TooLong))
    }

    fn take(&mut self, bytes: &[u8], observe: &mut Observe) -> Result<()> {
        self.serial
            .write_all(bytes)
            .context("cannot write serial.log")?;
        let lines = match self.run.echo {
            Echo::Nobody => self.splitter.feed(bytes, &mut std::io::sink()),
            _ => self.splitter.feed(bytes, &mut std::io::stdout().lock()),
        };
        lines
            .into_iter()
            .try_for_each(|line| self.line(line, observe))?;
        // Not before: who reads our output slowly takes none of the guest's time.
        self.heard = Instant::now();
        Ok(())
    }

    fn line(&mut self, line: Line, observe: &mut Observe) -> Result<()> {
        match line {
            Line::Text(text) if text.trim().is_empty() => {}
            Line::Text(text) => self.ended.last_line = text,
            Line::Record(Err(bad)) => {
                if self.run.echo != Echo::Nobody {
                    say::note(bad.to_string());
                }
                self.ended.malformed.push(bad);
            }
            Line::Record(Ok(record)) => self.record(record, observe),
        }
        Ok(())
    }

    fn record(&mut self, record: Record, observe: &mut Observe) {
        self.ended
            .first_record
            .get_or_insert_with(|| self.start.elapsed());
        if record.kind() == "command" {
            let command = record.text("command").unwrap_or_default();
            if command.split_whitespace().next() == Some("shell")
                && self.run.input == Input::Pipe
                && let Some(mut stdin) = self.stdin.take()
            {
                std::thread::spawn(move || pass_input(&mut std::io::stdin().lock(), &mut stdin));
            }
            self.ended.last_command = Some(command.to_owned());
        }
        if let Some(answer) = observe(&record, &self.ended.records)
            && let Some(stdin) = &mut self.stdin
        {
            // A QEMU that is gone shows in its status.
            let _ = stdin
                .write_all(answer.as_bytes())
                .and_then(|()| stdin.flush());
        }
        self.ended.records.push(record);
    }

    /// Whether QEMU said that KVM can't go on. QEMU then holds the guest for a
    /// debugger, and nothing would ever end the run.
    fn is_stuck(&mut self) -> bool {
        let size = std::fs::metadata(&self.log).map_or(0, |meta| meta.len());
        if size == self.log_seen {
            return false;
        }
        self.log_seen = size;
        self.read_log().contains(KVM_STUCK)
    }

    /// Whether firmware said that it cannot go on, which it then does not.
    fn firmware_gave_up(&self) -> bool {
        let Some(path) = self
            .run
            .firmware
            .as_ref()
            .filter(|_| self.ended.records.is_empty())
        else {
            return false;
        };
        let log = std::fs::read(path).unwrap_or_default();
        String::from_utf8_lossy(&log).contains(FIRMWARE_GAVE_UP)
    }

    fn read_log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits for QEMU's end. A run that was cut is first asked over QMP, so that
    /// QEMU gives the terminal back as it was, and then killed.
    fn farewell(&mut self, child: &mut Child) -> Result<std::process::ExitStatus> {
        let mut patience = FAREWELL;
        if self.ended.cut.is_some() {
            match Qmp::connect(&self.qmp, Duration::ZERO) {
                Ok(mut qmp) => drop(qmp.execute("quit", json!({}))),
                Err(_) => patience = Duration::ZERO,
            }
        }
        let asked = Instant::now();
        loop {
            if let Some(status) = child.try_wait().context("cannot wait for QEMU")? {
                return Ok(status);
            }
            if asked.elapsed() >= patience {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        child.wait().context("cannot wait for QEMU")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A run in which nothing has happened.
    pub(crate) fn ended() -> Ended {
        Ended {
            status: None,
            signal: None,
            cut: None,
            records: Vec::new(),
            malformed: Vec::new(),
            last_line: String::new(),
            last_command: None,
            stderr: String::new(),
            first_record: None,
            took: Duration::ZERO,
        }
    }

    /// Runs a shell script in QEMU's place.
    fn run(name: &str, script: &str, silence: u64, observe: &mut Observe) -> Ended {
        let dir = std::env::temp_dir().join(format!("doorbell-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let files = Files::new(dir.clone()).unwrap();
        let command = ["sh", "-c", script].map(str::to_owned);
        let launch = Launch {
            command: &command,
            files: &files,
            silence: Some(Duration::from_millis(silence)),
            total: Some(Duration::from_millis(4 * silence)),
            input: Input::Answers,
            echo: Echo::Nobody,
            firmware: Some(dir.join("firmware.log")),
        };
        let ended = super::launch(&launch, observe).unwrap();
        std::fs::remove_dir_all(dir).unwrap();
        ended
    }

    #[test]
    fn records_and_text_are_told_apart_and_kept() {
        let script = r#"echo hello; echo '@{"v":1,"kind":"command","command":"lspci"}'
            echo '@{"v":1'; printf 'no newline'; echo oops >&2; exit 33"#;
        let ended = run("kept", script, 5000, &mut |_, _| None);
        assert_eq!(ended.status, Some(33));
        assert_eq!(ended.records.len(), 1);
        assert_eq!(ended.malformed.len(), 1);
        assert_eq!(ended.last_line, "no newline");
        assert_eq!(ended.last_command.as_deref(), Some("lspci"));
        assert_eq!(ended.stderr, "oops\n");
        assert!(ended.first_record.is_some());
    }

    #[test]
    fn the_observer_answers_the_guest() {
        let script = r#"echo '@{"v":1,"kind":"checkpoint"}'; read x; echo "got $x"; exit 33"#;
        let ended = run("answers", script, 5000, &mut |record, before| {
            assert!(before.is_empty());
            (record.kind() == "checkpoint").then(|| "go\n".into())
        });
        assert_eq!(ended.last_line, "got go");
    }

    #[test]
    fn a_silent_guest_is_ended_in_time() {
        let ended = run(
            "hang",
            "echo still here; exec sleep 60",
            200,
            &mut |_, _| None,
        );
        assert_eq!(ended.cut, Some(Cut::Silent(Duration::from_millis(200))));
        assert_eq!(ended.last_line, "still here");
        assert!(ended.took < Duration::from_secs(10));
    }

    #[test]
    fn a_guest_that_talks_gets_more_time_but_not_for_ever() {
        let talk = |times| format!("for i in $(seq {times}); do echo $i; sleep 0.1; done; exit 33");
        let ended = run("talks", &talk(20), 1000, &mut |_, _| None);
        assert_eq!((ended.status, ended.cut), (Some(33), None));
        let ended = run("babbles", &talk(600), 1000, &mut |_, _| None);
        assert_eq!(ended.cut, Some(Cut::TooLong(Duration::from_secs(4))));
    }

    #[test]
    fn firmware_that_gives_up_is_not_waited_for() {
        let script = |said: &str, dir: &str| {
            format!("echo '{said}' > \"{dir}\"/firmware.log; sleep 0.5; exit 33")
        };
        let name = "gives-up";
        let dir = std::env::temp_dir().join(format!("doorbell-{}-{name}", std::process::id()));
        let dir = dir.to_str().unwrap();
        let ended = run(name, &script(FIRMWARE_GAVE_UP, dir), 5000, &mut |_, _| None);
        assert_eq!(ended.cut, Some(Cut::FirmwareGaveUp));
        let ended = run(
            name,
            &script("All threads complete.", dir),
            5000,
            &mut |_, _| None,
        );
        assert_eq!((ended.status, ended.cut), (Some(33), None));
    }

    #[test]
    fn a_signal_and_a_stuck_kvm_are_seen() {
        let ended = run("signal", "kill -SEGV $$", 5000, &mut |_, _| None);
        assert_eq!((ended.status, ended.signal), (None, Some(11)));
        let script = "echo 'KVM internal error. Suberror: 1' >&2; exec sleep 60";
        let ended = run("stuck", script, 5000, &mut |_, _| None);
        assert_eq!(ended.cut, Some(Cut::Stuck));
        assert!(ended.qemu_says().contains("Suberror"));
    }
}
