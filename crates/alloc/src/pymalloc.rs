//! pymalloc: CPython's allocator for blocks of up to 512 bytes (`Objects/obmalloc.c`).
//!
//! An *arena* (256 KiB, 1 MiB from 3.10 on, 2 MiB as an option of 3.15) is cut into *pools*
//! (4 KiB, 16 KiB from 3.10 on) and a pool into blocks of one size. The geometry is read from the
//! pools themselves: patch levels differ in alignment (8 or 16), so it does not follow from X.Y.

mod arena;
mod within;

pub use within::Within;

use std::ops::Range;
use wmr_memory::{Mapping, Memory, Reader, Staged, shared_out};

/// Largest arena that is read at once: those of 3.15.
const MAX_STAGED: u64 = 2 << 20;
/// Entries of the arena array that are looked at: a TiB of the smallest arenas.
const MAX_ARENAS: u32 = 1 << 22;
/// `struct arena_object`, the same from 2.7 to 3.15.
const ARENA_OBJECT: usize = 48;
/// `struct pool_header`, the same from 2.7 to 3.15 (`OVERHEAD_SIZE`).
pub(crate) const POOL_HEADER: u64 = 48;
/// Largest block pymalloc hands out.
pub(crate) const MAX_BLOCK: u64 = 512;

/// Where one obmalloc state keeps its arenas: the `arenas` and `maxarenas` statics up to 3.11, the
/// fields of `_obmalloc_state.mgmt` from 3.12 on, one per interpreter with its own state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Roots {
    /// Address of the array of `arena_object`; 0 when pymalloc was never used.
    pub arenas: u64,
    /// Length of that array.
    pub maxarenas: u32,
}

/// Pool size and alignment, as the pools of one state declare them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// Bytes: 4096 or 16384.
    pub pool_size: u32,
    /// Bytes between size classes: 16, or 8 in early patch levels and 32-bit builds.
    pub alignment: u32,
}

/// One arena that is in use.
#[derive(Debug, Clone)]
pub struct Arena {
    pub addr: u64,
    pub bytes: u64,
    /// Index into the roots that were walked.
    pub state: u32,
    /// Pools that fit after alignment.
    pub total_pools: u32,
    /// Pools carved from the arena so far, free ones included.
    pub pools: u32,
    /// Carved pools that are wholly free.
    pub free_pools: u32,
    /// Carved pools that could not be read or contradict themselves: their blocks are not counted.
    pub bad_pools: u32,
    pub used_blocks: u32,
    /// Bytes of the blocks in use.
    pub used_bytes: u64,
    /// Bytes of free blocks in partly used pools, of free pools and of pools not yet carved.
    pub free_bytes: u64,
    pub geometry: Geometry,
    pub(crate) found: Found,
}

/// What the block index needs of an arena.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    /// Address of the first pool.
    pub base: u64,
    /// Per carved pool: its size class + 1, or one of the marks below.
    pub classes: Vec<u8>,
    /// Used block starts, one bit per `alignment` bytes from `base`. May end early.
    pub bits: Vec<u64>,
}

/// Class byte of a pool that contradicts itself.
pub(crate) const BAD_POOL: u8 = 0;
/// Class byte of a wholly free pool.
pub(crate) const FREE_POOL: u8 = 255;

/// One size class, over all arenas: a row of `sys._debugmallocstats()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Class {
    /// Bytes of a block.
    pub size: u32,
    pub pools: u64,
    pub used_blocks: u64,
    pub free_blocks: u64,
}

/// Everything the walk of pymalloc found.
#[derive(Debug, Clone, Default)]
pub struct PyMalloc {
    /// In address order, not overlapping.
    pub arenas: Vec<Arena>,
    /// By size; only classes that have a pool.
    pub classes: Vec<Class>,
    /// What could not be read or contradicts itself, and what it cost.
    pub notes: Vec<String>,
}

impl PyMalloc {
    pub fn used_blocks(&self) -> u64 {
        self.classes.iter().map(|c| c.used_blocks).sum()
    }
}

/// `struct arena_object` of an arena that is in use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ArenaObject {
    state: u32,
    /// Its place in the array: pools name it.
    index: u32,
    address: u64,
    /// First pool that was never carved.
    pool_address: u64,
    nfreepools: u32,
    ntotalpools: u32,
    freepools: u64,
}

/// Arenas in use, before anything in them has been looked at.
#[derive(Debug, Default)]
pub struct Arenas {
    /// In address order, not overlapping.
    found: Vec<(ArenaObject, Geometry)>,
    notes: Vec<String>,
}

