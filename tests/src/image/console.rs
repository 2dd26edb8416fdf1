//! Consoles, over one path at a time: a console port and two for programs, whose
//! other ends the host has.

use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use doorbell::device::console::{self, Console, Event};
use doorbell::device::{DeviceError, Driver as _, Setup};
use doorbell::dma::DmaRegion;
use doorbell::transport::Transport;
use doorbell::virtio::Wait as _;
use doorbell_kernel::drive::{self, Listener, Mode};
use doorbell_kernel::platform::dma::KernelDma;
use doorbell_tests::{Outcome, Runner, Stop, ensure, skip};

use crate::pattern;
use crate::session::Session;

pub(crate) mod far;
mod transfer;

use far::Far;

/// The queue that is asked for, where there is a choice.
const QUEUE_SIZE: u16 = 64;

/// As many ports as the devices can have.
const PORTS: u16 = 8;

/// How many bytes go through a data port each way: with all features, and with others.
const MUCH: u64 = 16 << 20;
const LITTLE: u64 = 20_003;
/// The same where each instruction is emulated.
const EMULATED: u64 = 64 << 10;

/// How many bytes the host reads of what it does not read to the end.
const CUT_AFTER: u64 = 100_001;

/// The console port, and those for programs.
const CONSOLE: u32 = 0;
const DATA: u32 = 1;
const OTHER: u32 = 2;

/// The queue by which the driver sends control messages (5.3.2).
const CONTROL_TRANSMIT: usize = 3;

/// How the host names a device's ports, behind the device's own name.
const NAMES: [&str; 3] = ["console", "data0", "data1"];

type Driver<'t> = Console<&'t mut dyn Transport, KernelDma>;

/// A device that is up, and the host's ends of its ports.
struct Tested<'a, 't> {
    console: Driver<'t>,
    session: &'a Session<'a>,
    /// By port number, once they have names.
    far: Vec<Far<'a>>,
}

/// A test of a device with all its ports.
type Test = fn(&mut Tested<'_, '_>) -> Outcome;

/// Those that all devices pass, over whatever path. The first one is for the others
/// too.
const TESTS: [(&str, Test); 7] = [
    ("tells its ports", |own| own.ports()),
    ("moves data both ways", |own| own.moves()),
    ("hears the host come and go", |own| own.hears()),
    ("holds data back while it is closed", |own| own.holds_back()),
    ("goes on when the host goes in the middle", |own| own.cut()),
    ("copies through the console port", |own| own.copies()),
    ("interrupts as often as the host says", |own| {
        own.interrupts()
    }),
];

pub(crate) fn test(runner: &mut Runner<'_>, session: &Session<'_>, transport: &mut dyn Transport) {
    let Some(far) = all_ports(runner, session, &mut *transport) else {
        return;
    };
    session.run(runner, "one port", || one_port(session, transport, far));
}

/// The tests of all ports; then the host's end of the first one, if there is one.
fn all_ports<'a>(
    runner: &mut Runner<'_>,
    session: &'a Session<'a>,
    transport: &mut dyn Transport,
) -> Option<Far<'a>> {
    let setup = Setup {
        queues: PORTS,
        ..session.setup(QUEUE_SIZE)
    };
    let started = session.start(runner, |wait| {
        Console::new(transport, &setup, KernelDma, wait)
    });
    let mut tested = Tested {
        console: started?,
        session,
        far: Vec::new(),
    };
    for (name, test) in TESTS {
        session.run(runner, name, || {
            let outcome = test(&mut tested);
            // The next one finds nobody there, whatever became of this.
            tested.far.iter_mut().try_for_each(Far::hang_up)?;
            outcome
        });
    }
    session.show(&mut tested.console);
    tested.far.into_iter().next()
}

