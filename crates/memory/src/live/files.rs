//! The files behind a live process's mappings, opened before it is stopped.

use super::procdir::ProcDir;
use super::smaps::Entry;
use crate::file::{same_file, slow_devices};
use crate::{Backing, FileSource, Mapping};
use rustc_hash::{FxHashMap, FxHashSet};
use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

/// Files held open at a time: half of the usual limit of 1024 descriptors.
const MAX_FILES: usize = 512;

type Key = ((u32, u32), u64, Vec<u8>);

/// Files by device, inode and name.
#[derive(Default)]
pub(super) struct LiveFiles {
    open: FxHashMap<Key, Arc<File>>,
    /// Names of files that are mapped but could not be opened.
    pub missing: Vec<Vec<u8>>,
}

impl LiveFiles {
    /// Opens every mapped file once.
    pub fn open(dir: &ProcDir, entries: &[Entry]) -> Self {
        let opener = Opener::new(dir);
        let mut files = LiveFiles::default();
        let mut refused: FxHashSet<Key> = FxHashSet::default();
        for mapping in entries.iter().map(|entry| &entry.mapping).filter(|m| m.backing == Backing::File) {
            let key = key(mapping);
            if files.open.contains_key(&key) || refused.contains(&key) {
                continue;
            }
            let file = (files.open.len() < MAX_FILES).then(|| opener.open(mapping)).flatten();
            match file {
                Some(file) => {
                    files.open.insert(key, Arc::new(file));
                }
                None => {
                    files.missing.push(mapping.name.clone());
                    refused.insert(key);
                }
            }
        }
        files
    }

    pub fn get(&self, mapping: &Mapping) -> Option<&Arc<File>> {
        if mapping.backing != Backing::File {
            return None;
        }
        self.open.get(&key(mapping))
    }
}

impl FileSource for LiveFiles {
    fn open(&self, mapping: &Mapping) -> Option<File> {
        let file = self.get(mapping)?;
        // Opened anew for an offset of its own. Fails without a right to the file itself.
        File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).or_else(|_| file.try_clone()).ok()
    }
}

fn key(mapping: &Mapping) -> Key {
    (mapping.dev, mapping.inode, mapping.name.clone())
}

/// Opens the files of one process's mappings.
pub(super) struct Opener<'d> {
    dir: &'d ProcDir,
    exe: Vec<u8>,
    slow: FxHashSet<(u32, u32)>,
}

impl<'d> Opener<'d> {
    pub fn new(dir: &'d ProcDir) -> Self {
        let slow = slow_devices(&dir.text("mountinfo").unwrap_or_default());
        Opener { dir, exe: super::list::executable(dir), slow }
    }

    /// The file of a mapping for certain, or nothing. Never the raw path: the target may live in
    /// another mount namespace, and an upgrade may have put another file there. Files of a file system
    /// that may never answer (FUSE, network) are left alone.
    pub fn open(&self, mapping: &Mapping) -> Option<File> {
        if self.slow.contains(&mapping.dev) {
            return None;
        }
        // This link is the mapping's file by definition, deleted or not. It takes root, or
        // CAP_CHECKPOINT_RESTORE.
        let link = self.dir.path(&format!("map_files/{:x}-{:x}", mapping.start, mapping.end));
        if let Some(file) = open_regular(&link, |_| true) {
            return Some(file);
        }
        let same = |metadata: &Metadata| same_file(mapping, metadata);
        if self.exe == mapping.name
            && let Some(file) = open_regular(&self.dir.path("exe"), same)
        {
            return Some(file);
        }
        let below = mapping.name.strip_prefix(b"/")?;
        open_regular(&self.dir.path("root").join(OsStr::from_bytes(below)), same)
    }
}

fn open_regular(path: &Path, right: impl Fn(&Metadata) -> bool) -> Option<File> {
    let right = |metadata: Metadata| metadata.is_file() && right(&metadata);
    // Before opening, as opening a device can do things; after it, as the path may have changed.
    if !right(std::fs::metadata(path).ok()?) {
        return None;
    }
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    right(file.metadata().ok()?).then_some(file)
}
