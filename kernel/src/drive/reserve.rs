//! Devices that are in use while other commands run: a shell is on them.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use spin::Mutex;

use super::Unit;
use crate::record::Place;

static RESERVED: Mutex<Vec<Place>> = Mutex::new(Vec::new());

/// A device that nobody else opens as long as this is there.
#[derive(Debug)]
pub struct Reserved(Place);

/// Keeps a device that was opened from being opened again.
pub fn reserve(unit: &Unit) -> Reserved {
    RESERVED.lock().push(unit.place.clone());
    Reserved(unit.place.clone())
}

impl Drop for Reserved {
    fn drop(&mut self) {
        RESERVED.lock().retain(|place| *place != self.0);
    }
}

/// Whether a device can be opened; if not, why.
pub(super) fn check(unit: &Unit) -> Result<(), String> {
    if RESERVED.lock().contains(&unit.place) {
        return Err("the shell is on it".to_string());
    }
    Ok(())
}
