//! Caches of `functools.lru_cache`, and deques that are bounded.

use super::{Inspector, Note, Verdict};
use crate::suspects::view::View;
use wmr_cpython::family::Family;

pub struct LruCache;

impl Inspector for LruCache {
    fn verdict(&self, view: &View, node: u32) -> Option<Verdict> {
        if view.type_of(node)?.shape.family == Family::Deque {
            let most = view.field(node, "dequeobject", "maxlen")? as i64;
            return (most >= 0).then(|| Verdict::Needed(format!("a deque of at most {most} items")));
        }
        if !view.is_a(node, "functools._lru_cache_wrapper") {
            return None;
        }
        let most = view.field(node, "lru_cache_object", "maxsize")? as i64;
        let name = view.text(node, "__qualname__").unwrap_or_default();
        if most >= 0 {
            return Some(Verdict::Needed(format!("lru_cache({most}) of {name} is bounded")));
        }
        Some(Verdict::Leaking(Note::new(
            "results",
            format!(
                "lru_cache(maxsize=None) of {name} keeps the result for every argument it was ever called with"
            ),
            "give it a maxsize, or call cache_clear()",
        )))
    }
}
