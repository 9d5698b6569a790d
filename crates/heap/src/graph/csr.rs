//! A directed graph in compressed sparse rows: the targets of all edges by where they come from, in chunks of
//! so many nodes. A chunk is filled in one pass over its nodes and stays where it was filled; graphs that
//! share nodes share chunks.

use super::Bits;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Csr {
    chunks: Vec<Arc<Chunk>>,
    nodes: u32,
    edges: u32,
}

/// Rows of nodes that follow each other.
#[derive(Debug, PartialEq, Eq)]
struct Chunk {
    /// Where each row ends among the targets; before the first one stands 0.
    ends: Vec<u32>,
    targets: Vec<u32>,
}

/// The rows of a chunk while they are told.
pub struct Rows {
    chunk: Chunk,
    /// Targets from here on are no nodes.
    nodes: u32,
    /// More targets than can be numbered.
    full: bool,
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

/// Nodes of a chunk, which one thread fills: enough to be worth the handing out, few enough to be fair.
const CHUNK: u32 = 1 << CHUNK_SHIFT;
const CHUNK_SHIFT: u32 = 13;

/// So many nodes, in the ranges that threads take.
pub(crate) fn chunks(nodes: u32) -> impl IndexedParallelIterator<Item = Range<u32>> {
    let first = (0..nodes.div_ceil(CHUNK)).into_par_iter().map(|chunk| chunk * CHUNK);
    first.map(move |first| first..first + CHUNK.min(nodes - first))
}

impl Rows {
    fn new(nodes: u32) -> Rows {
        let mut ends = Vec::with_capacity(CHUNK as usize + 1);
        ends.push(0);
        Rows { chunk: Chunk { ends, targets: Vec::new() }, nodes, full: false }
    }

    /// One more target of the row at hand, if it is a node.
    #[inline]
    pub fn add(&mut self, to: u32) {
        if to < self.nodes {
            if self.chunk.targets.len() < u32::MAX as usize {
                self.chunk.targets.push(to);
            } else {
                self.full = true;
            }
        }
    }

    /// The row at hand is whole; the next node's follows.
    #[inline]
    pub fn end(&mut self) {
        self.chunk.ends.push(self.chunk.targets.len() as u32);
    }

    /// Just so many rows: what was not ended is, and what is too much goes.
    fn finish(self, rows: u32) -> Result<Arc<Chunk>, TooManyEdges> {
        if self.full {
            return Err(TooManyEdges);
        }
        let Chunk { mut ends, mut targets } = self.chunk;
        ends.resize(rows as usize + 1, targets.len() as u32);
        targets.truncate(ends[rows as usize] as usize);
        targets.shrink_to_fit();
        ends.shrink_to_fit();
        Ok(Arc::new(Chunk { ends, targets }))
    }
}

/// Reads a number of each line of the cache.
pub(super) fn fetch(numbers: &[u32]) {
    const LINE: usize = 64 / size_of::<u32>();
    let sum = numbers.iter().step_by(LINE).fold(0u32, |sum, number| sum.wrapping_add(*number));
    std::hint::black_box(sum);
}

impl Chunk {
    #[inline]
    fn row(&self, at: usize) -> &[u32] {
        &self.targets[self.ends[at] as usize..self.ends[at + 1] as usize]
    }
}

impl Csr {
    /// Asks `fill` for the rows of some nodes after each other, in parallel, and gives what else it answers in
    /// their order. `state` makes what each thread needs to answer.
    ///
    /// # Errors
    /// More edges than can be numbered.
    pub fn build<S, T: Send>(
        nodes: u32,
        state: impl Fn() -> S + Sync,
        fill: impl Fn(&mut S, Range<u32>, &mut Rows) -> T + Sync,
    ) -> Result<(Csr, Vec<T>), TooManyEdges> {
        let nodes = nodes.min(super::MAX_NODES);
        let chunks = chunks(nodes).map_init(&state, |state, range| {
            let mut rows = Rows::new(nodes);
            let count = range.end - range.start;
            let answer = fill(state, range, &mut rows);
            Ok((rows.finish(count)?, answer))
        });
        let (chunks, answers): (Vec<_>, Vec<T>) =
            chunks.collect::<Result<Vec<_>, TooManyEdges>>()?.into_iter().unzip();
        Ok((Csr::of_chunks(chunks, nodes)?, answers))
    }

    /// Has the rows of these nodes, or a little more, in the processor's cache: read in order, memory comes several
    /// times faster than when a walk asks for one row after the other.
    pub(super) fn fetch(&self, nodes: Range<u32>) {
        let first = (nodes.start >> CHUNK_SHIFT) as usize;
        let behind = (nodes.end.div_ceil(CHUNK) as usize).min(self.chunks.len());
        for chunk in self.chunks.get(first..behind).unwrap_or_default() {
            fetch(&chunk.ends);
            fetch(&chunk.targets);
        }
    }

    fn of_chunks(chunks: Vec<Arc<Chunk>>, nodes: u32) -> Result<Csr, TooManyEdges> {
        let edges = chunks.iter().map(|rows| rows.targets.len() as u64).sum::<u64>();
        let edges = u32::try_from(edges).map_err(|_| TooManyEdges)?;
        Ok(Csr { chunks, nodes, edges })
    }

