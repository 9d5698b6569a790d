//! Paths from roots to nodes, and many of them merged into a tree.

use super::{Bits, ROOT, Reach};
use rustc_hash::FxHashMap;

impl Reach {
    /// The shortest path to a node, its root first. Empty when there is none.
    pub fn path(&self, node: u32) -> Vec<u32> {
        let mut path = Vec::new();
        let mut at = node;
        while self.reaches(at) {
            path.push(at);
            at = self.parent[at as usize];
            if at == ROOT {
                break;
            }
        }
        path.reverse();
        path
    }
}

/// Shortest paths to many nodes, laid over each other.
#[derive(Debug, Default)]
pub struct Merged {
    /// Nodes on any of the paths, each after its parent.
    pub steps: Vec<Step>,
    /// How many of the nodes cannot be reached from any root, and their bytes.
    pub unreached: (u64, u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub node: u32,
    /// Index of the step before, none of a root.
    pub parent: Option<u32>,
    /// How many of the nodes asked for lie here or beyond, and their bytes.
    pub count: u64,
    pub bytes: u64,
    /// Whether the node itself was asked for.
    pub wanted: bool,
}

impl Merged {
    pub fn of(reach: &Reach, wanted: &Bits, size: impl Fn(u32) -> u64) -> Merged {
        let mut out = Merged::default();
        for node in wanted.iter().filter(|node| !reach.reaches(*node)) {
            out.unreached.0 += 1;
            out.unreached.1 += size(node);
        }
        // Children come after their parents, so that backwards each count is whole when it is handed on.
        let mut sums: FxHashMap<u32, (u64, u64)> = FxHashMap::default();
        let mut steps = Vec::new();
        for &node in reach.order.iter().rev() {
            let mine = wanted.contains(node);
            let handed = sums.remove(&node);
            if !mine && handed.is_none() {
                continue;
            }
            let (mut count, mut bytes) = handed.unwrap_or_default();
            if mine {
                count += 1;
                bytes += size(node);
            }
            let parent = reach.parent[node as usize];
            if parent != ROOT {
                let sum = sums.entry(parent).or_default();
                sum.0 += count;
                sum.1 += bytes;
            }
            steps.push((Step { node, parent: None, count, bytes, wanted: mine }, parent));
        }
        let mut index: FxHashMap<u32, u32> = FxHashMap::default();
        for (at, (mut step, parent)) in (0u32..).zip(steps.into_iter().rev()) {
            step.parent = index.get(&parent).copied();
            index.insert(step.node, at);
            out.steps.push(step);
        }
        out
    }
}
