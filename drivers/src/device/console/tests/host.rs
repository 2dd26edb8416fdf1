//! What a host does with a console device, as QEMU 7.2 does it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::vec::Vec;

use super::super::{receive_queue, transmit_queue};
use crate::dma::fake::FakeDma;
use crate::transport::fake::{Chain, FakeDevice, Options};
use crate::virtio::Features;

/// Events of control messages (5.3.6.2).
pub(super) const DEVICE_READY: u16 = 0;
pub(super) const ADD: u16 = 1;
pub(super) const REMOVE: u16 = 2;
pub(super) const PORT_READY: u16 = 3;
pub(super) const CONSOLE: u16 = 4;
pub(super) const RESIZE: u16 = 5;
pub(super) const OPEN: u16 = 6;
pub(super) const NAME: u16 = 7;

/// A port at the host's end.
#[derive(Clone, Debug, Default)]
pub(super) struct HostPort {
    pub(super) name: Option<&'static str>,
    pub(super) console: bool,
    pub(super) connected: bool,
    /// Whether the driver has it open.
    pub(super) guest_open: bool,
    /// Whether nothing is taken from the driver now.
    pub(super) full: bool,
    pub(super) output: Vec<u8>,
}

pub(super) struct Host<'d> {
    pub(super) device: FakeDevice<'d>,
    pub(super) ports: RefCell<BTreeMap<u32, HostPort>>,
    /// The driver's control messages: port, event, value.
    said: RefCell<Vec<(u32, u16, u16)>>,
    /// How many control messages found no buffer.
    pub(super) lost: Cell<usize>,
    /// Whether the driver's control messages are left where they are.
    pub(super) deaf: Cell<bool>,
}

impl<'d> Host<'d> {
    pub(super) fn new(dma: &'d FakeDma, options: Options, ports: &[(u32, HostPort)]) -> Self {
        Self {
            device: FakeDevice::new(dma, options),
            ports: RefCell::new(ports.iter().cloned().collect()),
            said: RefCell::default(),
            lost: Cell::new(0),
            deaf: Cell::new(false),
        }
    }

    /// Everybody's turn: how many requests were served.
    pub(super) fn run(&self) -> usize {
        let mut served = 0;
        if self.is_multiport() && !self.deaf.get() {
            served += self.device.process(3, |chain| {
                self.hear(chain);
                0
            });
        }
        let numbers: Vec<u32> = self.ports.borrow().keys().copied().collect();
        for port in numbers {
            served += self.run_port(port);
        }
        served
    }

    fn run_port(&self, number: u32) -> usize {
        if self.ports.borrow()[&number].full {
            return 0;
        }
        let queue = transmit_queue(number) as u16;
        self.device.process(queue, |chain| {
            let mut ports = self.ports.borrow_mut();
            let port = ports.get_mut(&number).unwrap();
            assert_eq!(chain.writable(), 0, "5.3.6.1");
            if port.connected {
                port.output.extend(chain.readable());
            }
            0
        })
    }

    fn is_multiport(&self) -> bool {
        self.device.features().bits() & 2 != 0
    }

    /// The fields of a message as bytes, in the order of 5.3.6.3.
    fn is_legacy(&self) -> bool {
        !self.device.features().contains(Features::VERSION_1)
    }

    pub(super) fn message(&self, port: u32, event: u16, value: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        if self.is_legacy() {
            bytes.extend(port.to_ne_bytes());
            bytes.extend(event.to_ne_bytes());
            bytes.extend(value.to_ne_bytes());
        } else {
            bytes.extend(port.to_le_bytes());
            bytes.extend(event.to_le_bytes());
            bytes.extend(value.to_le_bytes());
        }
        bytes
    }

    /// Sends a control message, with `more` behind it.
    pub(super) fn say(&self, port: u32, event: u16, value: u16, more: &[u8]) {
        let mut bytes = self.message(port, event, value);
        bytes.extend(more);
        self.send(&bytes);
    }

    /// Sends whatever bytes as a control message.
    pub(super) fn send(&self, bytes: &[u8]) {
        let Some(chain) = self.device.take(2) else {
            self.lost.set(self.lost.get() + 1);
            return;
        };
        assert_eq!(chain.buffers().len(), 1, "5.3.6.4");
        assert!(chain.buffers()[0].writable, "5.3.6.1");
        chain.write(0, bytes);
        self.device.finish(2, &chain, bytes.len() as u32);
    }

