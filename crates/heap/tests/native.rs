//! Native memory gets its names: in C++ programs, and in Python programs with large native parts.

use std::process::Command;
use wmr_heap::{Domain, Inspection, KindRow, Sure, inspect};
use wmr_memory::live::attach;
use wmr_testing::{Target, compile_cpp, venv};

const VERSIONS: [&str; 2] = ["3.11", "3.13"];

fn look(process: &Target) -> Inspection {
    wmr_testing::at_rest(process.pid()).expect("at rest");
    let target = attach(process.pid(), &Default::default()).expect("attached");
    inspect(&target).expect("inspected")
}

/// Runs a script in the virtual environment of each version.
fn each(script: &str, check: impl Fn(&Target, &Inspection, &[KindRow])) {
    for tag in VERSIONS {
        let python = venv(tag).unwrap_or_else(|| panic!("no venv {tag}: cargo xtask pythons makes it"));
        let process = python.spawn(&format!("{script}{}", wmr_testing::READY)).expect("starts");
        let inspection = look(&process);
        eprintln!("{tag}: heap named {:.2} %", inspection.tally.ledger.heap_named_percent());
        check(&process, &inspection, &inspection.by_kind());
    }
}

/// Count and bytes of a kind, of all details together.
fn sum(rows: &[KindRow], kind: &str) -> (u64, u64) {
    let rows = rows.iter().filter(|row| row.kind.kind == kind);
    rows.fold((0, 0), |(count, bytes), row| (count + row.amount.count, bytes + row.amount.bytes))
}

/// Guesses are counted as unknown, and few.
fn expect_named(inspection: &Inspection, percent: f64) {
    let ledger = &inspection.tally.ledger;
    let named = ledger.heap_named_percent();
    assert!(named >= percent, "{named:.2} % of the heap named, not {percent}");
    let rows = inspection.by_kind();
    let guessed: u64 =
        rows.iter().filter(|row| row.kind.sure == Sure::Guess).map(|row| row.amount.charge.total()).sum();
    assert!(rows.iter().all(|row| row.kind.sure != Sure::Guess || row.kind.domain == Domain::Unknown));
    let heap = ledger.named_heap() + ledger.unknown();
    assert!(100 * guessed < 3 * heap, "{guessed} bytes guessed of {heap}");
}

const CLASSES: &str = r#"
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <unistd.h>
#include <vector>
struct Foo { virtual ~Foo() {} std::string text = std::string(300, 'x'); int n = 0; };
struct Bar : Foo { double d = 0; };
namespace app { struct Shared { virtual ~Shared() {} long n = 1; }; }
static std::vector<Foo *> list;
static std::map<int, std::shared_ptr<app::Shared>> table;
int main() {
    for (int i = 0; i < 100; i++) list.push_back(new Foo);
    for (int i = 0; i < 50; i++) list.push_back(new Bar);
    for (int i = 0; i < 30; i++) table[i] = std::make_shared<app::Shared>();
    printf("ready %d\n", getpid());
    fflush(stdout);
    while (getchar() != EOF) {}
}
"#;

#[test]
fn cpp_objects_are_told_apart_by_class() {
    for flags in [&["-O1"][..], &["-O1", "-fno-rtti"]] {
        let program = compile_cpp(CLASSES, flags).expect("it compiles");
        let process = Target::start(Command::new(&*program)).expect("starts");
        let rows = look(&process).by_kind();
        assert_eq!(sum(&rows, "C++ Foo").0, 100, "{flags:?}");
        assert_eq!(sum(&rows, "C++ Bar").0, 50, "{flags:?}");
        // Their strings' characters, by who has them: 301 bytes take a chunk of 320.
        assert_eq!(sum(&rows, "data of C++ Foo"), (100, 32_000), "{flags:?}");
        assert_eq!(sum(&rows, "data of C++ Bar"), (50, 16_000), "{flags:?}");
        // The vector's items and the map's nodes hang on static data of the program.
        assert!(sum(&rows, "data of program").0 >= 31, "{flags:?}");
        if flags.len() == 1 {
            assert_eq!(sum(&rows, "C++ app::Shared").0, 30);
        }
    }
}

#[test]
fn arrays_of_numpy_are_their_data() {
    let script = "
import numpy as np
keep = [np.full(1000 + i, i, dtype='float64') for i in range(500)]
views = [a[::2] for a in keep]
";
    each(script, |_, _, rows| {
        let (count, bytes) = sum(rows, "array data");
        let made: u64 = (0..500).map(|i| 8 * (1000 + i)).sum();
        // numpy has a few of its own, and malloc rounds up.
        assert!((500..600).contains(&count), "{count}");
        assert!((made..made + 500_000).contains(&bytes), "{bytes} of {made}");
    });
}

#[test]
fn buffers_of_arrow_and_pandas() {
    let script = "
import pyarrow as pa, numpy as np
N = 200000
table = pa.table({'a': pa.array(np.arange(N) * 2), 's': pa.array(['row %09d' % i for i in range(N)]),
                  'd': pa.array(['k%d' % (i % 50) for i in range(N)]).dictionary_encode()})
chunks = [pa.array(range(1000)) for _ in range(500)]
frame = table.to_pandas()
print('truth', sum(c.nbytes for c in table.columns[1:]) + sum(c.nbytes for c in chunks))
";
    each(script, |process, inspection, rows| {
        expect_named(inspection, 93.0);
        let said = process.truth().iter().find_map(|line| line.strip_prefix("truth ")?.parse().ok());
        let said: u64 = said.expect("the truth");
        let found = sum(rows, "arrow buffer").1;
        // Buffers are rounded up, and grow by doubling.
        assert!((said..said * 2).contains(&found), "{found} bytes of buffers, {said} said");
        assert!(sum(rows, "C++ arrow::Field").0 >= 3);
    });
}

#[test]
fn documents_of_lxml_and_images_of_pil() {
    let script = "
from lxml import etree
from PIL import Image
text = ''.join('<row id=\"%d\"><name>Name %d</name></row>' % (i, i) for i in range(20000))
root = etree.fromstring('<r>' + text + '</r>')
keep = [root[i] for i in range(0, 20000, 10)]
images = [Image.new('RGB', (200, 100), (i, 2, 3)) for i in range(100)]
";
    each(script, |_, inspection, rows| {
        expect_named(inspection, 93.0);
        // A node an element, its attribute and its text: 120 bytes each in libxml2.
        let nodes = sum(rows, "libxml2 node").1 + sum(rows, "data of libxml2 node").1;
        assert!(nodes > 20_000 * 4 * 100, "{nodes} bytes of nodes");
        // Four bytes a pixel.
        let pixels = sum(rows, "data of PIL image").1;
        assert!((8_000_000..9_000_000).contains(&pixels), "{pixels} bytes of pixels");
        assert!(sum(rows, "PIL image").0 >= 100);
    });
}

#[test]
fn connections_of_sqlite() {
    let script = "
import sqlite3
db = sqlite3.connect(':memory:')
db.execute('create table t (a integer, b text)')
db.executemany('insert into t values (?, ?)', ((i, 'row %d' % i * 10) for i in range(20000)))
cursors = [db.execute('select * from t where a > %d' % i) for i in range(20)]
";
    each(script, |_, inspection, rows| {
        expect_named(inspection, 97.0);
        assert_eq!(sum(rows, "sqlite connection").0, 1);
        assert!(sum(rows, "sqlite statement").0 >= 20);
        assert!(sum(rows, "sqlite page cache").1 > 2_000_000, "{:?}", sum(rows, "sqlite page cache"));
    });
}
