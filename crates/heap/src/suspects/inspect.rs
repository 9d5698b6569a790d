//! Verdict inspectors: each knows one thing that programs do with objects, and says of an object what that
//! means for it. One file each; a new one is a line in [`ALL`].

mod callbacks;
mod closed;
mod exceptions;
mod futures;
mod generators;
mod logging;
mod lru_cache;
mod queues;
mod threads;
mod weakrefs;

use super::view::View;

/// What is thought of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It does its work, or cannot grow: so is whatever holds it.
    Needed(String),
    /// Its time is over, or nothing ever takes away from it: so is what hangs on it.
    Leaking(Note),
    /// Known to be forgotten often.
    Suspect(Note),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The evidence, a sentence without its end.
    pub why: String,
    /// What to do.
    pub advice: &'static str,
    /// Many such things, in the plural: "finished tasks".
    pub many: &'static str,
}

impl Note {
    pub fn new(many: &'static str, why: impl Into<String>, advice: &'static str) -> Note {
        Note { many, why: why.into(), advice }
    }
}

pub trait Inspector: Sync {
    /// `None`: it is not what this one knows about.
    fn verdict(&self, view: &View, node: u32) -> Option<Verdict>;
}

const ALL: [&dyn Inspector; 10] = [
    &lru_cache::LruCache,
    &exceptions::Exceptions,
    &futures::Futures,
    &threads::Threads,
    &generators::Generators,
    &weakrefs::WeakReferences,
    &logging::Logging,
    &queues::Queues,
    &closed::Closed,
    &callbacks::Callbacks,
];

/// The first verdict that any inspector has.
pub fn verdict(view: &View, node: u32) -> Option<Verdict> {
    ALL.iter().find_map(|inspector| inspector.verdict(view, node))
}
