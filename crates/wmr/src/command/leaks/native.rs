//! Lost blocks that are no objects.

use super::finding::{Finding, Section, Sure, next, signature};
use crate::document::hex;
use crate::numbers::{counted, grouped};
use crate::open::Subject;
use crate::text::file_name;
use wmr_heap::leaks::{Content, Leaks, MAPPING, Native, State};
use wmr_memory::Image;

/// Characters of a text that a block begins with.
const MAX_TEXT: usize = 40;
/// A few small blocks that something points into are nobody's trouble: interpreters and libc have such.
const LEAST_POSSIBLE: u64 = 64 << 10;

pub fn findings(subject: &Subject, leaks: &Leaks) -> Vec<Finding> {
    let worth = |group: &&Native| group.state != State::Possible || group.bytes >= LEAST_POSSIBLE;
    let extensions = extensions(subject);
    leaks.native.iter().filter(worth).map(|group| finding(subject, group, &extensions)).collect()
}

/// Libraries that are neither the interpreter's nor the system's, when they are few: one of them may have
/// allocated what says nothing of itself.
fn extensions(subject: &Subject) -> Option<String> {
    const FEW: usize = 3;
    let target = &subject.target;
    let python = subject.inspection.python.as_ref().ok().and_then(|python| python.image(target));
    let is_other = |image: &&Image| {
        let path = String::from_utf8_lossy(&image.path);
        let system =
            ["/usr/lib/", "/lib/", "/lib64/", "/usr/lib64/", "[vdso]"].iter().any(|at| path.starts_with(at));
        let own = path.contains("/lib-dynload/") || python.is_some_and(|python| std::ptr::eq(python, *image));
        !system && !own && file_name(&image.path) != file_name(&target.process.exe)
    };
    let names: Vec<String> = target
        .images
        .iter()
        .filter(is_other)
        .map(|image| String::from_utf8_lossy(file_name(&image.path)).into_owned())
        .collect();
    (1..=FEW).contains(&names.len()).then(|| names.join(", "))
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

fn finding(subject: &Subject, group: &Native, extensions: &Option<String>) -> Finding {
    let what = if group.kind.is_empty() { "block" } else { &group.kind };
    let mapped = group.kind == MAPPING;
    let (sure, why) = match group.state {
        State::Possible if mapped => (
            Sure::Possible,
            "mapped, and at most a word on a stack or somewhere behind it points there; neighbours are one mapping to the kernel",
        ),
        _ if mapped => (
            Sure::Likely,
            "mapped, and no pointer into it is left: not in a stack, a register, a variable or a block; neighbours are one mapping to the kernel",
        ),
        State::Possible => (Sure::Possible, "in use, and pointed into, but nobody has the beginning"),
        _ => (
            Sure::Likely,
            "in use, and no pointer to it is left: not in a stack, a register, a variable or a block",
        ),
    };
    let (mut hint, size) = (hint(group), sizes(group.usable));
    if let (None, Some(names)) = (&group.mentions, extensions) {
        let before = if hint.is_empty() { "" } else { ", " };
        hint.push_str(&format!("{before}loaded beside the standard library: {names}"));
    }
    let named = match group.kind.strip_prefix("C++ ") {
        Some(class) => format!("{} of class {class}, {size} bytes each", counted(group.count, "C++ object")),
        None => format!("{} of {size} bytes", counted(group.count, what)),
    };
    // A size that varies from run to run must not be in the name.
    let by = if group.usable.0 == group.usable.1 && !mapped {
        group.usable.1.to_string()
    } else {
        "sizes".to_owned()
    };
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
