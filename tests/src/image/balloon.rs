//! Balloons, over one path at a time. The host sets the target, and says what the
//! guest has left to QEMU's knowledge.

use alloc::vec::Vec;
use core::cell::RefCell;

use doorbell::device::DeviceError;
use doorbell::device::balloon::{Balloon, PAGE, Statistic};
use doorbell::transport::Transport;
use doorbell::virtio::Wait;
use doorbell_kernel::ballast::{self, Ballast, Followed, RESERVE};
use doorbell_kernel::platform::dma::KernelDma;
use doorbell_kernel::platform::memory::{HEAP, heap_use};
use doorbell_kernel::record::Place;
use doorbell_tests::{Outcome, Runner, Stop, ensure, skip};

use crate::session::Session;

/// The queue that is asked for, where there is a choice: small, so that it goes round.
const QUEUE_SIZE: u16 = 4;

/// Pages that the host wants in the balloon, one number after the other: more than a
/// request holds, and then fewer than are in the first of them.
const WANTED: [u32; 3] = [700, 100, 300];

/// The same where each instruction is emulated: a page takes a while to be zeroed.
const WANTED_EMULATED: [u32; 3] = [16, 3, 8];

/// What the guest shall keep at first, in bytes, to find out what it has.
const HALF: u64 = 32 << 20;

/// Less than the kernel keeps for itself.
const TOO_LITTLE: u64 = 1 << 20;

/// Bytes for which there is no room beside a balloon that is as large as can be.
const LARGE: usize = 3 * RESERVE;

/// What the list of the pages may take, in bytes.
const LIST: usize = 2 * PAGE;

type Device<'t> = Balloon<&'t mut dyn Transport, KernelDma>;

/// A balloon, and the host that wants something of it.
struct Rig<'s, 't> {
    session: &'s Session<'s>,
    ballast: RefCell<Ballast<&'t mut dyn Transport, KernelDma>>,
    /// What the guest has with an empty balloon, in bytes, as QEMU counts.
    whole: u64,
}

pub(crate) fn test(runner: &mut Runner<'_>, session: &Session<'_>, transport: &mut dyn Transport) {
    let setup = session.setup(QUEUE_SIZE);
    let first = ballast::statistics(&KernelDma, 0);
    let started = session.start(runner, |wait| {
        Balloon::new(&mut *transport, &setup, &first, KernelDma, wait)
    });
    let Some(balloon) = started else { return };
    let mut rig = Rig {
        session,
        ballast: RefCell::new(Ballast::new(balloon, KernelDma)),
        whole: 0,
    };
    session.run(runner, "hears of a target", || rig.find_whole());
    if rig.whole > 0 {
        session.run(runner, "gives and takes as the host asks", || {
            rig.gives_and_takes()
        });
        if session.set == 0 {
            session.run(runner, "says how memory stands", || rig.reports());
            session.run(runner, "gives what it can of a target above memory", || {
                rig.gives_what_it_can()
            });
            session.run(runner, "pages come back when memory runs out", || {
                rig.is_relieved()
            });
        }
        session.run(runner, "takes all back", || {
            rig.moves_to(0)?;
            rig.moves_to(rig.wanted()[0])
        });
    }
    session.show(rig.ballast.borrow_mut().balloon());
    session.run(runner, "a reset takes all back", || rig.is_reset());
    // For whoever drives it next.
    if rig.whole > 0 {
        session.run(runner, "the host wants nothing any more", || {
            let bytes = [("bytes", rig.whole.into())];
            session
                .witness
                .ask(&Place::default(), "balloon", bytes)
                .map(drop)
        });
    }
}

impl Rig<'_, '_> {
    fn wanted(&self) -> [u32; 3] {
        if self.session.emulated {
            WANTED_EMULATED
        } else {
            WANTED
        }
    }

    /// Has the host say how many bytes the guest shall keep, and returns how many
    /// pages it then wants in the balloon.
    fn target(&self, bytes: u64) -> Result<u32, Stop> {
        let listener = self.session.listener;
        let before = listener.config_interrupts();
        let witness = self.session.witness;
        witness.ask(&Place::default(), "balloon", [("bytes", bytes.into())])?;
        let mut patience = listener.patience();
        while listener.interrupts() && listener.config_interrupts() == before {
            let again = patience.again();
            ensure!(again, "no interrupt says that the target changed");
        }
        Ok(self.ballast.borrow_mut().balloon().target()?)
    }

    fn find_whole(&mut self) -> Outcome {
        let target = self.target(HALF)?;
        let whole = HALF + u64::from(target) * PAGE as u64;
        let heap = heap_use().size as u64;
        ensure!(
            target > 0 && whole.is_multiple_of(1 << 20) && whole > heap,
            "{target} pages are wanted, and it has a heap of {heap} bytes"
        );
        self.whole = whole;
        Ok(())
    }

    fn follow(&self) -> Result<Followed, DeviceError> {
        let listener = self.session.listener;
        self.ballast.borrow_mut().follow(|| listener.patience())
    }

    /// Checks that QEMU says that so many pages are in the balloon.
    fn host_sees(&self, pages: u32) -> Outcome {
        let bytes = self.whole - u64::from(pages) * PAGE as u64;
        let witness = self.session.witness;
        let place = &Place::default();
        witness.ask_while(place, "balloon-is", [("bytes", bytes.into())], || {
            // It shows at its next use if it fails.
            let _ = self.ballast.borrow_mut().report();
        })?;
        Ok(())
    }

