//! Labels, and targets side by side.

mod common;

use common::{failure, json, output, stdout, wmr};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use wmr_testing::{Target, compile_c, python};

/// Runs with labels in `state`.
fn kept(state: &Path, arguments: &[&str]) -> Value {
    let text = stdout(wmr(arguments).arg("--json").env("XDG_STATE_HOME", state));
    serde_json::from_str(&text).unwrap()
}

/// gdb-heap's own case: a label, three more blocks, the difference.
#[test]
fn three_more_blocks() {
    const SOURCE: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(void) {
    char c;
    malloc(100);
    dprintf(1, "ready %d\n", getpid());
    read(0, &c, 1);
    for (int i = 0; i < 3; i++) malloc(1000);
    dprintf(1, "more\n");
    pause();
}
"#;
    let program = compile_c(SOURCE, &["-O0"]).unwrap();
    let mut target = Target::start(std::process::Command::new(&*program)).unwrap();
    let pid = target.pid().to_string();
    let state = tempfile::tempdir().unwrap();
    kept(state.path(), &["label", &pid, "before"]);
    let log = kept(state.path(), &["log", &pid]);
    assert_eq!(log["rows"][0]["name"], json!("before"));
    target.send("on").unwrap();
    assert_eq!(target.line().unwrap(), "more");
    for arguments in [vec!["diff", &pid, "before"], vec!["diff", &pid]] {
        let said = wmr(&arguments).arg("--json").env("XDG_STATE_HOME", state.path()).output().unwrap();
        // No Python in it.
        assert_eq!(said.status.code(), Some(4), "{}", String::from_utf8_lossy(&said.stderr));
        let diff: Value = serde_json::from_slice(&said.stdout).unwrap();
        assert_eq!(diff["new"], json!({ "count": 3, "bytes": 3 * 1008 }));
        assert_eq!(diff["freed"], json!({ "count": 0, "bytes": 0 }));
        assert_eq!(diff["reused"], json!({ "count": 0, "bytes": 0 }));
        assert_eq!(diff["rows"].as_array().unwrap().len(), 1);
    }
}

/// What is freed and allocated again at the same addresses has not stayed the same.
#[test]
fn addresses_used_anew() {
    const SCRIPT: &str = r#"
import os, sys
kept = [i + 0.5 for i in range(100000)]
sys.stdout.write("ready %d\n" % os.getpid()); sys.stdout.flush()
os.read(0, 1)
# One by one: arenas that are wholly free would go back to the system.
for i in range(100000): kept[i] = None; kept[i] = complex(1.5, 2.5)
sys.stdout.write("more\n"); sys.stdout.flush()
os.read(0, 100); os.read(0, 100)
"#;
    let mut target = python("3.11").unwrap().spawn(SCRIPT).unwrap();
    let pid = target.pid().to_string();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("before.wmr");
    let file = file.to_str().unwrap();
    json(&["snapshot", &pid, "-o", file]);
    target.send("").unwrap();
    assert_eq!(target.line().unwrap(), "more");
    let diff = json(&["diff", file, &pid]);
    let row = |kind: &str| diff["rows"].as_array().unwrap().iter().find(|row| row["kind"] == kind).cloned();
    let (complex, float) = (row("complex").unwrap(), row("float").unwrap());
    let lost = float["before"]["count"].as_u64().unwrap() - float["after"]["count"].as_u64().unwrap();
    let won = complex["after"]["count"].as_u64().unwrap() - complex["before"]["count"].as_u64().unwrap();
    assert!(lost >= 99_900 && won >= 99_999, "{float} {complex}");
    let reused = complex["reused"]["count"].as_u64().unwrap();
    assert!(reused >= 95_000, "{complex}");
    assert!(diff["reused"]["count"].as_u64().unwrap() >= reused);
    let page = stdout(wmr(&["diff", file, &pid]).env("COLUMNS", "80"));
    assert!(page.lines().all(|line| line.chars().count() <= 80), "{page}");
    // With itself nothing changed.
    let same = json(&["diff", file, file]);
    assert_eq!((&same["new"]["count"], &same["rows"]), (&json!(0), &json!([])));
    // Another process: warned, and done.
    let other = python("3.11").unwrap().spawn(&format!("x = 1{}", wmr_testing::READY)).unwrap();
    let diff = json(&["diff", file, &other.pid().to_string()]);
    assert!(diff["notes"][0].as_str().unwrap().contains("two processes"), "{}", diff["notes"]);
}

#[test]
fn labels_that_are_wrong() {
    for name in ["a/b", "..", "../x", "a\nb", "\u{1b}[31m", ""] {
        let said = output(&["label", "1", name]);
        let words = String::from_utf8_lossy(&said.stderr);
        assert_eq!(said.status.code(), Some(2), "{name:?}: {words}");
        assert!(words.contains("is no name for a label") && !words.contains('\u{1b}'), "{words}");
    }
    insta::assert_snapshot!("label_of_file", failure(&["label", "some.core", "x"]));
    insta::assert_snapshot!("diff_of_one_file", failure(&["diff", "some.core"]));
    let state = tempfile::tempdir().unwrap();
    let said = wmr(&["diff", "1", "never"]).env("XDG_STATE_HOME", state.path()).output().unwrap();
    insta::assert_snapshot!("diff_no_label", String::from_utf8_lossy(&said.stderr));
    // A folder that is a file cannot be written to, by root neither; nothing is stopped for it.
    let file = state.path().join("file");
    std::fs::write(&file, "").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o400)).unwrap();
    let said = wmr(&["label", "1", "x"]).env("XDG_STATE_HOME", &file).output().unwrap();
    let words = String::from_utf8_lossy(&said.stderr);
    assert_eq!(said.status.code(), Some(1), "{words}");
    assert!(words.contains("cannot write") && words.contains("set XDG_STATE_HOME"), "{words}");
}
