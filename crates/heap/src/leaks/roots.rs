//! Where references begin that keep memory alive: everything outside of the allocators' blocks.

use super::references::Resolver;
use crate::Inspection;
use rayon::prelude::*;
use std::ops::Range;
use wmr_memory::{Backing, Target};

/// Below the stack pointer a function may have values still (the red zone of the x86-64 ABI).
const RED_ZONE: u64 = 128;
/// `struct malloc_state` has 2,176 to 2,200 bytes (glibc 2.28 to 2.43).
const ARENA: u64 = 2200;
const WINDOW: u64 = 1 << 20;

/// Edges from the roots: ids, with [`INTERIOR`](super::references::INTERIOR) perhaps; sorted, each once.
pub(super) fn find(target: &Target, inspection: &Inspection) -> Vec<u32> {
    let pieces: Vec<Range<u64>> = ranges(target, inspection)
        .into_iter()
        .flat_map(|range| {
            (range.start..range.end).step_by(WINDOW as usize).map(move |at| at..(at + WINDOW).min(range.end))
        })
        .collect();
    let mut found: Vec<u32> = pieces
        .into_par_iter()
        .map_init(
            || (target.reader(), Resolver::new(target, inspection), Vec::new()),
            |(reader, resolver, scratch), piece| {
                let mut found = Vec::new();
                let len = (piece.end - piece.start) as usize & !7;
                if let Ok(bytes) = reader.window(piece.start, len, scratch) {
                    let words = bytes.as_chunks::<8>().0.iter();
                    found.extend(words.filter_map(|word| resolver.resolve(u64::from_le_bytes(*word))));
                }
                found
            },
        )
        .collect::<Vec<_>>()
        .concat();
    let mut resolver = Resolver::new(target, inspection);
    let registers = target.threads.iter().flat_map(|thread| thread.regs.iter().copied());
    found.extend(registers.filter_map(|word| resolver.resolve(word)));
    found.par_sort_unstable();
    found.dedup();
    found
}

/// What to look at: pages in RAM of private writable mappings, without what is an allocator's, without
/// dead stack.
fn ranges(target: &Target, inspection: &Inspection) -> Vec<Range<u64>> {
    let mut not: Vec<Range<u64>> =
        inspection.blocks.spans().iter().map(|span| span.start..span.end).collect();
    if let Ok(glibc) = &inspection.glibc {
        not.extend(glibc.arenas.iter().map(|arena| arena.addr..arena.addr.saturating_add(ARENA)));
        not.extend(glibc.arenas.iter().flat_map(|arena| arena.heaps.iter().cloned()));
    }
    if let Ok(python) = &inspection.python {
        let chunks = python.stack_chunks(target);
        let dead = |chunk: &wmr_cpython::datastack::StackChunk| {
            let end = chunk.addr.saturating_add(chunk.size);
            chunk.live_end.clamp(chunk.addr, end)..end
        };
        not.extend(chunks.iter().map(dead));
    }
    for thread in &target.threads {
        if let Some(stack) = target.mapping(thread.sp) {
            not.push(stack.start..thread.sp.saturating_sub(RED_ZONE).max(stack.start));
        }
    }
    not.sort_by_key(|range| range.start);
    let mut out = Vec::new();
    for mapping in target.mappings.iter().filter(|m| m.perms.read && !m.perms.shared) {
        let read =
            matches!(mapping.backing, Backing::Anonymous | Backing::Brk | Backing::Stack | Backing::File);
        // What was written to and then protected (relocated data) may hold pointers, too.
        for run in mapping.residency.runs.iter().filter(|run| read && run.state.present && !run.state.file) {
            without(run.start..run.end, &not, &mut out);
        }
    }
    out
}

/// `range` less what is in `not`, which is in order but may overlap.
fn without(range: Range<u64>, not: &[Range<u64>], out: &mut Vec<Range<u64>>) {
    let mut at = range.start.next_multiple_of(8);
    for hole in not.iter().filter(|hole| hole.start < range.end && range.start < hole.end) {
        if at < hole.start {
            out.push(at..hole.start & !7);
        }
        at = at.max(hole.end.next_multiple_of(8));
    }
    if at < range.end {
        out.push(at..range.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_left_out() {
        let mut out = Vec::new();
        without(0x1000..0x2000, &[0x800..0x1010, 0x1100..0x1200, 0x1180..0x1190, 0x1ff0..0x3000], &mut out);
        assert_eq!(out, [0x1010..0x1100, 0x1200..0x1ff0]);
    }
}
