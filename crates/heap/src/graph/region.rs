//! Dominators of a part of the graph that one node is the only way into: Semi-NCA (Georgiadis).
//!
//! Its last step climbs the tree of dominators, which takes quadratic time where the tree is a long chain:
//! a linked list whose values something else holds as well. So nodes have, beside their dominator, a link
//! that jumps further (Myers' skew-binary lists), and climbing takes the logarithm.

use super::{Bits, Csr, ROOT, UNREACHED};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// What one region takes, kept for the next. Nodes are numbered as a depth-first walk meets them.
#[derive(Default)]
pub struct Region {
    /// By number: the node; [`ROOT`] when there is none above.
    nodes: Vec<u32>,
    /// Parent in the walk's tree; compression shortens it.
    parent: Vec<u32>,
    semi: Vec<u32>,
    label: Vec<u32>,
    idom: Vec<u32>,
    jump: Vec<u32>,
    depth: Vec<u32>,
    /// Referrers of each number, as rows.
    first: Vec<u32>,
    from: Vec<u32>,
    /// Numbers with their next edge; numbers on the way up.
    stack: Vec<(u32, u32)>,
    path: Vec<u32>,
}

impl Region {
    /// Writes the dominators of all nodes below `head`, or below all of `tops` together. References to
    /// `tops` do not count. `local` is the region's to use where its nodes are.
    pub fn solve(
        &mut self,
        graph: &Csr,
        tops: &Bits,
        head: Option<u32>,
        local: &[AtomicU32],
        idom: &[AtomicU32],
    ) {
        self.clear();
        let under_all: Vec<u32> = if head.is_none() { tops.iter().collect() } else { Vec::new() };
        let inside = |from: u32, to: u32| from == ROOT || !tops.contains(to);
        let row = |node: u32| if node == ROOT { &under_all[..] } else { graph.row(node) };
        self.walk(head.unwrap_or(ROOT), local, row, inside);
        self.referrers(local, row, inside);
        self.semidominators();
        self.nearest();
        for number in 1..self.nodes.len() {
            let above = self.nodes[self.idom[number] as usize];
            idom[self.nodes[number] as usize].store(above, Relaxed);
        }
    }

    fn clear(&mut self) {
        // A large one's memory is not kept through a million small ones.
        if self.nodes.capacity() > 1 << 20 {
            *self = Region::default();
        }
        self.nodes.clear();
        self.parent.clear();
    }

    fn walk<'g>(
        &mut self,
        head: u32,
        local: &[AtomicU32],
        row: impl Fn(u32) -> &'g [u32],
        inside: impl Fn(u32, u32) -> bool,
    ) {
        self.nodes.push(head);
        self.parent.push(0);
        if let Some(number) = local.get(head as usize) {
            number.store(0, Relaxed);
        }
        self.stack.push((0, 0));
        while let Some((number, edge)) = self.stack.last_mut() {
            let node = self.nodes[*number as usize];
            let Some(&to) = row(node).get(*edge as usize) else {
                self.stack.pop();
                continue;
            };
            *edge += 1;
            let place = &local[to as usize];
            if place.load(Relaxed) == UNREACHED && inside(node, to) {
                let next = self.nodes.len() as u32;
                place.store(next, Relaxed);
                self.nodes.push(to);
                self.parent.push(*number);
                self.stack.push((next, 0));
            }
        }
    }

    /// Turns the region's edges round.
    fn referrers<'g>(
        &mut self,
        local: &[AtomicU32],
        row: impl Fn(u32) -> &'g [u32],
        inside: impl Fn(u32, u32) -> bool,
    ) {
        let count = self.nodes.len();
        self.first.clear();
        self.first.resize(count + 2, 0);
        for &node in &self.nodes {
            for &to in row(node).iter().filter(|to| inside(node, **to)) {
                self.first[local[to as usize].load(Relaxed) as usize + 2] += 1;
            }
        }
        for at in 1..self.first.len() {
            self.first[at] += self.first[at - 1];
        }
        self.from.clear();
        self.from.resize(self.first[count + 1] as usize, 0);
        for (number, &node) in (0u32..).zip(&self.nodes) {
            for &to in row(node).iter().filter(|to| inside(node, **to)) {
                let next = &mut self.first[local[to as usize].load(Relaxed) as usize + 1];
                self.from[*next as usize] = number;
                *next += 1;
            }
        }
    }

    fn semidominators(&mut self) {
        let count = self.nodes.len() as u32;
        self.idom.clear();
        self.idom.extend_from_slice(&self.parent);
        for column in [&mut self.semi, &mut self.label] {
            column.clear();
            column.extend(0..count);
        }
        for number in (1..count).rev() {
            let mut semi = self.parent[number as usize];
            let row = self.first[number as usize] as usize..self.first[number as usize + 1] as usize;
            for at in row {
                let best = self.eval(self.from[at], number + 1);
                semi = semi.min(self.semi[best as usize]);
            }
            self.semi[number as usize] = semi;
        }
    }

    /// The number with the least semidominator on the way up to what is not `linked` yet.
    fn eval(&mut self, number: u32, linked: u32) -> u32 {
        if self.parent[number as usize] < linked {
            return self.label[number as usize];
        }
        let mut above = number;
        while self.parent[above as usize] >= linked {
            self.path.push(above);
            above = self.parent[above as usize];
        }
        let mut best = self.label[above as usize];
        while let Some(at) = self.path.pop() {
            self.parent[at as usize] = self.parent[above as usize];
            let own = self.label[at as usize];
            if self.semi[best as usize] < self.semi[own as usize] {
                self.label[at as usize] = best;
            } else {
                best = own;
            }
            above = at;
        }
        self.label[number as usize]
    }

    /// The dominator is the nearest one above the parent that is not below the semidominator.
    fn nearest(&mut self) {
        let count = self.nodes.len();
        for column in [&mut self.jump, &mut self.depth] {
            column.clear();
            column.resize(count, 0);
        }
        for number in 1..count {
            let semi = self.semi[number];
            let mut at = self.idom[number];
            while at > semi {
                let far = self.jump[at as usize];
                at = if far > semi { far } else { self.idom[at as usize] };
            }
            self.idom[number] = at;
            let at = at as usize;
            self.depth[number] = self.depth[at] + 1;
            let far = self.jump[at] as usize;
            let further = self.jump[far] as usize;
            let even = self.depth[at] - self.depth[far] == self.depth[far] - self.depth[further];
            self.jump[number] = if even { further as u32 } else { at as u32 };
        }
    }
}