impl<'a> Tested<'a, '_> {
    /// The host's end of a port.
    fn far(&self, port: u32) -> Result<&Far<'a>, Stop> {
        self.far.get(port as usize).ok_or_else(no_name)
    }

    fn far_mut(&mut self, port: u32) -> Result<&mut Far<'a>, Stop> {
        self.far.get_mut(port as usize).ok_or_else(no_name)
    }

    /// Follows the device's messages until `done`, asleep between them.
    fn until(&mut self, what: &str, done: impl Fn(&mut Driver<'_>) -> bool) -> Outcome {
        let mut patience = self.session.listener.patience();
        loop {
            while let Some(event) = self.console.poll_event()? {
                ensure!(!matches!(event, Event::Ignored(_)), "{event:?}");
            }
            if done(&mut self.console) {
                return Ok(());
            }
            ensure!(patience.again(), "{what}");
        }
    }

    /// Sleeps until the device interrupts, if it is to, and only then looks for its
    /// message, which is this one.
    fn hear(&mut self, expected: Event) -> Outcome {
        let mut patience = self.session.listener.patience();
        loop {
            ensure!(patience.again(), "{expected:?} did not come");
            if let Some(event) = self.console.poll_event()? {
                ensure!(event == expected, "{event:?}, not {expected:?}");
                let more = self.console.poll_event()?;
                ensure!(more.is_none(), "{more:?} behind {expected:?}");
                return Ok(());
            }
        }
    }

    /// Has the host come to a port.
    fn open(&mut self, port: u32) -> Outcome {
        let gone = |console: &mut Driver<'_>| !is_host_open(console, port);
        self.until("the host did not go from the port before", gone)?;
        self.far_mut(port)?.open()?;
        self.hear(Event::HostOpened(port))?;
        ensure!(
            is_host_open(&self.console, port),
            "port {port} is not open after that"
        );
        Ok(())
    }

    /// Has the host go from a port.
    fn close(&mut self, port: u32) -> Outcome {
        self.far_mut(port)?.close()?;
        self.hear(Event::HostClosed(port))
    }

    /// All three, with their names and kinds; then they are opened at this end.
    fn ports(&mut self) -> Outcome {
        let queues = self.console.queues();
        let expected = 2 * (usize::from(PORTS) + 1);
        ensure!(queues == expected, "{queues} queues, not {expected}");
        let named = |console: &mut Driver<'_>| {
            let named = console.ports().filter(|(_, port)| port.name().is_some());
            named.count() == NAMES.len()
        };
        self.until("not as many ports with names as there are", named)?;
        let first = self.console.port(CONSOLE).and_then(|port| port.name());
        let first = first.unwrap_or_default().to_string();
        let device = first.strip_suffix(".console").unwrap_or_default();
        ensure!(
            ["org.doorbell.con0", "org.doorbell.con1"].contains(&device),
            "port 0 is \"{first}\""
        );
        for (number, name) in (0..).zip(NAMES) {
            let name = format!("{device}.{name}");
            let found = self.console.find(&name);
            ensure!(found == Some(number), "\"{name}\" is port {found:?}");
            let console = (self.console.port(number)).is_some_and(|port| port.is_console());
            ensure!(
                console == (number == CONSOLE),
                "whether port {number} is a console: {console}"
            );
            // QEMU has consoles open always, and says so behind the name.
            if number != CONSOLE {
                let open = is_host_open(&self.console, number);
                ensure!(!open, "port {number} is open at the host's end");
            }
            self.far.push(Far::new(self.session.witness, &name));
        }
        for port in [DATA, OTHER] {
            self.console.open_port(port)?;
            self.post(port)?;
        }
        self.console.fill_receive(CONSOLE, 4, 256)?;
        self.told()
    }

    /// Waits until the device has taken all that it was told.
    fn told(&mut self) -> Outcome {
        self.until("the device does not take what it is told", |console| {
            console.queue(CONTROL_TRANSMIT).in_flight() == 0
        })
    }

    fn moves(&mut self) -> Outcome {
        let bytes = match (self.session.set, self.session.emulated) {
            (0, false) => MUCH,
            (0, true) => EMULATED,
            _ => LITTLE,
        };
        self.open(DATA)?;
        self.exchange(DATA, bytes)?;
        self.close(DATA)
    }

    /// What is written to a port that the host has closed is refused.
    fn hears(&mut self) -> Outcome {
        for port in [OTHER, DATA] {
            self.open(port)?;
            let wait = &mut self.session.listener.patience();
            self.console.write_all(port, b"Is anybody there?\n", wait)?;
            self.console.flush(port, wait)?;
            self.close(port)?;
            self.refuses(port)?;
        }
        Ok(())
    }

    /// Whether all ways to write to a port are refused by its number.
    fn refuses(&mut self, port: u32) -> Outcome {
        let expected = DeviceError::PortClosed { port };
        let written = self.console.write(port, b"x");
        ensure!(written == Err(expected), "write says {written:?}");
        let buffer = DmaRegion::new(KernelDma, 16, 16)?;
        let submitted = self.console.submit_transmit(port, buffer, 16);
        let refused = submitted.err().map(|(error, _)| error);
        ensure!(refused == Some(expected), "submitting says {refused:?}");
        Ok(())
    }

    /// What the host sends to a port that is closed at this end comes once it is
    /// opened again, and other ports do not wait for it.
    fn holds_back(&mut self) -> Outcome {
        self.open(DATA)?;
        self.console.close_port(DATA)?;
        self.told()?;
        self.refuses(DATA)?;
        // Until something wakes it, QEMU waits for data as if the port were open, and
        // then drops it.
        self.open(OTHER)?;
        self.send(DATA, LITTLE)?;
        self.exchange(OTHER, LITTLE)?;
        self.close(OTHER)?;
        let early = self.console.poll_receive(DATA)?;
        ensure!(early.is_none(), "something came while the port was closed");
        self.console.open_port(DATA)?;
        self.told()?;
        self.take(DATA, LITTLE)?;
        self.close(DATA)
    }

    /// The host goes in the middle of a transfer; other ports go on, and so does this
    /// one when the host is there again.
    fn cut(&mut self) -> Outcome {
        self.open(DATA)?;
        self.send_until_cut(DATA, CUT_AFTER)?;
        self.refuses(DATA)?;
        for port in [OTHER, DATA] {
            self.open(port)?;
            self.exchange(port, LITTLE)?;
            self.close(port)?;
        }
        Ok(())
    }

    /// By the calls that copy.
    fn copies(&mut self) -> Outcome {
        self.far_mut(CONSOLE)?.open()?;
        let far = self.far.first().ok_or_else(no_name)?;
        copies(&mut self.console, far, self.session.listener)?;
        self.far_mut(CONSOLE)?.close()
    }

    /// Both sides count the interrupts of some batches.
    fn interrupts(&mut self) -> Outcome {
        if self.session.listener.mode() == Mode::Polling {
            skip!("nobody listens to its interrupts");
        }
        const BATCHES: u64 = 10;
        const BATCH: u64 = 8;
        const LEN: usize = 64;
        let (session, listener) = (self.session, self.session.listener);
        self.open(DATA)?;
        self.far(DATA)?.expect(BATCHES * BATCH * LEN as u64, 0)?;
        let mut digest = pattern::Digest::new();
        session.witness.ask(&session.unit.place, "interrupts", [])?;
        let before = listener.queue_interrupts();
        for batch in 0..BATCHES {
            for number in 0..BATCH {
                let mut buffer = DmaRegion::new(KernelDma, LEN, 16)?;
                let at = (batch * BATCH + number) * LEN as u64;
                pattern::fill(at, 0, &mut buffer);
                digest.add(&buffer);
                let submitted = self.console.submit_transmit(DATA, buffer, LEN);
                submitted.map_err(|(error, _)| error)?;
            }
            let queue = console::transmit_queue(DATA);
            let mut patience = listener.patience();
            self.console.queue(queue).kick();
            let mut back = 0;
            while back < BATCH {
                ensure!(patience.again(), "{back} of {BATCH} buffers came back");
                while let Some(sent) = self.console.poll_transmit(DATA)? {
                    sent.result?;
                    back += 1;
                }
            }
        }
        let count = listener.queue_interrupts() - before;
        let arguments = [
            ("count", count.into()),
            ("coalesced", (listener.mode() == Mode::Line).into()),
        ];
        let witness = session.witness;
        witness.ask(&session.unit.place, "interrupted", arguments)?;
        self.agree(DATA, &format!("- {digest}"))?;
        self.close(DATA)
    }
}

