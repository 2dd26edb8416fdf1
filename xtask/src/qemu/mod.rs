//! QEMU: its command line ([`command_line`]), a run of it ([`launch`]) and how
//! a run can end ([`outcome`]).

pub(crate) mod devices;
pub(crate) mod host;
pub(crate) mod input;
pub(crate) mod launch;
pub(crate) mod outcome;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use self::devices::{Doorbells, Group, Network, tap};

/// The trace event of a doorbell.
pub(crate) const DOORBELL_EVENT: &str = "virtio_queue_notify";
/// The trace events of an interrupt: from QEMU's main loop or a vCPU, and from an
/// iothread.
pub(crate) const INTERRUPT_EVENTS: [&str; 2] = ["virtio_notify", "virtio_notify_irqfd"];

/// The machines that the guest knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Machine {
    /// PCI Express, with ECAM
    Q35,
    /// Conventional PCI, through ports 0xCF8/0xCFC
    Pc,
    /// No PCI: virtio-mmio
    Microvm,
}

impl Machine {
    /// QEMU's name of it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Q35 => "q35",
            Self::Pc => "pc",
            Self::Microvm => "microvm",
        }
    }
}

/// What runs before the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Firmware {
    /// Starts fastest, and leaves PCI to the guest
    Qboot,
    /// Assigns PCI itself
    Seabios,
}

impl Firmware {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Qboot => "qboot",
            Self::Seabios => "seabios",
        }
    }
}

/// What executes the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accelerator {
    Tcg,
    Kvm,
}

impl Accelerator {
    /// QEMU's name of it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcg => "tcg",
            Self::Kvm => "kvm",
        }
    }
}

/// The machine to start.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) machine: Machine,
    pub(crate) firmware: Firmware,
    pub(crate) accelerator: Accelerator,
    /// MiB.
    pub(crate) memory: u32,
    /// Which devices it gets besides its own and what `extra` adds.
    pub(crate) groups: Vec<Group>,
    pub(crate) doorbells: Doorbells,
    pub(crate) network: Network,
    /// 1 or 2; only `microvm` has virtio-mmio.
    pub(crate) mmio_version: u8,
    /// Whether the virtio devices offer packed rings.
    pub(crate) packed: bool,
    /// Passed on verbatim, last.
    pub(crate) extra: Vec<String>,
}

impl Options {
    /// Whether the machine has these devices.
    pub(crate) fn has(&self, group: Group) -> bool {
        self.groups.contains(&group)
    }
}

/// The files of one run, all below one folder.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    dir: PathBuf,
}

impl Files {
    /// # Errors
    /// When the path is not UTF-8: it becomes part of QEMU's options.
    pub(crate) fn new(dir: PathBuf) -> Result<Self> {
        if dir.to_str().is_none() {
            bail!("the folder {} must have a UTF-8 name", dir.display());
        }
        Ok(Self { dir })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The raw image of disk `n`.
    pub(crate) fn disk(&self, n: usize) -> PathBuf {
        self.dir.join(format!("disk{n}.img"))
    }

    /// The command line, as a shell runs it.
    pub(crate) fn command(&self) -> PathBuf {
        self.dir.join("qemu.cmd")
    }

    /// QEMU's stderr.
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("qemu.log")
    }

    /// Every byte that the guest printed.
    pub(crate) fn serial(&self) -> PathBuf {
        self.dir.join("serial.log")
    }

    /// The results.
    pub(crate) fn results(&self) -> PathBuf {
        self.dir.join("results.json")
    }

    /// QEMU's trace events, when they are asked for.
    pub(crate) fn trace(&self) -> PathBuf {
        self.dir.join("trace.log")
    }

    /// What the entropy device gives whose bytes are known.
    pub(crate) fn entropy(&self) -> PathBuf {
        self.dir.join("entropy.bin")
    }

    /// The folder that the guest shares.
    pub(crate) fn share(&self) -> PathBuf {
        self.dir.join("share")
    }

    /// What the guest played.
    pub(crate) fn sound(&self) -> PathBuf {
        self.dir.join("sound.wav")
    }

    /// The last picture of the guest's screen.
    pub(crate) fn screen(&self) -> PathBuf {
        self.dir.join("screen.ppm")
    }

    /// What QEMU runs when it has made a tap device.
    pub(crate) fn tap_script(&self) -> PathBuf {
        self.dir.join(format!("net{}.sh", tap::ADAPTER))
    }

