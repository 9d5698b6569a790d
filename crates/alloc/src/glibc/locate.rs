//! Finding `main_arena`, `mp_` and the arenas' ring: none of them has a symbol.

use super::layout::{BINS, FLAGS, HEAP_INFO, HEAP_MAX, PARS, Par, STATES, State};
use crate::naming::is_glibc;
use std::collections::BTreeSet;
use std::ops::Range;
use wmr_memory::{Reader, Target};

/// Bins that may be damaged in an arena that is believed nevertheless.
const MAX_BAD_BINS: u64 = 8;
/// Arenas that are followed; glibc makes 8 per core.
const MAX_ARENAS: usize = 1 << 16;

/// A located `main_arena`.
pub(super) struct Main {
    pub addr: u64,
    pub layout: &'static State,
    /// The writable memory it was found in: `mp_` is near.
    pub region: Range<u64>,
    /// It has handed out memory; before the first malloc its bins are zeroes.
    pub initialised: bool,
}

/// Looks where glibc is mapped, then in all other images: it may be linked in.
pub(super) fn main_arena(target: &Target, reader: &mut Reader) -> Option<Main> {
    let (libc, others): (Vec<_>, Vec<_>) = target.images.iter().partition(|i| is_glibc(i));
    for images in [libc, others] {
        let mut best: Option<(u64, Main)> = None;
        for region in images.iter().flat_map(|i| i.writable()) {
            for layout in &STATES {
                if let Some((score, addr)) = scan(target, reader, &region, layout)
                    && best.as_ref().is_none_or(|(s, _)| *s < score)
                {
                    let main = Main { addr, layout, region: region.clone(), initialised: score > 0 };
                    best = Some((score, main));
                }
            }
        }
        if let Some((_, main)) = best {
            return Some(main);
        }
    }
    None
}

/// The most credible address in the region and how credible it is: 0 for an arena that was never used.
fn scan(target: &Target, reader: &mut Reader, region: &Range<u64>, layout: &State) -> Option<(u64, u64)> {
    let mut best: Option<(u64, u64)> = None;
    let last = region.end.checked_sub(layout.size)?;
    let mut addr = region.start.next_multiple_of(8);
    while addr <= last {
        if let Some(score) = credible(target, reader, addr, layout)
            && best.is_none_or(|(s, _)| s < score)
        {
            best = Some((score, addr));
        }
        addr += 8;
    }
    best
}

fn credible(target: &Target, reader: &mut Reader, addr: u64, layout: &State) -> Option<u64> {
    let next = reader.u64(addr + layout.next).ok()?;
    if next != addr && !HEAP_INFO.contains(&(next % HEAP_MAX)) {
        return None;
    }
    let top = reader.u64(addr + layout.top).ok()?;
    let system = reader.u64(addr + layout.system_mem).ok()?;
    if reader.u32(addr + FLAGS).ok()? > 7 {
        return None;
    }
    if top == 0 {
        // As linked: `next` is itself, `attached_threads` 1, all else zero.
        let mut zeroes = vec![0; layout.next as usize];
        reader.read(addr, &mut zeroes).ok()?;
        let attached = reader.u64(addr + layout.next + 16).ok()?;
        let blank = next == addr && system == 0 && attached == 1 && zeroes.iter().all(|&b| b == 0);
        return blank.then_some(0);
    }
    // Before the first chunk is cut, top is the first bin's head: its fields overlap top itself.
    let initial = top == addr + layout.bins - 16 && system == 0;
    let writable = |a| target.mapping(a).is_some_and(|m| m.perms.write);
    if !(initial || top.is_multiple_of(16) && system > 0 && writable(top)) {
        return None;
    }
    let good = sound_bins(reader, addr, layout);
    if good + MAX_BAD_BINS < BINS {
        return None;
    }
    // The releases' layouts are one another's, shifted by the fastbins: only the ring knows where it starts.
    let closed = ring_from(reader, addr, layout).1.is_none();
    Some(good + if closed { BINS } else { 0 })
}

/// Bins whose head is linked to itself, or to chunks that are linked back. A window shifted by 16
/// shows many self-links too, but its last bins lie in `binmap`, its first in `top`.
pub(super) fn sound_bins(reader: &mut Reader, addr: u64, layout: &State) -> u64 {
    (0..BINS)
        .filter(|i| {
            let pair = addr + layout.bins + 16 * i;
            let head = pair - 16;
            let (Ok(fd), Ok(bk)) = (reader.u64(pair), reader.u64(pair + 8)) else { return false };
            if fd == head && bk == head {
                return true;
            }
            fd != head
                && bk != head
                && reader.u64(fd.wrapping_add(24)) == Ok(head)
                && reader.u64(bk.wrapping_add(16)) == Ok(head)
        })
        .count() as u64
}

/// The arenas that `next` leads to from the main one, which is the first, and why the ring does not
/// close, if it does not.
fn ring_from(reader: &mut Reader, main: u64, layout: &State) -> (Vec<u64>, Option<String>) {
    let mut arenas = vec![main];
    let mut seen = BTreeSet::from([main]);
    let mut at = main;
    loop {
        let next = match reader.u64(at.wrapping_add(layout.next)) {
            Ok(next) => next,
            Err(fault) => return (arenas, Some(fault.to_string())),
        };
        if next == main {
            return (arenas, None);
        }
        if thread_arena(reader, next).is_none() {
            return (arenas, Some(format!("{next:#x} is no arena")));
        }
        if !seen.insert(next) || arenas.len() >= MAX_ARENAS {
            return (arenas, Some(format!("it does not end at {next:#x}")));
        }
        arenas.push(next);
        at = next;
    }
}

