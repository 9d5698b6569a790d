use super::*;
use crate::tables;
use std::sync::Arc;
use wmr_memory::live::{LiveOptions, attach};
use wmr_memory::synthetic::SyntheticMemory;
use wmr_memory::{Memory, Segment};
use wmr_testing::{Interpreter, interpreters};

const WAIT: &str = "import os, sys, threading, decimal\n\
    sys.stdout.write('ready %d\\n' % os.getpid()); sys.stdout.flush()\n\
    while os.read(0, 1): pass\n";

fn capture(interpreter: &Interpreter) -> Target {
    let process = interpreter.spawn(WAIT).expect("a target");
    attach(process.pid(), &LiveOptions::default()).expect("a capture")
}

fn release(minor: (u32, u32)) -> Option<&'static Interpreter> {
    interpreters().iter().find(|i| i.minor() == minor && !i.is_debug())
}

/// A table of another patch level: `_is` shorter by `gap` from `from` on.
fn another(layout: &Layout, from: u64, gap: u64) -> Layout {
    let mut table = layout.table.clone();
    for (field, at) in layout.table.fields("_is").filter(|(_, at)| *at >= from) {
        table.set_offset("_is", field, at - gap);
    }
    table.set_size("_is", layout.interpreter.size - gap);
    Layout::from_table(table).expect("a table")
}

#[test]
fn another_patch_level_is_settled_by_what_is_there() {
    let mut covered = 0;
    for minor in [(3, 13), (3, 14), (3, 15)] {
        let Some(interpreter) = release(minor) else { continue };
        covered += 1;
        let target = capture(interpreter);
        let right = Python::find(&target).expect("found");
        let drifted: Vec<(&'static Known, Layout)> = tables::loaded()
            .iter()
            .filter(|(known, _)| (known.major.into(), known.minor.into()) == minor)
            .map(|(known, layout)| {
                // What grew, as in 3.14 between .0 and .10: something right behind the collector's
                // state, then something before obmalloc.
                let gc =
                    layout.interpreter.gc.unwrap_or(0) + layout.gc_state.as_ref().map_or(0, |gc| gc.size);
                let obmalloc = layout.interpreter.obmalloc.unwrap_or(0);
                (*known, another(&another(layout, obmalloc, 8), gc, 24))
            })
            .collect();
        let found = Python::find_by(&target, &drifted).expect("found by a table that does not fit");
        assert_eq!(found.version, right.version);
        assert_eq!(found.pymalloc_roots, right.pymalloc_roots, "{minor:?} {:?}", found.notes);
        assert_eq!(found.gc.lists, right.gc.lists);
        assert_eq!(found.interned(&target).dicts, right.interned(&target).dicts);
        assert!(!right.free_lists(&target).dead.is_empty());
        assert_eq!(found.free_lists(&target).dead, right.free_lists(&target).dead, "{minor:?}");
        for field in ["types.builtins.initialized", "_initial_thread", "sysdict"] {
            let place = |p: &Python| p.layout.table.offset("_is", field);
            assert_eq!(place(&found), place(&right), "{minor:?} {field}");
        }
        assert!(found.notes.iter().any(|n| n.contains("another patch level")), "{:?}", found.notes);
        assert!(right.notes.is_empty(), "{:?}", right.notes);
    }
    assert!(covered > 0);
}

/// The captured memory with some words replaced, the same ones at each read.
struct Damaged {
    inner: Arc<dyn Memory>,
    seed: u64,
    /// One word in so many is replaced.
    one_in: u64,
    /// Addresses to point at.
    places: Vec<u64>,
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 31)).wrapping_mul(0x7fb5_d329_728e_a185);
    x = (x ^ (x >> 27)).wrapping_mul(0x81da_def4_bc2d_d44d);
    x ^ (x >> 33)
}

