//! Which blocks belong to an object: its table, its items, its buffer.
//!
//! Extents come from the owner (a list's `allocated`, a set's mask, a deque's ends), never from the
//! block's size: past `ob_size` a list still holds the pointers of items that were popped.

use crate::dicts::{KeysTable, keys_table, table_of_two};
use crate::family::Family;
use crate::model::{Managed, Model, flags};
use crate::object::Object;
use crate::sizes::{deque_length, split_values};
use crate::strings::{str_data, str_shape};
use wmr_memory::Reader;

/// What a block is to the object that owns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, bytemuck::Zeroable)]
#[repr(u8)]
pub enum Part {
    DictKeys,
    /// Keys that several dicts share and no type caches.
    SharedKeys,
    DictValues,
    ListItems,
    SetTable,
    DequeBlock,
    OrderedDictNode,
    OrderedDictIndex,
    StrCharacters,
    StrUtf8,
    StrWide,
    ByteArrayBuffer,
    ArrayBuffer,
    IoBuffer,
    Lock,
    DecimalDigits,
    StructCodes,
    ElementChildren,
    CtypesBuffer,
    CodeData,
    SpareFrame,
    TypeData,
    ModuleState,
    IteratorIndices,
    /// Pointed at from a field of a C type that no table names.
    Held,
}

impl Part {
    pub const ALL: [Part; 25] = [
        Part::DictKeys,
        Part::SharedKeys,
        Part::DictValues,
        Part::ListItems,
        Part::SetTable,
        Part::DequeBlock,
        Part::OrderedDictNode,
        Part::OrderedDictIndex,
        Part::StrCharacters,
        Part::StrUtf8,
        Part::StrWide,
        Part::ByteArrayBuffer,
        Part::ArrayBuffer,
        Part::IoBuffer,
        Part::Lock,
        Part::DecimalDigits,
        Part::StructCodes,
        Part::ElementChildren,
        Part::CtypesBuffer,
        Part::CodeData,
        Part::SpareFrame,
        Part::TypeData,
        Part::ModuleState,
        Part::IteratorIndices,
        Part::Held,
    ];

    /// The kind's name in the census.
    pub fn name(self) -> &'static str {
        match self {
            Part::DictKeys => "dict keys",
            Part::SharedKeys => "shared dict keys",
            Part::DictValues => "dict values",
            Part::ListItems => "list items",
            Part::SetTable => "set table",
            Part::DequeBlock => "deque block",
            Part::OrderedDictNode => "OrderedDict node",
            Part::OrderedDictIndex => "OrderedDict index",
            Part::StrCharacters => "str characters",
            Part::StrUtf8 => "str UTF-8 cache",
            Part::StrWide => "str wide cache",
            Part::ByteArrayBuffer => "bytearray buffer",
            Part::ArrayBuffer => "array buffer",
            Part::IoBuffer => "io buffer",
            Part::Lock => "lock",
            Part::DecimalDigits => "Decimal digits",
            Part::StructCodes => "struct codes",
            Part::ElementChildren => "Element children",
            Part::CtypesBuffer => "ctypes buffer",
            Part::CodeData => "code data",
            Part::SpareFrame => "spare frame",
            Part::TypeData => "type data",
            Part::ModuleState => "module state",
            Part::IteratorIndices => "iterator indices",
            Part::Held => "held data",
        }
    }
}

/// A block an object says is its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owned {
    pub part: Part,
    /// An address at or inside the block's data.
    pub addr: u64,
    /// Bytes from `addr` that are in use.
    pub bytes: u64,
}

/// Takes a part, its address and its live bytes.
type Give<'g> = &'g mut dyn FnMut(Part, u64, u64);

/// Most blocks of a chain (deque blocks, OrderedDict nodes) that are followed.
const MAX_CHAIN: u64 = 1 << 28;

/// Calls `f` for each block the object owns. Nothing that cannot be read is guessed.
pub fn owned(model: &Model, reader: &mut Reader, object: &Object, f: &mut dyn FnMut(Owned)) {
    let mut give = |part, addr: u64, bytes: u64| {
        if addr != 0 {
            f(Owned { part, addr, bytes });
        }
    };
    // Running out of readable memory ends this object's list; what was given stands.
    let _ = parts(model, reader, object, &mut give);
    if object.shape.flags & flags::MANAGED_DICT != 0 {
        let _ = managed_values(model, reader, object, &mut give);
    }
}

