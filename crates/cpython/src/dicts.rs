//! The tables behind dicts: where the entries are and how many bytes the table takes.

use crate::model::{Allocation, Model};
use crate::object::inline_values_bytes;
use std::ops::Range;
use wmr_memory::Reader;

/// A keys table (`PyDictKeysObject`), or the entry table of a Python 2 dict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeysTable {
    pub addr: u64,
    /// Bytes of the whole allocation.
    pub bytes: u64,
    pub refcount: i64,
    /// First entry.
    pub entries: u64,
    pub entry_bytes: u64,
    /// Entries in use, deleted ones included.
    pub count: u64,
    /// Entries that still fit (`dk_usable`).
    pub usable: u64,
    /// Offsets of key and value inside an entry.
    pub key_at: u64,
    pub value_at: u64,
    /// Values are elsewhere: `ma_values` of each dict, or the instances.
    pub split: bool,
}

/// No table is larger: 2^40 slots would be 24 TiB of entries.
const MAX_LOG2_SIZE: u64 = 40;

/// Reads and checks a keys table. `None`: the bytes there cannot be one.
pub fn keys_table(model: &Model, reader: &mut Reader, addr: u64) -> Option<KeysTable> {
    let l = model.layout.dict_keys?;
    let refcount = reader.i64(addr.wrapping_add(l.dk_refcnt)).ok()?;
    let usable = reader.i64(addr.wrapping_add(l.dk_usable)).ok()?;
    let count = reader.i64(addr.wrapping_add(l.dk_nentries)).ok()?;
    let (slots, index_bytes, general, split);
    if let (Some(log2_size), Some(log2_index), Some(kind)) =
        (l.dk_log2_size, l.dk_log2_index_bytes, l.dk_kind)
    {
        // 3.11+: the sizes are kept as logarithms; kind 0 general, 1 all keys str, 2 split.
        let log2 = u64::from(reader.u8(addr.wrapping_add(log2_size)).ok()?);
        let index_log2 = u64::from(reader.u8(addr.wrapping_add(log2_index)).ok()?);
        let kind = reader.u8(addr.wrapping_add(kind)).ok()?;
        if log2 > MAX_LOG2_SIZE || index_log2 < log2 || index_log2 > log2 + 3 || kind > 2 {
            return None;
        }
        slots = 1u64 << log2;
        index_bytes = 1u64 << index_log2;
        general = kind == 0;
        split = kind == 2;
    } else {
        slots = reader.u64(addr.wrapping_add(l.dk_size?)).ok()?;
        if !slots.is_power_of_two() || slots > 1 << MAX_LOG2_SIZE {
            return None;
        }
        // `DK_IXSIZE`: an index must hold every slot number and two marks below zero.
        let width = match slots {
            0..=0xff => 1,
            0x100..=0xffff => 2,
            0x1_0000..=0xffff_ffff => 4,
            _ => 8,
        };
        index_bytes = slots * width;
        general = true;
        // Up to 3.10 nothing in the table itself says so: the dict that has values does.
        split = false;
    }
    // USABLE_FRACTION (Objects/dictobject.c).
    let capacity = (slots << 1) / 3;
    let entry_bytes = if general { 24 } else { 16 };
    let (usable, count) = (u64::try_from(usable).ok()?, u64::try_from(count).ok()?);
    // `>`: a table made for exactly n known entries may keep fewer usable ones.
    // The shared empty table of 3.12 and later is immortal: its count is the least number there is.
    if usable.checked_add(count)? > capacity.max(1) || refcount <= 0 && refcount != i64::MIN {
        return None;
    }
    let entries = addr.checked_add(l.dk_indices)?.checked_add(index_bytes)?;
    Some(KeysTable {
        addr,
        bytes: l.dk_indices + index_bytes + capacity * entry_bytes,
        refcount,
        entries,
        entry_bytes,
        count,
        usable,
        key_at: if general { 8 } else { 0 },
        value_at: if general { 16 } else { 8 },
        split,
    })
}

