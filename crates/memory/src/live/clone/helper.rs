//! The process that does what must not be interrupted: it stops the target, injects the clone, lets
//! the target go on, holds the child while it is read, and clears it away.
//!
//! It begins as a fork of this program, so it has all it needs in memory. It has a session of its own
//! and blocks every signal. When this program ends, however, it notices, clears away and ends too.

use super::inject::Injection;
use super::quiet::{Quiet, Quietened};
use super::{Order, arch, instruction, needed, record, wire};
use crate::Residency;
use crate::live::procdir::ProcDir;
use crate::live::stop::{self, Failure, Stopped, Unstopped, register_set};
use crate::live::{pagemap, smaps};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant, SystemTime};

pub(super) struct Task<'a> {
    pub order: &'a Order<'a>,
    /// Shared with this program: room for what the child will lack.
    pub copied: Option<&'a mut [u8]>,
}

/// What the stop brought.
pub(super) struct Made {
    pub child: i32,
    pub pause: Duration,
    pub time: SystemTime,
    pub threads: Vec<(i32, Vec<u64>)>,
    pub extents: Vec<Range<u64>>,
}

/// How it went, as sent in words; the first says which.
pub(super) enum Outcome {
    Cloned(Made),
    Busy(i32),
    NotTraced(i32, i32),
    Vanished,
    /// It has executed another program.
    Replaced,
    Grown,
    Refused(Reason, i32),
}

/// Why the target could not be cloned, though it could be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    Clone,
    Seccomp,
    Injection,
    Dispatch,
}

impl Reason {
    const ALL: [Reason; 4] = [Reason::Clone, Reason::Seccomp, Reason::Injection, Reason::Dispatch];

    /// For people.
    pub fn words(self, errno: i32) -> String {
        let error = io::Error::from_raw_os_error(errno);
        match self {
            Reason::Clone if errno == libc::EAGAIN => {
                "it may have no more processes (its pids cgroup, or ulimit -u)".to_owned()
            }
            Reason::Clone if errno == libc::ENOMEM => {
                "the system has no memory to promise for a clone (see /proc/sys/vm/overcommit_memory)"
                    .to_owned()
            }
            Reason::Clone => format!("clone was refused: {error}"),
            Reason::Seccomp => "it has system call filters, and only root may set them aside".to_owned(),
            Reason::Dispatch => {
                "it may have its system calls dispatched to itself, and this system cannot set that aside"
                    .to_owned()
            }
            Reason::Injection => format!("injecting a system call failed: {error}"),
        }
    }
}

const CLONED: u64 = 1;
const BUSY: u64 = 2;
const NOT_TRACED: u64 = 3;
const VANISHED: u64 = 4;
const GROWN: u64 = 5;
const REFUSED: u64 = 6;
const REPLACED: u64 = 7;
/// First word, to it.
pub(super) const GO: u64 = 8;
/// Last words.
pub(super) const DONE: u64 = 10;
pub(super) const NO_ROOM: u64 = 11;
pub(super) const TOO_LONG: u64 = 12;
pub(super) const KILLED: u64 = 13;

/// Reads what the helper sent.
pub(super) fn outcome(words: &[u64]) -> Option<Outcome> {
    let (&kind, rest) = words.split_first()?;
    let one = || rest.first().map(|&word| word as i32);
    Some(match kind {
        CLONED => Outcome::Cloned(made(rest)?),
        BUSY => Outcome::Busy(one()?),
        NOT_TRACED => Outcome::NotTraced(one()?, *rest.get(1)? as i32),
        VANISHED => Outcome::Vanished,
        REPLACED => Outcome::Replaced,
        GROWN => Outcome::Grown,
        REFUSED => Outcome::Refused(*Reason::ALL.get(*rest.first()? as usize)?, *rest.get(1)? as i32),
        _ => return None,
    })
}

