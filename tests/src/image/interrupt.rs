//! Interrupts on the CPU's side: vectors, counts, sleep, and lines that will not
//! stop.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::ptr::NonNull;

use doorbell::mmio::MmioRegion;
use doorbell::port::{IoSpace as _, X86Ports};
use doorbell::transport::{IsrBits, IsrStatus};
use doorbell::virtio::Wait as _;
use doorbell_kernel::arch::tsc;
use doorbell_kernel::interrupt::{InterruptError, Interrupts, Source};
use doorbell_kernel::machine::Machine;
use doorbell_kernel::platform::gsi::{Gsi, Polarity, Trigger};
use doorbell_tests::{Outcome, Runner, ensure, skip};

/// How long a sleep is that nothing ends early, in milliseconds.
const SLEEP_MS: u64 = 20;
/// The console's line.
const COM1: Gsi = Gsi {
    number: 4,
    trigger: Trigger::Level,
    polarity: Polarity::High,
};
/// The console's port that says what interrupts; and the bit that says: whenever
/// nothing is left to transmit (16550 datasheet, "Interrupt Enable Register").
const COM1_INTERRUPTS: u16 = 0x3f9;
const TRANSMITTER_EMPTY: u8 = 1 << 1;

pub(crate) fn run(runner: &mut Runner<'_>, machine: &Machine) {
    let Some(interrupts) = &machine.interrupts else {
        runner.run("interrupt", || skip!("the CPU takes no interrupts"));
        return;
    };
    runner.run("interrupt/one that is raised is counted", || {
        counted(machine, interrupts)
    });
    runner.run("interrupt/none comes in uninvited", || {
        uninvited(machine, interrupts)
    });
    runner.run("interrupt/a sleep ends at its deadline", || {
        deadline(machine, interrupts)
    });
    runner.run("interrupt/a sleep ends with an interrupt", || {
        early(machine, interrupts)
    });
    runner.run("interrupt/a stray vector is survived", || {
        stray(machine, interrupts)
    });
    runner.run("interrupt/a line that nobody claims is masked", || {
        storm(machine, interrupts)
    });
    runner.run("interrupt/a line that does not exist is refused", || {
        no_input(interrupts)
    });
}

fn source() -> Arc<Source> {
    Arc::new(Source::message(IsrBits::QUEUE_INTERRUPT))
}

/// How long interrupts get to arrive, in milliseconds: for many of them, where KVM
/// emulates the CPU.
const PATIENCE_MS: u64 = 30_000;

/// Lets interrupts in until `condition` holds.
fn let_in(machine: &Machine, interrupts: &Interrupts, condition: impl Fn() -> bool) -> Outcome {
    let mut patience = machine.clock.wait_ms(PATIENCE_MS);
    interrupts.enabled(|| while !condition() && patience.again() {});
    ensure!(condition(), "no interrupt came in");
    Ok(())
}

/// Many, each before the next is raised.
fn counted(machine: &Machine, interrupts: &Interrupts) -> Outcome {
    let (first, second) = (source(), source());
    let (connection, message) = interrupts.connect_message(first.clone())?;
    let (other, other_message) = interrupts.connect_message(second.clone())?;
    ensure!(
        message.data != other_message.data && message.data == u32::from(connection.vector()),
        "messages {message:x?} and {other_message:x?} of vectors {:#x} and {:#x}",
        connection.vector(),
        other.vector()
    );
    for count in 1..=100 {
        let before = tsc::start();
        interrupts.raise(connection.vector());
        let_in(machine, interrupts, || first.queue_interrupts() >= count)?;
        let (counted, entered) = (first.queue_interrupts(), first.entered());
        ensure!(counted == count, "{counted} of {count} arrived");
        ensure!(
            before < entered && entered < tsc::stop(),
            "entered at {entered}, raised after {before}"
        );
    }
    let others = second.queue_interrupts();
    ensure!(others == 0, "{others} arrived at another source");
    // One vector waits at the CPU once only.
    interrupts.raise(other.vector());
    interrupts.raise(other.vector());
    let_in(machine, interrupts, || second.queue_interrupts() > 0)?;
    drop(other);
    let counted = second.queue_interrupts();
    ensure!(counted == 1, "{counted} of 1 arrived");
    let config = first.config_interrupts() + second.config_interrupts();
    ensure!(config == 0, "{config} configuration changes");
    Ok(())
}

/// With interrupts disabled, as ever, an interrupt waits.
fn uninvited(machine: &Machine, interrupts: &Interrupts) -> Outcome {
    let source = source();
    let (connection, _) = interrupts.connect_message(source.clone())?;
    interrupts.raise(connection.vector());
    let mut a_moment = machine.clock.wait_ms(1);
    while a_moment.again() {}
    let early = source.queue_interrupts();
    ensure!(early == 0, "{early} came in");
    // What waits arrives when the connection ends, at the latest.
    drop(connection);
    let late = source.queue_interrupts();
    ensure!(late == 1, "{late} of 1 arrived");
    Ok(())
}

