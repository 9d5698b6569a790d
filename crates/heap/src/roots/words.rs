//! Words of memory that is no object's: frames, variables of libraries, blocks of malloc, stacks.
//!
//! Such a word may be left over, or a number that happens to look so. Taking it for a reference makes
//! less be retained than is, never more.

use super::{Found, Holder};
use std::ops::Range;
use wmr_cpython::locate::for_each_word;

impl Found<'_> {
    fn scan(&mut self, range: Range<u64>, holder: impl Fn(u64) -> Holder) {
        let mut reader = self.target.reader();
        for_each_word(&mut reader, range, |at, word| {
            self.word(word, || holder(at));
        });
    }

    /// 3.11+: the live part of each thread's data stack.
    pub(super) fn frames(&mut self) {
        let Ok(python) = &self.inspection.python else { return };
        let mut reader = self.target.reader();
        for chunk in python.stack_chunks(self.target) {
            for_each_word(&mut reader, chunk.addr..chunk.live_end, |_, word| {
                // 3.14+: the lowest bits of a reference say whether it is counted. One that is not is
                // to what something else holds meanwhile.
                self.word(word & !7, || Holder::Frames { thread: chunk.thread });
            });
        }
    }

    pub(super) fn globals(&mut self) {
        let images = (0..).zip(&self.target.images);
        for (image, range) in images.flat_map(|(at, image)| image.writable().map(move |range| (at, range))) {
            self.scan(range, |addr| Holder::Global { image, addr });
        }
    }

    /// Blocks that neither are objects nor belong to one.
    pub(super) fn native_blocks(&mut self) {
        let (blocks, census) = (&self.inspection.blocks, &self.inspection.census);
        for block in blocks.iter() {
            let theirs = census.mark(block.id).as_object().is_some() || self.graph.is_owned(block.id);
            let kind = census.mark(block.id).as_kind().map(|kind| census.kinds.get(kind).kind.as_str());
            // What the dead on a free list referred to is there still; a cache of malloc lists free chunks.
            let free = matches!(kind, Some("free list" | "tcache table"));
            // What others nest in is theirs.
            if !theirs && !free && !blocks.is_holder(block.id) {
                let end = block.start.saturating_add(block.usable);
                self.scan(block.start..end, |_| Holder::Native { block: block.id });
            }
        }
    }

    /// Registers, and each stack from where it is in use.
    pub(super) fn stacks(&mut self) {
        for thread in &self.target.threads {
            let tid = thread.tid;
            for word in &thread.regs {
                self.word(*word, || Holder::Register { tid });
            }
            let mapping = self.target.mapping(thread.sp);
            if let Some(mapping) = mapping.filter(|mapping| mapping.perms.write) {
                self.scan(thread.sp..mapping.end, |addr| Holder::Stack { tid, addr });
            }
        }
    }
}
