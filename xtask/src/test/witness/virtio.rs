//! `x-query-virtio-status` and `x-query-virtio-queue-status` against the
//! guest's `device` records.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Places, hex, same};
use crate::qmp::{Qmp, QmpError, names};
use crate::record::Record;

/// Feature bits for which QEMU may have no name yet; it then gives the number.
const NUMBERS: [(&str, u32); 6] = [
    ("VIRTIO_F_ORDER_PLATFORM", 36),
    ("VIRTIO_F_SR_IOV", 37),
    ("VIRTIO_F_IN_ORDER", 35),
    ("VIRTIO_F_NOTIFICATION_DATA", 38),
    ("VIRTIO_F_NOTIF_CONFIG_DATA", 39),
    ("VIRTIO_F_RING_RESET", 40),
];

/// What QEMU says about one device.
pub(crate) struct Answers {
    pub(crate) status: Value,
    /// One for each queue that the guest claims.
    pub(crate) queues: Vec<Value>,
}

/// Asks about the device with this `id=`.
///
/// # Errors
/// When QEMU doesn't answer.
pub(crate) fn ask(qmp: &mut Qmp, id: &str, claim: &Record) -> Result<Answers, QmpError> {
    let list = qmp.execute("x-query-virtio", json!({}))?;
    let path = list
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|device| device["path"].as_str())
        .find(|path| path.split('/').any(|part| part == id))
        .ok_or_else(|| QmpError::Protocol(format!("no virtio device {id} in {list}")))?;
    let status = qmp.execute("x-query-virtio-status", json!({"path": path}))?;
    let queues = claimed_queues(claim)
        .map(|queue| {
            let arguments = json!({"path": path, "queue": queue["index"]});
            qmp.execute("x-query-virtio-queue-status", arguments)
        })
        .collect::<Result<_, _>>()?;
    Ok(Answers { status, queues })
}

fn claimed_queues(claim: &Record) -> impl Iterator<Item = &Value> {
    claim.value()["queues"].as_array().into_iter().flatten()
}

/// Where virtio-mmio devices with an `id=` are, from `info qtree`.
pub(crate) fn mmio_places(tree: &str) -> Places {
    let mut places = Places::new();
    // Whether the lines are about a virtio-mmio slot, and its address.
    let mut in_slot = false;
    let mut address = None;
    for line in tree.lines().map(str::trim) {
        if let Some(device) = line.strip_prefix("dev: ") {
            if let (Some(address), Some((_, id))) = (address.take(), device.split_once("id \""))
                && let Some(id) = id.strip_suffix('"').filter(|id| !id.is_empty())
            {
                places.insert(format!("{address:#x}"), id.to_owned());
            }
            in_slot = device.starts_with("virtio-mmio,");
        } else if in_slot && let Some(range) = line.strip_prefix("mmio ") {
            let start = range.split('/').next().unwrap_or_default();
            address = u64::from_str_radix(start, 16).ok();
        }
    }
    places
}

/// Compares the device's status, its features and each queue.
pub(crate) fn compare(
    answers: &Answers,
    claim: &Record,
    mut check: impl FnMut(&str, Result<(), String>),
) {
    let legacy = matches!(claim.text("transport"), Some("pci-legacy" | "mmio-v1"));
    check("status", status(&answers.status, legacy));
    check("features", features(&answers.status, claim));
    let packed = claimed_features(claim).any(|name| name == PACKED);
    for (theirs, ours) in answers.queues.iter().zip(claimed_queues(claim)) {
        let waits = has_waiting_buffers(claim, ours);
        check(
            &format!("queue {}", ours["index"]),
            queue(theirs, ours, waits, packed),
        );
    }
}

/// A device that is being driven has exactly these bits.
fn status(qemu: &Value, legacy: bool) -> Result<(), String> {
    let mut expected = BTreeSet::from(["ACKNOWLEDGE", "DRIVER", "DRIVER_OK"].map(str::to_owned));
    if !legacy {
        expected.insert("FEATURES_OK".into());
    }
    let names = names(&qemu["status"]["statuses"]);
    let found = names
        .iter()
        .map(|name| name.trim_start_matches("VIRTIO_CONFIG_S_").to_owned())
        .collect();
    same("the status", expected, found)
}

fn features(qemu: &Value, claim: &Record) -> Result<(), String> {
    let theirs = &qemu["guest-features"];
    let mut found: BTreeSet<String> = names(&theirs["transports"]);
    found.extend(names(&theirs["dev-features"]));
    // QEMU has Linux's names for some; the specification's have no RING.
    found = found
        .into_iter()
        .map(|name| name.replace("VIRTIO_RING_F_", "VIRTIO_F_"))
        .collect();
    let mut unnamed = theirs["unknown-dev-features"].as_u64().unwrap_or_default();
    for (name, bit) in NUMBERS {
        if unnamed & 1 << bit != 0 {
            unnamed &= !(1 << bit);
            found.insert(name.to_owned());
        }
    }
    let ours: BTreeSet<String> = claimed_features(claim)
        .map(|name| name.replace("VIRTIO_RING_F_", "VIRTIO_F_"))
        .collect();
    same("the features", ours, found)?;
    same("features without a name", 0, unnamed)
}

