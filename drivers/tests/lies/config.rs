//! Lies in the configuration, its generation, and the device status.

use doorbell::device::blk::SECTOR;
use doorbell::device::{DeviceError, Driver};
use doorbell::dma::fake::FakeDma;
use doorbell::queue::QueueError;
use doorbell::transport::fake::{ConfigHook, FakeDevice, Options};
use doorbell::transport::{DeviceStatus, TransportError, read_config_u64};
use doorbell::virtio::{Features, InitError, Polls};

use crate::block;
use crate::session::{SPLIT, Session, entropy, rng_options};

const BLK_SIZE: Features = Features::from_bits_retain(1 << 6);
const MQ: Features = Features::from_bits_retain(1 << 12);
const DISCARD: Features = Features::from_bits_retain(1 << 13);

/// What the driver says of a disk with these bytes in its configuration.
fn refused(features: Features, change: impl FnOnce(&mut Vec<u8>)) -> DeviceError {
    let dma = FakeDma::default();
    let device = FakeDevice::new(&dma, block::options(features));
    device.change(|options| change(&mut options.config));
    let error = block::start(&device, &dma).unwrap_err();
    assert_eq!(device.status(), DeviceStatus::FAILED);
    assert_eq!(dma.live(), 0);
    error
}

pub(crate) fn fields_out_of_range() -> String {
    let field = |features, at: usize, value: u32, field| {
        let bytes = value.to_le_bytes();
        let error = refused(features, |config| {
            config[at..at + 4].copy_from_slice(&bytes);
        });
        let value = value.into();
        assert_eq!(error, DeviceError::Config { field, value });
        error.to_string()
    };
    for size in [0, 511, 513, u32::MAX] {
        field(BLK_SIZE, 20, size, "blk_size");
    }
    field(DISCARD, 36, 0, "max_discard_sectors");
    field(DISCARD, 40, 0, "max_discard_seg");
    field(BLK_SIZE, 20, 511, "blk_size")
}

pub(crate) fn fields_of_before() -> String {
    // The capacity grows, is believed, and is what it was again.
    let dma = FakeDma::default();
    let device = FakeDevice::new(&dma, block::options(Features::empty()));
    let mut blk = block::start(&device, &dma).unwrap();
    for capacity in [32u64, 16] {
        device.change(|options| options.config[..8].copy_from_slice(&capacity.to_le_bytes()));
        assert_eq!(blk.refresh().unwrap().capacity, capacity);
    }
    let error = blk.read(16, &mut [0; SECTOR], &mut Polls(10)).unwrap_err();
    let (sector, count, capacity) = (16, 1, 16);
    let expected = DeviceError::OutOfRange {
        sector,
        count,
        capacity,
    };
    assert_eq!(error, expected);
    error.to_string()
}

/// What a driver reads as the capacity of a disk whose configuration does as `hook`
/// says at each access.
fn capacity(hook: ConfigHook) -> Result<u64, TransportError> {
    let dma = FakeDma::default();
    let device = FakeDevice::new(&dma, block::options(Features::empty()));
    device.leave_status(3);
    device.change(|options| options.config_hook = Some(hook));
    let direct = read_config_u64(&device.transport(), 0);
    // The driver's own reads are as these are.
    match (block::start(&device, &dma), direct) {
        (Ok(_), Ok(_)) => {}
        (Err(error), Err(_)) => {
            let unstable = TransportError::ConfigUnstable { offset: 0 };
            assert_eq!(error, DeviceError::Transport(unstable));
            assert_eq!(device.status(), DeviceStatus::FAILED);
        }
        (driver, direct) => panic!("{driver:?}, {direct:?}"),
    }
    assert_eq!(dma.live(), 0);
    direct
}

const OLD: u64 = 0x1_0000_0001;
const NEW: u64 = 0x2_0000_0002;

fn put(config: &mut [u8], value: u64) {
    config[..8].copy_from_slice(&value.to_le_bytes());
}

/// A configuration that has the new capacity from access `first` on, and where the
/// generation is as `generation` says, of the access and of `first`.
fn change(first: u32, generation: fn(u32, u32) -> u32) -> ConfigHook {
    let mut access = 0;
    Box::new(move |config, counter| {
        access += 1;
        put(config, if access < first { OLD } else { NEW });
        *counter = generation(access, first);
    })
}

fn unstable(hook: ConfigHook) -> String {
    let error = capacity(hook).unwrap_err();
    assert_eq!(error, TransportError::ConfigUnstable { offset: 0 });
    error.to_string()
}

/// Whenever the capacity changes, what is read of it is whole.
fn untorn(generation: fn(u32, u32) -> u32) -> String {
    for first in 1..8 {
        let value = capacity(change(first, generation)).unwrap();
        assert!([OLD, NEW].contains(&value), "{value:#x} is torn");
    }
    "read again, and whole".into()
}

pub(crate) fn fields_that_never_stand_still() -> String {
    let mut access = 0;
    unstable(Box::new(move |config, _| {
        access += 1;
        put(config, access);
    }))
}

pub(crate) fn fields_that_change_once() -> String {
    untorn(|access, first| u32::from(access >= first))
}

pub(crate) fn more_queues_than_there_are() -> String {
    let dma = FakeDma::default();
    let device = FakeDevice::new(&dma, block::options(MQ));
    device.change(|options| options.config[34..36].copy_from_slice(&[0xff, 0xff]));
    let setup = doorbell::device::Setup {
        queues: 2,
        ..doorbell::device::Setup::new(8, SPLIT)
    };
    let blk = block::FakeBlk::new(device.transport(), &setup, &dma, &mut Polls(10));
    let error = blk.unwrap_err();
    let missing = TransportError::NoQueue { queue: 1 };
    assert_eq!(error, DeviceError::Transport(missing));
    assert_eq!(device.status(), DeviceStatus::FAILED);
    assert_eq!(dma.live(), 0);
    error.to_string()
}

