//! Blocks that are in use for the allocator and dead for Python: what CPython keeps for the next
//! object of the same kind.
//!
//! Up to 3.9 the lists are statics, from 3.10 on fields of the interpreter state, from 3.13 on
//! `interp->object_state.freelists`. A dead object has reference count 0 up to 3.13; from 3.14 on its
//! first word is the link to the next one, so that only the list tells (Include/internal/pycore_freelist.h).

use crate::runtime::Python;
use std::ops::Range;
use wmr_memory::{Image, Reader, Target};

/// Cached objects of one list. Every list but 2.7's ints and floats is bounded by CPython itself, at
/// 200 (frames) or less for most.
const MAX_LENGTH: u64 = 1 << 16;
/// 2.7 never gives blocks of ints and floats back: a list is as long as the most there ever were.
const MAX_NUMBERS: u64 = 1 << 25;
/// Arrays of lists: one per tuple length (PyTuple_MAXSAVESIZE).
const TUPLE_LISTS: u64 = 20;
/// Arrays of objects: PyList_MAXFREELIST, PyDict_MAXFREELIST and the rest.
const MAX_ARRAY: u64 = 80;

/// A dead object, or a spare table, in a block that is still allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dead {
    /// Where the object begins: behind its GC head, not the start of the block.
    pub addr: u64,
    /// The type's name, or "dict keys", "frame", "bigint", "object stack".
    pub kind: &'static str,
}

/// Everything on the free lists.
#[derive(Debug, Clone, Default)]
pub struct FreeLists {
    /// By address, each once.
    pub dead: Vec<Dead>,
    /// Numbers of 2.7, which live in blocks of their own.
    pub number_blocks: Vec<NumberBlock>,
    /// Arrays of pointers to dead objects; past their count they point at what was dead once.
    pub arrays: Vec<Range<u64>>,
    /// What could not be read, and what it costs.
    pub notes: Vec<String>,
}

impl FreeLists {
    /// Is there a dead object at `addr`?
    pub fn find(&self, addr: u64) -> Option<&Dead> {
        let i = self.dead.binary_search_by_key(&addr, |d| d.addr).ok()?;
        self.dead.get(i)
    }
}

/// 2.7's `PyIntBlock` and `PyFloatBlock`: a malloc block of a link and 41 objects. Slots that are in
/// [`FreeLists::dead`] are free, the others are live objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NumberBlock {
    /// Start of the malloc block.
    pub addr: u64,
    /// "int" or "float".
    pub kind: &'static str,
    /// The first object.
    pub first: u64,
    pub stride: u64,
    pub count: u64,
}

/// How the members of a list hang together.
#[derive(Debug, Clone, Copy)]
enum Shape {
    /// A pointer to the first; each has the next at a place of its own.
    Chain(Link),
    /// As many chains as there are tuple lengths, `stride` bytes from head to head.
    Chains(Link, u64),
    /// Pointers in an array, as many as the counter says.
    Array,
    /// A pointer to the only one.
    One,
}

/// The word of a dead object that holds the next one's address.
#[derive(Debug, Clone, Copy)]
enum Link {
    /// Word 0: what is no object, and everything from 3.14 on.
    First,
    ObType,
    Field(&'static str, &'static str),
}

struct List {
    head: &'static str,
    count: &'static str,
    shape: Shape,
    kind: &'static str,
    /// Members are objects whose reference count stays 0 while they are dead.
    counted: bool,
}

const fn list(head: &'static str, count: &'static str, shape: Shape, kind: &'static str) -> List {
    List { head, count, shape, kind, counted: true }
}

const fn plain(head: &'static str, count: &'static str, shape: Shape, kind: &'static str) -> List {
    List { head, count, shape, kind, counted: false }
}

const TUPLE_LINK: Link = Link::Field("PyTupleObject", "ob_item");
const CONTEXT_LINK: Link = Link::Field("PyContext", "ctx_weakreflist");
const EXCEPTION_LINK: Link = Link::Field("PyBaseExceptionObject", "dict");
const FRAME_LINK: Link = Link::Field("PyFrameObject", "f_back");

