//! Tuples that nothing vouches for but their items, which lie anywhere in memory: those at hand are asked at once, others
//! when every block has a mark.

use super::{Pass, Proposed};
use crate::marks::Mark;
use rayon::prelude::*;
use std::ops::Range;
use wmr_alloc::Block;
use wmr_cpython::object::sampled_items;
use wmr_cpython::types::TypeCache;
use wmr_memory::{Memory, Reader};

/// Such a tuple, by its place among the blocks of its span, and an item of it in another span. In 8 bytes: there may be
/// millions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Item(u64);

/// User space without the bits that alignment leaves.
const ADDR_BITS: u32 = 45;
/// For one item so many bytes of the span: what is beyond it is looked up at once, wherever it is.
const BYTES_PER_ITEM: u64 = 128;

impl Item {
    fn new(tuple: u32, addr: u64) -> Option<Item> {
        let fits = addr & 7 == 0 && addr >> 3 >> ADDR_BITS == 0 && tuple >> (64 - ADDR_BITS) == 0;
        fits.then_some(Item(u64::from(tuple) << ADDR_BITS | addr >> 3))
    }

    fn tuple(self) -> u32 {
        (self.0 >> ADDR_BITS) as u32
    }

    fn addr(self) -> u64 {
        (self.0 & ((1 << ADDR_BITS) - 1)) << 3
    }
}

/// The tuples of a span.
pub(super) struct Tuples<'m> {
    range: Range<u64>,
    local: Reader<'m>,
    near: Reader<'m>,
    elsewhere: Reader<'m>,
    most: usize,
    /// What is asked later.
    pub items: Vec<Item>,
}

impl<'m> Tuples<'m> {
    pub fn new(memory: &'m dyn Memory, range: Range<u64>) -> Self {
        let [local, near, elsewhere] = [(); 3].map(|()| Reader::new(memory));
        let most = ((range.end - range.start) / BYTES_PER_ITEM) as usize;
        Tuples { range, local, near, elsewhere, most, items: Vec::new() }
    }

    /// Does the tuple stand, as far as can be told here?
    pub fn stands(&mut self, pass: &Pass, types: &mut TypeCache, tuple: u64, place: u32) -> bool {
        let others = self.items.len();
        let Some(sampled) = sampled_items(pass.model, &mut self.local, tuple) else { return false };
        for item in sampled.into_iter().filter(|item| *item != 0) {
            let later = || {
                let has_room = self.items.len() < self.most && pass.blocks.span_at(item).is_some();
                Item::new(place, item).filter(|_| has_room)
            };
            let is_object = match self.range.contains(&item) {
                true => types.type_of(&mut self.near, item).is_some(),
                false => match later() {
                    Some(item) => {
                        self.items.push(item);
                        true
                    }
                    None => types.type_of(&mut self.elsewhere, item).is_some(),
                },
            };
            if !is_object {
                self.items.truncate(others);
                return false;
            }
        }
        true
    }
}

impl Pass<'_> {
    /// Of the tuples those whose items are no objects.
    pub(super) fn mistaken_tuples(&self, proposed: &[Proposed], marks: &[Mark]) -> Vec<u32> {
        let presizes = self.types.presizes();
        let begin = || (TypeCache::new(self.types, self.target.reader()), self.target.reader());
        let is_object = |types: &mut TypeCache, reader: &mut Reader, item: u64| {
            let begins_one = |block: Block| {
                let presize = presizes.get(marks[block.id as usize].as_object()? as usize)?;
                Some(block.start + u64::from(*presize) == item)
            };
            // What is an object already need not be read.
            self.blocks.containing(item).and_then(begins_one) == Some(true)
                || types.type_of(reader, item).is_some()
        };
        let items = proposed
            .par_iter()
            .flat_map_iter(|Proposed { first, items, .. }| items.iter().map(move |item| (*first, *item)));
        let mistaken = items.map_init(begin, |(types, reader), (first, item)| {
            let tuple = first + item.tuple();
            let stands = marks[tuple as usize].as_object().is_none() || is_object(types, reader, item.addr());
            (!stands).then_some(tuple)
        });
        mistaken.flatten_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn items_are_as_they_were(tuple in 0u32..1 << 20, addr in 0u64..1 << 49) {
            let fits = tuple < 1 << 19 && addr < 1 << 48 && addr.is_multiple_of(8);
            let item = Item::new(tuple, addr);
            prop_assert_eq!(item.map(|item| (item.tuple(), item.addr())), fits.then_some((tuple, addr)));
            let aligned = addr & ((1 << 48) - 8);
            let item = Item::new(tuple & 0x7ffff, aligned).unwrap();
            prop_assert_eq!((item.tuple(), item.addr()), (tuple & 0x7ffff, aligned));
        }
    }
}
