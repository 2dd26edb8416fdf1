//! Drivers under load: what a request costs when many follow each other, and how many
//! doorbells and interrupts it takes.
//!
//! A [`Load`] brings a device up, makes requests as fast as its driver does, and
//! resets the device again: that is a [`Turn`]. Loads take turns in one boot
//! ([`compete`]), so that drift hits all alike, and are compared turn by turn. The
//! requests are made by [`pump`], which is the same for all.

pub mod disk;
pub mod frames;
mod pump;
mod score;
pub mod upstream;

pub use pump::{Engine, Parts, parts, pump};
pub use score::{Score, Spread};

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use doorbell::virtio::Features;

use crate::drive::{Mode, Unit, Way};
use crate::machine::Machine;

/// A device that drivers compete on, and how they reach it.
pub struct Arena<'m> {
    /// The machine.
    pub machine: &'m Machine,
    /// The device.
    pub unit: Unit,
    /// How it is reached.
    pub way: Way,
    /// How this project's driver hears from it; upstream's is polled.
    pub mode: Mode,
    /// The generic features that this project's driver accepts.
    pub features: Features,
    /// Whether indirect descriptors are used only if the queue has no room for all
    /// buffers without: a device reads a chain in the ring with less effort than a
    /// table elsewhere.
    pub only_if_needed: bool,
}

/// A device, driven by this project's driver.
pub struct Ours<'a, W> {
    /// The device.
    pub arena: &'a Arena<'a>,
    /// What is asked of it.
    pub workload: W,
}

/// What a turn did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Requests that were made and came back.
    pub requests: u64,
    /// Cycles from before the first request until the last one was back.
    pub cycles: u64,
    /// How often the doorbell was rung for them.
    pub doorbells: u64,
    /// How often the device interrupted for them.
    pub interrupts: u64,
}

/// A driver, a device and what is asked of it.
pub trait Load {
    /// The driver's name.
    fn driver(&self) -> &'static str;

    /// How many requests it has in flight: fewer than asked for, if its driver does
    /// not have more.
    fn depth(&self) -> usize;

    /// Brings the device up, makes so many requests, and resets it.
    ///
    /// # Errors
    ///
    /// What failed: then the load takes no more turns.
    fn turn(&mut self, requests: u64) -> Result<Turn, String>;

    /// Brings the device up, times the parts of a request, and resets it.
    ///
    /// # Errors
    ///
    /// What failed.
    fn parts(&mut self) -> Result<Parts, String>;
}

/// Lets the loads take turns of so many requests, round by round. `before` is told
/// of each round. A load that fails takes no more turns; the others go on.
///
/// The answers are each load's turns, or why it failed.
pub fn compete(
    loads: &mut [Box<dyn Load + '_>],
    rounds: u32,
    requests: u64,
    mut before: impl FnMut(u32),
) -> Vec<Result<Score, String>> {
    let mut scores: Vec<Result<Score, String>> = loads
        .iter()
        .map(|load| Ok(Score::new(load.driver(), load.depth())))
        .collect();
    for round in 0..rounds {
        before(round);
        for (load, result) in loads.iter_mut().zip(&mut scores) {
            if let Ok(score) = result {
                match load.turn(requests) {
                    Ok(turn) => score.add(turn),
                    Err(error) => *result = Err(error),
                }
            }
        }
    }
    scores
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use core::cell::RefCell;

    use super::*;

    struct Noted<'n> {
        name: &'static str,
        fails_at: Option<u32>,
        turns: u32,
        notes: &'n RefCell<Vec<(&'static str, u64)>>,
    }

    impl Load for Noted<'_> {
        fn driver(&self) -> &'static str {
            self.name
        }

        fn depth(&self) -> usize {
            1
        }

        fn parts(&mut self) -> Result<Parts, String> {
            Ok(Parts::default())
        }

        fn turn(&mut self, requests: u64) -> Result<Turn, String> {
            self.turns += 1;
            self.notes.borrow_mut().push((self.name, requests));
            if self.fails_at == Some(self.turns) {
                return Err("gone".to_string());
            }
            Ok(Turn {
                requests,
                cycles: 10 * requests,
                ..Turn::default()
            })
        }
    }

    #[test]
    fn they_take_turns_and_who_fails_stops_nobody() {
        let notes = RefCell::default();
        let load = |name, fails_at| {
            Box::new(Noted {
                name,
                fails_at,
                turns: 0,
                notes: &notes,
            }) as Box<dyn Load + '_>
        };
        let mut rounds = Vec::new();
        let mut loads = [load("a", None), load("b", Some(2))];
        let scores = compete(&mut loads, 3, 7, |round| rounds.push(round));
        assert_eq!(rounds, [0, 1, 2]);
        let order = ["a", "b", "a", "b", "a"].map(|name| (name, 7));
        assert_eq!(*notes.borrow(), order);
        let [Ok(a), Err(error)] = &scores[..] else {
            panic!("{scores:?}")
        };
        assert_eq!(a.turns(), 3);
        assert_eq!(error, "gone");
    }
}
