//! A console device, driven: a request is a byte to its first console port.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use doorbell::device::console::{self, Console};
use doorbell::device::{DeviceError, Driver, Setup};
use doorbell::transport::Transport;
use doorbell::virtio::Wait;

use super::Listener;
use super::driven::{Driven, Spare, spare};
use crate::platform::dma::KernelDma;

/// The most ports that are used.
const PORTS: u16 = 8;

/// What a request sends: it moves no cursor.
const NOTHING: u8 = 0;

pub(super) struct DrivenConsole<'t> {
    console: Console<&'t mut dyn Transport, KernelDma>,
    port: u32,
    spare: Spare,
}

impl<'t> DrivenConsole<'t> {
    /// Brings the device up, and waits until it has a console port.
    pub(super) fn new(
        transport: &'t mut dyn Transport,
        setup: &Setup,
        listener: &Listener<'_>,
    ) -> Result<Self, DeviceError> {
        let setup = Setup {
            queues: PORTS,
            ..*setup
        };
        let wait = &mut listener.bring_up();
        let mut console = Console::new(transport, &setup, KernelDma, wait)?;
        let port = console.console_port(wait)?;
        Ok(Self {
            console,
            port,
            spare: None,
        })
    }
}

impl Driven for DrivenConsole<'_> {
    fn submit(&mut self) -> Result<(), DeviceError> {
        let mut buffer = spare(&mut self.spare, 1)?;
        buffer[0] = NOTHING;
        let submitted = self.console.submit_transmit(self.port, buffer, 1);
        submitted.map(drop).map_err(|(error, _)| error)
    }

    fn reap(&mut self) -> Result<bool, DeviceError> {
        let Some(sent) = self.console.poll_transmit(self.port)? else {
            return Ok(false);
        };
        self.spare = Some(sent.buffer);
        sent.result.map(|()| true)
    }

    fn driver(&mut self) -> &mut dyn Driver<KernelDma> {
        &mut self.console
    }

    fn request_queue(&self) -> usize {
        console::transmit_queue(self.port)
    }

    fn exercise(&mut self, listener: &Listener<'_>) -> Result<String, DeviceError> {
        let line = b"doorbell was here\r\n";
        self.console
            .write_all(self.port, line, &mut listener.patience())?;
        let mut patience = listener.bring_up();
        while self.console.poll_event()?.is_some() && patience.again() {}
        let ports = self.console.ports().map(|(number, port)| {
            let kind = if port.is_console() { "console" } else { "data" };
            let host = match port.is_host_open() {
                true => ", host is there",
                false => "",
            };
            let name = port.name().unwrap_or("no name");
            format!("{number} ({kind}, {name}{host})")
        });
        let ports: Vec<_> = ports.collect();
        let size = match self.console.size()? {
            Some((columns, rows)) => format!("{columns} x {rows}; "),
            None => String::new(),
        };
        Ok(format!(
            "{size}ports: {}; wrote {} bytes",
            ports.join(", "),
            line.len()
        ))
    }
}
