//! A device over one path with one set of features: what each kind of device is
//! tested in.

use alloc::format;
use alloc::string::{String, ToString};

use doorbell::queue::{QueueMut, SplitRing};
use doorbell::transport::{Interface, NotifyPath, Transport};
use doorbell::virtio::Features;
use doorbell_kernel::clock::Clock;
use doorbell_kernel::commands::way_name;
use doorbell_kernel::drive::{self, FEATURES, Unit, Way};
use doorbell_kernel::machine::Machine;
use doorbell_kernel::platform::dma::KernelDma;
use doorbell_tests::{Outcome, Runner, Stop, Text, ensure};

use crate::witness::Witness;

/// The sets of features that each path is tested with.
pub(crate) const SETS: [(&str, Features); 3] = [
    ("all features", FEATURES),
    ("no features", Features::empty()),
    ("event_idx", Features::EVENT_IDX),
];

/// What a device's tests need to know.
pub(crate) struct Session<'a> {
    /// The machine's clock.
    pub(crate) clock: Clock,
    /// The device.
    pub(crate) unit: &'a Unit,
    /// The way that it is driven.
    pub(crate) way: Way,
    /// The generic features to ask for.
    pub(crate) features: Features,
    /// Their index in [`SETS`].
    pub(crate) set: usize,
    /// What the names of its tests begin with.
    pub(crate) place: String,
    /// The host.
    pub(crate) witness: &'a Witness,
    path: (Interface, NotifyPath),
}

/// A way's name in a test's.
pub(crate) fn path_name(way: Way) -> String {
    way_name(way).replace(", ", "-")
}

/// Runs `test` on a device over one path with each set of features, if the path
/// can be used.
pub(crate) fn each(
    runner: &mut Runner<'_>,
    machine: &Machine,
    unit: &Unit,
    (way, usable): (Way, Result<(), String>),
    witness: &Witness,
    test: fn(&mut Runner<'_>, &Session<'_>, &mut dyn Transport),
) {
    for (set, (name, features)) in SETS.into_iter().enumerate() {
        let kind = unit.name();
        let kind = kind.trim_start_matches("virtio-");
        let place = format!("{kind}/{}/{}/{name}", unit.at(), path_name(way));
        if let Err(reason) = &usable {
            runner.run(&place, || {
                Err(Stop::Skipped(Text::new(format_args!("{reason}"))))
            });
            continue;
        }
        let mut transport = match drive::open(machine, unit, way) {
            Ok(transport) => transport,
            Err(error) => {
                runner.run(&place, || Err(Stop::failed(error)));
                continue;
            }
        };
        let session = Session {
            clock: machine.clock,
            unit,
            way,
            features,
            set,
            place,
            witness,
            path: (transport.interface(), transport.notify_path()),
        };
        test(runner, &session, &mut *transport);
    }
}

impl Session<'_> {
    /// Brings the device up by `start`, as the first test.
    pub(crate) fn start<D>(
        &self,
        runner: &mut Runner<'_>,
        start: impl FnOnce() -> Result<(D, Features), doorbell::device::DeviceError>,
    ) -> Option<D> {
        let mut started = None;
        runner.run(format_args!("{}/comes up", self.place), || {
            let (driver, accepted) = start()?;
            let (accepted, wanted) = (accepted & FEATURES, self.features);
            ensure!(accepted == wanted, "accepted {accepted}, not {wanted}");
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
    pub(crate) fn show(&self, features: Features, queue: QueueMut<'_, SplitRing<KernelDma>>) {
        let doorbells = queue.doorbells();
        let about = "after its tests".to_string();
        let record = drive::device_record(self.unit, self.path, features, queue, about);
        self.witness.device(&self.place, record);
        self.witness.rang(self.unit, doorbells);
    }
}
