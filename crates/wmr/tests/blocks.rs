//! Listings of blocks and single addresses, against what the targets say of themselves.

mod common;

use common::{failure, json, output, stdout, target, wmr};
use serde_json::{Value, json};
use wmr_testing::{READY, Target, compile_c, gcore, python};

fn matched(pid: &str, expression: &str) -> (u64, u64) {
    // Not Python: exit code 4, and the answer all the same.
    let said = output(&["select", pid, expression, "--json", "--limit", "1"]);
    let document: Value = serde_json::from_slice(&said.stdout)
        .unwrap_or_else(|e| panic!("{expression}: {e}: {}", String::from_utf8_lossy(&said.stderr)));
    let matched = &document["matched"];
    (matched["count"].as_u64().unwrap(), matched["bytes"].as_u64().unwrap())
}

/// What gdb-heap tries itself on, in C.
const SCENARIOS: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
    static char buffer[64];
    setvbuf(stdout, buffer, _IOLBF, sizeof buffer);
    if (!strcmp(argv[1], "small"))
        for (int i = 0; i < 1500; i++) malloc(1 + i % 15);
    if (!strcmp(argv[1], "large"))
        for (int i = 1; i <= 10; i++) malloc((size_t)i << 20);
    if (!strcmp(argv[1], "mixed")) {
        void *blocks[100];
        for (int i = 0; i < 100; i++) blocks[i] = malloc(256);
        free(blocks[50]);
        malloc(1000); malloc(1000); malloc(256000);
    }
    printf("ready %d\n", getpid());
    pause();
}
"#;

#[test]
fn scenarios_of_malloc() {
    let program = compile_c(SCENARIOS, &["-O0"]).unwrap();
    let start = |scenario: &str| {
        let mut command = std::process::Command::new(&*program);
        command.arg(scenario);
        Target::start(command).unwrap()
    };
    let used = |target: &Target, bytes: &str| {
        matched(&target.pid().to_string(), &format!("state = 'used' and kind = 'unknown' and {bytes}"))
    };
    let none = start("none");
    assert_eq!(used(&none, "bytes > 0"), (0, 0));
    let small = start("small");
    assert_eq!(used(&small, "size = 32"), (1500, 48_000));
    let large = start("large");
    assert_eq!(used(&large, "bytes > 512K and arena is null"), (10, 57_712_640));
    let mixed = start("mixed");
    assert_eq!(used(&mixed, "size = 272"), (99, 99 * 272));
    assert_eq!(used(&mixed, "bytes between 1000 and 1010"), (2, 2 * 1008));
    assert_eq!(used(&mixed, "bytes > 200K"), (1, 258_048));
    assert_eq!(used(&mixed, "bytes > 0"), (102, 99 * 272 + 2 * 1008 + 258_048));
    // What was freed waits in the thread's cache.
    let pid = mixed.pid().to_string();
    assert_eq!(matched(&pid, "kind = 'tcache' and state = 'free' and bytes = 272"), (1, 272));
}

/// Kinds of object as gdb-heap's own script has them.
const KINDS: &str = r#"
import sys, sqlite3, collections
class Old:
    pass
class New(object):
    def __init__(self, n):
        self.n = n
class Slotted(object):
    __slots__ = ("a", "b")
class Large(object):
    def __init__(self):
        for i in range(9):
            setattr(self, "attribute_%d" % i, i)
Pair = collections.namedtuple("Pair", "left right")
old, new = [Old() for _ in range(11)], [New(n) for n in range(12)]
for n, o in enumerate(old):
    o.n = n
slotted, large = [Slotted() for _ in range(13)], [Large() for _ in range(14)]
pairs = [Pair(n, n) for n in range(15)]
sets, frozen = [set(range(64)) for _ in range(16)], [frozenset(range(64)) for _ in range(17)]
connection = sqlite3.connect(":memory:")
connection.execute("create table t (a, b)")
def function(a, b=1): return a + b
class Meta(type): pass
codes = [compile("x = %d" % n, "f", "exec") for n in range(18)]
interned = [sys.intern(str("name_%d" % n)) if hasattr(sys, "intern") else intern("name_%d" % n) for n in range(100)]
print("%d %d %d" % (id(new[3]), sys.getrefcount(new[3]) - 1, sys.getsizeof(new[3])))
print("%d %d %d" % (id(large[0]), sys.getrefcount(large[0]) - 1, sys.getsizeof(large[0])))
print("%d %d %d" % (id(slotted[1]), sys.getrefcount(slotted[1]) - 1, sys.getsizeof(slotted[1])))
print("%d %d %d" % (id(old[3]), sys.getrefcount(old[3]) - 1, sys.getsizeof(old[3])))
"#;

