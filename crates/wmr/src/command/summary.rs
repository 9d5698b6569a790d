//! `wmr TARGET`: the answer on one screen.

use super::findings::{self, Finding};
use super::heap::{Ledger, TypeRow, type_rows};
use super::{answer, more, title};
use crate::Answer;
use crate::cli::Options;
use crate::document::limited;
use crate::failure::Failure;
use crate::numbers::{Unit, bar, counted, grouped, percent, scaled};
use crate::open::{Subject, open};
use crate::screen::{Look, Screen};
use crate::table::{Align, Table};
use crate::text;
use serde::Serialize;
use std::ffi::OsStr;
use unicode_width::UnicodeWidthStr;
use wmr_heap::{Domain, KindRow};

/// Types on the screen.
const TOP: usize = 12;

#[derive(Serialize)]
pub struct Body {
    ledger: Ledger,
    top: Vec<TypeRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<usize>,
    findings: Vec<Finding>,
}

pub fn run(word: &OsStr, options: &Options) -> Result<Answer, Failure> {
    let subject = open(word, options)?;
    Ok(show(&subject, options))
}

/// The one screen of an inspected target.
pub fn show(subject: &Subject, options: &Options) -> Answer {
    let kinds = subject.inspection.by_kind();
    let types = type_rows(subject);
    let findings = findings::find(subject, &kinds, &types);
    let (top, truncated) = limited(types, TOP);
    let body = Body { ledger: Ledger::of(subject), top, truncated, findings };
    answer("wmr/summary/1", subject, options, body, |screen, body| {
        let mut out = where_it_is(screen, subject, &kinds);
        out.push_str(&what_it_is(screen, subject, body));
        out.push_str(&what_stands_out(screen, body));
        out
    })
}

/// The domains' names for people.
fn name(domain: Domain) -> &'static str {
    match domain {
        Domain::Python => "Python objects",
        Domain::CPython => "interpreter's own",
        Domain::Pymalloc => "pymalloc",
        Domain::Malloc => "malloc",
        Domain::Native => "native",
        Domain::Image => "code and libraries",
        Domain::Stack => "stacks",
        Domain::File => "mapped files",
        Domain::Shm => "shared memory",
        Domain::Unknown => "unknown",
    }
}

fn where_it_is(screen: &Screen, subject: &Subject, kinds: &[KindRow]) -> String {
    const NAMES: usize = 18;
    const NUMBERS: usize = 9 + 7;
    let ledger = &subject.inspection.tally.ledger;
    let unit = Unit::for_total(ledger.total);
    let bars = if screen.width >= 120 { 40 } else { 14 };
    let head = format!("{:<width$}{:>9}{:>7}", "WHERE IT IS", unit.name, "%", width = 2 + NAMES + 1 + bars);
    let mut out = title(screen, &head);
    for row in &ledger.rows {
        let drawn = bar(row.bytes, ledger.total, bars, screen.unicode);
        let blank = " ".repeat(bars - drawn.width());
        let room = screen.width.saturating_sub(2 + NAMES + 1 + bars + NUMBERS + 2);
        let parts = parts(kinds, row.domain, unit, room);
        let line = format!(
            "  {:<NAMES$} {}{blank}{:>9}{:>7}  {}",
            name(row.domain),
            screen.paint(Look::Bar, &drawn),
            unit.number(row.bytes),
            percent(row.bytes, ledger.total),
            screen.paint(Look::Dim, &parts),
        );
        out.push_str(line.trim_end());
        out.push('\n');
    }
    let what = if ledger.basis == "stored" { "stored in the core" } else { "RSS and swap" };
    let drawn = format!("  {:<NAMES$} {:<bars$}", "", what);
    out.push_str(&screen.paint(Look::Dim, &format!("{drawn}{:>9}{:>7}", unit.number(ledger.total), "100.0")));
    out + "\n\n"
}

