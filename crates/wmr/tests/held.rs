//! Who holds what, and what would go with it, as the program itself can tell.

mod common;

use common::{failure, json, stdout, wmr};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use wmr_testing::{READY, Target, build_extension, python};

/// A module with a list that grows, and a dict that alone holds what is in it.
const SCRIPT: &str = r#"
import sys, types
leaky = types.ModuleType('leaky'); sys.modules['leaky'] = leaky
class Event(object):
    def __init__(self, n): self.n = n + 100000; self.text = 'event %d' % self.n
leaky.EVENTS = [Event(n) for n in range(1000)]
ONLY = dict((n, bytearray(1000)) for n in range(500))
CACHE = dict(('GET:/item/%d' % n, {'body': 'x%d' % n}) for n in range(300))
leaky.TWICE = BOTH = dict((n, bytearray(900)) for n in range(100))
print('%d %d %d %d' % (id(ONLY), id(leaky.EVENTS), id(leaky.EVENTS[17]), id(BOTH)))
"#;

fn spawn(tag: &str, script: &str) -> (Target, String, Vec<u64>) {
    let target = python(tag).unwrap().spawn(&format!("{script}{READY}")).unwrap();
    let pid = target.pid().to_string();
    let said = target.truth().first().map_or("", |line| line.as_str());
    let said = said.split(' ').filter_map(|word| word.parse().ok()).collect();
    (target, pid, said)
}

fn rows<'a>(document: &'a Value, key: &str) -> &'a [Value] {
    document[key].as_array().unwrap_or_else(|| panic!("no {key}: {document}"))
}

fn sum(rows: &[Value], key: &str) -> u64 {
    rows.iter().map(|row| row[key].as_u64().unwrap()).sum()
}

#[test]
fn a_path_leads_from_the_module_to_the_object() {
    for tag in ["2.7", "3.8", "3.11", "3.13", "3.14"] {
        let (_target, pid, said) = spawn(tag, SCRIPT);
        let path = json(&["path", &pid, &said[2].to_string()]);
        let first = &path["paths"][0];
        assert_eq!(
            (&first["root"]["kind"], &first["root"]["name"]),
            (&json!("module"), &json!("leaky")),
            "{tag}"
        );
        let via: Vec<&Value> = rows(first, "steps").iter().map(|step| &step["via"]).collect();
        let expected = [json!({"kind": "attr", "value": "EVENTS"}), json!({"kind": "index", "value": 17})];
        assert_eq!(via, [&expected[0], &expected[1]], "{tag}");
        assert_eq!(first["steps"][1]["addr"], json!(format!("{:#x}", said[2])), "{tag}");
        let text = stdout(&mut wmr(&["path", &pid, &said[2].to_string()]));
        assert!(text.contains("module leaky → .EVENTS → [17]"), "{tag}: {text}");

        // Many are merged by what their paths are called.
        let path = json(&["path", &pid, "--type", "__main__.Event"]);
        let [all, unreached] = ["count", "unreached"].map(|key| path[key].as_u64().unwrap());
        assert_eq!(all - unreached, 1000, "{tag}");
        assert_eq!(path["paths"][0]["count"], json!(1000), "{tag}");
        let steps: Vec<(&str, u64)> = rows(&path, "tree")
            .iter()
            .map(|row| (row["by"].as_str().unwrap(), row["count"].as_u64().unwrap()))
            .collect();
        assert_eq!(steps, [("module leaky", 1000), (".EVENTS", 1000), ("[i]", 1000)], "{tag}");
        let strings = json(&["path", &pid, "--where", "type = 'str' and bytes < 80"]);
        let row = rows(&strings, "tree").iter().find(|row| row["by"] == "['body']").expect("in the dicts");
        assert_eq!((&row["count"], &row["objects"]), (&json!(300), &json!(300)), "{tag}: {row}");
        let above = &strings["tree"][row["parent"].as_u64().unwrap() as usize];
        assert_eq!((&above["by"], &above["objects"]), (&json!("['…']"), &json!(300)), "{tag}: {above}");

        let unfolded = json(&["path", &pid, &said[2].to_string(), "--no-fold"]);
        let via: Vec<&Value> =
            rows(&unfolded["paths"][0], "steps").iter().map(|s| &s["via"]["value"]).collect();
        assert_eq!(via, [&json!("__dict__"), &json!("EVENTS"), &json!(17)], "{tag}");
    }
}

