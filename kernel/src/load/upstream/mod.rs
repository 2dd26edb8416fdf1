//! The same loads by the drivers of the crate `virtio-drivers`, over its own PCI
//! transport and over this project's transports.
//!
//! They run as they are shipped, and in their best configuration: EVENT_IDX is hidden
//! from them, which they handle badly, so that they can switch interrupts off and hear
//! that a device that polls wants no doorbells. Over this project's transports they are
//! better off than over their own, which looks a doorbell up each time that it rings.

mod own;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use doorbell::compat::{Compat, Fault};
use doorbell::dma::{DmaRegion, PAGE_SIZE};
use doorbell::transport::Transport;
use doorbell::transport::pci_modern::NotifyChoice;
use doorbell::virtio::Features;
use virtio_drivers::Error;
use virtio_drivers::device::blk::{BlkReq, BlkResp, VirtIOBlk};
use virtio_drivers::device::net::VirtIONetRaw;
use virtio_drivers::transport::pci::PciTransport;

use self::own::{Carrier, Own, OwnHal};
use super::disk::{self, Blocks};
use super::{Arena, Engine, Load, Parts, Turn, frames, parts, pump};
use crate::drive::{self, Listener, Mode, Way};
use crate::platform::dma::KernelDma;

/// The constant size of the block driver's queue, and so the most requests in flight:
/// with indirect descriptors.
const BLK_SIZE: usize = 16;
/// The size of the network driver's queues, which its user chooses: QEMU's own.
const NET_SIZE: usize = 256;

/// How a driver is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Configuration {
    /// The best that is known, over its own transport.
    Best,
    /// As it is, over its own transport.
    Shipped,
    /// The best that is known, over ours.
    BestOnOurs,
    /// As it is, over ours.
    ShippedOnOurs,
}

impl Configuration {
    /// The configurations in which this device can be driven, and why those over
    /// upstream's own transport are not among them, if they are not.
    pub fn all(arena: &Arena<'_>) -> (&'static [Self], Option<String>) {
        let own = match arena.way {
            Way::Modern(NotifyChoice::Preferred | NotifyChoice::Memory) => open_own(arena),
            _ => Err("upstream's own transport rings by a memory BAR only".to_string()),
        };
        match own {
            Ok(_) => (&[Self::Best, Self::Shipped, Self::BestOnOurs], None),
            Err(reason) => (&[Self::BestOnOurs, Self::ShippedOnOurs], Some(reason)),
        }
    }

    /// The driver's name in it.
    fn name(self) -> &'static str {
        match self {
            Self::Best => "upstream",
            Self::Shipped => "upstream-shipped",
            Self::BestOnOurs => "upstream-on-ours",
            Self::ShippedOnOurs => "shipped-on-ours",
        }
    }

    fn is_best(self) -> bool {
        matches!(self, Self::Best | Self::BestOnOurs)
    }

    fn is_own(self) -> bool {
        matches!(self, Self::Best | Self::Shipped)
    }
}

/// A device, driven by upstream's driver.
pub struct Upstream<'a, W> {
    /// The device.
    pub arena: &'a Arena<'a>,
    /// How the driver is set up.
    pub configuration: Configuration,
    /// What is asked of it.
    pub workload: W,
}

impl<W> Upstream<'_, W> {
    /// Opens the device, which is polled, and lets `turn` use it.
    fn with<R>(
        &self,
        turn: impl FnOnce(Carrier<'_, '_>, &Fault, &AtomicU64, &Listener<'_>) -> Result<R, String>,
    ) -> Result<R, String> {
        let Arena { machine, unit, .. } = self.arena;
        let masked = if self.configuration.is_best() {
            Features::EVENT_IDX
        } else {
            Features::empty()
        };
        let mut opened = drive::open(machine, unit, self.arena.way, Mode::Polling)?;
        let (fault, doorbells) = (Fault::new(), AtomicU64::new(0));
        let carrier = if self.configuration.is_own() {
            Carrier::Own(Own {
                transport: open_own(self.arena)?,
                masked,
                doorbells: &doorbells,
            })
        } else {
            let transport: &mut dyn Transport = &mut *opened.transport;
            // SAFETY: upstream's drivers keep their rings until they have dropped the
            // transport, and the engines below keep the buffers that they pass to them
            // longer than the drivers.
            let wrapped = unsafe { Compat::new(transport, &fault) };
            let wrapped = wrapped.map_err(|error| error.to_string())?;
            Carrier::Ours(wrapped.counting(&doorbells).without(masked))
        };
        turn(carrier, &fault, &doorbells, &opened.listener)
    }
}

