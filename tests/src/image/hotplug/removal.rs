//! How a disk is taken out while its driver has requests in flight.

use alloc::vec::Vec;
use core::cell::Cell;

use doorbell::device::blk::{Blk, Request, SECTOR};
use doorbell::device::{DeviceError, Driver as _};
use doorbell::dma::{Dma, DmaError, DmaMemory, DmaRegion};
use doorbell::queue::{QueueError, Token};
use doorbell::transport::Transport;
use doorbell::virtio::Wait;
use doorbell_kernel::drive::{self, FEATURES, Listener, Mode, Way};
use doorbell_kernel::machine::Machine;
use doorbell_kernel::platform::dma::KernelDma;
use doorbell_tests::{Outcome, Stop, ensure};

use super::bay::Bay;
use crate::blk::HOST_SEED;
use crate::pattern;
use crate::witness::Witness;

/// Requests that the device was told of when it goes, and that it was not told of.
const TOLD: usize = 8;
const UNTOLD: usize = 8;
/// How long a driver waits for a disk that is gone, in milliseconds.
const WAIT_MS: u64 = 50;

type Driver<'t> = Blk<&'t mut dyn Transport, Counted<'t>>;

/// Memory for devices, of which it is counted how many bytes are in use.
#[derive(Clone, Copy)]
struct Counted<'c>(&'c Cell<usize>);

// SAFETY: it is the kernel's own promise.
unsafe impl Dma for Counted<'_> {
    fn allocate(&self, size: usize, align: usize) -> Result<DmaMemory, DmaError> {
        let memory = KernelDma.allocate(size, align)?;
        self.0.update(|bytes| bytes + memory.size);
        Ok(memory)
    }

    unsafe fn free(&self, memory: DmaMemory) {
        self.0.update(|bytes| bytes - memory.size);
        // SAFETY: the caller's promise.
        unsafe { KernelDma.free(memory) };
    }
}

/// How a disk is taken out.
#[derive(Clone, Copy)]
pub(super) enum Removal {
    /// Its driver lets it go first.
    Orderly,
    /// Its driver learns nothing, and has requests in flight.
    Surprise,
    /// Its driver learns nothing, and then waits for it.
    WaitedFor,
}

impl Removal {
    pub(super) const ALL: [Self; 3] = [Self::Orderly, Self::Surprise, Self::WaitedFor];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Orderly => "orderly",
            Self::Surprise => "surprise",
            Self::WaitedFor => "waited for",
        }
    }
}

/// A removal while the disk is driven this way.
pub(super) struct Case {
    pub(super) removal: Removal,
    pub(super) way: Way,
    pub(super) mode: Mode,
}

impl Case {
    pub(super) fn run(&self, bay: &mut Bay, machine: &Machine, witness: &Witness) -> Outcome {
        let missing = || Stop::failed("it is not there");
        let unit = bay.disk(machine).ok_or_else(missing)?;
        let opened = drive::open(machine, &unit, self.way, self.mode);
        let mut opened = opened.map_err(Stop::failed)?;
        let listener = &opened.listener;
        let transport: &mut dyn Transport = &mut *opened.transport;
        let used = Cell::new(0);
        let memory = Counted(&used);
        let setup = listener.setup(FEATURES);
        let wait = &mut listener.bring_up();
        let mut blk = Blk::new(transport, &setup, memory, wait)?;
        blk.set_interrupts(listener.interrupts());
        works(&mut blk, listener)?;
        bay.ask_for(machine, witness)?;
        let requests = match self.removal {
            Removal::WaitedFor => Vec::new(),
            Removal::Orderly | Removal::Surprise => in_flight(&mut blk, memory)?,
        };
        // What is rung from here on rings nowhere.
        let rang = blk.queue(0).doorbells();
        if let Removal::Orderly = self.removal {
            ensure!(blk.close(), "the device did not reset");
            all_aborted(&mut blk, &requests)?;
        } else {
            // SAFETY: the driver accesses the disk still, which is to be found out: what
            // it reads is made up, and what it writes goes nowhere.
            unsafe { bay.power_off(machine, witness) }?;
            let health = blk.health();
            ensure!(health == Err(DeviceError::Gone), "it says {health:?}");
            match self.removal {
                Removal::WaitedFor => waits(&mut blk, machine, listener)?,
                Removal::Orderly | Removal::Surprise => {
                    gone(&mut blk, machine, listener, &requests)?
                }
            }
        }
        witness.rang(&unit, rang);
        let closed = blk.poll().err();
        let broken = DeviceError::Queue(QueueError::Broken);
        ensure!(closed == Some(broken), "more came back: {closed:?}");
        drop(blk);
        let kept = used.get();
        ensure!(kept == 0, "{kept} bytes are not free");
        drop(opened);
        if let Removal::Orderly = self.removal {
            // SAFETY: nobody uses it.
            unsafe { bay.power_off(machine, witness) }?;
        }
        Ok(())
    }
}

