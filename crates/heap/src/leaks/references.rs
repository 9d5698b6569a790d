//! Every word of a block that is the address of a block: conservatively, in one pass over all of them.

use super::mappings::{From, Mapped};
use super::unread::lost;
use super::without;
use crate::Inspection;
use crate::kinds::Domain;
use rayon::prelude::*;
use rustc_hash::FxHashMap;
use std::ops::Range;
use wmr_alloc::{Block, Blocks};
use wmr_cpython::dicts::values_table;
use wmr_cpython::entries::{self, Entries};
use wmr_cpython::family::Family;
use wmr_cpython::model::{Allocation, Model};
use wmr_cpython::object::{Evidence, Object};
use wmr_cpython::owns::Part;
use wmr_cpython::refers;
use wmr_cpython::strings::str_shape;
use wmr_memory::{Reader, Target};

/// Set in an edge that does not point at the beginning: an interior pointer.
pub(super) const INTERIOR: u32 = 1 << 31;

/// Bytes read at a time.
const WINDOW: u64 = 64 << 10;

/// The edges of all blocks, in compressed sparse rows by id.
pub(super) struct References {
    offsets: Vec<u64>,
    edges: Vec<u32>,
    /// Blocks that are taken to point at nothing.
    cut: Vec<u32>,
    /// Bytes that could not be looked at.
    pub unread: u64,
}

/// What a block points at is added to it.
#[derive(Default)]
struct Found {
    /// Number of edges by block.
    counts: Vec<u32>,
    edges: Vec<u32>,
    unread: u64,
}

impl References {
    pub fn take(
        target: &Target,
        inspection: &Inspection,
        dead: &[Range<u64>],
        mapped: &Mapped,
    ) -> References {
        let scan = Scan::new(target, inspection, dead, mapped);
        let spans = 0..inspection.blocks.spans().len();
        let found: Vec<Found> = spans.into_par_iter().map(|span| scan.span(span)).collect();
        let mut references = References { offsets: vec![0], edges: Vec::new(), cut: Vec::new(), unread: 0 };
        references.offsets.reserve(inspection.blocks.len() as usize);
        references.edges.reserve_exact(found.iter().map(|found| found.edges.len()).sum());
        let mut at = 0;
        for Found { counts, edges, unread } in found {
            references.unread += unread;
            for count in counts {
                at += u64::from(count);
                references.offsets.push(at);
            }
            references.edges.extend_from_slice(&edges);
        }
        references
    }

    /// Takes what these point at out of it.
    pub fn cut(&mut self, blocks: Vec<u32>) {
        self.cut = blocks;
    }

    /// What all blocks point at.
    pub fn all(&self) -> &[u32] {
        &self.edges
    }

    /// What a block points at: ids, with [`INTERIOR`] perhaps.
    pub fn of(&self, block: u32) -> &[u32] {
        if self.cut.contains(&block) {
            return &[];
        }
        let i = block as usize;
        let range = self.offsets[i] as usize..self.offsets[i + 1] as usize;
        &self.edges[range]
    }
}

/// Resolves words.
pub(super) struct Resolver<'a> {
    blocks: &'a Blocks,
    inspection: &'a Inspection,
    reader: Reader<'a>,
    lowest: u64,
    highest: u64,
    /// By kind: is it a part of an object?
    parts: Vec<bool>,
    /// By kind: does it only describe what nobody knows?
    unknown: Vec<bool>,
    mapped: &'a Mapped,
    /// Where the words are found.
    pub from: From,
}

