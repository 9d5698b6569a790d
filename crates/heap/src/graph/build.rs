//! The graph of a target's objects.
//!
//! A node is a block, by its id, or a static object, numbered behind the blocks. Only objects have
//! references; what they own is counted with them and has no node's life of its own, nor have the objects that
//! are folded into another.

use super::csr::Rows;
use super::fold::{Fold, Part, Parts};
use super::{Bits, Csr, MAX_NODES, Sizes, TooManyEdges, statics};
use crate::claims::NOBODY;
use crate::inspect::Inspection;
use rustc_hash::FxHashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use wmr_cpython::family::Family;
use wmr_cpython::model::{Model, RefCount};
use wmr_cpython::object::{Evidence, Object};
use wmr_cpython::refers::{self, Strength};
use wmr_cpython::types::{Shape, Type};
use wmr_memory::{Reader, Target};

pub struct Graph {
    pub csr: Csr,
    pub left_out: LeftOut,
    /// By node: bytes of the object's block and of those it owns, and of its parts. Static objects take none
    /// of the heap.
    sizes: Sizes,
    parts: Parts,
    /// By node, as though nothing were folded: references of objects to it that are certain.
    referred: Vec<u32>,
    /// By node: references that may be.
    referred_maybe: FxHashMap<u32, u32>,
    /// First node that is not a block but a static object, or a type that is like one.
    blocks: u32,
    statics: Vec<(u64, Shape)>,
    /// Blocks that are padded twice: what is too large for pymalloc under the debug allocator.
    twice: Bits,
    /// Blocks that belong to an object in another.
    owned: Bits,
}

