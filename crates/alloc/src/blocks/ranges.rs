//! Every byte of a span, used or not, with what it is.

use super::{Blocks, CHUNK_HEADER, Span, SpanKind};
use crate::pymalloc::{BAD_POOL, FREE_POOL, Geometry, POOL_HEADER};
use std::ops::Range;

/// What a range of memory is for its allocator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Handed out: bytes of the block of that id, its header included. A holder comes in several ranges.
    Used(u32),
    /// The first 48 bytes of a pool.
    PoolHeader,
    /// Free blocks or slots, in a pool or block of which others are used.
    FreeBlock,
    /// A pool without used blocks.
    FreePool,
    /// Part of an arena no pool was made of yet.
    Uncarved,
    /// Lost to alignment: the tail of a pool, the head and tail of an arena.
    AlignmentLoss,
    /// A pool or part of a heap that is damaged or could not be read.
    Bad,
    /// A free chunk in one of the bins.
    FreeChunk,
    /// A chunk kept ready for the thread that freed it.
    Tcache,
    /// A small chunk not yet merged with its neighbours.
    Fastbin,
    /// The end of the arena's newest heap, from which chunks are cut.
    Top,
    /// `heap_info` and `malloc_state` at the head of a thread arena's heap, and what aligns the first chunk.
    ArenaHeader,
    /// The marker at the end of a heap that is not the arena's newest.
    Fencepost,
    /// Between two parts of the main heap: moved `brk` on without malloc.
    Foreign,
}

impl State {
    /// Every state but [`Used`](State::Used).
    pub const UNUSED: [State; 13] = [
        State::PoolHeader,
        State::FreeBlock,
        State::FreePool,
        State::Uncarved,
        State::AlignmentLoss,
        State::Bad,
        State::FreeChunk,
        State::Tcache,
        State::Fastbin,
        State::Top,
        State::ArenaHeader,
        State::Fencepost,
        State::Foreign,
    ];
}

impl Blocks {
    /// Calls `f` for ranges that cover the span of that index exactly once, in address order.
    pub fn for_each_range(&self, span: usize, mut f: impl FnMut(Range<u64>, State)) {
        let span = &self.spans[span];
        let (start, end) = (span.start, span.end);
        // Neighbours in one state are one range; what reaches out of the span is cut.
        let mut open: Option<(Range<u64>, State)> = None;
        let mut emit = |range: Range<u64>, state: State| {
            let range = range.start.max(start)..range.end.min(end);
            if range.start >= range.end {
                return;
            }
            match &mut open {
                Some((last, s)) if *s == state && last.end == range.start => last.end = range.end,
                _ => {
                    if let Some((range, state)) = open.replace((range, state)) {
                        f(range, state);
                    }
                }
            }
        };
        self.cut(span, &mut emit);
        if let Some((range, state)) = open {
            f(range, state);
        }
    }

    /// Calls `f` for every block, chunk and pool of the span of that index by itself, in address order:
    /// neighbours in one state stay apart, and so do the free blocks of a pool.
    pub fn for_each_piece(&self, span: usize, mut f: impl FnMut(Range<u64>, State)) {
        let span = &self.spans[span];
        self.cut(span, &mut |range, state| {
            let range = range.start.max(span.start)..range.end.min(span.end);
            if range.start >= range.end {
                return;
            }
            let unit = match span.kind {
                _ if state != State::FreeBlock => 0,
                SpanKind::Pymalloc { geometry, .. } => {
                    let pool = range.start.saturating_sub(span.base) >> geometry.pool_size.trailing_zeros();
                    let class = self.classes.get(span.data + pool as usize).copied().unwrap_or(0);
                    u64::from(class) * u64::from(geometry.alignment)
                }
                SpanKind::Slots { stride } => u64::from(stride),
                _ => 0,
            };
            if unit == 0 || !(range.end - range.start).is_multiple_of(unit) {
                return f(range, state);
            }
            for start in range.step_by(unit as usize) {
                f(start..start + unit, state);
            }
        });
    }

    fn cut(&self, span: &Span, emit: &mut impl FnMut(Range<u64>, State)) {
        let (start, end) = (span.start, span.end);
        match span.kind {
            SpanKind::Pymalloc { geometry, .. } => self.arena_ranges(span, geometry, emit),
            SpanKind::Heap { .. } => self.heap_ranges(span, emit),
            SpanKind::Mmapped => emit(start..end, State::Used(span.carry.unwrap_or(span.first))),
            SpanKind::Slots { stride } => {
                let mut at = start;
                for (bit, id) in self.bits(span).zip(span.first..) {
                    let slot = span.origin + bit * u64::from(stride);
                    emit(at..slot, State::FreeBlock);
                    at = slot + u64::from(stride);
                    emit(slot..at, State::Used(id));
                }
                emit(at..end, State::FreeBlock);
            }
        }
    }

