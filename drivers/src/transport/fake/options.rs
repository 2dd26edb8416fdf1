//! What a fake device is, how it misbehaves, and what it writes down.

use std::boxed::Box;
use std::vec::Vec;

use crate::transport::{Interrupt, RingLayout};
use crate::virtio::Features;

/// What a device is asked for before each access to its configuration: it may
/// change the bytes and the generation.
pub type ConfigHook = Box<dyn FnMut(&mut Vec<u8>, &mut u32)>;

/// What a device is, and how it misbehaves.
pub struct Options {
    /// The virtio device type.
    pub device_type: u16,
    /// The features that it offers.
    pub features: Features,
    /// `Contiguous`: a legacy device, whose queue sizes are fixed and which has no
    /// FEATURES_OK.
    pub layout: RingLayout,
    /// The size of each queue; 0 for one that is not there.
    pub queues: Vec<u16>,
    /// Its configuration.
    pub config: Vec<u8>,
    /// Called before each access to the configuration.
    pub config_hook: Option<ConfigHook>,
    /// FEATURES_OK does not stay set.
    pub refuse_features: bool,
    /// A queue is taken, and yet does not read back as enabled.
    pub refuse_queue: bool,
    /// A queue that is reset stays the device's.
    pub refuse_queue_reset: bool,
    /// How many MSI-X vectors it has: those from here on read back as refused.
    pub vectors: u16,
    /// Nothing answers any more: its status reads as all ones.
    pub gone: bool,
    /// How many reads of the status after a reset find it not finished:
    /// `u32::MAX` for all of them.
    pub reset_reads: u32,
    /// Its queues are twice as large to all looks but the first.
    pub fickle: bool,
    /// It never sleeps, and asks for no doorbells.
    pub polls: bool,
    /// What it lies about.
    pub lie: Option<Lie>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            device_type: 0,
            features: Features::VERSION_1,
            layout: RingLayout::Separate,
            queues: Vec::from([8]),
            config: Vec::new(),
            config_hook: None,
            refuse_features: false,
            refuse_queue: false,
            refuse_queue_reset: false,
            vectors: 0,
            gone: false,
            reset_reads: 0,
            fickle: false,
            polls: false,
            lie: None,
        }
    }
}

/// How a device lies about a request that it gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// It names another one.
    Id(u32),
    /// It gives it back twice.
    Replay,
    /// It says that it wrote this much more.
    Longer(u32),
    /// It shows this many requests as given back that it has not given back: its
    /// used index runs ahead, or in a packed ring it marks descriptors as used.
    IndexAhead(u16),
    /// It never gives it back.
    Silent,
}

/// What a driver did, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Wrote the status.
    Status(u8),
    /// Read the device's features.
    ReadFeatures,
    /// Accepted features.
    Accept(Features),
    /// Gave the device a queue.
    Enable(u16),
    /// Read configuration.
    ReadConfig,
    /// Wrote configuration from this offset on.
    WriteConfig(usize),
    /// Bound an interrupt to a vector, or to none.
    Vector(Interrupt, Option<u16>),
    /// Took a queue back.
    ResetQueue(u16),
}
