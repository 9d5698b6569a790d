//! What threads are doing and keep, and what is alive, as the program itself can tell.

mod common;

use common::{json, stdout, wmr};
use serde_json::Value;
use std::process::Command;
use wmr_testing::{READY, Target, at_rest, interpreters, python};

const SCRIPT: &str = r#"
import sys, threading
lock = threading.Lock(); lock.acquire()
def worker(size):
    mine = [float(n) for n in range(50000)]
    passed = [float(n) for n in range(size)]
    SAID.append(id(passed))
    SAID.append(id(mine))
    inner(passed)
def inner(buffer):
    own = ['text %d' % n for n in range(1000)]
    ready.set(); lock.acquire()
def in_handler():
    try:
        raise KeyError('lost')
    except KeyError as error:
        kept = error
        ready.set(); lock.acquire()
SAID = []
for name, target, args in (('worker-7', worker, (75000,)), ('handler', in_handler, ())):
    ready = threading.Event()
    thread = threading.Thread(target=target, args=args, name=name)
    thread.daemon = True
    thread.start()
    ready.wait()
print('%d %d' % tuple(SAID))
"#;

const ASYNC: &str = r#"
import asyncio
async def leaf(future):
    return await future
async def branch(n):
    kept = bytearray(1 << 20)
    return await leaf(FUTURE)
async def main():
    global FUTURE, TASK
    FUTURE = asyncio.get_event_loop().create_future()
    TASK = asyncio.get_event_loop().create_task(branch(1))
    await asyncio.sleep(0)
    going.set()
    await TASK
going = threading.Event()
thread = threading.Thread(target=lambda: asyncio.new_event_loop().run_until_complete(main()))
thread.daemon = True
thread.start()
going.wait()
"#;

fn row<'v>(rows: &'v Value, key: &str, wanted: &str) -> &'v Value {
    let rows = rows.as_array().expect("rows");
    rows.iter().find(|row| row[key] == wanted).unwrap_or_else(|| panic!("no {key} {wanted} in {rows:?}"))
}

fn start(python: &wmr_testing::Interpreter, script: &str) -> Target {
    let target = python.spawn(&format!("{script}{READY}")).expect("it starts");
    at_rest(target.pid()).expect("it rests");
    target
}

#[test]
fn threads_with_their_frames_and_what_these_keep() {
    for python in interpreters().iter().filter(|python| !python.is_debug()) {
        let tag = &python.version;
        let target = start(python, SCRIPT);
        let pid = target.pid().to_string();
        let document = json(&["threads", &pid, "--locals"]);
        let worker = row(&document["rows"], "name", "worker-7");
        assert_eq!((&worker["main"], &worker["daemon"]), (&false.into(), &true.into()), "{tag}: {worker}");
        let frames = worker["frames"].as_array().unwrap();
        assert_eq!((frames[0]["function"].as_str(), frames[0]["line"].as_u64()), (Some("inner"), Some(12)));
        assert_eq!((frames[1]["function"].as_str(), frames[1]["line"].as_u64()), (Some("worker"), Some(9)));
        let size = row(&frames[1]["locals"], "name", "size");
        assert_eq!((&size["type"], &size["value"]), (&"int".into(), &"75000".into()), "{tag}");
        let own = row(&frames[0]["locals"], "name", "own");
        assert_eq!(own["type"], "list", "{tag}: {own}");
        // What both frames have is neither's alone, and goes with the thread.
        let kept = |frame: &Value| frame["retained"].as_u64().unwrap();
        assert!((1_500_000..2_700_000).contains(&kept(&frames[1])), "{tag}: {}", kept(&frames[1]));
        assert!((50_000..150_000).contains(&kept(&frames[0])), "{tag}: {}", kept(&frames[0]));
        assert!((3_800_000..6_600_000).contains(&kept(worker)), "{tag}: {}", kept(worker));
        let handler = row(&document["rows"], "name", "handler");
        assert_eq!(
            handler["handling"]["type"].as_str().unwrap().rsplit('.').next(),
            Some("KeyError"),
            "{tag}"
        );
        assert_eq!(handler["handling"]["value"], "'lost'", "{tag}");
        let main = document["rows"].as_array().unwrap().iter().find(|row| row["main"] == true).unwrap();
        assert_eq!((&main["name"], &main["tid"]), (&"MainThread".into(), &target.pid().into()), "{tag}");
        let holding = document["rows"].as_array().unwrap().iter().filter(|row| row["holds_gil"] == true);
        assert_eq!(holding.count(), 0, "{tag}: all wait in the system");
        // A local of a thread that is blocked: its frame, file and line.
        let said: Vec<u64> = target.truth()[0].split(' ').map(|word| word.parse().unwrap()).collect();
        let path = json(&["path", &pid, &said[1].to_string()]).to_string();
        let tid = &worker["tid"];
        let wanted = format!("thread {tid} frame worker at <string>:9 local mine");
        assert!(path.contains(&wanted), "{tag}: {path}");
    }
}

#[test]
fn tasks_with_what_they_await() {
    for tag in ["3.8", "3.11", "3.12", "3.13", "3.14", "3.15"] {
        let target = start(python(tag).expect("installed"), &format!("{SCRIPT}{ASYNC}"));
        let document = json(&["threads", &target.pid().to_string(), "--locals"]);
        let tasks = document["tasks"].as_array().unwrap();
        let task = tasks.iter().find(|task| task["frames"][0]["function"] == "branch").expect("the task");
        assert_eq!(task["frames"][1]["function"], "leaf", "{tag}");
        assert_eq!(task["awaits"]["type"], "_asyncio.Future", "{tag}");
        assert!(task["name"].as_str().unwrap().starts_with("Task-"), "{tag}: {task}");
        assert_eq!(row(&task["frames"][0]["locals"], "name", "kept")["type"], "bytearray", "{tag}");
        let main = tasks.iter().find(|task| task["frames"][0]["function"] == "main").expect("the other");
        assert!(main["awaits"]["type"].as_str().unwrap().ends_with("Task"), "{tag}: {main}");
    }
}

