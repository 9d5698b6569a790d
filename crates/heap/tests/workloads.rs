//! Real programs with a known truth: what they made is found, and named.

use serde_json::Value;
use std::path::{Path, PathBuf};
use wmr_alloc::SpanKind;
use wmr_heap::{Inspection, Sure, TypeRow, inspect};
use wmr_memory::Target;
use wmr_memory::live::attach;
use wmr_testing::{Interpreter, at_rest, build_extension, python, venv};

const VERSIONS: [&str; 2] = ["3.11", "3.13"];

fn workload(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench/workloads").join(name)
}

struct Seen {
    truth: Value,
    inspection: Inspection,
    types: Vec<TypeRow>,
    target: Target,
    python: String,
}

impl Seen {
    /// Objects of a type, by its qualified name.
    fn count(&self, name: &str) -> u64 {
        self.types.iter().filter(|t| t.name == name).map(|t| t.count).sum()
    }

    fn said(&self, key: &str) -> u64 {
        self.truth[key].as_u64().unwrap_or_else(|| panic!("the workload says no {key}"))
    }

    /// The interpreter has some of each by itself: at least what the workload made, and not much more.
    fn expect(&self, name: &str, made: u64) {
        let found = self.count(name);
        let own = 60_000;
        assert!((made..made + own).contains(&found), "{}: {found} {name}, made {made}", self.python);
    }

    fn expect_exactly(&self, name: &str, made: u64) {
        assert_eq!(self.count(name), made, "{}: {name}", self.python);
    }

    fn expect_named(&self, percent: f64) {
        let named = self.inspection.tally.ledger.heap_named_percent();
        eprintln!("{}: heap named {named:.2} %", self.python);
        assert!(named >= percent, "{}: {named:.2} % of the heap named, not {percent}", self.python);
        let rows = self.inspection.by_kind();
        let guesses = rows.iter().filter(|row| row.kind.sure == Sure::Guess);
        let guessed: u64 = guesses.map(|row| row.amount.charge.total()).sum();
        let ledger = &self.inspection.tally.ledger;
        let heap = ledger.named_heap() + ledger.unknown();
        assert!(100 * guessed < 3 * heap, "{}: {guessed} bytes guessed of {heap}", self.python);
        assert!(rows.iter().all(|row| !row.kind.kind.contains("uncategorized")), "{}", self.python);
    }

    /// Used pymalloc blocks that are objects, claimed by one, or free-listed.
    fn expect_pymalloc_named(&self) {
        let (mut used, mut named) = (0u64, 0u64);
        for (i, span) in self.inspection.blocks.spans().iter().enumerate() {
            if matches!(span.kind, SpanKind::Pymalloc { .. }) {
                for block in self.inspection.blocks.iter_span(i) {
                    used += 1;
                    named += u64::from(!self.inspection.census.mark(block.id).is_none());
                }
            }
        }
        let percent = 100.0 * named as f64 / used as f64;
        eprintln!("{}: {percent:.3} % of {used} pymalloc blocks named", self.python);
        assert!(percent >= 99.0, "{}: {percent:.3} % of pymalloc blocks", self.python);
    }

    fn expect_balanced(&self) {
        let ledger = &self.inspection.tally.ledger;
        assert_eq!(ledger.rows.iter().map(|r| r.bytes).sum::<u64>(), ledger.total);
        let process = &self.target.process;
        assert_eq!(Some(ledger.rss), process.rss, "{}: resident bytes against smaps", self.python);
    }
}

/// Runs a workload and looks at it. `libraries`: it needs more than the standard library.
fn look(python: &Interpreter, name: &str, n: u64, path: Option<&Path>) -> Seen {
    let process = python
        .spawn_file(&workload(name), |command| {
            command.arg(n.to_string());
            if let Some(path) = path {
                command.env("PYTHONPATH", path);
            }
        })
        .unwrap_or_else(|e| panic!("{name} on {}: {e}", python.version));
    at_rest(process.pid()).expect("at rest");
    let target = attach(process.pid(), &Default::default()).expect("attached");
    let inspection = inspect(&target).expect("inspected");
    assert!(inspection.python.is_ok(), "{}", python.version);
    let seen = Seen {
        truth: process.json().expect("the workload's truth"),
        types: inspection.by_type(&target),
        inspection,
        target,
        python: format!("{name} on {}", python.version),
    };
    seen.expect_balanced();
    seen
}

