//! What is structure within the allocators' spans.

use super::{Fate, edge};
use crate::Inspection;
use crate::kinds::{Domain, Sure};
use rustc_hash::FxHashSet;
use std::ops::Range;
use wmr_alloc::{Block, SpanKind, State};
use wmr_cpython::dicts::{keys_table, values_table};
use wmr_cpython::entries::{keys, small_dict, small_set};
use wmr_cpython::family::Family;
use wmr_cpython::model::{Allocation, Model, flags};
use wmr_cpython::object::{digits, digits_at, inline_values_bytes};
use wmr_cpython::owns::Part;
use wmr_cpython::strings::{read_text, str_shape};
use wmr_cpython::types::Shape;
use wmr_memory::{Reader, Target};

/// From a chunk to what malloc returned: the size of a free neighbour, and the chunk's own.
const CHUNK_HEADER: u64 = 16;
/// Bytes from `gc_refs` to the object, where the collector's head has one (2.7 to 3.6).
const OLD_REFS: u64 = 16;
/// `MIN_LARGE_SIZE` of malloc on 64 bits.
const LARGE: u64 = 1024;
/// A pool's own part (Objects/obmalloc.c, `struct pool_header`).
const POOL_HEADER: u64 = 48;

/// Texts by which the facts about an interpreter are found, and the values of `sys.abiflags`.
const KNOWN_TEXTS: [&str; 8] = ["", "d", "m", "dm", "hexversion", "abiflags", "__module__", "__sizeof__"];
/// Of the longest of them, and one more.
const KNOWN_LENGTH: u64 = 10;

/// Numbers of more digits (of 30 bits) may be keys.
const PLAIN_DIGITS: u64 = 3;

pub(super) struct Splitter<'a> {
    target: &'a Target,
    inspection: &'a Inspection,
    /// The `str` objects that name types.
    names: FxHashSet<u64>,
    /// By kind: what the insides of its blocks are.
    fates: Vec<Inside>,
}

/// What the bytes of a block are that is no object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inside {
    All(Fate),
    /// A table whose end is known by itself; behind it is what was there before.
    Keys,
    /// References, and sizes of a byte each.
    Values,
    /// A type object, and what its metatype adds.
    Type,
}

/// Collects edges in address order.
struct Edges {
    list: Vec<u64>,
    reached: u64,
    /// What is given lies before this address.
    end: u64,
}

impl Edges {
    /// `range` has this fate, but for what of it was given before.
    fn give(&mut self, range: Range<u64>, fate: Fate) {
        let (start, end) = (range.start.max(self.reached), range.end.min(self.end));
        if start < end {
            let edge = edge(start, fate);
            // The same as before needs no edge, unless there is a gap.
            let same = self.reached == start && self.list.last().is_some_and(|last| last & 7 == edge & 7);
            if !same {
                self.list.push(edge);
            }
            self.reached = end;
        }
    }
}

impl<'a> Splitter<'a> {
    pub fn new(target: &'a Target, inspection: &'a Inspection, names: &[u64]) -> Self {
        let kinds = &inspection.census.kinds;
        let fates = (0..kinds.len()).map(|id| inside(kinds.get(id as u32))).collect();
        Splitter { target, inspection, names: names.iter().copied().collect(), fates }
    }

