//! The balloon, by QMP.
//!
//! | action | arguments | answer |
//! |---|---|---|
//! | `balloon` | `bytes` | after QEMU asked the guest to have so much memory |
//! | `balloon-is` | `bytes` | once QEMU says that the guest has so much |
//! | `guest-stats` | `NAME` as QEMU has it, e.g. `stat-free-memory` | the next statistics, as JSON, if those given are right |
//!
//! QEMU asks for statistics at once and then once a second, and the guest must answer it
//! while it waits. Afterwards QEMU asks for none.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Answer, Ask};
use crate::qmp::{Qmp, QmpError};

/// How long to wait for the guest.
const LIMIT: Duration = Duration::from_secs(20);
/// How often QEMU is asked.
const STEP: Duration = Duration::from_millis(20);
/// Seconds between QEMU's questions for statistics: the least there is.
const INTERVAL: u64 = 1;

pub(crate) fn answer(ask: &Ask<'_>, qmp: &mut Qmp) -> Answer {
    match ask.action() {
        "balloon" => {
            let arguments = json!({"value": ask.number("bytes")?});
            qmp.execute("balloon", arguments).map_err(said)?;
            Ok(String::new())
        }
        "balloon-is" => {
            let bytes = ask.number("bytes")?;
            let actual = until(LIMIT, || {
                let balloon = qmp.execute("query-balloon", json!({})).map_err(said)?;
                let actual = balloon["actual"].clone();
                Ok((actual == bytes, actual))
            })?;
            actual
                .map(|_| String::new())
                .map_err(|actual| format!("the guest has {actual} bytes in QEMU, and not {bytes}"))
        }
        _ => statistics(ask, qmp, ask.device()?),
    }
}

fn said(error: QmpError) -> String {
    error.to_string()
}

/// Tries until it is good, but not for ever; then the last result is an error.
fn until<T>(
    limit: Duration,
    mut attempt: impl FnMut() -> Result<(bool, T), String>,
) -> Result<Result<T, T>, String> {
    let start = Instant::now();
    loop {
        match attempt()? {
            (true, result) => return Ok(Ok(result)),
            (false, result) if start.elapsed() >= limit => return Ok(Err(result)),
            _ => thread::sleep(STEP),
        }
    }
}

/// What the guest says of its memory from now on.
fn statistics(ask: &Ask<'_>, qmp: &mut Qmp, id: &str) -> Answer {
    let path = format!("/machine/peripheral/{id}");
    let get = |qmp: &mut Qmp, property: &str| {
        let arguments = json!({"path": path, "property": property});
        qmp.execute("qom-get", arguments).map_err(said)
    };
    let every = |qmp: &mut Qmp, seconds: u64| {
        let arguments = json!({
            "path": path, "property": "guest-stats-polling-interval", "value": seconds,
        });
        qmp.execute("qom-set", arguments).map_err(said)
    };
    let updated = |answer: &Value| answer["last-update"].as_u64();
    let before = updated(&get(qmp, "guest-stats")?);
    every(qmp, INTERVAL)?;
    let answer = until(LIMIT, || {
        let answer = get(qmp, "guest-stats")?;
        Ok((updated(&answer) > before, answer))
    });
    every(qmp, 0)?;
    let answer = answer?.map_err(|_| "no statistics came from the guest".to_owned())?;
    let stats = &answer["stats"];
    for (name, value) in ask.others() {
        if stats[name] != *value {
            return Err(format!(
                "{name} is {} in QEMU, not {value}: {stats}",
                stats[name]
            ));
        }
    }
    Ok(stats.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::tests::ask;
    use super::*;
    use crate::qmp::tests::{fake, obedient};

    #[test]
    fn a_target_is_qemus_and_what_is_reached_is_waited_for() {
        let (mut qmp, asked) = obedient();
        let record = ask(r#""action":"balloon","bytes":33554432"#);
        let told = answer(&Ask::new(&record, None), &mut qmp);
        assert_eq!(told, Ok(String::new()));
        let value = json!({"value": 32 << 20});
        assert_eq!(*asked.lock().unwrap(), [("balloon".into(), value)]);

        let mut actual = 60;
        let (mut qmp, _) = fake(move |_, _| {
            actual -= 5;
            vec![json!({"return": {"actual": actual}})]
        });
        let record = ask(r#""action":"balloon-is","bytes":40"#);
        let told = answer(&Ask::new(&record, None), &mut qmp);
        assert_eq!(told, Ok(String::new()));
    }

    #[test]
    fn waiting_ends() {
        let mut times = 0;
        let result = until(Duration::from_millis(50), || {
            times += 1;
            Ok((false, times))
        });
        assert_eq!(result, Ok(Err(times)));
        assert!(times > 1);
        assert_eq!(
            until(LIMIT, || Err::<(bool, u8), _>("no".into())),
            Err("no".into())
        );
    }

    #[test]
    fn statistics_are_those_that_come_next() {
        let mut asked = 0;
        let (mut qmp, log) = fake(move |command, arguments| {
            let value = match (command, arguments["property"].as_str()) {
                ("qom-get", Some("guest-stats")) => {
                    asked += 1;
                    let (update, free) = if asked > 3 { (8, 7000) } else { (7, 1) };
                    json!({"last-update": update, "stats": {"stat-free-memory": free}})
                }
                ("qom-get", _) => json!(0),
                _ => json!({}),
            };
            vec![json!({"return": value})]
        });
        let mut answer = |text: &str| answer(&Ask::new(&ask(text), Some("balloon0")), &mut qmp);
        let told = answer(r#""action":"guest-stats","bdf":"a","stat-free-memory":7000"#);
        assert_eq!(told, Ok(r#"{"stat-free-memory":7000}"#.into()));
        let log = log.lock().unwrap();
        let set: Vec<_> = log
            .iter()
            .filter(|(command, _)| command == "qom-set")
            .map(|(_, arguments)| arguments.clone())
            .collect();
        let every = |seconds: u64| {
            json!({"path": "/machine/peripheral/balloon0",
                "property": "guest-stats-polling-interval", "value": seconds})
        };
        assert_eq!(set, [every(1), every(0)]);
    }

    #[test]
    fn a_statistic_that_differs_is_named() {
        let mut update = 1;
        let (mut qmp, _) = fake(move |_, arguments| {
            update += 1;
            let value = match arguments["property"].as_str() {
                Some("guest-stats") => json!({"last-update": update, "stats": {"a": 1}}),
                _ => json!(1),
            };
            vec![json!({"return": value})]
        });
        let record = ask(r#""action":"guest-stats","bdf":"x","a":2"#);
        let why = answer(&Ask::new(&record, Some("balloon0")), &mut qmp).unwrap_err();
        assert!(why.starts_with("a is 1 in QEMU, not 2"), "{why}");
    }
}
