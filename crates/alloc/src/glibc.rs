//! glibc's malloc, 2.31 to 2.43, without debug symbols.
//!
//! An *arena* (`malloc_state`) hands out *chunks* of one or more *heaps*: the main arena from `brk`,
//! or from `mmap` where `brk` failed; the others, one for a few threads, from 64 MiB-aligned heaps.
//! Large requests get a *mmapped* chunk each. Free chunks wait in per-thread caches (*tcache*),
//! *fastbins* (gone in 2.43) and *bins*; the first two look like chunks in use.

mod chunks;
mod free;
mod layout;
mod locate;
mod mmapped;
mod segments;

use crate::blocks::{Mark, State};
use crate::naming::{Allocator, allocator};
use crate::pymalloc::contiguous_end;
use chunks::{Part, Walked};
use free::{Heaps, Links};
use layout::{FLAGS, HEAP_MAX, HEAP_PREV, HEAP_SIZE, NONCONTIGUOUS};
use locate::{Main, Params};
use std::collections::BTreeSet;
use std::ops::Range;
use wmr_memory::{Backing, Reader, Target};

/// What the walk of glibc's malloc found.
#[derive(Debug, Clone, Default)]
pub struct Glibc {
    /// The main arena first, then the others in the order of their ring.
    pub arenas: Vec<Arena>,
    /// In address order, not overlapping.
    pub mmapped: Vec<Mmapped>,
    /// In address order, not overlapping.
    pub(crate) heaps: Vec<HeapWalk>,
    /// Blocks in which threads keep their caches (`tcache_perthread_struct`): used, by malloc itself.
    /// Without caches that hold nothing, which cannot be told from other zeroes.
    pub tcaches: Vec<u64>,
    /// `mp_.n_mmaps` and `mp_.mmapped_mem`, where `mp_` was found: what malloc itself counts.
    pub mmap_counters: Option<(u64, u64)>,
    /// What could not be read or contradicts itself, and what it cost.
    pub notes: Vec<String>,
}

/// One `malloc_state`.
#[derive(Debug, Clone, Default)]
pub struct Arena {
    pub addr: u64,
    pub main: bool,
    /// What it got from the system and has not given back: `system_mem`.
    pub system_bytes: u64,
    /// Chunks handed out, headers included; what waits in a tcache is not among them.
    pub used_bytes: u64,
    /// Free chunks in bins, fastbins and tcaches, and the top chunk.
    pub free_bytes: u64,
    pub top_bytes: u64,
    pub tcache_bytes: u64,
    pub fastbin_bytes: u64,
    pub used_chunks: u64,
    /// Free chunks in bins; without top, tcache and fastbins.
    pub free_chunks: u64,
    pub tcache_chunks: u64,
    pub fastbin_chunks: u64,
    /// Its heaps, in address order.
    pub heaps: Vec<Range<u64>>,
    /// Of the free chunks outside of its top.
    links: Links,
}

/// A chunk that has a mapping of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mmapped {
    /// Start and end of the mapping.
    pub start: u64,
    pub end: u64,
    /// What malloc returned.
    pub user: u64,
    /// Bytes from `user` on: `malloc_usable_size`.
    pub usable: u64,
}

/// One contiguous part of an arena's memory, chunk by chunk.
#[derive(Debug, Clone, Default)]
pub(crate) struct HeapWalk {
    pub start: u64,
    pub end: u64,
    /// Index of its arena.
    pub arena: u32,
    /// Address of bit 0, a multiple of 16.
    pub origin: u64,
    /// Starts of used chunks, one bit per 16 bytes.
    pub bits: Vec<u64>,
    /// Per used chunk: size / 16, or the mark of one that is in `huge`.
    pub sizes: Vec<u32>,
    /// Sizes that do not fit: (index in `sizes`, bytes).
    pub huge: Vec<(usize, u64)>,
    /// What is neither used nor an ordinary free chunk, by address.
    pub marks: Vec<Mark>,
}

/// `struct mallinfo2`: what the target would answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MallInfo {
    pub arena: u64,
    pub ordblks: u64,
    pub smblks: u64,
    pub hblks: u64,
    pub hblkhd: u64,
    pub usmblks: u64,
    pub fsmblks: u64,
    pub uordblks: u64,
    pub fordblks: u64,
    pub keepcost: u64,
}

/// No main arena of glibc's malloc in this process.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("glibc's main arena not found; the images name this malloc: {allocator}")]
pub struct NotFound {
    pub allocator: Allocator,
}