fn made(words: &[u64]) -> Option<Made> {
    let mut words = words.iter().copied();
    let mut next = || words.next();
    let child = next()? as i32;
    let pause = Duration::from_nanos(next()?);
    let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(next()?);
    let mut threads = Vec::new();
    for _ in 0..next()? {
        let tid = next()? as i32;
        let count = next()?;
        let registers = (0..count).map(|_| next()).collect::<Option<Vec<u64>>>()?;
        threads.push((tid, registers));
    }
    let mut extents = Vec::new();
    for _ in 0..next()? {
        extents.push(next()?..next()?);
    }
    Some(Made { child, pause, time, threads, extents })
}

fn words(outcome: &Outcome) -> Vec<u64> {
    match outcome {
        Outcome::Busy(tid) => vec![BUSY, *tid as u64],
        Outcome::NotTraced(tid, errno) => vec![NOT_TRACED, *tid as u64, *errno as u64],
        Outcome::Vanished => vec![VANISHED],
        Outcome::Replaced => vec![REPLACED],
        Outcome::Grown => vec![GROWN],
        Outcome::Refused(reason, errno) => vec![REFUSED, *reason as u64, *errno as u64],
        Outcome::Cloned(made) => {
            let time = made.time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let mut words =
                vec![CLONED, made.child as u64, made.pause.as_nanos() as u64, time.as_nanos() as u64];
            words.push(made.threads.len() as u64);
            for (tid, registers) in &made.threads {
                words.extend([*tid as u64, registers.len() as u64]);
                words.extend_from_slice(registers);
            }
            words.push(made.extents.len() as u64);
            words.extend(made.extents.iter().flat_map(|range| [range.start, range.end]));
            words
        }
    }
}

/// Forks the helper and sets it to work. Its pid.
pub(super) fn start(task: Task, socket: UnixStream) -> io::Result<i32> {
    // SAFETY: the child is a single thread that ends by _exit and never returns from here. It uses the
    // allocator, whose locks glibc and musl put in order for it; it waits for no other thread, and of
    // the locks of the standard library it takes none.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let _ = std::panic::catch_unwind(AssertUnwindSafe(|| work(task, &socket)));
            // SAFETY: ends the process without running what the parent registered for its own end.
            unsafe { libc::_exit(0) }
        }
        pid => Ok(pid),
    }
}

fn work(mut task: Task, socket: &UnixStream) {
    let keep = needed(task.order, socket);
    go_apart(&keep);
    record::sweep(task.order);
    if wire::receive(socket).ok().as_deref() != Some(&[GO]) {
        return;
    }
    let (outcome, quietened) = capture(&mut task);
    let remember = || quietened.iter().for_each(|quietened| quietened.remember(task.order.dir));
    let Outcome::Cloned(made) = &outcome else {
        remember();
        let _ = wire::send(socket, &words(&outcome));
        return;
    };
    let began = Instant::now();
    let child = made.child;
    // Before anybody hears of it: what has to be cleared away must be known even if we are killed.
    let record = record::write(task.order.dir, child);
    remember();
    let said = wire::send(socket, &words(&outcome));
    let last = if said.is_ok() { hold(task.order, socket, began) } else { DONE };
    let last = if is_killed(child) { KILLED } else { last };
    let life = kill(child);
    let life = life.saturating_duration_since(began);
    if clear(task.order, child, 40) {
        record::forget(record);
    }
    let _ = wire::send(socket, &[last, life.as_nanos() as u64]);
}

