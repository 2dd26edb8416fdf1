//! What this kernel does with a network card: it asks who has the router's address
//! (RFC 826).

use core::sync::atomic::Ordering;

use doorbell::pci::Function;

use super::failed::{Failed, missing};
use super::glue::{self, NETWORK_HEARD};
use super::interrupts::Deadline;
use super::serial::println;

/// The addresses of QEMU's user network: a guest's, and the router's.
const OURS: [u8; 4] = [10, 0, 2, 15];
const ROUTER: [u8; 4] = [10, 0, 2, 2];
/// Ethernet's type of ARP; then ARP over Ethernet and IPv4.
const ARP: [u8; 8] = [0x08, 0x06, 0, 1, 0x08, 0, 6, 4];
/// The operations, and what all stations hear.
const REQUEST: [u8; 2] = [0, 1];
const REPLY: [u8; 2] = [0, 2];
const BROADCAST: [u8; 6] = [0xff; 6];

/// Seconds that all of it may take.
const PATIENCE: u64 = 10;

/// Asks, and waits for the answer.
pub(super) fn run(functions: &[Function]) -> Result<(), Failed> {
    let mut deadline = Deadline::after(PATIENCE);
    let mut network = glue::network(functions, &mut deadline)?;
    let mac = network.info().mac.unwrap_or([2, 0, 0, 0, 0, 1]);
    let mut request = [0; 42];
    let parts: [&[u8]; 8] = [
        &BROADCAST, &mac, &ARP, &REQUEST, &mac, &OURS, &[0; 6], &ROUTER,
    ];
    let mut at = 0;
    for part in parts {
        request[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    network.send(&request, &mut deadline)?;
    let mut frame = [0; 1514];
    loop {
        let Some(len) = network.receive_into(0, &mut frame)? else {
            if !deadline.sleep() {
                return Err(missing("answer of the router in time"));
            }
            continue;
        };
        let is_answer =
            len >= 42 && frame[12..20] == ARP && frame[20..22] == REPLY && frame[28..32] == ROUTER;
        if is_answer {
            break;
        }
    }
    deadline.until(|| NETWORK_HEARD.load(Ordering::SeqCst) > 0)?;
    println!(
        "network: {ROUTER:?} is at {:02x?}, interrupts by line: {}",
        &frame[22..28],
        NETWORK_HEARD.load(Ordering::SeqCst)
    );
    Ok(())
}
