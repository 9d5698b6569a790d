//! Memory that was mapped by nobody we know: what allocators, programs, libraries and the interpreter leave of
//! anonymous mappings. A library with an allocator of its own has its memory there, a coroutine its stack.

use crate::inspect::Inspection;
use crate::leaks::without;
use std::ops::Range;
use wmr_memory::{Backing, Mapping, Target};

/// Each such part with the mapping that it is of, in address order.
pub fn unclaimed<'t>(target: &'t Target, inspection: &Inspection) -> Vec<(&'t Mapping, Range<u64>)> {
    let mut claimed: Vec<Range<u64>> =
        inspection.blocks.spans().iter().map(|span| span.start..span.end).collect();
    claimed.extend(inspection.ranges.iter().map(|known| known.range.clone()));
    claimed.extend(target.images.iter().flat_map(|i| &i.segments).map(|segment| segment.range.clone()));
    if let Ok(glibc) = &inspection.glibc {
        claimed.extend(glibc.arenas.iter().flat_map(|arena| arena.heaps.iter().cloned()));
    }
    claimed.sort_by_key(|range| range.start);
    let open = target.mappings.iter().filter(|mapping| {
        let perms = &mapping.perms;
        mapping.backing == Backing::Anonymous && perms.read && perms.write && !perms.shared
    });
    let mut found = Vec::new();
    for mapping in open {
        without(mapping.start..mapping.end, &claimed, &mut |range| found.push((mapping, range)));
    }
    found
}
