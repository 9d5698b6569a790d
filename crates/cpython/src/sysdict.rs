//! The few facts a process states about itself in `sys`: read while the layout is still in question,
//! so every word is checked and nothing is assumed to be what it claims.

use crate::layout::Layout;
use crate::version::Version;
use wmr_memory::{Fault, Reader};

/// `sys` has under 100 names; a program that adds more than this to it is not believable.
const MAX_ENTRIES: u64 = 1 << 14;

/// What `sys` says. A fact is `None` where it is missing or not of the type it should have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SysFacts {
    /// `sys.hexversion`.
    pub version: Option<Version>,
    /// `sys.abiflags` contains `d`: a debug build (3.2+, absent in 2.7).
    pub debug: Option<bool>,
}

/// Reads the facts out of the dict at `dict`, by `layout`.
pub fn read(reader: &mut Reader<'_>, layout: &Layout, dict: u64) -> SysFacts {
    let mut facts = SysFacts::default();
    // A dict that breaks off half-way has still said something.
    let _ = for_each_item(reader, layout, dict, |reader, key, value| {
        match short_text(reader, layout, key).as_deref() {
            Some(b"hexversion") => {
                facts.version = small_int(reader, layout, value).map(Version).filter(|v| v.plausible());
            }
            Some(b"abiflags") => facts.debug = short_text(reader, layout, value).map(|s| s.contains(&b'd')),
            _ => {}
        }
        facts.version.is_none() || facts.debug.is_none()
    });
    facts
}

/// Calls `f(key, value)` for each live entry of a dict with its own table, until `f` says false.
pub(crate) fn for_each_item<'m>(
    reader: &mut Reader<'m>,
    layout: &Layout,
    dict: u64,
    mut f: impl FnMut(&mut Reader<'m>, u64, u64) -> bool,
) -> Result<(), Fault> {
    let (mut entry, count, stride, key_at) = match (&layout.dict_keys, layout.dict.ma_keys) {
        (Some(k), Some(ma_keys)) => {
            let keys = reader.u64(dict.wrapping_add(ma_keys))?;
            let entries = reader.u64(keys.wrapping_add(k.dk_nentries))?;
            let mut kind = 0;
            let index_bytes = match (k.dk_log2_index_bytes, k.dk_kind, k.dk_size) {
                (Some(log2), Some(dk_kind), _) => {
                    kind = reader.u8(keys.wrapping_add(dk_kind))?;
                    1u64.checked_shl(u32::from(reader.u8(keys.wrapping_add(log2))?)).unwrap_or(u64::MAX)
                }
                (_, _, Some(dk_size)) => match reader.u64(keys.wrapping_add(dk_size))? {
                    n @ ..=0xff => n,
                    n @ ..=0xffff => n * 2,
                    n => n.saturating_mul(4),
                },
                _ => return Ok(()),
            };
            let first = keys.wrapping_add(k.dk_indices).wrapping_add(index_bytes);
            // Unicode tables (3.11+, kind 1 and 2) leave the hash to the key.
            if kind == 0 { (first, entries, 24, 8) } else { (first, entries, 16, 0) }
        }
        _ => {
            let (Some(table), Some(mask)) = (layout.dict.ma_table, layout.dict.ma_mask) else {
                return Ok(());
            };
            let slots = reader.u64(dict.wrapping_add(mask))?.saturating_add(1);
            (reader.u64(dict.wrapping_add(table))?, slots, 24, 8)
        }
    };
    for _ in 0..count.min(MAX_ENTRIES) {
        let key = reader.u64(entry.wrapping_add(key_at))?;
        let value = reader.u64(entry.wrapping_add(key_at + 8))?;
        if key != 0 && value != 0 && !f(reader, key, value) {
            break;
        }
        entry = entry.wrapping_add(stride);
    }
    Ok(())
}

/// Entries that must be an object mapped to itself before a dict is believed to be the interned table.
const SAMPLE: usize = 200;

/// Does a dict look like the table of interned strings: each key its own value? A real one has
/// thousands of entries before a program's first line is run.
pub(crate) fn maps_strings_to_themselves(reader: &mut Reader<'_>, layout: &Layout, dict: u64) -> bool {
    let mut seen = 0;
    let mut good = true;
    let _ = for_each_item(reader, layout, dict, |_, key, value| {
        seen += 1;
        good = key == value;
        good && seen < SAMPLE
    });
    good && seen >= SAMPLE
}

/// The text of an ASCII `str` of up to 64 characters (2.7: of a byte string).
pub(crate) fn short_text(reader: &mut Reader<'_>, layout: &Layout, object: u64) -> Option<Vec<u8>> {
    let (length_at, data_at) = match (&layout.ascii, &layout.old_str) {
        (Some(ascii), _) => (ascii.length, ascii.size),
        // PyVarObject: ob_size follows the object header.
        (None, Some(old)) => (layout.object.size, old.ob_sval),
        (None, None) => return None,
    };
    let length = reader.u64(object.wrapping_add(length_at)).ok().filter(|n| *n <= 64)?;
    let mut text = vec![0; length as usize];
    reader.read(object.wrapping_add(data_at), &mut text).ok()?;
    Some(text)
}

/// An int of one 30-bit digit (2.7: a C long).
fn small_int(reader: &mut Reader<'_>, layout: &Layout, object: u64) -> Option<u32> {
    let word = |reader: &mut Reader<'_>, at| reader.u64(object.wrapping_add(at)).ok();
    if layout.old_str.is_some() {
        return word(reader, layout.object.size)?.try_into().ok();
    }
    let head = word(reader, layout.object.size)?;
    // 3.12+ keep the digit count above three flag bits.
    let (digits, digit_at) = match (layout.long.long_value, layout.long.ob_digit) {
        (Some(at), _) => (head >> 3, at + 8),
        (None, Some(at)) => (head, at),
        (None, None) => return None,
    };
    if digits != 1 {
        return None;
    }
    reader.u32(object.wrapping_add(digit_at)).ok()
}
