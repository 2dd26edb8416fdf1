//! An experiment's file: TOML, read and checked as a whole, so that a mistake shows
//! before anything runs, by its name and line. `experiments/README.md` describes it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Deserializer};
use toml::{Spanned, Value};

use super::findings::Analysis;

/// The most boots of a cell, of cells, and of devices in one: what is more is a typing
/// error.
const MOST_BOOTS: i64 = 1000;

/// What a file says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct File {
    /// The question that it answers, on one line.
    pub(crate) title: String,
    /// The claim that is put to the test.
    pub(crate) claim: String,
    /// What would show it false.
    pub(crate) false_if: String,
    /// How long it takes, in words, for the list.
    pub(crate) takes: String,
    /// Who draws the conclusion.
    #[serde(default)]
    pub(crate) analysis: Analysis,
    /// Who is booted.
    #[serde(default)]
    pub(crate) subject: Subject,
    /// How often each cell is booted.
    pub(crate) boots: Spanned<i64>,
    /// Whether figures are timings: then nothing else runs beside them.
    #[serde(default = "yes")]
    pub(crate) timed: bool,
    /// Whether it is worth while where KVM emulates the CPU in software, which takes minutes.
    #[serde(default = "yes")]
    pub(crate) emulated_kvm: bool,
    /// After how many silent seconds a run is ended.
    #[serde(default = "two_minutes")]
    pub(crate) timeout: Spanned<i64>,
    /// The guest's memory in MiB.
    #[serde(default = "memory")]
    pub(crate) memory: Spanned<i64>,
    /// What the guest does.
    #[serde(default = "nothing")]
    pub(crate) commands: Spanned<String>,
    /// More arguments for QEMU.
    #[serde(default)]
    pub(crate) arguments: Vec<Spanned<String>>,
    /// The machine's devices.
    #[serde(default, rename = "device")]
    pub(crate) devices: Vec<Device>,
    /// The same devices as libvirt has them: elements of a domain's `<devices>`. With it
    /// each run gets a domain.xml, which is validated.
    #[serde(default)]
    pub(crate) libvirt: Option<Spanned<String>>,
    /// What varies, in the order in which it does.
    pub(crate) axes: toml::Table,
    /// Combinations that make no sense, each with its reason.
    #[serde(default, rename = "exclude")]
    pub(crate) excluded: Vec<Spanned<toml::Table>>,
    /// Which version of QEMU brought a property, `model.property`.
    #[serde(default)]
    pub(crate) since: BTreeMap<String, String>,
}

/// Who is booted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Subject {
    /// The unikernel.
    #[default]
    Unikernel,
    /// The guest that the axis `guest` names, which nobody here wrote.
    RealGuest,
}

/// Devices of one kind.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Device {
    /// Model and properties as `-device` has them, without `id` and `bus`.
    pub(crate) qemu: Spanned<String>,
    /// Where they are.
    #[serde(default = "root")]
    pub(crate) placement: Spanned<String>,
    /// How many there are.
    #[serde(default = "one", deserialize_with = "text_or_number")]
    pub(crate) count: Spanned<String>,
}

fn yes() -> bool {
    true
}

fn unplaced<T>(value: T) -> Spanned<T> {
    Spanned::new(0..0, value)
}

fn two_minutes() -> Spanned<i64> {
    unplaced(120)
}

fn memory() -> Spanned<i64> {
    unplaced(64)
}

fn nothing() -> Spanned<String> {
    unplaced(String::new())
}

fn root() -> Spanned<String> {
    unplaced("root".into())
}

fn one() -> Spanned<String> {
    unplaced("1".into())
}

fn text_or_number<'de, D: Deserializer<'de>>(from: D) -> Result<Spanned<String>, D::Error> {
    let value = Spanned::<Value>::deserialize(from)?;
    let span = value.span();
    match value.into_inner() {
        Value::String(text) => Ok(Spanned::new(span, text)),
        Value::Integer(number) => Ok(Spanned::new(span, number.to_string())),
        other => Err(serde::de::Error::custom(format!(
            "a number or text with a placeholder is wanted, not {}",
            other.type_str()
        ))),
    }
}

/// A mistake in a file, where it is known by its line.
#[derive(Debug)]
pub(crate) struct Mistake {
    line: Option<usize>,
    what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        f.write_str(&self.what)
    }
}

impl std::error::Error for Mistake {}

/// Says what is wrong, and at which line of the text.
pub(crate) fn mistake(text: &str, at: std::ops::Range<usize>, what: impl Into<String>) -> Mistake {
    let line = text.get(..at.start).filter(|_| at.end > 0);
    Mistake {
        line: line.map(|before| before.matches('\n').count() + 1),
        what: what.into(),
    }
}

impl File {
    /// Reads an experiment's text.
    ///
    /// # Errors
    /// A [`Mistake`].
    pub(crate) fn parse(text: &str) -> Result<Self, Mistake> {
        let file: Self = toml::from_str(text).map_err(|error| {
            let at = error.span().unwrap_or_default();
            mistake(text, at, error.message())
        })?;
        for (value, name, most) in [
            (&file.boots, "boots", MOST_BOOTS),
            (&file.timeout, "timeout", 86_400),
            (&file.memory, "memory", 1 << 16),
        ] {
            let least = if name == "memory" { 4 } else { 1 };
            if !(least..=most).contains(value.get_ref()) {
                let what = format!(
                    "`{name}` is {}, and must be from {least} to {most}",
                    value.get_ref()
                );
                return Err(mistake(text, value.span(), what));
            }
        }
        Ok(file)
    }

    /// Reads the file at `path`; the text comes with it, for errors that show later.
    ///
    /// # Errors
    /// A [`Mistake`], and what the file system says, with the path.
    pub(crate) fn read(path: &Path) -> Result<(Self, String)> {
        let name = || path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(name)?;
        let file = Self::parse(&text).with_context(name)?;
        Ok((file, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
title = "t"
claim = "c"
false-if = "f"
takes = "1 min"
boots = 3

[axes]
machine = ["q35"]

[[device]]
qemu = "virtio-rng-pci"
count = 3
"#;

    #[test]
    fn a_wrong_key_is_named_with_its_line() {
        let file = File::parse(GOOD).unwrap();
        assert_eq!(*file.boots.get_ref(), 3);
        assert_eq!(file.devices[0].count.get_ref(), "3");
        assert_eq!(file.subject, Subject::Unikernel);
        for (from, to, line, names) in [
            ("boots = 3", "boot = 3", 6, "unknown field `boot`"),
            ("count = 3", "placment = \"root\"", 13, "`placment`"),
            ("boots = 3", "boots = 0", 6, "`boots` is 0"),
            ("boots = 3", "boots = \"x\"", 6, "invalid type"),
            ("count = 3", "count = [3]", 13, "not array"),
            ("title = \"t\"", "title = t", 2, ""),
            (
                "boots = 3",
                "boots = 3\nanalysis = \"guess\"",
                7,
                "unknown variant `guess`",
            ),
            ("boots = 3", "boots = 3\nmemory = 1", 7, "`memory` is 1"),
        ] {
            let error = File::parse(&GOOD.replace(from, to))
                .unwrap_err()
                .to_string();
            assert!(
                error.starts_with(&format!("line {line}: ")),
                "{to}: {error}"
            );
            assert!(error.contains(names), "{to}: {error}");
        }
        let error = File::parse(&GOOD.replace("title", "titel")).unwrap_err();
        assert!(error.to_string().contains("titel"), "{error}");
    }
}
