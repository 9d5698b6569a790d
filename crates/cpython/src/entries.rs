//! Tables of entries that have the hash of their key beside it.
//!
//! The hash of a number is the number, and that of an `id()` an address: who looks for pointers must
//! not take it for one.

use crate::dicts::{keys_table, table_bytes};
use crate::model::{Allocation, Model};
use std::ops::Range;
use wmr_memory::Reader;

/// The entries of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entries {
    pub range: Range<u64>,
    /// Bytes of each.
    pub stride: u64,
    /// Offset of the hash in an entry that has one.
    pub hash: Option<u64>,
}

impl Entries {
    /// Is the word at that address a hash?
    pub fn is_hash(&self, addr: u64) -> bool {
        self.range.contains(&addr) && self.hash == Some((addr - self.range.start) % self.stride)
    }
}

/// Of the table of keys in an allocation, as far as they are in use.
pub fn keys(model: &Model, reader: &mut Reader, allocation: Allocation) -> Entries {
    let (data, bytes) = (allocation.data, table_bytes(model, reader, allocation));
    let end = data.saturating_add(bytes);
    if model.is_two() {
        return three_words(data..end);
    }
    match keys_table(model, reader, data) {
        Some(table) => {
            let used = table.entries.saturating_add(table.count.saturating_mul(table.entry_bytes));
            let range = table.entries..used.min(end);
            Entries { range, stride: table.entry_bytes, hash: (table.key_at > 0).then_some(0) }
        }
        None => Entries { range: data..end, stride: 8, hash: None },
    }
}

/// Python 2: the entries of a small dict are in the dict.
pub fn small_dict(model: &Model, dict: u64) -> Option<Entries> {
    let first = dict.saturating_add(model.layout.dict.ma_smalltable?);
    Some(three_words(first..first.saturating_add(SMALL * 24)))
}

/// The entries of a small set are in the set.
pub fn small_set(model: &Model, set: u64) -> Entries {
    let first = set.saturating_add(model.layout.set.smalltable);
    set_table(model, first..first.saturating_add(SMALL * 16))
}

/// Of a set's table.
pub fn set_table(model: &Model, range: Range<u64>) -> Entries {
    Entries { range, stride: 16, hash: model.layout.set_entry.map(|entry| entry.hash) }
}

/// A node that keeps the order of an OrderedDict is an entry of its own.
pub fn order_node(model: &Model, range: Range<u64>) -> Entries {
    let node = model.layout.odict_node;
    Entries { range, stride: node.map_or(8, |node| node.size), hash: node.map(|node| node.hash) }
}

/// `PyDict_MINSIZE` of Python 2, `PySet_MINSIZE`.
const SMALL: u64 = 8;

/// `PyDictEntry` of Python 2: hash, key, value.
fn three_words(range: Range<u64>) -> Entries {
    Entries { range, stride: 24, hash: Some(0) }
}
