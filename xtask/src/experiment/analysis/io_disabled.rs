//! Whether a device works with its IO BARs disabled: what is left of each model, and how a
//! doorbell in an IO BAR falls back to one in memory. The axis `model` says which device it
//! is.

use super::probes::{self, Outcome, Probe, Rows};
use crate::experiment::findings::{Answer, Column, Findings, Table, Verdict};
use crate::experiment::set::Experiment;

/// What is said of an IO BAR where decoding is off.
const IO_OFF: &str = "io-off";

pub(super) fn analyse(experiment: &Experiment) -> Findings {
    let probes = probes::read(experiment);
    let models = probes::names(&probes, |probe| &probe.model);
    let mut verdicts: Vec<Verdict> = models.iter().map(|own| of_model(own, &probes)).collect();
    verdicts.push(fall_back(&probes));
    Findings {
        verdicts,
        tables: vec![matrix(experiment, &probes)],
        notes: probes::silent(experiment).into_iter().collect(),
        ..Findings::default()
    }
}

/// Whether a model works in a PCI Express slot without IO, for any guest.
fn of_model(model: &str, probes: &[Probe]) -> Verdict {
    let in_slot = |io: bool| {
        let own = probes.iter();
        let own = own.filter(move |probe| probe.model == model && probe.slot && probe.io == io);
        own.collect::<Vec<_>>()
    };
    let (on, off) = (in_slot(true), in_slot(false));
    let policies = probes::names(probes, |probe| &probe.policy);
    // All of a policy's cases, if all came to this.
    let all = |of: &[&Probe], policy: &str| {
        let mut own = of.iter().filter(|probe| probe.policy == policy).peekable();
        own.peek().is_some() && own.all(|probe| probe.outcome.works())
    };
    let mixed = off.iter().any(|probe| probe.outcome == Outcome::Mixed);
    let works = policies.iter().any(|policy| all(&off, policy));
    let worked = policies.iter().any(|policy| all(&on, policy));
    let answer = match (off.is_empty(), works, worked && !mixed) {
        (true, _, _) => Answer::CannotBeToldHere,
        (false, true, _) => Answer::Holds,
        (false, false, true) => Answer::DoesNotHold,
        (false, false, false) => Answer::CannotBeToldHere,
    };
    let each = policies.iter().map(|policy| {
        let own: Vec<_> = off.iter().filter(|probe| probe.policy == *policy).collect();
        let works = own.iter().filter(|probe| probe.outcome.works()).count();
        let how = probes::together(own.iter().map(|probe| **probe), |probe| {
            probe.outcome.words()
        });
        format!(
            "for {policy} it works in {works} of {} cases ({how})",
            own.len()
        )
    });
    let because = match (off.is_empty(), works || worked) {
        (true, _) => "No such device was tried in a PCI Express slot.".to_owned(),
        (false, false) => "It does not work for any guest with IO decoding on either.".to_owned(),
        (false, true) => {
            let each = each.collect::<Vec<_>>().join("; ");
            format!("With IO decoding off, {each}.")
        }
    };
    Verdict {
        claim: format!("A {model} device in a PCI Express slot works with its IO BARs disabled."),
        answer,
        ratio: None,
        because,
    }
}

/// Whether a doorbell in an IO BAR that cannot be used falls back to one in memory.
fn fall_back(probes: &[Probe]) -> Verdict {
    let lost: Vec<_> = probes
        .iter()
        .filter(|probe| {
            let mut doorbells = probe.doorbells.iter();
            let lost = doorbells.any(|bell| bell.reason.as_deref() == Some(IO_OFF));
            lost && !probe.io
        })
        .collect();
    // With IO on they rang by a port.
    let before = |probe: &&&Probe| {
        probes.iter().any(|on| {
            let by_port = matches!(&on.outcome, Outcome::Works { notify, .. } if notify == "pio");
            on.io && by_port && on.with(probe) && on.model == probe.model
        })
    };
    let lost: Vec<_> = lost.iter().filter(before).collect();
    let fell = |probe: &&&&Probe| matches!(&probe.outcome, Outcome::Works { notify, .. } if notify == "mmio");
    let mixed = lost.iter().filter(|probe| probe.outcome == Outcome::Mixed);
    let (mixed, good) = (mixed.count(), lost.iter().filter(fell).count());
    let answer = match lost.len() {
        0 => Answer::CannotBeToldHere,
        all if all == good => Answer::Holds,
        all if all == good + mixed => Answer::CannotBeToldHere,
        _ => Answer::DoesNotHold,
    };
    let because = match lost.iter().find(|probe| !fell(probe)) {
        _ if lost.is_empty() => {
            "No device that rings by a port had IO decoding switched off.".to_owned()
        }
        None => format!(
            "In {good} of {} cases that rang by a port with IO decoding on, the doorbell in \
             memory took over (virtio 1.2, 4.1.4: {}).",
            lost.len(),
            lost[0].doorbell_words()
        ),
        Some(probe) => format!(
            "In {good} of {} cases the doorbell in memory took over; not for {} with {}: {}.",
            lost.len(),
            probe.policy,
            probe.words(),
            probe.outcome.words()
        ),
    };
    Verdict {
        claim: "A doorbell in an IO BAR falls back to one in memory when IO is disabled.".into(),
        answer,
        ratio: None,
        because,
    }
}

fn matrix(experiment: &Experiment, probes: &[Probe]) -> Table {
    let policies = probes::names(probes, |probe| &probe.policy);
    let rows = Rows::new(experiment, probes);
    let mut columns = rows.columns();
    columns.push(Column::words("PCIe slot"));
    for policy in &policies {
        columns.push(Column::words(format!("{policy}, IO on")));
        columns.push(Column::words("IO off"));
    }
    columns.push(Column::words("doorbells, IO off"));
    let table = rows.iter().map(|(cells, of_row)| {
        let mut row = cells.to_vec();
        row.push(probes::together(of_row.iter().copied(), |probe| {
            match (probe.slot, &probe.port) {
                (false, _) => "no".into(),
                (true, Some(port)) => format!("as {port}"),
                (true, None) => "as conventional PCI".into(),
            }
        }));
        for policy in &policies {
            for io in [true, false] {
                let own = of_row.iter().copied();
                let own = own.filter(|probe| probe.policy == *policy && probe.io == io);
                row.push(probes::together(own, |probe| probe.outcome.words()));
            }
        }
        let own = of_row.iter().copied();
        let own = own.filter(|probe| !probe.io && !probe.doorbells.is_empty());
        row.push(probes::together(own, Probe::doorbell_words));
        row
    });
    Table {
        title: "What works without IO".into(),
        note: format!(
            "By which interface and doorbell, or what stops the guest; IO decoding is off in the \
             device and in all bridges above it. {} {}",
            rows.note,
            probes::legend(experiment)
        ),
        columns,
        rows: table.collect(),
    }
}

#[cfg(test)]
mod tests;
