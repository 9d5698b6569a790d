//! What is found in real interpreters, against their own word.

use std::collections::BTreeMap;
use wmr_cpython::gc::Ended;
use wmr_cpython::{FindError, Generation, Mode, Python};
use wmr_memory::live::{LiveOptions, attach};
use wmr_testing::{Interpreter, interpreters};

/// Prints its own facts as JSON and waits. The free lists are counted last, by the interpreter itself
/// (`sys._debugmallocstats`), with nothing but one `os.write` after it.
const SCRIPT: &str = r#"
import gc, json, os, sys, threading

class Thing(object): pass

go = threading.Event()
idents = []
def wait():
    idents.append(threading.current_thread().ident)
    started.release()
    go.wait()
started = threading.Semaphore(0)
for _ in range(3):
    t = threading.Thread(target=wait); t.daemon = True; t.start()
for _ in range(3): started.acquire()
idents.append(threading.current_thread().ident)

# Whatever these import is not to come after the count.
def tally():
    tracked = {}
    for o in gc.get_objects():
        name = type(o).__name__
        tracked[name] = tracked.get(name, 0) + 1
    return tracked
json.dumps(tally()); 'a'.encode(); json.dumps([1.5])
gc.collect(); gc.disable()
frozen = 0
if '--freeze' in sys.argv:
    gc.freeze()
    frozen = gc.get_freeze_count()
# A full collection empties the free lists: freed after it.
floats = [i * 1.5 for i in range(400)]
live = [id(f) for f in floats[:200]]
lists = [[i] for i in range(300)]
dicts = [{i: i} for i in range(300)]
tuples = [(i, i) for i in range(300)]
live += [id(x) for x in lists[:20] + dicts[:20] + tuples[:20]]
gone = [id(f) for f in floats[200:]]
del floats[200:], lists[20:], dicts[20:], tuples[20:]

things = [Thing() for i in range(50)]
word = intern('wmr_interned_word') if sys.version_info[0] == 2 else sys.intern('wmr_interned_word')
tracked = tally()
facts = {
    'hexversion': sys.hexversion, 'idents': idents, 'live': live, 'gone': gone, 'word': id(word),
    'tracked': tracked, 'frozen': frozen, 'type': id(type), 'none': id(None), 'dict': id(dict),
    'sysdict': id(sys.__dict__), 'modules': id(sys.modules),
    'things': [id(t) for t in things], 'debug': hasattr(sys, 'gettotalrefcount'),
}
sys.stdout.write(json.dumps(facts) + '\n'); sys.stdout.flush()
stats = None
write, ready, read = os.write, ('ready %d\n' % os.getpid()).encode(), os.read
if hasattr(sys, '_debugmallocstats'):
    keep = os.dup(2)
    fd = os.open('stats', os.O_RDWR | os.O_CREAT | os.O_TRUNC) if '--here' in sys.argv else os.open(os.devnull, os.O_WRONLY)
    os.dup2(fd, 2)
    sys._debugmallocstats()
    os.dup2(keep, 2)
write(1, ready)
while read(0, 1): pass
"#;

struct Case {
    python: Python,
    target: wmr_memory::Target,
    facts: serde_json::Value,
    /// `sys._debugmallocstats()`, where it could be had.
    stats: String,
    // Ends the process when the case is over.
    _process: wmr_testing::Target,
}

fn open(interpreter: &Interpreter, args: &[&str], env: &[(&str, &str)]) -> Result<Case, String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    // A chrooted interpreter cannot write where we can read; it is not asked.
    let here = interpreter.root.is_none();
    let process = interpreter
        .spawn_with(SCRIPT, |c| {
            c.args(args).envs(env.iter().copied()).current_dir(folder.path());
            if here {
                c.arg("--here");
            }
        })
        .map_err(|e| format!("spawn: {e}"))?;
    let target = attach(process.pid(), &LiveOptions::default()).map_err(|e| format!("attach: {e}"))?;
    let python = Python::find(&target).map_err(|e| format!("find: {e} ({e:?})"))?;
    let facts = process.json().ok_or("no facts")?;
    let stats = std::fs::read_to_string(folder.path().join("stats")).unwrap_or_default();
    Ok(Case { python, target, facts, stats, _process: process })
}

impl Case {
    fn number(&self, fact: &str) -> u64 {
        self.facts[fact].as_u64().unwrap_or(u64::MAX)
    }

    fn numbers(&self, fact: &str) -> Vec<u64> {
        let list = self.facts[fact].as_array().cloned().unwrap_or_default();
        list.iter().filter_map(serde_json::Value::as_u64).collect()
    }

