//! Cycles among lost objects: strongly connected components, in groups of one shape.

use super::audit::{self, Blind, Gap};
use super::drawing::{self, Step};
use super::lost::{Lost, State};
use super::namesakes;
use super::references::{INTERIOR, References};
use crate::Inspection;
use rustc_hash::{FxHashMap, FxHashSet};
use wmr_cpython::collector::Collector;
use wmr_cpython::gc::Generation;
use wmr_cpython::model::RefCount;
use wmr_cpython::refers::{self, At};
use wmr_memory::Target;

/// Why the collector has not taken a cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Standing {
    /// It will come to them with one of the next collections, which are frequent.
    Young,
    /// They are in the oldest generation, which it seldom looks through.
    Old,
    /// It has given up on them: they are in `gc.garbage`.
    Uncollectable,
    /// It cannot see the cycle: an object in it does not show what it refers to.
    Unseen,
    /// Their reference counts say more than the references found: somebody did not give one back.
    Surplus,
}

/// Cycles of one shape: as many objects of the same types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cycles {
    /// Indices of types in the census and how many objects of each are in one cycle, by count.
    pub shape: Vec<(u32, u64)>,
    pub standing: Standing,
    /// The field that the collector does not see.
    pub gap: Option<Gap>,
    /// How many such cycles.
    pub count: u64,
    /// Objects in all of them.
    pub objects: u64,
    /// With what hangs on them.
    pub bytes: u64,
    /// The same by type of the objects in the cycles; what hangs on several counts with the first.
    pub bytes_by_type: Vec<(u32, u64)>,
    /// The smallest cycle in one of them: each object and how it refers to the next.
    pub example: Vec<Step>,
}

pub(super) struct Found {
    pub groups: Vec<Cycles>,
    /// Every block that is in a cycle or hangs on one.
    pub members: FxHashSet<u32>,
}

/// What cycles of one group have in common: why they are there, and their shape.
type Alike = (Standing, Option<Gap>, Vec<(u32, u64)>);

/// Objects of the younger generations that are remembered.
const MAX_YOUNG: usize = 1 << 22;

struct Finder<'a> {
    target: &'a Target,
    inspection: &'a Inspection,
    references: &'a References,
    /// Lost blocks that are not held by anything inside of them, with their place in the list.
    index: FxHashMap<u32, u32>,
    /// How often lost blocks and `gc.garbage` point at each.
    counts: FxHashMap<u32, u64>,
    uncollectable: FxHashSet<u32>,
    /// Objects that the collector looks at with every or every tenth collection.
    young: FxHashSet<u64>,
    namesakes: Vec<u32>,
}

pub(super) fn find(
    target: &Target,
    inspection: &Inspection,
    references: &References,
    lost: &Lost,
    collectors: &[Collector],
) -> Found {
    let index: FxHashMap<u32, u32> = lost
        .blocks
        .iter()
        .zip(&lost.states)
        .enumerate()
        .filter(|(_, (_, state))| **state != State::Possible)
        .map(|(i, (&block, _))| (block, i as u32))
        .collect();
    let mut counts: FxHashMap<u32, u64> = FxHashMap::default();
    for block in index.keys() {
        for edge in references.of(*block).iter().filter(|edge| *edge & INTERIOR == 0) {
            *counts.entry(*edge).or_default() += 1;
        }
    }
    let garbage = collectors.iter().flat_map(|c| &c.uncollectable);
    let uncollectable: FxHashSet<u32> =
        garbage.filter_map(|&addr| Some(inspection.blocks.containing(addr)?.id)).collect();
    for &block in &uncollectable {
        *counts.entry(block).or_default() += 1;
    }
    let mut components = components(references, lost, &index);
    // Not all that the collector gave up on, or was told to keep, is in a cycle.
    let in_cycles: FxHashSet<u32> = components.iter().flatten().copied().collect();
    // What an object that nobody holds refers to waits for that, and not for the collector.
    let unheld = |id: &u32| inspection.census.mark(*id).as_object().is_some() && !counts.contains_key(id);
    let mut hanging: FxHashSet<u32> = index.keys().copied().filter(unheld).collect();
    let mut todo: Vec<u32> = hanging.iter().copied().collect();
    while let Some(block) = todo.pop() {
        let edges = references.of(block).iter().map(|edge| edge & !INTERIOR);
        todo.extend(edges.filter(|id| index.contains_key(id) && hanging.insert(*id)));
    }
    components.retain(|component| !component.iter().any(|id| hanging.contains(id)));
    components.extend(
        uncollectable
            .iter()
            .filter(|id| index.contains_key(id) && !in_cycles.contains(id))
            .map(|&id| vec![id]),
    );
    components.sort_unstable_by_key(|component| component.first().copied());
    let mut finder = Finder {
        target,
        inspection,
        references,
        index,
        counts,
        uncollectable,
        young: FxHashSet::default(),
        namesakes: namesakes(&inspection.census.types),
    };
    if !components.is_empty() {
        finder.young = finder.young_objects();
    }
    finder.groups(components)
}

