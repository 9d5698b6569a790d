//! Chunks that have a mapping of their own.

use super::Mmapped;
use super::layout::{FLAG_BITS, IS_MMAPPED};
use crate::blocks::CHUNK_HEADER;
use std::ops::Range;
use wmr_memory::{Backing, Mapping, Reader};

/// Pages looked at in one mapping whose residency is unknown: 64 GiB of 4 KiB pages.
const MAX_PAGES: u64 = 1 << 24;

/// Private anonymous memory that malloc may have got, neighbours joined: the kernel merges adjacent
/// mappings, and splits one where `madvise` was called for part of it, as numpy does.
pub(super) struct Area<'a> {
    pub start: u64,
    pub end: u64,
    pub mappings: &'a [Mapping],
}

pub(super) fn areas(mappings: &[Mapping]) -> Vec<Area<'_>> {
    let fits = |m: &Mapping| {
        m.perms.read && m.perms.write && !m.perms.shared && matches!(m.backing, Backing::Anonymous)
    };
    mappings
        .chunk_by(|a, b| fits(a) && fits(b) && a.end == b.start)
        .filter(|run| fits(&run[0]))
        .map(|run| Area { start: run[0].start, end: run[run.len() - 1].end, mappings: run })
        .collect()
}

impl Area<'_> {
    /// The first page from `addr` on that was ever touched. A chunk's header was.
    pub fn touched(&self, addr: u64, page: u64, known: bool) -> Option<u64> {
        if !known {
            return (addr < self.end).then_some(addr);
        }
        let first = self.mappings.partition_point(|m| m.end <= addr);
        for mapping in &self.mappings[first..] {
            let runs = &mapping.residency.runs;
            let first = runs.partition_point(|r| r.end <= addr);
            if let Some(run) = runs[first..].iter().find(|r| r.state.present) {
                let at = run.start.max(addr).next_multiple_of(page);
                if at < run.end {
                    return Some(at);
                }
                return self.touched(run.end.next_multiple_of(page), page, known);
            }
        }
        None
    }
}

/// All mmapped chunks outside of `taken` (sorted, disjoint).
///
/// `expected` is how many malloc counts: memalign leaves the first page of its mapping unwritten in some
/// releases, and such chunks are only looked for when others do not make up the number.
pub(super) fn find(
    reader: &mut Reader,
    mappings: &[Mapping],
    taken: &[Range<u64>],
    page: u64,
    expected: Option<u64>,
) -> Vec<Mmapped> {
    let known = mappings.iter().any(|m| !m.residency.runs.is_empty());
    let mut found = Vec::new();
    for deep in [false, true] {
        found.clear();
        for area in areas(mappings) {
            scan(reader, &area, taken, page, known, deep, &mut found);
        }
        if expected.is_none_or(|n| found.len() as u64 >= n) {
            break;
        }
    }
    found
}

fn scan(
    reader: &mut Reader,
    area: &Area,
    taken: &[Range<u64>],
    page: u64,
    known: bool,
    deep: bool,
    found: &mut Vec<Mmapped>,
) {
    let mut at = area.start;
    let mut budget = MAX_PAGES;
    while let Some(touched) = area.touched(at, page, known) {
        at = touched;
        let i = taken.partition_point(|t| t.end <= at);
        let limit = match taken.get(i) {
            Some(t) if t.start <= at => {
                at = t.end.next_multiple_of(page);
                continue;
            }
            Some(t) => t.start.min(area.end),
            None => area.end,
        };
        let chunk = plain(reader, at, limit, page).or_else(|| match deep {
            true => powers().find_map(|n| shifted(reader, at, at + n - CHUNK_HEADER, limit, page, None)),
            false => None,
        });
        at = match chunk {
            Some(chunk) => {
                found.push(chunk);
                chunk.end
            }
            None => at + page,
        };
        budget -= 1;
        if budget == 0 {
            return;
        }
    }
}

fn powers() -> impl Iterator<Item = u64> {
    (5..40).map(|log| 1 << log)
}

/// The chunk whose header is at the start of a mapping. Up to 2.41 its size is the mapping's, since
/// 2.43 that less the header.
fn plain(reader: &mut Reader, at: u64, limit: u64, page: u64) -> Option<Mmapped> {
    let before = reader.u64(at).ok()?;
    let size = reader.u64(at + 8).ok()?;
    let bytes = size & !FLAG_BITS;
    if before != 0 || size & FLAG_BITS != IS_MMAPPED || bytes < page - CHUNK_HEADER {
        return None;
    }
    let (total, usable) = match bytes % page {
        0 => (bytes, bytes - CHUNK_HEADER),
        rest if rest == page - CHUNK_HEADER => (bytes + CHUNK_HEADER, bytes - 8),
        _ => return None,
    };
    let end = at.checked_add(total).filter(|&end| end <= limit)?;
    // memalign moved the chunk up to an aligned address and left the first header as it was.
    for n in powers().take_while(|&n| n < total) {
        let aligned = (at + CHUNK_HEADER).next_multiple_of(n);
        for user in [aligned, aligned + n] {
            if let Some(chunk) = shifted(reader, at, user - CHUNK_HEADER, limit, page, Some(end)) {
                return Some(chunk);
            }
        }
    }
    Some(Mmapped { start: at, end, user: at + CHUNK_HEADER, usable })
}

/// The chunk at `chunk` whose header says that its mapping starts at `start`.
fn shifted(
    reader: &mut Reader,
    start: u64,
    chunk: u64,
    limit: u64,
    page: u64,
    end: Option<u64>,
) -> Option<Mmapped> {
    let lead = chunk.checked_sub(start).filter(|&lead| lead > 0 && chunk < limit)?;
    let size = reader.u64(chunk + 8).ok()?;
    let bytes = size & !FLAG_BITS;
    if reader.u64(chunk).ok()? != lead || size & FLAG_BITS != IS_MMAPPED {
        return None;
    }
    let total = lead.checked_add(bytes)?;
    let (total, usable) = match total % page {
        0 => (total, bytes.checked_sub(CHUNK_HEADER)?),
        rest if rest == page - CHUNK_HEADER => (total + CHUNK_HEADER, bytes.checked_sub(8)?),
        _ => return None,
    };
    let its_end = start.checked_add(total).filter(|&end| end <= limit)?;
    if end.is_some_and(|end| end != its_end) {
        return None;
    }
    Some(Mmapped { start, end: its_end, user: chunk + CHUNK_HEADER, usable })
}