    fn identity(&self, wrong: &mut Vec<String>) {
        let p = &self.python;
        let mut check = |what: &str, ours: u64, theirs: u64| {
            if ours != theirs {
                wrong.push(format!("{what}: {ours:#x}, it says {theirs:#x}"));
            }
        };
        check("version", p.version.0.into(), self.number("hexversion"));
        check("debug build", p.debug.into(), self.facts["debug"].as_bool().unwrap_or(false).into());
        check("type", p.type_type, self.number("type"));
        check("dict", p.dict_type, self.number("dict"));
        check("None", p.none.unwrap_or(0), self.number("none"));
        check("interpreters", p.interpreters.len() as u64, 1);
        let main = p.main().expect("a main interpreter");
        check("sys.__dict__", main.sysdict, self.number("sysdict"));
        check("sys.modules", main.modules, self.number("modules"));
        let mut ours: Vec<u64> = main.threads.iter().map(|t| t.thread_id).collect();
        let mut theirs = self.numbers("idents");
        ours.sort_unstable();
        theirs.sort_unstable();
        if ours != theirs {
            wrong.push(format!("threads {ours:x?}, it says {theirs:x?}"));
        }
        let mut tids: Vec<i32> = main.threads.iter().filter_map(|t| t.native_id).collect();
        tids.sort_unstable();
        let mut kernel: Vec<i32> = self.target.threads.iter().map(|t| t.tid).collect();
        kernel.sort_unstable();
        if tids != kernel {
            wrong.push(format!("thread ids {tids:?}, the kernel says {kernel:?}"));
        }
        if !p.notes.is_empty() {
            wrong.push(format!("notes: {:?}", p.notes));
        }
    }

    /// Objects of each collector list by type name, against `gc.get_objects()`.
    fn collector(&self, wrong: &mut Vec<String>) {
        let p = &self.python;
        let mut reader = self.target.reader();
        let mut ours: BTreeMap<String, u64> = BTreeMap::new();
        let mut permanent = 0;
        for list in &p.gc.lists {
            let mut names = Vec::new();
            let ended = p.gc.for_each(&mut reader.clone(), list, 1 << 22, |object| names.push(object));
            if ended != Ended::Whole {
                wrong.push(format!("{:?}: {ended:?}", list.generation));
            }
            if list.generation == Generation::Permanent {
                permanent += names.len() as u64;
                continue;
            }
            for object in names {
                if !p.gc.is_tracked(&mut reader, object).unwrap_or(false) {
                    wrong.push(format!("{object:#x} is in a list and not tracked"));
                }
                let layout = &p.layout;
                let name = reader
                    .u64(object + layout.object.ob_type)
                    .and_then(|t| reader.u64(t + layout.type_object.tp_name))
                    .and_then(|n| reader.cstr(n, 100))
                    .map(|n| String::from_utf8_lossy(&n).into_owned())
                    .unwrap_or_default();
                let name = name.rsplit('.').next().unwrap_or_default().to_owned();
                *ours.entry(name).or_default() += 1;
            }
        }
        // 3.12 keeps immortal tuples there besides.
        let frozen = self.number("frozen");
        if permanent < frozen || permanent > frozen + 500 {
            wrong.push(format!("permanent generation: {permanent}, gc.get_freeze_count() said {frozen}"));
        }
        let theirs = self.facts["tracked"].as_object().cloned().unwrap_or_default();
        for name in ["Thing", "function", "type", "module", "set", "property", "method_descriptor", "list"] {
            let said = theirs.get(name).and_then(serde_json::Value::as_u64).unwrap_or(0);
            let found = ours.get(name).copied().unwrap_or(0);
            // The list that gc.get_objects() returned, and what the script made after it.
            if found.abs_diff(said) > if name == "list" { 4 } else { 0 } {
                wrong.push(format!("tracked {name}: {found}, it says {said}"));
            }
        }
    }

    /// Dead objects, against what the script freed and kept and against the interpreter's own count.
    fn dead(&self, wrong: &mut Vec<String>) {
        let lists = self.python.free_lists(&self.target);
        if !lists.notes.is_empty() {
            wrong.push(format!("free lists: {:?}", lists.notes));
        }
        for id in self.numbers("live") {
            if let Some(dead) = lists.find(id) {
                wrong.push(format!("{id:#x} lives, found dead as {}", dead.kind));
            }
        }
        let freed = self.numbers("gone");
        let found = freed.iter().filter(|id| lists.find(**id).is_some_and(|d| d.kind == "float")).count();
        // 100 floats are kept; 2.7 keeps all. A few are taken again before the picture.
        if found < 60 {
            wrong.push(format!("of the freed floats only {found} are on the free list"));
        }
        let count = |kind: &str| lists.dead.iter().filter(|d| d.kind == kind).count() as i64;
        for (line, kind) in [("PyListObject", "list"), ("PyDictObject", "dict"), ("PyFloatObject", "float")] {
            // "80 free PyListObjects * 40 bytes each"
            let said = self
                .stats
                .lines()
                .find(|l| l.contains(line) && l.contains(" free "))
                .and_then(|l| l.split_whitespace().next()?.parse::<i64>().ok());
            if let Some(said) = said
                && (count(kind) - said).abs() > 3
            {
                wrong.push(format!("dead {kind}: {}, it says {said}", count(kind)));
            }
        }
    }

