//! The witnesses of a guest test: what QEMU itself says over QMP ([`pci`],
//! [`virtio`]), how many doorbells and interrupts its [`trace`] counts ([`doorbells`],
//! [`interrupts`]), and what stands on the disks afterwards ([`disks`]). The guest cannot fool them.
//!
//! A guest whose command line has the word `witness` prints a `checkpoint`
//! record and waits for a line on its serial line. Its `pci` records are then true,
//! and the devices with a `device` record since the checkpoint before are being
//! driven as the last of them says.

pub(crate) mod disks;
pub(crate) mod doorbells;
mod interrupts;
pub(crate) mod pci;
pub(crate) mod trace;
pub(crate) mod virtio;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use self::interrupts::Interrupts;
use self::trace::{Counts, Trace};
use super::peer::{Answer, Ask, Peers};
use super::report::Report;
use crate::qemu::devices::Doorbells;
use crate::qemu::{Files, Options};
use crate::qmp::{Qmp, QmpError};
use crate::record::Record;

/// QEMU makes its socket before the guest starts.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which device of QEMU's is where: `0000:00:02.0` or `0xfeb00e00` to the `id=`
/// of its command line.
pub(crate) type Places = BTreeMap<String, String>;

/// Compares at each checkpoint, and has done what is asked for.
pub(crate) struct Witness {
    socket: PathBuf,
    qmp: Option<Qmp>,
    /// How many records came before the last checkpoint.
    seen: usize,
    /// Whether each doorbell is traced on its own.
    exact: bool,
    /// How many records came before the doorbells that were not compared yet.
    rang: usize,
    checkpoints: usize,
    pub(crate) places: Places,
    pub(crate) peers: Peers,
    pub(crate) trace: Trace,
    interrupts: Interrupts,
    pub(crate) report: Report,
}

impl Witness {
    pub(crate) fn new(options: &Options, files: &Files) -> Self {
        Self {
            socket: files.qmp(),
            qmp: None,
            seen: 0,
            exact: options.doorbells == Doorbells::Direct,
            rang: 0,
            checkpoints: 0,
            places: Places::new(),
            peers: Peers::new(options, files),
            trace: Trace::new(files.trace()),
            interrupts: Interrupts::default(),
            report: Report::default(),
        }
    }

    /// Sees a record; on a checkpoint asks QEMU, compares, and lets the guest go on;
    /// does what is asked for, and tells the guest what came of it.
    pub(crate) fn observe(&mut self, record: &Record, before: &[Record]) -> Option<String> {
        if before.is_empty()
            && let Err(why) = self.peers.start()
        {
            self.report.fail("peers", why);
        }
        match record.kind() {
            "checkpoint" => {
                self.checkpoint(record.text("name").unwrap_or("checkpoint"), before);
                Some("\n".into())
            }
            "ask" => {
                // From here on QEMU's trace may have what was another device's.
                if record.text("action") == Some("plug") {
                    self.doorbells(before);
                }
                Some(self.ask(record))
            }
            _ => None,
        }
    }

    /// Compares the doorbells of the devices that there were since the last time with
    /// what the guest says of them in the run's records so far.
    pub(crate) fn doorbells(&mut self, records: &[Record]) {
        let new = &records[self.rang..];
        let result = self.trace.read_on();
        let result =
            result.and_then(|()| doorbells::compare(&self.trace.doorbells, new, self.exact));
        self.report.check("doorbells", result);
        self.trace.doorbells = Counts::default();
        self.rang = records.len();
    }

    fn checkpoint(&mut self, name: &str, before: &[Record]) {
        self.checkpoints += 1;
        if let Err(error) = self.compare(name, before) {
            match error {
                QmpError::Unknown(_) => self.report.skip(name, error.to_string()),
                _ => self.report.fail(name, error.to_string()),
            }
        }
        self.seen = before.len();
    }

    /// The line that answers the guest. What is not right fails here too, so that
    /// it counts whatever the guest makes of it.
    fn ask(&mut self, record: &Record) -> String {
        let answer = self.answer(record);
        let action = record.text("action").unwrap_or("?");
        let label = match record.address() {
            Some(address) => format!("ask/{action} {address}"),
            None => format!("ask/{action}"),
        };
        let line = match &answer {
            Ok(text) => format!("ok {text}"),
            Err(why) => format!("no {why}"),
        };
        self.report.check(&label, answer.map(drop));
        line.replace('\n', " ") + "\n"
    }

