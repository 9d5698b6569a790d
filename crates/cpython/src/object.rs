//! Is this block an object, and of what type?
//!
//! Candidate offsets are tried smallest first: a tuple whose first item is a class would otherwise look
//! like an instance with a pre-header. The first candidate is taken whose `ob_type` is a verified type
//! that puts just that many bytes before its objects, and whose size fits the block.

mod quick;

pub(crate) use self::quick::Quick;
pub use self::quick::{Answer, Held};
use crate::family::Family;
use crate::model::{Allocation, Api, Managed, Model, RefCount, flags};
use crate::strings::str_shape;
use crate::types::{Shape, TypeCache, TypeId};
use std::ops::Range;
use wmr_memory::Reader;

/// Objects above this go to malloc (`SMALL_REQUEST_THRESHOLD`, `Objects/obmalloc.c`).
pub const SMALL_REQUEST: u64 = 512;

/// No object lies lower (`vm.mmap_min_addr`).
const LEAST_ADDRESS: u64 = 0x1_0000;
/// Fields a structseq keeps past `ob_size`; the standard library's largest has fewer.
const MAX_HIDDEN_FIELDS: u64 = 24;

const PAGE: u64 = 4096;

/// How a block's allocator rounds, which decides what "the size fits" means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Requests are rounded up to the size class.
    Pymalloc { block: u64 },
    /// Requests are rounded up by malloc, which may leave another 16 bytes that it could not split off.
    Malloc,
    /// The request, with a header, is rounded up to whole pages.
    Mmapped,
    /// A slot made for just this kind of object.
    Slot,
}

/// What speaks for an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    /// Type, size and reference count fit.
    Plausible,
    /// In the collector's lists: its neighbour there points back at it.
    Linked,
}

/// An object found in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Object {
    pub addr: u64,
    pub shape: Shape,
    pub evidence: Evidence,
    /// In a list of the collector.
    pub tracked: bool,
}

impl Object {
    /// Only its items can tell whether it is the tuple that it seems to be.
    pub fn is_lone_tuple(&self) -> bool {
        self.shape.family == Family::Tuple && self.evidence != Evidence::Linked
    }
}

/// The same, as it is found: 24 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub addr: u64,
    /// Its type.
    pub id: TypeId,
    /// The same in the cache of types that was asked.
    index: u32,
    /// [`Evidence::Linked`]
    pub linked: bool,
    /// There may be blocks of its own.
    pub owns: bool,
    /// [`Object::is_lone_tuple`]
    pub is_lone_tuple: bool,
}

/// State of a GC head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GcHead {
    Linked,
    Untracked,
    Damaged,
}

/// Beyond the end of any block.
const NOWHERE: u64 = 1 << 62;

/// Identifies the object of a used block.
pub struct Identifier<'r, 'a, 't> {
    pub types: &'r mut TypeCache<'a, 't>,
    model: &'t Model,
    /// Offsets at which it may begin, ascending.
    candidates: [u64; 3],
    remote: Reader<'r>,
    /// Whether the items of a tuple are objects is asked by somebody else.
    trusts_items: bool,
    /// Whether neighbours in the collector's lists point back that both are beyond this is asked by somebody else.
    trusted_beyond: Range<u64>,
}

impl<'r, 'a, 't> Identifier<'r, 'a, 't> {
    pub fn new(types: &'r mut TypeCache<'a, 't>, reader: Reader<'r>) -> Self {
        let model = types.model();
        let gc = model.gc_head;
        let behind_head = if gc == 0 { NOWHERE } else { gc };
        let behind_all = if model.preheader_flags == 0 { NOWHERE } else { gc + crate::model::PREHEADER };
        Identifier {
            types,
            model,
            candidates: [0, behind_head, behind_all],
            remote: reader,
            trusts_items: false,
            trusted_beyond: 0..0,
        }
    }

    /// The same, in what [`quickly`](Self::quickly) tells from now on, for whoever compares what neighbours in the
    /// collector's lists say of each other, if both are beyond `range`. Nothing is trusted beyond an empty one.
    pub fn trust_links_beyond(&mut self, range: Range<u64>) {
        self.trusted_beyond = range;
    }

