//! Reference counts against the references there are: more said than found, and fewer.
//!
//! A word anywhere that is an object's address counts as a reference to it, dead or alive, so that what
//! is left over is a reference that nobody has: one that was taken and not given back. The deficit goes
//! the other way: references of objects that are known for certain, more than the count admits.

use super::EXAMPLES;
use super::lost::Lost;
use super::references::{INTERIOR, References};
use crate::Inspection;
use crate::graph::{Bits, Graph};
use rayon::prelude::*;
use rustc_hash::{FxHashMap, FxHashSet};
use wmr_cpython::model::{Model, RefCount};
use wmr_cpython::object::Object;
use wmr_cpython::refers::{self, At, Strength};
use wmr_memory::{Reader, Target};

/// Objects of one type whose counts say more than was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surplus {
    /// Index of the type in the census.
    pub ty: u32,
    pub count: u64,
    pub bytes: u64,
    /// References too many, of all of them.
    pub excess: u64,
    /// Objects of the type in all.
    pub of: u64,
    /// The worst: address, what its count says, and how much of that was not found.
    pub examples: Vec<Counted>,
}

/// Objects of one type that more references were found of than their counts say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deficit {
    pub ty: u32,
    pub count: u64,
    pub bytes: u64,
    pub missing: u64,
    pub examples: Vec<Counted>,
}

/// An object, what its count says, and by how much that is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    pub addr: u64,
    pub said: u64,
    pub wrong_by: u64,
}

/// An object whose count and references differ.
struct Differs {
    ty: u32,
    bytes: u64,
    counted: Counted,
}

/// Objects that are reached, by type, most references first.
pub(super) fn surplus(
    target: &Target,
    inspection: &Inspection,
    references: &References,
    roots: &[u32],
    lost: &Lost,
) -> Vec<Surplus> {
    let mut found = vec![0u32; inspection.blocks.len() as usize];
    for edge in references.all().iter().chain(roots) {
        // What points into an object may well hold it.
        let count = &mut found[(edge & !INTERIOR) as usize];
        *count = count.saturating_add(1);
    }
    let is_lost: FxHashSet<u32> = lost.blocks.iter().copied().collect();
    let differing = differing(target, inspection, |block, said| {
        let excess = said.checked_sub(u64::from(found[block as usize])).filter(|&excess| excess > 0)?;
        (!is_lost.contains(&block)).then_some(excess)
    });
    let mut of: FxHashMap<u32, u64> = FxHashMap::default();
    let worth: FxHashSet<u32> = differing.iter().map(|object| object.ty).collect();
    for ty in inspection.census.marks().iter().filter_map(|mark| mark.as_object()) {
        if worth.contains(&ty) {
            *of.entry(ty).or_default() += 1;
        }
    }
    let mut rows: FxHashMap<u32, Surplus> = FxHashMap::default();
    for object in &differing {
        let row = rows.entry(object.ty).or_default();
        row.ty = object.ty;
        row.count += 1;
        row.bytes += object.bytes;
        row.excess = row.excess.saturating_add(object.counted.wrong_by);
        row.of = of.get(&object.ty).copied().unwrap_or(0);
        keep(&mut row.examples, object.counted);
    }
    let mut rows: Vec<Surplus> = rows.into_values().collect();
    rows.sort_by_key(|row| (std::cmp::Reverse(row.excess), row.ty));
    rows
}

/// Objects with fewer references counted than there are, by type. An object with one too few is freed
/// while it is in use.
pub fn deficits(target: &Target, inspection: &Inspection, graph: &Graph) -> Vec<Deficit> {
    let Some(model) = &inspection.model else { return Vec::new() };
    let mut differing = differing(target, inspection, |block, said| {
        u64::from(graph.referred(block)).checked_sub(said).filter(|&missing| missing > 0)
    });
    let held = Referrers { target, inspection, model, graph }.of(&differing);
    differing.retain_mut(|object| {
        let found = held.get(&object.counted.addr).copied().unwrap_or(0);
        object.counted.wrong_by = found.saturating_sub(object.counted.said);
        object.counted.wrong_by > 0
    });
    let mut rows: FxHashMap<u32, Deficit> = FxHashMap::default();
    for object in &differing {
        let row = rows.entry(object.ty).or_default();
        row.ty = object.ty;
        row.count += 1;
        row.bytes += object.bytes;
        row.missing = row.missing.saturating_add(object.counted.wrong_by);
        keep(&mut row.examples, object.counted);
    }
    let mut rows: Vec<Deficit> = rows.into_values().collect();
    rows.sort_by_key(|row| (std::cmp::Reverse(row.missing), row.ty));
    rows
}

