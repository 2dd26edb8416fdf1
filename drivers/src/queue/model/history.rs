//! Memory as two processors see it that keep no other order than they must: the
//! release-acquire model of C11, with full barriers.
//!
//! Each cell keeps all that was written to it, in order. A side sees of each cell
//! some of that; it may read the last that it has seen or anything newer. By an
//! acquire it sees what was seen by the release that it reads from. Two full
//! barriers are in an order, and the later one sees what the earlier had seen. So a
//! store may be late for a load that follows it (the store buffer of x86), and
//! plain stores late for each other (as on Arm and RISC-V).

use std::vec::Vec;

/// The most cells: those of the largest ring that is modelled.
const CELLS: usize = 24;

/// How much is seen of each cell: a lane of 5 bits each, of which one stays free, so
/// that all lanes are compared at once.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
struct View(u128);

const LANE: usize = 5;

impl View {
    /// The most that a lane holds.
    const MAX: usize = 0xf;
    /// The free bits.
    const FREE: u128 = {
        let (mut bits, mut lane) = (0, 0);
        while lane < CELLS {
            bits |= 1 << (LANE * lane + LANE - 1);
            lane += 1;
        }
        bits
    };

    fn get(self, cell: usize) -> usize {
        (self.0 >> (LANE * cell)) as usize & Self::MAX
    }

    fn set(&mut self, cell: usize, seen: usize) {
        assert!(seen <= Self::MAX, "{seen} messages in a cell");
        let lane = LANE * cell;
        self.0 = self.0 & !((Self::MAX as u128) << lane) | (seen as u128) << lane;
    }

    /// The larger of each two lanes.
    fn max(self, other: Self) -> Self {
        // A lane's free bit is left where nothing had to be borrowed from it.
        let larger = ((self.0 | Self::FREE) - other.0) & Self::FREE;
        let mask = larger - (larger >> (LANE - 1));
        Self(self.0 & mask | other.0 & !mask)
    }

    fn join(&mut self, other: Self) {
        *self = self.max(other);
    }

    /// The smaller of each two lanes.
    fn min(self, other: Self) -> Self {
        Self(self.0 + other.0 - self.max(other).0)
    }

    /// Each lane less the other's, or 0.
    fn less(self, other: Self) -> Self {
        Self(self.max(other).0 - other.0)
    }
}

/// What an access may be: the ring's accesses are these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Relaxed,
    /// Acquire or release.
    Ordered,
}

/// A side of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Driver,
    Device,
}

/// A cell of the memory: `len` bytes at `offset`, which are accessed at once.
#[derive(Clone, Hash)]
struct Cell {
    offset: u16,
    len: u8,
    written: Vec<Message>,
}

#[derive(Clone, Hash)]
struct Message {
    value: u128,
    /// What an acquire sees by it.
    view: View,
}

#[derive(Clone, Copy, Hash)]
struct Processor {
    seen: View,
    /// What it will see by its next full barrier: it has read what came from there.
    read: View,
    /// What it had seen at its last full barrier.
    barred: View,
}

/// See the module.
#[derive(Clone, Hash)]
pub(super) struct Memory {
    cells: Vec<Cell>,
    sides: [Processor; 2],
    /// What the full barriers have seen.
    full: View,
    /// What goes with a doorbell and with an interrupt, until it is heard.
    signals: [Option<View>; 2],
}

impl Memory {
    /// Memory of these cells: offset, length, and value.
    pub(super) fn new(cells: impl IntoIterator<Item = (u16, u8, u128)>) -> Self {
        let view = View::default();
        let cell = |(offset, len, value)| Cell {
            offset,
            len,
            written: [Message { value, view }].into(),
        };
        let mut cells: Vec<Cell> = cells.into_iter().map(cell).collect();
        cells.sort_by_key(|cell| cell.offset);
        assert!(cells.len() <= CELLS);
        let side = Processor {
            seen: view,
            read: view,
            barred: view,
        };
        Self {
            cells,
            sides: [side, side],
            full: view,
            signals: [None; 2],
        }
    }

    fn index(&self, offset: u16, len: u8) -> usize {
        let found = self.cells.binary_search_by_key(&offset, |cell| cell.offset);
        let index = found.unwrap_or_else(|_| panic!("an access to byte {offset}, in no cell"));
        assert_eq!(len, self.cells[index].len, "bytes accessed at {offset}");
        index
    }

