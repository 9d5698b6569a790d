//! `wmr map --sharing`: what of each kind of memory is shared, and why a forked worker's pages were copied.

use super::{answer, finished, more, title};
use crate::Answer;
use crate::cli::Options;
use crate::document::{csv, limited};
use crate::failure::{Failure, code};
use crate::numbers::{Unit, grouped, percent};
use crate::open::{self, Subject};
use crate::screen::Screen;
use crate::table::{Align, Table};
use crate::text::{shown, wrap};
use serde::Serialize;
use std::ffi::OsStr;
use wmr_heap::sharing::{Differences, Place, differences, same_interpreter};
use wmr_memory::Charge;
use wmr_memory::live::{self, Descent, SharingOptions, ToldBy, descent};

/// Kinds shown to people.
const LIMIT: usize = 24;

/// `private` and `shared` add up to `bytes`, and those of all rows to `total`: RSS and swap. Who else
/// has what is in swap is not known; it counts as private.
#[derive(Serialize)]
struct Body {
    total: u64,
    private: u64,
    shared: u64,
    domains: Vec<DomainRow>,
    rows: Vec<KindRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<usize>,
    /// When it was forked by a process of the same program.
    #[serde(skip_serializing_if = "Option::is_none")]
    since_fork: Option<SinceFork>,
}

#[derive(Serialize)]
struct DomainRow {
    domain: &'static str,
    bytes: u64,
    private: u64,
    shared: u64,
}

#[derive(Serialize)]
struct KindRow {
    domain: &'static str,
    kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    bytes: u64,
    private: u64,
    shared: u64,
}

/// What a forked process shares with its parent, bytes of private pages in RAM: the pages that are the
/// parent's still, those of which both have their own, and those that the parent has none of.
#[derive(Serialize)]
pub struct Shares {
    shared_with_parent: u64,
    unshared: u64,
    own: u64,
    /// Of the latter two, what other workers of the parent have too. Where those were looked at, and told by
    /// frames alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    shared_with_siblings: Option<u64>,
}

impl Shares {
    pub fn of(shares: &live::Shares) -> Shares {
        Shares {
            shared_with_parent: shares.with_parent,
            unshared: shares.unshared,
            own: shares.own,
            shared_with_siblings: shares.with_siblings,
        }
    }
}

#[derive(Serialize)]
struct SinceFork {
    parent: i32,
    compared_by: &'static str,
    #[serde(flatten)]
    shares: Shares,
    /// `unshared` by place and by what differs. Absent when the parent's bytes could not be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rows: Vec<PlaceRow>,
}

/// Un-shared pages that differ at most in reference counts, in words of the collector too, in nothing
/// without an object being on them, in more than that.
#[derive(Serialize, Clone, Copy)]
struct PlaceRow {
    place: &'static str,
    bytes: u64,
    refcounts: u64,
    gc_heads: u64,
    nothing: u64,
    other: u64,
    unread: u64,
}

impl PlaceRow {
    fn of(place: &'static str, found: &Differences) -> PlaceRow {
        let Differences { refcounts, gc_heads, nothing, other, unread } = *found;
        PlaceRow { place, bytes: found.total(), refcounts, gc_heads, nothing, other, unread }
    }
}

pub fn told_by_name(told_by: ToldBy) -> &'static str {
    match told_by {
        ToldBy::Frames => "frames",
        ToldBy::Exclusive => "exclusive",
    }
}

/// How it was told what is shared, and what that means.
pub fn told_by_note(told_by: ToldBy) -> &'static str {
    match told_by {
        ToldBy::Frames => "pages of workers and parents were compared by their frames in RAM",
        ToldBy::Exclusive => {
            "frames of pages are told to root alone: a worker's page counts as shared with the parent when \
             anybody else maps it"
        }
    }
}

