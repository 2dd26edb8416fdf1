//! Waiting for a device, with an end.

/// How long to wait. The library has no clock; whoever calls something that
/// waits brings one, or counts polls.
pub trait Wait {
    /// Called after each look at the device that found nothing: `false` ends
    /// the wait.
    fn again(&mut self) -> bool;
}

impl<F: FnMut() -> bool> Wait for F {
    fn again(&mut self) -> bool {
        self()
    }
}

/// Waits for this many looks at the device.
#[derive(Clone, Copy, Debug)]
pub struct Polls(pub u32);

impl Wait for Polls {
    fn again(&mut self) -> bool {
        core::hint::spin_loop();
        self.0 = self.0.saturating_sub(1);
        self.0 > 0
    }
}
