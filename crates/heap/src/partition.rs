//! Heapy's ways to divide the objects of a heap: by type, where a dict is told by whose namespace it is, and by
//! what sorts of objects refer to each.

use crate::claims::NOBODY;
use crate::graph::{Graph, Hanging, chunks};
use crate::inspect::Inspection;
use rayon::prelude::*;
use rustc_hash::FxHashMap;
use std::ops::Range;
use wmr_cpython::family::Family;
use wmr_cpython::object::{Evidence, Object};
use wmr_cpython::refers::{self, At};
use wmr_memory::{Reader, Target};

/// Objects of one class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassRow {
    /// `list`, `dict of app.Thing`, `dict (no owner)`.
    pub class: String,
    pub type_name: String,
    /// Of a dict that is a namespace: whose.
    pub owner: Option<String>,
    pub count: u64,
    pub bytes: u64,
}

/// Objects that the same classes of objects refer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferrersRow {
    /// In the order of the alphabet; none of what no object refers to.
    pub referrers: Vec<String>,
    pub count: u64,
    pub bytes: u64,
}

/// Objects of one type, with what goes with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetainedRow {
    pub name: String,
    pub module: String,
    pub addr: u64,
    pub count: u64,
    pub bytes: u64,
    pub retained: u64,
}

/// What objects are told apart by: the type, and of a dict its owner's. Numbers below that of types are
/// types, from there on dicts by their owner's type, and the last one is of dicts that nobody owns.
pub struct Classes<'i> {
    inspection: &'i Inspection,
    /// By block of a dict: type of the object whose namespace it is.
    owners: FxHashMap<u32, u32>,
}

