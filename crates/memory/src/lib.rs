//! Bytes by address: a live process, a core or a snapshot file behind one trait.
//!
//! This is the only crate that touches another process or a file format. It knows no allocator and
//! no Python. What it hands up is a [`Target`]: a [`Memory`] to read, and beside it the mappings
//! with their residency, the threads, and the ELF images with their symbols.

mod core;
mod fault;
mod file;
mod image;
pub mod live;
mod mapping;
mod output;
mod reader;
mod shared_out;
mod snapshot;
mod staged;
mod stored;
pub mod synthetic;
mod target;
mod text;

pub use self::core::{
    CoreError, CoreOptions, CoreWritten, WriteError, open_core, open_core_bytes, write_core,
};
pub use fault::{Fault, Why};
pub use file::FileSource;
pub use image::{Image, Segment, Symbol, find_images};
pub use mapping::{Backing, Charge, Mapping, PageState, Perms, Residency, Run, Usage};
pub use output::Output;
pub use reader::Reader;
pub use shared_out::shared_out;
pub use snapshot::{
    Kept, Redact, SnapshotError, SnapshotOptions, is_snapshot, open_snapshot, open_snapshot_bytes,
    write_snapshot,
};
pub use staged::Staged;
pub use target::{Capture, Memory, Method, Process, Target, TargetKind, Thread, Window};
