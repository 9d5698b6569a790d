//! `wmr path`: who holds an object, or the objects of a type.

use super::holders::{self, Via};
use super::{address, answer, title};
use crate::Answer;
use crate::cli::Options;
use crate::document::{hex, limited};
use crate::failure::{Failure, code};
use crate::numbers::{counted, grouped, scaled};
use crate::open::{Subject, open};
use crate::screen::{Look, Screen};
use crate::text::{cut, shown};
use serde::Serialize;
use std::ffi::OsStr;
use wmr_heap::Held;
use wmr_heap::graph::{Bits, Fold, Merged, Step};
use wmr_memory::Reader;

#[derive(Serialize)]
struct Body {
    /// What was asked for: an address or a type.
    of: String,
    count: u64,
    bytes: u64,
    /// Of those, what no root leads to: garbage, or held by what is not known.
    unreached: u64,
    /// Each after the one it hangs on.
    rows: Vec<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<usize>,
}

#[derive(Serialize)]
struct Row {
    /// Index of the row it hangs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<usize>,
    depth: usize,
    /// What holds it: of a root its name, else how the one before refers to it.
    by: String,
    /// How the one before refers to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    via: Option<Via>,
    address: String,
    #[serde(rename = "type")]
    name: String,
    /// Objects asked for that are here or beyond.
    count: u64,
    bytes: u64,
}

