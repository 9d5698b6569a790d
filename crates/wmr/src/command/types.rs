//! `wmr types`: classes and built-in types with their instances, those without any too.

use super::{answer, finished, more, title};
use crate::Answer;
use crate::cli::{Options, TypesSort};
use crate::document::{csv, hex, limited};
use crate::failure::Failure;
use crate::numbers::{counted, grouped, scaled};
use crate::open::{Subject, open};
use crate::screen::Screen;
use crate::table::{Align, Table};
use crate::text::shown;
use serde::Serialize;
use std::cmp::Reverse;
use std::ffi::OsStr;
use wmr_heap::{TypeObject, type_objects};

#[derive(Serialize)]
struct Body {
    rows: Vec<Row>,
    total: Total,
    /// Names that several classes have: made in a loop, or anew at each call.
    duplicates: Vec<Duplicate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<usize>,
}

#[derive(Serialize)]
struct Total {
    types: u64,
    heap_types: u64,
    /// Of the type objects themselves.
    own_bytes: u64,
    instances: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct Row {
    #[serde(rename = "type")]
    name: String,
    addr: String,
    module: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<String>,
    /// `heap` or `static`.
    kind: &'static str,
    instances: u64,
    /// Of the instances, with what they own.
    bytes: u64,
    own_bytes: u64,
    subclasses: u64,
    /// How many types have that name, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    alike: Option<u64>,
}

#[derive(Serialize)]
struct Duplicate {
    #[serde(rename = "type")]
    name: String,
    types: u64,
    own_bytes: u64,
    instances: u64,
    bytes: u64,
}

/// Rows that people are shown.
const LIMIT: usize = 40;
/// Duplicates that people are shown.
const DUPLICATES: usize = 5;

pub fn run(
    word: &OsStr,
    sort: TypesSort,
    limit: Option<usize>,
    as_csv: bool,
    options: &Options,
) -> Result<Answer, Failure> {
    let subject = open(word, options)?;
    let mut types = type_objects(&subject.target, &subject.inspection);
    match sort {
        TypesSort::Bytes => {}
        TypesSort::Instances => types.sort_by_key(|ty| Reverse(ty.instances)),
        TypesSort::Own => types.sort_by_key(|ty| Reverse(ty.own_bytes)),
        TypesSort::Subclasses => types.sort_by_key(|ty| Reverse(ty.subclasses)),
        TypesSort::Alike => types.sort_by_key(|ty| Reverse(ty.alike)),
        TypesSort::Name => types.sort_by(|a, b| a.name.cmp(&b.name)),
    }
    let sum = |figure: fn(&TypeObject) -> u64| types.iter().map(figure).sum();
    let total = Total {
        types: types.len() as u64,
        heap_types: sum(|ty| u64::from(ty.is_heap)),
        own_bytes: sum(|ty| ty.own_bytes),
        instances: sum(|ty| ty.instances),
        bytes: sum(|ty| ty.bytes),
    };
    let duplicates = duplicates(&types);
    let rows = types.into_iter().map(|ty| Row {
        name: ty.name,
        addr: hex(ty.addr),
        module: ty.module,
        base: ty.base,
        kind: if ty.is_heap { "heap" } else { "static" },
        instances: ty.instances,
        bytes: ty.bytes,
        own_bytes: ty.own_bytes,
        subclasses: ty.subclasses,
        alike: Some(ty.alike).filter(|alike| *alike > 1),
    });
    let machine = options.json || as_csv;
    let (rows, truncated) = limited(rows.collect(), limit.unwrap_or(if machine { 0 } else { LIMIT }));
    if as_csv {
        return Ok(finished(&subject, csv(&rows)));
    }
    let body = Body { rows, total, duplicates, truncated };
    Ok(answer("wmr/type-objects/1", &subject, options, body, |screen, body| page(screen, &subject, body)))
}

fn duplicates(types: &[TypeObject]) -> Vec<Duplicate> {
    let mut several: Vec<&TypeObject> = types.iter().filter(|ty| ty.is_heap && ty.alike > 1).collect();
    several.sort_by(|a, b| a.name.cmp(&b.name));
    let one = |same: &[&TypeObject]| Duplicate {
        name: same[0].name.clone(),
        types: same.len() as u64,
        own_bytes: same.iter().map(|ty| ty.own_bytes).sum(),
        instances: same.iter().map(|ty| ty.instances).sum(),
        bytes: same.iter().map(|ty| ty.bytes).sum(),
    };
    let mut rows: Vec<Duplicate> = several.chunk_by(|a, b| a.name == b.name).map(one).collect();
    rows.sort_by(|a, b| b.types.cmp(&a.types).then_with(|| a.name.cmp(&b.name)));
    rows
}

fn page(screen: &Screen, subject: &Subject, body: &Body) -> String {
    let wide = screen.width >= 120;
    let mut table = Table::new(screen)
        .column("type", Align::Text)
        .column("instances", Align::Right)
        .column("bytes", Align::Right)
        .column("own", Align::Right)
        .column("sub", Align::Right)
        .column("base", Align::Text)
        .column("kind", Align::Left);
    if wide {
        table = table.column("module", Align::Text).column("", Align::Left);
    }
    for row in &body.rows {
        let mut cells = vec![
            shown(&row.name),
            grouped(row.instances),
            grouped(row.bytes),
            grouped(row.own_bytes),
            grouped(row.subclasses),
            row.base.as_deref().map(shown).unwrap_or_default(),
            row.kind.to_owned(),
        ];
        if wide {
            cells.extend([shown(&row.module), row.addr.clone()]);
        }
        table.row(cells);
    }
    let mut out = table.render();
    if let Some(rest) = body.truncated {
        let command = format!("wmr types {} --limit 0", subject.typed);
        out.push_str(&more(screen, &counted(rest as u64, "more type"), &command));
    }
    let total = &body.total;
    out.push_str(&format!(
        "\n  {}, {} of them made at run time, take {} themselves\n",
        counted(total.types, "type"),
        grouped(total.heap_types),
        scaled(total.own_bytes)
    ));
    if !body.duplicates.is_empty() {
        out.push_str(&format!("\n{}", title(screen, "SEVERAL OF ONE NAME")));
        let mut table = Table::new(screen)
            .column("type", Align::Text)
            .column("types", Align::Right)
            .column("own", Align::Right)
            .column("instances", Align::Right);
        for row in body.duplicates.iter().take(DUPLICATES) {
            table.row([shown(&row.name), grouped(row.types), grouped(row.own_bytes), grouped(row.instances)]);
        }
        out.push_str(&table.render());
        if body.duplicates.len() > DUPLICATES {
            let command = format!("wmr types {} --sort alike", subject.typed);
            let left = (body.duplicates.len() - DUPLICATES) as u64;
            out.push_str(&more(screen, &counted(left, "more name"), &command));
        }
    }
    out
}
