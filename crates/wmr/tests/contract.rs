//! What others script against: the JSON documents' keys and types, and that their sums hold.

mod common;

use common::{json, stdout, target, wmr};
use serde_json::{Map, Value, json};
use wmr_testing::{READY, gcore, interpreters, python};

/// The types of a document: objects by key, lists by what all their items have. A key that only some
/// items have ends with `?`.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), shape(value))).collect(),
        Value::Array(items) => match items.iter().map(shape).reduce(merge) {
            Some(item) => json!([item]),
            None => json!([]),
        },
        Value::String(text) if text.starts_with("0x") => json!("address"),
        Value::String(_) => json!("text"),
        Value::Number(n) if n.is_u64() => json!("integer"),
        Value::Number(_) => json!("number"),
        Value::Bool(_) => json!("bool"),
        Value::Null => json!("null"),
    }
}

fn merge(a: Value, b: Value) -> Value {
    // A list of lists: an empty one says nothing of its items.
    if let (Value::Array(a), Value::Array(b)) = (&a, &b) {
        return a.iter().chain(b).cloned().reduce(merge).into_iter().collect();
    }
    let (Value::Object(a), Value::Object(b)) = (&a, &b) else {
        // The value of a reference is an index or a name.
        let either = |a: &Value, b: &Value| a == "integer" && (b == "text" || b == "integer or text");
        if either(&a, &b) || either(&b, &a) {
            return json!("integer or text");
        }
        if a == "integer or text" && b == "text" || a == "text" && b == "integer or text" {
            return json!("integer or text");
        }
        assert_eq!(a, b, "items of one list differ");
        return a;
    };
    let optional = |key: &str| format!("{}?", key.trim_end_matches('?'));
    let mut merged = Map::new();
    for (key, value) in a {
        let plain = key.trim_end_matches('?');
        match b.get(plain).or_else(|| b.get(&optional(plain))) {
            Some(other) => {
                let both = b.contains_key(plain) && !key.ends_with('?');
                let key = if both { key.clone() } else { optional(key) };
                merged.insert(key, merge(value.clone(), other.clone()));
            }
            None => drop(merged.insert(optional(key), value.clone())),
        }
    }
    for (key, value) in b {
        let plain = key.trim_end_matches('?');
        if !a.contains_key(plain) && !a.contains_key(&optional(plain)) {
            merged.insert(optional(key), value.clone());
        }
    }
    Value::Object(merged)
}

fn shape_of(document: &Value) -> String {
    let mut shape = shape(document);
    for fact in ["schema", "target", "capture", "notes"] {
        assert!(document.get(fact).is_some(), "no {fact}");
        if let Some(fields) = shape.as_object_mut().filter(|_| fact != "schema") {
            fields.shift_remove(fact);
        }
    }
    shape["schema"] = document["schema"].clone();
    serde_json::to_string_pretty(&shape).unwrap()
}

fn sum(rows: &Value, key: &str) -> u64 {
    rows.as_array().unwrap().iter().map(|row| row[key].as_u64().unwrap()).sum()
}

/// Loses blocks and cycles.
const LEAKING: &str = r#"
import ctypes, gc
gc.disable()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
for n in range(200): ctypes.memset(libc.malloc(3000), 1, 3000)
class Node: pass
for n in range(100):
    a, b = Node(), Node()
    a.peer, b.peer = b, a
del a, b
"#;

#[test]
fn documents_of_threads_and_counts() {
    let target = target();
    let pid = target.pid().to_string();
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("dump.json");
    let dump = dump.to_str().unwrap();
    let cases: [(&str, &[&str]); 6] = [
        ("threads", &["threads", &pid, "--locals"]),
        ("total_refs", &["total-refs", &pid, "--limit", "5"]),
        ("alive", &["alive", &pid, "--limit", "3000"]),
        ("export", &["export", &pid, "--format", "meliae", "-o", dump]),
        ("foreign_retained", &["retained", dump, "--limit", "5"]),
        ("foreign_path", &["path", dump, "--type", "Entry"]),
    ];
    for (name, arguments) in cases {
        insta::assert_snapshot!(format!("shape_{name}"), shape_of(&json(arguments)));
    }
}