#[test]
fn the_page_is_short_until_all_is_asked_for() {
    let deep = "
import threading
lock = threading.Lock(); lock.acquire()
ready = threading.Event()
def down(n):
    if n == 0:
        ready.set(); lock.acquire()
    return down(n - 1)
thread = threading.Thread(target=down, args=(50,), name='deep'); thread.daemon = True; thread.start()
ready.wait()
";
    let target = start(python("3.11").expect("installed"), deep);
    let pid = target.pid().to_string();
    let page = stdout(&mut wmr(&["threads", &pid]));
    assert_eq!(page.matches("down").count(), 10, "{page}");
    assert!(page.contains("deep · daemon") && page.contains(&format!("wmr threads {pid} --all")), "{page}");
    assert!(page.lines().all(|line| line.chars().count() <= 80), "{page}");
    let page = stdout(&mut wmr(&["threads", &pid, "--all"]));
    assert_eq!(page.matches("down").count(), 51, "{page}");
}

const COUNTED: &str = "
import sys
class Thing(object): pass
HELD = [[Thing()] * (n + 1) for n in range(50)]
print('%d' % (sys.gettotalrefcount() if hasattr(sys, 'gettotalrefcount') else 0))
";

/// Of all that a total counts in its own way: tables of keys, shared and not, interned strings, classes, structseqs.
const OF_EVERY_KIND: &str = "
import sys, collections, json, datetime, decimal
class Thing(object): pass
HELD = [[Thing()] * (n % 7 + 1) for n in range(5000)]
for n, things in enumerate(HELD): things[0].number = n
HELD += [{'a': n, n: 'b'} for n in range(1000)] + [collections.OrderedDict(a=n) for n in range(100)]
HELD += [type('Named%d' % n, (Thing,), {'__slots__': ('slot%d' % n,)}) for n in range(100)]
HELD += [sys.intern('interned%d' % n) for n in range(1000)] + [Ellipsis, sys.flags, set(range(9)), vars(HELD[1][0])]
";

/// `sys.gettotalrefcount()` as it is while the process waits: asking counts references of its own.
fn counted_by_itself(pid: i32) -> Option<i64> {
    let later = "print _PyRuntime.interpreters.main->object_state.reftotal";
    let words = ["--batch", "-nx", "-p", &pid.to_string(), "-ex", "print _Py_RefTotal", "-ex", later];
    let gdb = Command::new("gdb").args(words).output().expect("gdb starts");
    // From 3.12 on each interpreter has its own, and the former is 0.
    let said = String::from_utf8_lossy(&gdb.stdout).into_owned();
    let mut numbers =
        said.lines().filter_map(|line| line.strip_prefix('$')?.split_once(" = ")?.1.parse().ok());
    numbers.next_back()
}

#[test]
fn references_are_counted_as_a_debug_build_counts_them() {
    let folder = tempfile::tempdir().expect("a folder");
    for python in interpreters().iter().filter(|python| python.is_debug()) {
        let target = start(python, OF_EVERY_KIND);
        let pid = target.pid().to_string();
        let total = |of: &str| json(&["total-refs", of])["total"].as_i64();
        let ours = total(&pid);
        assert_eq!(ours, counted_by_itself(target.pid()), "{}", python.version);
        assert!(ours > Some(40_000), "{}: {ours:?}", python.version);
        for keep in ["snapshot", "core"] {
            let file = folder.path().join(keep).to_str().expect("a path").to_owned();
            stdout(&mut wmr(&[keep, &pid, "-o", &file, "--force"]));
            assert_eq!(total(&file), ours, "{}: a {keep}", python.version);
        }
    }
}

#[test]
fn what_is_alive_is_listed_by_type_and_count() {
    for tag in ["2.7", "3.7", "3.11", "3.12", "3.14"] {
        let target = start(python(tag).expect("installed"), COUNTED);
        let pid = target.pid().to_string();
        let document = json(&["alive", &pid, "--where", "type = '__main__.Thing'"]);
        let counts: Vec<u64> = document["rows"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["refcount"].as_u64().unwrap())
            .collect();
        assert_eq!(counts, (1..=50).rev().collect::<Vec<u64>>(), "{tag}");
        let total = json(&["total-refs", &pid]);
        let things = row(&total["rows"], "type", "__main__.Thing");
        assert_eq!((things["count"].as_u64(), things["refs"].as_u64()), (Some(50), Some(25 * 51)), "{tag}");
        let rows = total["rows"].as_array().unwrap();
        let sum: i64 = rows.iter().map(|row| row["refs"].as_i64().unwrap()).sum();
        let more: i64 = ["interned", "keys"].iter().map(|part| total[*part].as_i64().unwrap()).sum();
        assert_eq!(sum + more, total["total"].as_i64().unwrap(), "{tag}");
        let text = stdout(&mut wmr(&["total-refs", &pid]));
        assert_eq!(text.contains("beside those of types: "), more != 0, "{tag}: {text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{tag}: {text}");
    }
    let target = start(python("3.11").expect("installed"), COUNTED);
    let pid = target.pid().to_string();
    let csv = stdout(&mut wmr(&["alive", &pid, "--csv", "--limit", "3", "--sort", "refcount"]));
    assert_eq!(csv.lines().count(), 4, "{csv}");
    assert!(csv.starts_with("addr,refcount,type,type_addr,bytes"), "{csv}");
    assert!(common::failure(&["alive", &pid, "--where", "colour = 1"]).starts_with("exit 2"));
}
