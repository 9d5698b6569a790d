//! `wmr leaks`: what is lost, waits or is held too long, most bytes first.
//!
//! Each module finds in its own way and tells it as [`Finding`]s; here they become one report.

mod audit;
mod collector;
mod document;
mod finding;
mod garbage;
pub mod growth;
mod idle;
mod known;
mod native;
mod objects;
mod page;
mod story;
mod surplus;
mod suspects;
mod unread;

pub use finding::Sure;
pub use story::run as story;

use super::holders;
use super::noting;
use crate::Answer;
use crate::cli::Options;
use crate::document::limited;
use crate::failure::{Failure, code};
use crate::numbers::scaled;
use crate::open::open;
use document::{Body, Garbage, Native};
use finding::Finding;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::Path;
use wmr_heap::graph::Fold;
use wmr_heap::leaks::{self, Counts};

/// Findings that people are shown.
const SHOWN: usize = 12;

/// What is asked of a target or of a series.
pub struct Ask<'a> {
    pub limit: Option<usize>,
    /// A file of findings that were accepted before.
    pub known: Option<&'a Path>,
    pub gate: Gate,
}

/// When the program is to end with a code of its own, for gates.
#[derive(Debug, Clone, Copy)]
pub struct Gate {
    pub fail_on: Option<Sure>,
    /// So much may be lost.
    pub max_bytes: u64,
}

impl Gate {
    /// Ends with a code of its own where more is lost than may be: `bytes`, of all findings that are as sure as
    /// the gate asks.
    fn pass(self, mut answer: Answer, bytes: u64) -> Answer {
        if answer.code == 0 && self.fail_on.is_some() && bytes > self.max_bytes {
            answer.code = code::LEAKS;
            answer.complaint =
                Some(format!("wmr: {} lost, {} accepted", scaled(bytes), scaled(self.max_bytes)));
        }
        answer
    }
}

pub fn run(word: &OsStr, ask: &Ask, options: &Options) -> Result<Answer, Failure> {
    let known = ask.known.map(known::read).transpose()?;
    let mut subject = open(word, options)?;
    let leaks = leaks::find(&subject.target, &subject.inspection);
    // Without a Python there are no objects, and all the rest is told.
    let held = match subject.inspection.model {
        Some(_) => Some(holders::find(&subject, Fold::Yes)?),
        None => None,
    };
    let mut findings = [
        native::findings(&subject, &leaks),
        objects::findings(&subject, &leaks),
        garbage::findings(&subject, &leaks),
    ]
    .concat();
    let (mut suspects, mut counts) = (Vec::new(), Counts::default());
    if let Some(held) = held {
        let reach = held.reach();
        counts = leaks::counts(&held, &reach, &leaks);
        findings.extend(surplus::findings(&subject, &held, &reach, &counts));
        findings.extend(audit::findings(&subject, &leaks::untraversed(&held)));
        suspects = suspects::find(&held, reach);
        findings.extend(suspects::findings(&subject, &suspects));
    }
    let mut accepted = 0;
    if let Some(known) = known {
        let (met, rest): (Vec<Finding>, Vec<Finding>) =
            findings.into_iter().partition(|finding| known.contains(&finding.signature));
        let signatures: HashSet<&str> = met.iter().map(|finding| finding.signature.as_str()).collect();
        subject.inspection.notes.extend(known.notes(signatures.len()));
        (findings, accepted) = (rest, met.len());
    }
    unread::doubt(leaks.unread, &mut findings);
    findings.sort_by_key(|finding| (!finding.is_sure(), std::cmp::Reverse(finding.weight())));
    let sum = |least: Sure| findings.iter().filter(|f| f.sure <= least).map(|f| f.bytes).sum::<u64>();
    let (bytes, asked) = (sum(Sure::Likely), ask.gate.fail_on.map_or(0, sum));
    let limit = ask.limit.unwrap_or(if options.json { 0 } else { SHOWN });
    let likely = findings.iter().any(Finding::is_sure);
    let (findings, truncated) = limited(findings, limit);
    let not_leaks = idle::find(&subject);
    let total = subject.inspection.tally.ledger.total;
    let body = Body {
        collector_enabled: collector::is_enabled(&leaks),
        collector: collector::CollectorFacts::of(&leaks),
        bytes,
        accepted,
        findings,
        truncated,
        native: Native::of(&leaks, limit),
        garbage: Garbage::of(&subject, &leaks, limit),
        unheld: document::unheld(&subject, &leaks, limit),
        surplus: document::surplus(&subject, &counts, limit),
        suspects: suspects::rows(&suspects),
        verdict: idle::verdict(likely, leaks.unread, &not_leaks, total),
        not_leaks,
    };
    let own = unread::notes(leaks.unread);
    let answer = noting("wmr/leaks/1", &subject, own, options, body, |screen, body| {
        page::page(screen, &subject, &leaks, body) + &idle::page(screen, &body.not_leaks, total)
    });
    Ok(ask.gate.pass(answer, asked))
}
