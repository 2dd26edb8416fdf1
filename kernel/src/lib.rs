//! The doorbell unikernel's parts; `main.rs` puts them together.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod arch;
pub mod ballast;
pub mod bench;
pub mod clock;
pub mod commands;
pub mod console;
pub mod drive;
pub mod interrupt;
pub mod load;
pub mod machine;
pub mod net;
pub mod pci_names;
pub mod platform;
pub mod record;
pub mod results;
pub mod run;
pub mod terminal;
pub mod world;
