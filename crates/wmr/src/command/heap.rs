//! `wmr heap`: where every byte is.

#[macro_use]
mod counted;
mod partitions;

pub use self::counted::Counted;
use super::scope::{self, Wanted};
use super::{answer, finished, more, title};
use crate::Answer;
use crate::cli::{By, Options, Scope};
use crate::document::{csv, hex, limited};
use crate::failure::Failure;
use crate::numbers::{Unit, counted, grouped, percent};
use crate::open::{Subject, open, open_for_census};
use crate::screen::Screen;
use crate::table::{Align, Table};
use crate::text::shown;
use clap::ValueEnum;
use serde::Serialize;
use std::ffi::OsStr;
use wmr_heap::Part;

/// Rows shown to people unless they say otherwise.
const LIMIT: usize = 40;

/// `ledger`: what the process is charged for, each byte in exactly one row.
#[derive(Serialize)]
pub struct Ledger {
    basis: &'static str,
    total: u64,
    rss: u64,
    swap: u64,
    named: u64,
    unknown: u64,
    heap_named_percent: f64,
    /// Beside the total: allocated, and never touched or given back.
    untouched: u64,
    rows: Vec<LedgerRow>,
}

#[derive(Serialize)]
struct LedgerRow {
    domain: &'static str,
    bytes: u64,
    resident: u64,
}

impl Ledger {
    pub fn of(subject: &Subject) -> Ledger {
        let ledger = &subject.inspection.tally.ledger;
        Ledger {
            basis: ledger.basis,
            total: ledger.total,
            rss: ledger.rss,
            swap: ledger.swap,
            named: ledger.named(),
            unknown: ledger.unknown(),
            heap_named_percent: (ledger.heap_named_percent() * 100.0).round() / 100.0,
            untouched: ledger.untouched,
            rows: ledger
                .rows
                .iter()
                .map(|r| LedgerRow { domain: r.domain.name(), bytes: r.bytes, resident: r.resident })
                .collect(),
        }
    }
}

#[derive(Serialize)]
struct Total {
    count: u64,
    bytes: u64,
}

/// A body of rows that may be cut.
#[derive(Serialize)]
struct Rows<R> {
    #[serde(skip_serializing_if = "Option::is_none")]
    ledger: Option<Ledger>,
    rows: Vec<R>,
    total: Total,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<usize>,
}

