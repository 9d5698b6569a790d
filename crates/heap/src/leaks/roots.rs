//! Where references begin that keep memory alive: everything outside of the allocators' blocks.

use super::mappings::{From, Mapped};
use super::references::Resolver;
use super::unread::lost;
use super::without;
use crate::Inspection;
use rayon::prelude::*;
use std::ops::Range;
use wmr_memory::{Backing, Mapping, Reader, Target, Thread};

/// Below the stack pointer a function may have values still (the red zone of the x86-64 ABI).
const RED_ZONE: u64 = 128;
/// `struct malloc_state` has 2,176 to 2,200 bytes (glibc 2.28 to 2.43).
const ARENA: u64 = 2200;
const WINDOW: u64 = 1 << 20;

/// Edges from the roots: ids, with [`INTERIOR`](super::references::INTERIOR) perhaps; in
/// order, each once. And how many bytes could not be read.
pub(super) fn find(
    target: &Target,
    inspection: &Inspection,
    dead: &[Range<u64>],
    mapped: &Mapped,
) -> (Vec<u32>, u64) {
    let stacks: Vec<Range<u64>> = target.threads.iter().filter_map(|thread| stack(target, thread)).collect();
    let mut cuts: Vec<u64> = stacks.iter().flat_map(|s| [s.start, s.end]).chain(mapped.bounds()).collect();
    cuts.sort_unstable();
    let from = |at: u64| match mapped.index(at) {
        Some(piece) => From::Piece(piece),
        None if stacks.iter().any(|stack| stack.contains(&at)) => From::Stack,
        None => From::Memory,
    };
    let mut pieces: Vec<Range<u64>> = Vec::new();
    for range in ranges(target, inspection, dead) {
        let mut at = range.start;
        while at < range.end {
            let cut = cuts.get(cuts.partition_point(|cut| *cut <= at)).copied().unwrap_or(u64::MAX);
            let end = range.end.min(cut).min(at.saturating_add(WINDOW));
            pieces.push(at..end);
            at = end;
        }
    }
    let (found, unread): (Vec<Vec<u32>>, Vec<u64>) = pieces
        .into_par_iter()
        .map_init(
            || (target.reader(), Resolver::new(target, inspection, mapped), Vec::new()),
            |(reader, resolver, scratch), piece| {
                let mut found = Vec::new();
                resolver.from = from(piece.start);
                let len = (piece.end - piece.start) as usize & !7;
                let unread = match reader.window(piece.start, len, scratch) {
                    Ok(bytes) => {
                        let words = bytes.as_chunks::<8>().0.iter();
                        found.extend(words.filter_map(|word| resolver.resolve(u64::from_le_bytes(*word))));
                        0
                    }
                    Err(fault) => lost(&piece, fault),
                };
                (found, unread)
            },
        )
        .unzip();
    let mut found = found.concat();
    let mut resolver = Resolver::new(target, inspection, mapped);
    resolver.from = From::Stack;
    let registers = target.threads.iter().flat_map(|thread| thread.regs.iter().copied());
    found.extend(registers.filter_map(|word| resolver.resolve(word)));
    found.par_sort_unstable();
    found.dedup();
    (found, unread.into_iter().sum())
}

/// What to look at: pages in RAM of private writable mappings, without what is an allocator's, without
/// dead stack.
fn ranges(target: &Target, inspection: &Inspection, dead: &[Range<u64>]) -> Vec<Range<u64>> {
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
            let start = foot(target, stack, thread.sp);
            not.push(start..thread.sp.saturating_sub(RED_ZONE).max(start));
        }
    }
    not.extend(dead_stacks(target));
    not.extend_from_slice(dead);
    not.sort_by_key(|range| range.start);
    let mut out = Vec::new();
    for mapping in target.mappings.iter().filter(|m| m.perms.read && !m.perms.shared) {
        let read =
            matches!(mapping.backing, Backing::Anonymous | Backing::Brk | Backing::Stack | Backing::File);
        // What was written to and then protected (relocated data) may hold pointers, too.
        for run in mapping.residency.runs.iter().filter(|run| read && run.state.present && !run.state.file) {
            without(run.start..run.end, &not, &mut |range| out.push(range));
        }
    }
    out
}

