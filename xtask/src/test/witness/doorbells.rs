//! QEMU's trace of `virtio_queue_notify` against the doorbells that the guest
//! says it rang (its `rang` records).
//!
//! A line of the trace is
//! `virtio_queue_notify vdev 0x55d0c8a0 n 0 vq 0x7f51c010`, in some builds of
//! QEMU after a process and a time. It names a device by QEMU's own pointer, so
//! devices are compared by their sorted counts.

use std::collections::BTreeMap;

use super::same;
use crate::record::Record;

const EVENT: &str = "virtio_queue_notify";

/// Doorbells by device, as the trace counts them.
pub(crate) fn count(trace: &str) -> BTreeMap<&str, u64> {
    let mut counts = BTreeMap::new();
    for line in trace.lines() {
        let mut words = line.split_whitespace().skip_while(|word| {
            // `1234@1700000000.123456:virtio_queue_notify` is one word.
            word.rsplit(':').next() != Some(EVENT)
        });
        if words.next().is_some() && words.next() == Some("vdev") {
            *counts.entry(words.next().unwrap_or_default()).or_default() += 1;
        }
    }
    counts
}

/// Doorbells by device, as the guest counts them.
pub(crate) fn claimed(records: &[Record]) -> BTreeMap<&str, u64> {
    let mut counts = BTreeMap::new();
    for record in records.iter().filter(|record| record.kind() == "rang") {
        *counts
            .entry(record.address().unwrap_or_default())
            .or_default() += record.number("doorbells").unwrap_or_default();
    }
    counts.retain(|_, count| *count > 0);
    counts
}

/// With `exact`, every doorbell is traced on its own. Otherwise doorbells are
/// eventfds: several rung before anybody looks are one, and a polling iothread
/// looks unasked, so that only the devices are counted.
pub(crate) fn compare(trace: &str, records: &[Record], exact: bool) -> Result<(), String> {
    let (guest, qemu) = (claimed(records), count(trace));
    if guest.is_empty() {
        return Err("the guest says nothing of doorbells it rang".into());
    }
    same("devices whose doorbell rang", guest.len(), qemu.len())?;
    if exact {
        let sorted = |counts: BTreeMap<&str, u64>| {
            let mut counts: Vec<u64> = counts.into_values().collect();
            counts.sort_unstable();
            counts.iter().map(u64::to_string).collect::<Vec<_>>()
        };
        same("doorbells a device", sorted(guest), sorted(qemu))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "virtio_queue_notify vdev 0x55aa n 0 vq 0x7f00\n\
        1234@1700000000.5:virtio_queue_notify vdev 0x55bb n 1 vq 0x7f01\n\
        virtio_queue_notify vdev 0x55aa n 0 vq 0x7f00\n\
        virtio_notify_irqfd vdev 0x55aa vq 0x7f00\nqemu: noise\n";

    fn rang(counts: &[(&str, u64)]) -> Vec<Record> {
        counts
            .iter()
            .map(|(bdf, n)| {
                let text = format!(r#"{{"v":1,"kind":"rang","bdf":"{bdf}","doorbells":{n}}}"#);
                Record::parse(&text).unwrap()
            })
            .collect()
    }

    #[test]
    fn the_trace_is_counted_by_device() {
        let counts = count(TRACE);
        assert_eq!(counts, BTreeMap::from([("0x55aa", 2), ("0x55bb", 1)]));
        assert!(count("").is_empty());
    }

    #[test]
    fn counts_agree_to_the_last_doorbell() {
        // Two records of one device add up.
        let honest = rang(&[("a", 1), ("b", 1), ("b", 1), ("c", 0)]);
        assert_eq!(compare(TRACE, &honest, true), Ok(()));
        let one_more = rang(&[("a", 1), ("b", 3)]);
        assert!(compare(TRACE, &one_more, true).is_err());
        assert_eq!(compare(TRACE, &one_more, false), Ok(()));
        let one_device = rang(&[("a", 3)]);
        assert!(compare(TRACE, &one_device, false).is_err());
        assert!(compare(TRACE, &[], false).is_err());
    }
}
