//! What of a target's bytes is structure, and what is somebody's data: so that a snapshot can be given to
//! others.
//!
//! Structure is kept: objects' headers and references, tables, the allocators' and the interpreter's own
//! memory, the names of types, numbers. The payload of `str`, `bytes`, `bytearray` and arrays is replaced
//! by zeroes, and so is every word of which nothing is known that is not an address: native buffers,
//! stacks, freed memory, other libraries' data.

mod blocks;

use crate::Inspection;
use crate::type_objects::all_types;
use blocks::Splitter;
use rayon::prelude::*;
use std::ops::Range;
use wmr_cpython::types::{Type, named_by};
use wmr_memory::{Backing, Image, Redact, Target};

/// What happens to the bytes of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Keep = 0,
    Zero = 1,
    /// Words that are addresses are kept.
    Addresses = 2,
    /// Addresses and small numbers: what C structures are made of.
    Fields = 3,
    /// Every bit set: -1, the hash of what was not hashed yet.
    Ones = 4,
    /// Entries of a dict's table, three words each: key and value are kept, a hash when it is an address.
    Entries = 5,
}

impl Fate {
    fn of(edge: u64) -> Fate {
        [Fate::Keep, Fate::Zero, Fate::Addresses, Fate::Fields, Fate::Ones][..]
            .get((edge & 7) as usize)
            .copied()
            .unwrap_or(Fate::Entries)
    }
}

/// From an address on, up to the next edge: 61 bits of address, 3 of fate.
fn edge(addr: u64, fate: Fate) -> u64 {
    addr << 3 | fate as u64
}

/// Above this an address does not fit into an edge; only `[vsyscall]` lies there.
const TOP: u64 = 1 << 61;

/// Decides for every byte of a target.
pub struct Strip {
    /// In order.
    edges: Vec<u64>,
    /// Kept whatever the edges say: names. In order, not overlapping.
    names: Vec<Range<u64>>,
    /// Zeroed whatever the edges say: what hashes were made with, by which short texts could be found again.
    keys: Vec<Range<u64>>,
    /// Where an address may point. In order.
    mapped: Vec<Range<u64>>,
}

impl Strip {
    pub fn new(target: &Target, inspection: &Inspection) -> Strip {
        let mut strip = Strip { edges: Vec::new(), names: Vec::new(), keys: Vec::new(), mapped: Vec::new() };
        for mapping in &target.mappings {
            match strip.mapped.last_mut() {
                Some(last) if last.end == mapping.start => last.end = mapping.end,
                _ => strip.mapped.push(mapping.start..mapping.end),
            }
        }
        let mut objects = Vec::new();
        // Of those without instances, too: they are listed by their names.
        let types = match &inspection.model {
            Some(model) => all_types(target, inspection, model),
            None => Vec::new(),
        };
        if let Some(model) = &inspection.model {
            let mut reader = target.reader();
            for ty in &types {
                let (named, text) = named_by(model, &mut reader, ty);
                objects.extend(named);
                strip.names.push(text);
            }
            objects.sort_unstable();
            objects.dedup();
        }
        strip.names.sort_by_key(|name| name.start);
        let splitter = Splitter::new(target, inspection, &objects);
        let spans = 0..inspection.blocks.spans().len();
        let mut edges: Vec<Vec<u64>> = spans.into_par_iter().map(|span| splitter.span(span)).collect();
        edges.push(around(target, inspection, &types));
        strip.edges.reserve_exact(edges.iter().map(Vec::len).sum());
        // Each is let go when it has been copied.
        edges.into_iter().for_each(|list| strip.edges.extend(list));
        strip.edges.par_sort_unstable();
        if let Ok(python) = &inspection.python {
            strip.keys = python.hash_keys(target);
        }
        strip
    }

    fn is_address(&self, word: u64) -> bool {
        let i = self.mapped.partition_point(|range| range.end <= word);
        self.mapped.get(i).is_some_and(|range| range.start <= word)
    }

    fn address(&self, word: u64) -> u64 {
        if self.is_address(word) { word } else { 0 }
    }

    fn field(&self, word: u64) -> u64 {
        if is_small_number(word) { word } else { self.address(word) }
    }

    /// Makes the first word of every three -1; the bytes begin that far from the first entry. The hash of an `id()`
    /// is an address, which tells of no text.
    fn entries(&self, behind: u64, bytes: &mut [u8]) {
        const ENTRY: u64 = 24;
        let mut at = 0;
        while at < bytes.len() {
            let within = (behind + at as u64) % ENTRY;
            let end = bytes.len().min(at + 8u64.saturating_sub(within) as usize);
            let hash = &mut bytes[at..end];
            if !<[u8; 8]>::try_from(&*hash).is_ok_and(|word| self.is_address(u64::from_le_bytes(word))) {
                hash.fill(0xff);
            }
            at = at.saturating_add((ENTRY - within) as usize);
        }
    }