/// Opens the device by upstream's own transport.
fn open_own(arena: &Arena<'_>) -> Result<PciTransport, String> {
    let pci = arena.machine.pci.as_ref().ok_or("there is no PCI")?;
    let address = arena.unit.address(arena.machine);
    own::open(pci.config, address.ok_or("it is not on PCI")?)
}

/// Which of the things that upstream borrows are free, and which go with a token.
struct Slots<const SIZE: usize> {
    free: Vec<usize>,
    by_token: [usize; SIZE],
}

impl<const SIZE: usize> Slots<SIZE> {
    /// So many, all free.
    fn new(count: usize) -> Self {
        Self {
            free: (0..count).collect(),
            by_token: [0; SIZE],
        }
    }

    /// Notes that the one at `index` is in flight with what upstream gave for it.
    #[inline]
    fn submitted(&mut self, index: usize, token: Result<u16, Error>) -> Result<(), String> {
        let token = token.map_err(|error| error.to_string())?;
        let slot = self.by_token.get_mut(usize::from(token));
        *slot.ok_or_else(|| format!("upstream's token is {token}"))? = index;
        Ok(())
    }

    /// The one that was submitted with this token.
    #[inline]
    fn of(&self, token: u16) -> Result<usize, String> {
        let slot = self.by_token.get(usize::from(token));
        Ok(*slot.ok_or_else(|| format!("the device's token is {token}"))?)
    }
}

impl Load for Upstream<'_, disk::Workload> {
    fn driver(&self) -> &'static str {
        self.configuration.name()
    }

    fn depth(&self) -> usize {
        self.workload.depth.min(BLK_SIZE)
    }

    fn turn(&mut self, requests: u64) -> Result<Turn, String> {
        let depth = self.depth();
        self.disk(|disk, listener| pump(disk, depth, requests, listener))
    }

    fn parts(&mut self) -> Result<Parts, String> {
        let depth = self.depth();
        self.disk(|disk, listener| parts(disk, depth, listener))
    }
}

impl Upstream<'_, disk::Workload> {
    /// Brings the device up, and lets `work` use it.
    fn disk<R>(
        &self,
        work: impl FnOnce(&mut Disk<'_, '_, '_>, &Listener<'_>) -> Result<R, String>,
    ) -> Result<R, String> {
        let depth = self.depth();
        self.with(|carrier, fault, rung, listener| {
            let blk = fault.check(VirtIOBlk::<OwnHal, _>::new(carrier));
            let mut blk = blk.map_err(|error| error.to_string())?;
            if self.configuration.is_best() {
                blk.disable_interrupts();
            }
            let blocks = Blocks::new(&self.workload, blk.capacity())?;
            let borrow = |_| {
                Ok(Borrowed {
                    request: BlkReq::default(),
                    buffer: DmaRegion::new(KernelDma, self.workload.block, PAGE_SIZE)?,
                    response: BlkResp::default(),
                })
            };
            let borrowed: Result<Vec<_>, doorbell::dma::DmaError> =
                (0..depth).map(borrow).collect();
            let mut disk = Disk {
                blk,
                blocks,
                write: self.workload.write,
                borrowed: borrowed.map_err(|error| error.to_string())?,
                slots: Slots::new(depth),
                rung,
            };
            work(&mut disk, listener)
        })
    }
}

/// What upstream's block driver borrows for a request.
struct Borrowed {
    request: BlkReq,
    buffer: DmaRegion<KernelDma>,
    response: BlkResp,
}

/// Fields are dropped in this order: the device is reset before its buffers go.
struct Disk<'t, 'f, 'd> {
    blk: VirtIOBlk<OwnHal, Carrier<'t, 'f>>,
    blocks: Blocks,
    write: bool,
    borrowed: Vec<Borrowed>,
    slots: Slots<BLK_SIZE>,
    rung: &'d AtomicU64,
}

