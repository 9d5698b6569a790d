//! Parents and the workers they forked, as the program tells of them.

mod common;

use common::{json, output, stdout, wmr};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use wmr_testing::{Family, Interpreter, Kind, READY, at_rest, interpreters, python};

const NOBODY: u32 = 65534;

fn row(document: &Value, pid: i32) -> &Value {
    let rows = document["rows"].as_array().unwrap();
    rows.iter().find(|row| row["pid"] == json!(pid)).unwrap_or_else(|| panic!("{pid} is not listed"))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("a number, not {value}"))
}

fn sum(rows: &Value, key: &str) -> u64 {
    rows.as_array().unwrap().iter().map(|row| number(&row[key])).sum()
}

fn family() -> Family {
    let mut family = Family::start(python("3.11").expect("a CPython 3.11 is needed")).unwrap();
    family.work().unwrap();
    at_rest(family.parent.pid()).unwrap();
    family
}

#[test]
fn a_tree_says_what_workers_share() {
    let family = family();
    let parent = family.parent.pid();
    let document = json(&["ps", "--tree"]);
    assert_eq!(document["schema"], json!("wmr/ps/1"));
    let top = row(&document, parent);
    assert_eq!((&top["family"], top.get("unshared")), (&json!(parent), None));
    for (name, pid) in &family.workers {
        let worker = row(&document, *pid);
        assert_eq!((&worker["family"], &worker["ppid"]), (&json!(parent), &json!(parent)));
        let resident = number(&worker["rss"]);
        let known = ["shared_with_parent", "unshared", "own"].map(|key| number(&worker[key]));
        assert!(known.iter().sum::<u64>() <= resident, "{name}: {known:?} of {resident}");
    }
    let unshared = |name: &str| number(&row(&document, family.worker(name))["unshared"]);
    assert!(unshared("use 100") > unshared("use 50") && unshared("use 50") > unshared("use 0"));
    // Without the option nothing is compared, and the rows are what they were.
    assert_eq!(row(&json(&["ps"]), family.worker("use 0")).get("family"), None);

    let text = stdout(&mut wmr(&["ps", "--tree"]));
    let after: Vec<&str> =
        text.lines().skip_while(|line| !line.starts_with(&format!("  {parent} "))).collect();
    for (line, (i, (_, pid))) in after[1..].iter().zip(family.workers.iter().enumerate()) {
        let branch = if i + 1 == family.workers.len() { "└─" } else { "├─" };
        assert!(line.starts_with(&format!("  {branch} {pid} ")), "{text}");
    }
    let plain = stdout(wmr(&["ps", "--tree"]).env("LC_ALL", "C"));
    assert!(plain.contains(&format!("\n  |- {} ", family.worker("use 0"))), "{plain}");
    let table = stdout(&mut wmr(&["ps", "--tree", "--csv"]));
    assert!(
        table
            .lines()
            .next()
            .unwrap()
            .ends_with("cmdline,family,shared_with_parent,unshared,own,shared_with_siblings")
    );
}

/// Sums hold, and the documents agree with each other.
fn expect_sums(document: &Value) {
    let total = number(&document["total"]);
    assert_eq!(number(&document["private"]) + number(&document["shared"]), total);
    for rows in ["domains", "rows"] {
        let rows = &document[rows];
        assert_eq!(
            (sum(rows, "private"), sum(rows, "shared")),
            (number(&document["private"]), number(&document["shared"]))
        );
        for row in rows.as_array().unwrap() {
            assert_eq!(number(&row["private"]) + number(&row["shared"]), number(&row["bytes"]), "{row}");
        }
    }
    let Some(since) = document.get("since_fork") else { return };
    assert_eq!(sum(&since["rows"], "bytes"), number(&since["unshared"]));
    for row in since["rows"].as_array().unwrap() {
        let parts = ["refcounts", "gc_heads", "nothing", "other", "unread"].map(|key| number(&row[key]));
        assert_eq!(parts.iter().sum::<u64>(), number(&row["bytes"]), "{row}");
    }
}

#[test]
fn why_pages_were_copied() {
    let mut family = family();
    let pid = |name: &str| family.worker(name).to_string();
    for (name, what) in [("use 100", "refcounts"), ("write", "other"), ("collect", "gc_heads")] {
        let document = json(&["map", &pid(name), "--sharing"]);
        assert_eq!(document["schema"], json!("wmr/map-sharing/1"));
        expect_sums(&document);
        let since = &document["since_fork"];
        assert_eq!(since["parent"], json!(family.parent.pid()));
        let arenas = &since["rows"][0];
        assert_eq!(arenas["place"], json!("pymalloc"));
        let share = number(&arenas[what]) as f64 / number(&arenas["bytes"]) as f64;
        assert!(share > 0.7, "{name}: {share} {what}: {arenas}");
        insta::assert_snapshot!("since_fork_keys", keys(since));
    }
    let text = stdout(&mut wmr(&["map", &pid("use 100"), "--sharing"]));
    assert!(text.contains(&format!("SINCE THE FORK from process {}", family.parent.pid())), "{text}");
    // Of the parent, which nobody forked, the sums alone.
    let document = json(&["map", &family.parent.pid().to_string(), "--sharing"]);
    expect_sums(&document);
    assert_eq!(document.get("since_fork"), None);
    let table = stdout(&mut wmr(&["map", &pid("write"), "--sharing", "--csv"]));
    assert!(table.starts_with("domain,kind,bytes,private,shared"), "{table}");
    // All of them still do what they are told.
    family.work().unwrap();
}

