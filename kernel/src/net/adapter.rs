//! doorbell's network device driver as a [`Wire`]: frames go from its buffers to
//! smoltcp and back, without a copy.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Range;

use doorbell::device::net::{ETHERNET_HEADER, Frame, HEADROOM, Net, Received};
use doorbell::device::{DeviceError, Driver as _, Setup};
use doorbell::dma::{Dma, DmaRegion};
use doorbell::transport::Transport;
use doorbell::virtio::Wait;

use super::wire::Wire;

/// Frames in each direction, where the queues have room for them.
const FRAMES: u16 = 64;

/// The MTU of a network that does not say another: Ethernet's.
const ETHERNET_MTU: u16 = 1500;

/// The largest MTU that is used: jumbo frames'.
const MAX_MTU: u16 = 9000;

/// The pair of queues that is used.
const PAIR: u16 = 0;

/// The address of an adapter that has none of its own: locally administered, and
/// nobody else's on a virtual network.
const ANY_MAC: [u8; 6] = [0x02, 0xd0, 0x0b, 0xe1, 0x10, 0x01];

/// A network device, with the frames that it works with.
pub struct Adapter<T: Transport, D: Dma + Clone> {
    net: Net<T, D>,
    mac: [u8; 6],
    mtu: u16,
    /// Frames that are not on their way out.
    spare: Vec<Frame<D>>,
    /// What ended it.
    fault: Option<DeviceError>,
    /// How many frames were dropped, since they were larger than the MTU.
    oversized: u64,
}

/// A frame that arrived.
pub struct Arrived<D: Dma> {
    buffer: DmaRegion<D>,
    frame: Range<usize>,
}

impl<D: Dma> AsRef<[u8]> for Arrived<D> {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[self.frame.clone()]
    }
}

impl<T: Transport, D: Dma + Clone> Adapter<T, D> {
    /// Brings the device up, and gives it buffers to receive into.
    ///
    /// # Errors
    ///
    /// What failed.
    pub fn new(
        transport: T,
        setup: &Setup,
        dma: D,
        wait: &mut dyn Wait,
    ) -> Result<Self, DeviceError> {
        let mut net = Net::new(transport, setup, dma.clone(), wait)?;
        let info = net.info();
        let mtu = info.mtu.unwrap_or(ETHERNET_MTU).min(MAX_MTU);
        let frame = ETHERNET_HEADER + usize::from(mtu);
        let (receive, transmit) = (net.receive_queue(PAIR), net.transmit_queue(PAIR));
        // A legacy device's packets take two descriptors each.
        let frames = |net: &mut Net<T, D>, queue| FRAMES.min(net.queue(queue).size() / 2);
        let count = frames(&mut net, receive);
        let len = net.receive_len().max(HEADROOM + frame);
        net.fill_receive(PAIR, count, len)?;
        let spare = (0..frames(&mut net, transmit)).map(|_| Frame::new(dma.clone(), frame));
        Ok(Self {
            mac: info.mac.unwrap_or(ANY_MAC),
            mtu,
            spare: spare.collect::<Result<_, _>>()?,
            fault: None,
            oversized: 0,
            net,
        })
    }

    /// The driver.
    pub fn net(&mut self) -> &mut Net<T, D> {
        &mut self.net
    }

    /// How many frames were dropped, since they were larger than the MTU.
    pub fn oversized(&self) -> u64 {
        self.oversized
    }

    /// Takes a result, and keeps the first error.
    fn check<R>(&mut self, result: Result<R, DeviceError>) -> Option<R> {
        result
            .inspect_err(|error| {
                self.fault.get_or_insert(*error);
            })
            .ok()
    }

    /// Gives a buffer to the device.
    fn post(&mut self, buffer: DmaRegion<D>) {
        let submitted = self.net.submit_receive(PAIR, buffer);
        self.check(submitted.map_err(|(error, _)| error));
    }

    /// The next buffer that the device has filled.
    fn next(&mut self) -> Option<(Arrived<D>, u16)> {
        let received = self.net.poll_receive(PAIR);
        let Received {
            buffer,
            result,
            following,
            ..
        } = self.check(received)??;
        let frame = self.check(result)?;
        Some((Arrived { buffer, frame }, following))
    }
}

impl<T: Transport, D: Dma + Clone> Wire for Adapter<T, D> {
    type Frame = Arrived<D>;

    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn mtu(&self) -> usize {
        self.mtu.into()
    }

    fn link_up(&mut self) -> Result<bool, String> {
        self.net.link_up().map_err(|error| error.to_string())
    }

    fn receive(&mut self) -> Option<Arrived<D>> {
        // No more than there are buffers, so that a flood of such frames ends.
        for _ in 0..FRAMES {
            let (arrived, mut following) = self.next()?;
            if following == 0 {
                return Some(arrived);
            }
            // A frame of the MTU fits in one buffer.
            self.oversized += 1;
            self.post(arrived.buffer);
            while following > 0 {
                let (arrived, after) = self.next()?;
                following = after;
                self.post(arrived.buffer);
            }
        }
        None
    }

    fn recycle(&mut self, frame: Arrived<D>) {
        self.post(frame.buffer);
    }

    fn can_send(&mut self) -> bool {
        while self.spare.is_empty() {
            let sent = self.net.poll_transmit(PAIR);
            let Some(Some(sent)) = self.check(sent) else {
                return false;
            };
            self.spare.push(sent.frame);
            self.check(sent.result);
        }
        true
    }

    fn send<R>(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        let capacity = self.spare.last().map_or(0, Frame::capacity);
        let frame = self.spare.pop_if(|_| capacity >= len);
        let Some(mut frame) = frame else {
            // Nobody who keeps to what `Wire` asks for comes here.
            self.check::<()>(Err(DeviceError::BufferTooShort {
                len: capacity,
                needed: len,
            }));
            return fill(&mut alloc::vec![0; len]);
        };
        let sized = frame.set_len(len);
        let result = fill(&mut frame);
        self.check(sized);
        if let Err((error, frame)) = self.net.submit_transmit(PAIR, frame) {
            self.spare.push(frame);
            self.check::<()>(Err(error));
        }
        result
    }

    fn flush(&mut self) -> Result<(), String> {
        let (receive, transmit) = (self.net.receive_queue(PAIR), self.net.transmit_queue(PAIR));
        self.net.queue(transmit).kick();
        self.net.queue(receive).kick();
        self.fault.map_or(Ok(()), |fault| Err(fault.to_string()))
    }
}

#[cfg(test)]
mod tests;
