//! Synthetic runs.

use serde_json::{Value, json};

use crate::experiment::set::{Experiment, Run};

/// A device, as `probe` describes it.
#[derive(Clone, Copy)]
pub(in super::super) struct Device {
    pub(in super::super) model: &'static str,
    id: &'static str,
    offers: &'static [&'static str],
}

pub(in super::super) const LEGACY: Device = Device {
    model: "legacy-only",
    id: "1af4:1005",
    offers: &["legacy"],
};
pub(in super::super) const TRANSITIONAL: Device = Device {
    model: "transitional",
    id: "1af4:1005",
    offers: &["legacy", "modern"],
};
pub(in super::super) const NEW: Device = Device {
    model: "non-transitional",
    id: "1af4:1044",
    offers: &["modern"],
};
/// Which QEMU does not have.
pub(in super::super) const OLD_ID: Device = Device {
    model: "old-id",
    id: "1af4:1005",
    offers: &["modern"],
};

/// What is recorded of a device for a policy: the doorbell by which it works, or what
/// stops it.
pub(in super::super) fn record(
    device: Device,
    policy: &str,
    io: bool,
    came: Result<&str, &str>,
) -> Value {
    let transport = came.map(|notify| match notify {
        "legacy" => ("pci-legacy", "pio"),
        notify => ("pci-modern", notify),
    });
    json!({
        "v": 1, "kind": "probe", "policy": policy, "io": io, "device": "virtio-rng",
        "bdf": "0000:01:00.0", "pci_id": device.id, "offers": device.offers,
        "port": "endpoint", "below": "root port", "works": came.is_ok(),
        "transport": transport.ok().map(|(transport, _)| transport),
        "notify": transport.ok().map(|(_, notify)| notify),
        "tried": [{
            "interface": "x", "works": came.is_ok(), "reason": came.err(),
            "message": came.err().map(|reason| format!("a sentence on {reason}")),
        }],
    })
}

/// With a doorbell in the IO BAR 2, with what makes that useless, and one in memory.
pub(in super::super) fn with_doorbells(mut record: Value, reason: Option<&str>) -> Value {
    record["tried"][0]["doorbells"] = json!([
        {"bar": 2, "space": "io", "usable": reason.is_none(), "reason": reason},
        {"bar": 4, "space": "memory", "usable": true, "reason": null},
    ]);
    record
}

/// A boot of a device in a place.
pub(in super::super) fn run(
    placement: &str,
    firmware: &str,
    device: Device,
    records: Vec<Value>,
) -> Run {
    let cell = [
        ("machine", "q35"),
        ("firmware", firmware),
        ("placement", placement),
        ("model", device.model),
    ];
    Run {
        cell: cell.map(|(axis, name)| (axis.into(), name.into())).into(),
        verdict: "pass".into(),
        records,
        ..Run::default()
    }
}

/// An experiment of these runs.
pub(in super::super) fn experiment(runs: Vec<Run>) -> Experiment {
    let axes = ["machine", "firmware", "placement", "model"];
    Experiment {
        axes: axes.map(str::to_owned).into(),
        runs,
        ..Experiment::default()
    }
}