    fn answer(&mut self, record: &Record) -> Answer {
        let mut qmp = self.connection().map_err(|error| error.to_string())?;
        let device = match record.address() {
            None => Ok(None),
            Some(address) => self.device(&mut qmp, address).map(Some),
        };
        let device = device.map_err(|error| error.to_string());
        let answer = device.and_then(|id| {
            let ask = Ask::new(record, id.as_deref());
            match ask.action() {
                "interrupts" | "interrupted" => self.interrupts.answer(&ask, &mut self.trace),
                _ => self.peers.answer(&ask, &mut qmp),
            }
        });
        if let (Some("plug"), Some(id)) = (record.text("action"), record.text("id")) {
            self.interrupts.forget(id);
        }
        self.qmp = Some(qmp);
        answer
    }

    /// The `id=` of the device at `address`, which may have been plugged lately.
    fn device(&mut self, qmp: &mut Qmp, address: &str) -> Result<String, String> {
        if !self.places.contains_key(address) {
            self.locate(qmp).map_err(|error| error.to_string())?;
        }
        let id = self.places.get(address).cloned();
        id.ok_or_else(|| format!("QEMU has no device at {address}"))
    }

    /// A run without a checkpoint has been witnessed by nobody.
    pub(crate) fn finish(&mut self) {
        if self.checkpoints == 0 {
            self.report.fail(
                "checkpoints",
                "the guest made no checkpoint for the witnesses",
            );
        }
    }

    /// The connection, until it is put back.
    fn connection(&mut self) -> Result<Qmp, QmpError> {
        match self.qmp.take() {
            Some(qmp) => Ok(qmp),
            None => Qmp::connect(&self.socket, PATIENCE),
        }
    }

    /// Looks where the devices are; returns the PCI functions.
    fn locate(&mut self, qmp: &mut Qmp) -> Result<Value, QmpError> {
        let functions = qmp.execute("query-pci", json!({}))?;
        self.places.extend(pci::places(&functions));
        let tree = qmp.execute(
            "human-monitor-command",
            json!({"command-line": "info qtree"}),
        )?;
        let tree = tree.as_str().unwrap_or_default();
        self.places.extend(virtio::mmio_places(tree));
        Ok(functions)
    }

    fn compare(&mut self, name: &str, before: &[Record]) -> Result<(), QmpError> {
        let mut qmp = self.connection()?;
        let functions = self.locate(&mut qmp)?;
        let new = &before[self.seen..];
        // Again only when the guest says something new.
        if new.iter().any(|record| record.kind() == "pci") {
            pci::compare(&functions, &latest(before, "pci"), |what, result| {
                self.report.check(&format!("{name}/pci/{what}"), result);
            });
        }

        for claim in latest(new, "device") {
            let address = claim.address().unwrap_or_default();
            let label = format!("{name}/{} {address}", claim.text("device").unwrap_or("?"));
            let Some(id) = self.places.get(address) else {
                self.report
                    .fail(&label, format!("QEMU has no device at {address}"));
                continue;
            };
            let answers = virtio::ask(&mut qmp, id, claim)?;
            virtio::compare(&answers, claim, |what, result| {
                self.report.check(&format!("{label}/{what}"), result);
            });
        }
        self.qmp = Some(qmp);
        Ok(())
    }
}

/// The last record of `kind` for each address, in their order.
fn latest<'a>(records: &'a [Record], kind: &str) -> Vec<&'a Record> {
    let mut found: Vec<&Record> = Vec::new();
    for record in records.iter().filter(|record| record.kind() == kind) {
        found.retain(|other| other.address() != record.address());
        found.push(record);
    }
    found
}

/// A field that the guest writes as hexadecimal text, or as a number.
pub(crate) fn hex(value: &Value) -> Option<u64> {
    match value.as_str() {
        Some(text) => u64::from_str_radix(text.trim_start_matches("0x"), 16).ok(),
        None => value.as_u64(),
    }
}

