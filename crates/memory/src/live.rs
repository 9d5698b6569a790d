//! Live processes: a picture by a copy-on-write clone, or by a copy while they stand still.
//!
//! Nothing is written to the process, and nothing runs in it but the system calls that make and
//! collect the clone. Pages that are not in RAM are not brought there, so its resident size, page
//! tables and huge pages stay as they were; and shared copy-on-write pages stay shared, as
//! `/proc/PID/mem` reads without un-sharing.

mod clone;
mod cloning;
mod copy;
mod copying;
mod error;
mod families;
mod files;
mod frame;
mod headroom;
mod list;
mod memory;
mod pagemap;
mod picture;
mod predict;
mod procdir;
mod room;
mod sharing;
mod smaps;
mod stop;
mod stream;
mod vdso;
mod watched;

pub use clone::Lost;
pub use error::{AttachError, Denied, Laggard};
pub use families::{Descent, Families, Worker, descent, families};
pub use frame::{Frame, frame};
pub use list::{ProcessList, PythonProcess, processes};
pub use predict::Burden;
pub use sharing::{Compared, Shares, SharingError, SharingOptions, ToldBy, compare};
pub use watched::{Watched, busy_processors};

use crate::{Process, Target};
use files::LiveFiles;
use pagemap::PAGE;
use procdir::{ProcDir, Program, Status};
use smaps::Entry;
use std::fs::File;
use std::io;
use std::time::Duration;

/// How to take the picture.
#[derive(Debug, Clone)]
pub struct LiveOptions {
    pub capture: Capturing,
    /// Longest stop that is accepted. It is told before it would begin, and nothing is done when it is
    /// longer. `None`: any.
    pub max_pause: Option<Duration>,
    /// How long a try to stop all threads may hold some of them while waiting for others. Ten times
    /// as long when the others merely wait for a processor.
    pub stop_budget: Duration,
    /// After how long such tries are given up.
    pub stop_patience: Duration,
    /// Bytes to copy at most. `None`: nine tenths of what the system and our cgroup have left.
    pub max_memory: Option<u64>,
    /// Copy what a clone has at once and let go of it, rather than read it while it is needed: as long as
    /// it lives, each page that the process writes to for the first time has to be copied.
    pub hold: bool,
}

/// Ways to a picture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Capturing {
    /// By a clone. Where that cannot be, by a copy, if its stop is short enough.
    #[default]
    Clone,
    /// By a copy while all threads are stopped.
    Stop,
    /// By a copy while they run: the picture may contradict itself.
    None,
}

impl Default for LiveOptions {
    fn default() -> Self {
        LiveOptions {
            capture: Capturing::default(),
            max_pause: Some(Duration::from_millis(100)),
            stop_budget: Duration::from_millis(5),
            stop_patience: Duration::from_secs(3),
            max_memory: None,
            hold: false,
        }
    }
}

/// Takes a picture of process `pid`. It runs on before this returns.
pub fn attach(pid: i32, options: &LiveOptions) -> Result<Target, AttachError> {
    /// A script may execute a wrapper, and that the interpreter, within milliseconds.
    const TRIES: u32 = 8;
    /// While a program is executed nothing is told of it.
    const LOOKS: u32 = 100;
    let lives = || ProcDir::open(pid).and_then(|dir| dir.status()).is_ok_and(|status| !status.has_ended());
    for _ in 0..TRIES {
        match attach_once(pid, options) {
            Err(AttachError::Replaced { .. } | AttachError::Vanished { .. }) if lives() => {}
            Err(AttachError::Replaced { .. }) => break,
            result => return result,
        }
    }
    // Whoever is about to end has no program any more, before anything else tells of it.
    let runs = |look| {
        std::thread::sleep(Duration::from_millis(u64::from(look > 0 && lives())));
        ProcDir::open(pid).is_ok_and(|dir| dir.program().is_some())
    };
    match (0..LOOKS).any(runs) {
        true => Err(AttachError::Replaced { pid }),
        false => Err(AttachError::Vanished { pid }),
    }
}

fn attach_once(pid: i32, options: &LiveOptions) -> Result<Target, AttachError> {
    let source = Source::open(pid)?;
    let limit = options.max_memory.unwrap_or_else(headroom::available);
    let refused = match options.capture {
        Capturing::Clone => match source.by_clone(limit, options) {
            Ok(target) => return Ok(target),
            Err(clone::NoClone::Failed(error)) => return Err(error),
            Err(clone::NoClone::Refused(why)) => Some(why),
        },
        Capturing::Stop | Capturing::None => None,
    };
    let mut estimate = source.status.rss_anon.or(source.status.rss).unwrap_or_default();
    for _ in 0..4 {
        match source.by_copy(estimate, limit, options, refused.as_deref()) {
            // It has more memory than when it was asked. Once more, with room for twice that.
            Err(AttachError::Growing { .. }) => estimate = estimate.saturating_mul(2).max(1 << 28),
            Err(AttachError::TooLarge { pid, needed, limit, .. }) => {
                return Err(AttachError::TooLarge { pid, needed, limit, not_cloned: refused });
            }
            result => return result,
        }
    }
    Err(AttachError::Growing { pid })
}