#[test]
fn every_kind_of_object() {
    for tag in ["2.7", "3.11", "3.13"] {
        let Some(python) = python(tag) else { continue };
        let target = python.spawn(&format!("{KINDS}{READY}")).unwrap();
        let pid = target.pid().to_string();
        let core = gcore(target.pid()).unwrap();
        // `os.environ` is a classic instance too.
        let old = if tag == "2.7" { ("instance", 12) } else { ("__main__.Old", 11) };
        for subject in [pid.as_str(), core.to_str().unwrap()] {
            let cases = [old, ("__main__.New", 12), ("__main__.Slotted", 13), ("__main__.Large", 14)];
            for (kind, count) in cases.into_iter().chain([("__main__.Pair", 15), ("sqlite3.Connection", 1)]) {
                let (found, _) = matched(subject, &format!("domain = 'python' and kind = '{kind}'"));
                assert_eq!(found, count, "{tag} {subject} {kind}");
            }
            // A table of 64 entries is a block of its own, which its set owns.
            let (tables, _) = matched(subject, "kind = 'set table' and bytes >= 2K and owner is not null");
            assert!(tables >= 33, "{tag} {subject}: {tables}");
            for kind in ["code", "str", "dict", "frozenset", "function", "type"] {
                assert!(matched(subject, &format!("type = '{kind}'")).0 > 3, "{tag} {subject} {kind}");
            }
            // The table of interned strings, exactly once.
            let heap = output(&["heap", subject, "--json"]);
            let heap: Value = serde_json::from_slice(&heap.stdout).unwrap();
            let interned = |row: &&Value| ["kind", "detail"].iter().any(|key| row[key] == "interned");
            let interned: Vec<&Value> = heap["rows"].as_array().unwrap().iter().filter(interned).collect();
            assert!(interned.len() == 1 && interned[0]["count"] == 1, "{tag} {subject}: {interned:?}");
            assert!(matched(subject, "kind = 'sqlite connection'").0 == 1, "{tag} {subject}");
        }
        for line in target.truth() {
            let numbers: Vec<u64> = line.split(' ').map(|n| n.parse().unwrap()).collect();
            let [id, references, size] = numbers[..] else { panic!("{line}") };
            for addr in [id.to_string(), format!("{:#x}", id + 9)] {
                let shown = json(&["show", &pid, &addr]);
                let object = &shown["object"];
                assert_eq!(object["addr"], json!(format!("{id:#x}")), "{tag}");
                assert_eq!(object["refcount"], json!(references), "{tag}: {object}");
                assert_eq!(object["sizeof"], json!(size), "{tag}: {object}");
            }
        }
        let said: Vec<u64> = target.truth()[1].split(' ').map(|n| n.parse().unwrap()).collect();
        let shown = json(&["show", &pid, &said[0].to_string()]);
        let attributes = shown["object"]["attributes"].as_array().unwrap();
        // The first ones; a dict of Python 2 has them in no order.
        assert_eq!(attributes.len(), 8, "{tag}");
        assert!(attributes.iter().all(|a| a["name"].as_str().unwrap().starts_with("attribute_")), "{tag}");
        let of = |name: &str| attributes.iter().find(|a| a["name"] == name).map(|a| a["value"].clone());
        assert!(of("attribute_3").is_none_or(|value| value == json!("3")), "{tag}: {attributes:?}");
    }
}

