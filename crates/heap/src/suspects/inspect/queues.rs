//! Queues that are filled faster than they are emptied, or that nobody empties.

use super::{Inspector, Note, Verdict};
use crate::suspects::view::View;

pub struct Queues;

const NAMES: [&str; 5] =
    ["queue.Queue", "Queue.Queue", "_queue.SimpleQueue", "queue.SimpleQueue", "asyncio.queues.Queue"];

impl Inspector for Queues {
    fn verdict(&self, view: &View, node: u32) -> Option<Verdict> {
        let ty = view.type_of(node)?;
        if !view.derives(ty, |name| NAMES.contains(&name)) {
            return None;
        }
        let bound = ["maxsize", "_maxsize"].iter().find_map(|name| view.attribute_value(node, name));
        Some(match bound.and_then(|bound| bound.parse::<i64>().ok()) {
            Some(most) if most > 0 => Verdict::Needed(format!("a queue of at most {most} items")),
            _ => Verdict::Suspect(Note::new(
                "queued items",
                "the queue has no bound, and items were put that nobody took",
                "give the queue a maxsize, and see whether its consumers are alive",
            )),
        })
    }
}
