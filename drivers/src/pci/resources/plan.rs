//! Who gets which addresses: computed on the table alone, nothing is written.
//!
//! Three passes. From the top down, what has a valid address keeps it. From the
//! bottom up, each window learns what it needs. From the top down, each bus
//! shares out what leads to it: by falling alignment, so that nothing is lost in
//! between, and in the table's order among equals.
//!
//! The last two are done once more for what is not there yet: with what is left,
//! each empty slot that supports hot-plug gets windows for a device to come.

use super::Apertures;
use super::decode::{decode, decoding};
use super::free::FreeList;
use super::items::{Class, Demand, Slot, slots};
use crate::pci::bridge::{Need, WindowKind, WindowWidth};
use crate::pci::enumerate::subtree;
use crate::pci::function::Function;
use crate::pci::range::AddressRange;
use crate::pci::unassigned::{Space, Unassigned};

/// Plans all addresses, and what each function's command register is to be.
pub(super) fn plan(functions: &mut [Function], apertures: &Apertures<'_>) {
    for container in containers(functions) {
        keep(functions, container, apertures);
    }
    for round in [Round::Present, Round::Spare] {
        for index in (0..functions.len()).rev() {
            for kind in WindowKind::ALL {
                measure(functions, index, kind, round);
            }
        }
        for container in containers(functions) {
            share(functions, container, apertures);
        }
    }
    for function in functions {
        decode(function);
    }
}

/// For whom there is to be room.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Round {
    /// For what is there.
    Present,
    /// For what may be put into empty slots.
    Spare,
}

/// The bytes of a window that leads to an empty slot, as firmware makes it: more
/// than a virtio device takes. There is none of IO, which is scarce.
const SPARE: u64 = 2 << 20;

/// The root buses, and each bridge after the one above it.
fn containers(functions: &[Function]) -> impl Iterator<Item = Option<usize>> + use<> {
    core::iter::once(None).chain((0..functions.len()).map(Some))
}

/// What leads to a bus, by the index of the window; on root buses IO space is the
/// first, and memory the second.
fn reachable(
    functions: &[Function],
    container: Option<usize>,
    apertures: &Apertures<'_>,
) -> [FreeList; 3] {
    let Some(index) = container else {
        let memory = apertures.mem32.iter().chain(apertures.mem64);
        return [
            FreeList::of(apertures.io),
            FreeList::of(memory),
            FreeList::new(),
        ];
    };
    WindowKind::ALL.map(|kind| {
        let bridge = functions[index].bridge();
        FreeList::of(bridge.and_then(|bridge| bridge.window(kind).range.as_ref()))
    })
}

/// Which of [`reachable`]'s lists are a space's.
fn lists(free: &mut [FreeList; 3], space: Space) -> &mut [FreeList] {
    match space {
        Space::Io => &mut free[..1],
        Space::Memory => &mut free[1..],
    }
}

/// Takes the addresses away that are not reachable, or that another function of
/// the bus has as well.
fn keep(functions: &mut [Function], container: Option<usize>, apertures: &Apertures<'_>) {
    if container.is_some_and(|index| functions[index].bridge().is_none()) {
        return;
    }
    let mut free = reachable(functions, container, apertures);
    for child in subtree(functions, container) {
        if functions[child].parent != container {
            continue;
        }
        for slot in Slot::ALL {
            let Some((space, range)) = functions[child].occupied(slot) else {
                continue;
            };
            let free = lists(&mut free, space)
                .iter_mut()
                .any(|list| list.take(range));
            // On a root bus the chipset may decode more than what the machine
            // announces as PCI's. What firmware switched on there is not moved.
            // Nor is what a driver may have switched off meanwhile.
            let on = functions[child].command.contains(decoding(space));
            let elsewhere = container.is_none()
                && (on || functions[child].known)
                && !all_of(apertures, space).any(|aperture| aperture.overlaps(range))
                && !before(functions, child, slot, space, range);
            if !free && !elsewhere {
                functions[child].displace(slot);
            }
        }
    }
}

/// Whether what comes before this slot on a root bus has some of the range. Only what is
/// outside of the apertures has to be asked: the lists of what is free know the rest.
fn before(
    functions: &[Function],
    child: usize,
    slot: Slot,
    space: Space,
    range: AddressRange,
) -> bool {
    slots(functions, None)
        .take_while(|at| *at != (child, slot))
        .filter_map(|(child, slot)| functions[child].occupied(slot))
        .any(|(of, taken)| of == space && range.overlaps(taken))
}

fn all_of<'r>(apertures: &Apertures<'r>, space: Space) -> impl Iterator<Item = &'r AddressRange> {
    let (first, second): (_, &[_]) = match space {
        Space::Io => (apertures.io, &[]),
        Space::Memory => (apertures.mem32, apertures.mem64),
    };
    first.iter().chain(second)
}

