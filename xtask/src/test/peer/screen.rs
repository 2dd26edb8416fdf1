//! The guest's screen, as QEMU has it.
//!
//! | action | arguments | answer |
//! |---|---|---|
//! | `screen` | `width`, `height`, `shade` | whether each pixel of the device's screen is [`color`]'s |

use serde_json::json;

use super::{Answer, Ask};
use crate::qemu::Files;
use crate::qmp::Qmp;

/// The most pixels that a side has: what is more is nobody's picture here.
const LONGEST: u64 = 4096;

/// Red, green and blue of a pixel, as `tests/src/image/upstream/gpu.rs` draws it. No
/// two of a picture of 256 by 256 are the same.
fn color(x: u64, y: u64, shade: u64) -> [u8; 3] {
    [x as u8, y as u8, (x ^ y ^ shade) as u8]
}

pub(crate) fn answer(ask: &Ask<'_>, qmp: &mut Qmp, files: &Files) -> Answer {
    let id = ask.device()?;
    let (width, height) = (ask.number("width")?, ask.number("height")?);
    let shade = ask.number("shade")?;
    if width > LONGEST || height > LONGEST {
        return Err(format!("no screen here has {width} by {height} pixels"));
    }
    let path = files.screen();
    let arguments = json!({"filename": path, "device": id, "head": 0});
    qmp.execute("screendump", arguments)
        .map_err(|error| error.to_string())?;
    let picture = std::fs::read(&path);
    let picture = picture.map_err(|error| format!("{}: {error}", path.display()))?;
    let pixels = pixels(&picture, width, height)?;
    for (place, found) in (0..).zip(pixels.chunks_exact(3)) {
        let (x, y) = (place % width, place / width);
        let expected = color(x, y, shade);
        if found != expected {
            return Err(format!(
                "pixel {x}, {y} is {found:02x?}, not {expected:02x?}"
            ));
        }
    }
    Ok(String::new())
}

/// The bytes of a PPM picture, three for a pixel, from the top left on. The header has
/// the words `P6`, width, height and the largest value, each with one white space
/// behind it: that is how QEMU writes it.
///
/// # Errors
/// When it is of another size, or no such picture.
fn pixels(picture: &[u8], width: u64, height: u64) -> Result<&[u8], String> {
    let expected = format!("P6 {width} {height} 255");
    let mut rest = picture;
    let mut words = Vec::new();
    for _ in 0..4 {
        let end = rest.iter().position(u8::is_ascii_whitespace);
        let (word, behind) = rest.split_at(end.ok_or("the picture has no header")?);
        words.push(String::from_utf8_lossy(word).into_owned());
        rest = &behind[1..];
    }
    let (found, bytes) = (words.join(" "), rest.len() as u64);
    if found == expected && bytes == width * height * 3 {
        Ok(rest)
    } else {
        Err(format!(
            "the picture is \"{found}\" with {bytes} bytes, not \"{expected}\""
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::tests::ask;
    use super::*;
    use crate::qmp::tests::fake;

    /// A picture of 300 by 3 pixels.
    fn picture() -> Vec<u8> {
        let mut picture = b"P6\n300 3\n255\n".to_vec();
        for y in 0..3 {
            for x in 0..300 {
                picture.extend(color(x, y, 0x77));
            }
        }
        picture
    }

    #[test]
    fn every_pixel_counts() {
        let whole = picture();
        let header = whole.len() - 300 * 3 * 3;
        assert_eq!(pixels(&whole, 300, 3), Ok(&whole[header..]));
        for (width, height) in [(3, 300), (300, 2), (900, 1)] {
            assert!(pixels(&whole, width, height).is_err());
        }
        assert!(pixels(&whole[..whole.len() - 1], 300, 3).is_err());
        assert!(pixels(b"P6\n300", 300, 3).is_err());
        assert!(pixels(b"", 0, 0).is_err());
    }

    #[test]
    fn qemus_picture_is_compared() {
        let folder = std::env::temp_dir().join(format!("doorbell-{}-screen", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let files = Files::new(folder.clone()).unwrap();
        let draw = |wrong: Option<usize>| {
            fake(move |command, arguments| {
                assert_eq!(
                    (command, &arguments["device"]),
                    ("screendump", &json!("gpu0"))
                );
                let mut picture = picture();
                if let Some(byte) = wrong {
                    picture[byte] ^= 1;
                }
                let path = arguments["filename"].as_str().unwrap();
                let mut file = std::fs::File::create(path).unwrap();
                file.write_all(&picture).unwrap();
                vec![json!({"return": {}})]
            })
            .0
        };
        let said = |wrong, text: &str| {
            let record = ask(text);
            answer(&Ask::new(&record, Some("gpu0")), &mut draw(wrong), &files)
        };
        let right = r#""action":"screen","width":300,"height":3,"shade":119"#;
        assert_eq!(said(None, right), Ok(String::new()));
        let last = picture().len() - 1;
        let error = said(Some(last), right).unwrap_err();
        assert!(error.starts_with("pixel 299, 2 is [2b, 02, 5"), "{error}");
        let other = r#""action":"screen","width":300,"height":3,"shade":118"#;
        assert!(said(None, other).unwrap_err().starts_with("pixel 0, 0 is"));
        let huge = r#""action":"screen","width":300,"height":4294967296,"shade":1"#;
        assert!(said(None, huge).is_err());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
