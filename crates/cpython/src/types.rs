//! The types of the target: which words are addresses of types, and what each type says of its
//! instances.
//!
//! A word is the address of a type if the object there has `type`, or a verified subclass of it, as
//! its own type, is marked ready, and has a sane size and name. A heap type must moreover be in a
//! block that is in use: freed memory keeps valid-looking types.

use crate::dicts;
use crate::family::Family;
use crate::model::{Model, flags};
use crate::object::Quick;
use crate::refers::{Described, Fields};
use crate::strings::read_text;
use rustc_hash::FxHashMap;
use std::ops::Range;
use std::sync::Mutex;
use wmr_alloc::Blocks;
use wmr_memory::{Reader, Target};

/// Index of a type in [`Types`], in order of first sight.
pub type TypeId = u32;

/// Longest name that is read; longer ones are cut.
const MAX_NAME: usize = 512;
/// Most entries of a type's namespace that are looked through for `__module__`.
const MAX_NAMESPACE: u64 = 1 << 16;
/// Metatypes of metatypes, bases of bases: deeper chains are damage.
const MAX_DEPTH: usize = 64;
/// Rejected words that are remembered; beyond, each is tested again.
const MAX_REJECTED: usize = 1 << 20;

/// A verified type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Type {
    pub addr: u64,
    /// `module.QualName`; built-ins without their module.
    pub name: String,
    pub module: String,
    pub shape: Shape,
    pub base: Option<TypeId>,
    /// Address of `tp_dealloc`.
    pub dealloc: u64,
    /// Its own type is a class other than `type`.
    pub has_metaclass: bool,
}

/// What the walks need of a type, small enough to keep beside every lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub id: TypeId,
    pub family: Family,
    /// The type is the one the family is named for, not a subclass.
    pub exact: bool,
    /// Bytes between the allocation's data and the object.
    pub presize: u32,
    pub basicsize: u32,
    pub itemsize: u32,
    pub flags: u64,
    pub dictoffset: i32,
    /// Where its references are.
    pub fields: Fields,
}

impl Shape {
    #[inline]
    pub fn has_gc(&self) -> bool {
        self.flags & flags::HAVE_GC != 0
    }

    /// Exactly `tuple`, not a subclass or a structseq.
    pub fn is_tuple(&self) -> bool {
        self.family == Family::Tuple && self.exact
    }

    #[inline]
    pub fn is_heap_type(&self) -> bool {
        self.flags & flags::HEAPTYPE != 0
    }
}

/// All types met so far. Shared by the threads of a pass; each goes through a [`TypeCache`].
pub struct Types<'t> {
    model: &'t Model,
    blocks: &'t Blocks,
    /// Writable ranges of the images, where static types are.
    statics: Vec<Range<u64>>,
    lowest: u64,
    inner: Mutex<Inner>,
}

/// What was found by [`Types`], to go on from when more of the blocks is known.
#[derive(Default)]
pub struct Known(Inner);

#[derive(Default)]
struct Inner {
    list: Vec<Type>,
    known: FxHashMap<u64, Option<TypeId>>,
    rejected: usize,
    /// The key that was `__module__` last: names in a class body are interned, so nearly all types have the same.
    module_key: u64,
}