/// `Ok` where both sides say the same.
pub(crate) fn same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    guest: T,
    qemu: T,
) -> Result<(), String> {
    if guest == qemu {
        Ok(())
    } else {
        Err(format!("{what}: the guest says {guest:x?}, QEMU {qemu:x?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qmp::tests::obedient;

    #[test]
    fn the_latest_record_of_an_address_counts() {
        let record = |text: &str| Record::parse(text).unwrap();
        let records = [
            record(r#"{"v":1,"kind":"device","bdf":"a","n":1}"#),
            record(r#"{"v":1,"kind":"device","mmio":"b","n":2}"#),
            record(r#"{"v":1,"kind":"pci","bdf":"a","n":3}"#),
            record(r#"{"v":1,"kind":"device","bdf":"a","n":4}"#),
        ];
        let numbers: Vec<_> = latest(&records, "device")
            .iter()
            .map(|record| record.number("n").unwrap())
            .collect();
        assert_eq!(numbers, [2, 4]);
    }

    #[test]
    fn numbers_come_as_text_or_as_numbers() {
        assert_eq!(hex(&json!("0xfeb0")), Some(0xfeb0));
        assert_eq!(hex(&json!("1af4")), Some(0x1af4));
        assert_eq!(hex(&json!(16)), Some(16));
        assert_eq!(hex(&json!(null)), None);
        assert_eq!(hex(&json!("no")), None);
    }

    fn witness(dir: &str) -> Witness {
        let options = crate::qemu::tests::options(crate::qemu::Machine::Microvm);
        Witness::new(&options, &Files::new(dir.into()).unwrap())
    }

    #[test]
    fn nobody_to_ask_is_a_failure_and_the_guest_goes_on() {
        let mut alone = witness("/no/such/folder");
        let checkpoint = Record::parse(r#"{"v":1,"kind":"checkpoint","name":"c"}"#).unwrap();
        assert_eq!(alone.observe(&checkpoint, &[]).as_deref(), Some("\n"));
        assert_eq!(alone.report.failed(), 1);
        let mut silent = witness("/");
        silent.finish();
        assert_eq!(silent.report.failed(), 1);
    }

    #[test]
    fn doorbells_are_compared_once() {
        let rang = |bdf: &str, n: u64| {
            let text = format!(r#"{{"v":1,"kind":"rang","bdf":"{bdf}","doorbells":{n}}}"#);
            Record::parse(&text).unwrap()
        };
        let mut witness = witness("/");
        witness.trace = trace::tests::trace(&[("0xaa", 3)], &[]);
        let mut records = vec![rang("a", 3)];
        witness.doorbells(&records);
        // Of what is plugged then, one is at the place of one that went.
        witness.trace.doorbells.add("0xbb", 1);
        witness.trace.doorbells.add("0xaa", 2);
        records.extend([rang("a", 1), rang("b", 2)]);
        witness.doorbells(&records);
        assert_eq!(witness.report.total(), "2 passed, 0 failed, 0 skipped");
        witness.trace.doorbells.add("0xaa", 1);
        witness.doorbells(&records);
        assert_eq!(witness.report.failed(), 1);
    }

    #[test]
    fn each_question_has_one_line_for_an_answer() {
        let mut witness = witness("/");
        witness.qmp = Some(obedient().0);
        witness.places.insert("a".into(), "blk0".into());
        let mut ask = |text: &str| {
            let record = Record::parse(&format!(r#"{{"v":1,"kind":"ask",{text}}}"#)).unwrap();
            witness.observe(&record, &[]).unwrap()
        };
        let answer = ask(r#""action":"resize","bdf":"a","bytes":33554432"#);
        assert_eq!(answer, "ok \n");
        let answer = ask(r#""action":"dance","bdf":"a""#);
        assert_eq!(answer, "no the host knows no action \"dance\"\n");
        let answer = ask(r#""action":"resize","bdf":"b","bytes":33554432"#);
        assert_eq!(answer, "no QEMU has no device at b\n");
        assert_eq!(witness.report.total(), "1 passed, 2 failed, 0 skipped");
        assert_eq!(
            witness.report.lines("x").lines().next(),
            Some("FAIL x/ask/dance a: the host knows no action \"dance\"")
        );
    }
}
