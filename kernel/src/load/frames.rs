//! Frames that are sent.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use doorbell::device::net::{ETHERNET_HEADER, Frame, Net};
use doorbell::device::{DeviceError, Driver as _, Setup};
use doorbell::queue::QueueError;
use doorbell::transport::Transport;

use super::{Engine, Load, Ours, Parts, Turn, parts, pump};
use crate::drive::{self, Listener};
use crate::platform::dma::KernelDma;

/// The pair of queues that is used.
const PAIR: u16 = 0;

/// The first EtherType for local experiments (IEEE 802).
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// What is asked of an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Bytes in a frame, with its header and without its check sum.
    pub frame: usize,
    /// Frames in flight.
    pub depth: usize,
}

/// Writes what a frame begins with: to everybody, from nobody.
pub fn write_header(frame: &mut [u8]) {
    frame[..6].fill(0xff);
    frame[6..12].fill(0x02);
    frame[12..ETHERNET_HEADER].copy_from_slice(&ETHERTYPE);
}

impl Load for Ours<'_, Workload> {
    fn driver(&self) -> &'static str {
        "ours"
    }

    fn depth(&self) -> usize {
        self.workload.depth
    }

    fn turn(&mut self, requests: u64) -> Result<Turn, String> {
        let depth = self.workload.depth;
        self.with(|busy, listener| pump(busy, depth, requests, listener))
    }

    fn parts(&mut self) -> Result<Parts, String> {
        let depth = self.workload.depth;
        self.with(|busy, listener| parts(busy, depth, listener))
    }
}

impl Ours<'_, Workload> {
    /// Brings the adapter up, and lets `work` use it.
    fn with<R>(
        &self,
        work: impl FnOnce(&mut Busy<&mut dyn Transport>, &Listener<'_>) -> Result<R, String>,
    ) -> Result<R, String> {
        let arena = self.arena;
        let mut opened = drive::open(arena.machine, &arena.unit, arena.way, arena.mode)?;
        let listener = &opened.listener;
        let Workload { frame: len, depth } = self.workload;
        let setup = Setup {
            queue_size: depth.next_power_of_two().min(0x8000) as u16,
            ..listener.setup(arena.features)
        };
        let wait = &mut listener.bring_up();
        let transport: &mut dyn Transport = &mut *opened.transport;
        let net = Net::new(transport, &setup, KernelDma, wait);
        let mut net = net.map_err(|error| error.to_string())?;
        net.set_interrupts(listener.interrupts());
        let frame = |_| {
            let mut frame = Frame::new(KernelDma, len)?;
            frame.set_len(len)?;
            write_header(&mut frame);
            Ok(frame)
        };
        let spare: Result<Vec<_>, DeviceError> = (0..depth).map(frame).collect();
        let mut busy = Busy {
            queue: net.transmit_queue(PAIR),
            net,
            spare: spare.map_err(|error| error.to_string())?,
        };
        work(&mut busy, listener)
    }
}

struct Busy<T: Transport> {
    net: Net<T, KernelDma>,
    queue: usize,
    spare: Vec<Frame<KernelDma>>,
}

impl<T: Transport> Engine for Busy<T> {
    #[inline]
    fn submit(&mut self) -> Result<bool, String> {
        let Some(frame) = self.spare.pop() else {
            return Ok(false);
        };
        match self.net.submit_transmit(PAIR, frame) {
            Ok(_) => Ok(true),
            Err((DeviceError::Queue(QueueError::Full { .. }), frame)) => {
                self.spare.push(frame);
                Ok(false)
            }
            Err((error, _)) => Err(error.to_string()),
        }
    }

    #[inline]
    fn reap(&mut self) -> Result<u32, String> {
        let mut finished = 0;
        while let Some(sent) = self
            .net
            .poll_transmit(PAIR)
            .map_err(|error| error.to_string())?
        {
            sent.result.map_err(|error| error.to_string())?;
            self.spare.push(sent.frame);
            finished += 1;
        }
        Ok(finished)
    }

    fn kick(&mut self) {
        self.net.queue(self.queue).kick();
    }

    fn doorbells(&mut self) -> u64 {
        self.net.queue(self.queue).doorbells()
    }
}