impl<'a> Resolver<'a> {
    pub fn new(target: &'a Target, inspection: &'a Inspection, mapped: &'a Mapped) -> Resolver<'a> {
        let spans = inspection.blocks.spans();
        let kinds = &inspection.census.kinds;
        Resolver {
            blocks: &inspection.blocks,
            inspection,
            reader: target.reader(),
            lowest: spans.first().map_or(u64::MAX, |span| span.start),
            highest: spans.last().map_or(0, |span| span.end),
            parts: (0..kinds.len()).map(|id| is_part(kinds.get(id as u32))).collect(),
            unknown: (0..kinds.len()).map(|id| kinds.get(id as u32).domain == Domain::Unknown).collect(),
            mapped,
            from: From::Memory,
        }
    }

    /// Does it begin with its own size? SQLite's allocator writes it there and hands out what is behind
    /// (src/mem1.c, `sqlite3MemMalloc`).
    fn is_sized(&mut self, block: Block) -> bool {
        let said = self.reader.u64(block.start).unwrap_or(0);
        said > 0 && said <= block.usable - 8 && block.usable - 8 - said <= 24
    }

    /// The block that a word points into. The low three bits may be tags (3.14's stack references, 3.12's
    /// managed dicts).
    #[inline]
    pub fn resolve(&mut self, word: u64) -> Option<u32> {
        let addr = word & !7;
        let block = match word {
            _ if word < self.lowest || word >= self.highest => None,
            _ => self.blocks.containing(addr),
        };
        let Some(block) = block else {
            self.mapped.word(word, self.from);
            return None;
        };
        if block.id >= INTERIOR {
            return None;
        }
        let mark = self.inspection.census.mark(block.id);
        let Some(model) = &self.inspection.model else {
            return Some(if addr == block.start { block.id } else { block.id | INTERIOR });
        };
        let data = match model.debug {
            None => block.start,
            Some(_) => model.unpad(&mut self.reader, block.start, block.usable).data,
        };
        let offset = addr.wrapping_sub(data);
        let Some(ty) = mark.as_object() else {
            // The parts of objects are pointed at wherever the interpreter likes: behind their sizes.
            if mark.as_kind().is_some_and(|kind| self.parts[kind as usize]) {
                return Some(block.id);
            }
            // An object whose type could not be verified, or that is kept dead for the next of its kind, is
            // pointed at behind its heads; so is a thread's vector of thread-local memory, behind its size.
            let unknown = mark.as_kind().is_none_or(|kind| self.unknown[kind as usize]);
            let start = offset == 0 || addr == block.start || unknown && matches!(offset, 16 | 32);
            let start = start || offset == 8 && self.is_sized(block);
            return Some(if start { block.id } else { block.id | INTERIOR });
        };
        let shape = self.inspection.census.types.get(ty as usize)?.shape;
        let presize = u64::from(shape.presize);
        if offset == presize {
            return Some(block.id);
        }
        // Links of the collector's lists, and dead words.
        (offset > presize).then_some(block.id | INTERIOR)
    }
}

struct Scan<'a> {
    target: &'a Target,
    inspection: &'a Inspection,
    /// Ranges of pointers that nobody uses, in order.
    dead: &'a [Range<u64>],
    mapped: &'a Mapped,
    /// By kind: may its blocks hold references?
    kinds: Vec<bool>,
    /// By kind: which part of an object are they?
    parts: Vec<Option<Part>>,
    /// By type: weak references, whose first field does not hold what it points at.
    weak: Vec<bool>,
    /// Addresses of the types of the collector's objects, and how large these are.
    types: FxHashMap<u64, u64>,
}

impl<'a> Scan<'a> {
    fn new(
        target: &'a Target,
        inspection: &'a Inspection,
        dead: &'a [Range<u64>],
        mapped: &'a Mapped,
    ) -> Self {
        let named = &inspection.census.kinds;
        let parts = (0..named.len()).map(|id| part(named.get(id as u32))).collect();
        let kinds = (0..named.len()).map(|id| holds_references(named.get(id as u32))).collect();
        let types = &inspection.census.types;
        let is_weak = |i: usize| {
            crate::census::bases(types, i).any(|ty| {
                matches!(
                    ty.name.as_str(),
                    "weakref"
                        | "weakref.ReferenceType"
                        | "weakref.ProxyType"
                        | "weakref.CallableProxyType"
                        | "weakproxy"
                        | "weakcallableproxy"
                )
            })
        };
        let weak = (0..types.len()).map(is_weak).collect();
        let collected = types.iter().filter(|ty| ty.shape.has_gc());
        let types = collected.map(|ty| (ty.addr, u64::from(ty.shape.basicsize))).collect();
        Scan { target, inspection, dead, mapped, kinds, parts, weak, types }
    }

