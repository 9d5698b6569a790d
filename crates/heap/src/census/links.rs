//! Neighbours in the collector's lists that lie far apart. What leads from one to the other is written in both: all that
//! say "behind me comes" are compared with all that say "before me comes", instead of asking for each other's memory.

use super::far::BYTES_PER_FAR;
use super::{Pass, Proposed};
use crate::marks::Mark;
use rayon::prelude::*;
use rustc_hash::FxHashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use wmr_cpython::object::Identifier;
use wmr_cpython::types::TypeCache;
use wmr_memory::Reader;

/// Sums over pairs of neighbours, by what is made of their addresses. Where as many say the one as the other of each
/// pair nothing is left.
pub(super) struct Links {
    sums: Vec<AtomicU64>,
}

/// An object in the collector's lists, as far as it itself says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Undecided {
    /// Among the blocks of its span.
    place: u32,
    /// The sum that its successor is in.
    sum: u32,
}

/// Half a MiB of sums, which stay in a processor's cache: a pair that does not match casts doubt on the pairs that share its sum.
const SUMS_BITS: u32 = 16;

impl Links {
    fn new() -> Links {
        Links { sums: (0..1 << SUMS_BITS).map(|_| AtomicU64::new(0)).collect() }
    }

    /// The sum of a pair, and what is added to it.
    fn place(before: u64, behind: u64) -> (usize, u64) {
        let mixed = (before ^ behind.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        ((mixed >> (64 - SUMS_BITS)) as usize, mixed)
    }

    /// `before` says that `behind` comes next: the sum that tells whether that one says so too.
    fn leads(&self, before: u64, behind: u64) -> u32 {
        let (sum, mixed) = Links::place(before, behind);
        self.sums[sum].fetch_add(mixed, Relaxed);
        sum as u32
    }

    /// `behind` says that it comes next to `before`.
    fn follows(&self, before: u64, behind: u64) {
        let (sum, mixed) = Links::place(before, behind);
        self.sums[sum].fetch_sub(mixed, Relaxed);
    }

    /// All pairs of that sum were told by both.
    fn is_even(&self, sum: u32) -> bool {
        self.sums[sum as usize].load(Relaxed) == 0
    }
}

/// The links of the objects of a span.
pub(super) struct SpanLinks<'l> {
    links: Option<&'l Links>,
    /// What lies in here is at hand.
    range: Range<u64>,
    gc_head: u64,
    most: usize,
    pub undecided: Vec<Undecided>,
}

impl<'l> SpanLinks<'l> {
    pub fn new(links: Option<&'l Links>, range: Range<u64>, gc_head: u64) -> Self {
        let most = ((range.end - range.start) / BYTES_PER_FAR) as usize;
        SpanLinks { links, range, gc_head, most, undecided: Vec::new() }
    }

    /// Neighbours beyond this range are asked by [`Links`], not by the identifier; nothing where it asks all of them.
    pub fn trusted_beyond(&self) -> Range<u64> {
        if self.links.is_some() && self.undecided.len() < self.most { self.range.clone() } else { 0..0 }
    }

    /// Notes whom the object that was found at `addr` has for neighbours. Is it left to them whether it stands?
    pub fn note(&mut self, reader: &mut Reader, addr: u64, place: u32) -> bool {
        let Some(links) = self.links else { return false };
        let head = addr.wrapping_sub(self.gc_head);
        let (Ok(next), Ok(prev)) = (reader.u64(head), reader.u64(head.wrapping_add(8))) else { return false };
        let (next, prev) = (next & !3, prev & !3);
        let is_far = |neighbour: u64| !self.range.contains(&neighbour);
        if is_far(prev) {
            links.follows(prev, head);
        }
        if !is_far(next) {
            return false;
        }
        let sum = links.leads(head, next);
        let is_undecided = is_far(prev) && self.undecided.len() < self.most;
        if is_undecided {
            self.undecided.push(Undecided { place, sum });
        }
        is_undecided
    }
}

