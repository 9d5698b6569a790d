//! Reference counts that are too high, and too low.

use super::finding::{Finding, Section, Sure, next, signature};
use super::objects::{type_and_library, type_name};
use crate::document::hex;
use crate::numbers::{counted, grouped};
use crate::open::Subject;
use wmr_heap::leaks::{Deficit, Leaks, Surplus};

/// Fewer references than this may be in places that are not looked at.
const MANY: u64 = 64;
/// Below this nothing is said: registers of code that runs, references on their way.
const FEW: u64 = 8;

pub fn findings(subject: &Subject, leaks: &Leaks, deficits: &[Deficit]) -> Vec<Finding> {
    let worth = |group: &&Surplus| group.excess >= FEW;
    let surplus = leaks.surplus.iter().filter(worth).map(|group| surplus(subject, group));
    surplus.chain(deficits.iter().map(|group| deficit(subject, group))).collect()
}

fn surplus(subject: &Subject, group: &Surplus) -> Finding {
    let name = type_name(subject, group.ty);
    let worst = group.examples.first();
    let most = worst.map_or(0, |object| object.wrong_by);
    let sure = if most >= MANY || group.count >= MANY { Sure::Likely } else { Sure::Possible };
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
    Finding {
        place: Some(type_and_library(subject, group.ty)),
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

fn deficit(subject: &Subject, group: &Deficit) -> Finding {
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
    Finding {
        place: Some(type_and_library(subject, group.ty)),
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
