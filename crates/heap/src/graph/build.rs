//! The graph of a target's objects.
//!
//! A node is a block, by its id, or a static object, numbered behind the blocks. Only objects have
//! references; what they own is counted with them and has no node's life of its own.

use super::{Bits, Csr, MAX_NODES, TooManyEdges};
use crate::claims::NOBODY;
use crate::inspect::Inspection;
use rayon::prelude::*;
use rustc_hash::FxHashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use wmr_cpython::locate::for_each_word;
use wmr_cpython::model::{Model, RefCount};
use wmr_cpython::object::{Evidence, Object};
use wmr_cpython::refers::{self, Strength};
use wmr_cpython::types::Shape;
use wmr_memory::{Reader, Target};

/// Gives the references of an object as addresses: the same ones each time it is asked.
pub trait References: Fn(&Model, &mut Reader, &Object, &mut dyn FnMut(u64, Strength)) + Sync {}

impl<F: Fn(&Model, &mut Reader, &Object, &mut dyn FnMut(u64, Strength)) + Sync> References for F {}

/// What the interpreter's objects refer to, by type.
pub fn references(model: &Model, reader: &mut Reader, object: &Object, f: &mut dyn FnMut(u64, Strength)) {
    refers::references(model, reader, object, &mut |reference| f(reference.addr, reference.strength));
}

pub struct Graph {
    pub csr: Csr,
    /// By node: bytes of the object's block and of those it owns. Static objects take none of the heap.
    pub sizes: Vec<u64>,
    /// Edges that a scan found, by their place in the rows.
    pub maybe: Bits,
    pub left_out: LeftOut,
    /// First node that is not a block.
    blocks: u32,
    statics: Vec<(u64, Shape)>,
    /// Blocks that are padded twice: what is too large for pymalloc under the debug allocator.
    twice: Bits,
    /// By owned block: the object it is counted with.
    owners: FxHashMap<u32, u32>,
}

/// References that are no edges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftOut {
    pub weak: u64,
    /// To what is in use but no object, or into the middle of one.
    pub inside: u64,
    /// To mapped memory that no block and no known object is at: freed, or static and not recognised.
    pub nowhere: u64,
    pub unmapped: u64,
}

impl Graph {
    /// `None` without an interpreter.
    ///
    /// # Errors
    /// More objects or references than can be numbered.
    pub fn build(
        target: &Target,
        inspection: &Inspection,
        references: &impl References,
    ) -> Option<Result<Graph, TooManyEdges>> {
        let model = inspection.model.as_ref()?;
        let blocks = inspection.blocks.len();
        let mut graph = Graph {
            csr: Csr::empty(),
            sizes: Vec::new(),
            maybe: Bits::default(),
            left_out: LeftOut::default(),
            blocks,
            statics: static_objects(target, inspection, model),
            twice: padded_twice(target, inspection, model),
            owners: inspection.census.owned().filter(|(_, owner)| *owner != NOBODY).collect(),
        };
        Some(graph.fill(target, inspection, model, references).map(|()| graph))
    }

    fn fill(
        &mut self,
        target: &Target,
        inspection: &Inspection,
        model: &Model,
        references: &impl References,
    ) -> Result<(), TooManyEdges> {
        let statics = u32::try_from(self.statics.len()).map_err(|_| TooManyEdges)?;
        let nodes = self.blocks.checked_add(statics).filter(|n| *n <= MAX_NODES).ok_or(TooManyEdges)?;
        // Nodes with references that are no plain edges, which are looked at once more.
        let special = Bits::new(nodes);
        // The table of interned strings does not keep them: a string's end takes it out of there.
        let interned = inspection.python.iter().flat_map(|p| p.interned(target).dicts).collect::<Vec<u64>>();
        let of = |reader: &mut Reader, node: u32, f: &mut dyn FnMut(u64, Strength)| {
            if let Some(object) = self.object(inspection, model, reader, node) {
                let weak = interned.contains(&object.addr);
                references(model, reader, &object, &mut |addr, strength| {
                    f(addr, if weak { Strength::Weak } else { strength });
                });
            }
        };
        let csr = Csr::build(
            nodes,
            || target.reader(),
            |reader, node, edge| {
                of(reader, node, &mut |addr, strength| {
                    let to =
                        if strength == Strength::Weak { None } else { self.node(inspection, model, addr) };
                    if let Some(to) = to {
                        edge(to);
                    }
                    if to.is_none() || strength != Strength::Strong {
                        special.insert(node);
                    }
                });
            },
        )?;
        let maybe = Bits::new(csr.edges());
        let counts = [const { AtomicU64::new(0) }; 4];
        let nodes: Vec<u32> = special.iter().collect();
        nodes.into_par_iter().for_each_init(
            || target.reader(),
            |reader, node| {
                let mut at = csr.first_edge(node);
                of(reader, node, &mut |addr, strength| {
                    if strength == Strength::Weak {
                        counts[0].fetch_add(1, Relaxed);
                    } else if self.node(inspection, model, addr).is_some() {
                        if strength == Strength::Maybe {
                            maybe.insert(at);
                        }
                        at += 1;
                    } else if strength == Strength::Strong {
                        // What a scan takes for a reference may be anything.
                        counts[why_not(target, inspection, addr)].fetch_add(1, Relaxed);
                    }
                });
            },
        );
        let [weak, inside, nowhere, unmapped] = counts.map(AtomicU64::into_inner);
        self.left_out = LeftOut { weak, inside, nowhere, unmapped };
        self.sizes = vec![0; csr.nodes() as usize];
        for block in inspection.blocks.iter() {
            let node = self.owners.get(&block.id).copied().unwrap_or(block.id);
            self.sizes[node as usize] += block.bytes;
        }
        self.csr = csr;
        self.maybe = maybe;
        Ok(())
    }

