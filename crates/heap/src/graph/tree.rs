//! The tree of dominators, as people look at it: what hangs on what, many alike as one branch, and long
//! chains on which nothing is lost folded up to where something is.

use super::{Dominators, ROOT};
use rustc_hash::FxHashMap;

/// Children by dominator, as lists through the nodes.
pub struct Hanging {
    /// By node; the last one is of what hangs on no node.
    first: Vec<u32>,
    next: Vec<u32>,
}

const NONE: u32 = u32::MAX;

impl Hanging {
    pub fn of(dominators: &Dominators) -> Hanging {
        let count = dominators.idom.len();
        let (mut first, mut next) = (vec![NONE; count + 1], vec![NONE; count]);
        for &node in dominators.order.iter().rev() {
            let above = match dominators.idom[node as usize] {
                ROOT => count,
                above => above as usize,
            };
            next[node as usize] = first[above];
            first[above] = node;
        }
        Hanging { first, next }
    }

    /// What hangs on a node, or on none ([`ROOT`]), in the order it was come upon.
    pub fn on(&self, node: u32) -> impl Iterator<Item = u32> + '_ {
        let at = if node == ROOT { self.next.len() } else { node as usize };
        let mut next = self.first.get(at).copied().unwrap_or(NONE);
        std::iter::from_fn(move || {
            let node = (next != NONE).then_some(next)?;
            next = self.next[node as usize];
            Some(node)
        })
    }

    /// Goes through the whole tree: `f` is told each node before those below it, and again, with `false`, when
    /// all of them are done.
    pub fn walk(&self, f: &mut dyn FnMut(u32, bool)) {
        let mut at = self.first[self.next.len()];
        let mut path: Vec<u32> = Vec::new();
        loop {
            if at != NONE {
                f(at, true);
                path.push(at);
                at = self.first[at as usize];
                continue;
            }
            let Some(done) = path.pop() else { break };
            f(done, false);
            at = self.next[done as usize];
        }
    }
}

/// Nodes of one kind that hang on the same branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// Place of the branch it hangs on, none on the first level.
    pub parent: Option<usize>,
    pub depth: usize,
    /// One of them, the largest.
    pub node: u32,
    pub count: u64,
    /// Of the nodes themselves.
    pub bytes: u64,
    pub retained: u64,
    /// How many levels lie between it and what it hangs on, where they were folded.
    pub skipped: u64,
    /// What is left of a branch that has more than are shown.
    pub is_rest: bool,
}

/// How much of the tree is shown.
#[derive(Debug, Clone, Copy)]
pub struct Show {
    pub depth: usize,
    /// Branches of one branch.
    pub width: usize,
    /// What retains less is left over.
    pub least: u64,
}

/// A child with so much of what its parent retains is where to look (Eclipse MAT's next big drop).
const DROP: f64 = 0.7;
/// A node with so much of it is a branch of its own, not one of many alike.
const OWN_BRANCH: f64 = 0.05;

/// Asked about nodes.
pub struct Facts<'f> {
    pub hanging: &'f Hanging,
    pub retained: &'f [u64],
    pub size: &'f dyn Fn(u32) -> u64,
    /// Nodes of one kind are alike.
    pub kind: &'f dyn Fn(u32) -> u32,
}

impl Facts<'_> {
    fn retained(&self, node: u32) -> u64 {
        self.retained.get(node as usize).copied().unwrap_or(0)
    }

    /// Branches from a node on, or from [`ROOT`], each after the one it hangs on.
    pub fn branches(&self, from: u32, show: Show) -> Vec<Branch> {
        let mut out: Vec<Branch> = Vec::new();
        let mut todo = Vec::new();
        match from {
            // What hangs on the roots has no branch above it.
            ROOT => self.level(&[ROOT], None, 0, show, &mut todo),
            node => todo.push(Todo { nodes: vec![node], parent: None, depth: 0, skipped: 0, is_rest: false }),
        }
        while let Some(next) = todo.pop() {
            let at = out.len();
            out.push(self.branch(&next));
            if next.depth >= show.depth || next.is_rest {
                continue;
            }
            let depth = next.depth + 1;
            let folded = if let [node] = next.nodes[..] { self.drop_below(node) } else { None };
            match folded {
                Some((below, skipped)) => {
                    todo.push(Todo { nodes: vec![below], parent: Some(at), depth, skipped, is_rest: false });
                }
                None => self.level(&next.nodes, Some(at), depth, show, &mut todo),
            }
        }
        out
    }

    fn branch(&self, of: &Todo) -> Branch {
        Branch {
            parent: of.parent,
            depth: of.depth,
            node: of.nodes.iter().copied().max_by_key(|node| self.retained(*node)).unwrap_or(NONE),
            count: of.nodes.len() as u64,
            bytes: of.nodes.iter().map(|node| (self.size)(*node)).sum(),
            retained: of.nodes.iter().map(|node| self.retained(*node)).sum(),
            skipped: of.skipped,
            is_rest: of.is_rest,
        }
    }

    /// Where what the node retains is spread out for the first time, when that is two levels down or more.
    fn drop_below(&self, node: u32) -> Option<(u32, u64)> {
        let (mut at, mut levels) = (node, 0u64);
        loop {
            let largest = self.hanging.on(at).max_by_key(|child| self.retained(*child));
            match largest.filter(|child| self.retained(*child) as f64 >= DROP * self.retained(at) as f64) {
                Some(child) if levels < u64::from(u32::MAX) => (at, levels) = (child, levels + 1),
                _ => return (levels > 1).then(|| (at, levels - 1)),
            }
        }
    }

    /// What hangs on these nodes: the large ones by themselves, the others by kind. The first is pushed last.
    fn level(&self, on: &[u32], parent: Option<usize>, depth: usize, show: Show, todo: &mut Vec<Todo>) {
        let mut all: Vec<u32> = on.iter().flat_map(|node| self.hanging.on(*node)).collect();
        let whole: u64 = all.iter().map(|node| self.retained(*node)).sum();
        all.sort_by_key(|node| std::cmp::Reverse(self.retained(*node)));
        let large = all.iter().take(show.width / 2 + 1);
        let own = large.take_while(|node| self.retained(**node) as f64 >= OWN_BRANCH * whole as f64).count();
        let mut kinds: FxHashMap<u32, usize> = FxHashMap::default();
        let mut groups: Vec<(u64, Vec<u32>)> = Vec::new();
        for (place, &node) in all.iter().enumerate() {
            let at = match place < own {
                true => groups.len(),
                false => *kinds.entry((self.kind)(node)).or_insert(groups.len()),
            };
            if at == groups.len() {
                groups.push((0, Vec::new()));
            }
            groups[at].0 += self.retained(node);
            groups[at].1.push(node);
        }
        groups.sort_by_key(|group| std::cmp::Reverse(group.0));
        let large = groups.iter().take(show.width).take_while(|group| group.0 >= show.least).count();
        let rest = groups.split_off(large);
        let rest: Vec<u32> = rest.into_iter().flat_map(|group| group.1).collect();
        let branch = |nodes, is_rest| Todo { nodes, parent, depth, skipped: 0, is_rest };
        if !rest.is_empty() {
            todo.push(branch(rest, true));
        }
        todo.extend(groups.into_iter().rev().map(|(_, nodes)| branch(nodes, false)));
    }
}

/// A branch that is shown next.
struct Todo {
    nodes: Vec<u32>,
    parent: Option<usize>,
    depth: usize,
    skipped: u64,
    is_rest: bool,
}
