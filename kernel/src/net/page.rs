//! The page that shows this boot's results: HTML with all that it needs in it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{self, Display, Write};

use serde_json::Value;

use crate::results::Snapshot;

/// The look, for a bright and a dark theme, a desk and a phone.
const STYLE: &str = include_str!("page.css");

/// Rows of a table; what is older is in the records.
const MAX_ROWS: usize = 500;

/// What is timed, and how that reads.
const CASES: &[(&str, &str, &str)] = &[
    (
        "doorbell-idle",
        "Doorbell, idle",
        "ringing a queue that has nothing new",
    ),
    (
        "doorbell-request",
        "Doorbell, with a request",
        "ringing for one request",
    ),
    (
        "round-trip",
        "Round trip",
        "from the doorbell to the answer",
    ),
    (
        "to-handler",
        "Interrupt handler",
        "from the doorbell to the interrupt's handler",
    ),
    (
        "to-wake-up",
        "Wake-up",
        "from the doorbell to the loop that hlt had put to sleep",
    ),
    (
        "testdev",
        "pci-testdev",
        "the host's bare cost of an access",
    ),
    (
        "baseline",
        "Baseline",
        "the CPU alone; the empty loop is raw, and taken off all others",
    ),
];

/// Writes the page.
pub fn render(snapshot: &Snapshot) -> String {
    let parse = |json: &alloc::sync::Arc<str>| serde_json::from_str(json).ok();
    let records: Vec<Value> = snapshot.records.iter().filter_map(parse).collect();
    let mut page = Page {
        html: String::new(),
        records: &records,
    };
    page.head(snapshot);
    page.world();
    page.commands();
    page.messages("Errors", "error", &["what", "message"]);
    for (case, title, about) in CASES {
        page.figures(case, title, about);
    }
    page.other_figures();
    page.devices();
    page.network();
    page.messages("Skipped", "skip", &["case", "bdf", "mmio", "reason"]);
    page.foot();
    page.html
}

struct Page<'a> {
    html: String,
    records: &'a [Value],
}

/// Appends to the page. Writing to a string does not fail.
macro_rules! put {
    ($page:expr, $($argument:tt)*) => {
        let _ = write!($page.html, $($argument)*);
    };
}