    /// The same for whoever asks whether [`sampled_items`] of tuples are objects: they lie anywhere in memory.
    pub fn trusting_items(self) -> Self {
        Identifier { trusts_items: true, ..self }
    }

    /// The object in the allocation, if it holds one.
    #[inline]
    pub fn identify(
        &mut self,
        reader: &mut Reader,
        allocation: Allocation,
        source: Source,
    ) -> Option<Object> {
        // Under debug padding every object was asked for through the object domain.
        if self.model.debug.is_some() && allocation.api != Api::Object {
            return None;
        }
        let header = self.model.layout.object.ob_type;
        for offset in self.candidates {
            if offset + header + 8 > allocation.size {
                continue;
            }
            let addr = allocation.data + offset;
            let Ok(word) = reader.u64(addr + header) else { continue };
            let Some(shape) = self.types.get(word).filter(|shape| u64::from(shape.presize) == offset) else {
                continue;
            };
            let shape = *shape;
            if let Some(evidence) = self.accept(reader, &allocation, source, addr, &shape) {
                let tracked = evidence == Evidence::Linked;
                return Some(Object { addr, shape, evidence, tracked });
            }
        }
        None
    }

    /// With what its type says.
    #[inline]
    pub fn object(&self, found: &Found) -> Option<Object> {
        let shape = *self.types.shape(found.index)?;
        let evidence = if found.linked { Evidence::Linked } else { Evidence::Plausible };
        Some(Object { addr: found.addr, shape, evidence, tracked: found.linked })
    }

    fn accept(
        &mut self,
        reader: &mut Reader,
        allocation: &Allocation,
        source: Source,
        addr: u64,
        shape: &Shape,
    ) -> Option<Evidence> {
        let word = reader.u64(addr + self.model.layout.object.ob_refcnt).ok()?;
        let count = match self.model.decode_refcount(word) {
            RefCount::Implausible => return None,
            RefCount::Count(n) => n,
            // What 3.11 froze has a count that a heap may lie at.
            RefCount::Immortal => word,
        };
        if count >= LEAST_ADDRESS && self.is_object(count) {
            return None;
        }
        let gc = if shape.has_gc() { self.gc_head(reader, addr) } else { GcHead::Untracked };
        if gc == GcHead::Damaged {
            return None;
        }
        let linked = gc == GcHead::Linked;
        let need = if linked {
            // What the collector vouches for may lie in a block that was made for more, and a C type's
            // claim of its own size may be wrong.
            let header = u64::from(shape.presize) + self.model.layout.object.size;
            let need = if shape.family == Family::Plain { None } else { self.need(reader, addr, shape) };
            Need::at_least(need.map_or(header, |need| need.least))
        } else {
            self.need(reader, addr, shape)?
        };
        if !fits(need, allocation, source) {
            return None;
        }
        if !linked && !self.plausible(reader, allocation, source, addr, shape, need) {
            return None;
        }
        Some(if linked { Evidence::Linked } else { Evidence::Plausible })
    }

    /// An array of pointers may begin like an object: in a program that is not position-independent
    /// static objects and the heap lie low enough for their addresses to pass for reference counts.
    fn is_object(&mut self, addr: u64) -> bool {
        addr & 7 == 0 && self.types.type_of(&mut self.remote, addr).is_some()
    }

    /// Reads the GC head before `addr` (`Include/internal/pycore_gc.h`; the older union before 3.8).
    fn gc_head(&mut self, reader: &mut Reader, addr: u64) -> GcHead {
        let head = addr - self.model.gc_head;
        let (Ok(next), Ok(prev)) = (reader.u64(head), reader.u64(head + 8)) else { return GcHead::Damaged };
        let modern = self.model.layout.gc_head.gc_next.is_some();
        let tracked = if modern {
            next != 0
        } else {
            let Ok(refs) = reader.i64(head + 16) else { return GcHead::Damaged };
            // 2.7 keeps the count itself, 3.6 and 3.7 shifted it by one for a flag; −2 is "untracked".
            let refs = if self.model.is_two() { refs } else { refs >> 1 };
            if !(-4..1 << 40).contains(&refs) {
                return GcHead::Damaged;
            }
            refs != -2
        };
        if !tracked {
            // What remains of an untracked modern head is the "finalized" bit of `gc_prev`.
            let clean = !modern || prev & !3 == 0 || self.model.collecting;
            return if clean { GcHead::Untracked } else { GcHead::Damaged };
        }
        // The list's own head is in the runtime's data, which a build may align to four bytes only.
        let (next, prev) = (next & !3, prev & !3);
        // Both neighbours point back; one is asked, rather the one that is at hand.
        let back = if self.model.collecting {
            self.remote.u64(next.wrapping_add(8)).map(|_| head)
        } else if !reader.is_at_hand(next) && reader.is_at_hand(prev) {
            reader.u64(prev)
        } else {
            self.remote.u64(next.wrapping_add(8))
        };
        match back {
            Ok(back) if back & !3 == head => GcHead::Linked,
            _ => GcHead::Damaged,
        }
    }

