//! Objects in the data of programs and libraries are nodes though no object in a block has their type.

use std::path::Path;
use wmr_heap::graph::{Fold, Graph};
use wmr_heap::inspect;
use wmr_memory::live::attach;
use wmr_memory::{SnapshotOptions, Target, open_core, open_snapshot, write_snapshot};
use wmr_testing::{READY, at_rest, build_extension, gcore, interpreters, python};

const SCRIPT: &str = "
import sys
HELD = [Ellipsis, NotImplemented]
if 'singleton' in sys.argv: HELD.append(__import__('singleton').single)
HELD = tuple(HELD)
for o in (HELD,) + HELD: print('%x %s' % (id(o), type(o).__name__))
";

/// `truth`: the tuple, then each of its items.
fn check(target: &Target, truth: &[String], of: &str) {
    let told: Vec<(u64, &str)> = truth
        .iter()
        .map(|line| line.split_once(' ').expect("an address and a name"))
        .map(|(addr, ty)| (u64::from_str_radix(addr, 16).expect("an address"), ty))
        .collect();
    let inspection = inspect(target).expect("inspected");
    let model = inspection.model.as_ref().expect("an interpreter");
    let graph = Graph::build(target, &inspection, Fold::No).expect("an interpreter").expect("few references");
    let node = |(addr, ty): &(u64, &str)| {
        graph.node(&inspection, model, *addr).unwrap_or_else(|| panic!("{of}: {ty} is no node"))
    };
    let items: Vec<u32> = told[1..].iter().map(node).collect();
    assert_eq!(graph.csr.row(node(&told[0])), items, "{of}");
    for (node, (_, wanted)) in items.iter().zip(&told[1..]) {
        let ty = graph.type_of(&inspection, *node).expect("an object");
        assert_eq!(ty.name.rsplit('.').next(), Some(*wanted), "{of}");
    }
}

#[test]
fn the_only_object_of_a_type_is_a_node() {
    for python in interpreters() {
        let process = python.spawn(&format!("{SCRIPT}{READY}")).expect("starts");
        at_rest(process.pid()).expect("at rest");
        let target = attach(process.pid(), &Default::default()).expect("attached");
        check(&target, process.truth(), &format!("{} {:?}", python.version, python.kind));
    }
}

#[test]
fn so_is_one_of_an_extension_and_in_every_kind_of_target() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/singleton.c");
    for tag in ["3.8", "3.11", "3.13"] {
        let python = python(tag).expect("cargo xtask pythons installs it");
        let extension = build_extension(python, &source).expect("the extension builds");
        let process = python
            .spawn_with(&format!("{SCRIPT}{READY}"), |command| {
                command.arg("singleton").env("PYTHONPATH", extension.parent().expect("a folder"));
            })
            .expect("starts");
        assert_eq!(process.truth().len(), 4, "{tag}");
        at_rest(process.pid()).expect("at rest");
        let core = gcore(process.pid()).expect("a core");
        let live = attach(process.pid(), &Default::default()).expect("attached");
        check(&live, process.truth(), &format!("{tag}, live"));
        let core = open_core(&core, &Default::default()).expect("opened");
        check(&core, process.truth(), &format!("{tag}, core"));
        for (target, of) in [(live, "live"), (core, "core")] {
            let file = tempfile::NamedTempFile::new().expect("a file");
            let options = SnapshotOptions { level: 1, redact: None };
            write_snapshot(&target, file.as_file(), options, &|_, _| ()).expect("written");
            let snapshot = open_snapshot(file.path()).expect("opened");
            check(&snapshot, process.truth(), &format!("{tag}, snapshot of {of}"));
        }
    }
}
