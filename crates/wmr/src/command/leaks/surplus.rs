//! Reference counts that are too high, and too low.

use super::finding::{Finding, Section, Sure, next, signature};
use super::objects::{type_and_library, type_name};
use crate::document::hex;
use crate::numbers::{counted, grouped};
use crate::open::Subject;
use wmr_cpython::family::Family;
use wmr_heap::Held;
use wmr_heap::graph::Reach;
use wmr_heap::leaks::{Counted, Counts, Miscounted};
use wmr_heap::suspects::Place;

/// Fewer references than this may be in places that are not looked at.
const MANY: u64 = 64;
/// Below this nothing is said: libraries have some references in places of their own.
const FEW: u64 = 32;
/// Objects of one type that each have one too few.
const SOME: u64 = 16;
/// Made with their types and modules, and held by C code for as long as it is loaded.
const MADE_ONCE: [&str; 8] = [
    "wrapper_descriptor",
    "method_descriptor",
    "classmethod_descriptor",
    "getset_descriptor",
    "member_descriptor",
    "builtin_function_or_method",
    "module",
    "code",
];

pub fn findings(subject: &Subject, held: &Held, reach: &Reach, counts: &Counts) -> Vec<Finding> {
    let place = |counted: Option<&Counted>| {
        let node = counted.and_then(|counted| held.node_at(counted.addr));
        node.map(|node| Place::to(held, reach, node)).unwrap_or_default()
    };
    let surplus = counts.surplus.iter().filter(|group| group.references >= FEW);
    let surplus = surplus.map(|group| surplus_of(subject, group, place(group.examples.first())));
    let deficit = counts.deficit.iter();
    let deficit = deficit.map(|group| deficit_of(subject, group, place(group.examples.first())));
    surplus.chain(deficit).collect()
}

fn surplus_of(subject: &Subject, group: &Miscounted, place: Place) -> Finding {
    let Some(worst) = group.examples.first() else { return told(subject, Section::Surplus, group, place) };
    // Classes are counted by whoever makes their objects: of those most must be lacking.
    let types = &subject.inspection.census.types;
    let is_class = types.get(group.ty as usize).is_some_and(|ty| ty.shape.family == Family::Type);
    let one = worst.wrong_by >= MANY && (!is_class || worst.wrong_by >= worst.said / 2);
    let many = !is_class && !MADE_ONCE.contains(&type_name(subject, group.ty)) && group.count >= MANY;
    let example = example(group, &place);
    Finding {
        sure: if one || many { Sure::Likely } else { Sure::Possible },
        why: format!(
            "the count of {example} says {}, and {} of those are in no object, frame, stack or variable: they were taken and not given back (a missing Py_DECREF)",
            grouped(worst.said),
            grouped(worst.wrong_by)
        ),
        ..told(subject, Section::Surplus, group, place)
    }
}

fn deficit_of(subject: &Subject, group: &Miscounted, place: Place) -> Finding {
    let example = example(group, &place);
    let finding = told(subject, Section::Deficit, group, place);
    let Some(worst) = group.examples.first() else { return finding };
    Finding {
        // One may be on its way: counted already, and not stored, or the other way round.
        sure: if worst.wrong_by > 1 || group.count >= SOME { Sure::Likely } else { Sure::Possible },
        why: format!(
            "objects hold {} to {example}, whose count says {}: one was given back that nobody had (a Py_DECREF too many), and it will be freed while it is in use, which is a crash in waiting",
            counted(worst.said + worst.wrong_by, "reference"),
            grouped(worst.said)
        ),
        ..finding
    }
}

/// What both have. What is about one object is called by its place, else by its type.
fn told(subject: &Subject, section: Section, group: &Miscounted, place: Place) -> Finding {
    let name = type_name(subject, group.ty);
    let (kind, how) = match section {
        Section::Deficit => ("deficit", "too few"),
        _ => ("surplus", "too many"),
    };
    let objects = match group.count {
        1 => format!("an object of {name}"),
        count => format!("{} of {name}", counted(count, "object")),
    };
    // The one that has most of them is what there is to know.
    let most = group.examples.first().is_some_and(|worst| worst.wrong_by > group.references / 2);
    let of_one = most && !place.name.is_empty();
    let signature = signature(kind, if of_one { &place.key } else { name });
    let what = format!("{objects} with {} {how}", counted(group.references, "reference"));
    let first = group.examples.first().map(|object| hex(object.addr));
    Finding {
        path: place.steps,
        place: Some(if of_one { place.name } else { type_and_library(subject, group.ty) }),
        count: group.count,
        bytes: group.bytes,
        examples: group.examples.iter().map(|object| hex(object.addr)).collect(),
        next: match &first {
            Some(first) => next(subject, "show", &format!(" {first}")),
            None => next(subject, "heap", " --by type"),
        },
        ..Finding::new(section, Sure::Possible, what, signature)
    }
}

/// The worst, by its place where it has one.
fn example(group: &Miscounted, place: &Place) -> String {
    match group.examples.first() {
        Some(_) if !place.name.is_empty() => place.name.clone(),
        Some(worst) => format!("the one at {}", hex(worst.addr)),
        None => "one".to_owned(),
    }
}
