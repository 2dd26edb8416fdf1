//! Several pairs of queues (virtio 1.2, 5.1.6.5.6): net2's tap has two. The kernel at its
//! other end answers pings, each by the pair that its flow came from last.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use doorbell::device::net::{Frame, Net};
use doorbell::device::{DeviceError, Driver as _, Setup};
use doorbell::transport::Transport;
use doorbell::virtio::Wait as _;
use doorbell_kernel::arch::tsc;
use doorbell_kernel::drive::{self, Mode};
use doorbell_kernel::platform::dma::KernelDma;
use doorbell_tests::{Outcome, Runner, Stop, ensure};

use super::ping::{self, Ping};
use super::wire::Driver;
use super::{BUFFER, PAIRS};
use crate::session::Session;

/// Pings at once on each pair.
const PINGS: usize = 16;

/// A ping, by a pair of queues and of a flow.
type By = (u16, u8);

/// The device and its session.
struct Pairs<'a, 't> {
    net: Driver<'t>,
    session: &'a Session<'a>,
    /// Tells this session's pings from another's.
    identifier: u16,
    sequence: u16,
}

/// Tests the device with both pairs.
pub(super) fn both(runner: &mut Runner<'_>, session: &Session<'_>, net: Driver<'_>) {
    let mut pairs = Pairs::new(net, session);
    let mut run = |name: &str, test: fn(&mut Pairs<'_, '_>) -> Outcome| {
        session.run(runner, name, || test(&mut pairs));
    };
    run("has both pairs", |pairs| pairs.fill(PAIRS));
    run("answers come by the pair that was asked", asked);
    run("a flow moves to another pair", moves);
    run("a pair is switched off and on", switched);
    if session.listener.mode() == Mode::MsixPerQueue {
        run("each pair interrupts by its own vector", vectors);
    }
    session.show(&mut pairs.net);
}

/// With one pair of the two that the device has: the control queue is behind both.
pub(super) fn one(transport: &mut dyn Transport, setup: &Setup, session: &Session<'_>) -> Outcome {
    let setup = Setup {
        queues: 1,
        ..*setup
    };
    let listener = session.listener;
    let mut net = Net::new(transport, &setup, KernelDma, &mut listener.bring_up())?;
    net.set_interrupts(listener.interrupts());
    let mut pairs = Pairs::new(net, session);
    let outcome = alone(&mut pairs);
    let doorbells = drive::doorbells(&mut pairs.net);
    session.witness.rang(session.unit, doorbells);
    outcome
}

impl<'a, 't> Pairs<'a, 't> {
    fn new(net: Driver<'t>, session: &'a Session<'a>) -> Self {
        Self {
            net,
            session,
            identifier: tsc::start() as u16,
            sequence: 0,
        }
    }

    /// Gives each pair receive buffers, if there are so many and all are on.
    fn fill(&mut self, wanted: u16) -> Outcome {
        let (pairs, active) = (self.net.pairs(), self.net.active_pairs());
        ensure!(
            (pairs, active) == (wanted, wanted) && self.net.info().max_pairs == PAIRS,
            "{active} of {pairs} pairs are on: {:?}",
            self.net.info()
        );
        for pair in 0..pairs {
            self.net.fill_receive(pair, 2 * PINGS as u16, BUFFER)?;
        }
        Ok(())
    }

    fn set(&mut self, pairs: u16) -> Result<(), DeviceError> {
        let listener = self.session.listener;
        self.net.set_pairs(pairs, &mut listener.patience())
    }

    /// Sends pings, all at once, and returns the first one's number.
    fn send(&mut self, pings: &[By]) -> Result<u16, Stop> {
        let first = self.sequence;
        let mac = self.net.info().mac.unwrap_or_default();
        for &(pair, flow) in pings {
            let mut frame = Frame::new(KernelDma, ping::LEN)?;
            self.ping(flow, self.sequence).write(mac, &mut frame);
            let submitted = self.net.submit_transmit(pair, frame);
            submitted.map_err(|(error, _)| error)?;
            self.sequence += 1;
        }
        for pair in 0..self.net.active_pairs() {
            let queue = self.net.transmit_queue(pair);
            self.net.queue(queue).kick();
        }
        Ok(first)
    }

    /// Waits for the answers to pings that were sent, and says by which pair each came.
    fn answers(&mut self, first: u16, pings: &[By]) -> Result<Vec<u16>, Stop> {
        let mut came: Vec<Option<u16>> = vec![None; pings.len()];
        let mut sent = 0;
        let mut frame = [0; BUFFER];
        let mut patience = self.session.listener.patience();
        while sent < pings.len() || came.contains(&None) {
            let mut moved = false;
            for pair in 0..self.net.pairs() {
                while let Some(back) = self.net.poll_transmit(pair)? {
                    back.result?;
                    sent += 1;
                    moved = true;
                }
                while let Some(len) = self.net.receive_into(pair, &mut frame)? {
                    moved = true;
                    let frame = &frame[..len];
                    let Some((place, ping)) = self.answered(first, pings, frame) else {
                        continue;
                    };
                    ping.check(frame)?;
                    let before = came[place].replace(pair);
                    ensure!(before.is_none(), "{ping:?} was answered twice");
                }
            }
            if moved {
                patience = self.session.listener.patience();
                continue;
            }
            ensure!(
                patience.again(),
                "of {} pings {sent} were sent, and answers came by {came:?}",
                pings.len()
            );
        }
        Ok(came.into_iter().flatten().collect())
    }

