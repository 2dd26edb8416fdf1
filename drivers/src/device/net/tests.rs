use std::cell::RefCell;
use std::vec;
use std::vec::Vec;

use super::nic::{self, *};
use super::*;
use crate::device::Driver as _;
use crate::dma::fake::FakeDma;
use crate::queue::QueueError;
use crate::transport::fake::{Event, FakeDevice, FakeTransport, Options, stepping};
use crate::transport::{DeviceStatus, TransportError};
use crate::virtio::Polls;

mod control;
mod faults;
mod pairs;
mod receive;

const RING: Features = Features::INDIRECT_DESC.union(Features::EVENT_IDX);
const MODERN: Features = Features::VERSION_1.union(MAC);
const MERGEABLE: Features = MODERN.union(MRG_RXBUF);

type FakeNet<'d> = Net<FakeTransport<'d>, &'d FakeDma>;

struct Rig<'d> {
    dma: &'d FakeDma,
    device: FakeDevice<'d>,
    nic: RefCell<Nic>,
}

impl<'d> Rig<'d> {
    /// A device with one pair of queues of 16 that offers `features`.
    fn new(dma: &'d FakeDma, features: Features) -> Self {
        Self::with(dma, nic::options(features, 1))
    }

    fn with(dma: &'d FakeDma, options: Options) -> Self {
        Self {
            dma,
            device: FakeDevice::new(dma, options),
            nic: RefCell::new(Nic::new()),
        }
    }

    fn start(&self) -> Result<FakeNet<'d>, DeviceError> {
        self.start_with(1)
    }

    fn start_with(&self, queues: u16) -> Result<FakeNet<'d>, DeviceError> {
        let setup = Setup {
            queues,
            ..Setup::new(16, RING)
        };
        Net::new(self.device.transport(), &setup, self.dma, &mut self.wait())
    }

    /// The device's turn, but for frames that come in. The control queue is the
    /// last one, or queue 2 where MQ was not negotiated (5.1.2).
    fn run(&self) {
        let features = self.device.features();
        let mut queues = 0;
        self.device
            .change(|options| queues = options.queues.len() as u16);
        let control = if features.contains(MQ) { queues - 1 } else { 2 };
        let mut nic = self.nic.borrow_mut();
        for queue in 0..queues {
            if queue == control {
                self.device.process(queue, |chain| nic.control(chain));
            } else if queue % 2 == 1 {
                self.device
                    .process(queue, |chain| nic.transmit(features, chain));
            }
        }
    }

    fn wait(&self) -> impl Wait {
        stepping(|| self.run())
    }

    fn region(&self, len: usize) -> DmaRegion<&'d FakeDma> {
        DmaRegion::new(self.dma, len, 1).unwrap()
    }

    fn frame(&self, len: usize) -> Frame<&'d FakeDma> {
        Frame::new(self.dma, len).unwrap()
    }
}

/// Bytes that are told apart by their place.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

#[test]
fn a_session() {
    for ring in [Features::empty(), RING] {
        for own in [
            MODERN,
            MERGEABLE,
            MAC,
            MAC | MRG_RXBUF,
            MAC | Features::ANY_LAYOUT,
            MAC | MRG_RXBUF | Features::ANY_LAYOUT,
        ] {
            let dma = FakeDma::default();
            let rig = Rig::new(&dma, own | ring);
            let mut net = rig.start().unwrap();
            assert_eq!(net.features(), own | ring);
            assert_eq!(rig.device.features(), own | ring);
            assert_eq!((net.receive_queue(0), net.transmit_queue(0)), (0, 1));
            assert_eq!((net.queues(), net.control_queue()), (2, None));
            net.fill_receive(0, 4, 2048).unwrap();
            assert!(rig.device.rang(0));
            let mut into = [0xee; 2048];
            assert_eq!(net.receive_into(0, &mut into), Ok(None));
            // More frames than buffers: they go back into the queue.
            for len in 60..80 {
                let frame = pattern(len);
                net.send(&frame, &mut rig.wait()).unwrap();
                assert_eq!(rig.nic.borrow_mut().sent.pop(), Some(frame.clone()));
                nic::deliver(&rig.device, 0, &frame);
                assert_eq!(net.receive_into(0, &mut into), Ok(Some(len)));
                assert_eq!(into[..len], frame);
                assert_eq!(into[len..], [0xee; 2048][len..]);
                // With EVENT_IDX it has not asked since the first.
                assert_eq!(rig.device.rang(0), ring.is_empty());
                into.fill(0xee);
            }
            assert_eq!(rig.device.interrupts(0), 0, "nobody asked for one");
            drop(net);
            assert_eq!(rig.device.status(), DeviceStatus::empty());
            assert_eq!(dma.live(), 0);
        }
    }
}

#[test]
fn what_the_device_says_of_itself() {
    let plain = Info {
        mac: None,
        mtu: None,
        max_pairs: 1,
        mergeable: false,
    };
    let dma = FakeDma::default();
    for (features, info) in [
        (Features::empty(), plain),
        (
            MAC | MRG_RXBUF,
            Info {
                mac: Some(ADDRESS),
                mergeable: true,
                ..plain
            },
        ),
        (
            MTU | MQ | CTRL_VQ,
            Info {
                mtu: Some(1500),
                max_pairs: 3,
                ..plain
            },
        ),
    ] {
        let options = nic::options(Features::VERSION_1 | features, 3);
        let rig = Rig::with(&dma, options);
        let net = rig.start().unwrap();
        assert_eq!(net.info(), info);
        let most = if info.mtu.is_some() { 1500 } else { 65521 };
        assert_eq!(info.largest_mtu(), most);
    }
}

