//! Threads that have ended and are still held, and what threads keep for themselves.

use super::{Inspector, Note, Verdict};
use crate::suspects::view::View;

pub struct Threads;

impl Inspector for Threads {
    fn verdict(&self, view: &View, node: u32) -> Option<Verdict> {
        let ty = view.type_of(node)?;
        if view.derives(ty, |name| matches!(name, "_thread._local" | "thread._local")) {
            return Some(Verdict::Suspect(Note::new(
                "thread-local values",
                "thread-local values live as long as their threads, and threads of a pool that is not shut down never end",
                "shut the pool down, or delete the value when the work is done",
            )));
        }
        if !view.derives(ty, |name| name == "threading.Thread") {
            return None;
        }
        // A tid where the system gives one, else what pthreads call it.
        let ident = |name| view.attribute_value(node, name)?.parse::<u64>().ok();
        let threads = view.held.inspection.python.as_ref().ok()?.interpreters.iter().flat_map(|i| &i.threads);
        let alive = match ident("_native_id") {
            Some(tid) => view.held.target.threads.iter().any(|thread| thread.tid as u64 == tid),
            None => {
                let ident = ident("_ident").or_else(|| ident("_Thread__ident"))?;
                threads.into_iter().any(|thread| thread.thread_id == ident)
            }
        };
        Some(if alive {
            Verdict::Needed("the thread runs".to_owned())
        } else {
            Verdict::Leaking(Note::new(
                "threads that have ended",
                "the thread has ended, and its object is still held with all that is set on it",
                "forget threads once they are joined; shut pools down",
            ))
        })
    }
}
