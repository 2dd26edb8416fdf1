//! Names for the addresses that a crashing guest prints, by binutils'
//! `addr2line`, which comes with the linker that Rust needs on most systems.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::qemu::host::find_program;

/// More than any backtrace of ours has.
const MOST: usize = 64;

/// Where the code is that the serial log names, a line each; nothing if there
/// are no addresses or no `addr2line`.
pub(crate) fn resolve(image: &Path, serial_log: &Path) -> Option<String> {
    let log = std::fs::read(serial_log).ok()?;
    let addresses = addresses(&String::from_utf8_lossy(&log));
    if addresses.is_empty() {
        return None;
    }
    let output = Command::new(find_program("addr2line")?)
        .args([
            "--functions",
            "--demangle",
            "--pretty-print",
            "--inlines",
            "--addresses",
        ])
        .arg("--exe")
        .arg(image)
        .args(&addresses)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let root = format!("{}/", crate::image::workspace().display());
    let text = text.trim_end().replace(&root, "");
    (!text.is_empty()).then(|| format!("    {}", text.replace('\n', "\n    ")))
}

/// The instruction of an exception (`at rip 0x111dc8`), and the lines that are
/// nothing but an address: its callers.
fn addresses(log: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in log.lines().filter(|line| !line.starts_with('@')) {
        let candidate = match line.split_once(" at rip ") {
            Some((_, rest)) => rest.split(',').next().unwrap_or_default(),
            None => line.trim(),
        };
        let Some(digits) = candidate.strip_prefix("0x") else {
            continue;
        };
        if u64::from_str_radix(digits, 16).is_ok()
            && !found.iter().any(|other| other == candidate)
            && found.len() < MOST
        {
            found.push(candidate.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_addresses_are_taken() {
        let log = "memory 0x0..0x9fc00 (RAM)\n\
            exception 14 (#PF page fault) at rip 0x111dc8, error code 0x0, cr2 0x0: read\n\
            \x20    rax 0000000000000000     rbx 0000000000144ac8\n  called from:\n\
            \x20   0x111dc8\n    0x111dbb\n    0xnonsense\n    0x1000dd and more\n\
            @{\"message\":\"at rip 0x222222, error code 0x0\"}\n";
        assert_eq!(addresses(log), ["0x111dc8", "0x111dbb"]);
    }

    #[test]
    fn no_log_and_no_address_give_nothing() {
        assert_eq!(resolve(Path::new("/k"), Path::new("/no/such/log")), None);
        assert!(addresses("hello\n").is_empty());
    }
}
