//! A console device that a person sits at: what is typed at its console port and
//! shown there, and a data port that sends back what comes.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;

use doorbell::device::console::Console;
use doorbell::device::{DeviceError, Setup};
use doorbell::dma::Dma;
use doorbell::transport::Transport;
use doorbell::virtio::{Polls, Wait};

#[cfg(test)]
mod tests;

/// The most ports that are used.
const PORTS: u16 = 8;

/// Buffers for what is typed, and for what comes to be sent back; and their sizes.
const KEYS: (usize, usize) = (4, 256);
const ECHOES: (usize, usize) = (4, 2048);

/// Whether what comes to the port of this name is sent back.
fn is_echoed(name: &str) -> bool {
    name.starts_with("org.doorbell.") && name.ends_with(".data0")
}

/// A console device in use.
pub struct Desk<T: Transport, D: Dma + Clone> {
    console: Console<T, D>,
    /// The console port.
    port: u32,
    /// Whether nobody took what was shown last, so that nobody is waited for.
    unheard: bool,
    echo: Option<Echo>,
}

/// The data port that sends back, and what it has to.
struct Echo {
    port: u32,
    bytes: Box<[u8]>,
    at: usize,
    end: usize,
}

impl<T: Transport, D: Dma + Clone> Desk<T, D> {
    /// Brings the device up, and waits until it has a console port.
    ///
    /// # Errors
    ///
    /// As the driver's.
    pub fn new(
        transport: T,
        setup: &Setup,
        dma: D,
        wait: &mut dyn Wait,
    ) -> Result<Self, DeviceError> {
        let setup = Setup {
            queues: PORTS,
            ..*setup
        };
        let mut console = Console::new(transport, &setup, dma, wait)?;
        let port = console.console_port(wait)?;
        console.fill_receive(port, KEYS.0, KEYS.1)?;
        Ok(Self {
            console,
            port,
            unheard: false,
            echo: None,
        })
    }

    /// The driver.
    pub fn console(&mut self) -> &mut Console<T, D> {
        &mut self.console
    }

    /// The console port's number, and its name if it has one.
    pub fn port(&self) -> (u32, Option<String>) {
        let known = self.console.port(self.port);
        (self.port, known.and_then(|port| Some(port.name()?.into())))
    }

    /// Does what the device is waiting for, and says whether there was anything: to be
    /// called until there is not, before whoever serves it sleeps.
    ///
    /// # Errors
    ///
    /// What made the device be given up.
    pub fn serve(&mut self) -> Result<bool, DeviceError> {
        let mut busy = false;
        while self.console.poll_event()?.is_some() {
            busy = true;
        }
        self.open_echo()?;
        Ok(self.send_back()? | busy)
    }

    /// Opens the data port that sends back, once it is there and whenever it is there
    /// again.
    fn open_echo(&mut self) -> Result<(), DeviceError> {
        let mut ports = self.console.ports();
        let closed = ports.find_map(|(number, port)| {
            let echoed = port.name().is_some_and(is_echoed);
            (echoed && !port.is_open()).then_some(number)
        });
        drop(ports);
        let Some(port) = closed else { return Ok(()) };
        match &self.echo {
            None => {
                self.console.fill_receive(port, ECHOES.0, ECHOES.1)?;
                self.echo = Some(Echo {
                    port,
                    bytes: vec![0; ECHOES.1].into(),
                    at: 0,
                    end: 0,
                });
            }
            // It is one port: the device's buffers for it are still there.
            Some(echo) if echo.port == port => {}
            Some(_) => return Ok(()),
        }
        self.console.open_port(port)
    }

    /// Sends a piece back, and says whether it could.
    fn send_back(&mut self) -> Result<bool, DeviceError> {
        let Some(echo) = &mut self.echo else {
            return Ok(false);
        };
        if echo.at == echo.end {
            (echo.at, echo.end) = (0, self.console.read(echo.port, &mut echo.bytes)?);
        }
        let left = &echo.bytes[echo.at..echo.end];
        if left.is_empty() {
            return Ok(false);
        }
        echo.at += match self.console.write(echo.port, left) {
            Ok(sent) => sent,
            // Nobody is there any more to have it back.
            Err(DeviceError::PortClosed { .. } | DeviceError::PortAbsent { .. }) => left.len(),
            Err(error) => return Err(error),
        };
        Ok(echo.at == echo.end)
    }

    /// What was typed next, if it is here already.
    ///
    /// # Errors
    ///
    /// What made the device be given up.
    pub fn read_byte(&mut self) -> Result<Option<u8>, DeviceError> {
        let mut byte = [0];
        let len = self.console.read(self.port, &mut byte)?;
        Ok((len > 0).then_some(byte[0]))
    }

    /// Shows text. What nobody takes in time is lost, and after that nobody is waited
    /// for until somebody takes something again.
    ///
    /// # Errors
    ///
    /// What made the device be given up.
    pub fn show(&mut self, text: &[u8], wait: &mut dyn Wait) -> Result<(), DeviceError> {
        let (console, port) = (&mut self.console, self.port);
        let shown = if self.unheard {
            console.write_all(port, text, &mut Polls(0))
        } else {
            console.write_all(port, text, wait)
        };
        self.unheard = shown == Err(DeviceError::Timeout);
        match shown {
            Err(
                DeviceError::Timeout
                | DeviceError::PortClosed { .. }
                | DeviceError::PortAbsent { .. },
            ) => Ok(()),
            shown => shown,
        }
    }
}
