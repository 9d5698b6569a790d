//! `wmr path`: who holds an object, or many: from a module, a frame or a variable on.

mod one;
mod page;

use super::holders::{self, Ref, RootName, Via};
use super::scope::{self, Wanted};
use super::{address, noting, wanted};
use crate::Answer;
use crate::cli::{Options, Scope};
use crate::document::{hex, limited};
use crate::failure::Failure;
use crate::open::open;
use serde::Serialize;
use std::ffi::OsStr;
use wmr_heap::Held;
use wmr_heap::graph::{Bits, Merged};
use wmr_heap::trails::{Trail, trails};

#[derive(Serialize)]
struct Body {
    /// What was asked for: an address, a type or an expression.
    of: String,
    count: u64,
    bytes: u64,
    /// Of those, what no root leads to: garbage, or held by what is not known.
    unreached: u64,
    /// Of one object several ways to it; of many one way to those whose ways are called alike.
    paths: Vec<Path>,
    /// Ways to many, laid over each other; each row after the one it hangs on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tree: Vec<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<usize>,
}

#[derive(Serialize)]
struct Path {
    root: RootName,
    /// From what the root holds to what was asked for. A module is its own root.
    steps: Vec<Ref>,
    /// Steps in the middle that are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<u64>,
    /// As a person would write it.
    text: String,
    /// Objects whose path is called so, of which this is the first.
    count: u64,
    bytes: u64,
    /// The root is no variable of a program: what the interpreter or C code keeps.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    internal: bool,
}

#[derive(Serialize)]
struct Row {
    /// Index of the row it hangs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<usize>,
    depth: usize,
    /// What holds it: of a root its name, else how the one before refers to it.
    by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    via: Option<Via>,
    /// The first of the objects here.
    #[serde(skip_serializing_if = "Option::is_none")]
    addr: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Objects at this step.
    objects: u64,
    /// Objects asked for that are here or beyond.
    count: u64,
    bytes: u64,
    /// They hang on each other, link by link.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    chain: bool,
}

/// What is asked about.
pub enum Of<'a> {
    Address(&'a str),
    Type(&'a str),
    /// All that the scope lets through.
    Matching,
}

/// How much of it, and of what graph.
pub struct How {
    pub paths: Option<usize>,
    pub limit: Option<usize>,
    pub no_fold: bool,
}

/// Ways to one object.
const WAYS: usize = 3;
/// Ways to many objects that machines are given; people get the tree.
const PATHS: usize = 100;
/// Rows of the tree that people are shown.
const SHOWN: usize = 30;
/// Groups of roots from here on are no variables of a program.
const INTERNAL: usize = 3;

pub fn run(word: &OsStr, of: &Of, how: &How, scope: &Scope, options: &Options) -> Result<Answer, Failure> {
    let addr = if let Of::Address(text) = of { Some(address::parse(text)?) } else { None };
    let asked = Wanted::of(scope)?;
    let subject = open(word, options)?;
    let filter = asked.within(&subject)?;
    let held = holders::find(&subject, holders::fold(how.no_fold))?;
    let nodes = held.graph.nodes();
    let matching = filter.map(|filter| wanted::of_filter(&subject, &held, &filter));
    let (wanted, name) = match of {
        Of::Type(name) => (wanted::of_type(&subject, &held, name)?, (*name).to_owned()),
        Of::Matching => (Bits::default(), scope::expression(scope, &subject)?),
        Of::Address(_) => {
            let node = holders::node_at(&subject, &held, addr.unwrap_or(0))?;
            (Bits::of(nodes, [node]), hex(addr.unwrap_or(0)))
        }
    };
    let wanted = match (of, matching) {
        (Of::Matching, matching) => matching.unwrap_or_default(),
        (_, Some(matching)) => Bits::of(nodes, wanted.iter().filter(|node| matching.contains(*node))),
        (_, None) => wanted,
    };
    wanted::some(&subject, &wanted, &scope::expression(scope, &subject)?)?;
    let mut body = Body {
        of: name,
        count: wanted.count(),
        bytes: wanted.iter().map(|node| held.graph.size(node)).sum(),
        unreached: 0,
        paths: Vec::new(),
        tree: Vec::new(),
        truncated: None,
    };
    match wanted.iter().next().filter(|_| body.count == 1) {
        Some(node) => {
            body.paths = one::paths(&held, node, how.paths.unwrap_or(WAYS));
            body.unreached = u64::from(body.paths.is_empty());
        }
        None => many(&held, &wanted, how, options.json, &mut body),
    }
    let notes = holders::left_out(&held);
    Ok(noting("wmr/path/1", &subject, notes, options, body, |screen, body| {
        page::draw(screen, &subject.typed, body)
    }))
}

/// Ways to many objects.
fn many(held: &Held, wanted: &Bits, how: &How, machine: bool, body: &mut Body) {
    let reach = held.reach();
    let merged = Merged::of(&reach, wanted, |node| held.graph.size(node));
    body.unreached = merged.unreached.0;
    let trails = trails(held, &merged);
    let paths = how.paths.unwrap_or(if machine { PATHS } else { 0 });
    body.paths = one::of_trails(held, &reach, &trails, paths);
    let rows: Vec<Row> = {
        let mut reader = held.target.reader();
        trails.iter().map(|trail| row(held, &mut reader, trail)).collect()
    };
    (body.tree, body.truncated) = limited(rows, how.limit.unwrap_or(if machine { 0 } else { SHOWN }));
}

fn row(held: &Held, reader: &mut wmr_memory::Reader, trail: &Trail) -> Row {
    let by = match &trail.label {
        _ if trail.is_rest => format!("… {} more", crate::numbers::grouped(trail.nodes)),
        None if trail.parent.is_none() => held.root_name(trail.node),
        None => "?".to_owned(),
        Some(label) if trail.same_name => label.to_string(),
        Some(label) => holders::pattern(label),
    };
    let known = !trail.is_rest;
    Row {
        parent: trail.parent,
        depth: trail.depth,
        by,
        via: trail.label.as_ref().filter(|_| trail.same_name).map(Via::from),
        addr: held.addr(reader, trail.node).filter(|_| known).map(hex),
        name: known.then(|| held.type_name(trail.node).to_owned()),
        objects: trail.nodes,
        count: trail.count,
        bytes: trail.bytes,
        chain: trail.is_chain,
    }
}

/// Which roots come last.
fn is_internal(held: &Held, root: u32) -> bool {
    held.root(root).is_none_or(|root| root.holder.group() >= INTERNAL)
}
