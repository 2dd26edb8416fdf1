//! Bridges between PCI buses: bus numbers and windows (PCI-to-PCI Bridge
//! Architecture 1.2, 3.2.5).

use core::fmt;

use pci_types::PciAddress;

use super::config::ConfigSpace;
use super::range::AddressRange;
use super::registers;
use super::unassigned::{Space, Unnumbered};

/// A bridge's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// The bus it is on, as its register says.
    pub primary: u8,
    /// The bus right behind it.
    pub secondary: u8,
    /// The highest bus behind it.
    pub subordinate: u8,
    /// Why the buses behind it were not searched; `None` if they were.
    pub unnumbered: Option<Unnumbered>,
    /// The windows, in the order of [`WindowKind::ALL`].
    pub(crate) windows: [Window; 3],
}

/// The kinds of window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowKind {
    /// IO ports.
    Io,
    /// Memory below 4 GiB.
    Memory,
    /// Prefetchable memory; not every bridge has it.
    Prefetchable,
}

impl WindowKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Io, Self::Memory, Self::Prefetchable];

    /// The space whose accesses it forwards.
    pub fn space(self) -> Space {
        match self {
            Self::Io => Space::Io,
            Self::Memory | Self::Prefetchable => Space::Memory,
        }
    }

    /// What its size and address are multiples of.
    pub const fn granularity(self) -> u64 {
        match self {
            Self::Io => 0x1000,
            Self::Memory | Self::Prefetchable => 0x10_0000,
        }
    }
}

impl fmt::Display for WindowKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Io => "io",
            Self::Memory => "mem",
            Self::Prefetchable => "pref",
        })
    }
}

/// Which addresses a window's registers can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowWidth {
    /// The bridge does not have the window.
    Absent,
    /// IO below 64 KiB.
    Bits16,
    /// Memory below 4 GiB, or IO.
    Bits32,
    /// Memory anywhere.
    Bits64,
}

/// One of a bridge's windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Which addresses it can hold.
    pub width: WindowWidth,
    /// What it forwards; `None` while it is closed.
    pub range: Option<AddressRange>,
    /// What the BARs and windows behind that wait for an address need of it.
    pub(crate) need: Need,
    /// Whether its registers do not say what `range` says.
    pub(crate) changed: bool,
}

/// Room for something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Need {
    /// Bytes or ports; 0 for none.
    pub(crate) size: u64,
    /// A power of two.
    pub(crate) align: u64,
}

impl Window {
    const ABSENT: Self = Self {
        width: WindowWidth::Absent,
        range: None,
        need: Need { size: 0, align: 0 },
        changed: false,
    };

    /// From its registers: `first` to `last`, or closed if these are not in
    /// order. At 0 a window was left as reset left it: it has to be closed.
    fn new(width: WindowWidth, first: u64, last: u64) -> Self {
        let range = AddressRange::new(first, last);
        let usable = range.filter(|range| range.first != 0);
        Self {
            width,
            range: usable,
            changed: range != usable,
            ..Self::ABSENT
        }
    }
}

impl Bridge {
    /// A bridge to nowhere.
    pub(crate) const CLOSED: Self = Self {
        primary: 0,
        secondary: 0,
        subordinate: 0,
        unnumbered: None,
        windows: [Window::ABSENT; 3],
    };

    /// One of its windows.
    pub fn window(&self, kind: WindowKind) -> &Window {
        &self.windows[kind as usize]
    }

    pub(crate) fn window_mut(&mut self, kind: WindowKind) -> &mut Window {
        &mut self.windows[kind as usize]
    }

    /// Reads bus numbers and windows.
    ///
    /// # Safety
    ///
    /// The bridge is the caller's, and forwards nothing now: a window that reads
    /// as zero is written to, to see whether it is there.
    pub(crate) unsafe fn read(config: &(impl ConfigSpace + ?Sized), address: PciAddress) -> Self {
        let [primary, secondary, subordinate, _] =
            config.read32(address, registers::BUS_NUMBERS).to_le_bytes();
        // SAFETY: the caller's promise.
        let io = unsafe { read_io(config, address) };
        let [first, last] = halves(config.read32(address, registers::MEMORY_WINDOW));
        let memory = Window::new(
            WindowWidth::Bits32,
            u64::from(first & 0xfff0) << 16,
            u64::from(last & 0xfff0) << 16 | 0xf_ffff,
        );
        // SAFETY: the caller's promise.
        let prefetchable = unsafe { read_prefetchable(config, address) };
        Self {
            primary,
            secondary,
            subordinate,
            windows: [io, memory, prefetchable],
            ..Self::CLOSED
        }
    }

