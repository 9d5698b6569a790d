//! The table of interned strings.

use crate::locate::for_each_word;
use crate::runtime::Python;
use crate::sysdict::maps_strings_to_themselves;
use wmr_memory::{Reader, Target};

/// Where interned strings are kept. The table does not own them: its references are not counted up to
/// 3.11.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interned {
    /// Addresses of dicts that map each string to itself: one up to 3.11, one per interpreter that does
    /// not share the main one's after that.
    pub dicts: Vec<u64>,
    /// 3.12+: the `_Py_hashtable_t` of static strings, of the whole process.
    pub static_table: Option<u64>,
    pub notes: Vec<String>,
}

impl Python {
    /// Finds the table: by the layout from 3.12 on, the static `interned` before, its looks in a
    /// stripped binary.
    pub fn interned(&self, target: &Target) -> Interned {
        let mut reader = target.reader();
        let mut out = Interned::default();
        if let Some(at) = self.layout.interpreter.interned {
            for interpreter in &self.interpreters {
                let dict = reader.u64(interpreter.addr.wrapping_add(at)).unwrap_or(0);
                if self.is_dict(&mut reader, dict) && !out.dicts.contains(&dict) {
                    out.dicts.push(dict);
                }
            }
            let at = self.layout.runtime.as_ref().and_then(|r| r.interned).zip(self.runtime);
            out.static_table =
                at.and_then(|(at, runtime)| reader.u64(runtime.wrapping_add(at)).ok()).filter(|a| *a != 0);
        } else if let Some(image) = self.image(target) {
            // `interned` of the unicode and, in 2.7, of the byte string type: two statics of one name.
            for symbol in image.symbols_named("interned") {
                let dict = reader.u64(symbol.addr).unwrap_or(0);
                if self.is_dict(&mut reader, dict) && !out.dicts.contains(&dict) {
                    out.dicts.push(dict);
                }
            }
            if out.dicts.is_empty() {
                for range in image.writable() {
                    for_each_word(&mut reader.clone(), range, |_, word| {
                        if word.is_multiple_of(8)
                            && target.mapping(word).is_some()
                            && !out.dicts.contains(&word)
                            && self.is_dict(&mut reader, word)
                            && maps_strings_to_themselves(&mut reader, &self.layout, word)
                        {
                            out.dicts.push(word);
                        }
                    });
                }
            }
        }
        if out.dicts.is_empty() {
            out.notes.push("the table of interned strings was not found: its dict has no owner".into());
        }
        out
    }

    fn is_dict(&self, reader: &mut Reader<'_>, addr: u64) -> bool {
        addr != 0 && reader.u64(addr.wrapping_add(self.layout.object.ob_type)) == Ok(self.dict_type)
    }
}