pub(crate) fn a_configuration_that_ends_early() -> String {
    let cut = |len| refused(BLK_SIZE, |config: &mut Vec<u8>| config.truncate(len));
    let short = |offset, len, available| {
        DeviceError::Transport(TransportError::ConfigRange {
            offset,
            len,
            available,
        })
    };
    assert_eq!(cut(0), short(0, 8, 0));
    assert_eq!(cut(23), short(20, 4, 23));
    cut(7).to_string()
}

pub(crate) fn generation_at_its_end() -> String {
    untorn(|access, first| u32::MAX.wrapping_add(u32::from(access >= first)))
}

pub(crate) fn generation_that_is_as_before() -> String {
    // It says that nothing changed, and everything did.
    untorn(|_, _| 7)
}

pub(crate) fn generation_that_never_stands_still() -> String {
    unstable(Box::new(|_, generation| *generation += 1))
}

pub(crate) fn generation_that_changes_late() -> String {
    // A change is announced by the access that follows it.
    untorn(|access, first| u32::from(access > first))
}

pub(crate) fn generation_back_and_forth() -> String {
    // So that it differs between both ends of a read of two accesses.
    unstable(Box::new({
        let mut access = 0;
        move |_, generation| {
            access += 1;
            *generation = access / 2 % 2 + access % 2;
        }
    }))
}

/// A device that offers these features, to a driver that wants `wanted`.
fn offers(
    features: Features,
    wanted: Features,
    change: impl FnOnce(&mut Options),
) -> Result<Features, DeviceError> {
    let dma = FakeDma::default();
    let mut options = rng_options(features);
    change(&mut options);
    let device = FakeDevice::new(&dma, options);
    let result = entropy(&device, &dma, wanted).map(|rng| rng.features());
    if result.is_err() {
        assert_eq!(device.status(), DeviceStatus::FAILED);
    }
    assert_eq!(dma.live(), 0);
    result
}

pub(crate) fn features_of_all_kinds() -> String {
    let accepted = offers(Features::from_bits_retain(!0), SPLIT, |_| ());
    assert_eq!(accepted, Ok(SPLIT));
    "accepted are those that the driver knows".into()
}

pub(crate) fn features_that_are_never_agreed_on() -> String {
    let error = offers(SPLIT, SPLIT, |options| options.refuse_features = true).unwrap_err();
    let refused = TransportError::FeaturesRefused { features: SPLIT };
    assert_eq!(error, DeviceError::Init(InitError::Transport(refused)));
    error.to_string()
}

pub(crate) fn features_without_version_1() -> String {
    let error = offers(Features::EVENT_IDX, Features::EVENT_IDX, |_| ()).unwrap_err();
    let features = Features::EVENT_IDX;
    let missing = TransportError::NoVersion1 { features };
    assert_eq!(error, DeviceError::Init(InitError::Transport(missing)));
    error.to_string()
}

pub(crate) fn status_bits_that_are_reserved() -> String {
    let dma = FakeDma::default();
    let mut session = Session::new(&dma, SPLIT);
    session.device.leave_status(0x0f | 0x30);
    assert_eq!(session.rng.health(), Ok(()));
    session.device.finish(0, &session.chains[0], 16);
    assert_eq!(session.rng.poll().unwrap().unwrap().result, Ok(16));
    "ignored".into()
}

pub(crate) fn status_of_before_the_reset() -> String {
    // It is waited for as long as the caller likes.
    let dma = FakeDma::default();
    let device = FakeDevice::new(&dma, rng_options(SPLIT));
    device.leave_status(0x8f);
    device.change(|options| options.reset_reads = 5);
    drop(entropy(&device, &dma, SPLIT).unwrap());
    assert_eq!(dma.live(), 0);
    "waited for".into()
}

pub(crate) fn reset_that_never_ends() -> String {
    let dma = FakeDma::default();
    let mut session = Session::new(&dma, SPLIT);
    session
        .device
        .change(|options| options.reset_reads = u32::MAX);
    let (device, chains) = (session.device.clone(), session.chains.clone());
    let ring = session.ring();
    drop(session);
    // All that the device was told of is its own for ever.
    assert!(dma.is_shared(ring.descriptors, 16 * 8) && dma.is_shared(ring.device, 6 + 8 * 8));
    for chain in chains {
        chain.write(0, &[0xa5; 16]);
    }
    let error = entropy(&device, &dma, SPLIT).unwrap_err();
    assert!(error.to_string().contains("0x0f"), "{error}");
    error.to_string()
}

pub(crate) fn status_that_is_another() -> String {
    let dma = FakeDma::default();
    let mut session = Session::new(&dma, SPLIT);
    session.device.leave_status(0);
    assert_eq!(session.rng.health(), Err(DeviceError::Gone));
    let live = dma.live();
    // A device that says that it was reset, and was not told to, may have it all.
    assert!(!session.rng.close());
    let broken = DeviceError::Queue(QueueError::Broken);
    assert_eq!(session.rng.poll().unwrap_err(), broken);
    for chain in &session.chains {
        chain.write(0, &[0xa5; 16]);
    }
    assert_eq!(dma.live(), live);
    DeviceError::Gone.to_string()
}

pub(crate) fn reset_wanted_for_ever() -> String {
    let dma = FakeDma::default();
    let session = Session::new(&dma, SPLIT);
    session.device.leave_status(0x4f);
    for _ in 0..100 {
        assert_eq!(session.rng.health(), Err(DeviceError::NeedsReset));
    }
    drop(session);
    assert_eq!(dma.live(), 0);
    DeviceError::NeedsReset.to_string()
}
