//! What numpy's arrays refer to, which it tells nobody: the elements' reference counts are the truth.

use wmr_cpython::family::Family;
use wmr_cpython::refers::{label, references};
use wmr_heap::graph::Fold;
use wmr_heap::{Held, Inspection, inspect, leaks};
use wmr_memory::Target;
use wmr_memory::live::attach;
use wmr_testing::{READY, at_rest, venv};

/// Runs a script in the virtual environment of each version; `check` is given what the script said, too.
fn each(script: &str, check: impl Fn(&Target, &Inspection, &Held, &[String])) {
    for tag in ["3.11", "3.13"] {
        let python = venv(tag).unwrap_or_else(|| panic!("no venv {tag}: cargo xtask pythons makes it"));
        let process = python.spawn(&format!("{script}{READY}")).expect("starts");
        at_rest(process.pid()).expect("rests");
        let target = attach(process.pid(), &Default::default()).expect("attached");
        let inspection = inspect(&target).expect("inspected");
        let held = Held::find(&target, &inspection, Fold::Yes).expect("Python").expect("few references");
        check(&target, &inspection, &held, process.truth());
    }
}

/// Arrays of each layout that owns objects, a view and a table; with each element by what it is called.
const ARRAYS: &str = r#"
import gc, sys
import numpy as np, pandas as pd
class Rec:
    __slots__ = ('v',)
    def __init__(self, v): self.v = [v]
def fill(a):
    for i in np.ndindex(a.shape): a[i] = Rec(i)
    return a
class Sub(np.ndarray): pass
LINE = fill(np.empty(1000, object))
LINE[500] = None
GRID = fill(np.empty((30, 40), object))
TURNED = fill(np.empty((6, 7, 8), object, order='F'))
MINE = fill(np.empty((3, 4), object).view(Sub).copy())
POINT = fill(np.empty((), object))
VIEW = GRID[3:, ::-2]
def records(a, *names):
    for i in range(len(a)):
        for name in names: a[name][i] = Rec(i)
    return a
PACKED = records(np.zeros(1000, [('a', 'i4'), ('o', 'O'), ('b', 'f8'), ('p', 'O')]), 'o', 'p')
TITLED = records(np.zeros(10, [(('a title', 'o'), 'O')]), 'o')
NESTED = np.zeros(50, [('x', 'u1'), ('in', [('n', 'i2'), ('o', 'O', (2, 3))])])
fill(NESTED['in']['o'])
NUMBERS = np.zeros(10, [('a', 'u8'), ('b', 'f8')])
TABLE = pd.DataFrame({'o': [Rec(i) for i in range(1000)], 'n': range(1000)})
gc.collect()
def say(a, i, name, of=None): print('label', id(a), id(a[i] if of is None else of), name)
say(LINE, 77, '[77]'); say(GRID, (7, 9), '[7, 9]'); say(TURNED, (5, 2, 3), '[5, 2, 3]')
say(MINE, (2, 1), '[2, 1]'); say(POINT, (), '[0]')
say(PACKED, 7, '[7]', PACKED['p'][7]); say(TITLED, 3, '[3]', TITLED['o'][3])
say(NESTED, 9, '[9]', NESTED['in']['o'][9][1][2])
for a in VIEW, NUMBERS: print('none', id(a))
for o in list(LINE) + list(GRID.flat) + list(TURNED.flat) + list(MINE.flat): print('rec', id(o))
for name in 'op':
    for o in PACKED[name]: print('rec', id(o))
for o in NESTED['in']['o'].flat: print('rec', id(o))
for o in TABLE['o']: print('rec', id(o))
del o, a
"#;

fn numbers(line: &str) -> Vec<u64> {
    line.split(' ').skip(1).map_while(|word| word.parse().ok()).collect()
}

#[test]
fn arrays_hold_their_objects() {
    each(ARRAYS, |target, inspection, held, truth| {
        let model = inspection.model.as_ref().expect("Python");
        let mut reader = target.reader();
        let reach = held.reach();
        let (mut labels, mut recs) = (0, 0);
        for line in truth {
            let said = numbers(line);
            match line.split(' ').next() {
                Some("label") => {
                    let array = held.node_at(said[0]).expect("an object");
                    let array = held.graph.object(inspection, model, &mut reader, array).expect("an object");
                    let mut found = Vec::new();
                    references(model, &mut target.reader(), &array, &mut |reference| {
                        if reference.addr == said[1] {
                            found.push(label(model, &mut reader, &array, &reference).to_string());
                        }
                    });
                    assert_eq!(found, [line.splitn(4, ' ').last().unwrap()], "{line}");
                    labels += 1;
                }
                Some("none") => {
                    let array = held.node_at(said[0]).expect("an object");
                    let array = held.graph.object(inspection, model, &mut reader, array).expect("an object");
                    references(model, &mut target.reader(), &array, &mut |reference| {
                        let label = label(model, &mut reader, &array, &reference).to_string();
                        assert!(!label.starts_with('['), "{line}: {label}");
                    });
                }
                Some("rec") => {
                    let Some(rec) = held.node_at(said[0]).filter(|rec| held.type_name(*rec) != "NoneType")
                    else {
                        continue;
                    };
                    let count = held.count(&mut reader, rec).expect("mortal");
                    assert!(count.is_explained(), "{line}: {count:?}");
                    let path = reach.path(rec);
                    assert_eq!(held.type_name(path[0]), "module", "{line}");
                    recs += 1;
                }
                _ => {}
            }
        }
        assert!(labels == 8 && recs > 5_000, "{labels} labels, {recs} elements");
        let types = &inspection.census.types;
        let lost = leaks::find(target, inspection).unheld;
        let lost: Vec<_> = lost.iter().filter(|u| types[u.ty as usize].name == "__main__.Rec").collect();
        assert!(lost.is_empty(), "{lost:?}");
    });
}

#[test]
fn classes_of_dtypes_are_objects_of_the_graph() {
    const SCRIPT: &str = r#"
import numpy as np
kinds = 'bool int8 uint8 int16 uint16 int32 uint32 int64 uint64 float16 float32 float64 object str bytes'
for kind in kinds.split():
    dtype = np.dtype(kind)
    print('class', id(type(dtype)), id(dtype), id(type(dtype).__mro__))
"#;
    each(SCRIPT, |target, inspection, held, truth| {
        let model = inspection.model.as_ref().expect("Python");
        let mut reader = target.reader();
        let mut classes = 0;
        for line in truth.iter().filter(|line| line.starts_with("class")) {
            let said = numbers(line);
            let [class, dtype] = [said[0], said[1]].map(|addr| held.node_at(addr).expect(line));
            let class = held.graph.object(inspection, model, &mut reader, class).expect(line);
            assert_eq!(class.shape.family, Family::Type, "{line}");
            let mut found = Vec::new();
            references(model, &mut reader, &class, &mut |reference| found.push(reference.addr));
            assert!(found.contains(&said[2]), "{line}: {found:x?}");
            assert!(held.type_name(dtype).starts_with("numpy.dtype"), "{line}: {}", held.type_name(dtype));
            classes += 1;
        }
        assert_eq!(classes, 15);
        let left_out = held.graph.left_out;
        assert!(left_out.inside < 500, "{left_out:?}");
    });
}
