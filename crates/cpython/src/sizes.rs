//! The size of an object as `sys.getsizeof` computes it.
//!
//! `getsizeof(o)` is `o.__sizeof__()` plus the pre-header and GC head (`Python/sysmodule.c`,
//! `_PySys_GetSizeOf`). Most types inherit `object.__sizeof__`: basic size + |`ob_size`| × item size.
//! What built-ins add to that is here, each from its own `__sizeof__`. It lies on purpose at times:
//! keys shared with other dicts are not counted, nor buffers shared with other objects.

use crate::dicts::{keys_table, table_of_two};
use crate::family::Family;
use crate::model::{Model, flags};
use crate::object::{Object, digits, digits_at, generator_frame_bytes};
use crate::strings::str_shape;
use wmr_memory::Reader;

/// `sys.getsizeof` of an object; `None` when what decides it cannot be read.
pub fn sizeof(model: &Model, reader: &mut Reader, object: &Object) -> Option<u64> {
    let shape = &object.shape;
    // A static type object has no GC head though its type says so (`type_is_gc`); 3.11 and 3.12 count
    // one all the same, they ask the type (`_PyType_PreHeaderSize`).
    let asks_type = matches!(model.hex >> 16, 0x030b | 0x030c);
    let no_head = shape.family == Family::Type && !is_heap_type_object(model, reader, object.addr);
    let presize = if no_head && !asks_type { 0 } else { u64::from(shape.presize) };
    Some(presize + own_size(model, reader, object)?)
}

/// Is the type object at `addr` itself a heap type?
fn is_heap_type_object(model: &Model, reader: &mut Reader, addr: u64) -> bool {
    reader.u64(addr + model.layout.type_object.tp_flags).is_ok_and(|f| f & flags::HEAPTYPE != 0)
}

/// `object.__sizeof__`. The values inside an instance (3.13+) are not counted.
fn generic(model: &Model, reader: &mut Reader, object: &Object) -> Option<u64> {
    let shape = &object.shape;
    let basic = u64::from(shape.basicsize);
    let mut size = basic;
    if shape.itemsize != 0 {
        let n = model.size_field(reader, object.addr).ok()?.unsigned_abs();
        size = basic.checked_add(n.checked_mul(u64::from(shape.itemsize))?)?;
    }
    Some(size)
}