impl Engine for Disk<'_, '_, '_> {
    #[inline]
    fn submit(&mut self) -> Result<bool, String> {
        let Some(index) = self.slots.free.pop() else {
            return Ok(false);
        };
        let sector = self.blocks.next_sector() as usize;
        let Borrowed {
            request,
            buffer,
            response,
        } = &mut self.borrowed[index];
        // SAFETY: the slot stays where it is, and is used no more until the request
        // with this token is complete, or the driver is dropped.
        let token = unsafe {
            if self.write {
                self.blk.write_blocks_nb(sector, request, buffer, response)
            } else {
                self.blk.read_blocks_nb(sector, request, buffer, response)
            }
        };
        self.slots.submitted(index, token)?;
        Ok(true)
    }

    #[inline]
    fn reap(&mut self) -> Result<u32, String> {
        let mut finished = 0;
        while let Some(token) = self.blk.peek_used() {
            let index = self.slots.of(token)?;
            let Borrowed {
                request,
                buffer,
                response,
            } = &mut self.borrowed[index];
            // SAFETY: the slot is the one that was submitted with this token.
            let done = unsafe {
                if self.write {
                    self.blk
                        .complete_write_blocks(token, request, buffer, response)
                } else {
                    self.blk
                        .complete_read_blocks(token, request, buffer, response)
                }
            };
            done.map_err(|error| error.to_string())?;
            self.slots.free.push(index);
            finished += 1;
        }
        Ok(finished)
    }

    /// Upstream rings for each request by itself.
    fn kick(&mut self) {}

    fn doorbells(&mut self) -> u64 {
        self.rung.load(Ordering::Relaxed)
    }
}

impl Load for Upstream<'_, frames::Workload> {
    fn driver(&self) -> &'static str {
        self.configuration.name()
    }

    fn depth(&self) -> usize {
        self.workload.depth.min(NET_SIZE)
    }

    fn turn(&mut self, requests: u64) -> Result<Turn, String> {
        let depth = self.depth();
        self.adapter(|adapter, listener| pump(adapter, depth, requests, listener))
    }

    fn parts(&mut self) -> Result<Parts, String> {
        let depth = self.depth();
        self.adapter(|adapter, listener| parts(adapter, depth, listener))
    }
}

impl Upstream<'_, frames::Workload> {
    /// Brings the device up, and lets `work` use it.
    fn adapter<R>(
        &self,
        work: impl FnOnce(&mut Adapter<'_, '_, '_>, &Listener<'_>) -> Result<R, String>,
    ) -> Result<R, String> {
        let depth = self.depth();
        self.with(|carrier, fault, rung, listener| {
            let net = VirtIONetRaw::<OwnHal, _, NET_SIZE>::new(carrier);
            let net = fault.check(net).map_err(|error| error.to_string())?;
            // Its queues are in it.
            let mut net = Box::new(net);
            if self.configuration.is_best() {
                net.disable_interrupts();
            }
            let frame = |_| {
                let mut frame = vec![0; MAX_HEADER + self.workload.frame];
                let header = net.fill_buffer_header(&mut frame)?;
                frame.truncate(header + self.workload.frame);
                frames::write_header(&mut frame[header..]);
                Ok(frame)
            };
            let sent: virtio_drivers::Result<Vec<_>> = (0..depth).map(frame).collect();
            let mut adapter = Adapter {
                net,
                frames: sent.map_err(|error| error.to_string())?,
                slots: Slots::new(depth),
                rung,
            };
            work(&mut adapter, listener)
        })
    }
}

/// No header of a frame is longer (virtio 1.2, 5.1.6: `struct virtio_net_hdr`).
const MAX_HEADER: usize = 12;

/// Fields are dropped in this order: the device is reset before its frames go.
struct Adapter<'t, 'f, 'd> {
    net: Box<VirtIONetRaw<OwnHal, Carrier<'t, 'f>, NET_SIZE>>,
    frames: Vec<Vec<u8>>,
    slots: Slots<NET_SIZE>,
    rung: &'d AtomicU64,
}

impl Engine for Adapter<'_, '_, '_> {
    #[inline]
    fn submit(&mut self) -> Result<bool, String> {
        let Some(index) = self.slots.free.pop() else {
            return Ok(false);
        };
        // SAFETY: the frame stays where it is, and is used no more until the request
        // with this token is complete, or the driver is dropped.
        let token = unsafe { self.net.transmit_begin(&self.frames[index]) };
        self.slots.submitted(index, token)?;
        Ok(true)
    }

    #[inline]
    fn reap(&mut self) -> Result<u32, String> {
        let mut finished = 0;
        while let Some(token) = self.net.poll_transmit() {
            let index = self.slots.of(token)?;
            // SAFETY: the frame is the one that was submitted with this token.
            let done = unsafe { self.net.transmit_complete(token, &self.frames[index]) };
            done.map_err(|error| error.to_string())?;
            self.slots.free.push(index);
            finished += 1;
        }
        Ok(finished)
    }

    /// Upstream rings for each frame by itself.
    fn kick(&mut self) {}

    fn doorbells(&mut self) -> u64 {
        self.rung.load(Ordering::Relaxed)
    }
}
