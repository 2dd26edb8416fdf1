//! Lies in the header of a received packet (virtio 1.2, 5.1.6.4).

use doorbell::device::net::{Net, Received};
use doorbell::device::{DeviceError, Setup};
use doorbell::dma::DmaRegion;
use doorbell::dma::fake::FakeDma;
use doorbell::queue::QueueError;
use doorbell::transport::DeviceStatus;
use doorbell::transport::fake::{FakeDevice, FakeTransport, Lie, Options};
use doorbell::virtio::{Features, Polls};

use crate::session::{ROUNDS, SPLIT, flipping};

const MRG_RXBUF: Features = Features::from_bits_retain(1 << 15);
/// Where `num_buffers` is, and how long the header.
const NUM_BUFFERS: usize = 10;
const HEADER: usize = 12;
/// Buffers that the device has, and their length.
const POSTED: u16 = 4;
const LEN: usize = 128;

struct Adapter<'d> {
    dma: &'d FakeDma,
    device: FakeDevice<'d>,
    net: Net<FakeTransport<'d>, &'d FakeDma>,
}

impl<'d> Adapter<'d> {
    fn new(dma: &'d FakeDma) -> Self {
        let options = Options {
            device_type: 1,
            features: SPLIT | MRG_RXBUF,
            queues: [8, 8].into(),
            config: vec![0; 24],
            ..Options::default()
        };
        let device = FakeDevice::new(dma, options);
        let setup = Setup::new(8, SPLIT);
        let mut net = Net::new(device.transport(), &setup, dma, &mut Polls(10)).unwrap();
        for _ in 0..POSTED {
            let buffer = DmaRegion::new(dma, LEN, 4).unwrap();
            net.submit_receive(0, buffer).unwrap();
        }
        Self { dma, device, net }
    }

    /// The device fills a buffer: it says that the packet is in `num_buffers`.
    fn fill(&self, num_buffers: u16, written: u32) {
        let chain = self.device.take(0).unwrap();
        chain.write(NUM_BUFFERS, &num_buffers.to_le_bytes());
        self.device.finish(0, &chain, written);
    }

    fn next(&mut self) -> Received<&'d FakeDma> {
        self.net.poll_receive(0).unwrap().unwrap()
    }

    /// The device was given up: `left` buffers come back, as aborted.
    fn ends(mut self, left: u16) {
        assert_eq!(self.device.status(), DeviceStatus::FAILED);
        for _ in 0..left {
            let back = self.next();
            assert_eq!(back.result, Err(DeviceError::Aborted));
            assert_eq!((back.following, back.buffer.len()), (0, LEN));
        }
        let broken = DeviceError::Queue(QueueError::Broken);
        assert_eq!(self.net.poll_receive(0).unwrap_err(), broken);
        drop(self.net);
        assert_eq!(self.dma.live(), 0);
    }
}

/// What a first buffer like this is taken for.
fn refused(num_buffers: u16, written: u32) -> DeviceError {
    let dma = FakeDma::default();
    let mut adapter = Adapter::new(&dma);
    adapter.fill(num_buffers, written);
    let received = adapter.next();
    let error = received.result.clone().unwrap_err();
    assert_eq!(received.following, 0);
    drop(received);
    adapter.ends(POSTED - 1);
    error
}

fn count(num_buffers: u16) -> DeviceError {
    DeviceError::BufferCount {
        num_buffers,
        posted: POSTED,
    }
}

pub(crate) fn num_buffers_out_of_range() -> String {
    for wrong in [0, POSTED + 1, u16::MAX] {
        assert_eq!(refused(wrong, 100), count(wrong));
    }
    count(u16::MAX).to_string()
}

pub(crate) fn a_buffer_given_twice() -> String {
    let dma = FakeDma::default();
    let mut adapter = Adapter::new(&dma);
    let lie = Some(Lie::Replay);
    adapter.device.change(|options| options.lie = lie);
    adapter.fill(1, 100);
    assert_eq!(adapter.next().result, Ok(HEADER..100));
    let error = adapter.net.poll_receive(0).unwrap_err();
    let twice = QueueError::UsedId { id: 0 };
    assert_eq!(error, DeviceError::Queue(twice));
    adapter.ends(POSTED - 1);
    error.to_string()
}

pub(crate) fn a_packet_that_never_ends() -> String {
    let dma = FakeDma::default();
    let mut adapter = Adapter::new(&dma);
    adapter.fill(3, LEN as u32);
    assert_eq!(adapter.next().following, 2);
    adapter.fill(0, 50);
    assert_eq!(adapter.next().following, 1);
    let error = adapter.net.poll_receive(0).unwrap_err();
    assert_eq!(error, DeviceError::IncompletePacket { missing: 1 });
    adapter.ends(POSTED - 2);
    error.to_string()
}

pub(crate) fn num_buffers_that_changes() -> String {
    for _ in 0..ROUNDS {
        let dma = FakeDma::default();
        let mut adapter = Adapter::new(&dma);
        let chain = adapter.device.take(0).unwrap();
        adapter.device.finish(0, &chain, 100);
        let at = chain.buffers()[0].address + 8;
        let at = dma.cpu_pointer(at, 4);
        let received = flipping(at, [2 << 16, 0xffff << 16], || adapter.next());
        match received.result {
            Ok(ref range) => {
                assert_eq!((range.clone(), received.following), (HEADER..100, 1));
            }
            // It is read by bytes: of both values there may be one.
            Err(DeviceError::BufferCount { num_buffers, .. }) => {
                assert!(num_buffers > POSTED && received.following == 0);
                drop(received);
                adapter.ends(POSTED - 1);
            }
            Err(error) => panic!("{error}"),
        }
    }
    let wrong = count(0xffff);
    format!("one of the two values: 1 buffer follows, or {wrong}")
}

pub(crate) fn more_than_the_buffer() -> String {
    let dma = FakeDma::default();
    let mut adapter = Adapter::new(&dma);
    adapter.fill(1, LEN as u32 + 1);
    let error = adapter.net.poll_receive(0).unwrap_err();
    let (written, writable) = (LEN as u32 + 1, LEN as u32);
    let longer = QueueError::UsedLength { written, writable };
    assert_eq!(error, DeviceError::Queue(longer));
    adapter.ends(POSTED);
    error.to_string()
}

pub(crate) fn less_than_the_header() -> String {
    let short = |written| DeviceError::ShortPacket {
        written,
        header: HEADER,
    };
    for written in [0, HEADER - 1] {
        assert_eq!(refused(1, written as u32), short(written));
    }
    short(HEADER - 1).to_string()
}

pub(crate) fn each_buffer_begins_a_packet() -> String {
    // Only the first one's count counts: the packet ends with what was posted.
    let dma = FakeDma::default();
    let mut adapter = Adapter::new(&dma);
    for _ in 0..POSTED {
        adapter.fill(POSTED, LEN as u32);
    }
    for following in (0..POSTED).rev() {
        assert_eq!(adapter.next().following, following);
    }
    for _ in 0..100 {
        assert!(adapter.net.poll_receive(0).unwrap().is_none());
    }
    format!("a packet of {POSTED} buffers, and no more")
}
