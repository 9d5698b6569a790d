//! Chunks that are free but look used: fastbins and tcaches. And the bins, as a check.

use super::HeapWalk;
use super::layout::{BINS, FASTBINS, FLAG_BITS, State, TCACHE_SMALL_BINS, TCACHES, Tcache};
use crate::blocks::{CHUNK_HEADER, Mark, State as Use};
use std::ops::AddAssign;
use wmr_memory::Reader;

/// All heaps, in address order, for random look-ups.
pub(super) struct Heaps<'a>(pub &'a [HeapWalk]);

impl Heaps<'_> {
    fn is_used(&self, chunk: u64) -> bool {
        let i = self.0.partition_point(|h| h.end <= chunk);
        self.0.get(i).is_some_and(|h| h.start <= chunk && h.is_used(chunk))
    }
}

/// What the lists gave.
#[derive(Debug, Default)]
pub(super) struct Released {
    /// Free chunks, by address.
    pub chunks: Vec<Mark>,
    /// Blocks that are a thread's cache itself: what malloc returned for them.
    pub caches: Vec<u64>,
    pub bad_lists: u64,
    pub first_bad: Option<u64>,
}

impl Released {
    fn bad(&mut self, at: u64) {
        self.bad_lists += 1;
        self.first_bad = self.first_bad.or(Some(at));
    }
}

/// Walks the lists of all arenas and threads. From 2.32 on links are stored xored with where they are
/// ("safe-linking"); memory tells which it is.
pub(super) fn release(
    reader: &mut Reader,
    heaps: &Heaps,
    arenas: &[u64],
    state: &State,
    candidates: &[u64],
    tcache_count: u64,
) -> Released {
    let mut lists = Lists { reader, heaps, limit: heaps.0.iter().map(|h| h.sizes.len()).sum(), safe: true };
    let safe = lists.all(arenas, state, candidates, tcache_count);
    if safe.bad_lists == 0 && !safe.chunks.is_empty() {
        return safe;
    }
    lists.safe = false;
    let plain = lists.all(arenas, state, candidates, tcache_count);
    // Read the wrong way, even the end of a list of one leads nowhere.
    let better = (plain.bad_lists, safe.chunks.len()) < (safe.bad_lists, plain.chunks.len())
        || plain.chunks.len() > safe.chunks.len();
    if better { plain } else { safe }
}

struct Lists<'r, 'm, 'h> {
    reader: &'r mut Reader<'m>,
    heaps: &'h Heaps<'h>,
    /// No list is longer than there are used chunks.
    limit: usize,
    safe: bool,
}

impl Lists<'_, '_, '_> {
    fn all(&mut self, arenas: &[u64], state: &State, candidates: &[u64], tcache_count: u64) -> Released {
        let mut out = Released::default();
        if let Some(fastbins) = state.fastbins {
            for &arena in arenas {
                for bin in 0..FASTBINS {
                    self.fastbin(arena + fastbins + 8 * bin, 32 + 16 * bin, &mut out);
                }
            }
        }
        for &chunk in candidates {
            self.tcache(chunk, tcache_count, &mut out);
        }
        out.chunks.sort_unstable();
        // One chunk on two lists is a double free; it is free once.
        out.chunks.dedup_by_key(|m| m.start);
        out
    }

    fn fastbin(&mut self, head: u64, size: u64, out: &mut Released) {
        let Ok(first) = self.reader.u64(head) else { return out.bad(head) };
        let (chunks, whole) = self.list(first, 0, |s| s == size, self.limit);
        if !whole {
            out.bad(head);
        }
        out.chunks.extend(chunks.iter().map(|&(start, bytes)| Mark {
            start,
            end: start + bytes,
            state: Use::Fastbin,
        }));
    }

    /// The chunks of a singly linked list, as far as it is sound, and whether it is so to its end.
    /// `to_chunk` is what lies between what the links name and the chunk.
    fn list(
        &mut self,
        first: u64,
        to_chunk: u64,
        fits: impl Fn(u64) -> bool,
        limit: usize,
    ) -> (Vec<(u64, u64)>, bool) {
        let mut chunks = Vec::new();
        let mut link = first;
        // Brent's way: a cycle meets the mark that is set anew at every power of two.
        let (mut mark, mut until) = (0, 1);
        while link != 0 {
            let chunk = link.wrapping_sub(to_chunk);
            if chunks.len() >= limit || link == mark || !self.heaps.is_used(chunk) {
                return (chunks, false);
            }
            if chunks.len() == until {
                (mark, until) = (link, until * 2);
            }
            let Ok([size, next]) = self.pair(chunk + 8) else { return (chunks, false) };
            let size = size & !FLAG_BITS;
            if !fits(size) {
                return (chunks, false);
            }
            chunks.push((chunk, size));
            link = if self.safe { next ^ (chunk + CHUNK_HEADER) >> 12 } else { next };
        }
        (chunks, true)
    }

    fn pair(&mut self, addr: u64) -> Result<[u64; 2], wmr_memory::Fault> {
        Ok([self.reader.u64(addr)?, self.reader.u64(addr + 8)?])
    }

    /// Takes `chunk` for a thread's cache if its lists say so.
    fn tcache(&mut self, chunk: u64, tcache_count: u64, out: &mut Released) {
        let Ok(size) = self.reader.u64(chunk + 8) else { return };
        let Some(layout) = TCACHES.iter().find(|t| t.fits(size & !FLAG_BITS)) else { return };
        let Some((numbers, heads)) = self.cache_fields(chunk + CHUNK_HEADER, layout) else { return };
        let mut found = Vec::new();
        let (mut sound, mut broken) = (0u32, 0u32);
        for (bin, (&number, &head)) in (0u64..).zip(numbers.iter().zip(&heads)) {
            let expected = match layout.counts_down {
                true => tcache_count.checked_sub(number.into()),
                false => Some(number.into()),
            };
            if head == 0 {
                // Bins of large chunks are off by default, with whatever number of slots.
                if bin < TCACHE_SMALL_BINS && expected != Some(0) {
                    broken += 1;
                }
                continue;
            }
            let fits = |size: u64| match bin {
                0..TCACHE_SMALL_BINS => size == 32 + 16 * bin,
                _ => size.checked_ilog2().is_some_and(|log| u64::from(log) == bin - TCACHE_SMALL_BINS + 10),
            };
            let limit = self.limit.min(expected.unwrap_or(0) as usize);
            let (chunks, whole) = self.list(head, CHUNK_HEADER, fits, limit);
            if whole && Some(chunks.len() as u64) == expected {
                sound += 1;
            } else {
                broken += 1;
            }
            found.extend(chunks);
        }
        // Something else of that size does not have three sound lists.
        if sound == 0 && broken == 0 {
            // Empty: nothing to free, and any zeroed chunk looks so.
            return;
        }
        if broken > 0 && sound < 3 {
            return;
        }
        if broken > 0 {
            out.bad_lists += u64::from(broken);
            out.first_bad = out.first_bad.or(Some(chunk + CHUNK_HEADER));
        }
        out.caches.push(chunk + CHUNK_HEADER);
        out.chunks.extend(found.iter().map(|&(start, bytes)| Mark {
            start,
            end: start + bytes,
            state: Use::Tcache,
        }));
    }

    fn cache_fields(&mut self, at: u64, layout: &Tcache) -> Option<(Vec<u16>, Vec<u64>)> {
        let mut bytes = [0; 0x300];
        let bytes = &mut bytes[..layout.bins as usize * 10];
        self.reader.read(at, bytes).ok()?;
        let (numbers, heads) = bytes.split_at(layout.bins as usize * 2);
        let numbers = numbers.as_chunks::<2>().0.iter().map(|&b| u16::from_le_bytes(b)).collect();
        let heads = heads.as_chunks::<8>().0.iter().map(|&b| u64::from_le_bytes(b)).collect();
        Some((numbers, heads))
    }
}