    /// The edges of one span.
    pub fn span(&self, index: usize) -> Vec<u64> {
        let blocks = &self.inspection.blocks;
        let span = &blocks.spans()[index];
        let mut edges = Edges { list: Vec::new(), reached: span.start, end: span.end };
        let (mut reader, mut remote) = (self.target.reader(), self.target.reader());
        let mut before_free = false;
        blocks.for_each_range(index, |range, state| {
            match (span.kind, state) {
                (_, State::Used(id)) => {
                    let block = blocks.block(id);
                    if span.kind.is_malloc() {
                        if !before_free {
                            edges.give(range.start..range.start + 8, Fate::Zero);
                        }
                        edges.give(block.start - CHUNK_HEADER..block.start, Fate::Keep);
                    }
                    if !range.contains(&block.start) {
                        // Around what nests in it.
                        edges.give(range.clone(), Fate::Addresses);
                    }
                    // Malloc lends a used chunk the first word of the next one.
                    let end = range.end.saturating_add(if span.kind.is_malloc() { 8 } else { 0 });
                    self.block(&mut edges, [&mut reader, &mut remote], block, end);
                    edges.give(range, Fate::Zero);
                }
                (SpanKind::Pymalloc { geometry, .. }, State::FreePool) => {
                    let mut at = range.start;
                    while at < range.end {
                        edges.give(at..at + POOL_HEADER, Fate::Keep);
                        at += u64::from(geometry.pool_size);
                        edges.give(at - u64::from(geometry.pool_size)..at, Fate::Zero);
                    }
                }
                (_, State::Fencepost | State::Top) => {
                    // The first word is lent to the chunk before, which one in a cache has left as it was.
                    if span.kind.is_malloc() {
                        edges.give(range.start..range.start + 8, Fate::Zero);
                    }
                    edges.give(range.start..range.start + CHUNK_HEADER, Fate::Keep);
                    edges.give(range, Fate::Zero);
                }
                (_, State::PoolHeader | State::ArenaHeader) => edges.give(range, Fate::Keep),
                (_, State::FreeChunk | State::Tcache | State::Fastbin) => {
                    free_chunks(&mut edges, &mut reader, range, state == State::FreeChunk);
                }
                (_, State::Uncarved | State::AlignmentLoss) => edges.give(range, Fate::Zero),
                // Links between free blocks are addresses.
                (_, State::FreeBlock | State::FreePool | State::Bad | State::Foreign) => {
                    edges.give(range, Fate::Addresses);
                }
            }
            before_free = state == State::FreeChunk;
        });
        edges.list
    }

    fn block(&self, edges: &mut Edges, readers: [&mut Reader; 2], block: Block, end: u64) {
        let [reader, remote] = readers;
        let mark = self.inspection.census.mark(block.id);
        let stop = block.start.saturating_add(block.usable).min(end);
        let Some(model) = &self.inspection.model else {
            return edges.give(block.start..stop, Fate::Addresses);
        };
        let allocation = model.unpad(reader, block.start, block.usable);
        let data_end = allocation.data.saturating_add(allocation.size).min(stop);
        edges.give(block.start..allocation.data.min(stop), Fate::Keep);
        if let Some(shape) = mark.as_object().and_then(|id| self.inspection.census.types.get(id as usize)) {
            self.object(edges, [reader, remote], model, allocation, &shape.shape, data_end);
        } else {
            let inside = mark.as_kind().and_then(|kind| self.fates.get(kind as usize).copied());
            match inside.unwrap_or(Inside::All(Fate::Addresses)) {
                Inside::All(fate) => edges.give(allocation.data..data_end, fate),
                Inside::Keys => table(edges, model, reader, allocation, data_end),
                Inside::Values => values(edges, model, reader, allocation.data, data_end),
                Inside::Type => {
                    let own = allocation.data.saturating_add(model.layout.type_object.size);
                    edges.give(allocation.data..own.min(data_end), Fate::Keep);
                    edges.give(allocation.data..data_end, Fate::Fields);
                }
            }
        }
        edges.give(allocation.data..data_end, Fate::Zero);
        if allocation.is_exact() {
            // The padding behind it, of two domains at most; it repeats no data.
            let padding = model.debug.as_ref().map_or(0, |padding| 2 * (padding.overhead - padding.before));
            edges.give(data_end..data_end.saturating_add(padding).min(stop), Fate::Keep);
        }
        edges.give(block.start..stop, Fate::Zero);
    }