/// The target says where the values are, in the order of the keys.
const KEYS: &str = r#"
import contextvars, weakref
class Registry:
    class Event:
        pass
made = [Registry.Event() for n in range(8)]
first = made[0]
keys = [(1, 'a'), (1, 2, 3, 4, 5), (None, (b'x',)), b'a\x00b', Registry, weakref.ref(first), frozenset([1])]
TABLE = dict(zip(keys, made))
contextvars.ContextVar('request').set({'user': made[7]})
print(' '.join(str(id(o)) for o in made))
del made, first
"#;

#[test]
fn keys_are_written_as_they_are() {
    let written = [
        "(1, 'a')",
        "(1, 2, 3, 4, …)",
        "(None, (b'x',))",
        "b'a\\x00b'",
        "<class Registry>",
        "<weakref to Event>",
        "<frozenset>",
    ];
    for tag in ["3.8", "3.11", "3.14"] {
        let (_target, pid, said) = spawn(tag, KEYS);
        for (addr, key) in said.iter().zip(written) {
            let text = stdout(&mut wmr(&["path", &pid, &addr.to_string()]));
            assert!(text.contains(&format!("module __main__ → .TABLE → [{key}]")), "{tag}, {key}: {text}");
        }
        let text = stdout(&mut wmr(&["path", &pid, &said[7].to_string()]));
        for step in ["dict  <ContextVar 'request'>", "__main__.Registry.Event  user"] {
            assert!(text.contains(step), "{tag}, {step}: {text}");
        }
        // By what it is defined in, too.
        let text = stdout(&mut wmr(&["path", &pid, "--type", "Registry.Event"]));
        assert!(text.contains("WHO HOLDS Registry.Event  8 objects"), "{tag}: {text}");
    }
}

#[test]
fn ways_to_one_object_share_no_step() {
    let (_target, pid, said) = spawn(
        "3.12",
        "\nclass Box: pass\na, b, held = Box(), Box(), bytearray(5)\na.x = [held]\nb.y = {'k': held}\nprint(id(held))\ndel held",
    );
    let addr = said[0].to_string();
    let document = json(&["path", &pid, &addr, "--paths", "5"]);
    let texts: BTreeSet<&str> =
        rows(&document, "paths").iter().map(|p| p["text"].as_str().unwrap()).collect();
    let expected = ["module __main__ → .a → .x → [0]", "module __main__ → .b → .y → ['k']"];
    assert_eq!(texts, BTreeSet::from(expected));
    assert_eq!(rows(&json(&["path", &pid, &addr, "--paths", "1"]), "paths").len(), 1);
}

/// An object that a list, a dict, an instance, a slot, a closure, a tuple, a set and a weak reference refer to.
const HOLDERS: &str = r#"
import gc, weakref
class Thing(object): pass
class Slots(object):
    __slots__ = ('held', '__weakref__')
def closure(held):
    def inner(): return held
    return inner
T = Thing(); T.one, T.two = 'first', [1]
L, D, I, S, C, E, F = [0, T], {'key': T}, Thing(), Slots(), closure(T), (T, 7), set([T])
I.attribute = T; S.held = T; W = weakref.ref(T)
referents = sorted(id(o) for o in gc.get_referents(T))
referrers = sorted(id(o) for o in gc.get_referrers(T))
numbers = [id(T), id(L)] + [len(referents)] + referents + referrers
del referents, referrers
print(' '.join(map(str, numbers)))
"#;

