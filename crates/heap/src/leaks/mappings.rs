//! Lost memory that was mapped and not allocated: what nobody points into.
//!
//! The kernel makes one mapping of neighbours that are alike, and says nothing of who asked for which part. So a
//! mapping is no unit, and what is lost is told only where it can be: a mapping, or what the allocators leave of
//! it, into which no word points at all, and what lies before the first word's page where few point.

use super::lost::State;
use super::native::{LostBlock, Native};
use super::nearby;
use super::roots::pthread;
use crate::inspect::Inspection;
use crate::unclaimed::unclaimed;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use wmr_memory::{Mapping, Target};

/// What the census calls such memory.
pub const MAPPING: &str = "anonymous mapping";

const PAGE: u64 = 4096;
/// Resident bytes from which on it is anybody's trouble. The loader's own, alternate signal stacks and a guard's
/// neighbours are smaller.
const LEAST: u64 = 64 << 10;
/// What is pointed at by its end alone, a stack that somebody made for himself, is seldom used to this depth.
const STACK: u64 = 1 << 20;
/// Pages of a piece that are pointed at, from which on it is a pool that somebody cuts.
const POOL: u32 = 8;
/// Pages of all pieces: each costs a bit, and what is larger is reserved and not in use.
const MOST_PAGES: u64 = 1 << 27;
/// So much beside it that nobody may touch: it is the part in use of what was reserved as a whole, and found by
/// its distance from the beginning (a JVM's heap). Guards of stacks are smaller.
const RESERVED: u64 = 1 << 20;

/// Memory that was mapped by nobody we know, and which pages of it are pointed at.
pub(super) struct Mapped {
    /// In address order.
    pieces: Vec<Piece>,
}

struct Piece {
    range: Range<u64>,
    resident: u64,
    /// One bit a page.
    pages: Vec<AtomicU64>,
    /// The lowest word on a thread's stack, or in a register, that points into it.
    weakly: AtomicU64,
}

/// Where a word was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// A block, a variable.
    Memory,
    /// That piece: whoever points at himself is held by nobody.
    Piece(usize),
    /// A stack or a register, where words stay that nobody uses.
    Stack,
}

impl Mapped {
    pub fn find(target: &Target, inspection: &Inspection) -> Mapped {
        let (mut pieces, mut left) = (Vec::new(), MOST_PAGES);
        for (mapping, range) in
            unclaimed(target, inspection).into_iter().filter(|(m, _)| is_open(target, inspection, m))
        {
            let Some(start) = range.start.checked_next_multiple_of(PAGE) else { continue };
            let range = start..range.end & !(PAGE - 1);
            let resident = resident(target, mapping, &range);
            let theirs = |addr: u64| range.contains(&addr);
            let of_thread = target.threads.iter().any(|thread| theirs(thread.sp) || theirs(thread.tls));
            let pages = range.end.saturating_sub(range.start) / PAGE;
            if resident >= LEAST && pages <= left && !of_thread {
                left -= pages;
                pieces.push(Piece::new(range, resident));
            }
        }
        Mapped { pieces }
    }

    pub fn index(&self, addr: u64) -> Option<usize> {
        let after = self.pieces.partition_point(|piece| piece.range.start <= addr);
        let index = after.checked_sub(1)?;
        self.pieces[index].range.contains(&addr).then_some(index)
    }

    /// A word that was found there may be a pointer. What is not aligned is none: a short text was written over the
    /// lower half of one that was there before.
    pub fn word(&self, word: u64, from: From) {
        if !word.is_multiple_of(8) {
            return;
        }
        let Some(index) = self.index(word).filter(|index| from != From::Piece(*index)) else { return };
        let piece = &self.pieces[index];
        if from == From::Stack {
            piece.weakly.fetch_min(word, Relaxed);
            return;
        }
        let page = (word - piece.range.start) / PAGE;
        let bits = &piece.pages[page as usize / 64];
        if bits.load(Relaxed) >> (page % 64) & 1 == 0 {
            bits.fetch_or(1 << (page % 64), Relaxed);
        }
    }