#[derive(Serialize)]
struct KindRow {
    domain: &'static str,
    kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    count: u64,
    bytes: u64,
    resident: u64,
    /// In swap.
    #[serde(skip_serializing_if = "is_zero")]
    swapped: u64,
    sure: &'static str,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// A row of `--by type`, and of the summary's `top`. `bytes` includes the blocks the objects own.
#[derive(Serialize, Clone)]
pub struct TypeRow {
    #[serde(rename = "type")]
    pub name: String,
    pub type_addr: String,
    pub module: String,
    pub count: u64,
    pub bytes: u64,
    pub sizeof: u64,
    pub gc_tracked: u64,
    /// Whose class it is, where there are several interpreters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interpreter: Option<i64>,
}

#[derive(Serialize)]
struct ModuleRow {
    module: String,
    types: u64,
    count: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct SizeRow {
    size: u64,
    allocator: &'static str,
    count: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct ArenaRow {
    /// As `wmr arenas` has it; none of chunks with mappings of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    addr: Option<String>,
    allocator: &'static str,
    /// For `--arena`.
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<u32>,
    count: u64,
    bytes: u64,
}

/// All types of a target, largest first.
pub fn type_rows(subject: &Subject) -> Vec<TypeRow> {
    rows_of(&Part::new(&subject.target, &subject.inspection, None))
}

fn rows_of(part: &Part) -> Vec<TypeRow> {
    let rows = part.by_type();
    rows.into_iter()
        .map(|r| TypeRow {
            name: r.name,
            type_addr: hex(r.addr),
            module: r.module,
            count: r.count,
            bytes: r.bytes,
            sizeof: r.sizeof,
            gc_tracked: r.gc_tracked,
            interpreter: r.interpreter,
        })
        .collect()
}

pub fn run(
    word: &OsStr,
    by: By,
    limit: Option<usize>,
    scope: &Scope,
    as_csv: bool,
    options: &Options,
) -> Result<Answer, Failure> {
    let wanted = Wanted::of(scope)?;
    // Reference counts, sizes and references are read from the target.
    let reads = scope.filter.is_some() || !matches!(by, By::Kind | By::Size | By::Arena);
    let subject = if reads { open(word, options)? } else { open_for_census(word, options)? };
    let filter = wanted.within(&subject)?;
    let part = Part::new(&subject.target, &subject.inspection, filter.as_ref());
    let view = View { subject: &subject, part: &part, options, as_csv, limit, by, scope };
    Ok(match by {
        By::Retained => partitions::retained(&view)?,
        By::ReferrerTypes => partitions::referrer_types(&view)?,
        By::Clodo => partitions::clodo(&view),
        By::Kind => {
            let rows = part.by_kind().into_iter().map(|r| KindRow {
                domain: r.kind.domain.name(),
                kind: r.kind.kind,
                detail: r.kind.detail,
                count: r.amount.count,
                bytes: r.amount.bytes,
                resident: r.amount.charge.resident,
                swapped: r.amount.charge.swapped,
                sure: r.kind.sure.name(),
            });
            view.show("wmr/heap/1", Some(Ledger::of(&subject)), rows.collect(), kinds_table)
        }
        By::Type => view.show("wmr/types/1", None, rows_of(&part), types_table),
        By::Module => {
            let rows = part.by_module().into_iter().map(|r| ModuleRow {
                module: r.module,
                types: r.types,
                count: r.count,
                bytes: r.bytes,
            });
            view.show("wmr/modules/1", None, rows.collect(), modules_table)
        }
        By::Size => {
            let rows = part.by_size().into_iter().map(|r| SizeRow {
                size: r.size,
                allocator: r.allocator,
                count: r.count,
                bytes: r.bytes,
            });
            view.show("wmr/block-sizes/1", None, rows.collect(), sizes_table)
        }
        By::Arena => {
            let rows = part.by_arena().into_iter().map(|r| ArenaRow {
                addr: r.addr.map(hex),
                allocator: r.allocator,
                number: r.number,
                count: r.count,
                bytes: r.bytes,
            });
            view.show("wmr/heap-arenas/1", None, rows.collect(), arenas_table)
        }
    })
}

counted!(KindRow, TypeRow, ModuleRow, SizeRow, ArenaRow);

struct View<'a> {
    subject: &'a Subject,
    part: &'a Part<'a>,
    options: &'a Options,
    as_csv: bool,
    limit: Option<usize>,
    by: By,
    scope: &'a Scope,
}

impl View<'_> {
    fn show<R: Serialize + Counted>(
        &self,
        schema: &'static str,
        ledger: Option<Ledger>,
        rows: Vec<R>,
        table: fn(&Screen, &[R], u64) -> String,
    ) -> Answer {
        let machine = self.options.json || self.as_csv;
        let total = Total { count: rows.iter().map(R::count).sum(), bytes: rows.iter().map(R::bytes).sum() };
        let (rows, truncated) = limited(rows, self.limit.unwrap_or(if machine { 0 } else { LIMIT }));
        if self.as_csv {
            return finished(self.subject, csv(&rows));
        }
        let body = Rows { ledger, rows, total, truncated };
        answer(schema, self.subject, self.options, body, |screen, body| {
            let charged = self.subject.inspection.tally.ledger.total;
            let mut out = match &body.ledger {
                Some(ledger) => ledger_line(screen, ledger),
                None => String::new(),
            };
            out.push_str(&table(screen, &body.rows, charged));
            if let Some(cut) = body.truncated {
                let by = self.by.to_possible_value();
                let by = by.as_ref().map_or("kind", |by| by.get_name());
                let flags = scope::flags(self.scope);
                let command = format!("wmr heap {} --by {by}{flags} --limit 0", self.subject.typed);
                out.push_str(&more(screen, &format!("{} more", grouped(cut as u64)), &command));
            }
            let Total { count, bytes } = body.total;
            out.push_str(&format!("\n  {} in {}\n", grouped(bytes), counted(count, self.noun())));
            out
        })
    }

