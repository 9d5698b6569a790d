//! `wmr leaks A B C`: what grew from each picture of a series to the next.

use super::Ask;
use super::document::Suspect as Row;
use super::finding::{Finding, Section, Sure, signature};
use super::known;
use crate::Answer;
use crate::cli::Options;
use crate::command::{answer, holders, more, title};
use crate::document::{hex, limited, local_time, rfc3339};
use crate::failure::{Failure, code};
use crate::numbers::{counted, grouped, scaled};
use crate::open::{Subject, open};
use crate::screen::{Look, Screen};
use crate::text::{command_line, shown, wrap};
use serde::Serialize;
use std::collections::HashSet;
use std::ffi::OsString;
use std::time::Duration;
use unicode_width::UnicodeWidthStr;
use wmr_heap::graph::Fold;
use wmr_heap::growth::{self, Churn, Explained, Grown, Growth, Summary};

#[derive(Serialize)]
struct Body {
    /// The pictures, oldest first.
    series: Vec<Picture>,
    /// Findings that were accepted before and are left out.
    accepted: usize,
    #[serde(flatten)]
    told: Told,
}

#[derive(Serialize)]
struct Picture {
    target: String,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rss: Option<u64>,
    explained: Parts,
}

/// What a comparison says, of files as of a process that is watched.
#[derive(Serialize)]
pub struct Told {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss_growth: Option<i64>,
    /// Of what that growth is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub growth_explained: Option<Changes>,
    pub findings: Vec<Finding>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncated: Option<usize>,
    pub suspects: Vec<Row>,
    pub growth: Vec<GrownRow>,
    pub churn: Vec<ChurnRow>,
    /// Large, and no more at the end than at first.
    pub stable: Vec<StableRow>,
}

#[derive(Serialize, Clone, Copy)]
pub struct Parts {
    objects: u64,
    native: u64,
    fragmentation: u64,
    high_water: u64,
    other: u64,
}

impl From<Explained> for Parts {
    fn from(parts: Explained) -> Parts {
        let Explained { objects, native, fragmentation, high_water, other } = parts;
        Parts { objects, native, fragmentation, high_water, other }
    }
}

/// Differences of the same.
#[derive(Serialize, Clone, Copy)]
pub struct Changes {
    objects: i64,
    native: i64,
    fragmentation: i64,
    high_water: i64,
    other: i64,
}

impl Changes {
    fn between(before: Explained, after: Explained) -> Changes {
        let less = |before: u64, after: u64| after as i64 - before as i64;
        Changes {
            objects: less(before.objects, after.objects),
            native: less(before.native, after.native),
            fragmentation: less(before.fragmentation, after.fragmentation),
            high_water: less(before.high_water, after.high_water),
            other: less(before.other, after.other),
        }
    }

    /// Those that matter, the largest first.
    pub fn sentence(self) -> String {
        let mut parts = [
            (self.objects, "objects"),
            (self.native, "native"),
            (self.fragmentation, "free between blocks in use"),
            (self.high_water, "free at the top of malloc"),
            (self.other, "code, files and stacks"),
        ];
        parts.sort_by_key(|(bytes, _)| std::cmp::Reverse(bytes.unsigned_abs()));
        let told: Vec<String> = parts
            .iter()
            .filter(|(bytes, _)| bytes.unsigned_abs() >= 64 << 10)
            .map(|(bytes, what)| format!("{} {what}", signed(*bytes)))
            .collect();
        if told.is_empty() { "nothing to speak of".to_owned() } else { told.join(", ") }
    }
}

#[derive(Serialize)]
pub struct GrownRow {
    #[serde(rename = "where")]
    place: String,
    #[serde(rename = "type")]
    name: String,
    /// Picture by picture.
    counts: Vec<u64>,
    bytes: Vec<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_hour: Option<u64>,
    /// Of the growth of the resident size.
    #[serde(skip_serializing_if = "Option::is_none")]
    share_percent: Option<f64>,
    pub signature: String,
}

#[derive(Serialize)]
pub struct ChurnRow {
    #[serde(rename = "where")]
    place: String,
    bytes: Vec<u64>,
    /// Its objects are others each time.
    replaced: bool,
}

#[derive(Serialize)]
pub struct StableRow {
    #[serde(rename = "where")]
    place: String,
    bytes: u64,
}

