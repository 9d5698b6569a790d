//! Who holds what: the graph of a target, what begins it, and what both are called. All questions about
//! references, paths and retained sizes are asked of this.

use crate::counts::Count;
use crate::graph::{Bits, Dominators, Fold, Graph, Reach, TooManyEdges, chunks};
use crate::inspect::Inspection;
use crate::roots::{self, Outside, Root};
use rayon::prelude::*;
use rustc_hash::FxHashMap;
use wmr_cpython::model::{Model, RefCount};
use wmr_cpython::object::Object;
use wmr_cpython::refers::{self, At, Label, Reference, Strength};
use wmr_cpython::types::Type;
use wmr_memory::{Reader, Target};

pub struct Held<'t> {
    pub target: &'t Target,
    pub inspection: &'t Inspection,
    pub graph: Graph,
    /// One a node.
    pub roots: Vec<Root>,
    outside: FxHashMap<u32, Outside>,
    model: &'t Model,
    /// By node: place among the roots.
    by_node: FxHashMap<u32, u32>,
}

/// One reference, as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The object at the other end, as it is in memory: it may be folded into `node`.
    pub addr: u64,
    /// None of what is no object.
    pub node: Option<u32>,
    pub label: Label,
    pub strength: Strength,
}

impl<'t> Held<'t> {
    /// `None` without an interpreter.
    ///
    /// # Errors
    /// More objects or references than can be numbered.
    pub fn find(
        target: &'t Target,
        inspection: &'t Inspection,
        fold: Fold,
    ) -> Option<Result<Held<'t>, TooManyEdges>> {
        let model = inspection.model.as_ref()?;
        let graph = match Graph::build(target, inspection, fold)? {
            Ok(graph) => graph,
            Err(error) => return Some(Err(error)),
        };
        let roots::Roots { list, outside } = roots::find(target, inspection, &graph);
        let by_node = list.iter().zip(0..).map(|(root, at)| (root.node, at)).collect();
        Some(Ok(Held { target, inspection, graph, roots: list, outside, model, by_node }))
    }

    /// The nearest way to everything, as [`roots::reach`] prefers it.
    pub fn reach(&self) -> Reach {
        roots::reach(&self.graph, &self.roots)
    }

    pub fn root_nodes(&self) -> Vec<u32> {
        self.roots.iter().map(|root| root.node).collect()
    }

    pub fn dominators(&self) -> Dominators {
        Dominators::of(&self.graph.csr, &self.root_nodes())
    }

    /// What would be freed with each node.
    pub fn retained(&self, dominators: &Dominators) -> Vec<u64> {
        dominators.retained(|node| self.graph.size(node))
    }

    /// What holds a node from outside the graph.
    pub fn root(&self, node: u32) -> Option<&Root> {
        self.roots.get(*self.by_node.get(&node)? as usize)
    }

    /// As a person would name it; empty of what is no root. Text of the target is not escaped.
    pub fn root_name(&self, node: u32) -> String {
        let root = self.root(node);
        root.map_or_else(String::new, |root| root.holder.name(self.target, self.inspection))
    }

    /// What `f` answers of objects, those that are folded into others too, in parallel and in the order of their
    /// nodes. `state` makes what each thread needs to answer.
    pub fn of_objects<S, T: Send>(
        &self,
        state: impl Fn() -> S + Sync,
        f: impl Fn(&mut S, &mut Reader, u32, &Object) -> Option<T> + Sync,
    ) -> Vec<T> {
        let found = chunks(self.graph.nodes()).map_init(
            || (state(), self.target.reader()),
            |(state, reader), nodes| {
                let mut found = Vec::new();
                self.graph.each_object(
                    self.inspection,
                    self.model,
                    reader,
                    nodes,
                    &mut |reader, node, object| {
                        found.extend(object.and_then(|object| f(state, reader, node, &object)));
                    },
                );
                found
            },
        );
        found.collect::<Vec<Vec<T>>>().into_iter().flatten().collect()
    }

    /// How often an object says that it is referred to, and how often it was found to be. `None` of what is
    /// no object, or never freed.
    pub fn count(&self, reader: &mut Reader, object: u32) -> Option<Count> {
        let addr = self.object(reader, object)?.addr;
        self.count_at(reader, object, addr)
    }

    /// The same for whoever knows where the object is.
    pub(crate) fn count_at(&self, reader: &mut Reader, object: u32, addr: u64) -> Option<Count> {
        let RefCount::Count(said) = self.model.refcount(reader, addr).ok()? else { return None };
        let outside = self.outside.get(&object);
        let count = Count {
            said,
            own: u64::from(object >= self.graph.first_static()),
            found: u64::from(self.graph.referred(object)),
            maybe: u64::from(self.graph.referred_maybe(object)),
            outside: outside.map_or(0, |outside| u64::from(outside.words)),
        };
        // Words of an image that only look like an object are referred to by nobody.
        Some(count).filter(|count| count.own == 0 || count.found + count.maybe + count.outside > 0)
    }

    /// Words outside of objects that may be references to an object that has more than objects account for.
    pub fn outside(&self, object: u32) -> Option<&Outside> {
        self.outside.get(&object)
    }

    /// The object of a node.
    pub fn object(&self, reader: &mut Reader, node: u32) -> Option<Object> {
        self.graph.object(self.inspection, self.model, reader, node)
    }

    /// Where a node's object is.
    pub fn addr(&self, reader: &mut Reader, node: u32) -> Option<u64> {
        Some(self.object(reader, node)?.addr)
    }

    /// None of owned blocks and of what is folded into other nodes.
    pub fn type_of(&self, node: u32) -> Option<&'t Type> {
        self.graph.type_of(self.inspection, node)
    }

    pub fn type_name(&self, node: u32) -> &'t str {
        self.type_of(node).map_or("?", |ty| ty.name.as_str())
    }

    /// The node that people mean by an address: of the object at it, or around it.
    pub fn node_at(&self, addr: u64) -> Option<u32> {
        let exact = self.graph.node(self.inspection, self.model, addr);
        exact.or_else(|| {
            let owner = self.graph.owner(self.inspection, self.inspection.blocks.find(addr)?);
            self.inspection.census.mark(owner).as_object().map(|_| owner)
        })
    }

    /// How `from` refers to `to`. Of several references the first counts, those that are certain before others.
    pub fn label(&self, reader: &mut Reader, from: u32, to: u32) -> Option<Label> {
        self.labels(reader, from, &[to]).pop().flatten()
    }

    /// How `from` refers to each of the others, in one look at what it refers to.
    pub fn labels(&self, reader: &mut Reader, from: u32, to: &[u32]) -> Vec<Option<Label>> {
        let mut wanted: FxHashMap<u64, usize> = FxHashMap::default();
        for (at, node) in to.iter().enumerate() {
            let parts = self.graph.parts(*node).iter().map(|part| part.part);
            for object in std::iter::once(*node).chain(parts) {
                wanted.extend(self.object(reader, object).map(|object| (object.addr, at)));
            }
        }
        let mut found: Vec<Option<(Object, Reference, &str)>> = vec![None; to.len()];
        let mut missing = to.len();
        self.each_reference(reader, from, &mut |object, reference, within| {
            let Some(at) = wanted.get(&reference.addr).copied() else { return missing > 0 };
            let better = match &found[at] {
                _ if reference.strength == Strength::Weak => false,
                None => true,
                Some((_, before, _)) => before.strength > reference.strength,
            };
            if better {
                missing -= usize::from(reference.strength == Strength::Strong);
                found[at] = Some((*object, reference, within));
            }
            missing > 0
        });
        let mut label = |(object, reference, within): (Object, Reference, &'static str)| {
            self.called(reader, &object, &reference, within)
        };
        found.into_iter().map(|found| found.map(&mut label)).collect()
    }

    /// What a node refers to, each as often as it does, until `f` says no.
    pub fn links(&self, node: u32, f: &mut dyn FnMut(Link) -> bool) {
        let mut labels = self.target.reader();
        self.each_reference(&mut self.target.reader(), node, &mut |object, reference, within| {
            let label = self.called(&mut labels, object, &reference, within);
            let to = self.graph.node(self.inspection, self.model, reference.addr);
            f(Link { addr: reference.addr, node: to, label, strength: reference.strength })
        });
    }

    /// Nodes that refer to one without keeping it alive, each with how.
    pub fn weak_referrers(&self, node: u32) -> Vec<(u32, Label)> {
        let types = &self.inspection.census.types;
        let weak: Vec<bool> = types.iter().map(|ty| refers::may_be_weak(self.model, &ty.shape)).collect();
        let candidates = self.graph.of_types(self.inspection, |ty| weak[ty]);
        let (mut reader, mut labels) = (self.target.reader(), self.target.reader());
        let mut found = Vec::new();
        for from in candidates.iter() {
            self.each_reference(&mut reader, from, &mut |object, reference, within| {
                if reference.strength == Strength::Weak
                    && self.graph.node(self.inspection, self.model, reference.addr) == Some(node)
                {
                    found.push((from, self.called(&mut labels, object, &reference, within)));
                }
                true
            });
        }
        found
    }

    /// Nodes that refer to these, as (from, to).
    pub fn referrers(&self, of: &Bits) -> Vec<(u32, u32)> {
        self.graph.csr.referrers(of)
    }

    /// The references of a node and its parts, but those that hold it together, until `f` says no. It is told
    /// the object that has the reference, and what part of the node that is: none when it is the node's own.
    fn each_reference(
        &self,
        reader: &mut Reader,
        node: u32,
        f: &mut dyn FnMut(&Object, Reference, &'static str) -> bool,
    ) {
        let parts = self.graph.parts(node);
        let objects = std::iter::once((node, "")).chain(parts.iter().map(|part| (part.part, part.name)));
        let mut go_on = true;
        let mut inner = Vec::new();
        for part in parts {
            inner.extend(self.object(reader, part.part).map(|object| object.addr));
        }
        for (block, within) in objects {
            let Some(object) = self.object(reader, block) else { continue };
            refers::references(self.model, reader, &object, &mut |reference| {
                if go_on && !inner.contains(&reference.addr) {
                    go_on = f(&object, reference, within);
                }
            });
        }
    }

    fn called(&self, reader: &mut Reader, object: &Object, reference: &Reference, within: &str) -> Label {
        let label = refers::label(self.model, reader, object, reference);
        match (within, reference.at) {
            ("", _) => label,
            ("__closure__", At::Item(index)) => self.variable(reader, object, index).unwrap_or(label),
            _ => label.within(within),
        }
    }

    /// The variable that item `index` of a function's closure stands for.
    fn variable(&self, reader: &mut Reader, closure: &Object, index: u64) -> Option<Label> {
        let block = self.graph.node_of_its_own(self.inspection, self.model, closure.addr)?;
        let function = self.object(reader, self.graph.part_of(block)?.whole)?;
        refers::closure_label(self.model, reader, function.addr, index)
    }
}
