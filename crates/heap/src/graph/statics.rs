//! Objects in the data of images, and types that an extension made like these in memory of its own.

use crate::inspect::Inspection;
use rustc_hash::FxHashMap;
use wmr_cpython::family::Family;
use wmr_cpython::model::{Model, flags};
use wmr_cpython::statics;
use wmr_cpython::types::Shape;
use wmr_memory::Target;

/// By address. A word that only looks like the head of an object is referred to by nobody.
pub fn find(target: &Target, inspection: &Inspection, model: &Model) -> Vec<(u64, Shape)> {
    // Instances of heap types are never static: where such a type's address is, a variable or table has it.
    // Nor what comes to be while code runs: exceptions, frames, generators.
    let runs = |shape: &Shape| {
        shape.flags & flags::BASE_EXC_SUBCLASS != 0
            || matches!(shape.family, Family::Generator | Family::Frame)
    };
    let types = inspection.census.types.iter();
    let types = types.filter(|ty| !ty.shape.is_heap_type() && !runs(&ty.shape));
    let types: FxHashMap<u64, Shape> = types.map(|ty| (ty.addr, ty.shape)).collect();
    let mut out = Vec::new();
    for image in &target.images {
        let is_type = |word: u64| types.contains_key(&word);
        statics::for_each(target, model, image, is_type, |addr, ty| out.push((addr, types[&ty])));
    }
    out.extend(types_in_blocks(target, inspection, model));
    out.sort_unstable_by_key(|known| known.0);
    out.dedup_by_key(|known| known.0);
    out
}

/// Types laid out as static ones are, without a GC head, in blocks: the classes of numpy's dtypes.
fn types_in_blocks(target: &Target, inspection: &Inspection, model: &Model) -> Vec<(u64, Shape)> {
    let types = &inspection.census.types;
    let shapes: FxHashMap<u64, Shape> = types.iter().map(|ty| (ty.addr, ty.shape)).collect();
    let mut reader = target.reader();
    let mut shape = |ty: u64| {
        let block = inspection.blocks.containing(ty)?;
        let is_object = inspection.census.mark(block.id).as_object().is_some();
        let meta = model.type_of(&mut reader, ty).ok().filter(|_| !is_object)?;
        shapes.get(&meta).copied()
    };
    types.iter().filter_map(|ty| Some((ty.addr, shape(ty.addr)?))).collect()
}