impl Finder<'_> {
    /// What is in any but the oldest generation.
    fn young_objects(&self) -> FxHashSet<u64> {
        let mut young = FxHashSet::default();
        let Ok(python) = &self.inspection.python else { return young };
        let mut reader = self.target.reader();
        for list in python.gc.lists.iter().filter(|list| matches!(list.generation, Generation::Young(0 | 1)))
        {
            python.gc.for_each(&mut reader, list, MAX_YOUNG, |object| {
                young.insert(object);
            });
        }
        young
    }

    /// The type of an object, one for all of the same name.
    fn type_of(&self, block: u32) -> Option<u32> {
        self.namesakes.get(self.inspection.census.mark(block).as_object()? as usize).copied()
    }

    /// Types are numbered as threads meet them: where they lie is the same each time.
    fn place(&self, ty: u32) -> Option<u64> {
        self.inspection.census.types.get(ty as usize).map(|ty| ty.addr)
    }

    fn groups(&self, mut components: Vec<Vec<u32>>) -> Found {
        let marks = |id: u32| self.type_of(id);
        // Native blocks that point at each other are no cycle of objects.
        components.retain(|component| component.iter().any(|&id| marks(id).is_some()));
        let mut found = Found { groups: Vec::new(), members: FxHashSet::default() };
        found.members.extend(components.iter().flatten().copied());
        let mut groups: FxHashMap<Alike, Cycles> = FxHashMap::default();
        for component in components {
            let folded = self.namespaces(&component);
            let mut shape: FxHashMap<u32, u64> = FxHashMap::default();
            for ty in component.iter().filter(|id| !folded.contains(id)).filter_map(|&id| marks(id)) {
                *shape.entry(ty).or_default() += 1;
            }
            let weights = self.weights(&component, &shape, &mut found.members);
            let (standing, gap) = self.standing(&component);
            let mut shape: Vec<(u32, u64)> = shape.into_iter().collect();
            shape.sort_by_key(|&(ty, count)| (std::cmp::Reverse(count), self.place(ty)));
            let group = groups.entry((standing, gap, shape.clone())).or_insert_with(|| Cycles {
                standing,
                gap,
                count: 0,
                objects: 0,
                bytes: 0,
                bytes_by_type: Vec::new(),
                example: drawing::smallest(self.target, self.inspection, &component, &folded),
                shape: shape.clone(),
            });
            group.count += 1;
            group.objects += shape.iter().map(|(_, count)| count).sum::<u64>();
            for (ty, bytes) in weights {
                group.bytes += bytes;
                match group.bytes_by_type.iter_mut().find(|row| row.0 == ty) {
                    Some(row) => row.1 += bytes,
                    None => group.bytes_by_type.push((ty, bytes)),
                }
            }
        }
        found.groups = groups.into_values().collect();
        let places = |group: &Cycles| -> Vec<_> {
            group.shape.iter().map(|(ty, count)| (self.place(*ty), *count)).collect()
        };
        found.groups.sort_by_cached_key(|group| (std::cmp::Reverse(group.bytes), places(group)));
        found
    }

    /// Bytes of a cycle and of what hangs on it, by type of its objects.
    fn weights(
        &self,
        component: &[u32],
        shape: &FxHashMap<u32, u64>,
        members: &mut FxHashSet<u32>,
    ) -> FxHashMap<u32, u64> {
        let census = &self.inspection.census;
        let mut weights: FxHashMap<u32, u64> = FxHashMap::default();
        for &member in component {
            let mut bytes = self.inspection.blocks.bytes(member);
            let mut todo = vec![member];
            while let Some(block) = todo.pop() {
                for edge in self.references.of(block) {
                    let id = edge & !INTERIOR;
                    if self.index.contains_key(&id) && members.insert(id) {
                        bytes += self.inspection.blocks.bytes(id);
                        todo.push(id);
                    }
                }
            }
            // Tables and values count with the object they belong to.
            let object = census.owner(member).unwrap_or(member);
            let ty = self.type_of(object).filter(|ty| shape.contains_key(ty));
            let ty = ty.or_else(|| shape.keys().min_by_key(|&&ty| self.place(ty)).copied());
            *weights.entry(ty.unwrap_or_default()).or_default() += bytes;
        }
        weights
    }

    fn standing(&self, component: &[u32]) -> (Standing, Option<Gap>) {
        let mut reader = self.target.reader();
        let Some(model) = &self.inspection.model else { return (Standing::Old, None) };
        let (mut young, mut surplus) = (false, false);
        for &block in component {
            let Some(object) = self.inspection.object(self.target, block) else { continue };
            if self.uncollectable.contains(&block) {
                return (Standing::Uncollectable, None);
            }
            young |= self.young.contains(&object.addr);
            if let Ok(RefCount::Count(said)) = model.refcount(&mut reader, object.addr) {
                surplus |= said > self.counts.get(&block).copied().unwrap_or(0);
            }
        }
        if surplus {
            return (Standing::Surplus, None);
        }
        match audit::gap(self.target, self.inspection, component) {
            // What the collector sees nothing of hides its cycle from it for good.
            Some(gap) if !young || gap.blind != Blind::NotVisited => (Standing::Unseen, Some(gap)),
            _ if young => (Standing::Young, None),
            _ => (Standing::Old, None),
        }
    }

    /// Dicts that are what an object among them keeps its attributes in: nobody means those by a cycle.
    fn namespaces(&self, component: &[u32]) -> FxHashSet<u32> {
        let Some(model) = &self.inspection.model else { return FxHashSet::default() };
        let mut reader = self.target.reader();
        let mut found = FxHashSet::default();
        for &block in component {
            let Some(object) = self.inspection.object(self.target, block) else { continue };
            refers::references(model, &mut reader, &object, &mut |reference| {
                if reference.at == At::Field("__dict__")
                    && let Some(dict) = self.inspection.blocks.containing(reference.addr)
                {
                    found.insert(dict.id);
                }
            });
        }
        found.retain(|id| component.binary_search(id).is_ok());
        found
    }
}

