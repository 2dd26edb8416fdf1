//! A request, as its device sees it.

use std::format;
use std::string::String;
use std::vec::Vec;

use crate::dma::fake::FakeDma;
use crate::queue::Buffer;

/// A request that the device has taken.
#[derive(Clone, Debug)]
pub struct Chain<'d> {
    dma: &'d FakeDma,
    pub(super) head: u16,
    pub(super) buffers: Vec<Buffer>,
    /// Which of the ring's descriptors it takes.
    pub(super) descriptors: Vec<u16>,
    pub(super) indirect: bool,
}

impl<'d> Chain<'d> {
    /// One without buffers yet.
    pub(super) fn new(dma: &'d FakeDma, head: u16) -> Self {
        Self {
            dma,
            head,
            buffers: Vec::new(),
            descriptors: Vec::new(),
            indirect: false,
        }
    }

    /// Checks the next buffer of a request of a queue of `size`, and adds it.
    pub(super) fn push(&mut self, buffer: Buffer, size: u16) -> Result<(), String> {
        if !self.dma.is_shared(buffer.address, buffer.len as usize) || buffer.len == 0 {
            return Err(format!("{buffer:?} is no shared memory"));
        }
        if !buffer.writable && self.buffers.last().is_some_and(|last| last.writable) {
            return Err("a readable buffer behind a writable one (2.7.4.2, 2.8.17)".into());
        }
        self.buffers.push(buffer);
        if self.buffers.len() > size.into() {
            return Err(format!(
                "longer than the queue of {size} (2.7.5.3.1, 2.8.17)"
            ));
        }
        Ok(())
    }
}

impl Chain<'_> {
    /// The request's number: in a split ring the index of its first descriptor, in a
    /// packed one its buffer ID.
    pub fn head(&self) -> u16 {
        self.head
    }

    /// The buffers, in the driver's order.
    pub fn buffers(&self) -> &[Buffer] {
        &self.buffers
    }

    /// How many of the ring's descriptors the request takes.
    pub fn descriptors(&self) -> usize {
        self.descriptors.len()
    }

    /// Whether it came in a table of indirect descriptors.
    pub fn is_indirect(&self) -> bool {
        self.indirect
    }

    /// All bytes that the device may read.
    pub fn readable(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for buffer in self.buffers.iter().filter(|buffer| !buffer.writable) {
            let len = buffer.len as usize;
            let from = self.dma.cpu_pointer(buffer.address, len);
            // SAFETY: `cpu_pointer` found the bytes inside allocated memory.
            bytes.extend((0..len).map(|at| unsafe { from.add(at).read_volatile() }));
        }
        bytes
    }

    /// How many bytes the device may write.
    pub fn writable(&self) -> u32 {
        self.buffers
            .iter()
            .filter(|buffer| buffer.writable)
            .map(|buffer| buffer.len)
            .sum()
    }

    /// Writes `bytes` from byte `offset` of the writable part on; what does not
    /// fit is cut off.
    pub fn write(&self, mut offset: usize, mut bytes: &[u8]) {
        for buffer in self.buffers.iter().filter(|buffer| buffer.writable) {
            let len = buffer.len as usize;
            let into = self.dma.cpu_pointer(buffer.address, len);
            let (here, rest) = bytes.split_at(bytes.len().min(len.saturating_sub(offset)));
            for (at, &byte) in here.iter().enumerate() {
                // SAFETY: `cpu_pointer` found the buffer inside allocated memory.
                unsafe { into.add(offset + at).write_volatile(byte) }
            }
            (offset, bytes) = (offset.saturating_sub(len), rest);
        }
    }

    /// Whether all of its buffers are in memory that is allocated.
    pub(super) fn is_shared(&self) -> bool {
        self.buffers
            .iter()
            .all(|buffer| self.dma.is_shared(buffer.address, buffer.len as usize))
    }
}
