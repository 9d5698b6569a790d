//! How a person would write a reference.

use super::containers::key_of;
use super::instances::{each_member, shared_names};
use super::keys::{escaped, name_of};
use super::{At, Reference};
use crate::family::Family;
use crate::model::Model;
use crate::object::Object;
use crate::strings::read_text;
use std::fmt;
use wmr_memory::Reader;

/// Characters of a name or key that a label's text shows, and that are read.
pub(super) const MAX_TEXT: usize = 60;
pub(super) const MAX_NAME: usize = 1024;
/// `CO_FAST_FREE` in `co_localspluskinds` (3.11+).
const FREE: u8 = 0x80;

/// What sort of place a reference is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Via {
    /// An attribute of an instance, a module or a type.
    Attr,
    Index,
    Key,
    /// Of a set.
    Element,
    /// A key in the order that an OrderedDict keeps beside its table.
    Order,
    /// The value of a key.
    Value,
    Slot,
    /// A variable of an enclosing function.
    Cell,
    Local,
    /// On a frame's stack of values.
    Stack,
    Field,
    /// A word that nothing declares.
    Maybe,
}

impl Via {
    /// The word for machines.
    pub fn word(self) -> &'static str {
        match self {
            Via::Attr => "attr",
            Via::Index => "index",
            Via::Key | Via::Element | Via::Order => "key",
            Via::Value => "value",
            Via::Slot => "slot",
            Via::Cell => "cell",
            Via::Local => "local",
            Via::Stack | Via::Field => "field",
            Via::Maybe => "maybe",
        }
    }
}

/// Which of its sort: text from the target is as it is there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name {
    Text(String),
    Number(i64),
    /// What is neither, as it would be written.
    Written(String),
}

/// What a reference is called; written by `Display` as a person would: `.name`, `[3]`, `['key']`, `key`,
/// `slot x`, `local z`, `closure y`, `__dict__`. Control characters are escaped as `repr` does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    pub via: Via,
    pub name: Name,
}

impl Label {
    fn text(via: Via, name: impl Into<String>) -> Label {
        Label { via, name: Name::Text(name.into()) }
    }

    /// The same reference, called from the object that this one's holder is a part of: an entry of a
    /// namespace is an attribute, an item of a closure a variable.
    pub fn within(self, part: &str) -> Label {
        match (part, self.via, &self.name) {
            ("__dict__", Via::Value, Name::Text(_)) => Label { via: Via::Attr, ..self },
            ("__dict__", ..) => self,
            _ => Label::text(Via::Field, format!("{part}{self}")),
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match self.via {
            Via::Attr => write!(f, ".{name}"),
            Via::Field if matches!(name, Name::Text(text) if !text.starts_with("__")) => {
                write!(f, ".{name}")
            }
            Via::Index => write!(f, "[{name}]"),
            Via::Key => f.write_str("key"),
            Via::Element => f.write_str("element"),
            Via::Order => f.write_str("key (order)"),
            Via::Value if matches!(name, Name::Text(_)) => write!(f, "['{name}']"),
            Via::Value => write!(f, "[{name}]"),
            Via::Slot => write!(f, "slot {name}"),
            Via::Cell => write!(f, "closure {name}"),
            Via::Local => write!(f, "local {name}"),
            Via::Stack | Via::Field | Via::Maybe => write!(f, "{name}"),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Number(n) => write!(f, "{n}"),
            Name::Written(text) => f.write_str(text),
            Name::Text(text) => {
                let short: String = text.chars().take(MAX_TEXT).collect();
                f.write_str(&escaped(&short))?;
                f.write_str(if short.len() < text.len() { "…" } else { "" })
            }
        }
    }
}

pub fn label(model: &Model, reader: &mut Reader, object: &Object, reference: &Reference) -> Label {
    let addr = object.addr;
    let unknown = |what: &str, at: u64| Name::Written(format!("{what} {at}"));
    let named = |reader: &mut Reader, key: Option<u64>| {
        let name = key.and_then(|key| name_of(model, reader, key));
        name.unwrap_or_else(|| Name::Written("…".to_owned()))
    };
    let (via, name) = match reference.at {
        At::Type => (Via::Field, Name::Text("__class__".to_owned())),
        At::Field(name) => (Via::Field, Name::Text(name.to_owned())),
        At::Item(i) => {
            let array = object.shape.fields.array != 0;
            let index = if array { super::ndarray::index(model, reader, addr, i) } else { None };
            (Via::Index, index.map_or(Name::Number(i as i64), Name::Written))
        }
        At::Key(_) => (Via::Key, named(reader, Some(reference.addr))),
        At::Element(_) => (Via::Element, named(reader, Some(reference.addr))),
        At::Order(_) => (Via::Order, named(reader, Some(reference.addr))),
        At::Value(i) => {
            let key = key_of(model, reader, addr, i);
            (Via::Value, named(reader, key))
        }
        At::Paired(offset) => {
            let key = reader.u64(addr.wrapping_add(u64::from(offset)).wrapping_sub(8)).ok();
            (Via::Value, named(reader, key))
        }
        At::Attribute(i) => match attribute(model, reader, addr, i) {
            Some(name) => (Via::Attr, Name::Text(name)),
            None => (Via::Attr, unknown("attribute", u64::from(i))),
        },
        At::Slot(offset) => match slot(model, reader, addr, offset) {
            Some(name) => (Via::Slot, Name::Text(name)),
            None => (Via::Slot, unknown("at", u64::from(offset))),
        },
        At::Local(i) => match local(model, reader, object, i) {
            Some((name, true)) => (Via::Cell, Name::Text(name)),
            Some((name, false)) => (Via::Local, Name::Text(name)),
            None => (Via::Local, Name::Number(i64::from(i))),
        },
        At::Stack(i) => (Via::Stack, unknown("stack", u64::from(i))),
        At::Hidden(offset) => (Via::Maybe, unknown("field at", u64::from(offset))),
        At::State(offset) => (Via::Maybe, unknown("module state at", u64::from(offset))),
    };
    Label { via, name }
}

/// What item `index` of a function's closure is called when it is taken for the function's.
pub fn closure_label(model: &Model, reader: &mut Reader, function: u64, index: u64) -> Option<Label> {
    Some(Label::text(Via::Cell, closure_name(model, reader, function, index)?))
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
    read_text(model, reader, name, MAX_NAME)
}

fn slot(model: &Model, reader: &mut Reader, object: u64, offset: u32) -> Option<String> {
    let mut found = None;
    each_member(model, reader, object, &mut |reader, name, at| {
        if at == u64::from(offset) {
            found = reader.cstr(name, MAX_NAME).ok();
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
    let code = reader.u64(frame.wrapping_add(l.iframe?.code)).ok()? & !3;
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
    read_text(model, reader, item, MAX_NAME)
}