/// Fields of `_is`, 3.10 to 3.12 (and the few that stayed there).
const IN_INTERPRETER: &[List] = &[
    list("float_state.free_list", "", Shape::Chain(Link::ObType), "float"),
    list("tuple.free_list", "", Shape::Chains(TUPLE_LINK, 8), "tuple"),
    list("list.free_list", "list.numfree", Shape::Array, "list"),
    list("dict_state.free_list", "dict_state.numfree", Shape::Array, "dict"),
    plain("dict_state.keys_free_list", "dict_state.keys_numfree", Shape::Array, "dict keys"),
    list("frame.free_list", "", Shape::Chain(FRAME_LINK), "frame"),
    list(
        "async_gen.value_freelist",
        "async_gen.value_numfree",
        Shape::Array,
        "async_generator_wrapped_value",
    ),
    list("async_gen.asend_freelist", "async_gen.asend_numfree", Shape::Array, "async_generator_asend"),
    list("context.freelist", "", Shape::Chain(CONTEXT_LINK), "Context"),
    list("slice_cache", "", Shape::One, "slice"),
    list("exc_state.memerrors_freelist", "", Shape::Chain(EXCEPTION_LINK), "MemoryError"),
];

/// Fields of `_Py_object_freelists`, 3.13.
const IN_OBJECT_FREELISTS: &[List] = &[
    list("floats.items", "", Shape::Chain(Link::ObType), "float"),
    list("tuples.items", "", Shape::Chains(TUPLE_LINK, 8), "tuple"),
    list("lists.items", "lists.numfree", Shape::Array, "list"),
    list("dicts.items", "dicts.numfree", Shape::Array, "dict"),
    plain("dictkeys.items", "dictkeys.numfree", Shape::Array, "dict keys"),
    list("slices.slice_cache", "", Shape::One, "slice"),
    list("contexts.items", "", Shape::Chain(CONTEXT_LINK), "Context"),
    list("async_gens.items", "async_gens.numfree", Shape::Array, "async_generator_wrapped_value"),
    list("async_gen_asends.items", "async_gen_asends.numfree", Shape::Array, "async_generator_asend"),
    plain("object_stacks.items", "", Shape::Chain(Link::First), "object stack"),
];

/// Fields of `_Py_freelists`, which the tables call by its older name, 3.14+: each a
/// `struct _Py_freelist` {freelist, size}.
const IN_FREELISTS: &[List] = &[
    plain("floats.freelist", "", Shape::Chain(Link::First), "float"),
    plain("complexes.freelist", "", Shape::Chain(Link::First), "complex"),
    plain("ints.freelist", "", Shape::Chain(Link::First), "int"),
    plain("tuples", "", Shape::Chains(Link::First, 16), "tuple"),
    plain("lists.freelist", "", Shape::Chain(Link::First), "list"),
    plain("list_iters.freelist", "", Shape::Chain(Link::First), "list_iterator"),
    plain("tuple_iters.freelist", "", Shape::Chain(Link::First), "tuple_iterator"),
    plain("dicts.freelist", "", Shape::Chain(Link::First), "dict"),
    plain("dictkeys.freelist", "", Shape::Chain(Link::First), "dict keys"),
    plain("slices.freelist", "", Shape::Chain(Link::First), "slice"),
    plain("ranges.freelist", "", Shape::Chain(Link::First), "range"),
    plain("range_iters.freelist", "", Shape::Chain(Link::First), "range_iterator"),
    plain("contexts.freelist", "", Shape::Chain(Link::First), "Context"),
    plain("async_gens.freelist", "", Shape::Chain(Link::First), "async_generator_wrapped_value"),
    plain("async_gen_asends.freelist", "", Shape::Chain(Link::First), "async_generator_asend"),
    plain("futureiters.freelist", "", Shape::Chain(Link::First), "FutureIter"),
    plain("object_stack_chunks.freelist", "", Shape::Chain(Link::First), "object stack"),
    plain("unicode_writers.freelist", "", Shape::Chain(Link::First), "unicode writer"),
    plain("bytes_writers.freelist", "", Shape::Chain(Link::First), "bytes writer"),
    plain("pycfunctionobject.freelist", "", Shape::Chain(Link::First), "builtin_function_or_method"),
    plain("pycmethodobject.freelist", "", Shape::Chain(Link::First), "builtin_method"),
    plain("pymethodobjects.freelist", "", Shape::Chain(Link::First), "method"),
];

