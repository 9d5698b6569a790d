//! System calls that a stop makes return `EINTR` although no signal came (signal(7), the list at its
//! end). Python repeats such calls (PEP 475), C programs often do not; so they are begun anew, and
//! still end when they would have.

use super::{Call, arch, monotonic};
use crate::live::procdir::{ProcDir, field_of_stat};
use crate::live::stop::Tracee;
use rustc_hash::FxHashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// How long a call waits at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    /// For ever.
    None,
    /// Milliseconds in this argument, for ever when negative.
    Millis(usize),
    /// This argument points to a timespec, or is null: for ever. Then what the call answers when it is
    /// over. Nothing is written to the target, so it can only begin again with all of it.
    Timespec(usize, i64),
    /// That of a socket, or none: this option of the descriptor in the first argument.
    Socket(libc::c_int),
    /// Set elsewhere, or nowhere.
    Unknown,
}

const TIMED_OUT: i64 = -(libc::EAGAIN as i64);

/// What returns `EINTR` after a stop and does nothing before it does. Not here: `close`, whose
/// descriptor is free by then and may be another file's when it is closed again.
const CALLS: &[(i64, Limit)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_epoll_wait, Limit::Millis(3)),
    (libc::SYS_epoll_pwait, Limit::Millis(3)),
    (libc::SYS_epoll_pwait2, Limit::Timespec(3, 0)),
    (libc::SYS_rt_sigtimedwait, Limit::Timespec(2, TIMED_OUT)),
    (libc::SYS_semtimedop, Limit::Timespec(3, TIMED_OUT)),
    (libc::SYS_semop, Limit::None),
    (libc::SYS_msgrcv, Limit::None),
    (libc::SYS_msgsnd, Limit::None),
    (libc::SYS_io_getevents, Limit::Timespec(4, 0)),
    (libc::SYS_io_uring_enter, Limit::Unknown),
    (libc::SYS_read, Limit::Socket(libc::SO_RCVTIMEO)),
    (libc::SYS_readv, Limit::Socket(libc::SO_RCVTIMEO)),
    (libc::SYS_recvfrom, Limit::Socket(libc::SO_RCVTIMEO)),
    (libc::SYS_recvmsg, Limit::Socket(libc::SO_RCVTIMEO)),
    (libc::SYS_recvmmsg, Limit::Unknown),
    (libc::SYS_write, Limit::Socket(libc::SO_SNDTIMEO)),
    (libc::SYS_writev, Limit::Socket(libc::SO_SNDTIMEO)),
    (libc::SYS_sendto, Limit::Socket(libc::SO_SNDTIMEO)),
    (libc::SYS_sendmsg, Limit::Socket(libc::SO_SNDTIMEO)),
    (libc::SYS_accept, Limit::Socket(libc::SO_RCVTIMEO)),
    (libc::SYS_accept4, Limit::Socket(libc::SO_RCVTIMEO)),
    (libc::SYS_connect, Limit::Socket(libc::SO_SNDTIMEO)),
];

fn limit(number: i64) -> Option<Limit> {
    CALLS.iter().find(|(known, _)| *known == number).map(|(_, limit)| *limit)
}

/// When threads that wait in such calls began to. Read just before the stop.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    since: FxHashMap<i32, Slept>,
}

/// A thread that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slept {
    /// When it fell asleep, `CLOCK_MONOTONIC`.
    since: Duration,
    /// How often it has gone to sleep of its own will.
    times: u64,
}

/// More threads than these are not looked at: it takes a moment for each.
const MAX_WAITING: usize = 64;

impl Waiting {
    pub fn of(dir: &ProcDir) -> Self {
        let mut waiting = Waiting::default();
        for tid in dir.tids().unwrap_or_default() {
            waiting.look_at(dir, tid);
        }
        waiting
    }

    pub fn of_thread(dir: &ProcDir, tid: i32) -> Self {
        let mut waiting = Waiting::default();
        waiting.look_at(dir, tid);
        waiting
    }