fn no_name() -> Stop {
    Stop::failed("the ports have no names")
}

fn is_host_open(console: &Driver<'_>, port: u32) -> bool {
    console.port(port).is_some_and(|port| port.is_host_open())
}

/// Bytes each way through the console port, first from the host: where there is one
/// port nothing else says that the host is there.
fn copies(console: &mut Driver<'_>, far: &Far<'_>, listener: &Listener<'_>) -> Outcome {
    const LEN: usize = 3001;
    let mut bytes = vec![0; LEN];
    let mut digests = [pattern::Digest::new(); 2];
    far.send(LEN as u64, 1)?;
    let (mut at, mut patience) = (0, listener.patience());
    while at < LEN {
        let len = console.read(CONSOLE, &mut bytes[at..])?;
        at += len;
        ensure!(len > 0 || patience.again(), "{at} of {LEN} bytes came");
    }
    pattern::check(0, 1, &bytes)?;
    digests[0].add(&bytes);

    far.expect(LEN as u64, 2)?;
    pattern::fill(0, 2, &mut bytes);
    digests[1].add(&bytes);
    console.write_all(CONSOLE, &bytes, &mut listener.patience())?;
    console.flush(CONSOLE, &mut listener.patience())?;
    let (expected, host) = (format!("{} {}", digests[0], digests[1]), far.done()?);
    ensure!(host == expected, "digests {expected}, the host's {host}");
    Ok(())
}

/// Without VIRTIO_CONSOLE_F_MULTIPORT there is the console port, open at both ends.
fn one_port(session: &Session<'_>, transport: &mut dyn Transport, mut far: Far<'_>) -> Outcome {
    let setup = Setup {
        queues: 1,
        ..session.setup(QUEUE_SIZE)
    };
    let wait = &mut session.listener.bring_up();
    let mut console = Console::new(transport, &setup, KernelDma, wait)?;
    console.set_interrupts(session.listener.interrupts());
    let queues = console.queues();
    ensure!(queues == 2, "{queues} queues, not 2");
    let port = console.console_port(wait)?;
    ensure!(port == CONSOLE, "the console is port {port}");
    console.fill_receive(CONSOLE, 4, 256)?;
    far.open()?;
    let outcome = copies(&mut console, &far, session.listener);
    far.close()?;
    let doorbells = drive::doorbells(&mut console);
    session.witness.rang(session.unit, doorbells);
    outcome
}
