//! Stopping all threads of a process, and letting them go whatever happens.
//!
//! The tracer is a thread of its own that ends after each try. When a tracer ends, for whatever
//! reason, the kernel detaches its tracees: also those that never stopped, which `PTRACE_DETACH`
//! cannot let go, and those that died, whose parents wait for our detaching. `PTRACE_O_EXITKILL` is
//! never set. So a panic, an error, SIGINT and SIGKILL of this program all end with the target as it
//! was: running, or in the group-stop it was in.

use super::clone::Quiet;
use super::error::{AttachError, Denied, Laggard};
use super::procdir::ProcDir;
use crate::Thread;
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

/// All threads of the target, stopped until this is dropped.
pub(super) struct Stopped {
    threads: Vec<Tracee>,
    began: Instant,
}

pub(super) struct Tracee {
    pub tid: i32,
    pub stopped: bool,
    /// Was it asleep just before, where that was asked?
    pub asleep: bool,
    /// The signal it was about to receive, passed on when it is let go.
    pub signal: i32,
}

/// Why a try to stop all threads came to nothing.
pub(super) enum Failure {
    /// This thread did not stop in time.
    Busy(i32),
    Refused(io::Error, i32),
    Fatal(AttachError),
}

/// Threads that wait for a processor are not stuck: they get this many times the budget.
const RUNNABLE_FACTOR: u32 = 10;

