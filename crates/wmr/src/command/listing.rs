//! `wmr select`, `used`, `free` and `all`: blocks, one a row.

use super::scope::{self, Wanted};
use super::{answer, finished, more};
use crate::Answer;
use crate::cli::{ListingOptions, Options};
use crate::document::{csv_of, hex};
use crate::failure::{self, Failure, code};
use crate::numbers::{counted, grouped};
use crate::open::{Subject, open};
use crate::screen::Screen;
use crate::table::{Align, Table};
use crate::text;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};
use std::ffi::OsStr;
use wmr_heap::filter::{Column, Type};
use wmr_heap::select::{Facts, Listing, Order, Row, States};

/// Rows shown to people unless they say otherwise.
const LIMIT: usize = 40;

#[derive(Serialize)]
struct Body<'a> {
    rows: Rows<'a>,
    matched: Total,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<u64>,
}

/// The rows, read while the target is there, of which one is written out at a time: millions are asked for at once.
struct Rows<'a> {
    list: Vec<(Row, Facts<'a>)>,
    chosen: Option<&'a [Column]>,
}

impl Rows<'_> {
    fn iter(&self) -> impl Iterator<Item = Map<String, Value>> + '_ {
        self.list.iter().map(|(row, facts)| json_row(row, facts, self.chosen))
    }
}

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

#[derive(Serialize)]
struct Total {
    count: u64,
    bytes: u64,
}

fn column(word: &str) -> Result<Column, Failure> {
    Column::of_name(word.trim()).ok_or_else(|| {
        let failure = Failure::new(code::USAGE, format!("there is no column {}", text::shown(word)));
        failure::with_columns(failure)
    })
}

/// `bytes`, `type:desc`: amounts begin with the largest unless something is said.
pub fn sort(word: &str) -> Result<(Column, bool), Failure> {
    let (name, direction) = word.split_once(':').map_or((word, None), |(name, way)| (name, Some(way)));
    let column = column(name)?;
    let descending = match direction {
        None => matches!(column, Column::Bytes | Column::Refcount),
        Some("desc") => true,
        Some("asc") => false,
        Some(other) => {
            let message = format!("{} is no direction to sort in", text::shown(other));
            return Err(Failure::new(code::USAGE, message).advise("asc or desc: --sort bytes:asc"));
        }
    };
    Ok((column, descending))
}

pub fn run(
    word: &OsStr,
    states: States,
    expression: Option<&str>,
    listing: &ListingOptions,
    options: &Options,
) -> Result<Answer, Failure> {
    let wanted = Wanted::of(&listing.scope)?.and(expression.map(scope::filter).transpose()?);
    let columns = listing.columns.iter().map(|word| column(word)).collect::<Result<Vec<_>, _>>()?;
    let by = listing.sort.as_deref().map(sort).transpose()?;
    let subject = open(word, options)?;
    let wanted = wanted.within(&subject)?;
    let machine = options.json || listing.csv.csv;
    let limit = listing.limit.unwrap_or(if machine { 0 } else { LIMIT });
    let order = Order {
        by: by.map(|(column, _)| column),
        descending: by.is_some_and(|(_, descending)| descending),
        limit,
    };
    let table = Listing::new(&subject.target, &subject.inspection);
    let selection = table.select(states, wanted.as_ref(), order);
    let mut reader = subject.target.reader();
    let chosen = (!columns.is_empty()).then_some(columns.as_slice());
    let truncated = selection.count - selection.rows.len() as u64;
    let list = selection.rows.iter().map(|row| (*row, table.facts(&mut reader, row))).collect();
    let body = Body {
        rows: Rows { list, chosen },
        matched: Total { count: selection.count, bytes: selection.bytes },
        truncated: Some(truncated).filter(|&cut| cut > 0),
    };
    if listing.csv.csv {
        let mut names: Vec<&str> = chosen.unwrap_or(&MACHINE).iter().map(|column| column.name()).collect();
        if chosen.is_none() {
            names.push("type_addr");
        }
        let text = csv_of(&names, body.rows.iter().map(|row| move |name: &str| row.get(name).cloned()));
        return Ok(finished(&subject, text));
    }
    let again = Again { subject: &subject, states, expression, listing };
    Ok(answer("wmr/blocks/1", &subject, options, body, |screen, body| {
        page(screen, body, chosen.unwrap_or(if screen.width >= 100 { &WIDE } else { &NARROW }), &again)
    }))
}

/// Columns for people.
const NARROW: [Column; 6] =
    [Column::Addr, Column::Bytes, Column::State, Column::Domain, Column::Kind, Column::Detail];
