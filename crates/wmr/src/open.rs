//! From what was typed to an inspected target.

use crate::aside;
use crate::cli::Options;
use crate::failure::{self, Failure, code};
use crate::text;
use std::ffi::OsStr;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;
use wmr_heap::{Inspection, TooManyBlocks, inspect, inspect_only};
use wmr_memory::live::{AttachError, LiveOptions, attach};
use wmr_memory::{CoreError, CoreOptions, SnapshotError, Target, is_snapshot, open_core, open_snapshot};

/// A target with its census, and how to name it in further commands.
pub struct Subject {
    pub target: Target,
    pub inspection: Inspection,
    /// As it was typed, quoted for a shell.
    pub typed: String,
}

/// What `TARGET` means.
#[derive(Debug, PartialEq, Eq)]
enum Spec {
    Pid(i32),
    File(PathBuf),
}

impl Spec {
    fn parse(word: &OsStr) -> Result<Spec, Failure> {
        let digits = word.to_str().filter(|w| !w.is_empty() && w.bytes().all(|b| b.is_ascii_digit()));
        match digits.map(|digits| (digits, digits.parse())) {
            Some((_, Ok(pid))) => Ok(Spec::Pid(pid)),
            Some((digits, Err(_))) => {
                Err(Failure::new(code::FAILED, format!("{digits} is larger than any pid"))
                    .advise("a file whose name is all digits is written ./123"))
            }
            None => Ok(Spec::File(word.into())),
        }
    }
}

/// Opens what `word` names and takes its census.
pub fn open(word: &OsStr, options: &Options) -> Result<Subject, Failure> {
    opened(word, options, inspect)
}

/// The same for commands that need no more than the census: a clone goes a little earlier.
pub fn open_for_census(word: &OsStr, options: &Options) -> Result<Subject, Failure> {
    opened(word, options, inspect_only)
}

type Inspector = fn(&Target) -> Result<Inspection, TooManyBlocks>;

fn opened(word: &OsStr, options: &Options, inspect: Inspector) -> Result<Subject, Failure> {
    let typed = text::quoted(&word.to_string_lossy());
    with_progress(&format!("looking at {}", text::shown(&word.to_string_lossy())), || {
        examined(open_target(word, options)?, typed, inspect)
    })
}

/// Opens what `word` names: a live process is captured.
pub fn open_target(word: &OsStr, options: &Options) -> Result<Target, Failure> {
    let target = match Spec::parse(word)? {
        Spec::Pid(pid) => {
            if options.sysroot.is_some() {
                return Err(Failure::new(code::USAGE, "--sysroot is for core files"));
            }
            captured(pid, &live_options(options)).map_err(failure::of_attach)?
        }
        Spec::File(path) => open_file(&path, options)?,
    };
    tracing::info!(
        mappings = target.mappings.len(),
        images = target.images.len(),
        pause = ?target.capture.pause,
        "captured"
    );
    Ok(target)
}

/// Takes the picture of a process, out of whose way we are from here on.
pub fn captured(pid: i32, options: &LiveOptions) -> Result<Target, AttachError> {
    aside::leave_to(pid);
    // Before there is a clone, which lives no longer than it takes to read it.
    wmr_cpython::tables::loaded();
    let target = attach(pid, options)?;
    aside::give_way();
    Ok(target)
}

/// How to look at a process.
pub fn live_options(options: &Options) -> LiveOptions {
    LiveOptions {
        capture: options.capturing(),
        max_pause: Some(options.max_pause),
        max_memory: options.max_memory,
        ..LiveOptions::default()
    }
}

/// The pid that `word` means, if it is not a file.
pub fn pid(word: &OsStr) -> Result<Option<i32>, Failure> {
    Ok(match Spec::parse(word)? {
        Spec::Pid(pid) => Some(pid),
        Spec::File(_) => None,
    })
}

/// Takes the census of an opened target.
pub fn examine(target: Target, typed: String) -> Result<Subject, Failure> {
    examined(target, typed, inspect)
}

fn examined(target: Target, typed: String, inspect: Inspector) -> Result<Subject, Failure> {
    // In a thread of the pool, for what is not done in parallel leaves the processors to the target too.
    let inspection =
        rayon::scope(|_| inspect(&target)).map_err(|e| Failure::new(code::FAILED, e.to_string()))?;
    tracing::info!(blocks = inspection.blocks.len(), types = inspection.census.types.len(), "census taken");
    Ok(Subject { target, inspection, typed })
}

/// Opens a snapshot or a core file.
pub fn open_file(path: &Path, options: &Options) -> Result<Target, Failure> {
    aside::give_way();
    if is_snapshot(path) {
        return open_snapshot(path).map_err(|error| {
            let shown = text::shown(&path.to_string_lossy());
            let failure = Failure::new(code::FAILED, format!("{shown}: {}", text::shown(&error.to_string())));
            match error {
                SnapshotError::Version { .. } => failure.advise("a newer wmr wrote it: take that one"),
                _ => failure,
            }
        });
    }
    let core = CoreOptions { sysroot: options.sysroot.clone(), ..CoreOptions::default() };
    open_core(path, &core).map_err(|error| {
        let shown = text::shown(&path.to_string_lossy());
        let failure = Failure::new(code::FAILED, format!("{shown}: {}", text::shown(&error.to_string())));
        match &error {
            CoreError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Failure::new(code::FAILED, format!("{shown}: no such file, and not a pid"))
                    .advise("a TARGET is a pid, a core or a snapshot file; wmr ps lists the Python processes")
                    .advise("wmr --help lists the commands")
            }
            CoreError::Read { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                Failure::new(code::NOT_PERMITTED, format!("{shown}: {source}")).advise(
                    "core and snapshot files belong to who wrote them, or to the user of their process",
                )
            }
            CoreError::Empty => failure.advise("a core of a running process: gcore PID"),
            _ if wmr_heap::meliae::is_dump(path) => Failure::new(
                code::FAILED,
                format!("{shown}: a graph of objects, without the memory they were in"),
            )
            .advise("wmr refs, path and retained answer from it"),
            CoreError::NotElf(_) | CoreError::NotCore(_) | CoreError::NotAFile => failure
                .advise("a TARGET is a pid, a core file as the kernel, gcore or coredumpctl write them,")
                .advise("or a snapshot that wmr snapshot wrote"),
            _ => failure,
        }
    })
}

/// Runs `work`; if it takes longer than a second and somebody watches, shows that something happens.
pub fn with_progress<T>(what: &str, work: impl FnOnce() -> T) -> T {
    if !std::io::stderr().is_terminal() {
        return work();
    }
    let (done, wait) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if wait.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
                let spinner = indicatif::ProgressBar::new_spinner().with_message(what.to_owned());
                spinner.enable_steady_tick(Duration::from_millis(120));
                // Ends when the sender is dropped, by a panic too.
                let _ = wait.recv();
                spinner.finish_and_clear();
            }
        });
        let result = work();
        drop(done);
        result
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_a_pid_unless_a_path_is_given() {
        assert_eq!(Spec::parse(OsStr::new("42")).ok(), Some(Spec::Pid(42)));
        assert_eq!(Spec::parse(OsStr::new("./42")).ok(), Some(Spec::File("./42".into())));
        assert_eq!(Spec::parse(OsStr::new("core.42")).ok(), Some(Spec::File("core.42".into())));
        assert!(Spec::parse(OsStr::new("99999999999999999999")).is_err());
    }
}