impl<'t> Types<'t> {
    pub fn new(target: &Target, model: &'t Model, blocks: &'t Blocks) -> Types<'t> {
        Types::knowing(Known::default(), target, model, blocks)
    }

    /// Goes on from what was found before, with the same numbers.
    pub fn knowing(known: Known, target: &Target, model: &'t Model, blocks: &'t Blocks) -> Types<'t> {
        let mut statics: Vec<_> = target.images.iter().flat_map(|i| i.writable()).collect();
        statics.sort_by_key(|r| r.start);
        let lowest = target.mappings.first().map_or(0x1000, |m| m.start.max(0x1000));
        Types { model, blocks, statics, lowest, inner: Mutex::new(known.0) }
    }

    pub fn into_known(self) -> Known {
        Known(self.inner.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    pub fn model(&self) -> &'t Model {
        self.model
    }

    pub fn blocks(&self) -> &'t Blocks {
        self.blocks
    }

    /// The types met so far, by [`TypeId`].
    pub fn all(&self) -> Vec<Type> {
        self.lock().list.clone()
    }

    /// By [`TypeId`]: [`Shape::presize`].
    pub fn presizes(&self) -> Vec<u32> {
        self.lock().list.iter().map(|ty| ty.shape.presize).collect()
    }

    /// Is it in the writable data of an image?
    pub fn is_static(&self, addr: u64) -> bool {
        let i = self.statics.partition_point(|r| r.end <= addr);
        self.statics.get(i).is_some_and(|r| r.start <= addr)
    }

    /// A quick no to most words: a type object is larger than any block of pymalloc, so it is static or
    /// in a chunk of malloc that has room for it. To all words that lead into the same `span` the answer is no.
    fn may_be_type(&self, addr: u64, span: &mut Range<u64>) -> bool {
        let Some(found) = self.blocks.span_at(addr) else { return self.is_static(addr) };
        if !self.has_types(found) {
            *span = self.blocks.spans()[found].start..self.blocks.spans()[found].end;
            return false;
        }
        let room = self.model.layout.type_object.size;
        self.blocks.containing(addr).is_some_and(|block| block.usable >= room)
    }

    /// May there be types in the span of that index? Whole spans of malloc's are without a chunk that has room for one.
    fn has_types(&self, span: usize) -> bool {
        let is_pymalloc = self.blocks.spans()[span].kind.is_pymalloc();
        !is_pymalloc && self.blocks.may_begin(span, self.model.layout.type_object.size)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // A panic elsewhere leaves the registry whole: entries are added in one step.
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn lookup(&self, reader: &mut Reader, addr: u64) -> Option<Shape> {
        let mut inner = self.lock();
        let id = self.verify(&mut inner, reader, addr, 0)?;
        Some(inner.list[id as usize].shape)
    }

    fn verify(&self, inner: &mut Inner, reader: &mut Reader, addr: u64, depth: usize) -> Option<TypeId> {
        if let Some(known) = inner.known.get(&addr) {
            return *known;
        }
        if depth > MAX_DEPTH {
            return None;
        }
        let found = self.read_type(inner, reader, addr, depth);
        if let Some(mut ty) = found {
            // The chain may have come round to this type while its bases were read.
            if let Some(Some(id)) = inner.known.get(&addr) {
                return Some(*id);
            }
            let id = inner.list.len() as TypeId;
            ty.shape.id = id;
            inner.list.push(ty);
            inner.known.insert(addr, Some(id));
            return Some(id);
        }
        if inner.rejected < MAX_REJECTED {
            inner.rejected += 1;
            inner.known.insert(addr, None);
        }
        None
    }

    fn read_type(&self, inner: &mut Inner, reader: &mut Reader, addr: u64, depth: usize) -> Option<Type> {
        let l = self.model.layout.type_object;
        let own_type = self.model.type_of(reader, addr).ok()?;
        let tp_flags = reader.u64(addr.wrapping_add(l.tp_flags)).ok()?;
        let is_static = self.is_static(addr);
        let mut has_metaclass = false;
        if addr == self.model.type_type {
            if own_type != addr {
                return None;
            }
        } else if own_type == 0 {
            // Python 2 has static types that were never made ready, yet have instances.
            if !self.model.is_two() || !is_static {
                return None;
            }
        } else if own_type != self.model.type_type {
            // What begins like no type is an array of objects mostly: they lie all over the memory.
            let is_ready = is_static || tp_flags & flags::READY != 0;
            if !is_ready || !self.may_be_type(own_type, &mut (0..0)) {
                return None;
            }
            let meta = self.verify(inner, reader, own_type, depth + 1)?;
            if inner.list[meta as usize].shape.flags & flags::TYPE_SUBCLASS == 0 {
                return None;
            }
            has_metaclass = true;
        }
        // Some of C's types are never made ready, yet have instances: those of lru_cache's entries up to 3.9, of
        // cmp_to_key's keys, of 2.7's list iterators until one is asked for an attribute.
        if tp_flags & flags::READY == 0 && (!is_static || has_metaclass) {
            return None;
        }
        if !is_static && !self.in_used_block(inner, reader, addr, own_type) {
            return None;
        }
        let basicsize = reader.i64(addr.wrapping_add(l.tp_basicsize)).ok()?;
        let itemsize = reader.i64(addr.wrapping_add(l.tp_itemsize)).ok()?;
        // `weakref.CallableProxyType` and the like are never below the object header.
        let header = self.model.layout.object.size as i64;
        if !(header..1 << 20).contains(&basicsize) || !(0..1 << 16).contains(&itemsize) {
            // A variable-sized type may count from its items: `tuple` iterators do not, `bytes` does.
            return None;
        }
        let tp_name = reader.u64(addr.wrapping_add(l.tp_name)).ok()?;
        let raw_name = reader.cstr(tp_name, MAX_NAME).ok()?;
        // A class may have any name, none at all, control characters; a C type has a plain one.
        let any_name = tp_flags & flags::HEAPTYPE != 0 && !is_static;
        if !any_name && (raw_name.is_empty() || raw_name.iter().any(|b| *b < b' ')) {
            return None;
        }
        let base_addr = reader.u64(addr.wrapping_add(l.tp_base)).ok()?;
        let base = match base_addr {
            0 => None,
            b if b == addr => return None,
            b => self.verify(inner, reader, b, depth + 1),
        };
        let own_family =
            Family::of_name(&raw_name, basicsize as u64, self.model.is_two(), &self.model.layout);
        let family =
            own_family.or_else(|| base.map(|b| inner.list[b as usize].shape.family)).unwrap_or(Family::Plain);
        let dictoffset = reader.i64(addr.wrapping_add(l.tp_dictoffset)).unwrap_or(0);
        let dealloc = reader.u64(addr.wrapping_add(l.tp_dealloc)).unwrap_or(0);
        let described = Described {
            addr,
            name: &raw_name,
            flags: tp_flags,
            basicsize: basicsize as u64,
            itemsize: itemsize as u64,
            dictoffset,
            family: own_family,
            base: base.map(|b| inner.list[b as usize].shape),
        };
        let fields = Fields::of(self.model, reader, &described);
        let (name, module) = self.name(&mut inner.module_key, reader, addr, tp_flags, &raw_name);
        Some(Type {
            addr,
            name,
            module,
            shape: Shape {
                id: 0,
                family,
                exact: own_family.is_some(),
                presize: self.model.presize(tp_flags) as u32,
                basicsize: basicsize as u32,
                itemsize: itemsize as u32,
                flags: tp_flags,
                dictoffset: i32::try_from(dictoffset).unwrap_or(0),
                fields,
            },
            base,
            dealloc,
            has_metaclass,
        })
    }

    /// Is a type object that is not static in an allocation of its own?
    fn in_used_block(&self, inner: &Inner, reader: &mut Reader, addr: u64, own_type: u64) -> bool {
        let Some(block) = self.blocks.containing(addr) else { return false };
        let presize = match inner.known.get(&own_type) {
            Some(Some(meta)) => u64::from(inner.list[*meta as usize].shape.presize),
            // `type` itself may not have been met yet: it is a collected type.
            _ => self.model.presize(flags::HAVE_GC),
        };
        let allocation = self.model.unpad(reader, block.start, block.usable);
        // Static type objects that an extension keeps in memory of its own have no GC head.
        addr == allocation.data + presize || addr == allocation.data
    }

    /// `(qualified name, module)`: of a heap type from `ht_qualname` and `__module__`, of a static one
    /// from `tp_name` (`Objects/typeobject.c`, `type_qualname` and `type_module`).
    fn name(
        &self,
        module_key: &mut u64,
        reader: &mut Reader,
        addr: u64,
        tp_flags: u64,
        raw: &[u8],
    ) -> (String, String) {
        let builtins = if self.model.is_two() { "__builtin__" } else { "builtins" };
        let raw = String::from_utf8_lossy(raw);
        let (mut module, mut name) = match raw.rsplit_once('.') {
            Some((module, name)) => (module.to_owned(), name.to_owned()),
            None => (builtins.to_owned(), raw.to_string()),
        };
        if tp_flags & flags::HEAPTYPE != 0 {
            let l = self.model.layout.heap_type;
            if let Ok(text) = reader.u64(addr.wrapping_add(l.ht_qualname.unwrap_or(l.ht_name)))
                && let Some(text) = read_text(self.model, reader, text, MAX_NAME)
            {
                name = text;
            }
            if let Some((key, value)) = dunder_module(self.model, reader, addr, *module_key) {
                *module_key = key;
                if let Some(text) = read_text(self.model, reader, value, MAX_NAME) {
                    module = text;
                }
            }
        }
        let qualified = if module == builtins { name } else { format!("{module}.{name}") };
        (qualified, module)
    }
}