/// The address of a dict's table, if that is all that the dict owns: for whoever calls [`table_owned`] later, as the
/// table says itself how large it is and may lie far from the dict. Without `ma_values` a table is not split
/// (`Objects/dictobject.c`); 2.7's says nothing of itself.
pub fn sole_table(model: &Model, reader: &mut Reader, object: &Object) -> Option<u64> {
    let l = &model.layout.dict;
    let is_sole = object.shape.family == Family::Dict && object.shape.flags & flags::MANAGED_DICT == 0;
    if !is_sole || model.is_two() || reader.u64(object.addr + l.ma_values?).ok()? != 0 {
        return None;
    }
    reader.u64(object.addr + l.ma_keys?).ok()
}

/// What [`owned`] says of such a dict.
pub fn table_owned(model: &Model, reader: &mut Reader, keys: u64) -> Option<Owned> {
    let table = keys_table(model, reader, keys)?;
    Some(Owned { part: table_part(&table), addr: keys, bytes: table.bytes })
}

fn table_part(table: &KeysTable) -> Part {
    if table.refcount != 1 { Part::SharedKeys } else { Part::DictKeys }
}

fn parts(model: &Model, reader: &mut Reader, object: &Object, give: Give) -> Option<()> {
    let l = &model.layout;
    let addr = object.addr;
    let mut word = |at: u64| reader.u64(addr.wrapping_add(at)).ok();
    match object.shape.family {
        Family::List => {
            let bytes = word(l.list.allocated)?.checked_mul(8)?;
            give(Part::ListItems, word(l.list.ob_item)?, bytes);
        }
        Family::Set => {
            let table = word(l.set.table)?;
            if table != addr + l.set.smalltable {
                give(Part::SetTable, table, word(l.set.mask)?.checked_add(1)?.checked_mul(16)?);
            }
        }
        Family::Dict => dict_parts(model, reader, addr, give)?,
        Family::OrderedDict => {
            dict_parts(model, reader, addr, give)?;
            let odict = l.odict?;
            let fast = reader.u64(addr + odict.od_fast_nodes).ok()?;
            let size = reader.u64(addr + odict.od_fast_nodes_size).ok()?;
            give(Part::OrderedDictIndex, fast, size.checked_mul(8)?);
            // `_odictnode`: key, hash, next, prev (`Objects/odictobject.c`).
            let mut node = reader.u64(addr + odict.od_first).ok()?;
            let count = reader.u64(addr + l.dict.ma_used?).ok()?.min(MAX_CHAIN);
            for _ in 0..count {
                if node == 0 {
                    break;
                }
                give(Part::OrderedDictNode, node, 32);
                node = reader.u64(node.wrapping_add(16)).ok()?;
            }
        }
        Family::Str => str_parts(model, reader, addr, give)?,
        Family::Unicode => {
            let length = word(l.unicode.length?)?;
            give(Part::StrCharacters, word(l.unicode.str?)?, length.checked_add(1)?.checked_mul(4)?);
        }
        // 3.15 keeps the bytes in a bytes object.
        Family::ByteArray if l.bytearray.ob_bytes_object.is_none() => {
            give(Part::ByteArrayBuffer, word(l.bytearray.ob_bytes)?, word(l.bytearray.ob_alloc)?);
        }
        Family::Array => {
            let array = l.array?;
            let (item, allocated) = (word(array.ob_item)?, word(array.allocated)?);
            let descr = word(array.ob_descr)?;
            let width = u64::from(reader.u32(descr.wrapping_add(4)).ok()?);
            give(Part::ArrayBuffer, item, allocated.checked_mul(width)?);
        }
        Family::Deque => deque_parts(model, reader, addr, give)?,
        Family::BytesIo => {
            // From 3.5 on the buffer is a bytes object.
            let b = l.bytesio?;
            if let Some(at) = b.buf_size {
                give(Part::IoBuffer, word(b.buf)?, word(at)?);
            }
        }
        Family::StringIo => {
            let s = l.stringio?;
            give(Part::IoBuffer, word(s.buf)?, word(s.buf_size)?.checked_mul(4)?);
        }
        Family::Buffered => {
            let b = l.buffered?;
            give(Part::IoBuffer, word(b.buffer)?, word(b.buffer_size)?);
            give(Part::Lock, word(b.lock)?, 0);
        }
        Family::Lock => give(Part::Lock, word(l.object.size)?, 0),
        Family::Decimal => {
            let (dec, mpd) = (l.decimal?.dec, l.mpd?);
            if word(dec + mpd.flags)? & 0x20 == 0 {
                give(Part::DecimalDigits, word(dec + mpd.data)?, word(dec + mpd.alloc)?.checked_mul(8)?);
            }
        }
        Family::Struct => {
            let at = l.table.offset("PyStructObject", "s_codes")?;
            give(Part::StructCodes, word(at)?, 0);
        }
        Family::Product => give(Part::IteratorIndices, word(l.table.offset("productobject", "indices")?)?, 0),
        Family::Combinations => {
            give(Part::IteratorIndices, word(l.table.offset("combinationsobject", "indices")?)?, 0);
        }
        Family::Permutations => {
            give(Part::IteratorIndices, word(l.table.offset("permutationsobject", "indices")?)?, 0);
            give(Part::IteratorIndices, word(l.table.offset("permutationsobject", "cycles")?)?, 0);
        }
        Family::Element => {
            let e = l.element_extra?;
            let extra = word(l.element?.extra)?;
            if extra != 0 {
                give(Part::ElementChildren, extra, e.size);
                let children = reader.u64(extra.wrapping_add(e.children)).ok()?;
                if children != extra.wrapping_add(e.inline_children) {
                    let n = reader.u64(extra.wrapping_add(e.allocated)).ok()?;
                    give(Part::ElementChildren, children, n.checked_mul(8)?);
                }
            }
        }
        Family::CData => {
            let c = l.cdata?;
            let pointer = word(c.b_ptr)?;
            // What it does not free it only looks at: `from_address`, `contents`, a field of another one.
            let lent = c.b_needsfree.is_some_and(|at| word(at).is_some_and(|flag| flag as u32 == 0));
            if pointer != addr + c.b_value && !lent {
                give(Part::CtypesBuffer, pointer, word(c.b_size)?);
            }
        }
        Family::Code => code_parts(model, reader, addr, give)?,
        Family::Type => type_parts(model, reader, addr, give)?,
        Family::Module => {
            if let Some(at) = l.module?.md_state {
                give(Part::ModuleState, word(at)?, 0);
            }
        }
        _ => {}
    }
    Some(())
}

