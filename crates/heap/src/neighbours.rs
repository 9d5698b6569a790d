//! What one object refers to and who refers to it, without a graph: for the latter every word of every block
//! is looked at once, which costs no more than reading them.

use crate::inspect::Inspection;
use rayon::prelude::*;
use std::ops::Range;
use wmr_cpython::model::Model;
use wmr_cpython::object::Object;
use wmr_cpython::refers::{Label, Strength, label, references};
use wmr_memory::{Reader, Target};

/// Bytes that are read at once; where some of them are not there, page by page.
const WINDOW: u64 = 64 << 10;
const PAGE: u64 = 4096;
/// Objects with a word that may be the reference, which are asked.
const MAX_ASKED: usize = 10_000;

/// The other end of a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    pub addr: u64,
    pub label: Label,
    pub weak: bool,
}

/// The first ones, and how many were found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Neighbours {
    pub list: Vec<Neighbour>,
    pub count: u64,
}

impl Neighbours {
    fn add(&mut self, most: usize, neighbour: impl FnOnce() -> Neighbour) {
        self.count += 1;
        if self.list.len() < most {
            self.list.push(neighbour());
        }
    }
}

/// What an object refers to.
pub fn referents(target: &Target, model: &Model, object: &Object, most: usize) -> Neighbours {
    let mut found = Neighbours::default();
    let mut names = target.reader();
    references(model, &mut target.reader(), object, &mut |reference| {
        found.add(most, || Neighbour {
            addr: reference.addr,
            label: label(model, &mut names, object, &reference),
            weak: reference.strength == Strength::Weak,
        });
    });
    found
}

/// Which objects in blocks refer to an address.
pub fn referrers(target: &Target, inspection: &Inspection, addr: u64, most: usize) -> Neighbours {
    let mut found = Neighbours::default();
    let Some(model) = &inspection.model else { return found };
    let blocks = &inspection.blocks;
    let hits = (0..blocks.spans().len()).into_par_iter().map_init(
        || (target.reader(), Vec::new()),
        |(reader, scratch), span| {
            let span = &blocks.spans()[span];
            let mut out = Vec::new();
            words_with(reader, scratch, span.start..span.end, addr, &mut out);
            out
        },
    );
    // The table of a dict is the dict's, and so on.
    let owner = |at: u64| {
        let block = blocks.containing(at)?.id;
        match inspection.census.mark(block).as_object() {
            Some(_) => Some(block),
            None => inspection.census.owner(block),
        }
    };
    let mut owners: Vec<u32> = hits.collect::<Vec<_>>().concat().into_iter().filter_map(owner).collect();
    owners.sort_unstable();
    owners.dedup();
    let (mut reader, mut names) = (target.reader(), target.reader());
    for owner in owners.into_iter().take(MAX_ASKED) {
        let Some((object, _)) = inspection.object_in(model, &mut reader, blocks.block(owner)) else {
            continue;
        };
        references(model, &mut reader, &object, &mut |reference| {
            if reference.addr == addr {
                found.add(most, || Neighbour {
                    addr: object.addr,
                    label: label(model, &mut names, &object, &reference),
                    weak: reference.strength == Strength::Weak,
                });
            }
        });
    }
    found
}

/// Where in the range a word is `wanted`.
fn words_with(
    reader: &mut Reader,
    scratch: &mut Vec<u8>,
    range: Range<u64>,
    wanted: u64,
    out: &mut Vec<u64>,
) {
    let mut scan = |reader: &mut Reader, start: u64, end: u64| {
        let bytes = reader.window(start, (end - start) as usize, scratch).ok()?;
        let words = bytes.as_chunks::<8>().0.iter().zip((start..).step_by(8));
        out.extend(words.filter(|(word, _)| u64::from_le_bytes(**word) == wanted).map(|(_, at)| at));
        Some(())
    };
    let mut at = range.start.next_multiple_of(8);
    while at < range.end {
        let end = (at / WINDOW + 1).saturating_mul(WINDOW).min(range.end);
        if scan(reader, at, end).is_none() {
            let mut page = at;
            while page < end {
                let next = (page / PAGE + 1).saturating_mul(PAGE).min(end);
                scan(reader, page, next);
                page = next;
            }
        }
        at = end;
    }
}
