//! Reference counts: what is found to refer to objects is what they say of themselves.

use std::collections::BTreeMap;
use wmr_heap::graph::Fold;
use wmr_heap::{Held, inspect};
use wmr_memory::live::attach;
use wmr_testing::{Target, at_rest, interpreters, venv, workload};

/// Of everything a little, and objects that were given references which nobody holds.
const SCRIPT: &str = r#"
import collections, ctypes, functools, os, sys
class Record(object):
    def __init__(self, n): self.n = n + 100000; self.name = 'record %d' % n; self.half = n / 2.0
class Slotted(object):
    __slots__ = ('a', 'b')
    def __init__(self, n): self.a = n + 100000; self.b = [n]
Point = collections.namedtuple('Point', 'x y')
RECORDS = [Record(n) for n in range(3000)]
BY_NUMBER = dict((n, str(n)) for n in range(3000))
MIXED = [Slotted(n) for n in range(1000)], [Point(n, (n,)) for n in range(1000)], set(map(str, range(1000)))
ORDERED, QUEUE = collections.OrderedDict((str(n), [n]) for n in range(100)), collections.deque(range(5000, 6000))
def generate(n):
    kept = [n]
    yield kept
LIVE = [generate(n) for n in range(100)]
for g in LIVE: next(g)
if sys.version_info[0] > 2:
    @functools.lru_cache(maxsize=64)
    def cached(n): return [n]
    for n in range(200): cached(n)
LEAKED = [object() for n in range(50)]
for o in LEAKED:
    for i in range(7): ctypes.pythonapi.Py_IncRef(ctypes.py_object(o))
print('leaked ' + ' '.join(str(id(o)) for o in LEAKED))
del o
del g
sys.stdout.flush()
print('ready %d' % os.getpid())
sys.stdout.flush()
sys.stdin.read()
"#;

/// In percent, of objects that count; what is not explained, by type; and the leaked ones' surplus.
fn explained(process: &Target) -> (f64, BTreeMap<String, u64>, Vec<u64>) {
    at_rest(process.pid()).expect("rests");
    let target = attach(process.pid(), &Default::default()).expect("attached");
    let inspection = inspect(&target).expect("few blocks");
    let held = Held::find(&target, &inspection, Fold::Yes).expect("Python").expect("few references");
    let mut reader = target.reader();
    let leaked = process.truth().iter().find_map(|line| line.strip_prefix("leaked ")).unwrap_or_default();
    let leaked: Vec<u32> =
        leaked.split_whitespace().map(|n| held.node_at(n.parse().unwrap()).expect("an object")).collect();
    let surplus =
        leaked.iter().map(|node| held.count(&mut reader, *node).expect("mortal").surplus()).collect();
    let (mut counted, mut right, mut rest) = (0u64, 0u64, BTreeMap::new());
    for object in 0..held.graph.nodes() {
        let Some(count) = held.count(&mut reader, object).filter(|_| !leaked.contains(&object)) else {
            continue;
        };
        counted += 1;
        if count.is_explained() {
            right += 1;
        } else {
            *rest.entry(held.type_name(object).to_owned()).or_default() += 1;
        }
    }
    assert!(counted > 10_000, "{counted}");
    (100.0 * right as f64 / counted as f64, rest, surplus)
}

#[test]
fn all_references_are_found_but_those_that_nobody_holds() {
    for python in interpreters() {
        let process = python.spawn(SCRIPT).expect("starts");
        let (percent, rest, surplus) = explained(&process);
        eprintln!("{}: {percent:.3} %, not {rest:?}", python.version);
        assert!(percent >= 99.9, "{}: {percent:.3} %, not {rest:?}", python.version);
        // Of the last ones words are left over on the stack.
        assert_eq!(surplus[..45], [7; 45], "{}", python.version);
    }
}

#[test]
fn all_references_of_a_web_program_are_found() {
    for tag in ["3.11", "3.13"] {
        let python = venv(tag).expect("an environment");
        let process = python
            .spawn_file(&workload("w2_web.py"), |command| {
                command.arg("300");
            })
            .expect("starts");
        let (percent, rest, _) = explained(&process);
        eprintln!("{tag}: {percent:.3} %, not {rest:?}");
        assert!(percent >= 99.9, "{tag}: {percent:.3} %, not {rest:?}");
    }
}
