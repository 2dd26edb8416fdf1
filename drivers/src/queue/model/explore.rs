//! A driver that does all that a driver may do with a ring, and the search through
//! what can come of it.

use core::mem;
use std::format;
use std::string::String;
use std::vec::Vec;

use super::device::{At, BUFFER, Device, Notes, address};
use super::history::{Memory, Side};
use super::packed::{Packed, Place};
use super::split::Split;
use super::{Choices, Mutation, WORLD, World, hash, with};
use crate::dma::fake::FakeDma;
use crate::queue::tests::rig::Make;
use crate::queue::{Buffer, Used};
use crate::virtio::Features;

/// A ring that can be put back to where it was.
pub(in crate::queue) trait Modelled<'d>: Make<'d> {
    const PACKED: bool;

    /// What the driver notes.
    fn save(&self) -> Vec<u32>;

    fn restore(&mut self, saved: &[u32]);

    /// Begins with the index `start`, as if that many requests had gone before.
    fn start_at(&mut self, start: u16);
}

/// What is explored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) size: u16,
    pub(super) event_idx: bool,
    /// Whether the driver sleeps until an interrupt; it polls otherwise.
    pub(super) interrupts: bool,
    /// The free-running index to begin with: in a packed ring, the descriptor in the
    /// first of two laps or the second.
    pub(super) start: u16,
    /// How many buffers each request has.
    pub(super) script: &'static [usize],
    pub(super) mutation: Option<Mutation>,
}

/// How much was gone through.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Explored {
    /// States at which the driver or the device could go on.
    pub(super) states: usize,
    /// Calls of the ring.
    pub(super) calls: usize,
}

/// What the driver does next.
#[derive(Clone, Copy, Hash, PartialEq, Eq)]
enum Next {
    Add,
    Kick,
    Pop,
    Wait,
    Done,
}

/// Where the driver is between two calls of the ring.
#[derive(Clone, Hash)]
struct Driver {
    next: Next,
    added: usize,
    popped: usize,
}

/// A state between two calls of the driver's.
struct Between {
    driver: Driver,
    ring: Vec<u32>,
    memory: Memory,
    device: Device,
}

fn device<'d, R: Modelled<'d>>(ring: &R, case: Case) -> (Device, Vec<(u16, u8)>) {
    let at = ring.addresses();
    let driver = (at.driver - at.descriptors) as u16;
    let device = (at.device - at.descriptors) as u16;
    let notes = Notes {
        at: At::Asleep,
        event_idx: case.event_idx,
        size: case.size,
        script: case.script,
        taken: 0,
        held: Vec::new(),
        given: Vec::new(),
    };
    if R::PACKED {
        let start = Place(case.start % case.size, case.start < case.size);
        let packed = Packed {
            notes,
            driver,
            device,
            avail: start,
            used: start,
            gave: (start, 0),
        };
        (
            Device::Packed(packed),
            Packed::cells(case.size, driver, device),
        )
    } else {
        let split = Split {
            notes,
            avail: driver,
            used: device,
            avail_idx: case.start,
            used_idx: case.start,
        };
        (
            Device::Split(split),
            Split::cells(case.size, driver, device),
        )
    }
}

/// Goes through all that can happen; the error is the first thing that must not.
pub(super) fn explore<'d, R: Modelled<'d>>(
    dma: &'d FakeDma,
    case: Case,
) -> Result<Explored, String> {
    let events = if case.event_idx {
        Features::EVENT_IDX
    } else {
        Features::empty()
    };
    let mut ring = R::make(dma, case.size, 0, Features::VERSION_1 | events);
    ring.set_interrupts(case.interrupts);
    ring.start_at(case.start);
    let (mut device, cells) = device(&ring, case);
    let base = dma.cpu_pointer(ring.addresses().descriptors, 1);
    let cells = cells.into_iter().map(|(offset, len)| {
        let bytes = (0..usize::from(len)).rev();
        // SAFETY: inside the ring.
        let byte = |at| unsafe { base.add(usize::from(offset) + at).read() };
        let value = bytes.fold(0, |value, at| value << 8 | u128::from(byte(at)));
        (offset, len, value)
    });
    let mut memory = Memory::new(cells);
    // A device that is just there wants a doorbell.
    let mut choices = Choices::default();
    let mut hands = super::Hands {
        memory: &mut memory,
        choices: &mut choices,
        fault: &mut None,
    };
    match &mut device {
        Device::Split(split) => split.sleep(&mut hands),
        Device::Packed(packed) => packed.sleep(&mut hands),
    }
    memory.settle(Side::Driver);
    let driver = Driver {
        next: Next::Add,
        added: 0,
        popped: 0,
    };
    let ring_at = ring.save();
    let first = Between {
        driver,
        ring: ring_at,
        memory: memory.clone(),
        device: device.clone(),
    };
    WORLD.set(Some(World {
        memory,
        device,
        choices,
        fault: None,
        mutation: case.mutation,
        pops: false,
        base: base as usize,
    }));
    let result = search(&mut ring, case, first);
    WORLD.set(None);
    result
}

