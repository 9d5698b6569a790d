//! Whose a module is: the program's, or a library's that the program uses.

use crate::inspect::Inspection;
use rustc_hash::FxHashMap;
use wmr_cpython::dicts;
use wmr_cpython::model::Model;
use wmr_cpython::strings::read_text;
use wmr_memory::{Reader, Target};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Program,
    /// The standard library, what is built in, and what was installed.
    Library,
}

/// One module.
pub struct Module {
    pub name: String,
    pub origin: Origin,
    /// Its namespace.
    pub dict: u64,
}

/// All modules, the program's own first.
#[derive(Default)]
pub struct Origins {
    pub modules: Vec<Module>,
    by_name: FxHashMap<String, usize>,
    /// Where the standard library is.
    standard: Option<String>,
}

/// Modules of one interpreter: a program with more would not have started yet.
const MAX_MODULES: u64 = 1 << 20;
/// What is looked for stands at the beginning of a namespace.
const EARLY: u64 = 64;
const MAX_NAMES: u64 = 1 << 14;
const MAX_TEXT: usize = 4096;
const INSTALLED: [&str; 2] = ["/site-packages/", "/dist-packages/"];

impl Origins {
    pub fn find(target: &Target, inspection: &Inspection) -> Origins {
        let (Ok(python), Some(model)) = (&inspection.python, &inspection.model) else {
            return Origins::default();
        };
        let mut reader = target.reader();
        let mut found: Vec<(String, Facts)> = Vec::new();
        let md_dict = model.layout.table.offset("PyModuleObject", "md_dict");
        for interpreter in &python.interpreters {
            let each = &mut |reader: &mut Reader, key, module: u64| {
                let name = read_text(model, reader, key, MAX_TEXT);
                if let Some((name, at)) = name.zip(md_dict)
                    && let Ok(dict) = reader.u64(module.wrapping_add(at))
                    && let Some(facts) = Facts::of(model, reader, dict)
                {
                    found.push((name, facts));
                }
                true
            };
            // What cannot be read has no modules.
            let _ = dicts::for_each_entry(model, &mut reader, interpreter.modules, MAX_MODULES, each);
        }
        let standard = found.iter().find(|(name, _)| name == "os").and_then(|(_, os)| os.file.clone());
        let standard = standard.and_then(|file| Some(format!("{}/", file.rsplit_once('/')?.0)));
        let mut modules: Vec<Module> = found
            .into_iter()
            .map(|(name, facts)| {
                let origin = facts.origin(&name, standard.as_deref(), model.is_two());
                Module { name, origin, dict: facts.dict }
            })
            .collect();
        modules.sort_by_key(|module| (module.origin == Origin::Library, module.name != "__main__"));
        let by_name = modules.iter().map(|module| module.name.clone()).zip(0..).collect();
        Origins { modules, by_name, standard }
    }

    /// None of a name that no module has: a class may say that it is of any.
    pub fn of(&self, module: &str) -> Option<Origin> {
        Some(self.modules.get(*self.by_name.get(module)?)?.origin)
    }

    /// Is it where a library's source is?
    pub fn of_file(&self, path: &str) -> Origin {
        match path {
            _ if INSTALLED.iter().any(|folder| path.contains(folder)) => Origin::Library,
            _ if path.starts_with('<') && path != "<string>" && path != "<stdin>" => Origin::Library,
            _ if self.standard.as_ref().is_some_and(|folder| path.starts_with(folder)) => Origin::Library,
            _ => Origin::Program,
        }
    }
}

struct Facts {
    dict: u64,
    file: Option<String>,
    /// Has it a `__spec__` that is not None?
    spec: bool,
}

impl Facts {
    fn of(model: &Model, reader: &mut Reader, dict: u64) -> Option<Facts> {
        let mut facts = Facts { dict, file: None, spec: false };
        // Python 2 keeps no order.
        let early = if model.is_two() { MAX_NAMES } else { EARLY };
        let mut seen = 0;
        let each = &mut |reader: &mut Reader, key, value| {
            match read_text(model, reader, key, 16).as_deref() {
                Some("__file__") => facts.file = read_text(model, reader, value, MAX_TEXT),
                Some("__spec__") => facts.spec = !is_none(model, reader, value),
                _ => {}
            }
            seen += 1;
            seen < early && facts.file.is_none()
        };
        dicts::for_each_entry(model, reader, dict, MAX_NAMES, each)?;
        Some(facts)
    }

    fn origin(&self, name: &str, standard: Option<&str>, two: bool) -> Origin {
        let library = match &self.file {
            Some(file) if INSTALLED.iter().any(|folder| file.contains(folder)) => true,
            Some(file) => standard.is_some_and(|folder| file.starts_with(folder)),
            // Built in or frozen: it has a specification, or as in Python 2 nothing to tell by.
            None => name != "__main__" && (self.spec || two),
        };
        if library { Origin::Library } else { Origin::Program }
    }
}

fn is_none(model: &Model, reader: &mut Reader, object: u64) -> bool {
    let name = model.type_of(reader, object).ok().and_then(|ty| {
        let at = reader.u64(ty.wrapping_add(model.layout.type_object.tp_name)).ok()?;
        reader.cstr(at, 16).ok()
    });
    name.as_deref() == Some(b"NoneType")
}
