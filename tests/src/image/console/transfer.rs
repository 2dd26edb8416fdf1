//! Data through a port without a copy: many buffers in flight, and one look at the
//! doorbell a batch.

use alloc::format;
use alloc::vec::Vec;

use doorbell::device::console::{receive_queue, transmit_queue};
use doorbell::device::{DeviceError, Driver as _};
use doorbell::dma::DmaRegion;
use doorbell::virtio::Wait as _;
use doorbell_kernel::platform::dma::KernelDma;
use doorbell_tests::{Outcome, Stop, ensure};

use super::Tested;
use crate::pattern::{self, Digest};

/// Receive buffers that the device has, and their size: QEMU fills no more at once.
const RECEIVES: usize = 32;
const RECEIVE_LEN: usize = 4096;
/// Transmit buffers, and their size.
pub(super) const SENDS: usize = 16;
const SEND_LEN: usize = 16 << 10;

/// Seeds of what the host sends, and of what this sends.
const HOST_SEED: u64 = 0x1122_3344_5566_7788;
const GUEST_SEED: u64 = 0x0F1E_2D3C_4B5A_6978;

/// What goes through a port in one direction.
struct Stream {
    seed: u64,
    at: u64,
    end: u64,
    digest: Digest,
}

impl Stream {
    fn new(seed: u64, bytes: u64) -> Self {
        Self {
            seed,
            at: 0,
            end: bytes,
            digest: Digest::new(),
        }
    }

    /// Makes as much of it as there is, but no more than fits, and says how much.
    fn make(&mut self, into: &mut [u8]) -> usize {
        let len = (self.end - self.at).min(into.len() as u64) as usize;
        pattern::fill(self.at, self.seed, &mut into[..len]);
        self.pass(&into[..len]);
        len
    }

    /// Takes in what came.
    fn take(&mut self, bytes: &[u8]) -> Outcome {
        pattern::check(self.at, self.seed, bytes)?;
        self.pass(bytes);
        let (at, end) = (self.at, self.end);
        ensure!(at <= end, "{at} bytes came, {end} were sent");
        Ok(())
    }

    fn pass(&mut self, bytes: &[u8]) {
        self.digest.add(bytes);
        self.at += bytes.len() as u64;
    }

    fn is_through(&self) -> bool {
        self.at == self.end
    }
}

/// Buffers that are not in flight.
type Spare = Vec<DmaRegion<KernelDma>>;

fn buffers(count: usize, len: usize) -> Result<Spare, Stop> {
    let buffers = (0..count).map(|_| DmaRegion::new(KernelDma, len, 4096));
    Ok(buffers.collect::<Result<_, _>>()?)
}

impl Tested<'_, '_> {
    /// Gives the device the receive buffers of a port.
    pub(super) fn post(&mut self, port: u32) -> Outcome {
        for buffer in buffers(RECEIVES, RECEIVE_LEN)? {
            let posted = self.console.submit_receive(port, buffer);
            posted.map_err(|(error, _)| error)?;
        }
        self.console.queue(receive_queue(port)).kick();
        Ok(())
    }

    /// Has the host send so many bytes.
    pub(super) fn send(&self, port: u32, bytes: u64) -> Outcome {
        self.far(port)?.send(bytes, HOST_SEED)
    }

    /// Takes all that the host was to send.
    pub(super) fn take(&mut self, port: u32, bytes: u64) -> Outcome {
        let mut inward = Stream::new(HOST_SEED, bytes);
        let mut patience = self.session.listener.patience();
        while !inward.is_through() {
            if self.receive(port, &mut inward)? > 0 {
                patience = self.session.listener.patience();
            } else {
                ensure!(patience.again(), "{} of {bytes} bytes came", inward.at);
            }
        }
        self.agree(port, &format!("{} -", inward.digest))
    }

