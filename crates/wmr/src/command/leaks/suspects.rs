//! What accumulates, and what is held past its time.

use super::document::Suspect as Row;
use super::finding::{Finding, Section, Sure, next, signature};
use crate::document::hex;
use crate::open::Subject;
use wmr_heap::Held;
use wmr_heap::graph::Reach;
use wmr_heap::suspects::{self, Origin, Suspect};

pub fn find(held: &Held, reach: Reach) -> Vec<Suspect> {
    let dominators = held.dominators();
    let retained = held.retained(&dominators);
    suspects::find(held, &reach, &dominators, &retained)
}

pub fn findings(subject: &Subject, suspects: &[Suspect]) -> Vec<Finding> {
    suspects.iter().map(|suspect| finding(subject, suspect)).collect()
}

fn finding(subject: &Subject, suspect: &Suspect) -> Finding {
    Finding {
        place: Some(suspect.place.name.clone()),
        path: suspect.place.steps.clone(),
        count: suspect.count,
        bytes: suspect.bytes,
        why: why(suspect),
        examples: vec![hex(suspect.addr)],
        next: next(subject, "leaks", &format!(" --story {}", hex(suspect.addr))),
        ..Finding::new(Section::Suspects, sure(suspect), suspect.what.clone(), name(suspect))
    }
}

fn sure(suspect: &Suspect) -> Sure {
    if suspect.likely { Sure::Likely } else { Sure::Possible }
}

fn name(suspect: &Suspect) -> String {
    signature("suspects", &suspect.place.key)
}

fn why(suspect: &Suspect) -> String {
    let library =
        (suspect.origin == Origin::Library).then_some("a library's own, so what uses it may be what grows");
    let mut parts: Vec<&str> = suspect.why.iter().map(String::as_str).collect();
    parts.extend(library);
    format!("{}. {}", parts.join("; "), suspect.advice)
}

/// The same for the contract's table.
pub fn rows(suspects: &[Suspect]) -> Vec<Row> {
    let row = |suspect: &Suspect| Row {
        what: suspect.what.clone(),
        place: suspect.place.name.clone(),
        bytes: suspect.bytes,
        count: suspect.count,
        path: suspect.place.steps.clone(),
        why: why(suspect),
        sure: sure(suspect),
        signature: name(suspect),
        addr: hex(suspect.addr),
    };
    suspects.iter().map(row).collect()
}
