//! The walk against a heap that is written byte by byte, and against damage.

use super::*;
use crate::blocks::Blocks;
use proptest::prelude::*;
use std::collections::BTreeMap;
use wmr_memory::synthetic::SyntheticMemory;
use wmr_memory::{Image, Mapping, Perms, Segment};

const LIBC: u64 = 0x7f00_0000_0000;
const LIBC_BYTES: u64 = 0x3000;
const ARENA: u64 = LIBC + 0xac0;
const MP: u64 = LIBC + 0x180;
const HEAP: u64 = 0x5555_0000_0000;
const HEAP_BYTES: u64 = 0x40000;
const MAPPED: u64 = 0x7e00_0000_0000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Used,
    Binned,
    Fast,
    Cached,
}

#[derive(Debug, Clone)]
struct Model {
    /// 2.43's layouts instead of 2.36's.
    new: bool,
    safe: bool,
    /// (address, bytes, kind); the first is the cache.
    chunks: Vec<(u64, u64, Kind)>,
    top: u64,
}

fn model(new: bool, safe: bool, wanted: &[(u16, u8)]) -> Model {
    let mut chunks = vec![(HEAP, if new { 0x300 } else { 0x290 }, Kind::Used)];
    let mut at = HEAP + chunks[0].1;
    let mut cached = BTreeMap::new();
    for &(units, kind) in wanted {
        let bytes = 32 + u64::from(units) * 16;
        if at + bytes + 4096 > HEAP + HEAP_BYTES {
            break;
        }
        let last = chunks[chunks.len() - 1].2;
        let kind = match kind % 6 {
            // Neighbours in bins would have been merged.
            0 if last != Kind::Binned => Kind::Binned,
            1 if !new && bytes <= 176 => Kind::Fast,
            2 if bytes < 32 + 64 * 16 && *cached.entry(bytes).or_insert(0) < 7 => {
                *cached.entry(bytes).or_insert(0) += 1;
                Kind::Cached
            }
            _ => Kind::Used,
        };
        chunks.push((at, bytes, kind));
        at += bytes;
    }
    // The top chunk has no free neighbour either.
    if chunks[chunks.len() - 1].2 == Kind::Binned {
        chunks.last_mut().expect("not empty").2 = Kind::Used;
    }
    Model { new, safe, chunks, top: at }
}

impl Model {
    fn all(&self, kind: Kind) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.chunks.iter().filter(move |c| c.2 == kind).map(|c| (c.0, c.1))
    }

    fn link(&self, at: u64, to: u64) -> u64 {
        if self.safe { to ^ at >> 12 } else { to }
    }

    fn memory(&self) -> SyntheticMemory {
        let mut m = SyntheticMemory::new();
        m.map(LIBC, vec![0; LIBC_BYTES as usize]);
        // Stale bytes, as in a heap that has lived.
        m.map(HEAP, vec![0x55; HEAP_BYTES as usize]);
        m.map(MAPPED, vec![0; 0x10000]);
        let state = &layout::STATES[usize::from(self.new)];
        let par = &layout::PARS[1 + usize::from(self.new)];

        let mut in_use = PREV;
        for &(at, bytes, kind) in &self.chunks {
            m.write_u64(at + 8, bytes | in_use);
            in_use = if kind == Kind::Binned { 0 } else { PREV };
        }
        m.write_u64(self.top + 8, (HEAP + HEAP_BYTES - self.top) | in_use);

        // All binned chunks in the unsorted bin, the others empty.
        for bin in 0..127 {
            let head = ARENA + state.bins + 16 * bin - 16;
            m.write_u64(head + 16, head);
            m.write_u64(head + 24, head);
        }
        let head = ARENA + state.bins - 16;
        let mut before = head;
        for (at, bytes) in self.all(Kind::Binned) {
            m.write_u64(at + bytes, bytes);
            m.write_u64(before + 16, at);
            m.write_u64(at + 24, before);
            before = at;
        }
        m.write_u64(before + 16, head);
        m.write_u64(head + 24, before);

        if let Some(fastbins) = state.fastbins {
            let mut heads = BTreeMap::new();
            for (at, bytes) in self.all(Kind::Fast) {
                let head = heads.entry(bytes).or_insert(0);
                m.write_u64(at + 16, self.link(at + 16, *head));
                *head = at;
            }
            heads.iter().for_each(|(bytes, head)| m.write_u64(ARENA + fastbins + (bytes - 32) / 2, *head));
        }
        let cache = HEAP + 16;
        let (bins, full) = if self.new { (76, 16u16) } else { (64, 0) };
        m.write(cache, &vec![0; bins * 10]);
        (0..bins as u64).for_each(|bin| m.write(cache + 2 * bin, &full.to_le_bytes()));
        let mut heads: BTreeMap<u64, (u64, u16)> = BTreeMap::new();
        for (at, bytes) in self.all(Kind::Cached) {
            let (head, count) = heads.entry((bytes - 32) / 16).or_default();
            m.write_u64(at + 16, self.link(at + 16, *head));
            (*head, *count) = (at + 16, *count + 1);
        }
        for (bin, (head, count)) in heads {
            let number = if self.new { 16 - count } else { count };
            m.write(cache + 2 * bin, &number.to_le_bytes());
            m.write_u64(cache + 2 * bins as u64 + 8 * bin, head);
        }

        m.write_u64(ARENA + state.top, self.top);
        m.write_u64(ARENA + state.next, ARENA);
        m.write_u64(ARENA + state.next + 16, 1);
        m.write_u64(ARENA + state.system_mem, HEAP_BYTES);
        // One mmapped chunk with two of its neighbours' kind but not of malloc.
        m.write_u64(MAPPED + 0x2008, if self.new { 0x3ff0 } else { 0x4000 } | 2);
        m.write_u64(MP + 8, 128 << 10);
        m.write_u64(MP + 16, 128 << 10);
        m.write_u64(MP + 24, 8);
        m.write_u32(MP + par.n_mmaps, 1);
        m.write_u32(MP + par.n_mmaps + 4, 65536);
        m.write_u32(MP + par.max_n_mmaps, 1);
        m.write_u64(MP + par.mmapped_mem, 0x4000);
        m.write_u64(MP + par.max_mmapped_mem, 0x4000);
        m.write_u64(MP + par.sbrk_base, HEAP);
        m.write_u64(MP + par.tcache_bins, 64);
        m.write_u64(MP + par.tcache_count, if self.new { 16 } else { 7 });
        m
    }
}

