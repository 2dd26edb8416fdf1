//! Lies about MSI-X tables and vectors.

use doorbell::device::{DeviceError, Setup, Vectors};
use doorbell::dma::fake::FakeDma;
use doorbell::pci::fake::FakeFunction;
use doorbell::pci::{Message, MsiX, MsiXError};
use doorbell::transport::fake::FakeDevice;
use doorbell::transport::{DeviceStatus, TransportError};
use doorbell::virtio::Polls;

use crate::pci::{Fickle, LEN, Memory, address, bare};
use crate::session::{FakeRng, SPLIT, rng_options};

/// A function whose MSI-X capability, at 0x40, holds these.
fn msix(control: u16, table: u32, pending: u32) -> FakeFunction {
    let mut body = Vec::from(control.to_le_bytes());
    body.extend(table.to_le_bytes());
    body.extend(pending.to_le_bytes());
    bare().capability(0x11, &body).writable(0x40, 0xf800_0000)
}

fn msix_error(function: FakeFunction) -> MsiXError {
    let (config, memory) = (Fickle::honest(function), Memory::new());
    // SAFETY: there is no device.
    let msix = unsafe { MsiX::new(&config.function(), &config, &memory) };
    msix.unwrap_err()
}

pub(crate) fn a_table_in_no_bar() -> String {
    let said = [1, 5, 6, 7].map(|bar| {
        let error = msix_error(msix(2, 0x100 | bar, 0x804));
        let named = matches!(error, MsiXError::NoBar { bar: found, .. } if u32::from(found) == bar);
        assert!(named, "{error}");
        error.to_string()
    });
    said[3].clone()
}

pub(crate) fn a_vector_that_is_never_taken() -> String {
    let dma = FakeDma::default();
    let device = FakeDevice::new(&dma, rng_options(SPLIT));
    let setup = Setup {
        vectors: Vectors::Shared(3),
        ..Setup::new(8, SPLIT)
    };
    let rng = FakeRng::new(device.transport(), &setup, &dma, &mut Polls(10));
    let error = rng.unwrap_err();
    let refused = TransportError::VectorRefused { vector: 3 };
    assert_eq!(error, DeviceError::Transport(refused));
    assert_eq!(device.status(), DeviceStatus::FAILED);
    assert_eq!(dma.live(), 0);
    error.to_string()
}

pub(crate) fn a_table_that_grows() -> String {
    // 3 entries at first, 2048 from then on.
    let config = Fickle::new(msix(2, 0x4, 0x3ff4), 0x40, |_, value| value);
    let (function, memory) = (config.function(), Memory::new());
    // SAFETY: there is no device.
    let msix = unsafe { MsiX::new(&function, &config, &memory) };
    let mut msix = msix.unwrap().unwrap();
    config.pci.change(address(), 0x40, 0x07ff_0000, 0x07ff_0000);
    msix.enable();
    let message = Message {
        address: 0xfee0_0000,
        data: 1,
    };
    // SAFETY: nothing sends it.
    let error = unsafe { msix.set(3, message) }.unwrap_err();
    assert_eq!(error, MsiXError::NoEntry { entry: 3, size: 3 });
    assert_eq!(
        memory.0[6..],
        vec![0; memory.0.len() - 6],
        "behind the three"
    );
    error.to_string()
}

pub(crate) fn a_table_longer_than_its_bar() -> String {
    let error = msix_error(msix(0x7ff, 0x4, 0x3ff4));
    let MsiXError::Outside { len, size, .. } = error else {
        panic!("{error}")
    };
    assert_eq!((len, size), (2048 * 16, LEN));
    error.to_string()
}

pub(crate) fn a_capability_without_room() -> String {
    let function = bare()
        .capability(9, &[])
        .register(0x40, 0xfc09)
        .register(0xfc, 0x0011);
    let error = msix_error(function);
    assert_eq!(error, MsiXError::Truncated { offset: 0xfc });
    error.to_string()
}

pub(crate) fn a_list_that_never_has_it() -> String {
    let function = bare().capability(9, &[]).register(0x40, 0x4009);
    let error = msix_error(function);
    assert!(matches!(error, MsiXError::Capabilities(_)), "{error}");
    error.to_string()
}
