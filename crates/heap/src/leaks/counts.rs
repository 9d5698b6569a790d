//! Reference counts that are wrong: higher than the references there are, and lower.
//!
//! What is left over of a count is a reference that nobody has: one that was taken and not given back. The
//! deficit goes the other way: references of objects, known for certain, more than the count admits.

use super::{EXAMPLES, Leaks, namesakes};
use crate::Held;
use crate::graph::Reach;
use rustc_hash::FxHashMap;
use wmr_cpython::family::Family;
use wmr_cpython::object::Object;
use wmr_cpython::strings::read_text;
use wmr_memory::Reader;

/// Objects of one type whose counts are wrong in the same way; of classes one alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Miscounted {
    /// Index of the type in the census.
    pub ty: u32,
    pub count: u64,
    pub bytes: u64,
    /// References too many or too few, of all of them.
    pub references: u64,
    /// The worst, worst first.
    pub examples: Vec<Counted>,
}

/// An object, what its count says, and by how much that is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    pub addr: u64,
    pub said: u64,
    pub wrong_by: u64,
}

/// By type, most references first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    pub surplus: Vec<Miscounted>,
    pub deficit: Vec<Miscounted>,
}

/// An object whose count is not explained.
struct Wrong {
    too_few: bool,
    is_class: bool,
    ty: u32,
    bytes: u64,
    counted: Counted,
}

/// Objects whose counts are not explained. Those that nothing reaches are told as lost, not here.
pub fn counts(held: &Held, reach: &Reach, leaks: &Leaks) -> Counts {
    let wrong =
        held.of_objects(|| (), |(), reader, node, object| wrong(held, reach, leaks, reader, node, object));
    let [mut surplus, mut deficit]: [FxHashMap<(u32, u64), Miscounted>; 2] = Default::default();
    let namesakes = namesakes(&held.inspection.census.types);
    for Wrong { too_few, is_class, ty, bytes, counted } in wrong {
        let ty = namesakes.get(ty as usize).copied().unwrap_or(ty);
        let alone = if is_class { counted.addr } else { 0 };
        let row = if too_few { &mut deficit } else { &mut surplus }.entry((ty, alone)).or_default();
        row.ty = ty;
        row.count += 1;
        row.bytes += bytes;
        row.references = row.references.saturating_add(counted.wrong_by);
        keep(&mut row.examples, counted);
    }
    let sorted = |rows: FxHashMap<(u32, u64), Miscounted>| {
        let mut rows: Vec<Miscounted> = rows.into_values().collect();
        // Types are numbered as threads meet them: that is no order to tell them in.
        rows.sort_by_key(|row| (std::cmp::Reverse(row.references), row.examples.first().map(|it| it.addr)));
        rows
    };
    Counts { surplus: sorted(surplus), deficit: sorted(deficit) }
}

fn wrong(
    held: &Held,
    reach: &Reach,
    leaks: &Leaks,
    reader: &mut Reader,
    node: u32,
    object: &Object,
) -> Option<Wrong> {
    let count = held.count_at(reader, node, object.addr).filter(|count| !count.is_explained())?;
    let too_few = count.surplus() == 0;
    // A static type has references from what was compiled into the interpreter, which nobody counted.
    let is_static = node >= held.graph.first_static();
    let whole = held.graph.part_of(node).map_or(node, |part| part.whole);
    if too_few && is_static || !reach.reaches(whole) {
        return None;
    }
    if is_dummy(held, reader, object) {
        return None;
    }
    // Who points into an object may well hold it: numpy's types their texts.
    let inside = leaks.inside.get(&node).map_or(0, |count| u64::from(*count));
    let wrong_by = if too_few { count.deficit() } else { count.surplus().checked_sub(inside)? };
    if wrong_by == 0 {
        return None;
    }
    Some(Wrong {
        too_few,
        is_class: object.shape.family == Family::Type,
        ty: object.shape.id,
        bytes: if is_static { 0 } else { held.inspection.blocks.bytes(node) },
        counted: Counted { addr: object.addr, said: count.said, wrong_by },
    })
}

/// Python 2 marks what was removed from a dict or a set by a reference to a string of its own, which it does
/// not visit (Objects/dictobject.c, `dummy`).
fn is_dummy(held: &Held, reader: &mut Reader, object: &Object) -> bool {
    const DUMMY: &str = "<dummy key>";
    let model = held.inspection.model.as_ref().filter(|model| model.is_two());
    model
        .is_some_and(|model| read_text(model, reader, object.addr, DUMMY.len() + 1).as_deref() == Some(DUMMY))
}

/// The worst few, worst first.
fn keep(examples: &mut Vec<Counted>, counted: Counted) {
    let at = examples.partition_point(|other| other.wrong_by >= counted.wrong_by);
    if at < EXAMPLES {
        examples.insert(at, counted);
        examples.truncate(EXAMPLES);
    }
}
