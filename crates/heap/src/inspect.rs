//! The whole way from a target to its census.

use crate::census::{Census, Known, Looked, Seen};
use crate::kinds::{Domain, Sure};
use crate::ledger::{KnownRange, Tally, tally};
use crate::native;
use crate::stacks::{Stack, stacks};
use std::ops::Range;
use wmr_alloc::glibc::{self, Glibc};
use wmr_alloc::pymalloc::{Arenas, PyMalloc};
use wmr_alloc::{Blocks, Slots, TooManyBlocks};
use wmr_cpython::freelists::{FreeLists, NumberBlock};
use wmr_cpython::model::Model;
use wmr_cpython::{FindError, Mode, Python};
use wmr_memory::Target;

/// Everything the questions about a target are answered from.
pub struct Inspection {
    /// The interpreter, or why there is none: the native ledger is there all the same.
    pub python: Result<Python, FindError>,
    pub model: Option<Model>,
    pub pymalloc: PyMalloc,
    pub glibc: Result<Glibc, glibc::NotFound>,
    pub blocks: Blocks,
    /// Outside of blocks, what is known by who mapped it.
    pub ranges: Vec<KnownRange>,
    pub census: Census,
    pub tally: Tally,
    /// What each thread's Python code was doing.
    pub stacks: Vec<Stack>,
    /// What could not be read or decided, and what it cost.
    pub notes: Vec<String>,
}

/// What the object walks need of an interpreter.
pub fn model(python: &Python) -> Model {
    let (preheader_flags, managed) = Model::rules(python.version.0);
    Model {
        layout: python.layout.clone(),
        hex: python.version.0,
        type_type: python.type_type,
        gc_head: python.gc.head_size,
        preheader_flags,
        managed,
        pymalloc: matches!(python.allocators.obj, Mode::Pymalloc | Mode::PymallocDebug),
        debug: python.allocators.padding,
        collecting: python.gc.collecting,
        static_types: python
            .interpreters
            .iter()
            .flat_map(|i| Model::static_types(&python.layout, i.addr))
            .collect(),
    }
}

/// What a thread arena's heap may still grow into: 64 MiB are reserved for each (`HEAP_MAX_SIZE`). A
/// gcore stores those untouched pages.
fn heap_reserve(heap: &Range<u64>) -> Option<KnownRange> {
    const HEAP_MAX: u64 = 64 << 20;
    let end = heap.start.checked_add(HEAP_MAX)?;
    (heap.start.is_multiple_of(HEAP_MAX) && heap.end < end).then(|| KnownRange {
        range: heap.end..end,
        domain: Domain::Malloc,
        kind: "heap reserve".to_owned(),
        detail: String::new(),
        sure: Sure::Exact,
    })
}

/// The live numbers of one of Python 2's blocks of ints or floats.
fn number_slots(block: &NumberBlock, lists: &FreeLists) -> Slots {
    let mut used = vec![0u64; block.count.min(MAX_NUMBERS).div_ceil(64) as usize];
    for i in 0..block.count.min(MAX_NUMBERS) {
        if lists.find(block.first + i * block.stride).is_none() {
            used[i as usize / 64] |= 1 << (i % 64);
        }
    }
    Slots {
        first: block.first,
        stride: block.stride as u32,
        count: block.count.min(MAX_NUMBERS) as u32,
        used,
    }
}

/// Python 2 cuts 1,000 bytes into 41.
const MAX_NUMBERS: u64 = 64;

/// A clone is let go before native memory is named if what is read for that is no more than so many bytes, and one
/// part of the target's RSS.
const KEEP: u64 = 8 << 20;
const KEEP_OF_RSS: u64 = 16;

/// Takes the census of a target.
///
/// # Errors
/// Only more blocks than can be numbered; all else that fails costs what it costs and is noted.
pub fn inspect(target: &Target) -> Result<Inspection, TooManyBlocks> {
    survey(target, false)
}

/// The same for whoever asks nothing afterwards that takes the target's bytes: what a capture holds
/// outside of this program is let go as soon as the census is taken.
///
/// # Errors
/// As [`inspect`].
pub fn inspect_only(target: &Target) -> Result<Inspection, TooManyBlocks> {
    survey(target, true)
}