/// Any table takes a filter, and counts what a listing with it counts.
#[test]
fn tables_of_a_part() {
    let target = target();
    let pid = target.pid().to_string();
    let total = |arguments: &[&str]| {
        let document = json(arguments);
        let total = &document["total"];
        (total["count"].as_u64().unwrap(), total["bytes"].as_u64().unwrap())
    };
    for filter in [
        "type = '__main__.Entry'",
        "domain = 'malloc' and state = 'free'",
        "kind = 'str' or kind = 'free block'",
        "allocator = 'malloc' and bytes > 1K and state = 'used'",
    ] {
        assert_eq!(total(&["heap", &pid, "--where", filter]), matched(&pid, filter), "{filter}");
    }
    let used = "state = 'used' and bytes between 64 and 512";
    for by in ["size", "arena"] {
        assert_eq!(total(&["heap", &pid, "--by", by, "--where", used]), matched(&pid, used), "{by}");
    }
    assert_eq!(total(&["sizes", &pid, "--by", "size"]), total(&["heap", &pid, "--by", "size"]));
    let types = json(&["heap", &pid, "--by", "type", "--where", "module = '__main__'"]);
    let types = types["rows"].as_array().unwrap();
    assert!(types.len() == 1 && types[0]["count"] == 3000 && types[0]["gc_tracked"] == 3000, "{types:?}");
    let modules = json(&["heap", &pid, "--by", "module", "--where", "refcount = 1 and module = '__main__'"]);
    assert_eq!(modules["rows"][0]["count"], json!(3000));

    // Arenas of malloc: every command that lists blocks can be about one.
    let arenas = json(&["heap", &pid, "--by", "arena", "--where", "allocator = 'malloc'"]);
    for row in arenas["rows"].as_array().unwrap().iter().filter(|row| row.get("number").is_some()) {
        let (number, addr) = (row["number"].to_string(), row["addr"].as_str().unwrap());
        let one = json(&["arenas", &pid, "--arena", &number]);
        assert!(one["malloc"].as_array().unwrap().len() == 1 && one["malloc"][0]["addr"] == addr, "{one}");
        assert_eq!(one["malloc"][0]["used_chunks"], row["count"], "{row}");
        for command in ["used", "all"] {
            let listing = json(&[command, &pid, "--arena", &number, "--where", "state = 'used'"]);
            assert_eq!(listing["matched"]["count"], row["count"], "{command} {row}");
        }
        let heap = total(&["heap", &pid, "--arena", addr, "--where", "state = 'used'"]);
        assert_eq!(heap.0, row["count"].as_u64().unwrap(), "{row}");
    }
    let entries = ["--where", "type = '__main__.Entry'"];
    let retained = json(&[&["retained", &pid, "--by", "type"], &entries[..]].concat());
    assert_eq!(retained["rows"].as_array().unwrap().len(), 1);
    assert_eq!(retained["rows"][0]["count"], json!(3000));
    assert_eq!(json(&[&["path", &pid], &entries[..]].concat())["count"], json!(3000));
    let both = ["path", &pid, "--type", "Entry", "--where", "refcount > 1000"];
    assert!(failure(&both).contains("no Python object is refcount > 1000"), "{}", failure(&both));
    for by in ["clodo", "referrer-types", "retained"] {
        assert_eq!(total(&[&["heap", &pid, "--by", by], &entries[..]].concat()).0, 3000, "{by}");
    }
    // Of modules and roots what matches is counted, and nothing else.
    for by in ["module", "root"] {
        let part = json(&[&["retained", &pid, "--by", by], &entries[..]].concat());
        let rows = part["rows"].as_array().unwrap().iter();
        let kept: u64 = rows.map(|row| row["count"].as_u64().unwrap()).sum();
        assert_eq!(kept + part["shared_count"].as_u64().unwrap(), 3000, "{by}: {part}");
    }
    // Objects above pymalloc's limit lie in malloc's arenas.
    let large = json(&["path", &pid, "--arena", "0"])["count"].as_u64().unwrap();
    assert!(large > 0 && large < 3000, "{large}");
    let diff = json(&[&["diff", &pid, &pid], &entries[..]].concat());
    assert_eq!(diff["unchanged"]["count"], json!(3000));
    // What is wrong is said before anything is opened.
    for command in ["heap", "retained", "diff", "path", "used", "arenas"] {
        let flag = if command == "arenas" { ["--arena", "x"] } else { ["--where", "colour = 3"] };
        let mut arguments = vec![command, "1"];
        arguments.extend(if command == "diff" { vec!["1"] } else { vec![] });
        arguments.extend(flag);
        assert_eq!(output(&arguments).status.code(), Some(2), "{command}");
    }
}

