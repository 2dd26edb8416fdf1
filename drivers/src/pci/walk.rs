//! The walk over a segment's buses, depth first, from a root bus down.
//!
//! A bridge is followed if its bus numbers are its own: its secondary bus comes
//! after the bus it is on, and all its buses are inside of the range that leads
//! to it and are claimed by none of its siblings. Each bus is then entered once at
//! most, whatever the bridges say. On request, the walk gives bus numbers to the
//! bridges that have none of their own.

use core::ops::RangeInclusive;

use pci_types::PciAddress;

use super::config::ConfigSpace;
use super::function::PortType;
use super::registers;
use super::unassigned::Unnumbered;

/// The buses of one root: what a host bridge leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusRange {
    /// PCI segment group.
    pub segment: u16,
    /// The root bus.
    pub first: u8,
    /// The highest number a bus behind it may have.
    pub last: u8,
}

impl BusRange {
    /// All buses of segment 0, from root bus 0: what a machine has that says
    /// nothing else.
    pub const ALL: Self = Self {
        segment: 0,
        first: 0,
        last: 0xff,
    };
}

/// What the walk does about a bridge whose bus numbers are not its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Numbering {
    /// It is not followed.
    Keep,
    /// It gets the next numbers that are free, or 0 if none are.
    Assign,
    /// The same, and no bridge keeps the numbers that it has.
    Renew,
}

/// A function that the walk came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) address: PciAddress,
    /// How many functions the walk had found when it found the bridge above.
    pub(crate) parent: Option<usize>,
    /// Number of bridges above.
    pub(crate) depth: u8,
    pub(crate) bridge: Option<Followed>,
}

/// What became of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Followed {
    /// Its bus numbers were its own.
    Kept,
    /// It was given numbers.
    Assigned,
    /// It leads nowhere.
    Not(Unnumbered),
}

/// A set of bus numbers.
#[derive(Clone, Copy, Default)]
struct Buses([u64; 4]);

impl Buses {
    fn contains(&self, bus: u8) -> bool {
        self.0[usize::from(bus / 64)] & 1 << (bus % 64) != 0
    }

    fn set(&mut self, first: u8, last: u8, claimed: bool) {
        for bus in first..=last {
            let (word, bit) = (&mut self.0[usize::from(bus / 64)], 1 << (bus % 64));
            *word = if claimed { *word | bit } else { *word & !bit };
        }
    }

    /// The longest run of numbers after `bus` up to `last` that are not in the
    /// set; the lowest of several.
    fn longest_gap(&self, bus: u8, last: u8) -> Option<(u8, u8)> {
        let mut best: Option<(u8, u8)> = None;
        let mut start = None;
        for number in bus..=last {
            if number == bus || self.contains(number) {
                start = None;
                continue;
            }
            let first = *start.get_or_insert(number);
            if best.is_none_or(|(from, to)| number - first > to - from) {
                best = Some((first, number));
            }
        }
        best
    }
}

/// Where the walk is on a bus, and how it got there.
#[derive(Clone, Copy, Default)]
struct Level {
    /// The bridge that leads here: its bus, device and function number.
    via: Option<(u8, u8)>,
    /// Its place among the functions found.
    parent: u32,
    /// The highest bus number behind it.
    last: u8,
    /// The numbers are the walk's own, and `last` is more than is needed.
    provisional: bool,
    /// A link: only device 0 can be on it.
    one_device: bool,
    depth: u8,
    /// The devices that have a function 0.
    devices: u32,
    cursor: Cursor,
}

/// A place on a bus.
#[derive(Clone, Copy, Default)]
struct Cursor {
    /// The next device and function number to look at.
    next: u16,
    /// Whether the device that it is in has more functions than the first.
    multi_function: bool,
}

/// The walk. An iterator; dropping it before its end leaves buses unnumbered.
pub(crate) struct Walk<'c, C: ?Sized> {
    config: &'c C,
    segment: u16,
    numbering: Numbering,
    /// Numbers that may not be given away on the bus that the walk is on.
    claimed: Buses,
    levels: [Level; 256],
    bus: Option<u8>,
    found: usize,
}

