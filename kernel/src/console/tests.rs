use core::cell::{Cell, RefCell};
use std::vec::Vec;

use doorbell::device::console::{receive_queue, transmit_queue};
use doorbell::dma::fake::FakeDma;
use doorbell::transport::fake::{Chain, FakeDevice, FakeTransport, Options, stepping};
use doorbell::virtio::Features;

use super::*;

/// VIRTIO_CONSOLE_F_MULTIPORT (5.3.3).
const MULTIPORT: u64 = 1 << 1;

/// Events of control messages (5.3.6.2).
const DEVICE_READY: u16 = 0;
const ADD: u16 = 1;
const PORT_READY: u16 = 3;
const CONSOLE: u16 = 4;
const OPEN: u16 = 6;
const NAME: u16 = 7;

const NAMES: [&str; 3] = [
    "console",
    "org.doorbell.con0.data0",
    "org.doorbell.con0.data1",
];

type Fake<'d> = Desk<FakeTransport<'d>, &'d FakeDma>;

/// A device with these ports, whose other ends take what is sent.
struct Host<'d> {
    device: FakeDevice<'d>,
    sent: RefCell<[Vec<u8>; 3]>,
    opened: RefCell<Vec<u32>>,
    /// Whether nobody takes what is sent.
    full: Cell<bool>,
}

impl<'d> Host<'d> {
    fn new(dma: &'d FakeDma) -> Self {
        let mut config = vec![80, 0, 25, 0];
        config.extend(3u32.to_le_bytes());
        config.extend([0; 4]);
        let options = Options {
            device_type: 3,
            features: Features::VERSION_1 | Features::from_bits_retain(MULTIPORT),
            queues: vec![32; 8],
            config,
            ..Options::default()
        };
        Self {
            device: FakeDevice::new(dma, options),
            sent: RefCell::default(),
            opened: RefCell::default(),
            full: Cell::new(false),
        }
    }

