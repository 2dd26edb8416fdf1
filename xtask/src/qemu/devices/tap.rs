//! The adapter with several pairs of queues. Of QEMU's back ends only a tap device has
//! several queues by itself, and making one takes rights over a network. So QEMU gets a
//! network of its own, in namespaces in which everybody may do so, where the system allows
//! them: nothing of it is seen outside.
//!
//! At the other end of the tap is the kernel, which answers pings. It sends each answer
//! to the queue that the ping came from, as automatic receive steering has it (virtio 1.2,
//! 5.1.6.5.6).

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::qemu::host::find_program;
use crate::qemu::quote;

/// The number of the adapter.
pub(crate) const ADAPTER: usize = 2;
/// How many pairs of queues it has.
pub(crate) const PAIRS: usize = 2;

/// What runs a program as the owner of a network of its own.
pub(crate) const ALONE: [&str; 5] = ["unshare", "--user", "--map-root-user", "--net", "--"];

/// The kernel's addresses at the tap.
const HOST_MAC: &str = "52:54:00:db:ff:02";
const HOST: &str = "10.0.3.2";
/// The guest's addresses: it has as many as it needs flows.
const GUEST_MAC: &str = "52:54:00:db:00:02";
const GUESTS: [&str; 4] = ["10.0.3.15", "10.0.3.16", "10.0.3.17", "10.0.3.18"];

/// Why this host has no such adapter, if it can't have one.
pub(crate) fn missing() -> Option<String> {
    for program in [ALONE[0], "ip"] {
        if find_program(program).is_none() {
            return Some(format!("{program} is not on the PATH"));
        }
    }
    let tap = ["ip", "tuntap", "add", "mode", "tap", "multi_queue"];
    let output = Command::new(ALONE[0])
        .args(&ALONE[1..])
        .args(tap)
        .stdin(Stdio::null())
        .output();
    let why = match output {
        Ok(output) if output.status.success() => return None,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    Some(format!(
        "a network of its own has no tap device here: {why}"
    ))
}

/// Writes the script that QEMU runs when it has made the tap, whose name is `$1`. It
/// leaves QEMU's process ID in `pid`, by which the host finds the network again.
///
/// # Errors
/// When it can't be written.
pub(crate) fn write_script(path: &Path, pid: &Path) -> Result<()> {
    let mut text = String::from("#!/bin/sh -e\n");
    let mut line = |words: &str| text.extend([words, "\n"]);
    // It would send by itself.
    line("echo 1 > \"/proc/sys/net/ipv6/conf/$1/disable_ipv6\"");
    line(&format!("ip link set \"$1\" address {HOST_MAC} up"));
    line(&format!("ip address add {HOST}/24 dev \"$1\""));
    for guest in GUESTS {
        line(&format!(
            "ip neighbour add {guest} lladdr {GUEST_MAC} dev \"$1\""
        ));
    }
    line(&format!(
        "echo \"$PPID\" > {}",
        quote(&pid.display().to_string())
    ));
    std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o755)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::devices::mac;

    #[test]
    fn the_script_is_run_and_finds_its_parent() {
        let dir = std::env::temp_dir().join(format!("doorbell-{}-ta p", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (script, pid) = (dir.join("script"), dir.join("pid"));
        write_script(&script, &pid).unwrap();
        let text = std::fs::read_to_string(&script).unwrap();
        assert!(text.contains("ip neighbour add 10.0.3.18 lladdr 52:54:00:db:00:02 dev \"$1\""));
        // Its last line alone: the others take rights.
        let last = text.lines().last().unwrap();
        let status = Command::new("sh").args(["-c", last]).status().unwrap();
        assert!(status.success());
        let found = std::fs::read_to_string(&pid).unwrap();
        assert_eq!(found.trim(), std::process::id().to_string());
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn the_guest_is_who_the_kernel_expects() {
        let mac = mac(ADAPTER).map(|byte| format!("{byte:02x}")).join(":");
        assert_eq!(mac, GUEST_MAC);
    }
}