/// Works out what a window needs for all that waits behind it. If it is open and
/// that does not fit, but nothing in it has an address yet, it is given up.
fn measure(functions: &mut [Function], index: usize, kind: WindowKind, round: Round) {
    let Some(bridge) = functions[index].bridge() else {
        return;
    };
    let waiting = || {
        slots(functions, Some(index))
            .filter_map(|(child, slot)| functions[child].demand(slot))
            .filter(|demand| demand.class.window(bridge) == kind)
            .map(|demand| demand.need)
    };
    // Alignments are powers of two: a set of them is a number.
    let mut alignments = waiting().fold(0, |set, need| set | need.align);
    let mut total = Need {
        size: 0,
        align: kind.granularity(),
    };
    while alignments != 0 {
        let align = 1 << alignments.ilog2();
        alignments &= !align;
        total.align = total.align.max(align);
        for need in waiting().filter(|need| need.align == align) {
            // More than the address space is more than any window.
            let start = total
                .size
                .checked_next_multiple_of(align)
                .unwrap_or(u64::MAX);
            total.size = start.saturating_add(need.size);
        }
    }
    total.size = total
        .size
        .checked_next_multiple_of(kind.granularity())
        .unwrap_or(u64::MAX);
    if round == Round::Spare && takes_spare(functions, index, kind) {
        total.size = SPARE;
    }

    let useless = bridge.window(kind).range.filter(|range| {
        let fits = range.first.is_multiple_of(total.align) && total.size <= range.size();
        let used = |(child, slot): (usize, Slot)| {
            functions[child]
                .occupied(slot)
                .is_some_and(|(space, taken)| space == kind.space() && range.overlaps(taken))
        };
        !fits && !slots(functions, Some(index)).any(used)
    });
    if useless.is_some() {
        functions[index].displace(Slot::Window(kind));
    }
    if let Some(bridge) = functions[index].bridge_mut() {
        bridge.window_mut(kind).need = total;
    }
}

/// Whether a window is closed that leads to an empty slot.
fn takes_spare(functions: &[Function], index: usize, kind: WindowKind) -> bool {
    let closed = functions[index]
        .bridge()
        .is_some_and(|bridge| bridge.unnumbered.is_none() && bridge.window(kind).range.is_none());
    closed
        && kind.space() == Space::Memory
        && functions[index].hot_plug
        && subtree(functions, Some(index)).is_empty()
}

/// Gives addresses to all that waits for one on a bus.
fn share(functions: &mut [Function], container: Option<usize>, apertures: &Apertures<'_>) {
    if container.is_some_and(|index| functions[index].bridge().is_none()) {
        return;
    }
    let mut free = reachable(functions, container, apertures);
    for (child, slot) in slots(functions, container) {
        if let Some((space, range)) = functions[child].occupied(slot) {
            lists(&mut free, space)
                .iter_mut()
                .any(|list| list.take(range));
        }
    }
    let mut bus = Bus {
        functions,
        container,
        apertures,
        free,
    };
    if container.is_none() {
        // What must be below 4 GiB comes before what may be.
        bus.place_all(|class| class != Class::High);
    }
    bus.place_all(|_| true);
    bus.shrink_windows();
}

/// A bus whose addresses are being shared out.
struct Bus<'p> {
    functions: &'p mut [Function],
    container: Option<usize>,
    apertures: &'p Apertures<'p>,
    free: [FreeList; 3],
}

