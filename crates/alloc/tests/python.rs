//! pymalloc and malloc of every interpreter there is, against `sys._debugmallocstats()` and `mallinfo2()`.

use std::collections::BTreeMap;
use wmr_alloc::Blocks;
use wmr_alloc::glibc::{self, MallInfo};
use wmr_alloc::pymalloc::Arenas;
use wmr_cpython::Python;
use wmr_memory::Reader;
use wmr_memory::live::{LiveOptions, attach};
use wmr_testing::{Interpreter, Target, interpreters};

/// Objects of many sizes with holes between them, a thread, then the figures as the last thing done:
/// what follows allocates nothing that stays. `pause` needs no buffer, unlike `read`.
const SCRIPT: &str = r#"
import os, signal, sys, threading
keep = [[object() for _ in range(5000)], [b"x" * (i % 700) for i in range(20000)], {}]
for i in range(3000): keep[2][i] = "v%d" % i
del keep[1][::3]
keep += [[b"y" * (i % 300) for i in range(9000)]]
gate = threading.Event()
inner = []
def run():
    inner.extend(bytearray(900 + i) for i in range(300))
    inside.set(); gate.wait()
inside = threading.Event()
thread = threading.Thread(target=run); thread.daemon = True; thread.start(); inside.wait()
try:
    import ctypes
    # A struct of this size is returned through a hidden first argument: that allocates nothing.
    info = (ctypes.c_size_t * 10)()
    call = ctypes.CDLL(None).mallinfo2
    call.restype = None
    where = ctypes.c_void_p(ctypes.addressof(info))
    os.write(1, ("info %d\n" % where.value).encode())
except (ImportError, AttributeError):
    call, where = len, ""
os.dup2(1, 2)
stats = getattr(sys, "_debugmallocstats", lambda: None)
ready = ("ready %d\n" % os.getpid()).encode()
write, pause = os.write, signal.pause
def go():
    stats()
    for _ in (1, 2, 3): call(where)
    write(1, ready)
    pause()
go()
"#;

/// `class size pools used avail` rows.
fn classes(lines: &[String]) -> BTreeMap<u32, [u64; 3]> {
    let rows = lines.iter().filter_map(|line| {
        let n: Vec<u64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
        let [_, size, pools, used, free] = n[..] else { return None };
        Some((size as u32, [pools, used, free]))
    });
    rows.collect()
}

/// What the target had `mallinfo2()` write.
fn mallinfo(lines: &[String], reader: &mut Reader) -> Option<MallInfo> {
    let at: u64 = lines.iter().find_map(|l| l.strip_prefix("info "))?.parse().ok()?;
    let mut field = |i: u64| reader.u64(at + 8 * i).expect("mapped");
    Some(MallInfo {
        arena: field(0),
        ordblks: field(1),
        smblks: field(2),
        hblks: field(3),
        hblkhd: field(4),
        usmblks: field(5),
        fsmblks: field(6),
        uordblks: field(7),
        fordblks: field(8),
        keepcost: field(9),
    })
}

fn compare(python: &Interpreter, mode: &str) {
    let what = format!("{} {:?} {mode}", python.tag, python.kind);
    let child: Target = python
        .spawn_with(SCRIPT, |c| {
            c.env("PYTHONMALLOC", mode);
        })
        .expect("starts");
    // It may still free what the printing took.
    wmr_testing::at_rest(child.pid()).expect("at rest");
    let target = attach(child.pid(), &LiveOptions::default()).expect("attaches");
    let runtime = Python::find(&target).unwrap_or_else(|e| panic!("{what}: {e}"));
    let arenas = Arenas::of(&*target.memory, &target.mappings, &runtime.pymalloc_roots);
    let taken = arenas.ranges();
    let walk = arenas.walk(&*target.memory);
    assert_eq!(walk.notes, [""; 0], "{what}");
    let glibc = glibc::find(&target, &taken).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(glibc.notes, [""; 0], "{what}");
    let blocks = Blocks::builder().pymalloc(&walk).glibc(&glibc).build().expect("fits");
    assert_eq!(blocks.notes(), [""; 0], "{what}");

    let ours: BTreeMap<u32, [u64; 3]> =
        walk.classes.iter().map(|c| (c.size, [c.pools, c.used_blocks, c.free_blocks])).collect();
    // 2.7 has no such figures; without pymalloc there are none.
    let theirs = classes(child.truth());
    if python.minor() >= (3, 6) {
        assert_eq!(ours, theirs, "{what}");
    }
    if mode == "pymalloc" {
        assert!(walk.used_blocks() > 15_000, "{what}: {}", walk.used_blocks());
    }
    let info = mallinfo(child.truth(), &mut target.reader());
    if let Some(info) = info {
        assert_eq!(glibc.mallinfo(), info, "{what}");
    }
    println!(
        "{what}: {} blocks of pymalloc in {} classes, mallinfo {}",
        walk.used_blocks(),
        theirs.len(),
        if info.is_some() { "equal" } else { "not to be had" }
    );
    for block in blocks.iter() {
        assert_eq!(blocks.at(block.start), Some(block.id), "{what}");
        assert_eq!(blocks.find(block.start + block.usable / 2), Some(block.id), "{what}: {block:x?}");
        assert_eq!(blocks.block(block.id), block, "{what}");
    }
}

#[test]
fn equal_to_the_interpreters_own_figures() {
    for python in interpreters() {
        compare(python, "pymalloc");
    }
}

#[test]
fn with_other_allocators() {
    for tag in ["3.8", "3.11", "3.13", "3.14"] {
        let Some(python) = wmr_testing::python(tag) else {
            println!("SKIPPED: no Python {tag}");
            continue;
        };
        compare(python, "debug");
        compare(python, "malloc");
    }
}
