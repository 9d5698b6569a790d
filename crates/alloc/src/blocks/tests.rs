//! Nesting, slots and large numbers; the walks' own tests cover the rest of the index.

use super::*;
use crate::glibc::{Arena as MallocArena, Glibc, HeapWalk, Mmapped};
use crate::pymalloc::{Arena, Found, PyMalloc};

const HEAP: u64 = 0x5555_0000_0000;

/// A heap of used chunks of the given sizes.
fn heap(sizes: &[u64]) -> Glibc {
    let end = HEAP + sizes.iter().sum::<u64>();
    let mut walk = HeapWalk { start: HEAP, end, origin: HEAP, ..HeapWalk::default() };
    walk.bits = vec![0; ((end - HEAP) / 1024 + 1) as usize];
    let mut at = HEAP;
    for size in sizes {
        let bit = (at - HEAP) / 16;
        walk.bits[(bit / 64) as usize] |= 1 << (bit % 64);
        walk.sizes.push((size / 16) as u32);
        at += size;
    }
    Glibc { arenas: vec![MallocArena::default()], heaps: vec![walk], ..Glibc::default() }
}

/// A 256 KiB arena with one pool of 512-byte blocks, all used.
fn arena(addr: u64) -> Arena {
    let base = addr.next_multiple_of(4096);
    let mut bits = vec![0; 4];
    (0..7u64).map(|k| (48 + k * 512) / 16).for_each(|bit| bits[(bit / 64) as usize] |= 1 << (bit % 64));
    Arena {
        addr,
        bytes: 256 << 10,
        state: 0,
        total_pools: 64,
        pools: 1,
        free_pools: 0,
        bad_pools: 0,
        used_blocks: 7,
        used_bytes: 7 * 512,
        free_bytes: 0,
        geometry: Geometry { pool_size: 4096, alignment: 16 },
        found: Found { base, classes: vec![32], bits },
    }
}

fn ranges(blocks: &Blocks) -> Vec<(u64, u64, State)> {
    let mut out = Vec::new();
    for span in 0..blocks.spans().len() {
        blocks.for_each_range(span, |r, s| out.push((r.start, r.end, s)));
    }
    assert!(out.windows(2).all(|w| w[0].1 <= w[1].0));
    out
}

/// From any id to any other, the blocks are those that come there among all.
fn assert_any_range(blocks: &Blocks) {
    let all: Vec<_> = blocks.iter().collect();
    for first in 0..blocks.len() {
        for end in first..=blocks.len() {
            let some: Vec<_> = blocks.range(first..end).collect();
            assert_eq!(some, all[first as usize..end as usize]);
        }
    }
}

#[test]
fn the_deepest_owns_the_bytes() {
    let glibc = heap(&[64, (512 << 10) + 4096, 96]);
    let big = HEAP + 64;
    // Two arenas in one chunk, the first right where malloc's answer points.
    let pymalloc =
        PyMalloc { arenas: vec![arena(big + 16), arena(big + 16 + (256 << 10))], ..PyMalloc::default() };
    let blocks = Blocks::builder().pymalloc(&pymalloc).glibc(&glibc).build().expect("fits");
    assert_eq!(blocks.notes(), [""; 0]);
    assert_eq!(blocks.len(), 3 + 14);
    assert_eq!(blocks.spans().len(), 4);
    let holder = 1;
    assert!(blocks.is_holder(holder) && !blocks.is_holder(0) && !blocks.is_holder(2));
    assert_eq!((blocks.start(holder), blocks.bytes(holder)), (big + 16, 4096));
    assert_eq!(blocks.usable(holder), (512 << 10) + 4096 - 8);
    // Between and behind what nests, the chunk's own bytes.
    let behind = big + 16 + (512 << 10);
    assert_eq!(blocks.find(behind + 100), Some(holder));
    assert_eq!(blocks.find(behind + 4095 - 16 + 8), Some(holder));
    let first = arena(big + 16).found.base + 48;
    assert_eq!((blocks.at(first), blocks.find(first + 511)), (Some(2), Some(2)));
    assert_eq!(blocks.at(big + (512 << 10) + 4096 + 16), Some(16));
    assert_eq!(blocks.bytes(16), 96);
    let starts: Vec<u64> = blocks.iter().map(|b| b.start).collect();
    assert!(starts.is_sorted());
    for (id, start) in (0..).zip(starts) {
        assert_eq!((blocks.start(id), blocks.block(id).id), (start, id));
    }
    let all = ranges(&blocks);
    let used: u64 = all.iter().filter(|r| matches!(r.2, State::Used(_))).map(|r| r.1 - r.0).sum();
    assert_eq!(used, blocks.iter().map(|b| b.bytes).sum::<u64>());
    assert_eq!(all.iter().map(|r| r.1 - r.0).sum::<u64>(), 64 + (512 << 10) + 4096 + 96);
    assert_any_range(&blocks);
}

