//! What is exported is read back by Meliae itself, and by this program as any dump of its kind.

mod common;

use common::{failure, json, stdout, wmr};
use serde_json::Value;
use std::fs;
use std::path::Path;
use wmr_testing::{READY, at_rest, meliae_dir, python};

const SCRIPT: &str = r#"
import sys, types
leaky = types.ModuleType('leaky'); sys.modules['leaky'] = leaky
class Event(object):
    def __init__(self, n): self.n = n + 100000; self.text = 'event "%d" \\ ' % self.n
leaky.EVENTS = [Event(n) for n in range(1000)]
NAMES = [b'\xff\x00"', u'caf\xe9 \u2603', True, -5, 10 ** 60, 1.5, {'a': 1}, (1, 2), frozenset([1])]
"#;

/// What Meliae's loader makes of a dump.
const LOADER: &str = r#"
import json, sys
from meliae import loader
om = loader.load(sys.argv[1], show_prog=False, using_json=False, collapse=False, max_parents=0)
s = om.summarize()
events = om.get_all('__main__.Event')
lists = [o for o in om.get_all('list') if len(o) == 1000]
# What a module is called it has as its value.
modules = [o.value for o in om.get_all('module')]
sys.stdout.write(json.dumps({'count': s.total_count, 'size': s.total_size,
    'refs': sum(len(o.children) for o in om.objs.itervalues()),
    'events': len(events), 'in_list': len(lists[0].children), 'leaky': 'leaky' in modules,
    'true': len([o for o in om.get_all('bool')])}))
"#;

fn with_meliae(dump: &str) -> Value {
    let mut command = python("2.7").expect("installed").command();
    command.env("PYTHONPATH", meliae_dir()).args(["-c", LOADER, dump]);
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo xtask pythons installs Meliae: {said}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn meliae_reads_what_is_exported() {
    for tag in ["2.7", "3.8", "3.11", "3.14"] {
        let target = python(tag).expect("installed").spawn(&format!("{SCRIPT}{READY}")).expect("starts");
        at_rest(target.pid()).expect("rests");
        let pid = target.pid().to_string();
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("dump.json");
        let dump = file.to_str().expect("UTF-8");
        let ours = json(&["export", &pid, "--format", "meliae", "-o", dump]);
        let theirs = with_meliae(dump);
        assert_eq!((&ours["objects"], &ours["bytes"]), (&theirs["count"], &theirs["size"]), "{tag}");
        assert_eq!(ours["refs"], theirs["refs"], "{tag}");
        assert_eq!(
            (&theirs["events"], &theirs["in_list"], &theirs["leaky"]),
            (&1000.into(), &1000.into(), &true.into())
        );
        // The objects of the census, with what they own; the static ones take nothing.
        let types = json(&["heap", &pid, "--by", "type"]);
        let counted = ours["objects"].as_u64().unwrap() - ours["static"].as_u64().unwrap();
        assert_eq!(types["total"]["count"].as_u64(), Some(counted), "{tag}");
        assert_eq!(types["total"]["bytes"], ours["bytes"], "{tag}");
        // Every line is JSON by itself, and is not overwritten unasked.
        let text = fs::read_to_string(&file).expect("read");
        assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{tag}");
        assert!(failure(&["export", &pid, "--format", "meliae", "-o", dump]).contains("--force"), "{tag}");
        opened(tag, dump, &file);
    }
}

/// The graph alone, without the process.
fn opened(tag: &str, dump: &str, file: &Path) {
    let path = json(&["path", dump, "--type", "__main__.Event"]);
    assert_eq!(path["count"], 1000, "{tag}");
    let way = &path["paths"][0];
    assert_eq!(way["root"]["name"], "module leaky", "{tag}: {way}");
    let types: Vec<&str> =
        way["steps"].as_array().unwrap().iter().map(|s| s["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["module leaky", "dict", "list", "__main__.Event"], "{tag}");
    let list = &way["steps"][2];
    let retained = json(&["retained", dump, "--limit", "0"]);
    let row = retained["rows"].as_array().unwrap().iter().find(|row| row["addr"] == list["addr"]);
    let kept = row.unwrap_or_else(|| panic!("{tag}: no row"))["retained"].as_u64().unwrap();
    assert!(kept > 1000 * 100, "{tag}: {kept}");
    let types = json(&["retained", dump, "--by", "type"]);
    let events =
        types["rows"].as_array().unwrap().iter().find(|row| row["type"] == "__main__.Event").unwrap();
    assert_eq!(events["count"], 1000, "{tag}");
    assert!(events["retained"].as_u64() <= Some(kept), "{tag}");
    // Packed it is the same.
    let packed = file.with_extension("json.gz");
    let gzip = std::process::Command::new("gzip").args(["-kf", dump]).status().expect("gzip runs");
    assert!(gzip.success());
    let again = json(&["retained", packed.to_str().unwrap(), "--by", "type"]);
    assert_eq!(again["rows"], types["rows"], "{tag}");
    let page = stdout(&mut wmr(&["retained", dump]));
    assert!(page.lines().all(|line| line.chars().count() <= 80) && page.contains("retained"), "{page}");
}

#[test]
fn a_file_that_is_damaged_is_said_to_be() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bad.json");
    let name = file.to_str().unwrap();
    let good = "{\"address\": 1, \"type\": \"int\", \"size\": 28, \"refs\": []}\n";
    for (bad, why) in [
        (r#"{"address": 2, "type": "\u001b[31m"}"#, "line 2: missing field"),
        ("{\"address\": 2, \"type\": \"\u{1b}[31m\"}", "line 2: control character"),
        ("{\"\u{1b}[31m\": 2, ", "line 2: "),
    ] {
        fs::write(&file, format!("{good}{bad}\n")).unwrap();
        let said = failure(&["retained", name]);
        assert!(said.starts_with("exit 1") && said.contains(why) && !said.contains('\u{1b}'), "{said}");
    }
    fs::write(&file, good).unwrap();
    assert!(failure(&["path", name, "0x5"]).contains("no object in the file is at 0x5"));
    assert!(failure(&["path", name, "--type", "strr"]).contains("no type is called strr"));
    // What begins like a packed dump and ends too early.
    let mut packed = fs::read(&file).unwrap();
    packed.splice(0..0, [0x1f, 0x8b]);
    fs::write(&file, packed).unwrap();
    assert!(failure(&["retained", name]).starts_with("exit 1"));
}