impl Glibc {
    /// Frees what an index of [`Blocks`](crate::Blocks) has taken over: where each chunk is.
    pub fn forget_chunks(&mut self) {
        self.heaps = Vec::new();
    }

    /// `mallinfo2()` as the target would compute it. A tcache'd chunk counts as used there, a fastbin's as free.
    pub fn mallinfo(&self) -> MallInfo {
        let mut info = MallInfo::default();
        for arena in &self.arenas {
            let free = arena.free_bytes - arena.tcache_bytes;
            info.arena += arena.system_bytes;
            // The top chunk is one of them.
            info.ordblks += arena.free_chunks + 1;
            info.smblks += arena.fastbin_chunks;
            info.fsmblks += arena.fastbin_bytes;
            info.fordblks += free;
            info.uordblks += arena.system_bytes.saturating_sub(free);
            if arena.main {
                info.keepcost = arena.top_bytes;
            }
        }
        let counted = self.mmapped.iter().map(|m| m.end - m.start).sum();
        (info.hblks, info.hblkhd) = self.mmap_counters.unwrap_or((self.mmapped.len() as u64, counted));
        info
    }
}

/// Steps of one part of the main heap that is looked for by its chunks.
const MAX_PART_STEPS: u64 = 1 << 32;
/// Heaps of one thread arena: user space in steps of 64 MiB.
const MAX_HEAPS: usize = 1 << 21;

/// Finds and walks glibc's malloc. `skip` names memory that is known to be another's (arenas of
/// pymalloc), sorted and disjoint: no mmapped chunk is looked for inside of it.
///
/// Nothing fails once the main arena is found: what could not be read is in [`Glibc::notes`].
pub fn find(target: &Target, skip: &[Range<u64>]) -> Result<Glibc, NotFound> {
    let mut reader = target.reader();
    let main = locate::main_arena(target, &mut reader)
        .ok_or_else(|| NotFound { allocator: allocator(&target.images) })?;
    let mut glibc = Glibc::default();
    if !main.initialised {
        glibc.arenas.push(Arena { addr: main.addr, main: true, ..Arena::default() });
        return Ok(glibc);
    }
    let addresses = locate::ring(target, &mut reader, &main, &mut glibc.notes);
    let mut parts = Vec::new();
    for (index, &addr) in addresses.iter().enumerate() {
        let read = |reader: &mut Reader, at| reader.u64(addr + at).unwrap_or(0);
        glibc.arenas.push(Arena {
            addr,
            main: index == 0,
            system_bytes: read(&mut reader, main.layout.system_mem),
            ..Arena::default()
        });
        if index > 0 {
            thread_heaps(target, &mut reader, index, addr, &main, &mut parts, &mut glibc.notes);
        }
    }
    let params = main_heap(target, &mut reader, &main, skip, &mut parts, &mut glibc);
    parts.sort_by_key(|p| p.start);
    let mut end = 0;
    parts.retain(|p| {
        let apart = p.start >= end;
        end = end.max(p.end);
        apart
    });

    let walked = segments::walk(target, &parts);
    let candidates: Vec<u64> = walked.iter().flat_map(|w| w.tcaches.iter().copied()).collect();
    for (part, walk) in parts.iter().zip(walked) {
        glibc.take(part, walk);
    }
    glibc.release(&mut reader, &addresses, &main, &candidates, params);
    glibc.check_bins(&mut reader, main.layout);

    let mut taken: Vec<Range<u64>> = skip.to_vec();
    taken.extend(glibc.heaps.iter().map(|h| h.start..h.end));
    taken.sort_by_key(|t| t.start);
    let expected = params.map(|p| p.n_mmaps);
    glibc.mmapped =
        mmapped::find(&mut reader, &target.mappings, &taken, target.page_size.max(4096), expected);
    glibc.mmap_counters = params.map(|p| (p.n_mmaps, p.mmapped_mem));
    let found = glibc.mmapped.len() as u64;
    // The count only: 2.43 miscounts the bytes of chunks it moved with mremap.
    if let Some((count, _)) = glibc.mmap_counters
        && count != found
    {
        glibc.notes.push(format!("malloc: {found} mmapped chunks found, malloc itself counts {count}"));
    }
    Ok(glibc)
}

