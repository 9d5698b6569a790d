//! Python programs that wait for children and count signals: clones add nothing to what they see.

use super::super::{picture, status};
use super::traceless::no_children_left;
use std::process::Command;
use std::time::{Duration, Instant};
use wmr_memory::Method;
use wmr_testing::python;

/// Makes children in one way, one at a time, until told to stop. Each signal that comes writes a byte, so
/// none is lost in counting; system calls that Python would repeat are made without it.
const LOOPS: &str = r#"
import asyncio, collections, ctypes, multiprocessing, os, select, signal, subprocess, sys, threading, time
mode = sys.argv[1]
# Unbuffered: what has come must be there for select.
orders = os.fdopen(0, 'rb', 0, closefd=False)
libc = ctypes.CDLL(None, use_errno=True)
fork = multiprocessing.get_context('fork')
reader, writer = os.pipe()
os.set_blocking(reader, False)
os.set_blocking(writer, False)
handled = 0
def on_signal(number, frame):
    global handled
    handled += 1
# A fault must stay one.
for number in signal.valid_signals() - {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}:
    try: signal.signal(number, on_signal)
    except (OSError, ValueError): pass
signal.set_wakeup_fd(writer)
wrong, expected, rounds = [], collections.Counter(), 0
def told():
    return select.select([0], [], [], 0)[0]
def check(right, *what):
    if not right: wrong.append(what)
def of_subprocess():
    p = subprocess.run(['sh', '-c', 'echo hello; exit 3'], stdout=subprocess.PIPE)
    check((p.returncode, p.stdout) == (3, b'hello\n'), p)
    expected[signal.SIGCHLD] += 1
async def of_asyncio():
    began = time.monotonic()
    await asyncio.sleep(0.003)
    check(time.monotonic() - began >= 0.003, 'woke early')
    p = await asyncio.create_subprocess_exec('sh', '-c', 'exit 4')
    check(await p.wait() == 4, p)
    expected[signal.SIGCHLD] += 1
def answer(end):
    end.send('here')
    sys.exit(5)
def of_multiprocessing():
    ours, theirs = fork.Pipe()
    p = fork.Process(target=answer, args=(theirs,))
    p.start()
    check(ours.recv() == 'here')
    p.join()
    check(p.exitcode == 5, p.exitcode)
    for end in ours, theirs, p: end.close()
    expected[signal.SIGCHLD] += 1
def of_system():
    status = os.system('exit 6')
    check(status == 6 << 8, status)
    expected[signal.SIGCHLD] += 1
def of_wait():
    child = os.fork()
    if not child: os._exit(7)
    found = os.wait()
    check(found == (child, 7 << 8), found)
    try: check(False, os.wait())
    except ChildProcessError: pass
    expected[signal.SIGCHLD] += 1
def of_sigchld():
    before = handled
    child = os.fork()
    if not child: os._exit(8)
    # Without Python, which would wait anew after EINTR. The signal comes with the child's end, and may
    # interrupt the wait for it.
    status = ctypes.c_int()
    while libc.waitpid(child, ctypes.byref(status), 0) != child:
        check(ctypes.get_errno() == 4 and told_of_child(child), ctypes.get_errno())
    check(status.value == 8 << 8, status)
    expected[signal.SIGCHLD] += 1
    time.sleep(0)
    check(handled == before + 1, 'handled', handled - before)
def told_of_child(child):
    with open('/proc/%d/stat' % child) as f: return f.read().rsplit(') ')[1][0] in 'ZX'
def of_wakeup():
    began = time.monotonic()
    result, errno = libc.poll(None, 0, 3), ctypes.get_errno()
    check(result == 0 and time.monotonic() - began >= 0.003, result, errno)
    os.kill(os.getpid(), signal.SIGUSR1)
    expected[signal.SIGUSR1] += 1
def work():
    global rounds
    if mode == 'asyncio':
        async def main():
            global rounds
            while True:
                await of_asyncio()
                rounds += 1
                if told(): break
        return asyncio.run(main())
    while True:
        globals()['of_' + mode]()
        rounds += 1
        if told(): break
