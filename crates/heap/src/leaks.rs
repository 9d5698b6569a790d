//! What nothing reaches: memory that was lost, and objects that nobody can use any more.
//!
//! From the roots (writable data of programs and libraries, stacks, registers, mappings of unknown use) every
//! word is followed that is the address of a block, as a conservative collector does; what holds no
//! references (numbers, text, the allocators' and the collector's own links) is not looked at. What is
//! not reached then cannot be freed by anybody.

mod cycles;
mod lost;
mod references;
mod roots;

pub use cycles::Cycles;
pub use lost::{Lost, State};

use crate::Inspection;
use crate::kinds::Domain;
use cycles::Found;
use references::References;
use rustc_hash::FxHashMap;
use std::ops::Range;
use wmr_memory::Target;

/// Examples of a group.
const EXAMPLES: usize = 3;

/// Blocks that were lost, in groups of like ones, most bytes first.
#[derive(Debug, Clone, Default)]
pub struct Leaks {
    /// Not objects.
    pub native: Vec<Native>,
    /// Objects that are in no cycle, and nothing that was lost points at them.
    pub unheld: Vec<Unheld>,
    /// Cycles of objects that the collector has not taken, with what hangs on them.
    pub garbage: Vec<Cycles>,
    /// Is the collector on? `None`: not known.
    pub collector: Option<bool>,
}

/// Native blocks of one size and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Native {
    pub state: State,
    /// What the census says of them, empty for nothing.
    pub kind: String,
    /// Bytes their owner may use, of each.
    pub usable: u64,
    pub count: u64,
    /// What they take of their allocator.
    pub bytes: u64,
    /// What only they point at.
    pub indirect: u64,
    /// File name of the program or library whose addresses most of the examples contain.
    pub mentions: Option<String>,
    pub examples: Vec<u64>,
}

/// Objects of one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unheld {
    /// Index of the type in the census.
    pub ty: u32,
    pub count: u64,
    pub bytes: u64,
    /// What only they point at.
    pub indirect: u64,
    /// Addresses of the objects.
    pub examples: Vec<u64>,
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
    let mut leaks = Leaks { collector: collector(target, inspection), ..Leaks::default() };
    leaks.native = native(target, inspection, &lost, &cycles);
    leaks.unheld = unheld(target, inspection, &lost, &cycles);
    leaks.garbage = cycles.groups;
    leaks
}

fn native(target: &Target, inspection: &Inspection, lost: &Lost, cycles: &Found) -> Vec<Native> {
    let mut groups: FxHashMap<(State, Option<u32>, u64), Native> = FxHashMap::default();
    for (&block, &state) in lost.blocks.iter().zip(&lost.states) {
        let mark = inspection.census.mark(block);
        if mark.as_object().is_some() || state == State::Indirect || cycles.members.contains(&block) {
            continue;
        }
        let at = inspection.blocks.block(block);
        let group = groups.entry((state, mark.as_kind(), at.usable)).or_insert_with(|| Native {
            state,
            kind: mark.as_kind().map(|kind| kind_name(inspection, kind)).unwrap_or_default(),
            usable: at.usable,
            count: 0,
            bytes: 0,
            indirect: 0,
            mentions: None,
            examples: Vec::new(),
        });
        group.count += 1;
        group.bytes += at.bytes;
        group.indirect += lost.indirect.get(&block).copied().unwrap_or(0);
        if group.examples.len() < EXAMPLES {
            group.examples.push(at.start);
        }
    }
    let mut list: Vec<Native> = groups.into_values().collect();
    for group in &mut list {
        group.mentions = mentioned(target, &group.examples, group.usable);
    }
    list.sort_by(|a, b| {
        (b.bytes + b.indirect, &b.kind, b.usable).cmp(&(a.bytes + a.indirect, &a.kind, a.usable))
    });
    list
}

fn kind_name(inspection: &Inspection, kind: u32) -> String {
    let kind = inspection.census.kinds.get(kind);
    if kind.domain == Domain::Unknown { String::new() } else { kind.kind.clone() }
}

/// The image that most words of the blocks point into.
fn mentioned(target: &Target, blocks: &[u64], usable: u64) -> Option<String> {
    const LOOK_AT: u64 = 4096;
    let mut counts: FxHashMap<usize, u32> = FxHashMap::default();
    let mut reader = target.reader();
    for start in blocks {
        for at in (0..usable.min(LOOK_AT)).step_by(8) {
            let Ok(word) = reader.u64(start + at) else { break };
            if word >= 0x1000
                && let Some(i) = target.images.iter().position(|image| image.contains(word))
            {
                *counts.entry(i).or_default() += 1;
            }
        }
    }
    let (best, _) = counts.into_iter().max_by_key(|&(i, n)| (n, std::cmp::Reverse(i)))?;
    let path = String::from_utf8_lossy(&target.images[best].path).into_owned();
    path.rsplit('/').next().map(str::to_owned)
}

fn unheld(target: &Target, inspection: &Inspection, lost: &Lost, cycles: &Found) -> Vec<Unheld> {
    let mut groups: FxHashMap<u32, Unheld> = FxHashMap::default();
    for (&block, &state) in lost.blocks.iter().zip(&lost.states) {
        let Some(ty) = inspection.census.mark(block).as_object() else { continue };
        if state != State::Definite || cycles.members.contains(&block) {
            continue;
        }
        let at = inspection.blocks.block(block);
        let group = groups.entry(ty).or_insert_with(|| Unheld {
            ty,
            count: 0,
            bytes: 0,
            indirect: 0,
            examples: Vec::new(),
        });
        group.count += 1;
        group.bytes += at.bytes;
        group.indirect += lost.indirect.get(&block).copied().unwrap_or(0);
        if group.examples.len() < EXAMPLES {
            group.examples.extend(inspection.object(target, block).map(|object| object.addr));
        }
    }
    let mut list: Vec<Unheld> = groups.into_values().collect();
    list.sort_by_key(|group| (std::cmp::Reverse(group.bytes + group.indirect), group.ty));
    list
}

/// Whether the collector is enabled.
fn collector(target: &Target, inspection: &Inspection) -> Option<bool> {
    let python = inspection.python.as_ref().ok()?;
    let mut reader = target.reader();
    let table = &python.layout.table;
    let state = "_gc_runtime_state";
    if let (Some(enabled), Some(generations), Some(list)) =
        (table.offset(state, "enabled"), table.offset(state, "generations"), python.gc.lists.first())
    {
        return reader
            .u32(list.head.wrapping_sub(generations).wrapping_add(enabled))
            .ok()
            .map(|word| word != 0);
    }
    // 2.7 and 3.6: a static variable.
    let at = python.image(target)?.symbol("enabled")?;
    reader.u32(at).ok().map(|word| word != 0)
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
