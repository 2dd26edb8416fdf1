//! Ports that come, go, are named, opened and closed.

use super::host::{
    ADD, CONSOLE, DEVICE_READY, HostPort, NAME, OPEN, PORT_READY, REMOVE, RESIZE, named, tty,
};
use super::*;

/// Three ports of at most four, and what they said.
fn session<'d>(dma: &'d FakeDma, change: fn(&mut Options)) -> (Host<'d>, FakeConsole<'d>) {
    let mut options = options(4);
    change(&mut options);
    let ports = [(0, tty()), (1, named("org.agent.0")), (3, named("größe"))];
    let host = Host::new(dma, options, &ports);
    let console = start(&host.device, dma, 4).unwrap();
    (host, console)
}

/// As [`session`], with all said and answered.
fn settled(dma: &FakeDma) -> (Host<'_>, FakeConsole<'_>) {
    let (host, mut console) = session(dma, |_| ());
    events(&host, &mut console);
    host.heard();
    (host, console)
}

#[test]
fn ports_are_added_named_and_opened() {
    for change in [|_: &mut Options| (), legacy] {
        let dma = FakeDma::default();
        let (host, mut console) = session(&dma, change);
        let said = events(&host, &mut console);
        let added = [0, 1, 3].map(Event::PortAdded);
        assert_eq!(said[..3], added);
        let mut rest = said[3..].to_vec();
        rest.sort_by_key(|event| std::format!("{event:?}"));
        assert_eq!(
            rest,
            [
                Event::Console(0),
                Event::HostOpened(0),
                Event::Named(1),
                Event::Named(3)
            ]
        );
        assert_eq!(
            host.heard(),
            [
                (0, DEVICE_READY, 1),
                (0, PORT_READY, 1),
                (1, PORT_READY, 1),
                (3, PORT_READY, 1),
                (0, OPEN, 1)
            ]
        );
        let numbers: Vec<u32> = console.ports().map(|(number, _)| number).collect();
        assert_eq!(numbers, [0, 1, 3]);
        assert_eq!(console.find("org.agent.0"), Some(1));
        assert_eq!(console.find("größe"), Some(3));
        assert_eq!(console.find("nobody"), None);
        let port = console.port(0).unwrap();
        assert!(port.is_console() && port.is_open() && port.is_host_open());
        assert_eq!(port.name(), None);
        let port = console.port(1).unwrap();
        assert!(!port.is_console() && !port.is_open() && !port.is_host_open());
        assert_eq!(port.name(), Some("org.agent.0"));
        assert!(console.port(2).is_none());
        assert_eq!(host.lost.get(), 0);
        drop(console);
        assert_eq!(host.device.status(), DeviceStatus::empty());
        assert_eq!(dma.live(), 0);
    }
}

#[test]
fn both_sides_open_and_close() {
    let dma = FakeDma::default();
    let (host, mut console) = settled(&dma);
    console.open_port(1).unwrap();
    console.open_port(3).unwrap();
    host.run();
    assert_eq!(host.heard(), [(1, OPEN, 1), (3, OPEN, 1)]);
    let closed = DeviceError::PortClosed { port: 1 };
    assert_eq!(
        console.write(1, b"x"),
        Err(closed),
        "the host has it closed"
    );
    host.connect(1);
    assert_eq!(events(&host, &mut console), [Event::HostOpened(1)]);
    assert_eq!(console.write(1, b"x"), Ok(1));
    console.close_port(1).unwrap();
    host.run();
    assert_eq!(host.heard(), [(1, OPEN, 0)]);
    assert!(!console.port(1).unwrap().is_open());
    assert_eq!(console.write(1, b"x"), Err(closed));
    host.disconnect(1);
    assert_eq!(events(&host, &mut console), [Event::HostClosed(1)]);
    let absent = DeviceError::PortAbsent { port: 2 };
    assert_eq!(console.open_port(2), Err(absent));
    assert_eq!(console.close_port(2), Err(absent));
    let missing = DeviceError::NoPort { port: 4, ports: 4 };
    assert_eq!(console.open_port(4), Err(missing));
    assert_eq!(host.heard(), []);
}

#[test]
fn a_console_takes_data_before_the_host_says_that_it_is_open() {
    let dma = FakeDma::default();
    let (host, mut console) = settled(&dma);
    host.plug(
        2,
        HostPort {
            connected: false,
            ..tty()
        },
    );
    let said = events(&host, &mut console);
    assert_eq!(said, [Event::PortAdded(2), Event::Console(2)]);
    assert_eq!(console.write(2, b"x"), Ok(1));
    host.say(2, OPEN, 0, &[]);
    assert_eq!(events(&host, &mut console), [Event::HostClosed(2)]);
    let closed = DeviceError::PortClosed { port: 2 };
    assert_eq!(console.write(2, b"x"), Err(closed));
}

