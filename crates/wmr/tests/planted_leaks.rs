//! Leaks of every kind that people make, each planted by a small program: the first finding must name
//! the culprit, and what is no leak must not be called one.

mod common;

use common::wmr;
use serde_json::Value;
use std::path::{Path, PathBuf};
use wmr_testing::{
    Interpreter, READY, Target, TempFile, at_rest, build_extension, gcore, python, venv, workload,
};

/// A program in `planted/`, and what must be said of it.
struct Planted {
    /// File name without `.py`.
    program: &'static str,
    /// File name of the extension it imports, in C or C++.
    extension: Option<&'static str>,
    /// Tags of the interpreters it runs on.
    on: &'static [&'static str],
    /// Section of the first finding.
    section: &'static str,
    /// How sure the first finding is at least.
    sure: &'static str,
    /// What of the first finding must be in its text.
    says: &'static [&'static str],
    /// Objects or blocks of the first finding; a few may still be in a dead slot of a stack.
    count: u64,
}

impl Planted {
    const fn new(program: &'static str, section: &'static str, says: &'static [&'static str]) -> Planted {
        Planted { program, extension: None, on: EACH, section, sure: "likely", says, count: 500 }
    }

    const fn extension(self, file: &'static str) -> Planted {
        Planted { extension: Some(file), on: WITH_HEADERS, ..self }
    }

    const fn on(self, on: &'static [&'static str]) -> Planted {
        Planted { on, ..self }
    }

    const fn certain(self) -> Planted {
        Planted { sure: "certain", ..self }
    }

    const fn count(self, count: u64) -> Planted {
        Planted { count, ..self }
    }
}

const EACH: &[&str] = &["3.8", "3.11", "3.13", "3.14", "3.15"];
const WITH_TWO: &[&str] = &["2.7", "3.8", "3.11", "3.13", "3.15"];
/// Extensions are built with what pyenv has.
const WITH_HEADERS: &[&str] = &["3.8", "3.11", "3.13"];
const C: &str = "culprit.c";
const CPP: &str = "sessions.cpp";

const NATIVE: &[Planted] = &[
    Planted::new("malloc_never_freed", "native", &["1,000 bytes", "culprit"]).extension(C),
    Planted::new("malloc_with_addresses", "native", &["culprit", "http://example.org/"]).extension(C),
    Planted::new("malloc_in_ended_thread", "native", &["2,008 bytes", "0x5a"]).extension(C),
    Planted::new("tree_never_freed", "native", &["104 bytes"]).extension(C),
    Planted::new("holder_never_freed", "native", &["104 bytes"]).extension(C),
    Planted::new("new_never_deleted", "native", &["class Session", "sessions"]).extension(CPP),
    Planted::new("proxy_without_destructor", "native", &["class Connection", "sessions"]).extension(CPP),
];

const REFERENCES: &[Planted] = &[
    Planted::new("float_not_given_back", "objects", &["float", "1234.5"]).extension(C),
    Planted::new("list_not_given_back", "objects", &["of list"]).extension(C),
    Planted::new("instances_of_local_classes", "objects", &["make.<locals>.Local"]).extension(C).count(200),
    Planted::new("type_not_given_back", "surplus", &["culprit.Sticky"]).extension(C).count(1),
    Planted::new("too_many_references", "surplus", &["__main__.CONFIG", "__main__.Job"])
        .extension(C)
        .count(1),
    Planted::new("one_too_many_each", "surplus", &["__main__.Job"]).extension(C),
    Planted::new("too_few_references", "deficit", &["__main__.Job", "crash"]).extension(C),
];

const GARBAGE: &[Planted] = &[
    Planted::new(
        "cycle_collector_off",
        "garbage",
        &["2 __main__.Node", "a.peer → b.peer → a", "gc.enable()"],
    )
    .on(WITH_TWO)
    .certain()
    .count(1000),
    Planted::new("garbage_list", "garbage", &["__main__.Node", "gc.garbage", "__del__"])
        .on(&["2.7"])
        .certain()
        .count(1000),
    Planted::new("saved_for_debugging", "garbage", &["__main__.Node", "DEBUG_SAVEALL"])
        .on(WITH_TWO)
        .certain()
        .count(1000),
    Planted::new("known_by_their_ids", "garbage", &["__main__.Node", "a.itself → a"]).on(WITH_TWO).certain(),
    Planted::new("high_threshold", "garbage", &["__main__.Node", "1,000,000"]).count(1000),
];