    /// Where that leaves QEMU's process ID.
    pub(crate) fn tap_pid(&self) -> PathBuf {
        self.dir.join(format!("net{}.pid", tap::ADAPTER))
    }

    /// QMP's socket.
    pub(crate) fn qmp(&self) -> PathBuf {
        self.socket("qmp")
    }

    /// The socket of a port of the console `id`.
    pub(crate) fn port(&self, id: &str, port: &str) -> PathBuf {
        self.socket(&format!("{id}-{port}"))
    }

    /// A Unix socket. Its path holds about 100 bytes, so a deep folder gets its
    /// sockets elsewhere.
    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        const LONGEST: usize = 100;
        let path = self.dir.join(format!("{name}.sock"));
        if path.as_os_str().len() <= LONGEST {
            return path;
        }
        std::env::temp_dir().join(format!(
            "doorbell-{}-{:x}-{name}.sock",
            std::process::id(),
            self.number()
        ))
    }

    /// The guest's context ID (virtio 1.2, 5.10.4): on this host no other guest may
    /// have it. Those below 3 are not for guests.
    pub(crate) fn guest_cid(&self) -> u32 {
        const ROOM: u64 = 1 << 31;
        let run = u64::from(std::process::id()).wrapping_mul(0x9E37_79B9);
        3 + (self.number().wrapping_add(run) % ROOM) as u32
    }

    /// A number made of the folder's name.
    fn number(&self) -> u64 {
        let dir = self.dir.to_string_lossy();
        dir.bytes().fold(5381, |sum: u64, byte| {
            sum.wrapping_mul(33).wrapping_add(byte.into())
        })
    }
}

/// QEMU's whole command line, beginning with the program.
///
/// Without a `kernel` the firmware boots what `options` say. `guest` goes to the guest's
/// command line verbatim; `witnessed` turns QMP and the trace on.
///
/// # Errors
/// When a path is not UTF-8.
pub(crate) fn command_line(
    qemu: &Path,
    kernel: Option<&Path>,
    options: &Options,
    files: &Files,
    guest: &str,
    witnessed: bool,
) -> Result<Vec<String>> {
    let text = |path: &Path| {
        path.to_str()
            .map(str::to_owned)
            .with_context(|| format!("the path {} is not UTF-8", path.display()))
    };
    let mut line: Vec<String> = Vec::new();
    if options.has(Group::NetPairs) {
        line.extend(tap::ALONE.map(str::to_owned));
    }
    line.push(text(qemu)?);
    let mut add = |words: &[&str]| line.extend(words.iter().map(|&word| word.to_owned()));

    add(&["-nodefaults", "-no-user-config", "-display", "none"]);
    // A guest that resets (a triple fault) ends QEMU instead of starting again.
    add(&["-no-reboot"]);
    add(&["-machine", options.machine.name()]);
    match options.firmware {
        Firmware::Qboot => add(&["-bios", "qboot.rom"]),
        // Every machine's own.
        Firmware::Seabios => {}
    }
    let cpu = match options.accelerator {
        Accelerator::Tcg => "max",
        // Some KVMs announce the register and refuse to set it, and QEMU dies of
        // that. It tells of mitigations, which the guest has no use for.
        Accelerator::Kvm => "max,arch-capabilities=off",
    };
    add(&["-accel", options.accelerator.name(), "-cpu", cpu]);
    // One vCPU, and room for a second: with only one possible vCPU, QEMU before
    // 8.1 drops the guest's memory barriers under TCG, and doorbells get lost.
    add(&["-smp", "1,maxcpus=2"]);
    add(&["-m", &options.memory.to_string()]);
    if let Some(kernel) = kernel {
        add(&["-kernel", &text(kernel)?]);
    }
    if !guest.is_empty() {
        add(&["-append", guest]);
    }
    add(&["-serial", "stdio"]);
    let exit = format!("isa-debug-exit,iobase={:#x},iosize=0x4", outcome::EXIT_PORT);
    add(&["-device", &exit]);
    // What the witnesses of a test ask.
    if witnessed {
        let qmp = escape(&text(&files.qmp())?);
        add(&["-qmp", &format!("unix:{qmp},server=on,wait=off")]);
        for event in [DOORBELL_EVENT].iter().chain(&INTERRUPT_EVENTS) {
            add(&["-trace", event]);
        }
        add(&["-D", &text(&files.trace())?]);
    }
    line.extend(devices::arguments(options, files)?);
    line.extend(options.extra.iter().cloned());
    Ok(line)
}

