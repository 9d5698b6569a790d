//! What an inspection leaves behind: nothing.

use super::super::{inspector, picture, start, status};
use super::bytes::MENAGERIE;
use super::traceless::{WAITS, no_children_left, no_helpers_left, verdict};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;
use wmr_memory::live::{Capturing, LiveOptions, attach};
use wmr_testing::{Target, at_rest};

/// Everything that reading too much would change. Not what others who map the same files change: Pss,
/// and which file pages are private.
fn footprint(pid: i32) -> Vec<String> {
    at_rest(pid).unwrap();
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let fields =
        ["Rss:", "Anonymous:", "LazyFree:", "AnonHugePages:", "ShmemPmdMapped:", "FilePmdMapped:", "Swap:"];
    let more = ["VmRSS:", "RssAnon:", "RssFile:", "RssShmem:", "VmPTE:", "VmSwap:", "VmHWM:", "Threads:"];
    let figures = |text: &str, fields: &[&str]| -> Vec<String> {
        let ours = |line: &&str| fields.iter().any(|field| line.starts_with(field));
        text.lines().filter(ours).map(str::to_owned).collect()
    };
    let all = [figures(&rollup, &fields), figures(&status, &more)].concat();
    assert_eq!(all.len(), fields.len() + more.len(), "{all:?}");
    all
}

fn assert_answers(target: &mut Target) {
    target.send("?").unwrap();
    assert_eq!(target.line().unwrap(), "here");
}

#[test]
fn sizes_page_tables_and_huge_pages_stay() {
    let mut target = start(MENAGERIE, &[]);
    assert_answers(&mut target);
    let before = footprint(target.pid());
    for capture in [Capturing::Clone, Capturing::Stop, Capturing::None, Capturing::Clone] {
        let picture = attach(target.pid(), &LiveOptions { capture, ..LiveOptions::default() }).unwrap();
        // All that can be read without a fault.
        let mut buffer = vec![0; 4096];
        for mapping in picture.mappings.iter().filter(|m| m.len() < 1 << 30) {
            for addr in (mapping.start..mapping.end).step_by(4096) {
                let _ = picture.memory.read(addr, &mut buffer);
            }
        }
        assert_eq!(footprint(target.pid()), before);
    }
    assert_answers(&mut target);
}

