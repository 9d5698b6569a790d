//! `wmr leaks`: what is lost, waits or is held too long, most bytes first.
//!
//! Each module finds in its own way and tells it as [`Finding`]s; here they become one report.

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
mod suspects;

pub use finding::Sure;
pub use story::run as story;

use super::answer;
use crate::Answer;
use crate::cli::Options;
use crate::document::limited;
use crate::failure::{Failure, code};
use crate::numbers::scaled;
use crate::open::open;
use document::{Body, Garbage, Native, Rows};
use finding::Finding;
use std::ffi::OsStr;
use std::path::Path;
use wmr_heap::leaks;

/// Findings that people are shown.
const SHOWN: usize = 12;

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
    let known = known.map(known::read).transpose()?.unwrap_or_default();
    let subject = open(word, options)?;
    let leaks = leaks::find(&subject.target, &subject.inspection);
    let suspects = suspects::find(&subject)?;
    let mut findings: Vec<Finding> = [
        native::findings(&subject, &leaks),
        objects::findings(&subject, &leaks),
        garbage::findings(&subject, &leaks),
        suspects::findings(&subject, &suspects),
    ]
    .concat();
    let found = findings.len();
    findings.retain(|finding| !known.contains(&finding.signature));
    let accepted = found - findings.len();
    findings.sort_by_key(|finding| (!finding.is_sure(), std::cmp::Reverse(finding.bytes)));
    let sum = |least: Sure| findings.iter().filter(|f| f.sure <= least).map(|f| f.bytes).sum::<u64>();
    let bytes = sum(Sure::Likely);
    let exceeded = gate.fail_on.map(sum).filter(|&bytes| bytes > gate.max_bytes);
    let limit = limit.unwrap_or(if options.json { 0 } else { SHOWN });
    let likely = findings.iter().any(Finding::is_sure);
    let (findings, truncated) = limited(findings, limit);
    let not_leaks = idle::find(&subject);
    let total = subject.inspection.tally.ledger.total;
    let body = Body {
        collector_enabled: leaks.collector,
        bytes,
        accepted,
        findings,
        truncated,
        native: Native::of(&leaks, limit),
        garbage: Garbage::of(&subject, &leaks, limit),
        unheld: document::unheld(&subject, &leaks, limit),
        surplus: Rows::of(Vec::new(), limit),
        suspects: suspects::rows(&suspects),
        verdict: idle::verdict(likely, &not_leaks, total),
        not_leaks,
    };
    let mut answer = answer("wmr/leaks/1", &subject, options, body, |screen, body| {
        page::page(screen, &subject, body) + &idle::page(screen, &body.not_leaks, total)
    });
    if let (0, Some(bytes)) = (answer.code, exceeded) {
        answer.code = code::LEAKS;
        answer.complaint = Some(format!("wmr: {} lost, {} accepted", scaled(bytes), scaled(gate.max_bytes)));
    }
    Ok(answer)
}