fn search<'d, R: Modelled<'d>>(
    ring: &mut R,
    case: Case,
    first: Between,
) -> Result<Explored, String> {
    let (mut left, mut calls) = (Vec::from([first]), 0);
    while let Some(from) = left.pop() {
        if from.driver.next == Next::Done {
            continue;
        }
        let call = hash(&(&from.driver, &from.ring));
        loop {
            with(|world| {
                world.memory = from.memory.clone();
                world.device = from.device.clone();
                world.choices.begin(call);
            });
            ring.restore(&from.ring);
            let mut driver = from.driver.clone();
            let done = driver.call(ring, case);
            calls += 1;
            let fault = with(|world| world.fault.take()).flatten();
            if let Some(what) = fault.or(done.err()) {
                let Driver { added, popped, .. } = driver;
                return Err(format!("{what}, with {added} added and {popped} back"));
            }
            let saved = ring.save();
            let (new, more) = with(|world| {
                world.memory.forget();
                let state = hash(&(&driver, &saved, &world.memory, &world.device));
                let choices = &mut world.choices;
                let new = !choices.known && choices.seen.insert(state);
                let new = new.then(|| (world.memory.clone(), world.device.clone()));
                (new, choices.next())
            })
            .expect("it was set");
            if let Some((memory, device)) = new {
                left.push(Between {
                    driver,
                    ring: saved,
                    memory,
                    device,
                });
            }
            if !more {
                break;
            }
        }
    }
    let states = with(|world| world.choices.seen.len()).unwrap_or(0);
    Ok(Explored { states, calls })
}

fn choose(of: usize) -> usize {
    with(|world| world.choices.choose(of)).unwrap_or(0)
}

impl Driver {
    /// Calls the ring once.
    fn call<'d, R: Modelled<'d>>(&mut self, ring: &mut R, case: Case) -> Result<(), String> {
        with(|world| world.pops = self.next == Next::Pop);
        self.next = match self.next {
            Next::Add => self.add(ring, case)?,
            Next::Kick => {
                if ring.needs_notification() {
                    with(|world| world.memory.signal(Side::Driver));
                }
                self.add_or(Next::Pop, case)
            }
            Next::Pop => match ring.pop() {
                Err(error) => return Err(format!("{error}")),
                Ok(Some(used)) => self.back(used, case)?,
                Ok(None) => self.add_or(Next::Wait, case),
            },
            Next::Wait => {
                with(|world| world.wait(case.interrupts)).unwrap_or(Ok(()))?;
                Next::Pop
            }
            Next::Done => Next::Done,
        };
        Ok(())
    }

    /// Another request, if there is one and the driver likes, or what else there is:
    /// it waits for nothing where nothing is in flight.
    fn add_or(&self, other: Next, case: Case) -> Next {
        let idle = self.popped == self.added && other != Next::Kick;
        match self.added < case.script.len() && (idle || choose(2) == 1) {
            true => Next::Add,
            false => other,
        }
    }

    fn add<'d, R: Modelled<'d>>(&mut self, ring: &mut R, case: Case) -> Result<Next, String> {
        let count = case.script[self.added];
        let buffer = |position| Buffer {
            address: address(self.added, position),
            len: BUFFER,
            writable: position + 1 == count,
        };
        let buffers: Vec<Buffer> = (0..count).map(buffer).collect();
        // SAFETY: the device is the model's, which only looks at the addresses.
        match unsafe { ring.add(&buffers) } {
            Ok(_) => {
                self.added += 1;
                Ok(self.add_or(Next::Kick, case))
            }
            // All that was added was rung for, or is to be.
            Err(error) if error.is_device_fault() => Err(format!("{error}")),
            Err(_) => Ok(Next::Kick),
        }
    }

    /// The ring says that a request is back.
    fn back(&mut self, used: Used, case: Case) -> Result<Next, String> {
        let token = used.token.index();
        let held = with(|world| {
            let given = &mut world.device.notes().given;
            let at = given
                .iter()
                .position(|held| usize::from(held.id) == token)?;
            Some(given.remove(at))
        });
        match held.flatten() {
            None => Err(format!("request {token} is back, and the device has it")),
            Some(held) if held.written() != used.written => {
                Err(format!("{used:?} is request {}", held.number))
            }
            Some(_) => {
                self.popped += 1;
                Ok(match self.popped == case.script.len() {
                    true => Next::Done,
                    false => self.add_or(Next::Pop, case),
                })
            }
        }
    }
}

impl World {
    /// The driver waits for an interrupt, or for a little while if it polls.
    fn wait(&mut self, interrupts: bool) -> Result<(), String> {
        loop {
            let wakes = match interrupts {
                true => self.memory.is_signalled(Side::Device),
                false => !self.memory.is_settled(Side::Driver),
            };
            let device = self.device_can_step();
            match (wakes, device) {
                (true, true) if self.device_goes_first() => self.device_steps(),
                (true, _) => {
                    self.memory.hear(Side::Device);
                    if !device && !interrupts {
                        // What was written is seen in the end.
                        self.memory.settle(Side::Driver);
                    }
                    return Ok(());
                }
                (false, true) => self.device_steps(),
                (false, false) if self.fault.is_some() => return Ok(()),
                (false, false) => return Err(self.stuck()),
            }
        }
    }

    /// Both sides wait for each other.
    fn stuck(&mut self) -> String {
        let notes = self.device.notes();
        let given = mem::take(&mut notes.given);
        match given.is_empty() {
            true => String::from("a doorbell is lost"),
            false => String::from("an interrupt is lost"),
        }
    }
}
