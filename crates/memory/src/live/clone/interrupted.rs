//! System calls that a stop makes return `EINTR` although no signal came (signal(7), the list at its
//! end). Python repeats such calls (PEP 475), C programs often do not; so they are begun anew, and
//! still end when they would have.

use super::{Call, arch};
use crate::live::procdir::ProcDir;
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
    /// Set elsewhere (`SO_RCVTIMEO`), or nowhere.
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
    (libc::SYS_read, Limit::Unknown),
    (libc::SYS_readv, Limit::Unknown),
    (libc::SYS_recvfrom, Limit::Unknown),
    (libc::SYS_recvmsg, Limit::Unknown),
    (libc::SYS_recvmmsg, Limit::Unknown),
    (libc::SYS_write, Limit::Unknown),
    (libc::SYS_writev, Limit::Unknown),
    (libc::SYS_sendto, Limit::Unknown),
    (libc::SYS_sendmsg, Limit::Unknown),
    (libc::SYS_accept, Limit::Unknown),
    (libc::SYS_accept4, Limit::Unknown),
    (libc::SYS_connect, Limit::Unknown),
];

fn limit(number: i64) -> Option<Limit> {
    CALLS.iter().find(|(known, _)| *known == number).map(|(_, limit)| *limit)
}

/// When threads that wait in such calls last ran, by the scheduler's clock: that is when they began to
/// wait. Read ahead of the stop.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    since: FxHashMap<i32, Duration>,
}

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
        if matches!(limit_now(dir, tid), Some(Limit::Millis(_) | Limit::Timespec(..)))
            && let Some(ran) = last_ran(dir, tid)
        {
            self.since.insert(tid, ran);
        }
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

/// `se.exec_start` of /proc/PID/task/TID/sched, milliseconds with six decimals. It is the clock of a
/// processor: only good to be compared with the same thread's a moment later.
fn last_ran(dir: &ProcDir, tid: i32) -> Option<Duration> {
    let text = dir.text(&format!("task/{tid}/sched")).ok()?;
    let line = text.lines().find(|line| line.starts_with("se.exec_start"))?;
    let millis: f64 = line.rsplit_once(':')?.1.trim().parse().ok()?;
    Duration::try_from_secs_f64(millis / 1e3).ok()
}

/// One call that was begun anew with all of its time. When that is so twice, a capture every second
/// could hold up a wait of ten seconds for ever; so it is remembered when the first time was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Restarted {
    pub tid: i32,
    pub call: Call,
    pub stack: u64,
    /// `CLOCK_MONOTONIC` when the wait began.
    pub since: Duration,
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
/// what is to be remembered.
pub(super) fn mend(
    registers: &mut [u64],
    (tid, stack): (i32, u64),
    (dir, mem): (&ProcDir, &File),
    waiting: &Waiting,
    earlier: &[Restarted],
    now: Duration,
) -> (bool, Option<Restarted>) {
    let Some(call) = arch::interrupted(registers) else { return (false, None) };
    let Some(limit) = limit(call.number) else { return (false, None) };
    let waited = || {
        let began = *waiting.since.get(&tid)?;
        Some(last_ran(dir, tid)?.saturating_sub(began))
    };
    let before = earlier.iter().find(|old| (old.tid, &old.call, old.stack) == (tid, &call, stack));
    let (remedy, since) = match limit {
        Limit::None => (Remedy::Restart, None),
        Limit::Millis(index) => (of_millis(index, call.arguments[index], waited()), None),
        Limit::Timespec(index, _) if call.arguments[index] == 0 => (Remedy::Restart, None),
        Limit::Timespec(index, answer) => {
            let since = before.map_or(now.saturating_sub(waited().unwrap_or_default()), |old| old.since);
            match timespec(mem, call.arguments[index]) {
                Some(limit) if now.saturating_sub(since) >= limit => (Remedy::Finish(answer), None),
                Some(_) => (Remedy::Restart, Some(since)),
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
            arch::restart(registers);
        }
        Remedy::Finish(answer) => arch::finish(registers, answer),
    }
    (true, since.map(|since| Restarted { tid, call, stack, since }))
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
            // Rounded up, as the kernel waits at least as long as it is told.
            let rest = Duration::from_millis(timeout as u64).saturating_sub(waited);
            match u64::try_from(rest.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX) {
                0 => Remedy::Finish(0),
                rest => Remedy::RestartWith(index, rest),
            }
        }
    }
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
        assert_eq!(of(5000, Some(5_000_000)), Remedy::Finish(0));
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
