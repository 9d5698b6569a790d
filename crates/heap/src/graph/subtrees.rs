//! Sums over parts of the tree of dominators.

use super::{Dominators, ROOT, UNREACHED};

/// Numbers of nodes such that what hangs on a node follows it at once.
pub struct Subtrees {
    /// By node, [`UNREACHED`] of what cannot be reached.
    first: Vec<u32>,
    /// By node: behind the last one that hangs on it.
    end: Vec<u32>,
}

impl Subtrees {
    pub fn of(dominators: &Dominators) -> Subtrees {
        let Dominators { idom, order } = dominators;
        // How many hang on each, itself included; then where the next one below it begins.
        let mut below = vec![1u32; idom.len()];
        for &node in order.iter().rev() {
            let count = below[node as usize];
            if let Some(above) = below.get_mut(idom[node as usize] as usize) {
                *above += count;
            }
        }
        let mut first = vec![UNREACHED; idom.len()];
        let (mut end, mut next) = (below, 0);
        for &node in order {
            let count = end[node as usize];
            let free = match idom[node as usize] {
                ROOT => &mut next,
                // Of a node that has its number already it is the next free one.
                above => &mut end[above as usize],
            };
            let at = *free;
            *free += count;
            first[node as usize] = at;
            end[node as usize] = at + 1;
        }
        Subtrees { first, end }
    }

    /// Adds up `value` of those of the nodes that hang on no other of them.
    pub fn sum(&self, mut nodes: Vec<u32>, value: impl Fn(u32) -> u64) -> u64 {
        let first = |node: u32| self.first.get(node as usize).copied().unwrap_or(UNREACHED);
        nodes.retain(|node| first(*node) != UNREACHED);
        nodes.sort_unstable_by_key(|node| first(*node));
        let (mut sum, mut end) = (0u64, 0);
        for node in nodes {
            if first(node) >= end {
                sum = sum.saturating_add(value(node));
                end = self.end[node as usize];
            }
        }
        sum
    }
}
