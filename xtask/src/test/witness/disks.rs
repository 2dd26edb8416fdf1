//! The disks against the guest's `wrote` records, after the run.

use std::path::Path;

use super::Places;
use crate::disk::{self, Wrote};
use crate::record::Record;

/// Checks disk `n`, which belongs to the device `blk<n>`.
///
/// # Errors
/// A sentence about the first wrong sector, or about a record that can't be right.
pub(crate) fn compare(
    path: &Path,
    n: usize,
    places: &Places,
    records: &[Record],
) -> Result<(), String> {
    let id = format!("blk{n}");
    let mut wrote = Vec::new();
    for record in records.iter().filter(|record| record.kind() == "wrote") {
        let address = record.address().unwrap_or_default();
        let place = places
            .get(address)
            .ok_or_else(|| format!("the guest wrote to {address}, where QEMU has no device"))?;
        if *place != id {
            continue;
        }
        let field = |name: &str| {
            super::hex(&record.value()[name])
                .ok_or_else(|| format!("the record `wrote` for {address} has no number {name:?}"))
        };
        wrote.push(Wrote {
            first: field("sector")?,
            count: field("count")?,
            seed: field("seed")?,
        });
    }
    if wrote.is_empty() {
        return Err("the guest says nothing of sectors it wrote".into());
    }
    disk::check(path, &wrote).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_disks_own_writes_count() {
        let path = std::env::temp_dir().join(format!("doorbell-{}-disks.img", std::process::id()));
        disk::create(&path).unwrap();
        let wrote = |bdf: &str, seed: u64| {
            let text = format!(
                r#"{{"v":1,"kind":"wrote","device":"virtio-blk","bdf":"{bdf}","sector":9,"count":1,"seed":{seed}}}"#
            );
            Record::parse(&text).unwrap()
        };
        let places = Places::from([
            ("a".to_owned(), "blk0".to_owned()),
            ("b".to_owned(), "blk1".to_owned()),
        ]);
        // A guest that writes what was there before: allowed, if it says so.
        let honest = [wrote("a", disk::DISK_SEED), wrote("b", 5)];
        assert_eq!(compare(&path, 0, &places, &honest), Ok(()));
        assert!(
            compare(&path, 1, &places, &honest)
                .unwrap_err()
                .contains("sector 9")
        );
        assert!(compare(&path, 0, &places, &[]).is_err());
        assert!(
            compare(&path, 0, &places, &[wrote("c", 1)])
                .unwrap_err()
                .contains("no device")
        );
        std::fs::remove_file(path).unwrap();
    }
}