/// `__module__` in a type's namespace: the key and the value. Where `likely` is a key, it is that one and the texts
/// of the others, all over the heap, need not be read.
fn dunder_module(model: &Model, reader: &mut Reader, addr: u64, likely: u64) -> Option<(u64, u64)> {
    // One character more than needed tells "__module__" from what begins with it.
    let names_module =
        |reader: &mut Reader, key| read_text(model, reader, key, 11).as_deref() == Some("__module__");
    let dict = reader.u64(addr.wrapping_add(model.layout.type_object.tp_dict)).ok()?;
    let mut find = |is_it: &dyn Fn(&mut Reader, u64) -> bool| {
        let mut found = None;
        dicts::for_each_entry(model, reader, dict, MAX_NAMESPACE, &mut |reader, key, value| {
            found = is_it(reader, key).then_some((key, value));
            found.is_none()
        });
        found
    };
    let at_once = if likely == 0 { None } else { find(&|_, key| key == likely) };
    at_once.or_else(|| find(&names_module))
}

/// What a type's name is read from: its `str` objects, and the C string `tp_name` with its bytes.
pub fn named_by(model: &Model, reader: &mut Reader, ty: &Type) -> (Vec<u64>, Range<u64>) {
    let mut objects = Vec::new();
    if ty.shape.is_heap_type() {
        let l = model.layout.heap_type;
        let fields = [Some(l.ht_name), l.ht_qualname].into_iter().flatten();
        objects.extend(fields.filter_map(|at| reader.u64(ty.addr.wrapping_add(at)).ok()));
        objects.extend(
            dunder_module(model, reader, ty.addr, 0).into_iter().flat_map(|(key, value)| [key, value]),
        );
    }
    let text = reader.u64(ty.addr.wrapping_add(model.layout.type_object.tp_name)).unwrap_or(0);
    let length = reader.cstr(text, MAX_NAME).map_or(0, |name| name.len() as u64 + 1);
    (objects, text..text.saturating_add(length))
}

