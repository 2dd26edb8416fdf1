//! Data by token.

use super::host::{named, tty};
use super::*;
use crate::queue::Token;

/// Ports 0 (a console) and 1, both open at both ends.
fn session<'d>(dma: &'d FakeDma) -> (Host<'d>, FakeConsole<'d>) {
    let host = Host::new(dma, options(3), &[(0, tty()), (1, named("agent"))]);
    let mut console = start(&host.device, dma, 3).unwrap();
    events(&host, &mut console);
    console.open_port(1).unwrap();
    host.connect(1);
    events(&host, &mut console);
    (host, console)
}

/// A receive buffer that came back: which, what is in it, and the result.
type Back = (Token, Vec<u8>, Result<usize, DeviceError>);

fn received(console: &mut FakeConsole, port: u32) -> Option<Back> {
    let back = console.poll_receive(port).unwrap()?;
    Some((back.token, back.buffer.to_vec(), back.result))
}

#[test]
fn requests_of_several_ports_are_in_flight() {
    let dma = FakeDma::default();
    let (host, mut console) = session(&dma);
    let mut sent = Vec::new();
    for (port, text) in [(0, &b"tty"[..]), (1, b"one "), (1, b"two...")] {
        let token = console.submit_transmit(
            port,
            region(&dma, text),
            text.len() - usize::from(text == b"two...") * 3,
        );
        sent.push((port, token.unwrap(), text));
    }
    assert_eq!(host.run(), 0, "no doorbell yet");
    assert!(console.queue(transmit_queue(0)).kick());
    assert!(console.queue(transmit_queue(1)).kick());
    assert!(console.poll_transmit(0).unwrap().is_none());
    assert_eq!(host.run(), 3);
    assert_eq!(host.port(0).output, b"tty");
    assert_eq!(host.port(1).output, b"one two");
    for (port, token, text) in sent {
        let back = console.poll_transmit(port).unwrap().unwrap();
        assert_eq!(
            (back.token, &*back.buffer, back.result),
            (token, text, Ok(()))
        );
    }
    let first = console.submit_receive(1, region(&dma, &[0; 4])).unwrap();
    let second = console.submit_receive(1, region(&dma, &[0; 4])).unwrap();
    assert_eq!(host.input(1, b"answer"), 6);
    let back = |text: &[u8], token, len| Some((token, text.to_vec(), Ok(len)));
    assert_eq!(received(&mut console, 1), back(b"answ", first, 4));
    assert_eq!(received(&mut console, 1), back(b"er\0\0", second, 2));
    assert_eq!(received(&mut console, 1), None);
    assert_eq!(received(&mut console, 0), None);
    drop(console);
    assert_eq!(dma.live(), 0);
}

#[test]
fn what_is_refused_comes_back() {
    let dma = FakeDma::default();
    let (host, mut console) = session(&dma);
    let refused = |submitted: Result<_, (DeviceError, DmaRegion<_>)>, error| {
        let (found, buffer) = submitted.unwrap_err();
        assert_eq!((found, &*buffer), (error, &[7; 5][..]));
    };
    let five = || region(&dma, &[7; 5]);
    let missing = DeviceError::NoPort { port: 3, ports: 3 };
    refused(console.submit_receive(3, five()), missing);
    refused(console.submit_transmit(3, five(), 1), missing);
    assert_eq!(console.poll_receive(3).err(), Some(missing));
    assert_eq!(console.poll_transmit(3).err(), Some(missing));
    let absent = DeviceError::PortAbsent { port: 2 };
    refused(console.submit_receive(2, five()), absent);
    refused(console.submit_transmit(2, five(), 1), absent);
    for len in [0, 6, usize::MAX] {
        let length = DeviceError::BufferLength {
            len,
            multiple: 1,
            max: 5,
        };
        refused(console.submit_transmit(1, five(), len), length);
    }
    console.close_port(1).unwrap();
    let closed = DeviceError::PortClosed { port: 1 };
    refused(console.submit_transmit(1, five(), 5), closed);
    // A closed port may have buffers to receive into when it is opened.
    for _ in 0..16 {
        console.submit_receive(1, five()).unwrap();
    }
    let full = QueueError::Full { needed: 1, free: 0 };
    refused(console.submit_receive(1, five()), full.into());
    for _ in 0..16 {
        console.submit_transmit(0, five(), 5).unwrap();
    }
    refused(console.submit_transmit(0, five(), 5), full.into());
    console.queue(transmit_queue(0)).kick();
    host.run();
    assert_eq!(host.port(0).output, [7; 80]);
    drop(console);
    assert_eq!(dma.live(), 0);
}

