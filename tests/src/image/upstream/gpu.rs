//! Upstream's GPU driver: the host takes a picture of the screen.

use alloc::vec;

use doorbell_tests::{Outcome, Runner, ensure};
use virtio_drivers::device::gpu::VirtIOGpu;

use super::{Bench, Hal, Upstream};

/// The virtio device type (5.7).
pub(super) const DEVICE_TYPE: u16 = 16;

/// The bit of `VIRTIO_GPU_F_EDID` (5.7.3).
pub(super) const EDID: u32 = 1;

type Driver<'t> = VirtIOGpu<Hal, Upstream<'t>>;

/// The picture's size. No two of its pixels have one color, see [`color`].
const WIDTH: u32 = 256;
const HEIGHT: u32 = 192;

/// What QEMU's display has before anybody draws.
const DEFAULT: (u32, u32) = (1280, 800);

pub(super) fn open(transport: Upstream<'_>) -> virtio_drivers::Result<Driver<'_>> {
    VirtIOGpu::new(transport)
}

pub(super) fn test<'t>(runner: &mut Runner<'_>, bench: &Bench<'t>, transport: Upstream<'t>) {
    let Some(mut gpu) = bench.start(runner, transport, open) else {
        return;
    };
    bench.run(runner, "says what the screen is", || says(&mut gpu));
    bench.run(runner, "the host sees what was drawn", || {
        let shade = bench.number as u8;
        draws(&mut gpu, bench, shade)?;
        // The same picture in another color: what is seen is not an earlier one.
        draws(&mut gpu, bench, !shade)
    });
    bench.run(runner, "takes a pointer", || pointer(&mut gpu));
    bench.show();
}

/// Red, green and blue of a pixel: the host knows this too.
fn color(x: u32, y: u32, shade: u8) -> [u8; 3] {
    let (x, y) = (x as u8, y as u8);
    [x, y, x ^ y ^ shade]
}

fn says(gpu: &mut Driver<'_>) -> Outcome {
    let (now, preferred) = (gpu.resolution()?, gpu.edid_preferred_resolution()?);
    ensure!(
        (now, preferred) == (DEFAULT, DEFAULT),
        "it is {now:?}, and would rather be {preferred:?}"
    );
    Ok(())
}

fn draws(gpu: &mut Driver<'_>, bench: &Bench<'_>, shade: u8) -> Outcome {
    let frame = gpu.change_resolution(WIDTH, HEIGHT)?;
    for (place, pixel) in (0..WIDTH * HEIGHT).zip(frame.chunks_exact_mut(4)) {
        let [red, green, blue] = color(place % WIDTH, place / WIDTH, shade);
        // B8G8R8A8, which is upstream's choice.
        pixel.copy_from_slice(&[blue, green, red, 0xff]);
    }
    gpu.flush()?;
    let arguments = [
        ("width", u64::from(WIDTH).into()),
        ("height", u64::from(HEIGHT).into()),
        ("shade", u64::from(shade).into()),
    ];
    bench.ask("screen", arguments).map(drop)
}

/// Its requests go through the other queue.
fn pointer(gpu: &mut Driver<'_>) -> Outcome {
    const IMAGE: usize = 64 * 64 * 4;
    gpu.setup_cursor(&vec![0x80; IMAGE], 10, 20, 0, 0)?;
    for step in 0..4 {
        gpu.move_cursor(10 + step, 20 + step)?;
    }
    Ok(())
}
