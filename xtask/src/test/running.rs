//! This tool, run by a case: it ends with the case.

use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

/// How long it may take to end its own QEMU.
const FAREWELL: Duration = Duration::from_secs(10);
/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A run that is ended when nobody waits for it any more.
#[derive(Debug)]
pub(super) struct Running(pub(super) Child);

impl Running {
    /// Its exit status, if it has ended.
    ///
    /// # Errors
    /// When the system does not tell.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.0.try_wait().context("cannot wait for the tool")
    }

    /// Looks at it until `ready` has an answer; `None` if there is none in time.
    ///
    /// # Errors
    /// What `ready` says, and when the system does not tell whether it has ended.
    pub(super) fn wait<R>(
        &mut self,
        limit: Duration,
        mut ready: impl FnMut(Option<ExitStatus>) -> Result<Option<R>>,
    ) -> Result<Option<R>> {
        let start = Instant::now();
        while start.elapsed() < limit {
            let ended = self.ended()?;
            if let Some(answer) = ready(ended)? {
                return Ok(Some(answer));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(None)
    }
}

/// Asks it to end, and waits: killed at once, it would leave its QEMU behind.
impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.ended(), Ok(None)) {
            return;
        }
        if let Some(pid) = Pid::from_raw(self.0.id().cast_signed()) {
            let _ = kill_process(pid, Signal::TERM);
        }
        if !matches!(self.wait(FAREWELL, Ok), Ok(Some(_))) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn what_nobody_waits_for_is_asked_to_end() {
        let folder = std::env::temp_dir().join(format!("doorbell-{}-run", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let script = "trap 'echo asked > said; exit' TERM; echo on > ready; \
                      while true; do sleep 0.01; done";
        let child = Command::new("sh")
            .args(["-c", script])
            .current_dir(&folder)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut running = Running(child);
        let ready = folder.join("ready");
        let on = running.wait(FAREWELL, |_| Ok(ready.exists().then_some(())));
        assert_eq!(on.unwrap(), Some(()));
        drop(running);
        let said = std::fs::read_to_string(folder.join("said"));
        assert_eq!(said.unwrap(), "asked\n");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
