//! One object taken apart: its value in a line, its attributes and items, how its bytes are used.
//!
//! Everything is read from the target anew and bounded: a list of a billion items costs as much as the
//! few that are asked for.

use crate::inspect::Inspection;
use rustc_hash::FxHashMap;
use wmr_cpython::dicts::{KeysTable, for_each_entry, keys_table};
use wmr_cpython::family::Family;
use wmr_cpython::model::{Managed, Model, PREHEADER, flags};
use wmr_cpython::object::{digits, digits_at, inline_values_bytes};
use wmr_cpython::sizes::sizeof;
use wmr_cpython::strings::{read_text, str_shape};
use wmr_cpython::types::Type;
use wmr_memory::{Reader, Target};

/// Characters of a text, or bytes, that are shown.
const MAX_TEXT: usize = 80;
/// Digits of 15 or 30 bits of an int that is written out: what fits 128 bits.
const MAX_DIGITS: u64 = 4;
/// Bases of a class that are asked for slots.
const MAX_BASES: usize = 32;
/// Slots of one class.
const MAX_SLOTS: u64 = 256;
/// Slots of a set's table that are looked at for items.
const MAX_TABLE: u64 = 1 << 16;

/// An object that is referred to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Name of an attribute, text of a key; empty for an item of a list.
    pub name: String,
    pub addr: u64,
}

/// Attributes or items: the first ones, and how many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts {
    pub attributes: Vec<Part>,
    pub items: Vec<Part>,
    /// Of the items; attributes are all given, up to the bound.
    pub length: Option<u64>,
}

/// Takes objects apart.
pub struct Anatomy<'a> {
    inspection: &'a Inspection,
    model: &'a Model,
    types: FxHashMap<u64, u32>,
    reader: Reader<'a>,
}

