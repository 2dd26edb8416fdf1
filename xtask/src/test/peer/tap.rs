//! What the kernel at the other end of a tap counts.
//!
//! | action | arguments | answer |
//! |---|---|---|
//! | `tap-moved` | | `SENT RECEIVED`: frames from the guest and to it since the last question |

use std::path::PathBuf;

use super::{Answer, Ask};
use crate::qemu::Files;
use crate::qemu::devices::tap::ADAPTER;

/// The tap of one run, if it has one.
pub(crate) struct Tap {
    pid: PathBuf,
    /// What was counted when it was asked for last.
    before: (u64, u64),
}

impl Tap {
    pub(crate) fn new(files: &Files) -> Self {
        Self {
            pid: files.tap_pid(),
            before: (0, 0),
        }
    }

    pub(crate) fn answer(&mut self, ask: &Ask<'_>) -> Answer {
        let id = ask.device()?;
        if id != format!("net{ADAPTER}") {
            return Err(format!("{id} has no tap"));
        }
        let read = |path: PathBuf| {
            let text = std::fs::read_to_string(&path);
            text.map_err(|error| format!("cannot read {}: {error}", path.display()))
        };
        let pid = read(self.pid.clone())?;
        // The network as QEMU's process sees it.
        let interfaces = read(format!("/proc/{}/net/dev", pid.trim()).into())?;
        let now = counts(&interfaces).ok_or("QEMU's network has no tap")?;
        let (sent, received) = (now.0 - self.before.0, now.1 - self.before.1);
        self.before = now;
        Ok(format!("{sent} {received}"))
    }
}

/// The packets that came in and went out by the tap, from a table as `/proc/net/dev`
/// has it: after each name eight numbers for what came in, and eight for what went out,
/// bytes and packets first.
fn counts(interfaces: &str) -> Option<(u64, u64)> {
    let lines = interfaces.lines().filter_map(|line| line.split_once(':'));
    let mut taps = lines.filter(|(name, _)| name.trim_start().starts_with("tap"));
    let numbers = taps.next()?.1.split_whitespace();
    let numbers: Vec<u64> = numbers.map_while(|number| number.parse().ok()).collect();
    Some((*numbers.get(1)?, *numbers.get(9)?))
}

#[cfg(test)]
mod tests {
    use super::super::tests::ask;
    use super::*;

    #[test]
    fn packets_are_found_in_the_table() {
        let table = "Inter-|   Receive                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes packets\n    \
            lo:       5       6    0    0    0     0          0         0        7       8    0\n  \
            tap0:     900     21    0    0    0     0          0         0      800      20    0\n";
        assert_eq!(counts(table), Some((21, 20)));
        assert_eq!(counts("lo: 1 2 3 4 5 6 7 8 9 10"), None);
        assert_eq!(counts("tap0: 1 2 3"), None);
    }

    #[test]
    fn only_the_adapter_with_a_tap_has_counts() {
        let mut tap = Tap::new(&Files::new("/no/such/folder".into()).unwrap());
        let record = ask(r#""action":"tap-moved","bdf":"a""#);
        let why = tap.answer(&Ask::new(&record, Some("net0"))).unwrap_err();
        assert_eq!(why, "net0 has no tap");
        let why = tap.answer(&Ask::new(&record, Some("net2"))).unwrap_err();
        assert!(why.contains("net2.pid"), "{why}");
    }
}
