//! Planted leaks are found to the block, by the programs' own count and by valgrind's; what is not lost
//! is not called so.

#[path = "leaks/valgrind.rs"]
mod valgrind;

use wmr_heap::graph::Fold;
use wmr_heap::leaks::{self, Counts, Leaks, Standing, State};
use wmr_heap::{Held, Inspection, inspect};
use wmr_memory::Target;
use wmr_memory::live::attach;
use wmr_testing::{READY, at_rest, build_extension, interpreters, python, venv, workload};

/// A few may still have their address in a dead slot of a stack or a frame: whoever looks at every word
/// takes that for a reference.
fn expect_nearly(found: u64, made: u64, what: &str) {
    assert!((made - made / 50 - 5..=made).contains(&found), "{what}: {found} of {made}");
}

struct Seen {
    process: wmr_testing::Target,
    inspection: Inspection,
    leaks: Leaks,
    /// Of whatever is a Python.
    counts: Option<Counts>,
}

fn look(process: wmr_testing::Target) -> Seen {
    at_rest(process.pid()).expect("at rest");
    let target: Target = attach(process.pid(), &Default::default()).expect("attached");
    let inspection = inspect(&target).expect("inspected");
    let leaks = leaks::find(&target, &inspection);
    let held = Held::find(&target, &inspection, Fold::Yes).map(|held| held.expect("few references"));
    let counts = held.map(|held| leaks::counts(&held, &held.reach(), &leaks));
    Seen { process, inspection, leaks, counts }
}

impl Seen {
    fn said(&self, key: &str) -> u64 {
        self.process.json().expect("a truth")[key].as_u64().unwrap_or_else(|| panic!("no {key}"))
    }

    fn unheld(&self, ty: &str) -> u64 {
        let types = &self.inspection.census.types;
        self.leaks.unheld.iter().filter(|u| types[u.ty as usize].name == ty).map(|u| u.count).sum()
    }

    /// Lost blocks for so many bytes; what is too little for a chunk of its own goes with one.
    fn definite(&self, usable: u64) -> u64 {
        let alike =
            |n: &&leaks::Native| n.state == State::Definite && (usable..=usable + 24).contains(&n.usable.0);
        self.leaks.native.iter().filter(alike).map(|n| n.count).sum()
    }

    /// Nothing but single small things is said to be lost, and no count to be wrong.
    fn expect_none(&self, what: &str) {
        let definite: Vec<_> = self.leaks.native.iter().filter(|n| n.state == State::Definite).collect();
        assert!(definite.is_empty(), "{what}: {definite:?}");
        let unheld: Vec<_> = self.leaks.unheld.iter().filter(|u| u.count > 1).collect();
        assert!(unheld.is_empty(), "{what}: {unheld:?}");
        let garbage: Vec<_> =
            self.leaks.garbage.iter().filter(|c| c.standing != Standing::Surplus || c.count > 1).collect();
        assert!(garbage.is_empty(), "{what}: {garbage:?}");
        // Some libraries keep a reference or two where nobody looks; a leak has many.
        let counts = self.counts.as_ref().expect("a Python");
        let wrong: Vec<_> = counts.surplus.iter().filter(|row| row.references > 20).collect();
        assert!(wrong.is_empty(), "{what}: too many: {wrong:?}");
        let wrong: Vec<_> = counts.deficit.iter().filter(|row| row.references > 1).collect();
        assert!(wrong.is_empty(), "{what}: too few: {wrong:?}");
    }
}

#[test]
fn w4_lost_blocks_and_cycles_nobody_collects() {
    for tag in ["3.11", "3.13"] {
        let python = python(tag).unwrap();
        let process = python
            .spawn_file(&workload("w4_leak.py"), |command| {
                command.arg("20000");
            })
            .unwrap();
        let seen = look(process);
        assert!(seen.leaks.collectors.iter().all(|collector| !collector.enabled));
        expect_nearly(seen.definite(1000), seen.said("c_leak_blocks"), tag);
        let node = seen.inspection.census.types.iter().position(|t| t.name == "__main__.Node").unwrap();
        let cycles: Vec<_> = seen
            .leaks
            .garbage
            .iter()
            .filter(|c| c.shape.iter().any(|(ty, _)| *ty as usize == node))
            .collect();
        assert_eq!(cycles.len(), 1, "{tag}: {cycles:?}");
        expect_nearly(cycles[0].count, seen.said("cycles"), tag);
        assert_eq!(cycles[0].objects, 2 * cycles[0].count, "{tag}");
        assert_eq!(cycles[0].shape, [(node as u32, 2)]);
        assert!(
            cycles[0].standing != Standing::Surplus && cycles[0].bytes > 200 * cycles[0].objects,
            "{tag}: {cycles:?}"
        );
        // The list that grows is reached.
        assert_eq!(seen.unheld("__main__.Event"), 0);
    }
}

