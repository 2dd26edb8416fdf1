//! What the runs of an experiment show: one module an experiment. A verdict is computed
//! from the data; nothing here knows what was seen on any host.

mod batching;
mod doorbell;
mod guests;
mod io_disabled;
mod io_space;
mod policy;
mod probes;
mod real_guests;
mod tables;

use super::findings::{Analysis, Findings};
use super::set::Experiment;

/// Draws the conclusions from an experiment's runs.
pub(crate) fn analyse(experiment: &Experiment) -> Findings {
    let mut findings = match experiment.analysis {
        Analysis::Tables => Findings::default(),
        Analysis::Doorbell => doorbell::analyse(experiment),
        Analysis::IoSpace => io_space::analyse(experiment),
        Analysis::IoDisabled => io_disabled::analyse(experiment),
        Analysis::Guests => guests::analyse(experiment),
        Analysis::RealGuests => real_guests::analyse(experiment),
        Analysis::Policy => policy::analyse(experiment),
        Analysis::Batching => batching::analyse(experiment),
    };
    if experiment.analysis == Analysis::Tables {
        findings.tables.extend(tables::figures(experiment));
        findings.tables.extend(tables::loads(experiment));
    }
    findings.tables.extend(tables::runs(experiment));
    findings
}

/// What figures are, in a word or two for a table's row.
fn kind(note: &Option<String>) -> &'static str {
    match note.as_deref() {
        None => "hardware's",
        Some(note) if note.starts_with("TCG") => "TCG's",
        Some(note) if note.starts_with("KVM in a guest") => "nested KVM's",
        Some(_) => "emulated KVM's",
    }
}
