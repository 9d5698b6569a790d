//! `wmr leaks`: what nobody can reach, most bytes first.

use super::{answer, title};
use crate::Answer;
use crate::cli::Options;
use crate::document::{hex, limited};
use crate::failure::{Failure, code};
use crate::numbers::{counted, grouped, scaled};
use crate::open::{Subject, open};
use crate::screen::{Look, Screen};
use crate::text::{shown, wrap};
use clap::ValueEnum;
use serde::Serialize;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use unicode_width::UnicodeWidthStr;
use wmr_heap::leaks::{self, Leaks, State};

#[derive(Serialize)]
struct Body {
    /// Is the cyclic collector on?
    #[serde(skip_serializing_if = "Option::is_none")]
    collector_enabled: Option<bool>,
    /// Bytes of all findings that are `certain` or `likely`.
    bytes: u64,
    /// Findings that were left out, being known.
    #[serde(skip_serializing_if = "is_zero")]
    accepted: usize,
    findings: Vec<Finding>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<usize>,
}

#[derive(Serialize)]
struct Finding {
    /// `native`: blocks that are no objects; `objects`: objects with a count that nobody holds;
    /// `garbage`: cycles of objects.
    section: &'static str,
    sure: Sure,
    what: String,
    /// The same for the same leak in every process: without addresses and counts.
    signature: String,
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

/// How sure a finding is, surest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Sure {
    Certain,
    Likely,
    Possible,
}

impl Sure {
    fn name(self) -> &'static str {
        match self {
            Sure::Certain => "certain",
            Sure::Likely => "likely",
            Sure::Possible => "possible",
        }
    }
}

/// When the program is to end with a code of its own, for gates.
#[derive(Debug, Clone, Copy)]
pub struct Gate {
    pub fail_on: Option<Sure>,
    /// So much may be lost.
    pub max_bytes: u64,
}

pub fn run(
    word: &OsStr,
    limit: Option<usize>,
    known: Option<&Path>,
    gate: Gate,
    options: &Options,
) -> Result<Answer, Failure> {
    let known = known.map(read_known).transpose()?.unwrap_or_default();
    let subject = open(word, options)?;
    let leaks = leaks::find(&subject.target, &subject.inspection);
    let mut findings = native(&subject, &leaks);
    findings.extend(objects(&subject, &leaks));
    findings.extend(garbage(&subject, &leaks));
    let found = findings.len();
    findings.retain(|finding| !known.contains(&finding.signature));
    let accepted = found - findings.len();
    findings.sort_by_key(|finding| (finding.sure == Sure::Possible, std::cmp::Reverse(finding.bytes)));
    let sum = |least: Sure| findings.iter().filter(|f| f.sure <= least).map(|f| f.bytes).sum::<u64>();
    let bytes = sum(Sure::Likely);
    let exceeded = gate.fail_on.map(sum).filter(|&bytes| bytes > gate.max_bytes);
    let (findings, truncated) = limited(findings, limit.unwrap_or(if options.json { 0 } else { SHOWN }));
    let body = Body { collector_enabled: leaks.collector, bytes, accepted, findings, truncated };
    let mut answer =
        answer("wmr/leaks/1", &subject, options, body, |screen, body| page(screen, &subject, body));
    if let (0, Some(bytes)) = (answer.code, exceeded) {
        answer.code = code::LEAKS;
        answer.complaint = Some(format!("wmr: {} lost, {} accepted", scaled(bytes), scaled(gate.max_bytes)));
    }
    Ok(answer)
}

/// Signatures of accepted findings: the first word of each line; what follows is a comment, as is `#`.
fn read_known(path: &Path) -> Result<HashSet<String>, Failure> {
    /// More is no list of findings.
    const MOST: u64 = 16 << 20;
    let shown = shown(&path.to_string_lossy());
    let failure = |why: String| Failure::new(code::FAILED, format!("cannot read {shown}: {why}"));
    let mut text = Vec::new();
    let file = File::open(path).map_err(|error| failure(error.to_string()))?;
    file.take(MOST + 1).read_to_end(&mut text).map_err(|error| failure(error.to_string()))?;
    if text.len() as u64 > MOST {
        return Err(failure("it is no list of signatures".to_owned()));
    }
    let text = String::from_utf8_lossy(&text);
    let words = text.lines().filter_map(|line| line.split_whitespace().next());
    Ok(words.filter(|word| !word.starts_with('#')).map(str::to_owned).collect())
}

