//! Entropy devices, over one path at a time.

use alloc::format;
use alloc::string::String;

use doorbell::device::rng::Rng;
use doorbell::dma::DmaRegion;
use doorbell::transport::Transport;
use doorbell::virtio::{Features, Wait};
use doorbell_kernel::clock::Clock;
use doorbell_kernel::drive::{self, FEATURES, Unit, Way};
use doorbell_kernel::machine::Machine;
use doorbell_kernel::platform::dma::KernelDma;
use doorbell_tests::{Outcome, Runner, Stop, Text, ensure};

use crate::blk::path_name;
use crate::witness::Witness;

/// The queue that is asked for, where there is a choice: small, so that it goes
/// round often.
const QUEUE_SIZE: u16 = 4;

type Driver<'t> = Rng<&'t mut dyn Transport, KernelDma>;

pub(crate) fn run(
    runner: &mut Runner<'_>,
    machine: &Machine,
    unit: &Unit,
    way: Way,
    usable: Result<(), String>,
    witness: &Witness,
) {
    for (set, features) in [
        ("all features", FEATURES),
        ("no features", Features::empty()),
    ] {
        let place = format!("rng/{}/{}/{set}", unit.at(), path_name(way));
        if let Err(reason) = &usable {
            runner.run(&place, || {
                Err(Stop::Skipped(Text::new(format_args!("{reason}"))))
            });
            continue;
        }
        match drive::open(machine, unit, way) {
            Ok(mut transport) => {
                session(
                    runner,
                    machine,
                    unit,
                    features,
                    &place,
                    &mut *transport,
                    witness,
                );
            }
            Err(error) => runner.run(&place, || Err(Stop::failed(error))),
        }
    }
}

fn session(
    runner: &mut Runner<'_>,
    machine: &Machine,
    unit: &Unit,
    features: Features,
    place: &str,
    transport: &mut dyn Transport,
    witness: &Witness,
) {
    let clock = &machine.clock;
    let path = (transport.interface(), transport.notify_path());
    let mut rng = None;
    runner.run(format_args!("{place}/comes up"), || {
        let driver = Rng::new(
            transport,
            QUEUE_SIZE,
            features,
            KernelDma,
            &mut clock.patience(),
        )?;
        let accepted = driver.features() & FEATURES;
        ensure!(accepted == features, "accepted {accepted}, not {features}");
        rng = Some(driver);
        Ok(())
    });
    let Some(mut rng) = rng else { return };
    runner.run(format_args!("{place}/is random"), || {
        random(&mut rng, clock)
    });
    runner.run(format_args!("{place}/a full queue"), || {
        full(&mut rng, clock)
    });
    let record = drive::device_record(unit, path, rng.features(), rng.queue(), String::new());
    witness.device(place, record);
    witness.rang(unit, rng.queue().doorbells());
}

/// 2 KiB of random bytes: all values about equally often, and never the same
/// twice.
fn random(rng: &mut Driver<'_>, clock: &Clock) -> Outcome {
    let mut bytes = [[0; 1024]; 2];
    for half in &mut bytes {
        rng.read(half, &mut clock.patience())?;
    }
    ensure!(bytes[0] != bytes[1], "the same 1024 bytes came twice");
    let ones: u32 = bytes
        .iter()
        .flatten()
        .map(|byte: &u8| byte.count_ones())
        .sum();
    // 16384 bits, of which half are set: 8192, with a standard deviation of 64.
    ensure!(
        (7680..=8704).contains(&ones),
        "{ones} of 16384 bits are set"
    );
    Ok(())
}

/// As many requests as there is room for; then one more is refused, and comes
/// back with its buffer.
fn full(rng: &mut Driver<'_>, clock: &Clock) -> Outcome {
    for _ in 0..8 {
        let size = rng.queue().size();
        for _ in 0..size {
            let buffer = DmaRegion::new(KernelDma, 32, 16)?;
            rng.submit(buffer).map_err(|(error, _)| error)?;
        }
        let buffer = DmaRegion::new(KernelDma, 32, 16)?;
        let (address, refused) = (buffer.address(), rng.submit(buffer));
        let back = refused.err().map(|(_, buffer)| buffer.address());
        ensure!(
            back == Some(address),
            "request {size} of {size} was not refused"
        );
        rng.queue().kick();
        let mut patience = clock.patience();
        let mut done = 0;
        while done < size {
            match rng.poll()? {
                Some(filled) => {
                    ensure!(filled.len > 0, "a request came back empty");
                    done += 1;
                }
                None => ensure!(patience.again(), "{done} of {size} requests came back"),
            }
        }
    }
    Ok(())
}