const AUDIT: &[Planted] = &[
    Planted::new("field_not_visited", "audit", &["culprit.Pair", "field at 24", "__main__.Node", "culprit."])
        .extension(C)
        .count(1000),
    Planted::new("nothing_visited", "audit", &["culprit.Blind", "field at 16"]).extension(C).count(1000),
    Planted::new("no_traverse", "audit", &["culprit.Opaque", "has no tp_traverse", "field at 16"])
        .extension(C)
        .on(&["3.8", "3.10"])
        .certain()
        .count(1000),
    Planted::new("not_collected_at_all", "audit", &["culprit.Plain", "Py_TPFLAGS_HAVE_GC"])
        .extension(C)
        .certain()
        .count(1000),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/planted")
}

/// Where a program's extension was built, for that interpreter.
fn built(planted: &Planted, python: &Interpreter) -> Option<TempFile> {
    let source = folder().join(planted.extension?);
    Some(
        build_extension(python, &source)
            .unwrap_or_else(|e| panic!("{} on {}: {e}", planted.program, python.tag)),
    )
}

fn report(planted: &Planted, python: &Interpreter) -> Value {
    report_of(planted, python, |target| wmr(&["leaks", &target.pid().to_string(), "--json"]))
}

fn report_of(
    planted: &Planted,
    python: &Interpreter,
    command: impl FnOnce(&Target) -> std::process::Command,
) -> Value {
    let script = std::fs::read_to_string(folder().join(planted.program).with_extension("py")).unwrap();
    let extension = built(planted, python);
    let target = python
        .spawn_with(&format!("{script}{READY}"), |command| {
            if let Some(folder) = extension.as_deref().and_then(Path::parent) {
                command.env("PYTHONPATH", folder);
            }
        })
        .unwrap();
    at_rest(target.pid()).unwrap();
    let output = command(&target).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} on {}: {said}", planted.program, python.tag);
    serde_json::from_slice(&output.stdout).unwrap()
}

fn check(planted: &Planted) {
    for tag in planted.on {
        let document = report(planted, python(tag).unwrap());
        let first = &document["findings"][0];
        let told = format!("on {tag}: {first:#}");
        assert_eq!(first["section"], planted.section, "{told}");
        let sure = first["sure"].as_str().unwrap_or_default();
        assert!(sure == "certain" || sure == planted.sure, "{told}");
        // Where the variable, the type or the library is told does not matter, as long as it is.
        for word in planted.says {
            assert!(told.contains(word), "{word} is not in {told}");
        }
        let count = first["count"].as_u64().unwrap();
        let least = (planted.count - planted.count / 25).saturating_sub(5).max(1);
        assert!((least..=planted.count + planted.count / 50).contains(&count), "{told}");
        assert!(document["bytes"].as_u64() >= first["bytes"].as_u64(), "{told}");
    }
}

#[test]
fn native() {
    NATIVE.iter().for_each(check);
}

/// Into how many mappings the kernel joins them is not ours to say, nor whether a word somewhere happens to point
/// into one of them: what lies behind it is not told then.
#[test]
fn mapped_memory_that_nobody_points_into_is_lost() {
    let planted = Planted::new("mapping_never_unmapped", "native", &[]).extension(C);
    for tag in planted.on {
        let document = report(&planted, python(tag).unwrap());
        let findings = document["findings"].as_array().unwrap();
        let mapped = findings.iter().filter(|finding| {
            let what = finding["what"].as_str().unwrap_or_default();
            finding["section"] == "native" && what.contains("anonymous mapping")
        });
        let bytes: u64 = mapped.filter_map(|finding| finding["bytes"].as_u64()).sum();
        // What was mapped for something else beside it and forgotten may be in it.
        assert!((1 << 18..42 << 18).contains(&bytes), "on {tag}: {document:#}");
    }
}