    fn look_at(&mut self, dir: &ProcDir, tid: i32) {
        if self.since.len() < MAX_WAITING
            && matches!(limit_now(dir, tid), Some(Limit::Millis(_) | Limit::Timespec(..) | Limit::Socket(_)))
            && let Some(slept) = asleep_since(dir, tid)
        {
            self.since.insert(tid, slept);
        }
    }

    /// Is it known since when that thread waits?
    pub fn knows(&self, tid: i32) -> bool {
        self.since.contains_key(&tid)
    }

    /// How long a thread that has been stopped had waited. `None` where the system does not tell.
    fn waited(&self, dir: &ProcDir, tracee: &Tracee, now: Duration) -> Option<Duration> {
        let times = times(dir, tracee.tid)?;
        // The stop was one more sleep. Any other is another wait, which began since we looked; and so is one
        // that the stop met while it was about to fall asleep.
        let same = self.since.get(&tracee.tid).filter(|slept| tracee.asleep && times <= slept.times + 1);
        Some(same.map_or(Duration::ZERO, |slept| now.saturating_sub(slept.since)))
    }
}

/// When a thread fell asleep: the scheduler notes when one last ran, by the clock of the processor it
/// ran on, which may be seconds apart from that of the next. So we go there and see what time it is.
fn asleep_since(dir: &ProcDir, tid: i32) -> Option<Slept> {
    let stat = dir.text(&format!("task/{tid}/stat")).ok()?;
    let processor = field_of_stat(&stat, 39)?;
    let before = Scheduled::of(&dir.text(&format!("task/{tid}/sched")).ok()?)?;
    let there = on_processor(processor, || {
        let own = std::fs::read_to_string("/proc/thread-self/sched").ok()?;
        Some((Scheduled::of(&own)?.ran, monotonic()))
    })?;
    let (clock, now) = there?;
    Some(Slept { since: now.saturating_sub(clock.saturating_sub(before.ran)), times: before.times })
}

/// Of /proc/PID/task/TID/sched (CONFIG_SCHED_DEBUG).
struct Scheduled {
    ran: Duration,
    times: u64,
}

impl Scheduled {
    fn of(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.rsplit_once(':')?.1.trim())
        };
        // Milliseconds with six decimals.
        let millis: f64 = field("se.exec_start")?.parse().ok()?;
        let ran = Duration::try_from_secs_f64(millis / 1e3).ok()?;
        Some(Scheduled { ran, times: field("nr_voluntary_switches")?.parse().ok()? })
    }
}

fn times(dir: &ProcDir, tid: i32) -> Option<u64> {
    Some(Scheduled::of(&dir.text(&format!("task/{tid}/sched")).ok()?)?.times)
}

/// Runs `there` on one processor; `None` when that is not ours to run on.
fn on_processor<T>(processor: u64, there: impl FnOnce() -> T) -> Option<T> {
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: a set of bits, all zero; the calls read and fill it in, and it lives across them. CPU_SET
    // ignores a number beyond its size.
    unsafe {
        let mut usual: libc::cpu_set_t = std::mem::zeroed();
        let mut one: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(usize::try_from(processor).ok().filter(|&n| n < size * 8)?, &mut one);
        if libc::sched_getaffinity(0, size, &raw mut usual) != 0
            || libc::sched_setaffinity(0, size, &raw const one) != 0
        {
            return None;
        }
        let result = there();
        libc::sched_setaffinity(0, size, &raw const usual);
        Some(result)
    }
}

/// Is the thread in a call that a stop interrupts?
pub(super) fn is_touchy(dir: &ProcDir, tid: i32) -> bool {
    limit_now(dir, tid).is_some()
}

fn limit_now(dir: &ProcDir, tid: i32) -> Option<Limit> {
    // "232 0x3 …" in a call, "running" or "-1 …" elsewhere.
    let text = dir.text(&format!("task/{tid}/syscall")).ok()?;
    limit(text.split_ascii_whitespace().next()?.parse().ok()?)
}

