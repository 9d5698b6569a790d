//! Paths to many objects, merged by what their steps are called: the thousand items of a list are one step,
//! and so are the million links of a chain.

use crate::graph::Merged;
use crate::held::Held;
use rustc_hash::{FxHashMap, FxHashSet};
use wmr_cpython::refers::{Label, Name, Via};
use wmr_memory::Reader;

/// A step of paths that are called alike up to here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trail {
    /// Place of the step before, none of a root.
    pub parent: Option<usize>,
    pub depth: usize,
    /// One of the objects at this step, the first.
    pub node: u32,
    /// How it is referred to; none of a root.
    pub label: Option<Label>,
    /// All objects here are referred to so; else by indices or keys of their own.
    pub same_name: bool,
    /// How many objects are at this step.
    pub nodes: u64,
    /// They refer to each other in that way, link by link.
    pub is_chain: bool,
    /// How many of the objects asked for lie here or beyond, and their bytes.
    pub count: u64,
    pub bytes: u64,
    /// Of those the ones at this very step: the first, how many, their bytes.
    pub here: Option<(u32, u64, u64)>,
    /// What is left of a step that has more steps behind it than are shown.
    pub is_rest: bool,
}

/// Trails behind one that are told apart.
const WIDTH: usize = 20;
/// Roots that are told apart.
const ROOTS: usize = 200;
/// Names that are told apart: above, they are keys of data.
const NAMES: usize = 8;
/// Links of a chain that are looked at: behind them what has the same type is taken to be linked alike.
const LINKS: usize = 64;
const DEEPEST: usize = 64;
/// More than anybody reads, and bounded.
const MOST: usize = 10_000;

/// Steps of the merged paths that are called alike.
struct Todo {
    steps: Vec<u32>,
    parent: Option<usize>,
    depth: usize,
    key: Key,
    label: Option<Label>,
    is_rest: bool,
}

/// What makes steps alike: type, sort of reference, and the name where that is the same.
type Key = (u32, Option<Via>, Option<Name>);

/// The trails of merged paths, each after the one before it: what people ask for first comes first, then
/// what most objects lie beyond.
pub fn trails(held: &Held, merged: &Merged) -> Vec<Trail> {
    let walk = Walk { held, merged, below: Below::of(merged) };
    let mut reader = held.target.reader();
    let mut out: Vec<Trail> = Vec::new();
    let mut todo = walk.roots();
    while let Some(mut next) = todo.pop().filter(|_| out.len() < MOST) {
        let at = out.len();
        let sum = |figure: fn(&crate::graph::Step) -> u64| {
            next.steps.iter().map(|&step| figure(&merged.steps[step as usize])).sum()
        };
        let mut trail = Trail {
            parent: next.parent,
            depth: next.depth,
            node: merged.steps[next.steps[0] as usize].node,
            label: next.label.take(),
            same_name: next.key.2.is_some() || next.steps.len() == 1,
            nodes: 0,
            is_chain: false,
            count: sum(|step| step.count),
            bytes: sum(|step| step.bytes),
            here: None,
            is_rest: next.is_rest,
        };
        let behind = walk.follow(&mut reader, &next, &mut trail);
        // One step may be called by its own index or key; the links behind it have others.
        trail.same_name &= !trail.is_chain || next.key.2.is_some();
        out.push(trail);
        if !next.is_rest && next.depth < DEEPEST {
            todo.extend(walk.grouped(behind, at, next.depth + 1));
        }
    }
    out
}

/// The steps behind each step.
struct Below {
    first: Vec<u32>,
    steps: Vec<u32>,
}

impl Below {
    fn of(merged: &Merged) -> Below {
        let mut first = vec![0u32; merged.steps.len() + 1];
        let parents = || (0u32..).zip(&merged.steps).filter_map(|(at, step)| Some((at, step.parent?)));
        parents().for_each(|(_, parent)| first[parent as usize + 1] += 1);
        for at in 1..first.len() {
            first[at] += first[at - 1];
        }
        let mut next = first.clone();
        let mut steps = vec![0; first.last().copied().unwrap_or(0) as usize];
        for (at, parent) in parents() {
            steps[next[parent as usize] as usize] = at;
            next[parent as usize] += 1;
        }
        Below { first, steps }
    }

    fn on(&self, step: u32) -> &[u32] {
        &self.steps[self.first[step as usize] as usize..self.first[step as usize + 1] as usize]
    }
}

struct Walk<'w, 't> {
    held: &'w Held<'t>,
    merged: &'w Merged,
    below: Below,
}

impl Walk<'_, '_> {
    fn node(&self, step: u32) -> u32 {
        self.merged.steps[step as usize].node
    }

    fn type_id(&self, step: u32) -> u32 {
        self.held.type_of(self.node(step)).map_or(u32::MAX, |ty| ty.shape.id)
    }

    fn count(&self, steps: &[u32]) -> u64 {
        steps.iter().map(|&step| self.merged.steps[step as usize].count).sum()
    }

