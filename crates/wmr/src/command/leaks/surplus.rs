//! Reference counts that are too high, and too low.

use super::finding::{Finding, Section, Sure, next, signature};
use super::objects::{type_and_library, type_name};
use super::places::Places;
use crate::document::hex;
use crate::numbers::{counted, grouped};
use crate::open::Subject;
use wmr_cpython::family::Family;
use wmr_heap::Held;
use wmr_heap::anatomy::Anatomy;
use wmr_heap::leaks::{Deficit, Leaks, Surplus};

/// Fewer references than this may be in places that are not looked at.
const MANY: u64 = 64;
/// Below this nothing is said: libraries have some references in places of their own.
const FEW: u64 = 32;

pub fn findings(held: &Held, subject: &Subject, leaks: &Leaks, deficits: &[Deficit]) -> Vec<Finding> {
    let worth: Vec<&Surplus> = leaks.surplus.iter().filter(|group| group.excess >= FEW).collect();
    if worth.is_empty() && deficits.is_empty() {
        return Vec::new();
    }
    let places = Places::of(held);
    let surplus = worth.into_iter().map(|group| surplus(&places, subject, group));
    surplus.chain(deficits.iter().map(|group| deficit(&places, subject, group))).collect()
}

fn surplus(places: &Places, subject: &Subject, group: &Surplus) -> Finding {
    let name = type_name(subject, group.ty);
    let worst = group.examples.first();
    let (most, said) = worst.map_or((0, 0), |object| (object.wrong_by, object.said));
    // Classes are counted by whoever makes their objects: of those most must be lacking.
    let is_class = subject
        .inspection
        .census
        .types
        .get(group.ty as usize)
        .is_some_and(|ty| ty.shape.family == Family::Type);
    let one = most >= MANY && (!is_class || most >= said / 2);
    let sure = if one || !is_class && group.count >= MANY { Sure::Likely } else { Sure::Possible };
    let path = worst.map(|object| places.path(object.addr)).unwrap_or_default();
    // Of many objects the first says which sort they are.
    let named = worst.and_then(|object| value(subject, object.addr)).filter(|_| is_class);
    let what = match group.count {
        1 => format!("an object of {name} with {} too many", counted(group.excess, "reference")),
        count => format!(
            "{} of {name} with {} too many",
            counted(count, "object"),
            counted(group.excess, "reference")
        ),
    };
    let why = match worst {
        Some(object) => format!(
            "the count of the one at {} says {}, and {} of those are in no object, frame, stack or variable: they were taken and not given back (a missing Py_DECREF)",
            hex(object.addr),
            grouped(object.said),
            grouped(object.wrong_by)
        ),
        None => String::new(),
    };
    let place = named.or_else(|| places.place(&path).filter(|_| group.count == 1));
    Finding {
        place: Some(place.unwrap_or_else(|| type_and_library(subject, group.ty))),
        path,
        count: group.count,
        bytes: group.bytes,
        why,
        examples: group.examples.iter().map(|object| hex(object.addr)).collect(),
        next: match worst {
            Some(object) => next(subject, "show", &format!(" {}", hex(object.addr))),
            None => next(subject, "heap", " --by type"),
        },
        ..Finding::new(Section::Surplus, sure, what, signature("surplus", name))
    }
}

fn deficit(places: &Places, subject: &Subject, group: &Deficit) -> Finding {
    let name = type_name(subject, group.ty);
    let worst = group.examples.first();
    // One may be on its way: counted already, and not stored, or the other way round.
    let sure = if group.missing > 1 { Sure::Likely } else { Sure::Possible };
    let why = match worst {
        Some(object) => format!(
            "objects hold {} to the one at {}, whose count says {}: one was given back that nobody had (a Py_DECREF too many), and it will be freed while it is in use, which is a crash in waiting",
            counted(object.said + object.wrong_by, "reference"),
            hex(object.addr),
            grouped(object.said)
        ),
        None => String::new(),
    };
    let path = worst.map(|object| places.path(object.addr)).unwrap_or_default();
    let place = places.place(&path).filter(|_| group.count == 1);
    Finding {
        place: Some(place.unwrap_or_else(|| type_and_library(subject, group.ty))),
        path,
        count: group.count,
        bytes: group.bytes,
        why,
        examples: group.examples.iter().map(|object| hex(object.addr)).collect(),
        next: match worst {
            Some(object) => next(subject, "show", &format!(" {}", hex(object.addr))),
            None => next(subject, "heap", " --by type"),
        },
        ..Finding::new(
            Section::Deficit,
            sure,
            format!(
                "{} of {name} with {} too few",
                counted(group.count, "object"),
                counted(group.missing, "reference")
            ),
            signature("deficit", name),
        )
    }
}

/// What an object is, in a word: of a class its name.
fn value(subject: &Subject, addr: u64) -> Option<String> {
    Anatomy::new(&subject.target, &subject.inspection)?.value(addr)
}
