//! `wmr show`: one address, from the Python object down to the page.

mod page;

use super::holders::{self, Via};
use super::{address, answer, hexdump};
use crate::Answer;
use crate::cli::Options;
use crate::document::hex;
use crate::failure::{self, Failure};
use crate::open::{Subject, open};
use crate::text::utf8;
use serde::Serialize;
use std::ffi::OsStr;
use wmr_alloc::{SpanKind, State};
use wmr_cpython::model::RefCount;
use wmr_heap::anatomy::{Anatomy, Part};
use wmr_heap::graph::Fold;
use wmr_heap::neighbours::{Neighbour, Neighbours, referents, referrers};
use wmr_heap::select::IMMORTAL;
use wmr_memory::TargetKind;
use wmr_memory::live::{Frame, frame};

/// Attributes and items that are given.
const PARTS: usize = 8;
/// References that are given, in each direction.
const REFS: usize = 64;
/// Bytes of the block that are given at most.
const MOST: u64 = 4096;

#[derive(Serialize)]
struct Body {
    addr: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<Object>,
    #[serde(skip_serializing_if = "Option::is_none")]
    block: Option<Block>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<Pool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arena: Option<Arena>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk: Option<Chunk>,
    mapping: Mapping,
    #[serde(skip_serializing_if = "Option::is_none")]
    symbol: Option<Symbol>,
    page: Page,
    /// Parts of the block, from its start on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fields: Vec<Field>,
    #[serde(skip)]
    raw: Vec<u8>,
    #[serde(skip)]
    raw_start: u64,
}

