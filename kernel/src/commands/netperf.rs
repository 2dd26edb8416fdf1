//! `netperf`: an adapter under load.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;

use doorbell::device::net::{DEVICE_TYPE, ETHERNET_HEADER};

use super::contest::{self, Arena, Options};
use super::{Command, fail, number};
use crate::load::frames::{Ours, Workload};
use crate::load::upstream::Upstream;
use crate::machine::Machine;

/// Bytes in a frame, unless asked otherwise: the shortest that Ethernet has, with its
/// check sum.
const FRAME: usize = 64;

/// Frames in flight, unless asked otherwise.
const DEPTH: u32 = 256;

/// Sends frames, as fast as it goes.
pub(super) const COMMAND: Command = Command {
    name: "netperf",
    usage: contest::usage!("[frame=BYTES]"),
    about: "a network adapter under load: frames to nobody in particular",
    defaults: &contest::defaults(DEPTH),
    parse: |arguments| {
        let mut options = Options::new(DEPTH);
        let mut frame = FRAME;
        arguments.each(|key, value| {
            match key {
                "frame" => frame = number(value, ETHERNET_HEADER as u32..=65_535)? as usize,
                _ => return options.take(key, value),
            }
            Ok(true)
        })?;
        options.check()?;
        let workload = Workload {
            frame,
            depth: options.depth,
        };
        Ok(Box::new(move |machine| {
            run(machine, &options, workload).unwrap_or_else(|error| {
                fail("netperf", error);
                1
            })
        }))
    },
};

fn run(machine: &Machine, options: &Options, workload: Workload) -> Result<u32, String> {
    let arena = Arena::find(machine, options, DEVICE_TYPE)?;
    let ours = Ours {
        machine,
        unit: arena.unit.clone(),
        way: arena.way,
        mode: arena.mode,
        features: arena.features,
        workload,
    };
    let upstream = |configuration| {
        Box::new(Upstream {
            machine,
            unit: arena.unit.clone(),
            way: arena.way,
            configuration,
            workload,
        }) as _
    };
    let loads = contest::loads(options, ours, upstream);
    let words = format!("frames of {} bytes", workload.frame);
    contest::run(&arena, options, ("netperf", &words), loads)
}
