//! The control queue (virtio 1.2, 5.1.6.5): one command at a time, and waited for.

use virtio_spec::net::{Ctrl, F, ctrl};

use super::info::{self, check_mac, config};
use super::{Frame, Net};
use crate::device::{DeviceError, one_len};
use crate::dma::{Dma, DmaRegion};
use crate::queue::Buffer;
use crate::transport::Transport;
use crate::virtio::{Features, Wait};

/// A command takes up to four buffers: class and command, two of data, `ack`.
pub(super) const BUFFERS: u16 = 4;

/// Values of `ack` (5.1.6.5).
mod ack {
    pub(super) const OK: u8 = 0;
    pub(super) const ERR: u8 = 1;
    /// What no device writes.
    pub(super) const NONE: u8 = 0xff;
}

/// A command's class, number, and name.
struct Command(Ctrl, u8, &'static str);

const PROMISC: Command = Command(
    Ctrl::Rx,
    ctrl::Rx::Promisc as u8,
    "VIRTIO_NET_CTRL_RX_PROMISC",
);
const ALLMULTI: Command = Command(
    Ctrl::Rx,
    ctrl::Rx::Allmulti as u8,
    "VIRTIO_NET_CTRL_RX_ALLMULTI",
);
const TABLE_SET: Command = Command(
    Ctrl::Mac,
    ctrl::Mac::TableSet as u8,
    "VIRTIO_NET_CTRL_MAC_TABLE_SET",
);
const ADDR_SET: Command = Command(
    Ctrl::Mac,
    ctrl::Mac::AddrSet as u8,
    "VIRTIO_NET_CTRL_MAC_ADDR_SET",
);
const PAIRS_SET: Command = Command(
    Ctrl::Mq,
    ctrl::Mq::VqPairsSet as u8,
    "VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET",
);

/// A buffer of a command's data, in two pieces.
type Data<'a> = [&'a [u8]; 2];

/// The calls that set something. Each waits for the device's answer, and fails with
/// [`DeviceError::Unsupported`] where the device does not have the command, with
/// [`DeviceError::Refused`] if it refuses it, and with [`DeviceError::Dma`] if there
/// is no memory for it. After [`DeviceError::Timeout`], [`DeviceError::BadAnswer`]
/// and a queue's failure the device is given up.
impl<T: Transport, D: Dma + Clone> Net<T, D> {
    /// Lets all frames in, whomever they are for (5.1.6.5.1).
    ///
    /// # Errors
    ///
    /// As all calls that set something: [`DeviceError::Unsupported`] without
    /// VIRTIO_NET_F_CTRL_RX.
    pub fn set_promiscuous(&mut self, on: bool, wait: &mut dyn Wait) -> Result<(), DeviceError> {
        self.require(F::CTRL_RX)?;
        self.command(PROMISC, &[[&[u8::from(on)], &[]]], wait)
    }

    /// Lets in all frames that are for a group (5.1.6.5.1).
    ///
    /// # Errors
    ///
    /// As [`set_promiscuous`](Self::set_promiscuous).
    pub fn set_all_multicast(&mut self, on: bool, wait: &mut dyn Wait) -> Result<(), DeviceError> {
        self.require(F::CTRL_RX)?;
        self.command(ALLMULTI, &[[&[u8::from(on)], &[]]], wait)
    }

    /// Says for which addresses frames are let in beside the device's own
    /// (5.1.6.5.2). A device may let others in too.
    ///
    /// # Errors
    ///
    /// As [`set_promiscuous`](Self::set_promiscuous), and
    /// [`DeviceError::MacAddress`] if one is in the wrong list.
    pub fn set_mac_filter(
        &mut self,
        unicast: &[[u8; 6]],
        multicast: &[[u8; 6]],
        wait: &mut dyn Wait,
    ) -> Result<(), DeviceError> {
        self.require(F::CTRL_RX)?;
        unicast.iter().try_for_each(|&mac| check_mac(mac, false))?;
        multicast.iter().try_for_each(|&mac| check_mac(mac, true))?;
        // Lists that are too long for 32 bits are too long for a buffer.
        let entries = |list: &[[u8; 6]]| (list.len() as u32).to_le_bytes();
        let (singles, groups) = (entries(unicast), entries(multicast));
        let data = [
            [&singles[..], unicast.as_flattened()],
            [&groups[..], multicast.as_flattened()],
        ];
        self.command(TABLE_SET, &data, wait)
    }

