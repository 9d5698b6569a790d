//! Native memory gets its names: in C++ programs, and in Python programs with large native parts.

use std::process::Command;
use wmr_heap::{Domain, Inspection, KindRow, Sure, inspect};
use wmr_memory::live::attach;
use wmr_testing::{Target, build_cpp_extension, compile_cpp, venv};

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
    let rows = inspection.by_kind();
    let unknown: Vec<String> = rows
        .iter()
        .filter(|row| row.kind.domain == Domain::Unknown)
        .map(|row| {
            format!("\n{} × {} {}: {}", row.amount.count, row.kind.kind, row.kind.detail, row.amount.bytes)
        })
        .collect();
    assert!(named >= percent, "{named:.2} % of the heap named, not {percent}:{}", unknown.concat());
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
static Foo *array;
int main() {
    for (int i = 0; i < 100; i++) list.push_back(new Foo);
    for (int i = 0; i < 50; i++) list.push_back(new Bar);
    for (int i = 0; i < 30; i++) table[i] = std::make_shared<app::Shared>();
    array = new Foo[40];
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
        assert_eq!(sum(&rows, "C++ Foo[]").0, 1, "{flags:?}");
        assert_eq!(sum(&rows, "data of C++ Foo[]"), (40, 12_800), "{flags:?}");
        // The vector's items and the map's nodes hang on static data of the program.
        assert!(sum(&rows, "data of program").0 >= 31, "{flags:?}");
        if flags.len() == 1 {
            assert_eq!(sum(&rows, "C++ app::Shared").0, 30);
        }
    }
}

#[test]
fn cpp_objects_of_several_bases_in_a_stripped_program() {
    const SOURCE: &str = r#"
#include <cstdio>
#include <unistd.h>
struct Left { virtual ~Left() {} long l = 1; };
struct Right { virtual ~Right() {} virtual int right() { return 2; } long r = 2; };
struct Both : Left, Right { int right() override { return 3; } long b = 3; };
struct Shared : virtual Left { long s = 4; };
static Left *lefts[200];
static Right *rights[40];
int main() {
    int n = 0;
    for (int i = 0; i < 100; i++) lefts[n++] = new Left;
    for (int i = 0; i < 60; i++) lefts[n++] = new Both;
    for (int i = 0; i < 30; i++) lefts[n++] = new Shared;
    for (int i = 0; i < 40; i++) rights[i] = new Both;
    printf("ready %d\n", getpid());
    fflush(stdout);
    while (getchar() != EOF) {}
}
"#;
    let program = compile_cpp(SOURCE, &["-O1", "-s"]).expect("it compiles");
    let process = Target::start(Command::new(&*program)).expect("starts");
    let rows = look(&process).by_kind();
    // Those that are held by their second base too: pointers lead into their middle.
    for (class, count) in [("Left", 100), ("Both", 100), ("Shared", 30), ("Right", 0)] {
        assert_eq!(sum(&rows, &format!("C++ {class}")).0, count, "{class}");
    }
}

/// What wrappers made by three tools hold is told by class, else by the wrapper's type.
#[test]
fn payloads_of_wrapped_cpp() {
    const PYBIND: &str = r#"
#include <pybind11/pybind11.h>
struct Plain { char data[3000]; };
struct Poly { virtual ~Poly() {} char data[2000]; };
PYBIND11_MODULE(bound, m) {
    pybind11::class_<Plain>(m, "Plain").def(pybind11::init<>());
    pybind11::class_<Poly>(m, "Poly").def(pybind11::init<>());
}
"#;
    const CYTHON: &str = r#"
from libc.stdlib cimport malloc
cdef extern from *:
    """
    struct Payload { virtual ~Payload() {} char data[1500]; };
    """
    cdef cppclass Payload:
        Payload()
cdef class Box:
    cdef Payload *payload
    cdef double *values
    def __cinit__(self):
        self.payload = new Payload()
        self.values = <double *>malloc(4000)
"#;
    const SWIG: &str =
        "%module wrapped\n%{\nstruct Thing { char data[2500]; };\n%}\nstruct Thing { Thing(); };\n";
    const SCRIPT: &str = "
import bound, cythoned, wrapped
keep = [(bound.Plain(), bound.Poly(), cythoned.Box(), wrapped.Thing()) for _ in range(40)]
";
    for tag in VERSIONS {
        let python = venv(tag).unwrap_or_else(|| panic!("no venv {tag}: cargo xtask pythons makes it"));
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let run = |command: &mut Command| {
            let out = command.current_dir(folder.path()).output().expect("it runs");
            assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
            String::from_utf8_lossy(&out.stdout).trim().to_owned()
        };
        let headers = run(python.command().args(["-m", "pybind11", "--includes"]));
        let headers: Vec<&str> = headers.split_whitespace().collect();
        let bound = file("bound.cpp", PYBIND);
        build_cpp_extension(&python, &bound, "bound", &headers).expect("pybind11's module builds");
        file("cythoned.pyx", CYTHON);
        run(python.command().args(["-m", "cython", "--cplus", "-3", "cythoned.pyx"]));
        let cythoned = folder.path().join("cythoned.cpp");
        build_cpp_extension(&python, &cythoned, "cythoned", &[]).expect("Cython's module builds");
        file("wrapped.i", SWIG);
        run(Command::new("swig").args(["-python", "-c++", "-o", "wrapped.cpp", "wrapped.i"]));
        let wrapped = folder.path().join("wrapped.cpp");
        build_cpp_extension(&python, &wrapped, "_wrapped", &[]).expect("SWIG's module builds");
        let process = python
            .spawn_with(&format!("{SCRIPT}{}", wmr_testing::READY), |command| {
                command.env("PYTHONPATH", folder.path());
            })
            .expect("starts");
        let inspection = look(&process);
        let rows = inspection.by_kind();
        let payloads = [
            ("data of bound.Plain", 3000),
            ("C++ Poly", 2008),
            ("C++ Payload", 1508),
            ("data of cythoned.Box", 4000),
            ("C++ Thing", 2500),
        ];
        for (kind, size) in payloads {
            let (count, bytes) = sum(&rows, kind);
            assert!(
                count == 40 && (40 * size..40 * (size + 32)).contains(&bytes),
                "{tag} {kind}: {count}, {bytes}"
            );
        }
        for wrapper in ["bound.Plain", "bound.Poly", "cythoned.Box", "wrapped.Thing", "SwigPyObject"] {
            assert_eq!(sum(&rows, wrapper).0, 40, "{tag} {wrapper}");
        }
        expect_named(&inspection, 98.0);
    }
}

