//! The block index: every used block of every allocator, by address and by number.
//!
//! Memory is cut into [`Span`]s: stretches of one allocator, disjoint and in address order. One bitmap
//! over all spans marks where used blocks start, and a block's id is its rank in that bitmap. Free
//! memory takes no ids. Beside the bitmap there is one byte per pymalloc pool and four per malloc chunk.

mod build;
mod directory;
mod ranges;

pub use build::{Builder, Slots, TooManyBlocks};
pub use ranges::{Pool, State};

use crate::pymalloc::{BAD_POOL, FREE_POOL, Geometry, POOL_HEADER};
use directory::Directory;
use std::ops::Range;

/// What lies in a [`Span`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SpanKind {
    /// An arena of the pymalloc state of that index, or a piece of one.
    Pymalloc { state: u32, geometry: Geometry },
    /// A heap of the glibc arena of that index, or the part of one between nested spans.
    Heap { arena: u32 },
    /// One chunk that malloc got from `mmap`, or a piece of one.
    Mmapped,
    /// Fixed-size slots somebody cut a block into: see [`Slots`].
    Slots { stride: u32 },
}

impl SpanKind {
    pub fn is_pymalloc(self) -> bool {
        matches!(self, SpanKind::Pymalloc { .. })
    }

    pub fn is_malloc(self) -> bool {
        matches!(self, SpanKind::Heap { .. } | SpanKind::Mmapped)
    }
}

/// A stretch of memory that belongs to one allocator and in which no other nests.
#[derive(Debug, Clone)]
pub struct Span {
    pub start: u64,
    pub end: u64,
    pub kind: SpanKind,
    /// Address of bit 0. Chunks are marked where their header starts, other blocks where they start.
    origin: u64,
    /// Index in the bitmap of the word that holds bit 0, and how many words there are.
    word: usize,
    words: usize,
    /// First id of the span.
    first: u32,
    /// Blocks that start in the span.
    count: u32,
    /// Pymalloc: index of the first pool's class byte. Heap: index of the first chunk's size.
    /// Mmapped: usable bytes.
    data: usize,
    /// Pymalloc: address of the arena's first pool. Mmapped: end of the whole chunk.
    base: u64,
    /// Pymalloc: pools carved from the arena.
    pools: u32,
    /// The block of an earlier span that reaches into this one, around what nests in it.
    carry: Option<u32>,
    /// Bytes that nested spans take from the span's last block; 0 when it holds none.
    nested: u64,
    /// No block that begins in it takes more bytes.
    largest: u64,
}

impl Span {
    pub fn bytes(&self) -> u64 {
        self.end - self.start
    }
}

/// A used block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    pub id: u32,
    /// What the allocator returned for it.
    pub start: u64,
    /// What it costs: a size class, a whole chunk with its header, a whole mmapped chunk. Without
    /// what nests in it.
    pub bytes: u64,
    /// Bytes from `start` that its owner may use.
    pub usable: u64,
}

/// Used blocks of all allocators. Ids are `0..len()`, in address order.
#[derive(Debug, Default)]
pub struct Blocks {
    spans: Vec<Span>,
    /// Used starts, one bit per possible start.
    words: Vec<u64>,
    /// Per word: bits set in all words before it.
    ranks: Vec<u32>,
    /// Per 1,024 ids: the word in which the first of them is.
    hints: Vec<u32>,
    /// Per carved pool: size / alignment, or a mark.
    classes: Vec<u8>,
    /// Per used chunk of a heap: size / 16.
    sizes: Vec<u32>,
    /// Chunks of 64 GiB and more, which `sizes` cannot hold: (index in `sizes`, bytes).
    huge: Vec<(usize, u64)>,
    /// What of the heaps is neither used nor an ordinary free chunk, by address.
    marks: Vec<Mark>,
    directory: Directory,
    notes: Vec<String>,
    len: u32,
}

/// A range of a heap in a state other than used or free-in-a-bin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    pub start: u64,
    pub end: u64,
    pub state: State,
}

/// Where an address was found.
enum Place {
    /// In a block of the span: its id and bit.
    Bit(u32, u64),
    /// In a block that reaches into the span from an earlier one.
    Carry(u32),
}

const HINT_SHIFT: u32 = 10;
/// Size of a chunk that is in [`Blocks::huge`].
const HUGE: u32 = u32::MAX;
/// `CHUNK_HDR_SZ`: from a chunk to what malloc returned.
pub(crate) const CHUNK_HEADER: u64 = 16;
pub(crate) const MALLOC_ALIGNMENT: u64 = 16;