    /// The object's own bytes; the rest of its block is given by the caller.
    fn object(
        &self,
        edges: &mut Edges,
        [reader, remote]: [&mut Reader; 2],
        model: &Model,
        allocation: Allocation,
        shape: &Shape,
        end: u64,
    ) {
        let addr = allocation.data + u64::from(shape.presize);
        let base = addr.saturating_add(shape.basicsize.into());
        let head = addr + model.layout.object.size;
        let mut items = || {
            let count = model.size_field(remote, addr).map_or(0, i64::unsigned_abs);
            count.saturating_mul(shape.itemsize.into())
        };
        // Links; those of an object that is not tracked are what was there before.
        edges.give(allocation.data..addr.saturating_sub(OLD_REFS).min(end), Fate::Fields);
        if model.gc_head > OLD_REFS && shape.has_gc() {
            // 2.7 to 3.6: the count, which says that it is not tracked, and what aligns the object.
            edges.give(addr - OLD_REFS..addr - 8, Fate::Keep);
            edges.give(addr - 8..addr, Fate::Zero);
        }
        edges.give(allocation.data..addr.min(end), Fate::Fields);
        edges.give(addr..head.min(end), Fate::Keep);
        match shape.family {
            Family::Str => {
                let Some(s) = str_shape(model, reader, addr) else {
                    return edges.give(head..end, Fate::Fields);
                };
                let l = &model.layout;
                if let Some(ascii) = l.ascii {
                    edges.give(head..addr + ascii.hash, Fate::Keep);
                    edges.give(addr + ascii.hash..addr + ascii.hash + 8, Fate::Ones);
                    // Its first byte has all there is; 3.15 leaves the others as they were.
                    edges.give(addr + ascii.hash + 8..addr + ascii.state + 1, Fate::Keep);
                    edges.give(addr + ascii.state + 1..addr + ascii.state + 8, Fate::Zero);
                }
                let compact = if s.ascii { l.ascii.map(|a| a.size) } else { l.compact.map(|c| c.size) };
                let fixed = if s.compact { compact.map_or(head, |size| addr + size) } else { base };
                edges.give(head..fixed.min(end), Fate::Keep);
                if s.compact && self.is_name(model, reader, addr, s.length) {
                    let bytes = (s.length + 1).saturating_mul(s.kind);
                    edges.give(fixed..fixed.saturating_add(bytes).min(end), Fate::Keep);
                }
            }
            Family::Bytes => {
                let l = &model.layout;
                let data = l.old_str.map(|old| old.ob_sval).or(l.bytes.map(|bytes| bytes.ob_sval));
                let Some(sval) = data else { return edges.give(head..end, Fate::Zero) };
                // ob_size, ob_shash
                edges.give(head..head + 8, Fate::Keep);
                edges.give(head + 8..head + 16, Fate::Ones);
                edges.give(head + 16..(addr + sval).min(end), Fate::Keep);
                let length = model.size_field(remote, addr).map_or(0, i64::unsigned_abs);
                let is_name =
                    self.is_name(model, reader, addr, if model.is_two() { length } else { u64::MAX });
                edges.give(
                    addr + sval..(addr + sval).saturating_add(length).saturating_add(1).min(end),
                    if is_name { Fate::Keep } else { Fate::Zero },
                );
                // What a subclass adds stands behind the bytes.
                if !shape.exact {
                    edges.give(addr + sval..end, Fate::Addresses);
                }
            }
            Family::Int => {
                let (count, first) = (digits(model, reader, addr).unwrap_or(0), digits_at(model));
                let plain = count <= PLAIN_DIGITS;
                if let Some(first) = first.filter(|_| !plain) {
                    // The highest digit stays: an int has none that is zero there.
                    let top = (addr + first).saturating_add(4 * (count - 1)).min(end);
                    edges.give(head..addr + first, Fate::Keep);
                    edges.give(addr + first..top, Fate::Zero);
                    edges.give(top..(top + 4).min(end), Fate::Keep);
                } else {
                    edges.give(head..(base + 4 * count).min(end), Fate::Keep);
                }
                if !shape.exact {
                    edges.give(head..end, Fate::Addresses);
                }
            }
            Family::CData => {
                let value = model.layout.cdata.map_or(base, |cdata| addr + cdata.b_value);
                edges.give(head..value.min(end), Fate::Keep);
                edges.give(value..end, Fate::Addresses);
            }
            Family::Decimal => {
                decimal(edges, model, reader, addr, end);
                edges.give(head..base.min(end), Fate::Addresses);
            }
            Family::DateTime => {
                let laid_out = self.inspection.census.laid_out_in_c(shape.id as usize);
                date_time(edges, model, reader, addr, laid_out.into(), end);
                self.rest(edges, reader, model, addr, base, 0, shape, end);
            }
            Family::Plain => {
                let hidden = self.inspection.census.laid_out_in_c(shape.id as usize);
                if shape.itemsize > 0 {
                    edges.give(head..(head + 8).min(end), Fate::Keep);
                }
                let hidden = addr.saturating_add(hidden.into()).min(end);
                edges.give(head..hidden, Fate::Fields);
                self.rest(edges, reader, model, addr, base, items(), shape, end);
            }
            _ => {
                for (range, fate) in peculiar(model, shape.family, addr).into_iter().flatten() {
                    edges.give(head..range.start.min(base).min(end), Fate::Keep);
                    edges.give(range.start..range.end.min(base).min(end), fate);
                }
                self.rest(edges, reader, model, addr, base, items(), shape, end);
            }
        }
    }