/// Walks the arenas of the given states. `mappings` bound what the states claim; pass all of them.
///
/// Nothing here fails as a whole: what could not be read is in [`PyMalloc::notes`].
pub fn walk(memory: &dyn Memory, mappings: &[Mapping], roots: &[Roots]) -> PyMalloc {
    Arenas::of(memory, mappings, roots).walk(memory)
}

impl Arenas {
    /// The first step of [`walk`], for whoever needs to know where they are.
    pub fn of(memory: &dyn Memory, mappings: &[Mapping], roots: &[Roots]) -> Arenas {
        let mut reader = Reader::new(memory);
        let mut notes = Vec::new();
        let mut found = Vec::new();
        for (state, root) in roots.iter().enumerate() {
            let objects = arena_objects(&mut reader, mappings, root, state as u32, &mut notes);
            if objects.is_empty() {
                continue;
            }
            let Some(geometry) = geometry(&mut reader, &objects) else {
                notes.push(format!(
                    "pymalloc: {} arenas at {:#x} whose pools have no size in common: left out",
                    objects.len(),
                    root.arenas
                ));
                continue;
            };
            found.extend(objects.into_iter().map(|object| (object, geometry)));
        }
        let found = without_overlaps(found, mappings, &mut notes);
        Arenas { found, notes }
    }

    /// Their address ranges, in order.
    pub fn ranges(&self) -> Vec<Range<u64>> {
        let range = |(object, geometry): &(ArenaObject, Geometry)| {
            object.address..object.address + object.bytes(*geometry)
        };
        self.found.iter().map(range).collect()
    }

    /// Arenas of which no pool is known: whose memory it is.
    pub fn unwalked(&self) -> PyMalloc {
        let arena = |(object, geometry): &(ArenaObject, Geometry)| Arena::of(object, *geometry);
        PyMalloc { arenas: self.found.iter().map(arena).collect(), ..PyMalloc::default() }
    }

    /// The second step: their pools.
    pub fn walk(self, memory: &dyn Memory) -> PyMalloc {
        let walked = shared_out(
            &self.found,
            || (Reader::new(memory), Vec::new()),
            |(reader, scratch), (object, geometry)| (arena::walk(reader, scratch, object, *geometry), ()),
        );
        self.sum(walked).0
    }

    /// The second step, and a look at each arena while all of it is at hand: most of its blocks are looked at anyway,
    /// and reading takes longer than looking. `look` is given what `begin` made for a thread, the memory, and the
    /// arena; its answers are in the order of the arenas.
    pub fn walk_and_look<S, T: Send>(
        self,
        memory: &dyn Memory,
        begin: impl Fn() -> S + Send + Sync,
        look: impl Fn(&mut S, &dyn Memory, &Arena) -> T + Send + Sync,
    ) -> (PyMalloc, Vec<T>) {
        let walked = shared_out(
            &self.found,
            || (begin(), Vec::new(), Vec::new()),
            |(state, room, scratch), (object, geometry)| {
                let bytes = object.bytes(*geometry);
                let range = object.address..object.address + if bytes <= MAX_STAGED { bytes } else { 0 };
                let staged = Staged::read(memory, range, room);
                let walked = arena::walk(&mut Reader::new(&staged), scratch, object, *geometry);
                let seen = look(state, &staged, &walked.0);
                (walked, seen)
            },
        );
        self.sum(walked)
    }

    fn sum<T>(self, walked: Vec<((Arena, arena::Tally), T)>) -> (PyMalloc, Vec<T>) {
        let mut notes = self.notes;
        let mut tally = arena::Tally::default();
        let (mut arenas, mut seen) = (Vec::with_capacity(walked.len()), Vec::with_capacity(walked.len()));
        for ((arena, part), look) in walked {
            tally.add(&part);
            arenas.push(arena);
            seen.push(look);
        }
        tally.report(&mut notes);
        (PyMalloc { arenas, classes: tally.classes(), notes }, seen)
    }
}