/// Findings that people are shown.
const SHOWN: usize = 12;
/// Of what is no leak.
const SHOWN_OTHERS: usize = 5;

pub fn run(words: &[OsString], ask: &Ask, options: &Options) -> Result<Answer, Failure> {
    let known = ask.known.map(known::read).transpose()?;
    let mut summaries: Vec<(String, Summary)> = Vec::new();
    let mut notes = Vec::new();
    let mut before: Option<Identity> = None;
    let mut last = None;
    for word in words {
        let subject = open(word, options)?;
        let identity = Identity::of(&subject);
        if let Some(before) = &before {
            before.compare(&identity, &mut notes)?;
        }
        before = Some(identity);
        summaries.push((subject.typed.clone(), summary(&subject)?));
        // One picture is held at a time.
        last = Some(subject);
    }
    let Some(mut subject) = last else {
        return Err(Failure::new(code::USAGE, "a series wants pictures"));
    };
    let mut growth = growth::compare(&summaries.iter().map(|(_, summary)| summary).collect::<Vec<_>>());
    if growth.time.is_none() {
        notes.push(
            "the times of the pictures do not ascend: the order given is kept, rates are left out".to_owned(),
        );
    }
    let found = growth.grown.len();
    if let Some(known) = &known {
        growth.grown.retain(|grown| !known.contains(&name(grown)));
        notes.extend(known.notes(found - growth.grown.len()));
    }
    subject.inspection.notes.extend(notes);
    let picture = |(target, summary): &(String, Summary)| Picture {
        target: target.clone(),
        time: rfc3339(summary.time),
        rss: summary.rss,
        explained: summary.explained.into(),
    };
    let limit = ask.limit.unwrap_or(if options.json { 0 } else { SHOWN });
    let body = Body {
        series: summaries.iter().map(picture).collect(),
        accepted: found - growth.grown.len(),
        told: Told::of(&subject.typed, &growth, &Steps::of(summaries.len()), limit),
    };
    let is_asked = |row: &&Row| ask.gate.fail_on.is_some_and(|least| row.sure <= least);
    let bytes = body.told.suspects.iter().filter(is_asked).map(|row| row.bytes).sum();
    let times: Vec<String> = summaries.iter().map(|(_, summary)| local_time(summary.time)).collect();
    let answer = answer("wmr/leaks/1", &subject, options, body, |screen, body| {
        let head = format!(
            "WHAT GREW  {} pictures from {} to {}",
            summaries.len(),
            times.first().map_or("", String::as_str),
            times.last().map_or("", String::as_str)
        );
        title(screen, &head) + &page(screen, &subject.typed, &body.told)
    });
    Ok(ask.gate.pass(answer, bytes))
}

pub fn summary(subject: &Subject) -> Result<Summary, Failure> {
    let held = holders::find(subject, Fold::Yes)?;
    Ok(Summary::of(&held, &held.reach()))
}

/// What makes two pictures those of one program.
pub struct Identity {
    typed: String,
    exe: Vec<u8>,
    cmdline: Vec<Vec<u8>>,
    pid: i32,
    version: String,
    /// Differs when a program was started anew: the kernel puts it elsewhere.
    auxv: Vec<u8>,
}

impl Identity {
    pub fn of(subject: &Subject) -> Identity {
        let process = &subject.target.process;
        Identity {
            typed: subject.typed.clone(),
            exe: process.exe.clone(),
            cmdline: process.cmdline.clone(),
            pid: process.pid,
            version: subject.inspection.python.as_ref().map_or(String::new(), |p| p.version.to_string()),
            auxv: process.auxv.clone(),
        }
    }

    pub fn exe(&self) -> &[u8] {
        &self.exe
    }

    pub fn cmdline(&self) -> &[Vec<u8>] {
        &self.cmdline
    }

    /// Was the program started anew in between?
    pub fn restarted(&self, later: &Identity) -> bool {
        let known = !self.auxv.is_empty() && !later.auxv.is_empty();
        self.pid != later.pid || (known && self.auxv != later.auxv)
    }