/// GLib's objects and what hangs on them, with its own allocator of slices and without.
#[test]
fn instances_of_gobject() {
    const SCRIPT: &str = "
import ctypes as C
gobject, gio = C.CDLL('libgobject-2.0.so.0'), C.CDLL('libgio-2.0.so.0')
pixbuf, pango = C.CDLL('libgdk_pixbuf-2.0.so.0'), C.CDLL('libpango-1.0.so.0')
ft2, x11 = C.CDLL('libpangoft2-1.0.so.0'), C.CDLL('libX11.so.6')
libc = C.CDLL(None)
def call(function, *arguments):
    function.restype = C.c_void_p
    return function(*[C.c_void_p(a) if isinstance(a, int) else a for a in arguments])
keep = [call(gobject.g_object_new, 20 << 2, None) for _ in range(200)]
keep += [call(gio.g_simple_action_new, b'action', None) for _ in range(50)]
keep += [call(pixbuf.gdk_pixbuf_new, 0, 1, 8, 300, 200) for _ in range(10)]
fonts = call(ft2.pango_ft2_font_map_new)
context = call(pango.pango_font_map_create_context, fonts)
keep += [call(pango.pango_layout_new, context) for _ in range(30)]
# A display is not needed for an image's functions.
calloc = lambda n: call(libc.calloc, 1, n)
for _ in range(20):
    image = calloc(136)
    data = call(libc.malloc, 64000)
    head = (C.c_int * 4).from_address(image)
    head[0], head[1], head[3] = 160, 100, 2
    C.c_void_p.from_address(image + 16).value = data
    for at, value in ((28, 32), (36, 32), (40, 24), (44, 640), (48, 32)):
        C.c_int.from_address(image + at).value = value
    assert x11.XInitImage(C.c_void_p(image))
";
    let python = venv("3.11").expect("a venv: cargo xtask pythons makes it");
    for slices in [false, true] {
        let process = python
            .spawn_with(&format!("{SCRIPT}{}", wmr_testing::READY), |command| {
                if !slices {
                    command.env("G_SLICE", "always-malloc");
                }
            })
            .expect("starts");
        let inspection = look(&process);
        let rows = inspection.by_kind();
        let whole = [("GObject", 200), ("GSimpleAction", 50), ("GdkPixbuf", 10), ("PangoLayout", 30)];
        let instances: u64 = whole.iter().map(|(name, _)| sum(&rows, &format!("GType {name}")).0).sum();
        // Slices are cut from pages, up to GLib 2.74; each says what most of it is.
        if !slices || instances > 0 {
            for (name, count) in whole {
                assert_eq!(sum(&rows, &format!("GType {name}")).0, count, "{name}, slices: {slices}");
            }
        } else {
            let pages: Vec<&str> = rows
                .iter()
                .filter(|row| row.kind.kind == "GSlice page")
                .map(|row| row.kind.detail.as_str())
                .collect();
            for name in ["of GObject", "of PangoLayout"] {
                assert!(pages.contains(&name), "{pages:?}");
            }
        }
        let (count, bytes) = sum(&rows, "GdkPixbuf pixels");
        assert!(count == 10 && bytes >= 10 * 300 * 200 * 4, "{count} in {bytes}, slices: {slices}");
        assert_eq!(sum(&rows, "X11 image").0, 20);
        let (count, bytes) = sum(&rows, "X11 image pixels");
        assert!(count == 20 && bytes >= 20 * 64_000, "{count} in {bytes}");
        expect_named(&inspection, 93.0);
    }
}

