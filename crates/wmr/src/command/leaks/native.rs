//! Lost blocks that are no objects.

use super::finding::{Finding, Section, Sure, next, signature};
use crate::document::hex;
use crate::numbers::{counted, grouped};
use crate::open::Subject;
use wmr_heap::leaks::{Content, Leaks, Native, State};

/// Characters of a text that a block begins with.
const MAX_TEXT: usize = 40;
/// A few small blocks that something points into are nobody's trouble: interpreters and libc have such.
const LEAST_POSSIBLE: u64 = 64 << 10;

pub fn findings(subject: &Subject, leaks: &Leaks) -> Vec<Finding> {
    let worth = |group: &&Native| {
        group.state != State::Possible || group.bytes >= LEAST_POSSIBLE || group.mentions.is_some()
    };
    leaks.native.iter().filter(worth).map(|group| finding(subject, group)).collect()
}

/// `1,000`, `24 to 5,000`.
fn sizes(usable: (u64, u64)) -> String {
    match usable {
        (least, most) if least == most => grouped(most),
        (least, most) => format!("{} to {}", grouped(least), grouped(most)),
    }
}

/// What can be seen in and around the blocks.
pub fn hint(group: &Native) -> String {
    let mut parts = Vec::new();
    if let Some(file) = &group.mentions {
        parts.push(format!("they mention {file}"));
    }
    match &group.content {
        Content::Text(text) => {
            let cut = if text.chars().count() > MAX_TEXT { "…" } else { "" };
            parts
                .push(format!("one has the text '{}{cut}'", text.chars().take(MAX_TEXT).collect::<String>()));
        }
        Content::Zeroes => parts.push("they begin with zeroes".to_owned()),
        Content::Fill(byte) => parts.push(format!("they are filled with {byte:#04x}")),
        Content::Other => {}
    }
    if let Some(beside) = &group.beside {
        parts.push(format!("most lie beside {beside}"));
    }
    parts.join(", ")
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
    let (hint, size) = (hint(group), sizes(group.usable));
    let named = match group.kind.strip_prefix("C++ ") {
        Some(class) => format!("{} of class {class}, {size} bytes each", counted(group.count, "C++ object")),
        None => format!("{} of {size} bytes", counted(group.count, what)),
    };
    // A size that varies from run to run must not be in the name.
    let by = if group.usable.0 == group.usable.1 { group.usable.1.to_string() } else { "sizes".to_owned() };
    let library = group.mentions.as_deref().unwrap_or("");
    Finding {
        place: group.mentions.clone(),
        count: group.count,
        bytes: group.bytes + group.indirect,
        why: if hint.is_empty() { why.to_owned() } else { format!("{why}; {hint}") },
        mentions: group.mentions.clone(),
        examples: group.examples.iter().copied().map(hex).collect(),
        next: match group.examples.first() {
            Some(&first) => next(subject, "hexdump", &format!(" {}", hex(first))),
            None => next(subject, "heap", " --by size"),
        },
        ..Finding::new(Section::Native, sure, named, signature("native", &format!("{what} {by} {library}")))
    }
}
