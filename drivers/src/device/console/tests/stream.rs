//! Data that is copied.

use super::host::{self, HostPort, named, tty};
use super::*;

/// One port of a device, open at both ends.
fn session<'d>(dma: &'d FakeDma) -> (Host<'d>, FakeConsole<'d>) {
    let host = Host::new(dma, options(2), &[(0, tty())]);
    let console = start(&host.device, dma, 1).unwrap();
    (host, console)
}

/// Bytes that show when some are missing or out of order.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

#[test]
fn a_long_text_goes_several_buffers_at_a_time() {
    let dma = FakeDma::default();
    let (host, mut console) = session(&dma);
    let text = pattern(100_000);
    let mut most = 0;
    let mut wait = stepping(|| {
        most = most.max(host.run());
    });
    console.write_all(0, &text, &mut wait).unwrap();
    console.flush(0, &mut wait).unwrap();
    drop(wait);
    assert_eq!(host.port(0).output, text);
    assert_eq!(most, 8, "all buffers are in flight at once");
    let doorbells = console.queue(1).doorbells();
    assert!(doorbells <= 4, "{doorbells} doorbells for 25 buffers");
    let live = dma.live();
    // The buffers serve again.
    let mut wait = stepping(|| {
        host.run();
    });
    console.write_all(0, &text, &mut wait).unwrap();
    assert_eq!(dma.live(), live);
}

#[test]
fn a_host_that_takes_nothing_is_waited_for_and_not_reset() {
    let dma = FakeDma::default();
    let (host, mut console) = session(&dma);
    host.change(0, |port| port.full = true);
    assert_eq!(console.write(0, &pattern(40_000)), Ok(8 * 4096));
    assert_eq!(console.write(0, b"x"), Ok(0));
    let late = Err(DeviceError::Timeout);
    assert_eq!(console.write_all(0, b"x", &mut Polls(9)), late);
    assert_eq!(console.flush(0, &mut Polls(9)), late);
    assert_eq!(console.health(), Ok(()));
    host.change(0, |port| port.full = false);
    host.run();
    console.write_all(0, b"on", &mut Polls(1)).unwrap();
    host.run();
    console.flush(0, &mut Polls(1)).unwrap();
    assert_eq!(host.port(0).output.len(), 8 * 4096 + 2);
    assert!(host.port(0).output.ends_with(b"on"));
}

#[test]
fn what_a_closed_port_never_gives_back_is_not_waited_for() {
    let dma = FakeDma::default();
    let host = Host::new(&dma, options(2), &[(1, named("agent"))]);
    let mut console = start(&host.device, &dma, 2).unwrap();
    events(&host, &mut console);
    console.open_port(1).unwrap();
    for _ in 0..3 {
        host.connect(1);
        events(&host, &mut console);
        // Eight each time, though QEMU keeps one of each session.
        let text = pattern(9 * 4096);
        assert_eq!(console.write(1, &text), Ok(8 * 4096));
        host.device.take(transmit_queue(1) as u16).unwrap();
        host.disconnect(1);
        let late = Err(DeviceError::Timeout);
        assert_eq!(console.flush(1, &mut Polls(2)), late, "nobody said so yet");
        assert_eq!(events(&host, &mut console), [Event::HostClosed(1)]);
        console.flush(1, &mut Polls(1)).unwrap();
        let closed = DeviceError::PortClosed { port: 1 };
        assert_eq!(console.write(1, b"x"), Err(closed));
    }
    assert_eq!(console.queue(transmit_queue(1)).in_flight(), 3);
    // A late one counts for nobody.
    drop(console);
    assert_eq!(dma.live(), 0);
}

#[test]
fn a_write_of_another_session_does_not_count() {
    let dma = FakeDma::default();
    let host = Host::new(&dma, options(2), &[(1, named("agent"))]);
    let mut console = start(&host.device, &dma, 2).unwrap();
    let queue = transmit_queue(1) as u16;
    events(&host, &mut console);
    console.open_port(1).unwrap();
    host.connect(1);
    events(&host, &mut console);
    console.write(1, b"old").unwrap();
    let old = host.device.take(queue).unwrap();
    host.disconnect(1);
    host.connect(1);
    host.change(1, |port| port.full = true);
    events(&host, &mut console);
    console.write(1, b"new").unwrap();
    host.device.finish(queue, &old, 0);
    let late = Err(DeviceError::Timeout);
    assert_eq!(console.flush(1, &mut Polls(2)), late, "the new one is out");
    host.change(1, |port| port.full = false);
    host.run();
    console.flush(1, &mut Polls(1)).unwrap();
    assert_eq!(host.port(1).output, b"new");
}

#[test]
fn the_callers_requests_are_the_callers() {
    let dma = FakeDma::default();
    let (host, mut console) = session(&dma);
    console.write(0, b"copied, ").unwrap();
    console
        .submit_transmit(0, region(&dma, b"mine"), 4)
        .unwrap();
    let busy = DeviceError::Busy { in_flight: 1 };
    assert_eq!(console.write(0, b"x"), Err(busy));
    assert_eq!(console.flush(0, &mut Polls(1)), Err(busy));
    console.queue(1).kick();
    host.run();
    let back = console.poll_transmit(0).unwrap().unwrap();
    assert_eq!(&*back.buffer, b"mine");
    assert!(console.poll_transmit(0).unwrap().is_none());
    assert_eq!(host.port(0).output, b"copied, mine");
    console.write(0, b"x").unwrap();
    // Nothing of what was copied comes out there.
    host.run();
    assert!(console.poll_transmit(0).unwrap().is_none());
    console.flush(0, &mut Polls(1)).unwrap();
}

