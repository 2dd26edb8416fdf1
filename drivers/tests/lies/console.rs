//! Lies in a console's control messages (virtio 1.2, 5.3.6.2).

use doorbell::device::console::{Console, ControlError, Event};
use doorbell::device::{DeviceError, Setup};
use doorbell::dma::fake::FakeDma;
use doorbell::queue::QueueError;
use doorbell::transport::DeviceStatus;
use doorbell::transport::fake::{FakeDevice, FakeTransport, Lie, Options};
use doorbell::virtio::{Features, Polls};

use crate::session::{ROUNDS, SPLIT, flipping};

const MULTIPORT: Features = Features::from_bits_retain(1 << 1);
/// The queue by which the device says something.
const SAYS: u16 = 2;

const ADD: u16 = 1;
const REMOVE: u16 = 2;
const CONSOLE: u16 = 4;
const RESIZE: u16 = 5;
const OPEN: u16 = 6;
const NAME: u16 = 7;

struct Terminal<'d> {
    dma: &'d FakeDma,
    device: FakeDevice<'d>,
    console: Console<FakeTransport<'d>, &'d FakeDma>,
}

fn message(port: u32, event: u16, value: u16) -> Vec<u8> {
    let mut bytes = Vec::from(port.to_le_bytes());
    bytes.extend(event.to_le_bytes());
    bytes.extend(value.to_le_bytes());
    bytes
}

impl<'d> Terminal<'d> {
    /// A device that says that it can have two ports, of which it has added port 0.
    fn new(dma: &'d FakeDma) -> Self {
        let mut config = vec![80, 0, 25, 0];
        config.extend(2u32.to_le_bytes());
        config.extend([0; 4]);
        let options = Options {
            device_type: 3,
            features: SPLIT | MULTIPORT,
            queues: vec![8; 6],
            config,
            ..Options::default()
        };
        let device = FakeDevice::new(dma, options);
        let setup = Setup {
            queues: 2,
            ..Setup::new(8, SPLIT)
        };
        let console = Console::new(device.transport(), &setup, dma, &mut Polls(10)).unwrap();
        let mut terminal = Self {
            dma,
            device,
            console,
        };
        terminal.say(&message(0, ADD, 1));
        assert_eq!(terminal.events(), [Event::PortAdded(0)]);
        terminal
    }

    fn say(&self, bytes: &[u8]) {
        let chain = self.device.take(SAYS).unwrap();
        chain.write(0, bytes);
        self.device.finish(SAYS, &chain, bytes.len() as u32);
    }

    fn events(&mut self) -> Vec<Event> {
        core::iter::from_fn(|| self.console.poll_event().unwrap()).collect()
    }

    /// A message is ignored, for a reason.
    fn ignores(&mut self, bytes: &[u8], why: ControlError) -> String {
        self.say(bytes);
        assert_eq!(self.events(), [Event::Ignored(why)]);
        assert!(self.console.port(0).is_some() && self.console.port(1).is_none());
        why.to_string()
    }

    /// The device was reset and marked FAILED for what it did.
    fn given_up(mut self, error: QueueError) -> String {
        let found = self.console.poll_event().unwrap_err();
        assert_eq!(found, DeviceError::Queue(error));
        assert_eq!(self.device.status(), DeviceStatus::FAILED);
        let broken = Err(DeviceError::Queue(QueueError::Broken));
        assert_eq!(self.console.open_port(0), broken);
        drop(self.console);
        assert_eq!(self.dma.live(), 0);
        error.to_string()
    }
}

pub(crate) fn ports_and_events_out_of_range() -> String {
    let dma = FakeDma::default();
    let mut terminal = Terminal::new(&dma);
    let (port, event, value) = (0, 0xffff, 7);
    terminal.ignores(
        &message(0, event, 1),
        ControlError::Unexpected { port, event },
    );
    terminal.ignores(
        &message(0, OPEN, value),
        ControlError::Value { port, value },
    );
    let (port, event) = (1, OPEN);
    terminal.ignores(&message(1, OPEN, 1), ControlError::Absent { port, event });
    let far = |port| ControlError::NoPort { port, max: 2 };
    terminal.ignores(&message(2, CONSOLE, 1), far(2));
    terminal.ignores(&message(u32::MAX, ADD, 1), far(u32::MAX))
}

