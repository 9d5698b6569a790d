//! Objects by the way that leads to them, without addresses: the same leak is on the same route in every
//! process, and in every snapshot of one.
//!
//! A route is a root's name, and step by step how each object refers to the next and of what type that is.
//! Items of containers are all alike, attributes have their names. Of an object that is part of a chain of its
//! like (a linked list, a tree) the first one's route is that of all. Each object is on one route, that of the
//! nearest way to it, so that sums add up.

use crate::graph::{ROOT, Reach};
use crate::held::Held;
use crate::roots::Holder;
use rustc_hash::{FxHashMap, FxHasher};
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use wmr_cpython::family::Family;
use wmr_cpython::model::Model;
use wmr_cpython::object::Object;
use wmr_cpython::refers::{self, At, Reference, Strength};
use wmr_memory::Reader;

/// Place in the list of routes.
pub type RouteId = u32;
/// In place of a route: the node is not reached.
pub const NOWHERE: RouteId = u32::MAX;
/// In place of a type.
const NO_TYPE: u32 = u32::MAX;

/// Routes that are told apart. What lies deeper or is more diverse counts with what it hangs on.
const MOST: usize = 1 << 20;
const DEEPEST: u32 = 64;
/// Chains may go through so many objects of other types: node, dict, list, node.
const CHAIN: usize = 3;

/// How the first object of a route is referred to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// It is a root.
    Root,
    /// Item, value or element of a container.
    Item,
    Key,
    /// An attribute, a variable, a field; its text is asked of the first object.
    Named,
}

#[derive(Debug, Clone)]
pub struct Route {
    pub parent: Option<RouteId>,
    /// The same in every process, as far as names are.
    pub id: u64,
    /// Index in the census; [`None`] of what is no object.
    pub ty: Option<u32>,
    pub step: Step,
    pub depth: u32,
    /// The first node on it.
    pub first: u32,
    /// Objects on it, and their bytes.
    pub count: u64,
    pub bytes: u64,
    /// Those beyond included.
    pub all_count: u64,
    pub all_bytes: u64,
    /// Some of its objects hang on others of it.
    pub chain: bool,
}

#[derive(Default)]
pub struct Routes {
    /// Each after its parent.
    pub list: Vec<Route>,
    /// By node.
    of: Vec<RouteId>,
}

const UNKNOWN: u32 = 0;
const ITEM: u32 = 1;
const KEY: u32 = 2;
/// From here on: hashes of names.
const NAMED: u32 = 3;

impl Routes {
    pub fn find(held: &Held, reach: &Reach) -> Routes {
        let codes = codes(held, reach);
        let types = &held.inspection.census.types;
        let chains: Vec<bool> = types.iter().map(|ty| may_chain(ty.shape.family, &ty.name)).collect();
        let names: Vec<u64> = types.iter().map(|ty| hash(&ty.name)).collect();
        let mut known: FxHashMap<(RouteId, u32, u32), RouteId> = FxHashMap::default();
        let mut routes = Routes { list: Vec::new(), of: vec![NOWHERE; reach.parent.len()] };
        for &node in &reach.order {
            let ty = held.type_of(node).map_or(NO_TYPE, |ty| ty.shape.id);
            let size = held.graph.size(node);
            let before = reach.parent[node as usize];
            let (parent, code) = match before {
                ROOT => (NOWHERE, root_code(held, node)),
                before => (routes.of[before as usize], codes[node as usize].load(Relaxed)),
            };
            let id = routes.chained(parent, ty, &chains).unwrap_or_else(|| {
                let full = routes.list.len() >= MOST;
                let depth = routes.list.get(parent as usize).map_or(0, |route| route.depth + 1);
                if parent != NOWHERE && (full || depth > DEEPEST) {
                    return parent;
                }
                *known.entry((parent, code, ty)).or_insert_with(|| {
                    let above = routes.list.get(parent as usize).map_or(0, |route| route.id);
                    let name = names.get(ty as usize).copied().unwrap_or(0);
                    routes.list.push(Route {
                        parent: Some(parent).filter(|parent| *parent != NOWHERE),
                        id: hash(&(above, code, name)),
                        ty: Some(ty).filter(|ty| *ty != NO_TYPE),
                        step: match (before, code) {
                            (ROOT, _) => Step::Root,
                            (_, ITEM) => Step::Item,
                            (_, KEY) => Step::Key,
                            _ => Step::Named,
                        },
                        depth,
                        first: node,
                        count: 0,
                        bytes: 0,
                        all_count: 0,
                        all_bytes: 0,
                        chain: false,
                    });
                    routes.list.len() as RouteId - 1
                })
            });
            routes.of[node as usize] = id;
            let route = &mut routes.list[id as usize];
            route.count += 1;
            route.bytes += size;
        }
        routes.sum_up();
        routes
    }

    /// The route above that an object of the type continues.
    fn chained(&mut self, parent: RouteId, ty: u32, chains: &[bool]) -> Option<RouteId> {
        if !chains.get(ty as usize).is_some_and(|may| *may) {
            return None;
        }
        let mut at = parent;
        for _ in 0..CHAIN {
            let route = self.list.get_mut(at as usize)?;
            if route.ty == Some(ty) {
                route.chain = true;
                return Some(at);
            }
            at = route.parent?;
        }
        None
    }

    fn sum_up(&mut self) {
        for route in &mut self.list {
            (route.all_count, route.all_bytes) = (route.count, route.bytes);
        }
        for at in (0..self.list.len()).rev() {
            let (count, bytes) = (self.list[at].all_count, self.list[at].all_bytes);
            if let Some(parent) = self.list[at].parent {
                let above = &mut self.list[parent as usize];
                above.all_count += count;
                above.all_bytes += bytes;
            }
        }
    }

