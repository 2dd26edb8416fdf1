//! One PCI function, as enumeration found it.

use core::fmt;

use pci_types::device_type::DeviceType;
use pci_types::{CommandRegister, PciAddress};

use super::bars::{self, Bar, BarKind};
use super::bridge::Bridge;
use super::capabilities::{self, PCI_EXPRESS};
use super::config::ConfigSpace;
use super::hotplug::{Slot, SlotCapabilities};
use super::registers;

/// A PCI function: what its header says, read once.
///
/// It is plain data. Only [`assign`](super::assign) changes it, together with the
/// function's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// Segment, bus, device, function.
    pub address: PciAddress,
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Subsystem vendor ID; 0 where there is none: only an endpoint has one in its
    /// header.
    pub subsystem_vendor: u16,
    /// Subsystem ID, or 0. virtio's specification calls it the subsystem device
    /// ID.
    pub subsystem_device: u16,
    /// Class code's upper byte.
    pub class: u8,
    /// Class code's middle byte.
    pub subclass: u8,
    /// Class code's lower byte, the programming interface.
    pub prog_if: u8,
    /// Revision ID.
    pub revision: u8,
    /// Whether the device has more functions.
    pub multi_function: bool,
    /// What kind of header it has.
    pub header: Header,
    /// 1 to 4 for INTA# to INTD#, 0 for none.
    pub interrupt_pin: u8,
    /// What firmware noted for the interrupt pin: on a PC an input of the 8259,
    /// or 0xFF for none.
    pub interrupt_line: u8,
    /// The command register: what the function decodes, and whether it may access
    /// memory by itself.
    pub command: CommandRegister,
    /// The BARs, by the number of their first register.
    pub bars: [Option<Bar>; 6],
    /// Size in bytes of the expansion ROM, if there is one. It is neither
    /// assigned nor switched on.
    pub rom: Option<u64>,
    /// Index in its [`Topology`](super::Topology) of the bridge above; `None` on
    /// a root bus.
    pub parent: Option<usize>,
    /// Number of bridges above.
    pub depth: u8,
    /// What PCI Express calls it; `None` for a conventional function.
    pub port: Option<PortType>,
    /// Whether it is a port whose slot supports hot-plug
    /// ([`Slot`]).
    pub hot_plug: bool,
    /// Whether it was known before, and may be in use
    /// ([`Topology::rescan`](super::Topology::rescan)).
    pub(crate) known: bool,
    /// Whether a BAR is to be written.
    pub(crate) changed: bool,
    /// A bit for each BAR that did not get its address from firmware.
    pub(crate) assigned: u8,
}

/// The kinds of header (PCI 3.0, 6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// Type 0: a device.
    Endpoint,
    /// Type 1: a bridge to another PCI bus.
    Bridge(Bridge),
    /// Type 2: noted, neither sized nor followed.
    CardBus,
    /// Another type: only what all headers share was read.
    Unknown(u8),
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint => f.write_str("endpoint"),
            Self::Bridge(_) => f.write_str("bridge"),
            Self::CardBus => f.write_str("cardbus"),
            Self::Unknown(kind) => write!(f, "type {kind:#04x}"),
        }
    }
}

/// Device/port type of PCI Express (7.5.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the specification's names")]
pub enum PortType {
    Endpoint,
    LegacyEndpoint,
    RootPort,
    UpstreamPort,
    DownstreamPort,
    /// PCI Express above, PCI below.
    PcieToPciBridge,
    /// PCI above, PCI Express below.
    PciToPcieBridge,
    RootComplexEndpoint,
    RootComplexEventCollector,
    Reserved(u8),
}

impl PortType {
    pub(crate) fn read(config: &(impl ConfigSpace + ?Sized), address: PciAddress) -> Option<Self> {
        let express = capabilities::find(config, address, PCI_EXPRESS).ok()??;
        Some(match express.read16(config, address, 2)? >> 4 & 0xf {
            0 => Self::Endpoint,
            1 => Self::LegacyEndpoint,
            4 => Self::RootPort,
            5 => Self::UpstreamPort,
            6 => Self::DownstreamPort,
            7 => Self::PcieToPciBridge,
            8 => Self::PciToPcieBridge,
            9 => Self::RootComplexEndpoint,
            10 => Self::RootComplexEventCollector,
            other => Self::Reserved(other as u8),
        })
    }

    /// Whether a link is below it, with device 0 alone at its end.
    pub(crate) fn leads_to_one_device(self) -> bool {
        matches!(
            self,
            Self::RootPort | Self::DownstreamPort | Self::PciToPcieBridge
        )
    }
}

impl fmt::Display for PortType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Endpoint => "endpoint",
            Self::LegacyEndpoint => "legacy endpoint",
            Self::RootPort => "root port",
            Self::UpstreamPort => "upstream port",
            Self::DownstreamPort => "downstream port",
            Self::PcieToPciBridge => "PCIe-to-PCI bridge",
            Self::PciToPcieBridge => "PCI-to-PCIe bridge",
            Self::RootComplexEndpoint => "root complex endpoint",
            Self::RootComplexEventCollector => "root complex event collector",
            Self::Reserved(kind) => return write!(f, "PCIe type {kind}"),
        })
    }
}

/// A place in the storage of a [`Topology`](super::Topology): nothing was found
/// there yet.
impl Default for Function {
    fn default() -> Self {
        Self {
            address: PciAddress::default(),
            vendor: 0xffff,
            device: 0xffff,
            subsystem_vendor: 0,
            subsystem_device: 0,
            class: 0xff,
            subclass: 0xff,
            prog_if: 0xff,
            revision: 0xff,
            multi_function: false,
            header: Header::Unknown(0x7f),
            interrupt_pin: 0,
            interrupt_line: 0xff,
            command: CommandRegister::empty(),
            bars: [None; 6],
            rom: None,
            parent: None,
            depth: 0,
            port: None,
            hot_plug: false,
            known: false,
            changed: false,
            assigned: 0,
        }
    }
}

