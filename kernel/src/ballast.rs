//! What the kernel gives away and takes back by a memory balloon: pages of its own
//! heap.
//!
//! A [`Ballast`] makes the balloon [follow](Ballast::follow) its device's target,
//! but keeps [`RESERVE`] for the kernel. Where the device allows it, pages come
//! back when the heap has run out: [`relief`] is what the heap then asks.

use alloc::vec::Vec;
use core::alloc::Layout;
use core::cell::RefCell;
use core::fmt;

use doorbell::device::balloon::{Balloon, Ballooned, MAX_PAGES, PAGE, Statistic, Tag};
use doorbell::device::{DeviceError, Driver as _};
use doorbell::dma::{Dma, DmaRegion};
use doorbell::transport::Transport;
use doorbell::virtio::Wait;

use crate::clock::Clock;
use crate::platform::dma::KernelDma;
use crate::platform::memory::{self, HeapUse};

/// What a balloon leaves to the kernel, in bytes: drivers, results and what is
/// printed take a part of it.
pub const RESERVE: usize = 4 << 20;

/// Memory whose use is known.
pub trait Memory: Dma + Clone {
    /// How it stands.
    fn heap_use(&self) -> HeapUse;
}

impl Memory for KernelDma {
    fn heap_use(&self) -> HeapUse {
        memory::heap_use()
    }
}

/// A balloon that is up, and the pages in it. Dropped, it resets the device, and the
/// pages are the kernel's again.
pub struct Ballast<T: Transport, M: Memory> {
    balloon: Balloon<T, M>,
    memory: M,
    /// The latest last.
    held: Vec<Ballooned<M>>,
    relieved: u64,
}

/// What following the target came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed {
    /// How many pages the device wants in the balloon.
    pub target: u32,
    /// How many are there.
    pub actual: u32,
    /// Why it is fewer, if it is.
    pub short: Option<Short>,
}

/// A target that is more than can be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short {
    /// Pages that the device wants in the balloon.
    pub target: u32,
    /// Pages that are there.
    pub given: u32,
    /// What is free, in bytes.
    pub free: usize,
}

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} are wanted, and {} could be given: of the {} bytes that are free, ",
            Pages(self.target),
            Pages(self.given),
            self.free
        )?;
        if self.free < RESERVE + PAGE {
            write!(f, "the kernel keeps {RESERVE}")
        } else {
            write!(f, "none are a whole page")
        }
    }
}

/// A number of pages, in words.
#[derive(Clone, Copy, Debug)]
pub struct Pages(pub u32);

impl fmt::Display for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = f64::from(self.0) * PAGE as f64 / f64::from(1 << 20);
        write!(f, "{} pages ({mib:.1} MiB)", self.0)
    }
}

/// What the kernel says of its memory, with so many pages in the balloon: how much it
/// has in all, and how much of that is free. It has no caches and no swap, so that
/// what is free is also what can be had.
pub fn statistics(memory: &impl Memory, ballooned: u32) -> [Statistic; 3] {
    let HeapUse { size, free } = memory.heap_use();
    let statistic = |tag, value: usize| Statistic {
        tag,
        value: value as u64,
    };
    [
        statistic(Tag::Memfree, free),
        statistic(Tag::Memtot, size.saturating_sub(ballooned as usize * PAGE)),
        statistic(Tag::Avail, free),
    ]
}

impl<T: Transport, M: Memory> Ballast<T, M> {
    /// With an empty balloon, which was brought up with [`statistics`].
    pub fn new(balloon: Balloon<T, M>, memory: M) -> Self {
        Self {
            balloon,
            memory,
            held: Vec::new(),
            relieved: 0,
        }
    }

    /// The driver.
    pub fn balloon(&mut self) -> &mut Balloon<T, M> {
        &mut self.balloon
    }

    /// How many pages came back since memory had run out.
    pub fn relieved(&self) -> u64 {
        self.relieved
    }