/// The largest parts of a domain, as many as there is room for. Objects have a table of their own.
fn parts(kinds: &[KindRow], domain: Domain, unit: Unit, room: usize) -> String {
    if domain == Domain::Python {
        return String::new();
    }
    let mut sums: Vec<(String, u64)> = Vec::new();
    for row in kinds.iter().filter(|r| r.kind.domain == domain) {
        // Of images and files the file, of the rest the kind is what tells them apart.
        let name = match domain {
            Domain::Image | Domain::File | Domain::Shm if !row.kind.detail.is_empty() => {
                text::shown_bytes(text::file_name(row.kind.detail.as_bytes()))
            }
            Domain::Unknown if row.kind.kind == "unknown" => "blocks".to_owned(),
            _ => text::shown(&row.kind.kind),
        };
        let bytes = row.amount.charge.total();
        match sums.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += bytes,
            None => sums.push((name, bytes)),
        }
    }
    sums.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let mut out = String::new();
    for (name, bytes) in sums {
        let number = unit.number(bytes);
        if number.trim_matches(['0', '.']).is_empty() {
            break;
        }
        let part = format!("{}{name} {number}", if out.is_empty() { "" } else { ", " });
        if out.width() + part.width() > room {
            if out.is_empty() && room > number.len() + 6 {
                return format!("{} {number}", text::cut_middle(&name, room - number.len() - 1));
            }
            break;
        }
        out.push_str(&part);
    }
    out
}

fn what_it_is(screen: &Screen, subject: &Subject, body: &Body) -> String {
    if body.top.is_empty() {
        return String::new();
    }
    let total = subject.inspection.tally.ledger.total;
    let unit = Unit::for_total(total);
    let mut table = Table::new(screen)
        .column("", Align::Text)
        .column("count", Align::Right)
        .column(unit.name, Align::Right)
        .column("%", Align::Right)
        .column("each", Align::Right);
    for row in &body.top {
        table.row([
            format!("{:<28}", text::shown(&row.name)),
            grouped(row.count),
            unit.number(row.bytes),
            percent(row.bytes, total),
            scaled(row.bytes / row.count.max(1)),
        ]);
    }
    let table = table.render();
    // The title shares the line of the column heads.
    let (heads, rows) = table.split_once('\n').unwrap_or_default();
    let mut out = with_title(screen, "WHAT IT IS", "with what they own", heads) + rows;
    let rest = body.truncated.unwrap_or(0) as u64;
    if rest > 0 {
        let command = format!("wmr heap {} --by type", subject.typed);
        out.push_str(&more(screen, &counted(rest, "more type"), &command));
    }
    out + "\n"
}

/// Writes a title over the blank beginning of a line of column heads.
fn with_title(screen: &Screen, name: &str, aside: &str, heads: &str) -> String {
    let blank = heads.len() - heads.trim_start_matches(' ').len();
    let used = name.len() + 2 + aside.len();
    if blank <= used {
        return format!("{}\n{heads}\n", screen.paint(Look::Title, name));
    }
    format!("{}  {}{}\n", screen.paint(Look::Title, name), screen.paint(Look::Dim, aside), &heads[used..])
}

fn what_stands_out(screen: &Screen, body: &Body) -> String {
    if body.findings.is_empty() {
        return String::new();
    }
    let mut out = title(screen, "WHAT STANDS OUT");
    for finding in &body.findings {
        let mut lines = text::wrap(&finding.why, screen.width - 4);
        // The command goes behind the sentence where there is room, else below.
        let next = format!("→ {}", finding.next);
        let last = lines.last().map_or(0, |line| line.width());
        let behind = last + 2 + next.width() + 4 <= screen.width;
        let painted = screen.paint(Look::Command, &next);
        match lines.last_mut() {
            Some(line) if behind => {
                let gap = screen.width - 4 - last - next.width();
                line.push_str(&" ".repeat(gap));
                line.push_str(&painted);
            }
            _ => lines
                .push(format!("{}{painted}", " ".repeat((screen.width - 4).saturating_sub(next.width())))),
        }
        for (i, line) in lines.iter().enumerate() {
            let mark = if i > 0 { "  " } else { "· " };
            out.push_str(&format!("  {mark}{line}\n"));
        }
    }
    out
}