/// Runs `inside`, with the threads as they were found, while all are stopped, and says how long they were.
///
/// Each try waits for the threads for at most `budget`; when one does not stop (uninterruptible, or
/// waiting for its `vfork` child) all are resumed and the next try comes later, until `patience` is
/// over. `inside` is not repeated once it ran.
pub(super) fn with_stopped<T: Send>(
    (dir, mem): (&ProcDir, &File),
    budget: Duration,
    patience: Duration,
    inside: impl FnOnce(Vec<Thread>) -> Result<T, AttachError> + Send,
) -> Result<(T, Duration), AttachError> {
    let mut inside = Some(inside);
    repeatedly(dir, patience, || {
        let tried = std::thread::scope(|scope| {
            let tracer = scope.spawn(|| {
                let quiet = Quiet::of(dir, mem);
                let stopped = match stop(dir, budget, &|tid| quiet.knows(tid)) {
                    Ok(stopped) => stopped,
                    Err(unstopped) => {
                        quiet.give_up(unstopped.held);
                        return Err(unstopped.failure);
                    }
                };
                // Before all else: should this program be killed, they go on as they are then.
                let mut quietened = quiet.quieten(&stopped);
                let threads = std::mem::take(&mut quietened.threads);
                let threads = threads.into_iter().map(|(tid, words)| thread(tid, words)).collect();
                let gone = || Failure::Fatal(AttachError::Vanished { pid: dir.pid });
                let result = inside.take().ok_or_else(gone)?(threads);
                quietened.recount(dir);
                let pause = stopped.release();
                quietened.remember(dir);
                result.map(|value| (value, pause)).map_err(Failure::Fatal)
            });
            tracer.join()
        });
        tried.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Tries until it succeeds, or fails for good, or `patience` is over. A tracer of these tries must have
/// ended, or be a thread of this program, when a try returns.
pub(super) fn repeatedly<T>(
    dir: &ProcDir,
    patience: Duration,
    mut attempt: impl FnMut() -> Result<T, Failure>,
) -> Result<T, AttachError> {
    let began = Instant::now();
    let mut tries = 0;
    loop {
        tries += 1;
        let failure = match attempt() {
            Ok(value) => return Ok(value),
            Err(failure) => failure,
        };
        let waited = began.elapsed();
        match failure {
            Failure::Fatal(error) => return Err(error),
            Failure::Busy(tid) if waited >= patience => {
                let wchan = dir.text(&format!("task/{tid}/wchan")).unwrap_or_default();
                return Err(AttachError::NotStopped(Box::new(Laggard {
                    pid: dir.pid,
                    tid,
                    state: dir.thread_state(tid).unwrap_or('?'),
                    wchan: if wchan.is_empty() || wchan == "0" { "-".to_owned() } else { wchan },
                    tries,
                    waited,
                })));
            }
            // The tracer of the last try is still on its way out: join returns before the kernel has
            // detached its tracees. Anybody else's tracer stays.
            Failure::Refused(error, tid) if !ours(dir, tid, tries) || waited >= patience => {
                return Err(refused(dir, "ptrace(PTRACE_SEIZE)", error));
            }
            Failure::Busy(_) | Failure::Refused(..) => {}
        }
        // 2, 4, 8, … 128 ms.
        std::thread::sleep(Duration::from_millis(1 << tries.min(7)));
    }
}

/// Is the thread's tracer one of our own threads, or was it until a moment ago?
fn ours(dir: &ProcDir, tid: i32, tries: u32) -> bool {
    let Ok(text) = dir.text(&format!("task/{tid}/status")) else { return true };
    match super::procdir::Status::parse(&text).tracer {
        // Nobody: it has just let go, unless the refusal has another reason and stays.
        0 => (2..6).contains(&tries),
        tracer => std::fs::exists(format!("/proc/self/task/{tracer}")).unwrap_or(false),
    }
}

/// The error for a refusal: another tracer when there is one, else all that decides permissions.
pub(super) fn refused(dir: &ProcDir, what: &'static str, source: io::Error) -> AttachError {
    const CAP_SYS_PTRACE: u64 = 1 << 19;
    let pid = dir.pid;
    let Ok((view, status)) = dir.view().and_then(|view| view.status().map(|status| (view, status))) else {
        return AttachError::Vanished { pid };
    };
    if status.tracer != 0 {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", status.tracer)).unwrap_or_default();
        return AttachError::Traced { pid, tracer: status.tracer, name: name.trim_end().to_owned() };
    }
    let own = ProcDir::open(std::process::id() as i32).and_then(|own| own.status()).unwrap_or_default();
    // The kernel gives the files of an undumpable process to root, if not the directory.
    use std::os::unix::fs::MetadataExt;
    let owner = std::fs::metadata(view.path("mem")).map_or(status.uid, |metadata| metadata.uid());
    let yama = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok();
    AttachError::NotPermitted(Box::new(Denied {
        pid,
        name: status.name,
        uid: status.uid,
        our_uid: own.uid,
        capable: own.cap_effective & CAP_SYS_PTRACE != 0,
        yama: yama.and_then(|text| text.trim().parse().ok()),
        dumpable: owner == status.uid,
        what,
        source,
    }))
}

/// Not all threads could be stopped. Those that were are held until this is dropped.
pub(super) struct Unstopped {
    pub failure: Failure,
    pub held: Stopped,
}

/// Stops all threads. Of those that `asked` names it is noted whether they were asleep.
pub(super) fn stop(
    dir: &ProcDir,
    budget: Duration,
    asked: &dyn Fn(i32) -> bool,
) -> Result<Stopped, Box<Unstopped>> {
    let mut stopped = Stopped { threads: Vec::new(), began: Instant::now() };
    match stopped.stop_all(dir, budget, asked) {
        Ok(()) => Ok(stopped),
        Err(failure) => Err(Box::new(Unstopped { failure, held: stopped })),
    }
}

fn seize(dir: &ProcDir, tid: i32, asked: bool) -> io::Result<bool> {
    // No options: above all not PTRACE_O_EXITKILL.
    ptrace(libc::PTRACE_SEIZE, tid, 0, 0)?;
    let asleep = asked && dir.thread_state(tid) == Some('S');
    // Fails only if it died meanwhile, which waiting for it finds out.
    let _ = ptrace(libc::PTRACE_INTERRUPT, tid, 0, 0);
    Ok(asleep)
}

/// Stops a single thread; `None` when it does not stop in time. This thread stays its tracer then.
pub(super) fn stop_one(dir: &ProcDir, tid: i32, budget: Duration) -> io::Result<Option<Stopped>> {
    let asleep = match seize(dir, tid, true) {
        Ok(asleep) => asleep,
        Err(error) => {
            let status = dir.text(&format!("task/{tid}/status"))?;
            // Seized by the last try.
            if super::procdir::Status::parse(&status).tracer != std::process::id() as i32 {
                return Err(error);
            }
            false
        }
    };
    let threads = vec![Tracee { tid, stopped: false, asleep, signal: 0 }];
    let mut stopped = Stopped { threads, began: Instant::now() };
    let all = stopped.wait(dir, budget).is_ok() && !stopped.threads.is_empty();
    Ok(all.then_some(stopped))
}

impl Stopped {
    fn stop_all(
        &mut self,
        dir: &ProcDir,
        budget: Duration,
        asked: &dyn Fn(i32) -> bool,
    ) -> Result<(), Failure> {
        let mut seen = HashSet::new();
        loop {
            // Threads that are not stopped yet may start others: list again until nothing is new.
            let tids = dir.tids().map_err(|_| Failure::Fatal(AttachError::Vanished { pid: dir.pid }))?;
            let before = self.threads.len();
            for tid in tids {
                if !seen.insert(tid) {
                    continue;
                }
                match seize(dir, tid, asked(tid)) {
                    Ok(asleep) => self.threads.push(Tracee { tid, stopped: false, asleep, signal: 0 }),
                    // It ended; a dead leader answers EPERM for as long as other threads live.
                    Err(_) if matches!(dir.thread_state(tid), None | Some('Z' | 'X')) => {}
                    // A thread of the kernel that works for this process, as io_uring has. It copies what
                    // the kernel was asked to copy, like a device would.
                    Err(_) if dir.is_worker(tid) => {}
                    Err(error) => return Err(Failure::Refused(error, tid)),
                }
            }
            if self.threads.is_empty() {
                return Err(Failure::Fatal(AttachError::Vanished { pid: dir.pid }));
            }
            if self.threads.len() == before {
                return Ok(());
            }
            self.wait(dir, budget)?;
            // Each of them stops in time, yet there are always more.
            if self.began.elapsed() >= budget * RUNNABLE_FACTOR {
                let late = self.threads.last().map_or(dir.pid, |tracee| tracee.tid);
                return Err(Failure::Busy(late));
            }
        }
    }

    /// Waits until every thread has stopped or ended.
    fn wait(&mut self, dir: &ProcDir, budget: Duration) -> Result<(), Failure> {
        let mut round = 0u32;
        loop {
            for tracee in self.threads.iter_mut().filter(|t| !t.stopped) {
                if let Some(signal) = stop_report(tracee.tid) {
                    tracee.stopped = true;
                    tracee.signal = signal;
                }
            }
            let Some(late) = self.threads.iter().find(|t| !t.stopped).map(|t| t.tid) else { return Ok(()) };
            round += 1;
            if round < 20 {
                std::thread::yield_now();
                continue;
            }
            // Asking /proc is dear, so only when there is time to spend anyway.
            self.threads.retain(|t| t.stopped || !matches!(dir.thread_state(t.tid), None | Some('Z' | 'X')));
            let mut waiting = self.threads.iter().filter(|t| !t.stopped);
            let runnable = waiting.all(|t| dir.thread_state(t.tid) == Some('R'));
            let allowed = if runnable { budget * RUNNABLE_FACTOR } else { budget };
            if self.began.elapsed() >= allowed {
                return Err(Failure::Busy(late));
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// Lets those go that have stopped. Then waits for another that was told to, as long as one of them is only
    /// waiting for a processor. Is there one?
    pub fn next_late(&mut self, dir: &ProcDir) -> bool {
        /// A system that is busy for longer is not waited for.
        const LONGEST: Duration = Duration::from_secs(2);
        self.detach();
        self.threads.retain(|tracee| !tracee.stopped);
        let began = Instant::now();
        while began.elapsed() < LONGEST {
            // Asked before: it may stop in between.
            let runs = self.threads.iter().any(|tracee| dir.thread_state(tracee.tid) == Some('R'));
            for tracee in &mut self.threads {
                if let Some(signal) = stop_report(tracee.tid) {
                    (tracee.stopped, tracee.signal) = (true, signal);
                }
            }
            if self.threads.iter().any(|tracee| tracee.stopped) {
                return true;
            }
            if !runs {
                return false;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        false
    }

    fn detach(&self) {
        for tracee in self.threads.iter().filter(|t| t.stopped) {
            // A thread in a group-stop goes back to it. Fails only for one that was killed.
            let _ = ptrace(libc::PTRACE_DETACH, tracee.tid, 0, tracee.signal as usize);
        }
    }

    pub fn tracees(&self) -> &[Tracee] {
        &self.threads
    }

    /// Lets all go and says how long they were held.
    pub fn release(self) -> Duration {
        let began = self.began;
        drop(self);
        began.elapsed()
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.detach();
    }
}

/// Has the thread stopped? If so, the signal to pass on when it is let go, 0 for none.
fn stop_report(tid: i32) -> Option<i32> {
    // WSTOPPED alone: an exit status belongs to the parent, who may be this very process.
    let options = libc::WSTOPPED | libc::WNOHANG | libc::__WALL | libc::__WNOTHREAD;
    // SAFETY: all zeroes is a valid siginfo_t, a plain structure of integers.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is a siginfo_t that lives across the call.
    let result = unsafe { libc::waitid(libc::P_PID, tid as libc::id_t, &raw mut info, options) };
    if result != 0 || info.si_signo == 0 {
        return None;
    }
    // SAFETY: waitid filled in a SIGCHLD siginfo, which has a status.
    let status = unsafe { info.si_status() };
    // Signal in the low byte, PTRACE_EVENT_STOP above it. With an event there is nothing to deliver:
    // the signal then is SIGTRAP, or the one of a group-stop.
    Some(if status >> 8 == 0 { status & 0xff } else { 0 })
}

pub(super) fn ptrace(request: libc::c_uint, tid: i32, addr: usize, data: usize) -> io::Result<()> {
    // SAFETY: the requests used here take integers, or in `data` the address of what they read or fill
    // in: an iovec, a signal mask, an event's number, which the callers keep alive.
    match unsafe { libc::ptrace(request, tid, addr, data) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// A register set as 64-bit words; empty when the system refuses.
pub(super) fn register_set(tid: i32, kind: libc::c_int) -> Vec<u64> {
    let mut words = vec![0u64; 64];
    let mut iov =
        libc::iovec { iov_base: words.as_mut_ptr().cast(), iov_len: words.len() * size_of::<u64>() };
    let got = ptrace(libc::PTRACE_GETREGSET, tid, kind as usize, &raw mut iov as usize);
    words.truncate(if got.is_ok() { iov.iov_len / size_of::<u64>() } else { 0 });
    words
}

/// A thread with these general registers; names can wait until it runs again.
pub(super) fn thread(tid: i32, regs: Vec<u64>) -> Thread {
    let word = |at: usize| regs.get(at).copied().unwrap_or(0);
    // Places in user_regs_struct: asm/user_64.h (x86), asm/ptrace.h (arm64).
    #[cfg(target_arch = "x86_64")]
    let (ip, sp, tls) = (word(16), word(19), word(21));
    #[cfg(target_arch = "aarch64")]
    let (ip, sp, tls) = {
        const NT_ARM_TLS: libc::c_int = 0x401;
        (word(32), word(31), register_set(tid, NT_ARM_TLS).first().copied().unwrap_or(0))
    };
    Thread { tid, ip, sp, tls, regs, ..Thread::default() }
}
