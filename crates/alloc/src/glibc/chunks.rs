//! The walk of one contiguous part of a heap, chunk by chunk.

use super::HeapWalk;
use super::free::Links;
use super::layout::{FENCEPOST, FLAG_BITS, IS_MMAPPED, MIN_CHUNK, NON_MAIN, PREV_INUSE, TCACHES};
use crate::blocks::{Mark, State};
use std::ops::Range;
use wmr_memory::Reader;

/// After so many bytes a new walk begins, as large as an arena of pymalloc's: what goes over spans in parallel finds
/// many. And after a chunk of this size, whose bitmap need not cover it: no bitmap is larger than what is really there.
const SPLIT: u64 = 1 << 20;
/// Chunks in a row that make a place believable as the start of chunks.
const TRIAL: u32 = 256;
/// Sizes read in the search for where chunks go on, to the end of a part of a heap.
const SEARCH_BUDGET: u64 = 1 << 22;
/// The same within a segment, of which there may be thousands: at its end the next one begins anyway.
const SEGMENT_BUDGET: u64 = 1 << 19;

/// A part of a heap to walk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// All of it, `heap_info` and the like included.
    pub start: u64,
    /// End of the memory it can reach to.
    pub end: u64,
    pub first: u64,
    /// The arena's top chunk, when it is in this part.
    pub top: Option<u64>,
    /// Index of its arena.
    pub arena: u32,
    pub main: bool,
}

/// What a part holds, or a segment of it.
#[derive(Debug, Default)]
pub(super) struct Walked {
    pub pieces: Vec<HeapWalk>,
    /// Behind the last chunk.
    pub end: u64,
    /// That is where the part turned out to end.
    pub is_complete: bool,
    pub used_chunks: u64,
    pub used_bytes: u64,
    pub free_chunks: u64,
    pub free_bytes: u64,
    pub links: Links,
    pub top_bytes: u64,
    /// Used chunks of a size that a tcache may live in.
    pub tcaches: Vec<u64>,
    /// Bytes that no chain of chunks reaches.
    pub lost_bytes: u64,
    pub first_lost: Option<u64>,
}

/// Where a chain of chunks ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// At the top chunk.
    Top,
    /// At the marker behind which malloc owns nothing, `.0` bytes long.
    Fenceposts(u64),
}

/// What a size field says.
enum Step {
    Chunk(u64),
    End(End),
    Broken,
}

impl Part {
    /// Reads the chunk at `addr`, whose size field is `size`.
    fn step(&self, reader: &mut Reader, addr: u64, size: u64) -> Step {
        if Some(addr) == self.top {
            return Step::End(End::Top);
        }
        let bytes = size & !FLAG_BITS;
        let room = self.top.unwrap_or(self.end).saturating_sub(addr);
        if size & IS_MMAPPED != 0 || bytes > room || !bytes.is_multiple_of(16) || bytes < 16 {
            return Step::Broken;
        }
        // A heap that is no longer the newest ends with a 16-byte fencepost and a size of 0; when the old
        // top was 48 bytes, the fencepost has 32. A part of the main heap ends with two of 16, or three when
        // its top was 48 bytes, and the first loses PREV_INUSE when what was the top is freed.
        if self.main {
            if bytes == 16 {
                let mut is_post =
                    |offset| room >= offset + 16 && reader.u64(addr + offset + 8) == Ok(FENCEPOST);
                return match (is_post(16), is_post(32)) {
                    (true, true) => Step::End(End::Fenceposts(48)),
                    (true, false) => Step::End(End::Fenceposts(32)),
                    _ => Step::Broken,
                };
            }
        } else if self.top.is_none() && bytes <= 32 && addr + bytes + 16 == self.end {
            let next = reader.u64(addr + bytes + 8).unwrap_or(u64::MAX);
            if next & !FLAG_BITS == 0 {
                return Step::End(End::Fenceposts(bytes + 16));
            }
        }
        // Bit 2 belongs to the arena; some of the fenceposts' neighbours lack it.
        let foreign = self.main && size & NON_MAIN != 0;
        if bytes < MIN_CHUNK || foreign { Step::Broken } else { Step::Chunk(bytes) }
    }

