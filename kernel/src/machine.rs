//! The machine that the kernel finds itself in: what firmware announces, what is
//! on PCI, and where virtio-mmio devices are.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use doorbell::pci::{
    self, Assignment, BusRange, Cam, ConfigSpace, Ecam, EcamWindow, Function, StorageTooSmall,
    Topology,
};
use doorbell::port::X86Ports;
use doorbell_boot::BootInfo;

use crate::arch::tsc;
use crate::clock::Clock;
use crate::interrupt::Interrupts;
use crate::platform::acpi::{self, Acpi};
use crate::platform::apertures;
use crate::platform::dma::KernelMmio;
use crate::platform::gsi::Gsi;
use crate::platform::routing::{self, Route, RouteError};
use crate::platform::virtio_mmio::{self, Slot};
use crate::record::Record;
use crate::world::World;

/// What there is.
pub struct Machine {
    /// What the boot protocol said.
    pub boot: &'static BootInfo,
    /// What the ACPI tables say; empty where there are none.
    pub acpi: Acpi<'static>,
    /// Interrupts, where the CPU takes them.
    pub interrupts: Option<Interrupts>,
    /// PCI, where the machine has it.
    pub pci: Option<Pci>,
    /// Where virtio-mmio devices may be.
    pub mmio: Vec<Slot>,
    /// What was wrong, and did not stop the rest.
    pub problems: Vec<(String, String)>,
    /// How many words of the command line were wrong, as `problems` says.
    pub bad_words: u32,
    /// The clock.
    pub clock: Clock,
    /// What figures from here depend on.
    pub world: World,
}

/// PCI: a way to configuration space, and the functions found there.
pub struct Pci {
    /// Configuration space.
    pub config: &'static dyn ConfigSpace,
    /// The functions, each after the bridge that leads to it, with BARs and
    /// windows assigned.
    pub functions: Vec<Function>,
    /// What was assigned.
    pub assignment: Assignment,
    /// Where each function's interrupt pin leads, in the order of `functions`.
    pub routes: Vec<Result<Route, RouteError>>,
    /// The root buses.
    roots: Vec<BusRange>,
    /// What PCI may use.
    apertures: apertures::Found,
}

impl Machine {
    /// Finds out. What cannot be found out is in [`Machine::problems`].
    ///
    /// # Safety
    ///
    /// Called once, before anything else uses PCI configuration space or an
    /// interrupt controller.
    pub unsafe fn discover(boot: &'static BootInfo) -> Self {
        let mut problems = Vec::new();
        let mut problem = |what: &str, message: String| problems.push((what.to_string(), message));
        let acpi = acpi::discover(&acpi::MappedMemory, boot.rsdp()).unwrap_or_else(|error| {
            problem("acpi", error.to_string());
            Acpi::default()
        });
        for error in &acpi.problems {
            problem("acpi", error.to_string());
        }
        let clock = Clock::new(tsc::frequency(acpi.pm_timer));
        // SAFETY: the caller's promise.
        let interrupts = match unsafe { Interrupts::new(&acpi) } {
            Ok(interrupts) => Some(interrupts),
            Err(error) => {
                problem("interrupts", error.to_string());
                None
            }
        };
        for error in interrupts.iter().flat_map(|own| &own.problems) {
            problem("interrupts", error.to_string());
        }
        // SAFETY: the caller's promise.
        let pci = unsafe { Pci::discover(boot, &acpi, &mut problem) };
        let mmio = virtio_mmio::slots(boot.command_line(), &acpi.aml);
        let mut bad_words = 0;
        for error in mmio.iter().filter_map(|slot| slot.as_ref().err()) {
            problem("command line", error.to_string());
            bad_words += 1;
        }
        let mmio = mmio.into_iter().flatten().collect();
        let world = World::look(clock.frequency);
        Self {
            bad_words,
            world,
            boot,
            acpi,
            interrupts,
            pci,
            mmio,
            problems,
            clock,
        }
    }

    /// Where the interrupt pin of a PCI function leads; or why that is not known.
    ///
    /// # Errors
    ///
    /// A sentence.
    pub fn line_of(&self, function: usize) -> Result<Gsi, String> {
        let pci = self.pci.as_ref();
        let function = pci.and_then(|pci| Some((pci, pci.functions.get(function)?)));
        let (pci, function) = function.ok_or("there is no such PCI function")?;
        let route = pci.route(function).map_err(|error| error.to_string())?;
        Ok(route.gsi)
    }

