//! Guests that nobody here wrote: each is booted with the cell's devices, and told by its
//! own output, or by what QMP says of the devices.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::plan::Cell;
use crate::qemu::Files;

/// What was seen of a guest.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    /// `pass` if the guest did what it is there for, else a word that says what became of it.
    pub(crate) verdict: String,
    pub(crate) message: Option<String>,
    pub(crate) took: Duration,
    /// What was observed, as records.
    pub(crate) records: Vec<Value>,
}

/// Boots the guest that the cell's axis `guest` names; `None` if it was interrupted.
///
/// # Errors
/// When a file cannot be written. What the guest does is no error.
pub(crate) fn run(
    _qemu: &Path,
    cell: &Cell,
    _files: &Files,
    _silence: Duration,
) -> Result<Option<Seen>> {
    let guest = cell.labels.get("guest").map_or("", String::as_str);
    anyhow::bail!("there is no guest `{guest}`")
}
