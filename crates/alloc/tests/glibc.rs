//! glibc's malloc in real processes, against what they say of themselves: `mallinfo2()` to the byte, and
//! every block with its `malloc_usable_size()`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use wmr_alloc::glibc::{self, Glibc, MallInfo};
use wmr_alloc::{Blocks, State};
use wmr_memory::live::{LiveOptions, attach};
use wmr_testing::{Target, TempFile, compile_c};

const SOURCE: &str = include_str!("c/scenarios.c");

fn program() -> TempFile {
    compile_c(SOURCE, &["-O1", "-pthread"]).expect("compiles")
}

/// Runs on any glibc: asks for no symbol newer than 2.2.5.
fn portable() -> TempFile {
    let flags = ["-O1", "-DPORTABLE", "-nostartfiles", "-fno-stack-protector", "-fno-pie", "-no-pie"];
    let link = ["-Wl,--no-as-needed", "-l:libpthread.so.0", "-Wno-deprecated-declarations"];
    compile_c(SOURCE, &[&flags[..], &link[..]].concat()).expect("compiles")
}

/// What the target says: mallinfo, and usable bytes by address.
#[derive(Debug, Default)]
struct Truth {
    info: MallInfo,
    blocks: BTreeMap<u64, u64>,
}

fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Truth {
    let mut truth = Truth::default();
    for line in lines {
        let mut words = line.split(' ');
        let kind = words.next().expect("a word");
        let n: Vec<u64> = words.map(|w| w.parse().expect("a number")).collect();
        match (kind, n.as_slice()) {
            (
                "m",
                &[arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost],
            ) => {
                truth.info = MallInfo {
                    arena,
                    ordblks,
                    smblks,
                    hblks,
                    hblkhd,
                    usmblks,
                    fsmblks,
                    uordblks,
                    fordblks,
                    keepcost,
                };
            }
            ("b", &[addr, usable]) => assert_eq!(truth.blocks.insert(addr, usable), None),
            other => panic!("{other:?}"),
        }
    }
    truth
}

fn start(mut command: Command, scenario: &str) -> (Target, Truth) {
    command.arg(scenario);
    let target = Target::start(command).expect("starts");
    let truth = parse(target.truth().iter().map(String::as_str));
    (target, truth)
}

/// Looks at the target and compares all there is to compare. `own` are chunks libc itself may hold.
fn compare(what: &str, pid: i32, truth: &Truth, own: std::ops::RangeInclusive<u64>) -> (Glibc, Blocks) {
    let target = attach(pid, &LiveOptions::default()).expect("attaches");
    let glibc = glibc::find(&target, &[]).expect("glibc");
    let blocks = Blocks::builder().glibc(&glibc).build().expect("fits");
    assert_eq!(glibc.mallinfo(), truth.info, "{what}: {:#?}", (&glibc.notes, &glibc.arenas));
    assert_eq!(glibc.notes, [""; 0], "{what}");
    assert_eq!(blocks.notes(), [""; 0], "{what}");
    for (&addr, &usable) in &truth.blocks {
        let id = blocks.at(addr).unwrap_or_else(|| panic!("{what}: no block at {addr:#x}"));
        let block = blocks.block(id);
        assert_eq!((block.start, block.usable), (addr, usable), "{what}: {block:x?}");
        for inside in [addr, addr + usable / 2, addr + usable.saturating_sub(1)] {
            assert_eq!(blocks.find(inside), Some(id), "{what}: {inside:#x} in {block:x?}");
        }
    }
    let extra = u64::from(blocks.len()) - truth.blocks.len() as u64;
    assert!(own.contains(&extra), "{what}: {extra} blocks are not the program's, {:?}", glibc.arenas);
    check_ranges(what, &glibc, &blocks);
    (glibc, blocks)
}

/// The ranges cover each span once; what is used in them is what the blocks say.
fn check_ranges(what: &str, glibc: &Glibc, blocks: &Blocks) {
    let (mut used, mut tcache, mut top) = (0, 0, 0);
    for index in 0..blocks.spans().len() {
        let span = &blocks.spans()[index];
        let mut at = span.start;
        blocks.for_each_range(index, |range, state| {
            assert_eq!(range.start, at, "{what}");
            assert!(range.end > at, "{what}");
            at = range.end;
            let bytes = range.end - range.start;
            match state {
                State::Used(_) => used += bytes,
                State::Tcache => tcache += bytes,
                State::Top => top += bytes,
                State::Bad => panic!("{what}: {range:x?} is bad"),
                _ => (),
            }
        });
        assert_eq!(at, span.end, "{what}");
    }
    assert_eq!(used, blocks.iter().map(|b| b.bytes).sum::<u64>(), "{what}");
    assert_eq!(tcache, glibc.arenas.iter().map(|a| a.tcache_bytes).sum::<u64>(), "{what}");
    assert_eq!(top, glibc.arenas.iter().map(|a| a.top_bytes).sum::<u64>(), "{what}");
}

fn on_this_libc(scenario: &str, own: std::ops::RangeInclusive<u64>) -> (Glibc, Blocks, Truth) {
    let program = program();
    let (target, truth) = start(Command::new(&*program), scenario);
    let (glibc, blocks) = compare(scenario, target.pid(), &truth, own);
    (glibc, blocks, truth)
}