/// Of a process, and of a core, which has all that was mapped. From glibc 2.42 on gdb's cores lack whole stacks, for
/// their guards: what is lost then nobody can say.
fn expect_no_native(planted: &Planted) {
    let expect_none = |tag: &str, document: &Value| {
        let findings = document["findings"].as_array().unwrap();
        assert!(findings.iter().all(|finding| finding["section"] != "native"), "{tag}: {findings:#?}");
    };
    for tag in planted.on {
        let python = python(tag).unwrap();
        expect_none(tag, &report(planted, python));
        if WITH_HEADERS.contains(tag) {
            let mut core = None;
            let of_core = report_of(planted, python, |target| {
                let core = core.insert(gcore(target.pid()).unwrap());
                wmr(&["leaks", core.to_str().unwrap(), "--json"])
            });
            expect_none(tag, &of_core);
        }
    }
}

#[test]
fn mapped_memory_in_use_is_no_leak() {
    expect_no_native(&Planted::new("mapping_in_use", "native", &[]).extension(C));
}

#[test]
fn stacks_of_threads_that_ended_are_no_leak() {
    expect_no_native(&Planted::new("threads_that_ended", "native", &[]));
}

#[test]
fn references() {
    REFERENCES.iter().for_each(check);
}

#[test]
fn garbage() {
    GARBAGE.iter().for_each(check);
}

#[test]
fn audit() {
    AUDIT.iter().for_each(check);
}

/// What a lost block holds was not lost by itself: it is told behind the block.
#[test]
fn what_lost_blocks_hold_is_told_as_such() {
    let planted = NATIVE.iter().find(|planted| planted.program == "holder_never_freed").unwrap();
    let document = report(planted, python("3.11").unwrap());
    let second = &document["findings"][1];
    let told = format!("{second:#}");
    assert!(second["section"] == "objects" && told.contains("__main__.Session"), "{told}");
    assert!(told.contains("blocks that are lost themselves") && !told.contains("Py_DECREF"), "{told}");
}

/// On the first, the last and two in between.
const PYTHONS: &[&str] = &["3.8", "3.11", "3.13", "3.15"];
/// Where a program is about a style and not about the interpreter.
const ONE: &[&str] = &["3.11"];

const fn suspect(
    program: &'static str,
    on: &'static [&'static str],
    says: &'static [&'static str],
    count: u64,
) -> Planted {
    Planted { program, extension: None, on, section: "suspects", sure: "likely", says, count }
}

const SUSPECTS: &[Planted] = &[
    suspect("module_list", PYTHONS, &["__main__.EVENTS", "__main__.Event", "handle adds"], 5000),
    suspect("dict_cache", PYTHONS, &["__main__.RESPONSES"], 5000),
    suspect(
        "lru_cache_unbounded",
        PYTHONS,
        &["__main__.squares", "lru_cache(maxsize=None) of squares"],
        3000,
    ),
    suspect("class_attribute", PYTHONS, &["__main__.Order.items"], 4000),
    suspect("closure_capture", PYTHONS, &["__main__.log closure seen"], 5000),
    suspect("exception_kept", PYTHONS, &["__main__.last_error", "ValueError", "traceback"], 1),
    suspect("exceptions_kept", PYTHONS, &["__main__.monitor.failures", "kept exceptions"], 300),
    suspect("thread_local_pool", PYTHONS, &["__main__.local", "thread-local"], 12_000),
    suspect("dead_threads", PYTHONS, &["__main__.JOBS", "threads that have ended"], 150),
    suspect("asyncio_tasks", PYTHONS, &["__main__.background", "finished tasks"], 2000),
    suspect("callback_registry", PYTHONS, &["__main__.bus.listeners", "callbacks"], 2000),
    suspect("logging_handlers", PYTHONS, &["shop.requests", "log handlers"], 600),
    suspect("weakref_callbacks", PYTHONS, &["__main__.watchers", "weak references with callbacks"], 3000),
    suspect("generator_suspended", PYTHONS, &["__main__.pending", "parsed", "suspended"], 5000),
    suspect(
        "atexit_callbacks",
        &["3.8", "3.11", "3.13", "3.14", "3.15"],
        &["atexit", "callbacks of atexit"],
        2000,
    ),
    suspect("modules_made_anew", WITH_TWO, &["sys.modules['job_*']", "job_*"], 800),
    suspect("ctypes_callbacks", PYTHONS, &["__main__.keep_alive", "C callbacks"], 2000),
];