/// A thread's view of [`Types`]: lookups without the lock for words seen before.
pub struct TypeCache<'a, 't> {
    types: &'a Types<'t>,
    shapes: Vec<Shape>,
    /// Words asked for and the index in `shapes` of those that are types.
    known: FxHashMap<u64, Option<u32>>,
    quick: Vec<Quick>,
    /// The types met last, direct-mapped by address: what most lookups end at.
    recent: [Met; RECENT],
    /// What is looked at, if no type is in it.
    here: Range<u64>,
    /// Spans without types that words led to last, direct-mapped by address.
    spans: [Range<u64>; RECENT],
    /// For reading type objects: keeps the caller's cursor where it is.
    reader: Reader<'a>,
}

/// A type that was met: what is asked of most of its instances.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Met {
    addr: u64,
    /// In [`TypeCache::shapes`].
    pub index: u32,
    pub id: TypeId,
    pub quick: Quick,
}

/// A program has few types of which there are many objects.
const RECENT: usize = 64;

/// The smallest arenas of pymalloc, up to 3.9, are as large.
const SPAN_SHIFT: u32 = 18;

/// Type objects are some hundred bytes apart.
#[inline]
fn recent_slot(addr: u64) -> usize {
    (addr >> 4 ^ addr >> 10) as usize % RECENT
}