    /// `from`: where what has this fate begins, as entries are told apart by that.
    fn apply(&self, fate: Fate, from: u64, addr: u64, bytes: &mut [u8]) {
        let filter: fn(&Strip, u64) -> u64 = match fate {
            Fate::Keep => return,
            Fate::Zero => return bytes.fill(0),
            Fate::Ones => return bytes.fill(0xff),
            Fate::Entries => return self.entries(addr.saturating_sub(from), bytes),
            Fate::Addresses => Strip::address,
            Fate::Fields => Strip::field,
        };
        // Whole words at multiples of eight; what is left at the ends is none.
        let head = (addr.next_multiple_of(8) - addr).min(bytes.len() as u64) as usize;
        let (head, rest) = bytes.split_at_mut(head);
        head.fill(0);
        let (words, tail) = rest.as_chunks_mut::<8>();
        for word in words {
            *word = filter(self, u64::from_le_bytes(*word)).to_le_bytes();
        }
        tail.fill(0);
    }
}

/// Up to 16 bits, or up to 40 and not a piece of text, however wide its characters are.
fn is_small_number(word: u64) -> bool {
    let latin = |unit: u64| matches!(unit, 0x20..0x7f | 9..=13 | 0xa0..0x250);
    // Units of so many bits, up to the last that is not zero: are they characters?
    let text = |bits: u32| {
        let units = (64 - word.leading_zeros()).div_ceil(bits);
        (0..units).all(|i| latin(word >> (i * bits) & ((1 << bits) - 1)))
    };
    word < 1 << 16 || word < 1 << 40 && !text(8) && !text(16) && !text(32)
}

impl Redact for Strip {
    fn bytes(&self, addr: u64, bytes: &mut [u8]) {
        let end = addr.saturating_add(bytes.len() as u64);
        if end > TOP {
            return;
        }
        let part = |range: &Range<u64>| {
            let (from, to) = (range.start.max(addr), range.end.min(end));
            (from < to).then_some((from.max(addr) - addr) as usize..(to.max(addr) - addr) as usize)
        };
        let first = self.names.partition_point(|name| name.end <= addr);
        let names: Vec<(Range<usize>, Vec<u8>)> = self.names[first..]
            .iter()
            .take_while(|name| name.start < end)
            .filter_map(part)
            .map(|range| (range.clone(), bytes[range].to_vec()))
            .collect();
        // The edge in force at `addr` is the last one that is not behind it.
        let mut next = self.edges.partition_point(|&edge| edge >> 3 <= addr);
        let (mut from, mut fate) =
            next.checked_sub(1).map_or((addr, Fate::Zero), |i| (self.edges[i] >> 3, Fate::of(self.edges[i])));
        let mut at = addr;
        while at < end {
            let until = self.edges.get(next).map_or(end, |edge| edge >> 3).min(end);
            self.apply(fate, from, at, &mut bytes[(at - addr) as usize..(until - addr) as usize]);
            (at, from) = (until, until);
            fate = self.edges.get(next).map_or(fate, |&edge| Fate::of(edge));
            next += 1;
        }
        for (range, name) in names {
            bytes[range].copy_from_slice(&name);
        }
        for range in self.keys.iter().filter_map(part) {
            bytes[range].fill(0);
        }
    }

    fn word(&self, word: u64) -> u64 {
        self.field(word)
    }
}

/// Everything outside of the spans of the allocators.
fn around(target: &Target, inspection: &Inspection, types: &[Type]) -> Vec<u64> {
    let mut edges = Vec::new();
    let spans = inspection.blocks.spans();
    let mut give = |range: Range<u64>, fate: Fate| {
        let mut at = range.start;
        let first = spans.partition_point(|span| span.end <= range.start);
        for span in spans[first..].iter().take_while(|span| span.start < range.end) {
            if at < span.start {
                edges.push(edge(at, fate));
            }
            at = at.max(span.end);
        }
        if at < range.end {
            edges.push(edge(at, fate));
        }
    };
    let kept = kept(target, inspection, types);
    for mapping in target.mappings.iter().filter(|mapping| mapping.end <= TOP) {
        let mut at = mapping.start;
        let first = kept.partition_point(|(range, _)| range.end <= at);
        let rest = match mapping.backing {
            Backing::Kernel => Fate::Keep,
            _ => Fate::Addresses,
        };
        for (range, fate) in kept[first..].iter().take_while(|(range, _)| range.start < mapping.end) {
            if at < range.start {
                give(at..range.start, rest);
            }
            give(range.start.max(at)..range.end.min(mapping.end), *fate);
            at = range.end.min(mapping.end).max(at);
        }
        if at < mapping.end {
            give(at..mapping.end, rest);
        }
    }
    edges
}