/// Bytes of the program's own blocks, as gdb-heap counts them.
fn bytes(blocks: &Blocks, truth: &Truth) -> u64 {
    truth.blocks.keys().map(|&addr| blocks.bytes(blocks.at(addr).expect("found"))).sum()
}

#[test]
fn nothing_allocated() {
    let (glibc, blocks, _) = on_this_libc("none", 0..=0);
    assert_eq!((blocks.len(), glibc.arenas.len()), (0, 1));
}

#[test]
fn small_requests_cost_32_bytes_each() {
    let (_, blocks, truth) = on_this_libc("small", 1..=1);
    assert_eq!(bytes(&blocks, &truth), 48_000);
}

#[test]
fn large_requests_are_mmapped() {
    let (glibc, blocks, truth) = on_this_libc("big", 1..=1);
    assert_eq!((glibc.mmapped.len(), bytes(&blocks, &truth)), (10, 57_712_640));
}

#[test]
fn sizes_mixed_and_one_freed() {
    let (_, blocks, truth) = on_this_libc("mixed", 1..=1);
    assert_eq!(bytes(&blocks, &truth), 286_992);
    let mut sizes = BTreeMap::new();
    truth.blocks.keys().for_each(|&a| *sizes.entry(blocks.bytes(blocks.at(a).unwrap())).or_insert(0) += 1);
    assert_eq!(sizes, BTreeMap::from([(272, 99), (1008, 2), (258_048, 1)]));
}

#[test]
fn consistent_at_every_step() {
    let program = program();
    let (mut target, truth) = start(Command::new(&*program), "random");
    compare("random", target.pid(), &truth, 1..=1);
    for step in 0..40 {
        target.send("go").unwrap();
        let mut lines = Vec::new();
        loop {
            let line = target.line().unwrap();
            if line == "done" {
                break;
            }
            lines.push(line);
        }
        let truth = parse(lines.iter().map(String::as_str));
        compare(&format!("random, step {step}"), target.pid(), &truth, 1..=1);
    }
}

#[test]
fn arenas_of_threads() {
    // Each thread has its tcache and what pthread_create keeps.
    let (glibc, ..) = on_this_libc("threads", 5..=20);
    assert_eq!(glibc.arenas.len(), 5);
    assert!(glibc.arenas.iter().any(|a| a.heaps.len() > 1));
    assert!(glibc.arenas.iter().filter(|a| a.tcache_chunks > 0).count() > 1);
}

#[test]
fn freed_but_kept_ready() {
    let (glibc, ..) = on_this_libc("fastbins", 1..=1);
    assert!(glibc.arenas[0].fastbin_chunks > 100);
    let (glibc, ..) = on_this_libc("tcache", 1..=1);
    assert!(glibc.arenas[0].tcache_chunks >= 64 * 7 - 1);
}

#[test]
fn brk_refused() {
    on_this_libc("noncontiguous", 1..=1);
    on_this_libc("mmap-only", 1..=1);
}

#[test]
fn brk_moved_by_others() {
    on_this_libc("foreign", 1..=1);
}

#[test]
fn aligned_requests() {
    on_this_libc("aligned", 1..=1);
}

/// Folders with a `libc.so.6` and its loader, of libc6 packages unpacked below `WMR_GLIBCS`, or else of the
/// roots that `cargo xtask pythons` has unpacked.
fn other_libcs() -> Vec<(PathBuf, PathBuf)> {
    let root = match std::env::var_os("WMR_GLIBCS") {
        Some(root) => PathBuf::from(root),
        None => wmr_testing::cache_dir().join("roots"),
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        for base in ["root", "."] {
            for lib in ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"] {
                // /lib may be a link to /usr/lib.
                let Ok(lib) = entry.path().join(base).join(lib).canonicalize() else { continue };
                let loader = lib.join("ld-linux-x86-64.so.2");
                if lib.join("libc.so.6").exists()
                    && loader.exists()
                    && !found.contains(&(lib.clone(), loader.clone()))
                {
                    found.push((lib, loader));
                }
            }
        }
    }
    found
}

fn through(loader: &Path, lib: &Path, program: &Path) -> Command {
    let mut command = Command::new(loader);
    command.arg("--library-path").arg(lib).arg(program);
    command
}

#[test]
fn on_other_releases() {
    let libcs = other_libcs();
    if libcs.is_empty() {
        println!("SKIPPED: no other glibc; WMR_GLIBCS names no folder of unpacked libc6 packages");
        return;
    }
    let program = portable();
    for (lib, loader) in libcs {
        println!("{}", lib.display());
        for scenario in [
            "none",
            "small",
            "big",
            "mixed",
            "random",
            "threads",
            "fastbins",
            "tcache",
            "noncontiguous",
            "mmap-only",
            "foreign",
            "aligned",
        ] {
            // 2.43 makes a thread's cache when it first frees.
            let own = if scenario == "threads" { 5..=20 } else { 0..=1 };
            let (target, truth) = start(through(&loader, &lib, &program), scenario);
            compare(&format!("{scenario} on {}", lib.display()), target.pid(), &truth, own);
        }
    }
}