#[test]
fn a_console_is_resized() {
    let dma = FakeDma::default();
    let (host, mut console) = settled(&dma);
    host.say(0, RESIZE, 0, &[132, 0, 43, 1]);
    let resized = Event::Resized {
        port: 0,
        cols: 132,
        rows: 43 + 256,
    };
    assert_eq!(console.poll_event(), Ok(Some(resized)));
    assert_eq!(console.port(0).unwrap().size(), Some((132, 299)));
}

#[test]
fn a_port_comes_again_as_another() {
    let dma = FakeDma::default();
    let (host, mut console) = settled(&dma);
    console.open_port(1).unwrap();
    host.unplug(1);
    assert_eq!(events(&host, &mut console), [Event::PortRemoved(1)]);
    assert!(console.port(1).is_none());
    assert_eq!(console.find("org.agent.0"), None);
    host.heard();
    host.plug(1, named("next"));
    let said = events(&host, &mut console);
    assert_eq!(said, [Event::PortAdded(1), Event::Named(1)]);
    assert_eq!(host.heard(), [(1, PORT_READY, 1)]);
    assert!(!console.port(1).unwrap().is_open());
    assert_eq!(console.find("next"), Some(1));
}

#[test]
fn no_message_of_many_ports_is_dropped() {
    // QEMU's control queues have 32 buffers, and it tells of 31 ports at once.
    let dma = FakeDma::default();
    let mut options = options(31);
    (options.queues[2], options.queues[3]) = (32, 32);
    let ports: Vec<(u32, HostPort)> = (0..31)
        .map(|number| {
            (
                number,
                HostPort {
                    name: Some("of many"),
                    ..tty()
                },
            )
        })
        .collect();
    let host = Host::new(&dma, options, &ports);
    let mut console = start(&host.device, &dma, 31).unwrap();
    let said = events(&host, &mut console);
    assert_eq!(host.lost.get(), 0);
    assert_eq!(said.len(), 31 * 4);
    assert!(
        console
            .ports()
            .all(|(_, port)| port.is_host_open() && port.name() == Some("of many"))
    );
    let opened = host
        .heard()
        .iter()
        .filter(|&&(_, event, _)| event == OPEN)
        .count();
    assert_eq!(opened, 31);
}

#[test]
fn a_control_queue_of_one_buffer_will_do() {
    let dma = FakeDma::default();
    let mut options = options(1);
    (options.queues[2], options.queues[3]) = (1, 1);
    let host = Host::new(
        &dma,
        options,
        &[(
            0,
            HostPort {
                console: true,
                ..HostPort::default()
            },
        )],
    );
    let mut console = start(&host.device, &dma, 2).unwrap();
    let said = events(&host, &mut console);
    assert_eq!(said, [Event::PortAdded(0), Event::Console(0)]);
    assert_eq!(host.heard().last(), Some(&(0, OPEN, 1)));
}

#[test]
fn nobody_waits_for_a_device_that_takes_no_messages() {
    let dma = FakeDma::default();
    let (host, mut console) = settled(&dma);
    host.deaf.set(true);
    for turn in 0..50 {
        console.open_port(1).unwrap();
        console.close_port(1).unwrap();
        // The device's own messages are taken all the same, and answered later.
        host.say(0, CONSOLE, 1, &[]);
        assert_eq!(console.poll_event(), Ok(Some(Event::Console(0))), "{turn}");
        assert_eq!(console.poll_event(), Ok(None));
        host.say(2, ADD, 1, &[]);
        host.say(2, REMOVE, 1, &[]);
        assert_eq!(console.poll_event(), Ok(Some(Event::PortAdded(2))));
        assert_eq!(console.poll_event(), Ok(Some(Event::PortRemoved(2))));
    }
    console.open_port(3).unwrap();
    host.deaf.set(false);
    assert_eq!(events(&host, &mut console), []);
    let heard = host.heard();
    assert!(
        heard.iter().all(|&(port, ..)| port != 2),
        "a port that came and went is not ready"
    );
    let last = |port| {
        heard
            .iter()
            .rfind(|&&(number, event, _)| (number, event) == (port, OPEN))
    };
    assert_eq!(last(0), Some(&(0, OPEN, 1)));
    assert_eq!(last(1), Some(&(1, OPEN, 0)));
    assert_eq!(last(3), Some(&(3, OPEN, 1)));
}

