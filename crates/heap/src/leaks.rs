//! What nothing reaches: memory that was lost, and objects that nobody can use any more.
//!
//! From the roots (writable data of programs and libraries, stacks, registers, mappings of unknown use) every
//! word is followed that is the address of a block, as a conservative collector does; what holds no
//! references (numbers, text, the allocators' and the collector's own links) is not looked at. What is
//! not reached then cannot be freed by anybody.

mod collector;
mod cycles;
mod lost;
mod native;
mod objects;
mod references;
mod roots;

pub use cycles::Cycles;
pub use lost::{Lost, State};
pub use native::{LostBlock, Native};
pub use objects::Unheld;

use crate::Inspection;
use references::References;
use std::ops::Range;
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
    /// Is the collector on? `None`: not known.
    pub collector: Option<bool>,
}

/// Looks for them.
pub fn find(target: &Target, inspection: &Inspection) -> Leaks {
    let mut dead: Vec<Range<u64>> = match &inspection.python {
        Ok(python) => python.free_lists(target).arrays,
        Err(_) => Vec::new(),
    };
    dead.sort_by_key(|range| range.start);
    let references = References::take(target, inspection, &dead);
    let roots = roots::find(target, inspection, &dead);
    let lost = Lost::find(inspection, &references, &roots);
    let cycles = cycles::find(target, inspection, &references, &lost);
    let mut leaks = Leaks { collector: collector::is_enabled(target, inspection), ..Leaks::default() };
    (leaks.native, leaks.blocks) = native::find(target, inspection, &references, &lost, &cycles);
    leaks.unheld = objects::find(target, inspection, &lost, &cycles);
    leaks.garbage = cycles.groups;
    leaks
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
