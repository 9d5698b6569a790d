//! Programs that may not be in the middle of just anything when they run a system call.

use super::super::{picture, start, status};
use super::traceless::no_children_left;
use wmr_memory::Method;

/// Threads that each add to a counter of the processor they are on, by a sequence that the kernel has begin anew when
/// the thread is moved: an increment that goes on after one is lost.
#[cfg(target_arch = "x86_64")]
const SEQUENCES: &str = r#"
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>
#if __GLIBC_PREREQ(2, 35)
#include <sys/rseq.h>
enum { THREADS = 3 };
static struct { volatile uint64_t value; char apart[120]; } counters[1024];
static volatile int stop;
static uint64_t done[THREADS];
static struct rseq *own(void) { return (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset); }
static int add(void) {
    struct rseq *r = own();
    int cpu = r->cpu_id_start;
    asm goto volatile(
        ".pushsection __rseq_cs, \"aw\"\n .balign 32\n 3: .long 0, 0\n .quad 1f, (2f - 1f), 4f\n .popsection\n"
        "leaq 3b(%%rip), %%rax\n movq %%rax, 8(%[r])\n"
        "1: cmpl %[cpu], 4(%[r])\n jnz 4f\n"
        "movq (%[v]), %%rdx\n movq $20000, %%rcx\n 5: dec %%rcx\n jnz 5b\n incq %%rdx\n movq %%rdx, (%[v])\n"
        "2: jmp 6f\n"
        ".byte 0x0f, 0xb9, 0x3d\n .long 0x53053053\n 4: jmp %l[aborted]\n 6:\n"
        :: [r] "r"(r), [cpu] "r"(cpu), [v] "r"(&counters[cpu].value)
        : "rax", "rcx", "rdx", "memory", "cc" : aborted);
    return 1;
aborted:
    return 0;
}
static void *adds(void *at) {
    while (!stop) *(uint64_t *)at += add();
    return 0;
}
int main(void) {
    pthread_t threads[THREADS];
    struct pollfd input = {.fd = 0, .events = POLLIN};
    if (!__rseq_size) printf("none\n");
    printf("ready %d\n", getpid());
    fflush(stdout);
    for (long i = 1; i < THREADS; i++) pthread_create(&threads[i], 0, adds, &done[i]);
    for (uint64_t n = 0; n % 64 || poll(&input, 1, 0) == 0; n++) done[0] += add();
    stop = 1;
    uint64_t all = 0, counted = 0;
    for (int i = 1; i < THREADS; i++) pthread_join(threads[i], 0);
    for (int i = 0; i < THREADS; i++) all += done[i];
    for (int i = 0; i < 1024; i++) counted += counters[i].value;
    printf("%ld lost of %lu\n", (long)(all - counted), all);
    fflush(stdout);
    pause();
}
#else
int main(void) { printf("none\nready %d\n", getpid()); fflush(stdout); pause(); }
#endif
"#;

#[cfg(target_arch = "x86_64")]
#[test]
fn a_sequence_that_was_broken_into_begins_anew() {
    let mut target = start(SEQUENCES, &[]);
    if target.truth().first().is_some_and(|line| line == "none") {
        println!("no restartable sequences here: nothing tested");
        return;
    }
    let pid = target.pid();
    for _ in 0..60 {
        assert_eq!(picture(pid).capture.method, Method::Clone);
    }
    target.send("stop").unwrap();
    let said = target.line().unwrap();
    assert!(said.starts_with("0 lost of ") && said != "0 lost of 0", "{said}");
    no_children_left(pid);
}

/// Has system calls of its own made signals, all but a few at a time.
const DISPATCHED: &str = r#"
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>
#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#endif
static volatile char selector;
static volatile int signals;
static void on_sys(int signal) { selector = 0; signals++; }
int main(void) {
    struct pollfd input = {.fd = 0, .events = POLLIN};
    struct sigaction action = {.sa_handler = on_sys};
    sigaction(SIGSYS, &action, 0);
    if (prctl(PR_SET_SYSCALL_USER_DISPATCH, 1, 0, 0, &selector)) printf("none\n");
    printf("ready %d\n", getpid());
    fflush(stdout);
    while (poll(&input, 1, 0) == 0) {
        selector = 1;
        for (volatile int i = 0; i < 3000000; i++);
        selector = 0;
    }
    int unasked = signals;
    selector = 1;
    getppid();
    selector = 0;
    printf("%d unasked, %d asked\n", unasked, signals - unasked);
    fflush(stdout);
    pause();
}
"#;

#[test]
fn calls_that_a_program_dispatches_itself_are_not_ours() {
    let mut target = start(DISPATCHED, &[]);
    if target.truth().first().is_some_and(|line| line == "none") {
        println!("no syscall user dispatch here: nothing tested");
        return;
    }
    let pid = target.pid();
    for _ in 0..60 {
        // Before Linux 6.4 it is copied, and a note says why.
        let picture = picture(pid);
        let cloned = picture.capture.method == Method::Clone;
        assert!(
            cloned || picture.notes.iter().any(|note| note.contains("dispatched")),
            "{:?}",
            picture.notes
        );
    }
    target.send("stop").unwrap();
    // It is on still.
    assert_eq!(target.line().unwrap(), "0 unasked, 1 asked");
    assert_eq!(status(pid, "TracerPid"), "0");
    no_children_left(pid);
}