    /// Does a chain of chunks start at `addr`? Where it ends, if it gets there within a few steps more.
    fn trial(&self, reader: &mut Reader, addr: u64, budget: &mut u64, steps: u32) -> bool {
        let mut at = addr;
        for _ in 0..steps {
            *budget = budget.saturating_sub(1);
            let Ok(size) = reader.u64(at.wrapping_add(8)) else { return false };
            match self.step(reader, at, size) {
                Step::Chunk(bytes) => at += bytes,
                Step::End(_) => return at > addr || Some(at) == self.top,
                Step::Broken => return false,
            }
            if *budget == 0 {
                return false;
            }
        }
        true
    }

    /// The first place from `from` on where a chain of chunks starts. `budget`: sizes that may be read.
    pub fn resume(&self, reader: &mut Reader, from: u64, budget: &mut u64) -> Option<u64> {
        let mut at = from.next_multiple_of(16);
        let limit = self.top.map_or(self.end, |top| top + 1);
        while at < limit && *budget > 0 {
            *budget -= 1;
            // Behind what malloc does not own, the first chunk says that what is before it is in use.
            if reader.u64(at + 8).is_ok_and(|size| size & PREV_INUSE != 0)
                && self.trial(reader, at, budget, TRIAL)
            {
                return Some(at);
            }
            at += 16;
        }
        None
    }

    /// Follows the chain from `from` to an end: the address behind it.
    pub fn chain_end(&self, reader: &mut Reader, from: u64, max_steps: u64) -> Option<u64> {
        let mut at = from;
        for _ in 0..max_steps {
            let size = reader.u64(at.wrapping_add(8)).ok()?;
            match self.step(reader, at, size) {
                Step::Chunk(bytes) => at += bytes,
                Step::End(End::Top) => return Some(at + (size & !FLAG_BITS)),
                Step::End(End::Fenceposts(bytes)) => return (at > from).then_some(at + bytes),
                Step::Broken => return None,
            }
        }
        None
    }

    /// Is this where chunks start?
    pub fn starts_at(&self, reader: &mut Reader, addr: u64) -> bool {
        self.trial(reader, addr, &mut { u64::from(TRIAL) * 2 }, TRIAL)
    }

    /// Walks from where a chunk starts to the first one that does not start within the range, or to the part's end.
    pub fn walk(&self, reader: &mut Reader, range: Range<u64>) -> Walked {
        let mut out = Walked { is_complete: true, ..Walked::default() };
        let is_first = range.start == self.first;
        let mut piece = self.piece(if is_first { self.start } else { range.start }, range.start);
        let mut budget = match range.end {
            u64::MAX => SEARCH_BUDGET,
            end => SEGMENT_BUDGET.min(end.saturating_sub(range.start) / 8),
        };
        if is_first && self.first > self.start {
            let state = if self.main { State::Foreign } else { State::ArenaHeader };
            piece.marks.push(Mark { start: self.start, end: self.first, state });
        }
        let mut at = range.start;
        let mut size = reader.u64(at + 8).unwrap_or(0);
        out.end = loop {
            if at >= range.end {
                out.is_complete = false;
                break at;
            }
            match self.step(reader, at, size) {
                Step::Chunk(bytes) => {
                    let next = at + bytes;
                    // Read before what lies behind the chunk, which may be far away.
                    let link = reader.u64(at + 16).unwrap_or(0);
                    // Whether a chunk is in use is written in the next one; behind the end, nowhere.
                    let next_size = match next < self.end {
                        true => reader.u64(next + 8).unwrap_or(0),
                        false => 0,
                    };
                    if next_size & PREV_INUSE != 0 {
                        piece.push(at, bytes);
                        out.used_chunks += 1;
                        out.used_bytes += bytes;
                        if TCACHES.iter().any(|t| t.fits(bytes)) {
                            out.tcaches.push(at);
                        }
                    } else {
                        out.free_chunks += 1;
                        out.free_bytes += bytes;
                        out.links.add(at, link);
                    }
                    (at, size) = (next, next_size);
                    if at - piece.origin >= SPLIT {
                        out.pieces.push(std::mem::replace(&mut piece, self.piece(at, at)).ended(at));
                    }
                }
                Step::End(End::Top) => {
                    let end = at.saturating_add(size & !FLAG_BITS).clamp(at, self.end);
                    out.top_bytes = end - at;
                    piece.marks.push(Mark { start: at, end, state: State::Top });
                    break end;
                }
                end => {
                    let (behind, state) = match end {
                        Step::End(End::Fenceposts(bytes)) => {
                            piece.marks.push(Mark { start: at, end: at + bytes, state: State::Fencepost });
                            (at + bytes, State::Foreign)
                        }
                        _ => (at, State::Bad),
                    };
                    if behind >= self.end {
                        break behind;
                    }
                    let from = if behind == at { at + 16 } else { behind };
                    let next = self.resume(reader, from, &mut budget);
                    let next = next.or((from < range.end && range.end < self.end).then_some(range.end));
                    let next = next.or(self.top.filter(|&top| top >= from));
                    // A part that ends before its memory does is complete; one that breaks off is not.
                    if next.is_none() && state == State::Foreign && self.top.is_none() {
                        break behind;
                    }
                    let to = next.unwrap_or(self.end);
                    piece.marks.push(Mark { start: behind, end: to, state });
                    if state == State::Bad {
                        out.lost_bytes += to - behind;
                        out.first_lost = out.first_lost.or(Some(behind));
                    }
                    if next.is_none() {
                        break to;
                    }
                    at = to;
                    size = reader.u64(at + 8).unwrap_or(0);
                    // What was lost may be large: no bitmap for it.
                    out.pieces.push(std::mem::replace(&mut piece, self.piece(at, at)).ended(at));
                }
            }
        };
        out.pieces.push(piece.ended(out.end));
        out.pieces.retain(|p| p.start < p.end);
        out
    }

