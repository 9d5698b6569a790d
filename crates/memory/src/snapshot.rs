//! Snapshot files: a target that was kept, to be looked at elsewhere and later.
//!
//! A file holds the memory that the process had of its own, packed in chunks with checksums, the parts of
//! programs and libraries that the analyses read, and everything that was known of the process. A chunk is
//! read and unpacked when it is asked for. The format is described in docs/snapshot-format.md.

mod facts;
mod files;
mod format;
mod memory;
mod read;
mod write;

pub use write::{Kept, Redact, SnapshotOptions, write_snapshot};

use crate::stored::Stored;
use crate::{Mapping, Run, Target, TargetKind, find_images};
use facts::Facts;
use files::KeptFiles;
use format::Kind;
use memory::SnapshotMemory;
use read::Chunks;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a snapshot could not be opened at all. What is merely incomplete opens, with a note.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("not a snapshot")]
    NotASnapshot,
    #[error("the file ends inside the header, after {0} bytes")]
    Short(usize),
    #[error("a snapshot of format {major}.{minor}, and this program reads format {known}")]
    Version { major: u16, minor: u16, known: u16 },
    #[error("the snapshot's facts cannot be read: {0}")]
    NoFacts(String),
    #[error("a snapshot of another kind of machine: {0}")]
    Machine(String),
}

/// Does the file begin like a snapshot? False also for what cannot be read.
pub fn is_snapshot(path: &Path) -> bool {
    let mut start = [0; 8];
    let regular = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    regular
        && File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok()
        && format::has_magic(&start)
}

/// Opens a snapshot file.
///
/// # Errors
/// It is none, of another version, or its facts are damaged at both ends; see [`SnapshotError`]. Damage
/// elsewhere is noted, and reading what was there is a fault.
pub fn open_snapshot(path: &Path) -> Result<Target, SnapshotError> {
    let error = |source| SnapshotError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(error)?;
    open(Stored::of(file).ok_or(SnapshotError::NotASnapshot)?)
}

/// Opens a snapshot held in memory.
///
/// # Errors
/// As [`open_snapshot`].
pub fn open_snapshot_bytes(bytes: Vec<u8>) -> Result<Target, SnapshotError> {
    open(Stored::owned(bytes))
}

fn open(file: Stored) -> Result<Target, SnapshotError> {
    let mut chunks = Chunks::find(file)?;
    let mut facts = read_facts(&mut chunks)?;
    if !matches!(facts.machine.as_str(), "x86_64" | "aarch64") {
        return Err(SnapshotError::Machine(crate::image::shown(facts.machine.as_bytes())));
    }
    if facts.check() > 0 {
        chunks.damage.push("some mappings contradict each other and were left out".to_owned());
    }
    let mut notes = std::mem::take(&mut facts.notes);
    notes.extend(chunks.damage.iter().map(|damage| format!("the snapshot is damaged: {damage}")));
    if facts.stripped {
        notes.push("the values of strings and buffers were stripped when the snapshot was made".to_owned());
    }
    let chunks = Arc::new(chunks);
    let memory = SnapshotMemory::new(chunks.clone(), &facts);
    let (images, image_notes) = find_images(&facts.mappings, &KeptFiles::new(&chunks, &facts.files), &memory);
    // The facts have those of the capture.
    let fresh: Vec<String> = image_notes.into_iter().filter(|note| !notes.contains(note)).collect();
    notes.extend(fresh);
    Ok(Target {
        kind: TargetKind::Snapshot,
        memory: Arc::new(memory),
        images,
        mappings: facts.mappings,
        threads: facts.threads,
        process: facts.process,
        capture: facts.capture,
        page_size: facts.page_size,
        notes,
    })
}

/// The last of the two that can be read: it knows what could not be kept.
fn read_facts(chunks: &mut Chunks) -> Result<Facts, SnapshotError> {
    let mut damage = Vec::new();
    let mut found = None;
    for (number, chunk) in chunks.all.iter().enumerate().rev() {
        if chunk.head.kind != Kind::Facts {
            continue;
        }
        let facts = chunks.unpack(chunk).map_err(str::to_owned).and_then(|bytes| {
            serde_json::from_slice::<Facts>(&bytes).map_err(|error| format!("they make no sense: {error}"))
        });
        match facts {
            Ok(facts) => found = found.or(Some(facts)),
            Err(why) => damage.push(format!("{}: {why}", chunks.name(number))),
        }
    }
    let Some(facts) = found else {
        let lost = if damage.is_empty() { chunks.damage.clone() } else { damage };
        let why = if lost.is_empty() { "there are none".to_owned() } else { lost.join("; ") };
        return Err(SnapshotError::NoFacts(why));
    };
    chunks.damage.extend(damage);
    Ok(facts)
}

impl Facts {
    /// Makes the promises of [`Target`] true. How many mappings were left out.
    fn check(&mut self) -> usize {
        if !self.page_size.is_power_of_two() || !(1 << 12..=1 << 16).contains(&self.page_size) {
            self.page_size = 4096;
        }
        let before = self.mappings.len();
        self.untouched.truncate(before);
        let unknown = facts::Untouched::Fault(crate::Why::NotCaptured);
        self.untouched.resize(before, unknown);
        let mut reached = 0;
        let mut both: Vec<(Mapping, facts::Untouched)> =
            std::mem::take(&mut self.mappings).into_iter().zip(std::mem::take(&mut self.untouched)).collect();
        both.retain_mut(|(mapping, _)| {
            let right = mapping.start >= reached && mapping.start < mapping.end && in_order(mapping);
            reached = if right { mapping.end } else { reached };
            right
        });
        (self.mappings, self.untouched) = both.into_iter().unzip();
        before - self.mappings.len()
    }
}

/// Do the runs lie in the mapping, one behind the other?
fn in_order(mapping: &Mapping) -> bool {
    let mut reached = mapping.start;
    mapping.residency.runs.iter().all(|&Run { start, end, .. }| {
        let right = reached <= start && start < end && end <= mapping.end;
        reached = end;
        right
    })
}