fn keys(value: &Value) -> String {
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    format!("{}\nrows: {}", keys(value), keys(&value["rows"][0]))
}

#[test]
fn a_core_does_not_tell() {
    let said = output(&["map", "core.1234", "--sharing"]);
    assert_eq!(said.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&said.stderr).contains("--sharing is for processes"));
}

#[test]
fn a_parent_that_started_anew() {
    let python = python("3.11").expect("a CPython 3.11 is needed");
    let target = python.spawn(&Family::starts_anew()).unwrap();
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", target.pid())).unwrap();
    let document = json(&["map", children.trim(), "--sharing"]);
    assert_eq!(document.get("since_fork"), None);
    let notes = document["notes"].to_string();
    assert!(notes.contains("started anew"), "{notes}");
}

/// An interpreter that any user can run.
fn for_everybody() -> Option<&'static Interpreter> {
    let is_root = std::fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t");
    interpreters().iter().find(|python| is_root && python.kind == Kind::System)
}

/// The program as somebody without rights runs it.
struct Unprivileged(tempfile::TempDir);

impl Unprivileged {
    fn new() -> Unprivileged {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::copy(common::program(), folder.path().join("wmr")).unwrap();
        Unprivileged(folder)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let mut command = Command::new(self.0.path().join("wmr"));
        command.args(arguments).arg("--json").current_dir("/").uid(NOBODY).gid(NOBODY);
        serde_json::from_str(&stdout(&mut command)).unwrap()
    }
}

/// The kernel tells no frames: what others map too counts as shared with the parent.
#[test]
fn without_rights() {
    let Some(python) = for_everybody() else { return };
    let program = Unprivileged::new();
    let mut family = Family::start_with(python, |command| {
        command.uid(NOBODY).gid(NOBODY).current_dir("/");
    })
    .unwrap();
    family.work().unwrap();
    at_rest(family.parent.pid()).unwrap();
    let (told, by_root) = (program.json(&["ps", "--tree"]), json(&["ps", "--tree"]));
    assert_eq!((&told["compared_by"], &by_root["compared_by"]), (&json!("exclusive"), &json!("frames")));
    for (name, pid) in &family.workers {
        let (told, by_root) = (row(&told, *pid), row(&by_root, *pid));
        assert_eq!(told["family"], by_root["family"]);
        let exact = number(&by_root["unshared"]) - number(&by_root["shared_with_siblings"]);
        let found = number(&told["unshared"]);
        assert!(found.abs_diff(exact) <= exact / 50 + (24 << 12), "{name}: {found}, exactly {exact}");
        assert_eq!(told.get("shared_with_siblings"), None);
    }
    // Where no security module forbids it to look at its own.
    let allowed = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    if allowed.is_ok_and(|scope| scope.trim() != "0") {
        return;
    }
    let document = program.json(&["map", &family.worker("use 100").to_string(), "--sharing"]);
    expect_sums(&document);
    let arenas = &document["since_fork"]["rows"][0];
    assert!(number(&arenas["refcounts"]) as f64 > 0.9 * number(&arenas["bytes"]) as f64, "{arenas}");
}

/// A server that gives up its rights in its workers: their parent cannot be looked into by their user.
#[test]
fn a_parent_that_may_not_be_read() {
    let Some(python) = for_everybody() else { return };
    let script = format!(
        "import ctypes, os\nreader, writer = os.pipe()\nready, told = os.pipe()\npid = os.fork()\n\
         if not pid:\n    os.close(writer); os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n    \
         ctypes.CDLL(None).prctl(4, 1, 0, 0, 0); os.write(told, b'.'); os.read(reader, 1); os._exit(0)\n\
         os.read(ready, 1); print('worker %d' % pid)\n{READY}"
    );
    let target = python.spawn(&script).unwrap();
    let worker: i32 = target.truth()[0].strip_prefix("worker ").unwrap().parse().unwrap();
    assert_eq!(row(&json(&["ps", "--tree"]), worker)["family"], json!(target.pid()));
    let document = Unprivileged::new().json(&["ps", "--tree"]);
    assert_eq!(row(&document, worker).get("family"), None);
    let note =
        format!("process {} may not be looked into: what its workers share is not known", target.pid());
    assert!(document["notes"].as_array().unwrap().contains(&json!(note)), "{}", document["notes"]);
}
