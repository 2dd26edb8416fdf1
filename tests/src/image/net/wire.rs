//! A device that is up, and the host's end of its wire.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use doorbell::device::net::{ETHERNET_HEADER, Frame, Net};
use doorbell::device::{DeviceError, Driver as _, Setup};
use doorbell::dma::DmaRegion;
use doorbell::queue::QueueError;
use doorbell::transport::Transport;
use doorbell::virtio::Wait as _;
use doorbell_kernel::drive;
use doorbell_kernel::platform::dma::KernelDma;
use doorbell_kernel::record::Argument;
use doorbell_tests::{Outcome, Stop, ensure};

use super::frame::{HOST, Mac, SHORTEST, Stamp, Wanted, sent_by_host};
use crate::pattern::Digest;
use crate::session::Session;

/// The pair of queues that is used.
pub(super) const PAIR: u16 = 0;

pub(super) type Driver<'t> = Net<&'t mut dyn Transport, KernelDma>;

/// Frames that were sent to see which of them come back.
pub(super) struct Probe<const N: usize> {
    /// The number of the first of them. The device's own comes last.
    first: u64,
    sources: [Mac; N],
}

/// The device and its session.
pub(super) struct Wire<'a, 't> {
    pub(super) net: Driver<'t>,
    pub(super) session: &'a Session<'a>,
    stamp: Stamp,
    /// The number of the next frame.
    next: u64,
    /// Frames that were sent.
    spare: Vec<Frame<KernelDma>>,
    /// What came of the frame that is coming.
    frame: Vec<u8>,
    /// How many receive buffers the device has.
    depth: usize,
}

impl<'a, 't> Wire<'a, 't> {
    pub(super) fn new(net: Driver<'t>, session: &'a Session<'a>) -> Self {
        Self {
            net,
            session,
            stamp: Stamp::new(),
            next: 0,
            spare: Vec::new(),
            frame: Vec::new(),
            depth: 0,
        }
    }

    /// Begins anew: what one test that failed left under way is nothing to the next.
    pub(super) fn begin(&mut self) {
        self.stamp = Stamp::new();
        self.frame.clear();
    }

    /// Brings the device up once more.
    pub(super) fn open(
        transport: &'t mut dyn Transport,
        setup: &Setup,
        session: &'a Session<'a>,
    ) -> Result<Self, DeviceError> {
        let listener = session.listener;
        let mut net = Net::new(transport, setup, KernelDma, &mut listener.bring_up())?;
        net.set_interrupts(listener.interrupts());
        Ok(Self::new(net, session))
    }

    /// Says how often the doorbells were rung, for a device that is not shown.
    pub(super) fn rang(&mut self) {
        let doorbells = drive::doorbells(&mut self.net);
        self.session.witness.rang(self.session.unit, doorbells);
    }

    /// The device's MAC address.
    pub(super) fn mac(&self) -> Mac {
        self.net.info().mac.unwrap_or_default()
    }

    /// A seed for what the host sends.
    pub(super) fn seed(&self) -> u64 {
        self.stamp.seed()
    }