/// 64 bits of the name of a leak, in hexadecimal digits.
fn signature(section: &str, name: &str) -> String {
    // FNV-1a: it has to be the same in every version of the program.
    let hash = format!("{section} {name}")
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

fn next(subject: &Subject, by: &str) -> String {
    format!("wmr heap {}{by}", subject.typed)
}

fn native(subject: &Subject, leaks: &Leaks) -> Vec<Finding> {
    let finding = |group: &leaks::Native| {
        let what = if group.kind.is_empty() { "block" } else { &group.kind };
        let (sure, why) = match group.state {
            State::Possible => (Sure::Possible, "in use, and pointed into, but nobody has the beginning"),
            _ => (
                Sure::Likely,
                "in use, and no pointer to it is left: not in a stack, a register, a variable or a block",
            ),
        };
        Finding {
            section: "native",
            sure,
            what: format!("{} of {} bytes", counted(group.count, what), grouped(group.usable)),
            signature: signature("native", &format!("{what} {}", group.usable)),
            count: group.count,
            bytes: group.bytes + group.indirect,
            why: why.to_owned(),
            mentions: group.mentions.clone().filter(|_| sure != Sure::Possible),
            examples: group.examples.iter().copied().map(hex).collect(),
            next: next(subject, " --by size"),
        }
    };
    leaks.native.iter().map(finding).collect()
}

const SURPLUS: &str = "they are counted as referenced, and no such reference is left: one was not given back (a missing Py_DECREF)";

/// A single small object that was lost once is nobody's trouble: interpreters have some from their start.
fn lost_reference(count: u64, bytes: u64) -> Sure {
    if count == 1 && bytes < 1 << 16 { Sure::Possible } else { Sure::Likely }
}

fn objects(subject: &Subject, leaks: &Leaks) -> Vec<Finding> {
    let types = &subject.inspection.census.types;
    let finding = |group: &leaks::Unheld| Finding {
        section: "objects",
        sure: lost_reference(group.count, group.bytes + group.indirect),
        what: format!("{} of {}", counted(group.count, "object"), types[group.ty as usize].name),
        signature: signature("objects", &types[group.ty as usize].name),
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
    let types_of = |group: &leaks::Cycles| {
        let mut names: Vec<&str> =
            group.shape.iter().map(|&(ty, _)| types[ty as usize].name.as_str()).collect();
        names.sort_unstable();
        names.join(" ")
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
            false => (Sure::Certain, waiting),
        };
        let section = if group.surplus { "objects" } else { "garbage" };
        Finding {
            section,
            sure,
            what: format!("{} of {}{more}", counted(group.count, "cycle"), parts.join(", ")),
            signature: signature(section, &types_of(group)),
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
    if body.findings.is_empty() && body.accepted > 0 {
        return format!("Nothing but {}.\n", counted(body.accepted as u64, "known finding"));
    }
    if body.findings.is_empty() {
        out.push_str("Everything in use is reached by something: no lost memory, no unreachable objects.\n");
        return out;
    }
    out.push_str(&title(screen, &format!("NOBODY REACHES {}", scaled(body.bytes))));
    for finding in &body.findings {
        let left = format!("  {}", shown(&finding.what));
        let right = format!("{} · {}", scaled(finding.bytes), finding.sure.name());
        let gap = screen.width.saturating_sub(left.width() + right.width() + 1).max(2);
        out.push_str(&format!("{left}{}{right}\n", " ".repeat(gap)));
        let mut why = finding.why.clone();
        if let Some(file) = &finding.mentions {
            why.push_str(&format!("; they mention {}", shown(file)));
        }
        if let Some(first) = finding.examples.first() {
            why.push_str(&format!("; one is at {first}"));
        }
        why.push_str(&format!(" (signature {})", finding.signature));
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
    if body.accepted > 0 {
        let accepted = format!("  {} left out", counted(body.accepted as u64, "known finding"));
        out.push_str(&screen.paint(Look::Dim, &accepted));
        out.push('\n');
    }
    out
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}
