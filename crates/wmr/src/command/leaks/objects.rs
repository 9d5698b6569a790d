//! Objects that are counted as held, and are not.

use super::finding::{Finding, Section, Sure, next, signature};
use crate::document::hex;
use crate::numbers::counted;
use crate::open::Subject;
use crate::text::file_name;
use wmr_heap::leaks::{self, Leaks, Unheld};

pub const SURPLUS: &str = "they are counted as referenced, and no such reference is left: one was not given back (a missing Py_DECREF)";

const BY_BLOCKS: &str =
    "they are referenced by nothing but blocks that are lost themselves: whoever frees those gives them back";

/// A single small object that was lost once is nobody's trouble: interpreters have some from their start.
pub fn lost_reference(count: u64, bytes: u64) -> Sure {
    if count == 1 && bytes < 1 << 16 { Sure::Possible } else { Sure::Likely }
}

pub fn type_name(subject: &Subject, ty: u32) -> &str {
    subject.inspection.census.types.get(ty as usize).map_or("?", |ty| ty.name.as_str())
}

/// A type, and the library that its code is in where that is not the interpreter's.
pub fn type_and_library(subject: &Subject, ty: u32) -> String {
    let name = type_name(subject, ty);
    let python = subject.inspection.python.as_ref().ok().and_then(|python| python.image(&subject.target));
    match leaks::library(&subject.target, &subject.inspection, ty) {
        // Everybody knows where `float` is from.
        Some(image) if python.is_some_and(|python| std::ptr::eq(python, image)) => name.to_owned(),
        Some(image) => format!("{name} of {}", String::from_utf8_lossy(file_name(&image.path))),
        None => name.to_owned(),
    }
}

pub fn findings(subject: &Subject, leaks: &Leaks) -> Vec<Finding> {
    leaks.unheld.iter().map(|group| finding(subject, group)).collect()
}

fn finding(subject: &Subject, group: &Unheld) -> Finding {
    let name = type_name(subject, group.ty);
    let bytes = group.bytes + group.indirect;
    let held_by_lost = group.by_blocks * 2 > group.count;
    let mut why = if held_by_lost { BY_BLOCKS } else { SURPLUS }.to_owned();
    if !group.values.is_empty() {
        let more = if group.count > group.values.len() as u64 { ", …" } else { "" };
        why.push_str(&format!("; {}{more}", group.values.join(", ")));
    }
    if let Some(beside) = &group.beside {
        why.push_str(&format!("; most lie beside {beside}"));
    }
    Finding {
        place: Some(type_and_library(subject, group.ty)),
        count: group.count,
        bytes,
        follows: held_by_lost,
        why,
        examples: group.examples.iter().copied().map(hex).collect(),
        next: match group.examples.first() {
            Some(&first) => next(subject, "show", &format!(" {}", hex(first))),
            None => next(subject, "heap", " --by type"),
        },
        ..Finding::new(
            Section::Objects,
            lost_reference(group.count, bytes),
            format!("{} of {name} nobody holds", counted(group.count, "object")),
            signature("objects", name),
        )
    }
}
