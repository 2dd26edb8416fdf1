//! QEMU's trace of `virtio_queue_notify` against the doorbells that the guest
//! says it rang (its `rang` records).
//!
//! A line of the trace is
//! `virtio_queue_notify vdev 0x55d0c8a0 n 0 vq 0x7f51c010`, in some builds of
//! QEMU after a process and a time. It names a device by QEMU's own pointer. The
//! guest tests one device after the other, so that the devices of both sides are
//! paired in the order in which they first appear.

use super::same;
use crate::record::Record;

const EVENT: &str = "virtio_queue_notify";

/// Devices, in the order of their first doorbells, and how many they got.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts<'a>(Vec<(&'a str, u64)>);

impl<'a> Counts<'a> {
    fn add(&mut self, device: &'a str, doorbells: u64) {
        match self.0.iter_mut().find(|(other, _)| *other == device) {
            Some((_, count)) => *count += doorbells,
            None if doorbells > 0 => self.0.push((device, doorbells)),
            None => {}
        }
    }
}

/// Doorbells by device, as the trace counts them.
fn traced(trace: &str) -> Counts<'_> {
    let mut counts = Counts::default();
    for line in trace.lines() {
        let mut words = line.split_whitespace().skip_while(|word| {
            // `1234@1700000000.123456:virtio_queue_notify` is one word.
            word.rsplit(':').next() != Some(EVENT)
        });
        if words.next().is_some() && words.next() == Some("vdev") {
            counts.add(words.next().unwrap_or_default(), 1);
        }
    }
    counts
}

/// Doorbells by device, as the guest counts them.
fn claimed(records: &[Record]) -> Counts<'_> {
    let mut counts = Counts::default();
    for record in records.iter().filter(|record| record.kind() == "rang") {
        counts.add(
            record.address().unwrap_or_default(),
            record.number("doorbells").unwrap_or_default(),
        );
    }
    counts
}

/// With `exact`, every doorbell is traced on its own. Otherwise doorbells are
/// eventfds, and several rung before anybody looks are one, so that only the
/// devices are counted.
pub(crate) fn compare(trace: &str, records: &[Record], exact: bool) -> Result<(), String> {
    let (guest, qemu) = (claimed(records).0, traced(trace).0);
    if guest.is_empty() {
        return Err("the guest says nothing of doorbells it rang".into());
    }
    same("devices whose doorbell rang", guest.len(), qemu.len())?;
    if exact {
        for ((address, ours), (_, theirs)) in guest.iter().zip(&qemu) {
            // As text: `same` shows numbers in hexadecimal.
            same(
                &format!("doorbells of {address}"),
                ours.to_string(),
                theirs.to_string(),
            )?;
        }
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
        // The order is that of the trace, not that of the pointers.
        let trace = TRACE.replace("0x55aa", "0x66aa");
        assert_eq!(traced(&trace).0, [("0x66aa", 2), ("0x55bb", 1)]);
        assert_eq!(traced("").0, []);
    }

    #[test]
    fn counts_agree_to_the_last_doorbell() {
        // Several records of one device add up; one that never rang is in no trace.
        let honest = rang(&[("c", 0), ("b", 1), ("a", 0), ("b", 1), ("a", 1)]);
        assert_eq!(compare(TRACE, &honest, true), Ok(()));
        let one_more = rang(&[("a", 2), ("b", 2)]);
        let error = compare(TRACE, &one_more, true).unwrap_err();
        assert!(error.contains("doorbells of b"), "{error}");
        assert_eq!(compare(TRACE, &one_more, false), Ok(()));
        let one_device = rang(&[("a", 3)]);
        assert!(compare(TRACE, &one_device, false).is_err());
        assert!(compare(TRACE, &[], false).is_err());
    }

    #[test]
    fn swapped_counts_are_no_agreement() {
        assert!(compare(TRACE, &rang(&[("a", 1), ("b", 2)]), true).is_err());
    }
}
