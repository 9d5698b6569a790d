//! What `tp_traverse` cannot know, told without running it.
//!
//! An object of an extension type refers to others in fields that only its code knows. Where the type is
//! none of the collector's, or where cycles through such a field stay, the field is not visited.

use crate::{Held, Inspection};
use rustc_hash::FxHashMap;
use wmr_cpython::model::Model;
use wmr_cpython::refers::{self, At, Strength};
use wmr_memory::{Image, Reader, Target};

/// A field that the collector does not see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gap {
    /// Index in the census of the type whose instances have it.
    pub ty: u32,
    /// Where in an instance.
    pub offset: u32,
    /// Index of the type of what it refers to.
    pub to: u32,
    pub blind: Blind,
}

/// Why the collector does not see a field; those that nothing else can explain first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Blind {
    /// The type is none of the collector's (`Py_TPFLAGS_HAVE_GC`).
    NoFlag,
    /// It is, and its `tp_traverse` is NULL: up to 3.10 `PyType_Ready` lets that pass, and the collector calls it.
    NoTraverse,
    /// Its `tp_traverse` leaves the field out.
    NotVisited,
}

/// References from objects of an extension type of which the collector sees nothing, to containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untraversed {
    pub gap: Gap,
    /// Objects with such a reference.
    pub count: u64,
    pub bytes: u64,
    /// Address of one of them.
    pub example: u64,
}

/// The field of an extension's object through which a cycle goes, those of types that are none of the
/// collector's first.
pub(super) fn gap(target: &Target, inspection: &Inspection, component: &[u32]) -> Option<Gap> {
    let model = inspection.model.as_ref()?;
    let mut reader = target.reader();
    let mut best: Option<Gap> = None;
    for &block in component {
        let Some(ty) = inspection.census.mark(block).as_object() else { continue };
        if !is_extension(target, inspection, ty) {
            continue;
        }
        let Some(object) = inspection.object(target, block) else { continue };
        let blind = blind(&mut reader, model, inspection, ty);
        refers::references(model, &mut reader, &object, &mut |reference| {
            let (At::Hidden(offset) | At::Slot(offset)) = reference.at else { return };
            let to = inspection.blocks.containing(reference.addr);
            let Some(to) = to.filter(|to| component.binary_search(&to.id).is_ok()) else { return };
            let Some(to) = inspection.census.mark(to.id).as_object() else { return };
            let better = best.is_none_or(|best| blind < best.blind);
            if better && reference.strength != Strength::Weak {
                best = Some(Gap { ty, offset, to, blind });
            }
        });
    }
    best
}

fn blind(reader: &mut Reader, model: &Model, inspection: &Inspection, ty: u32) -> Blind {
    let known = &inspection.census.types[ty as usize];
    let offset = model.layout.table.offset("PyTypeObject", "tp_traverse");
    let traverse = offset.and_then(|at| reader.u64(known.addr.wrapping_add(at)).ok());
    match traverse {
        _ if !known.shape.has_gc() => Blind::NoFlag,
        Some(0) => Blind::NoTraverse,
        _ => Blind::NotVisited,
    }
}

/// Extension types of which the collector sees nothing, and that hold containers all the same: of references
/// that the containers' counts confirm.
pub fn untraversed(held: &Held) -> Vec<Untraversed> {
    let (target, inspection, graph) = (held.target, held.inspection, &held.graph);
    let Some(model) = &inspection.model else { return Vec::new() };
    let types = &inspection.census.types;
    let (mut reader, mut counts) = (target.reader(), target.reader());
    let judged: Vec<Option<Blind>> = (0..types.len() as u32)
        .map(|ty| {
            let blind = blind(&mut reader, model, inspection, ty);
            (blind != Blind::NotVisited && is_extension(target, inspection, ty)).then_some(blind)
        })
        .collect();
    if judged.iter().all(Option::is_none) {
        return Vec::new();
    }
    let mut found: FxHashMap<Gap, Untraversed> = FxHashMap::default();
    for block in inspection.blocks.iter() {
        let Some(ty) = inspection.census.mark(block.id).as_object() else { continue };
        let Some(blind) = judged[ty as usize] else { continue };
        let Some((object, _)) = inspection.object_in(model, &mut reader, block) else { continue };
        let mut last = None;
        refers::references(model, &mut reader, &object, &mut |reference| {
            let At::Hidden(offset) = reference.at else { return };
            let Some(node) = graph.node_of_its_own(inspection, model, reference.addr) else { return };
            let Some(to) = inspection.blocks.find(reference.addr) else { return };
            let Some(to) = inspection.census.mark(to).as_object() else { return };
            let is_container = types[to as usize].shape.has_gc() && !is_namespace(&types[to as usize].name);
            let confirmed = held.count(&mut counts, node).is_some_and(|count| count.said > count.found);
            if !is_container || !confirmed {
                return;
            }
            let gap = Gap { ty, offset, to, blind };
            let row =
                found.entry(gap).or_insert(Untraversed { gap, count: 0, bytes: 0, example: object.addr });
            row.count += u64::from(last != Some(gap));
            row.bytes += if last.is_none() { block.bytes } else { 0 };
            last = Some(gap);
        });
    }
    let mut rows: Vec<Untraversed> = found.into_values().collect();
    rows.sort_by_key(|row| (std::cmp::Reverse(row.bytes), row.gap));
    rows
}

/// What lives as long as the program keeps nothing alive that would not.
fn is_namespace(name: &str) -> bool {
    matches!(name, "type" | "module" | "function" | "builtin_function_or_method" | "PyCapsule")
}

/// Was the type laid out by an extension's C code, not by the interpreter's, nor by that of its own
/// extensions?
pub(super) fn is_extension(target: &Target, inspection: &Inspection, ty: u32) -> bool {
    let Some(known) = inspection.census.types.get(ty as usize) else { return false };
    let ours = matches!(known.module.as_str(), "builtins" | "__builtin__");
    if ours || !inspection.census.is_c_type(ty as usize) {
        return false;
    }
    let Ok(python) = &inspection.python else { return false };
    let Some(image) = library(target, inspection, ty) else { return false };
    let is_python = python.image(target).is_some_and(|python| std::ptr::eq(python, image));
    // The standard library's own are in a folder of that name, built-in or not.
    !is_python && !contains(&image.path, b"/lib-dynload/")
}

fn contains(path: &[u8], part: &[u8]) -> bool {
    path.windows(part.len()).any(|window| window == part)
}

/// The library whose code makes and ends a type's objects.
pub fn library<'t>(target: &'t Target, inspection: &Inspection, ty: u32) -> Option<&'t Image> {
    let known = inspection.census.types.get(ty as usize)?;
    let model = inspection.model.as_ref()?;
    if let Some(image) = target.image(known.addr) {
        return Some(image);
    }
    let python = inspection.python.as_ref().ok()?.image(target);
    let mut reader = target.reader();
    // A type made from a spec inherits what it does not give: what is not the interpreter's tells.
    let of = |field: &&str| model.layout.table.offset("PyTypeObject", field);
    let functions = ["tp_dealloc", "tp_traverse", "tp_new", "tp_init", "tp_methods", "tp_members", "tp_repr"];
    let mut images = functions.iter().filter_map(|field| {
        let word = reader.u64(known.addr.wrapping_add(of(field)?)).ok()?;
        target.image(word)
    });
    images.find(|image| python.is_none_or(|python| !std::ptr::eq(python, *image)))
}