#[test]
fn messages_that_make_no_sense_are_named_and_ignored() {
    use ControlError::*;
    let dma = FakeDma::default();
    let (host, mut console) = settled(&dma);
    let short = |len, needed| Short { len, needed };
    let whole = host.message(0, RESIZE, 0);
    let far = NoPort { port: 4, max: 4 };
    let farther = NoPort {
        port: u32::MAX,
        max: 4,
    };
    let message = |port, event, value, more: &[u8]| {
        let mut bytes = host.message(port, event, value);
        bytes.extend(more);
        bytes
    };
    for (bytes, error) in [
        (vec![], short(0, 8)),
        (whole[..7].to_vec(), short(7, 8)),
        (whole.clone(), short(8, 12)),
        (message(0, RESIZE, 0, &[80, 0, 25]), short(11, 12)),
        (message(4, ADD, 1, &[]), far),
        (message(4, OPEN, 1, &[]), far),
        (message(u32::MAX, CONSOLE, 1, &[]), farther),
        (message(1, ADD, 1, &[]), Exists { port: 1 }),
        (
            message(2, REMOVE, 1, &[]),
            Absent {
                port: 2,
                event: REMOVE,
            },
        ),
        (
            message(2, OPEN, 1, &[]),
            Absent {
                port: 2,
                event: OPEN,
            },
        ),
        (
            message(2, NAME, 1, b"x"),
            Absent {
                port: 2,
                event: NAME,
            },
        ),
        (
            message(0, DEVICE_READY, 1, &[]),
            Unexpected { port: 0, event: 0 },
        ),
        (
            message(0, PORT_READY, 1, &[]),
            Unexpected { port: 0, event: 3 },
        ),
        (message(3, 8, 1, &[]), Unexpected { port: 3, event: 8 }),
        (
            message(3, 0xffff, 1, &[]),
            Unexpected {
                port: 3,
                event: 0xffff,
            },
        ),
        (message(0, OPEN, 2, &[]), Value { port: 0, value: 2 }),
        (
            message(1, NAME, 1, &[b'n'; 65]),
            NameLength { port: 1, len: 65 },
        ),
        (
            message(1, NAME, 1, &[b'n'; 248]),
            NameLength { port: 1, len: 248 },
        ),
        (message(1, NAME, 1, b"\xff\0"), NameText { port: 1 }),
        (
            message(1, NAME, 1, &"ö".as_bytes()[..1]),
            NameText { port: 1 },
        ),
    ] {
        host.send(&bytes);
        assert_eq!(
            console.poll_event(),
            Ok(Some(Event::Ignored(error))),
            "{error}"
        );
        assert_eq!(console.poll_event(), Ok(None));
    }
    host.run();
    assert_eq!(host.heard(), [], "nothing was answered");
    assert_eq!(console.port(1).unwrap().name(), Some("org.agent.0"));
    assert!(console.port(0).unwrap().is_host_open());
    // It goes on, and what is just allowed is taken.
    let longest = [b'n'; NAME_LEN];
    host.say(1, NAME, 1, &longest);
    assert_eq!(console.poll_event(), Ok(Some(Event::Named(1))));
    assert_eq!(console.port(1).unwrap().name().unwrap().as_bytes(), longest);
    host.say(3, NAME, 1, b"");
    assert_eq!(console.poll_event(), Ok(Some(Event::Named(3))));
    assert_eq!(console.port(3).unwrap().name(), Some(""));
    assert_eq!(host.lost.get(), 0);
}

#[test]
fn a_message_leaves_nothing_for_the_next() {
    // A short one in the buffer of a long one.
    let dma = FakeDma::default();
    let (host, mut console) = settled(&dma);
    for _ in 0..40 {
        host.say(1, NAME, 1, b"a long name");
        assert_eq!(console.poll_event(), Ok(Some(Event::Named(1))));
        host.say(1, NAME, 1, b"short");
        assert_eq!(console.poll_event(), Ok(Some(Event::Named(1))));
        assert_eq!(console.port(1).unwrap().name(), Some("short"));
        host.say(0, RESIZE, 0, &[]);
        let short = ControlError::Short { len: 8, needed: 12 };
        assert_eq!(console.poll_event(), Ok(Some(Event::Ignored(short))));
    }
}
