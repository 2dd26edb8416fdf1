//! Block requests as futures: nothing here knows an executor, only `core`'s wakers.
//!
//! A future submits its request, leaves its waker, and looks. The interrupt handler
//! wakes whoever waits, and does no more: a driver is `Send`, not `Sync`, and never
//! enters the handler. Whoever is polled first takes back all that is finished, and
//! hands it to the futures that it belongs to.
//!
//! It runs on the host, with a fake device and the smallest of executors. In a kernel
//! the lock of [`Wakers`] has to keep the handler out, and the lists are arrays of the
//! queue's size.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use doorbell::device::blk::{Blk, Request, SECTOR};
use doorbell::device::{DeviceError, Driver};
use doorbell::dma::{Dma, DmaRegion};
use doorbell::queue::{QueueError, Token};
use doorbell::transport::Transport;

/// Who waits for the disk's interrupt.
#[derive(Default)]
pub struct Wakers(Mutex<Vec<Waker>>);

impl Wakers {
    /// For the interrupt handler.
    pub fn interrupt(&self) {
        let waiting = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        waiting.into_iter().for_each(Waker::wake);
    }

    fn add(&self, waker: &Waker) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.iter().any(|other| other.will_wake(waker)) {
            waiting.push(waker.clone());
        }
    }
}

/// A disk that tasks of one thread share.
pub struct Disk<'w, T: Transport, D: Dma + Clone> {
    inner: RefCell<Inner<T, D>>,
    wakers: &'w Wakers,
}

struct Inner<T: Transport, D: Dma + Clone> {
    blk: Blk<T, D>,
    /// Numbers that futures have got so far. A token is another request's as soon as its
    /// own was taken back; these never come again.
    numbers: u64,
    in_flight: Vec<(Token, u64)>,
    /// By number: what was taken back for a future that was not polled since.
    finished: Vec<(u64, Result<DmaRegion<D>, DeviceError>)>,
}

impl<'w, T: Transport, D: Dma + Clone> Disk<'w, T, D> {
    /// Asks the device for interrupts.
    pub fn new(mut blk: Blk<T, D>, wakers: &'w Wakers) -> Self {
        blk.set_interrupts(true);
        let inner = RefCell::new(Inner {
            blk,
            numbers: 0,
            in_flight: Vec::new(),
            finished: Vec::new(),
        });
        Self { inner, wakers }
    }

    /// Reads into `buffer` from `sector` on.
    pub fn read(&self, sector: u64, buffer: DmaRegion<D>) -> Read<'_, T, D> {
        Read {
            disk: self,
            request: Some(Request::Read { sector, buffer }),
            number: None,
        }
    }
}

impl<T: Transport, D: Dma + Clone> Inner<T, D> {
    /// Takes back what is finished. What belongs to no future any more is dropped: the
    /// driver owned its buffer until now, so no device writes to it. The answer is
    /// whether a future gets something.
    fn take_back(&mut self) -> Result<bool, DeviceError> {
        let before = self.finished.len();
        while let Some(done) = self.blk.poll()? {
            let of_token = |(token, _): &(Token, u64)| *token == done.token;
            if let Some(at) = self.in_flight.iter().position(of_token) {
                let (_, number) = self.in_flight.swap_remove(at);
                let buffer = done.request.into_buffer().ok_or(DeviceError::Aborted);
                self.finished.push((number, done.result.and(buffer)));
            }
        }
        Ok(self.finished.len() > before)
    }
}

/// A request, in flight from its first poll on. It can be dropped at any time.
pub struct Read<'d, T: Transport, D: Dma + Clone> {
    disk: &'d Disk<'d, T, D>,
    request: Option<Request<D>>,
    number: Option<u64>,
}

impl<T: Transport, D: Dma + Clone> Unpin for Read<'_, T, D> {}