fn survey(target: &Target, nothing_else: bool) -> Result<Inspection, TooManyBlocks> {
    let python = Python::find(target);
    let mut notes = target.notes.clone();
    let memory = &*target.memory;
    let roots = python.as_ref().map_or(&[][..], |python| &python.pymalloc_roots);
    let arenas = Arenas::of(memory, &target.mappings, roots);
    let taken = arenas.ranges();
    let mut glibc = glibc::find(target, &taken);
    let model = python.as_ref().ok().map(model);
    let (pymalloc, seen) = match &model {
        Some(model) => Seen::in_arenas(target, model, arenas, glibc.as_ref().ok())?,
        None => (arenas.walk(memory), Seen::default()),
    };
    let mut builder = Blocks::builder().pymalloc(&pymalloc);
    let (mut known, mut ranges) = (Vec::new(), Vec::new());
    if let Ok(glibc) = &glibc {
        builder = builder.glibc(glibc);
        known.extend(glibc.tcaches.iter().map(|addr| Known {
            addr: *addr,
            domain: Domain::Malloc,
            kind: "tcache table".to_owned(),
            detail: String::new(),
        }));
    }
    if let Ok(glibc) = &glibc {
        ranges.extend(glibc.arenas.iter().flat_map(|a| &a.heaps).filter_map(heap_reserve));
    }
    if let Ok(python) = &python {
        let lists = python.free_lists(target);
        for block in &lists.number_blocks {
            builder = builder.slots(number_slots(block, &lists));
            known.push(Known::interpreters(block.addr, "number block", block.kind));
        }
        known.extend(lists.dead.iter().map(|d| Known::interpreters(d.addr, "free list", d.kind)));
        known.extend(python.owned_blocks(target).iter().map(|o| Known::interpreters(o.addr, o.kind, "")));
        ranges.extend(python.stack_chunks(target).iter().map(|chunk| KnownRange {
            range: chunk.addr..chunk.addr.saturating_add(chunk.size),
            domain: Domain::CPython,
            kind: "Python frames".to_owned(),
            detail: if chunk.spare { "spare".to_owned() } else { String::new() },
            sure: Sure::Exact,
        }));
        notes.extend(lists.notes);
        notes.extend(python.notes.iter().cloned());
    }
    let blocks = builder.build()?;
    if let Ok(glibc) = &mut glibc {
        glibc.forget_chunks();
    }
    let permanent =
        python.as_ref().ok().map(|python| python.gc.permanent(&mut target.reader(), blocks.len() as usize));
    let interned = python.as_ref().map(|python| python.interned(target).dicts).unwrap_or_default();
    let stacks = match (&python, &model) {
        (Ok(python), Some(model)) => stacks(target, python, model, &mut notes),
        _ => Vec::new(),
    };
    // What these refer to is looked for in them as in any memory: which of it lives, their greenlet knows.
    let parked = native::parked(target, model.as_ref(), &blocks, &ranges);
    let mut census = match &model {
        Some(model) => {
            let mut looked = Looked::at(target, model, &blocks, &known, seen);
            // Debug padding has to be read wherever a block is looked at.
            if nothing_else && model.debug.is_none() {
                let room = KEEP + target.process.rss.unwrap_or(0) / KEEP_OF_RSS;
                target.memory.keep(looked.unread(), room);
            }
            looked.settle()
        }
        None => Census::without_python(&blocks, &known),
    };
    census.name_interned(&blocks, &interned);
    census.untrack(&blocks, &permanent.unwrap_or_default());
    let interpreter = python.as_ref().ok().map(|python| python.type_type);
    ranges.extend(native::name(target, model.as_ref(), interpreter, &blocks, &mut census));
    let pointed_at = native::pointed_at(target, &blocks, &[&ranges, &parked]);
    if nothing_else {
        // Whether it was let go too early is asked again where the answer is given.
        let _ = target.memory.finish();
    }
    let all = ranges.iter().chain(&parked).chain(&pointed_at);
    let tally = tally(target, &blocks, &mut census, all);
    notes.extend(pymalloc.notes.iter().cloned());
    match &glibc {
        Ok(glibc) => notes.extend(glibc.notes.iter().cloned()),
        Err(e) => notes.push(e.to_string()),
    }
    notes.extend(blocks.notes().iter().cloned());
    Ok(Inspection { python, model, pymalloc, glibc, blocks, ranges, census, tally, stacks, notes })
}
