//! What nothing reaches: memory that was lost, and objects that nobody can use any more.
//!
//! From the roots (writable data of programs and libraries, stacks, registers, mappings of unknown use) every
//! word is followed that is the address of a block, as a conservative collector does; what holds no
//! references (numbers, text, the allocators' and the collector's own links) is not looked at. What is
//! not reached then cannot be freed by anybody.

mod audit;
mod counts;
mod cycles;
mod drawing;
mod lost;
mod mappings;
mod native;
mod nearby;
mod objects;
mod references;
pub(crate) mod roots;
mod unread;

pub use audit::{Blind, Gap, Untraversed, library, untraversed};
pub use counts::{Counted, Counts, Miscounted, counts};
pub use cycles::{Cycles, Standing};
pub use drawing::Step;
pub use lost::{Lost, State};
pub use mappings::MAPPING;
pub use native::{LostBlock, Native};
pub use nearby::Content;
pub use objects::Unheld;
pub use unread::Unread;

use crate::Inspection;
use references::References;
use rustc_hash::FxHashMap;
use std::ops::Range;
use wmr_cpython::collector::Collector;
use wmr_cpython::types::Type;
use wmr_memory::Target;

/// Examples of a group.
const EXAMPLES: usize = 3;

/// Blocks that were lost, in groups of like ones, most bytes first.
#[derive(Debug, Clone, Default)]
pub struct Leaks {
    /// Not objects.
    pub native: Vec<Native>,
    /// Every block of those, and what hangs on them, in address order.
    pub blocks: Vec<LostBlock>,
    /// Objects that are in no cycle, and nothing that was lost points at them.
    pub unheld: Vec<Unheld>,
    /// Cycles of objects that the collector has not taken, with what hangs on them.
    pub garbage: Vec<Cycles>,
    /// Objects that are pointed into, by block: how often.
    pub inside: FxHashMap<u32, u32>,
    /// The collectors, one an interpreter; none where they are not known.
    pub collectors: Vec<Collector>,
    /// Objects that the collector was told to leave alone (`gc.freeze()`).
    pub frozen: u64,
    pub unread: Unread,
}

/// Looks for them.
pub fn find(target: &Target, inspection: &Inspection) -> Leaks {
    let mut dead: Vec<Range<u64>> = match &inspection.python {
        Ok(python) => python.free_lists(target).arrays,
        Err(_) => Vec::new(),
    };
    dead.sort_by_key(|range| range.start);
    let mut leaks = Leaks::default();
    if let Ok(python) = &inspection.python {
        leaks.collectors = python.collectors(target);
        leaks.frozen =
            python.gc.permanent(&mut target.reader(), inspection.blocks.len() as usize).len() as u64;
    }
    let mapped = mappings::Mapped::find(target, inspection);
    let mut references = References::take(target, inspection, &dead, &mapped);
    let (mut roots, unread) = roots::find(target, inspection, &dead, &mapped);
    leaks.unread = Unread {
        bytes: unread.saturating_add(references.unread).saturating_add(unread::absent(target)),
        threads: target.threads.iter().all(|thread| thread.sp == 0),
    };
    // What the collector gave up on is held by its list alone; the table of the list is not lost.
    let lists = leaks.collectors.iter().filter_map(|collector| collector.garbage);
    let lists: Vec<u32> = lists.filter_map(|list| Some(inspection.blocks.containing(list)?.id)).collect();
    let is_table = |edge: &&u32| inspection.census.mark(*edge & !references::INTERIOR).as_object().is_none();
    roots.extend(lists.iter().flat_map(|&list| references.of(list)).filter(is_table));
    references.cut(lists);
    let inside = references.all().iter().chain(&roots).filter(|edge| **edge & references::INTERIOR != 0);
    for id in inside.map(|edge| edge & !references::INTERIOR) {
        if inspection.census.mark(id).as_object().is_some() {
            let count = leaks.inside.entry(id).or_default();
            *count = count.saturating_add(1);
        }
    }
    let lost = Lost::find(inspection, &references, &roots);
    let cycles = cycles::find(target, inspection, &references, &lost, &leaks.collectors);
    (leaks.native, leaks.blocks) = native::find(target, inspection, &references, &lost, &cycles);
    mapped.lost(target, &mut leaks.native, &mut leaks.blocks);
    leaks.blocks.sort_unstable_by_key(|block| block.addr);
    leaks.unheld = objects::find(target, inspection, &references, &lost, &cycles);
    leaks.garbage = cycles.groups;
    leaks
}

/// By type, of all that have its name the one that lies first: classes that a function makes anew each time it
/// is called are one class to people.
fn namesakes(types: &[Type]) -> Vec<u32> {
    let mut first: FxHashMap<&str, u32> = FxHashMap::default();
    for (i, ty) in types.iter().enumerate() {
        let known = first.entry(&ty.name).or_insert(i as u32);
        if ty.addr < types[*known as usize].addr {
            *known = i as u32;
        }
    }
    types.iter().map(|ty| first[ty.name.as_str()]).collect()
}

/// `range` less what is in `holes`, which are in order but may overlap; in whole words.
fn without(range: Range<u64>, holes: &[Range<u64>], give: &mut dyn FnMut(Range<u64>)) {
    let mut at = range.start.next_multiple_of(8);
    for hole in holes.iter().filter(|hole| hole.start < range.end && range.start < hole.end) {
        if at < hole.start & !7 {
            give(at..hole.start & !7);
        }
        at = at.max(hole.end.next_multiple_of(8));
    }
    if at < range.end {
        give(at..range.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_left_out() {
        let mut out = Vec::new();
        let holes = [0x800..0x1010, 0x1100..0x1200, 0x1180..0x1190, 0x1ff0..0x3000];
        without(0x1000..0x2000, &holes, &mut |range| out.push(range));
        assert_eq!(out, [0x1010..0x1100, 0x1200..0x1ff0]);
    }
}
