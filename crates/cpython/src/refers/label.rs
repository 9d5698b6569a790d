//! How a person would write a reference.

use super::containers::key_of;
use super::instances::{each_member, shared_names};
use super::{At, Reference};
use crate::family::Family;
use crate::model::Model;
use crate::object::{Object, digits, digits_at};
use crate::strings::read_text;
use wmr_memory::Reader;

/// Characters of a name or key that are shown.
const MAX_TEXT: usize = 60;
/// `CO_FAST_FREE` in `co_localspluskinds` (3.11+).
const FREE: u8 = 0x80;

/// `.name`, `[3]`, `['key']`, `key`, `slot x`, `local z`, `closure y`, `__dict__`: text from the target
/// is in it as it is, control characters escaped as `repr` does.
pub fn label(model: &Model, reader: &mut Reader, object: &Object, reference: &Reference) -> String {
    let addr = object.addr;
    match reference.at {
        At::Type => "__class__".to_owned(),
        At::Field(name) if name.starts_with("__") => name.to_owned(),
        At::Field(name) => format!(".{name}"),
        At::Item(i) => format!("[{i}]"),
        At::Key(_) => "key".to_owned(),
        At::Element(_) => "element".to_owned(),
        At::Order(_) => "key (order)".to_owned(),
        At::Value(i) => match key_of(model, reader, addr, i).and_then(|key| shown(model, reader, key)) {
            Some(key) => format!("[{key}]"),
            None => "[…]".to_owned(),
        },
        At::Attribute(i) => match attribute(model, reader, addr, i) {
            Some(name) => format!(".{}", escaped(&name)),
            None => format!("attribute {i}"),
        },
        At::Slot(offset) => match slot(model, reader, addr, offset) {
            Some(name) => format!("slot {}", escaped(&name)),
            None => format!("slot at {offset}"),
        },
        At::Local(i) => match local(model, reader, object, i) {
            Some((name, true)) => format!("closure {}", escaped(&name)),
            Some((name, false)) => format!("local {}", escaped(&name)),
            None => format!("local {i}"),
        },
        At::Stack(i) => format!("stack {i}"),
        At::Hidden(offset) => format!("field at {offset}"),
        At::State(offset) => format!("module state at {offset}"),
    }
}

/// The variable that item `index` of a function's closure stands for.
pub fn closure_name(model: &Model, reader: &mut Reader, function: u64, index: u64) -> Option<String> {
    let t = &model.layout.table;
    let code = reader.u64(function.wrapping_add(t.offset("PyFunctionObject", "func_code")?)).ok()?;
    if let Some(names) = t.offset("PyCodeObject", "co_freevars") {
        let names = reader.u64(code.wrapping_add(names)).ok()?;
        return text_item(model, reader, names, index);
    }
    // 3.11+: free variables are the last of the locals.
    let all = reader.u32(code.wrapping_add(t.offset("PyCodeObject", "co_nlocalsplus")?)).ok()?;
    let free = reader.u32(code.wrapping_add(t.offset("PyCodeObject", "co_nfreevars")?)).ok()?;
    let names = reader.u64(code.wrapping_add(t.offset("PyCodeObject", "co_localsplusnames")?)).ok()?;
    text_item(model, reader, names, u64::from(all.checked_sub(free)?) + index)
}

fn attribute(model: &Model, reader: &mut Reader, object: u64, index: u32) -> Option<String> {
    let (first, count, stride) = shared_names(model, reader, object)?;
    let index = Some(u64::from(index)).filter(|i| *i < count)?;
    let name = reader.u64(first.wrapping_add(index * stride)).ok()?;
    read_text(model, reader, name, MAX_TEXT)
}

fn slot(model: &Model, reader: &mut Reader, object: u64, offset: u32) -> Option<String> {
    let mut found = None;
    each_member(model, reader, object, &mut |reader, name, at| {
        if at == u64::from(offset) {
            found = reader.cstr(name, MAX_TEXT).ok();
        }
        found.is_none()
    });
    Some(String::from_utf8_lossy(&found?).into_owned())
}

