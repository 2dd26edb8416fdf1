//! The records of this boot, kept as they were emitted, so that they can be
//! looked at and served later.
//!
//! The newest fit into a small part of the heap; the oldest go first, and it is
//! counted how many went. What says what booted, and in which world, stays: a
//! figure without its world is none.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use spin::Mutex;

use crate::platform::memory;

/// All records together take this part of the heap at most.
const PART_OF_HEAP: usize = 32;

/// What a record takes beside its text, in bytes: its place in the list, and the
/// heap's and the shared pointer's own words.
const OVERHEAD: usize = 64;

static RESULTS: Mutex<Results> = Mutex::new(Results::new());

/// Keeps a record's JSON; for good, if it is `lasting`.
pub fn keep(json: String, lasting: bool) {
    let limit = memory::heap_use().size / PART_OF_HEAP;
    RESULTS.lock().keep(json.into(), lasting, limit);
}

/// The records kept so far.
pub fn snapshot() -> Snapshot {
    RESULTS.lock().snapshot()
}

/// How many records there have been: another number, another [`snapshot`].
pub fn count() -> u64 {
    RESULTS.lock().count
}

/// Records, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The JSON of each.
    pub records: Vec<Arc<str>>,
    /// How many older ones were dropped, for want of room.
    pub dropped: u64,
}

struct Results {
    lasting: Vec<Arc<str>>,
    latest: VecDeque<Arc<str>>,
    /// What `latest` takes, in bytes.
    size: usize,
    dropped: u64,
    count: u64,
}

impl Results {
    const fn new() -> Self {
        Self {
            lasting: Vec::new(),
            latest: VecDeque::new(),
            size: 0,
            dropped: 0,
            count: 0,
        }
    }

    /// `limit` is in bytes, and for those that do not last.
    fn keep(&mut self, json: Arc<str>, lasting: bool, limit: usize) {
        self.count += 1;
        if lasting {
            self.lasting.push(json);
            return;
        }
        self.size += json.len() + OVERHEAD;
        self.latest.push_back(json);
        while self.size > limit
            && let Some(oldest) = self.latest.pop_front()
        {
            self.size -= oldest.len() + OVERHEAD;
            self.dropped += 1;
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            records: self.lasting.iter().chain(&self.latest).cloned().collect(),
            dropped: self.dropped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Room for four records of one byte.
    const LIMIT: usize = 4 * (OVERHEAD + 1);

    fn texts(results: &Results) -> Vec<String> {
        let records = results.snapshot().records;
        records.iter().map(|json| json.as_ref().into()).collect()
    }

    #[test]
    fn the_oldest_go_and_are_counted() {
        let mut results = Results::new();
        results.keep("world".into(), true, LIMIT);
        for json in ["1", "2", "3", "4"] {
            results.keep(json.into(), false, LIMIT);
        }
        assert_eq!(texts(&results), ["world", "1", "2", "3", "4"]);
        assert_eq!(results.snapshot().dropped, 0);
        // Longer than one that goes, so two have to.
        results.keep("five".into(), false, LIMIT);
        assert_eq!(texts(&results), ["world", "3", "4", "five"]);
        assert_eq!(results.snapshot().dropped, 2);
        assert_eq!(results.count, 6);
        assert!(results.size <= LIMIT);
    }

    #[test]
    fn what_is_larger_than_all_room_is_dropped_itself() {
        let mut results = Results::new();
        results.keep("world".into(), true, LIMIT);
        results.keep("1".into(), false, LIMIT);
        results.keep("x".repeat(LIMIT).into(), false, LIMIT);
        assert_eq!(texts(&results), ["world"]);
        assert_eq!((results.size, results.snapshot().dropped), (0, 2));
        results.keep("2".into(), false, LIMIT);
        assert_eq!(texts(&results), ["world", "2"]);
    }
}