fn own_size(model: &Model, reader: &mut Reader, object: &Object) -> Option<u64> {
    let l = &model.layout;
    let addr = object.addr;
    let shape = &object.shape;
    let basic = u64::from(shape.basicsize);
    match shape.family {
        Family::Int => int_size(model, reader, addr),
        Family::Str => str_size(model, reader, object),
        Family::Unicode => {
            let length = reader.u64(addr + l.unicode.length?).ok()?;
            // `unicode__sizeof__` (2.7): the object, wide characters with a terminator, and `defenc`
            // is an object of its own but counted with it.
            let mut size = basic + 4 * (length + 1);
            let defenc = reader.u64(addr + l.unicode.defenc?).ok()?;
            if defenc != 0 {
                size += l.old_str?.size.next_multiple_of(8).min(37)
                    + model.size_field(reader, defenc).ok()? as u64;
            }
            Some(size)
        }
        // Python 2 says the same for subclasses.
        Family::Bytes if model.is_two() => {
            let n = model.size_field(reader, addr).ok()?.unsigned_abs();
            (l.old_str?.ob_sval + 1).checked_add(n)
        }
        Family::ByteArray => {
            let alloc = reader.u64(addr + l.bytearray.ob_alloc).ok()?;
            match l.bytearray.ob_bytes_object {
                // 3.15: the bytes are in a bytes object of their own.
                Some(_) if alloc == 0 => Some(basic),
                Some(_) => (basic + l.bytes?.ob_sval + 1).checked_add(alloc),
                None => basic.checked_add(alloc),
            }
        }
        Family::List => {
            let allocated = reader.u64(addr + l.list.allocated).ok()?;
            basic.checked_add(allocated.checked_mul(8)?)
        }
        Family::Set => {
            let table = reader.u64(addr + l.set.table).ok()?;
            if table == addr + l.set.smalltable {
                return Some(basic);
            }
            let mask = reader.u64(addr + l.set.mask).ok()?;
            basic.checked_add(mask.checked_add(1)?.checked_mul(16)?)
        }
        Family::Dict => dict_size(model, reader, addr, basic),
        Family::OrderedDict => {
            let odict = l.odict?;
            let mut size = dict_size(model, reader, addr, basic)?;
            let fast = reader.u64(addr + odict.od_fast_nodes_size).ok()?;
            size = size.checked_add(fast.checked_mul(8)?)?;
            let used = reader.u64(addr + l.dict.ma_used?).ok()?;
            size.checked_add(used.checked_mul(ODICT_NODE)?)
        }
        // Python 2 has no `type.__sizeof__`.
        Family::Type if model.is_two() => generic(model, reader, object),
        Family::Type => {
            if !is_heap_type_object(model, reader, addr) {
                return Some(l.type_object.size);
            }
            let mut size = l.heap_type.size;
            if let Some(at) = l.heap_type.ht_cached_keys {
                let keys = reader.u64(addr + at).ok()?;
                if keys != 0 {
                    size += keys_table(model, reader, keys)?.bytes;
                }
            }
            Some(size)
        }
        Family::Code => code_size(model, reader, object),
        Family::Frame => frame_size(model, reader, object),
        Family::Generator => {
            let mut remote = reader.clone();
            Some(generator_frame_bytes(model, reader, &mut remote, addr).unwrap_or(basic))
        }
        Family::Deque => {
            let (deque, block) = (l.deque?, l.deque_block?);
            let index = reader.u64(addr + deque.leftindex).ok()?;
            let n = deque_length(model, reader, addr)?;
            // 62 items a block in Python 2, 64 since (`BLOCKLEN`, `Modules/_collectionsmodule.c`).
            let items = if model.is_two() { 62 } else { 64 };
            let blocks = index.checked_add(n)?.div_ceil(items).max(1);
            basic.checked_add(blocks.checked_mul(block.size)?)
        }
        Family::Array => {
            let array = l.array?;
            let allocated = reader.u64(addr + array.allocated).ok()?;
            let descr = reader.u64(addr + array.ob_descr).ok()?;
            let item = reader.u32(descr.wrapping_add(4)).ok()?;
            basic.checked_add(allocated.checked_mul(u64::from(item))?)
        }
        Family::BytesIo => {
            let mut size = basic;
            if let Some(at) = l.bytesio?.buf_size {
                // Python 2: a plain buffer.
                return basic.checked_add(reader.u64(addr + at).ok()?);
            }
            let buf = reader.u64(addr + l.bytesio?.buf).ok()?;
            if buf != 0 {
                // `bytesio_sizeof`: a buffer shared with a bytes object is that object's.
                let shared = !matches!(model.refcount(reader, buf).ok()?, crate::model::RefCount::Count(1));
                if !shared {
                    size += l.bytes?.ob_sval + 1 + model.size_field(reader, buf).ok()?.unsigned_abs();
                }
            }
            Some(size)
        }
        Family::Buffered => {
            let b = l.buffered?;
            let buffer = reader.u64(addr + b.buffer).ok()?;
            let bytes = if buffer == 0 { 0 } else { reader.u64(addr + b.buffer_size).ok()? };
            basic.checked_add(bytes)
        }
        Family::Decimal => {
            let (dec, mpd) = (l.decimal?, l.mpd?);
            let at = addr + dec.dec;
            // MPD_STATIC_DATA (0x20): the digits are inside the object.
            let flags = reader.u8(at + mpd.flags).ok()?;
            let alloc = if flags & 0x20 != 0 { 0 } else { reader.u64(at + mpd.alloc).ok()? };
            basic.checked_add(alloc.checked_mul(8)?)
        }
        Family::Element => {
            let extra = reader.u64(addr + l.element?.extra).ok()?;
            if extra == 0 {
                return Some(basic);
            }
            let e = l.element_extra?;
            let mut size = basic + e.size;
            let children = reader.u64(extra.wrapping_add(e.children)).ok()?;
            if children != extra.wrapping_add(e.inline_children) {
                size = size.checked_add(reader.u64(extra.wrapping_add(e.allocated)).ok()?.checked_mul(8)?)?;
            }
            Some(size)
        }
        Family::Struct => {
            let at = l.table.offset("PyStructObject", "s_codes")?;
            let code = l.table.size("formatcode")?;
            let codes = reader.u64(addr + at).ok()?;
            let mut count = 1;
            // The list ends with an entry without a definition.
            while count < MAX_CODES && reader.u64(codes.wrapping_add(code * (count - 1))).ok()? != 0 {
                count += 1;
            }
            basic.checked_add(code * count)
        }
        Family::Product if !model.is_two() => {
            let pools = reader.u64(addr + l.table.offset("productobject", "pools")?).ok()?;
            basic.checked_add(model.size_field(reader, pools).ok()?.unsigned_abs().checked_mul(8)?)
        }
        Family::Combinations if !model.is_two() => {
            let r = reader.u64(addr + l.table.offset("combinationsobject", "r")?).ok()?;
            basic.checked_add(r.checked_mul(8)?)
        }
        Family::Permutations if !model.is_two() => {
            let pool = reader.u64(addr + l.table.offset("permutationsobject", "pool")?).ok()?;
            let n = model.size_field(reader, pool).ok()?.unsigned_abs();
            let r = reader.u64(addr + l.table.offset("permutationsobject", "r")?).ok()?;
            basic.checked_add(n.checked_add(r)?.checked_mul(8)?)
        }
        _ => generic(model, reader, object),
    }
}

