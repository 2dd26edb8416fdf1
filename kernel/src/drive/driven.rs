//! A device that is up, whatever it is.

use alloc::format;
use alloc::string::{String, ToString};

use doorbell::device::{DeviceError, Driver, balloon, blk, console, net, rng};
use doorbell::dma::DmaRegion;
use doorbell::queue::{AnyRing, QueueMut};
use doorbell::transport::{Interface, NotifyPath};
use doorbell::virtio::Features;

use super::ballooning::DrivenBalloon;
use super::disk::DrivenBlk;
use super::entropy::DrivenRng;
use super::network::DrivenNet;
use super::serial::DrivenConsole;
use super::{Listener, Mode, Opened, Unit};
use crate::platform::dma::KernelDma;
use crate::record::{DeviceRecord, QueueRecord};

/// The generic features that this kernel's drivers use. Few devices offer packed rings
/// unless they are told to: QEMU's by `packed=on`.
pub const FEATURES: Features = Features::INDIRECT_DESC
    .union(Features::EVENT_IDX)
    .union(Features::RING_PACKED);

/// A device that is up, seen as something to time: one request at a time.
pub trait Driven {
    /// Makes a request available, without ringing.
    ///
    /// # Errors
    ///
    /// As the driver's.
    fn submit(&mut self) -> Result<(), DeviceError>;

    /// Whether the request came back.
    ///
    /// # Errors
    ///
    /// As the driver's, and the request's own.
    fn reap(&mut self) -> Result<bool, DeviceError>;

    /// The driver.
    fn driver(&mut self) -> &mut dyn Driver<KernelDma>;

    /// The number of the queue that [`submit`](Self::submit) uses.
    fn request_queue(&self) -> usize {
        0
    }

    /// The queue that [`submit`](Self::submit) uses.
    fn queue(&mut self) -> QueueMut<'_, AnyRing<KernelDma>> {
        let queue = self.request_queue();
        self.driver().queue(queue)
    }

    /// Uses the device for what it is for, without changing what it holds, and
    /// says what it is.
    ///
    /// # Errors
    ///
    /// As the driver's.
    fn exercise(&mut self, listener: &Listener<'_>) -> Result<String, DeviceError>;
}

/// Room for a request's buffer, made once, and kept while none is in flight.
pub(super) type Spare = Option<DmaRegion<KernelDma>>;

pub(super) fn spare(spare: &mut Spare, size: usize) -> Result<DmaRegion<KernelDma>, DeviceError> {
    match spare.take() {
        Some(buffer) => Ok(buffer),
        None => Ok(DmaRegion::new(
            KernelDma,
            size,
            size.next_power_of_two().min(4096),
        )?),
    }
}

/// Whether this kernel has a driver for devices of this type.
pub(super) fn has_driver(device_type: u16) -> bool {
    matches!(
        device_type,
        net::DEVICE_TYPE
            | blk::DEVICE_TYPE
            | console::DEVICE_TYPE
            | rng::DEVICE_TYPE
            | balloon::DEVICE_TYPE
    )
}

/// Whether devices of this type are driven by more than one queue.
pub(super) fn has_queues(device_type: u16) -> bool {
    /// Those that this kernel has no driver for: SCSI, GPU, input, vsock and sound.
    const OTHERS: [u16; 5] = [8, 16, 18, 19, 25];
    let ours = [net::DEVICE_TYPE, console::DEVICE_TYPE, balloon::DEVICE_TYPE];
    ours.contains(&device_type) || OTHERS.contains(&device_type)
}

/// Brings a device up with the ring features in `features`, lets `work` use it, and
/// resets it.
///
/// # Errors
///
/// Why it did not come up, or what `work` says.
pub fn with_device<R>(
    opened: &mut Opened<'_>,
    features: Features,
    work: impl FnOnce(&mut dyn Driven, &Listener<'_>) -> Result<R, String>,
) -> Result<R, String> {
    let Opened {
        transport,
        listener,
    } = opened;
    let setup = listener.setup(features);
    let transport = &mut **transport;
    let go = |driven: Result<&mut dyn Driven, DeviceError>| {
        let driven = driven.map_err(|error| error.to_string())?;
        driven.driver().set_interrupts(listener.interrupts());
        work(driven, listener)
    };
    match transport.device_type() {
        blk::DEVICE_TYPE => {
            let mut blk = DrivenBlk::new(transport, &setup, listener);
            go(blk.as_mut().map(|blk| blk as _).map_err(|error| *error))
        }
        net::DEVICE_TYPE => {
            let mut net = DrivenNet::new(transport, &setup, listener);
            go(net.as_mut().map(|net| net as _).map_err(|error| *error))
        }
        console::DEVICE_TYPE => {
            let mut console = DrivenConsole::new(transport, &setup, listener);
            go(console.as_mut().map(|own| own as _).map_err(|error| *error))
        }
        rng::DEVICE_TYPE => {
            let mut rng = DrivenRng::new(transport, &setup, listener);
            go(rng.as_mut().map(|rng| rng as _).map_err(|error| *error))
        }
        balloon::DEVICE_TYPE => {
            let mut balloon = DrivenBalloon::new(transport, &setup, listener);
            go(balloon.as_mut().map(|own| own as _).map_err(|error| *error))
        }
        other => Err(format!("there is no driver for device type {other}")),
    }
}

/// How often the driver rang its device, in all queues. What was rung with a
/// queue's notifier by itself is not counted.
pub fn doorbells(driver: &mut dyn Driver<KernelDma>) -> u64 {
    (0..driver.queues())
        .map(|n| driver.queue(n).doorbells())
        .sum()
}

/// The record of a device that is up.
pub fn device_record(
    unit: &Unit,
    path: (Interface, NotifyPath),
    mode: Mode,
    driver: &mut dyn Driver<KernelDma>,
    about: String,
) -> DeviceRecord {
    let features = driver.features();
    let names = features
        .numbers()
        .map(|bit| match Features::name(bit, unit.device_type) {
            Some((prefix, name)) => format!("{prefix}{name}"),
            None => format!("bit {bit}"),
        });
    let queues = (0..driver.queues()).map(|n| {
        let queue = driver.queue(n);
        let addresses = queue.addresses();
        QueueRecord {
            index: queue.index(),
            size: queue.size(),
            descriptors: addresses.descriptors,
            driver: addresses.driver,
            device: addresses.device,
            avail_idx: queue.ring().avail_idx(),
            used_idx: queue.ring().used_idx(),
        }
    });
    DeviceRecord {
        device: unit.name(),
        place: unit.place.clone(),
        transport: path.0.to_string(),
        notify: path.1.to_string(),
        interrupts: mode.name(),
        queues: queues.collect(),
        features: names.collect(),
        about,
    }
}
