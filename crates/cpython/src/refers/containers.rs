//! References of containers: items, keys and values, in the tables that they own.

use super::Strength::Strong;
use super::{At, Give};
use crate::dicts::{keys_table, table_of_two};
use crate::model::Model;
use crate::sizes::deque_length;
use wmr_memory::Reader;

/// Most blocks of a deque, or nodes of an OrderedDict, that are followed.
const MAX_CHAIN: u64 = 1 << 28;

/// Notices when a chain has come round to a link it was at (Brent's cycle finding).
#[derive(Default)]
pub struct Came {
    mark: u64,
    steps: u64,
}

impl Came {
    pub fn round(&mut self, link: u64) -> bool {
        let again = link == self.mark;
        self.steps += 1;
        if self.steps.is_power_of_two() {
            self.mark = link;
        }
        again
    }
}

pub fn list(model: &Model, reader: &mut Reader, addr: u64, give: Give) -> Option<()> {
    let l = model.layout.list;
    let size = u64::try_from(model.size_field(reader, addr).ok()?).ok()?;
    let room = reader.u64(addr.wrapping_add(l.allocated)).ok()?;
    let items = reader.u64(addr.wrapping_add(l.ob_item)).ok()?;
    for i in 0..size.min(room) {
        give(reader.u64(items.wrapping_add(8 * i)).ok()?, Strong, At::Item(i));
    }
    Some(())
}

pub fn tuple(model: &Model, reader: &mut Reader, addr: u64, give: Give) -> Option<()> {
    let size = u64::try_from(model.size_field(reader, addr).ok()?).ok()?;
    let items = addr.wrapping_add(model.layout.tuple.ob_item);
    for i in 0..size {
        give(reader.u64(items.wrapping_add(8 * i)).ok()?, Strong, At::Item(i));
    }
    Some(())
}

/// The dict's own references. Keys of a table that instances share are held by the table, and its type
/// reports them. Values may lie inside an instance (3.13+): once it has a dict, they are the dict's.
pub fn dict(model: &Model, reader: &mut Reader, addr: u64, give: Give) -> Option<()> {
    let l = &model.layout.dict;
    if model.is_two() {
        let (table, slots) = table_of_two(model, reader, addr)?;
        for i in 0..slots {
            let entry = table.wrapping_add(24 * i);
            let value = reader.u64(entry.wrapping_add(16)).ok()?;
            if value != 0 {
                give(reader.u64(entry.wrapping_add(8)).ok()?, Strong, At::Key(i));
                give(value, Strong, At::Value(i));
            }
        }
        return Some(());
    }
    let keys = reader.u64(addr.wrapping_add(l.ma_keys?)).ok()?;
    let table = keys_table(model, reader, keys)?;
    let values = reader.u64(addr.wrapping_add(l.ma_values?)).ok()?;
    if values == 0 {
        for i in 0..table.count {
            let entry = table.entries.wrapping_add(i * table.entry_bytes);
            let value = reader.u64(entry.wrapping_add(table.value_at)).ok()?;
            if value != 0 {
                give(reader.u64(entry.wrapping_add(table.key_at)).ok()?, Strong, At::Key(i));
                give(value, Strong, At::Value(i));
            }
        }
        return Some(());
    }
    let first = values.wrapping_add(model.layout.dict_values.map_or(0, |v| v.values));
    for i in 0..table.count {
        give(reader.u64(first.wrapping_add(8 * i)).ok()?, Strong, At::Value(i));
    }
    Some(())
}

/// Where the object that an entry's key is lies.
pub fn key_of(model: &Model, reader: &mut Reader, dict: u64, index: u64) -> Option<u64> {
    let l = &model.layout.dict;
    let at = if model.is_two() {
        let (table, slots) = table_of_two(model, reader, dict)?;
        table.wrapping_add(24 * Some(index).filter(|i| *i < slots)? + 8)
    } else {
        let keys = reader.u64(dict.wrapping_add(l.ma_keys?)).ok()?;
        let table = keys_table(model, reader, keys)?;
        let index = Some(index).filter(|i| *i < table.count)?;
        table.entries.wrapping_add(index * table.entry_bytes + table.key_at)
    };
    reader.u64(at).ok().filter(|key| *key != 0)
}

/// The nodes that keep an OrderedDict's order hold their keys once more (`_odictnode`).
pub fn order(model: &Model, reader: &mut Reader, addr: u64, give: Give) -> Option<()> {
    let (odict, node) = (model.layout.odict?, model.layout.odict_node?);
    let mut at = reader.u64(addr.wrapping_add(odict.od_first)).ok()?;
    let count = reader.u64(addr.wrapping_add(model.layout.dict.ma_used?)).ok()?.min(MAX_CHAIN);
    let mut came = Came::default();
    for i in 0..count {
        if at == 0 || came.round(at) {
            break;
        }
        give(reader.u64(at.wrapping_add(node.key)).ok()?, Strong, At::Order(i));
        at = reader.u64(at.wrapping_add(node.next)).ok()?;
    }
    Some(())
}

pub fn set(model: &Model, reader: &mut Reader, addr: u64, give: Give) -> Option<()> {
    let l = &model.layout.set;
    let table = reader.u64(addr.wrapping_add(l.table)).ok()?;
    let slots = reader.u64(addr.wrapping_add(l.mask)).ok()?.checked_add(1)?;
    if !slots.is_power_of_two() {
        return None;
    }
    let entry_at = model.layout.set_entry?;
    // What was removed leaves a key that is no element: with the hash −1, which no object has; in
    // Python 2 it is a certain string.
    let dummy = if model.is_two() { dummy_of_two(model, reader, table, slots, entry_at.key) } else { 0 };
    for i in 0..slots {
        let entry = table.wrapping_add(16 * i);
        let key = reader.u64(entry.wrapping_add(entry_at.key)).ok()?;
        if key == 0 || key == dummy {
            continue;
        }
        if model.is_two() || reader.i64(entry.wrapping_add(entry_at.hash)).ok()? != -1 {
            give(key, Strong, At::Element(i));
        }
    }
    Some(())
}

/// Python 2's dummy is the string `<dummy key>`, and stands in any set for what was removed there.
fn dummy_of_two(model: &Model, reader: &mut Reader, table: u64, slots: u64, key_at: u64) -> u64 {
    for i in 0..slots.min(1 << 16) {
        let Ok(key @ 1..) = reader.u64(table.wrapping_add(16 * i + key_at)) else { continue };
        if crate::strings::read_text(model, reader, key, 12).as_deref() == Some("<dummy key>") {
            return key;
        }
    }
    0
}

pub fn deque(model: &Model, reader: &mut Reader, addr: u64, give: Give) -> Option<()> {
    let (deque, block) = (model.layout.deque?, model.layout.deque_block?);
    // Two of a block's words are links.
    let room = (block.size - 16) / 8;
    let n = deque_length(model, reader, addr)?;
    let last = reader.u64(addr.wrapping_add(deque.rightblock)).ok()?;
    let mut at = reader.u64(addr.wrapping_add(deque.leftblock)).ok()?;
    let mut slot = reader.u64(addr.wrapping_add(deque.leftindex)).ok()?;
    let mut came = Came::default();
    for i in 0..n.min(MAX_CHAIN) {
        if slot >= room {
            if at == last || came.round(at) {
                break;
            }
            at = reader.u64(at.wrapping_add(block.rightlink)).ok()?;
            slot = 0;
        }
        give(reader.u64(at.wrapping_add(block.data + 8 * slot)).ok()?, Strong, At::Item(i));
        slot += 1;
    }
    Some(())
}
