//! Headless Chromium, driven by its DevTools protocol over a pipe: messages are JSON that
//! ends in a NUL, to its file descriptor 3 and from its 4.
//! <https://chromedevtools.github.io/devtools-protocol/>

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::test::running::Running;

/// What the browser says on its own.
const LOG: &str = "browser.log";
/// Gives the browser this tool's pipes as 3 and 4, without a line of unsafe code.
const PLUMBING: &str = "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >&2";
/// The sandbox cannot be had by root nor in most containers, and the page is ours.
const OPTIONS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--force-color-profile=srgb",
];

/// A browser that ends with this.
pub(super) struct Browser {
    // Closed before it is waited for.
    to: ChildStdin,
    from: Receiver<Value>,
    next: u64,
    events: Vec<Value>,
    deadline: Instant,
    _running: Running,
}

/// A page that is open in it.
pub(super) struct Tab<'b> {
    browser: &'b mut Browser,
    session: String,
}

impl Browser {
    /// Starts it. All of its answers must come within `limit`.
    ///
    /// # Errors
    /// When it cannot be executed.
    pub(super) fn start(chromium: &Path, folder: &Path, limit: Duration) -> Result<Self> {
        let log = folder.join(LOG);
        let log = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let profile = folder.join("profile");
        let mut child = Command::new("sh")
            .args(["-c", PLUMBING])
            .arg(chromium)
            .args(OPTIONS)
            .arg(format!("--user-data-dir={}", profile.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("cannot execute sh")?;
        let (to, from) = (child.stdin.take(), child.stdout.take());
        let running = Running(child);
        let (Some(to), Some(from)) = (to, from) else {
            bail!("the browser has no pipes");
        };
        let (send, receive) = channel();
        std::thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut message = Vec::new();
            while from.read_until(0, &mut message).is_ok_and(|len| len > 0) {
                let text = message.strip_suffix(&[0]).unwrap_or(&message);
                let Ok(value) = serde_json::from_slice(text) else {
                    return;
                };
                if send.send(value).is_err() {
                    return;
                }
                message.clear();
            }
        });
        Ok(Self {
            to,
            from: receive,
            next: 0,
            events: Vec::new(),
            deadline: Instant::now() + limit,
            _running: running,
        })
    }

    /// Opens an empty page.
    ///
    /// # Errors
    /// When the browser does not do it.
    pub(super) fn tab(&mut self) -> Result<Tab<'_>> {
        let target = self.call(None, "Target.createTarget", json!({"url": "about:blank"}))?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = self.call(None, "Target.attachToTarget", attach)?;
        let session = attached["sessionId"]
            .as_str()
            .context("it has no session")?;
        let session = session.to_owned();
        Ok(Tab {
            browser: self,
            session,
        })
    }

    /// Asks it to end by itself, which lets it write what it has to.
    pub(super) fn close(mut self) {
        let _ = self.call(None, "Browser.close", json!({}));
    }

    fn call(&mut self, session: Option<&str>, method: &str, params: Value) -> Result<Value> {
        self.next += 1;
        let mut message = json!({"id": self.next, "method": method, "params": params});
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        let sent = write!(self.to, "{message}\0").and_then(|()| self.to.flush());
        sent.with_context(|| format!("the browser does not listen to {method}; see {LOG}"))?;
        loop {
            let mut answer = self.receive(method)?;
            if answer["id"] == self.next {
                if answer["error"].is_object() {
                    bail!("{method}: {}", answer["error"]);
                }
                return Ok(answer["result"].take());
            }
            self.events.push(answer);
        }
    }

    fn receive(&mut self, what: &str) -> Result<Value> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match self.from.recv_timeout(left) {
            Ok(message) => Ok(message),
            Err(RecvTimeoutError::Timeout) => bail!("the browser took too long, at {what}"),
            Err(RecvTimeoutError::Disconnected) => {
                bail!("the browser ended at {what}; see {LOG}")
            }
        }
    }
}

impl Tab<'_> {
    /// Does something in the page: a method of the protocol.
    ///
    /// # Errors
    /// What the browser says when it does not do it.
    pub(super) fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        let session = self.session.clone();
        self.browser.call(Some(&session), method, params)
    }

    /// Loads a file, and waits until it is there.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub(super) fn open(&mut self, path: &Path) -> Result<()> {
        let found = self.call("Page.navigate", json!({"url": url(path)}))?;
        if let Some(error) = found["errorText"].as_str() {
            bail!("{}: {error}", path.display());
        }
        let loaded = |event: &Value| event["method"] == "Page.loadEventFired";
        while !self.browser.events.iter().any(loaded) {
            let event = self.browser.receive("the loading of the page")?;
            self.browser.events.push(event);
        }
        Ok(())
    }

    /// The value of a JavaScript expression.
    ///
    /// # Errors
    /// When it throws.
    pub(super) fn value(&mut self, expression: &str) -> Result<Value> {
        let asked = json!({"expression": expression, "returnByValue": true});
        let mut found = self.call("Runtime.evaluate", asked)?;
        if found["exceptionDetails"].is_object() {
            bail!("the check throws: {}", found["exceptionDetails"]);
        }
        Ok(found["result"]["value"].take())
    }

    /// What happened until now, and closes the page.
    ///
    /// # Errors
    /// When the browser does not close it.
    pub(super) fn end(mut self) -> Result<Vec<Value>> {
        self.call("Page.close", json!({}))?;
        Ok(std::mem::take(&mut self.browser.events))
    }
}

/// The URL of a file.
pub(super) fn url(path: &Path) -> String {
    let mut url = "file://".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => {
                url.push(char::from(*byte));
            }
            byte => url += &format!("%{byte:02X}"),
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_path_becomes_a_url() {
        let path = Path::new("/a b/ä#1/report.html");
        assert_eq!(url(path), "file:///a%20b/%C3%A4%231/report.html");
    }

    #[test]
    fn what_is_no_browser_is_an_error_and_no_wait() {
        let folder = std::env::temp_dir().join(format!("doorbell-{}-cdp", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let begun = Instant::now();
        let limit = Duration::from_secs(100);
        let mut ended = Browser::start(Path::new("true"), &folder, limit).unwrap();
        let error = format!("{:#}", ended.tab().err().unwrap());
        assert!(error.contains("see browser.log"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(20));
        let mute = folder.join("mute.sh");
        std::fs::write(&mute, "#!/bin/sh\nexec sleep 100\n").unwrap();
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&mute, executable).unwrap();
        let mut mute = Browser::start(&mute, &folder, Duration::from_millis(200)).unwrap();
        let error = format!("{:#}", mute.tab().err().unwrap());
        assert!(error.contains("took too long"), "{error}");
        drop(mute);
        assert!(begun.elapsed() < Duration::from_secs(20));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
