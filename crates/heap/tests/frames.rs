//! Frames against the interpreter's own word: file, function, line and every local of every thread.

use serde_json::Value;
use std::collections::BTreeMap;
use wmr_cpython::Python;
use wmr_cpython::frames::{Code, Ended, Frame, Walk, awaited, suspended};
use wmr_cpython::model::Model;
use wmr_heap::model;
use wmr_memory::live::attach;
use wmr_memory::{Target, open_core, write_core};
use wmr_testing::{Interpreter, at_rest, gcore, interpreters, python};

const SCRIPT: &str = include_str!("frames/everything.py");

/// A frame as the target tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    file: String,
    name: String,
    line: i64,
    locals: BTreeMap<String, u64>,
}

fn said(value: &Value) -> Place {
    let locals = value[3].as_object().expect("locals");
    Place {
        file: value[0].as_str().expect("a file").to_owned(),
        name: value[1].as_str().expect("a name").to_owned(),
        line: value[2].as_i64().unwrap_or(-1),
        locals: locals.iter().map(|(name, id)| (name.clone(), id.as_u64().expect("an id"))).collect(),
    }
}

/// The variables that a class body has from enclosing functions are in its frame; `f_locals` is its namespace
/// alone.
fn found(model: &Model, target: &Target, frame: &Frame, optimized: bool) -> Place {
    let mut reader = target.reader();
    let code = Code::read(model, &mut reader, frame.code);
    let locals = frame.locals(model, &mut reader, usize::MAX);
    Place {
        file: code.file,
        name: code.name,
        line: frame.line(model, &mut reader).unwrap_or(-1),
        locals: locals
            .into_iter()
            .filter(|local| optimized || local.cell.is_none())
            .map(|local| (local.name, local.value))
            .collect(),
    }
}

/// All that differs, in words.
fn compare(target: &Target, truth: &[String]) -> Vec<String> {
    let python = Python::find(target).expect("an interpreter");
    let model = model(&python);
    let mut reader = target.reader();
    let threads: Vec<_> = python.interpreters.iter().flat_map(|i| &i.threads).collect();
    let (mut wrong, mut frames, mut locals) = (Vec::new(), 0, 0);
    let mut same = |what: &str, ours: &[Place], theirs: &[Place]| {
        frames += theirs.len();
        locals += theirs.iter().map(|place| place.locals.len()).sum::<usize>();
        if ours.len() != theirs.len() {
            let names = |list: &[Place]| list.iter().map(|p| p.name.clone()).collect::<Vec<_>>();
            wrong.push(format!("{what}: {:?} and not {:?}", names(ours), names(theirs)));
        }
        for (ours, theirs) in ours.iter().zip(theirs) {
            if ours != theirs {
                wrong.push(format!("{what}: {ours:x?} and not {theirs:x?}"));
            }
        }
    };
    for line in truth {
        let mut words = line.splitn(3, ' ');
        let (Some(what), Some(id), Some(json)) = (words.next(), words.next(), words.next()) else { continue };
        let id: u64 = id.parse().expect("a number");
        let theirs: Value = serde_json::from_str(json).expect("JSON");
        match what {
            "thread" => {
                let thread = threads.iter().find(|thread| thread.thread_id == id).expect("its thread");
                let walk = Walk::of(&model, &mut reader, thread);
                assert_eq!(walk.ended, Ended::Whole);
                let theirs = theirs.as_array().expect("a list");
                let optimized = theirs.iter().map(|place| place[5] != 0).chain(std::iter::repeat(true));
                let frames = walk.frames.iter().filter(|frame| frame.complete).zip(optimized);
                let ours: Vec<Place> =
                    frames.map(|(frame, optimized)| found(&model, target, frame, optimized)).collect();
                let theirs: Vec<Place> = theirs.iter().map(said).collect();
                same(&format!("thread in {}", theirs[0].name), &ours, &theirs);
            }
            "generator" => {
                let ours = suspended(&model, &mut reader, id).map(|s| found(&model, target, &s.frame, true));
                let theirs = Some(&theirs).filter(|theirs| !theirs.is_null()).map(said);
                same("generator", ours.as_slice(), theirs.as_slice());
            }
            "task" => {
                let at = model.layout.task.expect("known").task_coro;
                let mut next = reader.u64(id + at).ok();
                let mut ours = Vec::new();
                while let Some(coroutine) = next
                    && let Some(waiting) = suspended(&model, &mut reader, coroutine)
                {
                    assert!(!waiting.running, "a task that waits");
                    ours.push(found(&model, target, &waiting.frame, true));
                    next = awaited(&model, &mut reader, &waiting.frame);
                }
                let theirs: Vec<Place> = theirs.as_array().expect("a list").iter().map(said).collect();
                same("task", &ours, &theirs);
            }
            _ => {}
        }
    }
    if frames < 100 || locals < 150 {
        wrong.push(format!("only {frames} frames and {locals} locals were compared"));
    }
    wrong
}