    /// Does that text name a type, or is it one by which facts are found?
    fn is_name(&self, model: &Model, reader: &mut Reader, addr: u64, length: u64) -> bool {
        self.names.contains(&addr)
            || length <= KNOWN_LENGTH
                && read_text(model, reader, addr, KNOWN_LENGTH as usize + 1)
                    .is_some_and(|text| KNOWN_TEXTS.contains(&text.as_str()))
    }

    /// What is references or numbers to the end of what an object says it has.
    #[expect(clippy::too_many_arguments, reason = "what was found out of one object")]
    fn rest(
        &self,
        edges: &mut Edges,
        reader: &mut Reader,
        model: &Model,
        addr: u64,
        base: u64,
        items: u64,
        shape: &Shape,
        end: u64,
    ) {
        let fixed = if is_unwritten(model, reader, shape, addr) { Fate::Fields } else { Fate::Keep };
        edges.give(addr..base.min(end), fixed);
        let mut own = base;
        if shape.itemsize > 0 {
            let (until, fate) = match shape.family {
                // They have items, but say nowhere how many.
                Family::Generator => (end, Fate::Addresses),
                // A structseq has more than it shows.
                Family::Tuple => (base.saturating_add(items).saturating_add(64 * 8), Fate::Addresses),
                // Definitions of slots, and one that ends them.
                Family::Type => {
                    (base.saturating_add(items).saturating_add(shape.itemsize.into()), Fate::Fields)
                }
                Family::Code => (base.saturating_add(items), Fate::Keep),
                Family::Frame => (end, Fate::Addresses),
                // Too small for references: the characters of a pattern.
                _ if shape.itemsize < 8 => (base.saturating_add(items), Fate::Zero),
                _ => (base.saturating_add(items), Fate::Fields),
            };
            edges.give(base..until.min(end), fate);
            own = until;
        }
        if shape.flags & flags::INLINE_VALUES != 0 {
            // Their number is the first byte of the values (3.13+).
            let bytes = reader.u8(base).map_or(0, |capacity| inline_values_bytes(capacity.into()));
            own = own.max(base.saturating_add(bytes));
            values(edges, model, reader, base, own.min(end));
        }
        if shape.dictoffset != 0 {
            edges.give(own..end, Fate::Addresses);
        }
    }
}

/// A table of keys, without what tells of their hashes.
fn table(edges: &mut Edges, model: &Model, reader: &mut Reader, allocation: Allocation, end: u64) {
    let data = allocation.data;
    let entries = keys(model, reader, allocation);
    if keys_table(model, reader, data).is_some() {
        let indices = model.layout.dict_keys.map_or(0, |keys| keys.dk_indices);
        edges.give(data..(data + indices).min(end), Fate::Keep);
        // At which index an entry stands is a part of the hash. -1: none stands there.
        edges.give(data..entries.range.start.min(end), Fate::Ones);
    }
    let fate = if entries.hash.is_some() { Fate::Entries } else { Fate::Addresses };
    edges.give(entries.range.start..entries.range.end.min(end), fate);
}

/// Values of a dict or of an instance, those inside of it too.
fn values(edges: &mut Edges, model: &Model, reader: &mut Reader, data: u64, end: u64) {
    let table = values_table(model, reader, data);
    let (Some(count), Some(layout)) = (table.count, model.layout.dict_values) else {
        edges.give(data..table.sizes.start.min(end), Fate::Zero);
        edges.give(table.sizes.start..table.sizes.end.min(end), Fate::Keep);
        return edges.give(data..end, Fate::Addresses);
    };
    // How many there are and are set, two flags, nothing; the values; in which order they were set, and nothing.
    let sizes = layout.valid.map_or(table.first, |valid| data + valid + 1);
    edges.give(data..sizes.min(end), Fate::Keep);
    edges.give(data..table.first.min(end), Fate::Zero);
    let order = table.first + 8 * count;
    edges.give(data..order.min(end), Fate::Addresses);
    let set = layout.size_byte.and_then(|at| reader.u8(data + at).ok()).map_or(0, u64::from);
    edges.give(order..(order + set.min(count)).min(end), Fate::Keep);
    edges.give(order..table.sizes.end.min(end), Fate::Zero);
}

