//! Folding: an object and the objects that are parts of it are one node. Nobody asks for a dict who means
//! the instance whose attributes are in it.
//!
//! A namespace is part of the object whose `__dict__` it is when nothing else refers to it, as its own
//! reference count says; that of a module always, as its functions refer to it when they mean the module.

use super::{Bits, chunks};
use crate::inspect::Inspection;
use rayon::prelude::*;
use rustc_hash::FxHashSet;
use wmr_cpython::family::Family;
use wmr_cpython::model::{Model, RefCount};
use wmr_cpython::object::Object;
use wmr_cpython::refers::{self, At};
use wmr_memory::{Reader, Target};

/// Are objects one node with their parts?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fold {
    #[default]
    Yes,
    No,
}

/// An object that is part of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// The node it is part of.
    pub whole: u32,
    /// Its own node, were it one.
    pub part: u32,
    /// What the whole calls it.
    pub name: &'static str,
}

#[derive(Debug, Default)]
pub struct Parts {
    /// By whole.
    list: Vec<Part>,
    /// By part: place in the list.
    places: Vec<(u32, u32)>,
    is_part: Bits,
    has_parts: Bits,
}

impl Parts {
    /// `object` gives the object of a node, `node` the node of the object at an address.
    pub fn find(
        target: &Target,
        inspection: &Inspection,
        model: &Model,
        nodes: u32,
        object: &(impl Fn(&mut Reader, u32) -> Option<Object> + Sync),
        node: &(impl Fn(u64) -> Option<u32> + Sync),
    ) -> Parts {
        let types = &inspection.census.types;
        let may: Vec<bool> = types.iter().map(|ty| refers::may_have_parts(model, &ty.shape)).collect();
        let blocks = inspection.blocks.len();
        let wanted = |node: u32| {
            node >= blocks || inspection.census.mark(node).as_object().is_some_and(|ty| may[ty as usize])
        };
        let look = |[reader, counts]: &mut [Reader; 2], whole: u32, found: &mut Vec<Part>| {
            let Some(object) = object(reader, whole).filter(|object| may[object.shape.id as usize]) else {
                return;
            };
            refers::parts(model, reader, &object, &mut |reference| {
                let At::Field(name) = reference.at else { return };
                let Some(part) = node(reference.addr).filter(|part| *part < blocks && *part != whole) else {
                    return;
                };
                let Some(ty) = inspection.census.mark(part).as_object() else { return };
                let shape = &types[ty as usize].shape;
                let plain = shape.exact && matches!(shape.family, Family::Dict | Family::Tuple);
                let module = object.shape.family == Family::Module && name == "__dict__";
                if plain && (module || model.refcount(counts, reference.addr) == Ok(RefCount::Count(1))) {
                    found.push(Part { whole, part, name });
                }
            });
        };
        let chunks: Vec<Vec<Part>> = chunks(nodes)
            .map_init(
                || [target.reader(), target.reader()],
                |readers, nodes| {
                    let mut found = Vec::new();
                    for node in nodes {
                        if wanted(node) {
                            look(readers, node, &mut found);
                        }
                    }
                    found
                },
            )
            .collect();
        let mut list: Vec<Part> = chunks.concat();
        // What two objects say is theirs is no part of either; a part has no parts.
        let mut places: Vec<(u32, u32)> = list.iter().zip(0..).map(|(part, at)| (part.part, at)).collect();
        places.sort_unstable();
        let twice: FxHashSet<u32> =
            places.windows(2).filter(|pair| pair[0].0 == pair[1].0).map(|pair| pair[0].0).collect();
        let parts = Bits::of(nodes, places.iter().map(|(part, _)| *part));
        list.retain(|part| !twice.contains(&part.part) && !parts.contains(part.whole));
        Parts::of(nodes, list)
    }

    fn of(nodes: u32, list: Vec<Part>) -> Parts {
        let mut places: Vec<(u32, u32)> = list.iter().zip(0..).map(|(part, at)| (part.part, at)).collect();
        places.sort_unstable();
        let is_part = Bits::of(nodes, list.iter().map(|part| part.part));
        let has_parts = Bits::of(nodes, list.iter().map(|part| part.whole));
        Parts { list, places, is_part, has_parts }
    }

    /// What a node is part of.
    #[inline]
    pub fn part(&self, node: u32) -> Option<&Part> {
        if !self.is_part.contains(node) {
            return None;
        }
        let at = self.places.binary_search_by_key(&node, |place| place.0).ok()?;
        self.list.get(self.places[at].1 as usize)
    }

    /// The node that an object is shown as: its own, or that of what it is part of.
    #[inline]
    pub fn whole(&self, node: u32) -> u32 {
        self.part(node).map_or(node, |part| part.whole)
    }

    /// The parts of a node.
    #[inline]
    pub fn of_whole(&self, node: u32) -> &[Part] {
        if !self.has_parts.contains(node) {
            return &[];
        }
        let first = self.list.partition_point(|part| part.whole < node);
        let count = self.list[first..].iter().take_while(|part| part.whole == node).count();
        &self.list[first..first + count]
    }

    pub fn iter(&self) -> impl Iterator<Item = &Part> {
        self.list.iter()
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}