#[test]
fn references_are_what_the_collector_says_and_have_names() {
    for tag in ["2.7", "3.8", "3.11", "3.13", "3.14"] {
        let (_target, pid, said) = spawn(tag, HOLDERS);
        let (referents, referrers) = said[3..].split_at(said[2] as usize);
        let addr = said[0].to_string();
        let whole = json(&["refs", &pid, &addr, "--no-fold"]);
        let set = |key: &str, weak: bool| -> BTreeSet<u64> {
            let strong = rows(&whole, key).iter().filter(|r| weak == (r["weak"] == true));
            strong.map(|r| u64::from_str_radix(&r["addr"].as_str().unwrap()[2..], 16).unwrap()).collect()
        };
        assert_eq!(set("to", false), referents.iter().copied().collect(), "{tag}: {whole}");
        assert_eq!(set("from", false), referrers.iter().copied().collect(), "{tag}: {whole}");
        assert_eq!(set("from", true).len(), 1, "{tag}");

        let folded = json(&["refs", &pid, &addr]);
        let called = |key: &str| -> BTreeSet<String> {
            let name = |r: &Value| {
                format!(
                    "{} {} {}",
                    r["type"].as_str().unwrap(),
                    r["via"]["kind"].as_str().unwrap(),
                    r["via"]["value"]
                )
            };
            rows(&folded, key).iter().map(name).collect()
        };
        let expected = [
            "list index 1",
            "dict value \"key\"",
            "tuple index 0",
            "__main__.Thing attr \"attribute\"",
            "__main__.Slots slot \"held\"",
            "module attr \"T\"",
        ];
        for name in expected {
            assert!(called("from").contains(name), "{tag}: {name} of {:?}", called("from"));
        }
        assert!(called("from").iter().any(|name| name.starts_with("set key")), "{tag}: {:?}", called("from"));
        assert!(called("to").contains("list attr \"two\""), "{tag}: {:?}", called("to"));
        assert!(called("to").contains("str attr \"one\""), "{tag}: {:?}", called("to"));
        let text = stdout(&mut wmr(&["refs", &pid, &addr, "--depth", "2"]));
        assert!(text.contains(".two  list") && text.contains("REFERRED TO BY"), "{tag}: {text}");
        let list = json(&["refs", &pid, &said[1].to_string(), "--limit", "1"]);
        assert_eq!((&list["to_truncated"], rows(&list, "to").len()), (&json!(1), 1), "{tag}: {list}");
        let deep = json(&["refs", &pid, &said[1].to_string(), "--depth", "2"]);
        let thing = rows(&deep, "to").iter().find(|r| r["type"] == "__main__.Thing").unwrap();
        assert!(rows(thing, "to").iter().any(|r| r["via"]["value"] == "two"), "{tag}: {thing}");
    }
}

#[test]
fn many_alike_are_one_line() {
    let (_target, pid, said) = spawn("3.11", SCRIPT);
    let text = stdout(&mut wmr(&["refs", &pid, &said[1].to_string()]));
    let line = text.lines().find(|line| line.contains("__main__.Event")).expect("a line");
    assert!(line.trim_start().starts_with("1,000 ×") && line.contains("[i]"), "{text}");
    assert!(text.lines().count() < 30, "{text}");
    let text = stdout(&mut wmr(&["path", &pid, "--type", "__main__.Event"]));
    assert!(text.contains("[i]  __main__.Event × 1,000") && text.lines().count() < 20, "{text}");
}

