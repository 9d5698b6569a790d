//! The largest containers that modules and their classes hold, without a graph: names and lengths alone.

use super::origin::{Origin, Origins};
use crate::inspect::Inspection;
use rustc_hash::FxHashMap;
use wmr_cpython::dicts;
use wmr_cpython::family::Family;
use wmr_cpython::model::Model;
use wmr_cpython::strings::read_text;
use wmr_cpython::types::Type;
use wmr_memory::{Reader, Target};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// `__main__.RESPONSE_CACHE`, `app.Registry.instances`.
    pub name: String,
    pub type_name: String,
    pub entries: u64,
    pub addr: u64,
}

/// Names of one namespace that are gone through.
const MAX_NAMES: u64 = 1 << 14;
const MAX_TEXT: usize = 200;

/// Those of the program with at least so many entries, most first.
pub fn containers(target: &Target, inspection: &Inspection, least: u64) -> Vec<Container> {
    let Some(model) = &inspection.model else { return Vec::new() };
    let origins = Origins::find(target, inspection);
    let types = &inspection.census.types;
    let by_addr: FxHashMap<u64, &Type> = types.iter().map(|ty| (ty.addr, ty)).collect();
    let mut glance = Glance { model, types: by_addr, least, found: Vec::new() };
    let mut reader = target.reader();
    for module in origins.modules.iter().filter(|module| module.origin == Origin::Program) {
        glance.namespace(&mut reader, module.dict, &module.name);
    }
    for ty in types.iter().filter(|ty| origins.of(&ty.module) == Some(Origin::Program)) {
        if let Ok(dict) = reader.u64(ty.addr.wrapping_add(model.layout.type_object.tp_dict)) {
            glance.namespace(&mut reader, dict, &ty.name);
        }
    }
    let mut found = glance.found;
    found.sort_by(|a, b| b.entries.cmp(&a.entries).then_with(|| a.name.cmp(&b.name)));
    // A module may have another's variable under a name of its own.
    let mut seen = rustc_hash::FxHashSet::default();
    found.retain(|container| seen.insert(container.addr));
    found
}

struct Glance<'a> {
    model: &'a Model,
    types: FxHashMap<u64, &'a Type>,
    least: u64,
    found: Vec<Container>,
}

impl Glance<'_> {
    fn namespace(&mut self, reader: &mut Reader, dict: u64, of: &str) {
        let model = self.model;
        // What cannot be read is not told.
        let _ = dicts::for_each_entry(model, reader, dict, MAX_NAMES, &mut |reader, key, value| {
            if let Some((ty, entries)) = self.length(reader, value).filter(|(_, n)| *n >= self.least)
                && let Some(name) = read_text(model, reader, key, MAX_TEXT)
            {
                let (name, type_name) = (format!("{of}.{name}"), ty.to_owned());
                self.found.push(Container { name, type_name, entries, addr: value });
            }
            true
        });
    }

    fn length(&self, reader: &mut Reader, addr: u64) -> Option<(&str, u64)> {
        let ty = self.types.get(&self.model.type_of(reader, addr).ok()?)?;
        let l = &self.model.layout;
        let length = match ty.shape.family {
            Family::List | Family::Deque => u64::try_from(self.model.size_field(reader, addr).ok()?).ok()?,
            Family::Dict | Family::OrderedDict => reader.u64(addr.wrapping_add(l.dict.ma_used?)).ok()?,
            Family::Set => reader.u64(addr.wrapping_add(l.set.used)).ok()?,
            _ => return None,
        };
        Some((&ty.name, length))
    }
}
