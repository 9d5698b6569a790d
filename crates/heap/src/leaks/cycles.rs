//! Cycles among lost objects: strongly connected components, in groups of one shape.

use super::lost::{Lost, State};
use super::references::{INTERIOR, References};
use crate::Inspection;
use rustc_hash::{FxHashMap, FxHashSet};
use wmr_cpython::model::RefCount;
use wmr_cpython::refers::{self, At};
use wmr_memory::Target;

/// Cycles of one shape: as many objects of the same types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cycles {
    /// Indices of types in the census and how many objects of each are in one cycle, by count.
    pub shape: Vec<(u32, u64)>,
    /// How many such cycles.
    pub count: u64,
    /// Objects in all of them.
    pub objects: u64,
    /// With what hangs on them.
    pub bytes: u64,
    /// The same by type of the objects in the cycles; what hangs on several counts with the first.
    pub bytes_by_type: Vec<(u32, u64)>,
    /// Do their reference counts say more than the references found? Then the collector leaves them alone:
    /// somebody did not give a reference back.
    pub surplus: bool,
    /// The blocks of one of them, a few.
    pub example: Vec<u32>,
}

pub(super) struct Found {
    pub groups: Vec<Cycles>,
    /// Every block that is in a cycle or hangs on one.
    pub members: FxHashSet<u32>,
}

/// Blocks of an example.
const EXAMPLE: usize = 8;

pub(super) fn find(target: &Target, inspection: &Inspection, references: &References, lost: &Lost) -> Found {
    let index: FxHashMap<u32, u32> = lost
        .blocks
        .iter()
        .zip(&lost.states)
        .enumerate()
        .filter(|(_, (_, state))| **state != State::Possible)
        .map(|(i, (&block, _))| (block, i as u32))
        .collect();
    let components = components(references, lost, &index);
    // How often lost blocks point at each.
    let mut counts: FxHashMap<u32, u64> = FxHashMap::default();
    for block in index.keys() {
        for edge in references.of(*block).iter().filter(|edge| *edge & INTERIOR == 0) {
            *counts.entry(*edge).or_default() += 1;
        }
    }
    let mut found = Found { groups: Vec::new(), members: FxHashSet::default() };
    let mut reader = target.reader();
    let mut has_surplus = |block: u32| {
        let object = inspection.object(target, block)?;
        match inspection.model.as_ref()?.refcount(&mut reader, object.addr).ok()? {
            RefCount::Count(said) => Some(said > counts.get(&block).copied().unwrap_or(0)),
            _ => None,
        }
    };
    let mut groups: FxHashMap<(bool, Vec<(u32, u64)>), Cycles> = FxHashMap::default();
    for component in &components {
        found.members.extend(component.iter().copied());
    }
    for component in components {
        let mut shape: FxHashMap<u32, u64> = FxHashMap::default();
        let folded = namespaces(target, inspection, &component);
        for &block in &component {
            if let Some(ty) = inspection.census.mark(block).as_object().filter(|_| !folded.contains(&block)) {
                *shape.entry(ty).or_default() += 1;
            }
        }
        if component.iter().all(|&block| inspection.census.mark(block).as_object().is_none()) {
            // Native blocks that point at each other.
            for block in &component {
                found.members.remove(block);
            }
            continue;
        }
        let objects = shape.values().sum::<u64>();
        let mut weights: FxHashMap<u32, u64> = FxHashMap::default();
        for &member in &component {
            let mut bytes = inspection.blocks.bytes(member);
            let mut todo = vec![member];
            while let Some(block) = todo.pop() {
                for edge in references.of(block) {
                    let id = edge & !INTERIOR;
                    if index.contains_key(&id) && found.members.insert(id) {
                        bytes += inspection.blocks.bytes(id);
                        todo.push(id);
                    }
                }
            }
            // Tables and values count with the object they belong to.
            let object = inspection.census.owner(member).unwrap_or(member);
            let ty = inspection.census.mark(object).as_object().filter(|ty| shape.contains_key(ty));
            let ty = ty.or_else(|| shape.keys().min().copied());
            *weights.entry(ty.unwrap_or_default()).or_default() += bytes;
        }
        let bytes = weights.values().sum::<u64>();
        let mut shape: Vec<(u32, u64)> = shape.into_iter().collect();
        shape.sort_by_key(|&(ty, count)| (std::cmp::Reverse(count), ty));
        let surplus = component.iter().any(|&block| has_surplus(block) == Some(true));
        let group = groups.entry((surplus, shape.clone())).or_insert_with(|| Cycles {
            shape,
            surplus,
            count: 0,
            objects: 0,
            bytes: 0,
            bytes_by_type: Vec::new(),
            example: component.iter().copied().take(EXAMPLE).collect(),
        });
        group.count += 1;
        group.objects += objects;
        group.bytes += bytes;
        for (ty, bytes) in weights {
            match group.bytes_by_type.iter_mut().find(|row| row.0 == ty) {
                Some(row) => row.1 += bytes,
                None => group.bytes_by_type.push((ty, bytes)),
            }
        }
    }
    found.groups = groups.into_values().collect();
    found.groups.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.shape.cmp(&b.shape)));
    found
}

/// Dicts that are what an object among them keeps its attributes in: nobody means those by a cycle.
fn namespaces(target: &Target, inspection: &Inspection, component: &[u32]) -> FxHashSet<u32> {
    let Some(model) = &inspection.model else { return FxHashSet::default() };
    let mut reader = target.reader();
    let mut found = FxHashSet::default();
    for &block in component {
        let Some(object) = inspection.object(target, block) else { continue };
        refers::references(model, &mut reader, &object, &mut |reference| {
            if reference.at == At::Field("__dict__")
                && let Some(dict) = inspection.blocks.containing(reference.addr)
            {
                found.insert(dict.id);
            }
        });
    }
    found.retain(|id| component.binary_search(id).is_ok());
    found
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