    /// Gives pages to the balloon, or takes some out of it, until there are as many as
    /// the device wants, or none can be given any more. `wait` makes the wait for each
    /// request.
    ///
    /// # Errors
    ///
    /// As the driver's.
    pub fn follow<W: Wait>(
        &mut self,
        mut wait: impl FnMut() -> W,
    ) -> Result<Followed, DeviceError> {
        let target = self.balloon.target()?;
        // The pages of a request come out together. What is too much goes back below.
        while self.balloon.actual() > target {
            if !self.take_out(&mut wait())? {
                break;
            }
        }
        let mut short = None;
        while self.balloon.actual() < target && short.is_none() {
            let wanted = target - self.balloon.actual();
            match self.spare_pages(wanted) {
                Some(pages) => self.put_in(pages, &mut wait())?,
                None => {
                    short = Some(Short {
                        target,
                        given: self.balloon.actual(),
                        free: self.memory.heap_use().free,
                    });
                }
            }
        }
        Ok(Followed {
            target,
            actual: self.balloon.actual(),
            short,
        })
    }

    /// Tells the device how memory stands, if it has asked.
    ///
    /// # Errors
    ///
    /// As the driver's.
    pub fn report(&mut self) -> Result<(), DeviceError> {
        if self.balloon.poll_statistics_request()? {
            let statistics = statistics(&self.memory, self.balloon.actual());
            self.balloon.submit_statistics(&statistics)?;
        }
        Ok(())
    }

    /// Takes pages out of the balloon for a block of `size` bytes that the heap has
    /// not, and says whether any came: none do where the device does not allow that, or
    /// where all would not be enough. It takes no memory.
    pub fn relieve(&mut self, size: usize, wait: &mut dyn Wait) -> bool {
        let all = self.memory.heap_use().free + self.balloon.actual() as usize * PAGE;
        if !self.balloon.may_deflate_on_oom() || size > all {
            return false;
        }
        let before = self.balloon.actual();
        let taken = self.take_out(wait);
        self.relieved += u64::from(before.saturating_sub(self.balloon.actual()));
        // A device that failed shows that at its next use.
        taken.unwrap_or(false)
    }

    /// Resets the device, and says whether it did: then all pages are the kernel's
    /// again.
    pub fn close(&mut self) -> bool {
        let closed = self.balloon.close();
        if closed {
            for ballooned in self.held.drain(..) {
                drop(self.balloon.reclaim(ballooned));
            }
        }
        closed
    }

    /// Pages that the kernel can do without, `wanted` at the most, with room for them
    /// in the list.
    fn spare_pages(&mut self, wanted: u32) -> Option<DmaRegion<M>> {
        self.held.try_reserve(1).ok()?;
        let spare = self.memory.heap_use().free.saturating_sub(RESERVE) / PAGE;
        let mut count = (wanted as usize).min(MAX_PAGES).min(spare);
        // What is free may be in many pieces.
        while count > 0 {
            match DmaRegion::new(self.memory.clone(), count * PAGE, PAGE) {
                Ok(pages) => return Some(pages),
                Err(_) => count /= 2,
            }
        }
        None
    }

    fn put_in(&mut self, pages: DmaRegion<M>, wait: &mut dyn Wait) -> Result<(), DeviceError> {
        let inflated = self.balloon.inflate(pages, wait);
        self.held.push(inflated.map_err(|(error, _)| error)?);
        Ok(())
    }

    /// Takes the latest pages out; `false` if there are none.
    fn take_out(&mut self, wait: &mut dyn Wait) -> Result<bool, DeviceError> {
        let Some(latest) = self.held.pop() else {
            return Ok(false);
        };
        match self.balloon.deflate(latest, wait) {
            Ok(_) => Ok(true),
            Err((error, back)) => {
                // There was room for it before.
                self.held.extend(back);
                Err(error)
            }
        }
    }
}

impl<T: Transport, M: Memory> Drop for Ballast<T, M> {
    fn drop(&mut self) {
        self.close();
    }
}

/// What the heap asks when it has run out ([`memory::KernelHeap::relieved_by`]): a
/// balloon that is not in use at that moment. It looks for the device's answer, for
/// the heap is not to sleep.
pub fn relief<T: Transport>(
    ballast: &RefCell<Ballast<T, KernelDma>>,
    clock: Clock,
) -> impl Fn(Layout) -> bool {
    move |layout| {
        let own = ballast.try_borrow_mut();
        own.is_ok_and(|mut own| own.relieve(layout.size(), &mut clock.patience()))
    }
}

#[cfg(test)]
mod tests;
