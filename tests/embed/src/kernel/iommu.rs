//! An Intel IOMMU (VT-d specification 3.0), if there is one: devices see RAM at an offset
//! of their own, and nothing else. Each device has the same view.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use super::failed::{Failed, missing};
use super::memory::{self, MAPPED};
use super::serial::println;

/// Where q35's is; its DMAR table says the same.
const ADDRESS: u64 = 0xfed9_0000;
/// Where devices see physical address 0: 256 GiB, where no machine of ours has RAM.
const OFFSET: u64 = 1 << 38;

/// Offsets of its registers (10.4), and of the one that invalidates the IOTLB in those
/// whose place is in the extended capabilities.
const EXTENDED_CAPABILITIES: usize = 0x10;
const COMMAND: usize = 0x18;
const STATUS: usize = 0x1c;
const ROOT_TABLE: usize = 0x20;
const CONTEXT_COMMAND: usize = 0x28;
const FAULT_STATUS: usize = 0x34;
const IOTLB: usize = 8;
/// Of command and status: translation is on; the root table is taken.
const TRANSLATION: u32 = 1 << 31;
const SET_ROOT_TABLE: u32 = 1 << 30;
/// Invalidate, all there is (10.4.7 and 10.4.8.1).
const ALL_CONTEXTS: u64 = 1 << 63 | 1 << 61;
const ALL_PAGES: u64 = 1 << 63 | 1 << 60;
const BUSY: u64 = 1 << 63;
/// Of a context entry (9.3): tables of three levels, for 39 bits; domain 1.
const THREE_LEVELS: u64 = 1;
const DOMAIN: u64 = 1 << 8;
/// Of an entry of any table: it is there, or may be read; it may be written; it is a
/// page of 2 MiB.
const PRESENT: u64 = 1;
const WRITABLE: u64 = 2;
const LARGE: u64 = 1 << 7;

/// What is added to a physical address.
static SHIFT: AtomicU64 = AtomicU64::new(0);

/// Where devices see a physical address.
pub(super) fn bus_address(physical: u64) -> u64 {
    physical + SHIFT.load(Ordering::SeqCst)
}

/// A machine's IOMMU, which is on.
#[derive(Clone, Copy)]
pub(super) struct Iommu(NonNull<u8>);

impl Iommu {
    /// Builds the tables and turns translation on.
    ///
    /// # Safety
    ///
    /// The machine has an IOMMU, which is off, and no device has been given an address.
    pub(super) unsafe fn start() -> Result<Self, Failed> {
        let iommu = Self(memory::map_device(ADDRESS, 4096).ok_or_else(|| missing("page"))?);
        let [root, contexts, top, gib] = [table()?, table()?, table()?, table()?];
        for n in 0..512 {
            gib.set(n, ((n as u64) << 21) | LARGE | WRITABLE | PRESENT);
        }
        top.set((OFFSET >> 30) as usize, gib.0 | WRITABLE | PRESENT);
        // Two words an entry, one for each function of bus 0, the only bus.
        for function in 0..256 {
            contexts.set(2 * function, top.0 | PRESENT);
            contexts.set(2 * function + 1, DOMAIN | THREE_LEVELS);
        }
        root.set(0, contexts.0 | PRESENT);

        iommu.write(ROOT_TABLE, root.0);
        iommu.command(SET_ROOT_TABLE)?;
        iommu.invalidate(CONTEXT_COMMAND, ALL_CONTEXTS)?;
        let place = (iommu.read::<u64>(EXTENDED_CAPABILITIES) >> 8 & 0x3ff) as usize * 16;
        iommu.invalidate(place + IOTLB, ALL_PAGES)?;
        iommu.command(TRANSLATION)?;
        SHIFT.store(OFFSET, Ordering::SeqCst);
        println!("IOMMU: devices see RAM from {OFFSET:#x} on");
        Ok(iommu)
    }

    /// Whether no device has gone astray.
    pub(super) fn check(self) -> Result<(), Failed> {
        match self.read::<u32>(FAULT_STATUS) {
            0 => Ok(()),
            faults => {
                println!("failed: the IOMMU saw faults: status {faults:#x}");
                Err(Failed)
            }
        }
    }

    fn command(self, bit: u32) -> Result<(), Failed> {
        // One bit at a time; only translation is there to stay (10.4.4).
        self.write(COMMAND, bit);
        self.wait(|| self.read::<u32>(STATUS) & bit != 0)
    }

    fn invalidate(self, register: usize, command: u64) -> Result<(), Failed> {
        self.write(register, command);
        self.wait(|| self.read::<u64>(register) & BUSY == 0)
    }

    fn wait(self, done: impl Fn() -> bool) -> Result<(), Failed> {
        let looks = 1_000_000;
        let found = (0..looks).any(|_| done());
        found
            .then_some(())
            .ok_or_else(|| missing("answer of the IOMMU"))
    }

    fn read<T>(self, register: usize) -> T {
        // SAFETY: `start` mapped the registers, and all contents are valid integers.
        unsafe { self.0.add(register).cast::<T>().read_volatile() }
    }

    fn write<T>(self, register: usize, value: T) {
        // SAFETY: as above; the tables let devices reach what `Dma` gave them.
        unsafe { self.0.add(register).cast::<T>().write_volatile(value) }
    }
}

/// A table of 512 words, by its physical address.
#[derive(Clone, Copy)]
struct Table(u64);

fn table() -> Result<Table, Failed> {
    let address = memory::allocate(4096, 4096).ok_or_else(|| missing("RAM"))?;
    // SAFETY: RAM that is nobody else's.
    unsafe { memory::at(address).write_bytes(0, 4096) };
    Ok(Table(address))
}

impl Table {
    fn set(self, n: usize, word: u64) {
        assert!(n < 512 && self.0 < MAPPED);
        // SAFETY: inside the table, whose RAM is ours.
        unsafe { memory::at(self.0).cast::<u64>().add(n).write_volatile(word) }
    }
}