    /// Changes the MAC address (5.1.6.5.2): by a command, or on a legacy device
    /// that does not have it by its configuration (5.1.4.3).
    ///
    /// # Errors
    ///
    /// As all calls that set something: [`DeviceError::Unsupported`] where there
    /// is neither way, and [`DeviceError::MacAddress`] if it is a group's address.
    pub fn set_mac(&mut self, mac: [u8; 6], wait: &mut dyn Wait) -> Result<(), DeviceError> {
        check_mac(mac, false)?;
        if self.link.has(F::CTRL_MAC_ADDR) {
            self.command(ADDR_SET, &[[&mac, &[]]], wait)?;
        } else if self.link.has(F::MAC) && !self.link.has(Features::VERSION_1) {
            self.write_mac(mac)?;
        } else {
            return Err(DeviceError::Unsupported);
        }
        self.info.mac = Some(mac);
        Ok(())
    }

    /// Writes the field `mac`, from the first to the last byte as a device may
    /// expect it (5.1.6.5.2.3), and looks whether the device took it.
    fn write_mac(&mut self, mac: [u8; 6]) -> Result<(), DeviceError> {
        let transport = self.link.live()?;
        transport.write_config(config::MAC, 1, &mac)?;
        match info::read_mac(transport)? {
            found if found == mac => Ok(()),
            _ => Err(DeviceError::Unsupported),
        }
    }

    /// Switches on the first `pairs` of the pairs of queues that are set up, and the
    /// others off (5.1.6.5.6). What is in flight on these comes back at the latest
    /// when the device is [closed](crate::device::Driver::close).
    ///
    /// # Errors
    ///
    /// As all calls that set something, and [`DeviceError::PairCount`].
    pub fn set_pairs(&mut self, pairs: u16, wait: &mut dyn Wait) -> Result<(), DeviceError> {
        if !(1..=self.pairs).contains(&pairs) {
            return Err(DeviceError::PairCount {
                wanted: pairs,
                pairs: self.pairs,
            });
        }
        if !self.link.has(F::MQ) {
            // There is one, and it is on.
            return Ok(());
        }
        self.command(PAIRS_SET, &[[&pairs.to_le_bytes(), &[]]], wait)?;
        self.active = pairs;
        Ok(())
    }

    fn require(&self, feature: F) -> Result<(), DeviceError> {
        match self.link.has(feature) {
            true => Ok(()),
            false => Err(DeviceError::Unsupported),
        }
    }

    /// Gives the device a command and waits for its `ack`. The buffers are as a
    /// legacy device without VIRTIO_F_ANY_LAYOUT wants them (5.1.6.6), and no other
    /// minds.
    fn command(
        &mut self,
        Command(class, command, name): Command,
        data: &[Data<'_>],
        wait: &mut dyn Wait,
    ) -> Result<(), DeviceError> {
        let Some(queue) = self.control_queue() else {
            return Err(DeviceError::Unsupported);
        };
        let (mut buffers, mut count) = ([Buffer::readable(0, 0); BUFFERS as usize], 0);
        let head = [class as u8, command];
        let parts = || core::iter::once([&head[..], &[]]).chain(data.iter().copied());
        let len: usize = parts().flatten().map(<[u8]>::len).sum();
        let mut region = DmaRegion::new(self.dma.clone(), len + 1, 4)?;
        let (base, mut at) = (region.address(), 0);
        for pieces in parts() {
            let start = at;
            for piece in pieces {
                region[at..at + piece.len()].copy_from_slice(piece);
                at += piece.len();
            }
            let len = one_len(at - start, usize::MAX)?;
            buffers[count] = Buffer::readable(base + start as u64, len);
            count += 1;
        }
        region[at] = ack::NONE;
        buffers[count] = Buffer::writable(base + at as u64, 1);
        // SAFETY: the memory is the request's own.
        unsafe {
            self.link
                .submit(queue, &buffers[..=count], Frame::empty(region))
        }
        .map_err(|(error, _)| error)?;
        self.link.queue(queue).kick();
        let back = self.link.wait(queue, wait)?;
        let written = back.written.ok_or(DeviceError::Aborted)?;
        // 5.1.6.1: the length that a legacy device reports says nothing.
        let owed = u32::from(self.link.has(Features::VERSION_1));
        match back.request.into_region()[at] {
            ack::OK if written >= owed => Ok(()),
            ack::ERR => Err(DeviceError::Refused { command: name }),
            status => {
                self.link.fail();
                Err(DeviceError::BadAnswer { status, written })
            }
        }
    }
}