/// Most codes of a `struct.Struct` that are counted.
const MAX_CODES: u64 = 1 << 20;
/// `_odictnode`: key, hash, next, prev, padded as 3.x counts it (`sizeof(_ODictNode)`).
const ODICT_NODE: u64 = 32;
/// Items of a deque: `ob_size`, and a field of its own in Python 2.
pub fn deque_length(model: &Model, reader: &mut Reader, addr: u64) -> Option<u64> {
    match model.layout.deque?.len {
        Some(at) => reader.u64(addr + at).ok(),
        None => Some(model.size_field(reader, addr).ok()?.unsigned_abs()),
    }
}

/// `int.__sizeof__` says the same for subclasses, whatever they add.
fn int_size(model: &Model, reader: &mut Reader, addr: u64) -> Option<u64> {
    let digits = digits(model, reader, addr)?;
    // 3.11 counts one digit for zero, which it always allocates; before, none.
    let least = u64::from(model.hex >> 16 >= 0x030b);
    digits_at(model)?.checked_add(digits.max(least).checked_mul(4)?)
}

fn str_size(model: &Model, reader: &mut Reader, object: &Object) -> Option<u64> {
    let l = &model.layout;
    let addr = object.addr;
    let (ascii, compact) = (l.ascii?, l.compact?);
    let s = str_shape(model, reader, addr)?;
    if s.compact && s.ascii {
        let wide = ascii.wstr.map_or(Ok(0), |at| reader.u64(addr + at)).ok()?;
        // The wide cache (up to 3.11) has as many characters.
        let wide = if wide == 0 { 0 } else { 4 * (s.length + 1) };
        return Some(ascii.size + s.length + 1 + wide);
    }
    let mut size;
    let data;
    if s.compact {
        size = compact.size + (s.length + 1).checked_mul(s.kind)?;
        data = addr + compact.size;
    } else {
        // `unicode_sizeof` says the exact type's size, whatever the subclass adds.
        size = l.unicode.size;
        data = reader.u64(addr + l.unicode.data?).ok()?;
        if data != 0 {
            size += (s.length + 1).checked_mul(s.kind)?;
        }
    }
    let utf8 = reader.u64(addr + compact.utf8).ok()?;
    if utf8 != 0 && utf8 != data {
        size += reader.u64(addr + compact.utf8_length).ok()? + 1;
    }
    if let (Some(wstr), Some(wstr_length)) = (ascii.wstr, compact.wstr_length) {
        let wstr = reader.u64(addr + wstr).ok()?;
        // `_PyUnicode_HAS_WSTR_MEMORY`: a cache of its own, not the characters themselves.
        if wstr != 0 && wstr != data {
            size += (reader.u64(addr + wstr_length).ok()? + 1).checked_mul(4)?;
        }
    }
    Some(size)
}