    /// Writes a window's registers.
    ///
    /// # Safety
    ///
    /// The bridge is the caller's and forwards nothing now, and what the window
    /// holds is meant for the devices behind it.
    pub(crate) unsafe fn write_window(
        &self,
        config: &(impl ConfigSpace + ?Sized),
        address: PciAddress,
        kind: WindowKind,
    ) {
        let window = self.window(kind);
        // A base above the limit closes a window (3.2.5.6).
        let closed = AddressRange {
            first: 0xfff0_f000,
            last: 0,
        };
        let AddressRange { first, last } = window.range.unwrap_or(closed);
        let memory = (first >> 16 & 0xfff0) as u32 | (last as u32 & 0xfff0_0000);
        let wide = window.width == WindowWidth::Bits64;
        let is_closed = window.range.is_none();
        // SAFETY: the caller's promise.
        let write = |offset, value| unsafe { config.write(address, offset, value) };
        match (kind, window.width) {
            (_, WindowWidth::Absent) => {}
            (WindowKind::Io, width) => {
                // The zeros above are the secondary status register, whose bits
                // ones would clear.
                let io = (first >> 8 & 0xf0) as u32 | (last as u32 & 0xf000);
                write(registers::IO_WINDOW, io);
                if width == WindowWidth::Bits32 {
                    let upper = if is_closed {
                        0
                    } else {
                        first >> 16 | last & 0xffff_0000
                    };
                    write(registers::IO_WINDOW_UPPER, upper as u32);
                }
            }
            (WindowKind::Memory, _) => write(registers::MEMORY_WINDOW, memory),
            (WindowKind::Prefetchable, _) => {
                write(registers::PREFETCHABLE_WINDOW, memory);
                if wide {
                    write(registers::PREFETCHABLE_BASE_UPPER, (first >> 32) as u32);
                    write(registers::PREFETCHABLE_LIMIT_UPPER, (last >> 32) as u32);
                }
            }
        }
    }
}

/// The lower and the upper half of a register.
fn halves(register: u32) -> [u32; 2] {
    [register & 0xffff, register >> 16]
}

/// Reads a register of a window; if it reads as zero, what it reads as once
/// `probe` (which leaves the window closed) was written, and then zero again.
///
/// # Safety
///
/// As for [`Bridge::read`].
unsafe fn probe(
    config: &(impl ConfigSpace + ?Sized),
    address: PciAddress,
    offset: u16,
    mask: u32,
    probe: u32,
) -> (u32, bool) {
    let register = config.read32(address, offset) & mask;
    if register != 0 {
        return (register, true);
    }
    // SAFETY: the caller's promise.
    unsafe { config.write(address, offset, probe) };
    let exists = config.read32(address, offset) & mask != 0;
    // SAFETY: as above.
    unsafe { config.write(address, offset, 0) };
    (0, exists)
}

/// # Safety
///
/// As for [`Bridge::read`].
unsafe fn read_io(config: &(impl ConfigSpace + ?Sized), address: PciAddress) -> Window {
    // SAFETY: the caller's promise. The upper half is the secondary status, which
    // zeros leave alone.
    let (io, exists) = unsafe { probe(config, address, registers::IO_WINDOW, 0xffff, 0xe0f0) };
    if !exists {
        return Window::ABSENT;
    }
    let (width, [upper_first, upper_last]) = if io & 0xf == 1 {
        (
            WindowWidth::Bits32,
            halves(config.read32(address, registers::IO_WINDOW_UPPER)),
        )
    } else {
        (WindowWidth::Bits16, [0, 0])
    };
    Window::new(
        width,
        u64::from(upper_first << 16 | (io & 0xf0) << 8),
        u64::from(upper_last << 16 | io & 0xf000 | 0xfff),
    )
}

/// # Safety
///
/// As for [`Bridge::read`].
unsafe fn read_prefetchable(config: &(impl ConfigSpace + ?Sized), address: PciAddress) -> Window {
    let offset = registers::PREFETCHABLE_WINDOW;
    // SAFETY: the caller's promise.
    let (register, exists) = unsafe { probe(config, address, offset, !0, 0xffe0_fff0) };
    if !exists {
        return Window::ABSENT;
    }
    let [first, last] = halves(register);
    let (width, [upper_first, upper_last]) = if first & 0xf == 1 {
        let upper = |offset| u64::from(config.read32(address, offset)) << 32;
        let uppers = [
            registers::PREFETCHABLE_BASE_UPPER,
            registers::PREFETCHABLE_LIMIT_UPPER,
        ];
        (WindowWidth::Bits64, uppers.map(upper))
    } else {
        (WindowWidth::Bits32, [0, 0])
    };
    Window::new(
        width,
        upper_first | u64::from(first & 0xfff0) << 16,
        upper_last | u64::from(last & 0xfff0) << 16 | 0xf_ffff,
    )
}
