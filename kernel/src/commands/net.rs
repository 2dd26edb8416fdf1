//! `net`: an address from DHCP, a ping, and this boot's results over HTTP.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use doorbell::device::net::DEVICE_TYPE;
use doorbell::transport::pci_modern::NotifyChoice;
use doorbell::transport::{Interface, NotifyPath, Transport};
use smoltcp::wire::Ipv4Address;

use super::{Command, fail, number};
use crate::clock::Clock;
use crate::drive::{self, Mode, Unit, Way};
use crate::machine::Machine;
use crate::net::adapter::Adapter;
use crate::net::serve::{Ended, Report, serve};
use crate::net::site::{Site, Source};
use crate::net::stack::{Lease, Stack};
use crate::net::wire::Wire;
use crate::net::{Watch, echo, ping};
use crate::platform::dma::KernelDma;
use crate::platform::serial;
use crate::println;
use crate::record::{NetRecord, Place, Record};
use crate::results::{self, Snapshot};

/// HTTP's port, unless asked otherwise.
const HTTP_PORT: u16 = 80;

/// Echo requests to the router, unless asked otherwise.
const PINGS: u16 = 4;

/// How long it serves, unless asked otherwise, in seconds.
const SECONDS: u32 = 60;

/// How often the serial line is looked at: each look leaves the virtual machine.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Joins the network, and serves the results there.
pub(super) const COMMAND: Command = Command {
    name: "net",
    usage: "[device=N] [way=legacy|modern|mmio] [pings=N] [for=SECONDS] [port=N]",
    about: "leases an address, pings the router, serves the results over HTTP",
    parse: |arguments| {
        let mut options = Options {
            device: 0,
            way: None,
            pings: PINGS,
            time: Duration::from_secs(SECONDS.into()),
            port: HTTP_PORT,
        };
        arguments.each(|key, value| {
            match key {
                "device" => options.device = number(value, 0..=1000)? as usize,
                "way" => {
                    let wanted = Wanted::NAMES.iter().find(|(name, _)| value == Some(name));
                    options.way = Some(wanted.ok_or("it wants legacy, modern or mmio")?.1);
                }
                "pings" => options.pings = number(value, 0..=10_000)? as u16,
                "for" => {
                    let seconds = number(value, 0..=1_000_000)?;
                    options.time = Duration::from_secs(seconds.into());
                }
                "port" => options.port = number(value, 1..=u16::MAX.into())? as u16,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(Box::new(move |machine| match run(machine, &options) {
            Ok(failures) => failures,
            Err(error) => {
                fail("net", error);
                1
            }
        }))
    },
};

struct Options {
    device: usize,
    way: Option<Wanted>,
    pings: u16,
    /// How long it serves; not at all, if that is 0.
    time: Duration,
    port: u16,
}

/// An interface that is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Legacy,
    Modern,
    Mmio,
}

impl Wanted {
    const NAMES: [(&str, Self); 3] = [
        ("legacy", Self::Legacy),
        ("modern", Self::Modern),
        ("mmio", Self::Mmio),
    ];

    fn of(way: Way) -> Self {
        match way {
            Way::Legacy => Self::Legacy,
            Way::Modern(_) => Self::Modern,
            Way::Mmio => Self::Mmio,
        }
    }
}

/// The device is looked at again and again: there is always something else to do.
const MODE: Mode = Mode::Polling;

/// The result is how many things failed that did not end it.
fn run(machine: &Machine, options: &Options) -> Result<u32, String> {
    let unit = find(machine, options.device)?;
    let named = |error: &dyn fmt::Display| format!("{} at {}: {error}", unit.name(), unit.at());
    let way = choose(&drive::ways(machine, &unit), options.way);
    let way = way.map_err(|error| named(&error))?;
    let opened = drive::open(machine, &unit, way, MODE);
    let mut opened = opened.map_err(|error| named(&error))?;
    let path = opened.path();
    let setup = opened.listener.setup(drive::FEATURES);
    let wait = &mut opened.listener.bring_up();
    let mut adapter = Adapter::new(&mut *opened.transport, &setup, KernelDma, wait)
        .map_err(|error| named(&error))?;
    introduce(&unit, path, &mut adapter);
    let (mac, mtu) = (adapter.mac(), adapter.mtu());

    let mut watch = SerialWatch::new(machine.clock);
    // Whoever sees one boot's packets does not know the next one's.
    let seed = machine.clock.now().as_nanos() as u64;
    let mut stack = Stack::new(adapter, seed, watch.now())?;
    let lease = stack.obtain_lease(&mut watch)?;
    say_lease(&lease);
    Record::Net(record(&unit, path, mac, mtu, &lease)).emit();

    let mut failures = 0;
    if options.pings > 0 {
        // A network that leads nowhere has no router.
        let target = lease.router.unwrap_or(lease.server);
        let pings = ping::ping(&mut stack, &mut watch, target, options.pings)?;
        failures += report_pings(&machine.clock, target, &pings);
    }
    if !options.time.is_zero() {
        failures += serve_results(&mut stack, &mut watch, &lease, options)?;
    }
    Ok(failures)
}

/// The network device of that number.
fn find(machine: &Machine, number: usize) -> Result<Unit, String> {
    let (units, _) = drive::units(machine);
    let units = units.into_iter();
    let mut units: Vec<_> = units
        .filter(|unit| unit.device_type == DEVICE_TYPE)
        .collect();
    if number < units.len() {
        return Ok(units.swap_remove(number));
    }
    if units.is_empty() {
        return Err("there is no virtio-net device".to_string());
    }
    let list = units.iter().enumerate();
    let list = list.map(|(number, unit)| format!("{number} is at {}", unit.at()));
    Err(format!(
        "there is no virtio-net device {number}: {}",
        list.collect::<Vec<_>>().join(", ")
    ))
}

/// The way to drive a device: of those that are wanted the first one that works,
/// and the legacy interface only if there is no other.
fn choose(ways: &[(Way, Result<(), String>)], wanted: Option<Wanted>) -> Result<Way, String> {
    let is_wanted = |way: Way| wanted.is_none_or(|wanted| Wanted::of(way) == wanted);
    let mut of_kind: Vec<_> = ways.iter().filter(|(way, _)| is_wanted(*way)).collect();
    of_kind.sort_by_key(|(way, _)| *way == Way::Legacy);
    match of_kind.iter().find(|(_, usable)| usable.is_ok()) {
        // Of several doorbells the one that the device prefers.
        Some((Way::Modern(_), _)) => Ok(Way::Modern(NotifyChoice::Preferred)),
        Some((way, _)) => Ok(*way),
        None => Err(match of_kind.first() {
            Some((_, Err(reason))) => reason.clone(),
            _ => "it has no such interface".to_string(),
        }),
    }
}

/// Shows the device.
fn introduce<T: Transport>(
    unit: &Unit,
    path: (Interface, NotifyPath),
    adapter: &mut Adapter<T, KernelDma>,
) {
    let (mac, mtu) = (mac_text(adapter.mac()), adapter.mtu());
    let about = format!("MAC {mac}, MTU {mtu}");
    println!(
        "{} at {} over {}, {}: {about}",
        unit.name(),
        unit.at(),
        path.0,
        path.1
    );
    Record::Device(drive::device_record(unit, path, MODE, adapter.net(), about)).emit();
}

fn say_lease(lease: &Lease) {
    let router = lease.router.map_or("none".to_string(), |it| it.to_string());
    let dns = match lease.dns[..] {
        [] => "none".to_string(),
        _ => texts(&lease.dns).join(", "),
    };
    println!(
        "Address {}, router {router}, DNS {dns}; leased by {}",
        lease.address, lease.server
    );
}

/// A MAC address as QEMU has it.
fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn texts(addresses: &[Ipv4Address]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

fn record(
    unit: &Unit,
    path: (Interface, NotifyPath),
    mac: [u8; 6],
    mtu: usize,
    lease: &Lease,
) -> NetRecord {
    NetRecord {
        device: unit.name(),
        place: Place::clone(&unit.place),
        transport: path.0.to_string(),
        notify: path.1.to_string(),
        mac: mac_text(mac),
        mtu,
        address: lease.address.to_string(),
        router: lease.router.map(|router| router.to_string()),
        dns: texts(&lease.dns),
        server: lease.server.to_string(),
    }
}

/// The result is 1 if nobody answered.
fn report_pings(clock: &Clock, target: Ipv4Address, pings: &ping::Pings) -> u32 {
    let known = clock.frequency.is_some() && pings.received > 0;
    let us = |time: Duration| known.then_some(time.as_nanos() as f64 / 1000.0);
    let (min, max) = (us(pings.min), us(pings.max));
    let mean = pings.mean().and_then(us);
    let times = match (min, mean, max) {
        (Some(min), Some(mean), Some(max)) => {
            format!(", after {min:.1} us at least, {mean:.1} us in the mean, {max:.1} us at most")
        }
        _ => String::new(),
    };
    let (sent, received) = (pings.sent, pings.received);
    println!("Ping of {target}: {received} of {sent} answered{times}");
    Record::Ping {
        address: target.to_string(),
        sent,
        received,
        min_us: min,
        mean_us: mean,
        max_us: max,
    }
    .emit();
    if received > 0 || sent == 0 {
        return 0;
    }
    fail("ping", format!("{target} did not answer"));
    1
}

fn serve_results<T: Transport>(
    stack: &mut Stack<Adapter<T, KernelDma>>,
    watch: &mut SerialWatch,
    lease: &Lease,
    options: &Options,
) -> Result<u32, String> {
    let (address, port) = (lease.address.address(), options.port);
    println!(
        "Serving http://{address}:{port}/ and UDP echo at port {}: for {} s, until a key is pressed, or until POST /quit.",
        echo::PORT,
        options.time.as_secs()
    );
    Record::Serving {
        address: address.to_string(),
        http: port,
        echo: echo::PORT,
    }
    .emit();
    let mut site = Site::new(Kept);
    let report = serve(stack, watch, &mut site, port, options.time)?;
    say_report(&report, stack.wire().oversized());
    match report.ended {
        Ok(_) => Ok(0),
        Err(error) => Err(error),
    }
}

fn say_report(report: &Report, oversized: u64) {
    let ended = match report.ended {
        Ok(Ended::Time) => "time",
        Ok(Ended::CalledOff) => "byte",
        Ok(Ended::Quit) => "quit",
        Err(_) => "error",
    };
    let tally = report.tally;
    println!(
        "Served {} requests ({} refused) with {} bytes over {} connections ({} cut off), and {} echoes; ended by {ended}.",
        tally.requests, tally.refused, tally.bytes, tally.connections, tally.aborted, report.echoed
    );
    Record::Served {
        ended,
        seconds: report.time.as_millis() as f64 / 1000.0,
        connections: tally.connections,
        requests: tally.requests,
        ok: tally.ok,
        refused: tally.refused,
        aborted: tally.aborted,
        bytes: tally.bytes,
        echoed: report.echoed,
        unechoed: report.unechoed,
        oversized,
    }
    .emit();
}

/// The results of this boot.
struct Kept;

impl Source for Kept {
    fn count(&self) -> u64 {
        results::count()
    }

    fn snapshot(&self) -> Snapshot {
        results::snapshot()
    }
}

/// The kernel's clock, and a person at the serial line.
struct SerialWatch {
    clock: Clock,
    /// When the line was looked at.
    looked: Duration,
    called_off: bool,
}

impl SerialWatch {
    fn new(clock: Clock) -> Self {
        // A line feed here ends the line that the shell has read.
        let byte = serial::read_byte();
        Self {
            clock,
            looked: clock.now(),
            called_off: byte.is_some_and(|byte| byte != b'\n'),
        }
    }
}

impl Watch for SerialWatch {
    fn now(&self) -> Duration {
        self.clock.now()
    }

    fn idle(&mut self) {
        core::hint::spin_loop();
    }

    fn called_off(&mut self) -> bool {
        let now = self.now();
        if !self.called_off && now.saturating_sub(self.looked) >= LOOK_EVERY {
            self.looked = now;
            self.called_off = serial::read_byte().is_some();
        }
        self.called_off
    }

    fn say(&mut self, what: fmt::Arguments<'_>) {
        println!("{what}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(ways: &[(Way, Result<(), String>)], wanted: Option<Wanted>) -> Result<Way, String> {
        choose(ways, wanted)
    }

    #[test]
    fn the_caller_chooses_the_interface() {
        let modern = Way::Modern(NotifyChoice::Preferred);
        let all = [
            (Way::Legacy, Ok(())),
            (Way::Modern(NotifyChoice::Memory), Ok(())),
        ];
        assert_eq!(way(&all, None), Ok(modern));
        assert_eq!(way(&all, Some(Wanted::Legacy)), Ok(Way::Legacy));
        assert_eq!(way(&all, Some(Wanted::Modern)), Ok(modern));
        let error = way(&all, Some(Wanted::Mmio)).unwrap_err();
        assert_eq!(error, "it has no such interface");
        assert_eq!(way(&all[..1], None), Ok(Way::Legacy));
        assert_eq!(way(&[(Way::Mmio, Ok(()))], None), Ok(Way::Mmio));
    }

    #[test]
    fn an_interface_that_does_not_work_says_why() {
        let ways = [
            (Way::Legacy, Err("no address".to_string())),
            (Way::Modern(NotifyChoice::Memory), Ok(())),
        ];
        assert_eq!(
            way(&ways, Some(Wanted::Legacy)),
            Err("no address".to_string())
        );
        assert!(way(&ways, None).is_ok());
        assert_eq!(way(&ways[..1], None), Err("no address".to_string()));
    }
}
