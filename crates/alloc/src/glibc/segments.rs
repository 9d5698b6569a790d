//! A part of a heap, walked from several places at once.
//!
//! Where a chunk starts only the one before it tells. But a place from which on hundreds of sizes fit one behind the
//! other is hardly ever anything else: each such place begins a segment. The walk of the segment before has to end just
//! there; where it does not, it goes on instead.

use super::chunks::{Part, Walked};
use std::cmp::Ordering;
use std::ops::Range;
use wmr_memory::{Reader, Target, shared_out};

/// Bytes from one place that is looked at to the next.
const SEGMENT: u64 = 4 << 20;
/// Places in one part at most, however much of the address space it says it takes: then they lie farther apart.
const MAX_SEGMENTS: u64 = 1 << 12;
/// Sizes that are read there: within a large chunk no other begins, and its user's data are not gone through.
const LOOK_AT: u64 = 2048;

/// What each part holds.
pub(super) fn walk(target: &Target, parts: &[Part]) -> Vec<Walked> {
    let reader = || target.reader();
    let starts: Vec<Vec<u64>> = shared_out(parts, reader, |reader, part| starts(part, reader));
    let segments: Vec<(&Part, Range<u64>)> = parts
        .iter()
        .zip(&starts)
        .flat_map(|(part, starts)| ranges(starts).map(move |range| (part, range)))
        .collect();
    let walk = |reader: &mut Reader, (part, range): (&Part, Range<u64>)| part.walk(reader, range);
    let mut walked = shared_out(segments, || target.reader().linear(), walk).into_iter();
    let mut reader = target.reader().linear();
    let mut join = |(part, starts): (&Part, &Vec<u64>)| {
        let mut segments = ranges(starts).zip(walked.by_ref().take(starts.len()));
        let mut all = segments.next().map(|(_, first)| first).unwrap_or_default();
        for (range, segment) in segments {
            if all.is_complete {
                continue;
            }
            match all.end.cmp(&range.start) {
                Ordering::Equal => all.append(segment),
                // No chunk begins there.
                _ => {
                    let rest = all.end..range.end;
                    all.append(part.walk(&mut reader, rest));
                }
            }
        }
        all
    };
    parts.iter().zip(&starts).map(&mut join).collect()
}

/// From each start to the next; the last to wherever the part ends.
fn ranges(starts: &[u64]) -> impl Iterator<Item = Range<u64>> + '_ {
    let ends = starts.iter().skip(1).copied().chain([u64::MAX]);
    starts.iter().copied().zip(ends).map(|(start, end)| start..end)
}