/// The features that the guest says it accepted.
fn claimed_features(claim: &Record) -> impl Iterator<Item = &str> {
    let names = claim.value()["features"].as_array().into_iter().flatten();
    names.filter_map(Value::as_str)
}

/// Whether a queue holds buffers that wait for something to come in: network
/// adapters, consoles and keyboards receive by those with even numbers (5.1.2, 5.3.2,
/// 5.8.2), and sound devices have events in their second (5.14.2).
fn has_waiting_buffers(claim: &Record, queue: &Value) -> bool {
    let receives = ["virtio-net", "virtio-console", "virtio-input"].map(Some);
    let index = queue["index"].as_u64();
    let even = index.is_some_and(|index| index % 2 == 0);
    let device = claim.text("device");
    receives.contains(&device) && even || device == Some("virtio-sound") && index == Some(1)
}

/// With `waits`, the device may not have looked at all buffers, and the driver not at
/// all that came in.
fn queue(qemu: &Value, guest: &Value, waits: bool, packed: bool) -> Result<(), String> {
    same(
        "its size",
        guest["size"].as_u64(),
        qemu["vring-num"].as_u64(),
    )?;
    let ours =
        |name: &str| hex(&guest[name]).ok_or_else(|| format!("the record has no number {name:?}"));
    for (name, key) in [
        ("descriptors", "vring-desc"),
        ("driver", "vring-avail"),
        ("device", "vring-used"),
    ] {
        same(name, Some(ours(name)?), qemu[key].as_u64())?;
    }
    let (used, avail) = (ours("used_idx")?, ours("avail_idx")?);
    let theirs = |key: &str| qemu[key].as_u64().unwrap_or_default();
    let indices = [used, theirs("used-idx"), theirs("last-avail-idx"), avail];
    let ordered = if packed {
        in_packed_ring(indices, theirs("vring-num"))
    } else {
        // They count from 0 to 65535 and round again.
        let ahead = indices.map(|index| (index as u16).wrapping_sub(used as u16));
        ahead.is_sorted()
    };
    let idle = !waits;
    let place = |index: u64| if packed { index & !WRAP } else { index };
    if idle {
        same("used_idx", place(used), indices[1])?;
        same("avail_idx", place(avail), indices[2])?;
    }
    if ordered {
        Ok(())
    } else {
        Err(format!(
            "used_idx, QEMU's own, QEMU's avail_idx and the guest's are {indices:?}"
        ))
    }
}

/// The feature by which a device has packed rings.
const PACKED: &str = "VIRTIO_F_RING_PACKED";
/// The bit of a packed ring's index that holds the wrap counter (virtio 1.2, 2.8.14).
const WRAP: u64 = 1 << 15;

