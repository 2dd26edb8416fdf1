//! What came of a device in the hands of one guest's policy.

use alloc::string::String;
use alloc::vec::Vec;

use serde::Serialize;

use super::Place;

/// Whether a device works for a policy, by which interface and doorbell, or what stops
/// it.
#[derive(Clone, Debug, Default, Serialize)]
#[expect(missing_docs, reason = "the fields' names are the format's")]
pub struct ProbeRecord {
    /// `legacy-2013`, `modern` or `dual`.
    pub policy: &'static str,
    /// Whether IO decoding was left as it was.
    pub io: bool,
    /// Functions whose IO decoding was switched off meanwhile: the device and the
    /// bridges above it, as far as it was on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cleared: Vec<String>,
    pub device: String,
    #[serde(flatten)]
    pub place: Place,
    /// Vendor and device ID, where it is on PCI: `1af4:1005`.
    pub pci_id: Option<String>,
    pub revision: Option<u8>,
    /// What PCI Express calls the function, if it is one of its.
    pub port: Option<String>,
    /// The bridge right above it, by what PCI Express calls that, or else `bridge`; none
    /// on a root bus.
    pub below: Option<String>,
    /// The interfaces that it has on PCI: `legacy` if BAR 0 is in IO space, `modern` if it
    /// has the capabilities.
    pub offers: Vec<&'static str>,
    /// Whether it served a request.
    pub works: bool,
    /// The interface that worked, as in a device's record.
    pub transport: Option<String>,
    /// And the doorbell.
    pub notify: Option<String>,
    /// The interfaces that were tried, in order; the last is the one that worked, if
    /// one did.
    pub tried: Vec<TriedRecord>,
}

/// An interface that was tried.
#[derive(Clone, Debug, Default, Serialize)]
#[expect(missing_docs, reason = "the fields' names are the format's")]
pub struct TriedRecord {
    /// `legacy`, `modern` or `mmio`.
    pub interface: &'static str,
    pub works: bool,
    /// What stops it, in a word.
    pub reason: Option<&'static str>,
    /// The same in a sentence, or what the device did.
    pub message: String,
    /// The notification structures, in the device's order of preference (virtio 1.2,
    /// 4.1.4).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub doorbells: Vec<NotifyRecord>,
}

/// A notification structure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the fields' names are the format's")]
pub struct NotifyRecord {
    pub bar: u8,
    /// `io` or `memory`.
    pub space: &'static str,
    pub usable: bool,
    /// What makes it useless, in a word.
    pub reason: Option<&'static str>,
}