#[test]
fn w4c_references_an_extension_does_not_give_back() {
    for tag in ["3.8", "3.11", "3.13"] {
        let python = python(tag).unwrap();
        let extension = build_extension(python, &workload("leakext.c")).expect("the extension builds");
        let folder = extension.parent().unwrap().to_owned();
        let process = python
            .spawn_file(&workload("w4c_cext.py"), |command| {
                command.arg("5000").env("PYTHONPATH", &folder);
            })
            .unwrap();
        let seen = look(process);
        let kept = seen.said("K");
        expect_nearly(seen.unheld("float"), kept, tag);
        expect_nearly(seen.unheld("str"), kept, tag);
        expect_nearly(seen.definite(504), kept, tag);
    }
}

/// A container that is lost takes its cycle with it: the collector sees a count it cannot explain.
#[test]
fn a_lost_reference_to_a_container_is_not_garbage() {
    for tag in ["3.8", "3.11", "3.13"] {
        let script = "import ctypes, gc\n\
            for n in range(500):\n    ring = [n]; ring.append(ring); ctypes.pythonapi.Py_IncRef(ctypes.py_object(ring))\n\
            del ring\ngc.collect()";
        let seen = look(python(tag).unwrap().spawn(&format!("{script}{READY}")).unwrap());
        let list = seen.inspection.census.types.iter().position(|t| t.name == "list").unwrap() as u32;
        let rings: Vec<_> = seen.leaks.garbage.iter().filter(|c| c.shape == [(list, 1)]).collect();
        assert!(rings.len() == 1 && rings[0].standing == Standing::Surplus, "{tag}: {rings:?}");
        expect_nearly(rings[0].count, 500, tag);
    }
}

#[test]
fn idle_interpreters_have_lost_nothing() {
    for python in interpreters() {
        let seen = look(python.spawn(&format!("import gc; gc.collect()\n{READY}")).unwrap());
        seen.expect_none(&python.tag);
    }
}

#[test]
fn programs_that_hold_what_they_have_are_not_accused() {
    let server = "import asyncio, gc, os\n\
        async def main():\n\
        \x20   await asyncio.start_server(lambda r, w: None, '127.0.0.1', 0)\n\
        \x20   tasks = [asyncio.create_task(asyncio.sleep(10000)) for _ in range(100)]\n\
        \x20   await asyncio.sleep(0.05); gc.collect()\n\
        \x20   print('ready', os.getpid(), flush=True)\n\
        \x20   os.read(0, 1)\n\
        asyncio.run(main())\n";
    let flask = format!(
        "import flask, gc\napp = flask.Flask('x')\nclient = app.test_client()\n\
         kept = [client.get('/') for _ in range(50)]\ngc.collect(){READY}"
    );
    let stdlib = format!(
        "import gc, sqlite3, ssl, zlib, xml.etree.ElementTree as tree\n\
         db = sqlite3.connect(':memory:'); db.execute('create table a(b)')\n\
         db.executemany('insert into a values(?)', [(str(i),) for i in range(1000)])\n\
         context = ssl.create_default_context()\n\
         root = tree.fromstring('<a>' + '<b>x</b>' * 100 + '</a>')\n\
         packer = zlib.compressobj(); packer.compress(b'x' * 100000)\ngc.collect(){READY}"
    );
    for tag in ["3.11", "3.13"] {
        let python = venv(tag).expect("a virtual environment: cargo xtask pythons");
        for (name, script) in [("server", server), ("flask", &flask), ("stdlib", &stdlib)] {
            look(python.spawn(script).unwrap()).expect_none(&format!("{name} on {tag}"));
        }
        for (name, size) in [("w1_seed.py", "2000"), ("w2_web.py", "3000"), ("w5_small.py", "20000")] {
            let process = python
                .spawn_file(&workload(name), |command| {
                    command.arg(size);
                })
                .unwrap();
            look(process).expect_none(&format!("{name} on {tag}"));
        }
    }
}
