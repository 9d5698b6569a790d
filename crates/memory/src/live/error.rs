use super::predict::Burden;
use crate::Method;
use std::io;
use std::time::Duration;

/// Why a process could not be inspected, with the facts a message needs to teach.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error("no process {pid}")]
    NoSuchProcess { pid: i32 },
    #[error("process {pid} is this program itself")]
    Own { pid: i32 },
    #[error("not permitted to inspect process {pid}: {0}", pid = .0.pid)]
    NotPermitted(Box<Denied>),
    /// It has ended; only its parent `ppid` has yet to collect the exit status.
    #[error("process {pid} is a zombie, its parent {ppid} has not collected it")]
    Zombie { pid: i32, ppid: i32 },
    #[error("{pid} ({name}) is a kernel thread")]
    KernelThread { pid: i32, name: String },
    #[error("process {pid} ended while it was being inspected")]
    Vanished { pid: i32 },
    /// It executed another program before it could be looked at, several times over.
    #[error("process {pid} became another program whenever it was looked at")]
    Replaced { pid: i32 },
    /// One process has one tracer: gdb, strace, or another inspection.
    #[error("process {pid} is being traced by {tracer} ({name})")]
    Traced { pid: i32, tracer: i32, name: String },
    #[error(transparent)]
    NotStopped(Box<Laggard>),
    #[error("process {pid} is a 32-bit program")]
    ThirtyTwoBit { pid: i32 },
    /// Bytes of private memory to copy, against the limit; `not_cloned`: why there has to be a copy, where a clone
    /// was asked for.
    #[error("a copy of process {pid} needs {needed} bytes, above the limit of {limit}")]
    TooLarge { pid: i32, needed: u64, limit: u64, not_cloned: Option<String> },
    /// The stop it takes, told before it began, against the longest that is accepted.
    #[error("process {pid} would stand still for about {} ms, above the limit of {} ms", predicted.as_millis(), limit.as_millis())]
    TooLong { pid: i32, method: Method, predicted: Duration, limit: Duration, burden: Burden },
    /// A clone cannot be, and the stop for a copy would be too long.
    #[error(
        "process {pid} cannot be cloned ({why}), and a copy would stop it for {predicted:?}, above the limit of {limit:?}"
    )]
    NotCloned { pid: i32, why: String, predicted: Duration, limit: Duration },
    /// It allocated faster than room for the copy could be made, several times over.
    #[error("process {pid} grows too fast to be copied")]
    Growing { pid: i32 },
    /// The system's pages are not of 4096 bytes (some arm64 systems).
    #[error("pages of {size} bytes are not supported on live processes")]
    PageSize { size: u64 },
    #[error("process {pid}: {what}: {source}")]
    System { pid: i32, what: &'static str, source: io::Error },
}

/// A refusal, and what decides such refusals.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct Denied {
    pub pid: i32,
    pub name: String,
    /// Real user of the process.
    pub uid: u32,
    /// Effective user of this program.
    pub our_uid: u32,
    /// Does this program hold `CAP_SYS_PTRACE`?
    pub capable: bool,
    /// `/proc/sys/kernel/yama/ptrace_scope`; `None` where Yama is not there.
    pub yama: Option<u8>,
    /// Can it be dumped by its own user? Programs that changed user, or asked so by `prctl`, cannot.
    pub dumpable: bool,
    /// What was tried.
    pub what: &'static str,
    pub source: io::Error,
}

/// A thread that did not stop in time; all were resumed.
#[derive(Debug, thiserror::Error)]
#[error(
    "thread {tid} of process {pid} (state {state}, in {wchan}) did not stop in {tries} tries over {waited:?}"
)]
pub struct Laggard {
    pub pid: i32,
    pub tid: i32,
    /// `D` waits in the kernel, also for a `vfork` child; `R` waits for a processor.
    pub state: char,
    /// Kernel function it waits in, `-` when not told.
    pub wchan: String,
    pub tries: u32,
    pub waited: Duration,
}
