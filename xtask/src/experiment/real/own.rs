//! What a guest says about itself, in its own words.

use super::guests::Kind;
use super::initrd;
use crate::record::Record;

/// What was found in a guest's output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) version: Option<String>,
    /// Whether it says that its driver is modern, if it says so.
    pub(super) modern: Option<bool>,
    /// The line that says it, or that names the device.
    pub(super) said: Option<String>,
    /// The line with which it gives up: there was nothing for it to read.
    pub(super) failed: Option<String>,
    /// The last line of its output that is not empty.
    pub(super) serial_end: String,
}

/// The bit of VIRTIO_F_VERSION_1 (virtio 1.2, 6).
const VERSION_1: usize = 32;

/// What a BIOS says when no device gave a boot sector. It has asked a ROM of the network
/// first.
const BIOS_FAILS: &str = "No bootable device";

impl Kind {
    /// The words by which this guest says that it found nothing to read. They mean so only if
    /// no proof came: a UEFI shell has its prompt after its script as well.
    fn last_words(self) -> &'static [&'static str] {
        match self {
            Self::Seabios => &[BIOS_FAILS],
            Self::Ipxe => &["No more network devices", BIOS_FAILS],
            Self::Ovmf => &["Shell>", "No bootable option or device was found"],
            Self::Linux | Self::LinuxLegacy => &["Kernel panic"],
        }
    }
}

impl Own {
    /// Reads what the guest printed (`serial`), what firmware logged, and the records among
    /// the former.
    pub(super) fn read(kind: Kind, serial: &str, firmware: &str, records: &[Record]) -> Self {
        let serial = plain(serial);
        let line = |text: &str, part: &str| {
            let found = text.lines().find(|line| line.contains(part));
            found.map(|line| line.trim().to_owned())
        };
        let mut own = Self {
            serial_end: serial
                .lines()
                .map(str::trim)
                .rfind(|line| !line.is_empty())
                .unwrap_or_default()
                .to_owned(),
            ..Self::default()
        };
        let mut gave_up = kind.last_words().iter();
        own.failed = gave_up.find_map(|words| line(&serial, words).or(line(firmware, words)));
        match kind {
            Kind::Seabios => {
                own.version = between(firmware, "SeaBIOS (version ", ")");
                own.said = line(firmware, " virtio mode");
                let said = own.said.as_deref().unwrap_or_default();
                own.modern = said.contains("modern").then_some(true);
                own.modern = own.modern.or(said.contains("legacy").then_some(false));
            }
            Kind::Ipxe => {
                own.version = between(&serial, "iPXE 1", " ").map(|rest| format!("1{rest}"));
                let said = line(&serial, "using virtio-net");
                // It takes its prompt back by backspaces.
                own.said = said.and_then(|said| Some(said.rsplit('\x08').next()?.to_owned()));
            }
            Kind::Ovmf => own.said = line(&serial, "/HD("),
            Kind::Linux | Kind::LinuxLegacy => {
                let text = |kind: &str, key: &str| {
                    let record = records.iter().find(|record| record.kind() == kind);
                    record.and_then(|record| record.text(key).map(str::to_owned))
                };
                own.version = text("guest", "version");
                let unread = records
                    .iter()
                    .any(|record| record.kind() == initrd::NO_PROOF);
                let unread = unread.then(|| "there is no proof on /dev/vda".to_owned());
                own.failed = own.failed.or(unread);
                let bits = text("sysfs", "features");
                let bit = bits
                    .as_ref()
                    .and_then(|bits| bits.as_bytes().get(VERSION_1));
                own.modern = bit.map(|bit| *bit == b'1');
                let driver = text("sysfs", "driver");
                own.said = driver
                    .zip(bits)
                    .map(|(driver, bits)| format!("{driver}, {bits}"));
            }
        }
        own
    }
}

fn between(text: &str, before: &str, after: &str) -> Option<String> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split_once(after)?.0.to_owned())
}