/// By block size / 8: the reciprocal that divides an offset within a pool by it. Exact as long as
/// offset × size < 2^32.
static RECIPROCALS: [u32; 65] = {
    let mut table = [0; 65];
    let mut i = 1;
    while i < 65 {
        table[i] = ((1u64 << 32).div_ceil(i as u64 * 8)) as u32;
        i += 1;
    }
    table
};

impl Blocks {
    pub fn builder<'a>() -> Builder<'a> {
        Builder::default()
    }

    /// Number of used blocks.
    pub fn len(&self) -> u32 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// In address order, disjoint.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Spans that contradicted each other, and what it cost.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Ids of the blocks that start in the span of that index.
    pub fn ids(&self, span: usize) -> Range<u32> {
        let s = &self.spans[span];
        s.first..s.first + s.count
    }

    /// Index of the span that contains `addr`.
    #[inline]
    pub fn span_at(&self, addr: u64) -> Option<usize> {
        self.directory.find(addr, &self.spans)
    }

    /// May a block of so many bytes begin in the span of that index?
    #[inline]
    pub fn may_begin(&self, span: usize, bytes: u64) -> bool {
        self.spans[span].largest >= bytes
    }

    /// Index of the span in which the block starts. Panics when `id` is not below [`len`](Self::len).
    #[inline]
    pub fn span_of(&self, id: u32) -> usize {
        assert!(id < self.len, "block {id} of {}", self.len);
        // A span without blocks shares its first id with the next one that has some.
        self.spans.partition_point(|s| s.first <= id) - 1
    }

    pub fn kind(&self, id: u32) -> SpanKind {
        self.spans[self.span_of(id)].kind
    }

    /// The block whose usable bytes contain `addr`, wherever in it.
    #[inline]
    pub fn find(&self, addr: u64) -> Option<u32> {
        let span = &self.spans[self.span_at(addr)?];
        match self.place(span, addr)? {
            Place::Bit(id, _) | Place::Carry(id) => Some(id),
        }
    }

    /// As [`find`](Self::find), with where the block starts and how large it is.
    #[inline]
    pub fn containing(&self, addr: u64) -> Option<Block> {
        let span = &self.spans[self.span_at(addr)?];
        Some(match self.place(span, addr)? {
            Place::Bit(id, bit) => self.block_in(span, id, bit),
            Place::Carry(id) => self.block(id),
        })
    }

    #[inline]
    fn place(&self, span: &Span, addr: u64) -> Option<Place> {
        match span.kind {
            SpanKind::Pymalloc { geometry, .. } => self.place_in_pool(span, geometry, addr),
            SpanKind::Heap { .. } => self.place_in_heap(span, addr),
            SpanKind::Mmapped => match span.carry {
                Some(id) => self.covers(id, addr).then_some(Place::Carry(id)),
                None => (addr >= span.origin && self.covers(span.first, addr))
                    .then_some(Place::Bit(span.first, 0)),
            },
            SpanKind::Slots { stride } => {
                let bit = (addr - span.origin) / u64::from(stride);
                self.used(span, bit).then(|| Place::Bit(self.rank(span, bit), bit))
            }
        }
    }

    #[inline]
    fn place_in_pool(&self, span: &Span, geometry: Geometry, addr: u64) -> Option<Place> {
        let classes = &self.classes[span.data..span.data + span.pools as usize];
        let (start, _) = slot_in_pool(span.base, geometry, classes, addr)?;
        if start < span.start {
            return span.carry.map(Place::Carry);
        }
        let bit = (start - span.origin) >> geometry.alignment.trailing_zeros();
        self.used(span, bit).then(|| Place::Bit(self.rank(span, bit), bit))
    }

    #[inline]
    fn place_in_heap(&self, span: &Span, addr: u64) -> Option<Place> {
        let carried = || span.carry.filter(|&id| self.covers(id, addr)).map(Place::Carry);
        // A chunk's user may write from +16 to 8 bytes into the next chunk, whose own size is at its +8.
        let Some(offset) = addr.checked_sub(span.origin + 8) else { return carried() };
        let Some((id, bit)) = self.last_at_or_before(span, offset / MALLOC_ALIGNMENT) else {
            return carried();
        };
        let chunk = span.origin + bit * MALLOC_ALIGNMENT;
        let inside = addr >= chunk + CHUNK_HEADER && addr - chunk < self.chunk_size(span, id) + 8;
        inside.then_some(Place::Bit(id, bit))
    }

    fn covers(&self, id: u32, addr: u64) -> bool {
        let block = self.block(id);
        addr.checked_sub(block.start).is_some_and(|offset| offset < block.usable)
    }

