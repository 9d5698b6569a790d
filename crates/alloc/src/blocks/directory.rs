//! Address → span in two table look-ups.

use super::Span;

/// 256 KiB, the smallest pymalloc arena: a granule rarely holds more than a few spans.
const GRANULE: u32 = 18;
/// Granules a leaf covers: 1 GiB.
const LEAF: u32 = 12;
/// User space of x86-64 and aarch64 with 48-bit addresses; what lies above is searched.
const ROOT: usize = 1 << (47 - GRANULE - LEAF);
/// Leaves there may be, 16 KiB each: a memory scattered on purpose is searched too.
const MAX_LEAVES: usize = 2048;
/// Entry of the root whose GiB is not in the table.
const SEARCH: u32 = u32::MAX;

/// For each granule the first span that ends after the granule's start.
#[derive(Debug, Default)]
pub(super) struct Directory {
    /// Per GiB: number of its leaf, counted from 1; 0 when no span is in it.
    root: Vec<u32>,
    leaves: Vec<u32>,
}

impl Directory {
    pub fn new(spans: &[Span]) -> Self {
        let mut root = vec![0u32; ROOT];
        let mut leaves: Vec<u32> = Vec::new();
        for (index, span) in spans.iter().enumerate() {
            let last = (span.end - 1) >> GRANULE;
            let mut granule = span.start >> GRANULE;
            while granule <= last {
                let gib = (granule >> LEAF) as usize;
                if gib >= ROOT {
                    break;
                }
                if root[gib] == 0 {
                    let number = leaves.len() >> LEAF;
                    root[gib] = if number < MAX_LEAVES { number as u32 + 1 } else { SEARCH };
                    if root[gib] != SEARCH {
                        leaves.resize(leaves.len() + (1 << LEAF), u32::MAX);
                    }
                }
                if root[gib] == SEARCH {
                    granule = (gib as u64 + 1) << LEAF;
                    continue;
                }
                let slot = (root[gib] as usize - 1) << LEAF | granule as usize & ((1 << LEAF) - 1);
                leaves[slot] = leaves[slot].min(index as u32);
                granule += 1;
            }
        }
        Directory { root, leaves }
    }

    #[inline]
    pub fn find(&self, addr: u64, spans: &[Span]) -> Option<usize> {
        let granule = addr >> GRANULE;
        let first = match self.root.get((granule >> LEAF) as usize) {
            Some(0) => return None,
            None | Some(&SEARCH) => return search(addr, 0, spans),
            Some(leaf) => {
                let slot = (*leaf as usize - 1) << LEAF | granule as usize & ((1 << LEAF) - 1);
                self.leaves[slot] as usize
            }
        };
        // Almost always the first; blocks cut into slots make many small spans.
        for (i, span) in spans.get(first..)?.iter().take(4).enumerate() {
            if addr < span.end {
                return (addr >= span.start).then_some(first + i);
            }
        }
        search(addr, first + 4, spans)
    }
}

#[cold]
fn search(addr: u64, from: usize, spans: &[Span]) -> Option<usize> {
    let i = from + spans.get(from..)?.partition_point(|s| s.end <= addr);
    spans.get(i).filter(|s| s.start <= addr).map(|_| i)
}
