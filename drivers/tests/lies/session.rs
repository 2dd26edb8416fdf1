//! Drivers at work, to be lied to, and what has to be left of them.

use std::hint;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use doorbell::device::rng::Rng;
use doorbell::device::{DeviceError, Driver, Setup};
use doorbell::dma::DmaRegion;
use doorbell::dma::fake::FakeDma;
use doorbell::queue::QueueError;
use doorbell::transport::fake::{Chain, FakeDevice, FakeTransport, Lie, Options};
use doorbell::transport::{DeviceStatus, RingAddresses};
use doorbell::virtio::{Features, Polls};

pub(crate) const SPLIT: Features = Features::VERSION_1;
pub(crate) const PACKED: Features = Features::VERSION_1.union(Features::RING_PACKED);

pub(crate) type FakeRng<'d> = Rng<FakeTransport<'d>, &'d FakeDma>;

/// Descriptors of the ring.
pub(crate) const SIZE: u16 = 8;

/// An entropy device that has taken two requests, for 16 bytes each.
pub(crate) struct Session<'d> {
    pub(crate) dma: &'d FakeDma,
    pub(crate) device: FakeDevice<'d>,
    pub(crate) rng: FakeRng<'d>,
    /// What it has.
    pub(crate) chains: [Chain<'d>; 2],
}

pub(crate) fn rng_options(features: Features) -> Options {
    Options {
        device_type: 4,
        features,
        queues: [SIZE].into(),
        ..Options::default()
    }
}

/// A driver for an entropy device.
pub(crate) fn entropy<'d>(
    device: &FakeDevice<'d>,
    dma: &'d FakeDma,
    features: Features,
) -> Result<FakeRng<'d>, DeviceError> {
    let setup = Setup::new(SIZE, features);
    Rng::new(device.transport(), &setup, dma, &mut Polls(10))
}

impl<'d> Session<'d> {
    pub(crate) fn new(dma: &'d FakeDma, features: Features) -> Self {
        let device = FakeDevice::new(dma, rng_options(features));
        let mut rng = entropy(&device, dma, features).unwrap();
        let chains = [0, 1].map(|_| {
            let buffer = DmaRegion::new(dma, 16, 1).unwrap();
            rng.submit(buffer).unwrap();
            device.take(0).unwrap()
        });
        Self {
            dma,
            device,
            rng,
            chains,
        }
    }

    /// From now on the device lies like this.
    pub(crate) fn lie(&self, lie: Lie) {
        self.device.change(|options| options.lie = Some(lie));
    }

    /// A request more, for `len` bytes, which the device takes.
    pub(crate) fn submit(&mut self, len: usize) -> Chain<'d> {
        let buffer = DmaRegion::new(self.dma, len, 1).unwrap();
        self.rng.submit(buffer).unwrap();
        self.device.take(0).unwrap()
    }

    pub(crate) fn ring(&mut self) -> RingAddresses {
        self.rng.queue(0).addresses()
    }

    /// Writes a 16-bit field as the device, at this device address.
    pub(crate) fn write16(&self, at: u64, value: u16) {
        let into = self.dma.cpu_pointer(at, 2).cast::<[u8; 2]>();
        // SAFETY: inside allocated memory, which the driver only looks at.
        unsafe { into.write_volatile(value.to_le_bytes()) }
    }

    /// Writes a 32-bit field as the device, at this device address.
    pub(crate) fn write32(&self, at: u64, value: u32) {
        let into = self.dma.cpu_pointer(at, 4).cast::<[u8; 4]>();
        // SAFETY: as in `write16`.
        unsafe { into.write_volatile(value.to_le_bytes()) }
    }

    /// The driver has found out `error`, and takes back `in_flight` requests after
    /// the reset, not before.
    pub(crate) fn given_up(mut self, error: QueueError, in_flight: u16) -> String {
        assert_eq!(self.rng.poll().unwrap_err(), DeviceError::Queue(error));
        self.ends(in_flight);
        error.to_string()
    }

    /// The device was reset and marked FAILED: what it had comes back as aborted, and
    /// after that nothing.
    pub(crate) fn ends(mut self, in_flight: u16) {
        assert_eq!(self.device.status(), DeviceStatus::FAILED);
        for _ in 0..in_flight {
            let back = self.rng.poll().unwrap().unwrap();
            assert_eq!(back.result, Err(DeviceError::Aborted));
            assert_eq!(back.buffer.len(), 16);
        }
        let broken = DeviceError::Queue(QueueError::Broken);
        assert_eq!(self.rng.poll().unwrap_err(), broken);
        let buffer = DmaRegion::new(self.dma, 16, 1).unwrap();
        assert_eq!(self.rng.submit(buffer).unwrap_err().0, broken);
        assert_eq!(self.device.violations(), [""; 0]);
        drop(self.rng);
        assert_eq!(self.dma.live(), 0);
    }

    /// The device still has one of the two: it is not waited for without an end, and
    /// what it has stays its own until it is reset.
    pub(crate) fn waits(mut self, chain: usize) -> String {
        for _ in 0..1000 {
            assert!(self.rng.poll().unwrap().is_none());
        }
        let busy = DeviceError::Busy { in_flight: 1 };
        assert_eq!(self.rng.read(&mut [0; 4], &mut Polls(10)), Err(busy));
        self.chains[chain].write(0, &[0xa5; 16]);
        assert!(self.rng.close());
        let back = self.rng.poll().unwrap().unwrap();
        assert_eq!(back.result, Err(DeviceError::Aborted));
        assert_eq!(*back.buffer, [0xa5; 16]);
        drop((back, self.rng));
        assert_eq!(self.dma.live(), 0);
        "it comes back when the device is closed".into()
    }
}

/// Runs `f` while the dword at `pointer` is now one of `values`, now the other.
pub(crate) fn flipping<R>(pointer: *mut u8, values: [u32; 2], f: impl FnOnce() -> R) -> R {
    // SAFETY: the caller's memory lives as long as `f`, is aligned, and nobody writes
    // it but the thread below.
    let dword = unsafe { AtomicU32::from_ptr(pointer.cast()) };
    let (begun, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for value in values {
                    dword.store(value.to_le(), Ordering::Relaxed);
                    begun.store(true, Ordering::Relaxed);
                    hint::spin_loop();
                }
            }
        });
        // Also where `f` panics.
        let _stop = Stop(&stop);
        while !begun.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        f()
    })
}

/// Ends the flipping.
struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Rounds of what is a matter of luck.
pub(crate) const ROUNDS: usize = 100;