impl<T: Transport, D: Dma + Clone> Future for Read<'_, T, D> {
    type Output = Result<DmaRegion<D>, DeviceError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut inner = self.disk.inner.borrow_mut();
        let inner = &mut *inner;
        // Before the look: an interrupt between the two then wakes us.
        self.disk.wakers.add(context.waker());
        match inner.take_back() {
            Ok(false) => {}
            // It may be another's, and a device does not interrupt for what it sees
            // taken back already (2.7.7.2).
            Ok(true) => self.disk.wakers.interrupt(),
            Err(error) => return Poll::Ready(Err(error)),
        }
        if let Some(request) = self.request.take() {
            match inner.blk.submit(request) {
                Ok(token) => {
                    inner.numbers += 1;
                    inner.in_flight.push((token, inner.numbers));
                    self.number = Some(inner.numbers);
                    inner.blk.queue(0).kick();
                }
                // Some other request's end makes room.
                Err((DeviceError::Queue(QueueError::Full { .. }), request)) => {
                    self.request = Some(request);
                }
                Err((error, _)) => return Poll::Ready(Err(error)),
            }
        }
        let ours = |(number, _): &(u64, _)| Some(*number) == self.number;
        match inner.finished.iter().position(ours) {
            Some(at) => Poll::Ready(inner.finished.swap_remove(at).1),
            None => Poll::Pending,
        }
    }
}

impl<T: Transport, D: Dma + Clone> Drop for Read<'_, T, D> {
    fn drop(&mut self) {
        let mut inner = self.disk.inner.borrow_mut();
        let others = |number: u64| Some(number) != self.number;
        inner.in_flight.retain(|(_, number)| others(*number));
        inner.finished.retain(|(number, _)| others(*number));
    }
}

fn main() {
    let sums = host::run();
    println!("two reads at once, and their first bytes: {sums:?}");
}

/// What a kernel has: a device, its interrupt, and an executor.
mod host {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use doorbell::device::Setup;
    use doorbell::dma::fake::FakeDma;
    use doorbell::transport::fake::{FakeDevice, Options};
    use doorbell::virtio::{Features, Polls};

    use super::*;

    /// A task that counts how often it was woken.
    #[derive(Default)]
    pub(super) struct Task(pub(super) AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A disk of 64 sectors, whose bytes are their sector's number.
    pub(super) fn device(dma: &FakeDma) -> FakeDevice<'_> {
        let mut config = vec![0; 64];
        config[0] = 64;
        FakeDevice::new(
            dma,
            Options {
                features: Features::VERSION_1,
                device_type: 2,
                queues: [16].into(),
                config,
                ..Options::default()
            },
        )
    }

