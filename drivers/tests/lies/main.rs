//! Devices that lie: each structure that a device writes or presents, by each kind of
//! lie, against the drivers as a kernel has them (`table` lists all of it).
//!
//! `cargo test -p doorbell --features test-utils --test lies -- --nocapture` prints
//! the table, and what the driver said in each cell.
//!
//! What holds in every cell, because the fakes watch over it: nothing panics; no
//! wait has no end; the device finds all memory that it was given still allocated
//! when it is reset ([`FakeDevice`](doorbell::transport::fake::FakeDevice) and
//! [`FakeDma`](doorbell::dma::fake::FakeDma) know whose it is), and a driver reaches
//! into no memory but its own. What else must hold is in the cell's function, which
//! returns the driver's own words.

mod balloon;
mod bars;
mod block;
mod config;
mod console;
mod events;
mod msix;
mod net;
mod pci;
mod ring;
mod session;
mod setup;
mod table;

use std::panic;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use table::{Cell, LIES, TABLE};

/// More than any cell takes, by far.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a cell on a thread of its own: what the driver said, or what went wrong.
fn run(cell: fn() -> String) -> Result<String, String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let outcome = panic::catch_unwind(cell).map_err(|cause| {
            let text = cause.downcast_ref::<String>().cloned();
            text.or_else(|| cause.downcast_ref::<&str>().map(ToString::to_string))
                .unwrap_or_else(|| "it panics".to_string())
        });
        let _ = sender.send(outcome);
    });
    let outcome = receiver.recv_timeout(PATIENCE);
    outcome.unwrap_or_else(|_| Err(format!("no end after {PATIENCE:?}")))
}

#[test]
fn no_lie_is_believed() {
    let (mut said, mut failed) = (Vec::new(), 0);
    let widest = TABLE.iter().map(|row| row.structure.len()).max();
    let widest = widest.unwrap_or(0);
    println!("| {:widest$} | {} |", "", LIES.join(" | "));
    println!("|{}", "---|".repeat(1 + LIES.len()));
    for row in TABLE {
        let mut line = format!("| {:widest$} |", row.structure);
        for (lie, cell) in LIES.iter().zip(&row.cells) {
            let entry = match cell {
                Cell::Not(why) => format!("({why})"),
                Cell::Test(test) => match run(*test) {
                    Ok(words) => {
                        said.push(format!("{}, {lie}: {words}", row.structure));
                        "held".to_string()
                    }
                    Err(what) => {
                        failed += 1;
                        said.push(format!("{}, {lie}: FAILED: {what}", row.structure));
                        "FAILED".to_string()
                    }
                },
            };
            line += &format!(" {entry} |");
        }
        println!("{line}");
    }
    println!();
    for words in &said {
        println!("- {words}");
    }
    let cells = said.len();
    println!("\n{} of {cells} lies held", cells - failed);
    assert_eq!(failed, 0, "of {cells} lies");
}
