//! Modules, by the names they are imported by.

use super::{Found, Holder};
use wmr_cpython::dicts;
use wmr_cpython::strings::read_text;

/// Modules of one interpreter: a program with more would not have started yet.
const MAX_MODULES: u64 = 1 << 20;
/// Longer names are cut.
const MAX_NAME: usize = 512;

impl Found<'_> {
    pub(super) fn modules(&mut self) {
        let (Ok(python), Some(model)) = (&self.inspection.python, &self.inspection.model) else { return };
        let mut reader = self.target.reader();
        for interpreter in &python.interpreters {
            let id = interpreter.id;
            let mut modules = Vec::new();
            // What cannot be read has no names: its objects hang on the interpreter all the same.
            let _ = dicts::for_each_entry(
                model,
                &mut reader,
                interpreter.modules,
                MAX_MODULES,
                &mut |reader, key, value| {
                    if let Some(name) = read_text(model, reader, key, MAX_NAME) {
                        modules.push((name, value));
                    }
                    true
                },
            );
            // The program's own first: several names may stand for one module.
            modules.sort_by_key(|(name, _)| name != "__main__");
            for (name, module) in modules {
                self.object(module, || Holder::Module { name, interpreter: id });
            }
            self.object(interpreter.modules, || Holder::Interpreter {
                what: "sys.modules".to_owned(),
                interpreter: id,
            });
            self.object(interpreter.sysdict, || Holder::Interpreter {
                what: "namespace of sys".to_owned(),
                interpreter: id,
            });
        }
    }
}