/// The used entries of a state's array.
fn arena_objects(
    reader: &mut Reader,
    mappings: &[Mapping],
    root: &Roots,
    state: u32,
    notes: &mut Vec<String>,
) -> Vec<ArenaObject> {
    const WINDOW: usize = 1024;
    let mut found = Vec::new();
    if root.arenas == 0 || root.maxarenas == 0 {
        return found;
    }
    let room = contiguous_end(mappings, root.arenas).saturating_sub(root.arenas) / ARENA_OBJECT as u64;
    let count = u64::from(root.maxarenas.min(MAX_ARENAS)).min(room) as u32;
    if count < root.maxarenas {
        notes.push(format!(
            "pymalloc: the arena array at {:#x} claims {} entries, {count} are there",
            root.arenas, root.maxarenas
        ));
    }
    let mut scratch = Vec::new();
    let mut index = 0;
    while index < count {
        let n = WINDOW.min((count - index) as usize);
        let addr = root.arenas + u64::from(index) * ARENA_OBJECT as u64;
        match reader.window(addr, n * ARENA_OBJECT, &mut scratch) {
            Ok(bytes) => {
                for (i, entry) in bytes.chunks_exact(ARENA_OBJECT).enumerate() {
                    if word(entry, 0) != 0 {
                        found.push(ArenaObject {
                            state,
                            index: index + i as u32,
                            address: word(entry, 0),
                            pool_address: word(entry, 8),
                            nfreepools: half(entry, 16),
                            ntotalpools: half(entry, 20),
                            freepools: word(entry, 24),
                        });
                    }
                }
            }
            Err(fault) => {
                notes.push(format!("pymalloc: {n} entries of the arena array unreadable: {fault}"));
            }
        }
        index += n as u32;
    }
    found
}

/// Drops arenas that are not mapped or overlap another: a corrupt array must not make one byte
/// belong to two arenas. Sorted by address.
fn without_overlaps(
    mut arenas: Vec<(ArenaObject, Geometry)>,
    mappings: &[Mapping],
    notes: &mut Vec<String>,
) -> Vec<(ArenaObject, Geometry)> {
    arenas.sort_by_key(|(o, _)| (o.address, o.state, o.index));
    let before = arenas.len();
    let mut end = 0;
    arenas.retain(|(object, geometry)| {
        let bytes = object.bytes(*geometry);
        let good = (1..=1 << 12).contains(&object.ntotalpools)
            && object.address >= end
            && object
                .address
                .checked_add(bytes)
                .is_some_and(|e| e <= contiguous_end(mappings, object.address));
        if good {
            end = object.address + bytes;
        }
        good
    });
    if arenas.len() < before {
        notes.push(format!(
            "pymalloc: {} arenas left out: outside of mapped memory, or overlapping another",
            before - arenas.len()
        ));
    }
    arenas
}

impl ArenaObject {
    /// Bytes of the arena. One that is not pool aligned loses a pool's worth to alignment, so
    /// 63 pools of 4 KiB mean 256 KiB just as 64 do.
    fn bytes(&self, geometry: Geometry) -> u64 {
        let pool = u64::from(geometry.pool_size);
        (u64::from(self.ntotalpools) + u64::from(!self.address.is_multiple_of(pool))) * pool
    }

    fn base(&self, pool_size: u64) -> Option<u64> {
        self.address.checked_next_multiple_of(pool_size)
    }
}

/// The geometry most arenas agree on, by the header of their first pool.
fn geometry(reader: &mut Reader, objects: &[ArenaObject]) -> Option<Geometry> {
    /// Arenas that are asked: a damaged first pool must not decide alone.
    const JURY: usize = 64;
    let mut votes: Vec<(Geometry, usize)> = Vec::new();
    for object in objects.iter().take(JURY) {
        for pool_size in [4096, 16384] {
            let Some(base) = object.base(pool_size) else { continue };
            if object.pool_address.checked_sub(base).is_none_or(|carved| carved < pool_size) {
                continue;
            }
            let Ok(header) = reader.array::<48>(base) else { continue };
            let (szidx, maxnext) = (u64::from(half(&header, 36)), u64::from(half(&header, 44)));
            if half(&header, 32) != object.index || szidx >= 64 || maxnext >= pool_size {
                continue;
            }
            let size = pool_size - maxnext;
            for alignment in [8, 16] {
                if size == (szidx + 1) * alignment && size <= MAX_BLOCK {
                    let g = Geometry { pool_size: pool_size as u32, alignment: alignment as u32 };
                    match votes.iter_mut().find(|(v, _)| *v == g) {
                        Some((_, n)) => *n += 1,
                        None => votes.push((g, 1)),
                    }
                }
            }
        }
    }
    votes.into_iter().max_by_key(|(_, n)| *n).map(|(g, _)| g)
}

/// End of the readable memory that runs on from `addr` without a hole; `addr` when it is in none.
pub(crate) fn contiguous_end(mappings: &[Mapping], addr: u64) -> u64 {
    let first = mappings.partition_point(|m| m.end <= addr);
    let mut end = addr;
    for mapping in &mappings[first..] {
        if mapping.start > end || !mapping.perms.read {
            break;
        }
        end = mapping.end;
    }
    end
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].try_into().map_or(0, u64::from_le_bytes)
}

fn half(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].try_into().map_or(0, u32::from_le_bytes)
}

#[cfg(test)]
mod tests;