    /// One trail a root; the first is last.
    fn roots(&self) -> Vec<Todo> {
        let roots = (0u32..).zip(&self.merged.steps).filter(|(_, step)| step.parent.is_none());
        let mut roots: Vec<u32> = roots.map(|(at, _)| at).collect();
        let group = |step: u32| self.held.root(self.node(step)).map_or(usize::MAX, |r| r.holder.group());
        roots.sort_by_key(|&step| (group(step), std::cmp::Reverse(self.count(&[step])), step));
        let rest = roots.split_off(roots.len().min(ROOTS));
        let trail = |steps: Vec<u32>, is_rest| {
            let key = (self.type_id(steps[0]), None, None);
            Todo { steps, parent: None, depth: 0, key, label: None, is_rest }
        };
        let rest = (!rest.is_empty()).then(|| trail(rest, true));
        rest.into_iter().chain(roots.into_iter().rev().map(|step| trail(vec![step], false))).collect()
    }

    /// Counts what is at a trail, chains included, and gives what comes behind.
    fn follow(&self, reader: &mut Reader, todo: &Todo, trail: &mut Trail) -> Vec<(u32, Option<Label>)> {
        let mut behind = Vec::new();
        let mut wave = todo.steps.clone();
        for links in 0.. {
            let mut linked = Vec::new();
            for &step in &wave {
                let here = self.merged.steps[step as usize];
                trail.nodes += 1;
                if here.wanted {
                    let (_, count, bytes) = trail.here.get_or_insert((here.node, 0, 0));
                    *count += 1;
                    *bytes = bytes.saturating_add(self.held.graph.size(here.node));
                }
                if todo.is_rest {
                    continue;
                }
                let below = self.below.on(step);
                if links >= LINKS && below.iter().all(|step| self.type_id(*step) == todo.key.0) {
                    linked.extend_from_slice(below);
                    continue;
                }
                let nodes: Vec<u32> = below.iter().map(|step| self.node(*step)).collect();
                let labels = self.held.labels(reader, here.node, &nodes);
                for (&step, label) in below.iter().zip(labels) {
                    match is_link(&todo.key, self.type_id(step), label.as_ref()) {
                        true => linked.push(step),
                        false => behind.push((step, label)),
                    }
                }
            }
            if linked.is_empty() {
                break;
            }
            trail.is_chain = true;
            wave = linked;
        }
        behind
    }

    /// Trails behind one, the first last.
    fn grouped(&self, behind: Vec<(u32, Option<Label>)>, parent: usize, depth: usize) -> Vec<Todo> {
        let sort = |step: u32, label: &Option<Label>| (self.type_id(step), label.as_ref().map(|l| l.via));
        let mut names: FxHashMap<_, FxHashSet<&Name>> = FxHashMap::default();
        for (step, label) in &behind {
            let names = names.entry(sort(*step, label)).or_default();
            if names.len() <= NAMES {
                names.extend(label.as_ref().map(|label| &label.name));
            }
        }
        let many: FxHashSet<(u32, Option<Via>)> =
            names.into_iter().filter(|(_, names)| names.len() > NAMES).map(|(sort, _)| sort).collect();
        let mut groups: FxHashMap<Key, Todo> = FxHashMap::default();
        for (step, label) in behind {
            let (ty, via) = sort(step, &label);
            let merged = via.is_none_or(is_numbered) || many.contains(&(ty, via));
            let name = label.as_ref().map(|label| label.name.clone()).filter(|_| !merged);
            let key = (ty, via, name);
            let empty =
                |key| Todo { steps: Vec::new(), parent: Some(parent), depth, key, label, is_rest: false };
            groups.entry(key.clone()).or_insert_with(|| empty(key)).steps.push(step);
        }
        let mut groups: Vec<Todo> = groups.into_values().collect();
        groups.sort_by_key(|todo| (std::cmp::Reverse(self.count(&todo.steps)), todo.steps[0]));
        let rest = groups.split_off(groups.len().min(WIDTH));
        let steps: Vec<u32> = rest.into_iter().flat_map(|todo| todo.steps).collect();
        let rest = (!steps.is_empty()).then_some(Todo {
            steps,
            parent: Some(parent),
            depth,
            key: (u32::MAX, None, None),
            label: None,
            is_rest: true,
        });
        rest.into_iter().chain(groups.into_iter().rev()).collect()
    }
}

/// Places in a row: which one, makes no difference.
fn is_numbered(via: Via) -> bool {
    matches!(via, Via::Index | Via::Stack | Via::Element | Via::Order)
}

/// Is a step called as the one before it?
fn is_link(key: &Key, ty: u32, label: Option<&Label>) -> bool {
    let Some((via, label)) = key.1.zip(label) else { return false };
    let same = is_numbered(via) || key.2.as_ref().is_none_or(|name| *name == label.name);
    key.0 == ty && via == label.via && same
}