const PREV: u64 = 1;

fn target(memory: SyntheticMemory) -> Target {
    let mapping = |start: u64, bytes: u64, backing| Mapping {
        start,
        end: start + bytes,
        perms: Perms { read: true, write: true, ..Perms::default() },
        backing,
        ..Mapping::default()
    };
    let data = Segment { range: LIBC..LIBC + LIBC_BYTES, write: true, exec: false };
    let mappings = vec![
        mapping(HEAP, HEAP_BYTES, Backing::Brk),
        mapping(MAPPED, 0x10000, Backing::Anonymous),
        mapping(LIBC, LIBC_BYTES, Backing::File),
    ];
    memory.into_target(mappings, vec![Image::synthetic("/lib/libc.so.6", vec![data], &[])])
}

/// What must hold of any memory whatever.
fn invariants(glibc: &Glibc) {
    let blocks = Blocks::builder().glibc(glibc).build().expect("fits");
    let mut end = 0;
    for block in blocks.iter() {
        assert!(block.start >= end, "{block:x?}");
        end = block.start + block.usable;
        assert_eq!(blocks.find(block.start), Some(block.id));
    }
    for index in 0..blocks.spans().len() {
        let mut at = blocks.spans()[index].start;
        blocks.for_each_range(index, |range, _| {
            assert_eq!(range.start, at);
            at = range.end;
        });
        assert_eq!(at, blocks.spans()[index].end);
    }
}

