//! The walk against a model of obmalloc that is built byte by byte, and against damage.

use super::*;
use crate::blocks::{Blocks, State};
use proptest::prelude::*;
use std::collections::BTreeSet;
use wmr_memory::synthetic::SyntheticMemory;
use wmr_memory::{Perms, Reader};

const ARRAY: u64 = 0x10_0000;

/// A pool of the model: what obmalloc would have done, kept as sets and lists.
#[derive(Debug, Clone)]
struct Pool {
    szidx: u64,
    /// Blocks handed out at least once.
    carved: u64,
    used: BTreeSet<u64>,
    /// In the order in which they were freed, the latest last.
    freed: Vec<u64>,
}

#[derive(Debug, Clone)]
struct Model {
    pool_size: u64,
    alignment: u64,
    address: u64,
    total: u64,
    index: u32,
    pools: Vec<Option<Pool>>,
}

impl Model {
    fn size(&self, pool: &Pool) -> u64 {
        (pool.szidx + 1) * self.alignment
    }

    fn base(&self) -> u64 {
        self.address.next_multiple_of(self.pool_size)
    }

    fn bytes(&self) -> u64 {
        self.pool_size * 64
    }

    fn start(&self, i: usize, block: u64) -> u64 {
        let pool = self.pools[i].as_ref().expect("in use");
        self.base() + i as u64 * self.pool_size + 48 + block * self.size(pool)
    }

    /// Writes the arena and its entry in the array.
    fn write(&self, memory: &mut SyntheticMemory) {
        let base = self.base();
        let mut free_list = 0;
        let mut nfree = self.total - self.pools.len() as u64;
        for (i, slot) in self.pools.iter().enumerate() {
            let at = base + i as u64 * self.pool_size;
            memory.write_u32(at + 32, self.index);
            let Some(pool) = slot else {
                // A free pool keeps a stale class and its bounds.
                memory.write_u32(at, 0);
                memory.write_u32(at + 36, 3);
                memory.write_u32(at + 44, (self.pool_size - 4 * self.alignment) as u32);
                memory.write_u64(at + 16, free_list);
                free_list = at;
                nfree += 1;
                continue;
            };
            let size = self.size(pool);
            memory.write_u32(at, pool.used.len() as u32);
            memory.write_u32(at + 36, pool.szidx as u32);
            memory.write_u32(at + 40, (48 + pool.carved * size) as u32);
            memory.write_u32(at + 44, (self.pool_size - size) as u32);
            let mut link = 0;
            for &block in &pool.freed {
                memory.write_u64(at + 48 + block * size, link);
                link = at + 48 + block * size;
            }
            memory.write_u64(at + 8, link);
        }
        let entry = ARRAY + u64::from(self.index) * 48;
        memory.write_u64(entry, self.address);
        memory.write_u64(entry + 8, base + self.pools.len() as u64 * self.pool_size);
        memory.write_u32(entry + 16, nfree as u32);
        memory.write_u32(entry + 20, self.total as u32);
        memory.write_u64(entry + 24, free_list);
    }

    fn used(&self) -> Vec<(u64, u64)> {
        let pools = self.pools.iter().enumerate().filter_map(|(i, p)| p.as_ref().map(|p| (i, p)));
        pools.flat_map(|(i, p)| p.used.iter().map(move |&b| (self.start(i, b), self.size(p)))).collect()
    }
}

/// Applies operations: each picks a pool by class and takes or gives back a block.
fn model(big: bool, alignment: u64, shift: u64, operations: &[(u8, u8, u16)]) -> Model {
    let pool_size = if big { 16384 } else { 4096 };
    let address = 0x7000_0000_0000 + shift * 4096;
    let total = 64 - u64::from(!address.is_multiple_of(pool_size));
    let mut model = Model { pool_size, alignment, address, total, index: 2, pools: Vec::new() };
    for &(class, what, pick) in operations {
        let szidx = u64::from(class) % (512 / alignment).min(64);
        let capacity = (pool_size - 48) / ((szidx + 1) * alignment);
        if what % 3 < 2 {
            let open = model.pools.iter().position(|p| {
                p.as_ref().is_some_and(|p| p.szidx == szidx && (p.used.len() as u64) < capacity)
            });
            let i =
                open.or_else(|| model.pools.iter().position(Option::is_none)).unwrap_or(model.pools.len());
            if i as u64 >= total {
                continue;
            }
            if i == model.pools.len() {
                model.pools.push(None);
            }
            let pool = model.pools[i].get_or_insert(Pool {
                szidx,
                carved: 0,
                used: BTreeSet::new(),
                freed: Vec::new(),
            });
            for _ in 0..=pick % 40 {
                let block = pool.freed.pop().unwrap_or_else(|| {
                    pool.carved += 1;
                    pool.carved - 1
                });
                if block >= capacity {
                    pool.carved = capacity;
                    break;
                }
                pool.used.insert(block);
            }
        } else if !model.pools.is_empty() {
            let i = usize::from(pick) % model.pools.len();
            if let Some(pool) = &mut model.pools[i] {
                let block = *pool.used.iter().nth(usize::from(class) % pool.used.len()).expect("used");
                pool.used.remove(&block);
                pool.freed.push(block);
                if pool.used.is_empty() || class % 8 == 0 {
                    model.pools[i] = None;
                }
            }
        }
    }
    model
}

