//! The walk of one arena.

use super::{
    Arena, ArenaObject, BAD_POOL, Class, FREE_POOL, Found, Geometry, MAX_BLOCK, POOL_HEADER, half, word,
};
use wmr_memory::{Fault, Reader};

/// Size classes there can be: 512 / 8.
const CLASSES: usize = 64;

/// Sums over arenas.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    /// By block size / 8 − 1: pools, used and free blocks.
    classes: Vec<[u64; 3]>,
    /// Pools that contradict themselves, and the first of them.
    bad: u64,
    first_bad: Option<u64>,
    unreadable: u64,
    first_fault: Option<Fault>,
    /// Arenas whose own counters contradict their pools.
    arenas: u64,
    first_arena: Option<u64>,
}

impl Tally {
    fn pool(&mut self, size: u64, used: u64, free: u64) {
        self.classes.resize(CLASSES, [0; 3]);
        let row = &mut self.classes[size as usize / 8 - 1];
        row[0] += 1;
        row[1] += used;
        row[2] += free;
    }

    pub fn add(&mut self, other: &Tally) {
        self.classes.resize(CLASSES, [0; 3]);
        for (row, more) in self.classes.iter_mut().zip(&other.classes) {
            row.iter_mut().zip(more).for_each(|(a, b)| *a += b);
        }
        self.bad += other.bad;
        self.first_bad = self.first_bad.or(other.first_bad);
        self.unreadable += other.unreadable;
        self.first_fault = self.first_fault.or(other.first_fault);
        self.arenas += other.arenas;
        self.first_arena = self.first_arena.or(other.first_arena);
    }

    pub fn classes(&self) -> Vec<Class> {
        let rows = self.classes.iter().enumerate().filter(|(_, row)| row[0] > 0);
        rows.map(|(i, row)| Class {
            size: (i as u32 + 1) * 8,
            pools: row[0],
            used_blocks: row[1],
            free_blocks: row[2],
        })
        .collect()
    }

    pub fn report(&self, notes: &mut Vec<String>) {
        if let Some(addr) = self.first_bad {
            notes.push(format!(
                "pymalloc: {} pools contradict themselves (the first at {addr:#x}): their blocks are left out",
                self.bad
            ));
        }
        if let Some(fault) = self.first_fault {
            notes.push(format!(
                "pymalloc: {} pools could not be read ({fault}): their blocks are left out",
                self.unreadable
            ));
        }
        if let Some(addr) = self.first_arena {
            notes.push(format!(
                "pymalloc: the free-pool counts of {} arenas (the first at {addr:#x}) contradict their pools",
                self.arenas
            ));
        }
    }
}

enum Trouble {
    Contradiction,
    Unreadable(Fault),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Trouble::Unreadable(fault)
    }
}

impl Arena {
    /// Before its pools are walked.
    pub(super) fn of(object: &ArenaObject, geometry: Geometry) -> Arena {
        Arena {
            addr: object.address,
            bytes: object.bytes(geometry),
            state: object.state,
            total_pools: object.ntotalpools,
            pools: 0,
            free_pools: 0,
            bad_pools: 0,
            used_blocks: 0,
            used_bytes: 0,
            free_bytes: 0,
            geometry,
            found: Found { base: object.address, ..Found::default() },
        }
    }
}

/// Walks one arena whose bounds are known to be mapped.
pub(super) fn walk(
    reader: &mut Reader,
    scratch: &mut Vec<u8>,
    object: &ArenaObject,
    geometry: Geometry,
) -> (Arena, Tally) {
    let pool_size = u64::from(geometry.pool_size);
    let base = object.base(pool_size).unwrap_or(object.address);
    let total = u64::from(object.ntotalpools);
    let mut tally = Tally::default();

    let carved_bytes = object.pool_address.saturating_sub(base);
    let mut sound = carved_bytes.is_multiple_of(pool_size) && carved_bytes / pool_size <= total;
    let pools = (carved_bytes / pool_size).min(total);
    let free = free_pools(reader, object, base, pools, pool_size);
    sound &= free.complete && pools - free.count + u64::from(object.nfreepools) == total;
    if !sound {
        tally.arenas = 1;
        tally.first_arena = Some(object.address);
    }

    let mut arena = Arena {
        pools: pools as u32,
        free_bytes: (total - pools) * pool_size,
        found: Found { base, classes: Vec::with_capacity(pools as usize), bits: Vec::new() },
        ..Arena::of(object, geometry)
    };
    for i in 0..pools {
        let pool = base + i * pool_size;
        if free.contains(i) {
            arena.free_pools += 1;
            arena.free_bytes += pool_size;
            arena.found.classes.push(FREE_POOL);
            continue;
        }
        let bits_at = (i * pool_size / u64::from(geometry.alignment) / 64) as usize;
        match walk_pool(reader, scratch, pool, object.index, geometry, &mut arena.found.bits, bits_at) {
            Ok(Pool { size, used, free }) => {
                tally.pool(size, used, free);
                arena.used_blocks += used as u32;
                arena.used_bytes += used * size;
                arena.free_bytes += free * size;
                arena.found.classes.push((size / u64::from(geometry.alignment)) as u8);
            }
            Err(trouble) => {
                arena.found.bits.truncate(bits_at);
                arena.bad_pools += 1;
                arena.found.classes.push(BAD_POOL);
                match trouble {
                    Trouble::Contradiction => {
                        tally.bad += 1;
                        tally.first_bad = tally.first_bad.or(Some(pool));
                    }
                    Trouble::Unreadable(fault) => {
                        tally.unreadable += 1;
                        tally.first_fault = tally.first_fault.or(Some(fault));
                    }
                }
            }
        }
    }
    (arena, tally)
}