#[test]
fn an_arena_in_a_mmapped_chunk() {
    let start = 0x7f00_0000_0000;
    let chunk = Mmapped { start, end: start + (300 << 10), user: start + 16, usable: (300 << 10) - 16 };
    let glibc = Glibc { mmapped: vec![chunk], ..Glibc::default() };
    let pymalloc = PyMalloc { arenas: vec![arena(start + 16)], ..PyMalloc::default() };
    let blocks = Blocks::builder().pymalloc(&pymalloc).glibc(&glibc).build().expect("fits");
    assert_eq!(blocks.len(), 8);
    assert_eq!(blocks.bytes(0), 44 << 10);
    assert_eq!(blocks.find(start + (299 << 10)), Some(0));
    assert_eq!(ranges(&blocks).iter().filter(|r| r.2 == State::Used(0)).count(), 2);
    assert_any_range(&blocks);
}

#[test]
fn slots_of_a_block() {
    // As 2.7 keeps its ints: a next pointer, then 41 objects of 24 bytes, in a chunk of 1,008.
    let glibc = heap(&[1008, 1008, 32]);
    let slots = |chunk: u64, used: u64| Slots { first: chunk + 24, stride: 24, count: 41, used: vec![used] };
    let used = 0b1011 | 1 << 40;
    let builder = Blocks::builder().glibc(&glibc).slots(slots(HEAP, used)).slots(slots(HEAP + 1008, 0));
    let blocks = builder.build().expect("fits");
    assert_eq!(blocks.notes(), [""; 0]);
    assert_eq!(blocks.len(), 4 + 3);
    assert!(blocks.is_holder(0));
    assert_eq!(blocks.bytes(0), 1008 - 41 * 24);
    let first = HEAP + 24;
    assert_eq!(blocks.at(first + 24), Some(2));
    assert_eq!(blocks.find(first + 3 * 24 + 23), Some(3));
    assert_eq!((blocks.find(first + 2 * 24), blocks.at(first + 25)), (None, None));
    assert_eq!(blocks.block(4), Block { id: 4, start: first + 40 * 24, bytes: 24, usable: 24 });
    assert_eq!(blocks.find(HEAP + 16), Some(0));
    assert_eq!(blocks.find(HEAP + 2 * 1008 + 16), Some(6));
    let free = ranges(&blocks).iter().filter(|r| r.2 == State::FreeBlock).map(|r| r.1 - r.0).sum::<u64>();
    assert_eq!(free, (37 + 41) * 24);
    assert_any_range(&blocks);
}

