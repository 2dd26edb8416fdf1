//! The drivers of the crate `virtio-drivers` over this library's transports, each
//! device over each of its ways. The host sees what they move: pixels, keys, files,
//! sectors, frames and bytes.
//!
//! A legacy PCI device fixes the sizes of its queues, and upstream's are constants.
//! Where they are not the same, the test is that upstream is told so.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use core::sync::atomic::{AtomicU64, Ordering};

use doorbell::compat::{Compat, CompatError, DmaHal, Fault};
use doorbell::device::{blk, console, net, rng};
use doorbell::transport::{DeviceStatus, Interface, NotifyPath, QueueSize, Transport};
use doorbell::virtio::Features;
use doorbell_kernel::clock::Clock;
use doorbell_kernel::drive::{self, Mode, Unit, Way};
use doorbell_kernel::machine::Machine;
use doorbell_kernel::platform::dma::KernelDma;
use doorbell_kernel::record::Argument;
use doorbell_tests::{Outcome, Runner, Stop, ensure};

use self::observed::{Notes, Observed};
use crate::session::{path_name, skip};
use crate::witness::Witness;

mod disk;
mod entropy;
mod files;
mod gpu;
mod input;
mod network;
mod observed;
mod serial;
mod socket;
mod sound;

/// The word on the command line that asks for these tests, and for no others.
const WORD: &str = "upstream";

/// The transport of upstream's drivers here, and their `Hal`.
type Upstream<'t> = Compat<'t, Observed<'t>>;
type Hal = DmaHal<KernelDma>;

/// A kind of device that upstream has a driver for.
struct Kind {
    /// Its virtio device type.
    device_type: u16,
    /// The queues that upstream's driver sets up, in that order, with their sizes.
    queues: &'static [(u16, u16)],
    /// Has upstream bring a device up, and drops it.
    opens: fn(Upstream<'_>) -> virtio_drivers::Result<()>,
    /// Tests a device that is not up yet.
    test: for<'t> fn(&mut Runner<'_>, &Bench<'t>, Upstream<'t>),
}

/// All of them.
const KINDS: [Kind; 9] = [
    Kind {
        device_type: blk::DEVICE_TYPE,
        queues: &[(0, 16)],
        opens: |transport| disk::open(transport).map(drop),
        test: disk::test,
    },
    Kind {
        device_type: net::DEVICE_TYPE,
        queues: &[(1, network::QUEUE_SIZE), (0, network::QUEUE_SIZE)],
        opens: |transport| network::open(transport).map(drop),
        test: network::test,
    },
    Kind {
        device_type: rng::DEVICE_TYPE,
        queues: &[(0, 8)],
        opens: |transport| entropy::open(transport).map(drop),
        test: entropy::test,
    },
    Kind {
        device_type: console::DEVICE_TYPE,
        queues: &[(0, 2), (1, 2)],
        opens: |transport| serial::open(transport).map(drop),
        test: serial::test,
    },
    Kind {
        device_type: files::DEVICE_TYPE,
        queues: &[(0, 16)],
        opens: |transport| files::open(transport).map(drop),
        test: files::test,
    },
    Kind {
        device_type: gpu::DEVICE_TYPE,
        queues: &[(0, 2), (1, 2)],
        opens: |transport| gpu::open(transport).map(drop),
        test: gpu::test,
    },
    Kind {
        device_type: input::DEVICE_TYPE,
        queues: &[(0, 32), (1, 32)],
        opens: |transport| input::open(transport).map(drop),
        test: input::test,
    },
    Kind {
        device_type: sound::DEVICE_TYPE,
        queues: &[(0, 32), (1, 32), (2, 32), (3, 32)],
        opens: |transport| sound::open(transport).map(drop),
        test: sound::test,
    },
    Kind {
        device_type: socket::DEVICE_TYPE,
        queues: &[(0, 8), (1, 8), (2, 8)],
        opens: |transport| socket::open(transport).map(drop),
        test: socket::test,
    },
];

/// What is hidden from upstream's drivers: nothing, and what it is faster without.
const SETS: [(&str, Features); 2] = [
    ("as shipped", Features::empty()),
    ("without event_idx", Features::EVENT_IDX),
];

/// Whether the command line asks for these tests.
pub(crate) fn is_asked_for(machine: &Machine) -> bool {
    let mut words = machine.boot.command_line().split_whitespace();
    words.any(|word| word == WORD)
}

/// Tests each device that upstream has a driver for over each of its ways.
pub(crate) fn run(runner: &mut Runner<'_>, machine: &Machine, units: &[Unit], witness: &Witness) {
    for unit in units {
        let kind = KINDS
            .iter()
            .find(|kind| kind.device_type == unit.device_type);
        let Some(kind) = kind else { continue };
        for (number, (way, usable)) in drive::ways(machine, unit).into_iter().enumerate() {
            let name = unit.name();
            let name = name.trim_start_matches("virtio-");
            let place = format!("upstream/{name}/{}/{}", unit.at(), path_name(way));
            match usable {
                Err(reason) => runner.run(&place, || skip(&reason)),
                Ok(()) => over(runner, machine, unit, witness, kind, way, &place, number),
            }
        }
    }
}

