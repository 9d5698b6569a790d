//! What the commands that ask who holds what share.

use crate::document::hex;
use crate::failure::{Failure, code, of_python};
use crate::numbers::counted;
use crate::open::Subject;
use crate::text::{self, utf8};
use serde::Serialize;
use wmr_cpython::refers::{Label, Name, Via as Sort};
use wmr_heap::Held;
use wmr_heap::graph::Fold;
use wmr_heap::roots::Holder;
use wmr_memory::Reader;

/// Notes beside an error.
const MOST_NOTES: usize = 8;

pub fn find(subject: &Subject, fold: Fold) -> Result<Held<'_>, Failure> {
    let none = || {
        let why = match &subject.inspection.python {
            Err(error) => of_python(error, subject.target.process.swap),
            Ok(_) => "its objects could not be followed".to_owned(),
        };
        let failure = Failure::new(code::NOT_PYTHON, format!("{}: {why}", text::shown(&subject.typed)));
        // Of a damaged file they say what is lacking.
        let notes = subject.inspection.notes.iter().cloned().chain(subject.target.memory.troubles());
        notes.take(MOST_NOTES).fold(failure, |failure, note| failure.advise(text::shown(&note)))
    };
    let held = Held::find(&subject.target, &subject.inspection, fold).ok_or_else(none)?;
    held.map_err(|error| Failure::new(code::FAILED, error.to_string()))
}

/// The object that people mean by an address: at it, or around it.
pub fn node_at(subject: &Subject, held: &Held, addr: u64) -> Result<u32, Failure> {
    held.node_at(addr).ok_or_else(|| {
        let failure = Failure::new(code::FAILED, format!("no Python object is at {}", hex(addr)));
        match subject.target.mapping(addr) {
            Some(_) => failure.advise(format!("what is there: wmr show {} {}", subject.typed, hex(addr))),
            None => failure.advise(format!("nothing is mapped there: wmr map {}", subject.typed)),
        }
    })
}

/// How an object refers to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Via {
    kind: &'static str,
    value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum Value {
    Number(i64),
    Text(String),
}

impl From<&Label> for Via {
    fn from(label: &Label) -> Via {
        let value = match &label.name {
            Name::Number(n) => Value::Number(*n),
            Name::Text(text) | Name::Written(text) => Value::Text(utf8(text.as_bytes())),
        };
        Via { kind: label.via.word(), value }
    }
}

impl Via {
    /// The name alone.
    pub fn text(&self) -> String {
        match &self.value {
            Value::Number(n) => n.to_string(),
            Value::Text(text) => text.clone(),
        }
    }
}

/// An object at one end of a reference.
#[derive(Debug, Clone, Serialize)]
pub struct Ref {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addr: Option<String>,
    #[serde(rename = "type")]
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<Via>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub weak: bool,
}

impl Ref {
    pub fn of(held: &Held, reader: &mut Reader, node: u32, label: Option<&Label>) -> Ref {
        Ref {
            addr: held.addr(reader, node).map(hex),
            name: utf8(held.type_name(node).as_bytes()),
            via: label.map(Via::from),
            weak: false,
        }
    }
}

/// Where a path begins.
#[derive(Debug, Clone, Serialize)]
pub struct RootName {
    kind: &'static str,
    name: String,
    /// Of a module.
    #[serde(skip_serializing_if = "Option::is_none")]
    addr: Option<String>,
}

pub fn root_name(held: &Held, reader: &mut Reader, node: u32) -> RootName {
    let holder = held.root(node).map(|root| &root.holder);
    let (name, addr) = match holder {
        Some(Holder::Module { name, .. }) => (name.clone(), held.addr(reader, node).map(hex)),
        _ => (held.root_name(node), None),
    };
    RootName { kind: holder.map_or("unknown", Holder::kind), name, addr }
}

/// How a root refers to what it holds, where that is no object's reference.
pub fn held_by_root(held: &Held, node: u32) -> Via {
    Via { kind: "field", value: Value::Text(held.root_name(node)) }
}

/// What many references that differ in their index or key have in common.
pub fn pattern(label: &Label) -> String {
    match label.via {
        Sort::Index => "[i]".to_owned(),
        Sort::Value => "['…']".to_owned(),
        Sort::Attr => ".…".to_owned(),
        Sort::Stack => "stack".to_owned(),
        Sort::Key | Sort::Element | Sort::Order => label.to_string(),
        via => format!("{} …", via.word()),
    }
}

pub fn fold(no_fold: bool) -> Fold {
    if no_fold { Fold::No } else { Fold::Yes }
}

/// References that lead nowhere, as notes.
pub fn left_out(held: &Held) -> Vec<String> {
    let left = &held.graph.left_out;
    let kinds = [
        (left.inside, "to blocks that are no objects, or not to where an object begins"),
        (left.nowhere, "to memory that is in no block: freed, or a static object that is not known"),
        (left.unmapped, "to where nothing is mapped"),
    ];
    let some = kinds.into_iter().filter(|(count, _)| *count > 0);
    some.map(|(count, what)| format!("not followed: {} {what}", counted(count, "reference"))).collect()
}
