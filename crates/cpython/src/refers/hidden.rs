//! Words that nothing declares: fields of C types that no table knows, and the state of modules. Only
//! `tp_traverse`, which is code, would know; a word there that points at an object may be a reference.

use super::Strength::Maybe;
use super::{At, Give};
use crate::model::{Model, flags};
use crate::object::Object;
use wmr_memory::Reader;

/// Words of one object or module state that are looked at.
const MAX_WORDS: u64 = 1 << 16;
/// No object lies lower.
const LEAST_ADDRESS: u64 = 0x1_0000;
/// Metatypes of metatypes.
const MAX_DEPTH: usize = 4;

pub fn words(model: &Model, reader: &mut Reader, object: &Object, give: Give) -> Option<()> {
    let (fields, basicsize) = (&object.shape.fields, u64::from(object.shape.basicsize));
    if fields.hidden == 0 && fields.hidden_tail.1 == 0 && !fields.hidden_items {
        return Some(());
    }
    let mut look = |reader: &mut Reader, offset: u64| {
        let word = reader.u64(object.addr.wrapping_add(offset)).ok()?;
        if is_object(model, reader, word) {
            give(word, Maybe, At::Hidden(offset as u32));
        }
        Some(())
    };
    let mut rest = fields.hidden;
    while rest != 0 {
        look(reader, 8 * u64::from(rest.trailing_zeros()))?;
        rest &= rest - 1;
    }
    let (start, end) = fields.hidden_tail;
    for n in u64::from(start) / 8..u64::from(end) / 8 {
        look(reader, 8 * n)?;
    }
    if fields.hidden_items {
        let n = model.size_field(reader, object.addr).ok()?.unsigned_abs();
        let words = n.saturating_mul(u64::from(object.shape.itemsize) / 8);
        for i in 0..words.min(MAX_WORDS) {
            look(reader, basicsize + 8 * i)?;
        }
    }
    Some(())
}

/// What a module's C code keeps for it (`md_state`), as long as its definition says.
pub fn module_state(model: &Model, reader: &mut Reader, addr: u64, give: Give) -> Option<()> {
    let module = model.layout.module?;
    let state = reader.u64(addr.wrapping_add(module.md_state?)).ok()?;
    let bytes = match (module.md_state_size, module.md_def) {
        (Some(at), _) => reader.u64(addr.wrapping_add(at)).ok()?,
        (None, Some(at)) => {
            let def = reader.u64(addr.wrapping_add(at)).ok()?;
            reader.u64(def.wrapping_add(model.layout.module_def?.m_size)).ok()?
        }
        _ => return None,
    };
    if state == 0 || bytes > i64::MAX as u64 {
        return Some(());
    }
    for n in 0..(bytes / 8).min(MAX_WORDS) {
        let word = reader.u64(state.wrapping_add(8 * n)).ok()?;
        if is_object(model, reader, word) {
            give(word, Maybe, At::State(8 * n as u32));
        }
    }
    Some(())
}

/// Is there something at `addr` whose type is a type?
fn is_object(model: &Model, reader: &mut Reader, addr: u64) -> bool {
    if addr < LEAST_ADDRESS || !addr.is_multiple_of(8) {
        return false;
    }
    let Ok(ty) = model.type_of(reader, addr) else { return false };
    let Ok(tp_flags) = reader.u64(ty.wrapping_add(model.layout.type_object.tp_flags)) else { return false };
    if tp_flags & flags::READY == 0 || !ty.is_multiple_of(8) {
        return false;
    }
    let mut at = ty;
    for _ in 0..MAX_DEPTH {
        match model.type_of(reader, at) {
            Ok(meta) if meta == model.type_type => return true,
            Ok(meta) if meta >= LEAST_ADDRESS => at = meta,
            _ => return false,
        }
    }
    false
}
