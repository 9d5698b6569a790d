//! Objects that are counted as held, and are not.

use super::finding::{Finding, Section, Sure, next, signature};
use crate::document::hex;
use crate::numbers::counted;
use crate::open::Subject;
use wmr_heap::leaks::{Leaks, Unheld};

pub const SURPLUS: &str = "they are counted as referenced, and no such reference is left: one was not given back (a missing Py_DECREF)";

/// A single small object that was lost once is nobody's trouble: interpreters have some from their start.
pub fn lost_reference(count: u64, bytes: u64) -> Sure {
    if count == 1 && bytes < 1 << 16 { Sure::Possible } else { Sure::Likely }
}

pub fn findings(subject: &Subject, leaks: &Leaks) -> Vec<Finding> {
    leaks.unheld.iter().map(|group| finding(subject, group)).collect()
}

fn finding(subject: &Subject, group: &Unheld) -> Finding {
    let name = subject.inspection.census.types.get(group.ty as usize).map_or("?", |ty| ty.name.as_str());
    let bytes = group.bytes + group.indirect;
    Finding {
        count: group.count,
        bytes,
        why: SURPLUS.to_owned(),
        examples: group.examples.iter().copied().map(hex).collect(),
        next: next(subject, "heap", " --by type"),
        ..Finding::new(
            Section::Objects,
            lost_reference(group.count, bytes),
            format!("{} of {name}", counted(group.count, "object")),
            signature("objects", name),
        )
    }
}
