//! What a network device can do, and says of itself (virtio 1.2, 5.1.3 and 5.1.4).

use virtio_spec::net::{F, S};

use super::{ETHERNET_HEADER, Net};
use crate::device::DeviceError;
use crate::dma::Dma;
use crate::transport::{self, Transport};
use crate::virtio::Features;

/// What a network device says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// The MAC address: the device's own, if it has one (VIRTIO_NET_F_MAC), or the
    /// one that was set since.
    pub mac: Option<[u8; 6]>,
    /// The most bytes behind a frame's Ethernet header, if the device says
    /// (VIRTIO_NET_F_MTU).
    pub mtu: Option<u16>,
    /// How many pairs of queues the device has.
    pub max_pairs: u16,
    /// Whether a packet may come in several buffers (VIRTIO_NET_F_MRG_RXBUF).
    pub mergeable: bool,
}

/// The driver's own features, of which `offered` are there.
pub(super) fn wanted(offered: Features) -> Features {
    let plain = F::MAC | F::STATUS | F::MTU | F::MRG_RXBUF | F::CTRL_VQ;
    let mut wanted = Features::from(plain);
    // 5.1.3.1: these require VIRTIO_NET_F_CTRL_VQ.
    if offered.contains(F::CTRL_VQ.into()) {
        wanted |= Features::from(F::CTRL_RX | F::MQ);
        // 5.1.6.5.2.2: its command is not allowed without that one.
        if offered.contains(F::CTRL_RX.into()) {
            wanted |= Features::from(F::CTRL_MAC_ADDR);
        }
    }
    // 6.3: it says nothing where it is no legacy interface.
    if !offered.contains(Features::VERSION_1) {
        wanted |= Features::ANY_LAYOUT;
    }
    wanted
}

/// Offsets in `struct virtio_net_config` (5.1.4).
pub(super) mod config {
    pub(in super::super) const MAC: u16 = 0;
    pub(super) const STATUS: u16 = 6;
    pub(super) const MAX_VIRTQUEUE_PAIRS: u16 = 8;
    pub(super) const MTU: u16 = 10;
}

impl Info {
    pub(super) fn read<T: Transport>(
        transport: &T,
        features: Features,
    ) -> Result<Self, DeviceError> {
        let has = |feature: F| features.contains(feature.into());
        let field = |offset| transport::read_config_u32(transport, offset, 2);
        let wrong = |field, value: u32| DeviceError::Config {
            field,
            value: value.into(),
        };
        let mac = match has(F::MAC) {
            true => Some(read_mac(transport)?),
            false => None,
        };
        if let Some(mac) = mac {
            check_mac(mac, false)?;
        }
        let mtu = match has(F::MTU) {
            true => Some(field(config::MTU)? as u16),
            false => None,
        };
        if let Some(mtu) = mtu.filter(|&mtu| mtu < 68) {
            return Err(wrong("mtu", mtu.into()));
        }
        let max_pairs = match has(F::MQ) {
            true => field(config::MAX_VIRTQUEUE_PAIRS)? as u16,
            false => 1,
        };
        // 5.1.4.1 allows 0x8000, but then nobody can select the control queue, by
        // its index of 0x10000.
        if !(1..0x8000).contains(&max_pairs) {
            return Err(wrong("max_virtqueue_pairs", max_pairs.into()));
        }
        Ok(Self {
            mac,
            mtu,
            max_pairs,
            mergeable: has(F::MRG_RXBUF),
        })
    }

    /// The MTU by which frames are measured: no frame is longer than 65535 bytes.
    pub(super) fn largest_mtu(&self) -> u16 {
        let most = u16::MAX - ETHERNET_HEADER as u16;
        self.mtu.map_or(most, |mtu| mtu.min(most))
    }
}

/// Reads the field `mac`.
pub(super) fn read_mac<T: Transport>(transport: &T) -> Result<[u8; 6], DeviceError> {
    let mut mac = [0; 6];
    transport.read_config(config::MAC, 1, &mut mac)?;
    Ok(mac)
}

/// Checks that a MAC address is a group's, or that it is one station's.
pub(super) fn check_mac(mac: [u8; 6], group: bool) -> Result<(), DeviceError> {
    // IEEE 802: the first bit on the wire.
    if (mac[0] & 1 != 0) == group {
        Ok(())
    } else {
        Err(DeviceError::MacAddress { mac, group })
    }
}

impl<T: Transport, D: Dma + Clone> Net<T, D> {
    /// Whether the link is up, as the device says now; `true` from one that does
    /// not (5.1.4.2). It changes with a configuration change.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Transport`] if the configuration is too short, or
    /// [`DeviceError::Gone`].
    pub fn link_up(&self) -> Result<bool, DeviceError> {
        if !self.link.has(F::STATUS) {
            return Ok(true);
        }
        let status = transport::read_config_u32(self.link.transport(), config::STATUS, 2)?;
        // A device that is gone reads as all ones, or zeros.
        if status == u16::MAX.into() || status == 0 {
            self.link.health()?;
        }
        Ok(S::from_bits_retain((status as u16).into()).contains(S::LINK_UP))
    }
}
