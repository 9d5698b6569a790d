//! What the program's code does with a variable: which functions name it together with a method that adds,
//! and which with one that takes away. Names only, no byte code: that is the same in every version.

use super::origin::Origin;
use super::view::View;
use rayon::prelude::*;
use rustc_hash::{FxHashMap, FxHashSet};
use wmr_cpython::family::Family;
use wmr_cpython::strings::read_text;
use wmr_memory::Reader;

const ADDS: [&str; 15] = [
    "append",
    "add",
    "insert",
    "extend",
    "appendleft",
    "setdefault",
    "update",
    "put",
    "put_nowait",
    "register",
    "connect",
    "subscribe",
    "push",
    "heappush",
    "addHandler",
];
const TAKES: [&str; 16] = [
    "pop",
    "popitem",
    "popleft",
    "clear",
    "remove",
    "discard",
    "heappop",
    "heappushpop",
    "heapreplace",
    "evict",
    "expire",
    "prune",
    "unregister",
    "disconnect",
    "unsubscribe",
    "removeHandler",
];
/// Of queues.
const GETS: [&str; 2] = ["get", "get_nowait"];

/// What is known of a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uses {
    /// Functions that name it with something that adds; modules themselves are `<module>`.
    pub adds: Vec<String>,
    pub takes: Vec<String>,
    pub gets: Vec<String>,
}

/// Functions that are named of each sort.
const FEW: usize = 3;
/// Names of one code object.
const MAX_NAMES: u64 = 4096;
const MAX_TEXT: usize = 200;

/// By name: what the program's code does.
pub fn uses(view: &View, names: &FxHashSet<String>) -> FxHashMap<String, Uses> {
    let census = &view.held.inspection.census;
    let is_code: Vec<bool> = census.types.iter().map(|ty| ty.shape.family == Family::Code).collect();
    let codes: Vec<u32> = (0u32..)
        .zip(census.marks())
        .filter(|(_, mark)| mark.as_object().is_some_and(|ty| is_code[ty as usize]))
        .map(|(block, _)| block)
        .collect();
    let found: Vec<(String, Uses)> = codes
        .par_iter()
        .map_init(|| view.held.target.reader(), |reader, block| of_code(view, reader, *block, names))
        .flatten_iter()
        .collect();
    let mut all: FxHashMap<String, Uses> = FxHashMap::default();
    for (name, uses) in found {
        let known = all.entry(name).or_default();
        known.adds.extend(uses.adds);
        known.takes.extend(uses.takes);
        known.gets.extend(uses.gets);
    }
    for uses in all.values_mut() {
        for list in [&mut uses.adds, &mut uses.takes, &mut uses.gets] {
            list.sort_unstable();
            list.dedup();
            list.truncate(FEW);
        }
    }
    all
}

fn of_code(view: &View, reader: &mut Reader, block: u32, names: &FxHashSet<String>) -> Vec<(String, Uses)> {
    let (model, table) = (view.model, &view.model.layout.table);
    let Some(code) = view.held.object(reader, block).map(|object| object.addr) else { return Vec::new() };
    let mut texts = Vec::new();
    for field in ["co_names", "co_varnames", "co_cellvars", "co_freevars", "co_localsplusnames"] {
        let Some(at) = table.offset("PyCodeObject", field) else { continue };
        let Ok(tuple) = reader.u64(code.wrapping_add(at)) else { continue };
        let count =
            model.size_field(reader, tuple).map_or(0, |count| count.clamp(0, MAX_NAMES as i64) as u64);
        for i in 0..count {
            let Ok(item) = reader.u64(tuple.wrapping_add(model.layout.tuple.ob_item + 8 * i)) else { break };
            texts.extend(read_text(model, reader, item, MAX_TEXT));
        }
    }
    if !texts.iter().any(|text| names.contains(text)) {
        return Vec::new();
    }
    let has = |list: &[&str]| texts.iter().any(|text| list.contains(&text.as_str()));
    let (adds, takes, gets) = (has(&ADDS), has(&TAKES), has(&GETS));
    let text = |reader: &mut Reader, field| {
        let at = reader.u64(code.wrapping_add(table.offset("PyCodeObject", field)?)).ok()?;
        read_text(model, reader, at, MAX_TEXT)
    };
    let file = text(reader, "co_filename").unwrap_or_default();
    if view.origins.of_file(&file) == Origin::Library {
        return Vec::new();
    }
    let name = text(reader, "co_qualname").or_else(|| text(reader, "co_name")).unwrap_or_default();
    let is_module = name == "<module>";
    let one = |yes: bool| if yes { vec![name.clone()] } else { Vec::new() };
    // A whole module names much that has nothing to do with each other.
    let uses = Uses { adds: one(adds), takes: one(takes && !is_module), gets: one(gets && !is_module) };
    texts.iter().filter(|text| names.contains(*text)).map(|text| (text.clone(), uses.clone())).collect()
}