#[test]
fn documents() {
    let target = target();
    let pid = target.pid().to_string();
    let entries = json(&["select", &pid, "type = '__main__.Entry'", "--limit", "1"]);
    let entry = entries["rows"][0]["addr"].as_str().unwrap();
    let cases: [(&str, &[&str]); 27] = [
        ("blocks", &["select", &pid, "bytes > 16 and type is not null or state = 'free'", "--limit", "5000"]),
        ("show", &["show", &pid, entry]),
        ("hexdump", &["hexdump", &pid, entry, "100"]),
        ("summary", &[&pid]),
        ("heap", &["heap", &pid]),
        ("types", &["heap", &pid, "--by", "type", "--limit", "5"]),
        ("modules", &["heap", &pid, "--by", "module"]),
        ("block_sizes", &["heap", &pid, "--by", "size"]),
        ("block_arenas", &["heap", &pid, "--by", "arena"]),
        ("arenas", &["arenas", &pid]),
        ("map", &["map", &pid]),
        ("map_sharing", &["map", &pid, "--sharing"]),
        ("sizes", &["sizes", &pid]),
        ("path", &["path", &pid, "--type", "Entry"]),
        ("retained", &["retained", &pid, "--limit", "5"]),
        ("retained_types", &["retained", &pid, "--by", "type", "--limit", "5"]),
        ("retained_modules", &["retained", &pid, "--by", "module", "--limit", "5"]),
        ("retained_roots", &["retained", &pid, "--by", "root", "--limit", "5"]),
        ("path_of_one", &["path", &pid, entry]),
        ("refs", &["refs", &pid, entry]),
        ("refs_deep", &["refs", &pid, entry, "--depth", "3", "--limit", "1"]),
        ("tree", &["tree", &pid]),
        ("what_if", &["what-if", &pid, "--without", "type = '__main__.Entry'"]),
        ("type_objects", &["types", &pid, "--limit", "50"]),
        ("heap_clodo", &["heap", &pid, "--by", "clodo", "--limit", "50"]),
        ("heap_referrer_types", &["heap", &pid, "--by", "referrer-types", "--limit", "50"]),
        ("heap_retained", &["heap", &pid, "--by", "retained", "--limit", "5"]),
    ];
    for (name, arguments) in cases {
        let document = json(arguments);
        insta::assert_snapshot!(format!("shape_{name}"), shape_of(&document));
        assert_eq!(document["target"]["pid"], json!(target.pid()));
        if name != "hexdump" {
            assert_eq!(document["target"]["python"]["allocator"], json!("pymalloc"));
        }
        assert_eq!(document["capture"]["method"], json!("clone"));
    }
    let document = json(&[&pid]);
    let facts = json!({ "target": shape(&document["target"]), "capture": shape(&document["capture"]) });
    insta::assert_snapshot!("shape_facts", serde_json::to_string_pretty(&facts).unwrap());
    let leaking = python("3.11").unwrap().spawn(&format!("{LEAKING}{READY}")).unwrap();
    let document = json(&["leaks", &leaking.pid().to_string()]);
    insta::assert_snapshot!("shape_leaks", shape_of(&document));
    let first = &document["findings"][0];
    assert_eq!((&first["section"], &first["sure"]), (&json!("native"), &json!("likely")));
    assert_eq!(document["collector_enabled"], json!(false));
    gates(&leaking.pid().to_string(), &document);
    let folder = tempfile::tempdir().unwrap();
    for command in ["snapshot", "core"] {
        let file = folder.path().join(command).to_str().unwrap().to_owned();
        let document = json(&[command, &pid, "-o", &file]);
        assert_eq!(document["path"], json!(file));
        insta::assert_snapshot!(format!("shape_{command}"), shape_of(&document));
    }
    let file = folder.path().join("snapshot").to_str().unwrap().to_owned();
    let other = json(&["diff", &file, &common::target().pid().to_string()]);
    insta::assert_snapshot!("shape_diff", shape_of(&other));
    let ps = json(&["ps"]);
    let rows = ps["rows"].as_array().unwrap();
    let row = rows.iter().find(|row| row["pid"] == json!(target.pid())).expect("it is listed");
    insta::assert_snapshot!("shape_ps_row", serde_json::to_string_pretty(&shape(row)).unwrap());
}