fn works(blk: &mut Driver<'_>, listener: &Listener<'_>) -> Outcome {
    let mut data = [0; SECTOR];
    blk.read(0, &mut data, &mut listener.patience())?;
    check(0, &data)
}

/// Checks what was read from a sector that nobody wrote.
fn check(sector: u64, data: &[u8]) -> Outcome {
    pattern::check(sector * SECTOR as u64, HOST_SEED, data)
}

/// Reads, of which the device is told of the first few only.
fn in_flight<'t>(blk: &mut Driver<'t>, memory: Counted<'t>) -> Result<Vec<Token>, Stop> {
    let mut tokens = Vec::new();
    for n in 0..TOLD + UNTOLD {
        if n == TOLD {
            blk.queue(0).kick();
        }
        let (sector, buffer) = (n as u64, DmaRegion::new(memory, SECTOR, SECTOR)?);
        let submitted = blk.submit(Request::Read { sector, buffer });
        tokens.push(submitted.map_err(|(error, _)| error)?);
    }
    Ok(tokens)
}

/// Takes all requests back, none of which was done as far as the driver had looked.
fn all_aborted(blk: &mut Driver<'_>, requests: &[Token]) -> Outcome {
    let mut back = Vec::new();
    while let Ok(Some(done)) = blk.poll() {
        let result = done.result;
        ensure!(result == Err(DeviceError::Aborted), "it says {result:?}");
        back.push(done.token);
    }
    back.sort_unstable_by_key(|token| token.index());
    let mut expected = requests.to_vec();
    expected.sort_unstable_by_key(|token| token.index());
    ensure!(back == expected, "{back:?} came back of {expected:?}");
    Ok(())
}

/// Waits for a disk that is gone: what it did before it went comes back, and what it
/// did not is given back once the driver is told.
fn gone(
    blk: &mut Driver<'_>,
    machine: &Machine,
    listener: &Listener<'_>,
    requests: &[Token],
) -> Outcome {
    let mut wait = listener.wait(machine.clock.wait_ms(WAIT_MS));
    // By the order in which they were submitted.
    let mut back = [false; TOLD + UNTOLD];
    loop {
        while let Some(done) = blk.poll()? {
            done.result?;
            let place = requests.iter().position(|token| *token == done.token);
            let place = place.ok_or_else(|| Stop::failed("it was not in flight"))?;
            ensure!(place < TOLD && !back[place], "request {place} came back");
            back[place] = true;
            let buffer = done.request.into_buffer();
            let buffer = buffer.ok_or_else(|| Stop::failed("it has no buffer"))?;
            check(place as u64, &buffer)?;
        }
        if !wait.again() {
            break;
        }
    }
    let health = blk.health();
    ensure!(health == Err(DeviceError::Gone), "later it says {health:?}");
    // SAFETY: its slot is empty.
    unsafe { blk.unplugged() };
    let left = requests.iter().zip(back);
    let left: Vec<_> = left
        .filter(|(_, back)| !back)
        .map(|(own, _)| *own)
        .collect();
    all_aborted(blk, &left)
}

/// Calls that wait end, and say why.
fn waits(blk: &mut Driver<'_>, machine: &Machine, listener: &Listener<'_>) -> Outcome {
    let mut data = [0; SECTOR];
    let wait = &mut listener.wait(machine.clock.wait_ms(WAIT_MS));
    let result = blk.read(0, &mut data, wait);
    ensure!(result == Err(DeviceError::Gone), "a read: {result:?}");
    // SAFETY: its slot is empty.
    unsafe { blk.unplugged() };
    let read = blk.poll()?.map(|done| done.result);
    let aborted = Some(Err(DeviceError::Aborted));
    ensure!(read == aborted, "the read comes back as {read:?}");
    Ok(())
}