fn dict_size(model: &Model, reader: &mut Reader, addr: u64, basic: u64) -> Option<u64> {
    let l = &model.layout.dict;
    if model.is_two() {
        let (table, slots) = table_of_two(model, reader, addr)?;
        let inside = table == addr + l.ma_smalltable?;
        return Some(if inside { basic } else { basic + 24 * slots });
    }
    let keys = keys_table(model, reader, reader.clone().u64(addr + l.ma_keys?).ok()?)?;
    let values = reader.u64(addr + l.ma_values?).ok()?;
    let mut size = basic;
    if values != 0 {
        // `shared_keys_usable_size`; before 3.11 USABLE_FRACTION of the table, which is the same
        // number for a split table that was never resized.
        size += 8 * split_values(model, reader, &keys);
    }
    if keys.refcount == 1 {
        size += keys.bytes;
    }
    Some(size)
}

/// Values a split dict has room for.
pub fn split_values(model: &Model, reader: &mut Reader, keys: &crate::dicts::KeysTable) -> u64 {
    match model.layout.dict_keys.and_then(|k| k.dk_size) {
        Some(at) => reader.u64(keys.addr + at).map_or(0, |slots| (slots.min(1 << 40) << 1) / 3),
        None => keys.usable + keys.count,
    }
}

/// `code_sizeof`: the code units are in the object from 3.11 on; `co_extra` is added where a debugger
/// or profiler keeps something with the code.
fn code_size(model: &Model, reader: &mut Reader, object: &Object) -> Option<u64> {
    let c = model.layout.code?;
    let addr = object.addr;
    // 3.11+ rounds up (`_PyObject_VAR_SIZE`); before, a code object is of fixed size.
    let mut size = generic(model, reader, object)?.next_multiple_of(8);
    if let Some(at) = c.co_extra {
        let extra = reader.u64(addr + at).ok()?;
        if extra != 0 {
            let slots = reader.u64(extra).ok()?.min(256);
            size += 16 + 8 * slots.saturating_sub(1);
        }
    }
    // 3.8 to 3.10: the cache of LOAD_GLOBAL, once a function is hot, and which instruction has an entry.
    if let (Some(cache), Some(count), Some(map)) = (c.co_opcache, c.co_opcache_size, c.co_opcache_map) {
        let entries = u64::from(reader.u8(addr + count).ok()?);
        if reader.u64(addr + cache).ok()? != 0 {
            size += entries * model.layout.table.size("_PyOpcache")?;
        }
        if reader.u64(addr + map).ok()? != 0 {
            let code = reader.u64(addr + model.layout.table.offset("PyCodeObject", "co_code")?).ok()?;
            size += model.size_field(reader, code).ok()?.unsigned_abs() / 2;
        }
    }
    if let (Some(cell2arg), Some(cellvars)) = (c.co_cell2arg, c.co_cellvars)
        && reader.u64(addr + cell2arg).ok()? != 0
    {
        let cells = reader.u64(addr + cellvars).ok()?;
        size += 8 * model.size_field(reader, cells).ok()?.unsigned_abs();
    }
    Some(size)
}

/// `frame_sizeof`: up to 3.10 from `co_stacksize` and the variables, later from the code it runs.
fn frame_size(model: &Model, reader: &mut Reader, object: &Object) -> Option<u64> {
    let f = model.layout.frame?;
    let c = model.layout.code?;
    let table = &model.layout.table;
    let basic = u64::from(object.shape.basicsize);
    let addr = object.addr;
    if f.f_localsplus.is_some() {
        let code = reader.u64(addr + f.f_code?).ok()?;
        let mut slots = u64::from(reader.u32(code.wrapping_add(c.co_stacksize)).ok()?)
            + u64::from(reader.u32(code.wrapping_add(c.co_nlocals?)).ok()?);
        for field in ["co_cellvars", "co_freevars"] {
            let tuple = reader.u64(code.wrapping_add(table.offset("PyCodeObject", field)?)).ok()?;
            slots += model.size_field(reader, tuple).ok()?.unsigned_abs();
        }
        // The basic size has one of them.
        return Some(basic + 8 * slots.saturating_sub(1));
    }
    // 3.11+: basic size, plus the frame itself where the object holds it.
    let frame = reader.u64(addr + table.offset("PyFrameObject", "f_frame")?).ok()?;
    let i = model.layout.iframe?;
    let code = reader.u64(frame.wrapping_add(i.code)).ok()? & !3;
    let slots = u64::from(reader.u32(code.wrapping_add(c.co_nlocalsplus?)).ok()?)
        + u64::from(reader.u32(code.wrapping_add(c.co_stacksize)).ok()?);
    Some(basic + i.localsplus + 8 * slots)
}