/// Where the links of a set of chunks lead, against the chunks themselves: nothing is left where each chunk is linked
/// to just once. Millions of chunks are compared so without following their lists through all of memory. The link is
/// `fd`, 16 bytes into a free chunk (`struct malloc_chunk`, glibc 2.31 to 2.43).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Links(u64);

impl Links {
    /// Adds a chunk, or the head of a bin, and what it is linked to.
    pub fn add(&mut self, chunk: u64, link: u64) {
        // Sums of the addresses alone would be equal for other sets too.
        let mixed = |addr: u64| {
            let mixed = addr.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93)
        };
        self.0 = self.0.wrapping_add(mixed(link)).wrapping_sub(mixed(chunk));
    }

    pub fn are_even(self) -> bool {
        self.0 == 0
    }
}

impl AddAssign for Links {
    fn add_assign(&mut self, other: Links) {
        self.0 = self.0.wrapping_add(other.0);
    }
}

/// The links of an arena's bins: each head looks like a chunk, in front of its first one. `None`: it cannot be read.
pub(super) fn heads(reader: &mut Reader, arena: u64, state: &State) -> Option<Links> {
    let mut links = Links::default();
    for bin in 0..BINS {
        let head = arena + state.bins + 16 * bin - 16;
        links.add(head, reader.u64(head + 16).ok()?);
    }
    Some(links)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn linked(pairs: impl Iterator<Item = (u64, u64)>) -> bool {
        let mut links = Links::default();
        pairs.for_each(|(chunk, link)| links.add(chunk, link));
        links.are_even()
    }

    proptest! {
        #[test]
        fn links_are_even_where_each_chunk_is_linked_to_once(
            chunks in prop::collection::btree_set(1u64..1 << 40, 2..50),
            turn in any::<prop::sample::Index>(),
            other in any::<u64>(),
        ) {
            let chunks: Vec<u64> = chunks.into_iter().map(|chunk| chunk * 16).collect();
            let mut next = chunks.clone();
            let at = turn.index(chunks.len());
            next.rotate_left(at);
            let pairs = |next: &[u64]| linked(chunks.iter().copied().zip(next.iter().copied()));
            prop_assert!(pairs(&next));
            // One is linked to what is none of them, or to what another one leads to: also where sums stay the same.
            let mut wrong = next.clone();
            wrong[at] = other | 1;
            prop_assert!(!pairs(&wrong));
            wrong[at] = next[(at + 1) % next.len()];
            prop_assert!(!pairs(&wrong));
            let mut moved = next;
            moved[0] += 16;
            moved[1] -= 16;
            let same = moved.iter().all(|chunk| chunks.contains(chunk));
            prop_assert!(same || !pairs(&moved));
        }
    }
}
