//! An entropy device, driven.

use alloc::format;
use alloc::string::String;

use doorbell::device::rng::Rng;
use doorbell::device::{DeviceError, Driver, Setup};
use doorbell::transport::Transport;

use super::Listener;
use super::driven::{Driven, Spare, spare};
use crate::platform::dma::KernelDma;

/// Bytes that one request for entropy asks for.
const ENTROPY: usize = 16;

pub(super) struct DrivenRng<'t> {
    rng: Rng<&'t mut dyn Transport, KernelDma>,
    spare: Spare,
}

impl<'t> DrivenRng<'t> {
    pub(super) fn new(
        transport: &'t mut dyn Transport,
        setup: &Setup,
        listener: &Listener<'_>,
    ) -> Result<Self, DeviceError> {
        let rng = Rng::new(transport, setup, KernelDma, &mut listener.bring_up())?;
        Ok(Self { rng, spare: None })
    }
}

impl Driven for DrivenRng<'_> {
    fn submit(&mut self) -> Result<(), DeviceError> {
        let buffer = spare(&mut self.spare, ENTROPY)?;
        self.rng
            .submit(buffer)
            .map(drop)
            .map_err(|(error, _)| error)
    }

    fn reap(&mut self) -> Result<bool, DeviceError> {
        let Some(filled) = self.rng.poll()? else {
            return Ok(false);
        };
        self.spare = Some(filled.buffer);
        filled.result.map(|_| true)
    }

    fn driver(&mut self) -> &mut dyn Driver<KernelDma> {
        &mut self.rng
    }

    fn exercise(&mut self, listener: &Listener<'_>) -> Result<String, DeviceError> {
        let mut bytes = [0; ENTROPY];
        self.rng.read(&mut bytes, &mut listener.patience())?;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("{ENTROPY} random bytes: {hex}"))
    }
}
