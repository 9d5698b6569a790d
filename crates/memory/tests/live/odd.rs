//! Targets unlike others: memory that no clone has, filters, a thousand threads, other programs in the same process,
//! namespaces, pinned memory, cgroups with little room.

use super::super::{picture, program, start, status};
use super::traceless::{WAITS, children, no_children_left, verdict};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use wmr_memory::live::{AttachError, Capturing, LiveOptions, Lost, attach};
use wmr_memory::{Mapping, Method};
use wmr_testing::Target;

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

/// Executes itself again and again, as another program would be executed: mostly at once, so that captures are
/// broken into; every fiftieth of them lives long enough to be captured.
const CHANGES: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv) {
    int round = atoi(argv[1]);
    char next[20], *args[] = {argv[0], next, 0};
    if (round == 0) { printf("ready %d\n", getpid()); fflush(stdout); getchar(); getchar(); }
    usleep(round % 50 ? 300 : 30000);
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
    let (mut seen, mut broken) = (0, 0);
    let said = loop {
        if let Some(line) = target.line_so_far().unwrap() {
            break line;
        }
        let options = [Capturing::Clone, Capturing::Stop][seen % 2];
        match attach(pid, &LiveOptions { capture: options, ..LiveOptions::default() }) {
            Ok(picture) => {
                shows_one_program(&picture);
                seen += 1;
            }
            // The address space that was opened has ended; or it was stopped between two.
            Err(AttachError::Replaced { .. } | AttachError::System { .. }) => broken += 1,
            Err(AttachError::Traced { .. } | AttachError::NotStopped(_)) => broken += 1,
            Err(error) => panic!("{error:?}"),
        }
    };
    assert_eq!(said, "done");
    assert!(seen > 0, "{seen} captured, {broken} broken into");
    assert_eq!(picture(pid).capture.method, Method::Clone);
    no_children_left(pid);
}

/// The memory, the mappings and what the system says are of the same program.
fn shows_one_program(picture: &wmr_memory::Target) {
    let program = |m: &&Mapping| m.offset == 0 && m.name.ends_with(b"/program");
    let first = picture.mappings.iter().find(program).expect("the program's own mapping");
    let mut magic = [0; 4];
    picture.memory.read(first.start, &mut magic).unwrap();
    assert_eq!(&magic, b"\x7fELF", "{:?} {:?}", picture.capture, picture.notes);
    // AT_PHDR: its program headers, in memory.
    const AT_PHDR: u64 = 3;
    let words: Vec<u64> =
        picture.process.auxv.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    let phdr = words.chunks(2).find(|pair| pair[0] == AT_PHDR).expect("AT_PHDR")[1];
    assert!((first.start..first.end).contains(&phdr), "{phdr:#x} in {:#x}", first.start);
}

/// Children that have the parent's memory, as after vfork, execute the program: what was opened lives on without them.
const SHARES: &str = r#"
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
static char stack[1 << 16];
static char *args[] = {"program", "child", 0};
static int child(void *pause) {
    usleep(*(int *)pause);
    execv("/proc/self/exe", args);
    return 1;
}
int main(int argc, char **argv) {
    if (argc > 1) { usleep(10000); return 7; }
    printf("ready %d\n", getpid()); fflush(stdout); getchar();
    for (int round = 0; round < 200; round++) {
        int status, pause = round % 40 * 500;
        int pid = clone(child, stack + sizeof stack, CLONE_VM | SIGCHLD, &pause);
        printf("%d\n", pid); fflush(stdout);
        while (waitpid(pid, &status, 0) != pid) { }
        printf("%d\n", status); fflush(stdout);
    }
    printf("done\n"); fflush(stdout); getchar();
}
"#;

#[test]
fn a_child_that_leaves_the_memory_it_shares() {
    let mut target = start(SHARES, &[]);
    target.send("x").unwrap();
    let (mut before, mut after) = (0, 0);
    loop {
        let said = target.line().unwrap();
        let Ok(pid) = said.parse() else { break assert_eq!(said, "done") };
        let status = loop {
            match attach(pid, &LiveOptions::default()) {
                Ok(picture) => {
                    shows_one_program(&picture);
                    match picture.process.cmdline.len() {
                        1 => before += 1,
                        _ => after += 1,
                    }
                }
                // Its parent has collected it.
                Err(AttachError::NoSuchProcess { .. }) => break target.line().unwrap(),
                Err(AttachError::Replaced { .. } | AttachError::Vanished { .. }) => {}
                Err(AttachError::System { .. } | AttachError::Zombie { .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
        };
        assert_eq!(status, (7 << 8).to_string(), "its wait status");
    }
    assert!(before > 0 && after > 0, "{before} pictures before it left, {after} after");
    no_children_left(target.pid());
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

/// A memory cgroup of its own for a process, which leaves it before it goes.
struct Group {
    folder: PathBuf,
    pid: i32,
}

impl Group {
    /// `None` where there is no such hierarchy, or no right to it.
    fn around(pid: i32, limit: u64) -> Option<Group> {
        let folder = PathBuf::from(format!("/sys/fs/cgroup/memory/wmr-{pid}"));
        std::fs::create_dir(&folder).ok()?;
        let group = Group { folder, pid };
        if !group.folder.join("memory.limit_in_bytes").exists() {
            println!("no memory cgroup to be had: nothing tested");
            return None;
        }
        group.limit(limit);
        std::fs::write(group.folder.join("cgroup.procs"), pid.to_string()).unwrap();
        Some(group)
    }

    fn limit(&self, bytes: u64) {
        std::fs::write(self.folder.join("memory.limit_in_bytes"), bytes.to_string()).unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::write("/sys/fs/cgroup/memory/cgroup.procs", self.pid.to_string());
        let _ = std::fs::remove_dir(&self.folder);
    }
}

#[test]
fn a_cgroup_with_little_room_gets_no_clone() {
    let target = start(WAITS, &["poll", "5"]);
    let Some(group) = Group::around(target.pid(), 20 << 20) else { return };
    let picture = picture(target.pid());
    assert_eq!(picture.capture.method, Method::Stop);
    assert!(picture.notes.iter().any(|note| note.contains("memory cgroup")), "{:?}", picture.notes);
    group.limit(1 << 30);
    assert_eq!(super::super::picture(target.pid()).capture.method, Method::Clone);
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
    let mut target = start(GROWS, &[]);
    let Some(_group) = Group::around(target.pid(), 64 << 20) else { return };
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
}

#[test]
fn the_clone_is_killed_before_its_target_and_that_is_told() {
    let target = start(WAITS, &["poll", "5"]);
    let score = |pid: i32| {
        let score = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
        score.trim().parse::<i32>().unwrap()
    };
    let before = score(target.pid());
    let picture = picture(target.pid());
    let clone = children(target.pid())[0];
    let stack = picture.mappings.iter().find(|mapping| mapping.name == b"[stack]").unwrap().end - 1;
    assert_eq!((score(clone), score(target.pid())), (1000, before));
    // As the system would.
    assert!(Command::new("kill").args(["-KILL", &clone.to_string()]).status().unwrap().success());
    // Its end takes a moment in which it has no memory and is not reported.
    while picture.memory.read(stack, &mut [0]).is_ok() {}
    assert_eq!(picture.memory.finish(), Err(Lost::Killed));
    no_children_left(target.pid());
}