    /// Waits for the answers to pings that were sent, and checks that each comes by the
    /// pair that it was sent by.
    fn come_back(&mut self, first: u16, pings: &[By]) -> Outcome {
        let came = self.answers(first, pings)?;
        let sent = pings.iter().map(|(pair, _)| *pair);
        ensure!(
            sent.eq(came.iter().copied()),
            "of {pings:?}, by pair and of flow, answers came by {came:?}"
        );
        Ok(())
    }

    /// Which ping a frame answers, if it is one of those that were sent.
    fn answered(&self, first: u16, pings: &[By], frame: &[u8]) -> Option<(usize, Ping)> {
        let answer = Ping::answered(frame)?;
        let place = usize::from(answer.sequence.wrapping_sub(first));
        let &(_, flow) = pings.get(place)?;
        (answer == self.ping(flow, answer.sequence)).then_some((place, answer))
    }

    fn ping(&self, flow: u8, sequence: u16) -> Ping {
        Ping {
            flow,
            identifier: self.identifier,
            sequence,
        }
    }

    /// Sends pings after others of the same flows, and checks what comes back: the kernel
    /// answers first, and only then notes which pair the flow is on.
    fn exchange(&mut self, pings: &[By]) -> Outcome {
        let first = self.send(pings)?;
        self.answers(first, pings)?;
        let first = self.send(pings)?;
        self.come_back(first, pings)
    }

    /// What the kernel counted since it was asked last.
    fn moved(&self) -> Result<alloc::string::String, Stop> {
        let Session { witness, unit, .. } = self.session;
        witness.ask(&unit.place, "tap-moved", [])
    }
}

/// Two flows a pair, and many pings of each at once.
fn asked(pairs: &mut Pairs<'_, '_>) -> Outcome {
    const FLOWS: [By; 4] = [(0, 0), (1, 1), (0, 2), (1, 3)];
    pairs.moved()?;
    let pings: Vec<By> = FLOWS.into_iter().cycle().take(2 * PINGS).collect();
    pairs.exchange(&pings)?;
    let (moved, wanted) = (pairs.moved()?, format!("{0} {0}", 2 * pings.len()));
    ensure!(
        moved == wanted,
        "the kernel had {moved} frames, of {wanted}"
    );
    Ok(())
}

fn moves(pairs: &mut Pairs<'_, '_>) -> Outcome {
    for pair in [0, 1, 0] {
        pairs.exchange(&[(pair, 0), (1 - pair, 1)])?;
    }
    Ok(())
}

fn switched(pairs: &mut Pairs<'_, '_>) -> Outcome {
    pairs.exchange(&[(0, 0), (1, 1)])?;
    pairs.set(1)?;
    let outcome = off(pairs);
    pairs.set(PAIRS)?;
    outcome?;
    pairs.exchange(&[(1, 1), (0, 0), (1, 2)])
}

fn off(pairs: &mut Pairs<'_, '_>) -> Outcome {
    let refused = pairs
        .net
        .submit_transmit(1, Frame::new(KernelDma, ping::LEN)?);
    let error = refused.map_err(|(error, _)| error);
    let expected = DeviceError::NoPair { pair: 1, pairs: 1 };
    ensure!(error == Err(expected), "it says {error:?}");
    // The kernel knows too that nothing can be on the other one any more.
    let moved = [(0, 1)];
    let first = pairs.send(&moved)?;
    pairs.come_back(first, &moved)?;
    pairs.exchange(&[(0, 0), (0, 1)])
}

/// An answer interrupts by its own pair's vector alone.
fn vectors(pairs: &mut Pairs<'_, '_>) -> Outcome {
    let listener = pairs.session.listener;
    let queues = [0, 1].map(|pair| pairs.net.receive_queue(pair) as u16);
    let count = || queues.map(|queue| listener.interrupts_of_queue(queue).unwrap_or(0));
    for round in 0..3 {
        for (place, expected) in [[1, 0], [0, 1]].into_iter().enumerate() {
            let pings = [(place as u16, place as u8)];
            let before = count();
            let first = pairs.send(&pings)?;
            // Only then it looks: who looks before is spared an interrupt.
            let mut patience = listener.patience();
            while count()[place] == before[place] {
                ensure!(patience.again(), "no answer interrupted for pair {place}");
            }
            pairs.come_back(first, &pings)?;
            let after = count();
            let came = [0, 1].map(|pair| after[pair] - before[pair]);
            // What came before this may still have interrupted in the first.
            ensure!(
                round == 0 || came == expected,
                "a ping by pair {place} interrupted {came:?} times"
            );
        }
    }
    Ok(())
}

fn alone(pairs: &mut Pairs<'_, '_>) -> Outcome {
    pairs.fill(1)?;
    pairs.exchange(&[(0, 0), (0, 1), (0, 2)])?;
    let listener = pairs.session.listener;
    // By the control queue.
    pairs.net.set_promiscuous(false, &mut listener.patience())?;
    pairs.set(1)?;
    let error = pairs.set(PAIRS);
    let expected = DeviceError::PairCount {
        wanted: PAIRS,
        pairs: 1,
    };
    ensure!(error == Err(expected), "it says {error:?}");
    pairs.exchange(&[(0, 0), (0, 1), (0, 2)])
}
