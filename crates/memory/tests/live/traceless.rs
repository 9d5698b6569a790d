//! What a clone must leave behind: nothing.

use super::super::{picture, program, start, status};
use std::process::Command;
use std::time::{Duration, Instant};
use wmr_memory::Method;
use wmr_memory::live::{AttachError, Capturing, LiveOptions, Lost, attach};
use wmr_testing::Target;

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

fn children(pid: i32) -> Vec<i32> {
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

/// Holds memory that no clone has, and says where.
const APART: &str = r#"
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif
int main(void) {
    size_t size = 64 * 4096;
    char *kept = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *wiped = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    madvise(kept, size, MADV_DONTFORK);
    madvise(wiped, size, MADV_WIPEONFORK);
    memset(kept + 4096, 'k', 8 * 4096);
    memset(wiped + 8192, 'w', 8 * 4096);
    printf("%p %p\nready %d\n", kept, wiped, getpid());
    fflush(stdout);
    getchar();
}
"#;

#[test]
fn memory_kept_out_of_clones_is_there() {
    let target = start(APART, &[]);
    let places: Vec<u64> = target.truth()[0]
        .split(' ')
        .map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).unwrap())
        .collect();
    let picture = picture(target.pid());
    assert_eq!(picture.capture.method, Method::Clone);
    for (start, first, letter) in [(places[0], 1, b'k'), (places[1], 2, b'w')] {
        let mut bytes = vec![1; 64 * 4096];
        picture.memory.read(start, &mut bytes).unwrap();
        let expected = |page: usize| if (first..first + 8).contains(&page) { letter } else { 0 };
        assert!(bytes.iter().enumerate().all(|(at, &byte)| byte == expected(at / 4096)));
        let mapping = picture.mapping(start).unwrap();
        let charge = mapping.residency.charge(start..start + 64 * 4096);
        assert_eq!(charge.total(), 8 * 4096);
    }
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

/// Has filters that answer clone and wait4 by an error, or by death.
const FILTERED: &str = r#"
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int argc, char **argv) {
    unsigned answer = argv[1][0] == 'k' ? SECCOMP_RET_KILL_PROCESS : SECCOMP_RET_ERRNO | 1;
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_wait4, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, answer),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {5, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) return 1;
    printf("ready %d\n", getpid());
    fflush(stdout);
    while (getchar() == 'x') { getchar(); printf("alive\n"); fflush(stdout); }
}
"#;

#[test]
fn filters_neither_see_the_clone_nor_kill_for_it() {
    for answer in ["kill", "errno"] {
        let mut target = start(FILTERED, &[answer]);
        for _ in 0..20 {
            // Root may set filters aside; others get a copy and are told why.
            let picture = picture(target.pid());
            let cloned = picture.capture.method == Method::Clone;
            assert!(cloned || picture.notes.iter().any(|note| note.contains("system call filters")));
        }
        assert_eq!(status(target.pid(), "Seccomp"), "2");
        target.send("x").unwrap();
        assert_eq!(target.line().unwrap(), "alive");
        assert!(children(target.pid()).is_empty());
    }
}

#[test]
fn a_thousand_threads() {
    let mut target = start(
        r#"
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
static pthread_barrier_t all;
static void *wait_here(void *unused) { pthread_barrier_wait(&all); pause(); return 0; }
int main(void) {
    pthread_attr_t small;
    pthread_t thread;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 65536);
    pthread_barrier_init(&all, 0, 1001);
    for (int i = 0; i < 1000; i++) if (pthread_create(&thread, &small, wait_here, 0)) return 1;
    pthread_barrier_wait(&all);
    printf("ready %d\n", getpid());
    fflush(stdout);
    while (getchar() == 'x') { getchar(); printf("alive\n"); fflush(stdout); }
}
"#,
        &[],
    );
    let options = LiveOptions { max_pause: None, ..LiveOptions::default() };
    let picture = attach(target.pid(), &options).unwrap();
    assert_eq!((picture.capture.method, picture.threads.len()), (Method::Clone, 1001));
    assert!(picture.threads.iter().all(|thread| thread.sp != 0 && thread.regs.len() >= 27));
    drop(picture);
    target.send("x").unwrap();
    assert_eq!((target.line().unwrap().as_str(), children(target.pid())), ("alive", vec![]));
}

/// Executes itself again and again, as another program would be executed.
const CHANGES: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv) {
    int round = atoi(argv[1]);
    char next[20], *args[] = {argv[0], next, 0};
    if (round == 0) { printf("ready %d\n", getpid()); fflush(stdout); getchar(); getchar(); }
    usleep(300);
    if (round == 3000) { printf("done\n"); fflush(stdout); getchar(); return 0; }
    sprintf(next, "%d", round + 1);
    execv("/proc/self/exe", args);
}
"#;

#[test]
fn a_program_that_becomes_another_one_meanwhile() {
    let mut target = start(CHANGES, &["0"]);
    let pid = target.pid();
    target.send("x").unwrap();
    let mut seen = 0;
    let said = loop {
        if let Some(line) = target.line_so_far().unwrap() {
            break line;
        }
        match attach(pid, &LiveOptions::default()) {
            Ok(_) => seen += 1,
            // The address space that was opened has ended; or it was stopped between two.
            Err(AttachError::Vanished { .. } | AttachError::System { .. }) => {}
            Err(AttachError::Traced { .. } | AttachError::NotStopped(_)) => {}
            Err(error) => panic!("{error:?}"),
        }
    };
    assert_eq!(said, "done");
    assert!(seen > 0);
    no_children_left(pid);
}

