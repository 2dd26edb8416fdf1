//! Disks: what stands on them right now, and their size.
//!
//! | action | arguments | answer |
//! |---|---|---|
//! | `disk` | `sector`, `count`, `seed` | whether these sectors hold the seed's pattern |
//! | `zeroes` | `sector`, `count` | whether these sectors are zeros |
//! | `resize` | `bytes` | after the disk has grown to these |

use serde_json::json;

use super::{Answer, Ask};
use crate::disk::{self, Contents, SECTOR_BYTES, Wrote};
use crate::qemu::devices::{self, Disk};
use crate::qemu::{Files, Options};
use crate::qmp::Qmp;

/// The disks of one run.
pub(crate) struct Blocks {
    files: Files,
    /// Each with the bytes that it has now.
    disks: Vec<(Disk, u64)>,
}

impl Blocks {
    pub(crate) fn new(options: &Options, files: &Files) -> Self {
        let disks = devices::disks(options).into_iter();
        Self {
            files: files.clone(),
            disks: disks.map(|disk| (disk, disk.bytes())).collect(),
        }
    }

    /// How many bytes a disk has now.
    pub(crate) fn bytes(&self, disk: &Disk) -> u64 {
        let found = self.disks.iter().find(|(other, _)| other == disk);
        found.map_or(disk.bytes(), |(_, bytes)| *bytes)
    }

    pub(crate) fn answer(&mut self, ask: &Ask<'_>, qmp: &mut Qmp) -> Answer {
        let id = ask.device()?;
        let (disk, bytes) = self
            .disks
            .iter_mut()
            .find(|(disk, _)| disk.id() == id)
            .ok_or_else(|| format!("{id} is no disk"))?;
        let look = |contents| {
            let sectors = Wrote {
                first: ask.number("sector")?,
                count: ask.number("count")?,
                contents,
            };
            disk::holds(&self.files.disk(disk.n), sectors).map(|()| String::new())
        };
        match ask.action() {
            "disk" => look(Contents::Pattern(ask.number("seed")?)),
            "zeroes" => look(Contents::Zeroes),
            _ => {
                let new = ask.number("bytes")?;
                if new < *bytes || new % SECTOR_BYTES as u64 != 0 {
                    return Err(format!(
                        "{id} has {bytes} bytes and grows by whole sectors only, not to {new}"
                    ));
                }
                let arguments = json!({"node-name": disk.node(), "size": new});
                qmp.execute("block_resize", arguments)
                    .map_err(|error| error.to_string())?;
                *bytes = new;
                Ok(String::new())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::ask;
    use super::*;
    use crate::folder;
    use crate::qemu::Machine;
    use crate::qemu::tests::options;
    use crate::qmp::tests::obedient;

    #[test]
    fn a_disk_is_looked_at_and_grows() {
        let dir = std::env::temp_dir().join(format!("doorbell-{}-blocks", std::process::id()));
        let (options, files) = (options(Machine::Microvm), Files::new(dir.clone()).unwrap());
        folder::fill(&options, &files).unwrap();
        let mut blocks = Blocks::new(&options, &files);
        let disk = devices::disks(&options)[0];
        let (mut qmp, asked) = obedient();
        {
            let mut answer = |id: &str, text: &str| {
                let record = ask(text);
                let answer = blocks.answer(&Ask::new(&record, Some(id)), &mut qmp);
                (answer, blocks.bytes(&disk))
            };
            let seed = disk::SEED;
            let right = format!(r#""action":"disk","sector":3,"count":5000,"seed":{seed}"#);
            assert_eq!(answer("blk0", &right).0, Ok(String::new()));
            assert!(answer("rng0", &right).0.unwrap_err().contains("no disk"));
            for wrong in [
                r#""action":"disk","sector":3,"count":1,"seed":1"#,
                r#""action":"disk","sector":3,"count":1"#,
                r#""action":"zeroes","sector":3,"count":1"#,
                r#""action":"zeroes","sector":65536,"count":1"#,
                r#""action":"resize","bytes":512"#,
                r#""action":"resize","bytes":33554433"#,
            ] {
                let (answer, bytes) = answer("blk0", wrong);
                assert!(answer.is_err(), "{wrong}");
                assert_eq!(bytes, 32 << 20);
            }
            let grow = answer("blk0", r#""action":"resize","bytes":33555456"#);
            assert_eq!(grow, (Ok(String::new()), (32 << 20) + 1024));
        }
        let resize = json!({"node-name": "disk0", "size": 33555456});
        assert_eq!(*asked.lock().unwrap(), [("block_resize".into(), resize)]);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