/// ctypes' buffers, what OpenSSL, zlib, expat and regular expressions hold, and text of C.
#[test]
fn what_the_standard_library_holds() {
    let script = "
import ctypes as C, ssl, hashlib, zlib, re
import xml.parsers.expat as expat
buffers = [C.create_string_buffer(5000) for _ in range(100)]
class Record(C.Structure): _fields_ = [('a', C.c_int), ('b', C.c_char * 1000)]
records = [Record() for _ in range(100)]
contexts = [ssl.create_default_context() for _ in range(10)]
digests = [hashlib.sha256(b'x' * i) for i in range(200)]
packers = [zlib.compressobj() for _ in range(5)]
for packer in packers: packer.compress(bytes(range(256)) * 1000)
parsers = [expat.ParserCreate() for _ in range(50)]
for parser in parsers: parser.Parse('<a b=\"c\"><d>text</d>' * 50)
patterns = [re.compile('a%d(b|c)+[x-z]*' % i) for i in range(300)]
libc = C.CDLL(None)
libc.strdup.restype = libc.wcsdup.restype = C.c_void_p
texts = [libc.strdup(b'a line of text, the %08d of many' % i) and None for i in range(64)]
wides = [libc.wcsdup('wide text %08d' % i) and None for i in range(64)]
";
    each(script, |_, inspection, rows| {
        expect_named(inspection, 98.0);
        let (count, bytes) = sum(rows, "ctypes buffer");
        assert!(count >= 200 && bytes >= 100 * 5000 + 100 * 1004, "{count} in {bytes}");
        for (kind, count) in [("OpenSSL context", 10), ("OpenSSL digest", 200), ("expat parser", 50)] {
            assert!(sum(rows, kind).0 >= count, "{kind}: {:?}", sum(rows, kind));
        }
        // A compressor has 256 KiB of window and tables.
        assert!(
            sum(rows, "data of zlib.Compress").1 > 5 * 200_000,
            "{:?}",
            sum(rows, "data of zlib.Compress")
        );
        assert!(sum(rows, "re.Pattern").0 >= 300);
        assert!(sum(rows, "string data").0 >= 64 && sum(rows, "wide string data").0 >= 64);
    });
}

/// CPython's own structures.
#[test]
fn what_the_interpreter_keeps() {
    let script = "
import threading, tracemalloc, ast, io, tempfile, decimal
tracemalloc.start(3)
keep = [{str(i): i} for i in range(2000)]
stop = threading.Event()
threads = [threading.Thread(target=stop.wait, daemon=True) for _ in range(12)]
for thread in threads: thread.start()
locks = [threading.Lock() for _ in range(500)]
files = [tempfile.TemporaryFile() for _ in range(20)]
for file in files: file.write(b'x')
tree = ast.parse('x = 1')
numbers = [float(repr(i / 7)) for i in range(1000)]
";
    each(script, |process, inspection, rows| {
        expect_named(inspection, 98.0);
        let three_eleven = inspection.python.as_ref().is_ok_and(|python| python.version.minor() == 11);
        assert!(sum(rows, "tracemalloc").0 > 2000, "{}", process.pid());
        assert!(sum(rows, "io buffer").0 >= 20);
        assert!(sum(rows, "thread state").0 >= 11, "{:?}", sum(rows, "thread state"));
        // A lock is a byte of its object from 3.13 on.
        assert!(!three_eleven || sum(rows, "lock").0 >= 500, "{:?}", sum(rows, "lock"));
        assert!(sum(rows, "type data").0 > 0 && sum(rows, "module state").0 > 0);
        assert!(sum(rows, "Python frames").0 >= 12);
        let interned: Vec<_> = rows.iter().filter(|row| row.kind.detail == "interned").collect();
        assert!(interned.len() == 1 && interned[0].amount.count == 1, "{interned:?}");
    });
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
from PIL import Image, ImageFont
text = ''.join('<row id=\"%d\"><name>Name %d</name></row>' % (i, i) for i in range(20000))
root = etree.fromstring('<r>' + text + '</r>')
keep = [root[i] for i in range(0, 20000, 10)]
images = [Image.new('RGB', (200, 100), (i, 2, 3)) for i in range(100)]
fonts = [ImageFont.load_default(20) for _ in range(5)]
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
        assert!(sum(rows, "FreeType face").0 >= 5 && sum(rows, "FreeType library").0 == 1);
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

/// A greenlet that waits has its frames in chunks of its own.
#[test]
fn frames_of_greenlets_that_wait_are_named() {
    const SCRIPT: &str = "import greenlet\n\
        main = greenlet.getcurrent()\n\
        def wait(deep):\n\
        \x20   kept = [deep]\n\
        \x20   return wait(deep - 1) if deep else main.switch(kept)\n\
        waiting = [greenlet.greenlet(wait) for _ in range(200)]\n\
        for one in waiting: one.switch(50)\n";
    each(SCRIPT, |_, inspection, rows| {
        // 51 frames of less than 16 KiB each, in mappings that are no smaller.
        let (count, bytes) = sum(rows, "Python frames");
        assert!((200..=204).contains(&count) && bytes == count * 16384, "{count} of {bytes} bytes");
        expect_named(inspection, 99.0);
    });
}
