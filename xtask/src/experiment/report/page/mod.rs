//! A set as one HTML page that needs nothing else: its style is in it, it has no script,
//! and its security policy lets it load nothing. Text is escaped by the templates.

mod experiment;
mod parts;
mod world;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::worlds;
use crate::experiment::set::{Experiment, Set};

/// The page's name in a set's folder.
pub(crate) const PAGE: &str = "report.html";
const STYLE: &str = include_str!("style.css");
/// What the page may load: nothing but its own style.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// Writes the page into a set's folder, whole or not at all.
///
/// # Errors
/// Whatever the file system says, with the path.
pub(crate) fn write(set: &Set, folder: &Path) -> Result<PathBuf> {
    let path = folder.join(PAGE);
    let new = path.with_extension("html.new");
    std::fs::write(&new, render(set))
        .and_then(|()| std::fs::rename(&new, &path))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// The page.
pub(crate) fn render(set: &Set) -> String {
    let title = match set.experiments.as_slice() {
        [one] => format!("doorbell: {}", one.title),
        _ => "doorbell: the claims, put to the test".to_owned(),
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (title) }
                    p.dim { (summary(set)) }
                    (parts::badges(&worlds::all(set)))
                    @if !set.complete {
                        p.warning role="note" {
                            "The sweep was interrupted: this shows what was finished. To go \
                             on with it: " code { "cargo xtask experiment --resume DIR" }
                        }
                    }
                }
                main {
                    (verdicts(set))
                    @for (n, experiment) in set.experiments.iter().enumerate() {
                        (experiment::section(experiment, &id(n)))
                    }
                    (world::world(set))
                    (world::method(set))
                }
                footer {
                    p {
                        "Everything that this page shows, and each run's records, are in "
                        code { (crate::experiment::set::RESULTS) } " beside it."
                    }
                }
            }
        }
    };
    page.into_string()
}

/// Where experiment n is in the page.
fn id(n: usize) -> String {
    format!("experiment-{n}")
}

fn summary(set: &Set) -> String {
    let text = |key: &str| set.host[key].as_str().unwrap_or("not known").to_owned();
    let (begun, cpu, kernel) = (&set.begun, text("host_cpu"), text("host_kernel"));
    format!(
        "Measured {begun} on {cpu}, {kernel}, with {}.",
        text("qemu")
    )
}

/// All experiments and their answers, at a glance.
fn verdicts(set: &Set) -> Markup {
    html! {
        section {
            h2 id="verdicts" { "Verdicts" }
            ol.glance {
                @for (n, experiment) in set.experiments.iter().enumerate() {
                    (glance(experiment, &id(n)))
                }
            }
            @if set.experiments.is_empty() { p { "There is no experiment in this set." } }
        }
    }
}

fn glance(experiment: &Experiment, id: &str) -> Markup {
    let link = html! { a.name href=(format!("#{id}")) { (experiment.name) } };
    let verdicts = &experiment.findings.verdicts;
    html! {
        @for verdict in verdicts {
            li {
                div { (parts::answer(Some(verdict.answer))) }
                div { p { (link) ": " (parts::inline(&verdict.claim)) } (parts::ratio(verdict)) }
            }
        }
        @if verdicts.is_empty() {
            li {
                div { (parts::answer(None)) }
                div { p { (link) ": " (parts::inline(&experiment.title)) " " (experiment::without(experiment)) } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::findings::{Answer, Line, Plot, Table, Verdict};
    use crate::experiment::set::Run;
    use crate::experiment::stats;

    const TCG: &str = "TCG: the translator's figures, not hardware's";

    fn set() -> Set {
        let mut set = Set::new(serde_json::json!({"qemu": "<QEMU> & more"}));
        let mut experiment = Experiment {
            name: "doorbell".into(),
            title: "Is </title><b> dear?".into(),
            plan: "# <i>".into(),
            boots: 3,
            runs: vec![Run {
                note: Some(TCG.into()),
                verdict: "hang".into(),
                message: Some("no <answer>".into()),
                ..Run::default()
            }],
            ..Experiment::default()
        };
        experiment.findings.verdicts = vec![Verdict {
            claim: "MMIO < PIO".into(),
            answer: Answer::CannotBeToldHere,
            ratio: stats::of_median(&[2.0, 2.2, 2.5, 2.8, 3.0]),
            because: "of &c".into(),
        }];
        experiment.findings.plots = vec![Plot::Lines {
            title: "<plot>".into(),
            note: String::new(),
            x: "x<".into(),
            y: "y>".into(),
            log_x: false,
            log_y: false,
            lines: vec![Line {
                name: "<line>".into(),
                points: vec![(1.0, 2.0), (2.0, 3.0)],
            }],
        }];
        experiment.findings.tables = vec![Table::default()];
        set.experiments = vec![experiment];
        set
    }

    #[test]
    fn the_page_says_everything_and_escapes_it() {
        let page = render(&set());
        for said in [
            "MMIO &lt; PIO",
            "? </span>cannot be told here",
            "2.50 (2.00 to 3.00)",
            "95 % confidence, 5 boots",
            "no &lt;answer&gt;",
            "&lt;QEMU&gt; &amp; more",
            "# &lt;i&gt;",
            "The sweep was interrupted",
            "cargo xtask experiment doorbell --boots 3",
        ] {
            assert!(page.contains(said), "{said}");
        }
        for raw in [
            "<i>",
            "<answer>",
            "<QEMU>",
            "<plot>",
            "<line>",
            "</title><b>",
        ] {
            assert!(!page.contains(raw), "{raw}");
        }
        // The whole set, the plot, the table, and the table of what did not pass.
        assert_eq!(page.matches("class=\"badge\"").count(), 4);
        let mut whole = set();
        whole.complete = true;
        assert!(!render(&whole).contains("The sweep was interrupted"));
    }

    #[test]
    fn a_page_is_written_or_the_error_names_it() {
        let folder = std::env::temp_dir().join(format!("doorbell-{}-page", std::process::id()));
        let error = format!("{:#}", write(&set(), &folder).unwrap_err());
        assert!(
            error.contains("cannot write") && error.contains(PAGE),
            "{error}"
        );
        std::fs::create_dir_all(&folder).unwrap();
        let path = write(&set(), &folder).unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), render(&set()));
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
