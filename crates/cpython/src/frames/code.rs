//! What a code object says of itself: its names, its file, and which line an instruction is of.

use super::lines::{self, Format};
use crate::model::Model;
use crate::strings::read_text;
use wmr_memory::Reader;

/// Characters of a name, and of a path.
const MAX_NAME: usize = 512;
const MAX_PATH: usize = 4096;
/// Bytes of a table of lines that are gone through: a module of a million lines has less.
const MAX_TABLE: u64 = 1 << 26;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code {
    pub addr: u64,
    pub name: String,
    /// With the classes and functions it was defined in (3.11+).
    pub qualified: Option<String>,
    pub file: String,
    /// Where its definition begins.
    pub first_line: i64,
}

impl Code {
    /// What cannot be read is empty.
    pub fn read(model: &Model, reader: &mut Reader, addr: u64) -> Code {
        let l = model.layout.code;
        let mut text = |at: Option<u64>, most: usize| {
            let object = reader.u64(addr.wrapping_add(at?)).ok()?;
            read_text(model, reader, object, most)
        };
        let name = text(l.map(|l| l.co_name), MAX_NAME).unwrap_or_default();
        let qualified = text(l.and_then(|l| l.co_qualname), MAX_NAME);
        let file = text(l.map(|l| l.co_filename), MAX_PATH).unwrap_or_default();
        Code { addr, name, qualified, file, first_line: first_line(model, reader, addr).unwrap_or(0) }
    }
}

fn first_line(model: &Model, reader: &mut Reader, code: u64) -> Option<i64> {
    let at = model.layout.code?.co_firstlineno;
    Some(i64::from(reader.u32(code.wrapping_add(at)).ok()? as i32))
}

/// The line of an instruction, by its offset from the beginning of the code.
pub(super) fn line(model: &Model, reader: &mut Reader, code: u64, offset: i64) -> Option<i64> {
    let l = model.layout.code?;
    let format = match (l.co_lnotab, l.co_localsplusnames) {
        (Some(_), _) if model.is_two() => Format::Unsigned,
        (Some(_), _) => Format::Signed,
        (None, None) => Format::Ranges,
        (None, Some(_)) => Format::Locations,
    };
    let table = reader.u64(code.wrapping_add(l.lines)).ok()?;
    let length = u64::try_from(model.size_field(reader, table).ok()?).ok()?.min(MAX_TABLE);
    let bytes = match model.layout.bytes {
        Some(bytes) => bytes.ob_sval,
        None => model.layout.old_str?.ob_sval,
    };
    let first = first_line(model, reader, code)?;
    let data = table.wrapping_add(bytes);
    let table = (0..length).map_while(|at| reader.u8(data.wrapping_add(at)).ok());
    lines::line(format, first, offset, table)
}
