//! A path: one interface of one device, with one of its doorbells.

use core::fmt;

use doorbell::device::{Driver, Rng, Setup};
use doorbell::dma::DmaRegion;
use doorbell::mmio::MmioRegion;
use doorbell::pci::Function;
use doorbell::transport::mmio::Mmio;
use doorbell::transport::pci::Structures;
use doorbell::transport::pci_legacy::PciLegacy;
use doorbell::transport::pci_modern::{NotifyChoice, PciModern};
use doorbell::transport::{Interface, Notifier, Notify, NotifyPath, Transport};
use doorbell::virtio::{Features, Polls, Wait};

use crate::clock::{BATCH, SAMPLES, now, time};
use crate::memory::Arena;
use crate::pci::Bus;
use crate::report::Error;
use crate::stats::Samples;

/// Descriptors that the queue gets where the driver may choose.
const QUEUE_SIZE: u16 = 8;
/// Bytes of entropy that a request asks for.
const REQUEST: usize = 16;

/// How long a device may take for a request.
fn patience() -> Polls {
    Polls(50_000_000)
}

/// How to come by a transport.
pub(crate) enum Way {
    /// The IO BAR of the legacy interface.
    Legacy(Function),
    /// The interface of virtio 1.0 and later, and which doorbell.
    Modern(Function, Structures, NotifyChoice),
    /// A virtio-mmio slot, if there is an entropy device in it.
    Slot { address: u64, region: MmioRegion },
}

/// The device's address: PCI's, or that of its slot.
impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Legacy(function) | Self::Modern(function, ..) => function.address.fmt(f),
            Self::Slot { address, .. } => write!(f, "{address:#x}"),
        }
    }
}

/// A path, and what was measured on it.
pub(crate) struct Path {
    pub(crate) way: Way,
    /// What it turned out to be; `None` for an empty slot.
    pub(crate) found: Option<Found>,
    /// The cycles of [`BATCH`] doorbells of an idle ring.
    pub(crate) idle: Samples,
    /// The cycles from a request's doorbell to its answer.
    pub(crate) round_trip: Samples,
    /// Requests that were answered, and idle doorbells that one was answered after.
    pub(crate) delivered: (u64, u64),
    /// How often the doorbell was rung in all.
    pub(crate) rang: u64,
}

/// What is behind a path.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    pub(crate) interface: Interface,
    pub(crate) notify: NotifyPath,
    /// Where the processor stores to.
    pub(crate) address: u64,
    /// How many bits.
    pub(crate) bits: u8,
    /// The port that this is, if it is one.
    pub(crate) port: Option<u64>,
}

type Device<'a, T> = Rng<T, &'a Arena>;

impl Path {
    pub(crate) fn new(way: Way) -> Self {
        Self {
            way,
            found: None,
            idle: Samples::default(),
            round_trip: Samples::default(),
            delivered: (0, 0),
            rang: 0,
        }
    }

    /// Brings the device up, times its doorbell, and resets it.
    pub(crate) fn round(&mut self, bus: &Bus<'_>, arena: &Arena) -> Result<(), Error> {
        match self.way {
            Way::Legacy(function) => {
                // SAFETY: the function is ours; `Bus::new` gave it addresses and
                // switched it on; the last round's driver has reset it.
                let transport =
                    unsafe { PciLegacy::from_function(&function, &bus.config, bus.io()?) }?;
                self.drive(transport, bus, arena)
            }
            Way::Modern(function, ref structures, choice) => {
                // SAFETY: as above.
                let transport = unsafe {
                    PciModern::new(&function, structures, bus.config, bus.io()?, bus, choice)
                }?;
                self.drive(transport, bus, arena)
            }
            Way::Slot { region, .. } => match Mmio::probe(region)? {
                Some(slot) if slot.device_type() == doorbell::device::rng::DEVICE_TYPE => {
                    self.drive(slot, bus, arena)
                }
                _ => Ok(()),
            },
        }
    }

    fn drive<T: Transport>(
        &mut self,
        transport: T,
        bus: &Bus<'_>,
        arena: &Arena,
    ) -> Result<(), Error> {
        let (interface, notify) = (transport.interface(), transport.notify_path());
        let setup = Setup::new(QUEUE_SIZE, Features::empty());
        let mut device = Rng::new(transport, &setup, arena, &mut patience())?;
        let notifier = device.queue(0).notifier();
        let (address, bits) = match notifier {
            Notifier::Store16(store) => (store.address().as_ptr() as u64, 16),
            Notifier::Store32(store) => (store.address().as_ptr() as u64, 32),
            _ => return Err(Error::NoStore),
        };
        self.found = Some(Found {
            interface,
            notify,
            address,
            bits,
            port: bus.port_at(address),
        });
        match notifier {
            Notifier::Store16(store) => self.measure(&mut device, &store, arena),
            Notifier::Store32(store) => self.measure(&mut device, &store, arena),
            _ => Err(Error::NoStore),
        }
    }

    /// Times the doorbell alone, and with a request behind it.
    fn measure<'a, T: Transport>(
        &mut self,
        device: &mut Device<'a, T>,
        notifier: &impl Notify,
        arena: &'a Arena,
    ) -> Result<(), Error> {
        for _ in 0..SAMPLES {
            self.idle.record(time(notifier, BATCH));
            self.rang += u64::from(BATCH);
        }
        // Nothing tells of an idle doorbell. That the device then serves a request rung
        // in the same way tells that it was listening.
        self.request(device, notifier, arena)?;
        self.delivered.0 += (SAMPLES * BATCH as usize) as u64;
        for _ in 0..SAMPLES {
            let cycles = self.request(device, notifier, arena)?;
            self.round_trip.record(cycles);
            self.delivered.1 += 1;
        }
        Ok(())
    }

    /// One request, from the doorbell to the answer, in cycles.
    fn request<'a, T: Transport>(
        &mut self,
        device: &mut Device<'a, T>,
        notifier: &impl Notify,
        arena: &'a Arena,
    ) -> Result<u64, Error> {
        let buffer = DmaRegion::new(arena, REQUEST, REQUEST).map_err(Error::Dma)?;
        device.submit(buffer).map_err(|(error, _)| error)?;
        // The doorbell is rung in any case; what matters is the barrier in this.
        device.queue(0).needs_notification();
        let mut patience = patience();
        let begin = now();
        notifier.notify();
        let queue = device.queue(0);
        while !queue.has_used() {
            if !patience.again() {
                return Err(Error::Unanswered);
            }
        }
        let cycles = now().wrapping_sub(begin);
        self.rang += 1;
        let filled = device.poll()?.ok_or(Error::Unanswered)?;
        match filled.result? {
            0 => Err(Error::Unanswered),
            _ => Ok(cycles),
        }
    }
}
