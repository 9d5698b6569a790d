//! Text out of the target: `str`, `unicode` and C strings, bounded and never trusted.

use crate::model::Model;
use wmr_memory::Reader;

/// How the characters of a `str` are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StrShape {
    /// Characters.
    pub length: u64,
    /// Bytes a character: 1, 2 or 4; 0 for a legacy string that was never made ready (up to 3.11).
    pub kind: u64,
    pub ascii: bool,
    pub compact: bool,
    /// 0 no, 1 mortal, 2 or more immortal.
    pub interned: u32,
}

/// Reads the state of a `str` (3.x, `Include/cpython/unicodeobject.h`). `None`: it cannot be one.
#[inline]
pub fn str_shape(model: &Model, reader: &mut Reader, object: u64) -> Option<StrShape> {
    let ascii = model.layout.ascii?;
    let length = reader.u64(object.wrapping_add(ascii.length)).ok()?;
    let state = reader.u32(object.wrapping_add(ascii.state)).ok()?;
    let shape = StrShape {
        length,
        kind: u64::from(state >> 2 & 7),
        ascii: state >> 6 & 1 == 1,
        compact: state >> 5 & 1 == 1,
        interned: state & 3,
    };
    let kind_ok = match shape.kind {
        0 => !shape.compact && ascii.wstr.is_some(),
        1 => true,
        2 | 4 => !shape.ascii,
        _ => false,
    };
    (kind_ok && length < 1 << 40).then_some(shape)
}

/// Where the characters of a `str` begin.
pub fn str_data(model: &Model, reader: &mut Reader, object: u64, shape: &StrShape) -> Option<u64> {
    let layout = &model.layout;
    if shape.compact {
        let header = if shape.ascii { layout.ascii?.size } else { layout.compact?.size };
        return Some(object + header);
    }
    reader.u64(object.wrapping_add(layout.unicode.data?)).ok().filter(|p| *p != 0)
}

/// The text of a `str` (3.x) or of a `str`/`unicode` of Python 2, at most `max` characters.
pub fn read_text(model: &Model, reader: &mut Reader, object: u64, max: usize) -> Option<String> {
    if model.is_two() {
        return read_two(model, reader, object, max);
    }
    let shape = str_shape(model, reader, object)?;
    let data = str_data(model, reader, object, &shape)?;
    let count = shape.length.min(max as u64) as usize;
    let mut bytes = vec![0; count * shape.kind as usize];
    reader.read(data, &mut bytes).ok()?;
    Some(match shape.kind {
        1 => bytes.iter().map(|b| char::from(*b)).collect(),
        2 => chars(bytes.chunks_exact(2).map(|c| u32::from(u16::from_le_bytes([c[0], c[1]])))),
        _ => chars(bytes.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]]))),
    })
}

fn chars(codes: impl Iterator<Item = u32>) -> String {
    codes.map(|c| char::from_u32(c).unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

fn read_two(model: &Model, reader: &mut Reader, object: u64, max: usize) -> Option<String> {
    // A Python 2 `str`; names are never `unicode` there.
    let length = model.size_field(reader, object).ok()?;
    let count = usize::try_from(length).ok()?.min(max);
    let mut bytes = vec![0; count];
    reader.read(object.wrapping_add(model.layout.old_str?.ob_sval), &mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
