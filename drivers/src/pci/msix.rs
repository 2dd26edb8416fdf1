//! MSI-X (PCI 3.0, 6.8.2): interrupts as writes to memory, each with an address
//! and a value of its own, from a table in one of the function's BARs.

use core::fmt;

use bitflags::bitflags;
use pci_types::PciAddress;

use super::bars::{Bar, BarKind};
use super::capabilities::{self, CapabilityError, MSI_X};
use super::config::ConfigSpace;
use super::function::Function;
use super::unassigned::Unassigned;
use crate::mmio::{MapError, MapMmio, MmioRegion, Registers};

/// Offset of message control in the capability (6.8.2.3).
const CONTROL: u16 = 2;
/// Offset of the table's place: the BAR's number in the low three bits, and the
/// offset in that BAR in the others (6.8.2.4).
const TABLE: u16 = 4;
/// Offset of the pending bit array's place, in the same form (6.8.2.5).
const PENDING: u16 = 8;
/// The bits of a place that are the BAR's number (BIR).
const BIR: u32 = 7;

bitflags! {
    /// Message control. The other bits are the table's size, less one, and
    /// reserved ones.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Control: u16 {
        const TABLE_SIZE = 0x7ff;
        const FUNCTION_MASK = 1 << 14;
        const ENABLE = 1 << 15;
        const _ = !0;
    }
}

/// An entry of the table (6.8.2.6 to 6.8.2.9).
mod entry {
    /// Its length in bytes.
    pub(super) const LEN: u64 = 16;
    /// Message address.
    pub(super) const ADDRESS: u64 = 0;
    /// Message upper address.
    pub(super) const ADDRESS_UPPER: u64 = 4;
    /// Message data.
    pub(super) const DATA: u64 = 8;
    /// Vector control; its other bits are reserved and kept.
    pub(super) const CONTROL: u64 = 12;
    /// Vector control's mask bit.
    pub(super) const MASKED: u32 = 1;
}

/// What a function writes, and where, to interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// The address, a multiple of 4.
    pub address: u64,
    /// The value, 32 bits wide.
    pub data: u32,
}

/// Whether a function has MSI-X, and it is enabled.
///
/// # Errors
///
/// [`CapabilityError`] if the capability list is broken.
pub fn is_enabled(
    config: &(impl ConfigSpace + ?Sized),
    address: PciAddress,
) -> Result<bool, CapabilityError> {
    let control = capabilities::find(config, address, MSI_X)?
        .and_then(|capability| capability.read16(config, address, CONTROL));
    Ok(control.is_some_and(|control| Control::from_bits_retain(control).contains(Control::ENABLE)))
}

/// A function's MSI-X. Dropping it disables MSI-X: a function must not interrupt
/// where nobody listens.
///
/// While MSI-X is enabled, the device-specific configuration of a virtio device's
/// legacy interface begins 4 bytes later (virtio 1.2, 4.1.4.10):
/// [`PciLegacy::from_function`] looks when it is called, so MSI-X is enabled
/// before, and disabled only when that transport is gone.
///
/// [`PciLegacy::from_function`]: crate::transport::pci_legacy::PciLegacy::from_function
pub struct MsiX<C: ConfigSpace> {
    config: C,
    function: PciAddress,
    /// Offset of message control in configuration space.
    control: u16,
    size: u16,
    table: MmioRegion,
    pending: MmioRegion,
}

impl<C: ConfigSpace> MsiX<C> {
    /// The MSI-X of `function`, as it is; `None` if the function has none. Only
    /// the table and the pending bits are mapped.
    ///
    /// # Errors
    ///
    /// [`MsiXError`] if the capability list is broken, or if the table or the
    /// pending bits are not inside a memory BAR that has an address, or cannot be
    /// mapped.
    ///
    /// # Safety
    ///
    /// The function is the caller's, its BARs are as `function` says, decoding of
    /// memory is on, and all stay so while this lives. Nobody else uses its MSI-X.
    pub unsafe fn new(
        function: &Function,
        config: C,
        mapper: &impl MapMmio,
    ) -> Result<Option<Self>, MsiXError> {
        let address = function.address;
        let Some(capability) = capabilities::find(&config, address, MSI_X)? else {
            return Ok(None);
        };
        let truncated = MsiXError::Truncated {
            offset: capability.offset,
        };
        let control = capability.register(CONTROL, 2).ok_or(truncated)?;
        let place = |at| capability.read32(&config, address, at).ok_or(truncated);
        let (table, pending) = (place(TABLE)?, place(PENDING)?);
        let size = (config.read16(address, control) & Control::TABLE_SIZE.bits()) + 1;
        let entries = u64::from(size);
        // SAFETY: the caller's promise.
        let table = unsafe { map(function, Part::Table, table, entries * entry::LEN, mapper) }?;
        // Whole quadwords, whatever is used of the last (6.8.2.10).
        let len = entries.div_ceil(64) * 8;
        // SAFETY: as above.
        let pending = unsafe { map(function, Part::PendingBits, pending, len, mapper) }?;
        Ok(Some(Self {
            config,
            function: address,
            control,
            size,
            table,
            pending,
        }))
    }

