//! Known fields of C types that are not CPython's own: what a pointer at that place leads to.

use super::Native;
use crate::kinds::{Domain, Sure};
use rustc_hash::FxHashMap;
use wmr_cpython::model::Model;

/// Type, offset of the field, what it points to. The offsets have been the same in all releases that
/// run on a Python of ours.
const FIELDS: &[(&str, u64, &str)] = &[
    ("numpy.ndarray", 16, ARRAY),
    ("numpy.memmap", 16, ARRAY),
    ("numpy.matrix", 16, ARRAY),
    ("numpy.recarray", 16, ARRAY),
    ("numpy.ma.MaskedArray", 16, ARRAY),
    ("numpy.ndarray", 32, "array shape"),
    ("_ssl._SSLContext", 16, "OpenSSL context"),
    ("_hashlib.HASH", 16, "OpenSSL digest"),
    ("_hashlib.HASH", 24, "OpenSSL digest"),
    ("pyexpat.xmlparser", 16, "expat parser"),
    ("lxml.etree._Document", 40, "libxml2 document"),
    ("lxml.etree._Element", 24, "libxml2 node"),
    ("lxml.etree._Comment", 24, "libxml2 node"),
    ("ImagingCore", 16, "PIL image"),
    ("PIL.ImagingCore", 16, "PIL image"),
];

const ARRAY: &str = "array data";

/// Is a block of that kind all values, in which a word that looks like an address is one by chance?
pub(super) fn is_content(kind: &str) -> bool {
    [
        ARRAY,
        "array shape",
        super::arrow::BUFFER,
        super::signature::FILE_BUFFER,
        super::gobject::PIXELS,
        super::media::PIXELS,
    ]
    .contains(&kind)
}

impl Native<'_> {
    /// Names blocks by the field in which their object has them.
    pub(super) fn name_fields(&mut self, model: &Model) {
        let mut reader = self.target.reader();
        let mut by_type: FxHashMap<u32, Vec<(u64, &str)>> = FxHashMap::default();
        for index in 0..self.census.types.len() {
            // A subclass written in Python has the fields of its base.
            for base in crate::census::bases(&self.census.types, index) {
                let fields = FIELDS.iter().filter(|(name, ..)| *name == base.name).map(|f| (f.1, f.2));
                by_type.entry(index as u32).or_default().extend(fields);
            }
        }
        let mut named = Vec::new();
        for (block, owner) in self.census.holders() {
            let Some(id) = self.census.mark(owner).as_object() else { continue };
            let Some(fields) = by_type.get(&id).filter(|fields| !fields.is_empty()) else { continue };
            let at = self.blocks.block(owner);
            let data = model.unpad(&mut reader, at.start, at.usable).data;
            let object = data.wrapping_add(u64::from(self.census.types[id as usize].shape.presize));
            let start = self.blocks.start(block);
            let field = fields.iter().find(|(at, _)| reader.u64(object.wrapping_add(*at)) == Ok(start));
            named.extend(field.map(|(_, kind)| (block, id, *kind)));
        }
        for (block, id, kind) in named {
            let detail = self.census.types[id as usize].name.clone();
            let kind = self.census.kinds.intern(Domain::Native, kind, &detail, Sure::Owner);
            self.set(block, kind);
        }
    }
}
