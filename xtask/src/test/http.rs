//! The guest's HTTP server and its echo, as the host sees them: each case runs the
//! unikernel's `net` over one interface, and fetches the results with `curl`.

use std::fs::File;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use super::World;
use super::report::Report;
use super::running::Running;

/// How long the guest may take until it serves, and then until it ends.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long one request may take, in seconds.
const REQUEST_SECONDS: &str = "20";
/// The guest's commands before it serves, so that there are results.
const BEFORE: &str = "devices; doorbell rounds=2 count=20 interrupts=off";
/// What goes to the echo and comes back.
const ECHO: &[u8] = b"Who is there?";

/// One guest that serves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Options of `run`.
    options: &'static [&'static str],
    /// The interface that `net` drives the adapter by.
    way: &'static str,
    /// What records call it.
    transport: &'static str,
}

/// All cases.
pub(crate) const CASES: [Case; 4] = [
    Case {
        name: "q35-legacy",
        options: &["--machine", "q35"],
        way: "legacy",
        transport: "pci-legacy",
    },
    Case {
        name: "q35-modern",
        options: &["--machine", "q35"],
        way: "modern",
        transport: "pci-modern",
    },
    Case {
        name: "microvm-mmio1",
        options: &["--machine", "microvm", "--mmio-version", "1"],
        way: "mmio",
        transport: "mmio-v1",
    },
    Case {
        name: "microvm-mmio2",
        options: &["--machine", "microvm"],
        way: "mmio",
        transport: "mmio-v2",
    },
];

/// Waits until `ready` has an answer.
fn wait<R>(
    running: &mut Running,
    what: &str,
    mut ready: impl FnMut(Option<ExitStatus>) -> Option<R>,
) -> Result<R> {
    let answer = running.wait(PATIENCE, |ended| match (ready(ended), ended) {
        (None, Some(status)) => {
            bail!("the run ended with {status} before {what}; see output.log")
        }
        (answer, _) => Ok(answer),
    })?;
    answer.with_context(|| format!("waited {} s for {what}", PATIENCE.as_secs()))
}

/// Runs the guest, and asks it.
pub(super) fn run(case: &Case, world: &World, folder: &Path) -> Result<Report> {
    let mut report = Report::default();
    let (kernel, curl) = match (&world.kernel, &world.curl) {
        (Ok(kernel), Ok(curl)) => (kernel, curl),
        (Err(why), _) | (_, Err(why)) => {
            report.fail("", why.as_str());
            return Ok(report);
        }
    };
    let (log, out) = (folder.join("output.log"), folder.join("out"));
    let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let guest = format!("{BEFORE}; net way={} for=100", case.way);
    let child = Command::new(&world.tool)
        .arg("run")
        .args(case.options)
        .arg("--kernel")
        .arg(&kernel.path)
        .arg("--out")
        .arg(&out)
        .arg(guest)
        .stdin(Stdio::null())
        .stdout(output.try_clone().context("cannot share the log")?)
        .stderr(output)
        .spawn()
        .context("cannot execute this tool")?;
    let mut running = Running(child);
    let serial = out.join("serial.log");
    wait(&mut running, "the guest served", |_| {
        let records = records(&serial);
        let serving = |record: &Value| record["kind"] == "serving";
        records.iter().any(serving).then_some(())
    })?;
    let port = port(&std::fs::read_to_string(&log).unwrap_or_default())?;
    let host = Host { curl, port };

    report.check("page", host.page(&serial));
    report.check("json", host.json(case, &serial));
    report.check("what is not there", host.missing());
    report.check("echo", host.echo());
    host.fetch(&["--request", "POST"], "quit")
        .map_err(|why| anyhow!(why))?;
    let status = wait(&mut running, "the guest ended", |ended| ended)?;
    let end = if status.success() {
        served(&records(&serial))
    } else {
        Err(format!("the run ended with {status}"))
    };
    report.check("end", end);
    Ok(report)
}

/// The records in a log, as far as it was written.
fn records(log: &Path) -> Vec<Value> {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    // The last line may not be whole yet.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let records = whole.lines().filter_map(|line| line.strip_prefix('@'));
    records
        .filter_map(|record| serde_json::from_str(record).ok())
        .collect()
}

/// The port that the tool says it forwards.
fn port(output: &str) -> Result<u16> {
    let port = output
        .split("http://127.0.0.1:")
        .nth(1)
        .and_then(|rest| rest.split('/').next()?.parse().ok());
    port.context("the tool names no port; see output.log")
}

