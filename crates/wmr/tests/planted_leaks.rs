//! Leaks of every kind that people make, each planted by a small program: the first finding must name
//! the culprit, and what is no leak must not be called one.

mod common;

use common::wmr;
use serde_json::Value;
use std::path::{Path, PathBuf};
use wmr_testing::{Interpreter, READY, TempFile, at_rest, build_extension, python};

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
    Planted::new("new_never_deleted", "native", &["class Session", "sessions"]).extension(CPP),
    Planted::new("proxy_without_destructor", "native", &["class Connection", "sessions"]).extension(CPP),
];

const REFERENCES: &[Planted] = &[
    Planted::new("float_not_given_back", "objects", &["float", "1234.5"]).extension(C),
    Planted::new("list_not_given_back", "objects", &["of list"]).extension(C),
    Planted::new("type_not_given_back", "surplus", &["<class culprit.Sticky>"]).extension(C).count(1),
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
    Planted::new("high_threshold", "garbage", &["__main__.Node", "1,000,000"]).count(1000),
];

const AUDIT: &[Planted] = &[
    Planted::new("field_not_visited", "audit", &["culprit.Pair", "field at 24", "__main__.Node", "culprit."])
        .extension(C)
        .count(1000),
    Planted::new("nothing_visited", "audit", &["culprit.Blind", "field at 16"]).extension(C).count(1000),
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
    let output = wmr(&["leaks", &target.pid().to_string(), "--json"]).output().unwrap();
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
        let least = (planted.count - planted.count / 50).saturating_sub(5).max(1);
        assert!((least..=planted.count).contains(&count), "{told}");
        assert!(document["bytes"].as_u64() >= first["bytes"].as_u64(), "{told}");
    }
}

#[test]
fn native() {
    NATIVE.iter().for_each(check);
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
