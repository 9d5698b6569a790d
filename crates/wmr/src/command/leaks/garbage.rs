//! Cycles that nothing reaches.

use super::finding::{Finding, Section, Sure, next, signature};
use super::objects::{SURPLUS, lost_reference};
use crate::document::hex;
use crate::numbers::{counted, grouped};
use crate::open::Subject;
use wmr_heap::leaks::{Cycles, Leaks};

/// Types that are named of a cycle of many.
const NAMED: usize = 4;

pub fn findings(subject: &Subject, leaks: &Leaks) -> Vec<Finding> {
    let waiting = match leaks.collector {
        Some(false) => {
            "nothing reaches them, and the collector is off: gc.enable(), or gc.collect() now and then"
        }
        _ => "nothing reaches them; the collector has not come to them yet, or cannot take them",
    };
    leaks.garbage.iter().map(|group| finding(subject, group, waiting)).collect()
}

fn finding(subject: &Subject, group: &Cycles, waiting: &str) -> Finding {
    let types = &subject.inspection.census.types;
    let name = |ty: u32| types.get(ty as usize).map_or("?", |ty| ty.name.as_str());
    let mut names: Vec<&str> = group.shape.iter().map(|&(ty, _)| name(ty)).collect();
    names.sort_unstable();
    let parts: Vec<String> = group
        .shape
        .iter()
        .take(NAMED)
        .map(|&(ty, count)| format!("{} {}", grouped(count), name(ty)))
        .collect();
    let more = if group.shape.len() > NAMED { ", …" } else { "" };
    let objects = group.example.iter().filter_map(|&block| subject.inspection.object(&subject.target, block));
    let (section, sure, why) = match group.surplus {
        true => (Section::Objects, lost_reference(group.count, group.bytes), SURPLUS),
        false => (Section::Garbage, Sure::Certain, waiting),
    };
    let hashed = if group.surplus { "objects" } else { "garbage" };
    Finding {
        count: group.objects,
        bytes: group.bytes,
        why: why.to_owned(),
        examples: objects.map(|object| hex(object.addr)).collect(),
        next: next(subject, "heap", " --by type"),
        ..Finding::new(
            section,
            sure,
            format!("{} of {}{more}", counted(group.count, "cycle"), parts.join(", ")),
            signature(hashed, &names.join(" ")),
        )
    }
}
