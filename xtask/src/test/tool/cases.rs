//! The table of [`super`].

use super::talk::Turn;
use super::{Case, Qemu};

const CASE: Case = Case {
    name: "",
    start: &["--kernel", "KERNEL", "--out", "OUT"],
    arguments: &[],
    qemu: Qemu::Real,
    input: "",
    status: 0,
    says: &[],
    talk: &[],
    times: 0,
};

/// What a script in QEMU's place takes.
const FAKE: &[&str] = &["--kernel", "/dev/null", "--no-devices", "--out", "OUT"];

/// All cases.
pub(crate) const CASES: [Case; 43] = [
    Case {
        name: "main-job",
        says: &["Cycles an operation", "results.json"],
        times: 10_000,
        ..CASE
    },
    // As the README has it.
    Case {
        name: "own-device",
        arguments: &[
            "--no-devices",
            "--qemu-arg=-device",
            "--qemu-arg=virtio-rng-pci,disable-legacy=on",
            "devices",
        ],
        says: &["pci-modern", "results.json"],
        ..CASE
    },
    Case {
        name: "no-virtio-device-is-no-error",
        arguments: &["--no-devices"],
        says: &["no virtio device", "results.json"],
        ..CASE
    },
    Case {
        name: "sixteen-mib",
        arguments: &["--mem", "16", "lspci; devices; doorbell rounds=2 count=20"],
        says: &["results.json"],
        ..CASE
    },
    // QEMU then announces the devices on the kernel's command line instead.
    Case {
        name: "microvm-without-acpi",
        arguments: &[
            "--machine",
            "microvm",
            "--qemu-arg",
            "-machine",
            "--qemu-arg",
            "acpi=off",
            "devices",
        ],
        says: &["virtio-blk", "mmio-v2", "doorbell-disk0", "results.json"],
        ..CASE
    },
    Case {
        name: "shell-from-a-pipe",
        arguments: &["--timeout", "60", "shell"],
        input: "lspci\nexit\n",
        says: &["00:00.0", "results.json"],
        ..CASE
    },
    // `net` takes what is typed, but the end of input is no key.
    Case {
        name: "shell-at-the-end-of-its-input",
        arguments: &["--timeout", "10", "shell"],
        input: "lspci -n\nnet pings=0 for=1",
        says: &["00:00.0", "ended by time", "results.json"],
        ..CASE
    },
    Case {
        name: "shell-on-a-console",
        arguments: &["--timeout", "60", "console; lspci"],
        says: &["doorbell> info", "00:00.0", "results.json"],
        talk: &[
            Turn {
                port: "console",
                types: "\n",
                reads: "doorbell> ",
            },
            Turn {
                port: "console",
                types: "info\n",
                reads: "\r\nInterrupts of no device:",
            },
            Turn {
                port: "data0",
                types: "there and back",
                reads: "there and back",
            },
            Turn {
                port: "console",
                types: "devices\n",
                reads: "skipped: pci-modern, mmio: the shell is on it",
            },
            Turn {
                port: "console",
                types: "exit\n",
                reads: "exit\r\n",
            },
        ],
        ..CASE
    },
    // The doorbells of a transitional device are in an IO BAR first, then in memory. Its
    // legacy interface works again once IO decoding is back.
    Case {
        name: "guests-of-different-times",
        arguments: &[
            "--no-devices",
            "--qemu-arg=-device",
            "--qemu-arg=pcie-root-port,id=rp,chassis=1",
            "--qemu-arg=-device",
            "--qemu-arg=virtio-rng-pci,bus=rp,disable-legacy=off,modern-pio-notify=on",
            "--qemu-arg=-device",
            "--qemu-arg=virtio-rng-pci,disable-legacy=on",
            "probe policy=dual io=off; probe",
        ],
        says: &[
            "As a guest of the policy legacy-2013:\n",
            "  works by pci-legacy, pio: ",
            "  not by legacy: device ID 0x1044 is not in 0x1000-0x103f",
            "  works by pci-modern, pio: ",
            "As a guest of the policy dual, with IO decoding off:\n",
            "  doorbells in BAR2, io: io-off\n  doorbells in BAR4, memory: usable\n  works by pci-modern, mmio: ",
            "results.json",
        ],
        ..CASE
    },
    Case {
        name: "unknown-policy",
        arguments: &["probe policy=legacy"],
        status: 10,
        says: &["\"policy=legacy\": it wants legacy-2013, modern or dual"],
        ..CASE
    },
    Case {
        name: "drivers-compete",
        arguments: &[
            "--load",
            "--timeout",
            "60",
            "blk driver=both depth=16 count=2000 rounds=2 parts=on; netperf driver=both count=2000 rounds=2",
        ],
        says: &[
            "driver             depth   submit     kick     reap",
            "ours / upstream: ",
            "ours / upstream-shipped: ",
            "ours / upstream-on-ours: ",
        ],
        ..CASE
    },
    Case {
        name: "load-over-legacy",
        arguments: &[
            "--load",
            "--timeout",
            "60",
            "blk way=legacy depth=16 count=2000 rounds=2; netperf way=legacy driver=both count=2000 rounds=2",
        ],
        says: &[
            "over pci-legacy, pio",
            "skipped: virtio-net at 0000:00:02.0: upstream's own transport rings by a memory BAR only",
            "ours / upstream-on-ours: ",
            "ours / shipped-on-ours: ",
        ],
        ..CASE
    },
    Case {
        name: "load-over-mmio",
        arguments: &[
            "--machine",
            "microvm",
            "--load",
            "--timeout",
            "60",
            "blk rw=write order=sequential bs=512 seconds=1 rounds=2 interrupts=on; netperf frame=1514 depth=8 count=2000",
        ],
        says: &[
            "over mmio-v2, mmio, line: sequential writes of 512 bytes",
            "frames of 1514 bytes",
        ],
        ..CASE
    },
    Case {
        name: "a-fixed-queue-is-not-upstreams",
        arguments: &[
            "--load",
            "--timeout",
            "60",
            "blk way=legacy driver=upstream",
        ],
        status: 10,
        says: &[
            "queue 0 has a fixed size of 256, and virtio-drivers wants 16: drive this device by its modern interface",
        ],
        ..CASE
    },
    Case {
        name: "deeper-than-the-queue",
        arguments: &["--load", "--timeout", "60", "netperf depth=300"],
        status: 10,
        says: &["the queue takes 256 such requests at once, not 300"],
        ..CASE
    },
    Case {
        name: "bad-load-argument",
        arguments: &["--load", "--timeout", "60", "blk rw=append"],
        status: 10,
        says: &["\"rw=append\": it wants read or write"],
        ..CASE
    },
    Case {
        name: "guest-hangs",
        arguments: &["--timeout", "5", "lspci; hang"],
        status: 14,
        says: &["printed nothing for 5 s", "`hang`", "--timeout"],
        ..CASE
    },
    Case {
        name: "guest-panics",
        arguments: &["crash panic"],
        status: 11,
        says: &["the guest panicked", "`crash panic`"],
        ..CASE
    },
    Case {
        name: "guest-takes-an-exception",
        arguments: &["crash null"],
        status: 12,
        says: &["CPU exception", "`crash null`", "results.json"],
        ..CASE
    },
    Case {
        name: "unknown-guest-command",
        arguments: &["nonsense"],
        status: 10,
        says: &["nonsense"],
        ..CASE
    },
    Case {
        name: "bad-guest-argument",
        arguments: &["doorbell rounds=many"],
        status: 10,
        says: &["rounds", "many"],
        ..CASE
    },
    Case {
        name: "command-after-the-shell",
        arguments: &["shell; lspci"],
        status: 10,
        says: &["has to be the last"],
        ..CASE
    },
    Case {
        name: "bad-lspci-argument",
        arguments: &["lspci -v=junk"],
        status: 10,
        says: &["-v=junk"],
        ..CASE
    },
    Case {
        name: "two-crashes",
        arguments: &["crash null panic"],
        status: 10,
        says: &["crash: ", "one way"],
        ..CASE
    },
    Case {
        name: "bad-mmio-device",
        arguments: &["devices virtio_mmio.device=junk"],
        status: 10,
        says: &["virtio_mmio.device", "junk"],
        ..CASE
    },
    Case {
        name: "kvm",
        arguments: &["--accel", "kvm", "doorbell rounds=2 count=20"],
        says: &["doorbell-idle", "results.json"],
        times: 40,
        ..CASE
    },
    Case {
        name: "bad-qemu-argument",
        arguments: &["--qemu-arg", "-no-such-option"],
        status: 15,
        says: &["QEMU did not start", "-no-such-option: invalid option"],
        ..CASE
    },
    Case {
        name: "unknown-option",
        start: &[],
        arguments: &["--no-such-option"],
        status: 2,
        says: &["--no-such-option"],
        ..CASE
    },
    Case {
        name: "unknown-machine",
        start: &[],
        arguments: &["--machine", "isapc"],
        status: 2,
        says: &["isapc", "q35"],
        ..CASE
    },
    Case {
        name: "no-memory",
        start: &[],
        arguments: &["--mem", "0"],
        status: 2,
        says: &["--mem"],
        ..CASE
    },
    Case {
        name: "mmio-without-microvm",
        start: &[],
        arguments: &["--mmio-version", "1"],
        status: 2,
        says: &["--mmio-version", "microvm"],
        ..CASE
    },
    Case {
        name: "packed-rings-over-legacy-mmio",
        start: &[],
        arguments: &["--machine", "microvm", "--mmio-version", "1", "--packed"],
        status: 2,
        says: &["--packed", "legacy"],
        ..CASE
    },
    Case {
        name: "missing-image",
        start: &[],
        arguments: &["--kernel", "/no/such/image", "--out", "OUT"],
        qemu: Qemu::Script("exit 33"),
        status: 1,
        says: &["/no/such/image"],
        ..CASE
    },
    Case {
        name: "missing-qemu",
        start: &[],
        arguments: &["--no-install", "--kernel", "/dev/null", "--out", "OUT"],
        qemu: Qemu::Missing,
        status: 1,
        says: &["qemu-system-x86_64 is not on the PATH", "--no-install"],
        ..CASE
    },
    Case {
        name: "dry-run-does-nothing",
        start: &[],
        arguments: &[
            "--dry-run",
            "--out",
            "/no/such/folder",
            "--qemu-arg",
            "-S",
            "lspci; shell",
        ],
        qemu: Qemu::Script("exit 1"),
        says: &["-append 'lspci; shell'", "-S\n", "-smp 1,maxcpus=2"],
        ..CASE
    },
    Case {
        name: "a-pass",
        start: FAKE,
        qemu: Qemu::Script(r#"echo '@{"v":1,"kind":"end","verdict":"pass"}'; exit 33"#),
        says: &["hello", "results.json"],
        ..CASE
    },
    Case {
        name: "silence-counts-from-the-last-output",
        start: FAKE,
        arguments: &["--timeout", "2"],
        qemu: Qemu::Script(
            r#"for i in 1 2 3 4; do echo working; sleep 1; done
            echo '@{"v":1,"kind":"end","verdict":"pass"}'; exit 33"#,
        ),
        says: &["results.json"],
        ..CASE
    },
    Case {
        name: "foreign-folder",
        start: &["--kernel", "/dev/null", "--no-devices", "--out", "FOREIGN"],
        qemu: Qemu::Script("exit 33"),
        status: 1,
        says: &["would overwrite", "serial.log"],
        ..CASE
    },
    Case {
        name: "verdict-without-end-record",
        start: FAKE,
        qemu: Qemu::Script("exit 33"),
        status: 17,
        says: &["without an `end` record"],
        ..CASE
    },
    Case {
        name: "malformed-record",
        start: FAKE,
        qemu: Qemu::Script(
            r#"echo '@{"v":1,'; echo '@{"v":1,"kind":"end","verdict":"pass"}'; exit 33"#,
        ),
        status: 17,
        says: &["malformed", r#"`@{"v":1,`"#, "results.json"],
        ..CASE
    },
    Case {
        name: "qemu-dies-of-a-signal",
        start: FAKE,
        qemu: Qemu::Script("kill -SEGV $$"),
        status: 16,
        says: &["QEMU died of signal 11", "results.json"],
        ..CASE
    },
    Case {
        name: "guest-resets",
        start: FAKE,
        qemu: Qemu::Script("exit 0"),
        status: 13,
        says: &["without a verdict", "triple fault", "results.json"],
        ..CASE
    },
    Case {
        name: "kvm-gives-up",
        start: FAKE,
        qemu: Qemu::Script("echo 'KVM internal error. Suberror: 1' >&2; exec sleep 60"),
        status: 14,
        says: &["cannot go on", "Suberror: 1", "--accel tcg"],
        ..CASE
    },
];