impl<'i> Classes<'i> {
    /// `None` without an interpreter.
    pub fn find(target: &Target, inspection: &'i Inspection) -> Option<Classes<'i>> {
        let model = inspection.model.as_ref()?;
        let census = &inspection.census;
        let may: Vec<bool> = census.types.iter().map(|ty| refers::may_have_parts(model, &ty.shape)).collect();
        let blocks = inspection.blocks.len();
        // Blocks, then static types, which are objects too.
        let statics = census.types.iter().filter(|ty| inspection.blocks.find(ty.addr).is_none());
        let type_shape = census.types.iter().find(|ty| ty.addr == model.type_type).map(|ty| ty.shape);
        let statics: Vec<Object> = statics
            .filter_map(|ty| {
                let shape = type_shape?;
                Some(Object { addr: ty.addr, shape, evidence: Evidence::Plausible, tracked: false })
            })
            .collect();
        let of = |reader: &mut Reader, object: &Object, found: &mut Vec<(u32, u32)>| {
            refers::parts(model, reader, object, &mut |reference| {
                if reference.at == At::Field("__dict__")
                    && let Some(dict) = inspection.blocks.find(reference.addr)
                {
                    found.push((dict, object.shape.id));
                }
            });
        };
        let chunks: Vec<Vec<(u32, u32)>> = chunks(blocks)
            .map_init(
                || target.reader(),
                |reader, ids| {
                    let mut found = Vec::new();
                    for block in inspection.blocks.range(ids) {
                        if census.mark(block.id).as_object().is_some_and(|ty| may[ty as usize])
                            && let Some((object, _)) = inspection.object_in(model, reader, block)
                        {
                            of(reader, &object, &mut found);
                        }
                    }
                    found
                },
            )
            .collect();
        let mut owners = FxHashMap::default();
        let mut of_statics = Vec::new();
        let mut reader = target.reader();
        statics.iter().for_each(|object| of(&mut reader, object, &mut of_statics));
        for (dict, owner) in chunks.into_iter().flatten().chain(of_statics) {
            owners.entry(dict).or_insert(owner);
        }
        Some(Classes { inspection, owners })
    }

    fn types(&self) -> u32 {
        self.inspection.census.types.len() as u32
    }

    /// The class of the object in a block.
    pub fn of_block(&self, block: u32) -> Option<u32> {
        let ty = self.inspection.census.mark(block).as_object()?;
        let shape = &self.inspection.census.types.get(ty as usize)?.shape;
        if shape.family != Family::Dict || !shape.exact {
            return Some(ty);
        }
        Some(self.owners.get(&block).map_or(2 * self.types(), |owner| self.types() + owner))
    }

    fn type_name(&self, ty: u32) -> &str {
        self.inspection.census.types.get(ty as usize).map_or("?", |ty| ty.name.as_str())
    }

    pub fn name(&self, class: u32) -> String {
        match class.checked_sub(self.types()) {
            None => self.type_name(class).to_owned(),
            Some(owner) if owner < self.types() => format!("dict of {}", self.type_name(owner)),
            Some(_) => "dict (no owner)".to_owned(),
        }
    }

    /// Bytes of each block's object with what it owns.
    fn sizes(&self) -> Vec<u64> {
        let blocks = &self.inspection.blocks;
        let mut sizes: Vec<u64> = blocks.iter().map(|block| block.bytes).collect();
        for (block, owner) in self.inspection.census.owned() {
            if owner != NOBODY
                && let Some(size) = sizes.get_mut(owner as usize)
            {
                *size = size.saturating_add(blocks.bytes(block));
            }
        }
        sizes
    }

    /// The objects in blocks that `is_in` says yes to, by class, largest first.
    pub fn rows(&self, is_in: &dyn Fn(u32) -> bool) -> Vec<ClassRow> {
        let sizes = self.sizes();
        // Several types may have one name.
        let mut names: FxHashMap<u32, String> = FxHashMap::default();
        let mut rows: FxHashMap<String, ClassRow> = FxHashMap::default();
        for block in (0..self.inspection.blocks.len()).filter(|block| is_in(*block)) {
            let Some(class) = self.of_block(block) else { continue };
            let name = names.entry(class).or_insert_with(|| self.name(class));
            let row = match rows.get_mut(name.as_str()) {
                Some(row) => row,
                None => rows.entry(name.clone()).or_insert(self.empty_row(class)),
            };
            row.count += 1;
            row.bytes = row.bytes.saturating_add(sizes[block as usize]);
        }
        let mut rows: Vec<ClassRow> = rows.into_values().collect();
        rows.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.class.cmp(&b.class)));
        rows
    }

    fn empty_row(&self, class: u32) -> ClassRow {
        let owner = class.checked_sub(self.types());
        ClassRow {
            class: self.name(class),
            type_name: if owner.is_none() { self.type_name(class) } else { "dict" }.to_owned(),
            owner: owner.filter(|ty| *ty < self.types()).map(|ty| self.type_name(ty).to_owned()),
            count: 0,
            bytes: 0,
        }
    }

    /// The same by the classes of what refers to them. The graph must not be folded.
    pub fn by_referrers(&self, graph: &Graph, is_in: &(dyn Fn(u32) -> bool + Sync)) -> Vec<ReferrersRow> {
        type Sums = FxHashMap<Vec<u32>, (u64, u64)>;
        let back = graph.csr.reversed();
        let blocks = self.inspection.blocks.len();
        let class = |node: u32| match node < blocks {
            true => self.of_block(node),
            false => graph.type_of(self.inspection, node).map(|ty| ty.shape.id),
        };
        let of_chunk = |nodes: Range<u32>| {
            let mut sums = Sums::default();
            // By class: the last node that was seen to have it among its referrers.
            let mut seen = vec![u32::MAX; 2 * self.types() as usize + 1];
            for node in nodes.filter(|node| is_in(*node)) {
                if self.inspection.census.mark(node).as_object().is_none() {
                    continue;
                }
                let mut classes = Vec::new();
                for class in back.row(node).iter().filter_map(|from| class(*from)) {
                    if std::mem::replace(&mut seen[class as usize], node) != node {
                        classes.push(class);
                    }
                }
                classes.sort_unstable();
                let sum = sums.entry(classes).or_default();
                sum.0 += 1;
                sum.1 = sum.1.saturating_add(graph.size(node));
            }
            sums
        };
        let merge = |mut a: Sums, b: Sums| {
            for (classes, (count, bytes)) in b {
                let sum = a.entry(classes).or_default();
                sum.0 += count;
                sum.1 = sum.1.saturating_add(bytes);
            }
            a
        };
        let sums = chunks(blocks).map(of_chunk).reduce(Sums::default, merge);
        let mut by_name: FxHashMap<Vec<String>, (u64, u64)> = FxHashMap::default();
        for (classes, (count, bytes)) in sums {
            let mut names: Vec<String> = classes.into_iter().map(|class| self.name(class)).collect();
            names.sort_unstable();
            names.dedup();
            let sum = by_name.entry(names).or_default();
            sum.0 += count;
            sum.1 = sum.1.saturating_add(bytes);
        }
        let row = |(referrers, (count, bytes))| ReferrersRow { referrers, count, bytes };
        let mut rows: Vec<ReferrersRow> = by_name.into_iter().map(row).collect();
        rows.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.referrers.cmp(&b.referrers)));
        rows
    }
}

/// All types by what would go with their objects, largest first. Of objects that hang on another one of
/// their type the upper one counts.
pub fn by_retained(
    inspection: &Inspection,
    graph: &Graph,
    hanging: &Hanging,
    retained: &[u64],
    is_in: &dyn Fn(u32) -> bool,
) -> Vec<RetainedRow> {
    let types = &inspection.census.types;
    let row = |ty: &wmr_cpython::types::Type| RetainedRow {
        name: ty.name.clone(),
        module: ty.module.clone(),
        addr: ty.addr,
        count: 0,
        bytes: 0,
        retained: 0,
    };
    let mut rows: Vec<RetainedRow> = types.iter().map(row).collect();
    let of = |node: u32| {
        let ty = graph.type_of(inspection, node)?.shape.id as usize;
        (node < graph.first_static() && is_in(node) && ty < types.len()).then_some(ty)
    };
    let mut open = vec![0u32; types.len()];
    hanging.walk(&mut |node, before| {
        let Some(ty) = of(node) else { return };
        if !before {
            open[ty] -= 1;
            return;
        }
        rows[ty].count += 1;
        rows[ty].bytes = rows[ty].bytes.saturating_add(graph.size(node));
        if open[ty] == 0 {
            rows[ty].retained = rows[ty].retained.saturating_add(retained[node as usize]);
        }
        open[ty] += 1;
    });
    rows.retain(|row| row.count > 0);
    rows.sort_by(|a, b| b.retained.cmp(&a.retained).then_with(|| a.name.cmp(&b.name)));
    rows
}