const WIDE: [Column; 8] = [
    Column::Addr,
    Column::Bytes,
    Column::State,
    Column::Domain,
    Column::Kind,
    Column::Detail,
    Column::Sure,
    Column::Owner,
];
/// Columns for machines, as the contract has them, then what was added.
const MACHINE: [Column; 14] = [
    Column::Addr,
    Column::Bytes,
    Column::State,
    Column::Domain,
    Column::Kind,
    Column::Detail,
    Column::Type,
    Column::Allocator,
    Column::Sure,
    Column::Module,
    Column::Arena,
    Column::Refcount,
    Column::Owner,
    Column::Mapping,
];

fn value(column: Column, row: &Row, facts: &Facts) -> Option<Value> {
    let some = |text: &str| (!text.is_empty()).then(|| json!(text));
    match column {
        Column::Addr => Some(json!(hex(row.addr))),
        Column::Bytes => Some(json!(row.bytes)),
        Column::State => some(facts.state),
        Column::Sure => some(facts.sure),
        Column::Domain => some(facts.domain),
        Column::Kind => some(facts.kind),
        Column::Detail => some(facts.detail),
        Column::Type => facts.type_of.map(|(name, ..)| json!(name)),
        Column::Module => facts.type_of.map(|(.., module)| json!(module)),
        Column::Allocator => some(facts.allocator),
        Column::Arena => facts.arena.map(|addr| json!(hex(addr))),
        Column::Refcount => facts.refcount.map(|n| json!(n)),
        Column::Owner => facts.owner.map(|addr| json!(hex(addr))),
        Column::Mapping => facts.mapping.map(|name| json!(name)),
    }
}

fn json_row(row: &Row, facts: &Facts, chosen: Option<&[Column]>) -> Map<String, Value> {
    let mut map = Map::new();
    for &column in chosen.unwrap_or(&MACHINE) {
        if let Some(value) = value(column, row, facts) {
            map.insert(column.name().to_owned(), value);
        }
        if column == Column::Type
            && chosen.is_none()
            && let Some((_, addr, _)) = facts.type_of
        {
            map.insert("type_addr".to_owned(), json!(hex(addr)));
        }
    }
    map
}

/// What was asked, to be asked again with more rows.
struct Again<'a> {
    subject: &'a Subject,
    states: States,
    expression: Option<&'a str>,
    listing: &'a ListingOptions,
}

impl Again<'_> {
    fn command(&self) -> String {
        let target = &self.subject.typed;
        let mut command = match (self.expression, self.states) {
            (Some(expression), _) => format!("wmr select {target} {}", text::quoted(expression)),
            (None, States::Used) => format!("wmr used {target}"),
            (None, States::Free) => format!("wmr free {target}"),
            (None, States::All) => format!("wmr all {target}"),
        };
        let listing = self.listing;
        let columns = (!listing.columns.is_empty()).then(|| listing.columns.join(","));
        let flags = [("sort", listing.sort.as_ref()), ("columns", columns.as_ref())];
        command.push_str(&scope::flags(&listing.scope));
        for (flag, given) in flags {
            if let Some(given) = given {
                command.push_str(&format!(" --{flag} {}", text::quoted(given)));
            }
        }
        command + " --limit 0"
    }
}

fn page(screen: &Screen, body: &Body, columns: &[Column], again: &Again) -> String {
    let mut table = Table::new(screen);
    for column in columns {
        let align = match column {
            Column::Bytes | Column::Refcount => Align::Right,
            Column::Kind | Column::Type | Column::Module => Align::Text,
            Column::Detail | Column::Mapping => Align::Path,
            _ => Align::Left,
        };
        table = table.column(column.name(), align);
    }
    for row in body.rows.iter() {
        table.row(columns.iter().map(|column| match row.get(column.name()) {
            None => String::new(),
            Some(Value::String(text)) => text::shown(text),
            Some(Value::Number(n)) if column.type_of() == Type::Number => grouped(n.as_u64().unwrap_or(0)),
            Some(other) => text::shown(&other.to_string()),
        }));
    }
    let mut out = table.render();
    if let Some(cut) = body.truncated {
        let command = again.command();
        let what = format!("{} more", grouped(cut));
        if command.len() + what.len() + 8 > screen.width {
            out.push_str(&format!("  … {what} with --limit 0\n"));
        } else {
            out.push_str(&more(screen, &what, &command));
        }
    }
    let Total { count, bytes } = body.matched;
    out + &format!("\n  {} in {}\n", grouped(bytes), counted(count, "block"))
}