    fn compare(&self, later: &Identity, notes: &mut Vec<String>) -> Result<(), Failure> {
        let name = |exe: &[u8]| exe.rsplit(|byte| *byte == b'/').next().unwrap_or_default().to_vec();
        // A core knows less of its process than the process does.
        let commands = !self.cmdline.is_empty() && !later.cmdline.is_empty() && self.cmdline != later.cmdline;
        let known = !self.exe.is_empty() && !later.exe.is_empty();
        if (known && name(&self.exe) != name(&later.exe)) || self.version != later.version || commands {
            let of = |it: &Identity| format!("{} is of {}", it.typed, command_line(&it.cmdline, &it.exe));
            return Err(Failure::new(
                code::USAGE,
                format!(
                    "a series is of one program: {}, CPython {}; {}, CPython {}",
                    of(self),
                    self.version,
                    of(later),
                    later.version
                ),
            )
            .advise("two pictures of whatever programs: wmr diff A B"));
        }
        if self.restarted(later) {
            notes.push(format!(
                "between {} and {} the program was started anew: what is compared is what it holds by name",
                self.typed, later.typed
            ));
        }
        Ok(())
    }
}

/// What a comparison goes by.
#[derive(Default)]
pub struct Steps {
    pub pictures: usize,
    /// Signatures of what grew before the program was started anew.
    pub before: HashSet<String>,
}

impl Steps {
    fn of(pictures: usize) -> Steps {
        Steps { pictures, ..Steps::default() }
    }
}

impl Told {
    pub fn of(typed: &str, growth: &Growth, steps: &Steps, limit: usize) -> Told {
        let rss_growth = growth.rss.map(|(before, after)| after as i64 - before as i64);
        let findings: Vec<Finding> =
            growth.grown.iter().map(|grown| finding(typed, growth, grown, steps)).collect();
        let suspects = findings.iter().map(row).collect();
        let (findings, truncated) = limited(findings, limit);
        Told {
            rss_growth,
            growth_explained: growth.explained.map(|(before, after)| Changes::between(before, after)),
            findings,
            truncated,
            suspects,
            growth: growth.grown.iter().map(|grown| grown_row(growth, grown)).collect(),
            churn: growth.churn.iter().map(churn_row).collect(),
            stable: growth
                .stable
                .iter()
                .map(|line| StableRow { place: line.place.name.clone(), bytes: line.all_bytes })
                .collect(),
        }
    }
}

fn per_hour(bytes: u64, time: Option<Duration>) -> Option<u64> {
    // Seconds of growth say nothing about hours, but they are what there is.
    Some((bytes as f64 * 3600.0 / time?.as_secs_f64()) as u64)
}

/// Of the growth of the resident size, where there is one.
fn share(bytes: u64, growth: &Growth) -> Option<f64> {
    let (before, after) = growth.rss?;
    let more = after.checked_sub(before).filter(|more| *more >= 64 << 10)?;
    Some((bytes as f64 * 1000.0 / more as f64).round() / 10.0)
}

fn name(grown: &Grown) -> String {
    // The same as when it is suspected in one picture.
    signature("suspects", &grown.container.place.key)
}

/// Three pictures in a row are no accident; two may be, where it did not grow before the program was started anew.
fn sure(growth: &Growth, grown: &Grown, steps: &Steps) -> Sure {
    let large = grown.more() >= 64 << 10 || grown.more_objects() >= 100;
    let much = share(grown.more(), growth).is_some_and(|share| share >= 10.0);
    let again = steps.before.contains(&name(grown));
    match steps.pictures + usize::from(again) {
        5.. if large && much && grown.stayed > 0.9 => Sure::Certain,
        3.. if large => Sure::Likely,
        _ => Sure::Possible,
    }
}

fn finding(typed: &str, growth: &Growth, grown: &Grown, steps: &Steps) -> Finding {
    let rate = per_hour(grown.more(), growth.time).map(|rate| format!("{} an hour", scaled(rate)));
    let share = share(grown.more(), growth).map(|share| format!("{share:.0} % of what the process grew"));
    let stayed = format!("{:.0} % of those that were there at first still are", grown.stayed * 100.0);
    let mut why =
        vec![format!("more in each of {} than in the one before", counted(steps.pictures as u64, "picture"))];
    if steps.before.contains(&name(grown)) {
        why.push("it grew before the program was started anew, too".to_owned());
    }
    why.extend(rate);
    why.extend(share);
    why.push(stayed);
    let objects = grown.more_objects();
    let what = if objects > 0 {
        format!(
            "{} × {} more, {} now",
            grouped(objects),
            grown.line.type_name,
            grouped(grown.counts.last().copied().unwrap_or(0))
        )
    } else {
        format!("a {} that became larger", grown.line.type_name)
    };
    Finding {
        place: Some(grown.container.place.name.clone()),
        path: grown.container.place.steps.clone(),
        count: if objects > 0 { objects } else { 1 },
        bytes: grown.more(),
        why: why.join("; "),
        examples: vec![hex(grown.container.addr)],
        next: next_of(typed, &format!(" --story {}", hex(grown.container.addr))),
        ..Finding::new(Section::Growth, sure(growth, grown, steps), what, name(grown))
    }
}

