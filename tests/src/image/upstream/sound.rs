//! Upstream's sound driver: the host keeps what it hears.

use alloc::vec;

use doorbell_tests::{Outcome, Runner, ensure};
use virtio_drivers::device::sound::{PcmFeatures, PcmFormat, PcmRate, VirtIOSound};

use super::{Bench, Hal, Upstream};
use crate::pattern;

/// The virtio device type (5.14).
pub(super) const DEVICE_TYPE: u16 = 25;

type Driver<'t> = VirtIOSound<Hal, Upstream<'t>>;

/// The stream, and how it goes: as the host's file has it, so that nothing is made of
/// the samples on the way.
const STREAM: u32 = 0;
const CHANNELS: u8 = 2;
const FORMAT: PcmFormat = PcmFormat::S16;
const RATE: PcmRate = PcmRate::Rate44100;

/// A message, the device's buffer, and what is played: a tenth of a second. In bytes.
const PERIOD: u32 = 2048;
const BUFFER: u32 = 8 * PERIOD;
const BYTES: u64 = 16 << 10;

/// The silence behind it, in bytes. A device is done with a message when the host's mixer
/// has it, and what it mixes last is lost when QEMU ends.
const SILENCE: u64 = 16 << 10;

pub(super) fn open(transport: Upstream<'_>) -> virtio_drivers::Result<Driver<'_>> {
    VirtIOSound::new(transport)
}

pub(super) fn test<'t>(runner: &mut Runner<'_>, bench: &Bench<'t>, transport: Upstream<'t>) {
    let Some(mut sound) = bench.start(runner, transport, open) else {
        return;
    };
    bench.run(runner, "the host hears what was played", || {
        plays(&mut sound, bench)
    });
    bench.show();
}

fn plays(sound: &mut Driver<'_>, bench: &Bench<'_>) -> Outcome {
    let streams = sound.output_streams()?;
    ensure!(streams == [STREAM], "it plays the streams {streams:?}");
    let none = PcmFeatures::empty();
    sound.pcm_set_params(STREAM, BUFFER, PERIOD, none, CHANNELS, FORMAT, RATE)?;
    sound.pcm_prepare(STREAM)?;
    sound.pcm_start(STREAM)?;
    let mut samples = vec![0; (BYTES + SILENCE) as usize];
    pattern::fill(0, bench.seed(), &mut samples[..BYTES as usize]);
    sound.pcm_xfer(STREAM, &samples)?;
    sound.pcm_stop(STREAM)?;
    sound.pcm_release(STREAM)?;
    let arguments = [("bytes", BYTES.into()), ("seed", bench.seed().into())];
    bench.ask("played", arguments).map(drop)
}
