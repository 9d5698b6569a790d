//! `wmr alive`: the objects there are with their reference counts, as `PYTHONDUMPREFS` has a debug build
//! write them.

use super::scope::{self, Wanted};
use super::{answer, finished, listing, more};
use crate::Answer;
use crate::cli::{Options, Scope};
use crate::document::{csv, hex};
use crate::failure::Failure;
use crate::numbers::{counted, grouped};
use crate::open::{Subject, open};
use crate::screen::Screen;
use crate::table::{Align, Table};
use crate::text::{self, shown, utf8};
use serde::Serialize;
use std::ffi::OsStr;
use wmr_heap::anatomy::Anatomy;
use wmr_heap::select::{IMMORTAL, Listing, Order, States};

#[derive(Serialize)]
struct Body {
    rows: Vec<Row>,
    matched: Total,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<u64>,
}

#[derive(Serialize)]
struct Total {
    count: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct Row {
    addr: String,
    /// 2³²−1 of an immortal object, as the interpreter itself says.
    #[serde(skip_serializing_if = "Option::is_none")]
    refcount: Option<u32>,
    #[serde(rename = "type")]
    name: String,
    type_addr: String,
    bytes: u64,
    /// As its `repr` begins; of a container how many items it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
}

/// What is asked for.
pub struct Ask<'a> {
    pub scope: &'a Scope,
    pub sort: Option<&'a str>,
    pub limit: Option<usize>,
    pub csv: bool,
}

/// Rows that people are shown.
const SHOWN: usize = 40;

pub fn run(word: &OsStr, ask: &Ask, options: &Options) -> Result<Answer, Failure> {
    let objects = scope::filter("domain = 'python' and type is not null")?;
    let asked = Wanted::of(ask.scope)?.and(Some(objects));
    let by = ask.sort.map(listing::sort).transpose()?;
    let subject = open(word, options)?;
    let wanted = asked.within(&subject)?;
    let machine = options.json || ask.csv;
    let limit = ask.limit.unwrap_or(if machine { 0 } else { SHOWN });
    let table = Listing::new(&subject.target, &subject.inspection);
    let selection = match by {
        Some((column, descending)) => {
            table.select(States::Used, wanted.as_ref(), Order { by: Some(column), descending, limit })
        }
        None => table.by_type_and_refcount(wanted.as_ref(), limit),
    };
    let mut anatomy = Anatomy::new(&subject.target, &subject.inspection);
    let mut reader = subject.target.reader();
    let row = |row: &wmr_heap::select::Row| {
        let addr = table.object_of(&mut reader, row)?;
        let facts = table.named_facts(row);
        let (name, type_addr, _) = facts.type_of?;
        let value = anatomy.as_mut().and_then(|anatomy| {
            anatomy.value(addr).or_else(|| {
                let ty = anatomy.type_of(addr)?;
                anatomy.parts(addr, ty, 0).length.map(|length| counted(length, "item"))
            })
        });
        Some(Row {
            addr: hex(addr),
            refcount: table.refcount(&mut reader, row),
            name: utf8(name.as_bytes()),
            type_addr: hex(type_addr),
            bytes: row.bytes,
            value: value.map(|value| utf8(value.as_bytes())),
        })
    };
    let left = selection.count - selection.rows.len() as u64;
    let body = Body {
        rows: selection.rows.iter().filter_map(row).collect(),
        matched: Total { count: selection.count, bytes: selection.bytes },
        truncated: Some(left).filter(|left| *left > 0),
    };
    if ask.csv {
        let text = csv(&body.rows);
        return Ok(finished(&subject, text));
    }
    Ok(answer("wmr/alive/1", &subject, options, body, |screen, body| page(screen, &subject, body, ask)))
}

fn page(screen: &Screen, subject: &Subject, body: &Body, ask: &Ask) -> String {
    let mut table = Table::new(screen).column("addr", Align::Left).column("refs", Align::Right);
    table = table.column("type", Align::Text).column("value", Align::Text);
    for row in &body.rows {
        let refs = match row.refcount {
            Some(IMMORTAL) => "immortal".to_owned(),
            Some(count) => grouped(count.into()),
            None => String::new(),
        };
        let value = row.value.as_deref().map(shown).unwrap_or_default();
        table.row([row.addr.clone(), refs, shown(&row.name), value]);
    }
    let mut out = table.render();
    if let Some(left) = body.truncated {
        let sort = ask.sort.map(|column| format!(" --sort {}", text::quoted(column))).unwrap_or_default();
        let command = format!("wmr alive {}{}{sort}", subject.typed, scope::flags(ask.scope));
        out.push_str(&more(screen, &counted(left, "more object"), &(command + " --limit 0")));
    }
    let Total { count, bytes } = body.matched;
    out + &format!("\n  {} in {}\n", grouped(bytes), counted(count, "object"))
}
