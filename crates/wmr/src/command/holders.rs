//! What the commands that ask who holds what share.

use crate::document::hex;
use crate::failure::{Failure, code};
use crate::open::Subject;
use crate::text::{self, utf8};
use serde::Serialize;
use wmr_cpython::refers::{Label, Name};
use wmr_heap::Held;
use wmr_heap::graph::Fold;

pub fn find(subject: &Subject, fold: Fold) -> Result<Held<'_>, Failure> {
    let none = || {
        let why = match &subject.inspection.python {
            Err(error) => error.to_string(),
            Ok(_) => "its objects could not be followed".to_owned(),
        };
        Failure::new(code::NOT_PYTHON, format!("{}: {why}", text::shown(&subject.typed)))
    };
    let held = Held::find(&subject.target, &subject.inspection, fold).ok_or_else(none)?;
    held.map_err(|error| Failure::new(code::FAILED, error.to_string()))
}

/// The object that people mean by an address: at it, or around it.
pub fn node_at(subject: &Subject, held: &Held, addr: u64) -> Result<u32, Failure> {
    held.node_at(addr).ok_or_else(|| {
        Failure::new(code::FAILED, format!("no Python object is at {}", hex(addr))).advise(format!(
            "what is there: wmr show {} {}",
            subject.typed,
            hex(addr)
        ))
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