/// What an object refers to and who refers to it, by the target's own word.
#[test]
fn references_of_one_object() {
    const SCRIPT: &str = r#"
import gc
class Node(object):
    def __init__(self, *others): self.others, self.name = others, "x"
center = Node(1.5)
users = [Node(center), {"key": center}, [0, center], (center,), {center: 1}]
users.append(set([center]))
gc.collect()
print("of %d" % id(center))
for one in gc.get_referents(center.__dict__) + [type(center)]: print("to %d" % id(one))
for one in users[1:]: print("from %d" % id(one))
print("from %d" % id(users[0].others))
"#;
    for tag in ["2.7", "3.8", "3.11", "3.13", "3.15"] {
        let Some(python) = python(tag) else { continue };
        let target = python.spawn(&format!("{SCRIPT}{READY}")).unwrap();
        let said = |what: &str| -> Vec<String> {
            let ids = target.truth().iter().filter_map(|line| line.strip_prefix(what)?.trim().parse().ok());
            ids.map(|id: u64| format!("{id:#x}")).collect()
        };
        let shown = json(&["show", &target.pid().to_string(), &said("of")[0], "--refs"]);
        let object = &shown["object"];
        let addresses = |key: &str| -> Vec<&str> {
            object[key].as_array().unwrap().iter().map(|one| one["addr"].as_str().unwrap()).collect()
        };
        let (to, from) = (addresses("referents"), addresses("referrers"));
        for id in said("from") {
            assert!(from.contains(&id.as_str()), "{tag}: {id} does not refer to it: {object}");
        }
        // An instance refers to its dict, or to what would be in it.
        if !["2.7", "3.8"].contains(&tag) {
            let ids: Vec<String> = said("to").into_iter().filter(|id| !to.contains(&id.as_str())).collect();
            assert!(ids.is_empty() || to.len() <= 2, "{tag}: {ids:?}: {object}");
        }
        assert!(object["retained"].as_u64().unwrap() > object["sizeof"].as_u64().unwrap(), "{tag}: {object}");
        let via =
            |kind: &str| object["referrers"].as_array().unwrap().iter().any(|one| one["via"]["kind"] == kind);
        assert!(via("index") && via("key") && via("value"), "{tag}: {object}");
    }
}

/// A listing and the table of kinds count the same.
#[test]
fn listings_add_up() {
    let target = target();
    let pid = target.pid().to_string();
    let heap = json(&["heap", &pid]);
    for domain in ["python", "cpython", "native"] {
        let rows = heap["rows"].as_array().unwrap().iter().filter(|row| row["domain"] == domain);
        let rows: Vec<&Value> = rows.filter(|row| row["kind"] != "Python frames").collect();
        let count: u64 = rows.iter().map(|row| row["count"].as_u64().unwrap()).sum();
        let bytes: u64 = rows.iter().map(|row| row["bytes"].as_u64().unwrap()).sum();
        assert_eq!(matched(&pid, &format!("domain = '{domain}'")), (count, bytes), "{domain}");
    }
    let whole = json(&["all", &pid]);
    let rows = whole["rows"].as_array().unwrap();
    assert_eq!(rows.len() as u64, whole["matched"]["count"].as_u64().unwrap());
    let addr = |row: &Value| u64::from_str_radix(&row["addr"].as_str().unwrap()[2..], 16).unwrap();
    assert!(rows.windows(2).all(|pair| addr(&pair[0]) < addr(&pair[1])));
    let largest = json(&["all", &pid, "--sort", "bytes", "--limit", "20"]);
    let mut sizes: Vec<u64> = rows.iter().map(|row| row["bytes"].as_u64().unwrap()).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let top: Vec<u64> =
        largest["rows"].as_array().unwrap().iter().map(|row| row["bytes"].as_u64().unwrap()).collect();
    assert_eq!(top, sizes[..20]);
    // Three thousand entries, each with a list, all by the same filter said in other words.
    for expression in [
        "type = '__main__.Entry'",
        r#"kind="__main__.Entry""#,
        "module = '__main__' and kind like '%.Entry' and refcount = 1",
        "not (type != '__main__.Entry')",
        "bytes * 2 > 0 and type in ('__main__.Entry', 'nothing')",
    ] {
        assert_eq!(matched(&pid, expression).0, 3000, "{expression}");
    }
    let columns = stdout(&mut wmr(&[
        "used",
        &pid,
        "--where",
        "type = '__main__.Entry'",
        "--columns",
        "bytes,type",
        "--csv",
        "--limit",
        "1",
    ]));
    assert!(columns.starts_with("bytes,type\n") && columns.ends_with(",__main__.Entry\n"), "{columns}");
}