pub fn run(word: &OsStr, as_csv: bool, options: &Options) -> Result<Answer, Failure> {
    let Some(pid) = open::pid(word)? else {
        return Err(Failure::new(code::USAGE, "a file does not tell who shares the memory")
            .advise("--sharing is for processes"));
    };
    // Before there are clones, which share all pages.
    let related = descent(pid, &SharingOptions { pages: true, ..SharingOptions::default() });
    let mut notes = Vec::new();
    let related = related.unwrap_or_else(|error| {
        // That the process itself has ended or is not permitted is said when it is opened.
        notes.push(format!("{error}: what is un-shared since a fork is not known"));
        None
    });
    let related = related.filter(|found| {
        let forked = found.shares.with_parent > 0;
        if !forked {
            notes.push(format!(
                "process {}, its parent, runs the same program and shares no memory with it: one of them was \
                 started anew since",
                found.parent
            ));
        }
        forked
    });
    let mut subject = match &related {
        Some(_) => open::open(word, options)?,
        None => open::open_for_census(word, options)?,
    };
    let since_fork = related.map(|related| since_fork(&subject, related, options, &mut notes));
    subject.inspection.notes.extend(notes);
    let body = body(&subject, since_fork, if options.json || as_csv { 0 } else { LIMIT });
    if as_csv {
        return Ok(finished(&subject, csv(&body.rows)));
    }
    let typed = subject.typed.clone();
    Ok(answer("wmr/map-sharing/1", &subject, options, body, |screen, body| page(screen, body, &typed)))
}

fn body(subject: &Subject, since_fork: Option<SinceFork>, limit: usize) -> Body {
    let ledger = &subject.inspection.tally.ledger;
    let domains = ledger.rows.iter().map(|row| DomainRow {
        domain: row.domain.name(),
        bytes: row.bytes,
        private: row.bytes - row.shared,
        shared: row.shared,
    });
    let charged = |charge: Charge| charge.total() > 0;
    let kinds = subject.inspection.by_kind().into_iter().filter(|row| charged(row.amount.charge));
    let mut rows: Vec<KindRow> = kinds
        .map(|row| KindRow {
            domain: row.kind.domain.name(),
            kind: row.kind.kind,
            detail: row.kind.detail,
            bytes: row.amount.charge.total(),
            private: row.amount.charge.private(),
            shared: row.amount.charge.shared(),
        })
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.bytes));
    let (rows, truncated) = limited(rows, limit);
    Body {
        total: ledger.total,
        private: ledger.total - ledger.shared,
        shared: ledger.shared,
        domains: domains.collect(),
        rows,
        truncated,
        since_fork,
    }
}

/// Looks at the parent too, for its bytes.
fn since_fork(subject: &Subject, related: Descent, options: &Options, notes: &mut Vec<String>) -> SinceFork {
    notes.push(told_by_note(related.told_by).to_owned());
    let rows = match compared(subject, &related, options, notes) {
        Ok(found) => found.iter().map(|(place, found)| PlaceRow::of(place.name(), found)).collect(),
        Err(why) => {
            notes.push(format!("what differs on un-shared pages is not known: {why}"));
            Vec::new()
        }
    };
    SinceFork {
        parent: related.parent,
        compared_by: told_by_name(related.told_by),
        shares: Shares::of(&related.shares),
        rows,
    }
}

fn compared(
    subject: &Subject,
    related: &Descent,
    options: &Options,
    notes: &mut Vec<String>,
) -> Result<[(Place, Differences); 3], String> {
    let Subject { target, inspection, .. } = subject;
    if let Err(error) = &inspection.python {
        return Err(error.to_string());
    }
    let parent = open::captured(related.parent, &open::live_options(options))
        .map_err(|error| format!("its parent, process {}: {error}", related.parent))?;
    let pause = parent.capture.pause.as_secs_f64() * 1e3;
    notes.push(format!("process {}, its parent, was looked at too and paused {pause:.1} ms", related.parent));
    if !same_interpreter(inspection, &parent) {
        return Err(format!("process {}, its parent, has another interpreter by now", related.parent));
    }
    let found = differences(inspection, target, &parent, &related.shares.unshared_pages);
    parent.memory.finish().map_err(|lost| lost.to_string())?;
    found.ok_or_else(|| "there is no Python in it".to_owned())
}

