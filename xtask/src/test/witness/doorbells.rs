//! The doorbells that QEMU's [`trace`](super::trace) counts against those that the guest
//! says it rang (its `rang` records).
//!
//! The guest tests one device after the other, so that the devices of both sides are
//! paired in the order in which they first appear. A device that is plugged is another
//! one to QEMU, perhaps at the place of one that went: what comes before is compared
//! before that.

use super::same;
use super::trace::Counts;
use crate::record::Record;

/// Doorbells by device, as the guest counts them.
fn claimed(records: &[Record]) -> Counts {
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
pub(crate) fn compare(traced: &Counts, records: &[Record], exact: bool) -> Result<(), String> {
    let (guest, qemu) = (claimed(records).0, &traced.0);
    if guest.is_empty() {
        return Err("the guest says nothing of doorbells it rang".into());
    }
    same("devices whose doorbell rang", guest.len(), qemu.len())?;
    if exact {
        for ((address, ours), (_, theirs)) in guest.iter().zip(qemu) {
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
    use super::super::trace::tests::trace;
    use super::*;

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
    fn counts_agree_to_the_last_doorbell() {
        let traced = trace(&[("0x66aa", 2), ("0x55bb", 1)], &[]).doorbells;
        // Several records of one device add up; one that never rang is in no trace.
        let honest = rang(&[("c", 0), ("b", 1), ("a", 0), ("b", 1), ("a", 1)]);
        assert_eq!(compare(&traced, &honest, true), Ok(()));
        let one_more = rang(&[("a", 2), ("b", 2)]);
        let error = compare(&traced, &one_more, true).unwrap_err();
        assert!(error.contains("doorbells of b"), "{error}");
        assert_eq!(compare(&traced, &one_more, false), Ok(()));
        let one_device = rang(&[("a", 3)]);
        assert!(compare(&traced, &one_device, false).is_err());
        assert!(compare(&traced, &[], false).is_err());
        let swapped = rang(&[("a", 1), ("b", 2)]);
        assert!(compare(&traced, &swapped, true).is_err());
    }
}
