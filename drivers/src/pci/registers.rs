//! Offsets in configuration space (PCI 3.0, 6.1; PCI-to-PCI Bridge 1.2, 3.2),
//! of the dword that holds the register.

/// Vendor ID, device ID.
pub(crate) const ID: u16 = 0x00;
/// Command, status.
pub(crate) const COMMAND: u16 = 0x04;
/// Revision, programming interface, subclass, class.
pub(crate) const CLASS: u16 = 0x08;
/// Cache line size, latency timer, header type, BIST.
pub(crate) const HEADER_TYPE: u16 = 0x0c;
/// The first base address register.
pub(crate) const BAR0: u16 = 0x10;
/// Bridge: primary, secondary and subordinate bus number, latency timer.
pub(crate) const BUS_NUMBERS: u16 = 0x18;
/// Bridge: IO base, IO limit, secondary status.
pub(crate) const IO_WINDOW: u16 = 0x1c;
/// Bridge: memory base, memory limit.
pub(crate) const MEMORY_WINDOW: u16 = 0x20;
/// Bridge: prefetchable memory base and limit.
pub(crate) const PREFETCHABLE_WINDOW: u16 = 0x24;
/// Bridge: the base's upper 32 bits.
pub(crate) const PREFETCHABLE_BASE_UPPER: u16 = 0x28;
/// Bridge: the limit's upper 32 bits.
pub(crate) const PREFETCHABLE_LIMIT_UPPER: u16 = 0x2c;
/// Endpoint: subsystem vendor ID, subsystem ID.
pub(crate) const SUBSYSTEM: u16 = 0x2c;
/// Bridge: the upper 16 bits of IO base and IO limit.
pub(crate) const IO_WINDOW_UPPER: u16 = 0x30;
/// Endpoint: expansion ROM base address.
pub(crate) const ROM: u16 = 0x30;
/// Bridge: expansion ROM base address.
pub(crate) const BRIDGE_ROM: u16 = 0x38;
/// Capabilities pointer.
pub(crate) const CAPABILITIES: u16 = 0x34;
/// Capabilities pointer of a CardBus bridge.
pub(crate) const CARDBUS_CAPABILITIES: u16 = 0x14;
/// Interrupt line, interrupt pin, and a bridge's control register.
pub(crate) const INTERRUPT: u16 = 0x3c;
