//! What a set shows, for people: in the [`terminal`] as tables, and as a [`page`] with
//! [`plot`]s.

mod figures;
pub(crate) mod page;
mod plot;
pub(crate) mod terminal;
mod worlds;
mod wrap;
