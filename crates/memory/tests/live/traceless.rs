//! What a clone must leave behind: nothing.

use super::super::{picture, start, status};
use std::process::Command;
use std::time::{Duration, Instant};
use wmr_memory::Method;
use wmr_memory::live::{AttachError, Capturing, LiveOptions, Lost, attach};

/// Waits in one sort of system call again and again, until told to stop; counts what it was not asked
/// for: EINTR, early or false answers, SIGCHLD too many.
pub const WAITS: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
static volatile int chlds;
static void on_chld(int signal) { chlds++; }
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1e3 + t.tv_nsec / 1e6; }
int main(int argc, char **argv) {
    const char *mode = argv[1];
    int wait = atoi(argv[2]), once = argc > 3;
    long rounds = 0, interrupted = 0, wrong = 0, early = 0, forked = 0;
    struct pollfd input = {.fd = 0, .events = POLLIN};
    struct timespec limit = {wait / 1000, wait % 1000 * 1000000L};
    struct timeval tv = {wait / 1000, wait % 1000 * 1000};
    int epoll = epoll_create1(0), pair[2], sem = semget(IPC_PRIVATE, 1, 0600);
    sigset_t set;
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    if (!strcmp(mode, "sigtimedwait") || !strcmp(mode, "epoll_pwait")) sigprocmask(SIG_BLOCK, &set, 0);
    if (!strcmp(mode, "wait")) {
        struct sigaction action = {.sa_handler = on_chld, .sa_flags = SA_RESTART};
        sigaction(SIGCHLD, &action, 0);
    }
    printf("ready %d\n", getpid());
    fflush(stdout);
    while (once ? rounds == 0 : poll(&input, 1, 0) == 0) {
        double began = now();
        int result = -1, expected = -1, reason = EAGAIN;
        struct epoll_event event;
        char byte;
        errno = 0;
        if (!strcmp(mode, "epoll")) { result = epoll_wait(epoll, &event, 1, wait); expected = 0; reason = 0; }
        if (!strcmp(mode, "epoll_pwait")) { result = epoll_pwait(epoll, &event, 1, wait, &set); expected = 0; reason = 0; }
        if (!strcmp(mode, "sigtimedwait")) result = sigtimedwait(&set, 0, &limit);
        if (!strcmp(mode, "recv")) result = recv(pair[0], &byte, 1, 0);
        if (!strcmp(mode, "sem")) {
            struct sembuf take = {0, -1, 0};
            result = semtimedop(sem, &take, 1, &limit);
        }
        if (!strcmp(mode, "poll")) { result = poll(0, 0, wait); expected = 0; reason = 0; }
        if (!strcmp(mode, "nanosleep")) { result = nanosleep(&limit, 0); expected = 0; reason = 0; }
        if (!strcmp(mode, "wait")) {
            int status = 0;
            pid_t child = fork();
            if (!child) _exit(7);
            forked++;
            result = waitpid(-1, &status, 0);
            if (result != child || !WIFEXITED(status) || WEXITSTATUS(status) != 7) wrong++;
            if (waitpid(-1, 0, 0) != -1 || errno != ECHILD) wrong++;
            result = expected = 0; reason = errno;
            began = -1e9;
        }
        if (result == -1 && errno == EINTR) interrupted++;
        else if (result != expected || errno != reason) wrong++;
        if (now() - began < wait) early++;
        rounds++;
    }
    semctl(sem, 0, IPC_RMID);
    // An exit that was caught while another handler ran is told by no second signal.
    if (chlds > forked) wrong++;
    printf("rounds %ld interrupted %ld wrong %ld early %ld\n", rounds, interrupted, wrong, early);
    fflush(stdout);
    pause();
}
"#;

/// The four numbers of what it says at the end.
pub fn verdict(line: &str) -> [u64; 4] {
    let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    numbers.try_into().unwrap_or_else(|_| panic!("{line}"))
}

pub fn children(pid: i32) -> Vec<i32> {
    let mut all = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        all.extend(text.split_ascii_whitespace().filter_map(|word| word.parse::<i32>().ok()));
    }
    all
}

pub fn no_children_left(pid: i32) {
    let began = Instant::now();
    while !children(pid).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(20), "{:?} are left", children(pid));
        std::thread::yield_now();
    }
}

#[test]
fn a_stop_that_is_given_up_interrupts_nothing() {
    for capture in [Capturing::Clone, Capturing::Stop] {
        given_up(capture);
    }
}