#[test]
fn what_is_retained_adds_up() {
    for tag in ["2.7", "3.8", "3.11", "3.14"] {
        let (_target, pid, said) = spawn(tag, SCRIPT);
        let objects = json(&["retained", &pid, "--limit", "0"]);
        let only = format!("{:#x}", said[0]);
        let row = rows(&objects, "rows").iter().find(|row| row["addr"] == only);
        let row = row.unwrap_or_else(|| panic!("{tag}: no row {only}"));
        assert_eq!((&row["where"], &row["one_way"]), (&json!("__main__.ONLY"), &Value::Null), "{tag}");
        let twice = format!("{:#x}", said[3]);
        let twice = rows(&objects, "rows").iter().find(|row| row["addr"] == twice).unwrap();
        let ways = [json!("__main__.BOTH"), json!("leaky.TWICE")];
        assert!(twice["where"].is_null() && ways.contains(&twice["one_way"]), "{tag}: {twice}");
        let kept = row["retained"].as_u64().unwrap();
        // 500 bytearrays of 1,001 bytes with their objects, and the dict's table; what malloc rounds.
        assert!((500 * 1050..500 * 1250).contains(&kept), "{tag}: {kept}");
        let types = json(&["retained", &pid, "--by", "type"]);
        let arrays = rows(&types, "rows").iter().find(|row| row["type"] == "bytearray").unwrap();
        assert!(arrays["count"].as_u64().unwrap() >= 500, "{tag}: {arrays}");
        let totals: Vec<u64> = ["module", "root"]
            .map(|by| {
                let document = json(&["retained", &pid, "--by", by]);
                let all = sum(rows(&document, "rows"), "retained") + document["shared"].as_u64().unwrap();
                assert_eq!(Some(all), document["total"].as_u64(), "{tag} by {by}");
                all
            })
            .to_vec();
        assert_eq!(totals, [types["total"].as_u64().unwrap(), objects["total"].as_u64().unwrap()], "{tag}");
        let modules = json(&["retained", &pid, "--by", "module"]);
        let keeps = |name: &str| {
            let row = rows(&modules, "rows").iter().find(|row| row["module"] == name).expect("a module");
            (row["count"].as_u64().unwrap(), row["retained"].as_u64().unwrap())
        };
        // The events with a text each and a number each, and their list; the class is the program's.
        assert!((3001..3010).contains(&keeps("leaky").0), "{tag}: {:?}", keeps("leaky"));
        assert!(keeps("__main__").1 > kept, "{tag}");

        let tree = json(&["tree", &pid, "--width", "1000"]);
        let tops = rows(&tree, "rows").iter().filter(|row| row["depth"] == 0);
        assert_eq!(tops.map(|row| row["retained"].as_u64().unwrap()).sum::<u64>(), totals[0], "{tag}");
        let of_one = json(&["tree", &pid, &said[0].to_string()]);
        assert_eq!((&of_one["rows"][0]["retained"], &of_one["total"]), (&json!(kept), &json!(kept)), "{tag}");
        let arrays = rows(&of_one, "rows").iter().find(|row| row["type"] == "bytearray").unwrap();
        assert_eq!(arrays["count"], json!(500), "{tag}");
    }
}

#[test]
fn what_would_be_freed_is_what_nothing_else_reaches() {
    let script = r#"
class Pair(object):
    def __init__(self, n): self.own = [n + 1000.5]; self.common = COMMON
COMMON = bytearray(5000)
A = [Pair(n) for n in range(100)]
JOINT = None
X, Y = Pair(1), Pair(2)
X.joint = Y.joint = bytearray(70000)
"#;
    for tag in ["2.7", "3.8", "3.12"] {
        let (_target, pid, _) = spawn(tag, script);
        let document = json(&["what-if", &pid, "--without", "type = '__main__.Pair'"]);
        let count = |name: &str| {
            rows(&document, "rows").iter().find(|row| row["type"] == name).map(|row| row["count"].clone())
        };
        assert_eq!(count("__main__.Pair"), Some(json!(102)), "{tag}: {document}");
        assert_eq!(count("list"), Some(json!(102)), "{tag}: {document}");
        assert_eq!(count("float"), Some(json!(102)), "{tag}: {document}");
        // What two of them hold together goes as well; what the module holds does not.
        assert_eq!(count("bytearray"), Some(json!(1)), "{tag}: {document}");
        assert_eq!(document["freed"]["count"], json!(307), "{tag}");
        assert_eq!(document["freed"]["bytes"].as_u64(), Some(sum(rows(&document, "rows"), "bytes")), "{tag}");
        let parts = ["matched", "beyond"].map(|key| document[key]["bytes"].as_u64().unwrap());
        assert_eq!(parts.iter().sum::<u64>(), document["freed"]["bytes"].as_u64().unwrap(), "{tag}");
        assert!(parts[1] > 70000, "{tag}: {parts:?}");
    }
}

