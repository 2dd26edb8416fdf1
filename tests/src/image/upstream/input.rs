//! Upstream's input driver: the host presses keys.

use alloc::vec::Vec;

use doorbell::virtio::Wait as _;
use doorbell_tests::{Outcome, Runner, ensure};
use virtio_drivers::device::input::VirtIOInput;

use super::{Bench, Hal, Upstream};

/// The virtio device type (5.8).
pub(super) const DEVICE_TYPE: u16 = 18;

type Driver<'t> = VirtIOInput<Hal, Upstream<'t>>;

/// Types of events, and what ends a report, as Linux's input layer has them (5.8.6.1).
const EV_SYN: u16 = 0;
const EV_KEY: u16 = 1;
const SYN_REPORT: u16 = 0;

/// Keys, as QEMU calls them, and their codes: more events than upstream has buffers.
const KEYS: [(&str, u16); 12] = [
    ("esc", 1),
    ("1", 2),
    ("q", 16),
    ("ret", 28),
    ("a", 30),
    ("shift", 42),
    ("z", 44),
    ("spc", 57),
    ("f10", 68),
    ("up", 103),
    ("delete", 111),
    ("meta_l", 125),
];

/// How long no further event may come, in milliseconds.
const QUIET_MS: u64 = 20;

pub(super) fn open(transport: Upstream<'_>) -> virtio_drivers::Result<Driver<'_>> {
    VirtIOInput::new(transport)
}

pub(super) fn test<'t>(runner: &mut Runner<'_>, bench: &Bench<'t>, transport: Upstream<'t>) {
    let Some(mut keyboard) = bench.start(runner, transport, open) else {
        return;
    };
    bench.run(runner, "says what it is", || says(&mut keyboard));
    bench.run(runner, "has just the host's keys", || {
        keys(&mut keyboard, bench)
    });
    bench.show();
}

fn says(keyboard: &mut Driver<'_>) -> Outcome {
    let name = keyboard.name()?;
    // QEMU counts the end of its string.
    let name = name.trim_end_matches('\0');
    ensure!(name == "QEMU Virtio Keyboard", "its name is {name:?}");
    let codes = keyboard.ev_bits(EV_KEY as u8)?;
    for (key, code) in KEYS {
        let byte = codes.get(usize::from(code / 8)).copied();
        ensure!(
            byte.unwrap_or_default() & 1 << (code % 8) != 0,
            "it has no key {key}"
        );
    }
    Ok(())
}

/// An event: its type, code and value.
type Event = (u16, u16, u32);

/// What a key does: down, a report, up, a report.
fn press((_, code): (&str, u16)) -> [Event; 4] {
    let report = (EV_SYN, SYN_REPORT, 0);
    [(EV_KEY, code, 1), report, (EV_KEY, code, 0), report]
}

fn keys(keyboard: &mut Driver<'_>, bench: &Bench<'_>) -> Outcome {
    let names = KEYS.map(|(name, _)| name).join(" ");
    let expected: Vec<Event> = KEYS.into_iter().flat_map(press).collect();
    let mut events = Vec::new();
    let mut take = || {
        while let Some(event) = keyboard.pop_pending_event() {
            events.push((event.event_type, event.code, event.value));
        }
    };
    let place = &bench.unit.place;
    let arguments = [("keys", names.as_str().into())];
    bench
        .witness
        .ask_while(place, "keys", arguments, &mut take)?;
    // All are on their way when the host has answered.
    let mut patience = bench.clock.wait_ms(QUIET_MS);
    while patience.again() {
        take();
    }
    let wrong = events.iter().zip(&expected).position(|(a, b)| a != b);
    if let Some(place) = wrong {
        let (found, expected) = (events[place], expected[place]);
        ensure!(false, "event {place} is {found:?}, not {expected:?}");
    }
    let (count, expected) = (events.len(), expected.len());
    ensure!(count == expected, "{count} events came, not {expected}");
    Ok(())
}