    pub(super) fn blk<'d>(
        device: &FakeDevice<'d>,
        dma: &'d FakeDma,
    ) -> Blk<impl Transport + use<'d>, &'d FakeDma> {
        let setup = Setup::new(16, Features::empty());
        Blk::new(device.transport(), &setup, dma, &mut Polls(100)).expect("a disk")
    }

    /// The device does what it was asked for: how many requests that were.
    pub(super) fn serve(device: &FakeDevice<'_>) -> usize {
        device.process(0, |chain| {
            let sector = chain.readable()[8];
            chain.write(0, &[sector; SECTOR]);
            chain.write(SECTOR, &[0]);
            SECTOR as u32 + 1
        })
    }

    pub(super) fn buffer(dma: &FakeDma) -> DmaRegion<&FakeDma> {
        DmaRegion::new(dma, SECTOR, SECTOR).expect("memory")
    }

    pub(super) fn run() -> [u8; 2] {
        let (dma, wakers) = (FakeDma::default(), Wakers::default());
        let device = device(&dma);
        let disk = Disk::new(blk(&device, &dma), &wakers);
        let both = async {
            let mut other = disk.read(9, buffer(&dma));
            // Both are in flight before one is waited for.
            let begun = std::future::poll_fn(|context| {
                Poll::Ready(Pin::new(&mut other).poll(context).is_pending())
            });
            assert!(begun.await);
            let first = disk.read(7, buffer(&dma)).await?;
            Ok::<_, DeviceError>([first[0], other.await?[0]])
        };
        let mut both = pin!(both);
        let task = Arc::new(Task::default());
        let waker = Waker::from(task.clone());
        loop {
            if let Poll::Ready(result) = both.as_mut().poll(&mut Context::from_waker(&waker)) {
                return result.expect("both reads succeed");
            }
            // Nobody runs until the device interrupts.
            assert_eq!(serve(&device), 2);
            wakers.interrupt();
            assert!(task.0.swap(0, Ordering::SeqCst) > 0, "the task was woken");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use doorbell::dma::fake::FakeDma;

    use super::host::{Task, blk, buffer, device, run, serve};
    use super::*;

    #[test]
    fn two_reads_end_with_one_interrupt() {
        assert_eq!(run(), [7, 9]);
    }

    #[test]
    fn a_future_that_is_dropped_gets_nothing_of_another_and_loses_no_memory() {
        let (dma, wakers) = (FakeDma::default(), Wakers::default());
        let device = device(&dma);
        let disk = Disk::new(blk(&device, &dma), &wakers);
        let waker = Waker::from(Arc::new(Task::default()));
        let mut context = Context::from_waker(&waker);
        let live = dma.live();

        let mut dropped = disk.read(1, buffer(&dma));
        assert!(Pin::new(&mut dropped).poll(&mut context).is_pending());
        drop(dropped);
        assert_eq!(dma.live(), live + 1, "the device has its buffer still");
        assert_eq!(serve(&device), 1);

        // Its token is the next one's.
        let mut next = disk.read(2, buffer(&dma));
        assert!(Pin::new(&mut next).poll(&mut context).is_pending());
        assert_eq!(dma.live(), live + 1, "that of the dropped one came back");
        assert_eq!(serve(&device), 1);
        let Poll::Ready(Ok(read)) = Pin::new(&mut next).poll(&mut context) else {
            panic!("the read is finished");
        };
        assert_eq!(read[0], 2);
    }

    #[test]
    fn whoever_takes_back_anothers_wakes_it() {
        let (dma, wakers) = (FakeDma::default(), Wakers::default());
        let device = device(&dma);
        let disk = Disk::new(blk(&device, &dma), &wakers);
        let tasks = [Arc::new(Task::default()), Arc::new(Task::default())];
        let [one, other] = tasks.each_ref().map(|task| Waker::from(task.clone()));
        let (mut first, mut second) = (disk.read(1, buffer(&dma)), disk.read(2, buffer(&dma)));
        for (read, waker) in [(&mut first, &one), (&mut second, &other)] {
            let mut context = Context::from_waker(waker);
            assert!(Pin::new(read).poll(&mut context).is_pending());
        }
        serve(&device);
        // Without an interrupt.
        let looked = Pin::new(&mut first).poll(&mut Context::from_waker(&one));
        assert!(looked.is_ready());
        assert_eq!(tasks[1].0.load(std::sync::atomic::Ordering::SeqCst), 1);
        let looked = Pin::new(&mut second).poll(&mut Context::from_waker(&other));
        assert!(looked.is_ready());
    }

    #[test]
    fn a_full_queue_is_waited_for() {
        let (dma, wakers) = (FakeDma::default(), Wakers::default());
        let device = device(&dma);
        let disk = Disk::new(blk(&device, &dma), &wakers);
        let waker = Waker::from(Arc::new(Task::default()));
        let mut context = Context::from_waker(&waker);
        let mut reads: Vec<_> = (0..9).map(|n| disk.read(n, buffer(&dma))).collect();
        let mut rounds = 0;
        while !reads.is_empty() {
            reads.retain_mut(|read| Pin::new(read).poll(&mut context).is_pending());
            serve(&device);
            rounds += 1;
            assert!(rounds < 10);
        }
        assert!(rounds > 2, "16 descriptors hold 5 requests of 3");
    }
}
