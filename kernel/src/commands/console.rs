//! `console`: the shell on a virtio console, and the echo of its data port.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::cell::{Cell, RefCell};
use core::fmt;

use doorbell::device::console::DEVICE_TYPE;
use doorbell::device::{DeviceError, Driver as _};
use doorbell::transport::{Interface, NotifyPath, Transport};
use doorbell::virtio::Wait as _;

use super::pick::{self, Wanted};
use super::{Command, fail, number, shell};
use crate::clock::Clock;
use crate::console::Desk;
use crate::drive::{self, Listener, Mode, Unit};
use crate::machine::Machine;
use crate::platform::dma::KernelDma;
use crate::platform::serial;
use crate::println;
use crate::record::Record;
use crate::terminal::{self, Terminal};

/// How often the serial line and the device's status are looked at, in milliseconds:
/// no interrupt tells of either.
const LOOK_EVERY_MS: u64 = 100;

/// Runs the shell on a console device.
pub(super) const COMMAND: Command = Command {
    name: "console",
    usage: "[device=N] [way=legacy|modern|mmio]",
    about: "the shell on a virtio console, shown here too; a key here ends it; data0 echoes",
    defaults: &[],
    parse: |arguments| {
        let (mut device, mut way) = (0, None);
        arguments.each(|key, value| {
            match key {
                "device" => device = number(value, 0..=1000)? as usize,
                "way" => way = Some(Wanted::parse(value)?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(Box::new(move |machine| match run(machine, device, way) {
            Ok(failures) => failures,
            Err(error) => {
                fail("console", error);
                1
            }
        }))
    },
};

/// The result is how many things failed in the shell.
fn run(machine: &Machine, device: usize, way: Option<Wanted>) -> Result<u32, String> {
    let unit = pick::find(machine, DEVICE_TYPE, device)?;
    let named = |error: &dyn fmt::Display| format!("{} at {}: {error}", unit.name(), unit.at());
    let way = pick::choose(&drive::ways(machine, &unit), way).map_err(|error| named(&error))?;
    let mode = pick::mode(machine, &unit);
    let mut opened = drive::open(machine, &unit, way, mode).map_err(|error| named(&error))?;
    let path = opened.path();
    let _reserved = drive::reserve(&unit);
    let listener = &opened.listener;
    let setup = listener.setup(drive::FEATURES);
    let wait = &mut listener.bring_up();
    let mut desk = Desk::new(&mut *opened.transport, &setup, KernelDma, wait)
        .map_err(|error| named(&error))?;
    desk.console().set_interrupts(listener.interrupts());
    introduce(&unit, path, mode, &mut desk);

    // A line feed here ends the line that the shell has read.
    let key = serial::read_byte().is_some_and(|byte| byte != b'\n');
    let seat = Seat {
        desk: RefCell::new(desk),
        listener,
        clock: machine.clock,
        ended: Cell::new(key.then_some(End::Key)),
    };
    let failures = terminal::with(&seat, || shell::shell(machine));
    match seat.ended.get() {
        Some(End::Failed(error)) => Err(named(&error)),
        Some(End::Key) => {
            println!("A key here has ended it.");
            Ok(failures)
        }
        None => Ok(failures),
    }
}

/// Shows the device, and where the shell is.
fn introduce<T: Transport>(
    unit: &Unit,
    path: (Interface, NotifyPath),
    mode: Mode,
    desk: &mut Desk<T, KernelDma>,
) {
    let (port, name) = desk.port();
    let name = name.map_or(String::new(), |name| format!(", {name}"));
    let about = format!("the shell is on port {port}{name}");
    println!(
        "{} at {} over {}, {}, {}: {about}.",
        unit.name(),
        unit.at(),
        path.0,
        path.1,
        mode.name()
    );
    println!("Press Enter there for its prompt; \"exit\" there ends it, or a key here.");
    let record = drive::device_record(unit, path, mode, desk.console(), about);
    Record::Device(record).emit();
}

/// Why nothing more will be typed.
#[derive(Clone, Copy)]
enum End {
    /// A key at the serial line.
    Key,
    Failed(DeviceError),
}

/// The shell's terminal.
struct Seat<'a, T: Transport> {
    desk: RefCell<Desk<T, KernelDma>>,
    listener: &'a Listener<'a>,
    clock: Clock,
    ended: Cell<Option<End>>,
}

impl<T: Transport> Seat<'_, T> {
    /// Uses the device, until it fails.
    fn at<R>(
        &self,
        work: impl FnOnce(&mut Desk<T, KernelDma>) -> Result<R, DeviceError>,
    ) -> Option<R> {
        if self.ended.get().is_some() {
            return None;
        }
        let result = work(&mut self.desk.borrow_mut());
        result
            .map_err(|error| self.ended.set(Some(End::Failed(error))))
            .ok()
    }
}

impl<T: Transport> Terminal for Seat<'_, T> {
    fn show(&self, text: &[u8]) {
        self.at(|desk| desk.show(text, &mut self.listener.patience()));
    }

    fn read_byte(&self) -> Option<u8> {
        self.at(|desk| {
            desk.serve()?;
            desk.read_byte()
        })?
    }

    fn wait_for_byte(&self) -> Option<u8> {
        let mut next_look = self.clock.wait_ms(LOOK_EVERY_MS);
        loop {
            let (byte, busy) = self.at(|desk| Ok((desk.read_byte()?, desk.serve()?)))?;
            if byte.is_some() {
                return byte;
            }
            if next_look.remaining().is_none() {
                self.at(|desk| desk.console().health())?;
                if serial::read_byte().is_some() {
                    self.ended.set(Some(End::Key));
                }
                next_look = self.clock.wait_ms(LOOK_EVERY_MS);
            } else if !busy {
                self.listener.wait(next_look).again();
            }
        }
    }
}
