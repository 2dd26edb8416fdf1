//! QEMU's trace, counted as it grows.
//!
//! Its lines are
//!
//! ```text
//! virtio_queue_notify vdev 0x55d0c8a0 n 0 vq 0x7f51c010       a doorbell
//! virtio_notify vdev 0x55d0c8a0 vq 0x7f51c010                 an interrupt
//! virtio_notify_irqfd vdev 0x55d0c8a0 vq 0x7f51c010           one from an iothread
//! ```
//!
//! in some builds of QEMU after a process and a time. They name a device by QEMU's own
//! pointer. An interrupt is traced when a queue asks for one, masked or not.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use crate::qemu::{DOORBELL_EVENT, INTERRUPT_EVENTS};

/// Devices, in the order in which they first did something, and how often they did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts(pub(crate) Vec<(String, u64)>);

impl Counts {
    pub(crate) fn add(&mut self, device: &str, times: u64) {
        match self.0.iter_mut().find(|(other, _)| *other == device) {
            Some((_, count)) => *count += times,
            None if times > 0 => self.0.push((device.to_owned(), times)),
            None => {}
        }
    }

    /// What was added since `before`, without the devices that did nothing.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let mut new = Self::default();
        for (device, count) in &self.0 {
            let old = before.0.iter().find(|(other, _)| other == device);
            new.add(device, count - old.map_or(0, |(_, count)| *count));
        }
        new
    }
}

/// The trace of one run. Only the counts are kept, however long it becomes.
pub(crate) struct Trace {
    path: PathBuf,
    reader: Option<BufReader<File>>,
    /// A line that has not all come yet.
    line: Vec<u8>,
    pub(crate) doorbells: Counts,
    pub(crate) interrupts: Counts,
}

impl Trace {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            reader: None,
            line: Vec::new(),
            doorbells: Counts::default(),
            interrupts: Counts::default(),
        }
    }

    /// Reads what came since the last time.
    ///
    /// # Errors
    /// When it can't be read.
    pub(crate) fn read_on(&mut self) -> Result<(), String> {
        let cannot = |path: &PathBuf| {
            let path = path.display().to_string();
            move |error: std::io::Error| format!("cannot read {path}: {error}")
        };
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => BufReader::new(File::open(&self.path).map_err(cannot(&self.path))?),
        };
        loop {
            let read = reader.read_until(b'\n', &mut self.line);
            if read.map_err(cannot(&self.path))? == 0 {
                break;
            }
            if self.line.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.count(&String::from_utf8_lossy(&line));
            }
        }
        self.reader = Some(reader);
        Ok(())
    }

    fn count(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        // `1234@1700000000.123456:virtio_queue_notify` is one word.
        let event = words.next().and_then(|word| word.rsplit(':').next());
        let counts = match event {
            Some(DOORBELL_EVENT) => &mut self.doorbells,
            Some(event) if INTERRUPT_EVENTS.contains(&event) => &mut self.interrupts,
            _ => return,
        };
        if words.next() == Some("vdev")
            && let Some(device) = words.next()
        {
            counts.add(device, 1);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A trace of so many events of these devices.
    pub(crate) fn trace(doorbells: &[(&str, u64)], interrupts: &[(&str, u64)]) -> Trace {
        let mut trace = Trace::new("/dev/null".into());
        for (device, count) in doorbells {
            trace.doorbells.add(device, *count);
        }
        for (device, count) in interrupts {
            trace.interrupts.add(device, *count);
        }
        trace
    }

    #[test]
    fn a_trace_is_counted_as_it_grows() {
        let path = std::env::temp_dir().join(format!("doorbell-{}-trace", std::process::id()));
        let mut trace = Trace::new(path.clone());
        assert!(trace.read_on().is_err());
        let first = "virtio_queue_notify vdev 0x66aa n 0 vq 0x7f00\n\
            1234@1700000000.5:virtio_queue_notify vdev 0x55bb n 1 vq 0x7f01\n\
            virtio_notify vdev 0x66aa vq 0x7f00\nqemu: noise\nvirtio_queue_not";
        std::fs::write(&path, first).unwrap();
        trace.read_on().unwrap();
        let (one, two) = (("0x66aa".to_owned(), 1), ("0x55bb".to_owned(), 1));
        // In the order of the trace, not of the pointers.
        assert_eq!(trace.doorbells.0, [one.clone(), two.clone()]);
        let before = (trace.doorbells.clone(), trace.interrupts.clone());
        let second = "ify vdev 0x66aa n 0 vq 0x7f00\nvirtio_notify_irqfd vdev 0x55bb vq 0x7f00\n";
        std::fs::write(&path, format!("{first}{second}")).unwrap();
        trace.read_on().unwrap();
        assert_eq!(trace.doorbells.0[0].1, 2);
        assert_eq!(trace.interrupts.0, [one.clone(), two.clone()]);
        assert_eq!(trace.doorbells.since(&before.0).0, [one]);
        assert_eq!(trace.interrupts.since(&before.1).0, [two]);
        std::fs::remove_file(path).unwrap();
    }
}