    /// The block that starts at `addr` exactly.
    #[inline]
    pub fn at(&self, addr: u64) -> Option<u32> {
        let span = &self.spans[self.span_at(addr)?];
        let bit = match span.kind {
            SpanKind::Pymalloc { geometry, .. } => multiple(addr, span.origin, u64::from(geometry.alignment)),
            SpanKind::Heap { .. } => multiple(addr, span.origin + CHUNK_HEADER, MALLOC_ALIGNMENT),
            SpanKind::Mmapped => (span.carry.is_none() && addr == span.origin).then_some(0),
            SpanKind::Slots { stride } => multiple(addr, span.origin, u64::from(stride)),
        };
        let bit = bit.filter(|&bit| self.used(span, bit))?;
        Some(self.rank(span, bit))
    }

    /// Address of the block: what its allocator returned. Panics when `id` is not below
    /// [`len`](Self::len), as do the other functions that take an id.
    pub fn start(&self, id: u32) -> u64 {
        let span = &self.spans[self.span_of(id)];
        self.start_in(span, self.select(span, id))
    }

    /// [`Block::bytes`].
    pub fn bytes(&self, id: u32) -> u64 {
        self.block(id).bytes
    }

    /// [`Block::usable`].
    pub fn usable(&self, id: u32) -> u64 {
        self.block(id).usable
    }

    #[inline]
    pub fn block(&self, id: u32) -> Block {
        let span = &self.spans[self.span_of(id)];
        self.block_in(span, id, self.select(span, id))
    }

    /// Does another span nest in this block?
    pub fn is_holder(&self, id: u32) -> bool {
        self.holder_in(self.span_of(id)) == Some(id)
    }

    /// The block of the span of that index that another span nests in: only the last one can be.
    pub fn holder_in(&self, span: usize) -> Option<u32> {
        let span = &self.spans[span];
        (span.nested > 0).then(|| (span.first + span.count).checked_sub(1)).flatten()
    }

    /// The blocks that start in the span of that index, in address order.
    pub fn iter_span(&self, span: usize) -> impl Iterator<Item = Block> + '_ {
        let span = &self.spans[span];
        let mut id = span.first;
        self.bits(span).map(move |bit| {
            let block = self.block_in(span, id, bit);
            id += 1;
            block
        })
    }

    /// The blocks of these ids, in address order. Panics when the first is not below [`len`](Self::len).
    pub fn range(&self, ids: Range<u32>) -> impl Iterator<Item = Block> + '_ {
        let first = (!ids.is_empty()).then(|| self.span_of(ids.start));
        let spans = first.map_or(0..0, |first| first..self.spans.len());
        let all = spans.flat_map(move |at| {
            let span = &self.spans[at];
            let mut id = ids.start.max(span.first);
            let from = if Some(at) == first { self.select(span, id) } else { 0 };
            self.bits_from(span, from).map(move |bit| {
                let block = self.block_in(span, id, bit);
                id += 1;
                block
            })
        });
        all.take(ids.len())
    }

    /// All blocks, in address order.
    pub fn iter(&self) -> impl Iterator<Item = Block> + '_ {
        (0..self.spans.len()).flat_map(|span| self.iter_span(span))
    }

    #[inline]
    fn start_in(&self, span: &Span, bit: u64) -> u64 {
        match span.kind {
            SpanKind::Pymalloc { geometry, .. } => span.origin + bit * u64::from(geometry.alignment),
            SpanKind::Heap { .. } => span.origin + bit * MALLOC_ALIGNMENT + CHUNK_HEADER,
            SpanKind::Mmapped => span.origin,
            SpanKind::Slots { stride } => span.origin + bit * u64::from(stride),
        }
    }

    // In loops over millions of blocks.
    #[inline(always)]
    fn block_in(&self, span: &Span, id: u32, bit: u64) -> Block {
        let start = self.start_in(span, bit);
        let (bytes, usable) = match span.kind {
            SpanKind::Pymalloc { geometry, .. } => {
                let pool = (start - span.base) >> geometry.pool_size.trailing_zeros();
                let size = u64::from(self.classes[span.data + pool as usize]) * u64::from(geometry.alignment);
                (size, size)
            }
            SpanKind::Heap { .. } => {
                let size = self.chunk_size(span, id);
                (size, size - 8)
            }
            SpanKind::Mmapped => (span.base - span.start, span.data as u64),
            SpanKind::Slots { stride } => (u64::from(stride), u64::from(stride)),
        };
        let nested = if id + 1 == span.first + span.count { span.nested } else { 0 };
        Block { id, start, bytes: bytes.saturating_sub(nested), usable }
    }

    /// Bytes of the used chunk, header included.
    #[inline]
    fn chunk_size(&self, span: &Span, id: u32) -> u64 {
        let index = span.data + (id - span.first) as usize;
        match self.sizes[index] {
            HUGE => match self.huge.binary_search_by_key(&index, |h| h.0) {
                Ok(i) => self.huge[i].1,
                Err(_) => u64::from(HUGE) * MALLOC_ALIGNMENT,
            },
            units => u64::from(units) * MALLOC_ALIGNMENT,
        }
    }

    #[inline]
    fn used(&self, span: &Span, bit: u64) -> bool {
        let word = (bit / 64) as usize;
        word < span.words && self.words[span.word + word] >> (bit % 64) & 1 != 0
    }

    /// Id of the block at a set bit of the span.
    #[inline]
    fn rank(&self, span: &Span, bit: u64) -> u32 {
        let word = span.word + (bit / 64) as usize;
        self.ranks[word] + (self.words[word] & ((1 << (bit % 64)) - 1)).count_ones()
    }

    /// The last set bit of the span up to `bit`, and its id.
    #[inline]
    fn last_at_or_before(&self, span: &Span, bit: u64) -> Option<(u32, u64)> {
        let bit = bit.min((span.words as u64 * 64).checked_sub(1)?);
        let word = span.word + (bit / 64) as usize;
        let before = self.words[word] & (u64::MAX >> (63 - bit % 64));
        let id = (self.ranks[word] + before.count_ones()).checked_sub(1)?;
        if id < span.first {
            return None;
        }
        let bit = match before {
            // Far inside a large chunk.
            0 => self.select(span, id),
            _ => bit / 64 * 64 + u64::from(63 - before.leading_zeros()),
        };
        Some((id, bit))
    }

    /// Bit, counted from the span's first, of a block that starts in it.
    #[inline]
    fn select(&self, span: &Span, id: u32) -> u64 {
        let hint = (id >> HINT_SHIFT) as usize;
        let low = (self.hints[hint] as usize).max(span.word);
        let high = match self.hints.get(hint + 1) {
            Some(&word) => (word as usize + 1).min(span.word + span.words),
            None => span.word + span.words,
        };
        let word = low + self.ranks[low..high].partition_point(|&rank| rank <= id) - 1;
        let mut bits = self.words[word];
        for _ in self.ranks[word]..id {
            bits &= bits.wrapping_sub(1);
        }
        (word - span.word) as u64 * 64 + u64::from(bits.trailing_zeros())
    }

    /// The set bits of a span, in order.
    #[inline]
    fn bits(&self, span: &Span) -> Bits<'_> {
        self.bits_from(span, 0)
    }

    /// The set bits of a span from `first` on.
    #[inline]
    fn bits_from(&self, span: &Span, first: u64) -> Bits<'_> {
        let (word, before) = ((first / 64) as usize, first % 64);
        let mut words = self.words[span.word..span.word + span.words][word.min(span.words)..].iter();
        let rest = words.next().map_or(0, |word| word & (u64::MAX << before));
        Bits { words, rest, base: first - before }
    }
}