    /// Of targets that are told one node at a time.
    ///
    /// # Errors
    /// More edges than can be numbered.
    pub fn of(nodes: u32, edges: impl Fn(u32, &mut dyn FnMut(u32)) + Sync) -> Result<Csr, TooManyEdges> {
        let built = Csr::build(
            nodes,
            || (),
            |(), nodes, rows| {
                for node in nodes {
                    edges(node, &mut |to| rows.add(to));
                    rows.end();
                }
            },
        );
        Ok(built?.0)
    }

    /// The graph without nodes.
    pub fn empty() -> Csr {
        Csr { chunks: Vec::new(), nodes: 0, edges: 0 }
    }

    /// From lists of targets, for graphs that are given as such.
    ///
    /// # Errors
    /// More edges than can be numbered.
    pub fn from_rows(rows: &[Vec<u32>]) -> Result<Csr, TooManyEdges> {
        let nodes = u32::try_from(rows.len()).map_err(|_| TooManyEdges)?;
        Csr::of(nodes, |node, f| rows[node as usize].iter().for_each(|to| f(*to)))
    }

    /// The same graph with these nodes behind those that are there.
    ///
    /// # Errors
    /// More nodes or edges than can be numbered.
    pub fn with(&self, rows: &[Vec<u32>]) -> Result<Csr, TooManyEdges> {
        let more = u32::try_from(rows.len()).map_err(|_| TooManyEdges)?;
        let nodes =
            self.nodes.checked_add(more).filter(|nodes| *nodes <= super::MAX_NODES).ok_or(TooManyEdges)?;
        // The last chunk may have room yet.
        let whole = self.nodes / CHUNK;
        let mut chunks = self.chunks[..whole as usize].to_vec();
        for first in (whole * CHUNK..nodes).step_by(CHUNK as usize) {
            let end = first.saturating_add(CHUNK).min(nodes);
            let mut chunk = Rows::new(nodes);
            for node in first..end {
                let row = match node.checked_sub(self.nodes) {
                    Some(new) => &rows[new as usize][..],
                    None => self.row(node),
                };
                row.iter().for_each(|to| chunk.add(*to));
                chunk.end();
            }
            chunks.push(chunk.finish(end - first)?);
        }
        Csr::of_chunks(chunks, nodes)
    }

    pub fn nodes(&self) -> u32 {
        self.nodes
    }

    pub fn edges(&self) -> u32 {
        self.edges
    }

    /// What the node refers to, once for each reference.
    #[inline]
    pub fn row(&self, node: u32) -> &[u32] {
        self.chunks[(node >> CHUNK_SHIFT) as usize].row((node % CHUNK) as usize)
    }

    /// Calls `f` with all edges, in parallel.
    fn each_edge(&self, f: impl Fn(u32, u32) + Sync) {
        self.chunks.par_iter().zip(0..self.chunks.len() as u32).for_each(|(rows, chunk)| {
            for (at, from) in (0..rows.ends.len() - 1).zip(chunk * CHUNK..) {
                rows.row(at).iter().for_each(|to| f(from, *to));
            }
        });
    }

    /// Every edge to one of these nodes, as (from, to), in the order of the rows.
    pub fn referrers(&self, of: &Bits) -> Vec<(u32, u32)> {
        let chunks: Vec<Vec<(u32, u32)>> = self
            .chunks
            .par_iter()
            .zip(0..self.chunks.len() as u32)
            .map(|(rows, chunk)| {
                let nodes = (0..rows.ends.len() - 1).zip(chunk * CHUNK..);
                let edges = nodes.flat_map(|(at, from)| rows.row(at).iter().map(move |to| (from, *to)));
                edges.filter(|(_, to)| of.contains(*to)).collect()
            })
            .collect();
        chunks.concat()
    }

    /// The same graph with its edges turned round; each row ascends.
    pub fn reversed(&self) -> Csr {
        let next: Vec<AtomicU32> = (0..self.nodes).map(|_| AtomicU32::new(0)).collect();
        self.each_edge(|_, to| {
            next[to as usize].fetch_add(1, Relaxed);
        });
        // Counts become where the next referrer goes. There are as many as before: they can be numbered.
        let rows: Vec<(Vec<u32>, Vec<AtomicU32>)> = next
            .par_chunks(CHUNK as usize)
            .map(|counts| {
                let mut ends = vec![0];
                let mut end = 0;
                for count in counts {
                    let begin = end;
                    end += count.swap(begin, Relaxed);
                    ends.push(end);
                }
                (ends, (0..end).map(|_| AtomicU32::new(0)).collect())
            })
            .collect();
        self.each_edge(|from, to| {
            let at = next[to as usize].fetch_add(1, Relaxed);
            rows[(to >> CHUNK_SHIFT) as usize].1[at as usize].store(from, Relaxed);
        });
        drop(next);
        // Threads took turns: sorting makes the result the same each time.
        let chunks = rows.into_par_iter().map(|(ends, targets)| {
            let mut targets: Vec<u32> = targets.into_iter().map(AtomicU32::into_inner).collect();
            for row in ends.windows(2) {
                targets[row[0] as usize..row[1] as usize].sort_unstable();
            }
            Arc::new(Chunk { ends, targets })
        });
        Csr { chunks: chunks.collect(), nodes: self.nodes, edges: self.edges }
    }
}
