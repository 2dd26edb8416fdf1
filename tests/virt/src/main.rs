//! The library on an architecture without IO ports: a small kernel for QEMU's riscv64
//! machine `virt`, which drives virtio devices through every interface that they have
//! and times their doorbells: an IO BAR through the host bridge's window, memory BARs,
//! and virtio-mmio.
//!
//! What the machine has is read from its device tree ([`tree`]). Memory is used as it
//! is, without paging, in machine mode.
#![no_std]
#![no_main]

mod clock;
mod console;
mod finish;
mod memory;
mod path;
mod pci;
mod report;
mod stats;
mod tree;

use core::arch::global_asm;

use doorbell::mmio::MmioRegion;
use doorbell::pci::{EcamWindow, Function};

use self::clock::Timer;
use self::memory::{Arena, Identity};
use self::path::{Path, Way};
use self::tree::Tree;

global_asm!(include_str!("entry.s"));

/// Rounds in which the paths take turns, so that drift hits all alike.
const ROUNDS: usize = 20;
/// The most paths and functions that are looked at.
const MOST: usize = 32;

/// The first Rust; `device_tree` is where QEMU says its device tree is.
#[unsafe(no_mangle)]
extern "C" fn start(device_tree: *const u8) -> ! {
    // SAFETY: QEMU put a device tree there, and nobody writes to it.
    let tree = match unsafe { Tree::at(device_tree) } {
        Ok(tree) => tree,
        // There is nothing to print to.
        Err(_) => finish::park(),
    };
    if let Ok(address) = tree.console() {
        console::init(address);
    }
    finish::init(&tree);
    match run(&tree, device_tree as u64) {
        Ok(()) => finish::end(true),
        Err(error) => {
            report::error(&error);
            finish::end(false)
        }
    }
}

fn run(tree: &Tree<'_>, tree_address: u64) -> Result<(), report::Error> {
    let arena = Arena::new(tree.memory()?, tree_address)?;
    report::boot(tree, &arena)?;

    // PCI: the ECAM, all functions, and addresses out of the host bridge's windows.
    let host = tree.pci()?;
    let (first, last) = host.buses;
    // SAFETY: the device tree says that the ECAM is there, and nobody else uses PCI.
    let ecam = unsafe { EcamWindow::map(&Identity, host.ecam, 0, first, last) }?;
    let windows = [ecam];
    let mut storage = [Function::default(); MOST];
    let bus = pci::Bus::new(&host, &windows, &mut storage)?;
    bus.print();

    // All paths: each interface of each device, with each of its doorbells.
    let mut paths: [Option<Path>; MOST] = [const { None }; MOST];
    let mut free = paths.iter_mut();
    let mut add = |way| match free.next() {
        Some(slot) => {
            *slot = Some(Path::new(way));
            Ok(())
        }
        None => Err(report::Error::TooMany(MOST)),
    };
    bus.ways(&mut add)?;
    tree.virtio_mmio(|address, len| {
        // SAFETY: the device tree says that a virtio-mmio slot is there.
        let region = unsafe { MmioRegion::map(&Identity, address, len) }?;
        add(Way::Slot { address, region })
    })?;

    let mut timer = Timer::default();
    for _ in 0..ROUNDS {
        timer.round();
        for path in paths.iter_mut().flatten() {
            path.round(&bus, &arena)?;
        }
    }
    report::table(paths.iter().flatten(), &timer)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    println!("{info}");
    finish::end(false)
}

/// An exception that nobody expects.
#[unsafe(no_mangle)]
extern "C" fn trapped(cause: u64, at: u64, value: u64) -> ! {
    println!("trap: cause {cause}, at {at:#x}, value {value:#x}");
    finish::end(false)
}