/// Finds the heaps of a thread arena: from the newest, where top is, by the `prev` links.
fn thread_heaps(
    target: &Target,
    reader: &mut Reader,
    index: usize,
    arena: u64,
    main: &Main,
    parts: &mut Vec<Part>,
    notes: &mut Vec<String>,
) {
    let top = reader.u64(arena + main.layout.top).unwrap_or(0);
    let own = arena & !(HEAP_MAX - 1);
    let info = arena - own;
    let mut heap = top & !(HEAP_MAX - 1);
    let mut seen = BTreeSet::new();
    loop {
        let end = reader.u64(heap.wrapping_add(HEAP_SIZE)).ok().and_then(|size| {
            let end = heap.checked_add(size)?;
            let mapped = contiguous_end(&target.mappings, heap);
            (size <= HEAP_MAX && size > info && end <= mapped && end.is_multiple_of(16)).then_some(end)
        });
        let (Ok(true), Some(end)) = (reader.u64(heap).map(|a| a == arena), end) else {
            notes.push(format!("malloc: {heap:#x} is no heap of arena {arena:#x}: the rest is left out"));
            return;
        };
        if seen.len() >= MAX_HEAPS || !seen.insert(heap) {
            notes.push(format!("malloc: the heaps of arena {arena:#x} run in a circle at {heap:#x}"));
            return;
        }
        let first = match heap == own {
            true => (arena + main.layout.size).next_multiple_of(16),
            false => (heap + info).next_multiple_of(16),
        };
        let top = (heap..end).contains(&top).then_some(top);
        parts.push(Part { start: heap, end, first, top, arena: index as u32, main: false });
        if heap == own {
            return;
        }
        heap = reader.u64(heap + HEAP_PREV).unwrap_or(0);
    }
}

/// Finds the parts of the main heap: from `sbrk_base` on, and where `brk` failed in mapped memory.
fn main_heap(
    target: &Target,
    reader: &mut Reader,
    main: &Main,
    skip: &[Range<u64>],
    parts: &mut Vec<Part>,
    glibc: &mut Glibc,
) -> Option<Params> {
    let top = reader.u64(main.addr + main.layout.top).unwrap_or(0);
    let system = glibc.arenas[0].system_bytes;
    // Before the first chunk is cut top is in the arena itself; large requests may have been mapped already.
    let blank = top == main.addr + main.layout.bins - 16;
    let part_at = |reader: &mut Reader, base: u64| {
        let mapped = writable_end(target, base);
        let within = (base..mapped).contains(&top);
        let end = match within {
            true => mapped.min(top.saturating_add(reader.u64(top + 8).unwrap_or(0) & !7)),
            false => mapped,
        };
        Part {
            start: base,
            end,
            first: base.next_multiple_of(16),
            top: within.then_some(top),
            arena: 0,
            main: true,
        }
    };
    let brk = target.mappings.iter().find(|m| m.backing == Backing::Brk).map(|m| m.start);
    let params = locate::params(reader, &main.region, |reader, base| {
        let part = part_at(reader, base);
        // A damaged chunk near the start of the heap must not cost mp_.
        let sound = Some(base) == brk || base != 0 && part.end > base && part.starts_at(reader, part.first);
        if blank { base == 0 } else { sound }
    });
    if params.is_none() {
        glibc.notes.push("malloc: mp_ not found: mmapped chunks are not checked against its count".into());
    }
    if blank {
        return params;
    }
    let around_top = target.mapping(top).map(|m| m.start);
    let base = params.map(|p| p.sbrk_base).or(brk).or(around_top)?;
    let mut first = part_at(reader, base);
    if first.top.is_none() {
        // Where brk was refused this part ends before its mapping may.
        first.end = first.chain_end(reader, first.first, MAX_PART_STEPS).unwrap_or(first.end);
    }
    let mut bytes = first.end - first.start;
    parts.push(first);
    let noncontiguous = reader.u32(main.addr + FLAGS).is_ok_and(|f| f & NONCONTIGUOUS != 0);
    if first.top.is_none() || noncontiguous || bytes < system {
        bytes += mapped_parts(target, reader, top, skip, parts);
    }
    if bytes != system {
        glibc.notes.push(format!("malloc: {bytes} bytes of main heap found, malloc itself counts {system}"));
    }
    params
}

