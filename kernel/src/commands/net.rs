//! `net`: an address from DHCP, a ping, and this boot's results over HTTP.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use doorbell::device::net::DEVICE_TYPE;
use doorbell::transport::{Interface, NotifyPath, Transport};
use smoltcp::wire::Ipv4Address;

use super::pick::{self, Wanted};
use super::watch::KeyWatch;
use super::{Command, fail, number};
use crate::clock::Clock;
use crate::drive::{self, Mode, Unit};
use crate::machine::Machine;
use crate::net::adapter::Adapter;
use crate::net::serve::{Ended, Report, serve};
use crate::net::site::{Site, Source};
use crate::net::stack::{Lease, Stack};
use crate::net::wire::Wire;
use crate::net::{Watch as _, echo, ping};
use crate::platform::dma::KernelDma;
use crate::println;
use crate::record::{NetRecord, Place, Record};
use crate::results::{self, Snapshot};

/// HTTP's port, unless asked otherwise.
const HTTP_PORT: u16 = 80;

/// Echo requests to the router, unless asked otherwise.
const PINGS: u16 = 4;

/// How long it serves, unless asked otherwise, in seconds.
const SECONDS: u32 = 60;

/// Joins the network, and serves the results there.
pub(super) const COMMAND: Command = Command {
    name: "net",
    usage: "[device=N] [way=legacy|modern|mmio] [pings=N] [for=SECONDS] [port=N]",
    about: "leases an address, pings the router, serves the results over HTTP",
    defaults: &[
        ("pings", PINGS as u32),
        ("for", SECONDS),
        ("port", HTTP_PORT as u32),
    ],
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
                "way" => options.way = Some(Wanted::parse(value)?),
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

/// The device is looked at again and again: there is always something else to do.
const MODE: Mode = Mode::Polling;

/// The result is how many things failed that did not end it.
fn run(machine: &Machine, options: &Options) -> Result<u32, String> {
    let unit = pick::find(machine, DEVICE_TYPE, options.device)?;
    let named = |error: &dyn fmt::Display| format!("{} at {}: {error}", unit.name(), unit.at());
    let way = pick::choose(&drive::ways(machine, &unit), options.way);
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

    let mut watch = KeyWatch::new(machine.clock);
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
    watch: &mut KeyWatch,
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