    /// Reports what was wrong, in words and in records.
    pub fn report_problems(&self) {
        for (what, message) in &self.problems {
            crate::println!("{what}: {message}");
            let (what, message) = (what.clone(), message.clone());
            Record::Error { what, message }.emit();
        }
    }
}

impl Pci {
    /// Where the interrupt pin of a function, one of [`Pci::functions`], leads.
    ///
    /// # Errors
    ///
    /// Why it leads nowhere.
    pub fn route(&self, function: &Function) -> Result<Route, RouteError> {
        let same = |other: &&Function| other.address == function.address;
        let own = self.functions.iter().zip(&self.routes);
        let mut own = own.filter(|(other, _)| same(other));
        own.next()
            .map_or(Err(RouteError::NoPin), |(_, route)| *route)
    }

    /// # Safety
    ///
    /// As for [`Machine::discover`].
    unsafe fn discover(
        boot: &BootInfo,
        acpi: &Acpi<'_>,
        problem: &mut impl FnMut(&str, String),
    ) -> Option<Self> {
        // SAFETY: the caller's promise.
        let (config, roots) = unsafe { config_space(acpi, problem) }?;
        // SAFETY: the caller's promise, and so below.
        unsafe { pci::number_buses(config, &roots) };
        let mut functions = vec![Function::default(); pci::count(config, &roots)];
        let found = apertures::apertures(boot, acpi);
        // SAFETY: nothing uses a function yet.
        let topology = unsafe { Topology::enumerate(config, &roots, &mut functions) };
        let assignment = match topology {
            Ok(mut topology) => {
                // SAFETY: as above.
                unsafe { pci::assign(config, &mut topology, &found.as_apertures()) }
            }
            Err(error) => {
                problem("pci", error.to_string());
                return None;
            }
        };
        // SAFETY: as above.
        let routes = unsafe { routing::routes(acpi, config, &functions) };
        Some(Self {
            config,
            functions,
            assignment,
            routes,
            roots,
            apertures: found,
        })
    }

    /// Looks which functions came or went, and assigns addresses to those that are
    /// new. What was there stays as it is.
    ///
    /// # Errors
    ///
    /// [`StorageTooSmall`] if more came while it looked; then nothing has changed.
    ///
    /// # Safety
    ///
    /// Nobody uses a function that is not in [`Pci::functions`], or that took the
    /// place of one that is. A bridge forwards nothing while its windows change:
    /// nobody, and no interrupt handler, accesses a function now that has a bridge
    /// above it which a new function or an empty slot has above it too.
    pub unsafe fn rescan(&mut self, acpi: &Acpi<'_>) -> Result<(), StorageTooSmall> {
        let mut functions = vec![Function::default(); pci::count(self.config, &self.roots)];
        // SAFETY: the caller's promise; configuration space is this kernel's.
        let mut topology =
            unsafe { Topology::rescan(self.config, &self.roots, &self.functions, &mut functions) }?;
        let apertures = self.apertures.as_apertures();
        // SAFETY: as above.
        self.assignment = unsafe { pci::assign(self.config, &mut topology, &apertures) };
        let found = topology.functions().len();
        functions.truncate(found);
        // SAFETY: as above.
        self.routes = unsafe { routing::routes(acpi, self.config, &functions) };
        self.functions = functions;
        Ok(())
    }
}

/// ECAM where ACPI announces it (MCFG or `_CBA`), else ports 0xCF8 and 0xCFC where they
/// answer.
///
/// # Safety
///
/// As for [`Machine::discover`].
unsafe fn config_space(
    acpi: &Acpi<'_>,
    problem: &mut impl FnMut(&str, String),
) -> Option<(&'static dyn ConfigSpace, Vec<BusRange>)> {
    let mut windows = Vec::new();
    let roots = apertures::roots(acpi);
    for region in &apertures::ecam(acpi) {
        let (segment, first, last) = (region.segment, region.bus_start, region.bus_end);
        // SAFETY: the MCFG says that this is an ECAM; its configuration space is
        // this kernel's.
        match unsafe { EcamWindow::map(&KernelMmio, region.base, segment, first, last) } {
            Ok(window) => windows.push(window),
            Err(error) => {
                let what = format!("ECAM at {:#x}: {error}", region.base);
                problem("pci", what);
            }
        }
    }
    if !windows.is_empty() {
        let config: &'static dyn ConfigSpace = Box::leak(Box::new(Ecam::new(windows.leak())));
        return Some((config, roots));
    }
    // SAFETY: on this platform the ports belong to the mechanism, or to nothing.
    let cam = unsafe { Cam::probe(X86Ports) }?;
    let config: &'static dyn ConfigSpace = Box::leak(Box::new(cam));
    Some((config, roots))
}
