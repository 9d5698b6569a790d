//! Immediate dominators: the last node that every path from the roots to a node passes. What a node
//! dominates would be freed with it.
//!
//! Most of a heap is decided without the general algorithm. The forest of paths is cut into
//! regions, one under each node that is known to hang on the virtual root alone: first the roots, then
//! whatever is referred to from another region than its own, as that makes two paths that share nothing.
//! Cutting shrinks regions, which makes more such nodes; a few linear passes end it. Then no reference
//! crosses into the inside of a region, so that each is a small problem of its own. In most of them every
//! node has one referrer, which is its dominator; in the others [`region`](super::region) decides.

use super::region::Region;
use super::{Bits, Csr, ROOT, Reach, UNREACHED};
use rayon::prelude::*;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

pub struct Dominators {
    /// By node: its immediate dominator, [`ROOT`] when it hangs on no single node, [`UNREACHED`].
    pub idom: Vec<u32>,
    /// What can be reached, each node after its dominator: that lies on every path, so on the one found.
    pub order: Vec<u32>,
}

/// Passes that look for more nodes to cut at. Where they do not settle, the rest is one region.
const MAX_PASSES: usize = 24;
const CHUNK: usize = 1 << 13;

impl Dominators {
    pub fn of(graph: &Csr, roots: &[u32]) -> Dominators {
        Dominators::beside(graph, roots, Reach::from(graph, roots))
    }

    /// For whoever has paths from these roots already.
    pub fn beside(graph: &Csr, roots: &[u32], reach: Reach) -> Dominators {
        Dominators::after(graph, roots, reach, MAX_PASSES)
    }

    /// With at most so many passes that cut: the result is the same.
    pub fn after(graph: &Csr, roots: &[u32], reach: Reach, passes: usize) -> Dominators {
        let Reach { order, parent } = reach;
        // Also a root to which the path leads from another one hangs on the virtual root alone.
        let tops = Bits::of(graph.nodes(), roots.iter().copied());
        let reached = Reached::new(graph, &order);
        let (head, settled) = regions(&reached, &order, &parent, &tops, passes);
        // Nodes with another referrer than the one on the shortest path make a region a hard one.
        let hard = Bits::new(graph.nodes());
        if settled {
            reached.each_edge(|from, to| {
                if from != parent[to as usize] && from != to && !tops.contains(to) {
                    hard.insert(head[to as usize]);
                }
            });
        }
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
        let mut retained = vec![0u64; self.idom.len()];
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

/// Cuts until no reference leads from one region into another's inside. By node the head of its region,
/// and whether that was achieved.
fn regions(reached: &Reached, order: &[u32], parent: &[u32], tops: &Bits, passes: usize) -> (Vec<u32>, bool) {
    let mut head = vec![UNREACHED; reached.graph.nodes() as usize];
    for _ in 0..passes {
        for &node in order {
            head[node as usize] =
                if tops.contains(node) { node } else { head[parent[node as usize] as usize] };
        }
        let crossed = std::sync::atomic::AtomicBool::new(false);
        reached.each_edge(|from, to| {
            if head[from as usize] != head[to as usize] && tops.insert(to) {
                crossed.store(true, Relaxed);
            }
        });
        if !crossed.into_inner() {
            return (head, true);
        }
    }
    (head, false)
}

/// The nodes that can be reached, by number: their rows then follow each other in memory.
struct Reached<'g> {
    graph: &'g Csr,
    /// None: all of them.
    some: Option<Bits>,
}

impl<'g> Reached<'g> {
    fn new(graph: &'g Csr, order: &[u32]) -> Reached<'g> {
        let all = order.len() == graph.nodes() as usize;
        let some = (!all).then(|| Bits::of(graph.nodes(), order.iter().copied()));
        Reached { graph, some }
    }

    /// Calls `f` with all edges between them, in parallel.
    fn each_edge(&self, f: impl Fn(u32, u32) + Sync) {
        (0..self.graph.nodes()).into_par_iter().with_min_len(CHUNK).for_each(|from| {
            if self.some.as_ref().is_none_or(|bits| bits.contains(from)) {
                self.graph.row(from).iter().for_each(|to| f(from, *to));
            }
        });
    }
}