/// Ranges outside of the allocators' spans that have structure, in order, not overlapping.
fn kept(target: &Target, inspection: &Inspection, types: &[Type]) -> Vec<(Range<u64>, Fate)> {
    let mut whole: Vec<Range<u64>> = Vec::new();
    if let Ok(python) = &inspection.python {
        whole.extend(python.image(target).into_iter().flat_map(Image::writable));
        let chunks = python.stack_chunks(target);
        whole.extend(chunks.iter().map(|chunk| chunk.addr..chunk.addr.saturating_add(chunk.size)));
    }
    if let Some(model) = &inspection.model {
        let size = model.layout.type_object.size;
        whole.extend(types.iter().map(|ty| ty.addr..ty.addr.saturating_add(size)));
    }
    if let Ok(glibc) = &inspection.glibc {
        /// `struct malloc_state` has 2,176 to 2,200 bytes (glibc 2.28 to 2.43).
        const ARENA: u64 = 2304;
        whole.extend(glibc.arenas.iter().map(|arena| arena.addr..arena.addr.saturating_add(ARENA)));
    }
    whole.sort_by_key(|range| range.start);
    let mut out: Vec<(Range<u64>, Fate)> = Vec::new();
    for range in whole {
        match out.last_mut() {
            Some((last, _)) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => out.push((range, Fate::Keep)),
        }
    }
    // Between those, what other programs and libraries keep.
    let mut images: Vec<Range<u64>> = target.images.iter().flat_map(Image::writable).collect();
    images.sort_by_key(|range| range.start);
    let mut fields = Vec::new();
    let mut reached = 0;
    for image in images {
        let mut at = image.start.max(reached);
        reached = reached.max(image.end);
        let first = out.partition_point(|(range, _)| range.end <= at);
        for (range, _) in out[first..].iter().take_while(|(range, _)| range.start < image.end) {
            if at < range.start {
                fields.push((at..range.start, Fate::Fields));
            }
            at = at.max(range.end);
        }
        if at < image.end {
            fields.push((at..image.end, Fate::Fields));
        }
    }
    out.extend(fields);
    out.sort_by_key(|(range, _)| range.start);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(range: Range<u64>) -> Vec<Range<u64>> {
        std::iter::once(range).collect()
    }

    fn strip(edges: &[(u64, Fate)]) -> Strip {
        Strip {
            edges: edges.iter().map(|&(addr, fate)| edge(addr, fate)).collect(),
            names: one(0x1022..0x1026),
            keys: one(0x1026..0x1028),
            mapped: one(0x7f00_0000_0000..0x7f00_0001_0000),
        }
    }

    #[test]
    fn each_range_has_its_fate() {
        let strip = strip(&[
            (0x1000, Fate::Keep),
            (0x1008, Fate::Zero),
            (0x1010, Fate::Ones),
            (0x1018, Fate::Addresses),
            (0x1030, Fate::Fields),
            (0x1050, Fate::Entries),
        ]);
        let mut bytes = vec![b'x'; 0x80];
        bytes[0x28..0x30].copy_from_slice(&0x7f00_0000_1234u64.to_le_bytes());
        bytes[0x30..0x38].copy_from_slice(&0x7f00_0000_1235u64.to_le_bytes());
        bytes[0x38..0x40].copy_from_slice(&300u64.to_le_bytes());
        bytes[0x68..0x70].copy_from_slice(&0x7f00_0000_1236u64.to_le_bytes());
        let whole = bytes.clone();
        strip.bytes(0x1000, &mut bytes);
        assert_eq!(bytes[..8], whole[..8]);
        assert_eq!(bytes[8..0x10], [0; 8]);
        assert_eq!(bytes[0x10..0x18], [0xff; 8]);
        assert_eq!(bytes[0x18..0x28], *b"\0\0\0\0\0\0\0\0\0\0xxxx\0\0");
        assert_eq!(bytes[0x28..0x40], whole[0x28..0x40]);
        assert_eq!(bytes[0x40..0x50], [0; 0x10]);
        let text = [[0xff; 8], [b'x'; 8], [b'x'; 8]].concat();
        assert_eq!(bytes[0x50..0x68], text);
        assert_eq!(bytes[0x68..], whole[0x68..], "the hash of an address");
        // The same in pieces, cut anywhere on a word.
        for cut in (8..0x80).step_by(8) {
            let mut pieces = whole.clone();
            let (left, right) = pieces.split_at_mut(cut);
            strip.bytes(0x1000, left);
            strip.bytes(0x1000 + cut as u64, right);
            assert_eq!(pieces, bytes, "cut at {cut:#x}");
        }
    }

    #[test]
    fn pieces_of_text_are_no_numbers() {
        let word = |text: &[u8]| {
            let mut bytes = [0; 8];
            bytes[..text.len()].copy_from_slice(text);
            u64::from_le_bytes(bytes)
        };
        for text in ["abc", "pass", "hunt2", "12345678", "\u{e9}t\u{e9}"] {
            assert!(!is_small_number(word(text.as_bytes())), "{text}");
        }
        // Two characters of 16 or 32 bits.
        for text in [0x62_0061, 0x62_0000_0061, 0xe9_0000_0061] {
            assert!(!is_small_number(text), "{text:#x}");
        }
        for number in [0, 7, 65535, 0x21000, 1_000_000, 16_000_000, 3 << 32 | 8] {
            assert!(is_small_number(number), "{number}");
        }
    }
}