/// What of a stack is in use, up to what the thread keeps for itself at its end.
fn stack(target: &Target, thread: &Thread) -> Option<Range<u64>> {
    let start = thread.sp.saturating_sub(RED_ZONE);
    let end = target.mapping(thread.sp)?.end;
    Some(start..if (start..end).contains(&thread.tls) { thread.tls } else { end })
}

/// Down to where what lies below `sp` was the same stack's for certain. From glibc 2.42 on guards are no mappings
/// of their own (`MADV_GUARD_INSTALL`): many stacks are in one, and whatever else was mapped beside them. No page
/// is in a guard, and none lies across a `struct pthread`, which is at the top of the stack below.
fn foot(target: &Target, stack: &Mapping, sp: u64) -> u64 {
    const PTHREAD: u64 = 4096;
    let runs = &stack.residency.runs;
    let mut at = runs.partition_point(|run| run.end <= sp);
    let Some(run) = runs.get(at).filter(|run| run.start <= sp && run.state.present) else { return sp };
    let mut start = run.start;
    while let Some(before) = at.checked_sub(1).and_then(|before| runs.get(before))
        && before.end == start
        && before.state.present
    {
        (start, at) = (before.start, at - 1);
    }
    let others = target.threads.iter().map(|other| other.tls);
    let below = others.filter(|tls| (start..sp).contains(tls)).max();
    below.map_or(start, |tls| tls.saturating_add(PTHREAD).min(sp))
}

/// Where in a range a `struct pthread` is: it begins with its own address and has it once more in its third word.
pub(super) fn pthread(reader: &mut Reader, range: Range<u64>) -> Option<u64> {
    let mut own = (range.start.checked_next_multiple_of(64)?..range.end.saturating_sub(24)).step_by(64);
    own.find(|&at| {
        reader.u64(at).is_ok_and(|word| word == at) && reader.u64(at + 16).is_ok_and(|word| word == at)
    })
}

/// Stacks of threads that ended, which glibc keeps for the next ones (nptl/allocatestack.c): what lies
/// there nobody uses. A stack has a guard below it, and at its top a `struct pthread`.
pub(crate) fn dead_stacks(target: &Target) -> Vec<Range<u64>> {
    const LOOK_AT: u64 = 16 << 10;
    let mut reader = target.reader();
    // What it keeps of its own, the vector of thread-local memory, is needed for the next thread.
    let mut dead = |mapping: &Mapping| {
        let from = mapping.end.saturating_sub(LOOK_AT).max(mapping.start);
        let block = pthread(&mut reader, from..mapping.end);
        let lives = |thread: &Thread| mapping.contains(thread.tls) || mapping.contains(thread.sp);
        block.filter(|_| !target.threads.iter().any(lives)).map(|block| mapping.start..block)
    };
    let pairs = target.mappings.windows(2).filter(|pair| {
        let guard = !pair[0].perms.read && !pair[0].perms.write && pair[0].end == pair[1].start;
        guard && pair[1].backing == Backing::Anonymous && pair[1].perms.write
    });
    pairs.filter_map(|pair| dead(&pair[1])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use wmr_memory::synthetic::SyntheticMemory;
    use wmr_memory::{PageState, Residency, Run};

    #[test]
    fn stacks_in_one_mapping_end_where_the_next_begins() {
        let state = PageState { present: true, ..PageState::default() };
        let run = |start, end| Run { start, end, state };
        let runs = vec![run(0x1f_c000, 0x1f_e000), run(0x1f_e000, 0x20_0000), run(0x20_1000, 0x40_0000)];
        let stack =
            Mapping { start: 0x10_0000, end: 0x40_0000, residency: Residency { runs }, ..Mapping::default() };
        let mut target = SyntheticMemory::new().into_target(vec![stack.clone()], Vec::new());
        let thread = |sp, tls| Thread { sp, tls, ..Thread::default() };
        target.threads =
            vec![thread(0x1f_e800, 0x1f_f6c0), thread(0x2f_e000, 0x2f_f6c0), thread(0x3f_e000, 0)];
        // Pages that are there follow each other down to the hole.
        assert_eq!(foot(&target, &stack, 0x1f_e800), 0x1f_c000);
        assert_eq!(foot(&target, &stack, 0x2f_e000), 0x20_1000);
        // In a core all of them are: another thread's lies below.
        assert_eq!(foot(&target, &stack, 0x3f_e000), 0x30_06c0);
        assert_eq!(foot(&target, &stack, 0x18_0000), 0x18_0000);
    }
}