/// Out of the reach of what may end this program: signals, its terminal, a full memory cgroup.
fn go_apart(keep: &[i32]) {
    // SAFETY: calls that take integers, strings that end in NUL, and structures that live across them.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut());
        libc::setsid();
        libc::prctl(libc::PR_SET_NAME, c"wmr-clone".as_ptr());
        // Whoever reads our output must not wait for this process.
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        for fd in 0..3 {
            libc::dup2(null, fd);
        }
        let mut keep = keep.to_vec();
        keep.sort_unstable();
        let mut from = 3;
        for fd in keep.into_iter().chain([i32::MAX]) {
            if from < fd {
                libc::close_range(from as libc::c_uint, (fd - 1) as libc::c_uint, 0);
            }
            from = fd.saturating_add(1);
        }
        // A page fault would wait for the disk. Refused where the limit is low: then it is not locked.
        libc::mlockall(libc::MCL_CURRENT);
    }
    // On a busy machine others would have the processor while the target stands still, or when it is time to see what
    // room it has left. Refused without the right to, as is the score: then the usual ones it is.
    // SAFETY: takes integers.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
}

/// Memory may run short faster than it is noticed here. The system is then to kill the clone, which has the size of the
/// target: its score is its own, and raising it takes no right. And it frees its memory itself when it is killed, on a
/// busy machine not before its turn comes, while the target goes on to take more.
fn go_first(child: i32) {
    let _ = std::fs::write(format!("/proc/{child}/oom_score_adj"), "1000");
    // SAFETY: takes integers. Refused without the right to.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, child as libc::id_t, -20) };
}

/// Everything between the stop and the going on.
fn capture(task: &mut Task) -> (Outcome, Option<Quietened>) {
    let order = task.order;
    let quiet = Quiet::of(order.dir, order.mem);
    let stopped = match stop::stop(order.dir, order.budget, &|tid| quiet.knows(tid)) {
        Ok(stopped) => stopped,
        Err(unstopped) => {
            let Unstopped { failure, held } = *unstopped;
            let outcome = match failure {
                Failure::Busy(tid) => Outcome::Busy(tid),
                Failure::Refused(error, tid) => Outcome::NotTraced(tid, error.raw_os_error().unwrap_or(0)),
                Failure::Fatal(_) => Outcome::Vanished,
            };
            quiet.give_up(held);
            return (outcome, None);
        }
    };
    let (mut injection, extents, time) = match prepare(task, &stopped) {
        Ok(prepared) => prepared,
        Err(outcome) => {
            quiet.give_up(stopped);
            return (outcome, None);
        }
    };
    let mut quietened = quiet.quieten_with(&stopped, Some(&mut injection));
    // fork(), but for the signal at the child's end. Its stack is an address that faults, should the
    // child ever run.
    let answer = injection.run(order.instruction, libc::SYS_clone, [0, 8, 0, 0, 0, 0]);
    // Before the target goes on: whoever runs then may keep the processor for longer than the room lasts.
    if let Some(child) = answer.as_ref().ok().and_then(|answer| answer.child) {
        go_first(child);
    }
    let ended = injection.end();
    quietened.recount(order.dir);
    let pause = stopped.release();
    resend(order.dir.pid, &injection);
    let outcome = match answer.and_then(|answer| ended.map(|()| answer)) {
        Ok(answer) => match answer.child {
            Some(child) if answer.value > 0 => {
                let threads = std::mem::take(&mut quietened.threads);
                Outcome::Cloned(Made { child, pause, time, threads, extents })
            }
            _ => Outcome::Refused(Reason::Clone, (-answer.value) as i32),
        },
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Outcome::Vanished,
        Err(error) => Outcome::Refused(Reason::Injection, error.raw_os_error().unwrap_or(0)),
    };
    (outcome, Some(quietened))
}

/// What has to be had before a thread is taken over, and one that is.
fn prepare(task: &mut Task, stopped: &Stopped) -> Result<(Injection, Vec<Range<u64>>, SystemTime), Outcome> {
    let order = task.order;
    let tid = easiest(stopped).ok_or(Outcome::Busy(order.dir.pid))?;
    if !is_still_at(order, tid) {
        return Err(Outcome::Replaced);
    }
    let extents = match task.copied.as_deref_mut() {
        Some(room) => copy_apart(order, room)?,
        None => Vec::new(),
    };
    let time = SystemTime::now();
    let injection = Injection::begin(tid, order).map_err(|error| {
        let reason = match error.kind() {
            io::ErrorKind::InvalidData => Reason::Dispatch,
            _ if order.seccomp => Reason::Seccomp,
            _ => Reason::Injection,
        };
        Outcome::Refused(reason, error.raw_os_error().unwrap_or(0))
    })?;
    Ok((injection, extents, time))
}