impl<'c, C: ConfigSpace + ?Sized> Walk<'c, C> {
    /// A walk over the buses of `root`, counting functions from `found`.
    ///
    /// # Safety
    ///
    /// Unless it is [`Numbering::Keep`] the bridges are the caller's, and nobody
    /// uses a function behind one.
    pub(crate) unsafe fn new(
        config: &'c C,
        root: BusRange,
        numbering: Numbering,
        found: usize,
    ) -> Self {
        let mut walk = Self {
            config,
            segment: root.segment,
            numbering,
            claimed: Buses::default(),
            levels: [Level::default(); 256],
            bus: None,
            found,
        };
        if root.first <= root.last {
            walk.levels[usize::from(root.first)].last = root.last;
            walk.enter(root.first);
        }
        walk
    }

    fn address(&self, bus: u8, place: u16) -> PciAddress {
        PciAddress::new(self.segment, bus, (place >> 3) as u8, (place & 7) as u8)
    }

    /// The next function at or after `cursor` on `bus`, among the devices in
    /// `devices`; those that turn out to be absent are taken out of it.
    fn advance(&self, bus: u8, cursor: &mut Cursor, devices: &mut u32) -> Option<PciAddress> {
        while cursor.next < 256 {
            let (device, function) = (cursor.next >> 3, cursor.next & 7);
            let first = function == 0;
            if first && *devices & 1 << device == 0 || !first && !cursor.multi_function {
                cursor.next = (device + 1) << 3;
                continue;
            }
            let address = self.address(bus, cursor.next);
            cursor.next += 1;
            let vendor = self.config.read16(address, registers::ID);
            let present = vendor != 0xffff && vendor != 0;
            if first {
                let header = self.config.read8(address, registers::HEADER_TYPE + 2);
                cursor.multi_function = present && header & 0x80 != 0;
                if !present {
                    *devices &= !(1 << device);
                }
            }
            if present {
                return Some(address);
            }
        }
        None
    }

    fn is_bridge(&self, address: PciAddress) -> bool {
        self.config.read8(address, registers::HEADER_TYPE + 2) & 0x7f == 1
    }

    /// Begins with a bus: finds out which bridges on it have numbers of their
    /// own, before any other gets one.
    fn enter(&mut self, bus: u8) {
        self.bus = Some(bus);
        let mut level = self.levels[usize::from(bus)];
        level.devices = if level.one_device { 1 } else { !0 };
        let (mut once, mut twice) = (Buses::default(), Buses::default());
        let mut cursor = Cursor::default();
        while let Some(address) = self.advance(bus, &mut cursor, &mut level.devices) {
            for number in self.numbers(address, level.last).into_iter().flatten() {
                let seen = if once.contains(number) {
                    &mut twice
                } else {
                    &mut once
                };
                seen.set(number, number, true);
            }
        }
        let mut cursor = Cursor::default();
        while let Some(address) = self.advance(bus, &mut cursor, &mut level.devices) {
            if self.is_bridge(address) {
                self.check(address, level.last, &twice);
            }
        }
        level.cursor = Cursor::default();
        self.levels[usize::from(bus)] = level;
    }

    /// The numbers of the buses behind a bridge, if they are possible; `limit` is
    /// the highest that leads to its bus.
    fn numbers(&self, address: PciAddress, limit: u8) -> Option<RangeInclusive<u8>> {
        if !self.is_bridge(address) {
            return None;
        }
        let [_, secondary, subordinate, _] = self
            .config
            .read32(address, registers::BUS_NUMBERS)
            .to_le_bytes();
        let possible =
            address.bus() < secondary && secondary <= subordinate && subordinate <= limit;
        possible.then_some(secondary..=subordinate)
    }

