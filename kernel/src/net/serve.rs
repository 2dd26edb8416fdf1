//! The services, going on until there is a reason to end.

use alloc::string::String;
use core::time::Duration;

use super::Watch;
use super::echo::Echo;
use super::server::{Server, Tally};
use super::site::{Site, Source};
use super::stack::{Event, Stack};
use super::wire::Wire;

/// How long those get who are being served when it ends.
const GRACE: Duration = Duration::from_secs(2);

/// It is said this often that it still goes on.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);

/// Why it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The time was over.
    Time,
    /// It was called off.
    CalledOff,
    /// A request asked for it.
    Quit,
}

/// What was served, and why it ended.
#[derive(Clone, Debug)]
pub struct Report {
    /// Why it ended; or what the adapter failed of.
    pub ended: Result<Ended, String>,
    /// How long it went on.
    pub time: Duration,
    /// What was served over HTTP.
    pub tally: Tally,
    /// Datagrams that were echoed.
    pub echoed: u64,
    /// Datagrams that were not.
    pub unechoed: u64,
}

/// Serves `site` at a port, and echoes datagrams, for `time` at most.
///
/// # Errors
///
/// Why it could not begin.
pub fn serve<W: Wire, S: Source>(
    stack: &mut Stack<W>,
    watch: &mut impl Watch,
    site: &mut Site<S>,
    port: u16,
    time: Duration,
) -> Result<Report, String> {
    let mut echo = Echo::new(&mut stack.sockets)?;
    let mut server = Server::new(port, &mut stack.sockets)?;
    let begin = watch.now();
    let mut spoke = begin;
    let mut ending: Option<(Ended, Duration)> = None;
    let ended = loop {
        let now = watch.now();
        match stack.poll(now) {
            Err(error) => break Err(error),
            Ok(Some(event)) => say(watch, &event),
            Ok(None) => {}
        }
        echo.poll(&mut stack.sockets);
        server.poll(&mut stack.sockets, now, &mut |request| site.answer(request));
        match ending {
            None => {
                let reason = if site.quit {
                    Some(Ended::Quit)
                } else if now - begin >= time {
                    Some(Ended::Time)
                } else {
                    watch.called_off().then_some(Ended::CalledOff)
                };
                if let Some(reason) = reason {
                    ending = Some((reason, now));
                    server.close();
                }
            }
            Some((reason, since)) => {
                if !server.is_busy() || now - since >= GRACE {
                    break Ok(reason);
                }
            }
        }
        if now - spoke >= SIGN_OF_LIFE {
            spoke = now;
            let left = time.saturating_sub(now - begin).as_secs();
            let requests = server.tally.requests;
            watch.say(format_args!("  {requests} requests so far; {left} s left"));
        }
        watch.idle();
    };
    let report = Report {
        ended,
        time: watch.now() - begin,
        tally: server.tally,
        echoed: echo.echoed,
        unechoed: echo.dropped,
    };
    server.remove(&mut stack.sockets);
    echo.close(&mut stack.sockets);
    Ok(report)
}

fn say(watch: &mut impl Watch, event: &Event) {
    match event {
        Event::Link { up: true } => watch.say(format_args!("The link is up.")),
        Event::Link { up: false } => watch.say(format_args!("The link is down.")),
        Event::Leased(lease) => {
            let address = lease.address;
            watch.say(format_args!("The address is {address} now."));
        }
        Event::LeaseLost => watch.say(format_args!("The address was lost.")),
    }
}