    /// How many bytes of the allocation an object needs, pre-header included.
    fn need(&mut self, reader: &mut Reader, addr: u64, shape: &Shape) -> Option<Need> {
        let need = self.need_without_values(reader, addr, shape)?;
        if shape.flags & flags::INLINE_VALUES == 0 || self.model.managed != Managed::Inline {
            return Some(need);
        }
        // 3.13+: values follow: capacity, size, …, then pointers, then the insertion order. The block
        // was sized before `dk_usable` was lowered, so it may hold one value more.
        let capacity = u64::from(reader.u8(addr + u64::from(shape.basicsize)).ok()?);
        let least = need.least + inline_values_bytes(capacity);
        let most = need.most.saturating_add(inline_values_bytes(capacity + 1));
        Some(Need { least, most, ..need })
    }

    fn need_without_values(&mut self, reader: &mut Reader, addr: u64, shape: &Shape) -> Option<Need> {
        let model = self.model;
        let presize = u64::from(shape.presize);
        let base = presize + u64::from(shape.basicsize);
        let item = u64::from(shape.itemsize);
        let exact = |bytes| Some(Need { least: bytes, most: bytes, resized: false, terminator: 0 });
        match shape.family {
            Family::Int => {
                let digits = digits(self.model, reader, addr)?;
                // A difference keeps the block of its operands: only the lower bound is known.
                Some(Need::at_least(base + 4 * digits))
            }
            Family::Str => {
                let s = str_shape(model, reader, addr)?;
                let layout = &model.layout;
                // Subclasses keep their characters in a block of their own.
                if !s.compact {
                    return exact(base);
                }
                let header = if s.ascii { layout.ascii?.size } else { layout.compact?.size };
                let bytes = presize + header + (s.length + 1) * s.kind;
                Some(Need { least: bytes, most: bytes, resized: true, terminator: s.kind as u8 })
            }
            Family::Tuple => {
                let n = self.count(reader, addr, item)?;
                let bytes = base + n * item;
                // `tp_alloc` of a heap subclass adds a sentinel item; a structseq has hidden fields
                // past its visible length (`os.stat_result`: 10 of 19 and more).
                let most = if shape.is_tuple() { bytes } else { bytes + MAX_HIDDEN_FIELDS * item };
                Some(Need { least: bytes, most, resized: true, terminator: 0 })
            }
            Family::Bytes => {
                let n = self.count(reader, addr, item)?;
                let bytes = base + n;
                let most = if shape.is_heap_type() { bytes + 8 } else { bytes };
                Some(Need { least: bytes, most, resized: true, terminator: 1 })
            }
            Family::Generator => {
                let bytes = self.generator_bytes(reader, addr, shape)?;
                Some(Need::at_least(bytes))
            }
            Family::Frame => Some(Need::at_least(base)),
            Family::DateTime => {
                // `Modules/_datetimemodule.c`: `_PyDateTime_BaseTime` ends where `tzinfo` would be.
                let aware = reader.u8(addr + model.layout.datetime?.hastzinfo).ok()? != 0;
                let field = if aware { 0 } else { 8 };
                Some(Need { least: base - field, ..exact(base)? })
            }
            Family::Type => {
                // Slots' member definitions follow (one extra for the sentinel).
                let n = self.count(reader, addr, item)?;
                Some(Need { most: base + (n + 1) * item, ..exact(base + n * item)? })
            }
            _ if item != 0 => {
                let n = self.count(reader, addr, item)?;
                Some(Need::at_least(base + n * item))
            }
            _ => exact(base),
        }
    }

