//! Processes that cannot be inspected, and what is said of them.

use super::super::{inspector, picture, program, start, status};
use super::bytes::MENAGERIE;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::{Duration, Instant};
use wmr_memory::live::{AttachError, Capturing, LiveOptions, attach};

fn refusal(pid: i32) -> AttachError {
    match attach(pid, &LiveOptions::default()) {
        Ok(_) => panic!("{pid} could be inspected"),
        Err(error) => error,
    }
}

#[test]
fn no_process_and_no_program() {
    for pid in [i32::MIN, -1, 0, i32::MAX] {
        assert!(matches!(refusal(pid), AttachError::NoSuchProcess { pid: said } if said == pid));
    }
    let own = std::process::id() as i32;
    assert!(matches!(refusal(own), AttachError::Own { pid } if pid == own));
    // kthreadd, unless this is a pid namespace that has none.
    if std::fs::read_to_string("/proc/2/comm").is_ok_and(|name| name == "kthreadd\n") {
        assert!(matches!(refusal(2), AttachError::KernelThread { pid: 2, name } if name == "kthreadd"));
    }
}

#[test]
fn a_zombie_is_called_one() {
    let mut child = std::process::Command::new("true").stdin(Stdio::null()).spawn().unwrap();
    let pid = child.id() as i32;
    while !status(pid, "State").starts_with('Z') {
        std::thread::yield_now();
    }
    let error = refusal(pid);
    let parent = std::process::id() as i32;
    assert!(matches!(error, AttachError::Zombie { pid: p, ppid } if p == pid && ppid == parent), "{error:?}");
    // Looking at it did not take its exit status from us.
    assert!(child.wait().unwrap().success());
}

const DEAD_LEADER: &str = r#"
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
static char text[64];
static void *body(void *unused) {
    char stat[256] = "";
    /* Until the first thread is a zombie. */
    while (!strstr(stat, ") Z ")) {
        FILE *f = fopen("/proc/self/stat", "r");
        if (!fgets(stat, sizeof stat, f)) return 0;
        fclose(f);
    }
    strcpy(text, "still here");
    printf("text %p 64\n", (void *)text);
    printf("ready %d\n", getpid());
    fflush(stdout);
    getchar();
    return unused;
}
int main(void) {
    pthread_t thread;
    pthread_create(&thread, 0, body, 0);
    pthread_exit(0);
}
"#;

#[test]
fn a_process_outlives_its_first_thread() {
    let target = start(DEAD_LEADER, &[]);
    assert!(status(target.pid(), "State").starts_with('Z'));
    let picture = picture(target.pid());
    let (text, _) = super::bytes::places(&target)["text"];
    let mut bytes = [0; 10];
    picture.memory.read(text, &mut bytes).unwrap();
    assert_eq!(&bytes, b"still here");
    assert_eq!(picture.process.pid, target.pid());
    assert_eq!(picture.threads.len(), 1);
    assert!(!picture.images.is_empty() && picture.process.rss > Some(0));
}

const TRACER: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <unistd.h>
int main(int argc, char **argv) {
    if (ptrace(PTRACE_SEIZE, atoi(argv[argc - 1]), 0, 0)) return 2;
    printf("ready %d\n", getpid());
    fflush(stdout);
    getchar();
}
"#;

#[test]
fn another_tracer_is_named() {
    let target = start(MENAGERIE, &[]);
    let tracer = start(TRACER, &[&target.pid().to_string()]);
    match refusal(target.pid()) {
        AttachError::Traced { pid, tracer: by, name } => {
            assert_eq!((pid, by, name.as_str()), (target.pid(), tracer.pid(), "program"));
        }
        error => panic!("{error:?}"),
    }
    // Looking without a stop needs no tracing.
    attach(target.pid(), &LiveOptions { capture: Capturing::None, ..LiveOptions::default() }).unwrap();
}

/// What the inspector says when it runs as user nobody; `None` where it cannot.
fn as_nobody(pid: i32) -> Option<String> {
    if status(std::process::id() as i32, "Uid").split_whitespace().next() != Some("0") {
        return None; // Only root can become nobody.
    }
    // The test program may lie where nobody may not look: a copy.
    let folder = open_folder();
    let copy = folder.path().join("inspector");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let mut command = std::process::Command::new(copy);
    command.args(inspector(pid).get_args()).env("WMR_INSPECT", pid.to_string()).env("WMR_ONCE", "1");
    let output = command.uid(NOBODY).gid(NOBODY).current_dir("/").output().unwrap();
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

const NOBODY: u32 = 65534;

fn open_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    folder
}

#[test]
fn another_users_process_is_refused_with_the_facts() {
    let target = start(MENAGERIE, &[]);
    let Some(said) = as_nobody(target.pid()) else { return };
    assert!(said.contains("NotPermitted"), "{said}");
    assert!(said.contains("uid: 0, our_uid: 65534, capable: false"), "{said}");
    assert!(said.contains("dumpable: true") && said.contains("/proc/PID/mem"), "{said}");
}

const WAITS: &str = r#"
#include <stdio.h>
#include <unistd.h>
int main(void) { printf("ready %d\n", getpid()); fflush(stdout); getchar(); }
"#;

#[test]
fn ones_own_process_needs_no_capability() {
    let folder = open_folder();
    let copy = folder.path().join("waits");
    std::fs::copy(program(WAITS).get_program(), &copy).unwrap();
    let mut command = std::process::Command::new(copy);
    // A process that changed user is not dumpable until it runs a program.
    command.uid(NOBODY).gid(NOBODY).current_dir(folder.path());
    if status(std::process::id() as i32, "Uid").split_whitespace().next() != Some("0") {
        return;
    }
    let target = wmr_testing::Target::start(command).unwrap();
    let yama = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let Some(said) = as_nobody(target.pid()) else { return };
    if yama.trim().parse().unwrap_or(0) > 0 {
        assert!(said.contains("NotPermitted") && said.contains("yama: Some("), "{said}");
        return;
    }
    // Without map_files: every file found through exe and root, so nothing to note.
    assert!(said.contains("images, notes []") && !said.contains("0 images"), "{said}");
}

