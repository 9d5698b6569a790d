//! Lost blocks that are no objects.

use super::finding::{Finding, Section, Sure, next, signature};
use crate::document::hex;
use crate::numbers::{counted, grouped};
use crate::open::Subject;
use wmr_heap::leaks::{Leaks, Native, State};

pub fn findings(subject: &Subject, leaks: &Leaks) -> Vec<Finding> {
    leaks.native.iter().map(|group| finding(subject, group)).collect()
}

fn finding(subject: &Subject, group: &Native) -> Finding {
    let what = if group.kind.is_empty() { "block" } else { &group.kind };
    let (sure, why) = match group.state {
        State::Possible => (Sure::Possible, "in use, and pointed into, but nobody has the beginning"),
        _ => (
            Sure::Likely,
            "in use, and no pointer to it is left: not in a stack, a register, a variable or a block",
        ),
    };
    Finding {
        count: group.count,
        bytes: group.bytes + group.indirect,
        why: why.to_owned(),
        mentions: group.mentions.clone().filter(|_| sure != Sure::Possible),
        examples: group.examples.iter().copied().map(hex).collect(),
        next: next(subject, "heap", " --by size"),
        ..Finding::new(
            Section::Native,
            sure,
            format!("{} of {} bytes", counted(group.count, what), grouped(group.usable)),
            signature("native", &format!("{what} {}", group.usable)),
        )
    }
}