struct Bits<'a> {
    words: std::slice::Iter<'a, u64>,
    /// Bits of the word at hand not yet given out, and the number of its first.
    rest: u64,
    base: u64,
}

impl Iterator for Bits<'_> {
    type Item = u64;

    #[inline]
    fn next(&mut self) -> Option<u64> {
        while self.rest == 0 {
            self.rest = *self.words.next()?;
            self.base = self.base.wrapping_add(64);
        }
        let bit = self.base + u64::from(self.rest.trailing_zeros());
        self.rest &= self.rest - 1;
        Some(bit)
    }
}

/// Start and size of the slot that `addr` is in, used or free. `classes`: one for each pool from `base` on.
#[inline]
pub(crate) fn slot_in_pool(base: u64, geometry: Geometry, classes: &[u8], addr: u64) -> Option<(u64, u64)> {
    let pool_shift = geometry.pool_size.trailing_zeros();
    let from_base = addr.checked_sub(base)?;
    let pool = from_base >> pool_shift;
    let class = *classes.get(usize::try_from(pool).ok()?)?;
    if class == BAD_POOL || class == FREE_POOL {
        return None;
    }
    let size = u64::from(class) * u64::from(geometry.alignment);
    let in_pool = from_base & u64::from(geometry.pool_size - 1);
    let k = (in_pool.checked_sub(POOL_HEADER)? * u64::from(RECIPROCALS[size as usize / 8])) >> 32;
    Some((base + (pool << pool_shift) + POOL_HEADER + k * size, size))
}

/// Which multiple of `unit` past `origin` is `addr`?
#[inline]
fn multiple(addr: u64, origin: u64, unit: u64) -> Option<u64> {
    let offset = addr.checked_sub(origin)?;
    offset.is_multiple_of(unit).then_some(offset / unit)
}

#[cfg(test)]
mod tests;
