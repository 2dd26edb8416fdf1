//! A balloon, driven: a request is a page that goes in. It comes out again before
//! the next one, so that nothing stays in the balloon.

use alloc::format;
use alloc::string::String;

use doorbell::device::balloon::{Balloon, DEFLATEQ, INFLATEQ, PAGE};
use doorbell::device::{DeviceError, Driver, Setup};
use doorbell::transport::Transport;

use super::Listener;
use super::driven::{Driven, Spare, spare};
use crate::clock::Clock;
use crate::platform::dma::KernelDma;

pub(super) struct DrivenBalloon<'t> {
    balloon: Balloon<&'t mut dyn Transport, KernelDma>,
    clock: Clock,
    spare: Spare,
}

impl<'t> DrivenBalloon<'t> {
    /// Brings the device up without statistics, which it would ask for at times of
    /// its own.
    pub(super) fn new(
        transport: &'t mut dyn Transport,
        setup: &Setup,
        listener: &Listener<'_>,
    ) -> Result<Self, DeviceError> {
        let wait = &mut listener.bring_up();
        let balloon = Balloon::new(transport, setup, &[], KernelDma, wait)?;
        Ok(Self {
            balloon,
            clock: listener.clock(),
            spare: None,
        })
    }
}

impl Driven for DrivenBalloon<'_> {
    fn submit(&mut self) -> Result<(), DeviceError> {
        let page = spare(&mut self.spare, PAGE)?;
        let submitted = self.balloon.submit_inflate(page);
        submitted.map(drop).map_err(|(error, _)| error)
    }

    /// Takes the page out at once, by a doorbell of the other queue.
    fn reap(&mut self) -> Result<bool, DeviceError> {
        let Some(inflated) = self.balloon.poll_inflate()? else {
            return Ok(false);
        };
        let ballooned = match inflated.result {
            Ok(ballooned) => ballooned,
            Err((error, page)) => {
                self.spare = Some(page);
                return Err(error);
            }
        };
        // It is waited for here, and is not the request's own interrupt.
        self.balloon.queue(DEFLATEQ).set_interrupts(false);
        let page = self
            .balloon
            .deflate(ballooned, &mut self.clock.patience())
            .map_err(|(error, _)| error)?;
        self.spare = Some(page);
        Ok(true)
    }

    fn driver(&mut self) -> &mut dyn Driver<KernelDma> {
        &mut self.balloon
    }

    fn request_queue(&self) -> usize {
        INFLATEQ
    }

    fn exercise(&mut self, listener: &Listener<'_>) -> Result<String, DeviceError> {
        let page = spare(&mut self.spare, PAGE)?;
        let ballooned = self.balloon.inflate(page, &mut listener.patience());
        let ballooned = ballooned.map_err(|(error, _)| error)?;
        let page = self.balloon.deflate(ballooned, &mut listener.patience());
        self.spare = Some(page.map_err(|(error, _)| error)?);
        let oom = if self.balloon.may_deflate_on_oom() {
            ", deflates when memory runs out"
        } else {
            ""
        };
        Ok(format!(
            "{} pages of {PAGE} bytes wanted{oom}; a page went in and came out",
            self.balloon.target()?
        ))
    }
}