fn given_up(capture: Capturing) {
    // Threads that do not stop at once are late.
    let hasty = LiveOptions {
        capture,
        stop_budget: Duration::ZERO,
        stop_patience: Duration::ZERO,
        ..LiveOptions::default()
    };
    let mut given_up = 0;
    for mode in ["epoll", "sigtimedwait", "recv", "sem"] {
        let mut target = start(WAITS, &[mode, "3"]);
        let pid = target.pid();
        for _ in 0..300 {
            match attach(pid, &hasty) {
                Ok(_) => {}
                Err(AttachError::NotStopped(_)) => given_up += 1,
                // By the helper of the try before.
                Err(AttachError::Traced { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        target.send("stop").unwrap();
        let [rounds, interrupted, wrong, early] = verdict(&target.line().unwrap());
        assert_eq!((interrupted, wrong, early), (0, 0, 0), "{mode}");
        assert!(rounds > 0, "{mode}");
    }
    assert!(given_up > 0);
}

/// Neither inspectors and their helpers, which begin as forks of them and may be about to attach when the
/// inspector is killed, nor clones.
pub fn no_helpers_left(pid: i32) {
    let began = Instant::now();
    loop {
        let left = (inspectors(pid), tracer(pid), children(pid));
        if left.0.is_empty() && left.1 == 0 && !left.2.iter().any(|&child| tracer(child) != 0) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{left:?} are left");
        std::thread::yield_now();
    }
}

/// Processes that were told to inspect this one. Those that have ended have no environment.
fn inspectors(pid: i32) -> Vec<i32> {
    let told = format!("WMR_INSPECT={pid}");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    let is_told = |other: &i32| {
        let variables = std::fs::read(format!("/proc/{other}/environ")).unwrap_or_default();
        variables.split(|byte| *byte == 0).any(|variable| variable == told.as_bytes())
    };
    pids.filter(is_told).collect()
}

#[test]
fn two_hundred_clones_interrupt_nothing() {
    two_hundred(Capturing::Clone, Method::Clone);
}

#[test]
fn two_hundred_copies_interrupt_nothing() {
    two_hundred(Capturing::Stop, Method::Stop);
}

fn two_hundred(capture: Capturing, method: Method) {
    let options = LiveOptions { capture, ..LiveOptions::default() };
    for (mode, wait) in [
        ("epoll", "7"),
        ("epoll_pwait", "7"),
        ("sigtimedwait", "7"),
        ("recv", "7"),
        ("sem", "7"),
        ("poll", "7"),
        ("nanosleep", "7"),
        ("wait", "0"),
    ] {
        let mut target = start(WAITS, &[mode, wait]);
        let pid = target.pid();
        // sigtimedwait unblocks what it waits for while it waits.
        let masks = if mode == "sigtimedwait" { "SigIgn" } else { "SigBlk" };
        let state = || [status(pid, masks), status(pid, "SigCgt"), status(pid, "Seccomp")];
        let before = state();
        let fds = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        let maps = || std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let (open, mapped) = (fds(), maps());
        for _ in 0..200 {
            let picture = attach(pid, &options).unwrap();
            assert_eq!(picture.capture.method, method, "{:?}", picture.notes);
        }
        target.send("stop").unwrap();
        let [rounds, interrupted, wrong, early] = verdict(&target.line().unwrap());
        assert_eq!((interrupted, wrong, early), (0, 0, 0), "{mode}");
        assert!(rounds > 0, "{mode}");
        assert_eq!((state(), fds(), children(pid)), (before, open, vec![]), "{mode}");
        assert_eq!((status(pid, "TracerPid").as_str(), maps()), ("0", mapped), "{mode}");
    }
}

#[test]
fn a_wait_ends_however_often_it_is_captured() {
    for mode in ["epoll", "sigtimedwait", "recv", "poll"] {
        let target = start(WAITS, &[mode, "800", "once"]);
        let pid = target.pid();
        let began = Instant::now();
        let mut ways = [Capturing::Clone, Capturing::Stop].into_iter().cycle();
        let said = loop {
            if let Some(line) = target.line_so_far().unwrap() {
                break line;
            }
            // Fifty captures in the time of one wait: one that began anew each time would not end.
            assert!(began.elapsed() < Duration::from_secs(12), "{mode} never ends");
            attach(pid, &LiveOptions { capture: ways.next().unwrap(), ..LiveOptions::default() }).unwrap();
            std::thread::sleep(Duration::from_millis(10));
        };
        let [_, interrupted, wrong, early] = verdict(&said);
        assert_eq!((interrupted, wrong, early), (0, 0, 0), "{mode}");
    }
}

/// Three hundred threads that wait for a while each, and say how long the longest did.
const MANY_WAIT: &str = r#"
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>
enum { THREADS = 300, WAIT = 700 };
static pthread_barrier_t all;
static double longest[THREADS];
static int wrong[THREADS];
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1e3 + t.tv_nsec / 1e6; }
static void *waits(void *at) {
    long i = (long)at;
    struct epoll_event event;
    int epoll = epoll_create1(0);
    pthread_barrier_wait(&all);
    double began = now();
    wrong[i] = epoll_wait(epoll, &event, 1, WAIT) != 0;
    longest[i] = now() - began;
    wrong[i] |= longest[i] < WAIT;
    return 0;
}
int main(void) {
    pthread_t threads[THREADS];
    pthread_barrier_init(&all, 0, THREADS + 1);
    for (long i = 0; i < THREADS; i++) pthread_create(&threads[i], 0, waits, (void *)i);
    printf("ready %d\n", getpid());
    fflush(stdout);
    pthread_barrier_wait(&all);
    double most = 0;
    int bad = 0;
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], 0);
        if (longest[i] > most) most = longest[i];
        bad += wrong[i];
    }
    printf("longest %.0f wrong %d\n", most, bad);
    fflush(stdout);
    pause();
}
"#;