    /// Number of entries, 1 to 2048.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Makes `message` an entry's, and unmasks the entry, which is masked while
    /// its message changes (6.8.3.5). [`enable`](Self::enable) comes first: it
    /// masks all entries.
    ///
    /// # Errors
    ///
    /// [`MsiXError::NoEntry`], or [`MsiXError::Address`] if the message's address
    /// is not a multiple of 4 (6.8.2.6).
    ///
    /// # Safety
    ///
    /// The function will write `message` by itself: its address is an interrupt
    /// controller's, or memory that may be written at any time.
    pub unsafe fn set(&mut self, entry: u16, message: Message) -> Result<(), MsiXError> {
        let Message { address, data } = message;
        if !address.is_multiple_of(4) {
            return Err(MsiXError::Address { address });
        }
        self.mask(entry)?;
        for (at, value) in [
            (entry::ADDRESS, address as u32),
            (entry::ADDRESS_UPPER, (address >> 32) as u32),
            (entry::DATA, data),
        ] {
            self.field(entry, at)?.ptr().write(value.to_le());
        }
        self.unmask(entry)
    }

    /// Masks an entry: what it would have sent is pending instead.
    ///
    /// # Errors
    ///
    /// [`MsiXError::NoEntry`].
    pub fn mask(&mut self, entry: u16) -> Result<(), MsiXError> {
        self.set_masked(entry, true)
    }

    /// Unmasks an entry: what is pending is sent.
    ///
    /// # Errors
    ///
    /// [`MsiXError::NoEntry`].
    pub fn unmask(&mut self, entry: u16) -> Result<(), MsiXError> {
        self.set_masked(entry, false)
    }

    /// Whether an entry's message waits for the entry to be unmasked.
    ///
    /// # Errors
    ///
    /// [`MsiXError::NoEntry`].
    pub fn is_pending(&self, entry: u16) -> Result<bool, MsiXError> {
        let at = u64::from(entry / 32) * 4;
        let dword = self.pending.registers::<u32>(at);
        let dword = dword.filter(|_| entry < self.size);
        let bits = dword.ok_or(self.no_entry(entry))?.ptr().read();
        Ok(u32::from_le(bits) & 1 << (entry % 32) != 0)
    }

    /// Enables MSI-X, with all entries masked. From now on the function does not
    /// use its interrupt pin (6.8.3.3). It must not have MSI enabled as well.
    pub fn enable(&mut self) {
        // The function as a whole is masked until each entry is. Enabled it is
        // at once: there are devices whose table takes no writes before that.
        self.change_control(Control::FUNCTION_MASK | Control::ENABLE, Control::empty());
        for entry in 0..self.size {
            // It is there: `size` counts what is in the table.
            let _ = self.mask(entry);
        }
        self.change_control(Control::empty(), Control::FUNCTION_MASK);
    }

    /// Disables MSI-X. The function may use its interrupt pin again, unless its
    /// command register forbids it.
    pub fn disable(&mut self) {
        self.change_control(Control::empty(), Control::ENABLE);
    }

    /// Sets and clears bits of message control; the others stay as they are.
    fn change_control(&mut self, set: Control, clear: Control) {
        let old = Control::from_bits_retain(self.config.read16(self.function, self.control));
        let new = old.difference(clear).union(set);
        // SAFETY: the function's MSI-X is ours (`new`), and sends the messages
        // only that the caller of `set` answers for.
        unsafe { self.config.write16(self.function, self.control, new.bits()) }
    }

    fn set_masked(&mut self, entry: u16, masked: bool) -> Result<(), MsiXError> {
        let register = self.field(entry, entry::CONTROL)?;
        let old = u32::from_le(register.ptr().read());
        let mask = if masked { entry::MASKED } else { 0 };
        let new = old & !entry::MASKED | mask;
        register.ptr().write(new.to_le());
        Ok(())
    }

    /// A field of an entry, which ends where the table ends or before.
    fn field(&self, entry: u16, at: u64) -> Result<Registers<u32>, MsiXError> {
        let field = self.table.registers(u64::from(entry) * entry::LEN + at);
        field.ok_or(self.no_entry(entry))
    }

    fn no_entry(&self, entry: u16) -> MsiXError {
        let size = self.size;
        MsiXError::NoEntry { entry, size }
    }
}

