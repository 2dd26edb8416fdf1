//! Lies in the used ring of a split queue, and in the descriptors of a packed one.

use doorbell::device::{DeviceError, Driver};
use doorbell::dma::fake::FakeDma;
use doorbell::queue::QueueError;
use doorbell::transport::DeviceStatus;
use doorbell::transport::fake::{Lie, stepping};
use doorbell::virtio::Features;

use crate::session::{PACKED, ROUNDS, SIZE, SPLIT, Session, entropy, flipping};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

fn used_index(index: u16, seen: u16, in_flight: u16) -> QueueError {
    QueueError::UsedIndex {
        index,
        seen,
        in_flight,
    }
}

/// Gives a request back with another ID.
fn id(features: Features, id: u32) -> String {
    let dma = FakeDma::default();
    let session = Session::new(&dma, features);
    session.lie(Lie::Id(id));
    session.device.finish(0, &session.chains[0], 16);
    session.given_up(QueueError::UsedId { id }, 2)
}

/// Gives a request back with this much more than was writable.
fn longer(features: Features, more: u32) -> String {
    let dma = FakeDma::default();
    let session = Session::new(&dma, features);
    session.lie(Lie::Longer(more));
    session.device.finish(0, &session.chains[0], 16);
    let (written, writable) = (16 + more, 16);
    session.given_up(QueueError::UsedLength { written, writable }, 2)
}

/// Gives a request back twice.
fn twice(features: Features) -> String {
    let dma = FakeDma::default();
    let mut session = Session::new(&dma, features);
    session.lie(Lie::Replay);
    session.device.finish(0, &session.chains[0], 16);
    let filled = session.rng.poll().unwrap().unwrap();
    assert_eq!((filled.token.index(), filled.result), (0, Ok(16)));
    drop(filled);
    session.given_up(QueueError::UsedId { id: 0 }, 1)
}

/// Gives back only the other.
fn one_of_two(features: Features) -> String {
    let dma = FakeDma::default();
    let mut session = Session::new(&dma, features);
    session.device.finish(0, &session.chains[1], 16);
    let filled = session.rng.poll().unwrap().unwrap();
    assert_eq!((filled.token.index(), filled.result), (1, Ok(16)));
    drop(filled);
    session.waits(0)
}

/// The device gives nothing back, to who waits for it.
fn silence(features: Features) -> String {
    let dma = FakeDma::default();
    let Session {
        device, mut rng, ..
    } = Session::new(&dma, features);
    assert!(rng.close());
    drop(rng);
    device.change(|options| options.lie = Some(Lie::Silent));
    let mut rng = entropy(&device, &dma, features).unwrap();
    let mut wait = stepping(|| _ = device.process(0, |_| 4));
    let error = rng.read(&mut [0; 4], &mut wait).unwrap_err();
    assert_eq!(error, DeviceError::Timeout);
    assert_eq!(device.status(), DeviceStatus::FAILED);
    let back = rng.poll().unwrap().unwrap();
    assert_eq!(back.result, Err(DeviceError::Aborted));
    drop((back, rng, wait));
    assert_eq!(dma.live(), 0);
    error.to_string()
}

/// A device that gives all requests back and writes nothing, to who waits for bytes.
fn nothing_written(features: Features) -> String {
    let dma = FakeDma::default();
    let Session {
        device,
        mut rng,
        chains,
        ..
    } = Session::new(&dma, features);
    for chain in &chains {
        device.finish(0, chain, 0);
        // Bounded: it is said that there is nothing.
        assert_eq!(rng.poll().unwrap().unwrap().result, Ok(0));
    }
    let mut wait = stepping(|| _ = device.process(0, |_| 0));
    let error = rng.read(&mut [0; 64], &mut wait).unwrap_err();
    let (status, written) = (0, 0);
    assert_eq!(error, DeviceError::BadAnswer { status, written });
    assert_eq!(device.status(), DeviceStatus::FAILED);
    drop((rng, wait));
    assert_eq!(dma.live(), 0);
    error.to_string()
}

