//! What is printed: a table for people, and records for programs, in the format of the
//! unikernel's (kernel/src/record.rs): one JSON object a line after `@`.

use core::fmt::{self, Display, Write};

use doorbell::device::DeviceError;
use doorbell::dma::DmaError;
use doorbell::mmio::MapError;
use doorbell::pci::{AddressRange, CapabilityError, EcamError, StorageTooSmall};
use doorbell::transport::mmio::ProbeError;
use doorbell::transport::pci::PciError;

use crate::clock::{BATCH, Timer};
use crate::memory::Arena;
use crate::path::{Found, Path, Way};
use crate::stats::Samples;
use crate::tree::Tree;
use crate::{print, println};

/// Why the run did not come to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Error {
    Tree(&'static str),
    Memory(AddressRange),
    TooMany(usize),
    NoStore,
    Unanswered,
    NothingFound,
    Storage(StorageTooSmall),
    Ecam(EcamError),
    Map(MapError),
    Capability(CapabilityError),
    Pci(PciError),
    Probe(ProbeError),
    Device(DeviceError),
    Dma(DmaError),
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tree(what) => write!(f, "the device tree does not have {what}"),
            Self::Memory(ram) => write!(f, "no memory behind the image in {ram}"),
            Self::TooMany(most) => write!(f, "there are more than {most} paths"),
            Self::NoStore => f.write_str("a doorbell is no store, and this has no IO ports"),
            Self::Unanswered => f.write_str("a request that was rung for did not come back"),
            Self::NothingFound => f.write_str("no entropy device was found"),
            Self::Storage(error) => error.fmt(f),
            Self::Ecam(error) => error.fmt(f),
            Self::Map(error) => error.fmt(f),
            Self::Capability(error) => error.fmt(f),
            Self::Pci(error) => error.fmt(f),
            Self::Probe(error) => error.fmt(f),
            Self::Device(error) => error.fmt(f),
            Self::Dma(error) => error.fmt(f),
        }
    }
}

macro_rules! from {
    ($($error:ident: $variant:ident),*) => {
        $(impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        })*
    };
}

from!(
    StorageTooSmall: Storage, EcamError: Ecam, MapError: Map, CapabilityError: Capability,
    PciError: Pci, ProbeError: Probe, DeviceError: Device
);

/// A value as a JSON string.
struct Text<T>(T);

impl<T: Display> Display for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Escaped<'a, 'f>(&'a mut fmt::Formatter<'f>);
        impl Write for Escaped<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                text.chars().try_for_each(|c| match c {
                    '"' | '\\' => write!(self.0, "\\{c}"),
                    c if c < ' ' => write!(self.0, "\\u{:04x}", c as u32),
                    c => self.0.write_char(c),
                })
            }
        }
        f.write_char('"')?;
        write!(Escaped(f), "{}", self.0)?;
        f.write_char('"')
    }
}

/// Hundredths as a number with two decimals.
struct Hundredths(i64);

impl Display for Hundredths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, part) = (self.0.unsigned_abs() / 100, self.0.unsigned_abs() % 100);
        write!(f, "{sign}{whole}.{part:02}")
    }
}

/// What boots.
pub(crate) fn boot(tree: &Tree<'_>, arena: &Arena) -> Result<(), Error> {
    let kib = tree.memory()?.size() / 1024;
    let (version, model) = (env!("CARGO_PKG_VERSION"), tree.model());
    println!(
        "doorbell-virt {version} on {model}: {} KiB free",
        arena.size() / 1024
    );
    println!(
        "@{{\"v\":1,\"kind\":\"boot\",\"name\":\"doorbell-virt\",\"version\":{},\
         \"build\":\"riscv64\",\"entry\":\"{model}\",\"cmdline\":\"\",\"memory_kib\":{kib}}}",
        Text(version)
    );
    Ok(())
}

pub(crate) fn error(error: &Error) {
    println!("error: {error}");
    let message = Text(error);
    println!("@{{\"v\":1,\"kind\":\"error\",\"what\":\"run\",\"message\":{message}}}");
    println!("@{{\"v\":1,\"kind\":\"end\",\"verdict\":\"failure\",\"errors\":1}}");
}

/// The path's device, as the fields of a record.
struct Place<'a>(&'a Way);

impl Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = match self.0 {
            Way::Legacy(..) | Way::Modern(..) => "bdf",
            Way::Slot { .. } => "mmio",
        };
        write!(f, "\"{key}\":\"{}\"", self.0)
    }
}

/// One distribution, net of what timing nothing costs, in hundredths of a cycle.
struct Figures {
    overhead: i64,
    min: i64,
    p50: i64,
}

