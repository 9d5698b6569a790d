//! Parts of an object that are objects themselves: its namespace, the tuple that a function's variables are
//! in, what the interpreter keeps with a type. Whether one is the object's alone, its count says.

use super::Strength::Strong;
use super::{At, Give, Reference, instances, known_fields, types};
use crate::family::Family;
use crate::model::{Managed, Model, flags};
use crate::object::Object;
use crate::types::Shape;
use wmr_memory::Reader;

/// Fields that hold parts.
const OF_ANY: [&str; 2] = ["__dict__", "__closure__"];
const OF_TYPES: [&str; 5] = ["__dict__", "__bases__", "__mro__", "__subclasses__", "tp_cache"];

/// May objects of that shape have parts? Most have none.
pub fn may_have_parts(model: &Model, shape: &Shape) -> bool {
    let managed = model.managed != Managed::None && shape.flags & flags::MANAGED_DICT != 0;
    shape.family == Family::Type || shape.dictoffset != 0 || managed || fields(model, shape).next().is_some()
}

/// The fields of its structure where parts are, by offset.
fn fields<'m>(model: &'m Model, shape: &Shape) -> impl Iterator<Item = (u64, &'static str)> + use<'m> {
    let held = known_fields(model, shape).iter().filter(|held| OF_ANY.contains(&held.label));
    held.map(|held| (u64::from(held.offset), held.label))
}

/// Calls `f` for what may be a part of the object.
pub fn parts(model: &Model, reader: &mut Reader, object: &Object, f: &mut dyn FnMut(Reference)) {
    let mut give = |addr, strength, at| match at {
        At::Field(label) if addr != 0 && (OF_ANY.contains(&label) || OF_TYPES.contains(&label)) => {
            f(Reference { addr, strength, at });
        }
        _ => {}
    };
    let give: Give = &mut give;
    if object.shape.family == Family::Type {
        let _ = types::type_object(model, reader, object.addr, give);
        return;
    }
    for (offset, label) in fields(model, &object.shape) {
        if let Ok(addr) = reader.u64(object.addr.wrapping_add(offset)) {
            give(addr, Strong, At::Field(label));
        }
    }
    let _ = instances::dict(model, reader, object, give);
}