impl Memory for Damaged {
    fn extent(&self, _: u64) -> Option<(u64, &[u8])> {
        None
    }

    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Fault> {
        self.inner.read(addr, buf)?;
        let end = addr + buf.len() as u64;
        for word in (addr.next_multiple_of(8)..end.saturating_sub(7)).step_by(8) {
            let roll = mix(word ^ mix(self.seed));
            if !roll.is_multiple_of(self.one_in) {
                continue;
            }
            let value = match roll >> 32 & 7 {
                0 => 0,
                1 => u64::MAX,
                2 => word,
                3 => roll,
                4 => 1 << 40,
                _ => self.places[(roll >> 40) as usize % self.places.len()] + (roll & 0xff8),
            };
            let at = (word - addr) as usize;
            buf[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        Ok(())
    }
}

#[test]
fn damaged_memory_is_never_more_than_wrong() {
    for minor in [(2, 7), (3, 6), (3, 11), (3, 12), (3, 14)] {
        let Some(interpreter) = release(minor) else { continue };
        let mut target = capture(interpreter);
        let inner = target.memory.clone();
        let places: Vec<u64> = target.mappings.iter().filter(|m| m.perms.write).map(|m| m.start).collect();
        let (mut found, mut refused) = (0, 0);
        for seed in 0..40 {
            let one_in = [3, 30, 300, 3000][seed as usize % 4];
            target.memory = Arc::new(Damaged { inner: inner.clone(), seed, one_in, places: places.clone() });
            match Python::find(&target) {
                Ok(python) => {
                    found += 1;
                    let _ = python.free_lists(&target);
                    let _ = python.interned(&target);
                    let _ = python.stack_chunks(&target);
                    let _ = python.owned_blocks(&target);
                    let mut reader = target.reader();
                    for list in &python.gc.lists {
                        python.gc.for_each(&mut reader, list, 1 << 20, |_| ());
                    }
                }
                Err(_) => refused += 1,
            }
        }
        assert!(found > 0 && refused > 0, "{minor:?}: {found} found, {refused} refused");
    }
}

#[test]
fn lists_that_turn_in_circles_end() {
    // Two nodes that point at each other and never at the head.
    let mut memory = SyntheticMemory::new();
    memory.map(0x1000, vec![0; 0x100]);
    for (at, next) in [(0x1000, 0x1020), (0x1020, 0x1040), (0x1040, 0x1060), (0x1060, 0x1040)] {
        memory.write_u64(at, next);
    }
    let mut gc = Gc::default();
    gc.head_size = 16;
    let list = crate::GcList { interpreter: 0, generation: crate::Generation::Permanent, head: 0x1000 };
    let mut seen = 0;
    let ended = gc.for_each(&mut Reader::new(&memory), &list, 1 << 20, |_| seen += 1);
    assert_eq!(ended, crate::gc::Ended::Cycle);
    assert!(seen < 16, "{seen}");
    // A list that leaves mapped memory.
    memory.write_u64(0x1060, 0x9000);
    let ended = gc.for_each(&mut Reader::new(&memory), &list, 1 << 20, |_| ());
    assert!(matches!(ended, crate::gc::Ended::Broken(f) if f.addr == 0x9000), "{ended:?}");
    // And one that is longer than it may be.
    assert_eq!(gc.for_each(&mut Reader::new(&memory), &list, 2, |_| ()), crate::gc::Ended::Cut);
}

fn synthetic(memory: SyntheticMemory, symbols: &[(&str, u64, u64)]) -> Target {
    let segments = vec![Segment { range: 0x10000..0x20000, write: true, exec: false }];
    Target {
        kind: wmr_memory::TargetKind::Core,
        memory: Arc::new(memory),
        mappings: Vec::new(),
        images: vec![Image::synthetic("/opt/anything", segments, symbols)],
        threads: Vec::new(),
        process: Default::default(),
        capture: wmr_memory::Capture {
            method: wmr_memory::Method::File,
            pause: Default::default(),
            consistent: true,
            time: std::time::SystemTime::UNIX_EPOCH,
        },
        page_size: 4096,
        notes: Vec::new(),
    }
}

#[test]
fn what_is_not_read_is_declined_by_name() {
    let runtime = |version: u64, free_threaded: u64| {
        let mut memory = SyntheticMemory::new();
        memory.map(0x10000, vec![0; 0x10000]);
        memory.write(0x11000, b"xdebugpy");
        memory.write_u64(0x11008, version);
        memory.write_u64(0x11010, free_threaded);
        memory
    };
    let named = [("_PyRuntime", 0x11000, 0x100)];
    let error = |memory, symbols: &[(&str, u64, u64)]| Python::find(&synthetic(memory, symbols)).err();

    assert_eq!(
        error(runtime(0x030d05f0, 1), &named),
        Some(FindError::FreeThreaded { version: Version(0x030d05f0) })
    );
    assert_eq!(
        error(runtime(0x031000a1, 0), &named),
        Some(FindError::Unsupported { version: Version(0x031000a1) })
    );
    // By its cookie alone: no symbol, no section.
    assert_eq!(
        error(runtime(0x031000a1, 0), &[]),
        Some(FindError::Unsupported { version: Version(0x031000a1) })
    );
    // Nothing behind the symbol yet: not started, or over.
    assert_eq!(error(runtime(0x030e0af0, 0), &named), Some(FindError::NotRunning));
    assert_eq!(error(runtime(0, 0), &[("pypy_main_startup", 0x12000, 8)]), Some(FindError::PyPy));
    assert_eq!(error(SyntheticMemory::new(), &[]), Some(FindError::NotPython));

    // 3.5 has `interp_head`, no table, and says its version in a string.
    let mut memory = SyntheticMemory::new();
    let mut bytes = vec![0; 0x10000];
    bytes[0x100..0x107].copy_from_slice(b"\x003.5.10");
    memory.map(0x10000, bytes);
    let mut target = synthetic(memory, &[("PyType_Type", 0x12000, 400)]);
    target.images[0].segments[0].write = false;
    assert_eq!(Python::find(&target).err(), Some(FindError::Unsupported { version: Version::new(3, 5, 10) }));
}
