//! The interpreter's own state: codecs, hooks, caches.

use super::{Found, Holder};
use std::ops::Range;
use wmr_cpython::dicts;
use wmr_cpython::model::RefCount;
use wmr_cpython::state::Of;

/// Strings of one table that are looked at.
const MAX_STRINGS: u64 = 1 << 28;

/// What holds the functions that are called when the program ends.
pub const ATEXIT: &str = "atexit";
/// Beginnings of fields' names, and what people know them by.
const KNOWN: [(&str, &str); 24] = [
    ("codec_search_path", "codecs.register()"),
    ("codec_search_cache", "cache of codecs"),
    ("codec_error_registry", "codecs.register_error()"),
    ("codecs.search_path", "codecs.register()"),
    ("codecs.search_cache", "cache of codecs"),
    ("codecs.error_registry", "codecs.register_error()"),
    ("audit_hooks", "sys.addaudithook()"),
    ("before_forkers", "os.register_at_fork()"),
    ("after_forkers", "os.register_at_fork()"),
    ("atexit", ATEXIT),
    ("gc.garbage", "gc.garbage"),
    ("gc.callbacks", "gc.callbacks"),
    ("imports.modules_by_index", "import: modules by index"),
    ("modules_by_index", "import: modules by index"),
    ("imports", "import"),
    ("import", "import"),
    ("builtins", "builtins"),
    ("sysdict", "namespace of sys"),
    ("warnings", "warnings"),
    ("types", "static types"),
    ("small_ints", "small ints"),
    ("unicode", "cached strings"),
    ("cached_objects.interned_strings", "interned strings"),
    ("context", "current context"),
];

fn known(field: &str) -> String {
    let found = KNOWN.iter().find(|(begin, _)| field.starts_with(begin));
    found.map_or_else(|| format!("interpreter's {field}"), |(_, name)| (*name).to_owned())
}

impl Found<'_> {
    /// The structures of the runtime, the interpreters and the threads.
    pub(super) fn states(&mut self) {
        let ranges: Vec<Range<u64>> = self.state.ranges().collect();
        for range in ranges {
            self.scan(range, |found, addr| found.field_at(addr));
        }
    }

    fn field_at(&self, addr: u64) -> Holder {
        let Some((of, field)) = self.state.field(addr) else {
            return Holder::Interpreter { what: "interpreter's state".to_owned(), interpreter: 0 };
        };
        match of {
            Of::Runtime => Holder::Interpreter { what: format!("runtime's {field}"), interpreter: 0 },
            Of::Interpreter(interpreter) => Holder::Interpreter { what: known(field), interpreter },
            Of::Thread(thread) => Holder::Thread { thread, what: field.to_owned() },
        }
    }

    /// 3.12+: interned strings may be immortal, and then the table holds them.
    pub(super) fn interned(&mut self) {
        let (Ok(python), Some(model)) = (&self.inspection.python, &self.inspection.model) else { return };
        let mut reader = self.target.reader();
        for dict in python.interned(self.target).dicts {
            let mut immortal = Vec::new();
            let _ = dicts::for_each_entry(model, &mut reader, dict, MAX_STRINGS, &mut |reader, key, _| {
                if model.refcount(reader, key) == Ok(RefCount::Immortal) {
                    immortal.push(key);
                }
                true
            });
            for key in immortal {
                self.object(key, || Holder::Interned);
            }
        }
    }

    /// What is never freed, though nothing is known that refers to it.
    pub(super) fn immortal(&mut self) {
        let Some(model) = &self.inspection.model else { return };
        for node in 0..self.graph.first_static() {
            let lone = self.graph.referred(node) == 0 && self.graph.type_of(self.inspection, node).is_some();
            if !lone || self.seen.contains(&node) {
                continue;
            }
            let object = self.graph.object(self.inspection, model, &mut self.reader, node);
            let count = object.and_then(|object| model.refcount(&mut self.reader, object.addr).ok());
            if count == Some(RefCount::Immortal) {
                self.add(node, || Holder::Immortal);
            }
        }
    }
}
