//! `wmr diff`: what is new, freed and used anew between two targets.

use super::scope::{self, Wanted};
use super::{answer, labels, more, title};
use crate::Answer;
use crate::cli::{Options, Scope};
use crate::document::{limited, rfc3339};
use crate::failure::{Failure, code};
use crate::numbers::{counted, grouped, scaled};
use crate::open::{open_for_census, pid};
use crate::screen::Screen;
use crate::table::{Align, Table};
use crate::text::{self, shown};
use serde::Serialize;
use std::ffi::{OsStr, OsString};
use wmr_heap::difference::{Blocks, Change, Names, Sum, compare};
use wmr_heap::select::Listing;

/// Rows shown to people unless they say otherwise.
const LIMIT: usize = 40;

#[derive(Serialize)]
struct Body {
    before: Before,
    new: Amount,
    freed: Amount,
    /// At addresses that held another size or kind before.
    reused: Amount,
    unchanged: Amount,
    /// Names of which anything changed, those that grew most first.
    rows: Vec<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<usize>,
}

/// The earlier target; the later one is the document's own.
#[derive(Serialize)]
struct Before {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    time: String,
    exe: String,
}

#[derive(Serialize, Clone, Copy)]
struct Amount {
    count: u64,
    bytes: u64,
}

impl From<Sum> for Amount {
    fn from(sum: Sum) -> Amount {
        Amount { count: sum.count, bytes: sum.bytes }
    }
}

#[derive(Serialize)]
struct Row {
    domain: &'static str,
    kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    before: Amount,
    after: Amount,
    new: Amount,
    freed: Amount,
    reused: Amount,
}

/// What the two words mean: earlier, later.
fn sides(before: &OsStr, after: Option<&OsStr>) -> Result<(OsString, OsString), Failure> {
    let Some(pid) = pid(before)? else {
        let after = after.ok_or_else(|| {
            Failure::new(code::USAGE, "two targets are compared, or a pid with a label of its own")
                .advise("wmr diff BEFORE AFTER, or wmr diff PID [LABEL]")
        })?;
        return Ok((before.to_owned(), after.to_owned()));
    };
    let Some(after) = after else {
        let latest = labels::of(pid)?.pop().ok_or_else(|| {
            Failure::new(code::FAILED, format!("process {pid} has no labels to compare with"))
                .advise(format!("wmr label {pid} NAME, and later wmr diff {pid} NAME"))
        })?;
        return Ok((latest.path.into_os_string(), before.to_owned()));
    };
    // A word that names no file, nor a pid, is a label of the process.
    let is_pid = self::pid(after)?.is_some();
    match after.to_str().filter(|_| !is_pid && !std::path::Path::new(after).exists()) {
        None => Ok((before.to_owned(), after.to_owned())),
        Some(name) => {
            let path = labels::path(pid, name)?;
            if !path.exists() {
                let message =
                    format!("process {pid} has no label {}, and there is no such file", shown(name));
                return Err(Failure::new(code::FAILED, message).advise(format!("wmr log {pid}")));
            }
            Ok((path.into_os_string(), before.to_owned()))
        }
    }
}

pub fn run(
    before: &OsStr,
    after: Option<&OsStr>,
    limit: Option<usize>,
    scope: &Scope,
    options: &Options,
) -> Result<Answer, Failure> {
    let wanted = Wanted::of(scope)?;
    let (before, after) = sides(before, after)?;
    let mut names = Names::default();
    let (old, facts) = {
        let subject = open_for_census(&before, options)?;
        let listing = Listing::new(&subject.target, &subject.inspection);
        let old = Blocks::of(&listing, wanted.within(&subject)?.as_ref(), &mut names);
        subject.target.memory.finish().map_err(crate::failure::of_lost)?;
        let process = &subject.target.process;
        let facts = Before {
            name: text::utf8(before.as_encoded_bytes()),
            pid: Some(process.pid).filter(|&pid| pid > 0),
            time: rfc3339(subject.target.capture.time),
            exe: text::utf8(&process.exe),
        };
        (old, facts)
    };
    let mut subject = open_for_census(&after, options)?;
    let process = &subject.target.process;
    let other = text::utf8(&process.exe) != facts.exe;
    if other || facts.pid.is_some_and(|pid| process.pid > 0 && pid != process.pid) {
        let what = if other { "programs" } else { "processes" };
        subject.inspection.notes.insert(
            0,
            format!("these are two {what}: an address in one says nothing of the other, only sums compare"),
        );
    }
    let listing = Listing::new(&subject.target, &subject.inspection);
    let new = Blocks::of(&listing, wanted.within(&subject)?.as_ref(), &mut names);
    let found = compare(&names, &old, &new);
    let rows = found.rows.into_iter().map(|((domain, kind, detail), change)| Row {
        domain,
        kind,
        detail,
        before: change.before.into(),
        after: change.after.into(),
        new: change.new.into(),
        freed: change.freed.into(),
        reused: change.reused.into(),
    });
    let (rows, truncated) = limited(rows.collect(), limit.unwrap_or(if options.json { 0 } else { LIMIT }));
    let Change { new, freed, reused, unchanged, .. } = found.total;
    let body = Body {
        before: facts,
        new: new.into(),
        freed: freed.into(),
        reused: reused.into(),
        unchanged: unchanged.into(),
        rows,
        truncated,
    };
    let again = format!(
        "wmr diff {} {}{} --limit 0",
        text::quoted(&before.to_string_lossy()),
        text::quoted(&after.to_string_lossy()),
        scope::flags(scope)
    );
    Ok(answer("wmr/diff/1", &subject, options, body, |screen, body| page(screen, body, &again)))
}

fn signed(before: u64, after: u64) -> String {
    match after.checked_sub(before) {
        Some(more) => format!("+{}", grouped(more)),
        None => format!("-{}", grouped(before - after)),
    }
}

fn page(screen: &Screen, body: &Body, again: &str) -> String {
    let mut out = title(screen, &format!("SINCE {}", shown(&body.before.time)));
    let amounts =
        [("new", body.new), ("freed", body.freed), ("other use", body.reused), ("unchanged", body.unchanged)];
    for (name, amount) in amounts {
        out.push_str(&format!(
            "  {name:<10} {} in {}\n",
            scaled(amount.bytes),
            counted(amount.count, "block")
        ));
    }
    if body.rows.is_empty() {
        return out;
    }
    out.push('\n');
    let mut table = Table::new(screen)
        .column("domain", Align::Left)
        .column("kind", Align::Text)
        .column("detail", Align::Path)
        .column("count", Align::Right)
        .column("change", Align::Right)
        .column("bytes", Align::Right)
        .column("change", Align::Right)
        .column("other use", Align::Right);
    for row in &body.rows {
        table.row([
            row.domain.to_owned(),
            shown(&row.kind),
            shown(&row.detail),
            grouped(row.after.count),
            signed(row.before.count, row.after.count),
            grouped(row.after.bytes),
            signed(row.before.bytes, row.after.bytes),
            grouped(row.reused.count),
        ]);
    }
    out.push_str(&table.render());
    if let Some(cut) = body.truncated {
        out.push_str(&more(screen, &format!("{} more", grouped(cut as u64)), again));
    }
    out
}