#[test]
fn types_are_those_the_interpreter_knows() {
    let script = r#"
import json
class Base(object): pass
def make():
    class Made(Base): pass
    return Made
MADE = [make() for n in range(50)]
INSTANCES = [cls() for cls in MADE for n in range(3)]
found, todo = {}, [object]
while todo:
    cls = todo.pop()
    if id(cls) not in found:
        below = type.__subclasses__(cls)
        found[id(cls)] = [len(below), bool(cls.__flags__ & 512)]
        todo.extend(below)
del cls, below, todo
print(json.dumps(found))
"#;
    for tag in ["2.7", "3.8", "3.11", "3.12", "3.14"] {
        let target = python(tag).unwrap().spawn(&format!("{script}{READY}")).unwrap();
        let document = json(&["types", &target.pid().to_string()]);
        let truth = target.json().unwrap();
        let mut missing = Vec::new();
        for (id, facts) in truth.as_object().unwrap() {
            let addr = format!("{:#x}", id.parse::<u64>().unwrap());
            let Some(row) = rows(&document, "rows").iter().find(|row| row["addr"] == addr) else {
                missing.push(addr);
                continue;
            };
            assert_eq!(row["subclasses"], facts[0], "{tag}: {row}");
            assert_eq!(row["kind"] == "heap", facts[1] == true, "{tag}: {row}");
        }
        assert!(
            missing.is_empty(),
            "{tag}: {} of {} are missing",
            missing.len(),
            truth.as_object().unwrap().len()
        );
        let duplicates = rows(&document, "duplicates");
        let made =
            duplicates.iter().find(|row| row["type"].as_str().unwrap().ends_with("Made")).expect("told");
        assert_eq!((&made["types"], &made["instances"]), (&json!(50), &json!(150)), "{tag}: {made}");
        let base = rows(&document, "rows").iter().find(|row| row["type"] == "__main__.Base").unwrap();
        assert_eq!((&base["subclasses"], &base["base"]), (&json!(50), &json!("object")), "{tag}: {base}");
    }
}

#[test]
fn dicts_are_told_by_their_owner_and_objects_by_their_referrers() {
    let script = r#"
import sys
class Thing(object): pass
THINGS = [Thing() for n in range(250)]
for n, thing in enumerate(THINGS): thing.n = n + 5000.5; thing.__dict__
del thing
PLAIN = [{n: n + 0.25} for n in range(70)]
"#;
    for tag in ["2.7", "3.8", "3.11", "3.13"] {
        let (_target, pid, _) = spawn(tag, script);
        let classes = json(&["heap", &pid, "--by", "clodo"]);
        let count = |class: &str| {
            rows(&classes, "rows")
                .iter()
                .find(|row| row["class"] == class)
                .map_or(0, |r| r["count"].as_u64().unwrap())
        };
        assert_eq!(count("dict of __main__.Thing"), 250, "{tag}");
        assert!(count("dict of module") > 20 && count("dict (no owner)") >= 70, "{tag}");
        let types = json(&["heap", &pid, "--by", "type"]);
        let dicts = rows(&types, "rows").iter().find(|row| row["type"] == "dict").unwrap();
        let told = rows(&classes, "rows").iter().filter(|row| row["type"] == "dict");
        assert_eq!(
            told.map(|row| row["count"].as_u64().unwrap()).sum::<u64>(),
            dicts["count"].as_u64().unwrap(),
            "{tag}"
        );
        let by_referrers = json(&["heap", &pid, "--by", "referrer-types"]);
        assert_eq!(sum(rows(&by_referrers, "rows"), "count"), sum(rows(&types, "rows"), "count"), "{tag}");
        let of = |referrers: Value| {
            rows(&by_referrers, "rows")
                .iter()
                .find(|row| row["referrers"] == referrers)
                .map_or(0, |r| r["count"].as_u64().unwrap())
        };
        // What each Thing's dict alone holds: its number.
        assert_eq!(of(json!(["dict of __main__.Thing"])), 250, "{tag}");
        let retained = json(&["heap", &pid, "--by", "retained"]);
        let things = rows(&retained, "rows").iter().find(|row| row["type"] == "__main__.Thing").unwrap();
        assert!(things["retained"].as_u64().unwrap() > 250 * 24, "{tag}: {things}");
    }
}

