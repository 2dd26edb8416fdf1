//! A block device, driven.

use alloc::format;
use alloc::string::String;
use alloc::vec;

use doorbell::device::blk::{self, Blk, Request};
use doorbell::device::{DeviceError, Driver, Setup};
use doorbell::transport::Transport;

use super::Listener;
use super::driven::{Driven, Spare, spare};
use crate::platform::dma::KernelDma;

pub(super) struct DrivenBlk<'t> {
    blk: Blk<&'t mut dyn Transport, KernelDma>,
    spare: Spare,
}

impl<'t> DrivenBlk<'t> {
    pub(super) fn new(
        transport: &'t mut dyn Transport,
        setup: &Setup,
        listener: &Listener<'_>,
    ) -> Result<Self, DeviceError> {
        let blk = Blk::new(transport, setup, KernelDma, &mut listener.bring_up())?;
        Ok(Self { blk, spare: None })
    }
}

impl Driven for DrivenBlk<'_> {
    fn submit(&mut self) -> Result<(), DeviceError> {
        // A device may refuse less than a block.
        let block = self.blk.info().block_size as usize;
        let buffer = spare(&mut self.spare, block)?;
        let submitted = self.blk.submit(Request::Read { sector: 0, buffer });
        submitted.map(drop).map_err(|(error, _)| error)
    }

    fn reap(&mut self) -> Result<bool, DeviceError> {
        let Some(done) = self.blk.poll()? else {
            return Ok(false);
        };
        self.spare = done.request.into_buffer();
        done.result.map(|()| true)
    }

    fn driver(&mut self) -> &mut dyn Driver<KernelDma> {
        &mut self.blk
    }

    fn exercise(&mut self, listener: &Listener<'_>) -> Result<String, DeviceError> {
        let info = self.blk.info();
        // A device may refuse less than a block.
        let most = (info.capacity as usize).saturating_mul(blk::SECTOR);
        let len = most.min((8 * blk::SECTOR).max(info.block_size as usize));
        if len > 0 {
            let mut data = vec![0; len];
            self.blk.read(0, &mut data, &mut listener.patience())?;
        }
        let id = match self.blk.device_id(&mut listener.patience()) {
            Ok(id) => text(&id),
            Err(DeviceError::Unsupported) => String::new(),
            Err(error) => return Err(error),
        };
        match self.blk.flush(&mut listener.patience()) {
            Ok(()) | Err(DeviceError::Unsupported) => {}
            Err(error) => return Err(error),
        }
        let access = if info.read_only { ", read-only" } else { "" };
        let id = if id.is_empty() {
            "no ID".into()
        } else {
            format!("ID \"{id}\"")
        };
        Ok(format!(
            "{} sectors of 512 bytes ({} KiB), blocks of {} bytes{access}, {id}; read {len} bytes",
            info.capacity,
            info.capacity / 2,
            info.block_size,
        ))
    }
}

/// The text in a padded field, its control characters shown as `?`.
fn text(field: &[u8]) -> String {
    let text = field.split(|&byte| byte == 0).next().unwrap_or_default();
    text.iter()
        .map(|&byte| {
            if byte.is_ascii_graphic() || byte == b' ' {
                byte as char
            } else {
                '?'
            }
        })
        .collect()
}