#[test]
fn overlaps_are_left_out_and_reported() {
    let glibc = heap(&[4096; 32]);
    let across = PyMalloc { arenas: vec![arena(HEAP + 4096)], ..PyMalloc::default() };
    let blocks = Blocks::builder().pymalloc(&across).glibc(&glibc).build().expect("fits");
    assert_eq!((blocks.len(), blocks.notes().len()), (32, 1));
    // Inside of the heap, but across chunks.
    let glibc = heap(&[65536; 32]);
    let across = PyMalloc { arenas: vec![arena(HEAP + 65536 + 4096)], ..PyMalloc::default() };
    let blocks = Blocks::builder().pymalloc(&across).glibc(&glibc).build().expect("fits");
    assert_eq!(blocks.notes().len(), 1, "{:?}", blocks.notes());
    assert_eq!(ranges(&blocks).iter().map(|r| r.1 - r.0).sum::<u64>(), 32 * 65536);
    let ids: Vec<u32> = blocks.iter().filter_map(|b| blocks.at(b.start)).collect();
    assert_eq!(ids, (0..blocks.len()).collect::<Vec<_>>());
}

#[test]
fn chunks_too_large_for_four_bytes() {
    let size = 100u64 << 30;
    let mut glibc = heap(&[32]);
    let walk = &mut glibc.heaps[0];
    walk.bits = vec![0b101];
    walk.sizes.push(u32::MAX);
    walk.huge.push((1, size));
    walk.end = HEAP + 32 + size;
    let blocks = Blocks::builder().glibc(&glibc).build().expect("fits");
    assert_eq!(blocks.bytes(1), size);
    assert_eq!(blocks.find(HEAP + size), Some(1));
    assert_eq!(blocks.find(HEAP + size + 41), None);
}

#[test]
fn an_index_of_nothing() {
    let blocks = Blocks::builder().build().expect("fits");
    assert!(blocks.is_empty());
    assert_eq!((blocks.find(0), blocks.at(u64::MAX), blocks.iter().count()), (None, None, 0));
}

#[test]
fn pieces_are_single_blocks() {
    let mut made = arena(0x7f00_0000_0000);
    // Of seven blocks the second and third are free.
    [1u64, 2]
        .iter()
        .map(|k| (48 + k * 512) / 16)
        .for_each(|bit| made.found.bits[(bit / 64) as usize] &= !(1 << (bit % 64)));
    let pymalloc = PyMalloc { arenas: vec![made], ..PyMalloc::default() };
    let blocks = Blocks::builder().pymalloc(&pymalloc).build().unwrap();
    let (mut pieces, mut free) = (Vec::new(), 0);
    blocks.for_each_piece(0, |range, state| {
        free += u32::from(state == State::FreeBlock);
        pieces.push(range);
    });
    assert_eq!(free, 2);
    assert!(pieces.windows(2).all(|pair| pair[0].end == pair[1].start));
    assert_eq!(
        (pieces[0].start, pieces[pieces.len() - 1].end),
        (blocks.spans()[0].start, blocks.spans()[0].end)
    );
    let pool = blocks.pool_at(0x7f00_0000_0000 + 700).unwrap();
    assert_eq!((pool.block, pool.used), (512, vec![true, false, false, true, true, true, true]));
    assert_eq!(blocks.pool_at(0x7f00_0000_0000 + 4096), None);
    assert_any_range(&blocks);
}

#[test]
fn a_chunk_before_a_cut_has_eight_bytes_behind_it() {
    // A heap as it is walked, in two pieces: the last 8 of a chunk's usable bytes are the next one's first.
    let whole = heap(&[64, 48, 32, 96]);
    let mut cut = heap(&[64, 48]);
    let mut rest = heap(&[32, 96]).heaps.remove(0);
    (rest.start, rest.end, rest.origin) = (HEAP + 112, rest.end + 112, HEAP + 112);
    cut.heaps.push(rest);
    let [whole, cut] = [&whole, &cut].map(|glibc| Blocks::builder().glibc(glibc).build().expect("fits"));
    assert_eq!((whole.spans().len(), cut.spans().len()), (1, 2));
    for addr in HEAP - 8..HEAP + 256 {
        assert_eq!(cut.find(addr), whole.find(addr), "{addr:#x}");
        assert_eq!(cut.containing(addr), whole.containing(addr));
    }
    assert_eq!(ranges(&cut), ranges(&whole));
    assert_any_range(&cut);
}
