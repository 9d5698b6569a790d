//! Anonymous mappings that are no allocator's we walk: whose data points into them. A library with an
//! allocator of its own (jemalloc, mimalloc) has its memory there. That tells where to look, it is no name.

use super::{file_name, for_each_word};
use crate::kinds::{Domain, Sure};
use crate::ledger::KnownRange;
use crate::unclaimed::Claimed;
use std::cmp::Reverse;
use wmr_alloc::Blocks;
use wmr_cpython::datastack::parked_chunks;
use wmr_cpython::model::Model;
use wmr_memory::{Backing, Mapping, Target};

/// Pages that are looked at for the frames of greenlets.
const MAX_PAGES: usize = 1 << 14;

/// Frames of greenlets that wait: chunks of the interpreter's that no thread has.
pub(crate) fn parked(
    target: &Target,
    model: Option<&Model>,
    blocks: &Blocks,
    known: &[KnownRange],
) -> Vec<KnownRange> {
    let Some(model) = model else { return Vec::new() };
    let mut reader = target.reader();
    let (mut pages, mut found) = (MAX_PAGES, Vec::new());
    for (_, range) in Claimed::of(target, blocks, known).rest(target) {
        found.extend(parked_chunks(model, &mut reader, range, &mut pages));
    }
    let named = found.into_iter().map(|range| KnownRange {
        range,
        domain: Domain::CPython,
        kind: "Python frames".to_owned(),
        detail: "of no thread".to_owned(),
        sure: Sure::Exact,
    });
    named.collect()
}

/// Those mappings, each with the image that points into it most often.
pub(crate) fn pointed_at(target: &Target, blocks: &Blocks, known: &[&[KnownRange]]) -> Vec<KnownRange> {
    let spans = blocks.spans();
    let is_free = |mapping: &&Mapping| {
        let meets = |start: u64, end: u64| start < mapping.end && mapping.start < end;
        let inside = |addr: u64| mapping.contains(addr);
        let first = spans.partition_point(|span| span.end <= mapping.start);
        mapping.backing == Backing::Anonymous
            && spans.get(first).is_none_or(|span| !meets(span.start, span.end))
            && !known.iter().copied().flatten().any(|known| meets(known.range.start, known.range.end))
            && !target.threads.iter().any(|thread| inside(thread.sp) || inside(thread.tls))
            && !target.images.iter().flat_map(|i| &i.segments).any(|s| meets(s.range.start, s.range.end))
    };
    let open: Vec<&Mapping> = target.mappings.iter().filter(is_free).collect();
    // Images come in no order: a core tells the loader's, a snapshot that of addresses.
    let mut owners: Vec<Option<(u32, Reverse<String>)>> = vec![None; open.len()];
    let mut words = vec![0u32; open.len()];
    let mut reader = target.reader();
    for image in &target.images {
        words.fill(0);
        for range in image.writable() {
            for_each_word(&mut reader, range, |word| {
                let index = open.partition_point(|mapping| mapping.end <= word);
                if open.get(index).is_some_and(|mapping| mapping.contains(word)) {
                    words[index] = words[index].saturating_add(1);
                }
            });
        }
        for (owner, words) in owners.iter_mut().zip(&words).filter(|(_, words)| **words > 0) {
            *owner = owner.take().max(Some((*words, Reverse(file_name(image)))));
        }
    }
    let found = open.into_iter().zip(owners).filter_map(|(mapping, owner)| {
        Some(KnownRange {
            range: mapping.start..mapping.end,
            domain: Domain::Unknown,
            kind: "anonymous mapping".to_owned(),
            detail: format!("{} points into it", owner?.1.0),
            sure: Sure::Exact,
        })
    });
    found.collect()
}