fn wanted() -> impl Strategy<Value = Vec<(u16, u8)>> {
    let units = prop_oneof![6 => 0u16..12, 2 => 0u16..80, 1 => 0u16..2000];
    prop::collection::vec((units, any::<u8>()), 1..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn equals_the_model(new: bool, safe: bool, streamed: bool, wanted in wanted()) {
        // 2.43 always has safe-linking; without lists there is nothing to tell it by.
        let model = model(new, safe || new, &wanted);
        let mut memory = model.memory();
        memory.streamed = streamed;
        let target = target(memory);
        let glibc = find(&target, &[]).expect("found");
        prop_assert_eq!(&glibc.notes, &Vec::<String>::new());
        let blocks = Blocks::builder().glibc(&glibc).build().expect("fits");
        let mut expected: Vec<(u64, u64)> = model.all(Kind::Used).map(|(at, n)| (at + 16, n)).collect();
        expected.push((MAPPED + 0x2010, 0x4000));
        let got: Vec<(u64, u64)> = blocks.iter().map(|b| (b.start, b.bytes)).collect();
        prop_assert_eq!(&got, &expected);
        let arena = &glibc.arenas[0];
        prop_assert_eq!(arena.free_chunks as usize, model.all(Kind::Binned).count());
        prop_assert_eq!(arena.fastbin_chunks as usize, model.all(Kind::Fast).count());
        prop_assert_eq!(arena.tcache_chunks as usize, model.all(Kind::Cached).count());
        prop_assert_eq!(arena.used_bytes + arena.free_bytes, arena.system_bytes);
        // Each address by brute force.
        for at in (HEAP..HEAP + HEAP_BYTES).step_by(8) {
            let inside = |&&(start, n): &&(u64, u64)| start <= at && at < start + n - 8;
            let id = expected.iter().position(|b| inside(&b)).map(|i| i as u32);
            prop_assert_eq!(blocks.find(at), id, "{:#x}", at);
        }
        invariants(&glibc);
    }

    #[test]
    fn damage_is_survived(
        new: bool,
        wanted in wanted(),
        damage in prop::collection::vec(
            (0u64..4, 0u64..HEAP_BYTES / 8, prop_oneof![any::<u64>(), 0u64..HEAP_BYTES, 0u64..64]), 1..40),
    ) {
        let model = model(new, true, &wanted);
        let mut memory = model.memory();
        for (place, at, value) in damage {
            let value = if value > 64 && value < HEAP_BYTES { HEAP + value } else { value };
            match place {
                0 => memory.write_u64(ARENA + at * 8 % 2200, value),
                1 => memory.write_u64(HEAP + at * 8 % 0x300, value),
                2 => memory.write_u64(model.chunks[at as usize % model.chunks.len()].0 + 8, value),
                _ => memory.write_u64(HEAP + at * 8, value),
            }
        }
        if let Ok(glibc) = find(&target(memory), &[]) {
            invariants(&glibc);
        }
    }
}

/// Fifty chunks of 64 bytes in use, some free ones between.
fn plain(kinds: &[(usize, u8)]) -> Model {
    let mut wanted = vec![(2u16, 5u8); 50];
    kinds.iter().for_each(|&(i, kind)| wanted[i].1 = kind);
    model(false, true, &wanted)
}

#[test]
fn a_circle_in_a_bin_is_reported() {
    let model = plain(&[(3, 0), (9, 0), (20, 0)]);
    let mut memory = model.memory();
    let free: Vec<u64> = model.all(Kind::Binned).map(|c| c.0).collect();
    memory.write_u64(free[2] + 16, free[1]);
    let glibc = find(&target(memory), &[]).expect("found");
    assert_eq!(glibc.arenas[0].free_chunks, 3);
    assert_eq!(glibc.notes.len(), 1, "{:?}", glibc.notes);
}

#[test]
fn a_circle_in_a_list_costs_its_rest() {
    for (kind, what) in [(1, Kind::Fast), (2, Kind::Cached)] {
        let model = plain(&[(3, kind), (9, kind), (20, kind)]);
        let mut memory = model.memory();
        let free: Vec<u64> = model.all(what).map(|c| c.0).collect();
        let to = if kind == 1 { free[2] } else { free[2] + 16 };
        memory.write_u64(free[0] + 16, model.link(free[0] + 16, to));
        let glibc = find(&target(memory), &[]).expect("found");
        let arena = &glibc.arenas[0];
        assert!(arena.fastbin_chunks + arena.tcache_chunks <= 3);
        invariants(&glibc);
        if kind == 1 {
            assert_eq!(glibc.notes.len(), 1, "{:?}", glibc.notes);
        }
    }
}

#[test]
fn an_overwritten_size_costs_what_is_near() {
    let model = plain(&[]);
    let mut memory = model.memory();
    memory.write_u64(model.chunks[25].0 + 8, 0x5a5a_5a5a_5a5a_5a5a);
    let glibc = find(&target(memory), &[]).expect("found");
    assert_eq!(glibc.notes.len(), 2, "{:?}", glibc.notes);
    // The one before it has lost its bit; its own start is lost.
    assert!(glibc.arenas[0].used_chunks >= 49, "{:?}", glibc.arenas);
    invariants(&glibc);
}

#[test]
fn a_broken_ring_keeps_the_main_arena() {
    let mut memory = plain(&[]).memory();
    memory.write_u64(ARENA + layout::STATES[0].next, (MAPPED & !(HEAP_MAX - 1)) + 48);
    let glibc = find(&target(memory), &[]).expect("found");
    assert_eq!((glibc.arenas.len(), glibc.notes.len()), (1, 1), "{:?}", glibc.notes);
    assert_eq!(glibc.arenas[0].used_chunks, 51);
}

#[test]
fn another_malloc_is_named() {
    let mut none = target(SyntheticMemory::new());
    assert_eq!(find(&none, &[]).unwrap_err().allocator, Allocator::Glibc);
    none.images.clear();
    assert_eq!(find(&none, &[]).unwrap_err().allocator, Allocator::Unknown);
    let code = Segment { range: 0x1000..0x2000, write: false, exec: true };
    let image = |path, symbols| Image::synthetic(path, vec![code.clone()], symbols);
    none.images.push(image("/usr/lib/ld-linux-x86-64.so.2", &[("malloc", 0x1010, 9)]));
    none.images.push(image("/usr/lib/libpython3.13.so", &[("mi_malloc", 0x1010, 9)]));
    assert_eq!(allocator(&none.images), Allocator::Unknown);
    none.images.push(image("/lib/ld-musl-x86_64.so.1", &[("malloc", 0x1010, 9)]));
    assert_eq!(allocator(&none.images), Allocator::Musl);
    none.images.push(image("/opt/libmine.so", &[("malloc", 0x1010, 9)]));
    assert_eq!(allocator(&none.images), Allocator::Other("libmine.so".into()));
    none.images.insert(0, image("/opt/x.so.2", &[("malloc", 0x1010, 9), ("mallctl", 0x1100, 9)]));
    assert_eq!(allocator(&none.images), Allocator::Jemalloc);
}
