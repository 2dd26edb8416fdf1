//! The loop that keeps a device busy: the same for every driver.

use alloc::format;
use alloc::string::String;

use doorbell::virtio::Wait as _;

use super::Turn;
use crate::arch::tsc;
use crate::drive::Listener;

/// A driver with a device that is up, and a request to make again and again.
pub trait Engine {
    /// Makes one more request available, unless as many as wanted are in flight or the
    /// queue has no room, and says whether it did.
    ///
    /// # Errors
    ///
    /// The driver's, in words.
    fn submit(&mut self) -> Result<bool, String>;

    /// Takes back what the device has finished, and says how many requests that were.
    ///
    /// # Errors
    ///
    /// The driver's, or a request's own, in words.
    fn reap(&mut self) -> Result<u32, String>;

    /// Rings for what was submitted since, if that is still to be done.
    fn kick(&mut self);

    /// How often the doorbell was rung since the device came up.
    fn doorbells(&mut self) -> u64;
}

/// Requests that go before those that are timed: they touch what is used then.
const WARM_UP: u64 = 256;

/// Looks at the device between two looks at the clock.
const LOOKS: u32 = 4096;

/// Makes `requests`, of which as many are in flight as the engine allows, and times
/// them. At least `depth` must be in flight from the start.
///
/// # Errors
///
/// The engine's; and when the device does not answer in time, or takes fewer at once.
pub fn pump<E: Engine>(
    engine: &mut E,
    depth: usize,
    requests: u64,
    listener: &Listener<'_>,
) -> Result<Turn, String> {
    rush(engine, depth, WARM_UP.max(2 * depth as u64), listener)?;
    let (rung, came) = (engine.doorbells(), listener.queue_interrupts());
    let start = tsc::start();
    rush(engine, depth, requests, listener)?;
    let cycles = tsc::stop().wrapping_sub(start);
    Ok(Turn {
        requests,
        cycles,
        doorbells: engine.doorbells() - rung,
        interrupts: listener.queue_interrupts() - came,
    })
}

/// What the parts of a request cost, where `depth` of them go through each part
/// together: what one of them takes, in cycles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// To make it available; for a driver that rings for each by itself, with that.
    pub submit: u64,
    /// To ring for all of them, once.
    pub kick: u64,
    /// To take it back.
    pub reap: u64,
}

/// How many times all requests go through the parts, of which the fastest counts:
/// interruptions make a part longer only.
const PASSES: u32 = 100;

/// How long the device has to answer all requests of a pass, in milliseconds.
const PASS_MS: u64 = 2;

/// Times the parts of a request, by `depth` requests at once. Nothing else goes on
/// meanwhile: the device has answered all of them before the first is taken back.
///
/// # Errors
///
/// The engine's; and when the device never answers all of them in time.
pub fn parts<E: Engine>(
    engine: &mut E,
    depth: usize,
    listener: &Listener<'_>,
) -> Result<Parts, String> {
    let n = depth as u64;
    rush(engine, depth, WARM_UP.max(n), listener)?;
    let mut best: Option<Parts> = None;
    for _ in 0..PASSES {
        let start = tsc::start();
        for _ in 0..depth {
            engine.submit()?;
        }
        let submitted = tsc::stop();
        engine.kick();
        let kicked = tsc::stop();
        let mut answer = listener.clock().wait_ms(PASS_MS);
        while answer.again() {}
        let before = tsc::start();
        let mut back = u64::from(engine.reap()?);
        let reap = tsc::stop().wrapping_sub(before);
        let whole = back == n;
        while back < n {
            back += u64::from(wait(engine, listener)?.0);
        }
        if whole {
            let pass = Parts {
                submit: submitted.wrapping_sub(start) / n,
                kick: kicked.wrapping_sub(submitted),
                reap: reap / n,
            };
            let least = best.unwrap_or(pass);
            best = Some(Parts {
                submit: least.submit.min(pass.submit),
                kick: least.kick.min(pass.kick),
                reap: least.reap.min(pass.reap),
            });
        }
    }
    best.ok_or_else(|| format!("{n} requests take longer than {PASS_MS} ms"))
}

#[inline(never)]
fn rush<E: Engine>(
    engine: &mut E,
    depth: usize,
    requests: u64,
    listener: &Listener<'_>,
) -> Result<(), String> {
    let mut submitted = 0;
    while submitted < requests && engine.submit()? {
        submitted += 1;
    }
    if submitted < requests.min(depth as u64) {
        return Err(format!(
            "the queue takes {submitted} such requests at once, not {depth}"
        ));
    }
    engine.kick();
    let mut done = 0;
    let mut pace = listener.clock().pace();
    while done < requests {
        done += match engine.reap()? {
            0 => {
                let (finished, long) = wait(engine, listener)?;
                let done = done + u64::from(finished);
                if long {
                    pace.check(done, requests)?;
                }
                u64::from(finished)
            }
            finished => u64::from(finished),
        };
        let before = submitted;
        while submitted < requests && engine.submit()? {
            submitted += 1;
        }
        if submitted > before {
            engine.kick();
        }
    }
    Ok(())
}

/// Waits until requests come back: at least one does. Says how many, and whether that
/// took so long that another look at the clock costs little.
fn wait<E: Engine>(engine: &mut E, listener: &Listener<'_>) -> Result<(u32, bool), String> {
    let late = || "requests in flight do not come back".into();
    if !listener.interrupts() {
        let mut patience = None;
        loop {
            for _ in 0..LOOKS {
                match engine.reap()? {
                    0 => core::hint::spin_loop(),
                    finished => return Ok((finished, patience.is_some())),
                }
            }
            if !patience.get_or_insert_with(|| listener.patience()).again() {
                return Err(late());
            }
        }
    }
    let mut patience = listener.patience();
    loop {
        // Looked at between the note of what was heard and the sleep, so that no
        // interrupt is slept through.
        match engine.reap()? {
            0 if patience.again() => {}
            0 => return Err(late()),
            finished => return Ok((finished, true)),
        }
    }
}