    fn piece(&self, start: u64, origin: u64) -> HeapWalk {
        // Room for all it may hold, of which what is not written to is not there.
        let most = SPLIT.min(self.end.saturating_sub(origin));
        let bits = Vec::with_capacity(most.div_ceil(16 * 64) as usize);
        let sizes = Vec::with_capacity((most / MIN_CHUNK) as usize);
        HeapWalk { start, arena: self.arena, origin, bits, sizes, ..HeapWalk::default() }
    }
}

impl Walked {
    /// Adds what was found from its end on.
    pub fn append(&mut self, mut next: Walked) {
        self.pieces.append(&mut next.pieces);
        (self.end, self.is_complete) = (next.end, next.is_complete);
        self.used_chunks += next.used_chunks;
        self.used_bytes += next.used_bytes;
        self.free_chunks += next.free_chunks;
        self.free_bytes += next.free_bytes;
        self.links += next.links;
        self.top_bytes += next.top_bytes;
        self.tcaches.append(&mut next.tcaches);
        self.lost_bytes += next.lost_bytes;
        self.first_lost = self.first_lost.or(next.first_lost);
    }
}

impl HeapWalk {
    /// It ends here.
    fn ended(mut self, end: u64) -> HeapWalk {
        self.end = end;
        self.bits.shrink_to_fit();
        self.sizes.shrink_to_fit();
        self
    }

    /// Appends a used chunk behind all others.
    fn push(&mut self, addr: u64, bytes: u64) {
        let bit = (addr - self.origin) / 16;
        let word = (bit / 64) as usize;
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        self.bits[word] |= 1 << (bit % 64);
        match u32::try_from(bytes / 16) {
            Ok(units) if units < u32::MAX => self.sizes.push(units),
            _ => {
                self.huge.push((self.sizes.len(), bytes));
                self.sizes.push(u32::MAX);
            }
        }
    }

    pub(super) fn is_used(&self, addr: u64) -> bool {
        let Some(offset) = addr.checked_sub(self.origin) else { return false };
        let bit = offset / 16;
        offset.is_multiple_of(16)
            && self.bits.get((bit / 64) as usize).is_some_and(|word| word >> (bit % 64) & 1 != 0)
    }

    /// Takes chunks, sorted by address, out of the used ones.
    pub(super) fn release(&mut self, chunks: &[Mark]) {
        if chunks.is_empty() {
            return;
        }
        let mut gone = chunks.iter().peekable();
        let (mut from, mut to) = (0, 0);
        let mut huge = self.huge.iter().peekable();
        let mut huge_kept = Vec::new();
        for (i, word) in self.bits.iter_mut().enumerate() {
            let mut rest = *word;
            while rest != 0 {
                let addr = self.origin + (i as u64 * 64 + u64::from(rest.trailing_zeros())) * 16;
                let bit = rest & rest.wrapping_neg();
                rest ^= bit;
                let large = huge.next_if(|h| h.0 == from);
                if gone.next_if(|m| m.start == addr).is_some() {
                    *word ^= bit;
                } else {
                    huge_kept.extend(large.map(|h| (to, h.1)));
                    self.sizes[to] = self.sizes[from];
                    to += 1;
                }
                from += 1;
            }
        }
        self.sizes.truncate(to);
        self.huge = huge_kept;
        self.marks.extend_from_slice(chunks);
        self.marks.sort_unstable();
    }
}