fn dict_parts(model: &Model, reader: &mut Reader, addr: u64, give: Give) -> Option<()> {
    let l = &model.layout.dict;
    if model.is_two() {
        let (table, slots) = table_of_two(model, reader, addr)?;
        if table != addr + l.ma_smalltable? {
            give(Part::DictKeys, table, slots.checked_mul(24)?);
        }
        return Some(());
    }
    let keys = reader.u64(addr + l.ma_keys?).ok()?;
    let table = keys_table(model, reader, keys)?;
    give(table_part(&table), keys, table.bytes);
    let values = reader.u64(addr + l.ma_values?).ok()?;
    if values != 0 {
        give(Part::DictValues, values, 8 * split_values(model, reader, &table));
    }
    Some(())
}

fn str_parts(model: &Model, reader: &mut Reader, addr: u64, give: Give) -> Option<()> {
    let l = &model.layout;
    let s = str_shape(model, reader, addr)?;
    let (ascii, compact) = (l.ascii?, l.compact?);
    if s.compact && s.ascii {
        // Nothing but a wide cache (up to 3.11) can hang on it.
        if let Some(at) = ascii.wstr {
            give(Part::StrWide, reader.u64(addr + at).ok()?, s.length.checked_add(1)?.checked_mul(4)?);
        }
        return Some(());
    }
    let data = str_data(model, reader, addr, &s);
    if !s.compact
        && let Some(data) = data
    {
        give(Part::StrCharacters, data, s.length.checked_add(1)?.checked_mul(s.kind.max(1))?);
    }
    let utf8 = reader.u64(addr + compact.utf8).ok()?;
    if Some(utf8) != data {
        give(Part::StrUtf8, utf8, reader.u64(addr + compact.utf8_length).ok()?.checked_add(1)?);
    }
    if let (Some(at), Some(length)) = (ascii.wstr, compact.wstr_length) {
        let wstr = reader.u64(addr + at).ok()?;
        if Some(wstr) != data {
            give(Part::StrWide, wstr, reader.u64(addr + length).ok()?.checked_add(1)?.checked_mul(4)?);
        }
    }
    Some(())
}

