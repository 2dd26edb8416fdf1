//! Changes of a device's configuration that the host can make.

use doorbell::device::blk::{Blk, SECTOR};
use doorbell::device::{Setup, blk, net};
use doorbell::virtio::Features;
use doorbell_kernel::drive::{self, Mode, Unit};
use doorbell_kernel::machine::Machine;
use doorbell_kernel::platform::dma::KernelDma;
use doorbell_tests::{Outcome, Stop};

use crate::witness::Witness;

/// Bytes that a disk grows by.
const MORE: u64 = 64 << 10;

/// A device whose configuration the host can change, again and again.
pub(super) struct Change<'u> {
    pub(super) unit: &'u Unit,
    next: Next,
}

/// What the host does next.
enum Next {
    /// It cuts a network adapter off, or connects it again.
    Link { up: bool },
    /// It gives a disk so many bytes.
    Size { bytes: u64 },
}

impl<'u> Change<'u> {
    /// The first device with such a change.
    pub(super) fn find(machine: &Machine, units: &[&'u Unit], witness: &Witness) -> Option<Self> {
        units.iter().find_map(|&unit| {
            let next = match unit.device_type {
                net::DEVICE_TYPE => Next::Link { up: false },
                blk::DEVICE_TYPE => Next::Size {
                    bytes: growing(machine, unit, witness).ok()?? + MORE,
                },
                _ => return None,
            };
            Some(Self { unit, next })
        })
    }

    /// Has the host make the change.
    pub(super) fn make(&mut self, witness: &Witness) -> Outcome {
        let place = &self.unit.place;
        match &mut self.next {
            Next::Link { up } => {
                witness.ask(place, "net-link", [("up", (*up).into())])?;
                *up = !*up;
            }
            Next::Size { bytes } => {
                witness.ask(place, "resize", [("bytes", (*bytes).into())])?;
                *bytes += MORE;
            }
        }
        Ok(())
    }
}

/// How many bytes a disk has, if it is one that may grow: not all can.
fn growing(machine: &Machine, unit: &Unit, witness: &Witness) -> Result<Option<u64>, Stop> {
    let mut ways = drive::ways(machine, unit).into_iter();
    let Some((way, _)) = ways.find(|(_, usable)| usable.is_ok()) else {
        return Ok(None);
    };
    let opened = drive::open(machine, unit, way, Mode::Polling);
    let mut opened = opened.map_err(Stop::failed)?;
    let wait = &mut machine.clock.patience();
    let setup = Setup::new(8, Features::empty());
    let mut blk = Blk::new(&mut *opened.transport, &setup, KernelDma, wait)?;
    let id = blk.device_id(wait)?;
    witness.rang(unit, drive::doorbells(&mut blk));
    let grows = id.starts_with(b"doorbell-disk") || id.starts_with(b"doorbell-queues");
    Ok(grows.then(|| blk.info().capacity * SECTOR as u64))
}