/// Counts once more, with care, what refers to a few objects.
struct Referrers<'a> {
    target: &'a Target,
    inspection: &'a Inspection,
    model: &'a Model,
    graph: &'a Graph,
}

impl Referrers<'_> {
    /// By address: references of other objects that are certain, each place of an object once. What static
    /// objects refer to is left out: some are none, and words of what is none are no references.
    fn of(&self, objects: &[Differs]) -> FxHashMap<u64, u64> {
        let mut found: FxHashMap<u64, u64> = objects.iter().map(|object| (object.counted.addr, 0)).collect();
        if found.is_empty() {
            return found;
        }
        let whole = |block: u32| self.graph.part_of(block).map_or(block, |part| part.whole);
        let nodes = found.keys().filter_map(|&addr| Some(whole(self.inspection.blocks.containing(addr)?.id)));
        let wanted = Bits::of(self.graph.nodes(), nodes);
        let mut from: Vec<u32> =
            self.graph.csr.referrers(&wanted).into_iter().map(|(from, _)| from).collect();
        from.extend(wanted.iter());
        from.sort_unstable();
        from.dedup();
        let interned: Vec<u64> =
            self.inspection.python.iter().flat_map(|python| python.interned(self.target).dicts).collect();
        let mut reader = self.target.reader();
        for node in from.into_iter().filter(|&node| node < self.graph.first_static()) {
            for part in std::iter::once(node).chain(self.graph.parts(node).iter().map(|part| part.part)) {
                let object = self.graph.object(self.inspection, self.model, &mut reader, part);
                if let Some(object) = object.filter(|object| !interned.contains(&object.addr)) {
                    self.count(&mut reader, &object, &mut found);
                }
            }
        }
        found
    }

    fn count(&self, reader: &mut Reader, object: &Object, found: &mut FxHashMap<u64, u64>) {
        let mut seen: Vec<u32> = Vec::new();
        let dictoffset = u32::try_from(object.shape.dictoffset).ok();
        refers::references(self.model, reader, object, &mut |reference| {
            let Some(count) = found.get_mut(&reference.addr) else { return };
            if reference.strength != Strength::Strong {
                return;
            }
            // The same word may be known as a slot and as what it is for.
            let place = match reference.at {
                At::Slot(offset) => Some(offset),
                At::Field("__dict__") => dictoffset.filter(|&offset| offset > 0),
                _ => None,
            };
            if let Some(place) = place {
                if seen.contains(&place) {
                    return;
                }
                seen.push(place);
            }
            *count += 1;
        });
    }
}

/// Every object whose count `wrong_by` does not find right, in address order. Immortal ones have none.
fn differing(
    target: &Target,
    inspection: &Inspection,
    wrong_by: impl Fn(u32, u64) -> Option<u64> + Sync,
) -> Vec<Differs> {
    let Some(model) = &inspection.model else { return Vec::new() };
    (0..inspection.blocks.spans().len())
        .into_par_iter()
        .map_init(
            || [(); 2].map(|()| target.reader()),
            |[reader, counts], span| {
                let mut out = Vec::new();
                for block in inspection.blocks.iter_span(span) {
                    let Some((object, _)) = inspection.object_in(model, reader, block) else { continue };
                    let Ok(RefCount::Count(said)) = model.refcount(counts, object.addr) else { continue };
                    let Some(wrong_by) = wrong_by(block.id, said) else { continue };
                    let counted = Counted { addr: object.addr, said, wrong_by };
                    out.push(Differs { ty: object.shape.id, bytes: block.bytes, counted });
                }
                out
            },
        )
        .flatten_iter()
        .collect()
}

/// The worst few, worst first.
fn keep(examples: &mut Vec<Counted>, counted: Counted) {
    let at = examples.partition_point(|other| other.wrong_by >= counted.wrong_by);
    if at < EXAMPLES {
        examples.insert(at, counted);
        examples.truncate(EXAMPLES);
    }
}