/// Whether the guest's and QEMU's places in a packed ring of `size` are in order: the
/// guest's used one, QEMU's, QEMU's available one, and the guest's. QEMU tells its own
/// without the wrap counters.
fn in_packed_ring([used, their_used, their_avail, avail]: [u64; 4], size: u64) -> bool {
    let (first, last) = (used & !WRAP, avail & !WRAP);
    if [first, their_used, their_avail, last]
        .iter()
        .any(|&place| place >= size)
    {
        return false;
    }
    // How many descriptors lie from one place to another.
    let between = |from: u64, to: u64| (to + size - from) % size;
    // The guest's counters tell how often the end of the ring lies between.
    let in_flight = match (used ^ avail) & WRAP {
        0 if first <= last => last - first,
        WRAP if last <= first => size + last - first,
        _ => return false,
    };
    between(first, their_used) + between(their_used, their_avail) <= in_flight
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers() -> Answers {
        Answers {
            status: json!({
                "status": {"statuses": [
                    "VIRTIO_CONFIG_S_ACKNOWLEDGE: Valid virtio device found",
                    "VIRTIO_CONFIG_S_DRIVER: Guest OS compatible with device",
                    "VIRTIO_CONFIG_S_FEATURES_OK: Feature negotiation complete",
                    "VIRTIO_CONFIG_S_DRIVER_OK: Driver setup and ready"]},
                "guest-features": {
                    "transports": ["VIRTIO_RING_F_EVENT_IDX: Used & avail.", "VIRTIO_F_VERSION_1: v1"],
                    "dev-features": ["VIRTIO_BLK_F_FLUSH: Flush"],
                    "unknown-dev-features": 1u64 << 40}
            }),
            queues: vec![
                json!({"vring-num": 256, "vring-desc": 0x1000, "vring-avail": 0x2000,
                "vring-used": 0x3000, "used-idx": 7, "last-avail-idx": 8}),
            ],
        }
    }

    fn claim() -> Value {
        json!({"v":1,"kind":"device","device":"virtio-blk","bdf":"0000:00:01.0",
            "transport":"pci-modern","notify":"mmio",
            "features":["VIRTIO_F_VERSION_1","VIRTIO_F_EVENT_IDX","VIRTIO_BLK_F_FLUSH","VIRTIO_F_RING_RESET"],
            "queues":[{"index":0,"size":256,"descriptors":4096,"driver":"0x2000","device":12288,
                "used_idx":7,"avail_idx":8}]})
    }

    fn failures(claim: &Value) -> Vec<String> {
        let mut failed = Vec::new();
        let record = Record::parse(&claim.to_string()).unwrap();
        compare(&answers(), &record, |what, result| {
            if result.is_err() {
                failed.push(what.to_owned());
            }
        });
        failed
    }

    #[test]
    fn an_honest_guest_passes() {
        assert_eq!(failures(&claim()), Vec::<String>::new());
    }

    #[test]
    fn every_lie_is_seen() {
        let lies = [
            ("/features/0", json!("VIRTIO_F_RING_PACKED"), "features"),
            ("/features/3", json!("VIRTIO_F_EVENT_IDX"), "features"),
            ("/transport", json!("pci-legacy"), "status"),
            ("/queues/0/size", json!(128), "queue 0"),
            ("/queues/0/descriptors", json!("0x4000"), "queue 0"),
            ("/queues/0/driver", json!(null), "queue 0"),
            ("/queues/0/used_idx", json!(8), "queue 0"),
            ("/queues/0/used_idx", json!(null), "queue 0"),
            ("/queues/0/avail_idx", json!(7), "queue 0"),
            ("/queues/0/avail_idx", json!(null), "queue 0"),
        ];
        for (field, lie, expected) in lies {
            let mut claim = claim();
            *claim.pointer_mut(field).unwrap() = lie;
            assert_eq!(failures(&claim), [expected], "{field}");
        }
    }

    #[test]
    fn buffers_may_wait_in_a_queue_that_receives() {
        let mut claim = claim();
        claim["device"] = json!("virtio-net");
        for (used, avail, right) in [
            (7, 8, true),
            (5, 100, true),
            (0xfff8, 9, true),
            (8, 8, false),
            (7, 7, false),
        ] {
            claim["queues"][0]["used_idx"] = json!(used);
            claim["queues"][0]["avail_idx"] = json!(avail);
            assert_eq!(failures(&claim).is_empty(), right, "{used} {avail}");
        }
        claim["queues"][0]["used_idx"] = json!(5);
        claim["queues"][0]["avail_idx"] = json!(100);
        claim["queues"][0]["index"] = json!(1);
        assert_eq!(failures(&claim), ["queue 1"]);
    }

    #[test]
    fn places_in_a_packed_ring_have_wrap_counters() {
        const FIRST: u64 = WRAP;
        for (indices, right) in [
            // Empty, at the start and after a lap and some.
            ([FIRST, 0, 0, FIRST], true),
            ([3, 3, 3, 3], true),
            ([3, 3, 3, FIRST | 4], false),
            // Full: all the device's; one given back; all given back.
            ([FIRST | 3, 3, 3, 3], true),
            ([FIRST | 3, 4, 3, 3], true),
            ([FIRST | 3, 3, 4, 3], true),
            // Some in flight, over the end of the ring.
            ([FIRST | 5, 5, 1, 1], true),
            ([FIRST | 5, 6, 1, 1], true),
            ([FIRST | 5, 1, 1, 1], true),
            ([FIRST | 5, 5, 2, 1], false),
            ([FIRST | 5, 4, 1, 1], false),
            ([FIRST | 5, 1, 0, 1], false),
            // More than there can be, and outside.
            ([FIRST | 2, 2, 4, 4], false),
            ([4, 4, 2, 2], false),
            ([FIRST | 2, 2, 7, FIRST | 7], false),
        ] {
            assert_eq!(in_packed_ring(indices, 7), right, "{indices:?}");
        }
        let mut claim = claim();
        let features = claim["features"].as_array_mut().unwrap();
        features.push(json!(PACKED));
        claim["queues"][0]["used_idx"] = json!(7 | WRAP);
        claim["queues"][0]["avail_idx"] = json!(8 | WRAP);
        // That feature is all that QEMU does not know of.
        assert_eq!(failures(&claim), ["features"]);
        claim["queues"][0]["avail_idx"] = json!(8);
        assert_eq!(failures(&claim), ["features", "queue 0"]);
    }

    #[test]
    fn mmio_devices_are_found_in_the_tree() {
        let tree = "  dev: virtio-mmio, id \"\"\n    mmio 00000000feb00e00/0000000000000200\n    \
                    bus: virtio-mmio-bus.7\n      dev: virtio-blk-device, id \"blk0\"\n  \
                    dev: virtio-mmio, id \"\"\n    mmio 00000000feb00c00/0000000000000200\n    \
                    bus: virtio-mmio-bus.6\n  dev: virtio-mmio, id \"\"\n    \
                    mmio 00000000feb00a00/0000000000000200\n      dev: virtio-rng-device, id \"rng0\"\n  \
                    dev: ioapic, id \"\"\n    mmio 00000000fec00000/0000000000001000\n  \
                    dev: virtio-rng, id \"rng1\"\n";
        let places = mmio_places(tree);
        assert_eq!(places["0xfeb00e00"], "blk0");
        assert_eq!(places["0xfeb00a00"], "rng0");
        assert_eq!(places.len(), 2);
    }
}
