//! A small interpreter's memory, built by hand: a few types, one arena of objects that own blocks. Tests
//! and the fuzzer write anything into it and take the census of what comes out.

use wmr_alloc::Blocks;
use wmr_alloc::pymalloc::{Arenas, Roots};
use wmr_cpython::model::Model;
use wmr_cpython::object::{Evidence, Object};
use wmr_cpython::refers::{label, references};
use wmr_cpython::tables::KNOWN;
use wmr_cpython::types::{TypeCache, Types};
use wmr_heap::ledger::tally;
use wmr_heap::{Census, Ledger, Mark, Seen};
use wmr_memory::synthetic::SyntheticMemory;
use wmr_memory::{Backing, Image, Mapping, PageState, Perms, Run, Segment, Target};

const STATICS: u64 = 0x60_0000;
const STATICS_BYTES: usize = 0x8000;
const ARENA: u64 = 0x7f12_3400_0000;
const ARENA_BYTES: usize = 256 << 10;
const POOL: u64 = 4096;
const TYPE_STRIDE: u64 = 0x400;
/// Name, basic size, item size, flags beside READY.
const TYPES: [(&str, u64, u64, u64); 9] = [
    ("type", 880, 40, 1 << 14 | 1 << 31),
    ("object", 16, 0, 0),
    ("int", 24, 4, 1 << 24),
    ("float", 24, 0, 0),
    ("str", 80, 0, 1 << 28),
    ("list", 40, 0, 1 << 14 | 1 << 25),
    ("tuple", 24, 8, 1 << 14 | 1 << 26),
    ("dict", 48, 0, 1 << 14 | 1 << 29),
    ("set", 200, 0, 1 << 14),
];
/// Block sizes of the arena's first pools.
const CLASSES: [u64; 6] = [32, 48, 64, 96, 224, 512];

fn type_addr(i: usize) -> u64 {
    STATICS + i as u64 * TYPE_STRIDE
}

/// A word that may matter: a type, a block, a pool, a count, or the number itself.
fn interesting(choice: u8, raw: u64) -> u64 {
    match choice % 8 {
        0 => raw,
        1 => raw & 0xff,
        2 => type_addr(raw as usize % TYPES.len()),
        3 => ARENA + raw % ARENA_BYTES as u64,
        4 => ARENA + (raw % 64) * POOL + 48 + 16 * (raw >> 8 & 0xff),
        5 => ARENA + (raw % 64) * POOL,
        6 => 0u64.wrapping_sub(raw & 0xfff),
        _ => raw.rotate_right(32),
    }
}

/// What one run gives: compared between runs.
pub struct Outcome {
    pub marks: Vec<Mark>,
    pub ledger: Ledger,
}

/// Builds the memory, applies `patches` (12 bytes each: where, what sort of word, the word) and takes
/// the census. The first two bytes choose the layout and the allocator's mode.
pub fn census_of(input: &[u8]) -> Outcome {
    let (head, patches) = input.split_at(input.len().min(2));
    let known = &KNOWN[usize::from(head.first().copied().unwrap_or(6)) % KNOWN.len()];
    let mode = head.get(1).copied().unwrap_or(0);
    let layout = known.layout().expect("a committed table");
    let hex = u32::from(known.major) << 24 | u32::from(known.minor) << 16;
    let (preheader_flags, managed) = Model::rules(hex);
    let gc_head = layout.gc_head.size.min(32);
    let model = Model {
        hex,
        type_type: type_addr(0),
        gc_head,
        preheader_flags,
        managed,
        pymalloc: mode & 1 == 0,
        debug: None,
        collecting: mode & 2 != 0,
        static_types: Vec::new(),
        layout,
    };
    let mut statics = vec![0; STATICS_BYTES];
    let mut arena = vec![0; ARENA_BYTES];
    let put = |bytes: &mut Vec<u8>, at: u64, value: u64| {
        bytes[at as usize..at as usize + 8].copy_from_slice(&value.to_le_bytes());
    };
    let t = model.layout.type_object;
    for (i, (name, basic, item, flags)) in TYPES.iter().enumerate() {
        let at = i as u64 * TYPE_STRIDE;
        let text = 0x4000 + 16 * i as u64;
        statics[text as usize..][..name.len()].copy_from_slice(name.as_bytes());
        put(&mut statics, at, 1);
        put(&mut statics, at + 8, type_addr(0));
        put(&mut statics, at + t.tp_name, STATICS + text);
        put(&mut statics, at + t.tp_basicsize, *basic);
        put(&mut statics, at + t.tp_itemsize, *item);
        put(&mut statics, at + t.tp_flags, flags | 1 << 12);
        put(&mut statics, at + t.tp_base, if i == 1 { 0 } else { type_addr(1) });
    }
    // One arena: six pools of used blocks, the rest never carved.
    let array = 0x6000u64;
    put(&mut statics, array, ARENA);
    put(&mut statics, array + 8, ARENA + CLASSES.len() as u64 * POOL);
    put(&mut statics, array + 16, (64 - CLASSES.len() as u64) | 64 << 32);
    for (i, size) in CLASSES.iter().enumerate() {
        let pool = i as u64 * POOL;
        let count = (POOL - 48) / size;
        put(&mut arena, pool, count);
        put(&mut arena, pool + 32, (size / 16 - 1) << 32);
        put(&mut arena, pool + 40, (48 + count * size) | (POOL - size) << 32);
        for k in 0..count {
            // Floats, ints and lists whose items are in a pool of their own.
            let at = pool + 48 + k * size;
            let ty = [3, 2, 5, 7, 8, 6][i];
            let gc = if TYPES[ty].3 & 1 << 14 != 0 { gc_head } else { 0 };
            let words = [1, type_addr(ty), k % 3, ARENA + 4 * POOL + 48 + 224 * (k % 17), k % 5];
            for (word, room) in words.into_iter().zip((gc..*size).step_by(8)) {
                put(&mut arena, at + room, word);
            }
        }
    }
    for patch in patches.chunks_exact(12).take(4096) {
        let at = u32::from(patch[0]) | u32::from(patch[1]) << 8 | u32::from(patch[2]) << 16;
        let raw = u64::from_le_bytes(patch[4..12].try_into().expect("eight bytes"));
        let value = interesting(patch[3], raw);
        let at = at as usize;
        if at & 1 == 0 {
            put(&mut statics, (at >> 1) as u64 % (STATICS_BYTES as u64 - 8), value);
        } else {
            put(&mut arena, (at >> 1) as u64 % (7 * POOL), value);
        }
    }
    run(&model, statics, arena, array, mode)
}

