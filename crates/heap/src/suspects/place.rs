//! Where something is, as a person would write it, and as it is the same in every process.

use super::view::View;
use crate::graph::{Dominators, ROOT, Reach};
use crate::held::Held;
use crate::roots::{Holder, frames};
use crate::routes::{RouteId, Routes, Step};
use wmr_cpython::refers::{Label, Name, Via};

/// Steps to a single object that are written down.
const DEEPEST: usize = 32;

/// The way from a root to a route. Text of the target is not escaped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// `leaky.EVENTS`.
    pub name: String,
    /// The root, then each step as it is written: `module leaky`, `.EVENTS`.
    pub steps: Vec<String>,
    /// Root, labels and types, items alike: what a signature is made of.
    pub key: String,
    /// Names of attributes and variables on the way, with the node that has each.
    pub names: Vec<(u32, String)>,
    /// The nodes on the way to the first one.
    pub nodes: Vec<u32>,
}

impl Place {
    pub fn of(view: &View, routes: &Routes, route: RouteId) -> Place {
        let Some(first) = routes.list.get(route as usize).map(|route| route.first) else {
            return Place::default();
        };
        // Of what is many, no single one is meant.
        let many =
            |node| routes.of(node).and_then(|id| routes.list.get(id as usize)).is_some_and(|r| r.count > 1);
        Place::along(view.held, view.reach.path(first), many)
    }

    /// What hangs on no object.
    pub fn of_root(name: &str) -> Place {
        Place {
            name: name.to_owned(),
            steps: vec![name.to_owned()],
            key: name.to_owned(),
            ..Place::default()
        }
    }

    /// The place of a single object; nowhere when nothing leads there, or too many steps do.
    pub fn to(held: &Held, reach: &Reach, node: u32) -> Place {
        let above = |node: &u32| reach.parent.get(*node as usize).copied().filter(|above| *above != ROOT);
        let is_near = reach.reaches(node) && std::iter::successors(Some(node), above).nth(DEEPEST).is_none();
        let nodes = if is_near { reach.path(node) } else { Vec::new() };
        Place::along(held, nodes, |_| false)
    }

    /// The place of an object by what alone keeps it: each step is to what the one before it retains. `None`
    /// where several hold it, where it hangs too deep, or on none of its steps directly.
    pub fn under(held: &Held, dominators: &Dominators, node: u32) -> Option<Place> {
        // Looking for an index takes long where there are more.
        const MANY: usize = 10_000;
        let mut nodes = vec![node];
        let mut at = node;
        while let Some(above) = dominators.idom.get(at as usize).filter(|above| **above < held.graph.nodes())
        {
            if nodes.len() == DEEPEST {
                return None;
            }
            nodes.push(*above);
            at = *above;
        }
        nodes.reverse();
        held.root(at)?;
        let mut place = Place::default();
        place.root(held, at);
        for pair in nodes.windows(2) {
            let &[from, to] = pair else { continue };
            let many = held.graph.csr.row(from).len() > MANY;
            let label = match many {
                true => Label { via: Via::Index, name: Name::Number(0) },
                false => held.label(&mut held.target.reader(), from, to)?,
            };
            place.step(from, Some(&label), many);
        }
        place.nodes = nodes;
        Some(place)
    }

    fn along(held: &Held, nodes: Vec<u32>, many: impl Fn(u32) -> bool) -> Place {
        let mut place = Place { nodes, ..Place::default() };
        let mut before: Option<u32> = None;
        for &node in &place.nodes.clone() {
            let label = before.and_then(|from| held.label(&mut held.target.reader(), from, node));
            match before {
                None => place.root(held, node),
                Some(from) => place.step(from, label.as_ref(), many(node)),
            }
            place.key.push(' ');
            place.key.push_str(held.type_name(node));
            before = Some(node);
        }
        place
    }

    /// The place of a route below one whose place is known.
    pub fn below(view: &View, routes: &Routes, above: Option<&Place>, route: RouteId) -> Place {
        let held = view.held;
        let Some(route) = routes.list.get(route as usize) else { return Place::default() };
        let mut place = above.cloned().unwrap_or_default();
        let node = route.first;
        let from = view.reach.parent.get(node as usize).copied().filter(|from| *from < held.graph.nodes());
        match from {
            None => place.root(held, node),
            // An entry has no name: looking for its index takes long where there are many.
            Some(from) if route.step == Step::Item && route.count > 1 => {
                place.name.push_str("[…]");
                place.key.push_str(" [*]");
                place.steps.push("[…]".to_owned());
                place.nodes.push(from);
            }
            Some(from) => {
                let label = held.label(&mut held.target.reader(), from, node);
                place.step(from, label.as_ref(), route.count > 1);
            }
        }
        place.key.push(' ');
        place.key.push_str(held.type_name(node));
        place
    }

    fn root(&mut self, held: &Held, node: u32) {
        let name = held.root_name(node);
        match held.root(node).map(|root| &root.holder) {
            Some(Holder::Module { name: module, .. }) => self.name.push_str(module),
            Some(Holder::Frame { thread, index, at }) => {
                let variable = frames::variable(held.target, held.inspection, *thread, *index, *at);
                self.names.extend(variable.map(|variable| (node, variable)));
                self.name.push_str(&name);
            }
            _ => self.name.push_str(&name),
        }
        self.key.push_str(&without_numbers(&name));
        self.steps.push(name);
    }

    fn step(&mut self, from: u32, label: Option<&Label>, many: bool) {
        let Some(label) = label else {
            self.steps.push("?".to_owned());
            self.key.push_str(" ?");
            return;
        };
        let written = match (label.via, many) {
            (Via::Index | Via::Value | Via::Element, true) => "[…]".to_owned(),
            (Via::Element, false) => "{…}".to_owned(),
            (Via::Slot, _) => format!(".{}", label.name),
            _ => label.to_string(),
        };
        self.key.push_str(&match label.via {
            Via::Index | Via::Value | Via::Element => " [*]".to_owned(),
            Via::Key | Via::Order => " key".to_owned(),
            Via::Stack | Via::Maybe => " ?".to_owned(),
            _ => format!(" {written}"),
        });
        if matches!(label.via, Via::Attr | Via::Slot | Via::Cell | Via::Local | Via::Field)
            && let Name::Text(text) = &label.name
        {
            self.names.push((from, text.clone()));
        }
        // A variable is what a person means, not the cell it is in.
        if written == ".cell_contents" {
            self.steps.push(written);
            return;
        }
        let glue = if written.starts_with(['.', '[', '{']) { "" } else { " " };
        self.name.push_str(glue);
        self.name.push_str(&written);
        self.steps.push(written);
    }
}

/// Numbers in names of roots are addresses, threads and offsets.
pub fn without_numbers(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let (head, tail) = rest.split_at(at);
        out.push_str(head);
        // A number in the middle of a name is part of it.
        let of_name = head.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let end = tail.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(tail.len());
        out.push_str(if of_name { &tail[..end] } else { "N" });
        rest = &tail[end..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_the_same_in_every_process() {
        assert_eq!(without_numbers("C stack of thread 4711"), "C stack of thread N");
        assert_eq!(without_numbers("lib2to3 x at 0x7f12ab"), "lib2to3 x at N");
        assert_eq!(without_numbers("module w4"), "module w4");
    }
}
