//! What is heard of the guest's sound. QEMU has all of it in its file when it has ended.
//!
//! | action | arguments | answer |
//! |---|---|---|
//! | `played` | `bytes`, `seed` | at once; after the run, the file must have the seed's stream behind what was played before |

use super::{Answer, Ask};
use crate::pattern;
use crate::qemu::Files;

/// The header of a WAV file, as QEMU writes it.
const HEADER: usize = 44;
/// More than any test plays.
const LONGEST: u64 = 1 << 20;

/// What was played in one run: how many bytes of which seed's stream.
#[derive(Default)]
pub(crate) struct Sounds(Vec<(usize, u64)>);

impl Sounds {
    pub(crate) fn answer(&mut self, ask: &Ask<'_>) -> Answer {
        let bytes = ask.number("bytes")?;
        if bytes > LONGEST {
            return Err(format!("nobody listens to {bytes} bytes"));
        }
        self.0.push((bytes as usize, ask.number("seed")?));
        Ok(String::new())
    }

    /// Whether all of it was heard, in that order: before and behind each may be silence.
    ///
    /// # Errors
    /// What was not, or that nothing was played.
    pub(crate) fn heard(&self, files: &Files) -> Result<(), String> {
        let path = files.sound();
        let contents = std::fs::read(&path);
        let contents = contents.map_err(|error| format!("{}: {error}", path.display()))?;
        let mut rest = contents.get(HEADER..).unwrap_or_default();
        if self.0.is_empty() {
            return Err("the guest says nothing of what it played".into());
        }
        for (number, (bytes, seed)) in self.0.iter().enumerate() {
            let mut expected = vec![0; *bytes];
            pattern::fill(0, *seed, &mut expected);
            let found = rest
                .windows(*bytes)
                .position(|window| window == expected.as_slice());
            let at = found.ok_or_else(|| format!("sound {number} was not heard"))?;
            rest = &rest[at + bytes..];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::ask;
    use super::*;

    #[test]
    fn what_was_played_is_heard_in_order() {
        let folder = std::env::temp_dir().join(format!("doorbell-{}-sound", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let files = Files::new(folder.clone()).unwrap();
        let sound = |seed| {
            let mut sound = vec![0; 100];
            pattern::fill(0, seed, &mut sound);
            sound
        };
        let silence = vec![0; 10];
        let parts = [
            vec![1; HEADER],
            silence.clone(),
            sound(5),
            silence,
            sound(6),
        ];
        std::fs::write(files.sound(), parts.concat()).unwrap();
        let heard = |seeds: &[u64]| {
            let mut sounds = Sounds::default();
            for seed in seeds {
                let record = ask(&format!(r#""action":"played","bytes":100,"seed":{seed}"#));
                let told = sounds.answer(&Ask::new(&record, Some("sound0")));
                assert_eq!(told, Ok(String::new()));
            }
            sounds.heard(&files)
        };
        assert_eq!(heard(&[5, 6]), Ok(()));
        assert_eq!(heard(&[6]), Ok(()));
        assert_eq!(heard(&[6, 5]).unwrap_err(), "sound 1 was not heard");
        assert!(heard(&[7]).is_err());
        assert!(heard(&[]).is_err());
        let mut much = Sounds::default();
        let record = ask(r#""action":"played","bytes":4294967296,"seed":1"#);
        assert!(much.answer(&Ask::new(&record, None)).is_err());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