impl Pass<'_> {
    /// `None` where neighbours are asked as they are met: few lie apart in pymalloc's arenas, and the heads of other
    /// versions say it in another way.
    pub(super) fn links(&self) -> Option<Links> {
        let has_heads = self.model.gc_head != 0 && self.model.layout.gc_head.gc_next.is_some();
        (has_heads && !self.model.pymalloc && !self.model.collecting).then(Links::new)
    }

    /// Looks again at objects of which no neighbour said that it is one.
    pub(super) fn decide(
        &self,
        links: &Links,
        proposed: &mut [Proposed],
        marks: &mut [Mark],
        known: &[(u32, Mark)],
    ) {
        let doubted: Vec<u32> = proposed
            .par_iter_mut()
            .flat_map_iter(|Proposed { first, undecided, .. }| {
                let first = *first;
                let doubted =
                    std::mem::take(undecided).into_iter().filter(|object| !links.is_even(object.sum));
                doubted.map(move |object| first + object.place)
            })
            .collect();
        let begin =
            || (TypeCache::new(self.types, self.target.reader()), [(); 3].map(|()| self.target.reader()));
        let look = |(types, readers): &mut (TypeCache, [Reader; 3]), id: &u32| {
            let [local, remote, cursor] = readers;
            let block = self.blocks.block(*id);
            let source = super::source(self.blocks.kind(*id), block.bytes);
            let mut identifier = Identifier::new(types, self.target.reader());
            let object = self.identify(&mut identifier, local, block.start, block.usable, source);
            let mark = object.as_ref().map_or(Mark::NONE, Mark::of);
            if mark == marks[*id as usize] {
                return None;
            }
            let mut claims = Vec::new();
            if let Some(object) = &object {
                self.wanted_of(remote, object, |owned| {
                    claims.extend(self.claim(cursor, super::Wanted::new(owned, *id)));
                });
            }
            Some((*id, mark, claims))
        };
        let mistaken: Vec<_> = doubted.par_iter().map_init(begin, look).flatten_iter().collect();
        if mistaken.is_empty() {
            return;
        }
        let ids: FxHashSet<u32> = mistaken.iter().map(|(id, ..)| *id).collect();
        proposed
            .par_iter_mut()
            .for_each(|proposed| proposed.elsewhere.retain(|claim| !ids.contains(&claim.owner)));
        for (id, mark, claims) in mistaken {
            let known = known.binary_search_by_key(&id, |(known, _)| *known).ok().map(|at| known[at].1);
            let stands = known.is_none() || mark.is_linked();
            marks[id as usize] = if stands { mark } else { known.unwrap_or(mark) };
            if stands && let Some(proposed) = proposed.first_mut() {
                proposed.elsewhere.extend(claims);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pairs_told_by_both_are_even_and_others_are_not(
            heads in prop::collection::btree_set(1u64..1 << 43, 2..60),
            liar in any::<prop::sample::Index>(),
            other in 1u64..1 << 43,
        ) {
            let heads: Vec<u64> = heads.into_iter().map(|head| head * 16).collect();
            let pairs: Vec<(u64, u64)> = heads.iter().copied().zip(heads.iter().copied().cycle().skip(1)).collect();
            let links = Links::new();
            let sums: Vec<u32> = pairs.iter().map(|(before, behind)| links.leads(*before, *behind)).collect();
            // In another order.
            pairs.iter().rev().for_each(|(before, behind)| links.follows(*before, *behind));
            prop_assert!(sums.iter().all(|sum| links.is_even(*sum)));
            // One more that says it comes behind somebody who does not know it.
            let (before, behind) = pairs[liar.index(pairs.len())];
            let stranger = other * 16 + 8;
            let sum = links.leads(stranger, behind);
            prop_assert!(!links.is_even(sum));
            links.follows(before, stranger);
            prop_assert!(!links.is_even(Links::place(before, stranger).0 as u32));
        }
    }
}