fn deque_parts(model: &Model, reader: &mut Reader, addr: u64, give: Give) -> Option<()> {
    let (deque, block) = (model.layout.deque?, model.layout.deque_block?);
    if let (Some(count), Some(at)) = (deque.numfreeblocks, deque.freeblocks) {
        let count = reader.u64(addr + count).ok()?.min(16);
        for i in 0..count {
            give(Part::DequeBlock, reader.u64(addr + at + 8 * i).ok()?, block.size);
        }
    }
    let n = deque_length(model, reader, addr)?;
    let last = reader.u64(addr + deque.rightblock).ok()?;
    let mut at = reader.u64(addr + deque.leftblock).ok()?;
    // The block has 64 items (62 in Python 2); an end is not marked, the last block says where to stop.
    for _ in 0..(n / 62 + 2).min(MAX_CHAIN) {
        give(Part::DequeBlock, at, block.size);
        if at == last {
            break;
        }
        at = reader.u64(at.wrapping_add(block.rightlink)).ok()?;
    }
    Some(())
}

fn code_parts(model: &Model, reader: &mut Reader, addr: u64, give: Give) -> Option<()> {
    let c = model.layout.code?;
    let fields = [
        c.co_extra,
        c.co_cell2arg,
        c.co_cached,
        c.co_linearray,
        c.co_monitoring,
        c.co_executors,
        c.co_opcache_map,
        c.co_opcache,
    ];
    for at in fields.into_iter().flatten() {
        give(Part::CodeData, reader.u64(addr + at).ok()?, 0);
    }
    if let Some(at) = c.co_zombieframe {
        // Up to 3.9 each function keeps the frame of its last call for the next one.
        let frame = reader.u64(addr.wrapping_add(at)).ok()?;
        give(Part::SpareFrame, frame.saturating_sub(model.gc_head), 0);
    }
    if let Some(at) = c.co_monitoring {
        // `_PyCoMonitoringData` (3.12+): tables of its own hang on it.
        let monitoring = reader.u64(addr + at).ok()?;
        if monitoring != 0 {
            let size = model.layout.table.size("_PyCoMonitoringData").unwrap_or(0).min(256);
            for i in 0..size / 8 {
                give(Part::CodeData, reader.u64(monitoring.wrapping_add(8 * i)).ok()?, 0);
            }
        }
    }
    Some(())
}

/// What a type object owns: the keys its instances share, and the text and tables that were copied for
/// it. Static types too: a structseq's member table is allocated.
pub fn type_parts(model: &Model, reader: &mut Reader, addr: u64, give: Give) -> Option<()> {
    let l = &model.layout;
    let t = l.type_object;
    let heap = reader.u64(addr.wrapping_add(t.tp_flags)).ok()? & flags::HEAPTYPE != 0;
    if heap && let Some(at) = l.heap_type.ht_cached_keys {
        let keys = reader.u64(addr + at).ok()?;
        if keys != 0
            && let Some(table) = keys_table(model, reader, keys)
        {
            give(Part::DictKeys, keys, table.bytes);
        }
    }
    let heap_name = if heap { l.heap_type.ht_tpname } else { None };
    let fields = [t.tp_doc, Some(t.tp_members), t.tp_methods, t.tp_getset, Some(t.tp_name), heap_name];
    for at in fields.into_iter().flatten() {
        give(Part::TypeData, reader.u64(addr.wrapping_add(at)).ok()?, 0);
    }
    Some(())
}

/// 3.11 and 3.12: the values of an instance are in a block of their own, with a prefix of sizes before
/// the first pointer.
fn managed_values(model: &Model, reader: &mut Reader, object: &Object, give: Give) -> Option<()> {
    let head = object.addr.checked_sub(model.gc_head + crate::model::PREHEADER)?;
    let values = match model.managed {
        Managed::TwoWords => reader.u64(head).ok()?,
        // 3.12 stores values as pointer − 1, so that bit 0 is set; a dict's pointer has it clear.
        Managed::Tagged => match reader.u64(head + 8).ok()? {
            tagged if tagged & 1 == 1 => tagged + 1,
            _ => 0,
        },
        _ => 0,
    };
    give(Part::DictValues, values, 0);
    Some(())
}
