//! Reads what `everything.py` printed and compares it with what the objects say.

use super::hidden::{HIDDEN, SAID_FOR_OTHERS};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use wmr_cpython::family::Family;
use wmr_cpython::model::flags;
use wmr_cpython::object::{Evidence, Object};
use wmr_cpython::refers::{At, Reference, Strength, label, references};
use wmr_cpython::types::{TypeCache, Types};
use wmr_heap::graph::{Fold, Graph};
use wmr_heap::inspect;
use wmr_memory::Target;

fn address(word: &str) -> u64 {
    u64::from_str_radix(word, 16).expect("an address")
}

/// Does one of the patterns, parted by `|`, match? Each has at most two `*`.
fn matches(patterns: &str, ty: &str) -> bool {
    patterns.split('|').any(|pattern| {
        let parts: Vec<&str> = pattern.split('*').collect();
        let (first, last) = (parts[0], parts[parts.len() - 1]);
        match parts.len() {
            1 => ty == pattern,
            2 => ty.len() >= first.len() + last.len() && ty.starts_with(first) && ty.ends_with(last),
            _ => ty.starts_with(first) && ty.ends_with(last) && ty.contains(parts[1]),
        }
    })
}

fn hides(ty: &str, label: &str) -> bool {
    HIDDEN.iter().any(|(types, l, _)| matches(types, ty) && (l.is_empty() || label == *l))
}

/// Every difference, in words.
pub fn compare(target: &Target, truth: &[String]) -> Vec<String> {
    let inspection = inspect(target).expect("inspected");
    let Some(model) = &inspection.model else { return vec!["no interpreter".to_owned()] };
    let graph = Graph::build(target, &inspection, Fold::No).expect("an interpreter").expect("few references");
    let types = Types::new(target, model, &inspection.blocks);
    let mut cache = TypeCache::new(&types, target.reader());
    let mut reader = target.reader();
    let mut object = |addr: u64| {
        let shape = cache.type_of(&mut target.reader(), addr)?;
        Some(Object { addr, shape: *shape, evidence: Evidence::Plausible, tracked: false })
    };
    // A table of strings alone is not asked for them; Python 2 asks for all.
    let mut keys = TypeCache::new(&types, target.reader());
    let mut key_is_str =
        |addr| keys.type_of(&mut target.reader(), addr).is_some_and(|s| s.family == Family::Str);
    // (type, what) → count, an example
    let mut wrong: BTreeMap<(String, String), (u64, String)> = BTreeMap::new();
    let mut note = |ty: &str, what: String, example: String| {
        wrong.entry((ty.to_owned(), what)).or_insert((0, example)).0 += 1;
    };
    let interned = inspection.python.as_ref().expect("an interpreter").interned(target).dicts;
    let is_static = |addr: u64| {
        target.images.iter().flat_map(|image| &image.segments).any(|segment| segment.range.contains(&addr))
    };
    let old_values = (0x030d_0000..0x030d_0300).contains(&model.hex);
    let (mut exact, mut maybe) = (0, BTreeMap::<String, u64>::new());
    let mut sorts = BTreeMap::<String, u64>::new();
    let (mut compared, mut equal, mut labels, mut names) = (0, 0, 0, BTreeSet::new());
    for line in truth {
        let mut words = line.split(' ');
        match words.next() {
            Some("refs") => {}
            Some("label") => {
                let (from, to) = (address(words.next().unwrap()), address(words.next().unwrap()));
                let wanted = words.collect::<Vec<_>>().join(" ");
                let Some(from) = object(from) else { continue };
                let mut found = Vec::new();
                references(model, &mut reader, &from, &mut |r| found.push(r));
                found.retain(|r| r.addr == to);
                let ours: Vec<String> =
                    found.iter().map(|r| label(model, &mut reader, &from, r).to_string()).collect();
                let closure = wanted.strip_prefix("closure ");
                if let Some(name) = closure {
                    if !closure_is(model, &mut reader, &from, to, name) {
                        note("function", format!("closure {name}"), format!("{from:x?}"));
                    }
                } else if !wanted.split('|').any(|w| ours.iter().any(|o| o == w)) && !ours.is_empty() {
                    note("label", wanted.clone(), format!("{ours:?}"));
                } else if ours.is_empty() && !wanted.starts_with('.') {
                    note("label", wanted.clone(), "no reference".to_owned());
                }
                if !ours.is_empty() || closure.is_some() {
                    let sort =
                        ours.first().map_or("closure", |o| o.split([' ', '.']).next().unwrap_or_default());
                    let sort = if sort.starts_with('[') { "[item]" } else { sort };
                    *sorts.entry(sort.to_owned()).or_default() += 1;
                    labels += 1;
                }
                continue;
            }
            _ => continue,
        }
        let addr = address(words.next().unwrap());
        let ty = words.next().unwrap();
        let mut theirs: Vec<u64> = words.filter(|w| !w.is_empty()).map(address).collect();
        // The table of interned strings keeps none of them alive: what died since it was asked has left it, and is
        // in no block. All others are held by the object that was asked.
        if interned.contains(&addr) {
            theirs.retain(|string| is_static(*string) || inspection.blocks.find(*string).is_some());
        }
        let Some(object) = object(addr) else {
            note(ty, "has no known type".to_owned(), format!("{addr:#x}"));
            continue;
        };
        let said_by = match object.shape.family {
            Family::Module => format!("module {}", name_of(model, target, &object)),
            _ => ty.to_owned(),
        };
        let ty = if object.shape.family == Family::Type { "type" } else { ty };
        // The collector does not go through static types: they are not in its memory.
        if ty == "type" && types.is_static(addr) {
            continue;
        }
        compared += 1;
        names.insert(ty.to_owned());
        let mut left: HashMap<u64, i64> = HashMap::new();
        theirs.iter().for_each(|r| *left.entry(*r).or_default() += 1);
        let mut ours: Vec<Reference> = Vec::new();
        references(model, &mut reader, &object, &mut |r| ours.push(r));
        let mut right = true;
        // What is sure first, then what may be.
        ours.sort_by_key(|r| (r.strength, r.at == At::Type || matches!(r.at, At::Key(_))));
        for r in &ours {
            match r.strength {
                Strength::Maybe => *maybe.entry(ty.to_owned()).or_default() += 1,
                _ => exact += 1,
            }
            let n = left.entry(r.addr).or_default();
            if *n > 0 && r.strength != Strength::Weak {
                *n -= 1;
                continue;
            }
            let optional = r.strength != Strength::Strong
                || r.at == At::Type
                || matches!(r.at, At::Key(_)) && key_is_str(r.addr);
            // Up to 3.13.2 an instance went on to report the values of its dict (GH-130327).
            let of_instance = old_values && matches!(r.at, At::Value(_) | At::Field("__dict__"));
            let optional = optional || of_instance;
            let label = label(model, &mut reader, &object, r).to_string();
            if !optional && !hides(ty, &label) {
                right = false;
                note(ty, format!("{label} is not a referent"), format!("{addr:#x} → {:#x}", r.addr));
            }
        }
        let own_type = model.type_of(&mut reader, addr).unwrap_or(0);
        let no_nodes = theirs.iter().filter(|r| graph.node_of_its_own(&inspection, model, **r).is_none());
        for missed in no_nodes {
            right = false;
            let of = cache_name(model, target, *missed);
            note(ty, format!("a referent {of} is no node"), format!("{addr:#x} → {missed:#x}"));
        }
        for (missed, n) in left.iter().filter(|(_, n)| **n > 0) {
            // Instances of static types never say their type; what some types say of it twice is once.
            if *missed == own_type || SAID_FOR_OTHERS.iter().any(|(t, _)| matches(t, &said_by)) {
                continue;
            }
            let of_dict = old_values
                && object.shape.flags & flags::MANAGED_DICT != 0
                && ours.iter().any(|r| r.at == At::Field("__dict__"));
            if of_dict {
                continue;
            }
            right = false;
            let of = cache_name(model, target, *missed);
            note(
                ty,
                format!("a referent {of} is not found"),
                format!("{addr:#x} {} → {missed:#x} ×{n}", name_of(model, target, &object)),
            );
        }
        equal += u64::from(right);
    }
    eprintln!("    {equal} of {compared} objects of {} types equal, {labels} labels {sorts:?}", names.len());
    let scanned: u64 = maybe.values().sum();
    eprintln!("    {exact} references exact, {scanned} may be: {maybe:?}");
    let mut found: Vec<String> =
        wrong.iter().map(|((ty, what), (n, example))| format!("{n} {ty}: {what} ({example})")).collect();
    if names.len() < 60 || compared < 5_000 || labels < 5_000 {
        found.push(format!("only {} types, {compared} objects, {labels} labels", names.len()));
    }
    found
}