/// The name of a frame's or generator's local, and whether it comes from an enclosing function.
fn local(model: &Model, reader: &mut Reader, object: &Object, index: u32) -> Option<(String, bool)> {
    let (l, t) = (&model.layout, &model.layout.table);
    let index = u64::from(index);
    if let Some(at) = l.frame?.f_code {
        let code = reader.u64(object.addr.wrapping_add(at)).ok()?;
        let mut before = 0;
        for names in ["co_varnames", "co_cellvars", "co_freevars"] {
            let tuple = reader.u64(code.wrapping_add(t.offset("PyCodeObject", names)?)).ok()?;
            let count = u64::try_from(model.size_field(reader, tuple).ok()?).ok()?;
            if index >= before && index - before < count {
                let name = text_item(model, reader, tuple, index - before)?;
                return Some((name, names == "co_freevars"));
            }
            before = before.saturating_add(count);
        }
        return None;
    }
    let frame = match object.shape.family {
        Family::Generator => object.addr.wrapping_add(l.generator?.gi_iframe?),
        _ => reader.u64(object.addr.wrapping_add(l.frame?.f_frame?)).ok()?,
    };
    let code = reader.u64(frame.wrapping_add(l.iframe?.f_executable.or(l.iframe?.f_code)?)).ok()? & !3;
    let names = reader.u64(code.wrapping_add(t.offset("PyCodeObject", "co_localsplusnames")?)).ok()?;
    let kinds = reader.u64(code.wrapping_add(t.offset("PyCodeObject", "co_localspluskinds")?)).ok()?;
    let kind = reader.u8(kinds.wrapping_add(l.bytes?.ob_sval + index)).ok()?;
    Some((text_item(model, reader, names, index)?, kind & FREE != 0))
}

/// Item of a tuple of strings.
fn text_item(model: &Model, reader: &mut Reader, tuple: u64, index: u64) -> Option<String> {
    let count = u64::try_from(model.size_field(reader, tuple).ok()?).ok()?;
    let index = Some(index).filter(|i| *i < count)?;
    let item = reader
        .u64(tuple.wrapping_add(model.layout.tuple.ob_item).wrapping_add(index.wrapping_mul(8)))
        .ok()?;
    read_text(model, reader, item, MAX_TEXT)
}

/// A key as its `repr` begins: strings, bytes, ints, and what has a name of its own.
fn shown(model: &Model, reader: &mut Reader, key: u64) -> Option<String> {
    let ty = model.type_of(reader, key).ok()?;
    let name = reader.u64(ty.wrapping_add(model.layout.type_object.tp_name)).ok()?;
    let name = reader.cstr(name, MAX_TEXT).ok()?;
    let quoted = |text: String| {
        let cut = if text.chars().count() > MAX_TEXT { "…" } else { "" };
        let text: String = text.chars().take(MAX_TEXT).collect();
        format!("'{}{cut}'", escaped(&text))
    };
    Some(match (name.as_slice(), model.is_two()) {
        (b"str", _) => quoted(read_text(model, reader, key, MAX_TEXT + 1)?),
        (b"NoneType", _) => "None".to_owned(),
        (b"bool", false) => {
            if digits(model, reader, key)? == 0 || int(model, reader, key)? == "0" {
                "False".to_owned()
            } else {
                "True".to_owned()
            }
        }
        (b"int", true) => reader.i64(key.wrapping_add(model.layout.object.size)).ok()?.to_string(),
        (b"int", false) | (b"long", true) => int(model, reader, key)?,
        (b"float", _) => {
            format!("{:?}", f64::from_bits(reader.u64(key.wrapping_add(model.layout.object.size)).ok()?))
        }
        (other, _) => format!("<{}>", escaped(&String::from_utf8_lossy(other))),
    })
}

/// Small ints in full; what has more than two digits of 30 bits is not spelt out.
fn int(model: &Model, reader: &mut Reader, key: u64) -> Option<String> {
    let n = digits(model, reader, key)?;
    if n > 2 {
        return Some("<int>".to_owned());
    }
    let first = digits_at(model)?;
    let mut value = 0i64;
    for i in 0..n {
        value |= i64::from(reader.u32(key.wrapping_add(first + 4 * i)).ok()? & 0x3fff_ffff) << (30 * i);
    }
    // 3.12+: the sign is in the low bits of the tag, 2 is negative; before, `ob_size` is.
    let negative = match model.layout.long.long_value {
        Some(at) => reader.u64(key.wrapping_add(at)).ok()? & 3 == 2,
        None => model.size_field(reader, key).ok()? < 0,
    };
    Some(if negative { -value } else { value }.to_string())
}

/// Control characters, quotes and backslashes as `repr` writes them.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\'' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if u32::from(c) < 0x20 || u32::from(c) == 0x7f => {
                out.push_str(&format!("\\x{:02x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out
}
