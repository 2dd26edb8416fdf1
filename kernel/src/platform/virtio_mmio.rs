//! Where virtio-mmio devices are: by the ACPI name space's devices with the
//! hardware ID `LNRO0005`, or by words on the kernel command line, of the form
//! that Linux takes: `virtio_mmio.device=<size>@<base>:<interrupt>[:<id>]`.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use super::aml;
use super::gsi::{Gsi, Polarity, Trigger};

/// The word's start.
const PARAMETER: &str = "virtio_mmio.device=";

/// The hardware ID of a virtio-mmio device.
const HARDWARE_ID: &[u8] = b"LNRO0005\0";

/// A place where a virtio-mmio device may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Physical address of its registers.
    pub base: u64,
    /// Their length in bytes.
    pub len: u64,
    /// Its interrupt, as it was announced.
    pub interrupt: Option<Gsi>,
}

/// A word of the command line that is no place of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadSlot(String);

impl fmt::Display for BadSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\"{}\" is not {PARAMETER}<size>@<base>:<interrupt>",
            self.0
        )
    }
}

/// Whether a word of the command line is for this module.
pub fn is_parameter(word: &str) -> bool {
    word.starts_with(PARAMETER)
}

/// All places that are announced, in ascending order, each once.
pub fn slots(command_line: &str, aml: &[&[u8]]) -> Vec<Result<Slot, BadSlot>> {
    let named = aml.iter().flat_map(|code| from_aml(code)).map(Ok);
    let words = command_line.split_whitespace().filter_map(|word| {
        let slot = word.strip_prefix(PARAMETER)?;
        Some(parse(slot).ok_or_else(|| BadSlot(word.to_string())))
    });
    let mut slots: Vec<_> = named.chain(words).collect();
    slots.sort_by_key(|slot| slot.as_ref().map_or(u64::MAX, |slot| slot.base));
    slots.dedup_by(|a, b| matches!((a, b), (Ok(a), Ok(b)) if a.base == b.base));
    slots
}

/// The slot in `<size>@<base>:<interrupt>[:<id>]`.
fn parse(text: &str) -> Option<Slot> {
    let (len, rest) = text.split_once('@')?;
    let mut rest = rest.split(':');
    let (base, interrupt) = (number(rest.next()?)?, number(rest.next()?)?);
    let len = number(len)?;
    let valid = len > 0 && base > 0 && base.checked_add(len).is_some();
    valid.then_some(Slot {
        base,
        len,
        // A word has the number only. The device holds its line high for as long
        // as an interrupt is not acknowledged (virtio 1.2, 4.2.2).
        interrupt: Some(Gsi {
            number: u32::try_from(interrupt).ok()?,
            trigger: Trigger::Level,
            polarity: Polarity::High,
        }),
    })
}

/// A number, decimal or after 0x hexadecimal, with a suffix K or M.
fn number(text: &str) -> Option<u64> {
    let (text, unit) = match text.as_bytes().last()? {
        b'K' | b'k' => (&text[..text.len() - 1], 1 << 10),
        b'M' | b'm' => (&text[..text.len() - 1], 1 << 20),
        _ => (text, 1),
    };
    let value = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok()?,
        None => text.parse().ok()?,
    };
    value.checked_mul(unit)
}

/// The devices of byte code that has each one's `_HID` before its `_CRS`, as
/// QEMU writes it.
fn from_aml(code: &[u8]) -> Vec<Slot> {
    let ids = code.windows(HARDWARE_ID.len()).enumerate();
    let ids = ids
        .filter(|(_, window)| *window == HARDWARE_ID)
        .map(|(at, _)| at);
    ids.filter_map(|at| {
        let template = aml::templates(&code[at..]).next()?;
        let mut memory = None;
        let mut interrupt = None;
        for descriptor in template.descriptors() {
            match descriptor {
                aml::Descriptor::Memory { base, len } => memory = memory.or(Some((base, len))),
                aml::Descriptor::Interrupt { gsi, .. } => interrupt = interrupt.or(Some(gsi)),
                _ => {}
            }
        }
        let (base, len) = memory.filter(|&(base, len)| base > 0 && len > 0)?;
        Some(Slot {
            base,
            len,
            interrupt,
        })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_lines_words() {
        let line = "doorbell virtio_mmio.device=512@0xfeb00e00:12 virtio_mmio.device=4K@0x1000:5:0";
        let slot = |base, len, number| {
            let interrupt = Gsi {
                number,
                trigger: Trigger::Level,
                polarity: Polarity::High,
            };
            Ok(Slot {
                base,
                len,
                interrupt: Some(interrupt),
            })
        };
        assert_eq!(
            slots(line, &[]),
            [slot(0x1000, 4096, 5), slot(0xfeb0_0e00, 512, 12)]
        );
    }

    #[test]
    fn a_bad_word_is_named() {
        for word in [
            "512",
            "0@0x1000:1",
            "1@",
            "x@0x1000:1",
            "1@0xffffffffffffffff:1",
            "1K@0x10",
        ] {
            let line = [PARAMETER, word].concat();
            let found = slots(&line, &[]);
            assert!(
                matches!(&found[..], [Err(BadSlot(named))] if *named == line),
                "{found:?}"
            );
        }
    }

    #[test]
    fn every_bad_word_is_named() {
        let line = "virtio_mmio.device=junk virtio_mmio.device=other";
        assert_eq!(
            slots(line, &[]).iter().filter(|slot| slot.is_err()).count(),
            2
        );
    }

    #[test]
    fn a_place_announced_twice_counts_once() {
        let line = "virtio_mmio.device=512@0x1000:1 virtio_mmio.device=512@4096:1";
        assert_eq!(slots(line, &[]).len(), 1);
    }
}
