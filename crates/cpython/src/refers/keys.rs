//! Keys as a person would write them.

use super::label::{MAX_NAME, MAX_TEXT, Name};
use crate::model::{Model, flags};
use crate::object::{digits, digits_at};
use crate::strings::read_text;
use wmr_memory::Reader;

/// Items of a tuple that are written.
const MAX_ITEMS: u64 = 4;
/// Tuples in tuples that are written.
const MAX_DEPTH: u32 = 2;

/// What a key is: strings and ints; what has another value of its own, as it is written.
pub(super) fn name_of(model: &Model, reader: &mut Reader, key: u64) -> Option<Name> {
    name_in(model, reader, key, 0)
}

fn name_in(model: &Model, reader: &mut Reader, key: u64, depth: u32) -> Option<Name> {
    let (l, t) = (&model.layout, &model.layout.table);
    let ty = model.type_of(reader, key).ok()?;
    let name = type_name(model, reader, ty)?;
    Some(match (name.as_slice(), model.is_two()) {
        (b"str", _) => Name::Text(read_text(model, reader, key, MAX_NAME)?),
        (b"NoneType", _) => Name::Written("None".to_owned()),
        (b"bool", false) => {
            let zero = digits(model, reader, key)? == 0 || int(model, reader, key)? == Name::Number(0);
            Name::Written(if zero { "False" } else { "True" }.to_owned())
        }
        (b"int", true) => Name::Number(reader.i64(key.wrapping_add(l.object.size)).ok()?),
        (b"int", false) | (b"long", true) => int(model, reader, key)?,
        (b"float", _) => {
            let bits = reader.u64(key.wrapping_add(l.object.size)).ok()?;
            Name::Written(format!("{:?}", f64::from_bits(bits)))
        }
        (b"bytes", false) => {
            let length = model.size_field(reader, key).ok()?.unsigned_abs();
            let mut bytes = vec![0; length.min(MAX_TEXT as u64) as usize];
            reader.read(key.wrapping_add(l.bytes?.ob_sval), &mut bytes).ok()?;
            let more = if length > bytes.len() as u64 { "…" } else { "" };
            Name::Written(format!("b'{}{more}'", bytes.escape_ascii()))
        }
        (b"tuple", _) if depth < MAX_DEPTH => {
            let count = model.size_field(reader, key).ok()?.unsigned_abs();
            let mut items = Vec::new();
            for i in 0..count.min(MAX_ITEMS) {
                let item = reader.u64(key.wrapping_add(l.tuple.ob_item).wrapping_add(8 * i)).ok()?;
                items.push(match name_in(model, reader, item, depth + 1)? {
                    name @ Name::Text(_) => format!("'{name}'"),
                    name => name.to_string(),
                });
            }
            let end = match count {
                1 => ",",
                0..=MAX_ITEMS => "",
                _ => ", …",
            };
            Name::Written(format!("({}{end})", items.join(", ")))
        }
        (b"weakref" | b"weakref.ReferenceType", _) => {
            let referent = reader.u64(key.wrapping_add(t.offset("PyWeakReference", "wr_object")?)).ok()?;
            let ty = model.type_of(reader, referent).ok()?;
            Name::Written(format!("<weakref to {}>", written(&type_name(model, reader, ty)?)))
        }
        (b"ContextVar" | b"_contextvars.ContextVar", _) => {
            let name = reader.u64(key.wrapping_add(t.offset("PyContextVar", "var_name")?)).ok()?;
            let name = Name::Text(read_text(model, reader, name, MAX_NAME)?);
            Name::Written(format!("<ContextVar '{name}'>"))
        }
        (other, _) => {
            let flags = reader.u64(ty.wrapping_add(l.type_object.tp_flags)).unwrap_or(0);
            // Of a metaclass, whichever: a class.
            Name::Written(match flags & flags::TYPE_SUBCLASS != 0 {
                true => format!("<class {}>", written(&type_name(model, reader, key)?)),
                false => format!("<{}>", written(other)),
            })
        }
    })
}

fn type_name(model: &Model, reader: &mut Reader, ty: u64) -> Option<Vec<u8>> {
    let name = reader.u64(ty.wrapping_add(model.layout.type_object.tp_name)).ok()?;
    reader.cstr(name, MAX_TEXT).ok()
}

fn written(name: &[u8]) -> String {
    escaped(&String::from_utf8_lossy(name))
}

/// Small ints in full; what has more than two digits of 30 bits is not spelt out.
pub(super) fn int(model: &Model, reader: &mut Reader, key: u64) -> Option<Name> {
    let n = digits(model, reader, key)?;
    if n > 2 {
        return Some(Name::Written("<int>".to_owned()));
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
    Some(Name::Number(if negative { -value } else { value }))
}

/// Control characters, quotes and backslashes as `repr` writes them.
pub(super) fn escaped(text: &str) -> String {
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