/// Parts of the main heap that came from `mmap`. They start at a page and end with fenceposts at the end
/// of one, or with the top chunk. The bytes found.
fn mapped_parts(
    target: &Target,
    reader: &mut Reader,
    top: u64,
    skip: &[Range<u64>],
    parts: &mut Vec<Part>,
) -> u64 {
    let page = target.page_size.max(4096);
    let known = target.mappings.iter().any(|m| !m.residency.runs.is_empty());
    let mut taken: Vec<Range<u64>> = skip.to_vec();
    taken.extend(parts.iter().map(|p| p.start..p.end));
    taken.sort_by_key(|t| t.start);
    let mut bytes = 0;
    for area in mmapped::areas(&target.mappings) {
        let mut at = area.start;
        while let Some(touched) = area.touched(at, page, known) {
            at = touched;
            let i = taken.partition_point(|t| t.end <= at);
            if let Some(t) = taken.get(i).filter(|t| t.start <= at) {
                at = t.end.next_multiple_of(page);
                continue;
            }
            let within = (at..area.end).contains(&top).then_some(top);
            let part = Part { start: at, end: area.end, first: at, top: within, arena: 0, main: true };
            let sound = reader.u64(at + 8).is_ok_and(|size| size & 7 == 1) && part.starts_at(reader, at);
            let end = match sound {
                true => part.chain_end(reader, at, MAX_PART_STEPS).filter(|end| end.is_multiple_of(page)),
                false => None,
            };
            if let Some(end) = end {
                let top = within.filter(|top| (at..end).contains(top));
                parts.push(Part { end, top, ..part });
                bytes += end - at;
            }
            at = end.unwrap_or(at + page);
        }
    }
    bytes
}

/// End of the writable memory that runs on from `addr` without a hole; `addr` when it is in none.
fn writable_end(target: &Target, addr: u64) -> u64 {
    let first = target.mappings.partition_point(|m| m.end <= addr);
    let mut end = addr;
    for mapping in &target.mappings[first..] {
        if mapping.start > end || !mapping.perms.write {
            break;
        }
        end = mapping.end;
    }
    end
}

impl Glibc {
    /// Books what a part holds to its arena.
    fn take(&mut self, part: &Part, walk: Walked) {
        let arena = &mut self.arenas[part.arena as usize];
        arena.used_chunks += walk.used_chunks;
        arena.used_bytes += walk.used_bytes;
        arena.free_chunks += walk.free_chunks;
        arena.free_bytes += walk.free_bytes + walk.top_bytes;
        arena.links += walk.links;
        arena.top_bytes += walk.top_bytes;
        arena.heaps.push(part.start..walk.end);
        self.heaps.extend(walk.pieces);
        if let Some(addr) = walk.first_lost {
            self.notes.push(format!(
                "malloc: {} bytes of arena {:#x} that no chain of chunks reaches (the first at {addr:#x})",
                walk.lost_bytes, arena.addr
            ));
        }
    }

    /// Takes chunks that wait in fastbins and tcaches out of the used ones.
    fn release(
        &mut self,
        reader: &mut Reader,
        arenas: &[u64],
        main: &Main,
        candidates: &[u64],
        params: Option<Params>,
    ) {
        // 2.43's default, the only release in which it matters.
        let count = params.map_or(16, |p| p.tcache_count);
        let lists = Heaps(&self.heaps);
        let released = free::release(reader, &lists, arenas, main.layout, candidates, count);
        for mark in &released.chunks {
            let i = self.heaps.partition_point(|h| h.end <= mark.start);
            let arena = &mut self.arenas[self.heaps[i].arena as usize];
            let bytes = mark.end - mark.start;
            arena.used_chunks -= 1;
            arena.used_bytes -= bytes;
            arena.free_bytes += bytes;
            if mark.state == State::Tcache {
                arena.tcache_chunks += 1;
                arena.tcache_bytes += bytes;
            } else {
                arena.fastbin_chunks += 1;
                arena.fastbin_bytes += bytes;
            }
        }
        for heap in &mut self.heaps {
            let from = released.chunks.partition_point(|m| m.start < heap.start);
            let to = released.chunks.partition_point(|m| m.start < heap.end);
            heap.release(&released.chunks[from..to]);
        }
        self.tcaches = released.caches;
        if let Some(addr) = released.first_bad {
            self.notes.push(format!(
                "malloc: {} lists of free chunks are damaged (the first at {addr:#x}): their rest counts as used",
                released.bad_lists
            ));
        }
    }

    /// Chunks that are free by the next one's bit must be those in the bins.
    fn check_bins(&mut self, reader: &mut Reader, layout: &layout::State) {
        let mut is_wrong = |arena: &&Arena| {
            let mut links = arena.links;
            free::heads(reader, arena.addr, layout).is_none_or(|heads| {
                links += heads;
                !links.are_even()
            })
        };
        let wrong: Vec<&Arena> = self.arenas.iter().filter(&mut is_wrong).collect();
        if let Some(arena) = wrong.first() {
            self.notes.push(format!(
                "malloc: the bins of {} arenas (the first at {:#x}) do not hold just their free chunks",
                wrong.len(),
                arena.addr
            ));
        }
    }
}

#[cfg(test)]
mod tests;
