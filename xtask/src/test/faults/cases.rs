//! The table of [`super`].

use super::{Case, Guest};

const CASE: Case = Case {
    name: "",
    options: &["--no-devices"],
    qemu: &[],
    guest: Guest::Line(""),
    fault: None,
    status: 10,
    errors: &[],
    says: &[],
    within: 30,
};

/// A disk none of whose sectors can be read, for all that QEMU knows: Linux's `EIO`.
const UNREADABLE: &[&str] = &[
    "-blockdev",
    "driver=blkdebug,node-name=bad,image.driver=null-co,image.size=33554432,\
     image.read-zeroes=on,inject-error.0.event=none,inject-error.0.iotype=read,\
     inject-error.0.errno=5",
    "-device",
    "virtio-blk-pci,drive=bad,rerror=report,disable-legacy=on",
];

/// A disk that answers one request a second.
const CRAWLING: &[&str] = &[
    "-object",
    "throttle-group,id=crawl,x-iops-total=1,x-iops-total-max=1",
    "-blockdev",
    "driver=throttle,node-name=slow,throttle-group=crawl,file.driver=null-co,\
     file.size=33554432,file.read-zeroes=on",
    "-device",
    "virtio-blk-pci,drive=slow,disable-legacy=on",
];

/// A disk in a slot.
const IN_A_SLOT: &[&str] = &[
    "-blockdev",
    "driver=null-co,node-name=null,size=33554432,read-zeroes=on",
    "-device",
    "pcie-root-port,id=bay,chassis=1,slot=1",
    "-device",
    "virtio-blk-pci,id=disk,drive=null,bus=bay",
];

/// All cases.
pub(in super::super) const CASES: [Case; 18] = [
    Case {
        name: "unreadable-disk",
        qemu: UNREADABLE,
        guest: Guest::Line("devices"),
        errors: &["over pci-modern, mmio: the device reports an IO error"],
        ..CASE
    },
    Case {
        name: "unreadable-disk-under-load",
        qemu: UNREADABLE,
        guest: Guest::Line("blk driver=both count=1000 rounds=2; blk depth=16 interrupts=on"),
        errors: &[
            "blk, driver ours: the device reports an IO error",
            "blk, driver upstream: I/O error",
        ],
        ..CASE
    },
    Case {
        name: "unreadable-disk-timed",
        qemu: UNREADABLE,
        guest: Guest::Line("doorbell device=blk rounds=2 count=20"),
        errors: &["virtio-blk at 0000:00:01.0 over pci-modern, mmio, msix-shared"],
        says: &["empty-loop"],
        ..CASE
    },
    Case {
        name: "crawling-disk-under-load",
        qemu: CRAWLING,
        guest: Guest::Line("blk depth=2; blk depth=2 interrupts=on"),
        errors: &["blk, driver ours: the device answers too slowly: "],
        within: 60,
        ..CASE
    },
    // Whatever it is asked for, it has one byte an hour.
    Case {
        name: "entropy-goes-dry",
        qemu: &[
            "-object",
            "rng-builtin,id=dry",
            "-device",
            "virtio-rng-pci,rng=dry,max-bytes=1,period=3600000,disable-legacy=on",
        ],
        guest: Guest::Line("devices"),
        errors: &["over pci-modern, mmio: the device did not answer in time"],
        within: 60,
        ..CASE
    },
    // A link that is down takes frames, and drops them.
    Case {
        name: "link-down-under-load",
        options: &["--load"],
        guest: Guest::Line("netperf seconds=3 rounds=3; netperf interrupts=on count=2000"),
        fault: Some(("set_link", r#"{"name": "hub0", "up": false}"#)),
        status: 0,
        says: &["a second"],
        within: 60,
        ..CASE
    },
    // As if it were torn out: no event announces it, and its registers read as ones.
    Case {
        name: "disk-vanishes-under-load",
        qemu: IN_A_SLOT,
        guest: Guest::Line("blk depth=16 seconds=60; devices"),
        fault: Some((
            "qom-set",
            r#"{"path": "/machine/peripheral/disk", "property": "realized", "value": false}"#,
        )),
        errors: &[
            "blk, driver ours: requests in flight do not come back",
            "virtio-blk at 0000:01:00.0: the device shows no interface",
        ],
        within: 60,
        ..CASE
    },
    Case {
        name: "disk-asked-to-leave",
        qemu: IN_A_SLOT,
        guest: Guest::Line("blk depth=16 seconds=3"),
        fault: Some(("device_del", r#"{"id": "disk"}"#)),
        status: 0,
        says: &["a second"],
        within: 60,
        ..CASE
    },
    Case {
        name: "machine-reset-under-load",
        options: &["--load"],
        guest: Guest::Line("blk depth=16 seconds=60 rounds=1"),
        fault: Some(("system_reset", "{}")),
        status: 13,
        says: &["the guest reset or shut down without a verdict during its command `blk"],
        ..CASE
    },
    Case {
        name: "more-memory-than-there-is",
        options: &["--load", "--mem", "16"],
        guest: Guest::Line(
            "blk depth=30000; blk bs=16777216 count=16; netperf frame=65000 depth=256; \
             blk count=100 rounds=1",
        ),
        errors: &["blk, driver ours: ", "netperf, driver ours: "],
        says: &["a second"],
        ..CASE
    },
    Case {
        name: "junk-as-long-as-a-line-may-be",
        guest: Guest::Junk(4095),
        errors: &["command: there is no command \"xxx"],
        says: &["Nothing was run."],
        ..CASE
    },
    Case {
        name: "too-long-a-line",
        guest: Guest::Junk(4096),
        errors: &["is longer than 4095 bytes"],
        ..CASE
    },
    Case {
        name: "far-too-long-a-line",
        guest: Guest::Junk(100_000),
        errors: &["is longer than 4095 bytes"],
        ..CASE
    },
    Case {
        name: "control-characters",
        guest: Guest::Line("lspci\u{1}\u{1b}[31m\t\r\n\u{7f}"),
        errors: &["command: there is no command \"lspci\u{1}\u{1b}[31m"],
        says: &["Nothing was run."],
        ..CASE
    },
    Case {
        name: "nothing-but-separators",
        guest: Guest::Line(";;; ; ;"),
        status: 0,
        ..CASE
    },
    Case {
        name: "no-acpi-and-no-ecam",
        options: &["--no-devices", "--machine", "pc"],
        qemu: &["-machine", "acpi=off", "-device", "virtio-rng-pci"],
        guest: Guest::Line("lspci; devices; doorbell device=rng rounds=2 count=20"),
        status: 0,
        errors: &["acpi: the machine has no ACPI root pointer"],
        says: &["functions through CAM", "to-wake-up"],
        ..CASE
    },
    Case {
        name: "248-devices",
        options: &["--no-devices", "--machine", "pc", "--mem", "128"],
        qemu: &["BRIDGES"],
        guest: Guest::Line("devices"),
        status: 0,
        says: &["0000:08:1f.0 virtio-rng"],
        within: 120,
        ..CASE
    },
    // Each path that is timed wants memory for its figures.
    Case {
        name: "more-devices-than-can-be-timed",
        options: &["--no-devices", "--machine", "pc", "--mem", "16"],
        qemu: &["BRIDGE"],
        guest: Guest::Line("doorbell device=rng rounds=1 count=1"),
        errors: &["neither it nor what follows is timed: there is no memory for the figures"],
        says: &["doorbell-idle"],
        within: 60,
        ..CASE
    },
];
