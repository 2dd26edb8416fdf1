//! What a set shows, for people: [`terminal`] as tables, and as a page.

pub(crate) mod terminal;
