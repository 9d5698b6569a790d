//! What `sys.gettotalrefcount()` would say: the references there are to all objects together, of any build.
//!
//! A debug build counts each reference when it is taken and given back. That sum is in the objects: their
//! counts, without what they began with where they were counted by nobody. References to tables of dicts' keys are
//! among them (`dictkeys_incref`).

use crate::graph::statics;
use crate::inspect::Inspection;
use rayon::prelude::*;
use wmr_cpython::dicts::keys_table;
use wmr_cpython::family::Family;
use wmr_cpython::model::{Model, RefCount};
use wmr_cpython::object::Object;
use wmr_memory::{Reader, Target};

/// Objects of one type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    pub count: u64,
    /// Objects that are never freed, whose references are not counted.
    pub immortal: u64,
    pub refs: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TotalRefs {
    /// By type, as the census numbers them.
    pub types: Vec<Sum>,
    /// Up to 3.12: strings' references from the table of interned ones, which their own counts leave out.
    pub interned: i64,
    /// References to tables of keys, of dicts and of types for their instances.
    pub keys: i64,
}

/// `_PyObject_IMMORTAL_REFCNT` of 3.11: what objects in the data of the interpreter begin with.
const MANY: i64 = 999_999_999;

/// What a pass over some blocks finds.
struct Found {
    types: Vec<Sum>,
    /// Addresses of tables of keys, each as often as it is met.
    keys: Vec<u64>,
    /// Strings that became immortal.
    immortal_strings: i64,
}

impl TotalRefs {
    /// `None` without an interpreter.
    pub fn of(target: &Target, inspection: &Inspection) -> Option<TotalRefs> {
        let model = inspection.model.as_ref()?;
        let blocks = &inspection.blocks;
        let mut found = (0..blocks.spans().len())
            .into_par_iter()
            .fold(
                || Found::nothing(inspection),
                |mut found, span| {
                    let mut reader = target.reader();
                    for block in blocks.iter_span(span) {
                        if let Some((object, _)) = inspection.object_in(model, &mut reader, block) {
                            found.add(model, &mut reader, &object);
                        }
                    }
                    found
                },
            )
            .reduce(|| Found::nothing(inspection), Found::with);
        let mut reader = target.reader();
        let dummy = set_dummy(target, inspection);
        for (addr, shape) in statics::find(target, inspection, model) {
            if Some(addr) != dummy
                && let Some(sum) = found.types.get_mut(shape.id as usize)
            {
                sum.add_static(target, model, &mut reader, addr);
            }
        }
        found.keys.sort_unstable();
        found.keys.dedup();
        let keys = found.keys.iter().filter_map(|table| {
            // 3.12+: that of empty dicts is immortal.
            let count = keys_table(model, &mut reader, *table)?.refcount;
            let first = began_with(target, *table).map_or(0, |count| count as i64);
            matches!(count, 1..MANY).then_some(count.saturating_sub(first))
        });
        let keys = keys.fold(0, i64::saturating_add);
        let interned = interned(target, inspection, model, found.immortal_strings);
        Some(TotalRefs { types: found.types, interned, keys })
    }

    pub fn total(&self) -> i64 {
        let sum = self.types.iter().fold(0i64, |sum, ty| sum.saturating_add(ty.refs));
        sum.saturating_add(self.interned).saturating_add(self.keys)
    }
}

impl Found {
    fn nothing(inspection: &Inspection) -> Found {
        let types = vec![Sum::default(); inspection.census.types.len()];
        Found { types, keys: Vec::new(), immortal_strings: 0 }
    }

    fn with(mut self, mut other: Found) -> Found {
        for (a, b) in self.types.iter_mut().zip(other.types) {
            a.count += b.count;
            a.immortal += b.immortal;
            a.refs = a.refs.saturating_add(b.refs);
        }
        self.keys.append(&mut other.keys);
        self.immortal_strings += other.immortal_strings;
        self
    }

    /// An object in a block: all its references were counted.
    fn add(&mut self, model: &Model, reader: &mut Reader, object: &Object) {
        let l = &model.layout;
        let table = match object.shape.family {
            Family::Dict | Family::OrderedDict => l.dict.ma_keys,
            Family::Type => l.heap_type.ht_cached_keys,
            _ => None,
        };
        if let Some(at) = table
            && let Ok(table @ 1..) = reader.u64(object.addr.wrapping_add(at))
        {
            self.keys.push(table);
        }
        let sum = &mut self.types[object.shape.id as usize];
        match model.refcount(reader, object.addr) {
            Ok(RefCount::Count(count)) => {
                sum.count += 1;
                sum.refs = sum.refs.saturating_add_unsigned(count);
            }
            Ok(RefCount::Immortal) => {
                sum.count += 1;
                sum.immortal += 1;
                // What it had when it became immortal stays in the total, for good: the one reference that a static
                // type has to the tuples of its bases (`set_tp_bases`, `set_tp_mro`). Those to a string are taken
                // out by hand (`immortalize_interned`).
                match object.shape.family {
                    Family::Str => self.immortal_strings += 1,
                    _ => sum.refs = sum.refs.saturating_add(1),
                }
            }
            _ => {}
        }
    }
}

impl Sum {
    /// An object that no allocator gave was there before its references were counted.
    fn add_static(&mut self, target: &Target, model: &Model, reader: &mut Reader, addr: u64) {
        let Ok(word) = reader.i64(addr.wrapping_add(model.layout.object.ob_refcnt)) else { return };
        let decoded = model.decode_refcount(word as u64);
        if decoded == RefCount::Implausible {
            return;
        }
        self.count += 1;
        self.immortal += u64::from(decoded == RefCount::Immortal);
        if decoded == RefCount::Immortal && model.has_immortals() {
            return;
        }
        // Without the file: 1, or what 3.11 gives to what it never frees and counts all the same.
        let first = began_with(target, addr.wrapping_add(model.layout.object.ob_refcnt));
        let first = first.map_or(if word > MANY / 2 { MANY } else { 1 }, |first| first as i64);
        self.refs = self.refs.saturating_add(word.saturating_sub(first));
    }
}

/// What a word in an image's data was before the program ran.
fn began_with(target: &Target, addr: u64) -> Option<u64> {
    target.image(addr)?.first_word(addr)
}

/// What stands for removed items of sets, whose references the interpreter leaves out up to 3.10.
fn set_dummy(target: &Target, inspection: &Inspection) -> Option<u64> {
    let python = inspection.python.as_ref().ok().filter(|python| !python.version.at_least(3, 11))?;
    target.reader().u64(python.image(target)?.symbol("_PySet_Dummy")?).ok()
}

/// The two references to each string in the table of interned ones, which are taken out of its count.
fn interned(target: &Target, inspection: &Inspection, model: &Model, immortal_strings: i64) -> i64 {
    let Ok(python) = &inspection.python else { return 0 };
    // Out of the total as well.
    if python.version.at_least(3, 13) {
        return 0;
    }
    // Interned ones are immortal, and those in the data of the interpreter always were.
    if python.version.at_least(3, 12) {
        return immortal_strings.saturating_mul(2);
    }
    let l = &model.layout.dict;
    let Some(at) = l.ma_used else { return 0 };
    let mut reader = target.reader();
    let used = python.interned(target).dicts.into_iter().filter_map(|dict| reader.i64(dict + at).ok());
    used.fold(0, |sum: i64, used| sum.saturating_add(used.saturating_mul(2)))
}