/// Fields that are not kept as they are: hashes, small tables with such, and what was never set. In order.
fn peculiar(model: &Model, family: Family, addr: u64) -> [Option<(Range<u64>, Fate)>; 3] {
    let l = &model.layout;
    let hash = |at: Option<u64>| at.map(|at| (addr + at..addr + at + 8, Fate::Ones));
    match family {
        Family::Unicode => [hash(l.unicode.hash), None, None],
        Family::Tuple => [hash(l.tuple.ob_hash), None, None],
        Family::Set => {
            let table = (small_set(model, addr).range, Fate::Addresses);
            let mut fields = [hash(l.set.hash), Some(table), None];
            // Python 2 has the hash behind the table.
            fields[..2].sort_by_key(|field| field.as_ref().map(|(range, _)| range.start));
            fields
        }
        Family::Dict => {
            // What other types add to a dict is references, and of a frozendict the hash.
            let own = l.table.size("PyDictObject").unwrap_or(l.object.size);
            let small = small_dict(model, addr).map(|small| (small.range, Fate::Entries));
            [small, Some((addr + own..u64::MAX, Fate::Fields)), None]
        }
        Family::Generator => {
            let generator = l.generator.map(|generator| (generator.gi_frame_state, generator.gi_iframe));
            let Some((Some(state), Some(frame))) = generator else { return [None, None, None] };
            // 3.11+: references, then flags, of which a generator sets the last one alone.
            let flags = addr + (state & !7);
            [
                Some((addr + l.object.size..flags, Fate::Addresses)),
                Some((flags..addr + state, Fate::Zero)),
                Some((addr + state + 1..addr + frame, Fate::Zero)),
            ]
        }
        _ => [None, None, None],
    }
}

/// A Decimal: what describes it, and the digits when one word has them all, 19 at most.
fn decimal(edges: &mut Edges, model: &Model, reader: &mut Reader, addr: u64, end: u64) {
    let (Some(decimal), Some(mpd)) = (model.layout.decimal, model.layout.mpd) else { return };
    let number = addr + decimal.dec;
    // The hash is made of all digits.
    edges.give(addr + model.layout.object.size..number.min(end), Fate::Ones);
    edges.give(number..(number + mpd.flags + 1).min(end), Fate::Keep);
    edges.give(number..(number + mpd.exp).min(end), Fate::Zero);
    edges.give(number..(number + mpd.size).min(end), Fate::Keep);
    let digits = number + mpd.size;
    if reader.u64(number + mpd.len) == Ok(1) {
        edges.give(digits..(digits + 8).min(end), Fate::Keep);
    }
    let object = model.layout.table.size("PyDecObject").map_or(digits, |size| addr + size);
    edges.give(digits..object.min(end), Fate::Zero);
}

/// A `datetime` or `time`: the fields, one byte each or more, and the zone if there is one.
fn date_time(edges: &mut Edges, model: &Model, reader: &mut Reader, addr: u64, laid_out: u64, end: u64) {
    /// `_PyDateTime_DATETIME_DATASIZE`, `_PyDateTime_TIME_DATASIZE`.
    const DATA: [(&str, u64); 2] = [("PyDateTime_DateTime", 10), ("PyDateTime_Time", 6)];
    let table = &model.layout.table;
    let Some((name, bytes)) = DATA.into_iter().find(|(name, _)| table.size(name) == Some(laid_out)) else {
        return;
    };
    let fields = (table.offset(name, "hastzinfo"), table.offset(name, "data"), table.offset(name, "tzinfo"));
    let (Some(aware), Some(data), Some(zone)) = fields else { return };
    let last = table.offset(name, "fold").map_or(data + bytes, |fold| fold + 1);
    let is_aware = reader.u8(addr + aware).is_ok_and(|flag| flag != 0);
    edges.give(addr + model.layout.object.size..(addr + aware).min(end), Fate::Ones);
    edges.give(addr + aware..(addr + last).min(end), Fate::Keep);
    edges.give(addr + aware..(addr + zone).min(end), Fate::Zero);
    // Without a zone the object ends here, unless another type goes on.
    let fate = if is_aware { Fate::Addresses } else { Fate::Zero };
    edges.give(addr + zone..(addr + laid_out).min(end), fate);
}

