//! A device that is up, and what is heard of it.
//!
//! QEMU does two things that make an interrupt for a queue one too many, and never one
//! for the configuration, nor one of a device that does nothing. Its ISR status says at
//! each change of the configuration that a queue was used as well. And a disk with a
//! thread of its own notes what it did in the ISR status before another thread raises the
//! line, and notes it again then: who is asked in between, since another device raised
//! the line, counts twice.

use doorbell::device::{DeviceError, blk};
use doorbell::virtio::Wait;
use doorbell_kernel::drive::{Driven, Listener, Patience, Unit};
use doorbell_tests::{Outcome, ensure};

/// How many interrupts a device counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    queue: u64,
    config: u64,
}

impl Counts {
    /// So many more for a queue.
    pub(super) fn and(self, queue: u64) -> Self {
        let queue = self.queue + queue;
        Self { queue, ..self }
    }
}

/// A device that is up, and how it is heard.
pub(super) struct Heard<'d, 'l> {
    driven: &'d mut dyn Driven,
    listener: &'l Listener<'l>,
    /// Whether it may have a thread of its own.
    threaded: bool,
}

impl<'d, 'l> Heard<'d, 'l> {
    pub(super) fn new(unit: &Unit, driven: &'d mut dyn Driven, listener: &'l Listener<'l>) -> Self {
        Self {
            driven,
            listener,
            threaded: unit.device_type == blk::DEVICE_TYPE,
        }
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            queue: self.listener.queue_interrupts(),
            config: self.listener.config_interrupts(),
        }
    }

    /// Checks what it counted while no other device did anything.
    pub(super) fn counted(&self, expected: Counts, when: &str) -> Outcome {
        let counts = self.counts();
        ensure!(counts == expected, "{when}: {counts:?}, not {expected:?}");
        Ok(())
    }

    /// Checks what it counted while another had requests in flight, it itself so many.
    pub(super) fn counted_beside(&self, expected: Counts, requests: u64) -> Outcome {
        let mut patience = self.listener.patience();
        while self.counts().queue < expected.queue {
            let counts = self.counts();
            ensure!(patience.again(), "{counts:?}, not {expected:?}");
        }
        let counts = self.counts();
        let most = if self.threaded {
            expected.and(requests)
        } else {
            expected
        };
        ensure!(
            counts.config == expected.config && counts.queue <= most.queue,
            "{counts:?}, not {expected:?}"
        );
        Ok(())
    }

    /// Submits a request and rings; the answer is the wait for it.
    pub(super) fn begin(&mut self) -> Result<Patience<'l>, DeviceError> {
        let patience = self.listener.patience();
        self.driven.submit()?;
        self.driven.queue().kick();
        Ok(patience)
    }

    /// Waits for the request, by its interrupts.
    pub(super) fn end(&mut self, mut patience: Patience<'_>) -> Outcome {
        loop {
            let woken = patience.again();
            let back = self.driven.reap()?;
            ensure!(woken, "no interrupt came; the request did: {back}");
            if back {
                return Ok(());
            }
            ensure!(self.threaded, "an interrupt came, and not the request");
        }
    }

    /// A request while no other device does anything.
    pub(super) fn one(&mut self) -> Outcome {
        let mut patience = self.begin()?;
        let woken = patience.again();
        let back = self.driven.reap()?;
        ensure!(woken && back, "an interrupt: {woken}, the request: {back}");
        Ok(())
    }

    /// A request after which all was heard that there was to be heard, what a device
    /// says when it comes up too.
    pub(super) fn settle(&mut self) -> Outcome {
        let mut patience = self.begin()?;
        loop {
            ensure!(patience.again(), "no interrupt came");
            if self.driven.reap()? {
                break;
            }
        }
        self.driven.driver().health()?;
        self.listener.let_in(core::hint::spin_loop);
        Ok(())
    }

    /// Waits for the request, whatever it is that interrupts.
    pub(super) fn back(&mut self, mut patience: Patience<'_>) -> Outcome {
        while !self.driven.reap()? {
            ensure!(patience.again(), "a request did not come back");
        }
        Ok(())
    }

    /// Waits for one change of the configuration, with the interrupts for queues that
    /// are in `expected`.
    pub(super) fn changed(&self, expected: Counts) -> Outcome {
        let mut patience = self.listener.patience();
        let there =
            |counts: Counts| counts.config > expected.config && counts.queue >= expected.queue;
        while !there(self.counts()) {
            let counts = self.counts();
            ensure!(patience.again(), "{counts:?}, and no more, of {expected:?}");
        }
        let counts = self.counts();
        let spare = 1 + u64::from(self.threaded);
        ensure!(
            counts.config == expected.config + 1 && counts.queue <= expected.queue + spare,
            "{counts:?} after a change, {expected:?} without"
        );
        Ok(())
    }
}
