//! A directed graph in compressed sparse rows: the targets of all edges in one array, ordered by where
//! they come from, and where each node's begin.

use super::Bits;
use rayon::prelude::*;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Csr {
    /// One more than there are nodes.
    offsets: Vec<u32>,
    targets: Vec<u32>,
}

/// More than can be numbered: 2^32 edges, 16 GiB of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyEdges;

impl std::fmt::Display for TooManyEdges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("there are more references between objects than 32 bits can number")
    }
}

impl std::error::Error for TooManyEdges {}

/// Why the edges of a node are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    Count,
    Fill,
}

/// Nodes that one thread takes at a time: enough to be worth the handing out, few enough to be fair.
const CHUNK: usize = 1 << 13;

impl Csr {
    /// Builds it in two passes, both in parallel: `edges` is asked in each for the targets of each node and
    /// must answer the same. `state` makes what each thread needs to answer. Targets that are no nodes
    /// are left out.
    ///
    /// # Errors
    /// More edges than can be numbered.
    pub fn build<S>(
        nodes: u32,
        state: impl Fn() -> S + Sync,
        edges: impl Fn(&mut S, u32, Pass, &mut dyn FnMut(u32)) + Sync,
    ) -> Result<Csr, TooManyEdges> {
        let nodes = nodes.min(super::MAX_NODES);
        let mut offsets = vec![0u32; nodes as usize + 1];
        offsets[1..].par_chunks_mut(CHUNK).enumerate().for_each_init(&state, |state, (chunk, counts)| {
            for (node, count) in ((chunk * CHUNK) as u32..).zip(counts) {
                edges(state, node, Pass::Count, &mut |to| {
                    *count = count.saturating_add(u32::from(to < nodes))
                });
            }
        });
        sum_up(&mut offsets)?;
        let mut targets = vec![0u32; offsets[nodes as usize] as usize];
        let rows = rows_mut(&offsets, &mut targets);
        rows.into_par_iter().enumerate().for_each_init(&state, |state, (chunk, mut targets)| {
            let first = chunk * CHUNK;
            for node in first..(first + CHUNK).min(nodes as usize) {
                let wanted = (offsets[node + 1] - offsets[node]) as usize;
                let (row, rest) = std::mem::take(&mut targets).split_at_mut(wanted);
                targets = rest;
                let mut at = 0;
                edges(state, node as u32, Pass::Fill, &mut |to| {
                    if to < nodes
                        && let Some(slot) = row.get_mut(at)
                    {
                        *slot = to;
                        at += 1;
                    }
                });
                // Fewer than the first time: a node that refers to itself changes nothing.
                row[at..].fill(node as u32);
            }
        });
        Ok(Csr { offsets, targets })
    }

    /// The graph without nodes.
    pub fn empty() -> Csr {
        Csr { offsets: vec![0], targets: Vec::new() }
    }

    /// From lists of targets, for graphs that are given as such.
    ///
    /// # Errors
    /// More edges than can be numbered.
    pub fn from_rows(rows: &[Vec<u32>]) -> Result<Csr, TooManyEdges> {
        let nodes = u32::try_from(rows.len()).map_err(|_| TooManyEdges)?;
        Csr::build(nodes, || (), |(), node, _, f| rows[node as usize].iter().for_each(|to| f(*to)))
    }

    /// The same graph with these nodes behind those that are there.
    ///
    /// # Errors
    /// More edges than can be numbered.
    pub fn with(&self, rows: Vec<Vec<u32>>) -> Result<Csr, TooManyEdges> {
        let mut whole = self.clone();
        for row in rows {
            whole.targets.extend(row);
            whole.offsets.push(u32::try_from(whole.targets.len()).map_err(|_| TooManyEdges)?);
        }
        Ok(whole)
    }

    pub fn nodes(&self) -> u32 {
        (self.offsets.len() - 1) as u32
    }

    pub fn edges(&self) -> u32 {
        self.targets.len() as u32
    }