#[derive(Serialize)]
struct Object {
    addr: String,
    #[serde(rename = "type")]
    type_name: String,
    type_addr: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refcount: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sizeof: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    /// `immortal`, `interned`, `tracked`, `static`.
    flags: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    length: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attributes: Vec<Referred>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    items: Vec<Referred>,
    /// What it refers to.
    referents: Vec<Ref>,
    /// References beyond those given.
    #[serde(skip_serializing_if = "is_zero")]
    referents_truncated: u64,
    /// Objects in blocks that refer to it.
    referrers: Vec<Ref>,
    #[serde(skip_serializing_if = "is_zero")]
    referrers_truncated: u64,
    /// What would be freed with it, itself included.
    #[serde(skip_serializing_if = "Option::is_none")]
    retained: Option<u64>,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// One end of a reference, and how it is called.
#[derive(Serialize)]
struct Ref {
    addr: String,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    type_name: Option<String>,
    via: Via,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    weak: bool,
    #[serde(skip)]
    called: String,
}

#[derive(Serialize)]
struct Referred {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    addr: String,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    type_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
}

#[derive(Serialize)]
struct Block {
    addr: String,
    bytes: u64,
    state: &'static str,
    domain: &'static str,
    kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    sure: &'static str,
    allocator: &'static str,
    /// Of `bytes`, what the object in it does not use.
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<Referred>,
}

#[derive(Serialize)]
struct Pool {
    addr: String,
    bytes: u64,
    block_size: u64,
    blocks: u64,
    used_blocks: u64,
    /// Which of its blocks the address is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    #[serde(skip)]
    cells: Vec<bool>,
}

#[derive(Serialize)]
struct Arena {
    addr: String,
    allocator: &'static str,
    bytes: u64,
    used_bytes: u64,
    free_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pools: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    free_pools: Option<u32>,
}

/// A chunk of malloc with the tags in its size word.
#[derive(Serialize)]
struct Chunk {
    addr: String,
    bytes: u64,
    previous_in_use: bool,
    mmapped: bool,
    main_arena: bool,
}

#[derive(Serialize)]
struct Mapping {
    start: String,
    end: String,
    perms: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    rss: u64,
    swap: u64,
}

#[derive(Serialize)]
struct Symbol {
    name: String,
    offset: u64,
    image: String,
}

#[derive(Serialize)]
struct Page {
    addr: String,
    present: bool,
    swapped: bool,
    file: bool,
    /// Mapped by this process alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    exclusive: Option<bool>,
    zero: bool,
    huge: bool,
    /// What the kernel tells root of the page frame: page tables that lead to it; newer than what is on disk;
    /// merged with equal pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    mapped_by: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dirty: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ksm: Option<bool>,
}

#[derive(Serialize)]
struct Field {
    name: &'static str,
    offset: u64,
    bytes: u64,
}

pub fn run(word: &OsStr, addr: &str, bytes: u64, refs: bool, options: &Options) -> Result<Answer, Failure> {
    let addr = address::parse(addr)?;
    let subject = open(word, options)?;
    address::mapped(&subject.target, addr)?;
    let mut body = look(&subject, addr, bytes.min(MOST));
    if refs && let Some(object) = &mut body.object {
        let held = holders::find(&subject, Fold::Yes)?;
        let node = held.node_at(addr);
        let dominators = held.dominators();
        object.retained = node.map(|node| held.retained(&dominators)[node as usize]);
    }
    // The capture's own clone maps its pages too: first it goes.
    subject.target.memory.finish().map_err(failure::of_lost)?;
    if let Some(frame) = frame_of(&subject, addr) {
        let page = &mut body.page;
        (page.mapped_by, page.dirty, page.ksm) = (Some(frame.mapped), Some(frame.dirty), Some(frame.ksm));
        page.huge |= frame.huge;
    }
    Ok(answer("wmr/show/1", &subject, options, body, page::draw))
}

/// What the kernel says of the page now, of a process that still runs.
fn frame_of(subject: &Subject, addr: u64) -> Option<Frame> {
    let target = &subject.target;
    let pid = (target.kind == TargetKind::Process).then_some(target.process.pid)?;
    frame(pid, addr, target.page_size)
}

fn look(subject: &Subject, addr: u64, bytes: u64) -> Body {
    let (target, inspection) = (&subject.target, &subject.inspection);
    let blocks = &inspection.blocks;
    let used = blocks.containing(addr);
    let (mut symbol_start, mut symbol) = (None, None);
    if let Some(image) = target.image(addr)
        && let Some((name, offset)) = image.symbolize(addr)
    {
        symbol_start = Some(addr - offset);
        symbol = Some(Symbol { name: name.to_owned(), offset, image: utf8(&image.path) });
    }
    let mut anatomy = Anatomy::new(target, inspection);
    let (mut object, mut block, mut fields) = (None, None, Vec::new());
    let (mut raw_start, mut raw_len) = (addr, bytes);
    if let Some(used) = used {
        let mut reader = target.reader();
        let found =
            inspection.model.as_ref().and_then(|model| inspection.object_in(model, &mut reader, used));
        let mark = inspection.census.mark(used.id);
        let kinds = &inspection.census.kinds;
        let kind = kinds.get(mark.as_kind().unwrap_or(wmr_heap::Kinds::UNKNOWN));
        let malloc = blocks.kind(used.id).is_malloc();
        let mut it = Block {
            addr: hex(used.start),
            bytes: used.bytes,
            state: "used",
            domain: kind.domain.name(),
            kind: kind.kind.clone(),
            detail: kind.detail.clone(),
            sure: kind.sure.name(),
            allocator: if blocks.kind(used.id).is_pymalloc() { "pymalloc" } else { "malloc" },
            lost: None,
            owner: None,
        };
        raw_start = used.start;
        raw_len = bytes.min(used.usable);
        let ty = mark.as_object().and_then(|id| inspection.census.types.get(id as usize));
        if let (Some((found, allocation)), Some(ty), Some(anatomy)) = (found, ty, &mut anatomy) {
            (it.domain, it.kind, it.sure) = ("python", ty.name.clone(), "exact");
            it.detail.clear();
            let need = anatomy.used_bytes(found.addr, ty);
            let padding = allocation.data - used.start;
            it.lost = need.map(|need| used.bytes.saturating_sub(padding + need));
            object = describe(subject, anatomy, found.addr, found.tracked, false);
            let gc = if ty.shape.has_gc() { u64::from(ty.shape.presize).min(gc_head(subject)) } else { 0 };
            let pre = u64::from(ty.shape.presize) - gc;
            let need = need.unwrap_or(allocation.size);
            let body = need.saturating_sub(u64::from(ty.shape.presize) + 16);
            let header = if malloc { 8 } else { 0 };
            let rest = used.bytes.saturating_sub(padding + need + header);
            let lengths = [
                ("debug padding", padding),
                ("pre-header", pre),
                ("GC head", gc),
                ("refcount", 8),
                ("type", 8),
                ("content", body),
                ("unused", rest),
            ];
            let mut offset = 0;
            for (name, bytes) in lengths {
                if bytes > 0 {
                    fields.push(Field { name, offset, bytes });
                }
                offset += bytes;
            }
        }
        if let (Some(owner), Some(anatomy)) = (inspection.census.owner(used.id), &mut anatomy)
            && let Some(model) = inspection.model.as_ref()
            && let Some((owner, _)) = inspection.object_in(model, &mut reader, blocks.block(owner))
        {
            it.owner = Some(referred(anatomy, Part { name: String::new(), addr: owner.addr }));
        }
        block = Some(it);
    } else if let Some(span) = blocks.span_at(addr) {
        block = free_block(subject, span, addr);
    } else if let Some(anatomy) = &mut anatomy {
        // Static objects are in images: at the address itself, or where the symbol around it begins.
        let start = [Some(addr), symbol_start].into_iter().flatten();
        object = start.filter_map(|at| describe(subject, anatomy, at, false, true)).next();
    }
    let (raw, _) = hexdump::read(target, raw_start, raw_len);
    Body {
        addr: hex(addr),
        object,
        block,
        pool: pool(subject, addr),
        arena: arena(subject, addr),
        chunk: chunk(subject, addr),
        mapping: mapping(subject, addr),
        symbol,
        page: page_of(subject, addr),
        fields,
        raw,
        raw_start,
    }
}

fn gc_head(subject: &Subject) -> u64 {
    subject.inspection.model.as_ref().map_or(0, |model| model.gc_head)
}

fn describe(
    subject: &Subject,
    anatomy: &mut Anatomy,
    addr: u64,
    tracked: bool,
    fixed: bool,
) -> Option<Object> {
    let ty = anatomy.type_of(addr)?;
    let model = subject.inspection.model.as_ref()?;
    let refcount = match model.refcount(&mut subject.target.reader(), addr).ok()? {
        RefCount::Count(n) => Some(u32::try_from(n).unwrap_or(IMMORTAL)),
        RefCount::Immortal => Some(IMMORTAL),
        RefCount::Implausible => None,
    };
    let flags = [
        ("immortal", refcount == Some(IMMORTAL)),
        ("interned", anatomy.is_interned(addr, ty)),
        ("tracked", tracked),
        ("static", fixed),
    ];
    let parts = anatomy.parts(addr, ty, PARTS);
    let mut all = |list: Vec<Part>| list.into_iter().map(|part| referred(anatomy, part)).collect();
    let (attributes, items) = (all(parts.attributes), all(parts.items));
    let object = anatomy.object(addr, ty);
    let to = referents(&subject.target, model, &object, REFS);
    let from = referrers(&subject.target, &subject.inspection, addr, REFS);
    let cut = |all: &Neighbours| all.count - all.list.len() as u64;
    let (to_cut, from_cut) = (cut(&to), cut(&from));
    let mut refs = |all: Neighbours| all.list.into_iter().map(|one| reference(anatomy, one)).collect();
    let (to, from) = (refs(to), refs(from));
    Some(Object {
        referents: to,
        referents_truncated: to_cut,
        referrers: from,
        referrers_truncated: from_cut,
        retained: None,
        addr: hex(addr),
        type_name: ty.name.clone(),
        type_addr: hex(ty.addr),
        refcount,
        sizeof: anatomy.sizeof(addr, ty),
        value: anatomy.value(addr),
        flags: flags.into_iter().filter(|(_, set)| *set).map(|(name, _)| name).collect(),
        length: parts.length,
        attributes,
        items,
    })
}

fn reference(anatomy: &mut Anatomy, other: Neighbour) -> Ref {
    Ref {
        addr: hex(other.addr),
        type_name: anatomy.type_of(other.addr).map(|ty| ty.name.clone()),
        via: Via::from(&other.label),
        weak: other.weak,
        called: other.label.to_string(),
    }
}

fn referred(anatomy: &mut Anatomy, part: Part) -> Referred {
    Referred {
        name: part.name,
        addr: hex(part.addr),
        type_name: anatomy.type_of(part.addr).map(|ty| ty.name.clone()),
        value: anatomy.value(part.addr),
    }
}

/// A piece of an allocator's memory that nobody uses.
fn free_block(subject: &Subject, span: usize, addr: u64) -> Option<Block> {
    let blocks = &subject.inspection.blocks;
    let mut found = None;
    blocks.for_each_piece(span, |range, state| {
        if range.contains(&addr) {
            found = Some((range, state));
        }
    });
    let (range, state) = found?;
    // The header of a chunk is no byte of its block, yet in use.
    let (domain, kind) = match state {
        State::Used(_) => (wmr_heap::Domain::Malloc, "chunk header"),
        state => wmr_heap::state_name(state),
    };
    Some(Block {
        addr: hex(range.start),
        bytes: range.end - range.start,
        state: if matches!(state, State::Used(_)) { "used" } else { "free" },
        domain: domain.name(),
        kind: kind.to_owned(),
        detail: String::new(),
        sure: "exact",
        allocator: if blocks.spans()[span].kind.is_pymalloc() { "pymalloc" } else { "malloc" },
        lost: None,
        owner: None,
    })
}

fn pool(subject: &Subject, addr: u64) -> Option<Pool> {
    let pool = subject.inspection.blocks.pool_at(addr)?;
    let index = addr.checked_sub(pool.addr + 48).map(|at| at / pool.block);
    Some(Pool {
        addr: hex(pool.addr),
        bytes: pool.bytes,
        block_size: pool.block,
        blocks: pool.used.len() as u64,
        used_blocks: pool.used.iter().filter(|used| **used).count() as u64,
        index: index.filter(|&index| index < pool.used.len() as u64),
        cells: pool.used,
    })
}

fn arena(subject: &Subject, addr: u64) -> Option<Arena> {
    let inspection = &subject.inspection;
    let span = &inspection.blocks.spans()[inspection.blocks.span_at(addr)?];
    match span.kind {
        SpanKind::Pymalloc { .. } => {
            let arenas = &inspection.pymalloc.arenas;
            let arena = &arenas[arenas.partition_point(|arena| arena.addr <= addr).checked_sub(1)?];
            Some(Arena {
                addr: hex(arena.addr),
                allocator: "pymalloc",
                bytes: arena.bytes,
                used_bytes: arena.used_bytes,
                free_bytes: arena.free_bytes,
                pools: Some(arena.total_pools),
                free_pools: Some(arena.free_pools + arena.total_pools.saturating_sub(arena.pools)),
            })
        }
        SpanKind::Heap { arena } => {
            let arena = inspection.glibc.as_ref().ok()?.arenas.get(arena as usize)?;
            Some(Arena {
                addr: hex(arena.addr),
                allocator: "malloc",
                bytes: arena.system_bytes,
                used_bytes: arena.used_bytes,
                free_bytes: arena.free_bytes,
                pools: None,
                free_pools: None,
            })
        }
        SpanKind::Mmapped | SpanKind::Slots { .. } => None,
    }
}

/// The malloc chunk around the address. Arenas of pymalloc that lie in chunks have one too.
fn chunk(subject: &Subject, addr: u64) -> Option<Chunk> {
    let blocks = &subject.inspection.blocks;
    let block = blocks.containing(addr).filter(|block| blocks.kind(block.id).is_malloc())?;
    let word = subject.target.reader().u64(block.start.checked_sub(8)?).ok()?;
    Some(Chunk {
        addr: hex(block.start - 16),
        bytes: word & !7,
        // `PREV_INUSE`, `IS_MMAPPED`, `NON_MAIN_ARENA` (malloc/malloc.c).
        previous_in_use: word & 1 != 0,
        mmapped: word & 2 != 0,
        main_arena: word & 4 == 0,
    })
}

fn mapping(subject: &Subject, addr: u64) -> Mapping {
    let Some(mapping) = subject.target.mapping(addr) else {
        // Not reached: the address was looked up before.
        let none = || hex(addr);
        return Mapping {
            start: none(),
            end: none(),
            perms: String::new(),
            name: String::new(),
            rss: 0,
            swap: 0,
        };
    };
    let perms = &mapping.perms;
    let letters = [(perms.read, 'r'), (perms.write, 'w'), (perms.exec, 'x')];
    let mut text: String = letters.iter().map(|(set, letter)| if *set { *letter } else { '-' }).collect();
    text.push(if perms.shared { 's' } else { 'p' });
    Mapping {
        start: hex(mapping.start),
        end: hex(mapping.end),
        perms: text,
        name: utf8(&mapping.name),
        rss: mapping.usage.rss,
        swap: mapping.usage.swap,
    }
}

fn page_of(subject: &Subject, addr: u64) -> Page {
    let target = &subject.target;
    let size = target.page_size.max(4096);
    let run = target.mapping(addr).and_then(|mapping| {
        let runs = &mapping.residency.runs;
        runs.get(runs.partition_point(|run| run.end <= addr)).filter(|run| run.start <= addr)
    });
    let state = run.map(|run| run.state).unwrap_or_default();
    Page {
        addr: hex(addr / size * size),
        present: state.present,
        swapped: state.swapped,
        file: state.file,
        exclusive: (target.knows_residency() && state.present).then_some(state.exclusive),
        zero: state.zero,
        huge: state.huge,
        mapped_by: None,
        dirty: None,
        ksm: None,
    }
}