/// Addresses of all arenas, the main one first.
pub(super) fn ring(target: &Target, reader: &mut Reader, main: &Main, notes: &mut Vec<String>) -> Vec<u64> {
    let (mut arenas, broken) = ring_from(reader, main.addr, main.layout);
    let mut seen: BTreeSet<u64> = arenas.iter().copied().collect();
    if let Some(why) = broken {
        let known = arenas.len();
        // Every thread arena heads a heap, and heaps lie at multiples of 64 MiB.
        for mapping in target.mappings.iter().filter(|m| m.perms.write && !m.perms.shared) {
            let mut heap = mapping.start.next_multiple_of(HEAP_MAX);
            while heap < mapping.end && arenas.len() < MAX_ARENAS {
                for info in HEAP_INFO {
                    let addr = heap + info;
                    if reader.u64(heap) == Ok(addr)
                        && sound_bins(reader, addr, main.layout) + MAX_BAD_BINS >= BINS
                        && seen.insert(addr)
                    {
                        arenas.push(addr);
                    }
                }
                heap += HEAP_MAX;
            }
        }
        notes.push(format!(
            "malloc: the ring of arenas breaks after {known}: {why}; {} more found by their heaps",
            arenas.len() - known
        ));
    }
    arenas
}

/// Start of the heap that a thread's arena heads.
pub(super) fn thread_arena(reader: &mut Reader, arena: u64) -> Option<u64> {
    let heap = arena & !(HEAP_MAX - 1);
    (HEAP_INFO.contains(&(arena - heap)) && reader.u64(heap) == Ok(arena)).then_some(heap)
}

/// What is used of `mp_`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Params {
    pub n_mmaps: u64,
    pub mmapped_mem: u64,
    pub sbrk_base: u64,
    pub tcache_count: u64,
}

/// `mp_`, by the figures it can have and, among several, those it has unless a program or a tunable
/// changes them. `is_base` says whether the main heap can start there.
pub(super) fn params(
    reader: &mut Reader,
    region: &Range<u64>,
    mut is_base: impl FnMut(&mut Reader, u64) -> bool,
) -> Option<Params> {
    let mut best: Option<(u32, Params)> = None;
    for layout in &PARS {
        let last = region.end.saturating_sub(layout.size);
        for addr in (region.start.next_multiple_of(8)..=last).step_by(8) {
            if let Some((score, found)) = params_at(reader, addr, layout)
                && best.as_ref().is_none_or(|(s, _)| *s < score)
                && is_base(reader, found.sbrk_base)
            {
                best = Some((score, found));
            }
        }
    }
    best.map(|(_, found)| found)
}

/// How many fields have their usual value, and the fields.
fn params_at(reader: &mut Reader, addr: u64, layout: &Par) -> Option<(u32, Params)> {
    // First what tells mp_ from the zeroes that most of this memory is.
    let mmap_threshold = reader.u64(addr + 16).ok()?;
    let (arena_test, arena_max) = (reader.u64(addr + 24).ok()?, reader.u64(addr + 32).ok()?);
    if mmap_threshold == 0 || arena_test > 4096 || arena_max > 1 << 20 || arena_test + arena_max == 0 {
        return None;
    }
    let tcache_bins = reader.u64(addr + layout.tcache_bins).ok()?;
    let tcache_count = reader.u64(addr + layout.tcache_count).ok()?;
    if tcache_bins > 76 || tcache_count > 0xffff {
        return None;
    }
    let n_mmaps = reader.u32(addr + layout.n_mmaps).ok()?;
    let n_mmaps_max = reader.u32(addr + layout.n_mmaps + 4).ok()?;
    let max_n_mmaps = reader.u32(addr + layout.max_n_mmaps).ok()?;
    let no_dyn_threshold = reader.u32(addr + layout.max_n_mmaps + 4).ok()?;
    let mmapped_mem = reader.u64(addr + layout.mmapped_mem).ok()?;
    let max_mmapped_mem = reader.u64(addr + layout.max_mmapped_mem).ok()?;
    let sound = n_mmaps <= max_n_mmaps
        && n_mmaps_max <= i32::MAX as u32
        && no_dyn_threshold <= 1
        && mmapped_mem <= max_mmapped_mem
        && mmapped_mem >= u64::from(n_mmaps) * 4096
        // 2.43 counts 16 bytes too many at each mremap, and keeps them when the chunk is gone.
        && mmapped_mem.is_multiple_of(16);
    if !sound {
        return None;
    }
    let usual = [
        reader.u64(addr + 8) == Ok(128 << 10),
        arena_test == 8,
        n_mmaps_max == 65536,
        [64, 76].contains(&tcache_bins),
        // 16 in 2.43.
        [7, 16].contains(&tcache_count),
    ];
    let score = usual.iter().filter(|&&u| u).count() as u32;
    let sbrk_base = reader.u64(addr + layout.sbrk_base).ok()?;
    Some((score, Params { n_mmaps: n_mmaps.into(), mmapped_mem, sbrk_base, tcache_count }))
}