fn deadline(machine: &Machine, interrupts: &Interrupts) -> Outcome {
    let Some(frequency) = machine.clock.frequency else {
        skip!("the TSC is of unknown frequency");
    };
    let awake = interrupts.counts().timer;
    let start = tsc::start();
    let held = interrupts.sleep_until(|| false, machine.clock.wait_ms(SLEEP_MS));
    let cycles = tsc::stop().wrapping_sub(start);
    let microseconds = cycles / (frequency.hz / 1_000_000).max(1);
    ensure!(!held, "the condition never holds");
    // A host that is busy may be late by a lot, but it cannot be early.
    ensure!(
        (SLEEP_MS * 1000..2_000_000).contains(&microseconds),
        "it took {microseconds} us"
    );
    let woken = interrupts.counts().timer - awake;
    ensure!((1..10).contains(&woken), "the timer woke {woken} times");
    Ok(())
}

/// By an interrupt that is pending before the CPU stops.
fn early(machine: &Machine, interrupts: &Interrupts) -> Outcome {
    let source = source();
    let (connection, _) = interrupts.connect_message(source.clone())?;
    let deadline = machine.clock.patience();
    let mut asked = 0;
    let held = interrupts.sleep_until(
        || {
            asked += 1;
            if asked == 1 {
                interrupts.raise(connection.vector());
            }
            source.queue_interrupts() > 0
        },
        deadline,
    );
    ensure!(held, "no interrupt came");
    ensure!(deadline.remaining().is_some(), "it slept to the deadline");
    // The second time, if not an older timer's interrupt came between.
    ensure!((2..=3).contains(&asked), "it was asked {asked} times");
    Ok(())
}

/// The last of the devices' vectors, and one of the first 8259's.
fn stray(machine: &Machine, interrupts: &Interrupts) -> Outcome {
    let before = interrupts.counts().strays;
    for (count, vector) in [(1, 0xef), (2, 0x27)] {
        interrupts.raise(vector);
        let_in(machine, interrupts, || {
            interrupts.counts().strays - before >= count
        })?;
    }
    let strays = interrupts.counts().strays - before;
    ensure!(strays == 2, "{strays} strays of 2");
    Ok(())
}

/// A line's source that never says that the interrupt is its own.
fn idle() -> Arc<Source> {
    let status = NonNull::from(Box::leak(Box::new(0u8)));
    // SAFETY: the byte is nobody else's, for ever.
    let region = unsafe { MmioRegion::new(status, 1) };
    // Inside, since it is all of the region.
    let register = region.registers(0).unwrap_or_else(|| unreachable!());
    Arc::new(Source::line(IsrStatus::byte(register)))
}

/// The console's transmitter is idle, and holds its line for that: at the IO-APIC
/// this looks like a device that nobody has a driver for.
fn storm(machine: &Machine, interrupts: &Interrupts) -> Outcome {
    let before = interrupts.counts();
    let line = interrupts.connect_line(COM1, idle())?;
    // SAFETY: the port is COM1's, which the kernel drives without interrupts; they
    // are off again before anything is printed.
    unsafe { X86Ports.write8(COM1_INTERRUPTS, TRANSMITTER_EMPTY) };
    let stopped = let_in(machine, interrupts, || !interrupts.masked().is_empty());
    let masked = interrupts.masked();
    let after = interrupts.counts();
    let mut a_moment = machine.clock.wait_ms(1);
    interrupts.enabled(|| while a_moment.again() {});
    let later = interrupts.counts();
    // SAFETY: as above.
    unsafe { X86Ports.write8(COM1_INTERRUPTS, 0) };
    stopped?;
    ensure!(masked == [COM1], "masked: {masked:?}");
    // One may have been on its way when the line was masked.
    let more = later.unclaimed - after.unclaimed;
    ensure!(
        more <= 1 && after.unclaimed >= before.unclaimed + 100,
        "unclaimed: {} before, {} when it was masked, {} after",
        before.unclaimed,
        after.unclaimed,
        later.unclaimed
    );
    ensure!(later.storms == before.storms + 1, "storms: {later:?}");
    // Another source on the line opens it again; without any it is forgotten.
    drop(interrupts.connect_line(COM1, idle())?);
    ensure!(interrupts.masked().is_empty(), "it is still masked");
    drop(line);
    Ok(())
}

fn no_input(interrupts: &Interrupts) -> Outcome {
    let gsi = Gsi {
        number: u32::MAX,
        ..COM1
    };
    let error = interrupts.connect_line(gsi, idle()).err();
    ensure!(
        error == Some(InterruptError::NoInput(gsi)),
        "the error is {error:?}"
    );
    Ok(())
}
