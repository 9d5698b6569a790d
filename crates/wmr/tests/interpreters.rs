//! Interpreters of one process, kept apart: modules, classes, threads and what holds objects.

mod common;

use common::json;
use serde_json::Value;
use wmr_testing::{READY, at_rest, python};

/// Starts a legacy and an isolated interpreter, each with a class, objects and a thread that waits in it.
const SCRIPT: &str = r#"
import os, sys, threading
try:
    import _interpreters
    legacy, isolated = _interpreters.create('legacy'), _interpreters.create('isolated')
    run = _interpreters.run_string
except ImportError:
    import _xxsubinterpreters as _interpreters
    legacy, isolated = _interpreters.create(isolated=False), _interpreters.create(isolated=True)
    run = _interpreters.run_string
INSIDE = '''
import os
class Inside:
    def __init__(self, n):
        self.text = 'inside %d' % n
KEPT = [Inside(n) for n in range({count})]
def wait():
    alone = bytearray({count} << 10)
    os.write({out}, b'%d %d.' % (id(KEPT), id(alone)))
    os.read({hold}, 1)
wait()
'''
class Inside:
    pass
KEPT = [Inside() for n in range(10)]
hold, _ = os.pipe()
for of, count in ((legacy, 200), (isolated, 300)):
    come, out = os.pipe()
    script = INSIDE.format(count=count, out=out, hold=hold)
    thread = threading.Thread(target=run, args=(of, script))
    thread.daemon = True
    thread.start()
    said = b''
    while not said.endswith(b'.'):
        said += os.read(come, 64)
    print('%d %s' % (int(of), said.decode()[:-1]))
sys.stdout.flush()
"#;

fn of(rows: &Value, interpreter: u64) -> &Value {
    let rows = rows.as_array().expect("rows");
    rows.iter()
        .find(|row| row["interpreter"] == interpreter)
        .unwrap_or_else(|| panic!("{interpreter}: {rows:?}"))
}

#[test]
fn interpreters_are_kept_apart() {
    for tag in ["3.12", "3.13", "3.14"] {
        let target = python(tag).expect("installed").spawn(&format!("{SCRIPT}{READY}")).expect("starts");
        at_rest(target.pid()).expect("rests");
        let pid = target.pid().to_string();
        let said: Vec<Vec<u64>> = target
            .truth()
            .iter()
            .map(|line| line.split(' ').map(|word| word.parse().expect("a number")).collect())
            .collect();
        let types = json(&["heap", &pid, "--by", "type"]);
        assert_eq!(types["target"]["python"]["interpreters"], 3, "{tag}");
        let classes = types["rows"].as_array().unwrap().iter().filter(|row| row["type"] == "__main__.Inside");
        let classes = Value::Array(classes.cloned().collect());
        let threads = json(&["threads", &pid, "--locals"]);
        assert_eq!(of(&classes, 0)["count"], 10, "{tag}");
        for (interpreter, count) in [(said[0][0], 200), (said[1][0], 300)] {
            assert_eq!(of(&classes, interpreter)["count"], count, "{tag}");
            let thread = of(&threads["rows"], interpreter);
            assert_eq!(thread["frames"][0]["function"], "wait", "{tag}: {thread}");
            assert!(thread["retained"].as_u64().unwrap() > count << 10, "{tag}: {thread}");
        }
        // The same name in each, and whose it is.
        for line in &said {
            let path = json(&["path", &pid, &line[1].to_string()]).to_string();
            let wanted = format!("module __main__ of interpreter {}", line[0]);
            let parted = format!("\"interpreter\":{}", line[0]);
            assert!(path.contains(&wanted) || path.contains(&parted), "{tag}: {path}");
            let path = json(&["path", &pid, &line[2].to_string()]).to_string();
            let frame = ["<string>", "<script>"].map(|file| format!("frame wait at {file}:10 local alone"));
            assert!(frame.iter().any(|frame| path.contains(frame)), "{tag}: {path}");
        }
        // What is built in is everybody's.
        let rows = types["rows"].as_array().unwrap();
        assert!(rows.iter().find(|row| row["type"] == "dict").unwrap().get("interpreter").is_none(), "{tag}");
    }
}
