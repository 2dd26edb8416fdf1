//! A processor without IO ports: there is nothing that these could be.

use crate::transport::Notify;

/// An `out` to a port, which this processor does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortNotifier {}

impl Notify for PortNotifier {
    fn notify(&self) {
        match *self {}
    }
}

/// A configuration write through ports, which this processor does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CamNotifier {}

impl Notify for CamNotifier {
    fn notify(&self) {
        match *self {}
    }
}

/// A byte at a port, which this processor does not have.
#[derive(Clone, Copy, Debug)]
pub enum PortByte {}

impl PortByte {
    pub(crate) fn read(self) -> u8 {
        match self {}
    }
}