/// Tests a device over one way.
#[expect(clippy::too_many_arguments, reason = "one caller, which has them all")]
fn over(
    runner: &mut Runner<'_>,
    machine: &Machine,
    unit: &Unit,
    witness: &Witness,
    kind: &Kind,
    way: Way,
    place: &str,
    number: usize,
) {
    for (set, (name, hidden)) in SETS.into_iter().enumerate() {
        let place = format!("{place}/{name}");
        let mut opened = match drive::open(machine, unit, way, Mode::Polling) {
            Ok(opened) => opened,
            Err(error) => {
                runner.run(&place, || Err(Stop::failed(error)));
                continue;
            }
        };
        let path = opened.path();
        let misfit = misfit(kind, &mut *opened.transport);
        let (fault, notes, doorbells) = (Fault::new(), Notes::default(), AtomicU64::new(0));
        let transport = Observed::new(&mut *opened.transport, &notes);
        // SAFETY: upstream's drivers keep their rings until they have dropped the
        // transport, and these tests the buffers that they put there.
        let compat = match unsafe { Compat::new(transport, &fault) } {
            Ok(compat) => compat.without(hidden).counting(&doorbells),
            Err(error) => {
                runner.run(&place, || Err(Stop::failed(error)));
                continue;
            }
        };
        if let Some(misfit) = misfit {
            let error = fault.check((kind.opens)(compat)).err();
            let status = opened.transport.status();
            runner.run(format_args!("{place}/is refused"), || {
                refused(error, misfit, status)
            });
            continue;
        }
        let bench = Bench {
            unit,
            path,
            place,
            witness,
            clock: machine.clock,
            fault: &fault,
            notes: &notes,
            doorbells: &doorbells,
            number: (number * SETS.len() + set) as u64,
        };
        (kind.test)(runner, &bench, compat);
    }
}

/// A queue whose size the device fixes, and upstream has another.
#[derive(Clone, Copy)]
struct Misfit {
    queue: u16,
    fixed: u16,
    wanted: u16,
}

/// The first queue that upstream cannot drive through these registers.
fn misfit(kind: &Kind, transport: &mut dyn Transport) -> Option<Misfit> {
    let mut queues = kind.queues.iter();
    queues.find_map(|&(queue, wanted)| match transport.queue_size(queue) {
        Ok(QueueSize::Fixed(fixed)) if fixed != wanted => Some(Misfit {
            queue,
            fixed,
            wanted,
        }),
        _ => None,
    })
}

/// Whether upstream was told of `misfit`, in words that help, and the device is left
/// marked FAILED.
fn refused(error: Option<CompatError>, misfit: Misfit, status: DeviceStatus) -> Outcome {
    let Misfit {
        queue,
        fixed,
        wanted,
    } = misfit;
    let expected = format!(
        "queue {queue} has a fixed size of {fixed}, and virtio-drivers wants {wanted}: \
         drive this device by its modern interface"
    );
    let said = error.map(|error| error.to_string()).unwrap_or_default();
    ensure!(said == expected, "it says \"{said}\"");
    ensure!(
        status == DeviceStatus::FAILED,
        "the device's status is {:#x}",
        status.bits()
    );
    Ok(())
}

/// What the tests of one device over one way, with one set of features, need to know.
struct Bench<'t> {
    unit: &'t Unit,
    path: (Interface, NotifyPath),
    /// What the names of the tests begin with.
    place: String,
    witness: &'t Witness,
    clock: Clock,
    fault: &'t Fault,
    notes: &'t Notes,
    doorbells: &'t AtomicU64,
    /// No other bench of this device has it.
    number: u64,
}

impl<'t> Bench<'t> {
    /// Has upstream bring the device up by `open`, as the first test.
    fn start<D>(
        &self,
        runner: &mut Runner<'_>,
        transport: Upstream<'t>,
        open: impl FnOnce(Upstream<'t>) -> virtio_drivers::Result<D>,
    ) -> Option<Box<D>> {
        let mut started = None;
        self.run(runner, "comes up", || {
            started = Some(Box::new(self.fault.check(open(transport))?));
            Ok(())
        });
        started
    }

    /// Runs a test of the device, whose transport must be whole after it.
    fn run(&self, runner: &mut Runner<'_>, name: &str, test: impl FnOnce() -> Outcome) {
        runner.run(format_args!("{}/{name}", self.place), || {
            test()?;
            self.fault.get().map_or(Ok(()), |fault| Err(fault.into()))
        });
    }

    /// Shows the device to the host, as it is after its tests.
    fn show(&self) {
        let mut record = self.notes.record(self.unit, self.path);
        // The host's kernel has a vsock device's queues and doorbells, and QEMU knows
        // nothing of them.
        let in_qemu = self.unit.device_type != socket::DEVICE_TYPE;
        if !in_qemu {
            record.queues.clear();
        }
        self.witness.device(&self.place, record);
        if in_qemu {
            let doorbells = self.doorbells.load(Ordering::Relaxed);
            self.witness.rang(self.unit, doorbells);
        }
    }

    /// Has the host do something with the device.
    fn ask<const N: usize>(
        &self,
        action: &str,
        arguments: [(&str, Argument<'_>); N],
    ) -> Result<String, Stop> {
        self.witness.ask(&self.unit.place, action, arguments)
    }

    /// A seed that no other bench of this device has.
    fn seed(&self) -> u64 {
        const FIRST: u64 = 0x5EED_00F0_D00B_E11D;
        FIRST.wrapping_mul(2 * self.number + 1)
    }
}
