//! All that connects this kernel with the crate `doorbell`. The test suite counts its
//! lines.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use doorbell::device::{Blk, Driver, Net, Setup, Vectors, blk, net};
use doorbell::dma::{Dma, DmaError, DmaMemory};
use doorbell::mmio::{MapError, MapMmio};
use doorbell::pci::{BusRange, Cam, CommandRegister, ConfigSpace, Function, Message};
use doorbell::pci::{MsiX, Topology};
use doorbell::port::X86Ports;
use doorbell::transport::pci::{Structures, device_type};
use doorbell::transport::pci_modern::{NotifyChoice, PciModern};
use doorbell::transport::{IsrBits, IsrStatus, Transport};
use doorbell::virtio::{Features, Wait};
use spin::Mutex;

use super::failed::{Failed, missing};
use super::interrupts::{self, Deadline};
use super::{iommu, memory};

/// Memory for devices: from the bump allocator, so what is freed is lost.
#[derive(Clone, Copy)]
pub(super) struct Frames;

// SAFETY: the allocator gives each address once, and devices see RAM where `iommu` says.
unsafe impl Dma for Frames {
    fn allocate(&self, size: usize, align: usize) -> Result<DmaMemory, DmaError> {
        let physical = memory::allocate(size, align).ok_or(DmaError { size, align })?;
        let pointer = memory::at(physical);
        // SAFETY: RAM that is nobody else's.
        unsafe { pointer.write_bytes(0, size) };
        let address = iommu::bus_address(physical);
        Ok(DmaMemory {
            pointer,
            address,
            size,
            align,
        })
    }

    unsafe fn free(&self, _: DmaMemory) {}
}

struct Registers;

// SAFETY: what is mapped stays so, uncached, and is never handed out as memory.
unsafe impl MapMmio for Registers {
    fn map(&self, address: u64, len: u64) -> Result<NonNull<u8>, MapError> {
        memory::map_device(address, len).ok_or(MapError { address, len })
    }
}

impl Wait for Deadline {
    fn again(&mut self) -> bool {
        self.sleep()
    }
}

const FEATURES: Features = Features::INDIRECT_DESC
    .union(Features::EVENT_IDX)
    .union(Features::ACCESS_PLATFORM);

type Config = Cam<X86Ports>;
type Pci = PciModern<X86Ports, Config>;
pub(super) type Disk = (Blk<Pci, Frames>, MsiX<Config>);
pub(super) type Network = Net<Pci, Frames>;

/// Configuration space: every PC has it at ports 0xCF8 and 0xCFC.
fn config() -> Config {
    // SAFETY: nothing else here uses these ports.
    unsafe { Cam::new(X86Ports) }
}

/// The functions of PCI, with the addresses that firmware gave them.
pub(super) fn functions(storage: &mut [Function]) -> Result<&[Function], Failed> {
    // SAFETY: PCI is this module's, and nothing is in use yet.
    let topology = unsafe { Topology::enumerate(&config(), &[BusRange::ALL], &mut *storage) }?;
    let found = topology.functions().len();
    Ok(&storage[..found])
}

/// The first device of a type, switched on, and its registers.
fn open(functions: &[Function], wanted: u16) -> Result<(&Function, Pci), Failed> {
    let is_it = |function: &&Function| device_type(function) == Some(wanted);
    let function = functions
        .iter()
        .find(is_it)
        .ok_or_else(|| missing("such device"))?;
    let on = CommandRegister::MEMORY_ENABLE | CommandRegister::BUS_MASTER_ENABLE;
    let structures = Structures::read(&config(), function)?;
    // SAFETY: nobody else opens the function, and its BARs stay as they are.
    let transport = unsafe {
        config().set_command(function.address, function.command | on);
        let choice = NotifyChoice::Memory;
        PciModern::new(
            function,
            &structures,
            config(),
            X86Ports,
            &Registers,
            choice,
        )
    }?;
    Ok((function, transport))
}

/// Interrupts of the disk, and of the network.
pub(super) static DISK_HEARD: AtomicU64 = AtomicU64::new(0);
pub(super) static NETWORK_HEARD: AtomicU64 = AtomicU64::new(0);
static NETWORK_ISR: Mutex<Option<IsrStatus>> = Mutex::new(None);

/// The disk, which interrupts by a message.
pub(super) fn disk(functions: &[Function], wait: &mut dyn Wait) -> Result<Disk, Failed> {
    let (function, transport) = open(functions, blk::DEVICE_TYPE)?;
    // SAFETY: `open` gave the function to us alone.
    let msix = unsafe { MsiX::new(function, config(), &Registers) }?;
    let mut msix = msix.ok_or_else(|| missing("MSI-X"))?;
    msix.enable();
    let (address, data) = interrupts::on_message(|| {
        DISK_HEARD.fetch_add(1, Ordering::SeqCst);
    });
    // SAFETY: the message is an interrupt of this CPU's.
    unsafe { msix.set(0, Message { address, data }) }?;
    let setup = Setup {
        vectors: Vectors::Shared(0),
        ..Setup::new(64, FEATURES)
    };
    let mut disk = Blk::new(transport, &setup, Frames, wait)?;
    disk.set_interrupts(true);
    Ok((disk, msix))
}

/// The network card, which interrupts by its line.
pub(super) fn network(functions: &[Function], wait: &mut dyn Wait) -> Result<Network, Failed> {
    let (function, transport) = open(functions, net::DEVICE_TYPE)?;
    *NETWORK_ISR.lock() = Some(transport.isr_status());
    interrupts::on_line(function.interrupt_line, || {
        let isr = NETWORK_ISR.lock().map(|isr| isr.take());
        if isr.is_some_and(|isr| isr.contains(IsrBits::QUEUE_INTERRUPT)) {
            NETWORK_HEARD.fetch_add(1, Ordering::SeqCst);
        }
    });
    let mut network = Net::new(transport, &Setup::new(64, FEATURES), Frames, wait)?;
    network.set_interrupts(true);
    network.fill_receive(0, 8, 2048)?;
    Ok(network)
}
