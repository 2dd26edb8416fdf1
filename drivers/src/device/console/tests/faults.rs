//! Devices that break the rules, and queues that are reset.

use super::host::{CONSOLE, OPEN, RESIZE, named, tty};
use super::*;

fn session<'d>(dma: &'d FakeDma) -> (Host<'d>, FakeConsole<'d>) {
    let host = Host::new(dma, options(2), &[(0, tty()), (1, named("agent"))]);
    let mut console = start(&host.device, dma, 2).unwrap();
    events(&host, &mut console);
    console.fill_receive(0, 2, 16).unwrap();
    host.heard();
    (host, console)
}

/// The error, after which the device was reset, all calls fail and nothing is kept.
fn given_up(dma: &FakeDma, host: &Host, mut console: FakeConsole, error: DeviceError) {
    assert!(
        matches!(error, DeviceError::Queue(fault) if fault.is_device_fault()),
        "{error}"
    );
    assert_eq!(host.device.status(), DeviceStatus::FAILED);
    let broken = DeviceError::Queue(QueueError::Broken);
    assert_eq!(console.poll_event(), Err(broken));
    assert_eq!(console.open_port(1), Err(broken));
    assert_eq!(console.write(0, b"x"), Err(broken));
    for _ in 0..2 {
        let read = console.read(0, &mut [0; 4]);
        assert_eq!(read, Err(DeviceError::Aborted));
    }
    assert_eq!(console.read(0, &mut [0; 4]), Err(broken));
    drop(console);
    assert_eq!(dma.live(), 0);
}

const LIES: [Lie; 3] = [Lie::Id(40), Lie::IndexAhead(60), Lie::Longer(300)];

#[test]
fn lies_on_the_control_queues() {
    for lie in LIES {
        let dma = FakeDma::default();
        let (host, mut console) = session(&dma);
        host.device.change(|options| options.lie = Some(lie));
        host.say(0, CONSOLE, 1, &[]);
        let error = console.poll_event().unwrap_err();
        given_up(&dma, &host, console, error);
    }
    for lie in [Lie::Replay].into_iter().chain(LIES) {
        let dma = FakeDma::default();
        let (host, mut console) = session(&dma);
        host.device.change(|options| options.lie = Some(lie));
        console.open_port(1).unwrap();
        host.run();
        let error = console.poll_event().unwrap_err();
        given_up(&dma, &host, console, error);
    }
}

#[test]
fn lies_on_a_ports_queues() {
    for lie in [Lie::Replay].into_iter().chain(LIES) {
        let dma = FakeDma::default();
        let (host, mut console) = session(&dma);
        host.device.change(|options| options.lie = Some(lie));
        console.write(0, b"x").unwrap();
        host.run();
        let error = console.flush(0, &mut Polls(1)).unwrap_err();
        given_up(&dma, &host, console, error);
    }
    for lie in LIES {
        let dma = FakeDma::default();
        let (host, mut console) = session(&dma);
        host.device.change(|options| options.lie = Some(lie));
        host.input(0, b"x");
        let error = console.read(0, &mut [0; 8]).unwrap_err();
        given_up(&dma, &host, console, error);
    }
}

#[test]
fn a_buffer_that_is_given_back_twice() {
    // The second time it is no longer the device's.
    let dma = FakeDma::default();
    let (host, mut console) = session(&dma);
    host.device
        .change(|options| options.lie = Some(Lie::Replay));
    host.input(0, b"x");
    let back = console.poll_receive(0).unwrap().unwrap();
    assert_eq!(back.result, Ok(1));
    let error = console.poll_receive(0).err();
    assert_eq!(
        error,
        Some(DeviceError::Queue(QueueError::UsedId { id: 0 }))
    );
    assert_eq!(host.device.status(), DeviceStatus::FAILED);
    // An inbox is the device's again, and has in it what the device left there.
    let dma = FakeDma::default();
    let (host, mut console) = session(&dma);
    host.device
        .change(|options| options.lie = Some(Lie::Replay));
    host.say(0, CONSOLE, 1, &[]);
    assert_eq!(console.poll_event(), Ok(Some(Event::Console(0))));
    assert_eq!(console.poll_event(), Ok(Some(Event::Console(0))));
    assert_eq!(console.poll_event(), Ok(None));
    drop(console);
    assert_eq!(dma.live(), 0);
    let noted = host.device.violations();
    assert!(
        noted[0].contains("2.7.6.1"),
        "it is the device that lost count"
    );
}