/// Inside QEMU's option lists a comma in a value is written twice.
pub(crate) fn escape(value: &str) -> String {
    value.replace(',', ",,")
}

/// The command as a line that a shell runs.
pub(crate) fn shell_line(words: &[String]) -> String {
    words
        .iter()
        .map(|word| quote(word))
        .collect::<Vec<_>>()
        .join(" ")
}

pub(crate) fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn options(machine: Machine) -> Options {
        Options {
            machine,
            firmware: Firmware::Qboot,
            accelerator: Accelerator::Tcg,
            memory: 64,
            groups: vec![Group::Disks, Group::Entropy, Group::Testdev],
            doorbells: Doorbells::Eventfd,
            network: Network::Closed,
            mmio_version: 2,
            packed: false,
            extra: Vec::new(),
        }
    }

    fn line(options: &Options, guest: &str, witnessed: bool) -> String {
        let files = Files::new("/out".into()).unwrap();
        let words = command_line(
            Path::new("qemu"),
            Some(Path::new("/k")),
            options,
            &files,
            guest,
            witnessed,
        );
        shell_line(&words.unwrap())
    }

    #[test]
    fn the_line_has_what_every_run_needs() {
        let line = line(&options(Machine::Q35), "lspci; doorbell rounds=5", false);
        for part in [
            "qemu -nodefaults -no-user-config -display none -no-reboot",
            "-machine q35 -bios qboot.rom -accel tcg -cpu max",
            "-smp 1,maxcpus=2 -m 64 -kernel /k",
            "-append 'lspci; doorbell rounds=5' -serial stdio",
            "-device isa-debug-exit,iobase=0xf4,iosize=0x4",
        ] {
            assert!(line.contains(part), "no `{part}` in {line}");
        }
        assert!(!line.contains("-trace") && !line.contains("-qmp"));
    }

    #[test]
    fn kvm_gets_a_cpu_that_every_kvm_can_set_up() {
        let options = Options {
            accelerator: Accelerator::Kvm,
            ..options(Machine::Q35)
        };
        let line = line(&options, "", false);
        assert!(
            line.contains("-accel kvm -cpu max,arch-capabilities=off"),
            "{line}"
        );
    }

    #[test]
    fn a_tap_is_in_a_network_of_its_own() {
        let mut options = options(Machine::Q35);
        assert!(line(&options, "", false).starts_with("qemu "));
        options.groups = vec![Group::NetPairs];
        let line = line(&options, "", false);
        assert!(
            line.starts_with("unshare --user --map-root-user --net -- qemu "),
            "{line}"
        );
    }

    #[test]
    fn firmware_is_named_only_where_it_is_not_the_machines_own() {
        let bios = |machine, firmware| {
            let options = Options {
                firmware,
                ..options(machine)
            };
            let line = line(&options, "", false);
            line.split_once("-bios ")
                .map(|(_, rest)| rest.split(' ').next().unwrap().to_owned())
        };
        for machine in [Machine::Q35, Machine::Pc, Machine::Microvm] {
            assert_eq!(bios(machine, Firmware::Seabios), None);
            let qboot = bios(machine, Firmware::Qboot);
            assert_eq!(qboot.as_deref(), Some("qboot.rom"));
        }
    }

    #[test]
    fn extra_arguments_come_last_and_verbatim() {
        let mut options = options(Machine::Pc);
        options.groups.clear();
        options.extra = vec!["-device".into(), "virtio-rng-pci,id=a b".into()];
        let line = line(&options, "", true);
        assert!(line.ends_with("-device 'virtio-rng-pci,id=a b'"), "{line}");
        assert!(line.contains("-qmp unix:/out/qmp.sock,server=on,wait=off"));
        assert!(line.contains("-trace virtio_notify_irqfd -D /out/trace.log"));
        assert!(!line.contains("-append"));
    }

    #[test]
    fn words_are_quoted_for_the_shell() {
        let words = ["a", "", "it's", "b;c"].map(str::to_owned);
        assert_eq!(shell_line(&words), r"a '' 'it'\''s' 'b;c'");
    }

    #[test]
    fn a_deep_folder_gets_a_short_socket() {
        let files = Files::new(Path::new("/").join("d".repeat(120))).unwrap();
        let port = files.port("con0", "data0");
        assert!(port.as_os_str().len() <= 100);
        assert_ne!(port, files.qmp());
    }
}