    /// So many bytes each way at the same time.
    pub(super) fn exchange(&mut self, port: u32, bytes: u64) -> Outcome {
        self.send(port, bytes)?;
        self.far(port)?.expect(bytes, GUEST_SEED)?;
        let mut inward = Stream::new(HOST_SEED, bytes);
        let mut outward = Stream::new(GUEST_SEED, bytes);
        let mut spare = buffers(SENDS, SEND_LEN)?;
        // A host that went may have left one.
        while self.console.poll_transmit(port)?.is_some() {}
        let mut patience = self.session.listener.patience();
        while !inward.is_through() || !outward.is_through() || spare.len() < SENDS {
            let received = self.receive(port, &mut inward)?;
            let sent = self.transmit(port, &mut outward, &mut spare)?;
            if received + sent > 0 {
                patience = self.session.listener.patience();
                continue;
            }
            ensure!(
                patience.again(),
                "of {bytes} bytes {} came and {} went, with {} buffers in flight",
                inward.at,
                outward.at,
                SENDS - spare.len()
            );
        }
        self.agree(port, &format!("{} {}", inward.digest, outward.digest))
    }

    /// Whether the host's digests are these.
    pub(super) fn agree(&self, port: u32, digests: &str) -> Outcome {
        let host = self.far(port)?.done()?;
        ensure!(host == digests, "digests {digests}, the host's {host}");
        Ok(())
    }

    /// Takes in what came, and says how many buffers.
    fn receive(&mut self, port: u32, stream: &mut Stream) -> Result<usize, Stop> {
        let mut count = 0;
        while let Some(received) = self.console.poll_receive(port)? {
            stream.take(&received.buffer[..received.result?])?;
            let posted = self.console.submit_receive(port, received.buffer);
            posted.map_err(|(error, _)| error)?;
            count += 1;
        }
        if count > 0 {
            self.console.queue(receive_queue(port)).kick();
        }
        Ok(count)
    }

    /// Takes back what was sent, and sends more; says how many buffers moved.
    fn transmit(
        &mut self,
        port: u32,
        stream: &mut Stream,
        spare: &mut Spare,
    ) -> Result<usize, DeviceError> {
        let (mut back, mut gone) = (0, 0);
        while let Some(sent) = self.console.poll_transmit(port)? {
            sent.result?;
            spare.push(sent.buffer);
            back += 1;
        }
        while !stream.is_through()
            && let Some(mut buffer) = spare.pop()
        {
            let len = stream.make(&mut buffer);
            if let Err((error, buffer)) = self.console.submit_transmit(port, buffer, len) {
                spare.push(buffer);
                return Err(error);
            }
            gone += 1;
        }
        if gone > 0 {
            self.console.queue(transmit_queue(port)).kick();
        }
        Ok(back + gone)
    }

    /// Sends until the host, which goes after so many bytes, has gone. Then sending
    /// is refused by the port's number, and all that was in flight came back unread,
    /// but for the one that the device was in the middle of.
    pub(super) fn send_until_cut(&mut self, port: u32, after: u64) -> Outcome {
        self.far_mut(port)?.cut(after, GUEST_SEED)?;
        let mut stream = Stream::new(GUEST_SEED, u64::MAX);
        let mut spare = buffers(SENDS, SEND_LEN)?;
        let mut patience = self.session.listener.patience();
        let refused = loop {
            match self.transmit(port, &mut stream, &mut spare) {
                Err(error) => break error,
                Ok(0) => ensure!(patience.again(), "the host took {after} bytes, and stayed"),
                Ok(_) => patience = self.session.listener.patience(),
            }
            // What a host that goes has not read is bounded by its socket.
            let unread = stream.at.saturating_sub(after);
            ensure!(unread < 64 << 20, "{unread} bytes went after the end");
            while let Some(event) = self.console.poll_event()? {
                let expected = super::Event::HostClosed(port);
                ensure!(event == expected, "{event:?}, not {expected:?}");
            }
        };
        let expected = DeviceError::PortClosed { port };
        ensure!(refused == expected, "{refused}, not {expected}");
        let mut patience = self.session.listener.patience();
        while spare.len() + 1 < SENDS {
            match self.console.poll_transmit(port)? {
                Some(sent) => spare.push(sent.buffer),
                None => {
                    let lost = SENDS - spare.len();
                    ensure!(patience.again(), "{lost} buffers did not come back");
                }
            }
        }
        let mut read = Stream::new(GUEST_SEED, after);
        let mut bytes = alloc::vec![0; after as usize];
        read.make(&mut bytes);
        self.agree(port, &format!("- {}", read.digest))
    }
}