    /// Asks the host for something about this device.
    pub(super) fn ask<const N: usize>(
        &self,
        action: &str,
        arguments: [(&str, Argument<'_>); N],
    ) -> Result<String, Stop> {
        let Session { witness, unit, .. } = self.session;
        witness.ask(&unit.place, action, arguments)
    }

    /// How many receive buffers the device has: so many frames may be under way.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// Gives the device as many receive buffers of `len` bytes as the queue takes.
    pub(super) fn post(&mut self, len: usize) -> Result<(), DeviceError> {
        self.depth = 0;
        loop {
            let buffer = DmaRegion::new(KernelDma, len, 64)?;
            match self.net.submit_receive(PAIR, buffer) {
                Ok(_) => self.depth += 1,
                Err((DeviceError::Queue(QueueError::Full { .. }), _)) => break,
                Err((error, _)) => return Err(error),
            }
        }
        self.kick_receive();
        Ok(())
    }

    fn kick_receive(&mut self) {
        let queue = self.net.receive_queue(PAIR);
        self.net.queue(queue).kick();
    }

    fn kick_transmit(&mut self) {
        let queue = self.net.transmit_queue(PAIR);
        self.net.queue(queue).kick();
    }

    fn in_flight(&mut self) -> u16 {
        let queue = self.net.transmit_queue(PAIR);
        self.net.queue(queue).in_flight()
    }

    /// Submits the next frame, without ringing. It is to come back to `from`. Its
    /// payload is for `digest`.
    fn submit(&mut self, from: Mac, len: usize, digest: &mut Digest) -> Result<(), DeviceError> {
        let spare = self.spare.pop().filter(|frame| frame.capacity() >= len);
        let mut frame = match spare {
            Some(frame) => frame,
            None => Frame::new(KernelDma, len)?,
        };
        frame.set_len(len)?;
        let wanted = Wanted {
            number: self.next,
            to: HOST,
            from,
            len,
        };
        self.stamp.write(wanted, &mut frame);
        let mut with_it = *digest;
        with_it.add(&frame[ETHERNET_HEADER..]);
        match self.net.submit_transmit(PAIR, frame) {
            Ok(_) => {
                self.next += 1;
                *digest = with_it;
                Ok(())
            }
            Err((error, frame)) => {
                self.spare.push(frame);
                Err(error)
            }
        }
    }

    /// Takes back what was sent, and says whether there was anything.
    fn reap(&mut self) -> Result<bool, DeviceError> {
        let before = self.spare.len();
        while let Some(sent) = self.net.poll_transmit(PAIR)? {
            sent.result?;
            self.spare.push(sent.frame);
        }
        Ok(self.spare.len() > before)
    }

    /// Takes what came, as frames, and says whether there was anything. The buffers
    /// go back together.
    fn receive(&mut self, mut each: impl FnMut(&[u8]) -> Outcome) -> Result<bool, Stop> {
        let queue = self.net.receive_queue(PAIR);
        let mut came = false;
        for _ in 0..self.net.queue(queue).size() {
            let Some(received) = self.net.poll_receive(PAIR)? else {
                break;
            };
            came = true;
            let piece = &received.buffer[received.result?];
            self.frame.extend_from_slice(piece);
            let submitted = self.net.submit_receive(PAIR, received.buffer);
            submitted.map_err(|(error, _)| error)?;
            if received.following == 0 {
                let outcome = each(&self.frame);
                self.frame.clear();
                outcome?;
            }
        }
        if came {
            self.kick_receive();
        }
        Ok(came)
    }

    /// Waits until `each`, which gets every frame that comes, says that it is enough,
    /// and nothing is being sent any more.
    pub(super) fn until(
        &mut self,
        what: &str,
        mut each: impl FnMut(&[u8]) -> Result<bool, Stop>,
    ) -> Outcome {
        let mut enough = false;
        let mut patience = self.session.listener.patience();
        loop {
            let sent = self.reap()?;
            let came = self.receive(|frame| {
                enough |= each(frame)?;
                Ok(())
            })?;
            if enough && self.in_flight() == 0 {
                return Ok(());
            }
            if sent || came {
                patience = self.session.listener.patience();
            } else {
                ensure!(patience.again(), "{what} did not come");
            }
        }
    }

    /// Sends `count` frames, of which number `n` is of `len(n)` bytes, as many at once as
    /// `depth` says, and checks what comes back, and what the host says of them.
    pub(super) fn echo(&mut self, count: u64, depth: usize, len: impl Fn(u64) -> usize) -> Outcome {
        // What the host counted before is not stamp.
        self.ask("net-moved", [("frames", 0u64.into())])?;
        let (first, mac, stamp) = (self.next, self.mac(), self.stamp);
        let (mut back, mut bytes, mut digest) = (0, 0, Digest::new());
        let mut patience = self.session.listener.patience();
        while back < count || self.in_flight() > 0 {
            let mut moved = false;
            let sent = |wire: &Self| wire.next - first;
            while sent(self) < count && sent(self) - back < depth as u64 {
                let len = len(sent(self));
                match self.submit(mac, len, &mut digest) {
                    Ok(()) => bytes += len - ETHERNET_HEADER,
                    Err(DeviceError::Queue(QueueError::Full { .. })) => break,
                    Err(error) => return Err(error.into()),
                }
                moved = true;
            }
            if moved {
                self.kick_transmit();
            }
            moved |= self.reap()?;
            moved |= self.receive(|frame| {
                if stamp.number(frame).is_none() {
                    return Ok(());
                }
                let wanted = Wanted {
                    number: first + back,
                    to: mac,
                    from: HOST,
                    len: len(back),
                };
                back += 1;
                stamp.check(wanted, frame)
            })?;
            if moved {
                patience = self.session.listener.patience();
                continue;
            }
            ensure!(
                patience.again(),
                "{back} of {count} frames came back, and {} are being sent",
                self.in_flight()
            );
        }
        let told = self.ask("net-moved", [("frames", count.into())])?;
        let wanted = format!("{count} {bytes} {digest}");
        ensure!(told == wanted, "the host had {told}, of {wanted}");
        Ok(())
    }

    /// Sends a frame from each of `sources`, that goes back there, and one of its own,
    /// and says which came before that. Nothing else is under way then.
    pub(super) fn heard<const N: usize>(&mut self, sources: [Mac; N]) -> Result<[bool; N], Stop> {
        let probe = self.send(sources)?;
        self.hear(probe)
    }

    /// The first half of [`heard`](Self::heard).
    pub(super) fn send<const N: usize>(&mut self, sources: [Mac; N]) -> Result<Probe<N>, Stop> {
        let first = self.next;
        for from in sources.into_iter().chain([self.mac()]) {
            self.submit(from, SHORTEST, &mut Digest::new())?;
        }
        self.kick_transmit();
        Ok(Probe { first, sources })
    }

    /// The second half of [`heard`](Self::heard).
    pub(super) fn hear<const N: usize>(&mut self, probe: Probe<N>) -> Result<[bool; N], Stop> {
        let (mac, stamp) = (self.mac(), self.stamp);
        let mut heard = [false; N];
        self.until("the device's own frame", |frame| {
            let by_host = sent_by_host(frame).map(<[u8]>::len);
            ensure!(
                by_host.is_none(),
                "{by_host:?} bytes of the host's came, which should not have"
            );
            let Some(number) = stamp.number(frame) else {
                return Ok(false);
            };
            let place = number
                .checked_sub(probe.first)
                .map(|place| place as usize)
                .filter(|place| *place <= N);
            let Some(place) = place else {
                return Err(Stop::failed(format_args!(
                    "frame {number} came, which should not have"
                )));
            };
            let wanted = Wanted {
                number,
                to: *probe.sources.get(place).unwrap_or(&mac),
                from: HOST,
                len: SHORTEST,
            };
            stamp.check(wanted, frame)?;
            match heard.get_mut(place) {
                Some(heard) => *heard = true,
                None => return Ok(true),
            }
            Ok(false)
        })?;
        Ok(heard)
    }

    /// Sends a frame and waits until the device has taken it, not until it comes back.
    pub(super) fn lose(&mut self) -> Outcome {
        self.submit(self.mac(), SHORTEST, &mut Digest::new())?;
        self.kick_transmit();
        let mut patience = self.session.listener.patience();
        while !self.reap()? {
            ensure!(patience.again(), "the device did not take a frame");
        }
        Ok(())
    }
}
