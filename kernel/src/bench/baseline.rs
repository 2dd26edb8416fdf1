//! The instrument itself: an empty loop, and a bare read of a port.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use doorbell::port::{IoSpace, X86Ports};
use doorbell::transport::Notify;

use super::harness::{Nothing, time};
use super::{Case, Series, Timer};
use crate::record::Place;

/// The port that a PC's firmware writes its progress to. Reading it has no
/// effect, and every hypervisor leaves to user space what it reads.
const POST_CODE: u16 = 0x80;

/// Reading a port that does nothing.
struct PortRead;

impl Notify for PortRead {
    #[inline(always)]
    fn notify(&self) {
        // SAFETY: reading this port has no effect.
        unsafe { X86Ports.read8(POST_CODE) };
    }
}

/// An operation of the CPU alone.
pub struct Baseline {
    read: bool,
    series: Series,
}

impl Baseline {
    /// The empty loop; its figures are what is taken off the others'.
    pub fn empty_loop(timer: &mut Timer) -> Self {
        let mut series = Self::named("empty-loop");
        series.batch = timer.batch_for(&Nothing);
        series.net = false;
        Self {
            read: false,
            series,
        }
    }

    /// A read of a port.
    pub fn port_read(timer: &mut Timer) -> Self {
        let mut series = Self::named("port-read");
        series.batch = timer.batch_for(&PortRead);
        Self { read: true, series }
    }

    fn named(name: &'static str) -> Series {
        let mut series = Series::new("baseline", "cpu".to_string(), Place::default());
        series.subtest = Some(name.into());
        series
    }
}

impl Case for Baseline {
    fn name(&self) -> String {
        self.series
            .subtest
            .as_deref()
            .unwrap_or_default()
            .to_string()
    }

    fn round(&mut self, _: &mut Timer, count: u32) -> Result<(), String> {
        let series = &mut self.series;
        for _ in 0..count.div_ceil(series.batch) {
            let cycles = if self.read {
                time(&PortRead, series.batch)
            } else {
                time(&Nothing, series.batch)
            };
            series.record(cycles);
        }
        // There is no device that could miss it.
        series.delivered = series.operations();
        Ok(())
    }

    fn series(&self) -> Vec<&Series> {
        [&self.series].into()
    }
}