/// A reference on its way into the rows.
struct Edge {
    addr: u64,
    strength: Strength,
    /// The object it leads to, if there is one and it is not weak.
    object: Option<u32>,
    /// The node of that object; none within one node.
    to: Option<u32>,
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
        fold: Fold,
    ) -> Option<Result<Graph, TooManyEdges>> {
        let model = inspection.model.as_ref()?;
        let blocks = inspection.blocks.len();
        let owned = inspection.census.owned().filter(|(_, owner)| *owner != NOBODY);
        let mut graph = Graph {
            csr: Csr::empty(),
            left_out: LeftOut::default(),
            sizes: Sizes::default(),
            parts: Parts::default(),
            referred: Vec::new(),
            referred_maybe: FxHashMap::default(),
            blocks,
            statics: statics::find(target, inspection, model),
            twice: padded_twice(target, inspection, model),
            owned: Bits::of(blocks, owned.map(|(block, _)| block)),
        };
        Some(graph.fill(target, inspection, model, fold).map(|()| graph))
    }

    fn fill(
        &mut self,
        target: &Target,
        inspection: &Inspection,
        model: &Model,
        fold: Fold,
    ) -> Result<(), TooManyEdges> {
        let statics = u32::try_from(self.statics.len()).map_err(|_| TooManyEdges)?;
        let nodes = self.blocks.checked_add(statics).filter(|n| *n <= MAX_NODES).ok_or(TooManyEdges)?;
        if fold == Fold::Yes {
            let object = |reader: &mut Reader, node| self.object(inspection, model, reader, node);
            let node = |addr| self.node_of_its_own(inspection, model, addr);
            self.parts = Parts::find(target, inspection, model, nodes, &object, &node);
        }
        // The table of interned strings does not keep them: a string's end takes it out of there.
        let interned = inspection.python.iter().flat_map(|p| p.interned(target).dicts).collect::<Vec<u64>>();
        let of_one =
            |reader: &mut Reader, node: u32, whole: u32, object: &Object, f: &mut dyn FnMut(Edge)| {
                let weak = interned.contains(&object.addr);
                // What was compiled into the interpreter was never counted.
                let frozen = node >= self.blocks
                    && !matches!(object.shape.family, Family::Type | Family::Module)
                    && model.refcount(reader, object.addr) == Ok(RefCount::Immortal);
                refers::references(model, reader, object, &mut |reference| {
                    let strength = match reference.strength {
                        _ if weak => Strength::Weak,
                        Strength::Strong if frozen => Strength::Borrowed,
                        strength => strength,
                    };
                    let object = match strength {
                        Strength::Weak => None,
                        _ => self.node_of_its_own(inspection, model, reference.addr),
                    };
                    let part = object.and_then(|object| self.parts.part(object));
                    let within = part.is_some_and(|part| part.whole == whole);
                    let to = part.map(|part| part.whole).or(object);
                    f(Edge { addr: reference.addr, strength, object, to: to.filter(|_| !within) });
                });
            };
        let referred: Vec<AtomicU32> = (0..nodes).map(|_| AtomicU32::new(0)).collect();
        let fill = |reader: &mut Reader, nodes: Range<u32>, rows: &mut Rows| {
            let (mut left_out, mut maybe) = (LeftOut::default(), Vec::new());
            let mut take = |rows: &mut Rows, edge: Edge| {
                if let Some(to) = edge.to {
                    rows.add(to);
                    if edge.strength == Strength::Maybe {
                        maybe.push(to);
                    }
                }
                match (edge.strength, edge.object) {
                    (Strength::Weak, _) => left_out.weak += 1,
                    (Strength::Strong, Some(object)) => {
                        referred[object as usize].fetch_add(1, Relaxed);
                    }
                    // What a scan takes for a reference may be anything.
                    (Strength::Maybe, _) | (Strength::Borrowed, Some(_)) => {}
                    (_, None) => *left_out.count(target, inspection, edge.addr) += 1,
                }
            };
            self.each_object(inspection, model, reader, nodes, &mut |reader, node, object| {
                if self.parts.part(node).is_none() {
                    if let Some(object) = object {
                        of_one(reader, node, node, &object, &mut |edge| take(rows, edge));
                    }
                    for part in self.parts.of_whole(node) {
                        if let Some(object) = self.object(inspection, model, reader, part.part) {
                            of_one(reader, part.part, node, &object, &mut |edge| take(rows, edge));
                        }
                    }
                }
                rows.end();
            });
            (left_out, maybe)
        };
        let (csr, answers) = Csr::build(nodes, || target.reader(), fill)?;
        // What only looks like a static object is referred to by nobody. It does not say how often others are.
        let mut reader = target.reader();
        for node in self.blocks..nodes {
            let object = self.object(inspection, model, &mut reader, node);
            let is_met = referred[node as usize].load(Relaxed) > 0;
            let Some(object) = object.filter(|object| !is_met && object.shape.family != Family::Type) else {
                continue;
            };
            of_one(&mut reader, node, node, &object, &mut |edge| {
                if let (Strength::Strong, Some(to)) = (edge.strength, edge.object) {
                    referred[to as usize].fetch_sub(1, Relaxed);
                }
            });
        }
        for (left_out, maybe) in answers {
            self.left_out += left_out;
            for to in maybe {
                *self.referred_maybe.entry(to).or_default() += 1;
            }
        }
        self.referred = referred.into_iter().map(AtomicU32::into_inner).collect();
        let mut sizes = Sizes::new(csr.nodes());
        let alone = |id: u32| !self.owned.contains(id) && self.parts.part(id).is_none();
        sizes.set(|nodes| {
            let ids = nodes.start.min(self.blocks)..nodes.end.min(self.blocks);
            let blocks = inspection.blocks.range(ids).filter(|block| alone(block.id));
            blocks.map(|block| (block.id, block.bytes))
        });
        for part in self.parts.iter() {
            sizes.add(part.whole, inspection.blocks.bytes(part.part));
        }
        for (block, owner) in inspection.census.owned().filter(|(_, owner)| *owner != NOBODY) {
            sizes.add(self.parts.whole(owner), inspection.blocks.bytes(block));
        }
        self.sizes = sizes;
        self.csr = csr;
        Ok(())
    }

    /// The node of the object at that very address: of what it is part of, when it is folded.
    #[inline]
    pub fn node(&self, inspection: &Inspection, model: &Model, addr: u64) -> Option<u32> {
        Some(self.parts.whole(self.node_of_its_own(inspection, model, addr)?))
    }

    /// The same, were nothing folded.
    #[inline]
    pub fn node_of_its_own(&self, inspection: &Inspection, model: &Model, addr: u64) -> Option<u32> {
        let Some(block) = inspection.blocks.containing(addr) else { return self.static_node(addr) };
        let Some(id) = inspection.census.mark(block.id).as_object() else { return self.static_node(addr) };
        let presize = u64::from(inspection.census.types.get(id as usize)?.shape.presize);
        // Under the debug allocator every object is padded: where one without a head would be, a head is.
        let before = model.debug.map_or(0, |pad| pad.before) << u32::from(self.twice.contains(block.id));
        (addr - block.start == presize + before).then_some(block.id)
    }

    fn static_node(&self, addr: u64) -> Option<u32> {
        let at = self.statics.binary_search_by_key(&addr, |known| known.0).ok()?;
        Some(self.blocks + at as u32)
    }

    /// How many references of objects lead to an object for certain, those within a node too.
    #[inline]
    pub fn referred(&self, object: u32) -> u32 {
        self.referred.get(object as usize).copied().unwrap_or(0)
    }

    /// And how many may lead there.
    pub fn referred_maybe(&self, object: u32) -> u32 {
        self.referred_maybe.get(&self.parts.whole(object)).copied().unwrap_or(0)
    }

    pub fn nodes(&self) -> u32 {
        self.csr.nodes()
    }

    /// Where static objects begin among the nodes.
    pub fn first_static(&self) -> u32 {
        self.blocks
    }

    /// Bytes of a node's blocks.
    #[inline]
    pub fn size(&self, node: u32) -> u64 {
        self.sizes.of(node)
    }

    /// Does the block belong to an object in another?
    pub fn is_owned(&self, block: u32) -> bool {
        self.owned.contains(block)
    }

    /// The node that a block is counted with: its owner's, or its own.
    pub fn owner(&self, inspection: &Inspection, block: u32) -> u32 {
        let owner = if self.owned.contains(block) { inspection.census.owner(block) } else { None };
        self.parts.whole(owner.unwrap_or(block))
    }

    /// The objects that are folded into a node.
    pub fn parts(&self, node: u32) -> &[Part] {
        self.parts.of_whole(node)
    }

    /// What the object in a block is folded into.
    pub fn part_of(&self, block: u32) -> Option<&Part> {
        self.parts.part(block)
    }

    /// The type of a node's object. Owned blocks and what is folded into others have none.
    pub fn type_of<'i>(&self, inspection: &'i Inspection, node: u32) -> Option<&'i Type> {
        let id = match node.checked_sub(self.blocks) {
            Some(at) => self.statics.get(at as usize)?.1.id,
            None if self.parts.part(node).is_some() => return None,
            None => inspection.census.mark(node).as_object()?,
        };
        inspection.census.types.get(id as usize)
    }

    /// The nodes whose type `f` says yes to, by its place in the census.
    pub fn of_types(&self, inspection: &Inspection, f: impl Fn(usize) -> bool) -> Bits {
        let types = &inspection.census.types;
        let wanted: Vec<bool> = (0..types.len()).map(f).collect();
        let is_wanted = |node: &u32| {
            let ty = self.type_of(inspection, *node);
            ty.is_some_and(|ty| wanted.get(ty.shape.id as usize) == Some(&true))
        };
        Bits::of(self.nodes(), (0..self.nodes()).filter(is_wanted))
    }

    /// Calls `f` with each of the nodes, and with its object if there is one: faster than asking for one after the
    /// other.
    pub(crate) fn each_object(
        &self,
        inspection: &Inspection,
        model: &Model,
        reader: &mut Reader,
        nodes: Range<u32>,
        f: &mut dyn FnMut(&mut Reader, u32, Option<Object>),
    ) {
        for block in inspection.blocks.range(nodes.start..nodes.end.min(self.blocks)) {
            let object = inspection.object_in(model, reader, block).map(|(object, _)| object);
            f(reader, block.id, object);
        }
        for node in nodes.start.max(self.blocks)..nodes.end {
            let object = self.object(inspection, model, reader, node);
            f(reader, node, object);
        }
    }

    /// The object of a node; owned and other blocks have none. Of a block that is folded into another the
    /// object that is in it.
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

impl LeftOut {
    /// Which count a reference to no object is for.
    fn count(&mut self, target: &Target, inspection: &Inspection, addr: u64) -> &mut u64 {
        if inspection.blocks.find(addr).is_some() {
            &mut self.inside
        } else if target.mapping(addr).is_some() {
            &mut self.nowhere
        } else {
            &mut self.unmapped
        }
    }
}

impl std::ops::AddAssign for LeftOut {
    fn add_assign(&mut self, other: LeftOut) {
        self.weak += other.weak;
        self.inside += other.inside;
        self.nowhere += other.nowhere;
        self.unmapped += other.unmapped;
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
