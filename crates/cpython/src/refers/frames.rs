//! References of frames and generators beyond their plain fields: locals and the stack of values.

use super::Strength::{Borrowed, Strong};
use super::{At, Give, Strength};
use crate::model::Model;
use wmr_memory::Reader;

/// Locals and stack of one frame: a code object cannot ask for more.
pub const MAX_WORDS: u64 = 1 << 24;
/// `FRAME_OWNED_BY_FRAME_OBJECT` (`pycore_frame.h`).
const OWNED_BY_OBJECT: u8 = 2;

pub fn frame(model: &Model, reader: &mut Reader, addr: u64, give: Give) -> Option<()> {
    let l = model.layout.frame?;
    let Some(data) = l.f_frame_data else { return old_frame(model, reader, addr, give) };
    // 3.11+: a frame that runs, or a generator's, is not the object's.
    let frame = reader.u64(addr.wrapping_add(l.f_frame?)).ok()?;
    if frame != addr.wrapping_add(data) {
        return Some(());
    }
    let owner = reader.u8(frame.wrapping_add(model.layout.iframe?.owner)).ok()?;
    if owner != OWNED_BY_OBJECT {
        return Some(());
    }
    inner(model, reader, frame, give)
}

/// Up to 3.10: locals, cells and free variables, then the stack.
pub fn old_frame(model: &Model, reader: &mut Reader, addr: u64, give: Give) -> Option<()> {
    let l = model.layout.frame?;
    let first = addr.wrapping_add(l.f_localsplus?);
    let stack = reader.u64(addr.wrapping_add(l.f_valuestack?)).ok()?;
    let locals = stack.checked_sub(first)? / 8;
    if locals > MAX_WORDS {
        return None;
    }
    for i in 0..locals {
        give(reader.u64(first.wrapping_add(8 * i)).ok()?, Strong, At::Local(i as u32));
    }
    let depth = match (l.f_stacktop, l.f_stackdepth) {
        // Null while the frame runs.
        (Some(at), _) => reader.u64(addr.wrapping_add(at)).ok()?.checked_sub(stack)? / 8,
        (None, Some(at)) => u64::try_from(reader.u32(addr.wrapping_add(at)).ok()? as i32).ok()?,
        _ => 0,
    };
    for i in 0..Some(depth).filter(|d| *d <= MAX_WORDS)? {
        give(reader.u64(stack.wrapping_add(8 * i)).ok()?, Strong, At::Stack(i as u32));
    }
    Some(())
}

pub fn generator(model: &Model, reader: &mut Reader, addr: u64, give: Give) -> Option<()> {
    let l = model.layout.generator?;
    // Up to 3.10 the frame is an object of its own.
    let (Some(at), Some(state)) = (l.gi_iframe, l.gi_frame_state) else { return Some(()) };
    let state = reader.u8(addr.wrapping_add(state)).ok()? as i8;
    let frame = addr.wrapping_add(at);
    if state < cleared(model) {
        return inner(model, reader, frame, give);
    }
    // What is left of a finished one is its code, from 3.12 on in the frame alone.
    if l.gi_code.is_none() {
        let code = model.layout.iframe?;
        let code = reader.u64(frame.wrapping_add(code.code)).ok()?;
        give(code & !3, Strong, At::Field("gi_code"));
    }
    Some(())
}

/// `FRAME_CLEARED` (`pycore_frame.h`): 3.15 numbers the states from zero.
pub fn cleared(model: &Model) -> i8 {
    if model.hex >> 16 >= 0x030f { 5 } else { 4 }
}

/// `FRAME_EXECUTING`.
pub fn executing(model: &Model) -> i8 {
    if model.hex >> 16 >= 0x030f { 4 } else { 0 }
}

/// `_PyInterpreterFrame`, as `_PyFrame_Traverse` goes through it.
pub fn inner(model: &Model, reader: &mut Reader, frame: u64, give: Give) -> Option<()> {
    let l = model.layout.iframe?;
    let mut word = |at: u64| reader.u64(frame.wrapping_add(at)).ok();
    // A generator of 3.11 has its code in a field of its own and in the frame, and holds both.
    let (code, strength) = untagged(model, word(l.code)?)?;
    give(code, strength, At::Field("f_code"));
    let (function, strength) = untagged(model, word(l.function)?)?;
    give(function, strength, At::Field("f_func"));
    give(word(l.f_locals)?, Strong, At::Field("f_locals"));
    give(word(l.frame_obj)?, Strong, At::Field("frame"));
    let first = frame.wrapping_add(l.localsplus);
    let code = word(l.code)? & !3;
    let locals = u64::from(reader.u32(code.wrapping_add(model.layout.code?.co_nlocalsplus?)).ok()?);
    let top = match (l.stackpointer, l.stacktop) {
        (Some(at), _) => {
            let top = reader.u64(frame.wrapping_add(at)).ok()?;
            if top == 0 { None } else { Some(top.checked_sub(first)? / 8) }
        }
        (None, Some(at)) => u64::try_from(reader.u32(frame.wrapping_add(at)).ok()? as i32).ok(),
        _ => None,
    };
    // While it runs nobody wrote down how far the stack goes; the locals are there.
    let top = top.unwrap_or(locals);
    for i in 0..Some(top).filter(|n| *n <= MAX_WORDS)? {
        let word = reader.u64(first.wrapping_add(8 * i)).ok()?;
        let Some((object, strength)) = untagged(model, word) else { continue };
        let at = if i < locals { At::Local(i as u32) } else { At::Stack((i - locals) as u32) };
        give(object, strength, at);
    }
    Some(())
}

/// The object that a word of a frame is a reference to. 3.14+: 3 in the low bits is a small int in the word
/// itself, 1 a reference that is not counted.
pub fn untagged(model: &Model, word: u64) -> Option<(u64, Strength)> {
    let tagged = model.layout.iframe?.stackpointer.is_some();
    match word & 3 {
        3 if tagged => None,
        1 if tagged => Some((word & !3, Borrowed)),
        _ => Some((word & !3, Strong)),
    }
}

/// What 3.12+ keeps of `co_code`, `co_varnames` and the like once somebody asked for them.
pub fn cached_by_code(model: &Model, reader: &mut Reader, addr: u64, give: Give) -> Option<()> {
    let l = model.layout.co_cached?;
    let cached = reader.u64(addr.wrapping_add(model.layout.code?.co_cached?)).ok()?;
    if cached == 0 {
        return Some(());
    }
    let fields = [
        (l.co_code, "co_code"),
        (l.co_varnames, "co_varnames"),
        (l.co_cellvars, "co_cellvars"),
        (l.co_freevars, "co_freevars"),
    ];
    for (at, label) in fields {
        give(reader.u64(cached.wrapping_add(at)).ok()?, Strong, At::Field(label));
    }
    Some(())
}
