//! A network in memory: a wire with two ends, and at the other one a host that
//! leases addresses and has sockets of its own. Time passes when nobody looks.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::*;

/// The host's address.
pub(super) const HOST: Ipv4Address = Ipv4Address::new(10, 0, 2, 2);
/// The address that it leases.
pub(super) const GUEST: Ipv4Address = Ipv4Address::new(10, 0, 2, 15);
/// A server of names.
pub(super) const NAMES: Ipv4Address = Ipv4Address::new(10, 0, 2, 3);

/// What happens to the frames.
#[derive(Default)]
pub(super) struct Cable {
    frames: [VecDeque<Vec<u8>>; 2],
    /// Whether nothing goes through.
    pub(super) cut: bool,
    /// Whether what goes through stays on the way to the guest.
    pub(super) slow: bool,
    /// Whether the link is down.
    pub(super) down: bool,
    /// What the guest's adapter fails of.
    pub(super) fault: Option<String>,
    /// How many frames it can send before the next flush.
    pub(super) room: Option<usize>,
    sent: usize,
    /// How many frames the guest holds.
    pub(super) held: usize,
}

/// An end of a cable.
pub(super) struct End {
    pub(super) cable: Rc<RefCell<Cable>>,
    side: usize,
    pub(super) mac: [u8; 6],
    pub(super) mtu: usize,
}

impl Wire for End {
    type Frame = Vec<u8>;

    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn mtu(&self) -> usize {
        self.mtu
    }

    fn link_up(&mut self) -> Result<bool, String> {
        Ok(!self.cable.borrow().down)
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        let mut cable = self.cable.borrow_mut();
        if self.side == 0 && cable.slow {
            return None;
        }
        let frame = cable.frames[1 - self.side].pop_front()?;
        cable.held += usize::from(self.side == 0);
        Some(frame)
    }

    fn recycle(&mut self, _: Vec<u8>) {
        let mut cable = self.cable.borrow_mut();
        cable.held -= usize::from(self.side == 0);
    }

    fn can_send(&mut self) -> bool {
        let cable = self.cable.borrow();
        self.side == 1 || cable.room.is_none_or(|room| cable.sent < room)
    }

    fn send<R>(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        assert!(self.can_send());
        assert!(len <= self.mtu + doorbell::device::net::ETHERNET_HEADER);
        let mut frame = vec![0; len];
        let result = fill(&mut frame);
        let mut cable = self.cable.borrow_mut();
        cable.sent += usize::from(self.side == 0);
        if !cable.cut && !cable.down {
            cable.frames[self.side].push_back(frame);
        }
        result
    }

    fn flush(&mut self) -> Result<(), String> {
        let mut cable = self.cable.borrow_mut();
        if self.side == 0 {
            cable.sent = 0;
        }
        cable.fault.clone().map_or(Ok(()), Err)
    }
}

/// Both ends of a new cable: the guest's, and the host's.
pub(super) fn cable() -> (End, End) {
    let cable = Rc::<RefCell<Cable>>::default();
    let end = |side| End {
        cable: cable.clone(),
        side,
        mac: [2, 0, 0, 0, 0, side as u8],
        mtu: 1500,
    };
    (end(0), end(1))
}

/// The host at the other end.
pub(super) struct Host {
    port: Port<End>,
    interface: Interface,
    pub(super) sockets: SocketSet<'static>,
    dhcp: SocketHandle,
    /// Whether it leases addresses.
    pub(super) leases: bool,
}

impl Host {
    fn new(end: End) -> Self {
        let mut port = Port::new(end);
        let config = Config::new(EthernetAddress(port.wire.mac).into());
        let mut interface = Interface::new(config, &mut port, instant(Duration::ZERO));
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(HOST.into(), 24)).unwrap();
        });
        let mut sockets = SocketSet::new(Vec::new());
        let mut dhcp = udp_socket();
        dhcp.bind(67).unwrap();
        Self {
            port,
            interface,
            dhcp: sockets.add(dhcp),
            sockets,
            leases: true,
        }
    }

    fn poll(&mut self, now: Duration) {
        self.interface
            .poll(instant(now), &mut self.port, &mut self.sockets);
        let dhcp = self.sockets.get_mut::<udp::Socket<'_>>(self.dhcp);
        while let Ok((bytes, _)) = dhcp.recv() {
            let packet = DhcpPacket::new_checked(bytes).unwrap();
            let asked = DhcpRepr::parse(&packet).unwrap();
            let message_type = match asked.message_type {
                DhcpMessageType::Discover => DhcpMessageType::Offer,
                _ => DhcpMessageType::Ack,
            };
            let answer = DhcpRepr {
                message_type,
                your_ip: GUEST,
                server_ip: HOST,
                server_identifier: Some(HOST),
                router: Some(HOST),
                subnet_mask: Some(Ipv4Address::new(255, 255, 255, 0)),
                dns_servers: Some([NAMES].into_iter().collect()),
                lease_duration: Some(3600),
                parameter_request_list: None,
                requested_ip: None,
                client_identifier: None,
                max_size: None,
                ..asked
            };
            let mut bytes = vec![0; answer.buffer_len()];
            answer
                .emit(&mut DhcpPacket::new_unchecked(&mut bytes[..]))
                .unwrap();
            if self.leases {
                let to = (Ipv4Address::BROADCAST, 68);
                dhcp.send_slice(&bytes, to).unwrap();
            }
        }
    }

    /// Connects to the guest's HTTP server.
    pub(super) fn connect(&mut self, from: u16) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; 4096]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        let context = self.interface.context();
        socket.connect(context, (GUEST, 80), from).unwrap();
        self.sockets.add(socket)
    }

    pub(super) fn tcp(&mut self, socket: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(socket)
    }
}

pub(super) fn udp_socket() -> udp::Socket<'static> {
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 8], vec![0; 8192]);
    udp::Socket::new(buffer(), buffer())
}

/// What the host does in each millisecond.
type Script<'s> = Box<dyn FnMut(&mut Host, Duration) + 's>;

/// The time, in which the host takes part.
pub(super) struct World<'s> {
    time: Duration,
    pub(super) host: Host,
    pub(super) cable: Rc<RefCell<Cable>>,
    pub(super) script: Script<'s>,
    pub(super) said: Vec<String>,
    /// When it is called off.
    pub(super) off_at: Duration,
}

impl Watch for World<'_> {
    fn now(&self) -> Duration {
        self.time
    }

    fn idle(&mut self) {
        self.time += Duration::from_millis(1);
        assert!(self.time < Duration::from_secs(600), "it does not end");
        (self.script)(&mut self.host, self.time);
        self.host.poll(self.time);
    }

    fn called_off(&mut self) -> bool {
        self.time >= self.off_at
    }

    fn say(&mut self, what: fmt::Arguments<'_>) {
        self.said.push(what.to_string());
    }
}

/// A guest's stack, and the world around it.
pub(super) fn world<'s>() -> (Stack<End>, World<'s>) {
    let (guest, host) = cable();
    let cable = guest.cable.clone();
    let stack = Stack::new(guest, 7, Duration::ZERO).unwrap();
    let world = World {
        time: Duration::ZERO,
        host: Host::new(host),
        cable,
        script: Box::new(|_, _| {}),
        said: Vec::new(),
        off_at: Duration::MAX,
    };
    (stack, world)
}
