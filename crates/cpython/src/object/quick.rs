//! Objects in blocks, told by few questions.
//!
//! Most of a program's millions of blocks hold a `str`, a number, a container or an instance, and all speaks for it:
//! type, reference count, size, the neighbour in the collector's list. That much is told from the bytes of the block.
//! Where anything is out of the ordinary, [`Identifier::identify`] has to be asked, which decides.

use super::{Found, Identifier, LEAST_ADDRESS, Need, Source};
use crate::family::Family;
use crate::model::{Allocation, Api, Managed, Model, RefCount, flags};
use crate::types::Shape;

/// What a block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Object(Found),
    Nothing,
    /// That takes more questions.
    Ask,
}

/// How the size of an instance is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Size {
    #[default]
    Ask,
    /// The collector vouches for it: it has room for its header.
    Header,
    /// What the type says.
    Fixed,
    Int,
    Str,
    Bytes,
    Tuple,
}

/// What is asked of a block for an instance of a type, 8 bytes a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Quick {
    /// Of an object in the collector's lists, and of any other.
    linked: Size,
    unlinked: Size,
    has_gc: bool,
    /// There may be blocks of its own.
    owns: bool,
    /// [`Shape::presize`]
    presize: u16,
    /// Bytes without items, those before the object included.
    base: u16,
}

impl Quick {
    pub fn of(model: &Model, shape: &Shape) -> Quick {
        let base = u64::from(shape.presize) + u64::from(shape.basicsize);
        let small = u16::try_from(base).ok();
        let has_inline_values = shape.flags & flags::INLINE_VALUES != 0 && model.managed == Managed::Inline;
        // A subclass may have the same name.
        let is_plain = shape.exact && shape.presize == 0 && !shape.has_gc();
        let unlinked = match shape.family {
            _ if small.is_none() || has_inline_values => Size::Ask,
            Family::Int if is_plain => Size::Int,
            Family::Str if is_plain => Size::Str,
            Family::Bytes if is_plain => Size::Bytes,
            Family::Tuple if shape.exact => Size::Tuple,
            Family::Int | Family::Str | Family::Bytes | Family::Tuple => Size::Ask,
            Family::Generator | Family::Frame | Family::DateTime | Family::Type => Size::Ask,
            _ if shape.itemsize != 0 => Size::Ask,
            _ => Size::Fixed,
        };
        let owns_nothing = match shape.family {
            Family::Plain => shape.flags & flags::MANAGED_DICT == 0,
            family => matches!(family, Family::Int | Family::Float | Family::Bytes | Family::Tuple),
        };
        Quick {
            linked: if shape.family == Family::Plain { Size::Header } else { unlinked },
            unlinked,
            has_gc: shape.has_gc(),
            owns: !owns_nothing,
            presize: shape.presize as u16,
            base: small.unwrap_or(u16::MAX),
        }
    }
}

/// Memory at hand, in which the blocks are.
#[derive(Clone, Copy, Default)]
pub struct Held<'r> {
    start: u64,
    bytes: &'r [u8],
}

impl<'r> Held<'r> {
    #[inline]
    fn from(&self, addr: u64) -> Option<&'r [u8]> {
        self.bytes.get(addr.wrapping_sub(self.start) as usize..)
    }
}

#[inline]
fn word(bytes: &[u8], at: u64) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at as usize..)?.first_chunk()?))
}

impl<'r> From<(u64, &'r [u8])> for Held<'r> {
    fn from((start, bytes): (u64, &'r [u8])) -> Self {
        Held { start, bytes }
    }
}

/// Is it a block that its allocator would hand out for so many bytes?
#[inline]
fn fits(bytes: u64, block: u64, source: Source, resized: bool) -> bool {
    let need = Need { least: bytes, most: bytes, resized, terminator: 0 };
    let allocation = Allocation { data: 0, size: block, api: Api::Untold };
    super::fits(need, &allocation, source)
}

