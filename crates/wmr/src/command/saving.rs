//! Files that keep a target: whole or not at all, with the progress shown.

use crate::failure::{Failure, code};
use crate::text;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::{Duration, Instant};
use wmr_memory::{Output, Target};

/// Where to write what is kept of `target`, if nothing was said.
pub fn default_path(target: &Target, ending: &str) -> PathBuf {
    match target.process.pid {
        pid @ 1.. => format!("{pid}.{ending}").into(),
        _ => format!("target.{ending}").into(),
    }
}

/// Fails before anything is looked at when the file could not be written afterwards.
pub fn create(path: &Path, replace: bool) -> Result<Output, Failure> {
    // Above a limit (`ulimit -f`) writing is to fail, as on a full disk, and not to kill.
    // SAFETY: sets no handler.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    Output::create(path, replace).map_err(|error| refused(path, &error))
}

/// Runs `work` with the file and somebody to tell how much is done, and of how much.
pub fn write<T, E>(
    output: &Output,
    path: &Path,
    work: impl FnOnce(&File, &(dyn Fn(u64, u64) + Sync)) -> Result<T, E>,
) -> Result<T, E> {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    let (began, late) = (Instant::now(), Once::new());
    let style = ProgressStyle::with_template("{msg} {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(format!("writing {}", shown(path)));
    let result = work(output.file(), &|done, total| {
        bar.set_length(total);
        bar.set_position(done);
        if began.elapsed() >= Duration::from_secs(1) {
            // Draws nothing where stderr is no terminal.
            late.call_once(|| bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10)));
        }
    });
    bar.finish_and_clear();
    result
}

pub fn finish(output: Output, path: &Path) -> Result<(), Failure> {
    output.finish().map_err(|error| refused(path, &error))
}

pub fn shown(path: &Path) -> String {
    text::shown(&path.to_string_lossy())
}

const ELSEWHERE: &str = "another place: -o FILE";

pub fn refused(path: &Path, error: &io::Error) -> Failure {
    let failure = |code, why: &str| Failure::new(code, format!("cannot write {}: {why}", shown(path)));
    match error.kind() {
        io::ErrorKind::AlreadyExists => {
            failure(code::FAILED, "there is such a file").advise("replace it: --force")
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            failure(code::FAILED, &error.to_string())
                .advise("nothing is left of it, and the process goes on unharmed")
                .advise(ELSEWHERE)
        }
        io::ErrorKind::Unsupported => failure(code::FAILED, "it is there and is no file"),
        io::ErrorKind::PermissionDenied => failure(code::NOT_PERMITTED, &error.to_string()).advise(ELSEWHERE),
        io::ErrorKind::NotFound | io::ErrorKind::ReadOnlyFilesystem => {
            failure(code::FAILED, &error.to_string()).advise(ELSEWHERE)
        }
        _ => failure(code::FAILED, &error.to_string()),
    }
}
