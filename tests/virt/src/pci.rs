//! PCI: all functions, with addresses out of the host bridge's windows, and the ways to
//! drive those that are entropy devices.

use core::ptr::NonNull;

use doorbell::device::rng;
use doorbell::mmio::{MapError, MapMmio, MmioRegion};
use doorbell::pci::{
    self, AddressRange, Apertures, BusRange, CommandRegister, ConfigSpace, Ecam, EcamWindow,
    Function, Topology,
};
use doorbell::port::IoWindow;
use doorbell::transport::pci::{Structures, device_type};
use doorbell::transport::pci_legacy;
use doorbell::transport::pci_modern::NotifyChoice;

use crate::memory::Identity;
use crate::path::Way;
use crate::println;
use crate::report::Error;
use crate::tree::{Host, Space, Window};

/// The buses behind a host bridge.
pub(crate) struct Bus<'a> {
    pub(crate) config: Ecam<'a>,
    host: &'a Host,
    topology: Topology<'a>,
    io: Option<IoWindow>,
}

impl<'a> Bus<'a> {
    /// Finds all functions, and gives bus numbers and addresses to what has none: with
    /// `-bios none` nothing has.
    pub(crate) fn new(
        host: &'a Host,
        windows: &'a [EcamWindow],
        storage: &'a mut [Function],
    ) -> Result<Self, Error> {
        let config = Ecam::new(windows);
        let (first, last) = host.buses;
        let segment = 0;
        let roots = [BusRange {
            segment,
            first,
            last,
        }];
        let range = |space| {
            let window = host.windows().find(move |window| window.space == space);
            window.map(|window| window.bus)
        };
        let [io, mem32, mem64] = [Space::Io, Space::Memory32, Space::Memory64].map(range);
        let apertures = Apertures {
            io: io.as_slice(),
            mem32: mem32.as_slice(),
            mem64: mem64.as_slice(),
        };
        // SAFETY: nobody else uses PCI, nothing is in use yet, and the host bridge says
        // that its windows are PCI's.
        let topology = unsafe {
            pci::number_buses(&config, &roots);
            let mut topology = Topology::enumerate(&config, &roots, storage)?;
            pci::assign(&config, &mut topology, &apertures);
            topology
        };
        let wanted = CommandRegister::IO_ENABLE
            | CommandRegister::MEMORY_ENABLE
            | CommandRegister::BUS_MASTER_ENABLE;
        for function in topology.functions() {
            if device_type(function).is_some() {
                // SAFETY: its BARs have addresses of their own, and no driver has given
                // it memory yet.
                unsafe { config.set_command(function.address, function.command | wanted) };
            }
        }
        let io = host.windows().find(|window| window.space == Space::Io);
        let io = io.map(io_window).transpose()?;
        Ok(Self {
            config,
            host,
            topology,
            io,
        })
    }

    /// The functions, for people.
    pub(crate) fn print(&self) {
        for window in self.host.windows() {
            let Window { space, bus, cpu } = window;
            println!("PCI {space:?}: {bus} at {cpu:#x}");
        }
        for function in self.topology.functions() {
            let (vendor, device) = (function.vendor, function.device);
            println!("{} {vendor:04x}:{device:04x}", function.address);
            for bar in function.bars.iter().flatten() {
                match (bar.range(), &bar.reason) {
                    (Some(range), _) => println!("  BAR{} {}: {range}", bar.index, bar.kind),
                    (None, Some(why)) => println!("  BAR{} {}: {why}", bar.index, bar.kind),
                    (None, None) => {}
                }
            }
        }
    }

    /// Calls `add` with each interface of each entropy device, with each doorbell.
    pub(crate) fn ways(&self, add: &mut dyn FnMut(Way) -> Result<(), Error>) -> Result<(), Error> {
        let is_rng = |function: &&Function| device_type(function) == Some(rng::DEVICE_TYPE);
        for &function in self.topology.functions().iter().filter(is_rng) {
            if pci_legacy::check(&function).is_ok() {
                add(Way::Legacy(function))?;
            }
            let structures = Structures::read(&self.config, &function)?;
            let doorbells = (0..structures.notify().count()).map(NotifyChoice::Nth);
            let window = structures.window.map(|_| NotifyChoice::ConfigWindow);
            for choice in doorbells.chain(window) {
                add(Way::Modern(function, structures, choice))?;
            }
        }
        Ok(())
    }

    /// IO space.
    pub(crate) fn io(&self) -> Result<IoWindow, Error> {
        self.io.ok_or(Error::Tree("a window to IO space"))
    }

    /// The port that is at this address of the processor's, if one is.
    pub(crate) fn port_at(&self, address: u64) -> Option<u64> {
        let windows = self.host.windows();
        let mut io = windows.filter(|window| window.space == Space::Io);
        io.find_map(|window| {
            let port = window
                .bus
                .first
                .checked_add(address.checked_sub(window.cpu)?)?;
            (port <= window.bus.last).then_some(port)
        })
    }
}

/// What the host bridge says of its window to IO space.
fn io_window(window: &Window) -> Result<IoWindow, Error> {
    let bad = Error::Tree("a window to IO space that is one");
    let first = u16::try_from(window.bus.first).map_err(|_| bad)?;
    // SAFETY: the device tree says that it is the host bridge's.
    let region = unsafe { MmioRegion::map(&Identity, window.cpu, window.bus.size()) }?;
    IoWindow::new(region, first).ok_or(bad)
}

// SAFETY: as for `Identity`: where the host bridge puts the address of a BAR is fixed.
unsafe impl MapMmio for Bus<'_> {
    fn map(&self, address: u64, len: u64) -> Result<NonNull<u8>, MapError> {
        let error = MapError { address, len };
        let range = AddressRange::sized(address, len).ok_or(error)?;
        let mut windows = self.host.windows();
        let inside = |window: &&Window| window.space != Space::Io && window.bus.contains(range);
        let window = windows.find(inside).ok_or(error)?;
        Identity.map(window.cpu + (address - window.bus.first), len)
    }
}