impl Function {
    /// Its bridge part, if it is a bridge to another PCI bus.
    pub fn bridge(&self) -> Option<&Bridge> {
        match &self.header {
            Header::Bridge(bridge) => Some(bridge),
            _ => None,
        }
    }

    pub(crate) fn bridge_mut(&mut self) -> Option<&mut Bridge> {
        match &mut self.header {
            Header::Bridge(bridge) => Some(bridge),
            _ => None,
        }
    }

    /// What its class code means.
    pub fn device_type(&self) -> DeviceType {
        DeviceType::from((self.class, self.subclass))
    }

    /// Whether it is a host bridge. What such a BAR is for is the chipset's
    /// affair, and a host bridge that stops decoding may cut off main memory: its
    /// BARs are not even sized, and its command register is left alone.
    pub fn is_host_bridge(&self) -> bool {
        (self.class, self.subclass) == (6, 0)
    }

    /// Reads the function at `address`, which is there. What enumeration knows
    /// (`parent`, `depth`, a bridge's `unnumbered`) is left empty.
    ///
    /// # Safety
    ///
    /// The function is the caller's, and nobody uses it: it decodes nothing while
    /// its BARs are sized.
    pub(crate) unsafe fn read(config: &(impl ConfigSpace + ?Sized), address: PciAddress) -> Self {
        let class = config.read32(address, registers::CLASS);
        let header_type = config.read8(address, registers::HEADER_TYPE + 2);
        let interrupt = config.read16(address, registers::INTERRUPT);
        let mut function = Self {
            address,
            vendor: config.read16(address, registers::ID),
            device: config.read16(address, registers::ID + 2),
            class: (class >> 24) as u8,
            subclass: (class >> 16) as u8,
            prog_if: (class >> 8) as u8,
            revision: class as u8,
            multi_function: header_type & 0x80 != 0,
            header: match header_type & 0x7f {
                0 => Header::Endpoint,
                1 => Header::Bridge(Bridge::CLOSED),
                2 => Header::CardBus,
                other => Header::Unknown(other),
            },
            interrupt_line: interrupt as u8,
            interrupt_pin: (interrupt >> 8) as u8,
            command: config.command(address),
            port: PortType::read(config, address),
            ..Self::default()
        };
        if matches!(function.header, Header::Endpoint) {
            let ids = config.read32(address, registers::SUBSYSTEM);
            (function.subsystem_vendor, function.subsystem_device) =
                (ids as u16, (ids >> 16) as u16);
        }
        function.hot_plug = Slot::new(&function, config)
            .ok()
            .flatten()
            .is_some_and(|slot| {
                slot.capabilities()
                    .contains(SlotCapabilities::HOT_PLUG_CAPABLE)
            });
        // SAFETY: the caller's promise.
        unsafe { function.read_resources(config) };
        function
    }

    /// Whether it is still there, and holds the addresses and bus numbers that
    /// this says. One that was put in its place since has come out of reset, and
    /// holds none. Nothing is written.
    pub(crate) fn is_still(&self, config: &(impl ConfigSpace + ?Sized)) -> bool {
        let address = self.address;
        let class = u32::from_le_bytes([self.revision, self.prog_if, self.subclass, self.class]);
        let id = u32::from(self.device) << 16 | u32::from(self.vendor);
        let mut placed = self.bars.iter().flatten().filter_map(|bar| {
            let offset = registers::BAR0 + 4 * u16::from(bar.index);
            Some((offset, bar.address?, bar.kind))
        });
        config.read32(address, registers::ID) == id
            && config.read32(address, registers::CLASS) == class
            && placed.all(|(offset, at, kind)| {
                let flags = if kind == BarKind::Io { 3 } else { 0xf };
                let upper = kind == BarKind::Memory64;
                config.read32(address, offset) & !flags == at as u32
                    && (!upper || config.read32(address, offset + 4) == (at >> 32) as u32)
            })
            && self.bridge().is_none_or(|bridge| {
                let numbers = config.read32(address, registers::BUS_NUMBERS).to_le_bytes();
                numbers[..3] == [bridge.primary, bridge.secondary, bridge.subordinate]
            })
    }

    /// Sizes the BARs, and reads a bridge's windows.
    ///
    /// # Safety
    ///
    /// As for [`read`](Self::read).
    unsafe fn read_resources(&mut self, config: &(impl ConfigSpace + ?Sized)) {
        let (bars, rom) = match self.header {
            Header::Endpoint => (6, registers::ROM),
            Header::Bridge(_) => (2, registers::BRIDGE_ROM),
            Header::CardBus | Header::Unknown(_) => return,
        };
        if self.is_host_bridge() {
            return;
        }
        let decoding = CommandRegister::IO_ENABLE | CommandRegister::MEMORY_ENABLE;
        let decodes = self.command.intersects(decoding);
        // SAFETY: the caller's promise; the command register goes back to what it
        // was once the BARs hold what they held.
        unsafe {
            if decodes {
                config.set_command(self.address, self.command - decoding);
            }
            self.bars = bars::read(config, self.address, bars);
            self.rom = bars::read_rom(config, self.address, rom);
            if let Header::Bridge(bridge) = &mut self.header {
                *bridge = Bridge::read(config, self.address);
            }
            if decodes {
                config.set_command(self.address, self.command);
            }
        }
    }
}
