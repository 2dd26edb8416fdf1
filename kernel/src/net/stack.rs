//! smoltcp on a [`Wire`]: the link, the lease, and the sockets.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use smoltcp::iface::{Config, Interface, PollIngressSingleResult, SocketHandle, SocketSet};
use smoltcp::socket::dhcpv4;
use smoltcp::time::{Duration as Span, Instant};
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Address, Ipv4Cidr};

use super::Watch;
use super::wire::{Port, Wire};

/// Frames that are taken in one turn.
const BURST: usize = 64;

/// How often the link is looked at.
const LINK_EVERY: Duration = Duration::from_millis(100);

/// How long a link may be down before an address is given up.
const LINK_PATIENCE: Duration = Duration::from_secs(30);

/// How long a DHCP server gets to lease an address.
const LEASE_PATIENCE: Duration = Duration::from_secs(15);

/// After so long a DHCP server is asked again.
const ASK_AGAIN: Span = Span::from_secs(2);

/// What each network has to carry in one frame, in bytes (RFC 791, 3.2, for what
/// a host has to take).
const MIN_MTU: usize = 576;

/// An address and what came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address, and how many bits of it are the network's.
    pub address: Ipv4Cidr,
    /// The way out.
    pub router: Option<Ipv4Address>,
    /// Who knows names.
    pub dns: Vec<Ipv4Address>,
    /// Who leased it.
    pub server: Ipv4Address,
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The link came up, or went down.
    Link {
        /// Whether it is up.
        up: bool,
    },
    /// There is an address.
    Leased(Lease),
    /// There is none any more.
    LeaseLost,
}

/// An interface with an address, and its sockets.
pub struct Stack<W: Wire> {
    port: Port<W>,
    interface: Interface,
    /// The sockets. Whoever adds one takes it away too.
    pub sockets: SocketSet<'static>,
    dhcp: SocketHandle,
    link_up: bool,
    /// When the link is looked at next.
    link_due: Duration,
    leased: bool,
}

impl<W: Wire> Stack<W> {
    /// Begins to ask for an address. `seed` should not be the same each time.
    ///
    /// # Errors
    ///
    /// The adapter's address, or its MTU, if they cannot be.
    pub fn new(wire: W, seed: u64, now: Duration) -> Result<Self, String> {
        let mac = EthernetAddress(wire.mac());
        if !mac.is_unicast() {
            return Err(format!("the address {mac} is not one station's"));
        }
        if wire.mtu() < MIN_MTU {
            let mtu = wire.mtu();
            return Err(format!(
                "an MTU of {mtu} bytes: IPv4 wants {MIN_MTU} at least"
            ));
        }
        let mut port = Port::new(wire);
        let mut config = Config::new(mac.into());
        config.random_seed = seed;
        let interface = Interface::new(config, &mut port, instant(now));
        let mut sockets = SocketSet::new(Vec::new());
        let mut dhcp = dhcpv4::Socket::new();
        let mut retry = dhcp.get_retry_config();
        retry.discover_timeout = ASK_AGAIN;
        retry.initial_request_timeout = ASK_AGAIN;
        dhcp.set_retry_config(retry);
        let dhcp = sockets.add(dhcp);
        Ok(Self {
            port,
            interface,
            sockets,
            dhcp,
            // Until it is looked at, at once.
            link_up: true,
            link_due: now,
            leased: false,
        })
    }

    /// The adapter.
    pub fn wire(&self) -> &W {
        &self.port.wire
    }

    /// Takes what has arrived, sends what is to be sent.
    ///
    /// # Errors
    ///
    /// The adapter's.
    pub fn poll(&mut self, now: Duration) -> Result<Option<Event>, String> {
        if now >= self.link_due {
            self.link_due = now + LINK_EVERY;
            let up = self.port.wire.link_up()?;
            if up != self.link_up {
                self.link_up = up;
                if up && !self.leased {
                    // What was asked while it was down went nowhere.
                    self.sockets
                        .get_mut::<dhcpv4::Socket<'_>>(self.dhcp)
                        .reset();
                }
                return Ok(Some(Event::Link { up }));
            }
        }
        let at = instant(now);
        for _ in 0..BURST {
            let port = &mut self.port;
            let taken = self
                .interface
                .poll_ingress_single(at, port, &mut self.sockets);
            if let PollIngressSingleResult::None = taken {
                break;
            }
        }
        self.interface.poll_maintenance(at);
        self.interface
            .poll_egress(at, &mut self.port, &mut self.sockets);
        self.port.flush()?;
        Ok(self.lease_event())
    }

    fn lease_event(&mut self) -> Option<Event> {
        let dhcp = self.sockets.get_mut::<dhcpv4::Socket<'_>>(self.dhcp);
        let lease = match dhcp.poll()? {
            dhcpv4::Event::Configured(config) => Some(Lease {
                address: config.address,
                router: config.router,
                dns: config.dns_servers.to_vec(),
                server: config.server.identifier,
            }),
            dhcpv4::Event::Deconfigured => None,
        };
        self.interface.update_ip_addrs(|addresses| {
            addresses.clear();
            if let Some(lease) = &lease {
                // An interface has room for at least one.
                let _ = addresses.push(IpCidr::Ipv4(lease.address));
            }
        });
        let routes = self.interface.routes_mut();
        routes.remove_default_ipv4_route();
        if let Some(router) = lease.as_ref().and_then(|lease| lease.router) {
            // As for addresses.
            let _ = routes.add_default_ipv4_route(router);
        }
        let had_one = core::mem::replace(&mut self.leased, lease.is_some());
        match lease {
            Some(lease) => Some(Event::Leased(lease)),
            None => had_one.then_some(Event::LeaseLost),
        }
    }

    /// Waits for an address.
    ///
    /// # Errors
    ///
    /// Why there is none: no link, no answer, called off, or the adapter's.
    pub fn obtain_lease(&mut self, watch: &mut impl Watch) -> Result<Lease, String> {
        let begin = watch.now();
        let mut asked = begin;
        loop {
            let now = watch.now();
            match self.poll(now)? {
                Some(Event::Leased(lease)) => return Ok(lease),
                Some(Event::Link { up: true }) => {
                    watch.say(format_args!("The link is up."));
                    asked = now;
                }
                Some(Event::Link { up: false }) => {
                    watch.say(format_args!("The link is down: waiting for it."));
                }
                Some(Event::LeaseLost) | None => {}
            }
            if self.link_up && now - asked >= LEASE_PATIENCE {
                let patience = LEASE_PATIENCE.as_secs();
                return Err(format!(
                    "no DHCP server leased an address within {patience} s"
                ));
            }
            if !self.link_up && now - begin >= LINK_PATIENCE {
                let patience = LINK_PATIENCE.as_secs();
                return Err(format!("the link is down, still after {patience} s"));
            }
            if watch.called_off() {
                return Err("called off before there was an address".to_string());
            }
            watch.idle();
        }
    }
}

/// The time as smoltcp has it.
pub(super) fn instant(now: Duration) -> Instant {
    Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}