impl<'a> Page<'a> {
    fn of_kind<'k>(&self, kind: &'k str) -> impl Iterator<Item = &'a Value> + use<'a, 'k> {
        let records = self.records;
        records
            .iter()
            .filter(move |record| field(record, "kind") == kind)
    }

    fn head(&mut self, snapshot: &Snapshot) {
        put!(
            self,
            "<!DOCTYPE html>\n<html lang=en><meta charset=utf-8>\
             <meta name=viewport content=\"width=device-width\">\
             <title>doorbell: results</title><link rel=icon href=\"data:,\">\
             <style>{STYLE}</style>\n<header><h1>doorbell</h1>"
        );
        let errors = self.of_kind("error").count();
        let (class, verdict) = match errors {
            0 => ("good", "no errors so far".to_string()),
            1 => ("bad", "1 error so far".to_string()),
            _ => ("bad", format!("{errors} errors so far")),
        };
        put!(
            self,
            "<span class=\"badge {class}\">{verdict}</span></header>\n"
        );
        if snapshot.dropped > 0 {
            let dropped = snapshot.dropped;
            put!(
                self,
                "<p class=note>The oldest {dropped} records were dropped, for want of room.</p>\n"
            );
        }
    }

    fn world(&mut self) {
        let boot = self.of_kind("boot").next().unwrap_or(&Value::Null);
        let world = self.of_kind("world").next().unwrap_or(&Value::Null);
        put!(self, "<section><h2>World</h2>");
        if let Some(caveat) = world["caveat"].as_str() {
            put!(self, "<p class=note>{}</p>", Html(caveat));
        }
        put!(self, "<dl>");
        let guest = ["name", "version", "build"].map(|key| field(boot, key));
        self.term("Guest", &guest.join(" "));
        self.term("Command line", field(boot, "cmdline"));
        if let Some(kib) = boot["memory_kib"].as_u64() {
            self.term("Memory", &format!("{} MiB", kib.div_ceil(1024)));
        }
        self.term("CPU", field(world, "cpu"));
        self.term("Hypervisor", field(world, "hypervisor"));
        if let Some(hz) = world["tsc_hz"].as_u64() {
            let source = field(world, "tsc_source");
            let step = &world["tsc_step"];
            let clock = format!(
                "TSC, {} MHz by {source}, in steps of {step}",
                hz / 1_000_000
            );
            self.term("Clock", &clock);
        }
        put!(self, "</dl></section>\n");
    }

    fn term(&mut self, name: &str, text: &str) {
        if !text.trim().is_empty() {
            put!(self, "<dt>{name}</dt><dd>{}</dd>", Html(text));
        }
    }

    /// Each command, and what went wrong in it.
    fn commands(&mut self) {
        let mut rows: Vec<(&str, usize, usize)> = Vec::new();
        for record in self.records {
            match (field(record, "kind"), rows.last_mut()) {
                ("command", _) => rows.push((field(record, "command"), 0, 0)),
                ("error", Some((_, errors, _))) => *errors += 1,
                ("skip", Some((_, _, skips))) => *skips += 1,
                _ => {}
            }
        }
        if rows.is_empty() {
            return;
        }
        self.table(
            "Commands",
            "",
            &["command", "verdict", "skipped"],
            &rows,
            |page, (command, errors, skips)| {
                let (class, verdict) = match errors {
                    0 => ("good", "no errors".to_string()),
                    1 => ("bad", "1 error".to_string()),
                    _ => ("bad", format!("{errors} errors")),
                };
                put!(
                    page,
                    "<th><code>{}</code></th><td><span class=\"badge {class}\">{verdict}</span></td>\
                     <td>{skips}</td>",
                    Html(command)
                );
            },
        );
    }

    /// What was timed as `case`.
    fn figures(&mut self, case: &str, title: &str, about: &str) {
        let rows = self.of_kind("summary");
        let rows: Vec<_> = rows
            .filter(|record| field(record, "case") == case)
            .collect();
        if rows.is_empty() {
            return;
        }
        let unit = field(rows[0], "unit");
        let longest = rows
            .iter()
            .map(|row| number(row, "p50"))
            .fold(0.0, f64::max);
        self.table(
            title,
            &format!("{unit}; {about}"),
            &[
                "", "=p50", "=p90", "=p99", "=p99.9", "=max", "=min", "=mean", "=n",
            ],
            &rows,
            |page, row| {
                let how =
                    ["transport", "subtest", "notify", "interrupts"].map(|key| field(row, key));
                let place = place(row);
                put!(
                    page,
                    "<th>{}<span>{}</span><span class=mono>{}</span></th>",
                    Html(field(row, "device")),
                    Html(&join(&how)),
                    Html(place)
                );
                let part = if longest > 0.0 {
                    (number(row, "p50") / longest * 100.0).clamp(0.0, 100.0)
                } else {
                    0.0
                };
                put!(
                    page,
                    "<td class=\"n bar\" style=\"--part:{part:.0}%\">{}</td>",
                    Figure(number(row, "p50"))
                );
                for key in ["p90", "p99", "p999", "max", "min", "mean", "n"] {
                    put!(page, "<td class=n>{}</td>", Figure(number(row, key)));
                }
            },
        );
    }

    /// What was timed and has no title of its own.
    fn other_figures(&mut self) {
        let mut others: Vec<&str> = Vec::new();
        for record in self.of_kind("summary") {
            let case = field(record, "case");
            if !CASES.iter().any(|(known, ..)| *known == case) && !others.contains(&case) {
                others.push(case);
            }
        }
        for case in others {
            self.figures(case, case, "");
        }
    }

    fn devices(&mut self) {
        let rows: Vec<_> = self.of_kind("device").collect();
        if rows.is_empty() {
            return;
        }
        let headings = ["", "interface", "queues", "about"];
        self.table("Devices", "", &headings, &rows, |page, row| {
            let how = [field(row, "transport"), field(row, "notify")];
            let queues = row["queues"].as_array().map_or(&[][..], Vec::as_slice);
            put!(
                page,
                "<th>{}<span class=mono>{}</span></th><td class=whole>{}</td><td>{}</td>\
                 <td>{}</td>",
                Html(field(row, "device")),
                Html(place(row)),
                Html(&join(&how)),
                Html(&sizes(queues)),
                Html(field(row, "about"))
            );
        });
    }

    fn network(&mut self) {
        let rows: Vec<_> = self.of_kind("net").collect();
        if rows.is_empty() {
            return;
        }
        let headings = ["", "address", "router", "DNS", "MAC"];
        self.table(
            "Network",
            "leases by DHCP",
            &headings,
            &rows,
            |page, row| {
                let how = [field(row, "transport"), field(row, "notify")];
                let dns = row["dns"].as_array().map_or(&[][..], Vec::as_slice);
                let dns: Vec<_> = dns.iter().filter_map(Value::as_str).collect();
                put!(
                    page,
                    "<th>{}<span>{}</span><span class=mono>{}</span></th>",
                    Html(field(row, "device")),
                    Html(&join(&how)),
                    Html(place(row))
                );
                let texts = [field(row, "address"), field(row, "router"), &dns.join(", ")];
                for text in texts.into_iter().chain([field(row, "mac")]) {
                    put!(page, "<td class=mono>{}</td>", Html(text));
                }
            },
        );
        let pings: Vec<_> = self.of_kind("ping").collect();
        let headings = ["", "=min", "=mean", "=max", "=sent", "=received"];
        self.table("Pings", "microseconds", &headings, &pings, |page, row| {
            put!(page, "<th class=mono>{}</th>", Html(field(row, "address")));
            for key in ["min_us", "mean_us", "max_us", "sent", "received"] {
                put!(page, "<td class=n>{}</td>", Figure(number(row, key)));
            }
        });
    }

    /// The records of a kind, as their texts.
    fn messages(&mut self, title: &str, kind: &str, keys: &[&str]) {
        let rows: Vec<_> = self.of_kind(kind).collect();
        if rows.is_empty() {
            return;
        }
        self.table(title, "", &[], &rows, |page, row| {
            let texts: Vec<_> = keys.iter().map(|key| field(row, key)).collect();
            let (last, first) = texts.split_last().unwrap_or((&"", &[]));
            let first = join(first);
            put!(page, "<th>{}</th><td>{}</td>", Html(&first), Html(last));
        });
    }

    /// A table with a row for each of `rows`. Headings that begin with `=` are
    /// over numbers.
    fn table<R>(
        &mut self,
        title: &str,
        about: &str,
        headings: &[&str],
        rows: &[R],
        mut cells: impl FnMut(&mut Self, &R),
    ) {
        put!(self, "<section><h2>{}</h2>", Html(title));
        let about = about.trim_end_matches("; ");
        if !about.is_empty() {
            put!(self, "<p class=soft>{}</p>", Html(about));
        }
        let older = rows.len().saturating_sub(MAX_ROWS);
        if older > 0 {
            put!(
                self,
                "<p class=soft>{older} older ones are in <a href=results.json>the records</a>.</p>"
            );
        }
        put!(self, "<div class=wide><table>");
        if !headings.is_empty() {
            put!(self, "<thead><tr>");
            for heading in headings {
                match heading.strip_prefix('=') {
                    Some(heading) => {
                        put!(self, "<th class=n>{heading}</th>");
                    }
                    None => {
                        put!(self, "<th>{heading}</th>");
                    }
                }
            }
            put!(self, "</tr></thead>");
        }
        put!(self, "<tbody>\n");
        for row in &rows[older..] {
            put!(self, "<tr>");
            cells(self, row);
            put!(self, "</tr>\n");
        }
        put!(self, "</tbody></table></div></section>\n");
    }

    fn foot(&mut self) {
        put!(
            self,
            "<footer><a href=results.json>All records, as JSON</a>\
             <form method=post action=quit><button>End the run</button></form></footer>\n</html>\n"
        );
    }
}

