//! From what each walk found to one index: settles what nests in what and numbers the blocks.

use super::directory::Directory;
use super::{Blocks, HINT_SHIFT, HUGE, MALLOC_ALIGNMENT, Mark, Span, SpanKind};
use crate::glibc::{Glibc, HeapWalk, Mmapped};
use crate::pymalloc::{Arena, PyMalloc};

/// Somebody cut a block into slots of one size and keeps its own list of free ones.
///
/// Python 2.7 keeps its ints and floats so: `struct _intblock` (`Objects/intobject.c`) is a 1,000-byte
/// malloc block of a `next` pointer and 41 objects of 24 bytes.
#[derive(Debug, Clone)]
pub struct Slots {
    /// Address of the first slot, behind the start of the block that was cut.
    pub first: u64,
    /// Bytes of a slot.
    pub stride: u32,
    /// Number of slots.
    pub count: u32,
    /// Which of them are used, from bit 0 of the first word on.
    pub used: Vec<u64>,
}

/// More than 2^32 − 1 used blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more blocks than can be numbered: {0}")]
pub struct TooManyBlocks(pub u64);

/// Collects the walks of one target for [`Blocks`].
#[derive(Debug, Default)]
pub struct Builder<'a> {
    raws: Vec<Raw<'a>>,
    /// Index of the next pymalloc state: walks may be given one by one.
    states: u32,
}

/// One allocator's stretch of memory before nesting is settled.
#[derive(Debug)]
struct Raw<'a> {
    start: u64,
    end: u64,
    /// Address of bit 0 and what one bit stands for.
    origin: u64,
    step: u64,
    what: What<'a>,
}

#[derive(Debug)]
enum What<'a> {
    Arena(&'a Arena, u32),
    Heap(&'a HeapWalk),
    Mmapped(&'a Mmapped),
    Slots(Slots),
}

impl Raw<'_> {
    fn bits(&self) -> &[u64] {
        match &self.what {
            What::Arena(arena, _) => &arena.found.bits,
            What::Heap(heap) => &heap.bits,
            What::Mmapped(_) => &[1],
            What::Slots(slots) => &slots.used,
        }
    }

    /// Number of the first bit at or after `addr`.
    fn bit_at(&self, addr: u64) -> u64 {
        addr.saturating_sub(self.origin).div_ceil(self.step)
    }

    /// Words that hold bits `from..to` and no others, the first of them at bit `from` rounded down.
    fn words(&self, from: u64, to: u64) -> impl Iterator<Item = u64> + '_ {
        let bits = self.bits();
        let first = (from / 64).min(bits.len() as u64);
        let last = to.div_ceil(64).clamp(first, bits.len() as u64);
        (first..last).map(move |i| {
            let low = u64::MAX << from.saturating_sub(i * 64).min(63);
            let high = u64::MAX >> (64 - (to - i * 64).min(64));
            bits[i as usize] & low & high
        })
    }
}

impl<'a> Builder<'a> {
    /// Adds the arenas of a walk.
    pub fn pymalloc(mut self, walk: &'a PyMalloc) -> Self {
        let states = self.states;
        self.raws.extend(walk.arenas.iter().map(|arena| Raw {
            start: arena.addr,
            end: arena.addr + arena.bytes,
            origin: arena.found.base,
            step: u64::from(arena.geometry.alignment),
            what: What::Arena(arena, states + arena.state),
        }));
        self.states += walk.arenas.iter().map(|a| a.state + 1).max().unwrap_or(0);
        self
    }

    /// Adds the heaps and mmapped chunks of a walk.
    pub fn glibc(mut self, walk: &'a Glibc) -> Self {
        self.raws.extend(walk.heaps.iter().map(|heap| Raw {
            start: heap.start,
            end: heap.end,
            origin: heap.origin,
            step: MALLOC_ALIGNMENT,
            what: What::Heap(heap),
        }));
        self.raws.extend(walk.mmapped.iter().map(|chunk| Raw {
            start: chunk.start,
            end: chunk.end,
            // Its only bit, wherever in it the user's address is.
            origin: chunk.start,
            step: chunk.end - chunk.start,
            what: What::Mmapped(chunk),
        }));
        self
    }

