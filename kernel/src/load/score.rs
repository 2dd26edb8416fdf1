//! What turns add up to.

use alloc::vec::Vec;

use serde::Serialize;

use super::Turn;

/// A distribution over turns, in few words. Quartiles are values that occurred.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// A quarter is not above it.
    pub p25: f64,
    /// The median.
    pub p50: f64,
    /// A quarter is not below it.
    pub p75: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    /// The spread of some values; `None` if there are none.
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        let at = |quarter: usize| values[(last * quarter + 2) / 4];
        Some(Self {
            min: at(0),
            p25: at(1),
            p50: at(2),
            p75: at(3),
            max: at(4),
        })
    }
}

/// The turns of one driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Score {
    driver: &'static str,
    depth: usize,
    turns: Vec<Turn>,
}

impl Score {
    /// No turns yet.
    pub(super) fn new(driver: &'static str, depth: usize) -> Self {
        Self {
            driver,
            depth,
            turns: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, turn: Turn) {
        self.turns.push(turn);
    }

    /// The driver's name.
    pub fn driver(&self) -> &'static str {
        self.driver
    }

    /// How many requests it had in flight.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// How many turns it took.
    pub fn turns(&self) -> usize {
        self.turns.len()
    }

    /// How many requests it made in all.
    pub fn requests(&self) -> u64 {
        self.turns.iter().map(|turn| turn.requests).sum()
    }

    /// Cycles a request, turn by turn.
    fn each(&self) -> impl Iterator<Item = f64> {
        self.turns
            .iter()
            .map(|turn| per_request(turn.cycles, turn.requests))
    }

    /// Cycles a request; `None` without turns.
    pub fn cycles(&self) -> Option<Spread> {
        Spread::of(self.each().collect())
    }

    /// Doorbells a request, over all turns.
    pub fn doorbells(&self) -> f64 {
        let rung = self.turns.iter().map(|turn| turn.doorbells).sum();
        per_request(rung, self.requests())
    }

    /// Interrupts a request, over all turns.
    pub fn interrupts(&self) -> f64 {
        let came = self.turns.iter().map(|turn| turn.interrupts).sum();
        per_request(came, self.requests())
    }

    /// Its cycles a request by those of `other`, turn by turn; `None` without turns.
    pub fn ratio(&self, other: &Self) -> Option<Spread> {
        let pairs = self.each().zip(other.each());
        Spread::of(pairs.map(|(ours, theirs)| ours / theirs).collect())
    }
}

fn per_request(count: u64, requests: u64) -> f64 {
    count as f64 / requests.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(cycles: &[u64]) -> Score {
        let turns = cycles.iter().map(|&cycles| Turn {
            requests: 10,
            cycles,
            doorbells: 5,
            interrupts: 1,
        });
        Score {
            driver: "ours",
            depth: 1,
            turns: turns.collect(),
        }
    }

    #[test]
    fn a_spread_is_of_values_that_occurred() {
        let spread = |n: u64| score(&(0..n).map(|k| 10 * k).collect::<Vec<_>>()).cycles();
        let expect = |[min, p25, p50, p75, max]: [f64; 5]| {
            Some(Spread {
                min,
                p25,
                p50,
                p75,
                max,
            })
        };
        assert_eq!(spread(0), None);
        assert_eq!(spread(1), expect([0.0; 5]));
        assert_eq!(spread(2), expect([0.0, 0.0, 1.0, 1.0, 1.0]));
        assert_eq!(spread(5), expect([0.0, 1.0, 2.0, 3.0, 4.0]));
        assert_eq!(spread(9), expect([0.0, 2.0, 4.0, 6.0, 8.0]));
    }

    #[test]
    fn ratios_are_taken_turn_by_turn() {
        let (a, b) = (score(&[100, 400, 90]), score(&[200, 800, 90]));
        let ratio = a.ratio(&b).unwrap();
        assert_eq!((ratio.min, ratio.p50, ratio.max), (0.5, 0.5, 1.0));
        assert_eq!(
            (a.doorbells(), a.interrupts(), a.requests()),
            (0.5, 0.1, 30)
        );
        assert_eq!(score(&[]).ratio(&a), None);
    }
}
