//! Words of memory that is no object's: variables of libraries, blocks of malloc, stacks.
//!
//! Such a word may be left over, or a number that happens to look so. Taking it for a reference makes
//! less be retained than is, never more.

use super::{ATEXIT, Found, Holder};
use crate::graph::Bits;
use crate::leaks::roots::dead_stacks;
use crate::unclaimed::unclaimed;
use std::ops::Range;
use wmr_cpython::locate::for_each_word;
use wmr_memory::Mapping;

/// What of a range is in none of the others, which are disjoint and in address order.
fn without(range: Range<u64>, others: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut rest = Vec::new();
    let mut at = range.start;
    let first = others.partition_point(|other| other.end <= at);
    for other in others[first..].iter().take_while(|other| other.start < range.end) {
        rest.push(at..other.start.max(at));
        at = other.end.max(at);
    }
    rest.push(at..range.end.max(at));
    rest
}

impl Found<'_> {
    pub(super) fn scan(&mut self, range: Range<u64>, holder: impl Fn(&Self, u64) -> Holder) {
        let mut reader = self.target.reader();
        for range in without(range, &self.free_lists) {
            for_each_word(&mut reader, range, |at, word| {
                self.word(word, |found| holder(found, at));
            });
        }
    }

    /// The same but for what is looked at by itself.
    fn scan_others(&mut self, range: Range<u64>, holder: impl Fn(u64) -> Holder) {
        for range in without(range, &self.elsewhere) {
            self.scan(range, |_, at| holder(at));
        }
    }

    pub(super) fn globals(&mut self) {
        let images = (0..).zip(&self.target.images);
        for (image, range) in images.flat_map(|(at, image)| image.writable().map(move |range| (at, range))) {
            self.scan_others(range, |addr| Holder::Global { image, addr });
        }
    }

    /// Blocks that neither are objects nor belong to one.
    pub(super) fn native_blocks(&mut self) {
        let (blocks, census) = (&self.inspection.blocks, &self.inspection.census);
        // What is in a block that an unknown field of an object leads to, nobody else says.
        let unknown = Bits::of(blocks.len(), census.holders().map(|(block, _)| block));
        for block in blocks.iter() {
            let theirs = census.mark(block.id).as_object().is_some()
                || self.graph.is_owned(block.id) && !unknown.contains(block.id);
            let kind = census.mark(block.id).as_kind().map(|kind| census.kinds.get(kind).kind.as_str());
            // What the dead on a free list referred to is there still; a cache of malloc lists free chunks.
            let free = matches!(kind, Some("free list" | "tcache table"));
            // What others nest in is theirs.
            if !theirs && !free && !blocks.is_holder(block.id) {
                let end = block.start.saturating_add(block.usable);
                let atexit = kind == Some("atexit callbacks");
                self.scan_others(block.start..end, |_| match atexit {
                    true => Holder::Interpreter { what: ATEXIT.to_owned(), interpreter: 0 },
                    false => Holder::Native { block: block.id },
                });
            }
        }
    }

    /// Mappings of unknown use. Stacks have their turn, those of threads that ended have none.
    pub(super) fn mappings(&mut self) {
        let dead = dead_stacks(self.target);
        let holds = |mapping: &Mapping, at: u64| {
            let stack = self.target.threads.iter().any(|thread| mapping.contains(thread.sp));
            !stack && !dead.iter().any(|dead| dead.contains(&at))
        };
        let mut ranges = Vec::new();
        for (mapping, range) in unclaimed(self.target, self.inspection) {
            let runs =
                mapping.residency.runs.iter().filter(|run| run.state.present && holds(mapping, run.start));
            let within = runs.map(|run| run.start.max(range.start)..run.end.min(range.end));
            ranges.extend(within.filter(|range| range.start < range.end));
        }
        for range in ranges {
            self.scan_others(range, |addr| Holder::Mapping { addr });
        }
    }

    /// Registers, and each stack from where it is in use.
    pub(super) fn stacks(&mut self) {
        for thread in &self.target.threads {
            let tid = thread.tid;
            for word in &thread.regs {
                self.word(*word, |_| Holder::Register { tid });
            }
            let mapping = self.target.mapping(thread.sp);
            if let Some(mapping) = mapping.filter(|mapping| mapping.perms.write) {
                self.scan(thread.sp..mapping.end, |_, addr| Holder::Stack { tid, addr });
            }
        }
    }
}
