//! `wmr retained`: what would be freed with an object, or with all objects of a type.

use super::holders;
use super::{answer, title};
use crate::Answer;
use crate::cli::{Options, RetainedBy};
use crate::document::{hex, limited};
use crate::failure::Failure;
use crate::numbers::{Unit, grouped, percent};
use crate::open::{Subject, open};
use crate::screen::Screen;
use crate::table::{Align, Table};
use crate::text::shown;
use serde::Serialize;
use std::ffi::OsStr;
use wmr_heap::Held;
use wmr_heap::graph::{Dominators, Fold, ROOT};

#[derive(Serialize)]
struct Body {
    by: &'static str,
    /// Bytes of all objects that are reached, with what they own.
    total: u64,
    rows: Vec<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<usize>,
}

#[derive(Serialize)]
struct Row {
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(rename = "type")]
    name: String,
    count: u64,
    /// Of the objects themselves, with what they own.
    bytes: u64,
    /// What would be freed with them; of a type what several of its objects keep together is not in it.
    retained: u64,
}

/// Rows that people are shown.
const SHOWN: usize = 25;
/// Rows of single objects for machines.
const OBJECTS: usize = 1000;

pub fn run(word: &OsStr, by: RetainedBy, limit: Option<usize>, options: &Options) -> Result<Answer, Failure> {
    let subject = open(word, options)?;
    let held = holders::find(&subject, Fold::Yes)?;
    let dominators = held.dominators(held.reach());
    let retained = held.retained(&dominators);
    let total = dominators.order.iter().map(|&node| held.graph.size(node)).sum();
    let wanted = limit.unwrap_or(if options.json { 0 } else { SHOWN });
    let rows = match by {
        RetainedBy::Object => {
            objects(&held, &dominators, &retained, if wanted == 0 { OBJECTS } else { wanted })
        }
        RetainedBy::Type => types(&held, &dominators, &retained),
    };
    let (rows, truncated) = limited(rows, wanted);
    let name = match by {
        RetainedBy::Object => "object",
        RetainedBy::Type => "type",
    };
    let body = Body { by: name, total, rows, truncated };
    Ok(answer("wmr/retained/1", &subject, options, body, |screen, body| page(screen, &subject, body)))
}

fn objects(held: &Held, dominators: &Dominators, retained: &[u64], most: usize) -> Vec<Row> {
    let mut nodes = dominators.order.clone();
    let most = most.min(nodes.len());
    let key = |&node: &u32| (std::cmp::Reverse(retained[node as usize]), node);
    if most < nodes.len() {
        nodes.select_nth_unstable_by_key(most, key);
        nodes.truncate(most);
    }
    nodes.sort_unstable_by_key(key);
    let mut reader = held.target.reader();
    let row = |node: u32| {
        Some(Row {
            address: Some(hex(held.addr(&mut reader, node)?)),
            name: held.type_name(node).to_owned(),
            count: 1,
            bytes: held.graph.size(node),
            retained: retained[node as usize],
        })
    };
    nodes.into_iter().filter_map(row).collect()
}

/// Sums by type. Of objects that hang on another of their type, the upper one counts: going down the tree
/// of dominators, a type that is open already adds nothing.
fn types(held: &Held, dominators: &Dominators, retained: &[u64]) -> Vec<Row> {
    let types = &held.inspection.census.types;
    let ty = |node: u32| held.type_of(node).map(|ty| ty.shape.id as usize);
    let mut rows: Vec<Row> = types
        .iter()
        .map(|ty| Row { address: None, name: ty.name.clone(), count: 0, bytes: 0, retained: 0 })
        .collect();
    // Children by dominator, as a list through the nodes.
    const NONE: u32 = u32::MAX;
    let count = dominators.idom.len();
    let (mut first, mut next) = (vec![NONE; count + 1], vec![NONE; count]);
    for &node in &dominators.order {
        let parent = match dominators.idom[node as usize] {
            ROOT => count,
            parent => parent as usize,
        };
        next[node as usize] = first[parent];
        first[parent] = node;
    }
    let mut open = vec![0u32; types.len()];
    let mut at = first[count];
    let mut path: Vec<u32> = Vec::new();
    loop {
        if at != NONE {
            if let Some(ty) = ty(at) {
                rows[ty].count += 1;
                rows[ty].bytes += held.graph.size(at);
                rows[ty].retained += if open[ty] == 0 { retained[at as usize] } else { 0 };
                open[ty] += 1;
            }
            path.push(at);
            at = first[at as usize];
            continue;
        }
        let Some(done) = path.pop() else { break };
        if let Some(ty) = ty(done) {
            open[ty] -= 1;
        }
        at = next[done as usize];
    }
    rows.retain(|row| row.count > 0);
    rows.sort_by(|a, b| b.retained.cmp(&a.retained).then_with(|| a.name.cmp(&b.name)));
    rows
}

fn page(screen: &Screen, subject: &Subject, body: &Body) -> String {
    let unit = Unit::for_total(body.total);
    let mut table = Table::new(screen).column(body.by, Align::Text).column("count", Align::Right);
    table = table.column("own", Align::Right).column("retained", Align::Right).column("%", Align::Right);
    for row in &body.rows {
        let name = match &row.address {
            Some(address) => format!("{} {address}", shown(&row.name)),
            None => shown(&row.name),
        };
        table.row([
            name,
            grouped(row.count),
            unit.number(row.bytes),
            unit.number(row.retained),
            percent(row.retained, body.total),
        ]);
    }
    let heading = format!("WHAT WOULD GO WITH IT, {}", unit.name);
    let mut out = title(screen, &heading) + &table.render();
    if let Some(rest) = body.truncated {
        let command = format!("wmr retained {} --by {} --limit 0", subject.typed, body.by);
        out.push_str(&super::more(screen, &format!("{} more", grouped(rest as u64)), &command));
    }
    out.push_str(&format!("\n  who holds one: wmr path {} ADDRESS\n", subject.typed));
    out
}
