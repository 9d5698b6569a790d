//! A set of nodes, one bit each, that many threads may add to.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Debug, Default)]
pub struct Bits(Vec<AtomicU64>);

impl Bits {
    pub fn new(nodes: u32) -> Bits {
        Bits((0..nodes.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    pub fn of(nodes: u32, members: impl IntoIterator<Item = u32>) -> Bits {
        let bits = Bits::new(nodes);
        for node in members.into_iter().filter(|node| *node < nodes) {
            bits.insert(node);
        }
        bits
    }

    #[inline]
    pub fn contains(&self, node: u32) -> bool {
        self.0.get(node as usize / 64).is_some_and(|word| word.load(Relaxed) & 1 << (node % 64) != 0)
    }

    /// Has memory bring what tells of the node, without waiting for it.
    #[inline]
    pub fn prefetch(&self, node: u32) {
        #[cfg(target_arch = "x86_64")]
        if let Some(word) = self.0.get(node as usize / 64) {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a hint, that every x86-64 has; the address is the word's.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(word).cast()) };
        }
    }

    /// True when it is new. Nodes beyond the set are left out.
    #[inline]
    pub fn insert(&self, node: u32) -> bool {
        let Some(word) = self.0.get(node as usize / 64) else { return false };
        let bit = 1 << (node % 64);
        // Most inserts are repeats; a load shares the cache line, an exchange takes it.
        word.load(Relaxed) & bit == 0 && word.fetch_or(bit, Relaxed) & bit == 0
    }

    pub fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.load(Relaxed).count_ones())).sum()
    }

    /// The members, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().zip(0u32..).flat_map(|(word, at)| {
            let mut rest = word.load(Relaxed);
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros())?;
                rest &= rest - 1;
                Some(at * 64 + bit)
            })
        })
    }
}
