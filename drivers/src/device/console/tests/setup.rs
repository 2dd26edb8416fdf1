//! What a device is, and how it comes up.

use super::host::{DEVICE_READY, HostPort, OPEN, PORT_READY, named, tty};
use super::*;
use crate::transport::fake::Event as Did;

#[test]
fn one_port_needs_no_control() {
    for change in [|_: &mut Options| (), legacy] {
        for ring in [Features::empty(), RING] {
            let dma = FakeDma::default();
            let mut options = options(4);
            options.features = MODERN | ring | own(F::MULTIPORT | F::SIZE);
            change(&mut options);
            let host = Host::new(&dma, options, &[(0, tty())]);
            let mut console = start(&host.device, &dma, 1).unwrap();
            assert!(!console.features().contains(own(F::MULTIPORT)));
            assert_eq!(console.queues(), 2);
            assert_eq!(console.size(), Ok(Some((80, 25))));
            assert_eq!(console.console_port(&mut Polls(1)), Ok(0));
            let port = console.port(0).unwrap();
            assert!(port.is_console() && port.is_open() && port.is_host_open());
            assert_eq!((port.name(), port.size()), (None, None));
            assert!(console.port(1).is_none());
            assert_eq!(console.poll_event(), Ok(None));
            assert_eq!(console.open_port(0), Ok(()));
            assert_eq!(console.close_port(0), Err(DeviceError::Unsupported));
            let missing = DeviceError::NoPort { port: 1, ports: 1 };
            assert_eq!(console.open_port(1), Err(missing));

            console.fill_receive(0, 2, 8).unwrap();
            let mut wait = stepping(|| {
                host.run();
            });
            console.write_all(0, b"login: ", &mut wait).unwrap();
            console.flush(0, &mut wait).unwrap();
            assert_eq!(host.port(0).output, b"login: ");
            assert_eq!(host.input(0, b"somebody\n"), 9);
            let mut bytes = [0; 16];
            assert_eq!(console.read(0, &mut bytes), Ok(9));
            assert_eq!(&bytes[..9], b"somebody\n");
            assert_eq!(host.heard(), []);
            drop((wait, console));
            assert_eq!(host.device.status(), DeviceStatus::empty());
            assert_eq!(dma.live(), 0);
        }
    }
}

#[test]
fn a_device_of_several_ports_gets_their_queues_and_those_for_control() {
    // 5.3.2: control is between port 0 and port 1.
    for (max, wanted, ports) in [(1, 9, 1), (3, 2, 2), (3, 3, 3), (3, 9, 3)] {
        let dma = FakeDma::default();
        let host = Host::new(&dma, options(max), &[]);
        let mut console = start(&host.device, &dma, wanted).unwrap();
        assert_eq!(console.queues(), 2 * (ports + 1));
        let enabled: Vec<Did> = (0..2 * (ports as u16 + 1)).map(Did::Enable).collect();
        let did = host.device.events();
        let did: Vec<Did> = did
            .into_iter()
            .filter(|event| matches!(event, Did::Enable(_)))
            .collect();
        assert_eq!(did, enabled);
        assert_eq!(console.ports().count(), 0, "none was added yet");
        let missing = DeviceError::PortAbsent { port: 0 };
        assert_eq!(console.open_port(0), Err(missing));
        assert_eq!(
            console.console_port(&mut Polls(3)),
            Err(DeviceError::Timeout)
        );
        host.run();
        assert_eq!(host.heard(), [(0, DEVICE_READY, 1)]);
    }
    assert_eq!([0, 1, 2, 7].map(receive_queue), [0, 4, 6, 16]);
    assert_eq!([0, 1, 2, 7].map(transmit_queue), [1, 5, 7, 17]);
    assert!(transmit_queue(u32::MAX) > u32::MAX as usize);
}

#[test]
fn a_console_in_five_lines_whatever_the_device_can() {
    for ports in [1, 3] {
        let dma = FakeDma::default();
        let host = Host::new(&dma, options(3), &[(0, tty()), (1, named("agent"))]);
        let mut wait = stepping(|| {
            host.run();
        });
        let mut console = start(&host.device, &dma, ports).unwrap();
        let port = console.console_port(&mut wait).unwrap();
        console.write_all(port, b"hello\n", &mut wait).unwrap();
        console.flush(port, &mut wait).unwrap();
        assert_eq!(host.port(0).output, b"hello\n");
        if ports > 1 {
            assert!(host.heard().contains(&(0, OPEN, 1)), "5.3.6.2.2");
        }
    }
}

#[test]
fn no_ports_at_all_cannot_be() {
    let dma = FakeDma::default();
    let mut options = options(1);
    options.config[4] = 0;
    let host = Host::new(&dma, options, &[]);
    let field = DeviceError::Config {
        field: "max_nr_ports",
        value: 0,
    };
    assert_eq!(start(&host.device, &dma, 2).unwrap_err(), field);
    assert_eq!(host.device.status(), DeviceStatus::FAILED);
    // Without the feature the field says nothing.
    start(&host.device, &dma, 1).unwrap();
}