pub(crate) fn a_port_added_twice() -> String {
    let dma = FakeDma::default();
    let mut terminal = Terminal::new(&dma);
    let said = terminal.ignores(&message(0, ADD, 1), ControlError::Exists { port: 0 });
    // What it has of the driver's, it gives back twice.
    let lie = Some(Lie::Replay);
    terminal.device.change(|options| options.lie = lie);
    let chain = terminal.device.take(3).unwrap();
    terminal.device.finish(3, &chain, 0);
    terminal.given_up(QueueError::UsedId {
        id: chain.head().into(),
    });
    said
}

pub(crate) fn answers_that_are_never_taken() -> String {
    // The driver's messages find no more room; nobody waits for that.
    let dma = FakeDma::default();
    let mut terminal = Terminal::new(&dma);
    for _ in 0..100 {
        terminal.console.open_port(0).unwrap();
        terminal.console.close_port(0).unwrap();
    }
    let error = terminal.console.console_port(&mut Polls(100)).unwrap_err();
    assert_eq!(error, DeviceError::Timeout);
    // A host may be slow: the device is not given up for that.
    let live = DeviceStatus::FAILED | DeviceStatus::DRIVER_OK;
    assert_eq!(terminal.device.status() & live, DeviceStatus::DRIVER_OK);
    drop(terminal.console);
    assert_eq!(dma.live(), 0);
    error.to_string()
}

pub(crate) fn a_message_that_changes() -> String {
    let far = ControlError::NoPort { port: 99, max: 2 };
    for _ in 0..ROUNDS {
        let dma = FakeDma::default();
        let mut terminal = Terminal::new(&dma);
        let chain = terminal.device.take(SAYS).unwrap();
        chain.write(0, &message(1, ADD, 1));
        terminal.device.finish(SAYS, &chain, 8);
        let at = dma.cpu_pointer(chain.buffers()[0].address, 4);
        let event = flipping(at, [1, 99], || terminal.console.poll_event());
        match event.unwrap().unwrap() {
            Event::PortAdded(1) => assert!(terminal.console.port(1).is_some()),
            event => {
                assert_eq!(event, Event::Ignored(far));
                assert!(terminal.console.port(1).is_none());
            }
        }
    }
    format!("one of the two values: port 1 is added, or {far}")
}

pub(crate) fn messages_that_are_too_long() -> String {
    let dma = FakeDma::default();
    let mut terminal = Terminal::new(&dma);
    let mut name = message(0, NAME, 1);
    name.extend([b'n'; 65]);
    let (port, len) = (0, 65);
    let said = terminal.ignores(&name, ControlError::NameLength { port, len });
    // More than the buffer for it.
    let chain = terminal.device.take(SAYS).unwrap();
    let (written, writable) = (chain.writable() + 1, chain.writable());
    terminal.device.finish(SAYS, &chain, written);
    terminal.given_up(QueueError::UsedLength { written, writable });
    said
}

pub(crate) fn messages_that_are_too_short() -> String {
    let dma = FakeDma::default();
    let mut terminal = Terminal::new(&dma);
    let short = |len, needed| ControlError::Short { len, needed };
    terminal.ignores(&[], short(0, 8));
    terminal.ignores(&message(0, RESIZE, 0), short(8, 12));
    terminal.ignores(&message(0, ADD, 1)[..7], short(7, 8))
}

pub(crate) fn a_port_that_comes_and_goes() -> String {
    let dma = FakeDma::default();
    let mut terminal = Terminal::new(&dma);
    let live = dma.live();
    for _ in 0..1000 {
        for (event, seen) in [(ADD, Event::PortAdded(1)), (REMOVE, Event::PortRemoved(1))] {
            terminal.say(&message(1, event, 1));
            // One message a call, however many there are.
            assert_eq!(terminal.console.poll_event(), Ok(Some(seen)));
        }
        assert_eq!(dma.live(), live);
    }
    assert!(terminal.events().is_empty());
    "each is an event, one a call, and takes no memory".into()
}