/// As programs are written, none of which any inspector knows.
const STYLES: &[Planted] = &[
    suspect("local_of_a_server", PYTHONS, &["handled", "__main__.Message", "serve adds to it"], 8000),
    suspect("history_of_sessions", ONE, &["__main__.sessions[…].history"], 36000),
    suspect("signal_receivers", ONE, &["__main__.post_save.receivers"], 2000),
    suspect("identity_map", ONE, &["__main__.session.identity_map", "__main__.Customer"], 4000),
    suspect("deque_without_end", ONE, &["__main__.sampler.history", "maxlen"], 6000),
    suspect("lists_by_key", ONE, &["__main__.visits", "__main__.Visit"], 8000),
    suspect("registering_instances", ONE, &["__main__.Widget.instances"], 4500),
    suspect("bus_of_a_package", ONE, &["shop.bus.", "replay", "shop.bus.Message"], 3000),
    suspect("queue_never_drained", ONE, &["__main__.jobs.queue"], 4000),
    suspect("linked_list", ONE, &["__main__.document", "__main__.State in a chain"], 5000),
    suspect("closed_connections", ONE, &["__main__.pool.known", "closed"], 500),
    suspect("finalizers", ONE, &["weakref.finalize._registry", "finalizers"], 2000),
];

#[test]
fn suspects() {
    SUSPECTS.iter().for_each(check);
}

#[test]
fn suspects_of_other_styles() {
    STYLES.iter().for_each(check);
}

/// A program whose memory is held by fragmentation only.
const FRAGMENTED: Planted = suspect("fragmentation_only", PYTHONS, &[], 0);

#[test]
fn fragmentation_is_not_a_leak() {
    for tag in FRAGMENTED.on {
        let document = report(&FRAGMENTED, python(tag).unwrap());
        let findings = document["findings"].as_array().unwrap();
        assert!(findings.iter().all(|finding| finding["sure"] == "possible"), "{tag}: {findings:#?}");
        assert_eq!(document["verdict"], "not a leak: memory is held by fragmentation", "{tag}");
        let held =
            document["not_leaks"].as_array().unwrap().iter().find(|row| row["kind"] == "fragmentation");
        assert!(held.unwrap()["bytes"].as_u64() > Some(10 << 20), "{tag}: {held:?}");
    }
}

/// What is lost, waits, accumulates and is miscounted, in one process.
#[test]
fn each_leak_of_many_is_told() {
    let target = python("3.11")
        .unwrap()
        .spawn_file(&workload("w4_leak.py"), |command| {
            command.arg("20000");
        })
        .unwrap();
    at_rest(target.pid()).unwrap();
    let document = common::json(&["leaks", &target.pid().to_string()]);
    let suspect = &document["suspects"][0];
    assert_eq!(suspect["where"], "leaky.EVENTS", "{document:#}");
    assert_eq!(suspect["count"].as_u64(), Some(20_000), "{suspect:#}");
    // The last one may still be on a stack.
    let native = &document["native"]["definite"];
    assert!((9_995..=10_010).contains(&native["count"].as_u64().unwrap()), "{native:#}");
    let row = |section: &str, ty: &str| {
        let rows = document[section]["rows"].as_array().unwrap();
        rows.iter().find(|row| row["type"] == ty).cloned().unwrap_or_else(|| panic!("{ty} in {document:#}"))
    };
    let nodes = row("garbage", "__main__.Node");
    assert!((3_990..=4_000).contains(&nodes["count"].as_u64().unwrap()), "{nodes:#}");
    assert!((1_995..=2_000).contains(&nodes["cycles"].as_u64().unwrap()), "{nodes:#}");
    let sections: Vec<&str> = document["findings"]
        .as_array()
        .unwrap()
        .iter()
        .take(3)
        .filter_map(|f| f["section"].as_str())
        .collect();
    for section in ["native", "garbage", "suspects"] {
        assert!(sections.contains(&section), "{sections:?}");
    }
}

/// None of what is lost, miscounted or hidden is more than possible; suspects are another matter.
fn expect_innocent(target: &Target, what: &str, with_suspects: bool) {
    at_rest(target.pid()).unwrap();
    let document = common::json(&["leaks", &target.pid().to_string()]);
    let findings = document["findings"].as_array().unwrap().iter();
    let accused: Vec<&Value> = findings
        .filter(|finding| finding["sure"] != "possible")
        .filter(|finding| with_suspects || finding["section"] != "suspects")
        .collect();
    assert!(accused.is_empty(), "{what}: {accused:#?}");
}

