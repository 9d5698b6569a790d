//! Paths to everything that can be reached, not the shortest ones but the cheapest to find.
//!
//! A walk that goes wherever references lead waits for memory at each of them once a graph is larger than the
//! processor's caches. So it takes one neighbourhood at a time: what leads elsewhere is noted for there, and looked
//! at together with all else that leads there.

use super::csr::fetch;
use super::{Bits, Csr, ROOT, UNREACHED};
use rayon::prelude::*;
use std::collections::VecDeque;

/// Each root with what was come upon from it.
pub(super) struct Forest {
    /// Nodes in the order they were come upon: each after its parent.
    pub order: Vec<u32>,
    /// By node: the one before it on the path found, [`ROOT`] of the roots, [`UNREACHED`] of the rest.
    pub parent: Vec<u32>,
    /// By node: the root it was come upon from, or [`UNREACHED`].
    pub head: Vec<u32>,
    /// References beside those of the paths, as (from, to), but for those to tops.
    pub beside: Vec<(u32, u32)>,
}

/// Nodes of a neighbourhood, whose rows and columns fit into a cache together.
const NEAR_SHIFT: u32 = 14;

/// So many references come to most of a neighbourhood: it is worth fetching the whole.
const WORTH_FETCHING: usize = 1 << 8;

/// So many references that lead to a neighbourhood are worth going there before it is its turn: what they lead to is
/// often referred to by everybody, and once that is known it is noted no more.
const FULL: usize = 1 << 10;

/// A reference from a node to another one, and the root that the first was come upon from.
struct Step {
    to: u32,
    from: u32,
    head: u32,
}

impl Forest {
    /// From roots that `tops` has. To those it adds nodes that references lead to from what was come upon from two
    /// roots: none is on all paths there.
    pub fn of(graph: &Csr, roots: &[u32], tops: &Bits) -> Forest {
        let nodes = graph.nodes();
        // In parallel, as the system gives memory a page at a time to whoever touches it first.
        let unknown = || rayon::iter::repeat_n(UNREACHED, nodes as usize).collect::<Vec<u32>>();
        let mut forest = Forest { order: Vec::new(), parent: unknown(), head: unknown(), beside: Vec::new() };
        let mut away = Away::new(nodes);
        for &root in roots.iter().filter(|root| **root < nodes) {
            away.note(Step { to: root, from: ROOT, head: root });
        }
        let mut done = 0;
        while let Some((near, steps)) = away.next() {
            if steps.len() >= WORTH_FETCHING {
                let nodes = near << NEAR_SHIFT..((near + 1) << NEAR_SHIFT).min(nodes);
                graph.fetch(nodes.clone());
                for column in [&forest.head, &forest.parent] {
                    fetch(&column[nodes.start as usize..nodes.end as usize]);
                }
            }
            for step in steps {
                forest.follow(&step, tops);
            }
            while let Some(&from) = forest.order.get(done) {
                done += 1;
                let head = forest.head[from as usize];
                for &to in graph.row(from).iter().filter(|to| !tops.contains(**to)) {
                    let step = Step { to, from, head };
                    if to >> NEAR_SHIFT == near {
                        forest.follow(&step, tops);
                    } else {
                        away.note(step);
                    }
                }
            }
        }
        forest.order.shrink_to_fit();
        forest
    }

    #[inline]
    fn follow(&mut self, step: &Step, tops: &Bits) {
        let head = &mut self.head[step.to as usize];
        if *head == UNREACHED {
            *head = step.head;
            self.parent[step.to as usize] = step.from;
            self.order.push(step.to);
        } else if *head != step.head {
            tops.insert(step.to);
        } else if self.parent[step.to as usize] != step.from && step.to != step.from {
            self.beside.push((step.from, step.to));
        }
    }
}

/// References that lead out of the neighbourhood they were met in.
struct Away {
    /// By neighbourhood.
    steps: Vec<Vec<Step>>,
    /// Neighbourhoods to which some lead, twice where many do.
    next: VecDeque<u32>,
}

impl Away {
    fn new(nodes: u32) -> Away {
        let steps = (0..=nodes >> NEAR_SHIFT).map(|_| Vec::new()).collect();
        Away { steps, next: VecDeque::new() }
    }

    fn note(&mut self, step: Step) {
        let near = step.to >> NEAR_SHIFT;
        let steps = &mut self.steps[near as usize];
        if steps.is_empty() {
            self.next.push_back(near);
        }
        steps.push(step);
        if steps.len() == FULL {
            self.next.push_front(near);
        }
    }

    /// One that some lead to, and those.
    fn next(&mut self) -> Option<(u32, Vec<Step>)> {
        while let Some(near) = self.next.pop_front() {
            let steps = std::mem::take(&mut self.steps[near as usize]);
            // None if it had its turn when it was full.
            if !steps.is_empty() {
                return Some((near, steps));
            }
        }
        None
    }
}
