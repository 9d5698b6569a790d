//! Tuples that nothing vouches for but their items, which lie anywhere in memory: those at hand are asked at once, others
//! when every block has a mark.

use super::far::{BYTES_PER_FAR, Far};
use super::{Pass, Proposed};
use crate::marks::Mark;
use rayon::prelude::*;
use std::ops::Range;
use wmr_alloc::Block;
use wmr_cpython::object::sampled_items;
use wmr_cpython::types::TypeCache;
use wmr_memory::{Memory, Reader};

/// The tuples of a span.
pub(super) struct Tuples<'m> {
    range: Range<u64>,
    local: Reader<'m>,
    near: Reader<'m>,
    elsewhere: Reader<'m>,
    most: usize,
    /// What is asked later.
    pub items: Vec<Far>,
}

impl<'m> Tuples<'m> {
    pub fn new(memory: &'m dyn Memory, range: Range<u64>) -> Self {
        let [local, near, elsewhere] = [(); 3].map(|()| Reader::new(memory));
        let most = ((range.end - range.start) / BYTES_PER_FAR) as usize;
        Tuples { range, local, near, elsewhere, most, items: Vec::new() }
    }

    /// Does the tuple stand, as far as can be told here?
    pub fn stands(&mut self, pass: &Pass, types: &mut TypeCache, tuple: u64, place: u32) -> bool {
        let others = self.items.len();
        let Some(sampled) = sampled_items(pass.model, &mut self.local, tuple) else { return false };
        for item in sampled.into_iter().filter(|item| *item != 0) {
            let later = || {
                let has_room = self.items.len() < self.most && pass.blocks.span_at(item).is_some();
                Far::new(place, item).filter(|_| has_room)
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
            // What is an object already need not be read; of most it is the block that begins there.
            let first = self.blocks.at(item).and_then(|id| marks[id as usize].as_object());
            first.is_some_and(|ty| presizes.get(ty as usize) == Some(&0))
                || self.blocks.containing(item).and_then(begins_one) == Some(true)
                || types.type_of(reader, item).is_some()
        };
        let items = proposed
            .par_iter()
            .flat_map_iter(|Proposed { first, items, .. }| items.iter().map(move |item| (*first, *item)));
        let mistaken = items.map_init(begin, |(types, reader), (first, item)| {
            let tuple = first + item.place();
            let stands = marks[tuple as usize].as_object().is_none() || is_object(types, reader, item.addr());
            (!stands).then_some(tuple)
        });
        mistaken.flatten_iter().collect()
    }
}
