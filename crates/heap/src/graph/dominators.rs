//! Immediate dominators: the last node that every path from the roots to a node passes. What a node
//! dominates would be freed with it.
//!
//! Most of a heap is decided without the general algorithm. The forest of paths is cut into
//! regions, one under each node that is known to hang on the virtual root alone: first the roots, then
//! whatever is referred to from another region than its own, as that makes two paths that share nothing.
//! Cutting shrinks regions, which makes more such nodes; a few linear passes end it. Then no reference
//! crosses into the inside of a region, so that each is a small problem of its own. In most of them every
//! node has one referrer, which is its dominator; in the others [`region`](super::region) decides.

use super::forest::Forest;
use super::region::Region;
use super::{Bits, Csr, ROOT, UNREACHED};
use rayon::prelude::*;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

pub struct Dominators {
    /// By node: its immediate dominator, [`ROOT`] when it hangs on no single node, [`UNREACHED`].
    pub idom: Vec<u32>,
    /// What can be reached, each node after its dominator: that lies on every path, so on the one found.
    pub order: Vec<u32>,
}

/// Passes that look for more nodes to cut at. Where they do not settle, the rest is one region.
const MAX_PASSES: usize = 24;

impl Dominators {
    pub fn of(graph: &Csr, roots: &[u32]) -> Dominators {
        Dominators::after(graph, roots, MAX_PASSES)
    }

    /// With at most so many passes that cut: the result is the same.
    pub fn after(graph: &Csr, roots: &[u32], passes: usize) -> Dominators {
        // Also a root to which a path leads from another one hangs on the virtual root alone.
        let tops = Bits::of(graph.nodes(), roots.iter().copied());
        let Forest { order, parent, head, beside } = Forest::of(graph, roots, &tops);
        let mut regions = Regions { head, beside };
        let settled = regions.settle(&order, &parent, &tops, passes);
        let Regions { head, beside } = regions;
        // Nodes with another referrer than the one on the path make a region a hard one.
        let hard = Bits::new(graph.nodes());
        beside.par_iter().for_each(|(_, to)| {
            hard.insert(head[*to as usize]);
        });
        drop(beside);
        let mut local = head;
        local.par_iter_mut().for_each(|number| *number = UNREACHED);
        let local: Vec<AtomicU32> = local.into_iter().map(AtomicU32::new).collect();
        let mut idom = parent;
        idom.par_iter_mut().zip(0..graph.nodes()).for_each(|(idom, node)| {
            if tops.contains(node) {
                *idom = ROOT;
            }
        });
        let idom: Vec<AtomicU32> = idom.into_iter().map(AtomicU32::new).collect();
        if settled {
            let heads: Vec<u32> = hard.iter().collect();
            heads.into_par_iter().for_each_init(Region::default, |region, head| {
                region.solve(graph, &tops, Some(head), &local, &idom);
            });
        } else {
            Region::default().solve(graph, &tops, None, &local, &idom);
        }
        Dominators { idom: idom.into_iter().map(AtomicU32::into_inner).collect(), order }
    }

    /// What would be freed with each node, itself included: the sizes of all it dominates. 0 of what
    /// cannot be reached.
    pub fn retained(&self, size: impl Fn(u32) -> u64) -> Vec<u64> {
        let mut retained: Vec<u64> = rayon::iter::repeat_n(0, self.idom.len()).collect();
        for &node in self.order.iter().rev() {
            let sum = retained[node as usize].saturating_add(size(node));
            retained[node as usize] = sum;
            let idom = self.idom[node as usize];
            if let Some(above) = retained.get_mut(idom as usize) {
                *above = above.saturating_add(sum);
            }
        }
        retained
    }
}

/// What hangs on each node that is cut at.
struct Regions {
    /// By node the head of its region.
    head: Vec<u32>,
    /// References beside those of the forest to what is no head.
    beside: Vec<(u32, u32)>,
}

impl Regions {
    /// Cuts until no reference leads from one region into another's inside. False: that was not achieved.
    fn settle(&mut self, order: &[u32], parent: &[u32], tops: &Bits, passes: usize) -> bool {
        for _ in 0..passes {
            let head = &mut self.head;
            for &node in order {
                head[node as usize] =
                    if tops.contains(node) { node } else { head[parent[node as usize] as usize] };
            }
            let crossed = AtomicBool::new(false);
            self.beside.par_iter().for_each(|(from, to)| {
                if head[*from as usize] != head[*to as usize] && tops.insert(*to) {
                    crossed.store(true, Relaxed);
                }
            });
            self.beside.retain(|(_, to)| !tops.contains(*to));
            if !crossed.into_inner() {
                return true;
            }
        }
        false
    }
}
