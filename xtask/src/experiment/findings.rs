//! What an experiment shows: verdicts, tables and plots, for the terminal, the page and
//! the results file alike. They are computed from the runs, by [`super::analysis`].

use serde::{Deserialize, Serialize};

use super::stats::Interval;

/// Who draws an experiment's conclusion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Analysis {
    /// Nobody: tables of what was seen, without a verdict.
    #[default]
    Tables,
    Doorbell,
    IoSpace,
    IoDisabled,
    Guests,
    RealGuests,
    Policy,
    Batching,
}

/// All that one experiment shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Findings {
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) plots: Vec<Plot>,
    pub(crate) tables: Vec<Table>,
    /// What else is to be said, a paragraph each.
    pub(crate) notes: Vec<String>,
}

/// Whether a claim holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// The claim, as a sentence.
    pub(crate) claim: String,
    pub(crate) answer: Answer,
    /// The ratio that the answer depends on, if there is one.
    pub(crate) ratio: Option<Interval>,
    /// Why, from the data, in a sentence or two.
    pub(crate) because: String,
}

/// The answer to a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    Holds,
    DoesNotHold,
    /// The data do not tell, or it is a claim about hardware and this is none.
    CannotBeToldHere,
}

impl Answer {
    /// In words.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::DoesNotHold => "does not hold",
            Self::CannotBeToldHere => "cannot be told here",
        }
    }
}

/// A table. Rows are as long as `columns`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Table {
    pub(crate) title: String,
    /// What is to be known to read it: units, and the world if that is not hardware.
    pub(crate) note: String,
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<Vec<String>>,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// Whether it holds figures, which are aligned to the right.
    pub(crate) figures: bool,
}

impl Column {
    /// A column of words.
    pub(crate) fn words(name: impl Into<String>) -> Self {
        let (name, figures) = (name.into(), false);
        Self { name, figures }
    }

    /// A column of figures.
    pub(crate) fn figures(name: impl Into<String>) -> Self {
        let (name, figures) = (name.into(), true);
        Self { name, figures }
    }
}

/// A plot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Plot {
    /// A distribution a row, on a common axis.
    Distributions {
        title: String,
        /// What is to be known to read it, the world if that is not hardware included.
        note: String,
        /// The axis, with its unit.
        axis: String,
        /// Whether the axis is logarithmic.
        log: bool,
        rows: Vec<Distribution>,
    },
    /// Values against a number.
    Lines {
        title: String,
        note: String,
        x: String,
        y: String,
        log_x: bool,
        log_y: bool,
        lines: Vec<Line>,
    },
}

/// One row of [`Plot::Distributions`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Distribution {
    pub(crate) name: String,
    /// Rows of one group have one colour.
    pub(crate) group: String,
    pub(crate) min: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    /// The median of each boot, which shows how boots differ.
    pub(crate) boots: Vec<f64>,
}

/// One line of [`Plot::Lines`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}