    /// What the node refers to, once for each reference.
    #[inline]
    pub fn row(&self, node: u32) -> &[u32] {
        let at = node as usize;
        &self.targets[self.offsets[at] as usize..self.offsets[at + 1] as usize]
    }

    /// Where an edge leads, by its place.
    pub fn target(&self, edge: u32) -> Option<u32> {
        self.targets.get(edge as usize).copied()
    }

    /// The place of a node's first edge among all edges: what is kept by edge is kept at these.
    pub fn first_edge(&self, node: u32) -> u32 {
        self.offsets[node as usize]
    }

    /// Every edge to one of these nodes, as (from, to), in the order of the rows.
    pub fn referrers(&self, of: &Bits) -> Vec<(u32, u32)> {
        let chunks: Vec<Vec<(u32, u32)>> = (0..self.nodes().div_ceil(CHUNK as u32))
            .into_par_iter()
            .map(|chunk| {
                let first = chunk * CHUNK as u32;
                let nodes = first..first.saturating_add(CHUNK as u32).min(self.nodes());
                let edges = nodes.flat_map(|from| self.row(from).iter().map(move |to| (from, *to)));
                edges.filter(|(_, to)| of.contains(*to)).collect()
            })
            .collect();
        chunks.concat()
    }

    /// The same graph with its edges turned round; each row ascends.
    pub fn reversed(&self) -> Csr {
        let nodes = self.nodes();
        let counts: Vec<AtomicU32> = (0..=nodes).map(|_| AtomicU32::new(0)).collect();
        self.targets.par_iter().for_each(|to| {
            counts[*to as usize + 1].fetch_add(1, Relaxed);
        });
        let mut offsets: Vec<u32> = counts.into_iter().map(AtomicU32::into_inner).collect();
        // As many as there were: they can be numbered.
        let _ = sum_up(&mut offsets);
        let next: Vec<AtomicU32> = offsets.iter().map(|at| AtomicU32::new(*at)).collect();
        let filled: Vec<AtomicU32> = (0..self.targets.len()).map(|_| AtomicU32::new(0)).collect();
        (0..nodes).into_par_iter().with_min_len(CHUNK).for_each(|from| {
            for to in self.row(from) {
                let at = next[*to as usize].fetch_add(1, Relaxed);
                filled[at as usize].store(from, Relaxed);
            }
        });
        drop(next);
        let mut targets: Vec<u32> = filled.into_iter().map(AtomicU32::into_inner).collect();
        // Threads took turns: sorting makes the result the same each time.
        rows_mut(&offsets, &mut targets).into_par_iter().enumerate().for_each(|(chunk, mut targets)| {
            let first = chunk * CHUNK;
            for node in first..(first + CHUNK).min(nodes as usize) {
                let (row, rest) =
                    std::mem::take(&mut targets).split_at_mut((offsets[node + 1] - offsets[node]) as usize);
                targets = rest;
                row.sort_unstable();
            }
        });
        Csr { offsets, targets }
    }
}

/// Counts, each one place late, become offsets.
fn sum_up(offsets: &mut [u32]) -> Result<(), TooManyEdges> {
    let mut sum = 0u32;
    for offset in offsets {
        sum = sum.checked_add(*offset).ok_or(TooManyEdges)?;
        *offset = sum;
    }
    Ok(())
}

/// The rows of each chunk of nodes.
fn rows_mut<'t>(offsets: &[u32], mut targets: &'t mut [u32]) -> Vec<&'t mut [u32]> {
    let nodes = offsets.len() - 1;
    let mut out = Vec::with_capacity(nodes.div_ceil(CHUNK));
    for first in (0..nodes).step_by(CHUNK) {
        let end = offsets[(first + CHUNK).min(nodes)] - offsets[first];
        let (head, tail) = targets.split_at_mut(end as usize);
        out.push(head);
        targets = tail;
    }
    out
}
