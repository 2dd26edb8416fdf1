//! Records: what a run found and measured, one JSON object a line after `@`, for
//! programs to read. What is for people is printed beside them.
//!
//! A record has `"v":1` and a `"kind"`. Fields are added without a new version;
//! one that changes its meaning or goes makes version 2.

mod probe;

pub use probe::{NotifyRecord, ProbeRecord, TriedRecord};

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Serialize;

use crate::load::Spread;
use crate::platform::serial;
use crate::results;

/// The version of all records.
const VERSION: u8 = 1;

/// One record, by kind.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
#[expect(missing_docs, reason = "the fields' names are the format's")]
pub enum Record<'a> {
    /// The first: what boots.
    Boot {
        name: &'a str,
        version: &'a str,
        build: &'a str,
        entry: &'a str,
        cmdline: &'a str,
        memory_kib: u64,
    },
    /// The machine's clock and CPU. It takes a moment to find out, so it is not
    /// part of the first record.
    World {
        cpu: Option<&'a str>,
        /// CPUID's hypervisor signature, `TCGTCGTCGTCG` or `KVMKVMKVM`.
        hypervisor: Option<&'a str>,
        tsc_hz: Option<u64>,
        tsc_source: Option<String>,
        /// The step in which the TSC moves, in cycles.
        tsc_step: u64,
        /// What reading the TSC twice costs, in cycles.
        tsc_read: u64,
        /// What an instruction that does nothing costs, in cycles.
        nop: u64,
        /// What is to be said about figures from here, if they are not
        /// hardware's.
        caveat: Option<&'a str>,
    },
    /// A guest command begins.
    Command { command: &'a str },
    /// A PCI function.
    Pci(PciRecord),
    /// A device that came up.
    Device(DeviceRecord),
    /// What came of a device in the hands of one guest's policy.
    Probe(ProbeRecord),
    /// A distribution of costs.
    Summary(SummaryRecord),
    /// A driver under load.
    Load(LoadRecord),
    /// The parts of a request, in cycles; `kick` is for all that are in flight.
    Parts {
        workload: String,
        driver: &'static str,
        depth: usize,
        submit: u64,
        kick: u64,
        reap: u64,
    },
    /// How two drivers compare that took turns.
    Ratio(RatioRecord),
    /// What was not done, and why.
    Skip {
        case: &'a str,
        #[serde(flatten)]
        place: Place,
        reason: String,
    },
    /// What went wrong.
    Error { what: String, message: String },
    /// The guest waits for the host to look at it, and goes on at a byte from
    /// the serial line.
    Checkpoint { name: &'a str },
    /// How often the guest rang a device's doorbells since it was reset.
    Rang {
        #[serde(flatten)]
        place: Place,
        device: String,
        doorbells: u64,
    },
    /// What the guest wrote to a disk: word i of sector n is
    /// (n * 64 + i) * 0x9E3779B97F4A7C15 + seed.
    Wrote {
        #[serde(flatten)]
        place: Place,
        device: String,
        sector: u64,
        count: u64,
        seed: u64,
    },
    /// An address that a network device was leased by DHCP.
    Net(NetRecord),
    /// Echo requests to a host, and its answers. The times, in microseconds, are
    /// missing where none came, or where the clock's frequency is unknown.
    Ping {
        address: String,
        sent: u32,
        received: u32,
        min_us: Option<f64>,
        mean_us: Option<f64>,
        max_us: Option<f64>,
    },
    /// The guest serves at these ports from here on.
    Serving {
        address: String,
        /// TCP.
        http: u16,
        /// UDP.
        echo: u16,
    },
    /// What it has served.
    Served {
        /// Why it ended: `time`, `byte` (from the serial line), `quit` (a request)
        /// or `error`.
        ended: &'a str,
        seconds: f64,
        connections: u64,
        requests: u64,
        /// Requests that got what they asked for; all others were refused.
        ok: u64,
        refused: u64,
        /// Connections that were cut off before the end of the response.
        aborted: u64,
        /// Bytes of HTTP responses.
        bytes: u64,
        /// Datagrams that went back.
        echoed: u64,
        /// Datagrams that did not.
        unechoed: u64,
        /// Frames that were dropped, since they were larger than the MTU.
        oversized: u64,
    },
    /// How a balloon stands, whenever that has changed. Pages have 4096 bytes.
    Balloon {
        #[serde(flatten)]
        place: Place,
        device: String,
        /// Pages that the host wants in the balloon.
        target: u32,
        /// Pages that are there.
        actual: u32,
        /// Pages that came out since the guest's memory had run out.
        relieved: u64,
        /// Bytes that are free in the guest.
        free: u64,
    },
    /// Which sectors of a disk the guest made zeros of.
    Zeroed {
        #[serde(flatten)]
        place: Place,
        device: String,
        sector: u64,
        count: u64,
    },
    /// The guest wants something done or looked at, and waits for one line on the
    /// serial line: `ok` or `no`, a space, and an answer or the reason.
    Ask {
        action: &'a str,
        #[serde(flatten)]
        place: Place,
        #[serde(flatten)]
        arguments: BTreeMap<&'a str, Argument<'a>>,
    },
    /// The last: the verdict.
    End { verdict: &'a str, errors: u32 },
}

/// What an action needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "JSON's own kinds of value")]
pub enum Argument<'a> {
    Number(u64),
    Flag(bool),
    Text(&'a str),
}

impl From<u64> for Argument<'_> {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Argument<'_> {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl<'a> From<&'a str> for Argument<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

/// Where a device is: on PCI, or at a virtio-mmio address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Segment, bus, device and function: `0000:00:01.0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bdf: Option<String>,
    /// The address of its registers: `0xfeb00e00`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mmio: Option<String>,
}

impl Place {
    /// The one address that it has, for people; empty for what has none.
    pub fn at(&self) -> &str {
        let place = self.bdf.as_deref().or(self.mmio.as_deref());
        place.unwrap_or_default()
    }
}

/// A PCI function.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the fields' names are the format's")]
pub struct PciRecord {
    pub bdf: String,
    pub vendor: String,
    pub device: String,
    pub subsystem_vendor: String,
    pub subsystem: String,
    pub class: String,
    pub revision: u8,
    pub header: String,
    /// What PCI Express calls the function, if it is one of its.
    pub port: Option<String>,
    /// `ecam` or `cam`.
    pub access: &'static str,
    /// The command register.
    pub command: u16,
    pub bars: Vec<BarRecord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bus: Option<BusRecord>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<WindowRecord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interrupt: Option<InterruptRecord>,
    /// IDs of the capabilities: `09`, and in the extended space `0x0010`.
    pub capabilities: Vec<String>,
}

/// A BAR, with its address or the reason why it has none.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the fields' names are the format's")]
pub struct BarRecord {
    pub bar: u8,
    /// `io`, `mem32`, `mem64` or `reserved`.
    pub kind: String,
    pub prefetchable: bool,
    pub size: u64,
    pub address: Option<String>,
    pub reason: Option<String>,
}

/// A bridge's bus numbers.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the fields' names are the format's")]
pub struct BusRecord {
    pub primary: u8,
    pub secondary: u8,
    pub subordinate: u8,
    /// Why the bridge leads to no bus, if it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A bridge's window, both ends inclusive.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the fields' names are the format's")]
pub struct WindowRecord {
    /// `io`, `mem` or `pref`.
    pub kind: String,
    pub base: String,
    pub limit: String,
}

/// A function's interrupt pin, `A` to `D`, and where it leads.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the fields' names are the format's")]
pub struct InterruptRecord {
    pub pin: char,
    /// The register Interrupt Line.
    pub line: u8,
    /// The global system interrupt, if it is known.
    pub gsi: Option<u32>,
    /// Who says so.
    pub by: Option<String>,
}

/// A device that came up, over one interface and with one way to ring.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the fields' names are the format's")]
pub struct DeviceRecord {
    pub device: String,
    #[serde(flatten)]
    pub place: Place,
    pub transport: String,
    pub notify: String,
    /// How the kernel heard from it: `polling`, `line`, `msix-shared` or
    /// `msix-per-queue`.
    pub interrupts: &'static str,
    pub features: Vec<String>,
    pub queues: Vec<QueueRecord>,
    /// What the device says of itself, in words.
    pub about: String,
}

/// A network device's address, and what came with it.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the fields' names are the format's")]
pub struct NetRecord {
    pub device: String,
    #[serde(flatten)]
    pub place: Place,
    pub transport: String,
    pub notify: String,
    pub mac: String,
    /// The most bytes behind a frame's Ethernet header.
    pub mtu: usize,
    /// With the length of the network's prefix: `10.0.2.15/24`.
    pub address: String,
    pub router: Option<String>,
    pub dns: Vec<String>,
    /// Who leased it.
    pub server: String,
}

/// A queue, with the device addresses of its parts.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the fields' names are the format's")]
pub struct QueueRecord {
    pub index: u16,
    pub size: u16,
    pub descriptors: u64,
    pub driver: u64,
    pub device: u64,
    /// The available index, as published; of a packed ring, where the next descriptor
    /// goes, with the driver's wrap counter in bit 15.
    pub avail_idx: u16,
    /// The used index up to which requests were taken back; of a packed ring, where
    /// the next used descriptor is expected, with the wrap counter in bit 15.
    pub used_idx: u16,
}

/// A distribution of costs, net of `overhead`, each in `unit`. Raw figures are
/// these plus `overhead`.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the fields' names are the format's")]
pub struct SummaryRecord {
    pub case: &'static str,
    pub device: String,
    #[serde(flatten)]
    pub place: Place,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notify: Option<String>,
    /// How the device interrupts, where it does: as in a device's record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interrupts: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subtest: Option<Cow<'static, str>>,
    /// How many operations were timed.
    pub n: u64,
    /// How many of them reached the device, as far as a guest can tell: requests
    /// that were answered; idle doorbells of a round after which a request rung
    /// in the same way was answered; for `testdev` the device's own count, or
    /// with an eventfd, which takes a write before the device can count it, the
    /// writes that it did not count.
    pub delivered: u64,
    /// How many operations one sample times; percentiles are over samples.
    pub batch: u32,
    pub samples: u64,
    /// What was subtracted from each: the cost of timing nothing.
    pub overhead: f64,
    pub min: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
    pub mean: f64,
    pub unit: &'static str,
}

/// A driver under load, on one device over one path.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the fields' names are the format's")]
pub struct LoadRecord {
    /// `blk` or `netperf`.
    pub workload: String,
    pub driver: &'static str,
    pub device: String,
    #[serde(flatten)]
    pub place: Place,
    pub transport: String,
    pub notify: String,
    /// How the device interrupts, as in a device's record.
    pub interrupts: &'static str,
    /// What is asked of the device, in words.
    pub what: String,
    /// Requests in flight.
    pub depth: usize,
    pub turns: usize,
    /// Requests in all turns.
    pub requests: u64,
    /// Cycles a request, by turns.
    pub cycles: Spread,
    /// Doorbells a request.
    pub doorbells: f64,
    /// Interrupts a request.
    pub interrupts_came: f64,
    /// Requests a second at the median, if the TSC's frequency is known.
    pub per_second: Option<f64>,
}

/// Cycles a request of one driver by those of another, round by round.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the fields' names are the format's")]
pub struct RatioRecord {
    pub workload: String,
    pub driver: &'static str,
    /// The other one.
    pub to: &'static str,
    pub ratio: Spread,
}

#[derive(Serialize)]
struct Line<'a> {
    v: u8,
    #[serde(flatten)]
    record: &'a Record<'a>,
}

impl Record<'_> {
    /// The record as one line of JSON, without the `@`.
    pub fn to_json(&self) -> String {
        let line = Line {
            v: VERSION,
            record: self,
        };
        // Strings, numbers and lists only: nothing in a record fails to
        // serialise.
        serde_json::to_string(&line).unwrap_or_default()
    }

    /// Prints the record, and keeps it among the [`results`].
    pub fn emit(&self) {
        let json = self.to_json();
        serial::write(format_args!("@{json}\n"));
        let lasting = matches!(self, Self::Boot { .. } | Self::World { .. });
        results::keep(json, lasting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_a_version_a_kind_and_flat_fields() {
        let record = Record::Skip {
            case: "doorbell-idle",
            place: Place {
                bdf: Some("0000:00:01.0".into()),
                mmio: None,
            },
            reason: "a \"reason\"".into(),
        };
        assert_eq!(
            record.to_json(),
            r#"{"v":1,"kind":"skip","case":"doorbell-idle","bdf":"0000:00:01.0","reason":"a \"reason\""}"#
        );
        let end = Record::End {
            verdict: "pass",
            errors: 0,
        };
        assert_eq!(
            end.to_json(),
            r#"{"v":1,"kind":"end","verdict":"pass","errors":0}"#
        );
    }

    #[test]
    fn an_action_has_its_arguments_beside_it() {
        let record = Record::Ask {
            action: "disk",
            place: Place {
                bdf: None,
                mmio: Some("0xfeb00e00".into()),
            },
            arguments: BTreeMap::from([
                ("sector", u64::MAX.into()),
                ("name", "a".into()),
                ("up", true.into()),
            ]),
        };
        assert_eq!(
            record.to_json(),
            r#"{"v":1,"kind":"ask","action":"disk","mmio":"0xfeb00e00","name":"a","sector":18446744073709551615,"up":true}"#
        );
    }

    #[test]
    fn a_summary_is_flat_too() {
        let record = Record::Summary(SummaryRecord {
            case: "baseline",
            device: "cpu".into(),
            place: Place::default(),
            transport: None,
            notify: None,
            interrupts: None,
            subtest: Some("empty-loop".into()),
            n: 10,
            delivered: 10,
            batch: 5,
            samples: 2,
            overhead: 1.25,
            min: 0.0,
            p50: 0.5,
            p90: 1.0,
            p99: 1.0,
            p999: 1.0,
            max: 1.0,
            mean: 0.5,
            unit: "cycles",
        });
        let json = record.to_json();
        assert!(json.starts_with(r#"{"v":1,"kind":"summary","case":"baseline","device":"cpu","#));
        assert!(json.contains(r#""overhead":1.25,"min":0.0,"#), "{json}");
        assert!(!json.contains("transport"), "{json}");
    }
}
