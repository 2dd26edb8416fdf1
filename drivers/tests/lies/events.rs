//! Lies about when the device wants its doorbell rung (virtio 1.2, 2.7.10, 2.8.10).

use doorbell::device::{DeviceError, Driver};
use doorbell::dma::fake::FakeDma;
use doorbell::transport::DeviceStatus;
use doorbell::transport::fake::{FakeDevice, Options};
use doorbell::virtio::{Features, Polls};

use crate::session::{PACKED, ROUNDS, SIZE, SPLIT, Session, entropy, flipping, rng_options};

const EVENT_IDX: Features = Features::EVENT_IDX;

/// Whether it is the index in a split ring that says so, and not flags.
fn is_index(features: Features) -> bool {
    features.contains(EVENT_IDX) && !features.contains(Features::RING_PACKED)
}

/// Where a device says when it wants a doorbell: behind the used ring's last element,
/// or in the flags before the first; in a packed ring, in a structure of its own.
fn event(session: &mut Session<'_>, features: Features) -> u64 {
    let device = session.ring().device;
    match is_index(features) {
        true => device + 4 + 8 * u64::from(SIZE),
        false => device,
    }
}

/// Whether the doorbell rings for a request, by this event suppression.
fn rings(features: Features, value: u32) -> bool {
    let dma = FakeDma::default();
    let mut session = Session::new(&dma, features);
    session.rng.queue(0).kick();
    session.device.rang(0);
    let at = event(&mut session, features);
    match is_index(features) {
        true => session.write16(at, value as u16),
        // No used index yet is behind a split ring's flags.
        false => session.write32(at, value),
    }
    session.submit(16);
    let due = session.rng.queue(0).kick();
    assert_eq!(session.device.rang(0), due);
    assert!(!session.rng.queue(0).kick(), "nothing new");
    due
}

pub(crate) fn out_of_range() -> String {
    // In a packed ring: a descriptor that there is not, or reserved flags.
    for value in [SIZE, 0x7fff, 0xffff] {
        assert!(rings(PACKED | EVENT_IDX, 2 << 16 | u32::from(value)));
    }
    assert!(rings(PACKED | EVENT_IDX, 3 << 16) && rings(PACKED, 2 << 16));
    // In a split one, any index is one; and reserved flags are ignored (2.7.10).
    assert!(rings(SPLIT, 0xfffe) && !rings(SPLIT, 0xffff));
    assert!(!rings(SPLIT | EVENT_IDX, 3) && rings(SPLIT | EVENT_IDX, 2));
    "by what makes no sense no doorbell is lost".into()
}

pub(crate) fn of_before() -> String {
    assert!(!rings(SPLIT | EVENT_IDX, 1) && !rings(PACKED | EVENT_IDX, 2 << 16 | 0x8001));
    "no doorbell, as the device says".into()
}

pub(crate) fn doorbells_never_wanted() -> String {
    let mut said = String::new();
    for features in [SPLIT, SPLIT | EVENT_IDX, PACKED, PACKED | EVENT_IDX] {
        let dma = FakeDma::default();
        let device = FakeDevice::new(
            &dma,
            Options {
                polls: true,
                ..rng_options(features)
            },
        );
        let mut rng = entropy(&device, &dma, features).unwrap();
        let error = rng.read(&mut [0; 4], &mut Polls(1000)).unwrap_err();
        assert_eq!(error, DeviceError::Timeout);
        assert!(!device.rang(0));
        assert_eq!(device.status(), DeviceStatus::FAILED);
        drop(rng);
        assert_eq!(dma.live(), 0);
        said = error.to_string();
    }
    said
}

pub(crate) fn that_change() -> String {
    // A split ring's event and the padding behind it; a packed one's, both halves.
    for (features, values) in [
        (SPLIT | EVENT_IDX, [0, ROUNDS as u32 / 2]),
        (PACKED | EVENT_IDX, [1 << 16, 2 << 16 | 0x7fff]),
    ] {
        let dma = FakeDma::default();
        let mut session = Session::new(&dma, features);
        let at = event(&mut session, features);
        let at = dma.cpu_pointer(at, 4);
        flipping(at, values, || {
            for _ in 0..ROUNDS {
                let chain = session.submit(16);
                let due = session.rng.queue(0).kick();
                assert_eq!(session.device.rang(0), due);
                session.device.finish(0, &chain, 16);
                assert_eq!(session.rng.poll().unwrap().unwrap().result, Ok(16));
            }
        });
        assert_eq!(session.device.violations(), [""; 0]);
    }
    "a doorbell or none".into()
}