    /// Where pieces begin and end.
    pub fn bounds(&self) -> impl Iterator<Item = u64> + '_ {
        self.pieces.iter().flat_map(|piece| [piece.range.start, piece.range.end])
    }

    /// What is lost of it, as groups that follow those there are.
    pub fn lost(&self, target: &Target, groups: &mut Vec<Native>, blocks: &mut Vec<LostBlock>) {
        for state in [State::Definite, State::Possible] {
            let lost = self.pieces.iter().filter_map(|piece| piece.lost(target));
            let mut lost: Vec<(Range<u64>, u64)> =
                lost.filter(|lost| lost.2 == state).map(|(range, bytes, _)| (range, bytes)).collect();
            lost.sort_by_key(|(range, bytes)| (std::cmp::Reverse(*bytes), range.start));
            let Some((first, _)) = lost.first() else { continue };
            let sizes = lost.iter().map(|(range, _)| range.end - range.start);
            let group = groups.len() as u32;
            blocks.extend(lost.iter().map(|(range, bytes)| LostBlock {
                addr: range.start,
                bytes: *bytes,
                state,
                group,
            }));
            groups.push(Native {
                state,
                kind: MAPPING.to_owned(),
                usable: (sizes.clone().min().unwrap_or(0), sizes.max().unwrap_or(0)),
                count: lost.len() as u64,
                bytes: lost.iter().map(|(_, bytes)| *bytes).fold(0, u64::saturating_add),
                indirect: 0,
                mentions: None,
                content: nearby::content(target, first.start, first.end - first.start),
                beside: None,
                examples: lost.iter().take(super::EXAMPLES).map(|(range, _)| range.start).collect(),
            });
        }
    }
}

impl Piece {
    fn new(range: Range<u64>, resident: u64) -> Piece {
        let words = ((range.end - range.start) / PAGE).div_ceil(64);
        let pages = (0..words).map(|_| AtomicU64::new(0)).collect();
        Piece { range, resident, pages, weakly: AtomicU64::new(u64::MAX) }
    }

    /// What is lost of it, its resident bytes, and how surely.
    fn lost(&self, target: &Target) -> Option<(Range<u64>, u64, State)> {
        let (mut pages, mut first) = (0, None);
        for (bits, at) in self.pages.iter().map(|bits| bits.load(Relaxed)).zip((0..).step_by(64)) {
            if bits != 0 {
                first = first.or(Some(at + u64::from(bits.trailing_zeros())));
                pages += bits.count_ones();
            }
        }
        if pages >= POOL {
            return None;
        }
        let range = self.range.start..first.map_or(self.range.end, |first| self.range.start + first * PAGE);
        let mut bytes = self.resident;
        if first.is_some() {
            // It is pointed at by its end where glibc has it in a list: the stack of a thread that ended.
            let end = range.end.saturating_sub(PAGE).max(range.start)..range.end + PAGE;
            if pthread(&mut target.reader(), end).is_some() {
                return None;
            }
            bytes = target.mapping(range.start).map_or(0, |mapping| resident(target, mapping, &range));
        }
        let sure = self.weakly.load(Relaxed) >= range.end && (first.is_none() || bytes >= STACK);
        let state = if sure { State::Definite } else { State::Possible };
        (bytes >= LEAST).then_some((range, bytes, state))
    }
}

/// May parts of a mapping be lost?
fn is_open(target: &Target, inspection: &Inspection, mapping: &Mapping) -> bool {
    let open = !mapping.perms.exec && mapping.name.is_empty();
    let reserved = |other: &Mapping| {
        let beside = other.end == mapping.start || mapping.end == other.start;
        // What malloc's arenas may still grow into is known.
        let known = || inspection.ranges.iter().any(|known| known.range.contains(&other.start));
        beside && !other.perms.read && !other.perms.write && other.end - other.start > RESERVED && !known()
    };
    open && !target.mappings.iter().any(reserved)
}

