//! Cycles that nothing reaches.

use super::collector;
use super::finding::{Finding, Section, Sure, next, signature};
use super::objects::{SURPLUS, lost_reference, type_and_library, type_name};
use crate::document::hex;
use crate::numbers::{counted, grouped};
use crate::open::Subject;
use wmr_heap::leaks::{Blind, Cycles, Gap, Leaks, Standing, Step};
use wmr_heap::suspects::{Origin, Origins};

/// Types that are named of a cycle of many.
const NAMED: usize = 4;
/// Objects of a cycle that is drawn.
const DRAWN: usize = 6;

pub fn findings(subject: &Subject, leaks: &Leaks) -> Vec<Finding> {
    let origins = Origins::find(&subject.target, &subject.inspection);
    leaks.garbage.iter().map(|group| finding(subject, leaks, &origins, group)).collect()
}

/// What a cycle is known by: a type of the program's, any that has a module, or what a function in it is called.
fn known_by(subject: &Subject, origins: &Origins, group: &Cycles) -> String {
    let types = &subject.inspection.census.types;
    let name = |&(ty, _): &(u32, u64)| type_name(subject, ty);
    let is_own = |&&(ty, _): &&(u32, u64)| {
        types.get(ty as usize).is_some_and(|ty| origins.of(&ty.module) == Some(Origin::Program))
    };
    let own = group.shape.iter().find(is_own).map(name);
    let called = || group.example.iter().find_map(|step| step.name.as_deref());
    let with_module = || group.shape.iter().map(name).find(|name| name.contains('.'));
    let any = || group.shape.first().map(name);
    own.or_else(with_module).or_else(called).or_else(any).unwrap_or("?").to_owned()
}

fn finding(subject: &Subject, leaks: &Leaks, origins: &Origins, group: &Cycles) -> Finding {
    let name = |ty: u32| type_name(subject, ty);
    let mut names: Vec<&str> = group.shape.iter().map(|&(ty, _)| name(ty)).collect();
    names.sort_unstable();
    let parts: Vec<String> = group
        .shape
        .iter()
        .take(NAMED)
        .map(|&(ty, count)| format!("{} {}", grouped(count), name(ty)))
        .collect();
    let more = if group.shape.len() > NAMED { ", …" } else { "" };
    let (section, hashed, sure, why) = match group.standing {
        Standing::Surplus => {
            (Section::Objects, "objects", lost_reference(group.count, group.bytes), SURPLUS.to_owned())
        }
        Standing::Unseen => {
            let inferred = group.gap.is_some_and(|gap| gap.blind == Blind::NotVisited);
            let sure = if inferred { Sure::Likely } else { Sure::Certain };
            (Section::Audit, "audit", sure, group.gap.map_or_else(String::new, |gap| unseen(subject, gap)))
        }
        standing => {
            let (sure, why) = collector::waiting(leaks, standing);
            (Section::Garbage, "garbage", sure, why)
        }
    };
    let place = match group.gap {
        Some(gap) => type_and_library(subject, gap.ty),
        None => known_by(subject, origins, group),
    };
    let is_cycle = group.example.last().is_some_and(|step| !step.label.is_empty());
    let noun = if is_cycle { "cycle" } else { "object" };
    Finding {
        place: Some(place),
        path: steps(subject, &group.example),
        count: group.objects,
        bytes: group.bytes,
        why: if is_cycle { format!("{why}; {}", drawn(subject, &group.example)) } else { why },
        examples: group.example.iter().take(DRAWN).map(|step| hex(step.addr)).collect(),
        next: match group.example.first() {
            Some(first) => next(subject, "show", &format!(" {}", hex(first.addr))),
            None => next(subject, "heap", " --by type"),
        },
        ..Finding::new(
            section,
            sure,
            format!("{} of {}{more}", counted(group.count, noun), parts.join(", ")),
            signature(hashed, &names.join(" ")),
        )
    }
}

/// What the collector does not see, and why.
pub fn unseen(subject: &Subject, gap: Gap) -> String {
    let (holder, held) = (type_name(subject, gap.ty), type_name(subject, gap.to));
    match gap.blind {
        Blind::NotVisited => format!(
            "the collector has been there and left them, and their counts are explained by each other: tp_traverse of {holder} does not visit the field at {} that refers to {held} (a missing Py_VISIT)",
            gap.offset
        ),
        Blind::NoTraverse => format!(
            "{holder} says that it is a type of the collector's (Py_TPFLAGS_HAVE_GC) and has no tp_traverse: its field at {} refers to {held}, and the next collection calls what is not there, and crashes",
            gap.offset
        ),
        Blind::NoFlag => format!(
            "{holder} is no type of the collector's (Py_TPFLAGS_HAVE_GC), and its field at {} refers to {held}: a cycle through it is never collected",
            gap.offset
        ),
    }
}

/// Each object with how it refers to the next.
fn steps(subject: &Subject, example: &[Step]) -> Vec<String> {
    example.iter().map(|step| format!("{} {}", type_name(subject, step.ty), step.label)).collect()
}

/// `a.peer → b.peer → a, where a and b are app.Node`.
fn drawn(subject: &Subject, example: &[Step]) -> String {
    let letter = |i: usize| char::from(b'a' + u8::try_from(i % 26).unwrap_or(0)).to_string();
    let mut parts: Vec<String> = Vec::new();
    for (i, step) in example.iter().enumerate().take(DRAWN) {
        let gap = if step.label.starts_with(['.', '[']) { "" } else { " " };
        parts.push(format!("{}{gap}{}", letter(i), step.label));
    }
    parts.push(if example.len() > DRAWN { "…".to_owned() } else { letter(0) });
    let mut by_type: Vec<(String, Vec<String>)> = Vec::new();
    for (i, step) in example.iter().enumerate().take(DRAWN) {
        let name = match &step.name {
            Some(name) => format!("{} {name}", type_name(subject, step.ty)),
            None => type_name(subject, step.ty).to_owned(),
        };
        match by_type.iter_mut().find(|(known, _)| *known == name) {
            Some((_, letters)) => letters.push(letter(i)),
            None => by_type.push((name, vec![letter(i)])),
        }
    }
    let whose: Vec<String> =
        by_type.iter().map(|(name, letters)| format!("{}: {name}", letters.join(", "))).collect();
    format!("{} ({})", parts.join(" → "), whose.join("; "))
}
