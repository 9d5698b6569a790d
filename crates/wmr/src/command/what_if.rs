//! `wmr what-if`: what would be freed if some objects went away.

use super::{holders, noting, scope, title, wanted};
use crate::Answer;
use crate::cli::Options;
use crate::document::{hex, limited};
use crate::failure::Failure;
use crate::numbers::{counted, grouped, percent, scaled};
use crate::open::{Subject, open};
use crate::screen::Screen;
use crate::table::{Align, Table};
use crate::text::{quoted, shown};
use serde::Serialize;
use std::ffi::OsStr;
use wmr_heap::Held;
use wmr_heap::graph::{Bits, Reach};

#[derive(Serialize)]
struct Body {
    without: String,
    /// What matches, by itself.
    matched: Amount,
    /// Of that, what no root led to in the first place.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreached: Option<Amount>,
    /// What no root leads to any more, what matches included.
    freed: Amount,
    /// Of that, what does not match: it goes with the others.
    beyond: Amount,
    /// All that roots lead to now.
    total: Amount,
    /// What would be freed, by type.
    rows: Vec<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<usize>,
}

#[derive(Serialize, Default, Clone, Copy, PartialEq, Eq)]
struct Amount {
    count: u64,
    bytes: u64,
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

#[derive(Serialize)]
struct Row {
    #[serde(rename = "type")]
    name: String,
    type_addr: String,
    count: u64,
    bytes: u64,
    /// Of these, what matches.
    matched: u64,
}

/// Rows that people are shown.
const SHOWN: usize = 25;

pub fn run(
    word: &OsStr,
    without: &str,
    limit: Option<usize>,
    no_fold: bool,
    options: &Options,
) -> Result<Answer, Failure> {
    let filter = scope::filter(without)?;
    let subject = open(word, options)?;
    let held = holders::find(&subject, holders::fold(no_fold))?;
    let gone = wanted::of_filter(&subject, &held, &filter);
    wanted::some(&subject, &gone, without)?;
    let mut body = freed(&held, &gone, without);
    (body.rows, body.truncated) =
        limited(std::mem::take(&mut body.rows), limit.unwrap_or(if options.json { 0 } else { SHOWN }));
    let notes = holders::left_out(&held);
    Ok(noting("wmr/whatif/1", &subject, notes, options, body, |screen, body| page(screen, &subject, body)))
}

fn freed(held: &Held, gone: &Bits, without: &str) -> Body {
    let roots = held.root_nodes();
    let now = Reach::from(&held.graph.csr, &roots);
    let then = Reach::without(&held.graph.csr, &roots, gone);
    let types = &held.inspection.census.types;
    let mut by_type = vec![(Amount::default(), 0u64); types.len()];
    let [mut matched, mut unreached, mut freed, mut beyond, mut total] = [Amount::default(); 5];
    for node in gone.iter() {
        matched.add(held.graph.size(node));
        if !now.reaches(node) {
            unreached.add(held.graph.size(node));
        }
    }
    for &node in &now.order {
        // Static objects are never freed.
        if node >= held.graph.first_static() {
            continue;
        }
        let size = held.graph.size(node);
        total.add(size);
        if then.reaches(node) {
            continue;
        }
        let is_matched = gone.contains(node);
        freed.add(size);
        if !is_matched {
            beyond.add(size);
        }
        if let Some((amount, matched)) =
            held.type_of(node).and_then(|ty| by_type.get_mut(ty.shape.id as usize))
        {
            amount.add(size);
            *matched += u64::from(is_matched);
        }
    }
    let rows = types.iter().zip(by_type).filter(|(_, (amount, _))| amount.count > 0);
    let mut rows: Vec<Row> = rows
        .map(|(ty, (amount, matched))| Row {
            name: ty.name.clone(),
            type_addr: hex(ty.addr),
            count: amount.count,
            bytes: amount.bytes,
            matched,
        })
        .collect();
    rows.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
    Body {
        without: without.to_owned(),
        matched,
        unreached: Some(unreached).filter(|amount| amount.count > 0),
        freed,
        beyond,
        total,
        rows,
        truncated: None,
    }
}

fn page(screen: &Screen, subject: &Subject, body: &Body) -> String {
    let mut out =
        title(screen, &format!("WITHOUT {}", crate::text::cut(&shown(&body.without), screen.width - 8)));
    let mut line = |name: &str, amount: &Amount, note: &str| {
        let what = format!("{} in {}", scaled(amount.bytes), counted(amount.count, "object"));
        let text = format!("  {name:<10} {what}{note}");
        out.push_str(crate::text::cut(&text, screen.width).trim_end());
        out.push('\n');
    };
    line("matched", &body.matched, "");
    line("freed", &body.freed, &format!(", {} % of all", percent(body.freed.bytes, body.total.bytes)));
    line("beyond", &body.beyond, " that go with them");
    if let Some(unreached) = &body.unreached {
        line("unreached", unreached, " of what matches: garbage already");
    }
    out.push('\n');
    let mut table = Table::new(screen)
        .column("type", Align::Text)
        .column("count", Align::Right)
        .column("matched", Align::Right)
        .column("bytes", Align::Right)
        .column("%", Align::Right);
    for row in &body.rows {
        table.row([
            shown(&row.name),
            grouped(row.count),
            grouped(row.matched),
            grouped(row.bytes),
            percent(row.bytes, body.freed.bytes),
        ]);
    }
    out.push_str(&table.render());
    if let Some(rest) = body.truncated {
        let what = counted(rest as u64, "more type");
        let command = format!("wmr what-if {} --without {} --limit 0", subject.typed, quoted(&body.without));
        match command.len() + what.len() + 8 > screen.width {
            true => out.push_str(&format!("  … {what} with --limit 0\n")),
            false => out.push_str(&super::more(screen, &what, &command)),
        }
    }
    out
}