/// Bytes of a range that are there, in RAM or swapped out. A core has all of what was mapped, used or not: there it is
/// what is not zero.
fn resident(target: &Target, mapping: &Mapping, range: &Range<u64>) -> u64 {
    let there = mapping.residency.runs.iter().filter(|run| run.state.charged());
    let there = there.map(|run| run.start.max(range.start)..run.end.min(range.end));
    let there = there.filter(|range| range.start < range.end);
    if target.knows_residency() {
        return there.map(|range| range.end - range.start).fold(0, u64::saturating_add);
    }
    let (mut reader, mut scratch) = (target.reader(), Vec::new());
    let pages = there.flat_map(|range| range.step_by(PAGE as usize));
    let used = pages.filter(|&at| {
        let page = reader.window(at, PAGE as usize, &mut scratch);
        page.is_ok_and(|bytes| bytes.iter().any(|byte| *byte != 0))
    });
    used.count() as u64 * PAGE
}

#[cfg(test)]
mod tests {
    use super::*;
    use wmr_memory::synthetic::SyntheticMemory;
    use wmr_memory::{PageState, Residency, Run};

    const START: u64 = 0x7f00_0000_0000;

    fn mapped(pages: u64) -> (Target, Mapped) {
        let end = START + pages * PAGE;
        let state = PageState { present: true, ..PageState::default() };
        let residency = Residency { runs: vec![Run { start: START, end, state }] };
        let mapping = Mapping { start: START, end, residency, ..Mapping::default() };
        let mut target = SyntheticMemory::new().into_target(vec![mapping], Vec::new());
        target.process.rss = Some(pages * PAGE);
        (target, Mapped { pieces: vec![Piece::new(START..end, pages * PAGE)] })
    }

    fn lost(target: &Target, mapped: &Mapped) -> Vec<(u64, u64, State)> {
        let (mut groups, mut blocks) = (Vec::new(), Vec::new());
        mapped.lost(target, &mut groups, &mut blocks);
        let bytes: u64 = blocks.iter().map(|block| block.bytes).sum();
        assert_eq!(groups.iter().map(|group| group.bytes).sum::<u64>(), bytes);
        blocks.iter().map(|block| (block.addr, block.bytes / PAGE, block.state)).collect()
    }

    #[test]
    fn what_nobody_points_into_is_lost() {
        let (target, mapped) = mapped(256);
        mapped.word(START - 8, From::Memory);
        mapped.word(START + 256 * PAGE, From::Memory);
        mapped.word(START + 0x2e73, From::Memory);
        // Its own list of its own.
        mapped.word(START + 8, From::Piece(0));
        assert_eq!(lost(&target, &mapped), [(START, 256, State::Definite)]);
        mapped.word(START + 50 * PAGE, From::Stack);
        assert_eq!(lost(&target, &mapped), [(START, 256, State::Possible)]);
        mapped.word(START + 100 * PAGE + 16, From::Memory);
        assert_eq!(lost(&target, &mapped), [(START, 100, State::Possible)]);
        mapped.word(START + 15 * PAGE, From::Memory);
        assert_eq!(lost(&target, &mapped), []);
    }

    #[test]
    fn what_lies_before_what_is_in_use_is_lost() {
        let (target, mapped) = mapped(1024);
        mapped.word(START + 600 * PAGE, From::Memory);
        mapped.word(START + 700 * PAGE, From::Stack);
        assert_eq!(lost(&target, &mapped), [(START, 600, State::Definite)]);
        // No deeper than a stack may be that its end is known of.
        mapped.word(START + 200 * PAGE, From::Memory);
        assert_eq!(lost(&target, &mapped), [(START, 200, State::Possible)]);
    }

    #[test]
    fn a_pool_is_not_lost() {
        let (target, mapped) = mapped(1 << 10);
        for page in 0..u64::from(POOL) {
            mapped.word(START + (500 + page * 50) * PAGE + 64, From::Memory);
        }
        assert_eq!(lost(&target, &mapped), []);
    }
}