/// What is asked about.
pub enum Of<'a> {
    Address(&'a str),
    Type(&'a str),
}

/// Rows that people are shown.
const SHOWN: usize = 30;
/// Types that are suggested.
const SUGGESTED: usize = 5;

pub fn run(word: &OsStr, of: Of, limit: Option<usize>, options: &Options) -> Result<Answer, Failure> {
    let addr = match of {
        Of::Address(text) => Some(address::parse(text)?),
        Of::Type(_) => None,
    };
    let subject = open(word, options)?;
    let held = holders::find(&subject, Fold::Yes)?;
    let (wanted, name) = match of {
        Of::Type(name) => (of_type(&subject, &held, name)?, name.to_owned()),
        Of::Address(_) => {
            let node = holders::node_at(&subject, &held, addr.unwrap_or(0))?;
            (Bits::of(held.graph.nodes(), [node]), hex(addr.unwrap_or(0)))
        }
    };
    let reach = held.reach();
    let size = |node: u32| held.graph.size(node);
    let merged = Merged::of(&reach, &wanted, size);
    let rows = rows(&held, &merged, !options.json && limit != Some(0));
    let (rows, truncated) = limited(rows, limit.unwrap_or(if options.json { 0 } else { SHOWN }));
    let body = Body {
        of: name,
        count: wanted.count(),
        bytes: wanted.iter().map(size).sum(),
        unreached: merged.unreached.0,
        rows,
        truncated,
    };
    Ok(answer("wmr/path/1", &subject, options, body, |screen, body| page(screen, &subject, body)))
}

/// All objects of a type, by its qualified name or the last part of it.
fn of_type(subject: &Subject, held: &Held, name: &str) -> Result<Bits, Failure> {
    let inspection = &subject.inspection;
    let types = &inspection.census.types;
    let matches = |known: &str| known == name || known.rsplit('.').next() == Some(name);
    let exact = types.iter().any(|ty| ty.name == name);
    let is_wanted: Vec<bool> =
        types.iter().map(|ty| if exact { ty.name == name } else { matches(&ty.name) }).collect();
    if !is_wanted.contains(&true) {
        let mut failure = Failure::new(code::FAILED, format!("no type is called {}", shown(name)));
        let lower = name.to_lowercase();
        let near = types.iter().filter(|ty| !lower.is_empty() && ty.name.to_lowercase().contains(&lower));
        for ty in near.take(SUGGESTED) {
            failure = failure.advise(format!("there is {}", shown(&ty.name)));
        }
        return Err(failure.advise(format!("all of them: wmr heap {} --by type --limit 0", subject.typed)));
    }
    Ok(held.graph.of_types(inspection, |ty| is_wanted[ty]))
}

/// The tree of paths, most objects first.
fn rows(held: &Held, merged: &Merged, folded: bool) -> Vec<Row> {
    /// Deeper than this is one chain: a linked list.
    const DEEPEST: usize = 64;
    let mut children: Vec<Vec<u32>> = vec![Vec::new(); merged.steps.len()];
    let mut todo: Vec<(u32, usize, Option<usize>)> = Vec::new();
    for (i, step) in merged.steps.iter().enumerate() {
        match step.parent {
            Some(parent) => children[parent as usize].push(i as u32),
            None => todo.push((i as u32, 0, None)),
        }
    }
    // What is taken last comes first: most objects, then in the order they are held.
    let key = |i: u32| (merged.steps[i as usize].count, std::cmp::Reverse(i));
    children.iter_mut().for_each(|list| list.sort_unstable_by_key(|&i| key(i)));
    todo.sort_unstable_by_key(|&(i, ..)| key(i));
    let mut reader = held.target.reader();
    let mut rows = Vec::new();
    // Far more than anybody reads, and bounded.
    const MOST: usize = 100_000;
    while let Some((i, depth, parent)) = todo.pop().filter(|_| rows.len() < MOST) {
        let step = merged.steps[i as usize];
        let at = rows.len();
        rows.push(row(held, &mut reader, merged, i, depth, parent));
        // What was asked for is the end of its path.
        if depth >= DEEPEST || step.wanted {
            continue;
        }
        let mut below = &children[i as usize][..];
        let ends = below.iter().all(|&child| merged.steps[child as usize].wanted);
        if folded && ends && below.len() > FEW + 1 {
            let (rest, shown) = below.split_at(below.len() - FEW);
            below = shown;
            for &child in below.iter().rev() {
                rows.push(row(held, &mut reader, merged, child, depth + 1, Some(at)));
            }
            rows.push(folded_row(merged, rest, depth + 1, at));
            continue;
        }
        todo.extend(below.iter().map(|&child| (child, depth + 1, Some(at))));
    }
    rows
}

/// Of many that hang on one, so many are shown to people.
const FEW: usize = 3;

fn folded_row(merged: &Merged, rest: &[u32], depth: usize, parent: usize) -> Row {
    let sum = |figure: fn(&Step) -> u64| rest.iter().map(|&i| figure(&merged.steps[i as usize])).sum();
    Row {
        parent: Some(parent),
        depth,
        by: format!("… {} more", grouped(rest.len() as u64)),
        via: None,
        address: String::new(),
        name: String::new(),
        count: sum(|step| step.count),
        bytes: sum(|step| step.bytes),
    }
}

fn row(
    held: &Held,
    reader: &mut Reader,
    merged: &Merged,
    i: u32,
    depth: usize,
    parent: Option<usize>,
) -> Row {
    let step = merged.steps[i as usize];
    let before = step.parent.map(|before| merged.steps[before as usize].node);
    let label = before.and_then(|before| held.label(reader, before, step.node));
    let by = match (before, &label) {
        (None, _) => held.root_name(step.node),
        (_, label) => label.as_ref().map_or_else(String::new, ToString::to_string),
    };
    Row {
        parent,
        depth,
        by,
        via: label.as_ref().map(Via::from),
        address: held.addr(reader, step.node).map_or_else(String::new, hex),
        name: held.type_name(step.node).to_owned(),
        count: step.count,
        bytes: step.bytes,
    }
}

fn page(screen: &Screen, subject: &Subject, body: &Body) -> String {
    let heading = format!("WHO HOLDS {}", shown(&body.of));
    let mut out = title(screen, &heading);
    for row in &body.rows {
        let indent = "  ".repeat(1 + row.depth.min(screen.width / 6));
        let count = if body.count > 1 {
            format!("  {} · {}", grouped(row.count), scaled(row.bytes))
        } else {
            String::new()
        };
        let left = format!("{indent}{}", shown(&row.by));
        let line = format!("{left}  {}{count}", shown(&row.name));
        out.push_str(&cut(&line, screen.width.saturating_sub(row.address.len() + 3)));
        out.push_str(&screen.paint(Look::Dim, &format!("  {}", row.address)));
        out.push('\n');
    }
    if let Some(rest) = body.truncated {
        let command = format!("wmr path {} … --limit 0", subject.typed);
        out.push_str(&super::more(screen, &counted(rest as u64, "more step"), &command));
    }
    if body.unreached > 0 {
        out.push_str(&format!(
            "\n  {} of {} are reached from nowhere: → wmr leaks {}\n",
            grouped(body.unreached),
            grouped(body.count),
            subject.typed
        ));
    }
    out
}