    /// `|ob_size|`, checked against overflow of `n × item`.
    fn count(&mut self, reader: &mut Reader, addr: u64, item: u64) -> Option<u64> {
        let n = self.model.size_field(reader, addr).ok()?.unsigned_abs();
        n.checked_mul(item.max(1)).filter(|bytes| *bytes < 1 << 46)?;
        Some(n)
    }

    /// 3.11+: the frame is inside: `gi_iframe` + locals + stack; before, a separate object.
    fn generator_bytes(&mut self, reader: &mut Reader, addr: u64, shape: &Shape) -> Option<u64> {
        let presize = u64::from(shape.presize);
        match generator_frame_bytes(self.model, reader, &mut self.remote, addr) {
            Some(bytes) => Some(presize + bytes),
            None if self.model.layout.generator?.gi_iframe.is_none() => {
                Some(presize + u64::from(shape.basicsize))
            }
            // A cleared frame has no code any more.
            None => Some(presize + self.model.layout.generator?.gi_iframe?),
        }
    }

    /// What a look at the content can rule out, for objects the collector does not vouch for.
    fn plausible(
        &mut self,
        reader: &mut Reader,
        allocation: &Allocation,
        source: Source,
        addr: u64,
        shape: &Shape,
        need: Need,
    ) -> bool {
        let model = self.model;
        // Under pymalloc a small object gets into a malloc chunk only by shrinking in place there.
        if matches!(source, Source::Malloc | Source::Mmapped)
            && model.pymalloc
            && need.least + model.debug.map_or(0, |debug| debug.overhead) <= SMALL_REQUEST
            && !matches!(
                shape.family,
                Family::Str | Family::Bytes | Family::Tuple | Family::Int | Family::Frame
            )
        {
            return false;
        }
        let end = allocation.data + need.least;
        match shape.family {
            Family::Str | Family::Bytes => {
                let last = reader.array::<4>(end - 4).unwrap_or([1; 4]);
                last[4 - usize::from(need.terminator.min(4))..].iter().all(|byte| *byte == 0)
            }
            Family::Int => self.int_plausible(reader, allocation, source, addr),
            Family::Tuple => self.trusts_items || self.items_plausible(reader, addr),
            Family::Type => {
                reader.u64(addr + model.layout.type_object.tp_flags).is_ok_and(|f| f & flags::HEAPTYPE != 0)
            }
            _ => true,
        }
    }

    /// The top digit of an int is never zero, and a digit has 30 bits.
    fn int_plausible(
        &mut self,
        reader: &mut Reader,
        allocation: &Allocation,
        source: Source,
        addr: u64,
    ) -> bool {
        // An int is never resized: a small one in a malloc chunk is what is left of a large one.
        if source == Source::Malloc && self.model.pymalloc && allocation.size < SMALL_REQUEST {
            return false;
        }
        let (Some(digits), Some(first)) = (digits(self.model, reader, addr), digits_at(self.model)) else {
            return false;
        };
        if digits == 0 {
            return true;
        }
        // 3.12+: zero has a digit, and says that it is zero in the sign bits.
        let is_zero = digits == 1
            && self
                .model
                .layout
                .long
                .long_value
                .is_some_and(|at| reader.u64(addr + at).is_ok_and(|tag| tag & 3 == 1));
        match reader.u32(addr + first + 4 * (digits - 1)) {
            Ok(0) => is_zero,
            Ok(digit) => digit < 1 << 30,
            Err(_) => false,
        }
    }

    /// Are the items of a tuple objects?
    fn items_plausible(&mut self, reader: &mut Reader, addr: u64) -> bool {
        let Some(items) = sampled_items(self.model, reader, addr) else { return false };
        items.into_iter().all(|item| item == 0 || self.types.type_of(&mut self.remote, item).is_some())
    }
}