#[test]
fn what_was_received_stays_when_the_host_closes() {
    let dma = FakeDma::default();
    let (host, mut console) = session(&dma);
    for _ in 0..3 {
        console.submit_receive(1, region(&dma, &[0; 4])).unwrap();
    }
    console
        .submit_transmit(1, region(&dma, b"lost"), 4)
        .unwrap();
    assert_eq!(host.input(1, b"last"), 4);
    host.disconnect(1);
    assert_eq!(events(&host, &mut console), [Event::HostClosed(1)]);
    let (_, bytes, result) = received(&mut console, 1).unwrap();
    assert_eq!((&bytes[..], result), (&b"last"[..], Ok(4)));
    assert_eq!(received(&mut console, 1), None);
    let back = console.poll_transmit(1).unwrap().unwrap();
    assert_eq!(back.result, Ok(()), "unread, but done with");
    assert_eq!(host.port(1).output, b"");
    host.connect(1);
    assert_eq!(events(&host, &mut console), [Event::HostOpened(1)]);
    assert_eq!(host.input(1, b"next"), 4, "the buffers are still there");
    assert!(console.poll_receive(1).unwrap().is_some());
}

#[test]
fn a_port_that_is_removed_keeps_what_is_pending() {
    let dma = FakeDma::default();
    let (host, mut console) = session(&dma);
    for _ in 0..3 {
        console.submit_receive(1, region(&dma, &[0; 4])).unwrap();
        console
            .submit_transmit(1, region(&dma, b"lost"), 4)
            .unwrap();
    }
    assert_eq!(host.input(1, b"last"), 4);
    host.unplug(1);
    assert_eq!(events(&host, &mut console), [Event::PortRemoved(1)]);
    let absent = DeviceError::PortAbsent { port: 1 };
    let (error, _) = console.submit_receive(1, region(&dma, b"x")).unwrap_err();
    assert_eq!(error, absent);
    // What was received, and what the device gave back.
    let (_, bytes, result) = received(&mut console, 1).unwrap();
    assert_eq!((&bytes[..], result), (&b"last"[..], Ok(4)));
    assert_eq!(received(&mut console, 1), None);
    for _ in 0..3 {
        assert!(console.poll_transmit(1).unwrap().is_some());
    }
    // The others stay with the device, and serve the port that comes next.
    host.plug(1, named("next"));
    host.connect(1);
    events(&host, &mut console);
    console.open_port(1).unwrap();
    host.run();
    assert_eq!(host.input(1, b"new"), 3);
    assert_eq!(received(&mut console, 1).unwrap().2, Ok(3));
    host.unplug(1);
    events(&host, &mut console);
    // Or they come back from a device that was reset, the last of them.
    assert!(console.close());
    let aborted = Err(DeviceError::Aborted);
    assert_eq!(received(&mut console, 1).unwrap().2, aborted);
    let broken = Some(DeviceError::Queue(QueueError::Broken));
    assert_eq!(console.poll_receive(1).err(), broken);
    drop(console);
    assert_eq!(dma.live(), 0);
}

#[test]
fn memory_is_freed_only_after_the_reset() {
    // The fake looks whether it was there until then.
    for ports in [1, 3] {
        let dma = FakeDma::default();
        let host = Host::new(&dma, options(3), &[(0, tty())]);
        let mut console = start(&host.device, &dma, ports).unwrap();
        console
            .console_port(&mut stepping(|| {
                host.run();
            }))
            .unwrap();
        console.fill_receive(0, 4, 64).unwrap();
        console
            .submit_transmit(0, region(&dma, b"pending"), 7)
            .unwrap();
        host.device.take(0).unwrap();
        host.device.take(1).unwrap();
        drop(console);
        assert_eq!(dma.live(), 0);
        // From one that does not reset it is never freed.
        host.device.change(|options| options.reset_reads = 0);
        let mut console = start(&host.device, &dma, ports).unwrap();
        console
            .console_port(&mut stepping(|| {
                host.run();
            }))
            .unwrap();
        console.fill_receive(0, 4, 64).unwrap();
        host.device.change(|options| options.reset_reads = u32::MAX);
        drop(console);
        assert!(dma.live() >= 4 + 2, "buffers and rings");
    }
}