/// The process, held by descriptors that cannot come to mean another one.
struct Source {
    /// The thread group: pid, threads, status.
    dir: ProcDir,
    /// Where its memory can be seen: the same, or a living thread when the first one has ended.
    view: ProcDir,
    status: Status,
    /// The one that `mem` and `pagemap` show, if it is still the same when a picture is taken.
    program: Option<Program>,
    mem: File,
    pagemap: File,
    notes: Vec<String>,
}

impl Source {
    fn open(pid: i32) -> Result<Self, AttachError> {
        check_page_size()?;
        let mut dir = open_dir(pid)?;
        let vanished = |_| AttachError::Vanished { pid };
        let mut status = dir.status().map_err(vanished)?;
        let mut notes = Vec::new();
        if status.tgid != pid && status.tgid > 0 {
            notes.push(format!("{pid} is a thread of process {}", status.tgid));
            dir = open_dir(status.tgid)?;
            status = dir.status().map_err(vanished)?;
        }
        let pid = dir.pid;
        if pid == std::process::id() as i32 {
            return Err(AttachError::Own { pid });
        }
        if procdir::is_kernel_thread(&dir.text("stat").map_err(vanished)?) {
            return Err(AttachError::KernelThread { pid, name: status.name });
        }
        let view = dir.view().map_err(|_| match status.has_ended() {
            true => AttachError::Zombie { pid, ppid: status.ppid },
            false => AttachError::Vanished { pid },
        })?;
        if view.pid != pid {
            status = view.status().map_err(vanished)?;
            notes.push(format!("the first thread has ended; looked through thread {}", view.pid));
        }
        let program = view.program();
        let open = |name, what| view.file(name).map_err(|error| refusal(&dir, what, error));
        // First of all and kept: it reads as nothing once the process has gone.
        let mem = open("mem", "open /proc/PID/mem")?;
        let pagemap = open("pagemap", "open /proc/PID/pagemap")?;
        Ok(Source { dir, view, status, program, mem, pagemap, notes })
    }

    /// What is seen from outside: the mappings with the figures of smaps, their files, the system's word on the process.
    fn look(&self) -> Result<(Vec<Entry>, LiveFiles, Process), AttachError> {
        let pid = self.dir.pid;
        let smaps = self.view.read("smaps").map_err(|e| refusal(&self.dir, "read /proc/PID/smaps", e))?;
        let entries = smaps::parse(&smaps);
        // The stack of a 64-bit program lies far above.
        if !entries.is_empty() && entries.iter().all(|entry| entry.mapping.end <= 1 << 32) {
            return Err(AttachError::ThirtyTwoBit { pid });
        }
        let files = LiveFiles::open(&self.view, &entries);
        let process = picture::process_facts(&self.dir, &self.view, &self.status, &entries);
        Ok((entries, files, process))
    }

    /// An error when the program that runs, or was cloned, `there` is another than the one that was opened.
    fn is_the_same(&self, there: &ProcDir) -> Result<(), AttachError> {
        match there.program() {
            None => Ok(()),
            program if program == self.program => Ok(()),
            Some(_) => Err(AttachError::Replaced { pid: self.dir.pid }),
        }
    }
}

fn open_dir(pid: i32) -> Result<ProcDir, AttachError> {
    if pid <= 0 {
        return Err(AttachError::NoSuchProcess { pid });
    }
    ProcDir::open(pid).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => AttachError::NoSuchProcess { pid },
        _ => AttachError::System { pid, what: "open /proc/PID", source: error },
    })
}

/// Which error a failed open or read in /proc/PID is.
fn refusal(dir: &ProcDir, what: &'static str, source: io::Error) -> AttachError {
    let pid = dir.pid;
    let ended = || match dir.status() {
        Ok(status) if status.state == 'Z' => AttachError::Zombie { pid, ppid: status.ppid },
        Ok(_) if dir.program().is_some() => AttachError::Replaced { pid },
        _ => AttachError::Vanished { pid },
    };
    match source.kind() {
        io::ErrorKind::PermissionDenied => stop::refused(dir, what, source),
        io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => ended(),
        _ if source.raw_os_error() == Some(libc::ESRCH) => ended(),
        _ => AttachError::System { pid, what, source },
    }
}

fn check_page_size() -> Result<(), AttachError> {
    // SAFETY: asks the C library for a constant.
    match unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64 {
        PAGE => Ok(()),
        size => Err(AttachError::PageSize { size }),
    }
}