/// A terminal's text without its escape sequences (ECMA-48, 5.4: they end with a byte from
/// `@` to `~`).
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, sequence)) = rest.split_once('\x1b') {
        plain.push_str(before);
        rest = match sequence.strip_prefix('[') {
            Some(parameters) => parameters
                .find(|c: char| ('@'..='~').contains(&c))
                .map_or("", |end| &parameters[end + 1..]),
            None => sequence.get(1..).unwrap_or_default(),
        };
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_are_left_out() {
        assert_eq!(
            plain("\x1bc\x1b[?7l\x1b[2J\x1b[0;1miPXE 1.0\x1b[0m -"),
            "iPXE 1.0 -"
        );
        assert_eq!(plain("end\x1b["), "end");
    }

    #[test]
    fn bioses_say_who_they_are_and_how_they_drive() {
        let log = "SeaBIOS (version 1.16.2-debian)\nfound virtio-blk at 00:01.0\n\
                   pci dev 00:01.0 using legacy (0.9.5) virtio mode\n";
        let own = Own::read(Kind::Seabios, "x\r\nNo bootable device.\r\n\r\n", log, &[]);
        assert_eq!(own.version.as_deref(), Some("1.16.2-debian"));
        assert_eq!(own.modern, Some(false));
        assert!(own.said.unwrap().starts_with("pci dev"));
        assert_eq!(own.serial_end, "No bootable device.");
        let modern = log.replace("legacy (0.9.5)", "modern (1.0)");
        let own = Own::read(Kind::Seabios, "", &modern, &[]);
        assert_eq!(own.modern, Some(true));
        assert_eq!(Own::read(Kind::Seabios, "", "", &[]).modern, None);

        let serial = "iPXE (http://ipxe.org)\r\n\x1b[1miPXE 1.0.0+git\x1b[0m -- Open\r\n\
                      Press\x08 \x08net0: 52:54 using virtio-net on 0000:00:01.0 (open)\r\n";
        let own = Own::read(Kind::Ipxe, serial, "", &[]);
        assert_eq!(own.version.as_deref(), Some("1.0.0+git"));
        let said = "net0: 52:54 using virtio-net on 0000:00:01.0 (open)";
        assert_eq!(own.said.as_deref(), Some(said));
    }

    #[test]
    fn only_a_guests_own_words_say_that_it_gave_up() {
        let failed = |kind, serial: &str, firmware: &str| {
            Own::read(kind, serial, firmware, &[]).failed.is_some()
        };
        for (kind, words) in [
            (
                Kind::Seabios,
                "No bootable device.  Retrying in 60 seconds.",
            ),
            (Kind::Ipxe, "No more network devices"),
            (Kind::Ipxe, "No bootable device."),
            (Kind::Ovmf, "\x1b[2JShell> "),
            (
                Kind::Ovmf,
                "BdsDxe: No bootable option or device was found.",
            ),
            (Kind::Linux, "Kernel panic - not syncing: no init"),
        ] {
            assert!(failed(kind, &format!("a\r\n{words}\r\n"), ""), "{words}");
            assert!(!failed(kind, "Booting from Hard Disk...", "a"), "{words}");
        }
        // Without a screen on the serial line it is in the log alone.
        assert!(failed(Kind::Seabios, "", "No bootable device."));
        let unread = Record::parse(r#"{"v":1,"kind":"no-proof"}"#).unwrap();
        let own = Own::read(Kind::LinuxLegacy, "", "", &[unread]);
        assert!(own.failed.unwrap().contains("/dev/vda"));
    }

    #[test]
    fn linux_shows_its_features_in_sysfs() {
        let records = |bit: char| {
            let bits: String = (0..64).map(|n| if n == 32 { bit } else { '0' }).collect();
            [
                r#"{"v":1,"kind":"guest","version":"Linux 6.1"}"#.to_owned(),
                format!(r#"{{"v":1,"kind":"sysfs","driver":"virtio_blk","features":"{bits}"}}"#),
            ]
            .map(|line| Record::parse(&line).unwrap())
        };
        let own = Own::read(Kind::Linux, "", "", &records('1'));
        assert_eq!(own.version.as_deref(), Some("Linux 6.1"));
        assert_eq!(own.modern, Some(true));
        let own = Own::read(Kind::LinuxLegacy, "", "", &records('0'));
        assert_eq!(own.modern, Some(false));
        assert_eq!(Own::read(Kind::Linux, "", "", &[]).modern, None);
    }
}