#[test]
fn what_was_received_is_read_in_pieces() {
    let dma = FakeDma::default();
    let (host, mut console) = session(&dma);
    assert_eq!(console.read(0, &mut [0; 9]), Ok(0));
    console.fill_receive(0, 4, 100).unwrap();
    let text = pattern(1000);
    let (mut given, mut found) = (0, Vec::<u8>::new());
    let doorbells = console.queue(0).doorbells();
    let mut calls = 0;
    while found.len() < text.len() {
        given += host.input(0, &text[given..]);
        // Shorter than a buffer, and across buffers.
        for len in [0, 1, 7, 150, 1000] {
            let mut piece = vec![0xee; len];
            let read = console.read(0, &mut piece).unwrap();
            assert!(piece[read..].iter().all(|&byte| byte == 0xee));
            found.extend(&piece[..read]);
            calls += 1;
        }
    }
    assert_eq!(found, text);
    assert_eq!(console.queue(0).in_flight(), 4, "all were given again");
    assert!(console.queue(0).doorbells() - doorbells <= calls);
    let missing = DeviceError::NoPort { port: 1, ports: 1 };
    assert_eq!(console.read(1, &mut [0; 1]), Err(missing));
    assert_eq!(console.fill_receive(1, 1, 1), Err(missing));
    let full = QueueError::Full { needed: 1, free: 0 };
    assert_eq!(console.fill_receive(0, 13, 100), Err(full.into()));
    assert_eq!(console.queue(0).in_flight(), 16);
}

#[test]
fn the_doorbell_rings_for_what_is_given_again() {
    let dma = FakeDma::default();
    let mut options = options(2);
    options.features = MODERN | own(F::MULTIPORT);
    let host = Host::new(&dma, options, &[(0, tty())]);
    let mut console = start(&host.device, &dma, 2).unwrap();
    events(&host, &mut console);
    let doorbells = |console: &mut FakeConsole| [0, 2].map(|n| console.queue(n).doorbells());
    let [_, control] = doorbells(&mut console);
    console.fill_receive(0, 4, 8).unwrap();
    assert_eq!(doorbells(&mut console), [1, control], "once for all");
    host.input(0, b"more than a buffer");
    assert_eq!(console.read(0, &mut [0; 32]), Ok(18));
    assert_eq!(doorbells(&mut console), [2, control]);
    assert_eq!(console.read(0, &mut [0; 32]), Ok(0));
    host.say(0, host::CONSOLE, 1, &[]);
    assert!(console.poll_event().unwrap().is_some());
    assert_eq!(doorbells(&mut console), [2, control + 1]);
    assert_eq!(console.poll_event(), Ok(None));
    assert_eq!(doorbells(&mut console), [2, control + 1]);
}

#[test]
fn empty_buffers_are_given_again() {
    let dma = FakeDma::default();
    let (host, mut console) = session(&dma);
    console.fill_receive(0, 16, 8).unwrap();
    while let Some(chain) = host.device.take(0) {
        host.device.finish(0, &chain, 0);
    }
    assert_eq!(console.read(0, &mut [0; 8]), Ok(0));
    assert_eq!(console.queue(0).in_flight(), 16);
    assert_eq!(host.input(0, b"after all"), 9);
    assert_eq!(console.read(0, &mut [0; 16]), Ok(9));
}

#[test]
fn a_removed_port_is_read_to_its_end() {
    let dma = FakeDma::default();
    let agent = HostPort {
        connected: true,
        ..named("agent")
    };
    let host = Host::new(&dma, options(2), &[(1, agent.clone())]);
    let mut console = start(&host.device, &dma, 2).unwrap();
    events(&host, &mut console);
    console.open_port(1).unwrap();
    console.fill_receive(1, 2, 8).unwrap();
    host.run();
    assert_eq!(host.input(1, b"farewell, all"), 13);
    let mut bytes = [0; 5];
    assert_eq!(console.read(1, &mut bytes), Ok(5));
    host.unplug(1);
    events(&host, &mut console);
    let mut rest = [0; 20];
    assert_eq!(console.read(1, &mut rest), Ok(8));
    assert_eq!(&rest[..8], b"ell, all");
    let absent = DeviceError::PortAbsent { port: 1 };
    assert_eq!(console.fill_receive(1, 1, 8), Err(absent));
    // Its buffers wait for the next.
    host.plug(1, agent);
    events(&host, &mut console);
    console.open_port(1).unwrap();
    host.run();
    assert_eq!(host.input(1, b"hi"), 2);
    assert_eq!(console.read(1, &mut rest), Ok(2));
}

#[test]
fn where_memory_is_short_fewer_writes_are_in_flight() {
    // As much as the rings and so on take, and two buffers and a half.
    let mut enough = 0;
    let rings = loop {
        let dma = FakeDma::with_budget(enough);
        let host = Host::new(&dma, options(1), &[]);
        if start(&host.device, &dma, 1).is_ok() {
            break enough;
        }
        enough += 8;
    };
    let dma = FakeDma::with_budget(rings + 10_240);
    let (host, mut console) = session(&dma);
    assert_eq!(console.write(0, &pattern(40_000)), Ok(2 * 4096));
    assert_eq!(console.write(0, b"x"), Ok(0));
    host.run();
    assert_eq!(console.write(0, b"x"), Ok(1));
    let dma = FakeDma::with_budget(rings + 4000);
    let (_host, mut console) = session(&dma);
    let error = console.write(0, b"x").unwrap_err();
    assert!(matches!(error, DeviceError::Dma(_)), "{error}");
}