fn start(python: &Interpreter) -> wmr_testing::Target {
    let process = python.spawn(SCRIPT).expect("it starts");
    at_rest(process.pid()).expect("it rests");
    process
}

#[test]
fn every_frame_and_local_is_the_interpreters_own() {
    let mut wrong = Vec::new();
    for python in interpreters() {
        let process = start(python);
        let target = attach(process.pid(), &Default::default()).expect("attached");
        let found = compare(&target, process.truth());
        eprintln!("{} {:?}: {} differences", python.version, python.kind, found.len());
        wrong
            .extend(found.iter().take(8).map(|line| format!("{} {:?}: {line}", python.version, python.kind)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A core of our own, as gdb leaves out a whole mapping where it meets the guard page that newer C libraries
/// put inside of it: all stacks of threads.
#[test]
fn frames_of_a_written_core_are_those_of_the_process() {
    let process = start(python("3.14").expect("installed"));
    let target = attach(process.pid(), &Default::default()).expect("attached");
    let core = tempfile::NamedTempFile::new().expect("a file");
    write_core(&target, core.as_file(), &|_| ()).expect("written");
    let target = open_core(core.path(), &Default::default()).expect("opened");
    assert_eq!(compare(&target, process.truth()), Vec::<String>::new());
}

#[test]
fn frames_of_a_core_are_those_of_the_process() {
    for tag in ["2.7", "3.9", "3.12"] {
        let process = start(python(tag).expect("installed"));
        let core = gcore(process.pid()).expect("a core");
        let target = open_core(&core, &Default::default()).expect("opened");
        assert_eq!(compare(&target, process.truth()), Vec::<String>::new(), "{tag}");
    }
}

const DEEP: &str = "
import os, sys, threading
sys.setrecursionlimit(60000)
threading.stack_size(512 << 20)
lock = threading.Lock(); lock.acquire()
def down(n):
    if n == 0:
        sys.stdout.write('ready %d\\n' % os.getpid()); sys.stdout.flush()
        lock.acquire()
    return down(n - 1)
thread = threading.Thread(target=down, args=(50000,)); thread.daemon = True; thread.start()
while os.read(0, 1): pass
";

#[test]
fn fifty_thousand_calls_are_followed() {
    for tag in ["2.7", "3.8", "3.11", "3.14"] {
        let process = python(tag).expect("installed").spawn(DEEP).expect("starts");
        at_rest(process.pid()).expect("rests");
        let target = attach(process.pid(), &Default::default()).expect("attached");
        let python = Python::find(&target).expect("an interpreter");
        let model = model(&python);
        let mut reader = target.reader();
        let threads = python.interpreters.iter().flat_map(|i| &i.threads);
        let deepest = threads.map(|thread| Walk::of(&model, &mut target.reader(), thread));
        let deepest = deepest.max_by_key(|walk| walk.frames.len()).expect("threads");
        assert_eq!(deepest.ended, Ended::Whole, "{tag}");
        let mut down =
            deepest.frames.iter().filter(|f| Code::read(&model, &mut reader, f.code).name == "down");
        let innermost = down.next().expect("the innermost");
        assert_eq!(down.count(), 50_000, "{tag}");
        let mut reader = target.reader();
        assert_eq!(innermost.line(&model, &mut reader), Some(9), "{tag}");
    }
}
