//! Partitions of the objects that take more than the census: by what refers to them, and by what goes with them.

use super::View;
use crate::Answer;
use crate::command::holders;
use crate::document::hex;
use crate::failure::Failure;
use crate::numbers::{grouped, percent};
use crate::screen::Screen;
use crate::table::{Align, Table};
use crate::text::shown;
use serde::Serialize;
use wmr_heap::graph::{Fold, Hanging};
use wmr_heap::partition::{self, Classes};

#[derive(Serialize)]
struct RetainedRow {
    #[serde(rename = "type")]
    name: String,
    type_addr: String,
    module: String,
    count: u64,
    bytes: u64,
    retained: u64,
}

#[derive(Serialize)]
struct ReferrersRow {
    /// None of what no object refers to.
    referrers: Vec<String>,
    count: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct ClassRow {
    class: String,
    #[serde(rename = "type")]
    name: String,
    /// Of a dict that is a namespace: the type of the object whose it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    count: u64,
    bytes: u64,
}

counted!(RetainedRow, ReferrersRow, ClassRow);

pub fn retained(view: &View) -> Result<Answer, Failure> {
    let held = holders::find(view.subject, Fold::Yes)?;
    let dominators = held.dominators();
    let retained = held.retained(&dominators);
    let hanging = Hanging::of(&dominators);
    let rows = partition::by_retained(held.inspection, &held.graph, &hanging, &retained, &|block| {
        view.part.contains(block)
    });
    let rows = rows.into_iter().map(|row| RetainedRow {
        name: row.name,
        type_addr: hex(row.addr),
        module: row.module,
        count: row.count,
        bytes: row.bytes,
        retained: row.retained,
    });
    Ok(view.show("wmr/retained-types/1", None, rows.collect(), retained_table))
}

pub fn referrer_types(view: &View) -> Result<Answer, Failure> {
    let held = holders::find(view.subject, Fold::No)?;
    let classes = Classes::find(held.target, held.inspection);
    let rows = classes.map_or_else(Vec::new, |classes| {
        classes.by_referrers(&held.graph, &|block| view.part.contains(block))
    });
    let rows = rows.into_iter().map(|row| ReferrersRow {
        referrers: row.referrers,
        count: row.count,
        bytes: row.bytes,
    });
    Ok(view.show("wmr/referrer-types/1", None, rows.collect(), referrers_table))
}

pub fn clodo(view: &View) -> Answer {
    let classes = Classes::find(&view.subject.target, &view.subject.inspection);
    let rows = classes.map_or_else(Vec::new, |classes| classes.rows(&|block| view.part.contains(block)));
    let rows = rows.into_iter().map(|row| ClassRow {
        class: row.class,
        name: row.type_name,
        owner: row.owner,
        count: row.count,
        bytes: row.bytes,
    });
    view.show("wmr/classes/1", None, rows.collect(), classes_table)
}

fn table<'s>(screen: &'s Screen, first: &'static str) -> Table<'s> {
    Table::new(screen)
        .column(first, Align::Text)
        .column("count", Align::Right)
        .column("bytes", Align::Right)
        .column("%", Align::Right)
}

fn retained_table(screen: &Screen, rows: &[RetainedRow], charged: u64) -> String {
    let mut table = table(screen, "type").column("retained", Align::Right).column("%", Align::Right);
    for row in rows {
        table.row([
            shown(&row.name),
            grouped(row.count),
            grouped(row.bytes),
            percent(row.bytes, charged),
            grouped(row.retained),
            percent(row.retained, charged),
        ]);
    }
    table.render()
}

fn referrers_table(screen: &Screen, rows: &[ReferrersRow], charged: u64) -> String {
    let mut table = table(screen, "referred to by");
    for row in rows {
        let names = match row.referrers.is_empty() {
            true => "no object".to_owned(),
            false => row.referrers.join(", "),
        };
        table.row([shown(&names), grouped(row.count), grouped(row.bytes), percent(row.bytes, charged)]);
    }
    table.render()
}

fn classes_table(screen: &Screen, rows: &[ClassRow], charged: u64) -> String {
    let mut table = table(screen, "class");
    for row in rows {
        let cells = [shown(&row.class), grouped(row.count), grouped(row.bytes), percent(row.bytes, charged)];
        table.row(cells);
    }
    table.render()
}