/// Python 2: `ma_table` of `{hash, key, value}`, mask + 1 slots. `None` when it is the small table
/// inside the dict object itself.
pub fn table_of_two(model: &Model, reader: &mut Reader, dict: u64) -> Option<(u64, u64)> {
    let l = &model.layout.dict;
    let table = reader.u64(dict.wrapping_add(l.ma_table?)).ok()?;
    let mask = reader.u64(dict.wrapping_add(l.ma_mask?)).ok()?;
    let slots = mask.checked_add(1).filter(|s| s.is_power_of_two() && *s <= 1 << MAX_LOG2_SIZE)?;
    Some((table, slots))
}

/// Bytes of the table of keys in an allocation, without what its allocator added.
pub fn table_bytes(model: &Model, reader: &mut Reader, allocation: Allocation) -> u64 {
    match keys_table(model, reader, allocation.data) {
        Some(table) => table.bytes.min(allocation.size),
        // Python 2: entries of three words, a power of two of them.
        None => {
            (3..40).map(|log| 24 << log).take_while(|bytes| *bytes <= allocation.size).last().unwrap_or(0)
        }
    }
}

/// An instance's values in a block of their own, or a split dict's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValuesTable {
    /// Sizes of a byte each: how many there are, the order they were set in. Empty up to 3.10.
    pub sizes: Range<u64>,
    pub first: u64,
    /// `None`: to the end of the block.
    pub count: Option<u64>,
}

/// Reads where the parts of a values table are that is the block at `data`.
pub fn values_table(model: &Model, reader: &mut Reader, data: u64) -> ValuesTable {
    if let Some(values) = model.layout.dict_values.filter(|values| values.capacity.is_some()) {
        // 3.13+: sizes stand in front of the values and behind them.
        let count = reader.u8(data).map_or(0, u64::from);
        let end = data.saturating_add(inline_values_bytes(count));
        return ValuesTable { sizes: data..end, first: data + values.values, count: Some(count) };
    }
    let plain = ValuesTable { sizes: data..data, first: data, count: None };
    if model.hex >> 16 < 0x030b {
        return plain;
    }
    // 3.11 and 3.12: how many bytes there are stands last, how many are used before that, then those,
    // downwards; the others were never written to (Objects/dictobject.c, `new_values`).
    let mut is_last = |bytes: &u64| reader.u8(data + bytes - 1).is_ok_and(|last| u64::from(last) == *bytes);
    let Some(bytes) = (8..=40).step_by(8).find(|bytes| is_last(bytes)) else { return plain };
    let used = reader.u8(data + bytes - 2).map_or(0, u64::from);
    let first = data + bytes;
    ValuesTable { sizes: first - (2 + used).min(bytes)..first, first, count: None }
}

/// Calls `f(key, value)` for the entries of a dict whose values are in its table, at most `max`
/// entries; stops when `f` returns false. Used for namespaces; splits are not followed.
pub fn for_each_entry(
    model: &Model,
    reader: &mut Reader,
    dict: u64,
    max: u64,
    f: &mut dyn FnMut(&mut Reader, u64, u64) -> bool,
) -> Option<()> {
    let (entries, stride, count, key_at, value_at);
    if model.is_two() {
        let (table, slots) = table_of_two(model, reader, dict)?;
        (entries, stride, count, key_at, value_at) = (table, 24, slots, 8, 16);
    } else {
        let keys = reader.u64(dict.wrapping_add(model.layout.dict.ma_keys?)).ok()?;
        let table = keys_table(model, reader, keys)?;
        (entries, stride, count, key_at, value_at) =
            (table.entries, table.entry_bytes, table.count, table.key_at, table.value_at);
    }
    for i in 0..count.min(max) {
        let entry = entries.wrapping_add(i * stride);
        let value = reader.u64(entry.wrapping_add(value_at)).ok()?;
        if value == 0 {
            continue;
        }
        let key = reader.u64(entry.wrapping_add(key_at)).ok()?;
        if key != 0 && !f(reader, key, value) {
            break;
        }
    }
    Some(())
}