impl<'a> Anatomy<'a> {
    /// `None` where there is no Python.
    pub fn new(target: &'a Target, inspection: &'a Inspection) -> Option<Anatomy<'a>> {
        let types = inspection.census.types.iter().zip(0..).map(|(ty, id)| (ty.addr, id)).collect();
        Some(Anatomy { inspection, model: inspection.model.as_ref()?, types, reader: target.reader() })
    }

    /// The type of the object at `addr`, if what is there has one that the census met.
    pub fn type_of(&mut self, addr: u64) -> Option<&'a Type> {
        let word = self.model.type_of(&mut self.reader, addr).ok()?;
        self.inspection.census.types.get(*self.types.get(&word)? as usize)
    }

    /// Bytes of a block from its start that the object in it uses, headers included: what is left over
    /// is the allocator's rounding. `None` where the type does not tell.
    pub fn used_bytes(&mut self, addr: u64, ty: &Type) -> Option<u64> {
        let shape = &ty.shape;
        let presize = u64::from(shape.presize);
        let fixed = presize + u64::from(shape.basicsize);
        match shape.family {
            Family::Int | Family::Float | Family::Str | Family::Bytes | Family::Tuple => {
                let object = self.object(addr, ty);
                // What is beside the object (a cache of UTF-8, characters of a subclass) is not in it.
                let inside = match shape.family {
                    Family::Str => str_shape(self.model, &mut self.reader, addr)?.compact,
                    _ => true,
                };
                if inside { sizeof(self.model, &mut self.reader, &object) } else { Some(fixed) }
            }
            Family::Code | Family::Frame | Family::Generator | Family::Type => None,
            _ if shape.itemsize != 0 => None,
            _ if shape.flags & flags::INLINE_VALUES != 0 && self.model.managed == Managed::Inline => {
                let capacity = self.reader.u8(addr.wrapping_add(u64::from(shape.basicsize))).ok()?;
                Some(fixed + inline_values_bytes(u64::from(capacity)))
            }
            _ => Some(fixed),
        }
    }

    /// What `sys.getsizeof` says.
    pub fn sizeof(&mut self, addr: u64, ty: &Type) -> Option<u64> {
        let object = self.object(addr, ty);
        sizeof(self.model, &mut self.reader, &object)
    }

    /// As what is known of it says it is.
    pub fn object(&self, addr: u64, ty: &Type) -> wmr_cpython::object::Object {
        let evidence = wmr_cpython::object::Evidence::Plausible;
        wmr_cpython::object::Object { addr, shape: ty.shape, evidence, tracked: false }
    }

    /// Is the text of that `str` interned?
    pub fn is_interned(&mut self, addr: u64, ty: &Type) -> bool {
        ty.shape.family == Family::Str
            && str_shape(self.model, &mut self.reader, addr).is_some_and(|shape| shape.interned > 0)
    }

    /// The value in a line, as Python would write it where that is known, cut where it is long.
    pub fn value(&mut self, addr: u64) -> Option<String> {
        let ty = self.type_of(addr)?;
        let model = self.model;
        let reader = &mut self.reader;
        Some(match ty.shape.family {
            Family::Str | Family::Unicode if !model.is_two() => {
                let text = read_text(model, reader, addr, MAX_TEXT + 1)?;
                format!("'{}", cut(&text, '\''))
            }
            Family::Bytes => {
                let at =
                    if model.is_two() { model.layout.old_str?.ob_sval } else { model.layout.bytes?.ob_sval };
                let length = model.size_field(reader, addr).ok()?.unsigned_abs();
                let mut bytes = vec![0; length.min(MAX_TEXT as u64 + 1) as usize];
                reader.read(addr.wrapping_add(at), &mut bytes).ok()?;
                let text: String = bytes.iter().map(|b| b.escape_ascii().to_string()).collect();
                format!("{}'{}", if model.is_two() { "" } else { "b" }, cut(&text, '\''))
            }
            Family::Float if ty.shape.exact => {
                let at = addr.wrapping_add(model.layout.object.size);
                format!("{:?}", f64::from_bits(reader.u64(at).ok()?))
            }
            Family::Int if ty.name == "bool" => {
                let n = digits(model, reader, addr)?;
                let first = reader.u32(addr.wrapping_add(digits_at(model)?)).ok()?;
                if n > 0 && first > 0 { "True" } else { "False" }.to_owned()
            }
            Family::Int => self.int(addr)?,
            Family::OldInt if ty.name == "bool" => {
                let value = reader.i64(addr.wrapping_add(model.layout.object.size)).ok()?;
                if value != 0 { "True" } else { "False" }.to_owned()
            }
            Family::OldInt => reader.i64(addr.wrapping_add(model.layout.object.size)).ok()?.to_string(),
            Family::Type => {
                let known =
                    self.types.get(&addr).and_then(|id| self.inspection.census.types.get(*id as usize));
                format!("<class {}>", known?.name)
            }
            _ if ty.name == "NoneType" => "None".to_owned(),
            _ => return None,
        })
    }

    fn int(&mut self, addr: u64) -> Option<String> {
        let model = self.model;
        let count = digits(model, &mut self.reader, addr)?;
        let negative = match model.layout.long.long_value {
            // 3.12+: the sign is in the low bits of the tag, 2 is negative.
            Some(at) => self.reader.u64(addr.wrapping_add(at)).ok()? & 3 == 2,
            None => model.size_field(&mut self.reader, addr).ok()? < 0,
        };
        if count > MAX_DIGITS {
            return Some(format!(
                "{}int of about {} bits",
                if negative { "negative " } else { "" },
                count * 30
            ));
        }
        let mut value = 0u128;
        for i in (0..count).rev() {
            let digit = self.reader.u32(addr.wrapping_add(digits_at(model)? + 4 * i)).ok()?;
            value = (value << 30) | u128::from(digit & ((1 << 30) - 1));
        }
        Some(format!("{}{value}", if negative && value > 0 { "-" } else { "" }))
    }

    /// Attributes and items, at most `max` of each.
    pub fn parts(&mut self, addr: u64, ty: &Type, max: usize) -> Parts {
        let mut parts = Parts::default();
        // What cannot be read ends its part of the answer; the rest stands.
        let _ = self.items(addr, ty, max, &mut parts);
        let _ = self.slots(addr, ty, max, &mut parts.attributes);
        let _ = self.instance_dict(addr, ty, max, &mut parts.attributes);
        parts.attributes.truncate(max);
        parts
    }

    fn items(&mut self, addr: u64, ty: &Type, max: usize, parts: &mut Parts) -> Option<()> {
        let model = self.model;
        let l = &model.layout;
        match ty.shape.family {
            Family::List | Family::Tuple => {
                let length = u64::try_from(model.size_field(&mut self.reader, addr).ok()?).ok()?;
                let first = match ty.shape.family {
                    Family::List => self.reader.u64(addr.wrapping_add(l.list.ob_item)).ok()?,
                    _ => addr.wrapping_add(l.tuple.ob_item),
                };
                parts.length = Some(length);
                for i in 0..length.min(max as u64) {
                    let addr = self.reader.u64(first.wrapping_add(8 * i)).ok()?;
                    parts.items.push(Part { name: i.to_string(), addr });
                }
            }
            Family::Dict | Family::OrderedDict => {
                let entries = self.dict(addr, max)?;
                parts.length = l.dict.ma_used.and_then(|at| self.reader.u64(addr.wrapping_add(at)).ok());
                for (key, addr) in entries {
                    parts.items.push(Part { name: self.brief(key), addr });
                }
            }
            Family::Set => {
                let table = self.reader.u64(addr.wrapping_add(l.set.table)).ok()?;
                let mask = self.reader.u64(addr.wrapping_add(l.set.mask)).ok()?;
                parts.length = self.reader.u64(addr.wrapping_add(l.set.used)).ok();
                let key_at = l.table.offset("setentry", "key")?;
                for i in 0..mask.saturating_add(1).min(MAX_TABLE) {
                    if parts.items.len() >= max {
                        break;
                    }
                    let key = self.reader.u64(table.wrapping_add(16 * i + key_at)).ok()?;
                    // What is left of a removed item is an object too, of no kind that is ever put into sets.
                    if key != 0 && self.type_of(key).is_some_and(|ty| ty.name != "object") {
                        parts.items.push(Part { name: String::new(), addr: key });
                    }
                }
            }
            _ => {}
        }
        Some(())
    }

    /// A key as text: the characters of a `str`, else its value or its type.
    fn brief(&mut self, addr: u64) -> String {
        match self.value(addr) {
            Some(value) => value,
            None => self.type_of(addr).map_or_else(|| format!("{addr:#x}"), |ty| format!("<{}>", ty.name)),
        }
    }

    /// Keys and values of a dict, those kept apart from its keys too.
    fn dict(&mut self, dict: u64, max: usize) -> Option<Vec<(u64, u64)>> {
        let model = self.model;
        let l = &model.layout.dict;
        if let Some((keys, values)) = l.ma_keys.zip(l.ma_values) {
            let values = self.reader.u64(dict.wrapping_add(values)).ok()?;
            if values != 0 {
                let keys = self.reader.u64(dict.wrapping_add(keys)).ok()?;
                let table = keys_table(model, &mut self.reader, keys)?;
                let at = model.layout.dict_values.map_or(0, |layout| layout.values);
                return Some(self.split(&table, values.wrapping_add(at), max));
            }
        }
        let mut found = Vec::new();
        for_each_entry(model, &mut self.reader, dict, u64::MAX >> 8, &mut |_, key, value| {
            found.push((key, value));
            found.len() < max
        })?;
        Some(found)
    }

    /// Names from a table that instances share, values from elsewhere.
    fn split(&mut self, table: &KeysTable, values: u64, max: usize) -> Vec<(u64, u64)> {
        let mut found = Vec::new();
        for i in 0..table.count.min(max as u64) {
            let entry = table.entries.wrapping_add(i * table.entry_bytes + table.key_at);
            let (Ok(key), Ok(value)) = (self.reader.u64(entry), self.reader.u64(values.wrapping_add(8 * i)))
            else {
                break;
            };
            if key != 0 && value != 0 {
                found.push((key, value));
            }
        }
        found
    }

    /// `__slots__`, and members of C types, of the class and its bases.
    fn slots(&mut self, addr: u64, ty: &Type, max: usize, out: &mut Vec<Part>) -> Option<()> {
        /// `Py_T_OBJECT_EX` and `T_OBJECT` (`Include/descrobject.h`).
        const OBJECTS: [u32; 2] = [16, 6];
        // The members of a class that is itself looked at are those of `type`.
        if ty.shape.family == Family::Type {
            return None;
        }
        let members = self.model.layout.type_object.tp_members;
        let mut at = Some(ty);
        for _ in 0..MAX_BASES {
            let ty = at?;
            let list = self.reader.u64(ty.addr.wrapping_add(members)).ok()?;
            for i in 0..MAX_SLOTS {
                if list == 0 || out.len() >= max {
                    break;
                }
                let member = list.wrapping_add(40 * i);
                let name = self.reader.u64(member).ok()?;
                if name == 0 {
                    break;
                }
                let kind = self.reader.u32(member.wrapping_add(8)).ok()?;
                let offset = self.reader.u64(member.wrapping_add(16)).ok()?;
                if !OBJECTS.contains(&kind) || offset >= u64::from(ty.shape.basicsize) {
                    continue;
                }
                let value = self.reader.u64(addr.wrapping_add(offset)).ok()?;
                if value != 0 {
                    let name = self.reader.cstr(name, MAX_TEXT).ok()?;
                    out.push(Part { name: String::from_utf8_lossy(&name).into_owned(), addr: value });
                }
            }
            at = ty.base.and_then(|base| self.inspection.census.types.get(base as usize));
        }
        Some(())
    }

    /// What is in an instance's `__dict__`, whether there is such a dict yet or not.
    fn instance_dict(&mut self, addr: u64, ty: &Type, max: usize, out: &mut Vec<Part>) -> Option<()> {
        let model = self.model;
        let shape = &ty.shape;
        let mut entries = Vec::new();
        if shape.flags & flags::MANAGED_DICT != 0 && model.managed != Managed::None {
            let word = addr.checked_sub(model.gc_head + PREHEADER)?;
            let (first, second) = (self.reader.u64(word).ok()?, self.reader.u64(word + 8).ok()?);
            let inline = addr.wrapping_add(u64::from(shape.basicsize));
            let at = model.layout.dict_values.map_or(0, |layout| layout.values);
            let (dict, values) = match model.managed {
                Managed::TwoWords => (second, first),
                Managed::Tagged if second & 1 == 1 => (0, second + 1),
                Managed::Inline if second == 0 => (0, inline.wrapping_add(at)),
                _ => (second, 0),
            };
            // 3.13: word 0 is the dict; its neighbour is the list of weak references.
            let dict =
                if model.managed == Managed::Inline && dict == 0 && values == 0 { first } else { dict };
            entries = match dict {
                0 if values != 0 => {
                    let keys =
                        self.reader.u64(ty.addr.wrapping_add(model.layout.heap_type.ht_cached_keys?)).ok()?;
                    let table = keys_table(model, &mut self.reader, keys)?;
                    self.split(&table, values, max)
                }
                0 => entries,
                dict => self.dict(dict, max)?,
            };
        } else {
            let old = model.layout.table.offset("PyInstanceObject", "in_dict");
            let at = match u64::try_from(shape.dictoffset) {
                Ok(at @ 1..) => at,
                // Python 2's classic instances: no member of their type says so.
                _ if ty.name == "instance" => old?,
                _ => return None,
            };
            let dict = self.reader.u64(addr.wrapping_add(at)).ok()?;
            if dict != 0 {
                entries = self.dict(dict, max)?;
            }
        }
        for (key, addr) in entries {
            let name = read_text(model, &mut self.reader, key, MAX_TEXT).unwrap_or_default();
            out.push(Part { name, addr });
        }
        Some(())
    }
}

/// At most [`MAX_TEXT`] characters, and the quote; dots where more follow.
fn cut(text: &str, quote: char) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}…{quote}", &text[..end]),
        None => format!("{text}{quote}"),
    }
}
