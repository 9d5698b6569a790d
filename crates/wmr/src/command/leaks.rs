//! `wmr leaks`: what nobody can reach, most bytes first.

use super::{answer, title};
use crate::Answer;
use crate::cli::Options;
use crate::document::{hex, limited};
use crate::failure::Failure;
use crate::numbers::{counted, grouped, scaled};
use crate::open::{Subject, open};
use crate::screen::{Look, Screen};
use crate::text::{shown, wrap};
use serde::Serialize;
use std::ffi::OsStr;
use unicode_width::UnicodeWidthStr;
use wmr_heap::leaks::{self, Leaks, State};

#[derive(Serialize)]
struct Body {
    /// Is the cyclic collector on?
    #[serde(skip_serializing_if = "Option::is_none")]
    collector_enabled: Option<bool>,
    /// Bytes of all findings that are `certain` or `likely`.
    bytes: u64,
    findings: Vec<Finding>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<usize>,
}

#[derive(Serialize)]
struct Finding {
    /// `native`: blocks that are no objects; `objects`: objects with a count that nobody holds;
    /// `garbage`: cycles of objects.
    section: &'static str,
    /// `certain`, `likely` or `possible`.
    sure: &'static str,
    what: String,
    count: u64,
    bytes: u64,
    why: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mentions: Option<String>,
    examples: Vec<String>,
    next: String,
}

/// Findings that people are shown.
const SHOWN: usize = 12;

pub fn run(word: &OsStr, limit: Option<usize>, options: &Options) -> Result<Answer, Failure> {
    let subject = open(word, options)?;
    let leaks = leaks::find(&subject.target, &subject.inspection);
    let mut findings = native(&subject, &leaks);
    findings.extend(objects(&subject, &leaks));
    findings.extend(garbage(&subject, &leaks));
    findings.sort_by(|a, b| (a.sure == "possible", b.bytes).cmp(&(b.sure == "possible", a.bytes)));
    let bytes = findings.iter().filter(|f| f.sure != "possible").map(|f| f.bytes).sum();
    let (findings, truncated) = limited(findings, limit.unwrap_or(if options.json { 0 } else { SHOWN }));
    let body = Body { collector_enabled: leaks.collector, bytes, findings, truncated };
    Ok(answer("wmr/leaks/1", &subject, options, body, |screen, body| page(screen, &subject, body)))
}

fn next(subject: &Subject, by: &str) -> String {
    format!("wmr heap {}{by}", subject.typed)
}

fn native(subject: &Subject, leaks: &Leaks) -> Vec<Finding> {
    let finding = |group: &leaks::Native| {
        let what = if group.kind.is_empty() { "block" } else { &group.kind };
        let (sure, why) = match group.state {
            State::Possible => ("possible", "in use, and pointed into, but nobody has the beginning"),
            _ => (
                "likely",
                "in use, and no pointer to it is left: not in a stack, a register, a variable or a block",
            ),
        };
        Finding {
            section: "native",
            sure,
            what: format!("{} of {} bytes", counted(group.count, what), grouped(group.usable)),
            count: group.count,
            bytes: group.bytes + group.indirect,
            why: why.to_owned(),
            mentions: group.mentions.clone().filter(|_| sure != "possible"),
            examples: group.examples.iter().copied().map(hex).collect(),
            next: next(subject, " --by size"),
        }
    };
    leaks.native.iter().map(finding).collect()
}

const SURPLUS: &str = "they are counted as referenced, and no such reference is left: one was not given back (a missing Py_DECREF)";

/// A single small object that was lost once is nobody's trouble: interpreters have some from their start.
fn lost_reference(count: u64, bytes: u64) -> &'static str {
    if count == 1 && bytes < 1 << 16 { "possible" } else { "likely" }
}

fn objects(subject: &Subject, leaks: &Leaks) -> Vec<Finding> {
    let types = &subject.inspection.census.types;
    let finding = |group: &leaks::Unheld| Finding {
        section: "objects",
        sure: lost_reference(group.count, group.bytes + group.indirect),
        what: format!("{} of {}", counted(group.count, "object"), types[group.ty as usize].name),
        count: group.count,
        bytes: group.bytes + group.indirect,
        why: SURPLUS.to_owned(),
        mentions: None,
        examples: group.examples.iter().copied().map(hex).collect(),
        next: next(subject, " --by type"),
    };
    leaks.unheld.iter().map(finding).collect()
}

fn garbage(subject: &Subject, leaks: &Leaks) -> Vec<Finding> {
    let inspection = &subject.inspection;
    let types = &inspection.census.types;
    let waiting = match leaks.collector {
        Some(false) => {
            "nothing reaches them, and the collector is off: gc.enable(), or gc.collect() now and then"
        }
        _ => "nothing reaches them; the collector has not come to them yet, or cannot take them",
    };
    let finding = |group: &leaks::Cycles| {
        let parts: Vec<String> = group
            .shape
            .iter()
            .take(4)
            .map(|&(ty, count)| format!("{} {}", grouped(count), types[ty as usize].name))
            .collect();
        let more = if group.shape.len() > 4 { ", …" } else { "" };
        let examples = group.example.iter().filter_map(|&block| inspection.object(&subject.target, block));
        let (sure, why) = match group.surplus {
            true => (lost_reference(group.count, group.bytes), SURPLUS),
            false => ("certain", waiting),
        };
        Finding {
            section: if group.surplus { "objects" } else { "garbage" },
            sure,
            what: format!("{} of {}{more}", counted(group.count, "cycle"), parts.join(", ")),
            count: group.objects,
            bytes: group.bytes,
            why: why.to_owned(),
            mentions: None,
            examples: examples.map(|object| hex(object.addr)).collect(),
            next: next(subject, " --by type"),
        }
    };
    leaks.garbage.iter().map(finding).collect()
}

fn page(screen: &Screen, subject: &Subject, body: &Body) -> String {
    let mut out = String::new();
    if body.findings.is_empty() {
        out.push_str("Everything in use is reached by something: no lost memory, no unreachable objects.\n");
        return out;
    }
    out.push_str(&title(screen, &format!("NOBODY REACHES {}", scaled(body.bytes))));
    for finding in &body.findings {
        let left = format!("  {}", shown(&finding.what));
        let right = format!("{} · {}", scaled(finding.bytes), finding.sure);
        let gap = screen.width.saturating_sub(left.width() + right.width() + 1).max(2);
        out.push_str(&format!("{left}{}{right}\n", " ".repeat(gap)));
        let mut why = finding.why.clone();
        if let Some(file) = &finding.mentions {
            why.push_str(&format!("; they mention {}", shown(file)));
        }
        if let Some(first) = finding.examples.first() {
            why.push_str(&format!("; one is at {first}"));
        }
        for line in wrap(&why, screen.width - 6) {
            out.push_str(&screen.paint(Look::Dim, &format!("      {line}")));
            out.push('\n');
        }
    }
    if let Some(rest) = body.truncated {
        out.push_str(&super::more(
            screen,
            &counted(rest as u64, "more finding"),
            &format!("wmr leaks {} --limit 0", subject.typed),
        ));
    }
    out
}