#[test]
fn a_legacy_device_may_say_any_length_where_it_wrote_nothing() {
    // 5.3.6.3
    let dma = FakeDma::default();
    let mut options = options(2);
    legacy(&mut options);
    let host = Host::new(&dma, options, &[(0, tty())]);
    host.device
        .change(|options| options.lie = Some(Lie::Longer(8)));
    let mut console = start(&host.device, &dma, 1).unwrap();
    console.write(0, b"x").unwrap();
    host.run();
    console.flush(0, &mut Polls(1)).unwrap();
    drop(console);
    let mut console = start(&host.device, &dma, 2).unwrap();
    host.run();
    while console.poll_event().unwrap().is_some() {}
    assert_eq!(console.queue(3).in_flight(), 1, "DEVICE_READY came back");
}

#[test]
fn a_queue_that_is_reset_starts_anew() {
    let dma = FakeDma::default();
    let (host, mut console) = session(&dma);
    let broken = DeviceError::Queue(QueueError::Broken);
    // A port's.
    console.write(0, b"lost").unwrap();
    console
        .reset_queue(transmit_queue(0), &mut Polls(1))
        .unwrap();
    assert_eq!(console.write(0, b"x"), Err(broken));
    console.restart_queue(transmit_queue(0)).unwrap();
    console.flush(0, &mut Polls(1)).unwrap();
    console.write(0, b"again").unwrap();
    host.run();
    assert_eq!(host.port(0).output, b"again");
    console
        .reset_queue(receive_queue(0), &mut Polls(1))
        .unwrap();
    for _ in 0..2 {
        let back = console.poll_receive(0).unwrap().unwrap();
        assert_eq!(back.result, Err(DeviceError::Aborted));
    }
    console.restart_queue(receive_queue(0)).unwrap();
    console.fill_receive(0, 1, 16).unwrap();
    assert_eq!(host.input(0, b"in"), 2);
    assert_eq!(console.read(0, &mut [0; 4]), Ok(2));
    // Those for control.
    console.reset_queue(2, &mut Polls(1)).unwrap();
    assert_eq!(console.poll_event(), Err(broken));
    console.restart_queue(2).unwrap();
    assert_eq!(console.poll_event(), Ok(None));
    host.say(0, RESIZE, 0, &[1, 0, 1, 0]);
    assert!(console.poll_event().unwrap().is_some());
    console.reset_queue(3, &mut Polls(1)).unwrap();
    assert_eq!(console.open_port(1), Err(broken));
    console.restart_queue(3).unwrap();
    assert_eq!(events(&host, &mut console), []);
    assert_eq!(host.heard(), [(1, OPEN, 1)], "what was due is told then");
    drop(console);
    assert_eq!(dma.live(), 0);
}

#[test]
fn a_device_that_is_gone_is_told_apart_from_a_slow_one() {
    let dma = FakeDma::default();
    let (host, mut console) = session(&dma);
    console.write(0, b"x").unwrap();
    host.device.unplug();
    let gone = Err(DeviceError::Gone);
    assert_eq!(console.flush(0, &mut Polls(3)), gone);
    assert_eq!(console.health(), gone);
    // SAFETY: the fake forgot its queues.
    unsafe { console.unplugged() };
    let back = console.poll_receive(0).unwrap().unwrap();
    assert_eq!(back.result, Err(DeviceError::Aborted));
    drop((back, console));
    assert_eq!(dma.live(), 0);
}