    /// The node of the object at that very address.
    #[inline]
    pub fn node(&self, inspection: &Inspection, model: &Model, addr: u64) -> Option<u32> {
        let Some(block) = inspection.blocks.containing(addr) else { return self.static_node(addr) };
        let id = inspection.census.mark(block.id).as_object()?;
        let presize = u64::from(inspection.census.types.get(id as usize)?.shape.presize);
        // Under the debug allocator every object is padded: where one without a head would be, a head is.
        let before = model.debug.map_or(0, |pad| pad.before) << u32::from(self.twice.contains(block.id));
        (addr - block.start == presize + before).then_some(block.id)
    }

    fn static_node(&self, addr: u64) -> Option<u32> {
        let at = self.statics.binary_search_by_key(&addr, |known| known.0).ok()?;
        Some(self.blocks + at as u32)
    }

    /// Where static objects begin among the nodes.
    pub fn first_static(&self) -> u32 {
        self.blocks
    }

    /// The node that a block is counted with: its owner's, or its own.
    pub fn owner(&self, block: u32) -> u32 {
        self.owners.get(&block).copied().unwrap_or(block)
    }

    /// The object of a node; owned and other blocks have none.
    pub fn object(
        &self,
        inspection: &Inspection,
        model: &Model,
        reader: &mut Reader,
        node: u32,
    ) -> Option<Object> {
        if let Some(at) = node.checked_sub(self.blocks) {
            let (addr, shape) = *self.statics.get(at as usize)?;
            return Some(Object { addr, shape, evidence: Evidence::Plausible, tracked: false });
        }
        // Most blocks that are no objects are told by the mark alone.
        inspection.census.mark(node).as_object()?;
        inspection.object_in(model, reader, inspection.blocks.block(node)).map(|(object, _)| object)
    }
}

/// Which count of [`LeftOut`] a reference to no object is for.
fn why_not(target: &Target, inspection: &Inspection, addr: u64) -> usize {
    if inspection.blocks.find(addr).is_some() {
        1
    } else if target.mapping(addr).is_some() {
        2
    } else {
        3
    }
}

fn padded_twice(target: &Target, inspection: &Inspection, model: &Model) -> Bits {
    let Some(pad) = model.debug else { return Bits::default() };
    let twice = Bits::new(inspection.blocks.len());
    let mut reader = target.reader();
    for block in inspection.blocks.iter() {
        if model.unpad(&mut reader, block.start, block.usable).data - block.start > pad.before {
            twice.insert(block.id);
        }
    }
    twice
}

/// Objects in the data of images, by address: where a known type's address lies in the place of a type
/// and a plausible count before it. A word that only looks so is referred to by nobody.
fn static_objects(target: &Target, inspection: &Inspection, model: &Model) -> Vec<(u64, Shape)> {
    let types: FxHashMap<u64, Shape> = inspection.census.types.iter().map(|ty| (ty.addr, ty.shape)).collect();
    let type_at = model.layout.object.ob_type;
    let mut out = Vec::new();
    let (mut reader, mut counts) = (target.reader(), target.reader());
    for range in target.images.iter().flat_map(|image| image.writable()) {
        for_each_word(&mut reader, range, |at, word| {
            let Some(shape) = types.get(&word) else { return };
            let addr = at.wrapping_sub(type_at);
            if !matches!(model.refcount(&mut counts, addr), Ok(RefCount::Implausible) | Err(_)) {
                out.push((addr, *shape));
            }
        });
    }
    out.sort_unstable_by_key(|known| known.0);
    out.dedup_by_key(|known| known.0);
    out
}