/// Chunks that follow each other: of each its header and its links.
fn free_chunks(edges: &mut Edges, reader: &mut Reader, range: Range<u64>, in_bins: bool) {
    let mut at = range.start;
    while at < range.end {
        let size = reader.u64(at.saturating_add(8)).map_or(0, |size| size & !15);
        // Damage ends the walk.
        let next = at.saturating_add(size.max(32)).min(range.end);
        edges.give(at..(at + 8).min(next), Fate::Zero);
        // Caches are linked one way, bins both ways, and large chunks there by size, too.
        let head = match in_bins {
            false => 24,
            true if size < LARGE => 32,
            true => 48,
        };
        edges.give(at..(at + head).min(next), Fate::Keep);
        edges.give(at..next, Fate::Zero);
        at = next;
    }
    if in_bins {
        // The next chunk's first word says how large this free one is.
        edges.give(range.end..range.end + 8, Fate::Keep);
    }
}

/// What blocks of a kind hold.
fn inside(kind: &crate::Kind) -> Inside {
    let part = Part::ALL.iter().find(|part| part.name() == kind.kind);
    match (kind.domain, part) {
        (Domain::CPython, Some(part)) => match part {
            Part::DictKeys | Part::SharedKeys => Inside::Keys,
            Part::DictValues => Inside::Values,
            // Past the last item is what was there before.
            Part::ListItems
            | Part::SetTable
            | Part::DequeBlock
            | Part::OrderedDictIndex
            | Part::SpareFrame => Inside::All(Fate::Addresses),
            Part::OrderedDictNode
            | Part::StructCodes
            | Part::ElementChildren
            | Part::IteratorIndices
            | Part::Lock
            | Part::CodeData
            | Part::TypeData
            | Part::ModuleState
            | Part::Held => Inside::All(Fate::Fields),
            Part::StrCharacters
            | Part::StrUtf8
            | Part::StrWide
            | Part::ByteArrayBuffer
            | Part::ArrayBuffer
            | Part::IoBuffer
            | Part::CtypesBuffer
            | Part::DecimalDigits => Inside::All(Fate::Zero),
        },
        (Domain::CPython, _) if kind.kind == "static type" => Inside::Type,
        // Links, and what the objects were before.
        (Domain::CPython, _) if kind.kind == "free list" => Inside::All(Fate::Fields),
        // A stream has flags and addresses; what went through it is in its buffer.
        (Domain::Native, _) if kind.kind == "FILE" => Inside::All(Fate::Keep),
        // Blocks that state their sizes.
        (Domain::Native, _) if kind.kind.starts_with("sqlite ") => Inside::All(Fate::Fields),
        (Domain::CPython, _) if kind.kind == "parser arena" => Inside::All(Fate::Fields),
        // What was found by pointing or by shape may hold text.
        (Domain::CPython, _) if kind.sure != Sure::Exact => Inside::All(Fate::Addresses),
        (Domain::CPython | Domain::Malloc, _) => Inside::All(runtime(&kind.kind)),
        _ => Inside::All(Fate::Addresses),
    }
}

/// What blocks hold that the interpreter and malloc keep for themselves. All else may be text: the interpreter's
/// configuration has the whole command line.
fn runtime(kind: &str) -> Fate {
    match kind {
        "interpreter state"
        | "thread state"
        | "thread bookkeeping"
        | "pymalloc arenas"
        | "pymalloc radix tree"
        | "pymalloc state"
        // Sizes, addresses and line numbers; the latter are not aligned.
        | "tracemalloc"
        | "tcache table" => Fate::Keep,
        "lock"
        | "cross-interpreter data"
        | "extension modules"
        | "built-in modules"
        | "audit hook"
        | "static strings"
        | "constants"
        | "atexit callbacks"
        | "identifiers" => Fate::Fields,
        _ => Fate::Addresses,
    }
}
/// Does an object's fixed part hold what was there before? Of a frame up to 3.10 the blocks it has not entered do;
/// from 3.11 on the whole inner frame, until the function ends and it moves there.
fn is_unwritten(model: &Model, reader: &mut Reader, shape: &Shape, addr: u64) -> bool {
    let frame = model.layout.frame;
    let mut is_inside = || {
        let [at, data] = [frame?.f_frame?, frame?.f_frame_data?].map(|offset| addr.wrapping_add(offset));
        Some(reader.u64(at).ok()? == data)
    };
    shape.family == Family::Frame && is_inside() != Some(true)
}