#[test]
fn waits_of_many_threads_end_however_often_they_are_captured() {
    let target = start(MANY_WAIT, &[]);
    let began = Instant::now();
    let options = LiveOptions { max_pause: None, ..LiveOptions::default() };
    let said = loop {
        if let Some(line) = target.line_so_far().unwrap() {
            break line;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "they never end");
        attach(target.pid(), &options).unwrap();
        std::thread::sleep(Duration::from_millis(10));
    };
    let [longest, wrong] = said.split(' ').filter_map(|word| word.parse().ok()).collect::<Vec<u64>>()[..]
    else {
        panic!("{said}")
    };
    // If some began anew until others had ended, that were four waits one after the other.
    assert!(wrong == 0 && (700..2100).contains(&longest), "{said}");
}

#[test]
fn the_next_run_clears_away_what_a_killed_helper_left() {
    let target = start(WAITS, &["poll", "5"]);
    let first = picture(target.pid());
    let helper = children(std::process::id() as i32).into_iter().find(|pid| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name == "wmr-clone\n" && children(target.pid()).iter().any(|&child| tracer(child) == *pid)
    });
    assert!(Command::new("kill").args(["-KILL", &helper.unwrap().to_string()]).status().unwrap().success());
    assert_eq!(first.memory.finish(), Err(Lost::Killed));
    // Its end killed the clone, and nobody has collected it.
    let left = children(target.pid());
    assert_eq!(left.len(), 1);
    while !status(left[0], "State").starts_with('Z') {
        std::thread::yield_now();
    }
    drop(picture(target.pid()));
    no_children_left(target.pid());
}

fn tracer(pid: i32) -> i32 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    line.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

#[test]
fn registers_and_masks_are_put_back() {
    // Spins on a value in every general register it can, with a signal mask of its own.
    let mut target = start(
        r#"
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>
int main(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, 0);
    printf("ready %d\n", getpid());
    fflush(stdout);
    volatile double one = 1.0;
    double sum = 0;
    uint64_t a = 1, b = 2, c = 3, d = 4, e = 5, f = 6;
    for (int i = 0; i < 200000000; i++) {
        a += b; b ^= c; c += d; d ^= e; e += f; f ^= a;
        sum += one;
    }
    printf("%lx %.0f\n", a ^ b ^ c ^ d ^ e ^ f, sum);
    fflush(stdout);
    getchar();
}
"#,
        &[],
    );
    let mut model = [1u64, 2, 3, 4, 5, 6];
    let mut captures = 0;
    std::thread::scope(|scope| {
        let expected = scope.spawn(move || {
            for _ in 0..200_000_000 {
                let [a, b, c, d, e, f] = &mut model;
                *a = a.wrapping_add(*b);
                *b ^= *c;
                *c = c.wrapping_add(*d);
                *d ^= *e;
                *e = e.wrapping_add(*f);
                *f ^= *a;
            }
            model.iter().fold(0, |x, y| x ^ y)
        });
        let said = loop {
            if let Some(line) = target.line_so_far().unwrap() {
                break line;
            }
            assert_eq!(status(target.pid(), "SigBlk"), "0000000000000200");
            picture(target.pid());
            captures += 1;
        };
        let expected = format!("{:x} 200000000", expected.join().unwrap());
        assert_eq!(said, expected);
    });
    assert!(captures > 0 && target.is_running().unwrap());
}

#[test]
fn the_limit_of_the_pause_is_kept() {
    let target = start(WAITS, &["poll", "5"]);
    for capture in [Capturing::Clone, Capturing::Stop] {
        let options =
            LiveOptions { capture, max_pause: Some(Duration::from_micros(10)), ..LiveOptions::default() };
        match attach(target.pid(), &options) {
            Err(AttachError::TooLong { predicted, limit, .. }) => assert!(predicted > limit),
            other => panic!("{:?}", other.map(|picture| picture.capture)),
        }
    }
}
