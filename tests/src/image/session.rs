//! A device over one path with one set of features: what each kind of device is
//! tested in.

use alloc::format;
use alloc::string::{String, ToString};

use doorbell::device::{DeviceError, Driver, Setup};
use doorbell::transport::{Interface, NotifyPath, Transport};
use doorbell::virtio::{Features, Wait};
use doorbell_kernel::commands::way_name;
use doorbell_kernel::drive::{self, FEATURES, Listener, Unit, Way};
use doorbell_kernel::machine::Machine;
use doorbell_kernel::platform::dma::KernelDma;
use doorbell_tests::{Outcome, Runner, Stop, Text, ensure};

use crate::witness::Witness;

/// Devices that offer packed rings are there to be tested with them, and no others
/// offer them: each set asks for them.
const PACKED: Features = Features::RING_PACKED;

/// The sets of features that each path is tested with.
pub(crate) const SETS: [(&str, Features); 3] = [
    ("all features", FEATURES),
    ("no features", PACKED),
    ("event_idx", Features::EVENT_IDX.union(PACKED)),
];

/// What a device's tests need to know.
pub(crate) struct Session<'a> {
    /// The device.
    pub(crate) unit: &'a Unit,
    /// The way that it is driven.
    pub(crate) way: Way,
    /// How it is heard.
    pub(crate) listener: &'a Listener<'a>,
    /// The generic features to ask for.
    pub(crate) features: Features,
    /// Their index in [`SETS`].
    pub(crate) set: usize,
    /// What the names of its tests begin with.
    pub(crate) place: String,
    /// The host.
    pub(crate) witness: &'a Witness,
    /// Whether each instruction is emulated, so that little has to do.
    pub(crate) emulated: bool,
    path: (Interface, NotifyPath),
}

/// A way's name in a test's.
pub(crate) fn path_name(way: Way) -> String {
    way_name(way).replace(", ", "-")
}

/// How a device is tested: over its registers, which are given.
pub(crate) type Test = fn(&mut Runner<'_>, &Session<'_>, &mut dyn Transport);

/// Runs `test` on a device over one path in each mode, and with each set of
/// features, if the path and the mode can be used. What the names of its tests begin
/// with is `before`, if anything.
pub(crate) fn each(
    runner: &mut Runner<'_>,
    machine: &Machine,
    unit: &Unit,
    before: &str,
    (way, usable): (Way, Result<(), String>),
    witness: &Witness,
    test: Test,
) {
    let kind = unit.name();
    let kind = kind.trim_start_matches("virtio-");
    let path = format!("{before}{kind}/{}/{}", unit.at(), path_name(way));
    if let Err(reason) = usable {
        runner.run(&path, || skip(&reason));
        return;
    }
    for (mode, usable) in drive::modes(machine, unit) {
        let path = format!("{path}/{}", mode.name());
        if let Err(reason) = usable {
            runner.run(&path, || skip(&reason));
            continue;
        }
        for (set, (name, features)) in SETS.into_iter().enumerate() {
            let place = format!("{path}/{name}");
            if let Err(reason) = has_time(machine, set) {
                runner.run(&place, || skip(reason));
                continue;
            }
            let mut opened = match drive::open(machine, unit, way, mode) {
                Ok(opened) => opened,
                Err(error) => {
                    runner.run(&place, || Err(Stop::failed(error)));
                    continue;
                }
            };
            let path = opened.path();
            let session = Session {
                unit,
                way,
                listener: &opened.listener,
                features,
                set,
                place,
                witness,
                emulated: machine.world.is_emulated(),
                path,
            };
            test(runner, &session, &mut *opened.transport);
        }
    }
}

/// Whether there is time for the set of features with this index.
fn has_time(machine: &Machine, set: usize) -> Result<(), &'static str> {
    if set > 0 && machine.world.is_emulated() {
        return Err("each instruction is emulated: one set of features has to do");
    }
    Ok(())
}

/// A test that cannot run, and why.
pub(crate) fn skip(reason: &str) -> Outcome {
    Err(Stop::Skipped(Text::new(format_args!("{reason}"))))
}

impl Session<'_> {
    /// What the driver is set up with, with queues of about `queue_size`.
    pub(crate) fn setup(&self, queue_size: u16) -> Setup {
        Setup {
            queue_size,
            ..self.listener.setup(self.features)
        }
    }

    /// Brings the device up by `start`, as the first test.
    pub(crate) fn start<D: Driver<KernelDma>>(
        &self,
        runner: &mut Runner<'_>,
        start: impl FnOnce(&mut dyn Wait) -> Result<D, DeviceError>,
    ) -> Option<D> {
        let mut started = None;
        runner.run(format_args!("{}/comes up", self.place), || {
            let mut driver = start(&mut self.listener.bring_up())?;
            // The host knows which devices have packed rings.
            let known = FEATURES.difference(PACKED);
            let (accepted, wanted) = (driver.features() & known, self.features & known);
            ensure!(accepted == wanted, "accepted {accepted}, not {wanted}");
            driver.set_interrupts(self.listener.interrupts());
            started = Some(driver);
            Ok(())
        });
        started
    }

    /// Runs a test of the device.
    pub(crate) fn run(&self, runner: &mut Runner<'_>, name: &str, test: impl FnOnce() -> Outcome) {
        runner.run(format_args!("{}/{name}", self.place), test);
    }

    /// Shows the device to the host, as it is after its tests.
    pub(crate) fn show(&self, driver: &mut dyn Driver<KernelDma>) {
        let doorbells = drive::doorbells(driver);
        let about = "after its tests".to_string();
        let mode = self.listener.mode();
        let record = drive::device_record(self.unit, self.path, mode, driver, about);
        self.witness.device(&self.place, record);
        self.witness.rang(self.unit, doorbells);
    }
}