fn page(screen: &Screen, body: &Body, typed: &str) -> String {
    let unit = Unit::for_total(body.total);
    let number = |bytes: u64| if bytes == 0 { "0".to_owned() } else { unit.number(bytes) };
    let heading = format!(
        "{} {} of RSS and swap: {} private, {} shared with other processes",
        unit.number(body.total),
        unit.name,
        number(body.private),
        number(body.shared)
    );
    let mut table = Table::new(screen)
        .column("domain", Align::Left)
        .column("kind", Align::Text)
        .column("detail", Align::Path)
        .column(unit.name, Align::Right)
        .column("private", Align::Right)
        .column("shared", Align::Right)
        .column("% shared", Align::Right);
    let figures =
        |bytes, private, shared| [number(bytes), number(private), number(shared), percent(shared, bytes)];
    for row in &body.domains {
        let names = [row.domain.to_owned(), "all".to_owned(), String::new()];
        table.row(names.into_iter().chain(figures(row.bytes, row.private, row.shared)));
    }
    table.row([]);
    for row in &body.rows {
        let names = [row.domain.to_owned(), shown(&row.kind), shown(&row.detail)];
        table.row(names.into_iter().chain(figures(row.bytes, row.private, row.shared)));
    }
    let mut out = title(screen, &heading) + "\n" + &table.render();
    if let Some(cut) = body.truncated {
        let what = format!("{} more", grouped(cut as u64));
        out.push_str(&more(screen, &what, &format!("wmr map {typed} --sharing --csv")));
    }
    if let Some(since) = &body.since_fork {
        out.push_str(&since_page(screen, since));
    }
    out
}

fn since_page(screen: &Screen, since: &SinceFork) -> String {
    let unit = Unit::for_total(since.shares.unshared + since.shares.shared_with_parent);
    let mut out = format!("\n{}", title(screen, &format!("SINCE THE FORK from process {}", since.parent)));
    let facts = format!(
        "{} {} of private memory are the parent's pages still, {} are un-shared, {} are its own",
        unit.number(since.shares.shared_with_parent),
        unit.name,
        unit.number(since.shares.unshared),
        unit.number(since.shares.own),
    );
    let mut sentences = vec![facts];
    let all = since.rows.iter().fold(PlaceRow::of("all", &Differences::default()), |mut sum, row| {
        sum.bytes += row.bytes;
        sum.refcounts += row.refcounts;
        sum.gc_heads += row.gc_heads;
        sum.nothing += row.nothing;
        sum.other += row.other;
        sum.unread += row.unread;
        sum
    });
    if all.bytes > 0 {
        sentences.push(format!(
            "{} {} of what is un-shared ({} %) differ from the parent in reference counts at most",
            unit.number(all.refcounts),
            unit.name,
            percent(all.refcounts, all.bytes)
        ));
    }
    for line in sentences.iter().flat_map(|sentence| wrap(sentence, screen.width - 4)) {
        out.push_str(&format!("  {line}\n"));
    }
    if all.bytes == 0 {
        return out;
    }
    let mut table = Table::new(screen)
        .column("un-shared", Align::Left)
        .column(unit.name, Align::Right)
        .column("counts only", Align::Right)
        .column("and GC heads", Align::Right)
        .column("nothing", Align::Right)
        .column("other", Align::Right)
        .column("unread", Align::Right);
    let number = |bytes: u64| if bytes == 0 { "0".to_owned() } else { unit.number(bytes) };
    for row in since.rows.iter().chain([&all]) {
        table.row([
            row.place.to_owned(),
            number(row.bytes),
            number(row.refcounts),
            number(row.gc_heads),
            number(row.nothing),
            number(row.other),
            number(row.unread),
        ]);
    }
    out + "\n" + &table.render()
}
