//! Structures that are known by their shape.

use super::Native;
use crate::kinds::{Domain, Sure};
use wmr_alloc::Block;
use wmr_memory::Reader;

/// A block of a parser's arena: `{size, used, next, memory}` and the memory (`Python/pyarena.c`).
const ARENA_HEADER: u64 = 32;

impl Native<'_> {
    pub(super) fn name_signatures(&mut self) {
        let found = self.ask(|_| false, |reader, block| arena_block(reader, block).then_some(()));
        if found.is_empty() {
            return;
        }
        let kind = self.intern(Domain::CPython, "parser arena", Sure::Signature);
        for (block, ()) in found {
            self.set(block, kind);
        }
    }
}

/// Where it says its memory is must be right behind it, and all sizes must agree.
fn arena_block(reader: &mut Reader, block: Block) -> bool {
    let Ok(head) = reader.array::<32>(block.start) else { return false };
    let word = |i: usize| head[8 * i..8 * i + 8].iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
    let (size, used, next, memory) = (word(0), word(1), word(2), word(3));
    memory == block.start.wrapping_add(ARENA_HEADER)
        && size.is_multiple_of(8)
        && size >= 64
        && used <= size
        && size.checked_add(ARENA_HEADER).is_some_and(|end| end <= block.usable && block.usable - end < 32)
        && next.is_multiple_of(8)
}
