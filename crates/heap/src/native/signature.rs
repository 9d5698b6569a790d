//! Structures that are known by their shape.

use super::Native;
use crate::kinds::{Domain, Sure};
use wmr_alloc::Block;
use wmr_cpython::model::{Allocation, Model};
use wmr_memory::Reader;

/// A block of a parser's arena: `{size, used, next, memory}` and the memory (`Python/pyarena.c`).
const ARENA_HEADER: u64 = 32;

impl Native<'_> {
    pub(super) fn name_signatures(&mut self, model: Option<&Model>) {
        self.name_files();
        let Some(model) = model else { return };
        let found = self.ask_unnamed(|reader, block| {
            let allocation = model.unpad(reader, block.start, block.usable);
            arena_block(reader, allocation).then_some(())
        });
        if found.is_empty() {
            return;
        }
        let kind = self.intern(Domain::CPython, "parser arena", Sure::Signature);
        for (block, ()) in found {
            self.set(block, kind);
        }
    }

    /// Streams of libc, and their buffers: what was in a buffer's memory before may still be there, and
    /// is not libc's.
    fn name_files(&mut self) {
        let found = self.ask_unnamed(|reader, block| self.stream(reader, block));
        let stream = self.intern(Domain::Native, "FILE", Sure::Signature);
        let buffer = self.intern(Domain::Native, FILE_BUFFER, Sure::Owner);
        // The standard streams are static.
        let mut buffers: Vec<u64> = found.iter().map(|(_, at)| *at).collect();
        let mut reader = self.target.reader();
        for name in ["_IO_2_1_stdin_", "_IO_2_1_stdout_", "_IO_2_1_stderr_"] {
            let streams = self.target.images.iter().filter_map(|image| image.symbol(name));
            buffers.extend(streams.filter_map(|at| reader.u64(at.wrapping_add(IO_BUF_BASE)).ok()));
        }
        for (block, _) in found {
            self.set(block, stream);
        }
        for at in buffers {
            if let Some(block) = self.blocks.at(at).filter(|block| self.census.mark(*block).is_none()) {
                self.set(block, buffer);
            }
        }
    }

    /// The buffer of the `FILE` in a block.
    fn stream(&self, reader: &mut Reader, block: Block) -> Option<u64> {
        if block.usable < IO_FILE {
            return None;
        }
        let flags = reader.u32(block.start).ok()?;
        if flags & 0xffff_0000 != IO_MAGIC {
            return None;
        }
        let table = reader.u64(block.start + IO_VTABLE).ok()?;
        let (image, exec) = self.images.at(table)?;
        let is_libc = image.symbol("_IO_2_1_stdout_").is_some();
        (is_libc && !exec).then(|| reader.u64(block.start + IO_BUF_BASE).ok()).flatten()
    }
}

pub(super) const FILE_BUFFER: &str = "FILE buffer";

/// `struct _IO_FILE_plus` of glibc (`libio/bits/types/struct_FILE.h`).
const IO_MAGIC: u32 = 0xfbad_0000;
const IO_BUF_BASE: u64 = 56;
const IO_VTABLE: u64 = 216;
const IO_FILE: u64 = 224;

/// Where it says its memory is must be right behind it, and all sizes must agree.
fn arena_block(reader: &mut Reader, block: Allocation) -> bool {
    if block.size < ARENA_HEADER {
        return false;
    }
    let Ok(head) = reader.array::<32>(block.data) else { return false };
    let word = |i: usize| head[8 * i..8 * i + 8].iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
    let (size, used, next, memory) = (word(0), word(1), word(2), word(3));
    memory == block.data.wrapping_add(ARENA_HEADER)
        && size.is_multiple_of(8)
        && size >= 64
        && used <= size
        && size.checked_add(ARENA_HEADER).is_some_and(|end| end <= block.size && block.size - end < 32)
        && next.is_multiple_of(8)
}