    fn interned(&self, wrong: &mut Vec<String>) {
        let interned = self.python.interned(&self.target);
        if interned.dicts.len() != 1 {
            wrong.push(format!("interned tables: {interned:x?}"));
        }
    }

    fn stacks(&self, wrong: &mut Vec<String>) {
        let chunks = self.python.stack_chunks(&self.target);
        let threads = self.python.interpreters[0].threads.len();
        let live = chunks.iter().filter(|c| !c.spare).count();
        let expected = if self.python.version.at_least(3, 11) { threads } else { 0 };
        if live < expected || (expected == 0 && live > 0) {
            wrong.push(format!("{live} data stack chunks of {expected} threads"));
        }
        for c in &chunks {
            let whole = self.target.mapping(c.addr).is_some_and(|m| c.addr + c.size <= m.end);
            if !whole || c.size % 4096 != 0 || !(c.addr..=c.addr + c.size).contains(&c.live_end) {
                wrong.push(format!("data stack chunk {c:x?}"));
            }
        }
    }
}

fn each(
    wanted: impl Fn(&Interpreter) -> bool,
    args: &[&str],
    env: &[(&str, &str)],
    check: impl Fn(&Case, &mut Vec<String>),
) {
    let mut failures = Vec::new();
    let mut covered = 0;
    for interpreter in interpreters().iter().filter(|i| wanted(i)) {
        let mut wrong = Vec::new();
        match open(interpreter, args, env) {
            Ok(case) => check(&case, &mut wrong),
            Err(e) => wrong.push(e),
        }
        covered += 1;
        failures
            .extend(wrong.into_iter().map(|w| format!("{} ({}): {w}", interpreter.version, interpreter.tag)));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(covered > 0, "no interpreter to test: run `cargo xtask pythons`");
}

#[test]
fn every_interpreter_is_found_and_described() {
    each(
        |_| true,
        &[],
        &[],
        |case, wrong| {
            case.identity(wrong);
            case.collector(wrong);
            case.interned(wrong);
            case.stacks(wrong);
            let a = &case.python.allocators;
            let expected = if case.python.debug { Mode::PymallocDebug } else { Mode::Pymalloc };
            if a.obj != expected || a.padding.is_some() != case.python.debug || a.tracemalloc {
                wrong.push(format!("allocators {a:?}"));
            }
            if case.python.pymalloc_roots.len() != 1 {
                wrong.push(format!("pymalloc roots {:x?}", case.python.pymalloc_roots));
            }
        },
    );
}

#[test]
fn dead_objects_are_on_the_free_lists() {
    // A stripped interpreter up to 3.9 does not tell; no such is among the ones required.
    each(|_| true, &[], &[], Case::dead);
}

#[test]
fn frozen_objects_are_in_the_permanent_generation() {
    each(|i| i.minor() >= (3, 7), &["--freeze"], &[], Case::collector);
}

#[test]
fn the_allocator_is_told_from_what_is_there() {
    let release = |i: &Interpreter| i.minor() >= (3, 6) && !i.is_debug();
    for (value, small, padded) in [
        ("debug", Mode::PymallocDebug, true),
        ("malloc", Mode::Malloc, false),
        ("malloc_debug", Mode::MallocDebug, true),
    ] {
        each(release, &[], &[("PYTHONMALLOC", value)], |case, wrong| {
            let python = &case.python;
            let a = &python.allocators;
            // 3.6.15's "debug" sits on malloc.
            let small =
                if value == "debug" && !python.version.at_least(3, 7) { &Mode::MallocDebug } else { &small };
            if a.obj != *small || a.mem != *small || a.padding.is_some() != padded {
                wrong.push(format!("PYTHONMALLOC={value}: {a:?}"));
            }
            if matches!(small, Mode::PymallocDebug) != (python.pymalloc_roots.len() == 1) {
                wrong.push(format!("PYTHONMALLOC={value}: roots {:x?}", python.pymalloc_roots));
            }
            case.collector(wrong);
        });
    }
}

#[test]
fn tracemalloc_is_looked_through() {
    each(
        |i| i.minor() >= (3, 6) && !i.is_debug(),
        &[],
        &[("PYTHONTRACEMALLOC", "1")],
        |case, wrong| {
            let a = &case.python.allocators;
            if a.obj != Mode::Pymalloc {
                wrong.push(format!("allocators {a:?}"));
            }
            // Hooks of a stripped binary have no names.
            let named =
                case.python.image(&case.target).is_some_and(|i| i.symbol("tracemalloc_realloc").is_some());
            if named && !a.tracemalloc {
                wrong.push(format!("tracemalloc was not noticed: {a:?}"));
            }
        },
    );
}

/// The file with its symbol table taken out, as distributions ship it.
fn stripped(
    interpreter: &Interpreter,
    folder: &std::path::Path,
) -> Result<Option<std::path::PathBuf>, String> {
    let case = open(interpreter, &[], &[])?;
    let image = case.python.image(&case.target).ok_or("no image")?;
    let path = String::from_utf8_lossy(&image.path).into_owned();
    // A library can be put before the other by LD_PRELOAD; a program cannot.
    if !path.contains(".so") {
        return Ok(None);
    }
    let out = folder.join(path.rsplit('/').next().unwrap_or("libpython.so"));
    let done = std::process::Command::new("strip").arg("-o").arg(&out).arg(&path).status();
    match done {
        Ok(status) if status.success() => Ok(Some(out)),
        other => Err(format!("strip {path}: {other:?}")),
    }
}

#[test]
fn a_stripped_interpreter_is_found_by_what_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut failures = Vec::new();
    let mut covered = 0;
    for interpreter in interpreters().iter().filter(|i| i.root.is_none() && !i.is_debug()) {
        let mut wrong = Vec::new();
        match stripped(interpreter, folder.path()) {
            Ok(None) => continue,
            Err(e) => wrong.push(e),
            Ok(Some(library)) => {
                match open(interpreter, &[], &[("LD_PRELOAD", &library.to_string_lossy())]) {
                    Err(e) => wrong.push(e),
                    Ok(case) => {
                        covered += 1;
                        case.identity(&mut wrong);
                        case.collector(&mut wrong);
                        case.interned(&mut wrong);
                        case.stacks(&mut wrong);
                        if case.python.allocators.obj != Mode::Pymalloc
                            || case.python.pymalloc_roots.len() != 1
                        {
                            wrong.push(format!(
                                "{:?} {:x?}",
                                case.python.allocators, case.python.pymalloc_roots
                            ));
                        }
                        // Statics up to 3.9 have no symbols any more: that is said.
                        let noted = !case.python.free_lists(&case.target).notes.is_empty();
                        if noted == case.python.version.at_least(3, 10) {
                            wrong.push(format!("free lists: noted {noted}"));
                        }
                    }
                }
            }
        }
        failures
            .extend(wrong.into_iter().map(|w| format!("{} ({}): {w}", interpreter.version, interpreter.tag)));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(covered > 0, "no interpreter is a library");
}

/// Interpreters of one process, with arenas of their own or shared.
#[test]
fn subinterpreters_are_listed() {
    // An interpreter of which no id is kept is destroyed.
    const SCRIPT: &str = "
import sys, os
v = sys.version_info
if v >= (3, 13):
    import _interpreters as I
    keep = I.create('legacy'), I.create('isolated')
elif v >= (3, 12):
    import _xxsubinterpreters as I
    keep = I.create(isolated=False), I.create(isolated=True)
else:
    import _xxsubinterpreters as I
    keep = I.create(), I.create()
sys.stdout.write('ready %d\\n' % os.getpid()); sys.stdout.flush()
while os.read(0, 1): pass
";
    for interpreter in interpreters().iter().filter(|i| i.minor() >= (3, 8)) {
        let process = interpreter.spawn(SCRIPT).expect("a target");
        let target = attach(process.pid(), &LiveOptions::default()).expect("a capture");
        let python = Python::find(&target).expect("a python");
        let ids: Vec<i64> = python.interpreters.iter().map(|i| i.id).collect();
        let name = (&interpreter.version, &interpreter.tag);
        assert_eq!(ids, [0, 1, 2], "{name:?}");
        assert_eq!(python.main().map(|i| i.id), Some(0), "{name:?}");
        // From 3.12 on an isolated one has arenas of its own; the legacy one shares the main one's.
        let own = if python.version.at_least(3, 12) { 2 } else { 1 };
        assert_eq!(python.pymalloc_roots.len(), own, "{name:?} {:?}", python.notes);
        let states = python.owned_blocks(&target).iter().filter(|o| o.kind == "interpreter state").count();
        // The main one is static from 3.11 on.
        assert_eq!(states, if python.version.at_least(3, 11) { 2 } else { 3 }, "{name:?}");
        assert_eq!(python.notes, [""; 0], "{name:?}");
    }
}

#[test]
fn what_is_no_python_is_said_so() {
    let mut command = std::process::Command::new("sh");
    command.arg("-c").arg("echo ready $$; read x");
    let process = wmr_testing::Target::start(command).expect("sh");
    let target = attach(process.pid(), &LiveOptions::default()).expect("attach");
    assert_eq!(Python::find(&target).err(), Some(FindError::NotPython));
}
