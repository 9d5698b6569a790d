//! glibc's malloc, 2.31 to 2.43, without debug symbols.
//!
//! An *arena* (`malloc_state`) hands out *chunks* of one or more *heaps*: the main arena from `brk`,
//! or from `mmap` where `brk` failed; the others, one for a few threads, from 64 MiB-aligned heaps.
//! Large requests get a *mmapped* chunk each. Free chunks wait in per-thread caches (*tcache*),
//! *fastbins* (gone in 2.43) and *bins*; the first two look like chunks in use.

use crate::blocks::Mark;
use crate::naming::Allocator;
use std::ops::Range;
use wmr_memory::Target;

/// What the walk of glibc's malloc found.
#[derive(Debug, Clone, Default)]
pub struct Glibc {
    /// The main arena first, then the others in the order of their ring.
    pub arenas: Vec<Arena>,
    /// In address order, not overlapping.
    pub mmapped: Vec<Mmapped>,
    /// In address order, not overlapping.
    pub(crate) heaps: Vec<HeapWalk>,
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
}

/// A chunk that has a mapping of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mmapped {
    /// Start and end of the mapping.
    pub start: u64,
    pub end: u64,
    /// What malloc returned.
    pub user: u64,
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

/// Finds and walks glibc's malloc. `skip` names memory that is known to be another's (arenas of
/// pymalloc), sorted and disjoint: no mmapped chunk is looked for inside of it.
pub fn find(target: &Target, skip: &[Range<u64>]) -> Result<Glibc, NotFound> {
    let _ = skip;
    Err(NotFound { allocator: crate::naming::allocator(&target.images) })
}
