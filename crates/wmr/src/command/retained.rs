//! `wmr retained`: what would be freed with an object, with all objects of a type, with a module, or with what
//! holds a root.

mod by_root;

use super::holders;
use super::scope::{self, Wanted};
use super::{noting, title, wanted};
use crate::Answer;
use crate::cli::{Options, RetainedBy, Scope};
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
use wmr_heap::graph::{Dominators, Hanging};
use wmr_heap::partition;
use wmr_heap::suspects::Place;

#[derive(Serialize)]
struct Body {
    by: &'static str,
    /// Bytes of all objects that are reached, with what they own.
    total: u64,
    rows: Vec<Row>,
    /// Of modules and roots: what no row alone keeps. Rows and this are the total.
    #[serde(skip_serializing_if = "Option::is_none")]
    shared: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shared_count: Option<u64>,
    /// Of what is shared, what hangs on no module at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    outside_modules: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<usize>,
}

#[derive(Serialize, Default)]
struct Row {
    #[serde(skip_serializing_if = "Option::is_none")]
    addr: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    module: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    root: Option<String>,
    /// Of a single object, one of the first thousand: where it is, when each step there alone keeps the next.
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    place: Option<String>,
    /// Where several ways lead to it, a shortest one.
    #[serde(skip_serializing_if = "Option::is_none")]
    one_way: Option<String>,
    /// Of objects and types how many they are; of modules and roots how many objects they alone keep.
    count: u64,
    /// Of the objects themselves, with what they own; of modules and roots, of what they hold themselves.
    bytes: u64,
    /// What would be freed with them; of a type what several of its objects keep together is not in it.
    retained: u64,
}

/// Rows that people are shown.
const SHOWN: usize = 25;
/// Rows of single objects for machines.
const OBJECTS: usize = 1000;

pub fn run(
    word: &OsStr,
    by: RetainedBy,
    limit: Option<usize>,
    scope: &Scope,
    no_fold: bool,
    options: &Options,
) -> Result<Answer, Failure> {
    let asked = Wanted::of(scope)?;
    let subject = open(word, options)?;
    let filter = asked.within(&subject)?;
    let held = holders::find(&subject, holders::fold(no_fold))?;
    let matching = filter.map(|filter| wanted::of_filter(&subject, &held, &filter));
    let is_in = |node: u32| matching.as_ref().is_none_or(|matching| matching.contains(node));
    let wanted = limit.unwrap_or(if options.json { 0 } else { SHOWN });
    let none = Body {
        by: by.name(),
        total: 0,
        rows: Vec::new(),
        shared: None,
        shared_count: None,
        outside_modules: None,
        truncated: None,
    };
    let mut body = match by {
        RetainedBy::Object | RetainedBy::Type => {
            let dominators = held.dominators();
            let retained = held.retained(&dominators);
            let total = dominators.order.iter().map(|&node| held.graph.size(node)).sum();
            // Of single objects nobody reads more, unless it is said.
            let most = match limit {
                Some(0) => usize::MAX,
                _ if wanted == 0 => OBJECTS,
                _ => wanted,
            };
            let (rows, cut) = match by {
                RetainedBy::Object => objects(&held, &dominators, &retained, &is_in, most),
                _ => (types(&held, &dominators, &retained, &is_in), 0),
            };
            let (rows, truncated) = limited(rows, wanted);
            let truncated = Some(truncated.unwrap_or(0) + cut).filter(|cut| *cut > 0);
            Body { total, rows, truncated, ..none }
        }
        RetainedBy::Module | RetainedBy::Root => by_root::body(&held, by, &is_in, none),
    };
    if body.shared.is_some() {
        (body.rows, body.truncated) = limited(std::mem::take(&mut body.rows), wanted);
    }
    let notes = holders::left_out(&held);
    let flags = scope::flags(scope);
    Ok(noting("wmr/retained/1", &subject, notes, options, body, |screen, body| {
        page(screen, &subject, &flags, body)
    }))
}

