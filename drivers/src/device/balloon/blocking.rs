//! Calls that wait for the device.

use super::{Balloon, Ballooned, DEFLATEQ, INFLATEQ};
use crate::device::{DeviceError, check_idle};
use crate::dma::{Dma, DmaRegion};
use crate::transport::Transport;
use crate::virtio::Wait;

impl<T: Transport, D: Dma + Clone> Balloon<T, D> {
    /// Puts pages into the balloon, as [`submit_inflate`](Self::submit_inflate)
    /// does, and waits until they are there. No other request to inflate may be in
    /// flight.
    ///
    /// # Errors
    ///
    /// [`DeviceError`] that says what failed, and the pages. After
    /// [`DeviceError::Timeout`] the device is given up: pages that do not come
    /// back here then do by [`poll_inflate`](Self::poll_inflate).
    pub fn inflate(
        &mut self,
        pages: DmaRegion<D>,
        wait: &mut dyn Wait,
    ) -> Result<Ballooned<D>, (DeviceError, Option<DmaRegion<D>>)> {
        if let Err(error) = check_idle(&self.link.queue(INFLATEQ)) {
            return Err((error, Some(pages)));
        }
        self.submit_inflate(pages)
            .map_err(|(error, pages)| (error, Some(pages)))?;
        self.link.queue(INFLATEQ).kick();
        let back = self.link.wait(INFLATEQ, wait);
        self.inflated(back.map_err(|error| (error, None))?)
            .result
            .map_err(|(error, pages)| (error, Some(pages)))
    }

    /// Takes pages out of the balloon, as [`submit_deflate`](Self::submit_deflate)
    /// does, and waits until the device has let go of them. No other request to
    /// deflate may be in flight. It takes no memory, so that it can be called where
    /// there is none left.
    ///
    /// # Errors
    ///
    /// [`DeviceError`] that says what failed, and the pages, still in the balloon.
    /// After [`DeviceError::Timeout`] the device is given up: pages that do not
    /// come back here then do by [`poll_deflate`](Self::poll_deflate).
    pub fn deflate(
        &mut self,
        ballooned: Ballooned<D>,
        wait: &mut dyn Wait,
    ) -> Result<DmaRegion<D>, (DeviceError, Option<Ballooned<D>>)> {
        if let Err(error) = check_idle(&self.link.queue(DEFLATEQ)) {
            return Err((error, Some(ballooned)));
        }
        self.submit_deflate(ballooned)
            .map_err(|(error, ballooned)| (error, Some(ballooned)))?;
        self.link.queue(DEFLATEQ).kick();
        let back = self.link.wait(DEFLATEQ, wait);
        Ok(self.deflated(back.map_err(|error| (error, None))?).pages)
    }
}
