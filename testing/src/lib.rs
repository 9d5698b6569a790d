//! What tests need of the world: interpreters, targets that say when they are ready, core files,
//! small C programs.
//!
//! ```no_run
//! for python in wmr_testing::interpreters() {
//!     let script = format!("import sys\nprint(len(sys.modules))\n{}", wmr_testing::READY);
//!     let target = python.spawn(&script)?;
//!     println!("{}: pid {} says {}", python.version, target.pid(), target.truth()[0]);
//! } // dropped: killed and reaped
//! # Ok::<(), std::io::Error>(())
//! ```

mod build;
mod core_file;
mod family;
mod interpreter;
mod target;

pub use build::{build_cpp_extension, build_extension, compile_c, compile_cpp};
pub use core_file::{gcore, kernel_core};
pub use family::Family;
pub use interpreter::{
    Interpreter, Kind, cache_dir, discover, identify, index_path, interpreters, meliae_dir, python, sort,
    venv, venv_dir, workload,
};
pub use target::{READY, Target, at_rest};

use std::path::{Path, PathBuf};

/// A file in a temporary folder of its own; both go when this is dropped.
#[derive(Debug)]
pub struct TempFile {
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl TempFile {
    fn new(folder: tempfile::TempDir, path: PathBuf) -> TempFile {
        TempFile { path, _folder: folder }
    }
}

impl std::ops::Deref for TempFile {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl AsRef<Path> for TempFile {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}
