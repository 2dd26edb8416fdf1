//! What every kind of device does alike, over one path in one mode: interrupts that
//! come when they are wanted and stay away when not, and requests that come back
//! when the device or a queue is reset.

use alloc::format;
use alloc::string::{String, ToString};

use doorbell::device::{DeviceError, net};
use doorbell::transport::{Interface, TransportError};
use doorbell::virtio::{Features, Wait};
use doorbell_kernel::drive::{self, Driven, Listener, Mode, Unit, Way};
use doorbell_kernel::machine::Machine;
use doorbell_kernel::record::Argument;
use doorbell_tests::{Outcome, Runner, Stop, ensure};

use crate::session::{SETS, path_name, skip};
use crate::witness::Witness;

/// Requests, one after the other.
const REQUESTS: u64 = 20;
/// Requests in flight when a device or a queue is reset.
const IN_FLIGHT: usize = 5;

pub(crate) fn run(runner: &mut Runner<'_>, machine: &Machine, units: &[Unit], witness: &Witness) {
    if machine.world.is_emulated() {
        runner.run("life", || skip("each instruction is emulated"));
        return;
    }
    for unit in units.iter().filter(|unit| unit.has_driver()) {
        for (way, usable) in drive::ways(machine, unit) {
            if usable.is_err() {
                continue;
            }
            let path = format!("life/{}/{}", unit.at(), path_name(way));
            let this = Path {
                machine,
                unit,
                way,
                witness,
            };
            runner.run(format_args!("{path}/reset with requests in flight"), || {
                this.with(Mode::Polling, drive::FEATURES, reset)
            });
            runner.run(format_args!("{path}/reset of a queue"), || {
                // QEMU 7.2's other devices may finish into a queue that was reset what
                // they had begun before.
                if unit.device_type != net::DEVICE_TYPE {
                    return skip(
                        "of QEMU's devices only the network adapter resets a queue wholly",
                    );
                }
                this.with(Mode::Polling, drive::FEATURES, reset_queue)
            });
            for (mode, usable) in drive::modes(machine, unit) {
                if mode == Mode::Polling || usable.is_err() {
                    continue;
                }
                for (name, features) in SETS {
                    let path = format!("{path}/{}/{name}", mode.name());
                    runner.run(format_args!("{path}/interrupts as they are wanted"), || {
                        this.with(mode, features, |driven, listener, _| {
                            this.wanted(driven, listener)
                        })
                    });
                }
            }
        }
    }
}

struct Path<'a> {
    machine: &'a Machine,
    unit: &'a Unit,
    way: Way,
    witness: &'a Witness,
}

