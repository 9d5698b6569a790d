//! ELF core files, as the kernel and gcore write them.
//!
//! Nothing is copied: a read costs what it touches.

mod arguments;
mod headers;
mod layout;
mod memory;
mod modules;
mod notes;
mod pages;
mod unpack;
mod write;

pub use write::{CoreWritten, WriteError, write_core};

use crate::stored::Stored;
use crate::{Capture, Method, Process, Target, TargetKind, find_images};
use headers::Headers;
use memory::CoreMemory;
use notes::Notes;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How to open a core.
#[derive(Debug, Clone, Default)]
pub struct CoreOptions {
    /// Where copies of the target's files are, if it ran on another machine or in a container:
    /// `sysroot/usr/bin/python3` for `/usr/bin/python3`. This machine's own are tried after it.
    pub sysroot: Option<PathBuf>,
    /// Where a compressed core is unpacked; `$TMPDIR`, else `/var/tmp`, when absent.
    pub scratch: Option<PathBuf>,
    /// Most bytes a compressed core may unpack to; only the free space counts when absent.
    pub max_unpacked: Option<u64>,
}

/// Why a core could not be opened at all. What is merely incomplete opens, with a note.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("not a regular file")]
    NotAFile,
    #[error("the file is empty: the system had no room for the core, or its size limit is 0 (`ulimit -c`)")]
    Empty,
    #[error("not an ELF core file: {0}")]
    NotElf(&'static str),
    #[error("the file ends inside the ELF header, after {0} bytes")]
    NoHeader(u64),
    #[error("an ELF file, but {0}, not a core")]
    NotCore(&'static str),
    #[error("a 32-bit core ({0}): only 64-bit processes can be read")]
    Bits32(String),
    #[error("a big-endian core ({0}): only little-endian processes can be read")]
    BigEndian(String),
    #[error("a core of another architecture: {found}, while this program reads {expected}")]
    Architecture { found: String, expected: &'static str },
    #[error("the core describes no memory: {0}")]
    NoSegments(&'static str),
    #[error("cannot unpack the {format}-compressed core: {why}")]
    Unpack { format: &'static str, why: String },
}

/// Opens a core file, plain or compressed with zstd or lz4 as systemd-coredump stores them.
///
/// Memory that the core leaves out is served from the file behind the mapping where a copy with the
/// same build-id is found, and is a [`Why::NotCaptured`](crate::Why) fault otherwise, private
/// anonymous memory too: the kernel leaves out what was never written to, which would be zero, but
/// also `MADV_DONTDUMP` memory and what `coredump_filter` names, and the file does not tell which.
/// (Untouched pages of a mapping that is not left out are stored as zeroes, by kernel and gcore.)
/// The cores of [`write_core`] do tell.
///
/// # Errors
/// The file is not a core of this architecture, or nothing of it can be read; see [`CoreError`].
pub fn open_core(path: &Path, options: &CoreOptions) -> Result<Target, CoreError> {
    let read_error = |source| CoreError::Read { path: path.to_owned(), source };
    // Before it is opened, which waits where it is a pipe.
    let metadata = std::fs::metadata(path).map_err(read_error)?;
    if !metadata.is_file() {
        return Err(CoreError::NotAFile);
    }
    let mut file = File::open(path).map_err(read_error)?;
    let mut notes = Vec::new();
    if let Some(unpacked) = unpack::unpack(&mut file, options)? {
        file = unpacked.file;
        notes.extend(unpacked.note);
    }
    let core = Stored::of(file).ok_or(CoreError::NotAFile)?;
    open(core, metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), notes, Some(options))
}

/// Opens a core held in memory. No file is opened on its behalf, whatever names it gives.
///
/// # Errors
/// As [`open_core`].
pub fn open_core_bytes(bytes: Vec<u8>) -> Result<Target, CoreError> {
    open(Stored::owned(bytes), SystemTime::UNIX_EPOCH, Vec::new(), None)
}

/// `files`: where files may be looked for.
fn open(
    core: Stored,
    time: SystemTime,
    mut notes: Vec<String>,
    files: Option<&CoreOptions>,
) -> Result<Target, CoreError> {
    let mut headers = Headers::parse(&core)?;
    let said = Notes::parse(&core, &headers);
    headers.add_absent(&said.marked);
    notes.extend_from_slice(&headers.problems);
    notes.extend_from_slice(&said.problems);

    let mut areas = layout::areas(&headers, &said);
    let stored = CoreMemory::new(core.clone(), &areas, &said, &modules::Modules::default());
    let modules = modules::Modules::find(&areas, &stored, files);
    notes.extend_from_slice(&modules.missing);
    let memory = CoreMemory::new(core, &areas, &said, &modules);

    let (images, image_notes) = find_images(&layout::mappings(&areas, &said, &[]), &modules, &memory);
    notes.extend(image_notes);
    layout::infer_permissions(&mut areas, &headers, &images);
    layout::name_special(&mut areas, &said, &images);

    let process = Process {
        pid: said.pid.or(said.threads.first().map(|t| t.tid)).unwrap_or(0),
        ppid: said.ppid,
        exe: arguments::executable(&areas, &said, &memory),
        cmdline: arguments::command_line(&said, &memory),
        auxv: said.auxv.clone(),
        siginfo: said.siginfo.clone(),
        ..Process::default()
    };
    let capture = Capture { method: Method::File, pause: Duration::ZERO, consistent: true, time };
    Ok(Target {
        kind: TargetKind::Core,
        memory: Arc::new(memory),
        mappings: layout::mappings(&areas, &said, &images),
        images,
        page_size: said.auxv(notes::AT_PAGESZ).filter(|p| p.is_power_of_two()).unwrap_or(4096),
        threads: said.threads,
        process,
        capture,
        notes,
    })
}