impl<'a, 't> TypeCache<'a, 't> {
    pub fn new(types: &'a Types<'t>, reader: Reader<'a>) -> Self {
        TypeCache {
            types,
            shapes: Vec::new(),
            known: FxHashMap::default(),
            quick: Vec::new(),
            recent: [Met::default(); RECENT],
            here: 0..0,
            spans: [const { 0..0 }; RECENT],
            reader,
        }
    }

    /// Tells which arena of pymalloc is looked at: addresses in it are the most frequent words that are no types.
    pub fn look_in(&mut self, arena: Range<u64>) {
        self.here = arena;
    }

    /// The same of a span, in which there may be types.
    pub fn look_in_span(&mut self, span: usize) {
        let range = &self.types.blocks.spans()[span];
        self.here = if self.types.has_types(span) { 0..0 } else { range.start..range.end };
    }

    pub fn types(&self) -> &'a Types<'t> {
        self.types
    }

    pub fn model(&self) -> &'t Model {
        self.types.model
    }

    /// The type at `addr`, if there is one.
    #[inline]
    pub fn get(&mut self, addr: u64) -> Option<&Shape> {
        let index = self.met(addr)?.index;
        self.shapes.get(index as usize)
    }

    /// The same, with what most of its instances are told by.
    #[inline]
    pub(crate) fn met(&mut self, addr: u64) -> Option<&Met> {
        let slot = recent_slot(addr);
        if self.recent[slot].addr != addr || addr == 0 {
            // Most words that are no types are addresses of small blocks.
            if self.here.contains(&addr) {
                return None;
            }
            self.find(addr)?;
        }
        Some(&self.recent[slot])
    }

    /// The shape of a type that was met.
    #[inline]
    pub(crate) fn shape(&self, index: u32) -> Option<&Shape> {
        self.shapes.get(index as usize)
    }

    /// Could it be the address of anything?
    #[inline]
    pub(crate) fn may_be_address(&self, word: u64) -> bool {
        word & 7 == 0 && word >= self.types.lowest && word >> 56 == 0
    }

    /// Looks for a type, which is the one met last where it belongs then.
    fn find(&mut self, addr: u64) -> Option<()> {
        if !self.may_be_address(addr) {
            return None;
        }
        let span = &mut self.spans[(addr >> SPAN_SHIFT) as usize % RECENT];
        if span.contains(&addr) || !self.types.may_be_type(addr, span) {
            return None;
        }
        let index = match self.known.get(&addr) {
            Some(known) => *known,
            None => self.learn(addr),
        }?;
        let (id, quick) = (self.shapes[index as usize].id, self.quick[index as usize]);
        self.recent[recent_slot(addr)] = Met { addr, index, id, quick };
        Some(())
    }

    #[cold]
    fn learn(&mut self, addr: u64) -> Option<u32> {
        let shape = self.types.lookup(&mut self.reader, addr);
        let index = shape.map(|shape| {
            self.quick.push(Quick::of(self.types.model, &shape));
            self.shapes.push(shape);
            self.shapes.len() as u32 - 1
        });
        if index.is_some() || self.known.len() < MAX_REJECTED {
            self.known.insert(addr, index);
        }
        index
    }

    /// The type of the object at `addr`, if it has a known one.
    #[inline]
    pub fn type_of(&mut self, reader: &mut Reader, addr: u64) -> Option<&Shape> {
        let word = self.types.model.type_of(reader, addr).ok()?;
        self.get(word)
    }
}
