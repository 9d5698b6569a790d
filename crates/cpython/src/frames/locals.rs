//! Local variables of frames: their names and what they hold.

use super::{Frame, Kind, TAGS};
use crate::dicts;
use crate::model::Model;
use crate::refers::At;
use crate::strings::read_text;
use wmr_memory::Reader;

/// Characters of a name.
const MAX_NAME: usize = 256;
/// Variables of one frame.
const MAX_LOCALS: u64 = 1 << 16;
/// `CO_FAST_CELL` and `CO_FAST_FREE` in `co_localspluskinds` (3.11+).
const CELL: u8 = 0x40;
const FREE: u8 = 0x80;
/// `CO_OPTIMIZED`: variables are in the frame, not in a dict.
const OPTIMIZED: u32 = 1;

/// A variable that is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    pub name: String,
    /// Of its value: of a cell what is in it.
    pub value: u64,
    /// It is shared with enclosing or enclosed functions, by the cell at that address.
    pub cell: Option<u64>,
}

impl Frame {
    /// Variables that are set, at most `most`: of a function its locals, cells and free variables; of a class
    /// body what is in its namespace. A module's are its globals, and not repeated here.
    pub fn locals(&self, model: &Model, reader: &mut Reader, most: usize) -> Vec<Local> {
        let mut found = Vec::new();
        // What cannot be read ends the list.
        let _ = self.fast(model, reader, most, &mut found);
        let _ = self.named(model, reader, most, &mut found);
        found
    }

    fn fast(&self, model: &Model, reader: &mut Reader, most: usize, found: &mut Vec<Local>) -> Option<()> {
        let l = &model.layout;
        let first = self.addr.wrapping_add(match self.kind {
            Kind::Object => l.frame?.f_localsplus?,
            _ => l.iframe?.localsplus,
        });
        for index in 0..count(model, reader, self.code)?.min(MAX_LOCALS) {
            if found.len() >= most {
                break;
            }
            let word = reader.u64(first.wrapping_add(8 * index)).ok()?;
            let mut value = if l.iframe.is_some_and(|inner| inner.stackpointer.is_some()) {
                // 3.14+: 3 in the low bits is a small int in the word itself.
                if word & TAGS == 3 { 0 } else { word & !TAGS }
            } else {
                word
            };
            let (name, shared) = name(model, reader, self.code, index)?;
            let mut cell = None;
            if shared && value != 0 && is_cell(model, reader, value) {
                cell = Some(value);
                value = reader.u64(value.wrapping_add(l.cell?.ob_ref)).ok()?;
            }
            if value != 0 {
                found.push(Local { name, value, cell });
            }
        }
        Some(())
    }

    /// A class body's, or of code that `exec` ran in a namespace of its own.
    fn named(&self, model: &Model, reader: &mut Reader, most: usize, found: &mut Vec<Local>) -> Option<()> {
        let l = &model.layout;
        if reader.u32(self.code.wrapping_add(l.code?.co_flags)).ok()? & OPTIMIZED != 0 {
            return None;
        }
        let (locals, globals) = match self.kind {
            Kind::Object => (l.frame?.f_locals?, l.frame?.f_globals?),
            _ => (l.iframe?.f_locals, l.iframe?.f_globals),
        };
        let locals = reader.u64(self.addr.wrapping_add(locals)).ok()?;
        let globals = reader.u64(self.addr.wrapping_add(globals)).ok()?;
        if locals == globals || locals == 0 {
            return None;
        }
        dicts::for_each_entry(model, reader, locals, MAX_LOCALS, &mut |reader, key, value| {
            if let Some(name) = read_text(model, reader, key, MAX_NAME) {
                found.push(Local { name, value, cell: None });
            }
            found.len() < most
        })
    }

    /// How a reference of the frame is called: `local x`, `closure y`, `stack`.
    pub fn reference_name(&self, model: &Model, reader: &mut Reader, at: At) -> String {
        match at {
            At::Local(index) => match name(model, reader, self.code, u64::from(index)) {
                Some((name, _)) => format!("local {name}"),
                None => format!("local {index}"),
            },
            At::Stack(_) => "value in use".to_owned(),
            At::Field("f_locals") => "its namespace".to_owned(),
            At::Field("f_func") => "its function".to_owned(),
            At::Field("f_code") => "its code".to_owned(),
            At::Field(_) => "frame object".to_owned(),
            _ => "reference".to_owned(),
        }
    }
}

/// How many locals, cells and free variables there are.
fn count(model: &Model, reader: &mut Reader, code: u64) -> Option<u64> {
    let l = model.layout.code?;
    if let Some(at) = l.co_nlocalsplus {
        return Some(u64::from(reader.u32(code.wrapping_add(at)).ok()?));
    }
    let mut sum = 0u64;
    for names in [l.co_varnames?, l.co_cellvars?, l.co_freevars?] {
        let tuple = reader.u64(code.wrapping_add(names)).ok()?;
        sum = sum.saturating_add(u64::try_from(model.size_field(reader, tuple).ok()?).ok()?);
    }
    Some(sum)
}

/// The name of a variable, and whether a cell may be in its place.
fn name(model: &Model, reader: &mut Reader, code: u64, index: u64) -> Option<(String, bool)> {
    let l = model.layout.code?;
    let item = |reader: &mut Reader, tuple: u64, index: u64| {
        let at = tuple.wrapping_add(model.layout.tuple.ob_item).wrapping_add(8 * index);
        let name = reader.u64(at).ok()?;
        read_text(model, reader, name, MAX_NAME)
    };
    if let (Some(names), Some(kinds)) = (l.co_localsplusnames, l.co_localspluskinds) {
        let names = reader.u64(code.wrapping_add(names)).ok()?;
        let kinds = reader.u64(code.wrapping_add(kinds)).ok()?;
        let kind = reader.u8(kinds.wrapping_add(model.layout.bytes?.ob_sval).wrapping_add(index)).ok()?;
        return Some((item(reader, names, index)?, kind & (CELL | FREE) != 0));
    }
    let mut before = 0u64;
    for (names, shared) in [(l.co_varnames?, false), (l.co_cellvars?, true), (l.co_freevars?, true)] {
        let tuple = reader.u64(code.wrapping_add(names)).ok()?;
        let count = u64::try_from(model.size_field(reader, tuple).ok()?).ok()?;
        if index - before < count {
            return Some((item(reader, tuple, index - before)?, shared));
        }
        before = before.saturating_add(count);
    }
    None
}

fn is_cell(model: &Model, reader: &mut Reader, addr: u64) -> bool {
    let name = || {
        let ty = model.type_of(reader, addr).ok()?;
        let name = reader.u64(ty.wrapping_add(model.layout.type_object.tp_name)).ok()?;
        reader.cstr(name, 8).ok()
    };
    let mut name = name;
    name().is_some_and(|name| name == b"cell")
}