#[test]
fn a_device_that_can_have_more_ports_than_queues_have_numbers() {
    let dma = FakeDma::default();
    let mut options = options(1);
    options.config[4..8].fill(0xff);
    let host = Host::new(&dma, options, &[]);
    let error = start(&host.device, &dma, 0xffff).unwrap_err();
    let missing = TransportError::NoQueue { queue: 4 };
    assert_eq!(error, DeviceError::Transport(missing));
    assert_eq!(dma.live(), 0);
    assert_eq!(ports_set_up(None, 9), 1);
    assert_eq!(ports_set_up(Some(9), 0), 1);
    let most = ports_set_up(Some(u32::MAX), u16::MAX);
    assert_eq!(transmit_queue(most - 1), usize::from(u16::MAX));
}

#[test]
fn a_port_beyond_those_set_up_is_refused() {
    let dma = FakeDma::default();
    let ports = [(0, tty()), (2, named("far"))];
    let host = Host::new(&dma, options(3), &ports);
    let mut console = start(&host.device, &dma, 2).unwrap();
    let events = events(&host, &mut console);
    assert_eq!(events[..2], [Event::PortAdded(0), Event::PortRefused(2)]);
    assert!(host.heard().contains(&(2, PORT_READY, 0)));
    assert!(console.port(2).is_none());
    let missing = DeviceError::NoPort { port: 2, ports: 2 };
    assert_eq!(console.open_port(2), Err(missing));
    // The host goes on to talk of it.
    host.connect(2);
    host.unplug(2);
    let ignored = |event| Event::Ignored(ControlError::Absent { port: 2, event });
    assert_eq!(console.poll_event(), Ok(Some(ignored(OPEN))));
    assert_eq!(console.poll_event(), Ok(Some(ignored(host::REMOVE))));
}

#[test]
fn a_size_that_changes_is_read_untorn() {
    let dma = FakeDma::default();
    let mut options = options(1);
    options.features |= own(F::SIZE);
    legacy(&mut options);
    let mut reads = 0;
    options.config_hook = Some(std::boxed::Box::new(move |config, _| {
        reads += 1;
        // Between the columns and the rows of the first read.
        if reads == 2 {
            config[..4].copy_from_slice(&[132, 0, 43, 0]);
        }
    }));
    let host = Host::new(&dma, options, &[]);
    let console = start(&host.device, &dma, 1).unwrap();
    assert_eq!(console.size(), Ok(Some((132, 43))));
    drop(console);
    host.device.change(|options| {
        options.features = MODERN;
        options.layout = RingLayout::Separate;
    });
    assert_eq!(start(&host.device, &dma, 1).unwrap().size(), Ok(None));
}

#[test]
fn a_byte_gets_out_in_an_emergency() {
    let dma = FakeDma::default();
    let mut options = options(1);
    options.features |= own(F::EMERG_WRITE);
    let host = Host::new(&dma, options, &[]);
    let last = || {
        let mut byte = [0];
        host.device.change(|options| byte[0] = options.config[8]);
        byte[0]
    };
    // 5.3.5: at any time.
    emergency_write(&mut host.device.transport(), b'a').unwrap();
    assert_eq!(last(), b'a');
    let mut console = start(&host.device, &dma, 2).unwrap();
    console.emergency_write(b'b').unwrap();
    assert_eq!(last(), b'b');
    console.close();
    console.emergency_write(b'c').unwrap();
    assert_eq!(last(), b'c');
    drop(console);
    host.device.change(|options| options.features = MODERN);
    let mut console = start(&host.device, &dma, 1).unwrap();
    let error = console.emergency_write(b'd');
    assert_eq!(error, Err(DeviceError::Unsupported));
    assert_eq!(last(), b'c');
    drop(console);
    host.device.change(|options| options.config.truncate(8));
    let error = TransportError::ConfigRange {
        offset: 8,
        len: 4,
        available: 8,
    };
    let written = emergency_write(&mut host.device.transport(), b'e');
    assert_eq!(written, Err(error));
}

#[test]
fn where_memory_runs_out_nothing_is_kept() {
    let mut starts = 0;
    for budget in (0..).step_by(64) {
        let dma = FakeDma::with_budget(budget);
        let host = Host::new(&dma, options(2), &[(0, HostPort::default())]);
        match start(&host.device, &dma, 2) {
            Ok(_) => starts += 1,
            Err(DeviceError::Dma(_) | DeviceError::Setup(_)) => {
                assert_eq!(host.device.status(), DeviceStatus::FAILED);
            }
            Err(error) => panic!("{error}"),
        }
        assert_eq!(dma.live(), 0, "{budget}");
        if starts == 2 {
            return;
        }
    }
}

#[test]
fn another_device_is_left_alone() {
    let dma = FakeDma::default();
    let mut options = options(1);
    options.device_type = 11;
    let host = Host::new(&dma, options, &[]);
    let error = DeviceError::WrongType {
        expected: 3,
        found: 11,
    };
    assert_eq!(start(&host.device, &dma, 1).unwrap_err(), error);
    assert_eq!(host.device.events(), []);
}

#[test]
fn a_driver_may_move_to_another_thread() {
    fn is_send<T: Send>() {}
    is_send::<Console<crate::transport::mmio::Mmio, &FakeDma>>();
}