    pub fn of(&self, node: u32) -> Option<RouteId> {
        self.of.get(node as usize).copied().filter(|id| *id != NOWHERE)
    }

    /// The nodes of some routes, ascending, at most so many of each.
    pub fn nodes_of(&self, wanted: &[RouteId], most: usize) -> FxHashMap<RouteId, Vec<u32>> {
        let mut found: FxHashMap<RouteId, Vec<u32>> =
            wanted.iter().map(|route| (*route, Vec::new())).collect();
        for (node, route) in (0u32..).zip(&self.of) {
            if let Some(list) = found.get_mut(route)
                && list.len() < most
            {
                list.push(node);
            }
        }
        found
    }

    /// All nodes that are on a route.
    pub fn placed(&self) -> impl Iterator<Item = (u32, RouteId)> + '_ {
        (0u32..).zip(self.of.iter().copied()).filter(|(_, route)| *route != NOWHERE)
    }
}

fn hash(of: &impl Hash) -> u64 {
    let mut hasher = FxHasher::default();
    of.hash(&mut hasher);
    hasher.finish()
}

fn named(of: &impl Hash) -> u32 {
    (hash(of) >> 32) as u32 | NAMED
}

/// Namespaces and containers hold their like without being one thing with them.
fn may_chain(family: Family, name: &str) -> bool {
    let plain = matches!(family, Family::Plain | Family::Frame | Family::Element);
    plain && !matches!(name, "function" | "method" | "instancemethod" | "cell" | "builtin_function_or_method")
}

/// Roots that are told apart by what they are in, not by where.
fn root_code(held: &Held, node: u32) -> u32 {
    match held.root(node).map(|root| &root.holder) {
        Some(Holder::Module { name, interpreter }) => named(&(name, interpreter)),
        Some(Holder::Global { image, .. }) => {
            let path = held.target.images.get(*image).map(|image| &image.path[..]).unwrap_or_default();
            named(&path.rsplit(|byte| *byte == b'/').next())
        }
        Some(holder) => named(&holder.group()),
        None => NAMED,
    }
}

/// By node: how the node before it on the nearest way refers to it.
fn codes(held: &Held, reach: &Reach) -> Vec<AtomicU32> {
    let codes: Vec<AtomicU32> = reach.parent.iter().map(|_| AtomicU32::new(UNKNOWN)).collect();
    let Some(model) = &held.inspection.model else { return codes };
    let coder = || Coder { held, model, reach, codes: &codes, names: FxHashMap::default() };
    held.of_objects::<_, ()>(
        || (coder(), held.target.reader()),
        |(coder, labels), reader, node, object| {
            coder.node(reader, labels, node, object);
            None
        },
    );
    codes
}

struct Coder<'a> {
    held: &'a Held<'a>,
    model: &'a Model,
    reach: &'a Reach,
    codes: &'a [AtomicU32],
    /// By type and position: names that its instances share.
    names: FxHashMap<(u32, u32), u32>,
}

impl Coder<'_> {
    fn node(&mut self, reader: &mut Reader, labels: &mut Reader, node: u32, object: &Object) {
        let graph = &self.held.graph;
        // What cannot be reached is nobody's parent.
        let row = graph.csr.row(node);
        let is_child = |to: u32| self.reach.parent.get(to as usize) == Some(&node);
        let Some(ty) = self.held.type_of(node).filter(|_| row.iter().any(|to| is_child(*to))) else { return };
        let items = matches!(ty.shape.family, Family::List | Family::Tuple | Family::Set | Family::Deque);
        if ty.shape.exact && items {
            for to in row.iter().filter(|to| is_child(**to)) {
                self.codes[*to as usize].store(ITEM, Relaxed);
            }
            return;
        }
        self.references(reader, labels, node, object, "");
        for part in graph.parts(node) {
            if let Some(object) = self.held.object(reader, part.part) {
                self.references(reader, labels, node, &object, part.name);
            }
        }
    }

    /// Of an object that is `within` a node, or the node's own.
    fn references(
        &mut self,
        reader: &mut Reader,
        labels: &mut Reader,
        node: u32,
        object: &Object,
        within: &str,
    ) {
        let graph = &self.held.graph;
        refers::references(self.model, reader, object, &mut |reference| {
            if reference.strength == Strength::Weak {
                return;
            }
            let Some(to) = graph.node(self.held.inspection, self.model, reference.addr) else { return };
            let Some(code) = self.codes.get(to as usize) else { return };
            if self.reach.parent[to as usize] == node && code.load(Relaxed) == UNKNOWN {
                let names = &mut self.names;
                code.store(code_of(self.model, names, labels, object, &reference, within), Relaxed);
            }
        });
    }
}

fn code_of(
    model: &Model,
    names: &mut FxHashMap<(u32, u32), u32>,
    labels: &mut Reader,
    object: &Object,
    reference: &Reference,
    within: &str,
) -> u32 {
    let mut text = || named(&refers::label(model, labels, object, reference).within("__dict__").to_string());
    match (within, reference.at) {
        ("__dict__", At::Value(_)) => text(),
        (_, At::Key(_) | At::Order(_)) => KEY,
        ("", At::Item(_) | At::Value(_) | At::Paired(_) | At::Element(_)) => ITEM,
        ("", At::Attribute(i)) => *names.entry((object.shape.id, i)).or_insert_with(text),
        ("", At::Stack(_)) => named(&"stack"),
        ("", At::Field(name)) => named(&name),
        (_, at) => named(&(within, at)),
    }
}