/// The pools on an arena's `freepools` list.
struct FreePools {
    set: Vec<u64>,
    count: u64,
    /// The list ended as it should.
    complete: bool,
}

impl FreePools {
    fn contains(&self, i: u64) -> bool {
        self.set[(i / 64) as usize] >> (i % 64) & 1 != 0
    }
}

fn free_pools(reader: &mut Reader, object: &ArenaObject, base: u64, pools: u64, pool_size: u64) -> FreePools {
    let mut free = FreePools { set: vec![0; pools as usize / 64 + 1], count: 0, complete: false };
    let mut at = object.freepools;
    loop {
        if at == 0 {
            free.complete = true;
            return free;
        }
        let offset = at.wrapping_sub(base);
        let i = offset / pool_size;
        if !offset.is_multiple_of(pool_size) || i >= pools || free.contains(i) {
            return free;
        }
        // A pool in use has blocks in use: a list that runs into one is damaged.
        let Ok(header) = reader.peek::<24>(at) else { return free };
        if half(&header, 0) != 0 {
            return free;
        }
        free.set[(i / 64) as usize] |= 1 << (i % 64);
        free.count += 1;
        at = word(&header, 16);
    }
}

struct Pool {
    size: u64,
    used: u64,
    free: u64,
}

/// Appends the used starts of one pool to `bits`, at word `bits_at`.
fn walk_pool(
    reader: &mut Reader,
    scratch: &mut Vec<u8>,
    pool: u64,
    arena_index: u32,
    geometry: Geometry,
    bits: &mut Vec<u64>,
    bits_at: usize,
) -> Result<Pool, Trouble> {
    let pool_size = u64::from(geometry.pool_size);
    let alignment = u64::from(geometry.alignment);
    // Of a full pool, and most are, nothing else is read.
    let header = reader.peek::<48>(pool)?;
    let count = u64::from(half(&header, 0));
    let (szidx, next, max) =
        (u64::from(half(&header, 36)), u64::from(half(&header, 40)), u64::from(half(&header, 44)));
    let size = szidx.saturating_add(1).saturating_mul(alignment);
    if half(&header, 32) != arena_index || size > MAX_BLOCK || max != pool_size - size {
        return Err(Trouble::Contradiction);
    }
    let capacity = (pool_size - POOL_HEADER) / size;
    // Once full, nextoffset has stepped past maxnextoffset.
    if next < POOL_HEADER || next > max + size || !(next - POOL_HEADER).is_multiple_of(size) {
        return Err(Trouble::Contradiction);
    }
    let carved = (next - POOL_HEADER) / size;
    if count == 0 || count > carved || carved > capacity {
        return Err(Trouble::Contradiction);
    }

    // Hardware division, once per block, would take longer than all the rest.
    let shift = alignment.trailing_zeros();
    let words = (pool_size >> shift) as usize / 64;
    bits.resize(bits_at + words, 0);
    let bits = &mut bits[bits_at..];
    let step = (size >> shift) as usize;
    for bit in ((POOL_HEADER >> shift) as usize..(next >> shift) as usize).step_by(step) {
        bits[bit / 64] |= 1 << (bit % 64);
    }

    let mut link = word(&header, 8);
    let mut free = 0;
    if link != 0 {
        // One page of the pool may be swapped out without any link being in it.
        let bytes = reader.window(pool, pool_size as usize, scratch).ok();
        while link != 0 {
            let offset = link.wrapping_sub(pool);
            if offset >= next || offset & (alignment - 1) != 0 {
                return Err(Trouble::Contradiction);
            }
            // A link to no block, or to one that is free already, is not set: that ends circles too.
            let bit = (offset >> shift) as usize;
            if bits[bit / 64] >> (bit % 64) & 1 == 0 {
                return Err(Trouble::Contradiction);
            }
            bits[bit / 64] &= !(1 << (bit % 64));
            free += 1;
            link = match bytes {
                Some(bytes) => word(bytes, offset as usize),
                None => reader.u64(link)?,
            };
        }
    }
    if carved - free != count {
        return Err(Trouble::Contradiction);
    }
    Ok(Pool { size, used: count, free: capacity - count })
}