fn run(model: &Model, statics: Vec<u8>, arena: Vec<u8>, array: u64, mode: u8) -> Outcome {
    let mut memory = SyntheticMemory::new();
    memory.map(STATICS, statics).map(ARENA, arena);
    memory.streamed = mode & 4 != 0;
    let mapping = |start: u64, bytes: usize, backing| {
        let end = start + bytes as u64;
        let mut mapping = Mapping { start, end, backing, ..Mapping::default() };
        mapping.perms = Perms { read: true, write: true, ..Perms::default() };
        let present = PageState { present: true, ..PageState::default() };
        // A hole of one page: not everything is resident.
        mapping.residency.runs = vec![
            Run { start, end: start + POOL, state: present },
            Run { start: start + 2 * POOL, end, state: present },
        ];
        mapping
    };
    let segment = Segment { range: STATICS..STATICS + STATICS_BYTES as u64, write: true, exec: false };
    let mappings =
        vec![mapping(STATICS, STATICS_BYTES, Backing::File), mapping(ARENA, ARENA_BYTES, Backing::Anonymous)];
    let target = memory.into_target(mappings, vec![Image::synthetic("/python", vec![segment], &[])]);
    let roots = [Roots { arenas: STATICS + array, maxarenas: 16 }];
    let arenas = Arenas::of(&*target.memory, &target.mappings, &roots);
    let (walk, seen) = Seen::in_arenas(&target, model, arenas, None).expect("few blocks");
    let blocks = Blocks::builder().pymalloc(&walk).build().expect("few blocks");
    let mut census = Census::take(&target, model, &blocks, &[], seen);
    let sums = tally(&target, &blocks, &mut census, std::iter::empty());
    let ledger = sums.ledger;
    assert_eq!(ledger.rows.iter().map(|r| r.bytes).sum::<u64>(), ledger.total, "the ledger does not add up");
    assert_eq!(census.marks().len(), blocks.len() as usize);
    refer(&target, model, &blocks);
    Outcome { marks: census.marks().to_vec(), ledger }
}

/// Asks whatever has a type, object or not, what it refers to, and how each reference is written.
fn refer(target: &Target, model: &Model, blocks: &Blocks) {
    let types = Types::new(target, model, blocks);
    let mut cache = TypeCache::new(&types, target.reader());
    let mut reader = target.reader();
    let (mut asked, mut labelled) = (0, 0);
    for addr in (STATICS..STATICS + STATICS_BYTES as u64).chain(ARENA..ARENA + 7 * POOL).step_by(8) {
        let Some(shape) = cache.type_of(&mut reader, addr) else { continue };
        let object = Object { addr, shape: *shape, evidence: Evidence::Plausible, tracked: false };
        let mut found = Vec::new();
        references(model, &mut reader, &object, &mut |r| found.push(r));
        asked += 1;
        for reference in found.iter().take(50) {
            labelled += usize::from(!label(model, &mut reader, &object, reference).to_string().is_empty());
        }
        if asked > 2_000 || labelled > 20_000 {
            break;
        }
    }
}