#[test]
fn a_feature_that_needs_another_is_not_accepted_alone() {
    // 5.1.3.1
    let dma = FakeDma::default();
    for (offered, accepted) in [
        (CTRL_RX | MQ | CTRL_MAC_ADDR, Features::empty()),
        (CTRL_VQ | CTRL_MAC_ADDR, CTRL_VQ),
        (
            CTRL_VQ | CTRL_RX | MQ | CTRL_MAC_ADDR,
            CTRL_VQ | CTRL_RX | MQ | CTRL_MAC_ADDR,
        ),
        // VIRTIO_F_ANY_LAYOUT is of legacy interfaces.
        (Features::ANY_LAYOUT, Features::empty()),
        // CSUM, GUEST_TSO4, GUEST_ANNOUNCE: nothing that the driver does.
        (
            Features::from_bits_retain(1 | 1 << 7 | 1 << 21),
            Features::empty(),
        ),
    ] {
        let rig = Rig::new(&dma, MODERN | offered);
        let net = rig.start().unwrap();
        assert_eq!(net.features(), MODERN | accepted);
        assert_eq!(net.control_queue().is_some(), accepted.contains(CTRL_VQ));
    }
}

#[test]
fn the_link_is_as_the_device_says_now() {
    let dma = FakeDma::default();
    for features in [MODERN, MODERN | STATUS] {
        let rig = Rig::new(&dma, features);
        let net = rig.start().unwrap();
        assert_eq!(net.link_up(), Ok(true));
        rig.device.change(|options| options.config[6] = 2);
        assert_eq!(net.link_up(), Ok(features == MODERN), "5.1.4.2");
        rig.device.change(|options| options.config[6..8].fill(0xff));
        assert_eq!(net.link_up(), Ok(true));
        rig.device.change(|options| options.gone = true);
        if features.contains(STATUS) {
            assert_eq!(net.link_up(), Err(DeviceError::Gone));
        }
        rig.device.change(|options| options.gone = false);
    }
}

#[test]
fn a_frame_has_a_header_and_no_more_than_the_mtu() {
    let dma = FakeDma::default();
    for (features, mtu) in [(MODERN | MTU, 1500), (MODERN, 65521)] {
        let rig = Rig::new(&dma, features);
        let mut net = rig.start().unwrap();
        let most = usize::from(mtu) + 14;
        for len in [0, 13, most + 1] {
            let error = DeviceError::FrameLength { len, mtu };
            let (refused, frame) = net.submit_transmit(0, rig.frame(len)).unwrap_err();
            assert_eq!((refused, frame.len()), (error, len));
            assert_eq!(net.send(&vec![0; len], &mut rig.wait()), Err(error));
        }
        assert!(rig.device.take(1).is_none(), "none reached the device");
        for len in [14, most] {
            let frame = pattern(len);
            net.send(&frame, &mut rig.wait()).unwrap();
            assert_eq!(rig.nic.borrow_mut().sent.pop(), Some(frame));
        }
    }
}

#[test]
fn an_mtu_above_the_largest_frame_is_cut() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN | MTU);
    rig.device
        .change(|options| options.config[10..12].fill(0xff));
    let mut net = rig.start().unwrap();
    assert_eq!(net.info().mtu, Some(65535));
    let (error, _) = net.submit_transmit(0, rig.frame(65536)).unwrap_err();
    let (len, mtu) = (65536, 65521);
    assert_eq!(error, DeviceError::FrameLength { len, mtu });
    net.submit_transmit(0, rig.frame(65535)).unwrap();
}

#[test]
fn many_frames_are_in_flight_by_one_kick() {
    for features in [MODERN, MAC, MAC | RING] {
        let dma = FakeDma::default();
        let rig = Rig::new(&dma, features);
        let mut net = rig.start().unwrap();
        // A header of its own takes a descriptor, or a table.
        let room = if features == MAC { 8 } else { 16 };
        let mut tokens = Vec::new();
        for n in 0..room {
            let mut frame = rig.frame(60);
            frame.fill(n);
            tokens.push((n, net.submit_transmit(0, frame).unwrap()));
        }
        let (error, frame) = net.submit_transmit(0, rig.frame(60)).unwrap_err();
        let full = DeviceError::Queue(QueueError::Full { needed: 1, free: 0 });
        let full = match features {
            MAC => DeviceError::Queue(QueueError::Full { needed: 2, free: 0 }),
            _ => full,
        };
        assert_eq!((error, frame.len()), (full, 60));
        let busy = DeviceError::Busy {
            in_flight: room.into(),
        };
        assert_eq!(net.send(&[0; 60], &mut rig.wait()), Err(busy));
        assert!(net.queue(1).kick());
        assert_eq!(net.queue(1).doorbells(), 1);
        let mut chains: Vec<_> = core::iter::from_fn(|| rig.device.take(1)).collect();
        chains.rotate_left(3);
        for chain in &chains {
            let written = rig.nic.borrow_mut().transmit(features, chain);
            rig.device.finish(1, chain, written);
        }
        for _ in 0..room {
            let sent = net.poll_transmit(0).unwrap().unwrap();
            assert_eq!(sent.result, Ok(()));
            let at = tokens.iter().position(|&(_, token)| token == sent.token);
            let (n, _) = tokens.remove(at.unwrap());
            assert_eq!(*sent.frame, [n; 60], "zero copy");
        }
        assert!(net.poll_transmit(0).unwrap().is_none());
        drop((net, frame));
        assert_eq!(dma.live(), 0);
    }
}

#[test]
fn a_driver_may_move_to_another_thread() {
    fn is_send<T: Send>() {}
    is_send::<Net<crate::transport::mmio::Mmio, &FakeDma>>();
}