impl<C: ConfigSpace> Drop for MsiX<C> {
    fn drop(&mut self) {
        self.disable();
    }
}

impl<C: ConfigSpace> fmt::Debug for MsiX<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MsiX")
            .field("function", &self.function)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// Maps the `len` bytes at `place`, as the capability gives it.
///
/// # Safety
///
/// The function and its BARs are the caller's.
unsafe fn map(
    function: &Function,
    part: Part,
    place: u32,
    len: u64,
    mapper: &impl MapMmio,
) -> Result<MmioRegion, MsiXError> {
    let (index, offset) = ((place & BIR) as u8, u64::from(place & !BIR));
    let bar: Option<Bar> = function.bars.get(usize::from(index)).copied().flatten();
    let bar = bar
        .filter(|bar| bar.kind != BarKind::Io)
        .ok_or(MsiXError::NoBar { part, bar: index })?;
    let address = bar.address.ok_or(MsiXError::Unassigned {
        part,
        bar: index,
        reason: bar.reason,
    })?;
    if offset + len > bar.size {
        return Err(MsiXError::Outside {
            part,
            bar: index,
            offset,
            len,
            size: bar.size,
        });
    }
    let address = address + offset;
    // SAFETY: inside a BAR of a function that is the caller's.
    let region = unsafe { MmioRegion::map(mapper, address, len) }?;
    let aligned = region.registers::<u32>(0).is_some();
    aligned
        .then_some(region)
        .ok_or(MsiXError::Misaligned { part, address })
}

/// What lies in a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The table of messages.
    Table,
    /// The pending bit array (PBA).
    PendingBits,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Table => "the MSI-X table",
            Self::PendingBits => "the MSI-X pending bit array",
        })
    }
}

/// Why MSI-X, or an entry of it, cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MsiXError {
    /// The capability list is broken.
    Capabilities(CapabilityError),
    /// The capability does not end inside configuration space.
    Truncated {
        /// Its offset there.
        offset: u16,
    },
    /// A part is in a BAR that does not exist, or that is no memory.
    NoBar {
        /// Which part.
        part: Part,
        /// The BAR's number, as the capability gives it.
        bar: u8,
    },
    /// A part is in a BAR that has no address.
    Unassigned {
        /// Which part.
        part: Part,
        /// The BAR's number.
        bar: u8,
        /// Why not.
        reason: Option<Unassigned>,
    },
    /// A part does not fit in its BAR.
    Outside {
        /// Which part.
        part: Part,
        /// The BAR's number.
        bar: u8,
        /// Where it begins in the BAR, in bytes.
        offset: u64,
        /// Its length in bytes.
        len: u64,
        /// The BAR's size in bytes.
        size: u64,
    },
    /// A part is mapped where 32-bit accesses are not aligned.
    Misaligned {
        /// Which part.
        part: Part,
        /// Its physical address.
        address: u64,
    },
    /// A part could not be mapped.
    Map(MapError),
    /// The table has no such entry.
    NoEntry {
        /// The entry asked for.
        entry: u16,
        /// How many there are.
        size: u16,
    },
    /// A message's address is not a multiple of 4.
    Address {
        /// The address.
        address: u64,
    },
}

impl fmt::Display for MsiXError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capabilities(error) => error.fmt(f),
            Self::Truncated { offset } => write!(
                f,
                "the MSI-X capability at offset {offset:#05x} does not fit there"
            ),
            Self::NoBar { part, bar } => {
                write!(f, "{part} is in BAR{bar}, which is no memory BAR")
            }
            Self::Unassigned { part, bar, reason } => {
                write!(f, "{part} is in BAR{bar}, which has no address")?;
                match reason {
                    Some(reason) => write!(f, ": {reason}"),
                    None => Ok(()),
                }
            }
            Self::Outside {
                part,
                bar,
                offset,
                len,
                size,
            } => write!(
                f,
                "{part} at BAR{bar}+{offset:#x}, {len} bytes, is not inside the BAR's {size:#x}"
            ),
            Self::Misaligned { part, address } => {
                write!(f, "{part} at {address:#x} is mapped misaligned")
            }
            Self::Map(error) => error.fmt(f),
            Self::NoEntry { entry, size } => {
                write!(f, "there is no MSI-X entry {entry}: there are {size}")
            }
            Self::Address { address } => {
                write!(
                    f,
                    "an MSI-X message cannot go to {address:#x}: not a multiple of 4"
                )
            }
        }
    }
}

impl core::error::Error for MsiXError {}

impl From<CapabilityError> for MsiXError {
    fn from(error: CapabilityError) -> Self {
        Self::Capabilities(error)
    }
}

impl From<MapError> for MsiXError {
    fn from(error: MapError) -> Self {
        Self::Map(error)
    }
}

#[cfg(test)]
mod tests;
