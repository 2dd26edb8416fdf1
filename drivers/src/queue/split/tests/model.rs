//! A split ring in the model of `queue::model`.

use std::vec::Vec;

use super::*;
use crate::queue::model::Modelled;

impl<'d> Modelled<'d> for SplitRing<&'d FakeDma> {
    const PACKED: bool = false;

    fn save(&self) -> Vec<u32> {
        let words = [
            self.first_free,
            self.free,
            self.in_flight,
            self.avail_idx,
            self.used_idx,
            self.broken.into(),
        ];
        let notes = self
            .notes
            .iter()
            .flat_map(|note| [note.next.into(), note.descriptors.into(), note.writable]);
        let words = words.map(u32::from).into_iter().chain([self.unannounced]);
        words.chain(notes).collect()
    }

    fn restore(&mut self, saved: &[u32]) {
        let (words, notes) = saved.split_at(7);
        let word = |at: usize| words[at] as u16;
        (self.first_free, self.free, self.in_flight) = (word(0), word(1), word(2));
        (self.avail_idx, self.used_idx) = (word(3), word(4));
        (self.broken, self.unannounced) = (words[5] != 0, words[6]);
        for (note, saved) in self.notes.iter_mut().zip(notes.chunks(3)) {
            (note.next, note.descriptors) = (saved[0] as u16, saved[1] as u16);
            note.writable = saved[2];
        }
    }

    fn start_at(&mut self, start: u16) {
        (self.avail_idx, self.used_idx) = (start, start);
        self.avail_idx_field()
            .store(start.to_le(), Ordering::Relaxed);
        self.used_idx_field()
            .store(start.to_le(), Ordering::Relaxed);
        self.set_interrupts(self.interrupts);
    }
}
