//! References of instances: the dict, values kept in its place, and slots.

use super::Strength::Strong;
use super::fields::{MASKED, members};
use super::{At, Give};
use crate::dicts::keys_table;
use crate::family::Family;
use crate::model::{Managed, Model, PREHEADER, flags};
use crate::object::Object;
use wmr_memory::Reader;

/// Bases that are walked for slots.
const MAX_BASES: usize = 64;

/// `__dict__`, or the values that stand for it (`Objects/object.c`, `_PyObject_ComputedDictPointer`).
pub fn dict(model: &Model, reader: &mut Reader, object: &Object, give: Give) -> Option<()> {
    let shape = &object.shape;
    // A type's namespace is reported with its other fields.
    if shape.family == Family::Type {
        return Some(());
    }
    let addr = object.addr;
    // Python 2 uses the bit for something else.
    if shape.flags & flags::MANAGED_DICT != 0 && model.managed != Managed::None {
        return managed(model, reader, object, give);
    }
    let at = match i64::from(shape.dictoffset) {
        0 => return Some(()),
        at if at > 0 => at as u64,
        // 3.12+ has no such offsets but −1, "managed".
        -1 => return Some(()),
        // Counted from the end of a variable-sized object.
        at => {
            let n = model.size_field(reader, addr).ok()?.unsigned_abs();
            let bytes = n.checked_mul(u64::from(shape.itemsize))?.checked_add(u64::from(shape.basicsize))?;
            bytes.checked_next_multiple_of(8)?.checked_add_signed(at)?
        }
    };
    give(reader.u64(addr.wrapping_add(at)).ok()?, Strong, At::Field("__dict__"));
    Some(())
}

fn managed(model: &Model, reader: &mut Reader, object: &Object, give: Give) -> Option<()> {
    let addr = object.addr;
    let head = addr.checked_sub(model.gc_head + PREHEADER)?;
    let (mut values, mut dict) = (0, 0);
    match model.managed {
        Managed::None => {}
        Managed::TwoWords => {
            values = reader.u64(head).ok()?;
            dict = reader.u64(head + 8).ok()?;
        }
        // Values are stored as pointer − 1.
        Managed::Tagged => match reader.u64(head + 8).ok()? {
            tagged if tagged & 1 == 1 => values = tagged + 1,
            word => dict = word,
        },
        Managed::Inline => {
            dict = reader.u64(head + 8).ok()?;
            // A dict that somebody asked for shows the values where they are, and reports them.
            if dict == 0 && object.shape.flags & flags::INLINE_VALUES != 0 {
                inline(model, reader, object, give);
            }
        }
    }
    give(dict, Strong, At::Field("__dict__"));
    if values != 0 {
        let count = shared_names(model, reader, addr)?.1;
        for i in 0..count {
            give(reader.u64(values.wrapping_add(8 * i)).ok()?, Strong, At::Attribute(i as u32));
        }
    }
    Some(())
}

/// 3.13+: the values are in the instance until something takes them out of it.
fn inline(model: &Model, reader: &mut Reader, object: &Object, give: Give) -> Option<()> {
    let l = model.layout.dict_values?;
    let values = object.addr.wrapping_add(u64::from(object.shape.basicsize));
    if reader.u8(values.wrapping_add(l.valid?)).ok()? == 0 {
        return Some(());
    }
    let capacity = reader.u8(values.wrapping_add(l.capacity?)).ok()?;
    for i in 0..u32::from(capacity) {
        let at = values.wrapping_add(l.values + 8 * u64::from(i));
        give(reader.u64(at).ok()?, Strong, At::Attribute(i));
    }
    Some(())
}

/// The names instances of a class share: address of its first entry, entries, bytes of an entry.
pub fn shared_names(model: &Model, reader: &mut Reader, object: u64) -> Option<(u64, u64, u64)> {
    let ty = model.type_of(reader, object).ok()?;
    let keys = reader.u64(ty.wrapping_add(model.layout.heap_type.ht_cached_keys?)).ok()?;
    let table = keys_table(model, reader, keys)?;
    Some((table.entries.wrapping_add(table.key_at), table.count, table.entry_bytes))
}

/// Words that `tp_members` declares as objects: slots of classes, members of C types. A structseq
/// declares its items, those past its visible length too.
pub fn slots(model: &Model, reader: &mut Reader, object: &Object, give: Give) -> Option<()> {
    let fields = &object.shape.fields;
    let mut reported = 0;
    if object.shape.family == Family::Tuple && (fields.slots != 0 || fields.more_slots) {
        let n = u64::try_from(model.size_field(reader, object.addr).ok()?).ok()?;
        reported = model.layout.tuple.ob_item.checked_add(n.checked_mul(8)?)?;
    }
    // A C type may declare the place of its instances' dict as a member, too.
    let dict = u64::try_from(object.shape.dictoffset).ok().filter(|_| object.shape.family != Family::Type);
    let mut rest = fields.slots;
    while rest != 0 {
        let offset = 8 * u64::from(rest.trailing_zeros());
        rest &= rest - 1;
        if offset >= reported && dict != Some(offset) {
            give(reader.u64(object.addr.wrapping_add(offset)).ok()?, Strong, At::Slot(offset as u32));
        }
    }
    if fields.more_slots {
        let mut far = Vec::new();
        each_member(model, reader, object.addr, &mut |_, _, offset| {
            if offset >= 8 * MASKED && offset >= reported && dict != Some(offset) {
                far.push(offset);
            }
            true
        });
        far.sort_unstable();
        far.dedup();
        for offset in far {
            give(reader.u64(object.addr.wrapping_add(offset)).ok()?, Strong, At::Slot(offset as u32));
        }
    }
    Some(())
}

/// Calls `f(reader, name, offset)` for the members of an object's type and of its bases, until it says no.
pub fn each_member(
    model: &Model,
    reader: &mut Reader,
    object: u64,
    f: &mut dyn FnMut(&mut Reader, u64, u64) -> bool,
) {
    let Ok(mut ty) = model.type_of(reader, object) else { return };
    let mut go_on = true;
    for _ in 0..MAX_BASES {
        members(model, reader, ty, &mut |reader, name, offset| {
            go_on = f(reader, name, offset);
            go_on
        });
        match reader.u64(ty.wrapping_add(model.layout.type_object.tp_base)) {
            Ok(base @ 1..) if go_on => ty = base,
            _ => return,
        }
    }
}
