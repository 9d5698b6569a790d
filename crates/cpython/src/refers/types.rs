//! References of type objects.

use super::Strength::{Borrowed, Strong};
use super::{At, Give};
use crate::dicts::keys_table;
use crate::model::{Model, flags};
use wmr_memory::Reader;

/// Static types one interpreter keeps state for (`_Py_MAX_MANAGED_STATIC_BUILTIN_TYPES` is 200).
const MAX_STATIC: u64 = 512;

pub fn type_object(model: &Model, reader: &mut Reader, addr: u64, give: Give) -> Option<()> {
    let l = &model.layout;
    let t = &l.type_object;
    let heap = reader.u64(addr.wrapping_add(t.tp_flags)).ok()? & flags::HEAPTYPE != 0;
    let subclasses = reader.u64(addr.wrapping_add(t.tp_subclasses)).ok()?;
    let base = reader.u64(addr.wrapping_add(t.tp_base)).ok()?;
    // A static type names its base; one that names none is given `object`, and that is counted.
    let named = !heap && base != 0 && reader.u64(base.wrapping_add(t.tp_base)) != Ok(0);
    give(base, if named { Borrowed } else { Strong }, At::Field("__base__"));
    let fields = [(t.tp_dict, "__dict__"), (t.tp_bases, "__bases__"), (t.tp_mro, "__mro__")];
    for (at, label) in fields {
        give(reader.u64(addr.wrapping_add(at)).ok()?, Strong, At::Field(label));
    }
    if let Some(at) = t.tp_cache {
        give(reader.u64(addr.wrapping_add(at)).ok()?, Strong, At::Field("tp_cache"));
    }
    if !heap && subclasses != 0 && subclasses <= MAX_STATIC {
        static_state(model, reader, addr, subclasses - 1, give);
    } else {
        give(subclasses, Strong, At::Field("__subclasses__"));
    }
    if !heap {
        return Some(());
    }
    let h = &l.heap_type;
    let fields = [
        (Some(h.ht_name), "__name__"),
        (Some(h.ht_slots), "__slots__"),
        (h.ht_qualname, "__qualname__"),
        (h.ht_module, "ht_module"),
    ];
    for (at, label) in fields {
        if let Some(at) = at {
            give(reader.u64(addr.wrapping_add(at)).ok()?, Strong, At::Field(label));
        }
    }
    // The table of names that instances share holds them once, for all.
    let keys = reader.u64(addr.wrapping_add(h.ht_cached_keys?)).ok()?;
    if keys == 0 {
        return Some(());
    }
    let table = keys_table(model, reader, keys)?;
    for i in 0..table.count {
        let at = table.entries.wrapping_add(i * table.entry_bytes + table.key_at);
        give(reader.u64(at).ok()?, Strong, At::Key(i));
    }
    Some(())
}

/// 3.12+: a static type has an index where its subclasses were, and each interpreter keeps its
/// namespace and subclasses under that index.
fn static_state(model: &Model, reader: &mut Reader, addr: u64, index: u64, give: Give) -> Option<()> {
    let state = model.layout.static_type_state?;
    for array in &model.static_types {
        let at = array.wrapping_add(index * state.size);
        if reader.u64(at.wrapping_add(state.ty)) != Ok(addr) {
            continue;
        }
        give(reader.u64(at.wrapping_add(state.tp_dict)).ok()?, Strong, At::Field("__dict__"));
        give(reader.u64(at.wrapping_add(state.tp_subclasses)).ok()?, Strong, At::Field("__subclasses__"));
    }
    Some(())
}