    fn start(&self, dma: &'d FakeDma) -> Fake<'d> {
        let setup = Setup::new(32, Features::empty());
        Desk::new(self.device.transport(), &setup, dma, &mut self.turns()).unwrap()
    }

    fn turns(&self) -> impl Wait {
        stepping(|| self.turn())
    }

    fn turn(&self) {
        self.device.process(3, |chain| {
            self.hear(chain);
            0
        });
        for port in (0..3).filter(|_| !self.full.get()) {
            self.device.process(transmit_queue(port) as u16, |chain| {
                self.sent.borrow_mut()[port as usize].extend(chain.readable());
                0
            });
        }
    }

    /// The desk's turns and the device's, until nothing happens any more.
    fn settle(&self, desk: &mut Fake<'d>) {
        loop {
            self.turn();
            if !desk.serve().unwrap() {
                self.turn();
                if !desk.serve().unwrap() {
                    return;
                }
            }
        }
    }

    fn hear(&self, chain: &Chain<'_>) {
        let bytes = chain.readable();
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let port = u32::from(half(0));
        match half(4) {
            DEVICE_READY => (0..3).for_each(|port| self.say(port, ADD, 1, "")),
            PORT_READY => {
                if port == 0 {
                    self.say(port, CONSOLE, 1, "");
                }
                self.say(port, NAME, 1, NAMES[port as usize]);
            }
            OPEN => self.opened.borrow_mut().push(port),
            _ => {}
        }
    }

    fn say(&self, port: u32, event: u16, value: u16, more: &str) {
        let mut bytes = Vec::from(port.to_le_bytes());
        bytes.extend(event.to_le_bytes());
        bytes.extend(value.to_le_bytes());
        bytes.extend(more.bytes());
        self.put(2, &bytes);
    }

    fn put(&self, queue: u16, bytes: &[u8]) {
        let chain = self.device.take(queue).expect("a buffer");
        chain.write(0, bytes);
        self.device.finish(queue, &chain, bytes.len() as u32);
    }

    /// Something is typed, or comes to a data port.
    fn input(&self, port: u32, bytes: &[u8]) {
        self.put(receive_queue(port) as u16, bytes);
    }

    fn sent(&self, port: usize) -> Vec<u8> {
        core::mem::take(&mut self.sent.borrow_mut()[port])
    }
}

#[test]
fn what_is_typed_comes_and_what_is_shown_goes() {
    let dma = FakeDma::default();
    let host = Host::new(&dma);
    let mut desk = host.start(&dma);
    assert_eq!(desk.read_byte(), Ok(None));
    // More, together, than there are buffers.
    for round in 0..4 {
        host.input(0, b"ab");
        host.input(0, b"c");
        for byte in b"abc" {
            assert_eq!(desk.read_byte(), Ok(Some(*byte)), "round {round}");
        }
        assert_eq!(desk.read_byte(), Ok(None));
    }
    desk.show(b"info\r\n", &mut host.turns()).unwrap();
    host.settle(&mut desk);
    assert_eq!(host.sent(0), b"info\r\n");
    assert_eq!(desk.port(), (0, Some("console".into())));
    assert_eq!(host.device.violations(), Vec::<String>::new());
}

#[test]
fn one_data_port_sends_back() {
    let dma = FakeDma::default();
    let host = Host::new(&dma);
    let mut desk = host.start(&dma);
    host.settle(&mut desk);
    assert_eq!(*host.opened.borrow(), [0, 1]);
    host.say(1, OPEN, 1, "");
    let all: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
    let mut back = Vec::new();
    for piece in all.chunks(ECHOES.1) {
        host.input(1, piece);
        host.settle(&mut desk);
        back.extend(host.sent(1));
    }
    assert_eq!(back, all);
    assert_eq!((host.sent(0), host.sent(2)), (Vec::new(), Vec::new()));

    // What nobody is there for goes nowhere, and nothing waits behind it.
    host.say(1, OPEN, 0, "");
    host.input(1, b"lost");
    host.settle(&mut desk);
    host.say(1, OPEN, 1, "");
    host.input(1, b"found");
    host.settle(&mut desk);
    assert_eq!(host.sent(1), b"found");
}

#[test]
fn what_the_other_end_has_no_room_for_is_sent_back_later() {
    let dma = FakeDma::default();
    let host = Host::new(&dma);
    let mut desk = host.start(&dma);
    host.settle(&mut desk);
    host.say(1, OPEN, 1, "");
    host.full.set(true);
    let mut all = Vec::new();
    for round in 0..10 {
        let Some(chain) = host.device.take(receive_queue(1) as u16) else {
            break;
        };
        chain.write(0, &[round; 100]);
        host.device.finish(receive_queue(1) as u16, &chain, 100);
        all.extend([round; 100]);
        host.settle(&mut desk);
    }
    assert!(host.sent(1).is_empty());
    host.full.set(false);
    host.settle(&mut desk);
    assert_eq!(host.sent(1), all);
}

#[test]
fn nobody_who_does_not_listen_is_waited_for_twice() {
    let dma = FakeDma::default();
    let host = Host::new(&dma);
    let mut desk = host.start(&dma);
    host.full.set(true);
    let text = [b'x'; 64 << 10];
    let mut looks = 0;
    let mut patience = || {
        looks += 1;
        looks < 5
    };
    desk.show(&text, &mut patience).unwrap();
    assert_eq!(looks, 5);
    let mut never = || -> bool { panic!("it waits") };
    desk.show(&text, &mut never).unwrap();
    host.full.set(false);
    host.turn();
    // There is room again, and then more patience too.
    desk.show(b"heard", &mut never).unwrap();
    desk.show(&text, &mut host.turns()).unwrap();
    host.settle(&mut desk);
    assert!(host.sent(0).ends_with(&text));
}

#[test]
fn a_device_that_goes_wrong_is_an_error() {
    let dma = FakeDma::default();
    let host = Host::new(&dma);
    let mut desk = host.start(&dma);
    host.device
        .change(|options| options.lie = Some(doorbell::transport::fake::Lie::Id(77)));
    host.input(0, b"a");
    assert!(desk.read_byte().is_err());
    assert!(desk.serve().is_err());
    assert!(desk.show(b"a", &mut host.turns()).is_err());
}