fn mapping(start: u64, end: u64) -> Mapping {
    Mapping { start, end, perms: Perms { read: true, write: true, ..Perms::default() }, ..Mapping::default() }
}

fn memory(model: &Model) -> (SyntheticMemory, Vec<Mapping>) {
    let mut memory = SyntheticMemory::new();
    memory.map(ARRAY, vec![0; 0x1000]);
    // Stale bytes everywhere: only the allocator's state tells used from free.
    memory.map(model.address, (0..model.bytes()).map(|i| i as u8 | 1).collect());
    let maps = vec![mapping(ARRAY, ARRAY + 0x1000), mapping(model.address, model.address + model.bytes())];
    (memory, maps)
}

const ROOTS: [Roots; 1] = [Roots { arenas: ARRAY, maxarenas: 16 }];

fn check(model: &Model, walk: &PyMalloc) -> Blocks {
    let expected = model.used();
    let blocks = Blocks::builder().pymalloc(walk).build().expect("fits");
    let got: Vec<(u64, u64)> = blocks.iter().map(|b| (b.start, b.bytes)).collect();
    assert_eq!(got, expected);
    for (id, &(start, size)) in (0..).zip(&expected) {
        assert_eq!(blocks.start(id), start);
        for addr in [start, start + 1, start + size - 1] {
            assert_eq!(blocks.find(addr), Some(id), "{addr:#x}");
        }
        assert_eq!(blocks.at(start), Some(id));
        assert_eq!(blocks.at(start + 4), None);
        assert_eq!(blocks.bytes(id), size);
    }
    // Every byte once, and by brute force in the right state.
    let used: BTreeSet<u64> = expected.iter().flat_map(|&(s, n)| (s..s + n).step_by(8)).collect();
    for index in 0..blocks.spans().len() {
        let mut at = blocks.spans()[index].start;
        blocks.for_each_range(index, |range, state| {
            assert_eq!(range.start, at);
            at = range.end;
            for addr in range.step_by(8) {
                assert_eq!(used.contains(&addr), matches!(state, State::Used(_)), "{addr:#x} {state:?}");
                assert_eq!(blocks.find(addr).is_some(), used.contains(&addr), "{addr:#x}");
            }
        });
        assert_eq!(at, blocks.spans()[index].end);
    }
    blocks
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn equals_the_model(
        big: bool,
        eight: bool,
        shift in 0u64..5,
        streamed: bool,
        operations in prop::collection::vec((any::<u8>(), any::<u8>(), any::<u16>()), 1..300),
    ) {
        let model = model(big, if eight { 8 } else { 16 }, shift, &operations);
        let (mut memory, maps) = memory(&model);
        model.write(&mut memory);
        memory.streamed = streamed;
        let walk = walk(&memory, &maps, &ROOTS);
        if model.used().is_empty() {
            prop_assert_eq!(walk.used_blocks(), 0);
            return Ok(());
        }
        prop_assert_eq!(&walk.notes, &Vec::<String>::new());
        prop_assert_eq!(walk.arenas.len(), 1);
        let arena = &walk.arenas[0];
        prop_assert_eq!((arena.addr, arena.bytes), (model.address, model.bytes()));
        prop_assert_eq!(arena.free_pools as usize, model.pools.iter().filter(|p| p.is_none()).count());
        check(&model, &walk);
    }

    /// Whatever is written over it: an end, no more used bytes than there are, each byte covered once.
    #[test]
    fn damage_is_survived(
        operations in prop::collection::vec((any::<u8>(), any::<u8>(), any::<u16>()), 50..200),
        damage in prop::collection::vec((0u64..64 * 512, prop_oneof![any::<u64>(), 0u64..64 * 4096]), 1..60),
        array in prop::collection::vec((0u64..128, prop_oneof![any::<u64>(), Just(0x7000_0000_0000u64)]), 0..3),
    ) {
        let model = model(false, 16, 0, &operations);
        let (mut memory, maps) = memory(&model);
        model.write(&mut memory);
        for (at, value) in damage {
            // Half of the values point back into the arena.
            let value = if value < 64 * 4096 { model.address + value } else { value };
            memory.write_u64(model.address + at * 8, value);
        }
        for (at, value) in array {
            memory.write_u64(ARRAY + at * 8, value);
        }
        let walk = walk(&memory, &maps, &ROOTS);
        let blocks = Blocks::builder().pymalloc(&walk).build().expect("fits");
        let mut end = 0;
        for block in blocks.iter() {
            prop_assert!(block.start >= end);
            end = block.start + block.bytes;
            prop_assert_eq!(blocks.find(block.start + block.bytes - 1), Some(block.id));
        }
        for index in 0..blocks.spans().len() {
            let mut at = blocks.spans()[index].start;
            blocks.for_each_range(index, |range, _| {
                assert_eq!(range.start, at);
                at = range.end;
            });
            prop_assert_eq!(at, blocks.spans()[index].end);
        }
    }
}