    fn noun(&self) -> &'static str {
        match self.by {
            By::Kind => "piece",
            By::Size | By::Arena => "block",
            _ => "object",
        }
    }
}

/// The ledger in one line.
fn ledger_line(screen: &Screen, ledger: &Ledger) -> String {
    let unit = Unit::for_total(ledger.total);
    let what = if ledger.basis == "stored" { "stored" } else { "RSS and swap" };
    let line = format!(
        "{} {} of {what}, {:.1} % of the heap named",
        unit.number(ledger.total),
        unit.name,
        ledger.heap_named_percent
    );
    title(screen, &line) + "\n"
}

fn kinds_table(screen: &Screen, rows: &[KindRow], charged: u64) -> String {
    let mut table = Table::new(screen)
        .column("domain", Align::Left)
        .column("kind", Align::Text)
        .column("detail", Align::Path)
        .column("count", Align::Right)
        .column("bytes", Align::Right)
        .column("in RAM", Align::Right)
        .column("%", Align::Right);
    let wide = screen.width >= 120;
    if wide {
        table = table.column("sure", Align::Left);
    }
    for row in rows {
        let mut cells = vec![
            row.domain.to_owned(),
            shown(&row.kind),
            shown(&row.detail),
            grouped(row.count),
            grouped(row.bytes),
            grouped(row.resident),
            percent(row.resident + row.swapped, charged),
        ];
        if wide {
            cells.push(row.sure.to_owned());
        }
        table.row(cells);
    }
    table.render()
}

fn types_table(screen: &Screen, rows: &[TypeRow], charged: u64) -> String {
    let wide = screen.width >= 100;
    let mut table = Table::new(screen)
        .column("type", Align::Text)
        .column("count", Align::Right)
        .column("bytes", Align::Right)
        .column("%", Align::Right)
        .column("each", Align::Right);
    if wide {
        table = table.column("getsizeof", Align::Right).column("tracked", Align::Right);
    }
    for row in rows {
        let mut cells = vec![
            shown(&row.name),
            grouped(row.count),
            grouped(row.bytes),
            percent(row.bytes, charged),
            grouped(row.bytes / row.count.max(1)),
        ];
        if wide {
            cells.extend([grouped(row.sizeof), grouped(row.gc_tracked)]);
        }
        table.row(cells);
    }
    table.render()
}

fn modules_table(screen: &Screen, rows: &[ModuleRow], charged: u64) -> String {
    let mut table = Table::new(screen)
        .column("module", Align::Text)
        .column("types", Align::Right)
        .column("count", Align::Right)
        .column("bytes", Align::Right)
        .column("%", Align::Right);
    for row in rows {
        table.row([
            shown(&row.module),
            grouped(row.types),
            grouped(row.count),
            grouped(row.bytes),
            percent(row.bytes, charged),
        ]);
    }
    table.render()
}

fn sizes_table(screen: &Screen, rows: &[SizeRow], charged: u64) -> String {
    let mut table = Table::new(screen)
        .column("size", Align::Right)
        .column("allocator", Align::Left)
        .column("count", Align::Right)
        .column("bytes", Align::Right)
        .column("%", Align::Right);
    for row in rows {
        table.row([
            grouped(row.size),
            row.allocator.to_owned(),
            grouped(row.count),
            grouped(row.bytes),
            percent(row.bytes, charged),
        ]);
    }
    table.render()
}

fn arenas_table(screen: &Screen, rows: &[ArenaRow], charged: u64) -> String {
    let mut table = Table::new(screen)
        .column("arena", Align::Left)
        .column("allocator", Align::Left)
        .column("count", Align::Right)
        .column("bytes", Align::Right)
        .column("%", Align::Right);
    for row in rows {
        let number = row.number.map(|n| format!(" #{n}")).unwrap_or_default();
        let name = row.addr.as_deref().map_or("mappings of their own", |addr| &addr[2..]);
        table.row([
            format!("{name}{number}"),
            row.allocator.to_owned(),
            grouped(row.count),
            grouped(row.bytes),
            percent(row.bytes, charged),
        ]);
    }
    table.render()
}
