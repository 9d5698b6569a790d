//! Files behind mappings.

use crate::Mapping;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

/// Where the file behind a mapping comes from: the target's own view of the file system for a live
/// process, a matching copy for a core.
pub trait FileSource {
    /// The file that is mapped, opened for reading, or `None` when it cannot be had for certain. A
    /// file that merely has the same path must not be answered.
    fn open(&self, mapping: &Mapping) -> Option<File>;
}

/// Bytes of an ELF or core file: mapped, so that only what is looked at is read.
#[derive(Clone)]
pub(crate) enum FileBytes {
    Mapped(Arc<memmap2::Mmap>),
    Owned(Arc<Vec<u8>>),
}

impl FileBytes {
    /// Maps a regular file; `None` for anything else and for an empty one.
    pub fn map(file: &File) -> Option<Self> {
        let metadata = file.metadata().ok()?;
        if !metadata.is_file() || metadata.len() == 0 {
            return None;
        }
        // SAFETY: the mapping is private and read-only. Somebody may still write to the file or cut
        // it while we look: changed bytes are harmless, as nothing read from here is trusted twice,
        // but a file cut short raises SIGBUS, as it does for every program that runs from it.
        let map = unsafe { memmap2::Mmap::map(file) }.ok()?;
        Some(FileBytes::Mapped(Arc::new(map)))
    }

    /// The part of `range` that lies in the file.
    pub fn clipped(&self, range: Range<u64>) -> &[u8] {
        let len = self.len() as u64;
        let (start, end) = (range.start.min(len), range.end.min(len));
        self.get(start as usize..end as usize).unwrap_or_default()
    }
}

impl std::ops::Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            FileBytes::Mapped(map) => map,
            FileBytes::Owned(bytes) => bytes,
        }
    }
}