impl Bus<'_> {
    /// Places what is of these classes. A BAR that does not fit gets the reason;
    /// a window that does not fit waits for [`shrink_windows`](Self::shrink_windows).
    fn place_all(&mut self, among: impl Fn(Class) -> bool) {
        let demand = |functions: &[Function], child: usize, slot| {
            functions[child]
                .demand(slot)
                .filter(|demand| among(demand.class))
        };
        let mut alignments = slots(self.functions, self.container)
            .filter_map(|(child, slot)| demand(self.functions, child, slot))
            .fold(0, |set, demand| set | demand.need.align);
        while alignments != 0 {
            let align = 1 << alignments.ilog2();
            alignments &= !align;
            for child in subtree(self.functions, self.container) {
                if self.functions[child].parent != self.container {
                    continue;
                }
                for slot in Slot::ALL {
                    match demand(self.functions, child, slot) {
                        Some(demand) if demand.need.align == align => {
                            self.place(child, slot, demand);
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    fn place(&mut self, child: usize, slot: Slot, demand: Demand) {
        if let Some(first) = self.allocate(demand) {
            self.functions[child].place(slot, first);
        } else if let Slot::Bar(index) = slot {
            let reason = self.reason(demand);
            self.functions[child].refuse(index, reason);
        }
    }

    /// Index in `free` of what `class` comes from.
    fn source(&self, class: Class) -> usize {
        match self
            .container
            .and_then(|index| self.functions[index].bridge())
        {
            Some(bridge) => class.window(bridge) as usize,
            None => usize::from(class.space() == Space::Memory),
        }
    }

    fn allocate(&mut self, Demand { class, need }: Demand) -> Option<u64> {
        self.free[self.source(class)].allocate(need.size, need.align, class.limit())
    }

    /// Windows that are too large for what is left lose their largest BARs until
    /// they fit: as many BARs as possible get an address.
    fn shrink_windows(&mut self) {
        for child in subtree(self.functions, self.container) {
            if self.functions[child].parent != self.container {
                continue;
            }
            for kind in WindowKind::ALL {
                let slot = Slot::Window(kind);
                while let Some(demand) = self.functions[child].demand(slot) {
                    if let Some(first) = self.allocate(demand) {
                        self.functions[child].place(slot, first);
                    } else {
                        let reason = self.window_reason(child, demand);
                        if !drop_largest(self.functions, child, kind, reason) {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// What there is for a class on this bus, taken or not: the bridge's window,
    /// or all apertures from the lowest to the highest address.
    fn within(&self, class: Class) -> Option<AddressRange> {
        if let Some(bridge) = self
            .container
            .and_then(|index| self.functions[index].bridge())
        {
            return bridge.window(class.window(bridge)).range;
        }
        let limit = class.limit();
        let mut all = all_of(self.apertures, class.space()).filter(|range| range.first <= limit);
        let first = all.next()?;
        Some(all.fold(*first, |hull, range| AddressRange {
            first: hull.first.min(range.first),
            last: hull.last.max(range.last).min(limit),
        }))
    }

    /// Why a BAR on this bus got nothing.
    fn reason(&self, Demand { class, need }: Demand) -> Unassigned {
        let (space, size) = (class.space(), need.size);
        let bridge = self.container.map(|index| self.functions[index].address);
        match (self.within(class), bridge) {
            (Some(within), None) => Unassigned::NoSpace {
                space,
                size,
                within,
            },
            (None, None) => Unassigned::NoAperture { space, size },
            (Some(window), Some(bridge)) => Unassigned::WindowFull {
                space,
                size,
                bridge,
                window,
            },
            (None, Some(bridge)) => Unassigned::NoWindow { space, bridge },
        }
    }

    /// Why the BARs behind a bridge on this bus got nothing.
    fn window_reason(&self, child: usize, Demand { class, need }: Demand) -> Unassigned {
        let (space, size) = (class.space(), need.size);
        let of = self.container.map(|index| self.functions[index].address);
        match (self.within(class), of) {
            (Some(within), of) => Unassigned::NoWindowSpace {
                space,
                size,
                bridge: self.functions[child].address,
                within,
                of,
            },
            (None, None) => Unassigned::NoAperture { space, size },
            (None, Some(bridge)) => Unassigned::NoWindow { space, bridge },
        }
    }
}

/// Gives the reason to the largest BAR (the last of several) that waits for an
/// address in this window, and measures the windows anew. `false` if there is
/// none.
fn drop_largest(
    functions: &mut [Function],
    top: usize,
    kind: WindowKind,
    reason: Unassigned,
) -> bool {
    let bars = subtree(functions, Some(top)).flat_map(|index| (0..6).map(move |bar| (index, bar)));
    let largest = bars
        .filter_map(|(index, bar)| {
            let demand = functions[index].demand(Slot::Bar(bar))?;
            leads_to(functions, index, demand.class, top, kind).then_some((
                demand.need.size,
                index,
                bar,
            ))
        })
        .max();
    let Some((_, index, bar)) = largest else {
        return false;
    };
    functions[index].refuse(bar, reason);
    let mut above = functions[index].parent;
    while let Some(bridge) = above {
        for kind in WindowKind::ALL {
            measure(functions, bridge, kind, Round::Present);
        }
        above = functions[bridge].parent.filter(|_| bridge != top);
    }
    true
}

/// Whether something of this class on the bus of `functions[index]` waits for a
/// window of the bridge `top` to get its address from.
fn leads_to(
    functions: &[Function],
    index: usize,
    mut class: Class,
    top: usize,
    kind: WindowKind,
) -> bool {
    let mut above = functions[index].parent;
    while let Some((number, bridge)) =
        above.and_then(|number| Some((number, functions[number].bridge()?)))
    {
        let window = class.window(bridge);
        if number == top {
            return window == kind;
        }
        let next = bridge.window(window);
        if next.range.is_some() || next.width == WindowWidth::Absent {
            return false;
        }
        class = Class::of_window(bridge, window);
        above = functions[number].parent;
    }
    false
}