fn next_of(typed: &str, rest: &str) -> String {
    format!("wmr leaks {typed}{rest}")
}

fn row(finding: &Finding) -> Row {
    Row {
        what: finding.what.clone(),
        place: finding.place.clone().unwrap_or_default(),
        bytes: finding.bytes,
        count: finding.count,
        path: finding.path.clone(),
        why: finding.why.clone(),
        sure: finding.sure,
        signature: finding.signature.clone(),
        addr: finding.examples.first().cloned().unwrap_or_default(),
    }
}

fn grown_row(growth: &Growth, grown: &Grown) -> GrownRow {
    GrownRow {
        place: grown.container.place.name.clone(),
        name: grown.line.type_name.clone(),
        counts: grown.counts.clone(),
        bytes: grown.bytes.clone(),
        bytes_per_hour: per_hour(grown.more(), growth.time),
        share_percent: share(grown.more(), growth),
        signature: name(grown),
    }
}

fn churn_row(churn: &Churn) -> ChurnRow {
    ChurnRow { place: churn.line.place.name.clone(), bytes: churn.bytes.clone(), replaced: churn.replaced }
}

fn signed(bytes: i64) -> String {
    format!("{}{}", if bytes < 0 { "-" } else { "+" }, scaled(bytes.unsigned_abs()))
}

pub fn page(screen: &Screen, typed: &str, told: &Told) -> String {
    let mut out = String::new();
    if let Some(growth) = told.rss_growth {
        let of = told.growth_explained.map(|changes| format!(": {}", changes.sentence())).unwrap_or_default();
        for line in wrap(&format!("RSS {}{of}", signed(growth)), screen.width - 2) {
            out.push_str(&format!("  {line}\n"));
        }
    }
    if told.findings.is_empty() {
        out.push_str("  Nothing was more in each picture than in the one before.\n");
    }
    for finding in &told.findings {
        let left = format!("  {}  {}", shown(finding.place.as_deref().unwrap_or("?")), shown(&finding.what));
        let right = format!("+{} · {}", scaled(finding.bytes), finding.sure.name());
        let gap = screen.width.saturating_sub(left.width() + right.width() + 1).max(2);
        out.push_str(&format!("{left}{}{right}\n", " ".repeat(gap)));
        for line in
            wrap(&shown(&format!("{} (signature {})", finding.why, finding.signature)), screen.width - 6)
        {
            out.push_str(&screen.paint(Look::Dim, &format!("      {line}")));
            out.push('\n');
        }
    }
    if let Some(rest) = told.truncated {
        out.push_str(&more(
            screen,
            &counted(rest as u64, "more finding"),
            &format!("wmr leaks … {typed} --limit 0"),
        ));
    }
    let mut list = |head: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            out.push_str(&format!("\n{}", title(screen, head)));
            lines.iter().for_each(|line| out.push_str(&format!("  {line}\n")));
        }
    };
    let churn = told.churn.iter().take(SHOWN_OTHERS).map(|churn| {
        let bytes: Vec<String> = churn.bytes.iter().map(|bytes| scaled(*bytes)).collect();
        let how = if churn.replaced { ", others each time" } else { "" };
        format!("{}  {}{how}", shown(&churn.place), bytes.join(" → "))
    });
    list("COMES AND GOES, not a leak", churn.collect());
    let stable = told.stable.iter().take(SHOWN_OTHERS);
    list(
        "LARGE AND STABLE, not a leak",
        stable.map(|line| format!("{}  {}", shown(&line.place), scaled(line.bytes))).collect(),
    );
    out
}