    /// Adds slots that a block was cut into. The block keeps what lies around them.
    pub fn slots(mut self, slots: Slots) -> Self {
        let bytes = u64::from(slots.stride) * u64::from(slots.count);
        if let Some(end) = slots.first.checked_add(bytes)
            && bytes > 0
        {
            self.raws.push(Raw {
                start: slots.first,
                end,
                origin: slots.first,
                step: u64::from(slots.stride),
                what: What::Slots(slots),
            });
        }
        self
    }

    pub fn build(mut self) -> Result<Blocks, TooManyBlocks> {
        // Around before within.
        self.raws.sort_by_key(|raw| (raw.start, std::cmp::Reverse(raw.end)));
        let mut out = Joined::default();
        let mut i = 0;
        while i < self.raws.len() {
            i = out.join(&self.raws, i, 0);
        }
        out.finish()
    }
}

/// Nesting that is followed: slots in a pymalloc block in a malloc chunk is three.
const MAX_DEPTH: u32 = 8;

/// The index in the making.
#[derive(Default)]
struct Joined {
    blocks: Blocks,
    count: u64,
    overlaps: u64,
    first_overlap: Option<u64>,
    orphans: u64,
    first_orphan: Option<u64>,
    /// The latest chunk of a heap, and where it ends: its user may write into the first 8 bytes behind it.
    chunk: Option<(u32, u64)>,
}

/// Where the pieces of one raw span have got to.
#[derive(Default)]
struct Progress {
    /// Chunk sizes consumed.
    sizes: usize,
    /// Index of the first pool's class byte, once they are stored.
    classes: Option<usize>,
    /// The latest block, the span it starts in, and where the block ends.
    last: Option<(u32, usize, u64)>,
}

impl Joined {
    /// Takes in the raw span `i` and all that nests in it; the index of the first after them.
    fn join(&mut self, raws: &[Raw], i: usize, depth: u32) -> usize {
        let raw = &raws[i];
        let mut progress = Progress::default();
        let mut at = raw.start;
        let mut next = i + 1;
        while let Some(inner) = raws.get(next)
            && inner.start < raw.end
        {
            // Two walks that claim the same bytes in another way: the first in memory has them.
            if inner.start < at || inner.end > raw.end || depth >= MAX_DEPTH {
                self.overlaps += 1;
                self.first_overlap = self.first_overlap.or(Some(inner.start));
                next += 1;
                continue;
            }
            self.piece(raw, at, inner.start, &mut progress);
            match progress.last {
                Some((_, span, end)) if end >= inner.end => {
                    self.blocks.spans[span].nested += inner.end - inner.start;
                }
                _ => {
                    self.orphans += 1;
                    self.first_orphan = self.first_orphan.or(Some(inner.start));
                }
            }
            // A block that starts inside what nests is none: step over its size.
            let lost: u32 =
                raw.words(raw.bit_at(inner.start), raw.bit_at(inner.end)).map(u64::count_ones).sum();
            progress.sizes += lost as usize;
            next = self.join(raws, next, depth + 1);
            at = inner.end;
        }
        self.piece(raw, at, raw.end, &mut progress);
        next
    }