    fn span(&self, span: usize) -> Found {
        let mut readers = [(); 2].map(|()| self.target.reader());
        let mut resolver = Resolver::new(self.target, self.inspection, self.mapped);
        let mut found = Found::default();
        let mut scratch = Vec::new();
        let holder = self.inspection.blocks.holder_in(span);
        for block in self.inspection.blocks.iter_span(span) {
            let before = found.edges.len();
            // What others nest in is theirs.
            if holder != Some(block.id) {
                self.block(&mut readers, &mut resolver, &mut scratch, block, &mut found);
            }
            found.counts.push((found.edges.len() - before) as u32);
        }
        found
    }

    fn block(
        &self,
        [reader, remote]: &mut [Reader; 2],
        resolver: &mut Resolver,
        scratch: &mut Vec<u8>,
        block: Block,
        out: &mut Found,
    ) {
        let mut look = |range: Range<u64>, is_pointer: &mut dyn FnMut(u64, u64) -> bool| {
            let mut at = range.start.next_multiple_of(8);
            while at + 8 <= range.end {
                let len = (range.end - at).min(WINDOW) & !7;
                // What cannot be read points nowhere.
                let bytes = match reader.window(at, len as usize, scratch) {
                    Ok(bytes) => bytes,
                    Err(fault) => {
                        out.unread += lost(&(at..at + len), fault);
                        return;
                    }
                };
                for word in bytes.as_chunks::<8>().0 {
                    let word = u64::from_le_bytes(*word);
                    // Into itself says nothing, at its own beginning is a cycle of one.
                    let found = resolver.resolve(word).filter(|&edge| edge != block.id | INTERIOR);
                    out.edges.extend(found.filter(|_| is_pointer(at, word)));
                    at += 8;
                }
            }
        };
        let mark = self.inspection.census.mark(block.id);
        let end = block.start + block.usable;
        let Some(model) = &self.inspection.model else { return look(block.start..end, &mut any) };
        let allocation = model.unpad(remote, block.start, block.usable);
        let (data, end) = (allocation.data, allocation.data + allocation.size);
        let Some(ty) = mark.as_object() else {
            let kind = mark.as_kind().map(|kind| kind as usize);
            let part = kind.and_then(|kind| self.parts[kind]);
            if let Some(entries) = part.and_then(|part| entries_of(model, remote, part, allocation)) {
                return look(entries.range.clone(), &mut |addr, _| !entries.is_hash(addr));
            }
            match part {
                // What stands in front of the values was not all written to.
                Some(Part::DictValues) => {
                    let table = values_table(model, remote, data);
                    let last = table.count.map_or(end, |count| table.first.saturating_add(8 * count));
                    look(table.first..last.min(end), &mut any);
                }
                _ if kind.is_some_and(|kind| !self.kinds[kind]) => {}
                _ => match self.dead(model, remote, data.wrapping_add(model.gc_head)) {
                    // What it referred to is there still, and not counted; a link of the list it is kept in is.
                    Some((ty, size)) => {
                        let object = data.saturating_add(model.gc_head);
                        look(object..object.saturating_add(size).min(end), &mut |_, word| {
                            self.dead(model, remote, word).is_some_and(|(next, _)| next == ty)
                        });
                    }
                    None => without(data..end, self.dead, &mut |range| look(range, &mut any)),
                },
            }
            return;
        };
        let shape = &self.inspection.census.types[ty as usize].shape;
        let presize = u64::from(shape.presize);
        let object = data + presize;
        let gc_head = if shape.has_gc() { model.gc_head } else { 0 };
        // Pointers to a managed dict and to weak references stand before the collector's head.
        look(data..object - gc_head, &mut any);
        let first = object + model.layout.object.ob_type;
        let fixed = object + u64::from(shape.basicsize);
        match shape.family {
            Family::Int | Family::OldInt | Family::Float | Family::Bytes if shape.exact => {}
            Family::Str if shape.exact => {
                look(object + model.layout.object.size..text_header(model, remote, object), &mut any);
            }
            Family::List => {
                look(first..fixed.min(end), &mut any);
                // Behind the last item are pointers to what was popped.
                let (items, count) = list_items(model, remote, object);
                look(items..items.saturating_add(count.saturating_mul(8)), &mut any);
            }
            _ if self.weak[ty as usize] => {
                look(first..first + 8, &mut any);
                look(object + model.layout.object.size + 8..end, &mut any);
            }
            _ if shape.fields.array != 0 => {
                look(first..end, &mut any);
                let array =
                    Object { addr: object, shape: *shape, evidence: Evidence::Plausible, tracked: false };
                refers::unaligned_items(model, remote, &array, &mut |item| {
                    out.edges.extend(resolver.resolve(item));
                });
            }
            family => match small_table(model, family, object) {
                Some(entries) => look(first..end, &mut |addr, _| !entries.is_hash(addr)),
                None => look(first..end, &mut any),
            },
        }
    }
}