/// Is the system call instruction where it was, for the thread that is to execute it? It may have executed another
/// program since; and the memory that was opened then lives on where another process has it too (vfork).
fn is_still_at(order: &Order, tid: i32) -> bool {
    let its = order.dir.file(&format!("task/{tid}/mem"));
    instruction::is_at(order.mem, order.instruction)
        && its.is_ok_and(|mem| instruction::is_at(&mem, order.instruction))
}

/// A thread that waits for nothing but us: others are about to receive a signal, and would lose it. Rather one in a
/// system call, which is in the middle of nothing else.
fn easiest(stopped: &Stopped) -> Option<i32> {
    /// Of a thousand threads nearly all are in one.
    const LOOK_AT: usize = 16;
    let able = || stopped.tracees().iter().filter(|tracee| tracee.stopped && tracee.signal == 0);
    let in_call = able().take(LOOK_AT).find(|tracee| {
        let registers = register_set(tracee.tid, libc::NT_PRSTATUS);
        registers.len() >= arch::WORDS && arch::in_call(&registers)
    });
    Some(in_call.or_else(|| able().next())?.tid)
}

/// A stop signal that came during the injection was taken from the target: it gets it again.
fn resend(pid: i32, injection: &Injection) {
    if injection.stopped {
        // SAFETY: takes integers.
        unsafe { libc::kill(pid, libc::SIGSTOP) };
    }
}

/// Copies what is in RAM of the memory that the child will lack.
fn copy_apart(order: &Order, room: &mut [u8]) -> Result<Vec<Range<u64>>, Outcome> {
    let mut extents = Vec::new();
    let mut at = 0;
    for range in order.apart {
        let mut residency = Residency::default();
        pagemap::present(order.pagemap, range.clone(), &mut residency).map_err(|_| Outcome::Vanished)?;
        for run in residency.runs.iter().filter(|run| run.state.present && !run.state.zero) {
            let len = (run.end - run.start) as usize;
            let slot = room.get_mut(at..at + len).ok_or(Outcome::Grown)?;
            // A page that cannot be read is left out.
            if order.mem.read_exact_at(slot, run.start).is_ok() {
                extents.push(run.start..run.end);
                at += len;
            }
        }
    }
    Ok(extents)
}

/// Waits until all is read, or this program has ended, or the child has to go.
fn hold(order: &Order, socket: &UnixStream, began: Instant) -> u64 {
    /// Whoever forgets a picture for so long is stopped (Ctrl-Z) or hangs.
    const MAX_LIFE: Duration = Duration::from_secs(600);
    // The target can dirty 1.2 GB/s (3.2 µs a page), which are 6 MB in this time.
    const WATCH: libc::c_int = 5;
    let limited = order.groups.limited();
    loop {
        let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: `poll` is one pollfd that lives across the call.
        let ready = unsafe { libc::poll(&raw mut poll, 1, if limited { WATCH } else { 1000 }) };
        // Nothing is ever sent here: it is the end of the other side, by shutdown or by death.
        if ready > 0 {
            return DONE;
        }
        if limited && order.groups.available().is_some_and(|left| left < order.reserve) {
            return NO_ROOM;
        }
        if began.elapsed() > MAX_LIFE {
            return TOO_LONG;
        }
    }
}

/// Has somebody killed the child, the system for lack of memory above all? What was read of it since is lacking.
fn is_killed(child: i32) -> bool {
    let mut status = 0;
    let options = libc::__WALL | libc::WNOHANG;
    // SAFETY: takes integers, and the address of one that lives across the call.
    let reported = unsafe { libc::waitpid(child, &raw mut status, options) } == child;
    reported && libc::WIFSIGNALED(status)
}