    /// How many values a load may find.
    pub(super) fn choices(&self, side: Side, offset: u16, len: u8) -> usize {
        let index = self.index(offset, len);
        self.cells[index].written.len() - self.sides[side as usize].seen.get(index)
    }

    /// Loads the `choice`th of the values that may be found, counted from the newest.
    pub(super) fn load(
        &mut self,
        side: Side,
        offset: u16,
        len: u8,
        order: Order,
        choice: usize,
    ) -> u128 {
        let index = self.index(offset, len);
        let written = &self.cells[index].written;
        let number = written.len() - 1 - choice;
        let message = &written[number];
        let processor = &mut self.sides[side as usize];
        processor.seen.set(index, number);
        if order == Order::Ordered {
            processor.seen.join(message.view);
        }
        processor.read.join(message.view);
        processor.read.join(processor.seen);
        message.value
    }

    /// Stores a value. `Err`: the other side's last store there is not seen, so that
    /// the two are in no order.
    pub(super) fn store(
        &mut self,
        side: Side,
        offset: u16,
        len: u8,
        value: u128,
        order: Order,
    ) -> Result<(), ()> {
        let index = self.index(offset, len);
        if self.choices(side, offset, len) > 1 {
            return Err(());
        }
        let written = &mut self.cells[index].written;
        let number = written.len();
        let processor = &mut self.sides[side as usize];
        processor.seen.set(index, number);
        processor.read.set(index, number);
        let mut view = match order {
            Order::Relaxed => processor.barred,
            Order::Ordered => processor.seen,
        };
        view.set(index, number);
        written.push(Message { value, view });
        Ok(())
    }

    /// A full barrier.
    pub(super) fn fence(&mut self, side: Side) {
        let processor = &mut self.sides[side as usize];
        let view = processor.read.max(self.full);
        self.full = view;
        *processor = Processor {
            seen: view,
            read: view,
            barred: view,
        };
    }

    /// Signals the other side: a doorbell, or an interrupt. A doorbell brings along
    /// what was before the last full barrier; an interrupt all that is before it.
    pub(super) fn signal(&mut self, side: Side) {
        let processor = &self.sides[side as usize];
        let view = match side {
            Side::Driver => processor.barred,
            Side::Device => processor.seen,
        };
        let signal = self.signals[side as usize].get_or_insert(view);
        signal.join(view);
    }

    /// Whether `side` signalled, and was not heard.
    pub(super) fn is_signalled(&self, side: Side) -> bool {
        self.signals[side as usize].is_some()
    }

    /// The other side hears what `side` signalled.
    pub(super) fn hear(&mut self, side: Side) {
        if let Some(view) = self.signals[side as usize].take() {
            let other = &mut self.sides[1 - side as usize];
            other.seen.join(view);
            other.read.join(view);
        }
    }

    fn newest(&self) -> View {
        let mut view = View::default();
        for (index, cell) in self.cells.iter().enumerate() {
            view.set(index, cell.written.len() - 1);
        }
        view
    }

    /// Whether a side has seen all that was written.
    pub(super) fn is_settled(&self, side: Side) -> bool {
        self.sides[side as usize].seen == self.newest()
    }

    /// All that was written is seen in the end.
    pub(super) fn settle(&mut self, side: Side) {
        let newest = self.newest();
        let processor = &mut self.sides[side as usize];
        (processor.seen, processor.read) = (newest, newest);
    }

    /// Forgets what nobody can read any more, so that memories that are alike in all
    /// that can follow are the same.
    pub(super) fn forget(&mut self) {
        let [driver, device] = &mut self.sides;
        let old = driver.seen.min(device.seen);
        if old == View::default() {
            return;
        }
        let views = [&mut self.full].into_iter();
        let views = views.chain(self.signals.iter_mut().flatten());
        let sides = [driver, device].into_iter();
        let sides = sides.flat_map(|side| [&mut side.seen, &mut side.read, &mut side.barred]);
        for view in views.chain(sides) {
            *view = view.less(old);
        }
        for (index, cell) in self.cells.iter_mut().enumerate() {
            cell.written.drain(..old.get(index));
            for message in &mut cell.written {
                message.view = message.view.less(old);
            }
        }
    }
}