impl Scan<'_> {
    /// Type and size of an object that ended and was kept for the next of its kind: by a code object its frame,
    /// up to 3.10; by a library some of what it makes often.
    fn dead(&self, model: &Model, reader: &mut Reader, object: u64) -> Option<(u64, u64)> {
        let ty = model.type_of(reader, object).ok()?;
        let size = *self.types.get(&ty)?;
        let count = reader.u64(object.wrapping_add(model.layout.object.ob_refcnt));
        (count == Ok(0)).then_some((ty, size))
    }
}

/// Every word that is the address of a block counts.
fn any(_: u64, _: u64) -> bool {
    true
}

/// Where keys and values are in a table that is such a part.
fn entries_of(model: &Model, reader: &mut Reader, part: Part, allocation: Allocation) -> Option<Entries> {
    let range = allocation.data..allocation.data.saturating_add(allocation.size);
    Some(match part {
        Part::DictKeys | Part::SharedKeys => entries::keys(model, reader, allocation),
        Part::SetTable => entries::set_table(model, range),
        Part::OrderedDictNode => entries::order_node(model, range),
        _ => return None,
    })
}

/// The table that an object of that family has within it.
fn small_table(model: &Model, family: Family, object: u64) -> Option<Entries> {
    match family {
        Family::Dict => entries::small_dict(model, object),
        Family::Set => Some(entries::small_set(model, object)),
        _ => None,
    }
}

/// Where the pointers of a `str` end: its characters may follow.
fn text_header(model: &Model, reader: &mut Reader, object: u64) -> u64 {
    let layout = &model.layout;
    let sizes = (layout.ascii.map_or(0, |a| a.size), layout.compact.map_or(0, |c| c.size));
    object
        + match str_shape(model, reader, object) {
            Some(shape) if shape.compact && shape.ascii => sizes.0,
            Some(shape) if shape.compact => sizes.1,
            _ => sizes.1 + 8,
        }
}

fn list_items(model: &Model, reader: &mut Reader, object: u64) -> (u64, u64) {
    let items = reader.u64(object.wrapping_add(model.layout.list.ob_item)).unwrap_or(0);
    let count = model.size_field(reader, object).map_or(0, i64::unsigned_abs);
    let allocated = reader.u64(object.wrapping_add(model.layout.list.allocated)).unwrap_or(0);
    (items, count.min(allocated).min(1 << 40))
}

/// What census and owner agree on to be an object's own.
pub(super) fn is_part(kind: &crate::Kind) -> bool {
    part(kind).is_some()
}

fn part(kind: &crate::Kind) -> Option<Part> {
    let named = |part: &&Part| part.name() == kind.kind;
    Part::ALL.iter().find(named).copied().filter(|_| kind.domain == Domain::CPython)
}

fn holds_references(kind: &crate::Kind) -> bool {
    match kind.domain {
        Domain::CPython => match part(kind) {
            Some(
                Part::StrCharacters
                | Part::StrUtf8
                | Part::StrWide
                | Part::ByteArrayBuffer
                | Part::ArrayBuffer
                | Part::IoBuffer
                | Part::DecimalDigits
                | Part::IteratorIndices
                // By the list, as far as it goes.
                | Part::ListItems,
            ) => false,
            Some(_) => true,
            // Dead objects: what they point at is not theirs.
            None => kind.kind != "free list",
        },
        // Caches of freed chunks.
        Domain::Malloc => false,
        _ => true,
    }
}
