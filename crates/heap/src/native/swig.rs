//! What SWIG's wrappers point to, by the C++ type that SWIG wrote beside the pointer.

use super::Native;
use crate::kinds::{Domain, Sure};
use wmr_cpython::model::Model;

/// `SwigPyObject` behind the object's header: the pointer, then its `swig_type_info`, whose second word is
/// the type as the source has it: `Foo *`.
const POINTER: u64 = 0;
const TYPE: u64 = 8;
const TYPE_TEXT: u64 = 8;
const MAX_NAME: usize = 256;

impl Native<'_> {
    /// Names what `SwigPyObject`s point to, when nothing better is known.
    pub(super) fn name_swig(&mut self, model: &Model) {
        let types = &self.census.types;
        let is_swig = |id: u32| types.get(id as usize).is_some_and(|ty| is_wrapper(&ty.name));
        let mut reader = self.target.reader();
        let mut named = Vec::new();
        for (block, owner) in self.census.holders() {
            let Some(id) = self.census.mark(owner).as_object().filter(|id| is_swig(*id)) else { continue };
            let at = self.blocks.block(owner);
            let data = model.unpad(&mut reader, at.start, at.usable).data;
            let object = data + u64::from(self.census.types[id as usize].shape.presize);
            let fields = object.wrapping_add(model.layout.object.size);
            if reader.u64(fields.wrapping_add(POINTER)) != Ok(self.blocks.start(block)) {
                continue;
            }
            let mut text = || {
                let info = reader.u64(fields.wrapping_add(TYPE)).ok()?;
                let text = reader.u64(info.wrapping_add(TYPE_TEXT)).ok()?;
                let text = String::from_utf8(reader.cstr(text, MAX_NAME).ok()?).ok()?;
                // Several spellings of one type are kept with bars between them.
                let first = text.rsplit('|').next()?.trim_end_matches(['*', ' ']).to_owned();
                let plain = |c: char| c.is_alphanumeric() || "_:<>, *&[]".contains(c);
                (!first.is_empty() && first.chars().all(plain)).then_some(first)
            };
            named.extend(text().map(|text| (block, text)));
        }
        for (block, text) in named {
            let kind = self.intern(Domain::Native, &format!("C++ {text}"), Sure::Owner);
            self.set(block, kind);
        }
    }
}

fn is_wrapper(name: &str) -> bool {
    name.rsplit('.').next() == Some("SwigPyObject")
}
