//! What this kernel does with a disk.

use core::sync::atomic::Ordering;

use doorbell::device::blk::SECTOR;
use doorbell::pci::Function;

use super::failed::Failed;
use super::glue::{self, DISK_HEARD};
use super::interrupts::Deadline;
use super::serial::println;

/// Where the host left something, and where it gets it back.
const FROM: u64 = 7;
const TO: u64 = 21;
/// Seconds that all of it may take.
const PATIENCE: u64 = 10;

/// Reads a sector, which ends with the sum of its other bytes, and writes it backwards
/// into another.
pub(super) fn run(functions: &[Function]) -> Result<(), Failed> {
    let mut deadline = Deadline::after(PATIENCE);
    let (mut disk, _msix) = glue::disk(functions, &mut deadline)?;
    let mut sector = [0; SECTOR];
    disk.read(FROM, &mut sector, &mut deadline)?;
    let (bytes, sum) = sector.split_at(SECTOR - 4);
    let computed = bytes.iter().fold(0u32, |sum, &byte| {
        sum.wrapping_mul(31).wrapping_add(byte.into())
    });
    if sum != computed.to_le_bytes() {
        println!("failed: sector {FROM} sums up to {computed:#010x}, and says {sum:02x?}");
        return Err(Failed);
    }
    sector.reverse();
    disk.write(TO, &sector, &mut deadline)?;
    disk.flush(&mut deadline)?;
    deadline.until(|| DISK_HEARD.load(Ordering::SeqCst) > 0)?;
    println!(
        "disk: {} sectors, sum {computed:#010x}, interrupts by message: {}",
        disk.info().capacity,
        DISK_HEARD.load(Ordering::SeqCst)
    );
    Ok(())
}
