//! Help pages and errors, word by word.

mod common;

use common::{failure, json, output, stdout, target, wmr};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

#[test]
fn help_pages() {
    insta::assert_snapshot!("help", stdout(&mut wmr(&["--help"])));
    for command in [
        "ps", "heap", "select", "used", "free", "all", "show", "hexdump", "arenas", "map", "sizes", "path",
        "retained", "refs", "tree", "what-if", "types", "leaks", "snapshot", "core", "watch", "diff",
        "label", "log", "demo",
    ] {
        insta::assert_snapshot!(format!("help_{command}"), stdout(&mut wmr(&[command, "--help"])));
    }
}

#[test]
fn wrong_use() {
    let cases: &[&[&str]] = &[
        &["heap"],
        &["4", "heap", "4"],
        &["heap", "4", "--by", "color"],
        &["ps", "--csv", "--json"],
        &["4", "--max-memory", "lots"],
    ];
    for (i, arguments) in cases.iter().enumerate() {
        insta::assert_snapshot!(format!("wrong_use_{i}"), failure(arguments));
    }
    assert_eq!(output(&[]).status.code(), Some(2));
}

#[test]
fn no_such_target() {
    insta::assert_snapshot!("no_such_pid", failure(&["999999999"]));
    insta::assert_snapshot!("too_large_pid", failure(&["99999999999999999999"]));
    insta::assert_snapshot!("no_such_file", failure(&["nowhere.core"]));
    insta::assert_snapshot!("no_such_file_shown_harmless", failure(&["\u{1b}[31m\u{202e}.core"]));
}

#[test]
fn files_that_are_no_cores() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| {
        std::fs::write(folder.path().join(name), content).unwrap();
        let said = wmr(&[name]).current_dir(folder.path()).output().unwrap();
        format!("exit {:?}\n{}", said.status.code(), String::from_utf8_lossy(&said.stderr))
    };
    insta::assert_snapshot!("text_file", write("text", b"Dude, where's my RAM?\n"));
    insta::assert_snapshot!("empty_file", write("empty", b""));
    insta::assert_snapshot!("header_cut_off", write("short", b"\x7fELF\x02\x01\x01"));
    insta::assert_snapshot!("a_program", write("program", &std::fs::read("/proc/self/exe").unwrap()));
    insta::assert_snapshot!("folder", failure(&["/proc"]));
}

/// Nobody ever writes to it: to open it would wait for ever.
#[test]
fn a_pipe_is_no_target() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let pipe = pipe.to_str().unwrap();
    for arguments in [vec![pipe], vec!["heap", pipe], vec!["refs", pipe, "0x10"]] {
        let said = output(&arguments);
        assert_eq!(said.status.code(), Some(1), "{arguments:?}");
        assert!(String::from_utf8_lossy(&said.stderr).contains("a TARGET is a pid"), "{arguments:?}");
    }
}

/// A process that is no Python: the native ledger is printed all the same.
#[test]
fn not_python() {
    let mut sleep = Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = sleep.id().to_string();
    // Until it has become `sleep`.
    while !std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep") {
        std::thread::yield_now();
    }
    for arguments in [vec![pid.as_str()], vec!["heap", &pid], vec!["arenas", &pid], vec!["sizes", &pid]] {
        let said = output(&arguments);
        assert_eq!(said.status.code(), Some(4), "{arguments:?}");
        assert!(String::from_utf8_lossy(&said.stderr).contains("there is no CPython in it"));
        assert!(!said.stdout.is_empty());
    }
    let said = output(&["heap", &pid, "--json"]);
    let document: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
    assert!(document["ledger"]["total"].as_u64().unwrap() > 0);
    assert_eq!(document["target"].get("python"), None);
    sleep.kill().unwrap();
    // Not waited for yet: a zombie.
    while !std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") Z ") {
        std::thread::yield_now();
    }
    let said = failure(&[&pid]);
    let us = std::process::id().to_string();
    insta::assert_snapshot!("zombie", said.replace(&us, "PARENT").replace(&pid, "PID"));
    sleep.wait().unwrap();
}

#[test]
fn kernel_thread() {
    // Not to be seen from inside a container.
    if std::fs::read_to_string("/proc/2/comm").is_ok_and(|name| name.trim() == "kthreadd") {
        insta::assert_snapshot!("kernel_thread", failure(&["2"]));
    }
}

/// Another user's process, looked at without any capability. Needs root to become somebody else.
#[test]
fn not_permitted() {
    if !std::fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t") {
        return;
    }
    let target = common::target();
    // Where nobody can run it.
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("wmr");
    std::fs::copy(common::program(), &program).unwrap();
    let said = Command::new(&program)
        .arg(target.pid().to_string())
        .current_dir("/")
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    assert_eq!(said.status.code(), Some(3));
    let said = String::from_utf8_lossy(&said.stderr)
        .replace(&program.to_string_lossy().into_owned(), "wmr")
        .replace(&target.pid().to_string(), "PID");
    insta::assert_snapshot!("not_permitted", said);
}

/// `wmr … | head` is no error, and says nothing.
#[test]
fn a_reader_that_leaves() {
    let mut child = wmr(&["--help"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let said = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stderr), "");

    let target = common::target();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let said = wmr(&["map", &target.pid().to_string()]).stdout(writer).output().unwrap();
    assert_eq!((said.status.code(), String::from_utf8_lossy(&said.stderr).as_ref()), (Some(0), ""));
}

/// A file whose name is all digits, given with its folder, is a file.
#[test]
fn a_file_named_like_a_pid() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = std::fs::File::create(folder.path().join("1")).unwrap();
    file.write_all(b"text").unwrap();
    let said = wmr(&["./1"]).current_dir(folder.path()).output().unwrap();
    assert!(String::from_utf8_lossy(&said.stderr).contains("not an ELF core file"));
}

#[test]
fn a_flag_that_is_advised_may_be_there_already() {
    let target = target();
    let pid = target.pid().to_string();
    let refused = failure(&["heap", &pid, "--max-pause", "0"]);
    let command = refused.lines().find_map(|line| line.trim().strip_prefix("if that is acceptable: wmr "));
    let words: Vec<&str> = command.unwrap_or_else(|| panic!("{refused}")).split(' ').collect();
    assert_eq!(words[..4], ["heap", &pid, "--max-pause", "0"]);
    assert_eq!(json(&words)["capture"]["method"], "clone");
    let refused = failure(&["heap", &pid, "--capture", "stop", "--max-memory", "1M", "--max-pause", "1000"]);
    assert!(refused.contains("above the limit of 1.0 MiB"), "{refused}");
    assert!(refused.contains("--max-memory 1M --max-pause 1000 --max-memory 2G"), "{refused}");
}
