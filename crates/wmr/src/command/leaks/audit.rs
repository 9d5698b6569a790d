//! Extension types that hide references from the collector.

use super::finding::{Finding, Section, Sure, next, signature};
use super::garbage::unseen;
use super::objects::{type_and_library, type_name};
use crate::document::hex;
use crate::numbers::counted;
use crate::open::Subject;
use wmr_heap::leaks::{Blind, Untraversed};

pub fn findings(subject: &Subject, rows: &[Untraversed]) -> Vec<Finding> {
    rows.iter().map(|row| finding(subject, row)).collect()
}

/// No leak yet: it becomes one with the first cycle, or a crash with the next collection.
fn finding(subject: &Subject, row: &Untraversed) -> Finding {
    let (holder, held) = (type_name(subject, row.gap.ty), type_name(subject, row.gap.to));
    Finding {
        place: Some(type_and_library(subject, row.gap.ty)),
        count: row.count,
        bytes: row.bytes,
        why: unseen(subject, row.gap),
        examples: vec![hex(row.example)],
        next: next(subject, "show", &format!(" {}", hex(row.example))),
        ..Finding::new(
            Section::Audit,
            if row.gap.blind == Blind::NoTraverse { Sure::Certain } else { Sure::Possible },
            format!("{} of {holder} that hide a reference to {held}", counted(row.count, "object")),
            signature("audit", &format!("{holder} {} {held}", row.gap.offset)),
        )
    }
}
