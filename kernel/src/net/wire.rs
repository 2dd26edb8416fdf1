//! Frames between a network adapter and smoltcp.

use alloc::string::String;

use doorbell::device::net::ETHERNET_HEADER;
use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

/// A network adapter: it takes and gives whole Ethernet frames, without their
/// check sum, and never waits.
pub trait Wire {
    /// A frame that arrived.
    type Frame: AsRef<[u8]>;

    /// The adapter's Ethernet address.
    fn mac(&self) -> [u8; 6];

    /// The largest payload of a frame, in bytes.
    fn mtu(&self) -> usize;

    /// Whether the link is up.
    ///
    /// # Errors
    ///
    /// Why the adapter cannot go on.
    fn link_up(&mut self) -> Result<bool, String>;

    /// Takes a frame that has arrived, if one has.
    fn receive(&mut self) -> Option<Self::Frame>;

    /// Gives a frame's memory back.
    fn recycle(&mut self, frame: Self::Frame);

    /// Whether there is room to send a frame.
    fn can_send(&mut self) -> bool;

    /// Sends a frame of `len` bytes, at most [`mtu`](Self::mtu) and a header,
    /// which `fill` writes. Called after [`can_send`](Self::can_send) only.
    fn send<R>(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R;

    /// Lets the device know of what was sent and recycled since.
    ///
    /// # Errors
    ///
    /// What went wrong since, and cannot be mended.
    fn flush(&mut self) -> Result<(), String>;
}

/// A [`Wire`] as smoltcp sees it.
pub(super) struct Port<W: Wire> {
    pub(super) wire: W,
    /// The frame that smoltcp has looked at.
    seen: Option<W::Frame>,
}

impl<W: Wire> Port<W> {
    pub(super) fn new(wire: W) -> Self {
        Self { wire, seen: None }
    }

    fn recycle(&mut self) {
        if let Some(frame) = self.seen.take() {
            self.wire.recycle(frame);
        }
    }

    /// Lets the device know of all that was done.
    pub(super) fn flush(&mut self) -> Result<(), String> {
        self.recycle();
        self.wire.flush()
    }
}

impl<W: Wire> Device for Port<W> {
    type RxToken<'a>
        = RxToken<'a, W>
    where
        Self: 'a;
    type TxToken<'a>
        = TxToken<'a, W>
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(RxToken<'_, W>, TxToken<'_, W>)> {
        self.recycle();
        // A frame may need an answer: without room for one it waits.
        if !self.wire.can_send() {
            return None;
        }
        self.seen = Some(self.wire.receive()?);
        let frame = self.seen.as_ref()?;
        Some((RxToken(frame), TxToken(&mut self.wire)))
    }

    fn transmit(&mut self, _: Instant) -> Option<TxToken<'_, W>> {
        self.recycle();
        self.wire.can_send().then_some(TxToken(&mut self.wire))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.wire.mtu() + ETHERNET_HEADER;
        capabilities
    }
}

/// A frame that has arrived.
pub(super) struct RxToken<'a, W: Wire>(&'a W::Frame);

impl<W: Wire> phy::RxToken for RxToken<'_, W> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, look: F) -> R {
        look(self.0.as_ref())
    }
}

/// Room for a frame.
pub(super) struct TxToken<'a, W: Wire>(&'a mut W);

impl<W: Wire> phy::TxToken for TxToken<'_, W> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        self.0.send(len, fill)
    }
}
