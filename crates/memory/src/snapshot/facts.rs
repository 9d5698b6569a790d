//! What a snapshot says besides bytes: one JSON document. Fields are only ever added, each with a default
//! for files that lack it.

use crate::{Capture, Mapping, Process, Target, TargetKind, Thread, Why, text};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Facts {
    /// `wmr 0.1.0`.
    #[serde(default)]
    pub writer: String,
    /// Of the processor, as Rust names it: `x86_64`, `aarch64`.
    pub machine: String,
    /// What the snapshot was taken of.
    pub of: TargetKind,
    pub capture: Capture,
    pub page_size: u64,
    #[serde(default)]
    pub process: Process,
    #[serde(default)]
    pub threads: Vec<Thread>,
    pub mappings: Vec<Mapping>,
    /// For each mapping, what its memory is that has no page: zeroes, or why it cannot be read.
    #[serde(default)]
    pub untouched: Vec<Untouched>,
    #[serde(default)]
    pub files: Vec<KeptFile>,
    /// Was the payload of strings and buffers replaced?
    #[serde(default)]
    pub stripped: bool,
    #[serde(default)]
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Untouched {
    Zeroes,
    /// Of a file of which parts are kept: what is not among them was left out.
    File(u32),
    Fault(Why),
}

/// A program or library of which parts are kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct KeptFile {
    #[serde(with = "text::latin1")]
    pub path: Vec<u8>,
    #[serde(with = "text::latin1", default)]
    pub build_id: Vec<u8>,
    /// Bytes of the whole file.
    pub len: u64,
    pub dev: (u32, u32),
    pub inode: u64,
}

impl Facts {
    /// All but what is known of the memory and of files.
    pub fn of(target: &Target) -> Facts {
        Facts {
            writer: concat!("wmr ", env!("CARGO_PKG_VERSION")).to_owned(),
            machine: std::env::consts::ARCH.to_owned(),
            of: target.kind,
            capture: target.capture.clone(),
            page_size: target.page_size,
            process: target.process.clone(),
            threads: target.threads.clone(),
            mappings: target.mappings.clone(),
            untouched: Vec::new(),
            files: Vec::new(),
            stripped: false,
            notes: target.notes.clone(),
        }
    }
}