    fn arena_ranges(&self, span: &Span, geometry: Geometry, emit: &mut impl FnMut(Range<u64>, State)) {
        let pool_size = u64::from(geometry.pool_size);
        emit(span.start..span.base, State::AlignmentLoss);
        let shift = geometry.alignment.trailing_zeros();
        let carry = span.carry.map(|id| (self.block(id).start, id));
        let mut id = span.first;
        let first = span.start.saturating_sub(span.base) / pool_size;
        for i in first..u64::from(span.pools) {
            let pool = span.base + i * pool_size;
            if pool >= span.end {
                break;
            }
            let class = self.classes[span.data + i as usize];
            if class == BAD_POOL || class == FREE_POOL {
                let state = if class == BAD_POOL { State::Bad } else { State::FreePool };
                emit(pool..pool + pool_size, state);
                continue;
            }
            let size = u64::from(class) * u64::from(geometry.alignment);
            let mut at = pool + POOL_HEADER;
            let tail = at + (pool_size - POOL_HEADER) / size * size;
            emit(pool..at, State::PoolHeader);
            let mut used = |start: u64, id: u32| {
                emit(at..start, State::FreeBlock);
                at = start + size;
                emit(start..at, State::Used(id));
            };
            if let Some((start, id)) = carry
                && (pool..tail).contains(&start)
            {
                used(start, id);
            }
            // A pool begins with a word of the bitmap; the span may begin within the pool.
            let from = pool.saturating_sub(span.origin) >> shift >> 6;
            let to = ((pool + pool_size).saturating_sub(span.origin) >> shift >> 6).min(span.words as u64);
            for word in from..to {
                let mut rest = self.words[span.word + word as usize];
                while rest != 0 {
                    let bit = word * 64 + u64::from(rest.trailing_zeros());
                    rest &= rest - 1;
                    used(span.origin + (bit << shift), id);
                    id += 1;
                }
            }
            emit(at..tail, State::FreeBlock);
            emit(tail..pool + pool_size, State::AlignmentLoss);
        }
        let carved = span.base + u64::from(span.pools) * pool_size;
        let pools_end = carved.max(span.end / pool_size * pool_size);
        emit(carved..pools_end, State::Uncarved);
        emit(pools_end..span.end, State::AlignmentLoss);
    }

    fn heap_ranges(&self, span: &Span, emit: &mut impl FnMut(Range<u64>, State)) {
        let mut at = span.start;
        if let Some(id) = span.carry {
            let block = self.block(id);
            at = (block.start - CHUNK_HEADER + block.usable + 8).clamp(span.start, span.end);
            emit(span.start..at, State::Used(id));
        }
        let mut marks = self.marks[self.marks.partition_point(|m| m.end <= at)..].iter().peekable();
        let mut gap = |from: u64, to: u64, emit: &mut dyn FnMut(Range<u64>, State)| {
            let mut at = from;
            while let Some(mark) = marks.next_if(|m| m.start < to) {
                emit(at..mark.start, State::FreeChunk);
                emit(mark.start.max(at)..mark.end.min(to), mark.state);
                at = at.max(mark.end);
            }
            emit(at..to, State::FreeChunk);
        };
        for (bit, id) in self.bits(span).zip(span.first..) {
            let chunk = self.start_in(span, bit) - CHUNK_HEADER;
            gap(at, chunk, emit);
            at = chunk + self.chunk_size(span, id);
            emit(chunk..at, State::Used(id));
        }
        gap(at, span.end, emit);
    }
}

/// A pool of pymalloc that was carved into blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    pub addr: u64,
    pub bytes: u64,
    /// Bytes of each of its blocks.
    pub block: u64,
    /// By block, in address order: is it in use?
    pub used: Vec<bool>,
}

impl Blocks {
    /// The pool around `addr`, its header included. `None` for a free or damaged one.
    pub fn pool_at(&self, addr: u64) -> Option<Pool> {
        let span = &self.spans[self.span_at(addr)?];
        let SpanKind::Pymalloc { geometry, .. } = span.kind else { return None };
        let bytes = u64::from(geometry.pool_size);
        let index = addr.checked_sub(span.base)? / bytes;
        if index >= u64::from(span.pools) {
            return None;
        }
        let class = self.classes[span.data + index as usize];
        if class == BAD_POOL || class == FREE_POOL {
            return None;
        }
        let addr = span.base + index * bytes;
        let block = u64::from(class) * u64::from(geometry.alignment);
        let count = (bytes - POOL_HEADER) / block;
        let used = (0..count).map(|k| self.at(addr + POOL_HEADER + k * block).is_some()).collect();
        Some(Pool { addr, bytes, block, used })
    }
}