#[test]
fn programs_that_hold_what_they_have_are_not_accused() {
    const SERVER: &str = "import asyncio, os\n\
        async def echo(r, w):\n\
        \x20   w.write(await r.read(100)); await w.drain(); w.close(); await w.wait_closed()\n\
        async def ask(port):\n\
        \x20   r, w = await asyncio.open_connection('127.0.0.1', port)\n\
        \x20   w.write(b'hello'); await w.drain(); await r.read(); w.close()\n\
        async def main():\n\
        \x20   server = await asyncio.start_server(echo, '127.0.0.1', 0)\n\
        \x20   for _ in range(50): await ask(server.sockets[0].getsockname()[1])\n\
        \x20   tasks = [asyncio.create_task(asyncio.sleep(10000)) for _ in range(100)]\n\
        \x20   await asyncio.sleep(0.05)\n\
        \x20   print('ready', os.getpid(), flush=True)\n\
        \x20   os.read(0, 1)\n\
        asyncio.run(main())\n";
    const FLASK: &str = "import flask\napp = flask.Flask('x')\nclient = app.test_client()\n\
        kept = [client.get('/') for _ in range(50)]\n";
    // Frames of those that wait refer to what nobody else knows of.
    const GREENLETS: &str = "import greenlet\nmain = greenlet.getcurrent()\n\
        def wait(deep):\n    kept = [deep]\n    return wait(deep - 1) if deep else main.switch(kept)\n\
        waiting = [greenlet.greenlet(wait) for _ in range(300)]\n\
        for one in waiting: one.switch(50)\n";
    let python = venv("3.13").expect("a virtual environment: cargo xtask pythons");
    expect_innocent(&python.spawn(&format!("{GREENLETS}{READY}")).unwrap(), "greenlets", false);
    expect_innocent(&python.spawn(SERVER).unwrap(), "server", true);
    expect_innocent(&python.spawn(&format!("{FLASK}{READY}")).unwrap(), "flask", false);
    for (name, size) in [("w1_seed.py", "2000"), ("w2_web.py", "3000"), ("w5_small.py", "20000")] {
        let target = python
            .spawn_file(&workload(name), |command| {
                command.arg(size);
            })
            .unwrap();
        expect_innocent(&target, name, false);
    }
}

#[test]
fn idle_interpreters_have_no_likely_findings() {
    const IDLE: &str = "import asyncio, collections, concurrent.futures, dataclasses, decimal, email, enum, http.client, \
                        json, logging, re, sqlite3, ssl, subprocess, typing, unittest, urllib.request, xml.dom\n\
                        import linecache; linecache.getlines(re.__file__)\n";
    for tag in PYTHONS {
        let target = python(tag).unwrap().spawn(&format!("{IDLE}{READY}")).unwrap();
        expect_innocent(&target, tag, true);
    }
}

#[test]
fn a_story_says_what_each_step_is_good_for() {
    let planted = suspect("exceptions_kept", ONE, &[], 300);
    let script = std::fs::read_to_string(folder().join("exceptions_kept.py")).unwrap();
    let target = python(planted.on[0]).unwrap().spawn(&format!("{script}{READY}")).unwrap();
    at_rest(target.pid()).unwrap();
    let pid = target.pid().to_string();
    let errors = common::json(&["select", &pid, "type = 'IndexError'", "--limit", "1"]);
    let error = &errors["rows"][0];
    let story = common::json(&["leaks", &pid, "--story", error["addr"].as_str().unwrap()]);
    assert_eq!(story["schema"], "wmr/story/1");
    let steps = story["steps"].as_array().unwrap();
    let told: Vec<(&str, &str, bool)> = steps
        .iter()
        .map(|step| {
            let text = |key: &str| step[key].as_str().unwrap();
            (text("type"), text("status"), step["suspect"].as_bool().unwrap())
        })
        .collect();
    let expected = [
        ("module", "not leaking", false),
        ("__main__.Monitor", "unknown", true),
        ("list", "unknown", true),
        ("IndexError", "leaking", true),
    ];
    assert_eq!(told, expected, "{story:#}");
}
