//! The Fixed ACPI Description Table (ACPI 6.5, 5.2.9): which ports belong to
//! ACPI hardware, where the timer is, where the DSDT is.
//!
//! Crate `acpi` has the table as well, but reads fields that an old and short
//! table does not have, and counts register widths in a byte that overflows.

use alloc::vec::Vec;
use core::fmt;

use doorbell::port::{IoSpace, X86Ports};

/// Field offsets in bytes (table 5-9).
mod field {
    pub(super) const DSDT: usize = 40;
    pub(super) const SMI_CMD: usize = 48;
    pub(super) const PM_TMR_BLK: usize = 76;
    pub(super) const PM_TMR_LEN: usize = 91;
    pub(super) const X_PM_TMR_BLK: usize = 208;
    pub(super) const FLAGS: usize = 112;
    pub(super) const RESET_REG: usize = 116;
    pub(super) const X_DSDT: usize = 140;
}

/// Each register block: name, offset of its 32-bit address, of its generic
/// address, of its length.
const BLOCKS: [(&str, usize, usize, usize); 8] = [
    ("PM1a_EVT_BLK", 56, 148, 88),
    ("PM1b_EVT_BLK", 60, 160, 88),
    ("PM1a_CNT_BLK", 64, 172, 89),
    ("PM1b_CNT_BLK", 68, 184, 89),
    ("PM2_CNT_BLK", 72, 196, 90),
    (
        "PM_TMR_BLK",
        field::PM_TMR_BLK,
        field::X_PM_TMR_BLK,
        field::PM_TMR_LEN,
    ),
    ("GPE0_BLK", 80, 220, 92),
    ("GPE1_BLK", 84, 232, 93),
];

/// Flag: the timer counts 32 bits instead of 24.
const TMR_VAL_EXT: u32 = 1 << 8;
/// Generic address structure: the address is a port (5.2.3.2).
const SYSTEM_IO: u8 = 1;

/// Ports that belong to ACPI hardware.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct IoBlock {
    /// The table's name for them.
    pub name: &'static str,
    /// First port.
    pub base: u16,
    /// Number of ports.
    pub length: u8,
}

impl fmt::Debug for IoBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:#x}+{}", self.name, self.base, self.length)
    }
}

/// The power management timer (4.8.3.3): counts up at 3.579545 MHz.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PmTimer {
    /// Its 32-bit port.
    port: u16,
    /// Whether it counts 32 bits, not 24.
    wide: bool,
}

impl PmTimer {
    /// The bits that count.
    pub fn mask(self) -> u32 {
        if self.wide { u32::MAX } else { 0xff_ffff }
    }

    /// The timer's value.
    pub fn read(self) -> u32 {
        // SAFETY: the FADT says that this port is the timer, which nothing
        // changes by reading.
        unsafe { X86Ports.read32(self.port) & self.mask() }
    }
}

/// What the table says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fadt {
    pub(super) io_blocks: Vec<IoBlock>,
    pub(super) pm_timer: Option<PmTimer>,
    /// Physical address of the DSDT; 0 if there is none.
    pub(super) dsdt: u64,
}

/// Reads the table. A field beyond its end counts as 0, which means "none":
/// the table has grown with ACPI's versions.
pub(super) fn read(table: &[u8]) -> Fadt {
    let u8_at = |offset| bytes_at::<1>(table, offset)[0];
    let u32_at = |offset| u32::from_le_bytes(bytes_at(table, offset));
    let u64_at = |offset| u64::from_le_bytes(bytes_at(table, offset));
    // The generic address counts where it is set, and if it is a port.
    let port = |address, generic| match u64_at(generic + 4) {
        0 => u16::try_from(u32_at(address)).ok(),
        port if u8_at(generic) == SYSTEM_IO => u16::try_from(port).ok(),
        _ => None,
    };
    let block = |name, base: Option<u16>, length: u8| {
        let base = base.filter(|&base| base != 0 && length != 0)?;
        base.checked_add(u16::from(length) - 1)?;
        Some(IoBlock { name, base, length })
    };
    let io_blocks = BLOCKS
        .iter()
        .map(|&(name, address, generic, length)| block(name, port(address, generic), u8_at(length)))
        .chain([
            block("SMI_CMD", u16::try_from(u32_at(field::SMI_CMD)).ok(), 1),
            block("RESET_REG", port_of_reset(table), 1),
        ])
        .flatten()
        .collect();
    let pm_timer = port(field::PM_TMR_BLK, field::X_PM_TMR_BLK)
        // Any other length means that there is no timer.
        .filter(|&port| port != 0 && u8_at(field::PM_TMR_LEN) == 4)
        .map(|port| PmTimer {
            port,
            wide: u32_at(field::FLAGS) & TMR_VAL_EXT != 0,
        });
    let dsdt = match u64_at(field::X_DSDT) {
        0 => u32_at(field::DSDT).into(),
        address => address,
    };
    Fadt {
        io_blocks,
        pm_timer,
        dsdt,
    }
}

