//! Where an object is, as a person would write it.

use wmr_heap::Held;
use wmr_heap::graph::Reach;

/// Steps of a path that are told.
const MAX_STEPS: usize = 24;

/// The ways to all objects.
pub struct Places<'h> {
    held: &'h Held<'h>,
    reach: Reach,
}

impl<'h> Places<'h> {
    pub fn of(held: &'h Held<'h>) -> Places<'h> {
        Places { held, reach: held.reach() }
    }

    /// From a root to an object, step by step; empty where there is no way. Not escaped.
    pub fn path(&self, addr: u64) -> Vec<String> {
        let nodes = self.held.node_at(addr).map(|node| self.reach.path(node)).unwrap_or_default();
        let Some(&first) = nodes.first() else { return Vec::new() };
        let mut reader = self.held.target.reader();
        let mut steps = vec![self.held.root_name(first)];
        for pair in nodes.windows(2).take(MAX_STEPS) {
            let label = self.held.label(&mut reader, pair[0], pair[1]);
            steps.push(label.map_or_else(String::new, |label| label.to_string()));
        }
        steps
    }

    /// The same in one: `app.CACHE['x'].items`.
    pub fn place(&self, path: &[String]) -> Option<String> {
        let (first, rest) = path.split_first()?;
        let mut place = first.strip_prefix("module ").unwrap_or(first).to_owned();
        for step in rest {
            if !step.starts_with(['.', '[']) {
                place.push(' ');
            }
            place.push_str(step);
        }
        Some(place)
    }
}
