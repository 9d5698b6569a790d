//! A census whose clone goes before native memory is named is the same census.

use wmr_heap::{Inspection, inspect, inspect_only};
use wmr_memory::Target;
use wmr_memory::live::attach;
use wmr_testing::{Interpreter, READY, at_rest, interpreters, venv};

/// Tuples of all kinds, blocks that nobody claims, owners of native memory.
const PLAIN: &str = "
import array, collections, ctypes, gc, re, sqlite3, time
kept = [array.array('d', [1.0] * 50) for _ in range(500)], [collections.deque(range(n)) for n in range(99)]
tuples = [(n, str(n), (float(n),)) for n in range(9000)], [time.localtime(n) for n in range(99)]
buffers = [ctypes.create_string_buffer(n) for n in range(900)], [re.compile('a%d' % n) for n in range(50)]
db = sqlite3.connect(':memory:')
db.execute('create table t (a)')
db.executemany('insert into t values (?)', [('x%d' % n,) for n in range(9000)])
gone = [[n] for n in range(9000)]
del gone[::2]
gc.collect()
";

const NATIVE: &str = "
import greenlet, numpy, pandas, pyarrow
from lxml import etree
from PIL import Image
def wait(n):
    greenlet.getcurrent().parent.switch()
waiting = [greenlet.greenlet(wait) for _ in range(50)]
for n, g in enumerate(waiting): g.switch(n)
tree = etree.fromstring('<a>' + '<b c=\"d\"/>' * 3000 + '</a>')
frame = pandas.DataFrame({'a': range(9000), 'b': ['x%d' % n for n in range(9000)]})
table, image = pyarrow.table({'a': list(range(9000))}), Image.new('RGB', (99, 99))
";

fn told(inspection: &Inspection) -> Vec<String> {
    let rows = inspection.by_kind().into_iter();
    let mut rows: Vec<String> = rows
        // Who else has a page of a library may change meanwhile.
        .map(|row| {
            let (kind, amount) = (row.kind, row.amount);
            let named = format!("{:?} {} {}", kind.domain, kind.kind, kind.detail);
            format!("{named}: {} of {} bytes, {} in RAM", amount.count, amount.bytes, amount.charge.resident)
        })
        .collect();
    rows.extend(inspection.notes.iter().cloned());
    rows
}

fn check(python: &Interpreter, script: &str) {
    let process = python.spawn(&format!("{script}{READY}")).expect("starts");
    at_rest(process.pid()).expect("at rest");
    let look = || -> Target { attach(process.pid(), &Default::default()).expect("attached") };
    // One after the other: a second clone would share the pages.
    let expected = told(&inspect(&look()).expect("few blocks"));
    let early = look();
    let found = told(&inspect_only(&early).expect("few blocks"));
    let of = format!("{} {:?}", python.version, python.kind);
    assert_eq!(early.memory.troubles(), Vec::<String>::new(), "{of}");
    assert!(expected.len() > 50, "{of}: {} rows", expected.len());
    let differing: Vec<_> =
        found.iter().zip(&expected).filter(|(found, expected)| found != expected).collect();
    assert!(found.len() == expected.len() && differing.is_empty(), "{of}: {differing:#?}");
}

#[test]
fn the_same_of_every_interpreter() {
    interpreters().iter().for_each(|python| check(python, PLAIN));
}

#[test]
fn the_same_with_native_memory() {
    for tag in ["3.11", "3.13"] {
        check(&venv(tag).expect("cargo xtask pythons makes it"), NATIVE);
    }
}