fn port_of_reset(table: &[u8]) -> Option<u16> {
    let [space] = bytes_at(table, field::RESET_REG);
    let port = u64::from_le_bytes(bytes_at(table, field::RESET_REG + 4));
    u16::try_from(port).ok().filter(|_| space == SYSTEM_IO)
}

/// The bytes at `offset`, zeroes where the table has ended.
fn bytes_at<const N: usize>(table: &[u8], offset: usize) -> [u8; N] {
    core::array::from_fn(|i| table.get(offset + i).copied().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    fn put(table: &mut [u8], offset: usize, bytes: &[u8]) {
        table[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// A version 1 table as QEMU's `pc` has it.
    fn short() -> Vec<u8> {
        let mut table = vec![0; 116];
        put(&mut table, field::DSDT, &0x7fe_0040_u32.to_le_bytes());
        put(&mut table, 56, &0x600_u32.to_le_bytes());
        put(&mut table, field::PM_TMR_BLK, &0x608_u32.to_le_bytes());
        put(&mut table, 88, &[4, 2, 0, 4, 16, 0]);
        table
    }

    #[test]
    fn a_short_table_is_read_as_far_as_it_goes() {
        let fadt = read(&short());
        let names: Vec<_> = fadt
            .io_blocks
            .iter()
            .map(|b| (b.name, b.base, b.length))
            .collect();
        assert_eq!(
            names,
            [("PM1a_EVT_BLK", 0x600, 4), ("PM_TMR_BLK", 0x608, 4)]
        );
        assert_eq!(
            fadt.pm_timer,
            Some(PmTimer {
                port: 0x608,
                wide: false
            })
        );
        assert_eq!(fadt.dsdt, 0x7fe_0040);
    }

    #[test]
    fn extended_fields_win_where_set() {
        let mut table = short();
        table.resize(244, 0);
        put(&mut table, field::X_DSDT, &0x1_0000_0040_u64.to_le_bytes());
        put(&mut table, field::X_PM_TMR_BLK, &[SYSTEM_IO, 32, 0, 3]);
        put(
            &mut table,
            field::X_PM_TMR_BLK + 4,
            &0xb008_u64.to_le_bytes(),
        );
        put(&mut table, field::FLAGS, &TMR_VAL_EXT.to_le_bytes());
        let fadt = read(&table);
        assert_eq!(
            fadt.pm_timer,
            Some(PmTimer {
                port: 0xb008,
                wide: true
            })
        );
        assert_eq!(fadt.dsdt, 0x1_0000_0040);
    }

    #[test]
    fn ports_that_do_not_exist_are_left_out() {
        let mut table = short();
        put(&mut table, 56, &0x1_0600_u32.to_le_bytes()); // above 16 bits
        put(&mut table, 80, &0xfff8_u32.to_le_bytes()); // 16 ports from there
        put(&mut table, 91, &[8]); // a timer of 8 bytes
        let fadt = read(&table);
        assert!(
            fadt.io_blocks
                .iter()
                .all(|block| block.name == "PM_TMR_BLK")
        );
        assert_eq!(fadt.pm_timer, None);
    }

    #[test]
    fn a_memory_mapped_block_is_not_a_port() {
        let mut table = short();
        table.resize(244, 0);
        put(
            &mut table,
            field::X_PM_TMR_BLK + 4,
            &0xfed0_0000_u64.to_le_bytes(),
        );
        assert_eq!(read(&table).pm_timer, None);
    }

    #[test]
    fn an_empty_table_says_nothing() {
        let nothing = Fadt {
            io_blocks: vec![],
            pm_timer: None,
            dsdt: 0,
        };
        assert_eq!(read(&[]), nothing);
    }
}
