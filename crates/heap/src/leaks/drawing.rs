//! The smallest cycle in a component, with the names by which each object refers to the next.

use crate::Inspection;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::VecDeque;
use wmr_cpython::model::Model;
use wmr_cpython::object::Object;
use wmr_cpython::refers::{self, At, Label, Reference, Strength, Via};
use wmr_cpython::strings::read_text;
use wmr_memory::{Reader, Target};

/// One object of a cycle. Text of the target is not escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub addr: u64,
    /// Index of its type in the census.
    pub ty: u32,
    /// How it refers to the next one, the last to the first: `.peer`, `[0]`.
    pub label: String,
    /// Of functions, generators and the like what they are called.
    pub name: Option<String>,
}

/// Fields that an object's name is in, the best first.
const NAMES: [&str; 2] = ["__qualname__", "__name__"];
/// Characters of a name.
const LONGEST: usize = 200;
/// Objects that cycles are tried from.
const STARTS: usize = 4;
/// Objects that are looked at from each.
const MOST: usize = 256;

/// Empty where none was found in the part that is looked at.
pub(super) fn smallest(
    target: &Target,
    inspection: &Inspection,
    component: &[u32],
    folded: &FxHashSet<u32>,
) -> Vec<Step> {
    let Some(model) = &inspection.model else { return Vec::new() };
    let mut drawing = Drawing { target, inspection, model, component, folded, reader: target.reader() };
    let is_object = |id: &&u32| inspection.census.mark(**id).as_object().is_some() && !folded.contains(id);
    let mut best: Vec<Step> = Vec::new();
    for &start in component.iter().filter(is_object).take(STARTS) {
        let found = drawing.from(start);
        if !found.is_empty() && (best.is_empty() || found.len() < best.len()) {
            best = found;
        }
    }
    if best.is_empty() {
        // No cycle: what is there is shown by itself.
        let first = component.iter().find(is_object);
        best.extend(first.and_then(|&id| drawing.step(id, String::new())));
    }
    best
}

struct Drawing<'a> {
    target: &'a Target,
    inspection: &'a Inspection,
    model: &'a Model,
    component: &'a [u32],
    folded: &'a FxHashSet<u32>,
    reader: Reader<'a>,
}

impl Drawing<'_> {
    fn step(&mut self, id: u32, label: String) -> Option<Step> {
        let object = self.inspection.object(self.target, id)?;
        let name = self.name(&object);
        Some(Step { addr: object.addr, ty: object.shape.id, label, name })
    }

    fn name(&mut self, object: &Object) -> Option<String> {
        let mut found: Option<(usize, u64)> = None;
        refers::references(self.model, &mut self.reader, object, &mut |reference| {
            let At::Field(field) = reference.at else { return };
            let rank = NAMES.iter().position(|name| *name == field);
            found = found.into_iter().chain(rank.map(|rank| (rank, reference.addr))).min();
        });
        read_text(self.model, &mut self.reader, found?.1, LONGEST)
    }

    /// The shortest way from an object back to itself.
    fn from(&mut self, start: u32) -> Vec<Step> {
        // By object: from where it was come to first, and by what name.
        let mut before: FxHashMap<u32, (u32, String)> = FxHashMap::default();
        let mut todo = VecDeque::from([start]);
        while let Some(id) = todo.pop_front() {
            for (to, label) in self.edges(id) {
                if to == start {
                    return self.way(&before, start, id, label);
                }
                if before.len() < MOST && !before.contains_key(&to) {
                    before.insert(to, (id, label));
                    todo.push_back(to);
                }
            }
        }
        Vec::new()
    }

    fn way(
        &mut self,
        before: &FxHashMap<u32, (u32, String)>,
        start: u32,
        last: u32,
        label: String,
    ) -> Vec<Step> {
        let mut steps = vec![(last, label)];
        let mut at = last;
        while at != start {
            let Some((from, label)) = before.get(&at) else { break };
            steps.push((*from, label.clone()));
            at = *from;
        }
        steps.reverse();
        steps.into_iter().filter_map(|(id, label)| self.step(id, label)).collect()
    }

    /// The members that one refers to, through its namespace as if that were itself.
    fn edges(&mut self, id: u32) -> Vec<(u32, String)> {
        let Some(object) = self.inspection.object(self.target, id) else { return Vec::new() };
        let mut out = Vec::new();
        for (to, reference) in self.references(&object) {
            if !self.folded.contains(&to) {
                let label = refers::label(self.model, &mut self.reader, &object, &reference);
                out.push((to, written(&label)));
                continue;
            }
            let Some(dict) = self.inspection.object(self.target, to) else { continue };
            for (to, reference) in self.references(&dict) {
                let label = refers::label(self.model, &mut self.reader, &dict, &reference);
                out.push((to, written(&label.within("__dict__"))));
            }
        }
        out
    }

    fn references(&mut self, object: &Object) -> Vec<(u32, Reference)> {
        let mut out = Vec::new();
        refers::references(self.model, &mut self.reader, object, &mut |reference| {
            if reference.strength != Strength::Weak
                && out.len() < MOST
                && let Some(block) = self.inspection.blocks.containing(reference.addr)
                && self.component.binary_search(&block.id).is_ok()
            {
                out.push((block.id, reference));
            }
        });
        out
    }
}

/// As in a program: a slot is an attribute, too.
fn written(label: &Label) -> String {
    if label.via == Via::Slot { format!(".{}", label.name) } else { label.to_string() }
}