/// What the guest says of what it served: four requests, one of which it refused.
fn served(records: &[Value]) -> Result<(), String> {
    let served = records.iter().find(|record| record["kind"] == "served");
    let served = served.ok_or("there is no record of what was served")?;
    let counts = ["requests", "ok", "refused", "aborted", "echoed"].map(|key| served[key].as_u64());
    if served["ended"] == "quit" && counts == [4, 3, 1, 0, 1].map(Some) {
        Ok(())
    } else {
        Err(format!("the guest says that it served {served}"))
    }
}

/// The host's ways to the guest.
struct Host<'w> {
    curl: &'w Path,
    port: u16,
}

impl Host<'_> {
    /// What curl says of a path, and the HTTP status.
    fn fetch(&self, options: &[&str], path: &str) -> Result<(String, String), String> {
        let output = Command::new(self.curl)
            .args(["--silent", "--show-error", "--max-time", REQUEST_SECONDS])
            .args(["--noproxy", "*", "--write-out", "\n%{http_code}"])
            .args(options)
            .arg(format!("http://127.0.0.1:{}/{path}", self.port))
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("cannot execute curl: {error}"))?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(format!("curl of /{path}: {}", why.trim()));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let (body, status) = text.rsplit_once('\n').unwrap_or(("", &text));
        Ok((body.to_owned(), status.to_owned()))
    }

    /// The page shows each device that was timed, and is whole.
    fn page(&self, serial: &Path) -> Result<(), String> {
        let (page, status) = self.fetch(&[], "")?;
        if status != "200" || !page.trim_end().ends_with("</html>") {
            return Err(format!("status {status}, {} bytes", page.len()));
        }
        for record in records(serial).iter().filter(|record| is_summary(record)) {
            let device = record["device"].as_str().unwrap_or_default();
            if !page.contains(device) {
                return Err(format!("{device} is not on the page"));
            }
        }
        Ok(())
    }

    /// The JSON has the summaries that the guest printed, and the interface that it
    /// came over.
    fn json(&self, case: &Case, serial: &Path) -> Result<(), String> {
        let (json, status) = self.fetch(&[], "results.json")?;
        let json: Value = serde_json::from_str(&json)
            .map_err(|error| format!("status {status}, and no JSON: {error}"))?;
        let served = json["records"].as_array().ok_or("it has no records")?;
        let printed = records(serial);
        let summaries = |records: &[Value]| -> Vec<Value> {
            let summaries = records.iter().filter(|record| is_summary(record));
            summaries.cloned().collect()
        };
        let (served_rows, printed_rows) = (summaries(served), summaries(&printed));
        if printed_rows.is_empty() || served_rows != printed_rows {
            return Err(format!(
                "it has {} summaries, the guest printed {}",
                served_rows.len(),
                printed_rows.len()
            ));
        }
        let net = served.iter().find(|record| record["kind"] == "net");
        let transport = net.map(|net| net["transport"].clone());
        match transport {
            Some(transport) if transport == case.transport => Ok(()),
            other => Err(format!("it came over {other:?}, not {}", case.transport)),
        }
    }

    fn missing(&self) -> Result<(), String> {
        match self.fetch(&[], "nothing")? {
            (_, status) if status == "404" => Ok(()),
            (body, status) => Err(format!("status {status}: {body}")),
        }
    }

    fn echo(&self) -> Result<(), String> {
        let exchange = || {
            let socket = UdpSocket::bind(("127.0.0.1", 0))?;
            socket.set_read_timeout(Some(Duration::from_secs(20)))?;
            socket.connect(("127.0.0.1", self.port))?;
            socket.send(ECHO)?;
            let mut back = [0; 2 * ECHO.len()];
            let len = socket.recv(&mut back)?;
            Ok::<_, std::io::Error>(back[..len].to_vec())
        };
        let back = exchange().map_err(|error| format!("no echo: {error}"))?;
        if back == ECHO {
            Ok(())
        } else {
            Err(format!("{back:?} came back"))
        }
    }
}

fn is_summary(record: &Value) -> bool {
    record["kind"] == "summary"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_port_is_read_from_the_tools_words() {
        let words = "doorbell: the guest's port 80 is http://127.0.0.1:39861/ while it serves";
        assert_eq!(port(words).unwrap(), 39861);
        assert!(port("nothing").is_err());
    }

    #[test]
    fn what_was_served_is_counted() {
        let record = |refused: u64| {
            json!({"kind": "served", "ended": "quit", "requests": 4, "ok": 4 - refused,
                "refused": refused, "aborted": 0, "echoed": 1})
        };
        assert_eq!(served(&[record(1)]), Ok(()));
        assert!(served(&[record(0)]).is_err());
        assert!(served(&[]).is_err());
    }
}