/// One call that was begun anew with all of its time, or all that was left. When that is so twice, a capture every second
/// could hold up a wait of ten seconds for ever; so it is remembered when the first time was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Restarted {
    pub tid: i32,
    pub call: Call,
    pub stack: u64,
    /// `CLOCK_MONOTONIC` when the wait began, and when it was begun anew.
    pub since: Duration,
    pub last: Duration,
    /// How often the thread had gone to sleep of its own will, its stops included, when it was let go.
    pub times: u64,
}

impl Restarted {
    /// Counts the stops of an injection in. Just before the thread is let go.
    pub fn recount(&mut self, dir: &ProcDir) {
        self.times = times(dir, self.tid).unwrap_or(self.times);
    }

    /// Is this still the wait that was begun anew? The thread fell asleep in it and was stopped, no
    /// more. Programs wait in loops: the same call with the same arguments says nothing.
    fn goes_on(&self, tid: i32, call: &Call, stack: u64, times: u64) -> bool {
        (self.tid, &self.call, self.stack) == (tid, call, stack) && times <= self.times + 2
    }
}

/// What to do about an interrupted call.
#[derive(Debug, PartialEq, Eq)]
enum Remedy {
    Restart,
    RestartWith(usize, u64),
    /// It is over: what it would answer.
    Finish(i64),
    /// The program gets its `EINTR`.
    Leave,
}

/// Changes the registers of a stopped thread so that it does not notice. Says whether it did, and
/// what is to be remembered. `earlier` is in order of threads.
pub(super) fn mend(
    registers: &mut [u64],
    (tracee, stack): (&Tracee, u64),
    (dir, mem): (&ProcDir, &File),
    waiting: &Waiting,
    earlier: &[Restarted],
    now: Duration,
) -> (bool, Option<Restarted>) {
    let Some(mut call) = arch::interrupted(registers) else { return (false, None) };
    let Some(limit) = limit(call.number) else { return (false, None) };
    let tid = tracee.tid;
    let waited = || waiting.waited(dir, tracee, now);
    let times =
        dir.text(&format!("task/{tid}/sched")).ok().and_then(|text| Some(Scheduled::of(&text)?.times));
    // Where the system does not count, a wait is taken for the one before: then it ends early.
    let of_thread = &earlier[earlier.partition_point(|old| old.tid < tid)..];
    let of_thread = of_thread.iter().take_while(|old| old.tid == tid);
    let before = of_thread.clone().find(|old| old.goes_on(tid, &call, stack, times.unwrap_or(old.times)));
    let (remedy, since) = match limit {
        Limit::None => (Remedy::Restart, None),
        Limit::Millis(index) if waiting.knows(tid) => {
            (of_millis(index, call.arguments[index], waited()), None)
        }
        Limit::Millis(index) => {
            // What is left was reckoned when it was begun anew.
            let waited = before.map(|old| now.saturating_sub(old.last)).or_else(waited);
            (of_millis(index, call.arguments[index], waited), Some(now))
        }
        Limit::Timespec(index, _) if call.arguments[index] == 0 => (Remedy::Restart, None),
        Limit::Timespec(..) | Limit::Socket(_) => {
            let (limit, answer) = match limit {
                Limit::Timespec(index, answer) => (timespec(mem, call.arguments[index]), answer),
                Limit::Socket(option) => (socket_limit(dir, call.arguments[0], option), TIMED_OUT),
                _ => (None, 0),
            };
            match limit {
                Some(Duration::ZERO) => (Remedy::Restart, None),
                Some(limit) => {
                    // A wait whose own time is over is not interrupted, it ends. So this is the next one.
                    let same = before.filter(|old| now.saturating_sub(old.last) < limit);
                    let waited = || waited().filter(|&waited| waited < limit).unwrap_or_default();
                    let since = same.map_or_else(|| now.saturating_sub(waited()), |old| old.since);
                    match now.saturating_sub(since) >= limit {
                        true => (Remedy::Finish(answer), None),
                        false => (Remedy::Restart, Some(since)),
                    }
                }
                None => (Remedy::Leave, None),
            }
        }
        Limit::Unknown if before.is_some() => (Remedy::Leave, None),
        Limit::Unknown => (Remedy::Restart, Some(now)),
    };
    match remedy {
        Remedy::Leave => return (false, None),
        Remedy::Restart => arch::restart(registers),
        Remedy::RestartWith(index, value) => {
            arch::set_argument(registers, index, value);
            call.arguments[index] = value;
            arch::restart(registers);
        }
        Remedy::Finish(answer) => arch::finish(registers, answer),
    }
    (true, since.map(|since| Restarted { tid, call, stack, since, last: now, times: times.unwrap_or(0) }))
}