/// Kills the child and waits until it is dead. When that was.
fn kill(child: i32) -> Instant {
    let mut status = 0;
    // SAFETY: takes integers, and the address of one that lives across the call.
    unsafe {
        let pidfd = libc::syscall(libc::SYS_pidfd_open, child, 0);
        libc::kill(child, libc::SIGKILL);
        if pidfd >= 0 {
            // From here, as the child may have to wait for a processor (Linux 5.15).
            libc::syscall(libc::SYS_process_mrelease, pidfd, 0);
            libc::close(pidfd as i32);
        }
        while libc::waitpid(child, &raw mut status, libc::__WALL) == child && libc::WIFSTOPPED(status) {}
    }
    Instant::now()
}

/// Has the target collect its dead child. True when nothing is left to be collected.
pub(super) fn clear(order: &Order, child: i32, rounds: u32) -> bool {
    // Nobody's child any more, when the target has ended: then init collects it.
    let Some(inner) = record::number_in_namespace(child) else { return true };
    for round in 0..rounds {
        if !record::is_zombie_of(child, order.dir.pid) {
            return true;
        }
        for tid in threads_by_ease(order.dir) {
            // A thread that cannot be had just now: the next, or later.
            if let Ok(true) = collect(order, tid, inner) {
                return true;
            }
        }
        std::thread::sleep(Duration::from_millis(1 << round.min(7)));
    }
    false
}

/// Those first that no stop makes return `EINTR`.
fn threads_by_ease(dir: &ProcDir) -> Vec<i32> {
    let mut tids = dir.tids().unwrap_or_default();
    tids.retain(|&tid| !matches!(dir.thread_state(tid), None | Some('Z' | 'X' | 'D')));
    tids.truncate(64);
    tids.sort_by_cached_key(|&tid| super::interrupted::is_touchy(dir, tid));
    tids.truncate(4);
    tids
}

/// Stops one thread and has it wait for the child.
fn collect(order: &Order, tid: i32, child: u64) -> io::Result<bool> {
    let quiet = Quiet::of_thread(order.dir, order.mem, tid);
    let Some(stopped) = stop::stop_one(order.dir, tid, order.budget * 4)? else { return Ok(false) };
    if stopped.tracees().iter().any(|tracee| tracee.signal != 0) {
        quiet.give_up(stopped);
        return Ok(false);
    }
    // The program may be another one by now: it is looked for anew.
    let begun = instruction_of(order, tid).and_then(|at| Ok((at, Injection::begin(tid, order)?)));
    let (instruction, mut injection) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            quiet.give_up(stopped);
            return Err(error);
        }
    };
    let mut quietened = quiet.quieten_with(&stopped, Some(&mut injection));
    let options = (libc::__WALL | libc::WNOHANG) as u64;
    let answer = injection.run(instruction, libc::SYS_wait4, [child, 0, options, 0, 0, 0]);
    let ended = injection.end();
    quietened.recount(order.dir);
    stopped.release();
    resend(order.dir.pid, &injection);
    quietened.remember(order.dir);
    ended?;
    // ECHILD: the program has collected it itself, by a wait for all kinds of children.
    Ok(matches!(answer?.value, value if value == child as i64 || value == -i64::from(libc::ECHILD)))
}

/// Where a system call instruction is now: where it was, unless the target has executed another
/// program.
fn instruction_of(order: &Order, tid: i32) -> io::Result<u64> {
    if is_still_at(order, tid) {
        return Ok(order.instruction);
    }
    let view = order.dir.view()?;
    let entries = smaps::parse(&view.read("maps")?);
    let found = instruction::find(&view.file("mem")?, &view.file("pagemap")?, &entries);
    found.ok_or(io::ErrorKind::NotFound.into())
}