/// A text field; empty where there is none.
fn field<'a>(record: &'a Value, key: &str) -> &'a str {
    record[key].as_str().unwrap_or_default()
}

/// A number; not a number where there is none.
fn number(record: &Value, key: &str) -> f64 {
    record[key].as_f64().unwrap_or(f64::NAN)
}

/// Where a record's device is.
fn place(record: &Value) -> &str {
    let places = ["bdf", "mmio"].map(|key| field(record, key));
    places
        .into_iter()
        .find(|at| !at.is_empty())
        .unwrap_or_default()
}

/// The queues' sizes; how many of one size follow each other is counted.
fn sizes(queues: &[Value]) -> String {
    let same = |a: &Value, b: &Value| a["size"] == b["size"];
    let run = |run: &[Value]| match run {
        [only] => only["size"].to_string(),
        _ => format!("{} × {}", run.len(), run[0]["size"]),
    };
    queues
        .chunk_by(same)
        .map(run)
        .collect::<Vec<_>>()
        .join(", ")
}

/// The texts that are not empty.
fn join(texts: &[&str]) -> String {
    let texts: Vec<_> = texts
        .iter()
        .copied()
        .filter(|text| !text.is_empty())
        .collect();
    texts.join(" ")
}

/// Shows a text as HTML's text or a quoted attribute's value.
struct Html<'a>(&'a str);

impl Display for Html<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|char| match char {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            _ => f.write_char(char),
        })
    }
}

/// Shows a number as people read it: thousands apart, and nothing behind the
/// point where there are three digits before it.
struct Figure(f64);

impl Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0;
        if !value.is_finite() {
            return f.write_str("–");
        }
        let whole = value as i64 as f64 == value;
        if !whole && (-100.0..100.0).contains(&value) {
            return write!(f, "{value:.1}");
        }
        let digits = format!("{value:.0}");
        let (sign, digits) = match digits.strip_prefix('-') {
            Some(digits) => ("-", digits),
            None => ("", digits.as_str()),
        };
        f.write_str(sign)?;
        digits.char_indices().try_for_each(|(at, digit)| {
            if at > 0 && (digits.len() - at) % 3 == 0 {
                // A narrow space that does not break.
                f.write_char('\u{202f}')?;
            }
            f.write_char(digit)
        })
    }
}

#[cfg(test)]
mod tests;
