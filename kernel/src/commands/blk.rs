//! `blk`: a disk under load.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};

use doorbell::device::blk::DEVICE_TYPE;

use super::contest::{self, Options};
use super::{Command, number};
use crate::load::disk::Workload;
use crate::machine::Machine;

/// Requests in flight, unless asked otherwise.
const DEPTH: u32 = 1;

/// Reads or writes a disk, as fast as it goes.
pub(super) const COMMAND: Command = Command {
    name: "blk",
    usage: contest::usage!("[rw=read|write] [order=random|sequential] [bs=BYTES] [queues=N]"),
    about: "a disk under load; rw=write overwrites what it holds",
    defaults: &contest::defaults(DEPTH),
    parse: |arguments| {
        let mut options = Options::new(DEPTH);
        let (mut write, mut random, mut block, mut queues) = (false, true, 4096, 1);
        arguments.each(|key, value| {
            match (key, value) {
                ("rw", Some("read")) => write = false,
                ("rw", Some("write")) => write = true,
                ("rw", _) => return Err("it wants read or write".to_string()),
                ("order", Some("random")) => random = true,
                ("order", Some("sequential")) => random = false,
                ("order", _) => return Err("it wants random or sequential".to_string()),
                ("queues", _) => queues = number(value, 1..=1024)? as u16,
                ("bs", _) => block = number(value, 512..=1 << 24)? as usize,
                _ => return options.take(key, value),
            }
            Ok(true)
        })?;
        options.check()?;
        let workload = Workload {
            write,
            random,
            block,
            depth: options.depth,
            queues,
        };
        Ok(Box::new(move |machine| run(machine, &options, workload)))
    },
};

fn run(machine: &Machine, options: &Options, workload: Workload) -> u32 {
    let order = if workload.random {
        "random"
    } else {
        "sequential"
    };
    let rw = if workload.write { "writes" } else { "reads" };
    let queues = match workload.queues {
        1 => String::new(),
        queues => format!(" in {queues} queues"),
    };
    let words = format!("{order} {rw} of {} bytes{queues}", workload.block);
    contest::run(machine, options, DEVICE_TYPE, ("blk", &words), workload)
}