/// A series' record.
fn summary(
    case: &str,
    path: &Path,
    found: &Found,
    samples: &Samples,
    (batch, delivered): (u32, u64),
    timer: &Timer,
) -> Figures {
    let each = |cycles: u64| (cycles * 100 / u64::from(batch)) as i64;
    let sorted = samples.sorted();
    let overhead = each(timer.overhead(batch));
    let at = |thousandths| each(sorted.permille(thousandths)) - overhead;
    let Found {
        interface, notify, ..
    } = found;
    print!(
        "@{{\"v\":1,\"kind\":\"summary\",\"case\":\"{case}\",\"device\":\"virtio-rng\",{},\
         \"transport\":\"{interface}\",\"notify\":\"{notify}\",\"n\":{},\"delivered\":{delivered},\
         \"batch\":{batch},\"samples\":{},\"overhead\":{}",
        Place(&path.way),
        samples.len() as u64 * u64::from(batch),
        samples.len(),
        Hundredths(overhead),
    );
    for (name, thousandths) in [
        ("min", 0),
        ("p50", 500),
        ("p90", 900),
        ("p99", 990),
        ("p999", 999),
        ("max", 1000),
    ] {
        print!(",\"{name}\":{}", Hundredths(at(thousandths)));
    }
    let mean = Hundredths(each(sorted.mean()) - overhead);
    println!(",\"mean\":{mean},\"unit\":\"cycles\"}}");
    Figures {
        overhead,
        min: at(0),
        p50: at(500),
    }
}

/// All that was measured: the records, the table, and the verdict.
pub(crate) fn table<'p>(
    paths: impl Iterator<Item = &'p Path> + Clone,
    timer: &Timer,
) -> Result<(), Error> {
    let found = paths.filter_map(|path| Some((path, path.found.as_ref()?)));
    if found.clone().next().is_none() {
        return Err(Error::NothingFound);
    }
    for (path, found) in found.clone() {
        let Found {
            interface, notify, ..
        } = found;
        print!(
            "@{{\"v\":1,\"kind\":\"rang\",{},\"device\":\"virtio-rng\",\"doorbells\":{},\
             \"transport\":\"{interface}\",\"notify\":\"{notify}\",\"address\":\"{:#x}\",\
             \"bits\":{}",
            Place(&path.way),
            path.rang,
            found.address,
            found.bits
        );
        if let Some(port) = found.port {
            print!(",\"port\":\"{port:#x}\"");
        }
        println!("}}");
    }
    let mut rows = [const { None }; crate::MOST];
    for (row, (path, found)) in rows.iter_mut().zip(found) {
        let (idle, requests) = path.delivered;
        let series = (BATCH, idle);
        let idle = summary("doorbell-idle", path, found, &path.idle, series, timer);
        let series = (1, requests);
        let trip = summary("round-trip", path, found, &path.round_trip, series, timer);
        *row = Some((path, found, idle, trip));
    }
    println!("\nCycles by rdcycle, net of the empty loop; under TCG the host's, not hardware's.");
    println!(
        "{:<11} {:<8} {:<14} {:<22} {:>9} {:>9} {:>10} {:>10} {:>9}",
        "interface",
        "notify",
        "device",
        "store",
        "idle min",
        "median",
        "trip min",
        "median",
        "empty"
    );
    for (path, found, idle, trip) in rows.into_iter().flatten() {
        let place = Padded(format_args!("{}", path.way), 14);
        let store = Padded(format_args!("{} bits {:#x}", found.bits, found.address), 22);
        print!(
            "{:<11} {:<8} {place} {store} ",
            found.interface, found.notify
        );
        for (value, width) in [
            (idle.min, 9),
            (idle.p50, 9),
            (trip.min, 10),
            (trip.p50, 10),
            (idle.overhead, 9),
        ] {
            print!("{:>width$} ", value / 100);
        }
        println!();
    }
    println!("@{{\"v\":1,\"kind\":\"end\",\"verdict\":\"success\",\"errors\":0}}");
    Ok(())
}

/// Text filled up with spaces: what is formatted of parts knows no width.
struct Padded<'a>(fmt::Arguments<'a>, usize);

impl Display for Padded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Counted<'a, 'f>(&'a mut fmt::Formatter<'f>, usize);
        impl Write for Counted<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                self.1 += text.len();
                self.0.write_str(text)
            }
        }
        let mut counted = Counted(f, 0);
        counted.write_fmt(self.0)?;
        let width = self.1.saturating_sub(counted.1);
        write!(f, "{:width$}", "")
    }
}
