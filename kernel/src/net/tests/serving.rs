//! What the host gets from the services.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::super::serve::{Ended, Report, serve};
use super::super::site::{Site, Source};
use super::fake::{Host, udp_socket};
use super::*;
use crate::results::Snapshot;

/// Results of some length.
struct Long(usize);

impl Source for Long {
    fn count(&self) -> u64 {
        1
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            records: vec![format!("\"{}\"", "x".repeat(self.0)).into()],
            dropped: 0,
        }
    }
}

/// Serves for some seconds, while `script` has its turns as the host.
fn served(seconds: u64, script: impl FnMut(&mut Host, Duration)) -> (Report, Vec<String>) {
    let (mut stack, mut world) = leased();
    world.script = Box::new(script);
    let mut site = Site::new(Long(100_000));
    let report = serve(&mut stack, &mut world, &mut site, 80, secs(seconds)).unwrap();
    // All of its sockets are gone; DHCP's is left.
    assert_eq!(stack.sockets.iter().count(), 1);
    (report, world.said)
}

/// A client that says something, and then reads all there is.
struct Client {
    socket: SocketHandle,
    say: Vec<u8>,
    heard: Vec<u8>,
    /// How the connection ended; `None` while it has not.
    end: Option<Result<(), ()>>,
}

impl Client {
    fn new(host: &mut Host, from: u16, say: &str) -> Self {
        Self {
            socket: host.connect(from),
            say: say.into(),
            heard: Vec::new(),
            end: None,
        }
    }

    fn poll(&mut self, host: &mut Host) {
        let socket = host.tcp(self.socket);
        if socket.can_send() && !self.say.is_empty() {
            let said = socket.send_slice(&self.say).unwrap();
            self.say.drain(..said);
        }
        while self.say.is_empty() {
            match socket.recv(|bytes| (bytes.len(), bytes.to_vec())) {
                Ok(bytes) if bytes.is_empty() => break,
                Ok(bytes) => self.heard.extend(bytes),
                Err(tcp::RecvError::Finished) => {
                    socket.close();
                    self.end = Some(Ok(()));
                    break;
                }
                Err(tcp::RecvError::InvalidState) => {
                    if socket.state() == tcp::State::Closed {
                        self.end.get_or_insert(Err(()));
                    }
                    break;
                }
            }
        }
    }

    fn text(&self) -> &str {
        core::str::from_utf8(&self.heard).unwrap()
    }
}

/// What a client hears who says this. The run ends with its end.
fn ask(say: &str) -> (String, Report) {
    let answers = Rc::<RefCell<String>>::default();
    let (into, mut client, mut quit) = (answers.clone(), None, None);
    let (report, _) = served(60, |host, _| {
        let client = client.get_or_insert_with(|| Client::new(host, 50_000, say));
        client.poll(host);
        if client.end == Some(Ok(())) {
            *into.borrow_mut() = client.text().into();
            let quit = quit
                .get_or_insert_with(|| Client::new(host, 50_001, "POST /quit HTTP/1.0\r\n\r\n"));
            quit.poll(host);
        }
    });
    (answers.take(), report)
}

#[test]
fn a_resource_comes_whole_and_the_connection_ends() {
    let (text, report) = ask("GET /results.json HTTP/1.1\r\nHost: guest\r\n\r\n");
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
    let value: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(value["records"][0].as_str().unwrap().len(), 100_000);

    assert_eq!(report.ended, Ok(Ended::Quit));
    let tally = report.tally;
    assert_eq!((tally.connections, tally.requests, tally.ok), (2, 2, 2));
    assert_eq!((tally.refused, tally.aborted), (0, 0));
    assert!(tally.bytes > text.len() as u64);
}

#[test]
fn to_head_the_head_alone_is_said() {
    let (text, _) = ask("HEAD /results.json HTTP/1.1\r\nHost: guest\r\n\r\n");
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\n"));
    assert!(text.contains("Content-Length: 100037\r\n"), "{text}");
}

#[test]
fn a_client_that_sends_too_much_hears_so() {
    let head = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let (text, report) = ask(&head);
    assert!(text.starts_with("HTTP/1.1 431 "), "{text}");
    assert_eq!((report.tally.refused, report.tally.aborted), (1, 0));
}

#[test]
fn a_client_that_says_too_little_hears_so() {
    let (text, report) = ask("GET / HTTP/1.1\r\nHost:");
    assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
    assert!(report.time >= secs(10) && report.time < secs(11));
}

#[test]
fn a_request_that_ends_early_is_refused() {
    let mut client = None;
    let heard = Rc::<RefCell<String>>::default();
    let into = heard.clone();
    let (report, _) = served(3, |host, _| {
        let client = client.get_or_insert_with(|| Client::new(host, 50_000, "GET / HT"));
        client.poll(host);
        if client.say.is_empty() {
            host.tcp(client.socket).close();
        }
        *into.borrow_mut() = client.text().into();
    });
    let heard = heard.borrow();
    assert!(heard.starts_with("HTTP/1.1 400 "), "{heard}");
    assert_eq!((report.tally.requests, report.tally.refused), (1, 1));
}

#[test]
fn a_client_that_says_nothing_is_no_request() {
    let mut client = None;
    let (report, _) = served(3, |host, _| {
        let client = client.get_or_insert_with(|| Client::new(host, 50_000, ""));
        client.poll(host);
        if host.tcp(client.socket).may_send() {
            host.tcp(client.socket).close();
        }
    });
    let tally = report.tally;
    assert_eq!((tally.connections, tally.requests), (1, 0));
    assert_eq!((tally.refused, tally.aborted), (0, 0));
}