/// Statics that have a name of their own, up to 3.9.
const STATICS: &[List] = &[
    plain("keys_free_list", "numfreekeys", Shape::Array, "dict keys"),
    list("ag_value_freelist", "ag_value_freelist_free", Shape::Array, "async_generator_wrapped_value"),
    list("ag_asend_freelist", "ag_asend_freelist_free", Shape::Array, "async_generator_asend"),
    list("ctx_freelist", "", Shape::Chain(CONTEXT_LINK), "Context"),
    list("memerrors_freelist", "", Shape::Chain(EXCEPTION_LINK), "MemoryError"),
    list("slice_cache", "", Shape::One, "slice"),
];

impl Python {
    /// What is on CPython's free lists, of all interpreters.
    pub fn free_lists(&self, target: &Target) -> FreeLists {
        let mut walk = Walk { python: self, reader: target.reader(), out: FreeLists::default() };
        let table = &self.layout.table;
        let freelists = table.offset("_is", "object_state.freelists");
        for interpreter in &self.interpreters {
            walk.all(IN_INTERPRETER, |field| {
                Some(interpreter.addr.wrapping_add(table.offset("_is", field)?))
            });
            let modern = table.offset("_Py_object_freelists", "floats.freelist").is_some();
            walk.all(if modern { IN_FREELISTS } else { IN_OBJECT_FREELISTS }, |field| {
                let at = table.offset("_Py_object_freelists", field)?;
                Some(interpreter.addr.wrapping_add(freelists?).wrapping_add(at))
            });
        }
        if !self.version.at_least(3, 10) {
            match self.image(target) {
                Some(image) if image.symbol("free_list").is_some() => walk.statics(image),
                _ => walk.out.notes.push(
                    "the free lists of a stripped CPython are not known: dead floats count as unknown blocks"
                        .into(),
                ),
            }
        }
        let mut out = walk.out;
        out.dead.sort_unstable();
        out.dead.dedup_by_key(|d| d.addr);
        out
    }
}

struct Walk<'a, 'm> {
    python: &'a Python,
    reader: Reader<'m>,
    out: FreeLists,
}

impl Walk<'_, '_> {
    fn all(&mut self, lists: &[List], place: impl Fn(&str) -> Option<u64>) {
        for list in lists {
            if let Some(head) = place(list.head) {
                self.list(list, head, place(list.count));
            }
        }
    }

    /// Walks one list from the address of its head and that of its counter.
    fn list(&mut self, list: &List, head: u64, count_at: Option<u64>) {
        match list.shape {
            Shape::One => {
                let object = self.reader.u64(head).unwrap_or(0);
                self.push(list, object);
            }
            Shape::Chain(link) => self.chain(list, head, link),
            Shape::Chains(link, stride) => {
                for i in 0..TUPLE_LISTS {
                    self.chain(list, head.wrapping_add(i * stride), link);
                }
            }
            Shape::Array => {
                let Some(count) = count_at.and_then(|at| self.reader.u32(at).ok()).map(u64::from) else {
                    return;
                };
                if count > MAX_ARRAY {
                    self.out
                        .notes
                        .push(format!("the free list of {} claims {count} entries: not read", list.kind));
                    return;
                }
                // Where the counter follows, it tells how long the array is.
                let room = count_at.map_or(0, |at| at.wrapping_sub(head));
                let bytes = if room <= MAX_ARRAY * 8 { room.max(count * 8) } else { count * 8 };
                let array = head..head.saturating_add(bytes);
                let is_known = self.out.arrays.last().is_some_and(|last| last.contains(&head));
                self.out.arrays.extend((!is_known).then_some(array));
                for i in 0..count {
                    let object = self.reader.u64(head.wrapping_add(i * 8)).unwrap_or(0);
                    self.push(list, object);
                }
            }
        }
    }

