//! Memory that was mapped by nobody we know: what allocators, programs, libraries and the interpreter leave of
//! anonymous mappings. A library with an allocator of its own has its memory there, a coroutine its stack.

use crate::inspect::Inspection;
use crate::ledger::KnownRange;
use std::ops::Range;
use wmr_alloc::Blocks;
use wmr_memory::{Backing, Mapping, Target};

/// Ranges whose use is known, in order; they do not meet.
pub struct Claimed(Vec<Range<u64>>);

impl Claimed {
    pub fn of(target: &Target, blocks: &Blocks, known: &[KnownRange]) -> Claimed {
        let spans = blocks.spans().iter().map(|span| span.start..span.end);
        let known = known.iter().map(|known| known.range.clone());
        let segments = target.images.iter().flat_map(|image| &image.segments);
        Claimed::new(spans.chain(known).chain(segments.map(|segment| segment.range.clone())).collect())
    }

    fn new(mut ranges: Vec<Range<u64>>) -> Claimed {
        ranges.sort_unstable_by_key(|range| range.start);
        ranges.dedup_by(|next, before| {
            let meets = next.start <= before.end;
            if meets {
                before.end = before.end.max(next.end);
            }
            meets
        });
        Claimed(ranges)
    }

    /// Those parts of anonymous private memory that are not claimed, each with the mapping that it is of.
    pub fn rest<'t>(&self, target: &'t Target) -> Vec<(&'t Mapping, Range<u64>)> {
        let open = target.mappings.iter().filter(|mapping| {
            let perms = &mapping.perms;
            mapping.backing == Backing::Anonymous && perms.read && perms.write && !perms.shared
        });
        let mut found = Vec::new();
        for mapping in open {
            let mut at = mapping.start;
            let first = self.0.partition_point(|range| range.end <= mapping.start);
            for range in self.0[first..].iter().take_while(|range| range.start < mapping.end) {
                if at < range.start {
                    found.push((mapping, at..range.start));
                }
                at = range.end;
            }
            if at < mapping.end {
                found.push((mapping, at..mapping.end));
            }
        }
        found
    }
}

/// What is left when all is known that will be, in address order.
pub fn unclaimed<'t>(target: &'t Target, inspection: &Inspection) -> Vec<(&'t Mapping, Range<u64>)> {
    let mut claimed = Claimed::of(target, &inspection.blocks, &inspection.ranges).0;
    if let Ok(glibc) = &inspection.glibc {
        claimed.extend(glibc.arenas.iter().flat_map(|arena| arena.heaps.iter().cloned()));
    }
    Claimed::new(claimed).rest(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wmr_memory::Perms;
    use wmr_memory::synthetic::SyntheticMemory;

    #[test]
    fn what_is_left_of_mappings() {
        let perms = Perms { read: true, write: true, ..Perms::default() };
        let mapping = |start, end| Mapping { start, end, perms, ..Mapping::default() };
        let mappings =
            vec![mapping(0x1000, 0x4000), mapping(0x4000, 0x6000), mapping(u64::MAX - 0xfff, u64::MAX)];
        let target = SyntheticMemory::new().into_target(mappings, Vec::new());
        let claimed =
            Claimed::new(vec![0x5000..0x9000, 0x0..0x1800, 0x2000..0x2800, 0x2400..0x3000, 0x2100..0x2200]);
        let rest: Vec<Range<u64>> = claimed.rest(&target).into_iter().map(|(_, range)| range).collect();
        assert_eq!(rest, [0x1800..0x2000, 0x3000..0x4000, 0x4000..0x5000, u64::MAX - 0xfff..u64::MAX]);
    }
}