impl Path<'_> {
    /// Brings the device up, and runs `test`, which counts doorbells by the queue.
    fn with(
        &self,
        mode: Mode,
        features: Features,
        test: impl FnOnce(&mut dyn Driven, &Listener<'_>, Interface) -> Result<Outcome, DeviceError>,
    ) -> Outcome {
        let opened = drive::open(self.machine, self.unit, self.way, mode);
        let mut opened = opened.map_err(Stop::failed)?;
        let (interface, _) = opened.path();
        let outcome = drive::with_device(&mut opened, features, |driven, listener| {
            let outcome = test(driven, listener, interface).map_err(|error| error.to_string());
            let doorbells = drive::doorbells(driven.driver());
            self.witness.rang(self.unit, doorbells);
            outcome
        });
        outcome.map_err(|error: String| Stop::failed(error))?
    }

    /// Requests with interrupts, and then without, in rounds; the first before the
    /// host, who counts what QEMU sent.
    fn wanted(
        &self,
        driven: &mut dyn Driven,
        listener: &Listener<'_>,
    ) -> Result<Outcome, DeviceError> {
        for round in 0..3 {
            // What was finished last before they were wanted again may still interrupt:
            // both sides may see the other's word late (2.7.7.1).
            let mut lost = u64::from(!one_slept(driven, listener)?);
            for (wanted, expected) in [(true, REQUESTS), (false, 0)] {
                driven.driver().set_interrupts(wanted);
                let before = listener.queue_interrupts();
                if let Err(stop) = self.host_counts(round, "interrupts", []) {
                    return Ok(Err(stop));
                }
                for _ in 0..REQUESTS {
                    if wanted {
                        lost += u64::from(!one_slept(driven, listener)?);
                    } else {
                        one_polled(driven, listener)?;
                    }
                }
                let came = listener.queue_interrupts() - before;
                let coalesced = listener.mode() == Mode::Line;
                let counts = [("count", came.into()), ("coalesced", coalesced.into())];
                let judge = || {
                    ensure!(
                        lost == 0,
                        "round {round}: {lost} requests were answered without an interrupt"
                    );
                    ensure!(
                        came == expected,
                        "round {round}: {came} interrupts for {REQUESTS} requests, wanted: {wanted}"
                    );
                    self.host_counts(round, "interrupted", counts)
                };
                if let Err(stop) = judge() {
                    return Ok(Err(stop));
                }
            }
            driven.driver().set_interrupts(true);
        }
        Ok(Ok(()))
    }

    /// Has the host count, in the first round and where one watches.
    fn host_counts<const N: usize>(
        &self,
        round: u32,
        action: &str,
        arguments: [(&str, Argument<'_>); N],
    ) -> Outcome {
        if round > 0 {
            return Ok(());
        }
        match self.witness.ask(&self.unit.place, action, arguments) {
            Ok(_) | Err(Stop::Skipped(_)) => Ok(()),
            Err(failed) => Err(failed),
        }
    }
}

/// Submits one request, rings, and waits for it by looking.
fn one_polled(driven: &mut dyn Driven, listener: &Listener<'_>) -> Result<(), DeviceError> {
    driven.submit()?;
    driven.queue().kick();
    let mut patience = listener.bring_up();
    // Let in, so that an interrupt that should not be there is seen.
    listener.let_in(|| {
        while !driven.reap()? {
            if !patience.again() {
                return Err(DeviceError::Timeout);
            }
        }
        Ok(())
    })
}

/// Submits one request, rings, and sleeps until its interrupt; only then it looks,
/// for an interrupt that nobody takes could hide the next one. `false` if the request
/// was answered and no interrupt came.
fn one_slept(driven: &mut dyn Driven, listener: &Listener<'_>) -> Result<bool, DeviceError> {
    driven.submit()?;
    let mut patience = listener.patience();
    driven.queue().kick();
    loop {
        let woken = patience.again();
        if driven.reap()? {
            return Ok(woken);
        }
        if !woken {
            return Err(DeviceError::Timeout);
        }
    }
}

/// Takes back what a reset left, each request once, and counts it.
fn take_aborted(driven: &mut dyn Driven) -> usize {
    let mut aborted = 0;
    while driven.reap() == Err(DeviceError::Aborted) {
        aborted += 1;
    }
    aborted
}

fn submit_some(driven: &mut dyn Driven) -> Result<(), DeviceError> {
    for _ in 0..IN_FLIGHT {
        driven.submit()?;
    }
    Ok(())
}

fn reset(
    driven: &mut dyn Driven,
    listener: &Listener<'_>,
    _: Interface,
) -> Result<Outcome, DeviceError> {
    one_polled(driven, listener)?;
    submit_some(driven)?;
    driven.queue().kick();
    let was_reset = driven.driver().close();
    let aborted = take_aborted(driven);
    let judge = || {
        ensure!(was_reset, "the device did not reset");
        ensure!(
            aborted == IN_FLIGHT,
            "{aborted} of {IN_FLIGHT} requests came back"
        );
        Ok(())
    };
    Ok(judge())
}

fn reset_queue(
    driven: &mut dyn Driven,
    listener: &Listener<'_>,
    interface: Interface,
) -> Result<Outcome, DeviceError> {
    let queue = driven.request_queue();
    if !driven.driver().features().contains(Features::RING_RESET) {
        let reason = format!("the device does not offer VIRTIO_F_RING_RESET over {interface}");
        return Ok(skip(&reason));
    }
    one_polled(driven, listener)?;
    // Not rung for: what a device does with requests that it has begun is its own.
    submit_some(driven)?;
    match driven.driver().reset_queue(queue, &mut listener.bring_up()) {
        Ok(()) => {}
        // QEMU offers the feature on virtio-mmio, and has not the register.
        Err(DeviceError::Transport(TransportError::NoQueueReset { .. })) => {
            return Ok(skip(
                "the device offers VIRTIO_F_RING_RESET and does not follow",
            ));
        }
        Err(error) => return Err(error),
    }
    let aborted = take_aborted(driven);
    driven.driver().restart_queue(queue)?;
    for _ in 0..REQUESTS {
        one_polled(driven, listener)?;
    }
    let judge = || {
        ensure!(
            aborted == IN_FLIGHT,
            "{aborted} of {IN_FLIGHT} requests came back"
        );
        Ok(())
    };
    Ok(judge())
}