/// Exit codes for scripts, and findings that are accepted.
fn gates(pid: &str, document: &Value) {
    let code = |arguments: &[&str]| {
        let output = wmr(&[&["leaks", pid], arguments].concat()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(code(&[]).0, Some(0));
    assert_eq!(code(&["--fail-on", "likely"]).0, Some(6));
    assert_eq!(code(&["--fail-on", "certain", "--max-bytes", "1M"]).0, Some(0));
    assert_eq!(code(&["--max-bytes", "1M"]).0, Some(2));
    let known = tempfile::NamedTempFile::new().unwrap();
    let signatures =
        document["findings"].as_array().unwrap().iter().map(|f| f["signature"].as_str().unwrap());
    let lines: Vec<String> = signatures.map(|signature| format!("{signature} accepted")).collect();
    std::fs::write(known.path(), format!("# a comment\n\u{1}\n{}\n", lines.join("\n"))).unwrap();
    let file = known.path().to_str().unwrap();
    let (exit, text) = code(&["--fail-on", "possible", "--known", file]);
    assert!(exit == Some(0) && text.contains("known finding"), "{exit:?}: {text}");
    assert_eq!(code(&["--known", "/no/such/file"]).0, Some(1));
}

#[test]
fn sums_hold() {
    let target = target();
    let pid = target.pid().to_string();
    let heap = json(&["heap", &pid]);
    let ledger = &heap["ledger"];
    let total = ledger["total"].as_u64().unwrap();
    assert_eq!(sum(&ledger["rows"], "bytes"), total);
    assert_eq!(ledger["rss"].as_u64().unwrap() + ledger["swap"].as_u64().unwrap(), total);
    assert_eq!(ledger["named"].as_u64().unwrap() + ledger["unknown"].as_u64().unwrap(), total);
    // It waits for its input: what smaps said is what was captured.
    assert_eq!(heap["target"]["rss"], ledger["rss"]);
    assert_eq!(sum(&heap["rows"], "resident"), ledger["rss"].as_u64().unwrap());
    assert_eq!(sum(&heap["rows"], "bytes"), heap["total"]["bytes"].as_u64().unwrap());
    assert_eq!(sum(&heap["rows"], "count"), heap["total"]["count"].as_u64().unwrap());
    for row in ledger["rows"].as_array().unwrap() {
        let rows = heap["rows"].as_array().unwrap().iter().filter(|r| r["domain"] == row["domain"]);
        let resident: u64 = rows.map(|r| r["resident"].as_u64().unwrap()).sum();
        assert_eq!(resident, row["resident"].as_u64().unwrap(), "{}", row["domain"]);
    }

    let types = json(&["heap", &pid, "--by", "type"]);
    let entry = types["rows"].as_array().unwrap().iter().find(|row| row["type"] == "__main__.Entry").unwrap();
    assert_eq!((entry["count"].as_u64(), entry["gc_tracked"].as_u64()), (Some(3000), Some(3000)));
    let cut = json(&["heap", &pid, "--by", "type", "--limit", "3"]);
    assert_eq!(cut["rows"].as_array().unwrap().len(), 3);
    assert_eq!(cut["truncated"].as_u64().unwrap() + 3, types["rows"].as_array().unwrap().len() as u64);

    let map = json(&["map", &pid]);
    assert_eq!(sum(&map["rows"], "rss"), map["target"]["rss"].as_u64().unwrap());
    let arenas = json(&["arenas", &pid]);
    let sparse = arenas["pymalloc"].as_array().unwrap().iter().filter(|a| a.get("pinned_by").is_some());
    assert!(sparse.flat_map(|a| a["pinned_by"].as_array().unwrap()).any(|pin| pin["what"] == "str"));
    assert_eq!(sum(&arenas["pymalloc"], "used_blocks"), sum(&arenas["pymalloc_classes"], "used_blocks"));
}

/// The same answers from a core of the same process.
#[test]
fn a_core_says_the_same() {
    let mut target = target();
    let core = gcore(target.pid()).unwrap();
    let path = core.to_str().unwrap();
    let (live, stored) =
        (json(&["heap", &target.pid().to_string(), "--by", "type"]), json(&["heap", path, "--by", "type"]));
    assert_eq!(stored["target"]["kind"], json!("core"));
    assert_eq!(stored["capture"]["method"], json!("file"));
    assert_eq!(live["rows"], stored["rows"]);
    let summary = json(&[path]);
    assert_eq!(summary["ledger"]["basis"], json!("stored"));
    assert_eq!(sum(&summary["ledger"]["rows"], "bytes"), summary["ledger"]["total"].as_u64().unwrap());
    assert!(target.is_running().unwrap());
}

#[test]
fn comma_separated_values() {
    let target = target();
    let pid = target.pid().to_string();
    let text = stdout(&mut wmr(&["heap", &pid, "--by", "type", "--csv", "--limit", "2"]));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "type,type_addr,module,count,bytes,sizeof,gc_tracked");
    assert_eq!(lines.len(), 3);
    let text = stdout(&mut wmr(&["map", &pid, "--csv"]));
    assert!(text.starts_with("start,end,perms,path,owner,size,rss,pss,private,shared,swap,huge\n"), "{text}");
    assert!(
        stdout(&mut wmr(&["ps", "--csv"]))
            .starts_with("pid,ppid,version,rss,pss,uss,swap,peak_rss,exe,cmdline\n")
    );
}

/// `wmr sizes` against `sys.getsizeof`, on every interpreter there is.
#[test]
fn sizes_are_what_getsizeof_says() {
    const SCRIPT: &str = r#"
import sys
print("basic " + " ".join("%s=%d/%d" % (t.__name__, t.__basicsize__, t.__itemsize__)
    for t in (int, float, complex, bytes, bytearray, tuple, list, dict, set, frozenset, slice)))
examples = ["1", "1.0", "1j", "''", "()", "[]", "{}", "set()", "frozenset()", "bytearray()", "slice(1)", "object()"]
examples += ["b''", "lambda: 0"] if sys.version_info[0] > 2 else ["1L", "u''"]
for e in examples: print("example %d %s" % (sys.getsizeof(eval(e)), e))
names, numbers, last = {}, {}, None
for i in range(3000):
    if i:
        names["key %d" % i] = numbers[i] = None
    now = (sys.getsizeof(names), sys.getsizeof(numbers))
    if now != last:
        if last: print("dict %d %d %d" % ((i - 1,) + last))
        last = now
keep = [1j, slice(1), frozenset([1]), bytearray(1), set([1]), object()]
"#;
    for python in interpreters() {
        let target = python.spawn(&format!("{SCRIPT}{}", wmr_testing::READY)).unwrap();
        let sizes = json(&["sizes", &target.pid().to_string()]);
        let types = sizes["types"].as_array().unwrap();
        let dicts = sizes["dict"].as_array().unwrap();
        let mut checked = 0;
        for line in target.truth() {
            let (what, rest) = line.split_once(' ').unwrap();
            match what {
                "basic" => {
                    for word in rest.split(' ') {
                        let (name, numbers) = word.split_once('=').unwrap();
                        let Some(row) = types.iter().find(|row| row["type"] == name) else { continue };
                        assert_eq!(
                            format!("{}/{}", row["basic"], row["item"]),
                            numbers,
                            "{} {name}",
                            python.tag
                        );
                        checked += 1;
                    }
                }
                "example" => {
                    let (size, example) = rest.split_once(' ').unwrap();
                    let Some(row) = types.iter().find(|row| row.get("example") == Some(&json!(example)))
                    else {
                        continue;
                    };
                    assert_eq!(row["example_sizeof"].to_string(), size, "{} {example}", python.tag);
                    checked += 1;
                }
                _ => {
                    let numbers: Vec<u64> = rest.split(' ').map(|n| n.parse().unwrap()).collect();
                    let row = dicts.iter().find(|row| row["entries"] == numbers[0]).unwrap_or_else(|| {
                        panic!("{}: no row ends with {} entries: {dicts:?}", python.tag, numbers[0])
                    });
                    let said = (row["sizeof"].as_u64(), row["sizeof_other_keys"].as_u64());
                    assert_eq!(said, (Some(numbers[1]), Some(numbers[2])), "{} {rest}", python.tag);
                    checked += 1;
                }
            }
        }
        assert!(checked > 20, "{}: {checked} figures compared", python.tag);
    }
}
