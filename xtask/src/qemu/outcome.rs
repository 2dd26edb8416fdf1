//! How a run ended, told apart: the guest's verdict, its death, QEMU's, or ours.

use std::time::Duration;

use super::launch::{Cut, Ended};

/// The port of `isa-debug-exit`. A guest that writes `code` there ends QEMU
/// with status `code * 2 + 1`.
pub(crate) const EXIT_PORT: u16 = 0xf4;

/// The codes that the guest writes (kernel/src/arch/exit.rs).
mod code {
    pub(super) const SUCCESS: i32 = 0x10;
    pub(super) const FAILURE: i32 = 0x11;
    pub(super) const PANIC: i32 = 0x12;
    pub(super) const EXCEPTION: i32 = 0x13;
}

/// The exit statuses of `cargo xtask run`, for --help.
pub(crate) const EXIT_STATUS_HELP: &str = "\
Exit status:
    0  the guest succeeded
    1  the tool failed: set-up, build, files
    2  bad usage
   10  the guest reported a failure
   11  the guest panicked
   12  the guest took an unexpected CPU exception
   13  the guest ended without a verdict, as by a triple fault
   14  the guest hung: silent for the time of --timeout, or stuck in KVM
   15  QEMU did not start
   16  QEMU died: a signal, or an error of its own during the run
   17  a malformed record, or a verdict that contradicts the exit code
  130  interrupted";

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    Pass,
    Fail,
    Panic,
    Exception,
    /// QEMU ended normally, but the guest had given no verdict.
    NoVerdict,
    /// A status that no guest of ours ends with.
    UnknownStatus(i32),
    NotStarted,
    QemuError,
    QemuSignal(i32),
    /// The guest printed nothing for so long.
    Silent(Duration),
    /// The guest did not end in so long.
    TooLong(Duration),
    /// KVM could not go on, and QEMU holds the guest.
    Stuck,
    /// Firmware stopped before any guest.
    FirmwareGaveUp,
    Interrupted,
    Malformed(usize),
    /// The guest's `end` record, if any, is not what its exit code says.
    Contradiction(Option<String>),
}

impl Outcome {
    /// Classifies what [`super::launch::launch`] saw.
    pub(crate) fn of(ended: &Ended) -> Self {
        match ended.cut {
            Some(Cut::Silent(limit)) => return Self::Silent(limit),
            Some(Cut::TooLong(limit)) => return Self::TooLong(limit),
            Some(Cut::Stuck) => return Self::Stuck,
            Some(Cut::FirmwareGaveUp) => return Self::FirmwareGaveUp,
            Some(Cut::Interrupted) => return Self::Interrupted,
            None => {}
        }
        if let Some(signal) = ended.signal {
            return Self::QemuSignal(signal);
        }
        let status = ended.status.unwrap_or_default();
        let outcome = match status {
            0 => Self::NoVerdict,
            1 if ended.last_line.is_empty() && ended.records.is_empty() => Self::NotStarted,
            1 => Self::QemuError,
            odd if odd & 1 == 1 => match odd >> 1 {
                code::SUCCESS => Self::Pass,
                code::FAILURE => Self::Fail,
                code::PANIC => Self::Panic,
                code::EXCEPTION => Self::Exception,
                _ => Self::UnknownStatus(status),
            },
            _ => Self::UnknownStatus(status),
        };
        if outcome != Self::Pass {
            return outcome;
        }
        if !ended.malformed.is_empty() {
            return Self::Malformed(ended.malformed.len());
        }
        // A pass takes both: the exit code and the last record.
        let verdict = ended
            .records
            .last()
            .filter(|record| record.kind() == "end")
            .and_then(|record| record.text("verdict"));
        match verdict {
            Some("pass") => outcome,
            other => Self::Contradiction(other.map(str::to_owned)),
        }
    }