#[test]
fn a_program_that_ends_meanwhile() {
    for round in 0..60 {
        let mut command = program(WAITS);
        command.args(["poll", &(round % 8).to_string(), "once"]);
        let target = Target::start(command).unwrap();
        let pid = target.pid();
        std::thread::scope(|scope| {
            let looked = scope.spawn(move || attach(pid, &LiveOptions::default()).map(|p| p.memory.finish()));
            let killed = Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
            assert!(killed.success());
            match looked.join().unwrap() {
                Ok(_) | Err(AttachError::Vanished { .. } | AttachError::Zombie { .. }) => {}
                Err(AttachError::System { .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
        });
    }
}

#[test]
fn the_first_process_of_a_pid_namespace() {
    let built = program(WAITS);
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child"]).arg(built.get_program()).args(["poll", "5"]);
    let Ok(mut target) = Target::start(command) else {
        println!("no right to make a namespace: nothing tested");
        return;
    };
    // It says 1; here it has another number.
    let inner = |pid: &i32| status(*pid, "NSpid").ends_with("\t1") && status(*pid, "Name") == "program";
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let pid = pids.find(|pid| std::panic::catch_unwind(|| inner(pid)).unwrap_or(false)).unwrap();
    for _ in 0..50 {
        assert_eq!(picture(pid).capture.method, Method::Clone);
    }
    assert!(children(pid).is_empty());
    target.send("stop").unwrap();
    let [rounds, interrupted, wrong, early] = verdict(&target.line().unwrap());
    assert_eq!((interrupted, wrong, early), (0, 0, 0));
    assert!(rounds > 0);
}

/// Registers 512 MB with io_uring: they are pinned.
const PINNED: &str = r#"
#define _GNU_SOURCE
#include <linux/io_uring.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
int main(void) {
    struct io_uring_params params = {0};
    int ring = syscall(SYS_io_uring_setup, 4, &params);
    size_t size = 512u << 20;
    char *block = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(block, 1, size);
    struct iovec all = {block, size};
    int pinned = ring >= 0 && !syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &all, 1);
    printf("%s\nready %d\n", pinned ? "pinned" : "refused", getpid());
    fflush(stdout);
    getchar();
}
"#;

#[test]
fn pinned_memory_is_told_before_it_is_copied() {
    let target = start(PINNED, &[]);
    if target.truth()[0] != "pinned" {
        println!("no io_uring here: nothing tested");
        return;
    }
    match attach(target.pid(), &LiveOptions::default()) {
        Err(AttachError::TooLong { predicted, burden, .. }) => {
            assert!(burden.pinned >= 512 << 20, "{burden:?}");
            assert!(predicted > Duration::from_millis(100));
        }
        Err(error) => panic!("{error:?}"),
        Ok(picture) => panic!("was stopped for {:?}", picture.capture.pause),
    }
    assert!(children(target.pid()).is_empty());
}

#[test]
fn a_cgroup_with_little_room_gets_no_clone() {
    let folder = std::path::PathBuf::from(format!("/sys/fs/cgroup/memory/wmr-test-{}", std::process::id()));
    if std::fs::create_dir(&folder).is_err() || !folder.join("memory.limit_in_bytes").exists() {
        let _ = std::fs::remove_dir(&folder);
        println!("no memory cgroup to be had: nothing tested");
        return;
    }
    let target = start(WAITS, &["poll", "5"]);
    let write = |name: &str, text: String| std::fs::write(folder.join(name), text).unwrap();
    write("memory.limit_in_bytes", (20 << 20).to_string());
    write("cgroup.procs", target.pid().to_string());
    let picture = picture(target.pid());
    assert_eq!(picture.capture.method, Method::Stop);
    assert!(picture.notes.iter().any(|note| note.contains("memory cgroup")), "{:?}", picture.notes);
    write("memory.limit_in_bytes", (1 << 30).to_string());
    assert_eq!(super::super::picture(target.pid()).capture.method, Method::Clone);
    std::fs::write("/sys/fs/cgroup/memory/cgroup.procs", target.pid().to_string()).unwrap();
    let _ = std::fs::remove_dir(&folder);
}

/// Takes a MiB for each line it is sent.
const GROWS: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(void) {
    char line[16];
    printf("ready %d\n", getpid());
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        memset(malloc(1 << 20), 1, 1 << 20);
        printf("grown\n");
        fflush(stdout);
    }
}
"#;

#[test]
fn a_clone_goes_when_its_target_needs_the_room() {
    let folder = std::path::PathBuf::from(format!("/sys/fs/cgroup/memory/wmr-room-{}", std::process::id()));
    if std::fs::create_dir(&folder).is_err() || !folder.join("memory.limit_in_bytes").exists() {
        let _ = std::fs::remove_dir(&folder);
        println!("no memory cgroup to be had: nothing tested");
        return;
    }
    let mut target = start(GROWS, &[]);
    std::fs::write(folder.join("memory.limit_in_bytes"), (64 << 20).to_string()).unwrap();
    std::fs::write(folder.join("cgroup.procs"), target.pid().to_string()).unwrap();
    let picture = picture(target.pid());
    assert_eq!(picture.capture.method, Method::Clone);
    // Up to 8 MiB below the limit: the clone is given up long before the system would kill anybody.
    for _ in 0..56 {
        target.send("more").unwrap();
        assert_eq!(target.line().unwrap(), "grown");
    }
    no_children_left(target.pid());
    assert_eq!(picture.memory.finish(), Err(Lost::NoRoom));
    assert!(target.is_running().unwrap());
    std::fs::write("/sys/fs/cgroup/memory/cgroup.procs", target.pid().to_string()).unwrap();
    let _ = std::fs::remove_dir(&folder);
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
