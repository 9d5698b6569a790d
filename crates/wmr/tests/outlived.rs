//! Processes whose first thread has ended before the others: what is read of them comes from a thread that lives.

mod common;

use common::{json, stdout, wmr};
use serde_json::{Value, json};
use wmr_testing::{Target, python};

/// A parent that forks two workers. Its first thread has ended, and so has that of one of the workers.
const SCRIPT: &str = r#"
import ctypes, os, sys, threading
DATA = ["object %d" % n for n in range(60000)]
exit_thread = ctypes.CDLL(None).pthread_exit
def has_ended(pid):
    with open("/proc/%d/stat" % pid) as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] == "Z"
def outlive(body):
    pid = os.getpid()
    def wait():
        while not has_ended(pid): pass
        body()
        os._exit(0)
    threading.Thread(target=wait).start()
    exit_thread(None)
def end_of_input():
    while os.read(0, 1): pass
def fork(body):
    ours, theirs = os.pipe()
    pid = os.fork()
    if not pid:
        def ready():
            os.write(theirs, b"r")
            end_of_input()
        body(ready)
        os._exit(0)
    os.read(ours, 1)
    print(pid)
def parent():
    fork(lambda ready: ready())
    fork(outlive)
    print("ready %d" % os.getpid()); sys.stdout.flush()
    end_of_input()
outlive(parent)
"#;

/// The parent, its worker as any other, and its worker without a first thread.
fn family() -> (Target, i32, i32) {
    let parent = python("3.11").expect("a CPython 3.11 is needed").spawn(SCRIPT).unwrap();
    let workers: Vec<i32> = parent.truth().iter().map(|line| line.parse().unwrap()).collect();
    (parent, workers[0], workers[1])
}

fn row(document: &Value, pid: i32) -> &Value {
    let rows = document["rows"].as_array().unwrap();
    rows.iter().find(|row| row["pid"] == json!(pid)).unwrap_or_else(|| panic!("{pid} is not listed"))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("a number, not {value}"))
}

const MIB: u64 = 1 << 20;

#[test]
fn every_command_answers() {
    let (parent, _, worker) = family();
    let folder = tempfile::tempdir().unwrap();
    for pid in [parent.pid(), worker].map(|pid| pid.to_string()) {
        for arguments in [
            &[&*pid][..],
            &["heap", &pid],
            &["map", &pid],
            &["map", &pid, "--sharing"],
            &["threads", &pid],
            &["arenas", &pid],
            &["leaks", &pid],
        ] {
            let document = json(arguments);
            assert_eq!(document["target"]["pid"].to_string(), pid, "{arguments:?}");
            assert!(number(&document["target"]["rss"]) > 4 * MIB, "{arguments:?}: {}", document["target"]);
            let notes = document["notes"].to_string();
            assert!(notes.contains("first thread has ended"), "{arguments:?}: {notes}");
            assert!(!notes.contains("not known"), "{arguments:?}: {notes}");
        }
        for what in ["core", "snapshot"] {
            let file = folder.path().join(what);
            let path = file.to_str().unwrap();
            stdout(&mut wmr(&[what, &pid, "-o", path]));
            let heap = json(&["heap", path]);
            assert!(heap["rows"].to_string().contains("\"str\""), "{what}");
            std::fs::remove_file(file).unwrap();
        }
    }
}

#[test]
fn they_are_listed_and_belong_to_their_family() {
    let (parent, plain, outlived) = family();
    let document = json(&["ps", "--tree"]);
    // Others may have, as tests run side by side.
    let notes = document["notes"].to_string();
    for pid in [parent.pid(), plain, outlived] {
        assert!(!notes.contains(&format!("process {pid} ended meanwhile")), "{notes}");
    }
    let top = row(&document, parent.pid());
    assert_eq!((&top["family"], &top["version"]), (&json!(parent.pid()), &json!("3.11")));
    for pid in [plain, outlived] {
        let worker = row(&document, pid);
        assert_eq!((&worker["family"], &worker["ppid"]), (&json!(parent.pid()), &json!(parent.pid())));
        assert!(number(&worker["shared_with_parent"]) > 4 * MIB, "{worker}");
        assert!(number(&worker["rss"]) > number(&worker["uss"]), "{worker}");
        let since = &json(&["map", &pid.to_string(), "--sharing"])["since_fork"];
        assert_eq!(since["parent"], json!(parent.pid()));
        assert!(number(&since["shared_with_parent"]) > 4 * MIB, "{since}");
    }
}
