//! Out of the target's way: it is at work while we look.
//!
//! What takes a processor from it costs it as much as a pause does, and one tick of the kernel's clock (4 ms at
//! 250 Hz) is longer than the stop of a process with huge pages. So nothing of ours runs where its threads do, as
//! far as there are other processors, and what is worked out in parallel gives way to it on all of them.

use std::mem::{size_of, zeroed};
use std::sync::OnceLock;
use wmr_memory::live::busy_processors;

/// Keeps off the processors on which the threads of `pid` that have work to do are now; if there are no others,
/// it stays as it was. What is captured next is so from the start: the helper that stops the target inherits it.
pub fn leave_to(pid: i32) {
    static OURS: OnceLock<libc::cpu_set_t> = OnceLock::new();
    let ours = OURS.get_or_init(allowed);
    let mut rest = *ours;
    for processor in busy_processors(pid) {
        if processor < libc::CPU_SETSIZE as usize {
            // SAFETY: within the set.
            unsafe { libc::CPU_CLR(processor, &mut rest) };
        }
    }
    // SAFETY: reads a set.
    let none = unsafe { libc::CPU_COUNT(&rest) } == 0;
    keep_to(if none { ours } else { &rest });
}

/// The processors this thread may use.
fn allowed() -> libc::cpu_set_t {
    // SAFETY: a set of bits, of which none may be set; the call fills it as far as it is long.
    unsafe {
        let mut set: libc::cpu_set_t = zeroed();
        libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set);
        set
    }
}

/// For all threads there are; those to come inherit it.
fn keep_to(processors: &libc::cpu_set_t) {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    for tid in threads.filter_map(|thread| thread.file_name().to_str()?.parse().ok()) {
        // SAFETY: reads the set. Refused, or none of them there any more, the thread goes where it went.
        unsafe { libc::sched_setaffinity(tid, size_of::<libc::cpu_set_t>(), processors) };
    }
}

/// Has the threads of the pool give way where they meet the target all the same: on two processors half of the time
/// a capture cost it was waiting for ours. What stops it is another process's, and is not made slower. There are
/// as many threads as there are processors left when this is first called.
pub fn give_way() {
    const NICE: libc::c_int = 10;
    let aside = |_| {
        // SAFETY: takes integers; on Linux it is the calling thread's alone. Refused, it stays as it was.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
    };
    // Fails only where the threads are there already.
    let _ = rayon::ThreadPoolBuilder::new().start_handler(aside).build_global();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};

    fn count(set: &libc::cpu_set_t) -> i32 {
        // SAFETY: reads a set.
        unsafe { libc::CPU_COUNT(set) }
    }

    #[test]
    fn a_busy_process_keeps_its_processor_and_one_that_waits_takes_none_from_us() {
        let before = count(&allowed());
        let mut busy = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        while busy_processors(busy.id() as i32).is_empty() {}
        leave_to(busy.id() as i32);
        let left = count(&allowed());
        busy.kill().unwrap();
        busy.wait().unwrap();
        assert_eq!(left, (before - 1).max(1));

        let mut cat = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        cat.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        cat.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        while !busy_processors(cat.id() as i32).is_empty() {}
        leave_to(cat.id() as i32);
        cat.kill().unwrap();
        cat.wait().unwrap();
        assert_eq!(count(&allowed()), before);
    }
}
