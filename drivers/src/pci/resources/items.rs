//! What needs addresses: BARs, and windows for the BARs behind a bridge.

use crate::pci::bars::{Bar, BarKind};
use crate::pci::bridge::{Bridge, Need, WindowKind, WindowWidth};
use crate::pci::enumerate::subtree;
use crate::pci::function::Function;
use crate::pci::range::AddressRange;
use crate::pci::unassigned::{Space, Unassigned};

/// One of the things of a function that may have an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Bar(usize),
    Window(WindowKind),
}

impl Slot {
    pub(super) const ALL: [Self; 9] = [
        Self::Bar(0),
        Self::Bar(1),
        Self::Bar(2),
        Self::Bar(3),
        Self::Bar(4),
        Self::Bar(5),
        Self::Window(WindowKind::Io),
        Self::Window(WindowKind::Memory),
        Self::Window(WindowKind::Prefetchable),
    ];
}

/// Which addresses something can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// IO ports.
    Io,
    /// Memory below 4 GiB where reads may have side effects.
    Memory,
    /// Memory below 4 GiB that may be prefetched.
    Prefetchable,
    /// Memory anywhere: prefetchable, or without a bridge that could prefetch.
    High,
}

impl Class {
    fn of_bar(bar: &Bar, on_root_bus: bool) -> Self {
        match (bar.kind, bar.prefetchable) {
            (BarKind::Io, _) => Self::Io,
            (BarKind::Memory64, true) => Self::High,
            (BarKind::Memory64, false) if on_root_bus => Self::High,
            (BarKind::Memory32, true) => Self::Prefetchable,
            _ => Self::Memory,
        }
    }

    pub(super) fn of_window(bridge: &Bridge, kind: WindowKind) -> Self {
        match (kind, bridge.window(kind).width) {
            (WindowKind::Io, _) => Self::Io,
            (WindowKind::Memory, _) => Self::Memory,
            (WindowKind::Prefetchable, WindowWidth::Bits64) => Self::High,
            (WindowKind::Prefetchable, _) => Self::Prefetchable,
        }
    }

    /// The window of `bridge` that forwards it. The prefetchable one is left to
    /// those that make the most of it: where it has 64 bits, to what can be
    /// above 4 GiB, so that it can be there itself.
    pub(super) fn window(self, bridge: &Bridge) -> WindowKind {
        match (self, bridge.window(WindowKind::Prefetchable).width) {
            (Self::Io, _) => WindowKind::Io,
            (Self::Memory, _) | (_, WindowWidth::Absent) => WindowKind::Memory,
            (Self::High, _) | (_, WindowWidth::Bits32) => WindowKind::Prefetchable,
            _ => WindowKind::Memory,
        }
    }

    pub(super) fn space(self) -> Space {
        match self {
            Self::Io => Space::Io,
            Self::Memory | Self::Prefetchable | Self::High => Space::Memory,
        }
    }

    /// The highest address. A port number has 16 bits, whatever a bridge or a
    /// BAR could hold.
    pub(super) fn limit(self) -> u64 {
        match self {
            Self::Io => 0xffff,
            Self::Memory | Self::Prefetchable => u64::from(u32::MAX),
            Self::High => u64::MAX,
        }
    }
}

/// What is needed, and where it may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand {
    pub(super) class: Class,
    pub(super) need: Need,
}

impl Function {
    /// What a slot occupies.
    pub(super) fn occupied(&self, slot: Slot) -> Option<(Space, AddressRange)> {
        match slot {
            Slot::Bar(index) => {
                let bar = self.bars[index].as_ref()?;
                Some((bar.kind.space(), bar.range()?))
            }
            Slot::Window(kind) => Some((kind.space(), self.bridge()?.window(kind).range?)),
        }
    }

    /// What a slot waits for.
    pub(super) fn demand(&self, slot: Slot) -> Option<Demand> {
        match slot {
            Slot::Bar(index) => {
                let bar = self.bars[index].as_ref().filter(|bar| bar.is_pending())?;
                let class = Class::of_bar(bar, self.parent.is_none());
                Some(Demand {
                    class,
                    need: Need {
                        size: bar.size,
                        align: bar.size,
                    },
                })
            }
            Slot::Window(kind) => {
                let bridge = self.bridge()?;
                let window = bridge.window(kind);
                let waits = window.width != WindowWidth::Absent
                    && window.range.is_none()
                    && window.need.size != 0;
                let class = Class::of_window(bridge, kind);
                waits.then_some(Demand {
                    class,
                    need: window.need,
                })
            }
        }
    }

    /// Gives a slot what it waits for.
    pub(super) fn place(&mut self, slot: Slot, first: u64) {
        match slot {
            Slot::Bar(index) => {
                if let Some(bar) = &mut self.bars[index] {
                    bar.place(first);
                    self.changed = true;
                    self.assigned |= 1 << index;
                }
            }
            Slot::Window(kind) => {
                self.set_window(kind, |need| AddressRange::sized(first, need.size))
            }
        }
    }

    /// Takes away what a slot occupies: it is not its own.
    pub(super) fn displace(&mut self, slot: Slot) {
        match slot {
            Slot::Bar(index) => {
                if let Some(bar) = &mut self.bars[index] {
                    let raw = bar.address.unwrap_or(0);
                    self.refuse(index, Unassigned::Unset { raw });
                }
            }
            Slot::Window(kind) => self.set_window(kind, |_| None),
        }
    }

    /// Takes away all that it occupies: whatever its registers hold, nobody gave
    /// it that.
    pub(in crate::pci) fn forget(&mut self) {
        for slot in Slot::ALL {
            if self.occupied(slot).is_some() {
                self.displace(slot);
            }
        }
    }

    /// Says why a BAR has no address.
    pub(super) fn refuse(&mut self, index: usize, reason: Unassigned) {
        if let Some(bar) = &mut self.bars[index] {
            bar.displace(reason);
            self.changed = true;
            self.assigned &= !(1 << index);
        }
    }

    fn set_window(&mut self, kind: WindowKind, range: impl Fn(Need) -> Option<AddressRange>) {
        if let Some(bridge) = self.bridge_mut() {
            let window = bridge.window_mut(kind);
            window.range = range(window.need);
            window.changed = true;
        }
    }
}

/// The slots of the functions right behind a bridge, or on the root buses.
pub(super) fn slots(
    functions: &[Function],
    container: Option<usize>,
) -> impl Iterator<Item = (usize, Slot)> + use<'_> {
    subtree(functions, container)
        .filter(move |index| functions[*index].parent == container)
        .flat_map(|child| Slot::ALL.map(|slot| (child, slot)))
}