    /// Has the host want so many pages, and gives them, or takes some back: the heap
    /// has as many fewer, or more.
    fn moves_to(&self, pages: u32) -> Outcome {
        let target = self.target(self.whole - u64::from(pages) * PAGE as u64)?;
        ensure!(target == pages, "{target} pages are wanted, not {pages}");
        let actual = self.ballast.borrow_mut().balloon().actual();
        let before = heap_use().free + actual as usize * PAGE;
        let followed = self.follow()?;
        let right = followed.actual == pages && followed.short.is_none();
        ensure!(right, "{pages} pages: {followed:?}");
        let after = heap_use().free + pages as usize * PAGE;
        ensure!(
            (after..=after + LIST).contains(&before),
            "{before} bytes were free and in {actual} pages, and {after} with {pages}"
        );
        self.host_sees(pages)
    }

    fn gives_and_takes(&self) -> Outcome {
        self.wanted()
            .into_iter()
            .try_for_each(|pages| self.moves_to(pages))
    }

    /// The statistics are those of the moment before the host was asked.
    fn reports(&self) -> Outcome {
        let mut own = self.ballast.borrow_mut();
        let balloon = own.balloon();
        let statistics = ballast::statistics(&KernelDma, balloon.actual());
        let [free, total, available] = statistics.map(|statistic| statistic.value.into());
        let mut answered: Result<u32, DeviceError> = Ok(0);
        let arguments = [
            ("stat-free-memory", free),
            ("stat-total-memory", total),
            ("stat-available-memory", available),
        ];
        let place = &self.session.unit.place;
        let told = self
            .session
            .witness
            .ask_while(place, "guest-stats", arguments, || {
                answered = answered.and_then(|before| Ok(before + answer(balloon, &statistics)?));
            });
        let answered = answered?;
        told?;
        ensure!(answered > 0, "the device asked for none");
        Ok(())
    }

    fn gives_what_it_can(&self) -> Outcome {
        if self.session.emulated {
            skip!("each instruction is emulated: all memory takes a minute");
        }
        let target = self.target(TOO_LITTLE)?;
        let Followed { actual, short, .. } = self.follow()?;
        let Some(short) = short else {
            return Err(Stop::failed(format_args!("all {actual} pages were given")));
        };
        let free = heap_use().free;
        ensure!(
            (short.target, short.given) == (target, actual) && actual < target,
            "{actual} pages of {target}: {short:?}"
        );
        ensure!(
            (RESERVE..RESERVE + PAGE).contains(&short.free) && free.abs_diff(short.free) < PAGE,
            "{free} bytes are free: {short}"
        );
        let again = self.follow()?;
        ensure!(again.actual >= actual, "{actual} pages, and then {again:?}");
        self.host_sees(again.actual)
    }

    fn is_relieved(&self) -> Outcome {
        if self.session.emulated {
            skip!("the balloon is small where each instruction is emulated");
        }
        let before = {
            let mut own = self.ballast.borrow_mut();
            let balloon = own.balloon();
            ensure!(
                balloon.may_deflate_on_oom(),
                "VIRTIO_BALLOON_F_DEFLATE_ON_OOM was not negotiated"
            );
            balloon.actual()
        };
        ensure!(!fits(), "{LARGE} bytes fit beside {before} pages");
        let relief = ballast::relief(&self.ballast, self.session.listener.clock());
        let relieved = HEAP.relieved_by(&relief, fits);
        ensure!(relieved, "{LARGE} bytes do not fit");
        let (after, came) = {
            let mut own = self.ballast.borrow_mut();
            let relieved = own.relieved();
            (own.balloon().actual(), relieved)
        };
        ensure!(
            after < before && came == u64::from(before - after),
            "{before} pages, and then {after}: {came} came back"
        );
        ensure!(
            after > before / 2,
            "{after} of {before} pages are left: more came back than it took"
        );
        self.host_sees(after)
    }

    fn is_reset(&self) -> Outcome {
        let mut own = self.ballast.borrow_mut();
        let pages = own.balloon().actual() as usize;
        ensure!(pages > 0, "there is no page in the balloon");
        let before = heap_use().free;
        ensure!(own.close(), "the device does not reset");
        let came = heap_use().free - before;
        ensure!(
            came >= pages * PAGE,
            "{came} bytes came back of {pages} pages"
        );
        let actual = own.balloon().actual();
        ensure!(actual == 0, "{actual} pages are still in the balloon");
        let error = own.follow(|| self.session.listener.patience());
        ensure!(error.is_err(), "it is driven after its reset: {error:?}");
        Ok(())
    }
}

/// Answers the device if it wants statistics: how often.
fn answer(balloon: &mut Device<'_>, statistics: &[Statistic]) -> Result<u32, DeviceError> {
    if !balloon.poll_statistics_request()? {
        return Ok(0);
    }
    balloon.submit_statistics(statistics)?;
    Ok(1)
}

/// Whether [`LARGE`] bytes can be had now, and used.
fn fits() -> bool {
    let mut memory: Vec<u8> = Vec::new();
    if memory.try_reserve_exact(LARGE).is_err() {
        return false;
    }
    memory.resize(LARGE, 0x5a);
    memory.iter().step_by(PAGE).all(|&byte| byte == 0x5a)
}