fn closure_is(
    model: &wmr_cpython::model::Model,
    reader: &mut wmr_memory::Reader,
    function: &Object,
    cell: u64,
    name: &str,
) -> bool {
    let mut closure = 0;
    references(model, reader, function, &mut |r| {
        if r.at == At::Field("__closure__") || r.at == At::Field("func_closure") {
            closure = r.addr;
        }
    });
    let first = closure + model.layout.tuple.ob_item;
    (0..8).any(|i| {
        reader.u64(first + 8 * i) == Ok(cell)
            && wmr_cpython::refers::closure_name(model, reader, function.addr, i).as_deref() == Some(name)
    })
}

fn cache_name(model: &wmr_cpython::model::Model, target: &Target, addr: u64) -> String {
    let mut reader = target.reader();
    let name = || {
        let ty = model.type_of(&mut reader, addr).ok()?;
        let text = reader.u64(ty + model.layout.type_object.tp_name).ok()?;
        reader.cstr(text, 60).ok()
    };
    let mut name = name;
    String::from_utf8_lossy(&name().unwrap_or_default()).into_owned()
}

/// The name a module or class has.
fn name_of(model: &wmr_cpython::model::Model, target: &Target, object: &Object) -> String {
    let mut reader = target.reader();
    let mut name = None;
    references(model, &mut target.reader(), object, &mut |r| {
        if r.at == At::Field("__name__") {
            name = wmr_cpython::strings::read_text(model, &mut reader, r.addr, 60);
        }
    });
    name.unwrap_or_default()
}