const FORKED: &str = r#"
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void) {
    size_t length = 64 << 20;
    char *p = mmap(0, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(p, 1, length);
    if (!fork()) {
        printf("ready %d\n", getpid());
        fflush(stdout);
        getchar();
        _exit(0);
    }
    wait(0);
}
"#;

#[test]
fn a_forked_worker_keeps_sharing_with_its_parent() {
    let target = start(FORKED, &[]);
    let pages = |picture: &wmr_memory::Target| {
        let big = picture.mappings.iter().find(|m| m.len() >= 64 << 20).unwrap();
        let runs = big.residency.runs.iter().filter(|run| !run.state.exclusive && run.state.charged());
        (big.usage.shared_dirty, big.usage.private_dirty, runs.map(|run| run.end - run.start).sum::<u64>())
    };
    let before = footprint(target.pid());
    let first = picture(target.pid());
    assert_eq!(pages(&first), (64 << 20, 0, 64 << 20));
    assert_eq!(footprint(target.pid()), before);
    // The system's figures after the first one.
    assert_eq!(pages(&picture(target.pid())), (64 << 20, 0, 64 << 20));
}

#[test]
fn a_stopped_process_stays_stopped() {
    let mut target = start(MENAGERIE, &[]);
    let signal = |signal: &str| {
        let status = std::process::Command::new("kill").args([signal, &target.pid().to_string()]).status();
        assert!(status.unwrap().success());
    };
    signal("-STOP");
    while !status(target.pid(), "State").starts_with('T') {
        std::thread::yield_now();
    }
    for _ in 0..10 {
        picture(target.pid());
        // Letting go and stopping again is for its thread to do.
        while !status(target.pid(), "State").starts_with("T (stopped)") {
            std::thread::yield_now();
        }
    }
    signal("-CONT");
    assert_answers(&mut target);
}

#[test]
fn killing_the_inspector_leaves_the_target_running() {
    // These would notice an interrupted call, a wait too short, a child or a signal too many.
    for mode in ["epoll", "sigtimedwait", "recv", "wait"] {
        let mut target = start(WAITS, &[mode, "3"]);
        let pid = target.pid();
        for round in 0..50u64 {
            let mut inspector = inspector(pid);
            let mut child = inspector.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
            let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
            while out.next().unwrap().unwrap() != "inspecting" {}
            // An inspection takes 5 to 30 ms here: moments all over the second and third one too.
            std::thread::sleep(Duration::from_micros(round * 7919 % 40_000));
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(target.is_running().unwrap());
        }
        // The helpers of those that were killed while a clone lived clear it away.
        no_helpers_left(pid);
        target.send("stop").unwrap();
        let [rounds, interrupted, wrong, early] = verdict(&target.line().unwrap());
        assert_eq!((interrupted, wrong, early), (0, 0, 0), "{mode}");
        assert!(rounds > 0, "{mode}");
        no_children_left(pid);
        at_rest(pid).unwrap();
        assert_eq!(status(pid, "TracerPid"), "0");
        assert!(status(pid, "State").starts_with('S'));
    }
}

/// Runs threads, subprocesses, asyncio, timers; checks each result, and says how far it came.
const BUSY: &str = r#"
import asyncio, os, signal, subprocess, sys, threading, time
stop = False
errors = []
counts = [0] * 4
def threads():
    while not stop:
        out = []
        t = [threading.Thread(target=out.append, args=(i,)) for i in range(4)]
        [x.start() for x in t]; [x.join() for x in t]
        if sorted(out) != [0, 1, 2, 3]: errors.append(out)
        counts[0] += 1
def children():
    while not stop:
        p = subprocess.run(['sh', '-c', 'echo hello; exit 3'], stdout=subprocess.PIPE)
        if (p.returncode, p.stdout) != (3, b'hello\n'): errors.append(p)
        counts[1] += 1
def loop():
    async def main():
        q = asyncio.Queue()
        async def put():
            for i in range(20): await q.put(i); await asyncio.sleep(0.001)
        async def get():
            return [await q.get() for i in range(20)]
        while not stop:
            _, got = await asyncio.gather(put(), get())
            if got != list(range(20)): errors.append(got)
            counts[2] += 1
    asyncio.new_event_loop().run_until_complete(main())
def alarm(*a): counts[3] += 1
signal.signal(signal.SIGALRM, alarm)
signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
t = [threading.Thread(target=f) for f in (threads, children, loop)]
[x.start() for x in t]
sys.stdout.write('ready %d\n' % os.getpid()); sys.stdout.flush()
line = sys.stdin.readline()
stop = True
[x.join() for x in t]
print('errors', errors, 'counts', counts); sys.stdout.flush()
"#;

#[test]
fn two_hundred_inspections_of_a_busy_process() {
    let python = wmr_testing::interpreters().iter().rev().find(|p| p.root.is_none() && p.minor() >= (3, 8));
    let python = python.expect("Python 3.8 or later that sees our programs");
    let mut target = Target::start({
        let mut command = python.command();
        command.args(["-c", BUSY]);
        command
    })
    .unwrap();
    let mut longest = Duration::ZERO;
    for _ in 0..200 {
        let picture = picture(target.pid());
        longest = longest.max(picture.capture.pause);
        assert!(picture.threads.len() >= 2);
    }
    assert!(target.is_running().unwrap());
    target.send("stop").unwrap();
    let said = target.line().unwrap();
    let (errors, counts) = said.split_once(" counts ").unwrap();
    assert_eq!(errors, "errors []");
    let counts: Vec<u32> = counts.trim_matches(['[', ']']).split(", ").map(|n| n.parse().unwrap()).collect();
    assert!(counts.iter().all(|&n| n > 0), "{counts:?}");
    println!("longest pause {longest:?}, rounds of threads, children, asyncio, alarms: {counts:?}");
}

/// Sends itself queued signals with a number and checks that each arrives once, in order.
const SIGNALS: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/poll.h>
#include <unistd.h>
static volatile int next, wrong;
static void got(int signal, siginfo_t *info, void *unused) {
    if (info->si_value.sival_int != next) wrong++;
    next++;
}
int main(void) {
    struct sigaction action = {.sa_sigaction = got, .sa_flags = SA_SIGINFO | SA_RESTART};
    struct pollfd input = {.fd = 0, .events = POLLIN};
    int sent = 0;
    sigaction(SIGRTMIN + 3, &action, 0);
    printf("ready %d\n", getpid());
    fflush(stdout);
    while (poll(&input, 1, 0) == 0) {
        union sigval value = {.sival_int = sent};
        if (!sigqueue(getpid(), SIGRTMIN + 3, value)) sent++;
    }
    printf("%d sent, %d received, %d wrong\n", sent, next, wrong);
    fflush(stdout);
    pause();
}
"#;

#[test]
fn signals_on_their_way_arrive() {
    let mut target = start(SIGNALS, &[]);
    for _ in 0..300 {
        picture(target.pid());
    }
    target.send("stop").unwrap();
    let said = target.line().unwrap();
    let numbers: Vec<u64> = said.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert_eq!((numbers[0], numbers[2]), (numbers[1], 0), "{said}");
    assert!(numbers[0] > 1000, "{said}");
}
