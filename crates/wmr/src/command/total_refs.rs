//! `wmr total-refs`: the references there are to all objects together, as a debug build counts them.

use super::{answer, finished, more, title};
use crate::Answer;
use crate::cli::Options;
use crate::document::{csv, hex, limited};
use crate::failure::Failure;
use crate::numbers::{counted, grouped, percent};
use crate::open::{Subject, open};
use crate::screen::Screen;
use crate::table::{Align, Table};
use crate::text::{shown, utf8, wrap};
use serde::Serialize;
use std::ffi::OsStr;
use wmr_heap::total_refs::TotalRefs;

#[derive(Serialize)]
struct Body {
    /// What `sys.gettotalrefcount()` says in a debug build.
    total: i64,
    /// Up to 3.12: the part of it that is from the table of interned strings, which their counts leave out.
    interned: i64,
    /// The part of it that is to tables of dicts' keys, which are no objects.
    keys: i64,
    objects: u64,
    /// Objects whose references are not counted.
    immortal: u64,
    rows: Vec<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<usize>,
}

#[derive(Serialize)]
struct Row {
    #[serde(rename = "type")]
    name: String,
    type_addr: String,
    module: String,
    count: u64,
    immortal: u64,
    refs: i64,
}

/// Rows that people are shown.
const SHOWN: usize = 25;

pub fn run(word: &OsStr, limit: Option<usize>, csv_rows: bool, options: &Options) -> Result<Answer, Failure> {
    let subject = open(word, options)?;
    let none = TotalRefs { types: Vec::new(), interned: 0, keys: 0 };
    let totals = TotalRefs::of(&subject.target, &subject.inspection).unwrap_or(none);
    let types = subject.inspection.census.types.iter().zip(&totals.types);
    let mut rows: Vec<Row> = types
        .filter(|(_, sum)| sum.count > 0)
        .map(|(ty, sum)| Row {
            name: utf8(ty.name.as_bytes()),
            type_addr: hex(ty.addr),
            module: utf8(ty.module.as_bytes()),
            count: sum.count,
            immortal: sum.immortal,
            refs: sum.refs,
        })
        .collect();
    rows.sort_by(|a, b| b.refs.cmp(&a.refs).then_with(|| a.name.cmp(&b.name)));
    let machine = options.json || csv_rows;
    let (objects, immortal) = rows.iter().fold((0, 0), |sum, row| (sum.0 + row.count, sum.1 + row.immortal));
    let (rows, truncated) = limited(rows, limit.unwrap_or(if machine { 0 } else { SHOWN }));
    let body = Body {
        total: totals.total(),
        interned: totals.interned,
        keys: totals.keys,
        objects,
        immortal,
        rows,
        truncated,
    };
    if csv_rows {
        let text = csv(&body.rows);
        return Ok(finished(&subject, text));
    }
    Ok(answer("wmr/total-refs/1", &subject, options, body, |screen, body| page(screen, &subject, body)))
}

fn signed(n: i64) -> String {
    let sign = if n < 0 { "-" } else { "" };
    format!("{sign}{}", grouped(n.unsigned_abs()))
}

fn page(screen: &Screen, subject: &Subject, body: &Body) -> String {
    let mut table = Table::new(screen).column("type", Align::Text).column("count", Align::Right);
    table = table.column("references", Align::Right).column("%", Align::Right).column("each", Align::Right);
    let total = u64::try_from(body.total).unwrap_or(0);
    for row in &body.rows {
        let refs = u64::try_from(row.refs).unwrap_or(0);
        let mortal = row.count - row.immortal;
        let each =
            if mortal == 0 { "immortal".to_owned() } else { format!("{:.1}", refs as f64 / mortal as f64) };
        table.row([shown(&row.name), grouped(row.count), signed(row.refs), percent(refs, total), each]);
    }
    let mut out = title(screen, &format!("{} REFERENCES", signed(body.total))) + &table.render();
    if let Some(rest) = body.truncated {
        let command = format!("wmr total-refs {} --limit 0", subject.typed);
        out.push_str(&more(screen, &counted(rest as u64, "more type"), &command));
    }
    // Without these the rows would not add up to the total.
    let beside =
        [(body.interned, "from the table of interned strings"), (body.keys, "to tables of dicts' keys")];
    let beside = beside.into_iter().filter(|(refs, _)| *refs != 0);
    let beside: Vec<String> = beside.map(|(refs, what)| format!("{} {what}", signed(refs))).collect();
    if !beside.is_empty() {
        let text = format!("beside those of types: {}", beside.join(", "));
        out.push('\n');
        for line in wrap(&text, screen.width - 2) {
            out.push_str(&format!("  {line}\n"));
        }
    }
    if body.immortal > 0 {
        out.push_str(&format!(
            "\n  to {}; those to {} are not counted\n",
            counted(body.objects - body.immortal, "object"),
            counted(body.immortal, "immortal one")
        ));
    }
    out
}