/// The objects that keep most, and how many more there are.
fn objects(
    held: &Held,
    dominators: &Dominators,
    retained: &[u64],
    is_in: &dyn Fn(u32) -> bool,
    most: usize,
) -> (Vec<Row>, usize) {
    let mut nodes: Vec<u32> = dominators.order.iter().copied().filter(|node| is_in(*node)).collect();
    let all = nodes.len();
    let key = |&node: &u32| (std::cmp::Reverse(retained[node as usize]), node);
    if most < all {
        nodes.select_nth_unstable_by_key(most, key);
        nodes.truncate(most);
    }
    nodes.sort_unstable_by_key(key);
    let mut reader = held.target.reader();
    let mut row = |(node, rank): (u32, usize)| {
        let place = || Place::under(held, dominators, node).map(|place| place.name);
        Some(Row {
            addr: Some(hex(held.addr(&mut reader, node)?)),
            name: Some(held.type_name(node).to_owned()),
            place: if rank < OBJECTS { place() } else { None },
            count: 1,
            bytes: held.graph.size(node),
            retained: retained[node as usize],
            ..Row::default()
        })
    };
    let nodes = nodes.into_iter().zip(0..);
    let mut rows: Vec<(u32, Row)> =
        nodes.filter_map(|(node, rank)| Some((node, row((node, rank))?))).collect();
    let mut unplaced = rows.iter_mut().take(OBJECTS).filter(|(_, row)| row.place.is_none()).peekable();
    if unplaced.peek().is_some() {
        let reach = held.reach();
        for (node, row) in unplaced {
            row.one_way = Some(Place::to(held, &reach, *node).name).filter(|name| !name.is_empty());
        }
    }
    let rows: Vec<Row> = rows.into_iter().map(|(_, row)| row).collect();
    let cut = all - rows.len();
    (rows, cut)
}

/// Sums by type. Of objects that hang on another of their type, the upper one counts.
fn types(held: &Held, dominators: &Dominators, retained: &[u64], is_in: &dyn Fn(u32) -> bool) -> Vec<Row> {
    let hanging = Hanging::of(dominators);
    let rows = partition::by_retained(held.inspection, &held.graph, &hanging, retained, is_in);
    let row = |row: partition::RetainedRow| Row {
        name: Some(row.name),
        count: row.count,
        bytes: row.bytes,
        retained: row.retained,
        ..Row::default()
    };
    rows.into_iter().map(row).collect()
}

fn page(screen: &Screen, subject: &Subject, flags: &str, body: &Body) -> String {
    let unit = Unit::for_total(body.total);
    let single = body.by == "object";
    let mut table = Table::new(screen).column(body.by, Align::Text);
    if !single {
        table = table.column(if body.shared.is_none() { "count" } else { "objects" }, Align::Right);
    }
    table = table.column("own", Align::Right).column("retained", Align::Right).column("%", Align::Right);
    if single {
        table = table.column("", Align::Left).column("where", Align::Text);
    }
    for row in &body.rows {
        let name = [&row.name, &row.module, &row.root].into_iter().flatten().next();
        let mut cells = vec![name.map(|name| shown(name)).unwrap_or_default()];
        if !single {
            cells.push(grouped(row.count));
        }
        cells.extend([
            unit.number(row.bytes),
            unit.number(row.retained),
            percent(row.retained, body.total),
            row.addr.clone().unwrap_or_default(),
        ]);
        let one_way = || row.one_way.as_deref().map(|way| format!("e.g. {}", shown(way)));
        cells.extend(row.place.as_deref().map(shown).or_else(one_way));
        table.row(cells);
    }
    if let Some(shared) = body.shared {
        let cells = [
            format!("no {} alone", body.by),
            grouped(body.shared_count.unwrap_or(0)),
            String::new(),
            unit.number(shared),
            percent(shared, body.total),
        ];
        table.row(cells);
    }
    let heading = format!("WHAT WOULD GO WITH IT, {}", unit.name);
    let mut out = title(screen, &heading) + &table.render();
    if let Some(rest) = body.truncated {
        let command = format!("wmr retained {} --by {}{flags} --limit 0", subject.typed, body.by);
        out.push_str(&super::more(screen, &format!("{} more", grouped(rest as u64)), &command));
    }
    if let Some(outside) = body.outside_modules {
        let text = format!("{} {} of that hang on no module", unit.number(outside), unit.name);
        let command = format!("wmr retained {} --by root{flags}", subject.typed);
        out.push_str(&super::more(screen, &text, &command));
    }
    let next = match body.by {
        "object" => format!("who holds one: wmr path {} ADDRESS", subject.typed),
        _ => format!("what is in it: wmr tree {}", subject.typed),
    };
    out + &format!("\n  {next}\n")
}