/// The interpreters the workloads run on; those that need libraries run in virtual environments.
fn each(libraries: bool, check: impl Fn(&Interpreter)) {
    for tag in VERSIONS {
        let found = if libraries { venv(tag) } else { python(tag).cloned() };
        let python = found.unwrap_or_else(|| panic!("no python {tag}: cargo xtask pythons installs it"));
        check(&python);
    }
}

#[test]
fn w1_records_in_every_representation() {
    each(false, |python| {
        let seen = look(python, "w1_seed.py", 10_000, None);
        for name in ["AddressNT", "AddressCls", "AddressSlots", "AddressDC"] {
            seen.expect_exactly(&format!("__main__.{name}"), seen.said(name));
        }
        seen.expect("str", seen.said("str_unique"));
        seen.expect("tuple", seen.said("tuple"));
        seen.expect("dict", seen.said("dict"));
        seen.expect_named(98.0);
        seen.expect_pymalloc_named();
    });
}

#[test]
fn w2_an_unbounded_cache() {
    each(true, |python| {
        let seen = look(python, "w2_web.py", 50_000, None);
        for name in ["CacheEntry", "RequestCtx", "User"] {
            seen.expect_exactly(&format!("__main__.{name}"), seen.said(name));
        }
        seen.expect("dict", seen.said("response_dicts"));
        seen.expect("list", seen.said("headers_list"));
        seen.expect("float", seen.said("float_min"));
        seen.expect("int", seen.said("int_headers") + seen.said("int_rid"));
        let strs = ["key_str", "etag_str", "body_str", "path_str"].map(|k| seen.said(k)).iter().sum();
        let found = seen.count("str");
        assert!(found >= strs, "{}: {found} str of {strs}", seen.python);
        seen.expect_named(98.0);
        seen.expect_pymalloc_named();
    });
}

#[test]
fn w3_items_of_object_arrays() {
    each(true, |python| {
        let seen = look(python, "w3_numpy.py", 50_000, None);
        let strs = seen.said("str_ascii") + seen.said("str_latin1");
        let found = seen.count("str");
        assert!(found >= strs, "{}: {found} str of {strs}", seen.python);
        let tuples = seen.count("tuple");
        assert!(tuples >= seen.said("objarr_tuples"), "{}: {tuples} tuples", seen.python);
        let arrays = seen.count("numpy.ndarray");
        assert!(arrays >= seen.said("ndarray_small"), "{}: {arrays} arrays", seen.python);
        seen.expect_named(97.0);
        seen.expect_pymalloc_named();
    });
}

#[test]
fn w4_garbage_and_a_growing_list() {
    each(false, |python| {
        let seen = look(python, "w4_leak.py", 20_000, None);
        seen.expect_exactly("__main__.Event", seen.said("Event"));
        seen.expect_exactly("__main__.Node", seen.said("Node"));
        seen.expect("bytearray", seen.said("bytearray_nodes"));
        seen.expect("str", seen.said("payload_str"));
        seen.expect("int", seen.said("int_i"));
        // What was leaked has no owner: it stays unknown, all of it and little else.
        let ledger = &seen.inspection.tally.ledger;
        let leaked = seen.said("c_leak_blocks") * 1008;
        assert!(
            ledger.unknown() >= leaked,
            "{}: {} unknown of {leaked} leaked",
            seen.python,
            ledger.unknown()
        );
        let heap: u64 = ledger.rows.iter().filter(|r| r.domain.is_heap()).map(|r| r.bytes).sum();
        let live = 100.0 * (ledger.named_heap()) as f64 / (heap - leaked) as f64;
        assert!(live >= 98.0, "{}: {live:.2} % of the live heap named", seen.python);
        seen.expect_pymalloc_named();
    });
}

#[test]
fn w4c_objects_a_c_extension_leaks() {
    each(false, |python| {
        let extension = build_extension(python, &workload("leakext.c")).expect("the extension builds");
        let folder = extension.parent().expect("a folder");
        let seen = look(python, "w4c_cext.py", 20_000, Some(folder));
        seen.expect("float", seen.said("unreachable_float"));
        seen.expect("str", seen.said("unreachable_str"));
        let leaked = seen.said("c_leak_blocks") * 512;
        assert!(seen.inspection.tally.ledger.unknown() >= leaked, "{}", seen.python);
    });
}

#[test]
fn w5_small_objects() {
    each(false, |python| {
        let seen = look(python, "w5_small.py", 500_000, None);
        for name in ["int", "float", "str"] {
            seen.expect(name, seen.said(name));
        }
        seen.expect_named(98.0);
        seen.expect_pymalloc_named();
    });
}
