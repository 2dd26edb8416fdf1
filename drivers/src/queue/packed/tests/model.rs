//! A packed ring in the model of `queue::model`.

use super::*;
use crate::queue::model::Modelled;

impl<'d> Modelled<'d> for PackedRing<&'d FakeDma> {
    const PACKED: bool = true;

    fn save(&self) -> Vec<u32> {
        let words = [
            self.first_free,
            self.free,
            self.in_flight,
            self.avail.event(),
            self.used.event(),
            self.unannounced,
            self.broken.into(),
        ];
        let notes = self
            .notes
            .iter()
            .flat_map(|note| [note.next.into(), note.descriptors.into(), note.writable]);
        words.map(u32::from).into_iter().chain(notes).collect()
    }

    fn restore(&mut self, saved: &[u32]) {
        let (words, notes) = saved.split_at(7);
        let word = |at: usize| words[at] as u16;
        let place = |at: usize| Place {
            index: word(at) & 0x7fff,
            wrap: word(at) >> 15 != 0,
        };
        (self.first_free, self.free, self.in_flight) = (word(0), word(1), word(2));
        (self.avail, self.used) = (place(3), place(4));
        (self.unannounced, self.broken) = (word(5), word(6) != 0);
        for (note, saved) in self.notes.iter_mut().zip(notes.chunks(3)) {
            (note.next, note.descriptors) = (saved[0] as u16, saved[1] as u16);
            note.writable = saved[2];
        }
    }

    fn start_at(&mut self, start: u16) {
        let place = Place {
            index: start % self.size,
            wrap: start < self.size,
        };
        (self.avail, self.used) = (place, place);
        for index in 0..self.size {
            // Behind the place is what the lap before has left.
            let wrap = place.wrap == (index < place.index);
            let flags = Place { index, wrap }.used();
            PackedRing::flags(self, index).store(flags.to_le(), Ordering::Relaxed);
        }
        self.set_interrupts(self.interrupts);
    }
}
