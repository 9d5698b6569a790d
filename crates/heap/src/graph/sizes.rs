//! Bytes by node, four a node: few nodes have 4 GiB.

use rayon::prelude::*;
use rustc_hash::FxHashMap;
use std::ops::Range;

#[derive(Debug, Clone, Default)]
pub struct Sizes {
    small: Vec<u32>,
    /// Of those that do not fit, whose `small` is [`LARGE`].
    large: FxHashMap<u32, u64>,
}

const LARGE: u32 = u32::MAX;

impl Sizes {
    pub fn new(nodes: u32) -> Sizes {
        Sizes { small: vec![0; nodes as usize], large: FxHashMap::default() }
    }

    /// 0 of what is no node.
    #[inline]
    pub fn of(&self, node: u32) -> u64 {
        match self.small.get(node as usize) {
            None => 0,
            Some(&LARGE) => self.large.get(&node).copied().unwrap_or(u64::from(LARGE)),
            Some(&size) => u64::from(size),
        }
    }

    /// Sets what is 0 yet, in parallel: `of` is asked for the bytes of the nodes of a range.
    pub fn set<I: Iterator<Item = (u32, u64)>>(&mut self, of: impl Fn(Range<u32>) -> I + Sync) {
        const CHUNK: usize = 1 << 13;
        let chunks = self.small.par_chunks_mut(CHUNK).enumerate();
        let large: Vec<(u32, u64)> = chunks
            .flat_map_iter(|(chunk, small)| {
                let first = (chunk * CHUNK) as u32;
                let mut large = Vec::new();
                for (node, bytes) in of(first..first + small.len() as u32) {
                    let Some(small) = small.get_mut(node.wrapping_sub(first) as usize) else { continue };
                    *small = u32::try_from(bytes).unwrap_or(LARGE);
                    if *small == LARGE {
                        large.push((node, bytes));
                    }
                }
                large
            })
            .collect();
        self.large.extend(large);
    }

    pub fn add(&mut self, node: u32, bytes: u64) {
        let sum = self.of(node).saturating_add(bytes);
        let Some(small) = self.small.get_mut(node as usize) else { return };
        *small = u32::try_from(sum).unwrap_or(LARGE);
        if *small == LARGE {
            self.large.insert(node, sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Sizes;

    #[test]
    fn sums_are_exact_beyond_four_gibibytes() {
        let mut sizes = Sizes::new(2);
        let least = u64::from(u32::MAX);
        for (add, sum) in [(7, 7), (least - 8, least - 1), (1, least), (1, least + 1), (least, 2 * least + 1)]
        {
            sizes.add(1, add);
            assert_eq!((sizes.of(0), sizes.of(1)), (0, sum));
        }
        sizes.add(2, 1);
        assert_eq!(sizes.of(2), 0);
    }

    #[test]
    fn sizes_are_set_by_range() {
        let size = |node: u32| u64::from(node) << if node.is_multiple_of(9_999) { 30 } else { 0 };
        let mut sizes = Sizes::new(20_000);
        // What is beyond the range is not taken.
        sizes.set(|nodes| (nodes.start..nodes.end + 1).map(|node| (node, size(node))));
        assert!((0..20_000).all(|node| sizes.of(node) == size(node)));
    }
}