    /// Appends the part `start..end` of a raw span.
    fn piece(&mut self, raw: &Raw, start: u64, end: u64, progress: &mut Progress) {
        if start >= end {
            return;
        }
        let blocks = &mut self.blocks;
        let (from, to) = (raw.bit_at(start), raw.bit_at(end));
        let word = blocks.words.len();
        blocks.words.extend(raw.words(from, to));
        let words = blocks.words.len() - word;
        let count: u64 = blocks.words[word..].iter().map(|w| u64::from(w.count_ones())).sum();

        let into = progress.last.filter(|&(_, _, block_end)| block_end > start).map(|(id, _, _)| id);
        let before = self.chunk.filter(|&(_, end)| end == start && matches!(raw.what, What::Heap(_)));
        let carry = into.or(before.map(|(id, _)| id));
        let mut span = Span {
            start,
            end,
            kind: SpanKind::Mmapped,
            origin: raw.origin + from / 64 * 64 * raw.step,
            word,
            words,
            first: self.count as u32,
            count: count as u32,
            data: 0,
            base: 0,
            pools: 0,
            carry,
            nested: 0,
            largest: u64::MAX,
        };
        match &raw.what {
            What::Arena(arena, state) => {
                span.kind = SpanKind::Pymalloc { state: *state, geometry: arena.geometry };
                span.base = arena.found.base;
                span.pools = arena.found.classes.len() as u32;
                span.data = *progress.classes.get_or_insert_with(|| {
                    let at = blocks.classes.len();
                    blocks.classes.extend_from_slice(&arena.found.classes);
                    at
                });
            }
            What::Heap(heap) => {
                span.kind = SpanKind::Heap { arena: heap.arena };
                span.data = blocks.sizes.len();
                let sizes = progress.sizes..progress.sizes + count as usize;
                let huge = heap.huge.iter().filter(|h| sizes.contains(&h.0));
                blocks.huge.extend(huge.map(|h| (h.0 - sizes.start + span.data, h.1)));
                blocks.sizes.extend_from_slice(&heap.sizes[sizes]);
                let largest = blocks.sizes[span.data..].iter().max().copied().unwrap_or(0);
                if largest != HUGE {
                    span.largest = u64::from(largest) * MALLOC_ALIGNMENT;
                }
                progress.sizes += count as usize;
                let first = heap.marks.partition_point(|m| m.end <= start);
                let marks = heap.marks[first..].iter().take_while(|m| m.start < end);
                blocks.marks.extend(marks.map(|m| Mark {
                    start: m.start.max(start),
                    end: m.end.min(end),
                    state: m.state,
                }));
            }
            What::Mmapped(chunk) => {
                span.base = chunk.end;
                span.origin = chunk.user;
                span.data = chunk.usable as usize;
            }
            What::Slots(slots) => span.kind = SpanKind::Slots { stride: slots.stride },
        }
        self.count += count;
        let index = blocks.spans.len();
        blocks.spans.push(span);
        if self.count > u64::from(u32::MAX) {
            // Ids have wrapped: finish() refuses.
            return;
        }
        if count > 0 {
            let id = (self.count - 1) as u32;
            let span = &blocks.spans[index];
            let at = blocks.words[word..].iter().rposition(|&w| w != 0).unwrap_or(0);
            let bit = at as u64 * 64 + u64::from(63 - blocks.words[word + at].leading_zeros());
            let block = blocks.block_in(span, id, bit);
            let end = match &raw.what {
                What::Heap(_) => block.start - super::CHUNK_HEADER + block.bytes,
                What::Mmapped(chunk) => chunk.end,
                _ => block.start + block.bytes,
            };
            progress.last = Some((id, index, end));
            if let What::Heap(_) = raw.what {
                self.chunk = Some((id, end));
            }
        }
    }

    fn finish(self) -> Result<Blocks, TooManyBlocks> {
        let mut blocks = self.blocks;
        blocks.len = u32::try_from(self.count).map_err(|_| TooManyBlocks(self.count))?;
        let mut rank = 0u32;
        blocks.ranks = Vec::with_capacity(blocks.words.len());
        for (i, word) in blocks.words.iter().enumerate() {
            blocks.ranks.push(rank);
            rank += word.count_ones();
            while (blocks.hints.len() as u64) << HINT_SHIFT < u64::from(rank) {
                blocks.hints.push(i as u32);
            }
        }
        blocks.directory = Directory::new(&blocks.spans);
        if let Some(addr) = self.first_overlap {
            blocks.notes.push(format!(
                "{} spans overlap another allocator's (the first at {addr:#x}): left out",
                self.overlaps
            ));
        }
        if let Some(addr) = self.first_orphan {
            blocks.notes.push(format!(
                "{} spans lie in memory that the allocator around them calls free (the first at {addr:#x})",
                self.orphans
            ));
        }
        Ok(blocks)
    }
}