/// The first request is given back, and a dword changes all the time meanwhile: it
/// is taken, or the device is given up for `error`.
fn changing(
    features: Features,
    offset: fn(&mut Session<'_>) -> u64,
    values: [u32; 2],
    error: QueueError,
) -> String {
    let (mut taken, mut caught) = (0, 0);
    for _ in 0..ROUNDS {
        // The device goes on after its reset, in memory that was freed.
        let dma = FakeDma::keeping();
        let mut session = Session::new(&dma, features);
        session.device.finish(0, &session.chains[0], 16);
        let at = offset(&mut session);
        let at = dma.cpu_pointer(at, 4);
        match flipping(at, values, || session.rng.poll()) {
            Ok(Some(filled)) => {
                assert_eq!((filled.token.index(), filled.result), (0, Ok(16)));
                taken += 1;
            }
            Ok(None) => panic!("nothing is back"),
            Err(found) => {
                assert_eq!(found, DeviceError::Queue(error));
                session.ends(2);
                caught += 1;
            }
        }
    }
    assert_eq!(taken + caught, ROUNDS);
    format!("one of the two values: taken, or {error}")
}

/// All descriptors lead to themselves, and to buffers of the device's choice.
fn descriptors_that_lead_back(features: Features, flags: u16) -> String {
    let dma = FakeDma::default();
    let mut session = Session::new(&dma, features);
    let table = session.ring().descriptors;
    for index in 0..u64::from(SIZE) {
        let at = table + 16 * index;
        for offset in [0, 4, 8] {
            session.write32(at + offset, u32::MAX);
        }
        let pair = match features {
            PACKED => [0xffff, AVAIL | flags],
            _ => [flags, index as u16],
        };
        session.write16(at + 12, pair[0]);
        session.write16(at + 14, pair[1]);
    }
    for token in [1, 0] {
        session.device.finish(0, &session.chains[token], 16);
        let filled = session.rng.poll().unwrap().unwrap();
        assert_eq!((filled.token.index(), filled.result), (token, Ok(16)));
    }
    for _ in 0..SIZE {
        assert_eq!(session.submit(16).descriptors(), 1);
    }
    assert_eq!(session.device.violations(), [""; 0]);
    "ignored: the driver has notes of its own".into()
}

pub(crate) fn index_ahead() -> String {
    let show = |index| {
        let dma = FakeDma::default();
        let mut session = Session::new(&dma, SPLIT);
        let at = session.ring().device + 2;
        session.write16(at, index);
        session.given_up(used_index(index, 0, 2), 2)
    };
    [3, SIZE, SIZE + 1, 0x8000].map(show)[0].clone()
}

pub(crate) fn index_that_goes_back() -> String {
    let dma = FakeDma::default();
    let mut session = Session::new(&dma, SPLIT);
    session.device.finish(0, &session.chains[0], 16);
    drop(session.rng.poll().unwrap().unwrap());
    let at = session.ring().device + 2;
    session.write16(at, 0);
    session.given_up(used_index(0, 1, 1), 1)
}

pub(crate) fn index_that_stays() -> String {
    silence(SPLIT)
}

pub(crate) fn index_that_changes() -> String {
    // With the flags, which are 0, before it.
    let index = |session: &mut Session<'_>| session.ring().device;
    changing(SPLIT, index, [1 << 16, 9 << 16], used_index(9, 0, 2))
}

pub(crate) fn index_that_runs_for_ever() -> String {
    // One request is really given back; the index goes on as if others were.
    let dma = FakeDma::default();
    let mut session = Session::new(&dma, SPLIT);
    session.device.finish(0, &session.chains[0], 16);
    let at = session.ring().device + 2;
    let (mut taken, mut index) = (0, 1u16);
    let error = loop {
        session.write16(at, index);
        match session.rng.poll() {
            Ok(Some(_)) => taken += 1,
            Ok(None) => {}
            Err(error) => break error,
        }
        index = index.wrapping_add(1);
    };
    // What is in the ring's second entry is zeros: the first request once more.
    assert_eq!(error, DeviceError::Queue(QueueError::UsedId { id: 0 }));
    assert_eq!(taken, 1);
    session.ends(1);
    error.to_string()
}

pub(crate) fn id_out_of_range() -> String {
    [SIZE.into(), 0xffff, u32::MAX].map(|number| id(SPLIT, number))[0].clone()
}

pub(crate) fn id_given_twice() -> String {
    twice(SPLIT)
}

pub(crate) fn id_that_never_comes() -> String {
    one_of_two(SPLIT)
}

pub(crate) fn id_that_changes() -> String {
    let element = |session: &mut Session<'_>| session.ring().device + 4;
    let id = u32::MAX;
    changing(SPLIT, element, [0, id], QueueError::UsedId { id })
}

pub(crate) fn id_of_more_than_16_bits() -> String {
    // Cut to 16 bits they would be requests in flight.
    [0x1_0000, 0x1_0001].map(|number| id(SPLIT, number))[0].clone()
}

pub(crate) fn id_amid_a_loop() -> String {
    descriptors_that_lead_back(SPLIT, NEXT | WRITE)
}

pub(crate) fn length_out_of_range() -> String {
    longer(SPLIT, u32::MAX - 16)
}

pub(crate) fn length_of_another_request() -> String {
    let dma = FakeDma::default();
    let mut session = Session::new(&dma, SPLIT);
    let third = session.submit(4);
    session.device.finish(0, &session.chains[0], 16);
    session.device.finish(0, &third, 16);
    drop(session.rng.poll().unwrap().unwrap());
    let (written, writable) = (16, 4);
    let error = QueueError::UsedLength { written, writable };
    assert_eq!(session.rng.poll().unwrap_err(), DeviceError::Queue(error));
    // Both that it had, the short one too.
    let lens = [(); 2].map(|()| {
        let back = session.rng.poll().unwrap().unwrap();
        assert_eq!(back.result, Err(DeviceError::Aborted));
        back.buffer.len()
    });
    assert_eq!(lens.iter().sum::<usize>(), 16 + 4);
    session.ends(0);
    error.to_string()
}

pub(crate) fn length_that_changes() -> String {
    let length = |session: &mut Session<'_>| session.ring().device + 8;
    let (written, writable) = (17, 16);
    let error = QueueError::UsedLength { written, writable };
    changing(SPLIT, length, [16, 17], error)
}

pub(crate) fn length_of_one_more() -> String {
    longer(SPLIT, 1)
}

pub(crate) fn length_of_nothing() -> String {
    nothing_written(SPLIT)
}

pub(crate) fn flags_of_neither() -> String {
    let write = |flags| {
        let dma = FakeDma::default();
        let mut session = Session::new(&dma, PACKED);
        let at = session.ring().descriptors + 14;
        session.write16(at, flags);
        session.given_up(QueueError::UsedFlags { index: 0, flags }, 2)
    };
    [USED, 0, USED | WRITE].map(write)[0].clone()
}

pub(crate) fn flags_of_a_lap_before() -> String {
    let dma = FakeDma::default();
    let mut session = Session::new(&dma, PACKED);
    for chain in &session.chains {
        session.device.finish(0, chain, 16);
        drop(session.rng.poll().unwrap().unwrap());
    }
    // To the end of the lap; the counter is 0 from there on.
    for _ in 2..SIZE {
        let chain = session.submit(16);
        session.device.finish(0, &chain, 16);
        drop(session.rng.poll().unwrap().unwrap());
    }
    session.submit(16);
    let at = session.ring().descriptors + 14;
    let flags = AVAIL | USED | WRITE;
    session.write16(at, flags);
    session.given_up(QueueError::UsedFlags { index: 0, flags }, 1)
}

pub(crate) fn flags_that_stay() -> String {
    silence(PACKED)
}

pub(crate) fn flags_that_change() -> String {
    // With the ID, which is 0, before them.
    let flags = |session: &mut Session<'_>| session.ring().descriptors + 12;
    let value = |flags: u16| u32::from(flags) << 16;
    let error = QueueError::UsedFlags {
        index: 0,
        flags: USED,
    };
    changing(
        PACKED,
        flags,
        [value(AVAIL | USED | WRITE), value(USED)],
        error,
    )
}

pub(crate) fn flags_of_the_whole_ring() -> String {
    // All descriptors are used, time and again: two are, with their own IDs.
    let dma = FakeDma::default();
    let mut session = Session::new(&dma, PACKED);
    session.lie(Lie::IndexAhead(SIZE));
    session.device.finish(0, &session.chains[0], 16);
    for token in [0, 1] {
        let filled = session.rng.poll().unwrap().unwrap();
        assert_eq!((filled.token.index(), filled.result), (token, Ok(16)));
    }
    session.given_up(QueueError::UsedId { id: 0 }, 0)
}

pub(crate) fn packed_id_out_of_range() -> String {
    [SIZE.into(), 2, 0xffff].map(|number| id(PACKED, number))[0].clone()
}

pub(crate) fn packed_id_given_twice() -> String {
    twice(PACKED)
}

pub(crate) fn packed_id_that_never_comes() -> String {
    one_of_two(PACKED)
}

pub(crate) fn packed_id_that_changes() -> String {
    let id_and_flags = |session: &mut Session<'_>| session.ring().descriptors + 12;
    let value = |id: u32| u32::from(AVAIL | USED | WRITE) << 16 | id;
    let error = QueueError::UsedId { id: 0xffff };
    changing(PACKED, id_and_flags, [value(0), value(0xffff)], error)
}

pub(crate) fn packed_length_of_one_more() -> String {
    [1, u32::MAX - 16].map(|more| longer(PACKED, more))[0].clone()
}

pub(crate) fn packed_length_of_nothing() -> String {
    nothing_written(PACKED)
}

pub(crate) fn packed_chain_that_goes_on() -> String {
    descriptors_that_lead_back(PACKED, NEXT | INDIRECT)
}