    /// Claims the numbers of a bridge if they are its own: none of them is
    /// another's (`shared`). Closes it otherwise, where bridges are to be
    /// numbered, so that it takes no other's accesses.
    fn check(&mut self, address: PciAddress, limit: u8, shared: &Buses) {
        let register = self.config.read32(address, registers::BUS_NUMBERS);
        let [primary, secondary, subordinate, _] = register.to_le_bytes();
        let bus = address.bus();
        let own = self.numbering != Numbering::Renew
            && self
                .numbers(address, limit)
                .is_some_and(|mut numbers| !numbers.any(|number| shared.contains(number)));
        if own {
            self.claimed.set(secondary, subordinate, true);
            self.levels[usize::from(secondary)] = Level {
                via: Some((bus, place(address))),
                last: subordinate,
                ..Level::default()
            };
        }
        let wanted = if own {
            [bus, secondary, subordinate]
        } else {
            [0; 3]
        };
        if self.numbering != Numbering::Keep && wanted != [primary, secondary, subordinate] {
            self.write_numbers(address, wanted);
        }
    }

    fn write_numbers(&self, address: PciAddress, [primary, secondary, subordinate]: [u8; 3]) {
        let latency = self.config.read8(address, registers::BUS_NUMBERS + 3);
        let register = u32::from_le_bytes([primary, secondary, subordinate, latency]);
        // SAFETY: the bridge is the caller's (`new`), who asked for numbers.
        unsafe { self.config.write(address, registers::BUS_NUMBERS, register) }
    }

    /// Goes to the bus behind a bridge, if there is one.
    fn follow(&mut self, address: PciAddress, depth: u8) -> Followed {
        let [_, secondary, subordinate, _] = self
            .config
            .read32(address, registers::BUS_NUMBERS)
            .to_le_bytes();
        let (bus, via) = (address.bus(), Some((address.bus(), place(address))));
        let kept = secondary > bus && self.levels[usize::from(secondary)].via == via;
        let next = if kept {
            // The bridges behind it share out its numbers again.
            if secondary < subordinate {
                self.claimed.set(secondary + 1, subordinate, false);
            }
            secondary
        } else {
            let limit = self.levels[usize::from(bus)].last;
            let gap = self.claimed.longest_gap(bus, limit);
            let Some((first, last)) = gap else {
                return Followed::Not(Unnumbered::NoneLeft { bus, last: limit });
            };
            if self.numbering == Numbering::Keep {
                return Followed::Not(Unnumbered::Invalid {
                    secondary,
                    subordinate,
                });
            }
            self.write_numbers(address, [bus, first, last]);
            self.claimed.set(first, first, true);
            self.levels[usize::from(first)] = Level {
                via,
                last,
                provisional: true,
                ..Level::default()
            };
            first
        };
        let port = PortType::read(self.config, address);
        let level = &mut self.levels[usize::from(next)];
        // The walk counts at most 65,536 functions a segment.
        level.parent = self.found as u32;
        level.depth = depth.saturating_add(1);
        level.one_device = port.is_some_and(PortType::leads_to_one_device);
        self.enter(next);
        if kept {
            Followed::Kept
        } else {
            Followed::Assigned
        }
    }

    /// Goes back to the bus above.
    fn leave(&mut self, bus: u8) {
        let level = self.levels[usize::from(bus)];
        let Some((above, devfn)) = level.via else {
            self.bus = None;
            return;
        };
        let mut last = level.last;
        if level.provisional {
            last = (bus..=last)
                .rev()
                .find(|bus| self.claimed.contains(*bus))
                .unwrap_or(bus);
            self.write_numbers(self.address(above, u16::from(devfn)), [above, bus, last]);
        }
        self.claimed.set(bus, last, true);
        self.bus = Some(above);
    }
}

/// Device and function number.
fn place(address: PciAddress) -> u8 {
    address.device() << 3 | address.function()
}

impl<C: ConfigSpace + ?Sized> Iterator for Walk<'_, C> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        loop {
            let bus = self.bus?;
            let level = &self.levels[usize::from(bus)];
            let (mut cursor, mut devices) = (level.cursor, level.devices);
            let parent = level.via.map(|_| level.parent as usize);
            let depth = level.depth;
            let Some(address) = self.advance(bus, &mut cursor, &mut devices) else {
                self.leave(bus);
                continue;
            };
            self.levels[usize::from(bus)].cursor = cursor;
            let bridge = self.is_bridge(address).then(|| self.follow(address, depth));
            self.found += 1;
            return Some(Found {
                address,
                parent,
                depth,
                bridge,
            });
        }
    }
}
