//! What objects lead to in other spans, to be asked when that costs least: items of tuples when all blocks have marks,
//! tables of dicts in the order in which they lie in memory.

use super::{Pass, Proposed, Wanted};
use rayon::prelude::*;
use wmr_cpython::owns;
use wmr_memory::shared_out;

/// An object, by its place among the blocks of its span, and an address in another span. In 8 bytes: there may be
/// millions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Far(u64);

/// User space without the bits that alignment leaves.
const ADDR_BITS: u32 = 45;
/// For one of a kind so many bytes of the span: what is beyond it is looked up at once, wherever it is.
pub(super) const BYTES_PER_FAR: u64 = 128;
/// Tables that a thread looks at before it takes others.
const TABLES: usize = 1 << 12;

impl Far {
    /// `None` for an address that is not aligned, and for a place behind all that a MiB has.
    pub fn new(place: u32, addr: u64) -> Option<Far> {
        let fits = addr & 7 == 0 && addr >> 3 >> ADDR_BITS == 0 && place >> (64 - ADDR_BITS) == 0;
        fits.then_some(Far(u64::from(place) << ADDR_BITS | addr >> 3))
    }

    pub fn place(self) -> u32 {
        (self.0 >> ADDR_BITS) as u32
    }

    pub fn addr(self) -> u64 {
        (self.0 & ((1 << ADDR_BITS) - 1)) << 3
    }
}

impl Pass<'_> {
    /// The claims of dicts to tables that lie far from them.
    pub(super) fn claims_of_tables(&self, proposed: &mut [Proposed]) -> Vec<Proposed> {
        let mut tables: Vec<(u64, u32)> = proposed
            .par_iter_mut()
            .flat_map_iter(|Proposed { first, tables, .. }| {
                let first = *first;
                std::mem::take(tables).into_iter().map(move |table| (table.addr(), first + table.place()))
            })
            .collect();
        tables.par_sort_unstable();
        let begin = || (self.target.reader().linear(), self.target.reader());
        shared_out(tables.chunks(TABLES), begin, |(reader, cursor), tables| {
            let claims = tables.iter().filter_map(|(keys, owner)| {
                let owned = owns::table_owned(self.model, reader, *keys)?;
                self.claim(cursor, Wanted::new(owned, *owner))
            });
            Proposed::elsewhere(claims.collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn items_are_as_they_were(place in 0u32..1 << 20, addr in 0u64..1 << 49) {
            let fits = place < 1 << 19 && addr < 1 << 48 && addr.is_multiple_of(8);
            let item = Far::new(place, addr);
            prop_assert_eq!(item.map(|item| (item.place(), item.addr())), fits.then_some((place, addr)));
            let aligned = addr & ((1 << 48) - 8);
            let item = Far::new(place & 0x7ffff, aligned).unwrap();
            prop_assert_eq!((item.place(), item.addr()), (place & 0x7ffff, aligned));
        }
    }
}
