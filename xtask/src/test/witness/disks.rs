//! The disks against the guest's `wrote` records, after the run.

use std::path::Path;

use super::Places;
use crate::disk::{self, Contents, Wrote};
use crate::qemu::devices::Disk;
use crate::record::Record;

/// Checks a disk, which has `now` bytes, against what the guest says of it.
///
/// # Errors
/// A sentence about the first wrong sector, or about a record that can't be right.
pub(crate) fn compare(
    path: &Path,
    disk: &Disk,
    now: u64,
    places: &Places,
    records: &[Record],
) -> Result<(), String> {
    let mut wrote = Vec::new();
    for record in records {
        let kind = record.kind();
        if kind != "wrote" && kind != "zeroed" {
            continue;
        }
        let address = record.address().unwrap_or_default();
        let place = places
            .get(address)
            .ok_or_else(|| format!("the guest wrote to {address}, where QEMU has no device"))?;
        if *place != disk.id() {
            continue;
        }
        let field = |name: &str| {
            super::hex(&record.value()[name])
                .ok_or_else(|| format!("the record `{kind}` for {address} has no number {name:?}"))
        };
        wrote.push(Wrote {
            first: field("sector")?,
            count: field("count")?,
            contents: match kind {
                "zeroed" => Contents::Zeroes,
                _ => Contents::Pattern(field("seed")?),
            },
        });
    }
    if wrote.is_empty() && disk.is_plain() {
        return Err("the guest says nothing of sectors it wrote".into());
    }
    disk::check(path, disk.bytes(), now, &wrote).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::tests::options;
    use crate::qemu::{Machine, devices};

    #[test]
    fn only_the_disks_own_writes_count() {
        let path = std::env::temp_dir().join(format!("doorbell-{}-disks.img", std::process::id()));
        let disks = devices::disks(&options(Machine::Q35));
        let bytes = disks[0].bytes();
        disk::create(&path, bytes).unwrap();
        let record = |kind: &str, bdf: &str, seed: u64| {
            let text = format!(
                r#"{{"v":1,"kind":"{kind}","device":"virtio-blk","bdf":"{bdf}","sector":9,"count":1,"seed":{seed}}}"#
            );
            Record::parse(&text).unwrap()
        };
        let wrote = |bdf: &str, seed: u64| record("wrote", bdf, seed);
        let places = Places::from([
            ("a".to_owned(), "blk0".to_owned()),
            ("b".to_owned(), "blk1".to_owned()),
        ]);
        let compare =
            |n: usize, records: &[Record]| compare(&path, &disks[n], bytes, &places, records);
        // A guest that writes what was there before: allowed, if it says so.
        let honest = [wrote("a", disk::SEED), wrote("b", 5)];
        assert_eq!(compare(0, &honest), Ok(()));
        assert!(compare(1, &honest).unwrap_err().contains("sector 9"));
        let zeroed = [wrote("a", disk::SEED), record("zeroed", "a", 0)];
        assert!(compare(0, &zeroed).unwrap_err().contains("zeros"));
        assert!(compare(0, &[]).is_err());
        let nowhere = compare(0, &[wrote("c", 1)]).unwrap_err();
        assert!(nowhere.contains("no device"));
        std::fs::remove_file(path).unwrap();
    }
}