    /// A control message of the driver's.
    fn hear(&self, chain: &Chain) {
        assert_eq!(chain.buffers().len(), 1, "5.3.6.4");
        let bytes = chain.readable();
        assert_eq!(bytes.len(), 8);
        assert_eq!(chain.writable(), 0, "5.3.6.1");
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let (port, event, value) = (u32::from(half(0)), half(4), half(6));
        assert_eq!(half(2), 0);
        self.said.borrow_mut().push((port, event, value));
        let known = self.ports.borrow().get(&port).cloned();
        match (event, known) {
            (DEVICE_READY, _) => {
                let numbers: Vec<u32> = self.ports.borrow().keys().copied().collect();
                for number in numbers {
                    self.say(number, ADD, 1, &[]);
                }
            }
            (PORT_READY, Some(known)) if value == 1 => {
                if known.console {
                    self.say(port, CONSOLE, 1, &[]);
                }
                if let Some(name) = known.name {
                    let mut name = Vec::from(name);
                    name.push(0);
                    self.say(port, NAME, 1, &name);
                }
                if known.connected {
                    self.say(port, OPEN, 1, &[]);
                }
            }
            (OPEN, Some(_)) => {
                self.ports.borrow_mut().get_mut(&port).unwrap().guest_open = value == 1;
            }
            _ => {}
        }
    }

    /// What the driver said since the last question.
    pub(super) fn heard(&self) -> Vec<(u32, u16, u16)> {
        self.said.take()
    }

    pub(super) fn port(&self, number: u32) -> HostPort {
        self.ports.borrow()[&number].clone()
    }

    pub(super) fn change(&self, number: u32, change: impl FnOnce(&mut HostPort)) {
        change(self.ports.borrow_mut().get_mut(&number).unwrap());
    }

    /// Plugs a port in.
    pub(super) fn plug(&self, number: u32, port: HostPort) {
        self.ports.borrow_mut().insert(number, port);
        self.say(number, ADD, 1, &[]);
    }

    /// Pulls a port out.
    pub(super) fn unplug(&self, number: u32) {
        self.discard(number);
        self.ports.borrow_mut().remove(&number);
        self.say(number, REMOVE, 1, &[]);
    }

    /// Somebody connects to the port.
    pub(super) fn connect(&self, number: u32) {
        self.change(number, |port| port.connected = true);
        self.say(number, OPEN, 1, &[]);
    }

    /// Nobody reads any more: what is pending is given back unread.
    pub(super) fn disconnect(&self, number: u32) {
        self.change(number, |port| (port.connected, port.full) = (false, false));
        self.discard(number);
        self.say(number, OPEN, 0, &[]);
    }

    fn discard(&self, number: u32) {
        let queue = transmit_queue(number) as u16;
        while let Some(chain) = self.device.take(queue) {
            self.device.finish(queue, &chain, 0);
        }
    }

    /// Sends bytes to the driver: how many of them found a buffer.
    pub(super) fn input(&self, number: u32, mut bytes: &[u8]) -> usize {
        let port = self.port(number);
        if !port.connected || self.is_multiport() && !port.guest_open {
            return 0;
        }
        let queue = receive_queue(number) as u16;
        let len = bytes.len();
        while !bytes.is_empty() {
            let Some(chain) = self.device.take(queue) else {
                break;
            };
            assert_eq!(chain.readable(), [], "5.3.6.1");
            let here = bytes.len().min(chain.writable() as usize);
            chain.write(0, &bytes[..here]);
            self.device.finish(queue, &chain, here as u32);
            bytes = &bytes[here..];
        }
        len - bytes.len()
    }
}

/// A console that somebody is connected to.
pub(super) fn tty() -> HostPort {
    HostPort {
        console: true,
        connected: true,
        ..HostPort::default()
    }
}

/// A port for programs, of that name.
pub(super) fn named(name: &'static str) -> HostPort {
    HostPort {
        name: Some(name),
        ..HostPort::default()
    }
}
