//! What the machine has, by its device tree (Devicetree Specification 0.4; for PCI the
//! binding `pci-host-ecam-generic`).

use doorbell::pci::AddressRange;
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node, Property};

use crate::report::Error;

/// The most windows of a host bridge that are looked at.
const MOST_WINDOWS: usize = 8;

/// The machine's device tree.
pub(crate) struct Tree<'a>(Fdt<'a>);

/// A PCI host bridge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host {
    /// Where its ECAM is.
    pub(crate) ecam: u64,
    /// The first and the last of its buses.
    pub(crate) buses: (u8, u8),
    windows: [Option<Window>; MOST_WINDOWS],
}

/// A part of the processor's addresses that the host bridge leads to PCI's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) space: Space,
    /// PCI's addresses.
    pub(crate) bus: AddressRange,
    /// The processor's first.
    pub(crate) cpu: u64,
}

/// The address spaces of PCI, by the code in a window's first cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    Io,
    Memory32,
    Memory64,
}

impl Host {
    pub(crate) fn windows(&self) -> impl Iterator<Item = &Window> {
        self.windows.iter().flatten()
    }
}

impl<'a> Tree<'a> {
    /// Takes the device tree at `address`.
    ///
    /// # Safety
    ///
    /// There is one, and it stays as it is.
    pub(crate) unsafe fn at(address: *const u8) -> Result<Self, Error> {
        // SAFETY: the caller's promise.
        unsafe { Fdt::from_raw(address) }
            .map(Self)
            .map_err(|_| Error::Tree("a device tree"))
    }

    /// The devices: nodes below the root, or below a bus that passes addresses on as
    /// they are (its `ranges` is empty).
    fn devices(&self) -> impl Iterator<Item = FdtNode<'a>> {
        self.0.root().children().flat_map(|node| {
            let passes = node
                .property("ranges")
                .is_some_and(|ranges| ranges.value().is_empty());
            let inner = passes.then(|| node.children()).into_iter().flatten();
            core::iter::once(node).chain(inner)
        })
    }

    fn compatible(&self, with: &'static str) -> impl Iterator<Item = FdtNode<'a>> {
        self.devices().filter(move |node| is(node, with))
    }

    /// The 16550 that is the machine's console.
    pub(crate) fn console(&self) -> Result<u64, Error> {
        let missing = Error::Tree("a 16550 as the console (`stdout-path` in /chosen)");
        let chosen = self.0.find_node("/chosen").ok_or(missing)?;
        let path = chosen.property("stdout-path").ok_or(missing)?;
        let path = path.value_as::<&str>().map_err(|_| missing)?;
        // Behind a colon come the line's settings.
        let path = path.split(':').next().unwrap_or(path);
        let node = self.0.find_node(path).filter(|node| is(node, "ns16550a"));
        Ok(reg(&node.ok_or(missing)?).ok_or(missing)?.0)
    }

    /// The register that ends the machine, and what to write there.
    pub(crate) fn power_off(&self) -> Result<(u64, u32), Error> {
        let missing = Error::Tree("how to power off (`syscon-poweroff`)");
        let node = self.compatible("syscon-poweroff").next().ok_or(missing)?;
        let (offset, value) = (number(&node, "offset"), number(&node, "value"));
        let regmap = number(&node, "regmap").ok_or(missing)?;
        let mut devices = self.devices();
        let device = devices.find(|node| number(node, "phandle") == Some(regmap));
        let (base, _) = reg(&device.ok_or(missing)?).ok_or(missing)?;
        let register = base + u64::from(offset.ok_or(missing)?);
        Ok((register, value.ok_or(missing)?))
    }

    /// The first range of RAM.
    pub(crate) fn memory(&self) -> Result<AddressRange, Error> {
        let missing = Error::Tree("memory");
        let root = self.0.root();
        let mut nodes = root.children();
        let node = nodes.find(|node| node.name_without_address() == "memory");
        let (first, size) = reg(&node.ok_or(missing)?).ok_or(missing)?;
        AddressRange::sized(first, size).ok_or(missing)
    }

    /// What the machine calls itself.
    pub(crate) fn model(&self) -> &'a str {
        self.0.root().model().ok().flatten().unwrap_or("unknown")
    }

    /// The PCI host bridge.
    pub(crate) fn pci(&self) -> Result<Host, Error> {
        let missing = Error::Tree("a PCI host bridge with an ECAM and buses");
        let node = self.compatible("pci-host-ecam-generic").next();
        let node = node.ok_or(missing)?;
        let (ecam, _) = reg(&node).ok_or(missing)?;
        let buses = node.property("bus-range").ok_or(missing)?;
        let buses = buses.as_prop_encoded_array([1, 1]).map_err(|_| missing)?;
        let buses = buses.filter_map(|[first, last]| Some((byte(first)?, byte(last)?)));
        let mut host = Host {
            ecam,
            buses: { buses }.next().ok_or(missing)?,
            windows: [None; MOST_WINDOWS],
        };
        let ranges = node.ranges().ok().flatten().ok_or(missing)?;
        let windows = ranges.filter_map(|range| {
            let [high, middle, low] = range.child_bus_address.as_ref() else {
                return None;
            };
            let first = u64::from(middle.get()) << 32 | u64::from(low.get());
            Some(Window {
                space: match high.get() >> 24 & 3 {
                    1 => Space::Io,
                    2 => Space::Memory32,
                    3 => Space::Memory64,
                    _ => return None,
                },
                bus: AddressRange::sized(first, range.length().ok()?)?,
                cpu: range.parent_bus_address().ok()?,
            })
        });
        for (slot, window) in host.windows.iter_mut().zip(windows) {
            *slot = Some(window);
        }
        Ok(host)
    }

    /// Calls `with` the address and length of each virtio-mmio slot.
    pub(crate) fn virtio_mmio(
        &self,
        mut with: impl FnMut(u64, u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for node in self.compatible("virtio,mmio") {
            let missing = Error::Tree("the address of a virtio-mmio slot");
            let (address, len) = reg(&node).ok_or(missing)?;
            with(address, len)?;
        }
        Ok(())
    }
}

fn is(node: &FdtNode<'_>, compatible: &str) -> bool {
    let names = node.compatible();
    names.is_some_and(|mut names| names.any(|name| name == compatible))
}

/// The first entry of a node's `reg`: address and size.
fn reg(node: &FdtNode<'_>) -> Option<(u64, u64)> {
    let entry = (*node).reg().ok()??.next()?;
    Some((entry.address().ok()?, entry.size().ok()?))
}

fn number(node: &FdtNode<'_>, name: &str) -> Option<u32> {
    node.property(name)?.value_as().ok()
}

fn byte(cell: impl dtoolkit::ToCellInt) -> Option<u8> {
    u8::try_from(cell.to_int::<u32>().ok()?).ok()
}
