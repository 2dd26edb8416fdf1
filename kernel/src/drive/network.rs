//! A network device, driven: a request is a frame that goes out.

use alloc::format;
use alloc::string::{String, ToString};

use doorbell::device::net::{Frame, Net};
use doorbell::device::{DeviceError, Driver, Setup};
use doorbell::transport::Transport;

use super::Listener;
use super::driven::Driven;
use crate::platform::dma::KernelDma;

/// Bytes of a frame: the least that Ethernet has.
const FRAME: usize = 60;

/// IEEE 802's EtherType for local experiments, which nobody answers.
const EXPERIMENT: [u8; 2] = [0x88, 0xb5];

/// The pair of queues that is used.
const PAIR: u16 = 0;

pub(super) struct DrivenNet<'t> {
    net: Net<&'t mut dyn Transport, KernelDma>,
    spare: Option<Frame<KernelDma>>,
}

impl<'t> DrivenNet<'t> {
    pub(super) fn new(
        transport: &'t mut dyn Transport,
        setup: &Setup,
        listener: &Listener<'_>,
    ) -> Result<Self, DeviceError> {
        let net = Net::new(transport, setup, KernelDma, &mut listener.bring_up())?;
        Ok(Self { net, spare: None })
    }

    /// A frame from this device to itself, so that no switch sends it to others.
    fn frame(&self) -> Result<Frame<KernelDma>, DeviceError> {
        let mut frame = Frame::new(KernelDma, FRAME)?;
        let mac = self.net.info().mac.unwrap_or_default();
        frame[..6].copy_from_slice(&mac);
        frame[6..12].copy_from_slice(&mac);
        frame[12..14].copy_from_slice(&EXPERIMENT);
        Ok(frame)
    }
}

impl Driven for DrivenNet<'_> {
    fn submit(&mut self) -> Result<(), DeviceError> {
        let frame = match self.spare.take() {
            Some(frame) => frame,
            None => self.frame()?,
        };
        let submitted = self.net.submit_transmit(PAIR, frame);
        submitted.map(drop).map_err(|(error, _)| error)
    }

    fn reap(&mut self) -> Result<bool, DeviceError> {
        let Some(sent) = self.net.poll_transmit(PAIR)? else {
            return Ok(false);
        };
        self.spare = Some(sent.frame);
        sent.result.map(|()| true)
    }

    fn driver(&mut self) -> &mut dyn Driver<KernelDma> {
        &mut self.net
    }

    fn request_queue(&self) -> usize {
        self.net.transmit_queue(PAIR)
    }

    fn exercise(&mut self, listener: &Listener<'_>) -> Result<String, DeviceError> {
        let frame = self.frame()?;
        self.net.send(&frame, &mut listener.patience())?;
        let info = self.net.info();
        let mac = info.mac.map_or("none".to_string(), |mac| {
            let [a, b, c, d, e, f] = mac;
            format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
        });
        let mtu = info
            .mtu
            .map_or("not said".to_string(), |mtu| mtu.to_string());
        let link = if self.net.link_up()? { "up" } else { "down" };
        let buffers = if info.mergeable {
            ", mergeable buffers"
        } else {
            ""
        };
        Ok(format!(
            "MAC {mac}, MTU {mtu}, link {link}, {} of {} pairs of queues{buffers}; sent {FRAME} bytes",
            self.net.pairs(),
            info.max_pairs,
        ))
    }
}