/// The rest of a timeout in milliseconds, an `int` to the kernel.
fn of_millis(index: usize, argument: u64, waited: Option<Duration>) -> Remedy {
    let timeout = argument as i32;
    if timeout < 0 {
        return Remedy::Restart;
    }
    match waited {
        None => Remedy::Leave,
        Some(waited) => {
            let timeout = Duration::from_millis(timeout as u64);
            // A wait whose time is over is not interrupted, it ends. So this is the next one. Timers may
            // be late by a little, though.
            let waited = if waited > timeout + Duration::from_millis(2) { Duration::ZERO } else { waited };
            // Rounded up, as the kernel waits at least as long as it is told.
            let rest = timeout.saturating_sub(waited).as_nanos().div_ceil(1_000_000);
            Remedy::RestartWith(index, u64::try_from(rest).unwrap_or(u64::MAX))
        }
    }
}

/// A timeout of one of the target's sockets; zero is none, also where it is no socket at all.
fn socket_limit(dir: &ProcDir, descriptor: u64, option: libc::c_int) -> Option<Duration> {
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    let owned = |fd: libc::c_long| {
        // SAFETY: a descriptor that a system call has just made for this process.
        (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd as i32) })
    };
    // SAFETY: takes integers.
    let process = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, dir.pid, 0) })?;
    // A second descriptor of the same socket: it is only asked, and closed, which nobody notices.
    // SAFETY: takes integers.
    let socket =
        owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), descriptor as i32, 0) })?;
    let mut limit = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let mut size = size_of::<libc::timeval>() as libc::socklen_t;
    // SAFETY: fills in at most `size` bytes of the structure, which lives across the call.
    let asked = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw mut limit).cast(), &raw mut size)
    };
    if asked != 0 {
        let error = std::io::Error::last_os_error().raw_os_error();
        return (error == Some(libc::ENOTSOCK)).then_some(Duration::ZERO);
    }
    Some(Duration::from_secs(limit.tv_sec as u64) + Duration::from_micros(limit.tv_usec as u64))
}

fn timespec(mem: &File, addr: u64) -> Option<Duration> {
    let mut bytes = [0; 16];
    mem.read_exact_at(&mut bytes, addr).ok()?;
    let (seconds, nanos) = bytes.split_at(8);
    let word = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).ok();
    let nanos = word(nanos).filter(|&nanos| nanos < 1_000_000_000)?;
    Some(Duration::new(word(seconds)?, nanos as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_go_on_from_where_they_were() {
        let of = |timeout: i32, waited: Option<u64>| {
            of_millis(3, timeout as u32 as u64, waited.map(Duration::from_micros))
        };
        assert_eq!(of(-1, None), Remedy::Restart);
        assert_eq!(of(5000, Some(1_200_500)), Remedy::RestartWith(3, 3800));
        assert_eq!(of(5000, Some(5_000_100)), Remedy::RestartWith(3, 0));
        // It has ended since, and this is another one.
        assert_eq!(of(5000, Some(5_500_000)), Remedy::RestartWith(3, 5000));
        // Nobody knows since when: a wait that might never end is worse than an EINTR.
        assert_eq!(of(5000, None), Remedy::Leave);
    }

    #[test]
    fn a_timespec_is_read_where_it_is() {
        let spec = [3u64, 500_000_000];
        let bad = [3u64, 1_000_000_000];
        let mem = File::open("/proc/self/mem").unwrap();
        assert_eq!(timespec(&mem, spec.as_ptr() as u64), Some(Duration::from_millis(3500)));
        assert_eq!(timespec(&mem, bad.as_ptr() as u64), None);
        assert_eq!(timespec(&mem, 16), None);
    }
}