    fn chain(&mut self, list: &List, head: u64, link: Link) {
        let first = self.reader.u64(head).unwrap_or(0);
        let offset = match link {
            Link::First => Some(0),
            Link::ObType => Some(self.python.layout.object.ob_type),
            Link::Field(object, field) => self.python.layout.table.offset(object, field),
        };
        if let Some(offset) = offset {
            self.follow(list, first, offset, MAX_LENGTH);
        }
    }

    /// Follows a chain to its end, at most `limit` members; a loop is noticed (Brent) and reported.
    fn follow(&mut self, list: &List, first: u64, offset: u64, limit: u64) {
        let (mut mark, mut power, mut steps) = (0, 1u64, 0u64);
        let mut object = first;
        for _ in 0..limit {
            if object == 0 {
                return;
            }
            if object == mark {
                break;
            }
            if steps == power {
                (mark, power, steps) = (object, power * 2, 0);
            }
            steps += 1;
            let Ok(next) = self.reader.u64(object.wrapping_add(offset)) else { break };
            if !self.push(list, object) {
                return;
            }
            object = next;
        }
        if object != 0 {
            self.out
                .notes
                .push(format!("the free list of {} does not end: read as far as it goes", list.kind));
        }
    }

    /// Takes an object, unless it is none or alive: the empty tuple sits at the head of list 0 up to
    /// 3.10, and what would be its link is no part of it.
    fn push(&mut self, list: &List, object: u64) -> bool {
        let refcnt = self.python.layout.object.ob_refcnt;
        let dead = object != 0
            && object.is_multiple_of(8)
            && (!list.counted || self.reader.u64(object.wrapping_add(refcnt)) == Ok(0));
        if dead {
            self.out.dead.push(Dead { addr: object, kind: list.kind });
        }
        dead
    }

    /// The statics of 2.7 and 3.6 to 3.9. Nearly all are called `free_list`: their size tells arrays
    /// from pointers, the objects they hold tell the rest.
    fn statics(&mut self, image: &Image) {
        self.all(STATICS, |name| image.symbol(name));
        if self.python.version.major() == 2 {
            self.numbers(image);
        }
        let symbols =
            |name| -> Vec<(u64, u64)> { image.symbols_named(name).map(|s| (s.addr, s.size)).collect() };
        let lists = symbols("free_list");
        // Of a counter and a single pointer defined together, at most the alignment lies between.
        let gap = |a: (u64, u64), b: (u64, u64)| {
            let (low, high) = if a.0 < b.0 { (a, b) } else { (b, a) };
            high.0.saturating_sub(low.0.saturating_add(low.1))
        };
        let mut counters = symbols("numfree");
        counters.retain(|c| c.1 == 4 && !lists.iter().any(|l| l.1 == 8 && gap(*c, *l) <= 4));
        for &(at, size) in &lists {
            match size {
                8 => self.static_chain(image, at),
                160 => self.list(&list("", "", Shape::Chains(TUPLE_LINK, 8), "tuple"), at, None),
                640 => {
                    self.out.arrays.push(at..at.saturating_add(size));
                    let count = counters.iter().min_by_key(|c| gap(**c, (at, size))).map(|c| c.0);
                    let kind = self.static_array_kind(image, at);
                    self.list(&list("", "", Shape::Array, kind), at, count);
                }
                _ => {}
            }
        }
    }