/// A few items of a tuple, which tell whether it is one; 0 for none, and for one that is not yet set. `None`: it
/// cannot be read.
pub fn sampled_items(model: &Model, reader: &mut Reader, tuple: u64) -> Option<[u64; 3]> {
    let n = model.size_field(reader, tuple).ok()?.unsigned_abs();
    let last = n.saturating_sub(1);
    let mut items = [0; 3];
    for (item, at) in items.iter_mut().zip([0, last, last / 2]).take(n.min(3) as usize) {
        *item = reader
            .u64(tuple.wrapping_add(model.layout.tuple.ob_item).wrapping_add(at.checked_mul(8)?))
            .ok()?;
    }
    Some(items)
}

/// Bytes of the allocation an object may take.
#[derive(Debug, Clone, Copy)]
struct Need {
    least: u64,
    most: u64,
    /// `realloc` may have left it in a block made for more.
    resized: bool,
    /// Bytes at the end of `least` that are part of the object and zero.
    terminator: u8,
}

impl Need {
    /// Only the lower bound is known.
    fn at_least(least: u64) -> Need {
        Need { least, most: u64::MAX, resized: true, terminator: 0 }
    }
}

/// How a claimed size compares with the allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    Enough,
    /// The allocation is smaller than the claim.
    TooLittle,
    /// The allocation was made for more than the claim.
    TooMuch,
}

/// Compares `claim` bytes, pre-header included, with an allocation; `slack`: what an allocator of objects
/// may have added, a sentinel item.
pub fn room(claim: u64, slack: u64, allocation: Allocation, source: Source) -> Room {
    let need = Need { least: claim, most: claim.saturating_add(slack), resized: false, terminator: 0 };
    match claim > allocation.size {
        true => Room::TooLittle,
        false if fits(need, &allocation, source) => Room::Enough,
        false => Room::TooMuch,
    }
}

#[inline]
fn fits(need: Need, allocation: &Allocation, source: Source) -> bool {
    if need.least > allocation.size {
        return false;
    }
    if need.most == u64::MAX || source == Source::Slot {
        return true;
    }
    if allocation.is_exact() {
        return allocation.size <= need.most.next_multiple_of(8);
    }
    match source {
        Source::Pymalloc { block } => {
            let align = if block.is_multiple_of(16) { 16 } else { 8 };
            block.saturating_sub(need.most) < align
                // `PyObject_Realloc` keeps a block that is at least three quarters full.
                || need.resized && 4 * need.least > 3 * block
        }
        // `CHUNK_HDR_SZ` is what a mapping of its own has for a header.
        Source::Mmapped => allocation.size < need.most + 16 + PAGE,
        // Rounded to 16 with an 8-byte header, perhaps 16 more that were too few to split off.
        _ => allocation.size <= (need.most + 8).next_multiple_of(16) + 24,
    }
}

/// Digits of an int: from `ob_size`, and from 3.12 on from `lv_tag`. `None`: no int has so many.
pub fn digits(model: &Model, reader: &mut Reader, addr: u64) -> Option<u64> {
    let n = match model.layout.long.long_value {
        Some(at) => reader.u64(addr + at).ok()? >> 3,
        None => model.size_field(reader, addr).ok()?.unsigned_abs(),
    };
    (n < 1 << 40).then_some(n)
}

/// Where an int's digits begin.
pub fn digits_at(model: &Model) -> Option<u64> {
    let long = model.layout.long;
    long.ob_digit.or(long.long_value.map(|at| at + 8))
}

/// Bytes of `n` inline values (`Objects/dictobject.c`, `_PyInlineValuesSize`).
pub fn inline_values_bytes(n: u64) -> u64 {
    n.next_multiple_of(8) + 8 * (n + 1)
}

/// Bytes of a generator with its frame inside, from the object's start; `None` without such a frame.
pub fn generator_frame_bytes(
    model: &Model,
    reader: &mut Reader,
    remote: &mut Reader,
    addr: u64,
) -> Option<u64> {
    let l = &model.layout;
    let iframe = l.generator?.gi_iframe?;
    let frame = l.iframe?;
    // 3.14 tags the low bits of stack references.
    let code = reader.u64(addr + iframe + frame.code).ok()? & !3;
    let c = l.code?;
    let slots = u64::from(remote.u32(code.wrapping_add(c.co_nlocalsplus?)).ok()?)
        + u64::from(remote.u32(code.wrapping_add(c.co_stacksize)).ok()?);
    (slots < 1 << 24).then_some(iframe + frame.localsplus + 8 * slots)
}