#[test]
fn many_come_at_once_and_many_more_in_turn() {
    let done = Cell::new(0);
    let mut clients: Vec<Client> = Vec::new();
    let mut from = 50_000;
    let (report, _) = served(30, |host, _| {
        while clients.len() < 15 && from < 50_100 {
            clients.push(Client::new(host, from, "GET /health HTTP/1.0\r\n\r\n"));
            from += 1;
        }
        clients.iter_mut().for_each(|client| client.poll(host));
        clients.retain(|client| {
            if let Some(end) = client.end {
                assert_eq!(end, Ok(()));
                assert!(client.text().ends_with("\r\n\r\nok\n"));
                done.set(done.get() + 1);
            }
            client.end.is_none()
        });
    });
    assert_eq!(done.get(), 100);
    assert_eq!(report.ended, Ok(Ended::Time));
    assert_eq!(report.time.as_secs(), 30);
    let tally = report.tally;
    assert_eq!((tally.connections, tally.ok), (100, 100));
}

#[test]
fn clients_that_stall_or_vanish_do_not_keep_others_out() {
    let mut stalled: Vec<SocketHandle> = Vec::new();
    let mut last = None;
    let end = Rc::new(Cell::new(None));
    let seen = end.clone();
    let (report, _) = served(40, |host, now| {
        if stalled.is_empty() {
            // They ask, and read nothing; every third goes away.
            stalled = (0..16).map(|n| host.connect(50_000 + n)).collect();
        }
        for (n, &socket) in stalled.iter().enumerate() {
            let socket = host.tcp(socket);
            if socket.can_send() && socket.send_queue() == 0 && now < secs(1) {
                let _ = socket.send_slice(b"GET /results.json HTTP/1.0\r\n\r\n");
            }
            if n % 3 == 0 && now > secs(2) {
                socket.abort();
            }
        }
        if now > secs(25) {
            let client = last
                .get_or_insert_with(|| Client::new(host, 51_000, "GET /health HTTP/1.0\r\n\r\n"));
            client.poll(host);
            seen.set(client.end);
        }
    });
    assert_eq!(end.get(), Some(Ok(())));
    assert_eq!((report.tally.connections, report.tally.aborted), (17, 16));
}

#[test]
fn those_who_are_served_when_it_ends_get_all_of_it() {
    let mut client = None;
    let got = Rc::new(Cell::new(0));
    let seen = got.clone();
    let (mut stack, mut world) = leased();
    world.off_at = world.now() + Duration::from_millis(8);
    world.script = Box::new(|host, _| {
        let say = "GET /results.json HTTP/1.0\r\n\r\n";
        let client = client.get_or_insert_with(|| Client::new(host, 50_000, say));
        client.poll(host);
        seen.set(client.heard.len());
    });
    let mut site = Site::new(Long(100_000));
    let report = serve(&mut stack, &mut world, &mut site, 80, secs(60)).unwrap();
    assert_eq!(report.ended, Ok(Ended::CalledOff));
    assert!(got.get() > 100_000, "{}", got.get());
}

#[test]
fn what_the_adapter_fails_of_is_in_the_report() {
    let (mut stack, mut world) = leased();
    let (cable, begin) = (world.cable.clone(), world.now());
    world.script = Box::new(move |_, now| {
        if now > begin + secs(2) {
            cable.borrow_mut().fault = Some("the device is gone".into());
        }
    });
    let mut site = Site::new(Long(1));
    let report = serve(&mut stack, &mut world, &mut site, 80, secs(60)).unwrap();
    assert_eq!(report.ended, Err("the device is gone".into()));
    assert_eq!(report.time.as_secs(), 2);
}

#[test]
fn that_it_goes_on_and_how_the_link_is_are_said() {
    let (mut stack, mut world) = leased();
    let (cable, begin) = (world.cable.clone(), world.now());
    world.script = Box::new(move |_, now| {
        let second = (now - begin).as_secs();
        cable.borrow_mut().down = (40..50).contains(&second);
    });
    let mut site = Site::new(Long(1));
    serve(&mut stack, &mut world, &mut site, 80, secs(70)).unwrap();
    assert_eq!(
        world.said,
        [
            "  0 requests so far; 40 s left",
            "The link is down.",
            "The link is up.",
            "  0 requests so far; 10 s left"
        ]
    );
}

#[test]
fn datagrams_go_back_except_to_another_echo() {
    let mut sockets = Vec::new();
    let heard = Rc::<RefCell<Vec<Vec<u8>>>>::default();
    let into = heard.clone();
    let (report, _) = served(2, |host, _| {
        if sockets.is_empty() {
            for port in [7, 40_000] {
                let mut socket = udp_socket();
                socket.bind(port).unwrap();
                socket.send_slice(&[port as u8; 1000], (GUEST, 7)).unwrap();
                socket.send_slice(&[], (GUEST, 7)).unwrap();
                sockets.push(host.sockets.add(socket));
            }
        }
        for &socket in &sockets {
            let socket = host.sockets.get_mut::<udp::Socket<'_>>(socket);
            while let Ok((bytes, _)) = socket.recv() {
                into.borrow_mut().push(bytes.to_vec());
            }
        }
    });
    assert_eq!(*heard.borrow(), [vec![40_000_u16 as u8; 1000], vec![]]);
    assert_eq!((report.echoed, report.unechoed), (2, 2));
}