impl Identifier<'_, '_, '_> {
    /// What the block at `start` holds, of so many bytes that may be used.
    // For each allocator by itself: a question of how it rounds costs a tenth.
    #[inline(always)]
    pub fn quickly(&mut self, held: Held, start: u64, bytes: u64, source: Source) -> Answer {
        let is_usual = match source {
            Source::Pymalloc { .. } => true,
            Source::Malloc => !self.model.pymalloc,
            Source::Mmapped | Source::Slot => false,
        };
        // Of padded blocks nothing is told quickly.
        if !is_usual || self.model.debug.is_some() {
            return Answer::Ask;
        }
        let Some(block) = held.from(start).and_then(|rest| rest.get(..bytes as usize)) else {
            return Answer::Ask;
        };
        let header = self.model.layout.object.ob_type;
        for at in 0..self.candidates.len() {
            let offset = self.candidates[at];
            let Some(word) = word(block, offset + header) else { continue };
            let Some(&met) = self.types.met(word) else { continue };
            if u64::from(met.quick.presize) != offset {
                continue;
            }
            let Some((linked, owns)) = self.accepts(met.quick, held, block, source, start, offset) else {
                return Answer::Ask;
            };
            let is_lone_tuple = !linked && met.quick.unlinked == Size::Tuple;
            let (addr, index, id) = (start + offset, met.index, met.id);
            return Answer::Object(Found { addr, index, id, linked, owns, is_lone_tuple });
        }
        // A type object may be an extension's own.
        if bytes < self.model.layout.type_object.size { Answer::Nothing } else { Answer::Ask }
    }

    /// Is it an instance, as all are? Whether the collector vouches for it, and whether it may own blocks.
    #[inline(always)]
    fn accepts(
        &mut self,
        quick: Quick,
        held: Held,
        block: &[u8],
        source: Source,
        start: u64,
        offset: u64,
    ) -> Option<(bool, bool)> {
        let count = word(block, offset + self.model.layout.object.ob_refcnt)?;
        let is_count = match self.model.decode_refcount(count) {
            RefCount::Implausible => false,
            RefCount::Count(n) => n < LEAST_ADDRESS,
            RefCount::Immortal => !self.types.may_be_address(count),
        };
        if !is_count {
            return None;
        }
        let linked = quick.has_gc && self.is_linked(held, block, start, offset)?;
        let room = block.len() as u64;
        let mut owns = quick.owns;
        let fits = match if linked { quick.linked } else { quick.unlinked } {
            Size::Ask => false,
            Size::Header => offset + self.model.layout.object.size <= room,
            Size::Fixed if linked => u64::from(quick.base) <= room,
            Size::Fixed => fits(quick.base.into(), room, source, false),
            Size::Int => self.is_int(quick, block)?,
            Size::Str => {
                owns = self.str_owns(block, source)?;
                true
            }
            Size::Bytes => {
                let bytes = u64::from(quick.base).checked_add(word(block, self.model.layout.object.size)?)?;
                fits(bytes, room, source, true) && block[bytes as usize - 1] == 0
            }
            Size::Tuple => {
                let items = word(block, offset + self.model.layout.object.size)?;
                let bytes = u64::from(quick.base).checked_add(items.checked_mul(8)?)?;
                if linked { bytes <= room } else { fits(bytes, room, source, true) }
            }
        };
        fits.then_some((linked, owns))
    }

    /// Is the object in a list of the collector? `None`: the head before it contradicts itself, or the collector is
    /// at work, or keeps its heads in the old way.
    #[inline]
    fn is_linked(&mut self, held: Held, block: &[u8], start: u64, offset: u64) -> Option<bool> {
        if self.model.collecting || self.model.layout.gc_head.gc_next.is_none() {
            return None;
        }
        let before = offset.checked_sub(self.model.gc_head)?;
        let [next, prev] = [word(block, before)?, word(block, before + 8)?];
        if next == 0 {
            return (prev & !3 == 0).then_some(false);
        }
        let (next, prev) = (next & !3, prev & !3);
        let near = |addr| word(held.from(addr)?, 0);
        let back = match near(next.wrapping_add(8)).or_else(|| near(prev)) {
            Some(back) => back,
            None if self.is_trusted(next) && self.is_trusted(prev) => return Some(true),
            None => self.remote.u64(next.wrapping_add(8)).ok()?,
        };
        (back & !3 == start + before).then_some(true)
    }

    #[inline]
    fn is_trusted(&self, neighbour: u64) -> bool {
        !self.trusted_beyond.is_empty() && !self.trusted_beyond.contains(&neighbour)
    }

    #[inline]
    fn is_int(&self, quick: Quick, block: &[u8]) -> Option<bool> {
        let long = self.model.layout.long;
        let (digits, is_zero, first) = match long.long_value {
            Some(at) => {
                let tag = word(block, at)?;
                (tag >> 3, tag >> 3 == 1 && tag & 3 == 1, long.ob_digit.unwrap_or(at + 8))
            }
            None => {
                ((word(block, self.model.layout.object.size)? as i64).unsigned_abs(), false, long.ob_digit?)
            }
        };
        // It may lie in a block that was made for the larger of its operands.
        let bytes = u64::from(quick.base).checked_add(digits.checked_mul(4)?)?;
        if digits == 0 || bytes > block.len() as u64 {
            return None;
        }
        let top = block.get((first + 4 * (digits - 1)) as usize..)?.first_chunk()?;
        Some(match u32::from_le_bytes(*top) {
            0 => is_zero,
            digit => digit < 1 << 30,
        })
    }

    /// Of a compact `str`: may it own blocks?
    #[inline]
    fn str_owns(&self, block: &[u8], source: Source) -> Option<bool> {
        let ascii = self.model.layout.ascii?;
        let length = word(block, ascii.length)?;
        let state = u32::from_le_bytes(*block.get(ascii.state as usize..)?.first_chunk()?);
        let (kind, is_compact, is_ascii) =
            (u64::from(state >> 2 & 7), state >> 5 & 1 == 1, state >> 6 & 1 == 1);
        if !is_compact || !matches!((kind, is_ascii), (1, _) | (2 | 4, false)) || length >= 1 << 40 {
            return None;
        }
        let header = if is_ascii { ascii.size } else { self.model.layout.compact?.size };
        let bytes = header + (length + 1) * kind;
        if !fits(bytes, block.len() as u64, source, true) {
            return None;
        }
        let end = block.get((bytes - kind) as usize..bytes as usize)?;
        if end.iter().any(|byte| *byte != 0) {
            return None;
        }
        Some(!is_ascii || ascii.wstr.is_some_and(|at| word(block, at) != Some(0)))
    }
}