/// A chain of 300,000, a list in a list 150,000 deep, a ring of 150,000: a call for each would need more stack than
/// there is.
#[test]
fn depth_makes_nothing_long() {
    let script = r#"
class Node(object):
    __slots__ = ('next',)
    def __init__(self, next): self.next = next
CHAIN = None
for n in range(300000): CHAIN = Node(CHAIN)
node = CHAIN
for n in range(299990): node = node.next
NESTED = []
for n in range(150000): NESTED = [NESTED]
class Ring(object): __slots__ = ('next',)
RING = last = Ring()
for n in range(149999): last.next = Ring(); last = last.next
last.next = RING
print('%d %d' % (id(node), id(last)))
del node, last, n
"#;
    let (_target, pid, said) = spawn("3.11", script);
    let deep = said[0].to_string();
    let ring = said[1].to_string();
    let commands: [&[&str]; 11] = [
        &["path", &pid, &deep],
        &["path", &pid, &ring],
        &["path", &pid, "--type", "Node"],
        &["path", &pid, "--where", "type = 'list'"],
        &["refs", &pid, &deep, "--depth", "16"],
        &["retained", &pid],
        &["retained", &pid, "--by", "type"],
        &["retained", &pid, "--by", "module"],
        &["tree", &pid],
        &["what-if", &pid, "--without", "type = '__main__.Ring'"],
        &["leaks", &pid, "--story", &deep],
    ];
    let documents = commands.map(|command| {
        let text = stdout(wmr(command).arg("--json"));
        assert!(text.len() < 2 << 20, "{command:?}: {} bytes", text.len());
        serde_json::from_str::<Value>(&text).unwrap()
    });
    for command in [commands[0], commands[2], commands[8]] {
        assert!(stdout(&mut wmr(command)).lines().count() < 120, "{command:?}");
    }
    let first = &documents[0]["paths"][0];
    let steps = rows(first, "steps").len() as u64 + first["truncated"].as_u64().unwrap();
    assert_eq!((steps, &first["root"]["name"]), (299_991, &json!("__main__")));
    let row = rows(&documents[2], "tree").iter().find(|row| row["chain"] == true).expect("a chain");
    assert_eq!((&row["by"], &row["objects"]), (&json!("slot next"), &json!(299_999)));
    let lists = rows(&documents[3], "tree").iter().find(|row| row["objects"].as_u64() > Some(140_000));
    assert_eq!(lists.map(|row| (&row["by"], &row["chain"])), Some((&json!("[i]"), &json!(true))));
    assert_eq!(documents[9]["freed"]["count"], json!(150_000));
    let story = rows(&documents[10], "steps");
    let skipped: u64 = story.iter().filter_map(|step| step["skipped"].as_u64()).sum();
    assert_eq!((story.len() as u64 + skipped, story.len()), (299_992, 200));
}

#[test]
fn what_a_c_variable_holds_is_told_by_library_and_symbol() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("keeper.c");
    let code = r#"
#include <Python.h>
PyObject *kept_by_c;
static PyObject *keep(PyObject *self, PyObject *object) {
    Py_INCREF(object); kept_by_c = object; Py_RETURN_NONE;
}
static PyMethodDef methods[] = {{"keep", keep, METH_O, ""}, {NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "keeper", "", -1, methods};
PyMODINIT_FUNC PyInit_keeper(void) { return PyModule_Create(&module); }
"#;
    std::fs::write(&source, code).unwrap();
    for tag in ["3.8", "3.11", "3.13"] {
        let python = python(tag).unwrap();
        let library = build_extension(python, &source).unwrap();
        let script = "import keeper\nclass Kept(object): pass\nheld = Kept(); held.text = 'x' * 5000; keeper.keep(held); print(id(held.text)); del held";
        let target = python
            .spawn_with(&format!("{script}{READY}"), |command| {
                command.env("PYTHONPATH", library.parent().unwrap());
            })
            .unwrap();
        let path = json(&["path", &target.pid().to_string(), &target.truth()[0]]);
        let first = &path["paths"][0];
        assert_eq!(
            first["root"],
            json!({"kind": "global", "name": "kept_by_c in keeper.so"}),
            "{tag}: {path}"
        );
        assert_eq!(first["steps"][1]["via"], json!({"kind": "attr", "value": "text"}), "{tag}: {first}");
    }
}

