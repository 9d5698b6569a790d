//! The blocks of one arena, before all blocks have numbers.

use super::Arena;
use crate::blocks::slot_in_pool;

impl Arena {
    /// The used blocks, in address order: where each starts, and its bytes.
    #[inline]
    pub fn for_each_block(&self, mut f: impl FnMut(u64, u64)) {
        let alignment = u64::from(self.geometry.alignment);
        let words = (self.geometry.pool_size / self.geometry.alignment / 64) as usize;
        for (class, (at, bits)) in self.found.classes.iter().zip(self.found.bits.chunks(words).enumerate()) {
            let pool = self.found.base + at as u64 * u64::from(self.geometry.pool_size);
            let bytes = u64::from(*class) * alignment;
            for (word, bits) in bits.iter().enumerate() {
                let mut rest = *bits;
                while rest != 0 {
                    f(pool + (word as u64 * 64 + u64::from(rest.trailing_zeros())) * alignment, bytes);
                    rest &= rest - 1;
                }
            }
        }
    }
}

/// Finds the used blocks of an arena by address: a block's place is how many there are before it.
pub struct Within<'a> {
    arena: &'a Arena,
    /// Per word of the bitmap: bits set in all words before it.
    ranks: Vec<u32>,
}

impl<'a> Within<'a> {
    pub fn new(arena: &'a Arena) -> Self {
        let mut before = 0;
        let rank = |word: &u64| {
            let rank = before;
            before += word.count_ones();
            rank
        };
        Within { arena, ranks: arena.found.bits.iter().map(rank).collect() }
    }

    /// Place, start and bytes of the used block that `addr` is in.
    #[inline]
    pub fn containing(&self, addr: u64) -> Option<(u32, u64, u64)> {
        let Arena { geometry, found, .. } = self.arena;
        let (start, bytes) = slot_in_pool(found.base, *geometry, &found.classes, addr)?;
        let bit = (start - found.base) >> geometry.alignment.trailing_zeros();
        let (word, bit) = ((bit / 64) as usize, bit % 64);
        let bits = *found.bits.get(word)?;
        (bits >> bit & 1 != 0)
            .then(|| (self.ranks[word] + (bits & ((1 << bit) - 1)).count_ones(), start, bytes))
    }
}
