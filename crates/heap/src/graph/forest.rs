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

/// So many references ahead memory is asked whether they lead to tops. The answers lie anywhere in it: it gives many
/// in the time of one, unless each has to be there before what comes next is known.
const BATCH: usize = 64;

/// A reference from a node to another one, and the root that the first was come upon from.
#[derive(Clone, Copy)]
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
        let mut cursor = Cursor::default();
        let (mut batch, mut next) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
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
            forest.gather(graph, tops, &mut cursor, &mut batch);
            while !batch.is_empty() {
                forest.gather(graph, tops, &mut cursor, &mut next);
                // Kept or not by counting: what leads to tops and what does not comes in no order that a processor
                // could guess.
                let mut open = 0;
                for at in 0..batch.len() {
                    let step = batch[at];
                    batch[open] = step;
                    open += usize::from(!tops.contains(step.to));
                }
                for step in batch.drain(..).take(open) {
                    if step.to >> NEAR_SHIFT == near {
                        forest.follow(&step, tops);
                    } else {
                        away.note(step);
                    }
                }
                if next.is_empty() {
                    forest.gather(graph, tops, &mut cursor, &mut next);
                }
                std::mem::swap(&mut batch, &mut next);
            }
        }
        forest.order.shrink_to_fit();
        forest
    }

    /// The next references, of which memory is asked whether they lead to tops. None when all have been given.
    #[inline]
    fn gather<'g>(&self, graph: &'g Csr, tops: &Bits, cursor: &mut Cursor<'g>, batch: &mut Vec<Step>) {
        while batch.len() < BATCH {
            let Some((&to, rest)) = cursor.rest.split_first() else {
                let Some(&from) = self.order.get(cursor.next) else { break };
                let head = self.head[from as usize];
                *cursor = Cursor { next: cursor.next + 1, from, head, rest: graph.row(from) };
                continue;
            };
            cursor.rest = rest;
            tops.prefetch(to);
            batch.push(Step { to, from: cursor.from, head: cursor.head });
        }
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

/// How far the references have been gathered of what was come upon.
#[derive(Default)]
struct Cursor<'g> {
    /// Position in the order of the node after this one.
    next: usize,
    from: u32,
    head: u32,
    /// What is left of its row.
    rest: &'g [u32],
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