def at_rest():
    for thread in threading.enumerate():
        if thread is not threading.main_thread(): thread.join()
    return sorted(os.listdir('/proc/self/fd'))
# Once before: what it opens and starts for good.

sys.stdout.flush()
os.write(1, b'ready %d\n' % os.getpid())
orders.readline()
work()
orders.readline()
open_files = at_rest()
print('rested', flush=True)
orders.readline()
work()
orders.readline()
check(at_rest() == open_files, at_rest(), open_files)
came = collections.Counter(os.read(reader, 1 << 16))
check(came == expected, came, expected)
print(rounds, wrong, flush=True)
orders.readline()
"#;

/// What of its status must not change.
fn state(pid: i32) -> Vec<String> {
    ["SigBlk", "SigCgt", "SigIgn", "SigPnd", "ShdPnd", "Seccomp", "Threads", "TracerPid"]
        .map(|field| format!("{field} {}", status(pid, field)))
        .to_vec()
}

#[test]
fn two_hundred_clones_of_programs_that_wait_for_children() {
    let modes = ["subprocess", "asyncio", "multiprocessing", "system", "wait", "sigchld", "wakeup"];
    for tag in ["3.11", "3.13"] {
        let Some(python) = python(tag) else { continue };
        for mode in modes {
            let with_mode = |command: &mut Command| {
                command.arg(mode);
            };
            let mut target = python.spawn_with(LOOPS, with_mode).unwrap();
            let pid = target.pid();
            // A round of it, which leaves open what it keeps.
            target.send("go").unwrap();
            target.send("stop").unwrap();
            assert_eq!(target.line().unwrap(), "rested");
            wmr_testing::at_rest(pid).unwrap();
            let before = state(pid);
            target.send("go").unwrap();
            for _ in 0..15 {
                let picture = picture(pid);
                assert_eq!(picture.capture.method, Method::Clone, "{:?}", picture.notes);
            }
            target.send("stop").unwrap();
            let said = target.line().unwrap();
            let (rounds, wrong) = said.split_once(' ').unwrap();
            assert_eq!(wrong, "[]", "{tag} {mode} after {rounds} rounds");
            assert!(rounds.parse::<u32>().unwrap() > 2, "{tag} {mode}: {rounds} rounds");
            println!("{tag} {mode}: {rounds} rounds");
            // A thread that was waited for may have a little way to go.
            let began = Instant::now();
            while state(pid) != before {
                assert!(began.elapsed() < Duration::from_secs(20), "{:?} was {before:?}", state(pid));
                std::thread::yield_now();
            }
            no_children_left(pid);
        }
    }
}

/// The interpreter of another distribution, under a root and a mount namespace of its own.
#[test]
fn a_program_in_another_mount_namespace() {
    let Some(python) = python("3.14").filter(|python| python.root.is_some()) else {
        println!("no interpreter with a root of its own: nothing tested");
        return;
    };
    let inside = python.command();
    let mut command = Command::new("unshare");
    command.args(["-m", "--"]).arg(inside.get_program()).args(inside.get_args());
    command.args(["-c", &format!("KEPT = ['item %d' % n for n in range(1000)]\n{}", wmr_testing::READY)]);
    let Ok(mut target) = wmr_testing::Target::start(command) else {
        println!("no right to make a namespace: nothing tested");
        return;
    };
    let pid = target.pid();
    let namespace = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/mnt")).unwrap();
    assert_ne!(namespace(&pid.to_string()), namespace("self"));
    wmr_testing::at_rest(pid).unwrap();
    let before = state(pid);
    for _ in 0..20 {
        let picture = picture(pid);
        assert_eq!(picture.capture.method, Method::Clone, "{:?}", picture.notes);
        // Its files are found where only it sees them.
        assert!(picture.images.len() > 2, "{} images", picture.images.len());
        let word = picture.mappings.iter().find(|m| m.perms.write).map(|m| m.start).unwrap();
        picture.memory.read(word, &mut [0; 8]).unwrap();
    }
    assert_eq!(state(pid), before);
    no_children_left(pid);
    assert!(target.is_running().unwrap());
}
