//! `balloon`: gives memory to the host as it asks for it, and takes it back.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use core::cell::RefCell;
use core::fmt;
use core::time::Duration;

use doorbell::device::balloon::{Balloon, DEVICE_TYPE};
use doorbell::device::{DeviceError, Driver as _};
use doorbell::transport::{Interface, NotifyPath, Transport};
use doorbell::virtio::Wait as _;

use super::watch::{KeyWatch, LOOK_EVERY};
use super::{Command, fail, number, pick};
use crate::ballast::{self, Ballast, Followed, Pages};
use crate::drive::{self, Listener, Mode, Unit};
use crate::machine::Machine;
use crate::net::Watch as _;
use crate::platform::dma::KernelDma;
use crate::platform::memory::{self, HEAP};
use crate::println;
use crate::record::Record;

/// How long it goes on, unless asked otherwise, in seconds.
const SECONDS: u32 = 60;

/// It is said this often that it still goes on.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);

/// Follows the host's target.
pub(super) const COMMAND: Command = Command {
    name: "balloon",
    usage: "[device=N] [for=SECONDS]",
    about: "gives memory to the host as QEMU's monitor asks (\"balloon MIB\")",
    defaults: &[("for", SECONDS)],
    parse: |arguments| {
        let mut options = Options {
            device: 0,
            time: Duration::from_secs(SECONDS.into()),
        };
        arguments.each(|key, value| {
            match key {
                "device" => options.device = number(value, 0..=1000)? as usize,
                "for" => {
                    let seconds = number(value, 0..=1_000_000)?;
                    options.time = Duration::from_secs(seconds.into());
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(Box::new(move |machine| match run(machine, &options) {
            Ok(failures) => failures,
            Err(error) => {
                fail("balloon", error);
                1
            }
        }))
    },
};

struct Options {
    device: usize,
    time: Duration,
}

/// The result is how many targets could not be reached.
fn run(machine: &Machine, options: &Options) -> Result<u32, String> {
    let unit = pick::find(machine, DEVICE_TYPE, options.device)?;
    let named = |error: &dyn fmt::Display| format!("{} at {}: {error}", unit.name(), unit.at());
    let way = pick::choose(&drive::ways(machine, &unit), None);
    let way = way.map_err(|error| named(&error))?;
    let opened = drive::open(machine, &unit, way, pick::mode(machine, &unit));
    let mut opened = opened.map_err(|error| named(&error))?;
    let (path, listener) = (opened.path(), &opened.listener);
    let balloon = Balloon::new(
        &mut *opened.transport,
        &listener.setup(drive::FEATURES),
        &ballast::statistics(&KernelDma, 0),
        KernelDma,
        &mut listener.bring_up(),
    );
    let mut balloon = balloon.map_err(|error| named(&error))?;
    balloon.set_interrupts(listener.interrupts());
    introduce(&unit, path, listener.mode(), &mut balloon);

    let ballast = RefCell::new(Ballast::new(balloon, KernelDma));
    let relief = ballast::relief(&ballast, machine.clock);
    let followed = HEAP.relieved_by(&relief, || {
        follow(machine, options, &unit, listener, &ballast)
    });
    if ballast.borrow_mut().close() {
        println!("The device was reset: all pages are the guest's again.");
    }
    followed.map_err(|error| named(&error))
}

/// Shows the device.
fn introduce<T: Transport>(
    unit: &Unit,
    path: (Interface, NotifyPath),
    mode: Mode,
    balloon: &mut Balloon<T, KernelDma>,
) {
    let about = if balloon.may_deflate_on_oom() {
        "pages may come back when memory runs out"
    } else {
        "pages stay until the host wants fewer"
    };
    let (name, at) = (unit.name(), unit.at());
    println!("{name} at {at} over {}, {}: {about}", path.0, path.1);
    let record = drive::device_record(unit, path, mode, balloon, about.to_string());
    Record::Device(record).emit();
}

/// How the balloon stood when that was said last.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Said {
    target: u32,
    actual: u32,
    relieved: u64,
}

fn follow<T: Transport>(
    machine: &Machine,
    options: &Options,
    unit: &Unit,
    listener: &Listener<'_>,
    ballast: &RefCell<Ballast<T, KernelDma>>,
) -> Result<u32, DeviceError> {
    println!(
        "Following the host's target for {} s, or until a key is pressed.",
        options.time.as_secs()
    );
    let mut watch = KeyWatch::new(machine.clock);
    let begin = watch.now();
    let (mut spoke, mut failures) = (begin, 0);
    let (mut said, mut short_of) = (None, None);
    loop {
        let (followed, relieved) = {
            let mut own = ballast.borrow_mut();
            own.report()?;
            let followed = own.follow(|| listener.patience())?;
            (followed, own.relieved())
        };
        // From here on the heap may have pages back.
        let Followed {
            target,
            actual,
            short,
        } = followed;
        let now = watch.now();
        let state = Said {
            target,
            actual,
            relieved,
        };
        if said.replace(state) != Some(state) {
            say(unit, state);
            spoke = now;
        }
        let earlier = core::mem::replace(&mut short_of, short.map(|short| short.target));
        if let Some(short) = short
            && earlier != short_of
        {
            fail(
                &format!("{} at {}", unit.name(), unit.at()),
                short.to_string(),
            );
            failures += 1;
        }
        let gone = now.saturating_sub(begin);
        if gone >= options.time || watch.called_off() {
            break;
        }
        if now - spoke >= SIGN_OF_LIFE {
            spoke = now;
            let left = options.time.saturating_sub(gone).as_secs();
            println!("  {} in the balloon; {left} s left", Pages(actual));
        }
        let look = machine.clock.wait_ms(LOOK_EVERY.as_millis() as u64);
        let mut pause = listener.wait(look);
        // Where it interrupts, one is a reason to look.
        while pause.again() && !listener.interrupts() {}
    }
    Ok(failures)
}

fn say(unit: &Unit, said: Said) {
    let Said {
        target,
        actual,
        relieved,
    } = said;
    let free = memory::heap_use().free;
    let mib = free as f64 / f64::from(1 << 20);
    println!(
        "{} wanted, {} in the balloon; {mib:.1} MiB are free, {relieved} pages came back for want of memory",
        Pages(target),
        Pages(actual)
    );
    Record::Balloon {
        place: unit.place.clone(),
        device: unit.name(),
        target,
        actual,
        relieved,
        free: free as u64,
    }
    .emit();
}
