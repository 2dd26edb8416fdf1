//! The network: smoltcp over one of doorbell's own network devices, and what is
//! served there.
//!
//! A [`Wire`](wire::Wire) is a network adapter ([`adapter`] makes one of the
//! driver). The [`Stack`](stack::Stack) puts smoltcp on it, and sees to the link
//! and to the lease; [`ping`], [`echo`] and [`server`] are what goes on there,
//! the last by the rules of [`http`]. The [`site`] has what is served, the
//! [`page`] among it; [`serve`] keeps all of it going.
//!
//! Nothing here waits: all is asked to go on in turns, with the time and the
//! chance to end it from a [`Watch`].

use core::fmt;
use core::time::Duration;

pub mod adapter;
pub mod echo;
pub mod http;
pub mod page;
pub mod ping;
pub mod serve;
pub mod server;
pub mod site;
pub mod stack;
pub mod wire;

/// What those who go on in turns need: a clock, something to do between two
/// turns, and someone who may call them off.
pub trait Watch {
    /// The time since some moment.
    fn now(&self) -> Duration;

    /// Passes the time until something may have happened.
    fn idle(&mut self);

    /// Whether it is to end.
    fn called_off(&mut self) -> bool;

    /// Says something to people.
    fn say(&mut self, what: fmt::Arguments<'_>);
}

#[cfg(test)]
mod tests;
