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

const C: Option<&str> = Some("culprit.c");

const NATIVE: &[Planted] = &[Planted {
    program: "malloc_never_freed",
    extension: C,
    on: &["3.8", "3.11", "3.13"],
    section: "native",
    sure: "likely",
    says: &["1,000 bytes"],
    count: 500,
}];

const GARBAGE: &[Planted] = &[Planted {
    program: "cycle_collector_off",
    extension: None,
    on: &["3.8", "3.11", "3.13", "3.14", "3.15"],
    section: "garbage",
    sure: "certain",
    says: &["2 __main__.Node\""],
    count: 1000,
}];

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
        let told = format!("{} on {tag}: {first:#}", planted.program);
        assert_eq!(first["section"], planted.section, "{told}");
        let sure = first["sure"].as_str().unwrap_or_default();
        assert!(sure == "certain" || sure == planted.sure, "{told}");
        // Where the variable, the type or the library is told does not matter, as long as it is.
        for word in planted.says {
            assert!(told.contains(word), "{word} is not in {told}");
        }
        let count = first["count"].as_u64().unwrap();
        let least = planted.count - planted.count / 50 - 5;
        assert!((least..=planted.count + planted.count / 50).contains(&count), "{told}");
        assert!(document["bytes"].as_u64() >= first["bytes"].as_u64(), "{told}");
    }
}

#[test]
fn native() {
    NATIVE.iter().for_each(check);
}

#[test]
fn garbage() {
    GARBAGE.iter().for_each(check);
}
