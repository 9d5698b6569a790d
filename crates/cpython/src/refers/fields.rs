//! Where instances of a type keep references, settled once a type: a known structure, the slots that
//! classes and C types declare in `tp_members`, and what no declaration covers.

use super::ndarray;
use super::records::{self, RecordId};
use crate::family::Family;
use crate::model::{Model, flags};
use crate::types::Shape;
use wmr_memory::Reader;

/// `T_OBJECT` and `T_OBJECT_EX` (`Include/structmember.h`).
const MEMBER_OBJECT: [u32; 2] = [6, 16];
/// Members of one type that are looked at.
const MAX_MEMBERS: u64 = 4096;
/// Words that the masks of [`Fields`] have a bit for.
pub const MASKED: u64 = 64;

/// Bit `n` of a mask is the word at offset 8 × n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fields {
    /// The structure whose fields are known, counted from 1.
    pub record: RecordId,
    /// Words that are declared as objects.
    pub slots: u64,
    /// Words of C types that nothing declares.
    pub hidden: u64,
    /// Undeclared words past the masks' end: first and last + 1, in bytes.
    pub hidden_tail: (u32, u32),
    /// There are slots past the masks' end.
    pub more_slots: bool,
    /// Items that nothing declares follow the basic size.
    pub hidden_items: bool,
    /// Bytes of the structure of a numpy array that instances begin with, if they do.
    pub array: u32,
}

/// Facts of a type whose fields are asked for.
pub struct Described<'a> {
    pub addr: u64,
    pub name: &'a [u8],
    pub flags: u64,
    pub basicsize: u64,
    pub itemsize: u64,
    pub dictoffset: i64,
    /// The type itself is one that is known by name.
    pub family: Option<Family>,
    pub base: Option<Shape>,
}

impl Fields {
    pub fn of(model: &Model, reader: &mut Reader, ty: &Described) -> Fields {
        let l = &model.layout;
        let inherited = ty.base.map(|b| b.fields).unwrap_or_default();
        let heap = ty.flags & flags::HEAPTYPE != 0;
        let class = heap && is_class(model, reader, ty.addr);
        if !class {
            let record = records::of_name(&l.table, ty.name, ty.basicsize, heap);
            if record != 0 {
                return Fields { record, ..Fields::default() };
            }
            if ty.family.is_some() {
                // Its references are known by its family.
                return Fields::default();
            }
        }
        let mut fields = inherited;
        let header = l.object.size;
        let start = ty.base.map_or(header, |b| u64::from(b.basicsize)).max(header);
        if !class && ty.name == b"numpy.ndarray" && ty.basicsize >= header + ndarray::FIELDS {
            fields.array = ty.basicsize as u32;
        }
        let mut own_slots = 0;
        members(model, reader, ty.addr, &mut |_, _, offset| {
            match mask(offset) {
                0 => fields.more_slots = true,
                bit => own_slots |= bit,
            }
            true
        });
        // A structure that is known says more of its words than its members do, which show some of them.
        let known = if inherited.record != 0 { low_words(start) } else { 0 };
        fields.slots |= own_slots & !known;
        // A structseq declares its items, and the basic size of a tuple is less than it has.
        let items = ty.base.is_some_and(|b| b.family == Family::Tuple);
        if !class && !items {
            let weak = reader.i64(ty.addr.wrapping_add(l.type_object.tp_weaklistoffset)).unwrap_or(0);
            let var = if ty.itemsize != 0 { mask(header) } else { 0 };
            let array = low_words(u64::from(fields.array));
            let elsewhere = mask_signed(ty.dictoffset) | mask_signed(weak) | fields.slots | var;
            fields.hidden |= low_words(ty.basicsize) & !low_words(start) & !elsewhere & !array;
            let tail = start.max(8 * MASKED);
            if tail < ty.basicsize {
                let first = if fields.hidden_tail.1 == 0 { tail as u32 } else { fields.hidden_tail.0 };
                fields.hidden_tail = (first, ty.basicsize as u32);
            }
            fields.hidden_items |=
                ty.itemsize >= 8 && ty.itemsize.is_multiple_of(8) && ty.base.is_none_or(|b| b.itemsize == 0);
        }
        fields
    }
}

/// Bits of the words below `offset`.
fn low_words(offset: u64) -> u64 {
    match offset / 8 {
        n if n >= MASKED => u64::MAX,
        n => (1 << n) - 1,
    }
}

/// The bit of the word at `offset`; 0 past the mask, or between words.
fn mask(offset: u64) -> u64 {
    if offset.is_multiple_of(8) && offset / 8 < MASKED { 1 << (offset / 8) } else { 0 }
}

fn mask_signed(offset: i64) -> u64 {
    u64::try_from(offset).ok().filter(|at| *at > 0).map_or(0, mask)
}

/// Was the type made by a `class` statement? `type.__new__` has `tp_name` point into the name object;
/// C types have their text elsewhere.
fn is_class(model: &Model, reader: &mut Reader, ty: u64) -> bool {
    let l = &model.layout;
    let (Ok(text), Ok(name)) = (
        reader.u64(ty.wrapping_add(l.type_object.tp_name)),
        reader.u64(ty.wrapping_add(l.heap_type.ht_name)),
    ) else {
        return false;
    };
    let inside = match model.is_two() {
        // C makes no such types there; the name is bytes.
        true => text.wrapping_sub(name) <= 96,
        // Exactly: a C type's copy of its name may lie right behind the name object.
        false => {
            let headers = [l.ascii.map(|a| a.size), l.compact.map(|c| c.size)];
            headers.into_iter().flatten().any(|header| text == name.wrapping_add(header))
        }
    };
    // Text that is not ASCII is in a UTF-8 cache.
    let mut cached = || l.compact.and_then(|c| reader.u64(name.wrapping_add(c.utf8)).ok()) == Some(text);
    inside || cached()
}

/// Calls `f(reader, name, offset)` for the members of a type that are objects, until it says no.
pub fn members(
    model: &Model,
    reader: &mut Reader,
    ty: u64,
    f: &mut dyn FnMut(&mut Reader, u64, u64) -> bool,
) {
    let l = &model.layout;
    let Some(def) = l.member_def else { return };
    let Ok(table) = reader.u64(ty.wrapping_add(l.type_object.tp_members)) else { return };
    if table == 0 {
        return;
    }
    for i in 0..MAX_MEMBERS {
        let member = table.wrapping_add(i * def.size);
        let Ok(name @ 1..) = reader.u64(member.wrapping_add(def.name)) else { return };
        let (Ok(kind), Ok(offset)) =
            (reader.u32(member.wrapping_add(def.kind)), reader.u64(member.wrapping_add(def.offset)))
        else {
            return;
        };
        let sane = offset >= l.object.size && offset < 1 << 20;
        if MEMBER_OBJECT.contains(&kind) && sane && !f(reader, name, offset) {
            return;
        }
    }
}