#[test]
fn what_is_no_object_has_no_path() {
    let (_target, pid, said) = spawn(
        "3.11",
        &format!(
            "{SCRIPT}\nimport types\nclass Other: pass\nOther.__qualname__ = 'Nested.Event'\nX = Other()"
        ),
    );
    let said_of = |arguments: &[&str]| failure(arguments);
    let none = said_of(&["path", &pid, "--type", "Evnt"]);
    assert!(none.starts_with("exit 1") && none.contains("no type is called Evnt"), "{none}");
    assert!(none.contains("there is __main__.Event\n"), "{none}");
    assert!(said_of(&["path", &pid, "--type", "even"]).contains("there is __main__.Event\n"));
    let several = said_of(&["path", &pid, "--type", "Event"]);
    assert!(
        several.contains("types are called Event") && several.contains("--type __main__.Nested.Event"),
        "{several}"
    );
    for command in ["path", "refs", "tree"] {
        for addr in ["0x10", "0xffffffffffffffff", "1", "0x7fffffffffffffff"] {
            let said = said_of(&[command, &pid, addr]);
            assert!(
                said.starts_with("exit 1") && said.contains("no Python object is at"),
                "{command} {addr}: {said}"
            );
        }
        assert!(said_of(&[command, &pid, "zz"]).starts_with("exit 2"));
        assert!(said_of(&[command, &pid, "99999999999999999999999"]).starts_with("exit 2"));
        // Anywhere in it is good enough.
        assert_eq!(
            json(&[command, &pid, &(said[2] + 5).to_string()])["schema"],
            json!(format!("wmr/{command}/1"))
        );
    }
    assert!(said_of(&["path", &pid]).starts_with("exit 2"));
    assert!(said_of(&["path", &pid, "--where", "type = "]).starts_with("exit 2"));
    assert!(said_of(&["path", &pid, "--where", "type = 'no such'"]).contains("no Python object is"));
    assert!(said_of(&["what-if", &pid]).starts_with("exit 2"));
    assert!(said_of(&["what-if", &pid, "--without", "color = 1"]).starts_with("exit 2"));
    assert!(said_of(&["what-if", &pid, "--without", "bytes < 0"]).contains("no Python object is"));
    assert!(said_of(&["refs", &pid, "0x10", "--depth", "0"]).starts_with("exit 2"));
}

/// Entries are C structures of a type that is never made ready up to 3.9.
#[test]
fn entries_of_a_cache_hang_on_it() {
    let script = r#"
import functools
class Value(object): pass
@functools.lru_cache(maxsize=100)
def load(n): return Value()
VALUES = [id(load(n)) for n in range(50)]
print('%d' % VALUES[7])
del VALUES
"#;
    for tag in ["3.6", "3.8", "3.9", "3.11", "3.13"] {
        let (_target, pid, said) = spawn(tag, script);
        let path = json(&["path", &pid, &said[0].to_string()]);
        let first = &path["paths"][0];
        assert_eq!(first["root"]["name"], "__main__", "{tag}: {first}");
        let steps: Vec<&Value> = rows(first, "steps").iter().map(|step| &step["via"]["value"]).collect();
        assert_eq!((steps.first(), steps.last()), (Some(&&json!("load")), Some(&&json!("result"))), "{tag}");
        let types = json(&["retained", &pid, "--by", "type"]);
        let caches = rows(&types, "rows").iter().find(|row| row["type"] == "functools._lru_cache_wrapper");
        assert!(caches.unwrap()["retained"].as_u64() > Some(50 * 100), "{tag}: {caches:?}");
    }
}

/// What was taken from a free list is pointed to from there still. These lists have a reference that nobody has, so
/// that it is looked for everywhere.
#[test]
fn a_free_list_holds_nothing() {
    let script = r#"
import ctypes
lists = [[] for n in range(60)]
while lists: lists.pop()
lost = [[n] for n in range(40)]
for one in lost: ctypes.pythonapi.Py_IncRef(ctypes.py_object(one))
print(' '.join(str(id(one)) for one in lost))
del lost, one
"#;
    for tag in ["2.7", "3.8", "3.9", "3.11", "3.12", "3.13", "3.14"] {
        let (_target, pid, said) = spawn(tag, script);
        for list in said.iter().step_by(3) {
            let text = stdout(&mut wmr(&["path", &pid, &list.to_string()]));
            assert!(!text.contains("free_list") && !text.contains("freelist"), "{tag}: {text}");
        }
    }
}