/// Where chunks seem to start, the first for certain.
fn starts(part: &Part, reader: &mut Reader) -> Vec<u64> {
    let step = SEGMENT.max(part.end.saturating_sub(part.first) / MAX_SEGMENTS);
    let places =
        (1..MAX_SEGMENTS).map(|i| part.first.saturating_add(i * step)).take_while(|at| *at < part.end);
    let found = places.filter_map(|at| part.resume(reader, at, &mut { LOOK_AT }));
    let mut starts = vec![part.first];
    for start in found {
        if starts.last().is_some_and(|last| *last < start) {
            starts.push(start);
        }
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::glibc::layout::{IS_MMAPPED, PREV_INUSE};
    use proptest::prelude::*;
    use wmr_memory::synthetic::SyntheticMemory;

    const HEAP: u64 = 0x5555_0000_0000;
    const BYTES: u64 = 3 * SEGMENT + SEGMENT / 2;

    /// Chunks of these sizes over and over up to the top; every third one free. Across each place that is looked at
    /// lies a large chunk: with another heap's chunks in it, if `decoys`, up to its end or beyond.
    fn heap(sizes: &[u64], decoys: Option<u64>) -> (SyntheticMemory, Part) {
        let mut memory = SyntheticMemory::new();
        memory.map(HEAP, vec![0; BYTES as usize]);
        let (mut at, mut before_is_used, mut count) = (HEAP, true, 0);
        let mut sizes = sizes.iter().cycle();
        while at + 0x10000 < HEAP + BYTES {
            let place = (at - HEAP).next_multiple_of(SEGMENT) + HEAP;
            let across = decoys.is_some() && place - at <= 0x2000 && place > HEAP;
            let bytes = if across { 0x8000 } else { *sizes.next().unwrap() };
            memory.write_u64(at + 8, bytes | (u64::from(before_is_used) * PREV_INUSE));
            if let Some(decoy) = decoys.filter(|_| across) {
                for decoyed in (place..at + bytes - 16).step_by(decoy as usize) {
                    memory.write_u64(decoyed + 8, decoy | PREV_INUSE);
                }
            }
            count += 1;
            before_is_used = across || count % 3 != 0;
            at += bytes;
        }
        memory.write_u64(at + 8, (HEAP + BYTES - at) | PREV_INUSE);
        let end = HEAP + BYTES;
        (memory, Part { start: HEAP, end, first: HEAP, top: Some(at), arena: 0, main: true })
    }

    /// Addresses and sizes of all used chunks, and the sums.
    fn told(walked: &Walked) -> (Vec<u64>, Vec<u32>, [u64; 7]) {
        let starts = walked.pieces.iter().flat_map(|piece| {
            let bits = piece.bits.iter().enumerate().flat_map(|(word, bits)| {
                (0..64).filter(move |bit| bits >> bit & 1 != 0).map(move |bit| word as u64 * 64 + bit)
            });
            bits.map(|bit| piece.origin + bit * 16)
        });
        let sizes = walked.pieces.iter().flat_map(|piece| piece.sizes.iter().copied()).collect();
        let Walked { used_chunks, used_bytes, free_chunks, free_bytes, top_bytes, lost_bytes, end, .. } =
            *walked;
        let sums = [used_chunks, used_bytes, free_chunks, free_bytes, top_bytes, lost_bytes, end];
        (starts.collect(), sizes, sums)
    }

    /// At once and one by one the same is found; where segments began.
    fn same(memory: SyntheticMemory, part: &Part) -> Vec<u64> {
        let target = memory.into_target(Vec::new(), Vec::new());
        let alone = part.walk(&mut target.reader(), part.first..u64::MAX);
        let walked = &walk(&target, std::slice::from_ref(part))[0];
        assert_eq!(told(walked), told(&alone));
        let pieces = &walked.pieces;
        assert!(pieces.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert_eq!((pieces[0].start, pieces[pieces.len() - 1].end), (part.start, alone.end));
        starts(part, &mut target.reader())
    }

    #[test]
    fn each_place_begins_a_segment() {
        let (memory, part) = heap(&[32, 48, 4096, 80], None);
        assert_eq!(same(memory, &part).len(), 4);
    }

    #[test]
    fn what_looks_like_chunks_in_a_large_one_is_not_believed() {
        for decoy in [32, 48] {
            let (memory, part) = heap(&[32, 48, 4096, 80], Some(decoy));
            let decoyed = [0, 1, 2, 3].map(|i| HEAP + i * SEGMENT);
            assert_eq!(same(memory, &part), decoyed, "{decoy}");
        }
    }

    #[test]
    fn a_damaged_chunk_costs_its_segment_at_most() {
        for size in [8, 40, IS_MMAPPED | 64, u64::MAX] {
            let (mut memory, part) = heap(&[64], None);
            memory.write_u64(HEAP + SEGMENT + SEGMENT / 2 + 8, size);
            assert_eq!(same(memory, &part).len(), 4, "{size:#x}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
        #[test]
        fn any_heap(
            units in prop::collection::vec(2u64..2000, 1..40),
            decoys in prop::option::of(2u64..20),
            damage in prop::option::of((0..BYTES / 16, any::<u64>())),
        ) {
            let sizes: Vec<u64> = units.iter().map(|units| units * 16).collect();
            let (mut memory, part) = heap(&sizes, decoys.map(|units| units * 16));
            if let Some((at, word)) = damage {
                memory.write_u64(HEAP + at * 16 + 8, word);
            }
            same(memory, &part);
        }
    }
}
