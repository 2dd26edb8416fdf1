//! The folder that guest and host share.
//!
//! | action | arguments | answer |
//! |---|---|---|
//! | `file` | `name`, `bytes`, `seed` | whether this file has so many bytes, those of the seed's stream |

use super::{Answer, Ask};
use crate::pattern;
use crate::qemu::Files;

pub(crate) fn answer(ask: &Ask<'_>, files: &Files) -> Answer {
    let (name, bytes) = (ask.text("name")?, ask.number("bytes")?);
    let seed = ask.number("seed")?;
    if name.contains('/') || name.starts_with('.') {
        return Err(format!("{name:?} is no file in the shared folder"));
    }
    let path = files.share().join(name);
    let contents = std::fs::read(&path);
    let contents = contents.map_err(|error| format!("{}: {error}", path.display()))?;
    if contents.len() as u64 != bytes {
        let found = contents.len();
        return Err(format!("{name} has {found} bytes, not {bytes}"));
    }
    match pattern::difference(0, seed, &contents) {
        None => Ok(String::new()),
        Some((at, found, expected)) => Err(format!(
            "byte {at} of {name} is {found:#04x}, not {expected:#04x}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::ask;
    use super::*;

    #[test]
    fn a_file_is_compared_whole() {
        let folder = std::env::temp_dir().join(format!("doorbell-{}-share", std::process::id()));
        let files = Files::new(folder.clone()).unwrap();
        std::fs::create_dir_all(files.share()).unwrap();
        let mut contents = [0; 100];
        pattern::fill(0, 7, &mut contents);
        std::fs::write(files.share().join("right"), contents).unwrap();
        contents[99] ^= 1;
        std::fs::write(files.share().join("wrong"), contents).unwrap();
        std::fs::write(folder.join("secret"), contents).unwrap();
        let said = |name: &str, bytes: u64| {
            let record = ask(&format!(
                r#""action":"file","name":"{name}","bytes":{bytes},"seed":7"#
            ));
            answer(&Ask::new(&record, Some("share0")), &files)
        };
        assert_eq!(said("right", 100), Ok(String::new()));
        let error = said("wrong", 100).unwrap_err();
        assert!(error.starts_with("byte 99 of wrong is"), "{error}");
        assert_eq!(
            said("right", 99).unwrap_err(),
            "right has 100 bytes, not 99"
        );
        assert!(said("none", 100).is_err());
        let error = said("../secret", 100).unwrap_err();
        assert!(error.contains("is no file in the shared folder"), "{error}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
