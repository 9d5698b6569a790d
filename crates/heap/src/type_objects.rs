//! The type objects of a target: classes and built-in types, those without instances too.

use crate::claims::NOBODY;
use crate::inspect::Inspection;
use rustc_hash::{FxHashMap, FxHashSet};
use wmr_cpython::family::Family;
use wmr_cpython::locate::for_each_word;
use wmr_cpython::model::{Model, flags};
use wmr_cpython::types::{Type, TypeCache, Types};
use wmr_memory::{Reader, Target};

/// A class or a built-in type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeObject {
    pub addr: u64,
    pub name: String,
    pub module: String,
    /// `tp_base`, the first of its bases that decides what instances look like.
    pub base: Option<String>,
    /// Made by a `class` statement, or by a library as such; else it lies in the data of an image.
    pub is_heap: bool,
    /// Of the type object itself with what it owns; 0 of static ones.
    pub own_bytes: u64,
    pub instances: u64,
    /// Of the instances, with what they own.
    pub bytes: u64,
    /// Types that name it among their bases.
    pub subclasses: u64,
    /// How many heap types have that very name, itself included.
    pub alike: u64,
}

/// Bases of one type that are counted.
const MAX_BASES: u64 = 1024;

/// All type objects, those with most bytes in instances first. None without an interpreter.
pub fn type_objects(target: &Target, inspection: &Inspection) -> Vec<TypeObject> {
    let Some(model) = &inspection.model else { return Vec::new() };
    let types = all_types(target, inspection, model);
    let instances: FxHashMap<u64, (u64, u64)> =
        inspection.by_type(target).into_iter().map(|row| (row.addr, (row.count, row.bytes))).collect();
    let mut alike: FxHashMap<&str, u64> = FxHashMap::default();
    for ty in types.iter().filter(|ty| ty.shape.is_heap_type()) {
        *alike.entry(&ty.name).or_default() += 1;
    }
    let subclasses = subclasses(model, &mut target.reader(), &types);
    let own = own_bytes(inspection, &types);
    let mut rows: Vec<TypeObject> = types
        .iter()
        .map(|ty| {
            let (count, bytes) = instances.get(&ty.addr).copied().unwrap_or_default();
            TypeObject {
                addr: ty.addr,
                name: ty.name.clone(),
                module: ty.module.clone(),
                base: ty.base.and_then(|base| Some(types.get(base as usize)?.name.clone())),
                is_heap: ty.shape.is_heap_type(),
                own_bytes: own.get(&ty.addr).copied().unwrap_or(0),
                instances: count,
                bytes,
                subclasses: subclasses.get(&ty.addr).copied().unwrap_or(0),
                alike: if ty.shape.is_heap_type() { alike[ty.name.as_str()] } else { 1 },
            }
        })
        .collect();
    rows.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)).then(a.addr.cmp(&b.addr)));
    rows
}

/// Heap types are in blocks, static ones in the data of images, where a word has the address of a type of types.
pub(crate) fn all_types(target: &Target, inspection: &Inspection, model: &Model) -> Vec<Type> {
    let census = &inspection.census;
    let registry = Types::new(target, model, &inspection.blocks);
    let mut cache = TypeCache::new(&registry, target.reader());
    let mut reader = target.reader();
    for block in inspection.blocks.iter() {
        let Some(ty) = census.mark(block.id).as_object() else { continue };
        if census.types[ty as usize].shape.family == Family::Type
            && let Some((object, _)) = inspection.object_in(model, &mut reader, block)
        {
            cache.get(object.addr);
        }
    }
    let of_types = census.types.iter().filter(|ty| ty.shape.flags & flags::TYPE_SUBCLASS != 0);
    let of_types: FxHashSet<u64> = of_types.map(|ty| ty.addr).collect();
    for range in target.images.iter().flat_map(|image| image.writable()) {
        for_each_word(&mut reader, range, |at, word| {
            if of_types.contains(&word) {
                cache.get(at.wrapping_sub(model.layout.object.ob_type));
            }
        });
    }
    // What has instances is a type, whatever else is thought of it.
    for ty in &census.types {
        cache.get(ty.addr);
    }
    registry.all()
}

fn subclasses(model: &Model, reader: &mut Reader, types: &[Type]) -> FxHashMap<u64, u64> {
    let mut counts: FxHashMap<u64, u64> = FxHashMap::default();
    let mut count = |reader: &mut Reader, ty: &Type| -> Option<()> {
        let bases = reader.u64(ty.addr.wrapping_add(model.layout.type_object.tp_bases)).ok()?;
        let length = u64::try_from(model.size_field(reader, bases).ok()?).ok()?;
        let first = bases.wrapping_add(model.layout.tuple.ob_item);
        for i in 0..length.min(MAX_BASES) {
            *counts.entry(reader.u64(first.wrapping_add(8 * i)).ok()?).or_default() += 1;
        }
        Some(())
    };
    // A type whose bases cannot be read is nobody's subclass.
    for ty in types {
        let _ = count(reader, ty);
    }
    counts
}

fn own_bytes(inspection: &Inspection, types: &[Type]) -> FxHashMap<u64, u64> {
    let blocks = &inspection.blocks;
    let in_block = |ty: &Type| Some((blocks.find(ty.addr)?, ty.addr));
    let of_block: FxHashMap<u32, u64> =
        types.iter().filter(|ty| ty.shape.is_heap_type()).filter_map(in_block).collect();
    let mut bytes: FxHashMap<u64, u64> = FxHashMap::default();
    for (&block, &addr) in &of_block {
        *bytes.entry(addr).or_default() += blocks.bytes(block);
    }
    for (block, owner) in inspection.census.owned().filter(|(_, owner)| *owner != NOBODY) {
        if let Some(addr) = of_block.get(&owner) {
            *bytes.entry(*addr).or_default() += blocks.bytes(block);
        }
    }
    bytes
}