/// Tarjan's strongly connected components that are cycles, without recursion.
fn components(references: &References, lost: &Lost, index: &FxHashMap<u32, u32>) -> Vec<Vec<u32>> {
    const NEW: u32 = u32::MAX;
    let count = lost.blocks.len();
    let (mut number, mut low) = (vec![NEW; count], vec![0u32; count]);
    let mut on_stack = vec![false; count];
    // Of each call the block and how many of its edges were followed.
    let (mut stack, mut calls): (Vec<u32>, Vec<(u32, usize)>) = (Vec::new(), Vec::new());
    let (mut next, mut out) = (0u32, Vec::new());
    for first in 0..count as u32 {
        if number[first as usize] != NEW || lost.states[first as usize] == State::Possible {
            continue;
        }
        calls.push((first, 0));
        while let Some((v, at)) = calls.last_mut() {
            let v = *v as usize;
            if number[v] == NEW {
                (number[v], low[v]) = (next, next);
                next += 1;
                stack.push(v as u32);
                on_stack[v] = true;
            }
            let edges = references.of(lost.blocks[v]);
            let mut down = None;
            while let Some(edge) = edges.get(*at).filter(|_| down.is_none()) {
                *at += 1;
                let Some(&w) = index.get(&(edge & !INTERIOR)) else { continue };
                if number[w as usize] == NEW {
                    down = Some(w);
                } else if on_stack[w as usize] {
                    low[v] = low[v].min(number[w as usize]);
                }
            }
            if let Some(w) = down {
                calls.push((w, 0));
                continue;
            }
            calls.pop();
            if let Some(&(parent, _)) = calls.last() {
                low[parent as usize] = low[parent as usize].min(low[v]);
            }
            if low[v] != number[v] {
                continue;
            }
            let mut component = Vec::new();
            while let Some(w) = stack.pop() {
                on_stack[w as usize] = false;
                component.push(lost.blocks[w as usize]);
                if w as usize == v {
                    break;
                }
            }
            // One that points at itself is a cycle, too.
            if component.len() > 1 || edges.contains(&component[0]) {
                component.sort_unstable();
                out.push(component);
            }
        }
    }
    out
}
