use std::vec;
use std::vec::Vec;

use virtio_spec::console::F;

use super::*;
use crate::device::Driver as _;
use crate::dma::fake::FakeDma;
use crate::queue::QueueError;
use crate::transport::fake::{FakeDevice, FakeTransport, Lie, Options, stepping};
use crate::transport::{DeviceStatus, RingLayout};
use crate::virtio::Polls;

mod control;
mod data;
mod faults;
mod host;
mod setup;
mod stream;

use host::Host;

const RING: Features = Features::INDIRECT_DESC.union(Features::EVENT_IDX);
const MODERN: Features = Features::VERSION_1.union(Features::RING_RESET);

type FakeConsole<'d> = Console<FakeTransport<'d>, &'d FakeDma>;

fn own(features: F) -> Features {
    features.into()
}

fn legacy(options: &mut Options) {
    options.layout = RingLayout::Contiguous { align: 4096 };
    options.features = options.features.difference(MODERN);
}

/// A device of at most `max_ports` ports, with queues of 16, that offers
/// VIRTIO_CONSOLE_F_MULTIPORT.
fn options(max_ports: u32) -> Options {
    let mut config = vec![80, 0, 25, 0];
    config.extend(max_ports.to_le_bytes());
    config.extend([0; 4]);
    Options {
        device_type: 3,
        features: MODERN | RING | own(F::MULTIPORT),
        queues: vec![16; 2 * (max_ports as usize + 1)],
        config,
        ..Options::default()
    }
}

/// The driver's wish for queues of at most `ports` ports.
fn wish(ports: u16) -> Setup {
    Setup {
        queues: ports,
        ..Setup::new(16, RING | Features::RING_RESET)
    }
}

fn start<'d>(
    device: &FakeDevice<'d>,
    dma: &'d FakeDma,
    ports: u16,
) -> Result<FakeConsole<'d>, DeviceError> {
    Console::new(device.transport(), &wish(ports), dma, &mut Polls(100))
}

/// All that the device has said, after its turns.
fn events<'d>(host: &Host<'d>, console: &mut FakeConsole<'d>) -> Vec<Event> {
    let mut all = Vec::new();
    loop {
        host.run();
        match console.poll_event().unwrap() {
            Some(event) => all.push(event),
            None if host.run() == 0 && console.poll_event().unwrap().is_none() => return all,
            None => {}
        }
    }
}

fn region<'d>(dma: &'d FakeDma, bytes: &[u8]) -> DmaRegion<&'d FakeDma> {
    let mut region = DmaRegion::new(dma, bytes.len(), 1).unwrap();
    region.copy_from_slice(bytes);
    region
}
