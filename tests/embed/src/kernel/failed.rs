//! How things fail here: the reason is printed where it is found, and the way up knows
//! only that there was one. So it takes no heap, and no list of all errors.

use core::error::Error;

use super::serial::println;

/// Something failed, and was printed.
#[derive(Debug)]
pub(super) struct Failed;

impl<E: Error> From<E> for Failed {
    fn from(error: E) -> Self {
        println!("failed: {error}");
        Self
    }
}

/// There is no such thing.
pub(super) fn missing(what: &str) -> Failed {
    println!("failed: there is no {what}");
    Failed
}