#[test]
fn expressions_that_are_wrong() {
    // Nothing is opened for them: pid 1 is not touched.
    let cases = [
        ("unknown_column", "kind = 'str' and colour > 3"),
        ("unquoted_text", "kind = str"),
        ("types_differ", "bytes > 'large'"),
        ("open_quote", "kind = 'str and bytes > 1"),
        ("ends_early", "bytes between 1 and"),
        ("harmful", "kind = \u{1b}[31m"),
    ];
    for (name, expression) in cases {
        insta::assert_snapshot!(format!("where_{name}"), failure(&["select", "1", expression]));
    }
    let long = format!("bytes > 1{}", " or bytes > 1".repeat(7_000));
    insta::assert_snapshot!("where_long", failure(&["select", "1", &long]));
    insta::assert_snapshot!("where_deep", failure(&["select", "1", &"(".repeat(50_000)]));
    insta::assert_snapshot!("where_sort", failure(&["used", "1", "--sort", "bytes:up"]));
    insta::assert_snapshot!("where_columns", failure(&["used", "1", "--columns", "addr,colour"]));
}

#[test]
fn addresses_that_are_wrong() {
    let target = target();
    let pid = target.pid().to_string();
    insta::assert_snapshot!("addr_word", failure(&["show", &pid, "somewhere"]));
    insta::assert_snapshot!("addr_too_large", failure(&["hexdump", &pid, "0x10000000000000000"]));
    insta::assert_snapshot!("addr_kernel", failure(&["show", &pid, "0xffffffff81000000"]));
    insta::assert_snapshot!("addr_length", failure(&["hexdump", &pid, "0x1000", "2M"]));
    let said = failure(&["show", &pid, "0x10"]);
    assert!(said.starts_with("exit 1") && said.contains("0x10 is not mapped"), "{said}");

    let map = json(&["map", &pid]);
    let rows = map["rows"].as_array().unwrap();
    let edge = |row: &Value, key: &str| u64::from_str_radix(&row[key].as_str().unwrap()[2..], 16).unwrap();
    // Ends cleanly where the mapping does, and says why: also where another one follows.
    let heap = rows.iter().position(|row| row.get("path") == Some(&json!("[heap]"))).unwrap();
    let is_data = |row: &Value| row["perms"].as_str().is_some_and(|perms| perms.starts_with("rw"));
    let followed = |two: &[Value]| two[0]["end"] == two[1]["start"] && is_data(&two[0]);
    let followed = rows.windows(2).position(followed).expect("a library's data and what follows");
    for row in [heap, followed] {
        let end = edge(&rows[row], "end");
        let dump = json(&["hexdump", &pid, &format!("{:#x}", end - 24), "4K"]);
        assert_eq!((dump["bytes"].as_u64(), &dump["ended"]["addr"]), (Some(24), &json!(format!("{end:#x}"))));
        assert_eq!(dump["ended"]["why"], json!("the mapping ends"));
    }
    // Every kind of place can be asked about, at odd addresses too.
    for row in rows {
        let start = edge(row, "start");
        let shown = json(&["show", &pid, &(start + 0x123).to_string()]);
        assert_eq!(shown["mapping"]["start"], row["start"]);
    }
}
