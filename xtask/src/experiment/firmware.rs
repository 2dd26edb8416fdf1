//! SeaBIOS's own log, by QEMU's debug console: what it said when no guest started.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::qemu::Files;
use crate::record::VERSION;

/// Where SeaBIOS writes (its `CONFIG_DEBUG_IO`).
const PORT: u16 = 0x402;
/// Its last lines that are kept.
const LINES: usize = 3;

/// Where the log is.
pub(super) fn log(files: &Files) -> PathBuf {
    files.dir().join("firmware.log")
}

/// QEMU's arguments that keep the log.
///
/// # Errors
/// When the folder's name is not UTF-8.
pub(super) fn arguments(files: &Files) -> Result<Vec<String>> {
    let path = log(files);
    let path = path.to_str().context("the folder's name is not UTF-8")?;
    let path = path.replace(',', ",,");
    Ok(vec![
        "-chardev".into(),
        format!("file,id=firmware,path={path}"),
        "-device".into(),
        format!("isa-debugcon,iobase={PORT:#x},chardev=firmware"),
    ])
}

/// The log's last lines, as a record; none if there is no log.
pub(super) fn last_words(files: &Files) -> Option<Value> {
    let text = std::fs::read(log(files)).ok()?;
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let last = &lines[lines.len().saturating_sub(LINES)..];
    let said = last.join("; ");
    (!said.is_empty()).then(|| json!({"v": VERSION, "kind": "firmware", "said": said}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept() {
        let dir = std::env::temp_dir().join(format!("doorbell-{}-firmware", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let files = Files::new(dir.clone()).unwrap();
        assert_eq!(last_words(&files), None);
        std::fs::write(log(&files), "a\nb\n\nc\nPCI: out of I/O address space\n\n").unwrap();
        let said = last_words(&files).unwrap();
        assert_eq!(said["said"], "b; c; PCI: out of I/O address space");
        assert!(arguments(&files).unwrap()[1].ends_with("/firmware.log"));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