/// Ten pools of 16 blocks of 256 bytes in use.
fn ten_pools() -> Model {
    model(false, 16, 0, &[(15, 0, 14); 10])
}

#[test]
fn a_circle_of_free_blocks_costs_its_pool() {
    let mut model = ten_pools();
    let pool = model.pools[4].as_mut().expect("in use");
    for block in [3, 5, 8] {
        pool.used.remove(&block);
        pool.freed.push(block);
    }
    let (mut memory, maps) = memory(&model);
    model.write(&mut memory);
    memory.write_u64(model.start(4, 3), model.start(4, 8));
    let walk = walk(&memory, &maps, &ROOTS);
    assert_eq!(walk.arenas[0].bad_pools, 1);
    assert_eq!(walk.notes.len(), 1, "{:?}", walk.notes);
    let lost = model.pools[4].take().expect("in use");
    assert_eq!(walk.used_blocks(), model.used().len() as u64);
    assert!(!lost.used.is_empty());
}

#[test]
fn a_circle_of_free_pools_is_reported() {
    let mut model = ten_pools();
    model.pools[2] = None;
    model.pools[6] = None;
    let (mut memory, maps) = memory(&model);
    model.write(&mut memory);
    memory.write_u64(model.base() + 2 * 4096 + 16, model.base() + 6 * 4096);
    let walk = walk(&memory, &maps, &ROOTS);
    assert_eq!(walk.arenas[0].free_pools, 2);
    assert_eq!(walk.notes.len(), 1, "{:?}", walk.notes);
    assert_eq!(walk.used_blocks(), model.used().len() as u64);
}

#[test]
fn absurd_counts_are_cut() {
    let model = ten_pools();
    let (mut memory, maps) = memory(&model);
    model.write(&mut memory);
    // A second entry for the same arena, one that is nowhere, one with 4 billion pools.
    for (entry, address, pools) in
        [(5, model.address, 64), (6, 0x5000_0000, 64), (7, 0x7000_0000_0000, u32::MAX)]
    {
        memory.write_u64(ARRAY + entry * 48, address);
        memory.write_u32(ARRAY + entry * 48 + 20, pools);
    }
    let walk = walk(&memory, &maps, &[Roots { arenas: ARRAY, maxarenas: 1 << 31 }]);
    assert_eq!(walk.arenas.len(), 1);
    assert_eq!(walk.notes.len(), 2, "{:?}", walk.notes);
    check(&model, &walk);
    assert!(super::walk(&memory, &maps, &[Roots { arenas: 0xdead_0000, maxarenas: 9 }]).arenas.is_empty());
    assert!(super::walk(&memory, &maps, &[Roots { arenas: u64::MAX - 5, maxarenas: 9 }]).arenas.is_empty());
}

#[test]
fn a_page_that_is_gone_costs_only_what_needs_it() {
    let mut model = model(true, 16, 0, &[(15, 0, 39), (15, 0, 39), (31, 0, 20), (31, 0, 20)]);
    for i in [0, 1] {
        let pool = model.pools[i].as_mut().expect("in use");
        for block in [2, 4] {
            pool.used.remove(&block);
            pool.freed.push(block);
        }
    }
    let (mut whole, maps) = memory(&model);
    model.write(&mut whole);
    // The last page of the first pool, and the first of the second: swapped out, say.
    let mut memory = SyntheticMemory::new();
    let mut bytes = vec![0; 0x1000];
    Reader::new(&whole).read(ARRAY, &mut bytes).expect("mapped");
    memory.map(ARRAY, bytes);
    for page in (0..model.bytes() / 4096).filter(|page| ![3, 4].contains(page)) {
        let mut bytes = vec![0; 4096];
        Reader::new(&whole).read(model.address + page * 4096, &mut bytes).expect("mapped");
        memory.map(model.address + page * 4096, bytes);
    }
    let walk = walk(&memory, &maps, &ROOTS);
    assert_eq!((walk.arenas[0].bad_pools, walk.notes.len()), (1, 1), "{:?}", walk.notes);
    model.pools[1] = None;
    assert_eq!(walk.used_blocks(), model.used().len() as u64);
}
