//! `netperf`: an adapter under load.

use alloc::boxed::Box;
use alloc::format;

use doorbell::device::net::{DEVICE_TYPE, ETHERNET_HEADER};

use super::contest::{self, Options};
use super::{Command, number};
use crate::load::frames::Workload;
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
        Ok(Box::new(move |machine| run(machine, &options, workload)))
    },
};

fn run(machine: &Machine, options: &Options, workload: Workload) -> u32 {
    let words = format!("frames of {} bytes", workload.frame);
    contest::run(machine, options, DEVICE_TYPE, ("netperf", &words), workload)
}
