//! Files behind mappings.

use crate::Mapping;
use memmap2::UncheckedAdvice;
use rustc_hash::FxHashSet;
use std::fs::{File, Metadata};
use std::ops::Range;
use std::os::linux::fs::MetadataExt;
use std::sync::Arc;

/// Where the file behind a mapping comes from: the target's own view of the file system for a live
/// process, a matching copy for a core.
pub trait FileSource {
    /// The file that is mapped, opened for reading, or `None` when it cannot be had for certain. A
    /// file that merely has the same path must not be answered.
    fn open(&self, mapping: &Mapping) -> Option<File>;
}

/// Bytes of a program or library: mapped, so that only what is looked at is read.
#[derive(Clone)]
pub(crate) struct FileBytes(Arc<memmap2::Mmap>);

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
        Some(FileBytes(Arc::new(map)))
    }

    /// The part of `range` that lies in the file.
    pub fn clipped(&self, range: Range<u64>) -> &[u8] {
        let len = self.len() as u64;
        let (start, end) = (range.start.min(len), range.end.min(len));
        self.get(start as usize..end as usize).unwrap_or_default()
    }
}

impl FileBytes {
    /// Lets go of what was looked at: it counts as this program's memory, and will be read anew if need be.
    pub fn forget(&self, range: Range<u64>) {
        let part = self.clipped(range);
        let at = part.as_ptr() as usize - self.as_ptr() as usize;
        // SAFETY: the mapping is of a file and never written to, so that the same bytes come back.
        let _ = unsafe { self.0.unchecked_advise_range(UncheckedAdvice::DontNeed, at, part.len()) };
    }
}

impl std::ops::Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// Is this the very file that is mapped?
pub(crate) fn same_file(mapping: &Mapping, metadata: &Metadata) -> bool {
    let dev = metadata.st_dev();
    let same_device = (libc::major(dev), libc::minor(dev)) == mapping.dev;
    // overlayfs (every container) and btrfs show stat another device than maps; both number the
    // device 0:N. The inode decides then.
    let virtual_device = libc::major(dev) == 0;
    metadata.st_ino() == mapping.inode && (same_device || virtual_device)
}

/// Devices of mounted file systems whose answers come from another process or machine.
pub(crate) fn slow_devices(mountinfo: &str) -> FxHashSet<(u32, u32)> {
    let slow = |kind: &str| {
        kind.starts_with("fuse")
            || ["nfs", "nfs4", "cifs", "smb3", "ceph", "afs", "lustre", "glusterfs"].contains(&kind)
    };
    mountinfo
        .lines()
        .filter_map(|line| {
            // 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw
            let (mount, source) = line.split_once(" - ")?;
            let (major, minor) = mount.split_ascii_whitespace().nth(2)?.split_once(':')?;
            let kind = source.split_ascii_whitespace().next()?;
            slow(kind).then_some((major.parse().ok()?, minor.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_that_may_not_answer() {
        let text = "22 27 0:21 / /proc rw - proc proc rw\n\
                    40 27 0:44 / /mnt/s rw shared:1 master:2 - fuse.sshfs host: rw\n\
                    41 27 0:45 / /mnt/n rw - nfs4 host:/x rw\n\
                    42 27 254:1 / / rw - ext4 /dev/vda rw\n";
        let slow = slow_devices(text);
        assert_eq!(slow, [(0, 44), (0, 45)].into_iter().collect());
    }
}
