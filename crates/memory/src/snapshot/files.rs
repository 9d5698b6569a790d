//! The parts of programs and libraries that a snapshot holds.

use super::facts::KeptFile;
use super::format::Kind;
use super::read::Chunks;
use crate::{FileSource, Mapping};
use rustc_hash::FxHashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// A file may unpack to this many times the size of the snapshot, and the first this many bytes: what is
/// far beyond was made to fill the memory.
const MAX_RATIO: u64 = 100;
const FREE: u64 = 256 << 20;

/// Makes files of the parts, with holes where nothing was kept.
pub(super) struct KeptFiles<'c> {
    chunks: &'c Chunks,
    /// Numbers of the files by device, inode and path.
    by_key: FxHashMap<Key<'c>, u32>,
}

type Key<'c> = ((u32, u32), u64, &'c [u8]);

impl<'c> KeptFiles<'c> {
    pub fn new(chunks: &'c Chunks, facts: &'c [KeptFile]) -> Self {
        let key = |file: &'c KeptFile| (file.dev, file.inode, file.path.as_slice());
        let by_key = facts.iter().enumerate().map(|(i, file)| (key(file), i as u32)).collect();
        KeptFiles { chunks, by_key }
    }

    /// In memory: a file that has never had a name.
    fn make(&self, number: u32) -> Option<File> {
        let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
        let file = File::from(nix::sys::memfd::memfd_create("part of a snapshot", flags).ok()?);
        let mut left = self.chunks.file.len().saturating_mul(MAX_RATIO).saturating_add(FREE);
        for chunk in self.chunks.all.iter().filter(|chunk| chunk.head.kind == Kind::File(number)) {
            left = left.checked_sub(chunk.head.raw.into())?;
            // A part that is damaged is a hole; who reads from it as memory is told.
            if let Ok(bytes) = self.chunks.unpack(chunk) {
                file.write_all_at(&bytes, chunk.head.at).ok()?;
            }
        }
        Some(file)
    }
}

impl FileSource for KeptFiles<'_> {
    fn open(&self, mapping: &Mapping) -> Option<File> {
        let key = (mapping.dev, mapping.inode, mapping.name.as_slice());
        self.make(*self.by_key.get(&key)?)
    }
}