#[test]
fn a_limit_on_memory_is_kept() {
    let target = start(MENAGERIE, &[]);
    let options =
        LiveOptions { capture: Capturing::Stop, max_memory: Some(1 << 20), ..LiveOptions::default() };
    match attach(target.pid(), &options).err() {
        Some(AttachError::TooLarge { needed, limit, .. }) => assert!(limit == 1 << 20 && needed > 9 << 20),
        other => panic!("{other:?}"),
    }
}

const THIRTY_TWO: &str = r#"
void _start(void) {
    static const char ready[] = "ready 0\n";
    __asm__ volatile("int $0x80" : : "a"(4), "b"(1), "c"(ready), "d"(8));
    for (;;) __asm__ volatile("int $0x80" : : "a"(29));
}
"#;

#[cfg(target_arch = "x86_64")]
#[test]
fn a_32_bit_program_is_declined() {
    let flags = ["-m32", "-nostdlib", "-static", "-fno-pic", "-fno-stack-protector"];
    // Not every compiler, nor every kernel, can.
    let Ok(file) = wmr_testing::compile_c(THIRTY_TWO, &flags) else { return };
    let mut command = std::process::Command::new(&*file);
    let Ok(mut child) = command.stdout(Stdio::piped()).spawn() else { return };
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let error = refusal(child.id() as i32);
    assert!(matches!(error, AttachError::ThirtyTwoBit { .. }), "{error:?}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_process_that_ends_half_way() {
    let mut seen = [0, 0];
    for round in 0..60u64 {
        let target = start(MENAGERIE, &[]);
        let pid = target.pid();
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(round * 300));
            drop(target);
        });
        match attach(pid, &LiveOptions::default()) {
            Ok(_) => seen[0] += 1,
            Err(
                AttachError::Vanished { .. } | AttachError::Zombie { .. } | AttachError::NoSuchProcess { .. },
            ) => {
                seen[1] += 1;
            }
            Err(error) => panic!("round {round}: {error:?}"),
        }
        killer.join().unwrap();
    }
    assert!(seen[1] > 0, "{seen:?}");
}

const VFORK: &str = r#"
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
static void *busy(void *unused) { for (;;) pause(); return unused; }
int main(int argc, char **argv) {
    pthread_t thread;
    char byte;
    int milliseconds = atoi(argv[argc - 1]);
    pthread_create(&thread, 0, busy, 0);
    for (int i = 0; i < 3; i++) pthread_create(&thread, 0, busy, 0);
    pid_t child = vfork();
    if (!child) {
        /* The parent waits in the kernel for as long as this one neither execs nor exits. */
        printf("ready %d\n", getppid());
        fflush(stdout);
        if (milliseconds) usleep(milliseconds * 1000);
        else if (read(0, &byte, 1)) {}
        _exit(0);
    }
    waitpid(child, 0, 0);
    puts("went on");
    fflush(stdout);
    pause();
}
"#;

#[test]
fn a_thread_that_does_not_stop_is_waited_for_and_then_named() {
    // The child ends after a while, which is within our patience.
    let target = start(VFORK, &["200"]);
    let began = Instant::now();
    let picture = picture(target.pid());
    assert!(picture.capture.pause < Duration::from_millis(100), "{:?}", picture.capture.pause);
    assert!(began.elapsed() > Duration::from_millis(20));
    assert_eq!(target.line().unwrap(), "went on");

    let mut target = start(VFORK, &["0"]);
    let options = LiveOptions { stop_patience: Duration::from_millis(150), ..LiveOptions::default() };
    match attach(target.pid(), &options).err() {
        Some(AttachError::NotStopped(laggard)) => {
            assert_eq!((laggard.pid, laggard.tid, laggard.state), (target.pid(), target.pid(), 'D'));
            assert!(laggard.tries > 2 && laggard.waited < Duration::from_secs(2), "{laggard:?}");
        }
        other => panic!("{other:?}"),
    }
    // All were let go: none is being traced, and the program goes on.
    while status(target.pid(), "TracerPid") != "0" {
        std::thread::yield_now();
    }
    target.send("x").unwrap();
    assert_eq!(target.line().unwrap(), "went on");
}

const FAULTS: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void) {
    size_t length = 1 << 20;
    int fd = syscall(SYS_userfaultfd, O_CLOEXEC);
    struct uffdio_api api = {.api = UFFD_API};
    char *p = mmap(0, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    p[0] = 1;
    struct uffdio_register range = {.range = {(unsigned long)p, length}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (fd >= 0 && !ioctl(fd, UFFDIO_API, &api) && !ioctl(fd, UFFDIO_REGISTER, &range))
        printf("region %p %zu\n", (void *)p, length);
    /* Nobody answers for its pages: touching a missing one hangs for ever. */
    printf("ready %d\n", getpid());
    fflush(stdout);
    getchar();
}
"#;

#[test]
fn userfaultfd_memory_is_not_touched() {
    let target = start(FAULTS, &[]);
    let picture = picture(target.pid());
    let places = super::bytes::places(&target);
    // A system without userfaultfd, or not for us.
    let Some(&(region, len)) = places.get("region") else { return };
    assert_eq!(picture.mapping(region).unwrap().backing, wmr_memory::Backing::Device);
    let fault = picture.memory.read(region + len / 2, &mut [0; 8]).unwrap_err();
    assert_eq!(fault.why, wmr_memory::Why::Unsafe);
}