    /// Dead lists, dicts and sets keep their type.
    fn static_array_kind(&mut self, image: &Image, at: u64) -> &'static str {
        let object = self.reader.u64(at).unwrap_or(0);
        let found = self.reader.u64(object.wrapping_add(self.python.layout.object.ob_type)).ok();
        let kinds = [("PyList_Type", "list"), ("PyDict_Type", "dict"), ("PySet_Type", "set")];
        let known = kinds.iter().find(|(symbol, _)| found.is_some() && image.symbol(symbol) == found);
        // An empty list has no say; a frozenset is cached as a set.
        known.map_or("set", |(_, kind)| kind)
    }

    /// A single `free_list` pointer: of frames, methods, built-in functions, floats; 2.7: unicode too.
    fn static_chain(&mut self, image: &Image, at: u64) {
        let first = self.reader.u64(at).unwrap_or(0);
        if first == 0 {
            return;
        }
        let layout = &self.python.layout;
        let found = self.reader.u64(first.wrapping_add(layout.object.ob_type)).ok();
        let is = |symbol: &str| found.is_some() && image.symbol(symbol) == found;
        let (link, kind, counted) = if is("PyFrame_Type") {
            (FRAME_LINK, "frame", true)
        } else if is("PyMethod_Type") {
            (Link::Field("PyMethodObject", "im_self"), "method", true)
        } else if is("PyCFunction_Type") {
            (Link::Field("PyCFunctionObject", "m_self"), "builtin_function_or_method", true)
        } else if is("PyUnicode_Type") {
            // 2.7: `*(PyUnicodeObject **)unicode = free_list` (Objects/unicodeobject.c).
            (Link::First, "unicode", false)
        } else if self.python.version.major() == 2 {
            // Ints and floats: [`Walk::numbers`] has them.
            return;
        } else {
            (Link::ObType, "float", true)
        };
        self.list(&List { head: "", count: "", shape: Shape::Chain(link), kind, counted }, at, None);
    }

    /// 2.7: the blocks of ints and floats, and their free slots, linked through `ob_type`.
    fn numbers(&mut self, image: &Image) {
        let layout = &self.python.layout;
        let ob_type = layout.object.ob_type;
        let (int_type, float_type) = (image.symbol("PyInt_Type"), image.symbol("PyFloat_Type"));
        // struct {link; objects[41]}, objects of 24 bytes: 992 of the 1,000 a block is meant to have.
        let (stride, count) = (24, 41);
        for symbol in image.symbols_named("block_list") {
            let mut blocks = Vec::new();
            let mut kind = None;
            let mut addr = self.reader.u64(symbol.addr).unwrap_or(0);
            while addr != 0 && (blocks.len() as u64) < MAX_NUMBERS / count {
                let Ok(next) = self.reader.u64(addr) else { break };
                let first = addr.wrapping_add(8);
                for i in 0..count {
                    let slot = first.wrapping_add(i * stride);
                    let found = self.reader.u64(slot.wrapping_add(ob_type)).ok();
                    if kind.is_none() && found.is_some() {
                        kind = match found {
                            f if f == int_type => Some("int"),
                            f if f == float_type => Some("float"),
                            _ => None,
                        };
                    }
                }
                blocks.push((addr, first));
                // Blocks are pushed at the front; a link back to the first would go round for ever.
                if blocks.first().is_some_and(|b| b.0 == next) {
                    break;
                }
                addr = next;
            }
            // No object of either type lives: nothing but free slots, of floats then (ints never run out).
            let kind = kind.unwrap_or("float");
            self.out.number_blocks.extend(blocks.into_iter().map(|(addr, first)| NumberBlock {
                addr,
                kind,
                first,
                stride,
                count,
            }));
        }
        self.out.number_blocks.sort_by_key(|b| b.addr);
        self.out.number_blocks.dedup_by_key(|b| b.addr);
        for symbol in image.symbols_named("free_list").filter(|s| s.size == 8) {
            let first = self.reader.u64(symbol.addr).unwrap_or(0);
            let at = self.out.number_blocks.partition_point(|b| b.first <= first);
            let Some(block) = at.checked_sub(1).and_then(|i| self.out.number_blocks.get(i)) else { continue };
            if first - block.first < block.stride * block.count {
                let kind = block.kind;
                self.follow(&plain("", "", Shape::One, kind), first, ob_type, MAX_NUMBERS);
            }
        }
    }
}
