//! Tasks and futures of asyncio and of executors.

use super::{Inspector, Note, Verdict};
use crate::suspects::view::View;

pub struct Futures;

/// `fut_pending` (`_asynciomodule.c`).
const PENDING: i32 = 0;
const NAMES: [&str; 3] = ["_asyncio.Future", "asyncio.futures.Future", "concurrent.futures._base.Future"];

impl Inspector for Futures {
    fn verdict(&self, view: &View, node: u32) -> Option<Verdict> {
        let ty = view.type_of(node)?;
        let task = view.derives(ty, |name| matches!(name, "_asyncio.Task" | "asyncio.tasks.Task"));
        if !task && !view.derives(ty, |name| NAMES.contains(&name)) {
            return None;
        }
        let state = match view.derives(ty, |name| name.starts_with("_asyncio.")) {
            true if task => view.int_field(node, "TaskObj", "task_state"),
            true => view.int_field(node, "FutureObj", "fut_state"),
            false => None,
        };
        let done = match state {
            Some(state) => state != PENDING,
            None => matches!(
                view.text(node, "_state")?.as_str(),
                "FINISHED" | "CANCELLED" | "CANCELLED_AND_NOTIFIED"
            ),
        };
        Some(match (done, task) {
            (true, true) => Verdict::Leaking(Note::new(
                "finished tasks",
                "they have finished and are still held, with what they returned",
                "await them, or take each out with task.add_done_callback(tasks.discard)",
            )),
            (true, false) => Verdict::Leaking(Note::new(
                "finished futures",
                "they are done and are still held, with their results",
                "take them out when their result was used",
            )),
            (false, _) => Verdict::Suspect(Note::new(
                "pending tasks",
                "they wait, and nothing has awaited or cancelled them",
                "await or cancel them; a set of tasks wants task.add_done_callback(tasks.discard)",
            )),
        })
    }
}