    /// The exit status of `cargo xtask run`; see [`EXIT_STATUS_HELP`].
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Fail => 10,
            Self::Panic => 11,
            Self::Exception => 12,
            Self::NoVerdict | Self::UnknownStatus(_) => 13,
            Self::Silent(_) | Self::TooLong(_) | Self::Stuck | Self::FirmwareGaveUp => 14,
            Self::NotStarted => 15,
            Self::QemuError | Self::QemuSignal(_) => 16,
            Self::Malformed(_) | Self::Contradiction(_) => 17,
            Self::Interrupted => 130,
        }
    }

    /// One word for results.json.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Panic => "panic",
            Self::Exception => "exception",
            Self::NoVerdict | Self::UnknownStatus(_) => "no-verdict",
            Self::Silent(_) | Self::TooLong(_) => "time-out",
            Self::Stuck => "stuck",
            Self::FirmwareGaveUp => "firmware-gave-up",
            Self::NotStarted => "not-started",
            Self::QemuError | Self::QemuSignal(_) => "qemu-died",
            Self::Malformed(_) | Self::Contradiction(_) => "malformed",
            Self::Interrupted => "interrupted",
        }
    }

    /// What to tell the user, or nothing after a success.
    pub(crate) fn explain(&self, ended: &Ended) -> Option<String> {
        let message = match self {
            Self::Pass => return None,
            Self::Fail => "the guest reports a failure (see above)".to_owned(),
            Self::Panic => format!("the guest panicked{}", during(ended)),
            Self::Exception => format!("the guest took a CPU exception{}", during(ended)),
            Self::NoVerdict => format!(
                "the guest reset or shut down without a verdict{}: a triple fault looks like this; \
                 `--qemu-arg -d --qemu-arg int,cpu_reset` shows it",
                during(ended)
            ),
            Self::UnknownStatus(status) => format!(
                "QEMU ended with status {status}, which is no verdict of this guest's{}",
                during(ended)
            ),
            Self::NotStarted => format!("QEMU did not start. It says:\n{}", ended.qemu_says()),
            Self::QemuError => format!(
                "QEMU failed during the run{}. It says:\n{}",
                during(ended),
                ended.qemu_says()
            ),
            Self::QemuSignal(signal) => format!(
                "QEMU died of signal {signal}{}{}",
                during(ended),
                ended.qemu_said()
            ),
            Self::Silent(limit) => format!(
                "the guest printed nothing for {} s{}. Is that too short? \
                 Then give it more with --timeout SECONDS{}",
                limit.as_secs(),
                during(ended),
                ended.qemu_said()
            ),
            Self::TooLong(limit) => format!(
                "the guest did not end within {} s{}{}",
                limit.as_secs(),
                during(ended),
                ended.qemu_said()
            ),
            Self::FirmwareGaveUp => {
                "firmware gave up before any guest: firmware.log says why".to_owned()
            }
            Self::Stuck => format!(
                "the guest cannot go on{}: QEMU says:\n{}\nDoes `--accel tcg` work?",
                during(ended),
                ended.qemu_says()
            ),
            Self::Interrupted => "interrupted; what the guest said until then is kept".to_owned(),
            Self::Malformed(n) => format!("{n} malformed record(s), beginning with those above"),
            Self::Contradiction(None) => {
                "the guest ended with success, but without an `end` record".to_owned()
            }
            Self::Contradiction(Some(verdict)) => {
                format!("the guest ended with success, but its `end` record says \"{verdict}\"")
            }
        };
        Some(message)
    }
}

/// Where the guest was: the last command begun, and the last line printed.
fn during(ended: &Ended) -> String {
    let command = match &ended.last_command {
        Some(command) => format!(" during its command `{command}`"),
        None if ended.records.is_empty() => " before its first record".to_owned(),
        None => " before its first command".to_owned(),
    };
    match ended.last_line.as_str() {
        "" => command,
        line => format!("{command} (last line: {line:?})"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::launch::tests::ended;
    use super::*;
    use crate::record::Record;

    fn with(status: i32, last: &str) -> Outcome {
        let mut ended = ended();
        ended.status = Some(status);
        ended.last_line = "hello".into();
        ended.records.push(Record::parse(last).unwrap());
        Outcome::of(&ended)
    }

    const PASS: &str = r#"{"v":1,"kind":"end","verdict":"pass"}"#;

    #[test]
    fn every_exit_code_has_its_outcome() {
        assert_eq!(with(33, PASS), Outcome::Pass);
        assert_eq!(with(35, PASS), Outcome::Fail);
        assert_eq!(with(37, PASS), Outcome::Panic);
        assert_eq!(with(39, PASS), Outcome::Exception);
        assert_eq!(with(0, PASS), Outcome::NoVerdict);
        assert_eq!(with(1, PASS), Outcome::QemuError);
        assert_eq!(with(41, PASS), Outcome::UnknownStatus(41));
        assert_eq!(with(2, PASS), Outcome::UnknownStatus(2));
    }

    #[test]
    fn a_pass_takes_the_end_record_too() {
        let fail = with(33, r#"{"v":1,"kind":"end","verdict":"fail"}"#);
        assert_eq!(fail, Outcome::Contradiction(Some("fail".into())));
        let none = with(33, r#"{"v":1,"kind":"boot"}"#);
        assert_eq!(none, Outcome::Contradiction(None));
        assert_eq!(none.exit_status(), 17);
    }

    #[test]
    fn a_malformed_record_spoils_a_pass() {
        let mut ended = ended();
        ended.status = Some(33);
        ended.records.push(Record::parse(PASS).unwrap());
        ended.malformed.push(Record::parse("{").unwrap_err());
        assert_eq!(Outcome::of(&ended), Outcome::Malformed(1));
    }

    #[test]
    fn qemus_own_ends() {
        let mut ended = ended();
        ended.status = Some(1);
        ended.stderr = "qemu: -device nonsense: no".into();
        let outcome = Outcome::of(&ended);
        assert_eq!(outcome, Outcome::NotStarted);
        assert!(
            outcome
                .explain(&ended)
                .unwrap()
                .contains("-device nonsense")
        );
        ended.signal = Some(11);
        assert_eq!(Outcome::of(&ended), Outcome::QemuSignal(11));
        ended.cut = Some(Cut::Silent(Duration::from_secs(5)));
        ended.last_command = Some("hang".into());
        let outcome = Outcome::of(&ended);
        let message = outcome.explain(&ended).unwrap();
        assert!(
            message.contains("`hang`") && message.contains("--timeout"),
            "{message}"
        );
        assert!(message.contains("printed nothing for 5 s"), "{message}");
        ended.cut = Some(Cut::TooLong(Duration::from_secs(600)));
        let outcome = Outcome::of(&ended);
        let message = outcome.explain(&ended).unwrap();
        assert!(message.contains("did not end within 600 s"), "{message}");
        assert_eq!(outcome.exit_status(), 14);
    }
}
