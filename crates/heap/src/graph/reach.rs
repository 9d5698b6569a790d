//! What can be reached from the roots, and the nearest way to it.

use super::{Bits, Csr, ROOT, UNREACHED};

/// A forest of paths, shortest from the roots of each group.
#[derive(Debug, Clone)]
pub struct Reach {
    /// Nodes in the order they were come upon: each after its parent.
    pub order: Vec<u32>,
    /// By node: the one before it on a shortest path, [`ROOT`] of the roots, [`UNREACHED`] of the rest.
    pub parent: Vec<u32>,
}

impl Reach {
    /// Of several shortest paths the one counts whose root, then whose references come first.
    pub fn from(graph: &Csr, roots: &[u32]) -> Reach {
        Reach::in_turn(graph, &[roots])
    }

    /// From one group of roots after the other: a path from an earlier group is preferred, however long.
    pub fn in_turn(graph: &Csr, groups: &[&[u32]]) -> Reach {
        Reach::walk(graph, groups, |_| true)
    }

    /// As though the nodes in `gone` were not there: what of the rest is alive still.
    pub fn without(graph: &Csr, roots: &[u32], gone: &Bits) -> Reach {
        Reach::walk(graph, &[roots], |node| !gone.contains(node))
    }

    fn walk(graph: &Csr, groups: &[&[u32]], enter: impl Fn(u32) -> bool) -> Reach {
        let mut parent = vec![UNREACHED; graph.nodes() as usize];
        let mut order = Vec::new();
        let mut meet = |node: u32, from: u32, order: &mut Vec<u32>| {
            if let Some(parent) = parent.get_mut(node as usize)
                && *parent == UNREACHED
                && enter(node)
            {
                *parent = from;
                order.push(node);
            }
        };
        let mut at = 0;
        for roots in groups {
            for root in *roots {
                meet(*root, ROOT, &mut order);
            }
            while let Some(&node) = order.get(at) {
                at += 1;
                for to in graph.row(node) {
                    meet(*to, node, &mut order);
                }
            }
        }
        order.shrink_to_fit();
        Reach { order, parent }
    }

    #[inline]
    pub fn reaches(&self, node: u32) -> bool {
        self.parent.get(node as usize).is_some_and(|parent| *parent != UNREACHED)
    }
}
