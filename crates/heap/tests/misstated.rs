//! Extension types that tell a wrong size are named, those that tell a right one are not.

use std::path::Path;
use wmr_memory::live::attach;
use wmr_testing::{READY, build_extension, interpreters, python};

#[test]
fn wrong_sizes_are_told_by_the_blocks() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/truth/sizes.c");
    let script = "
import sizes, gc, sys
kinds = ('Honest', 'Larger', 'Itemised', 'Pointing', 'Counting')
keep = [[getattr(sizes, k)() for _ in range(20)] for k in kinds]
for k, objects in zip(kinds, keep): print(k, sum(map(sys.getsizeof, objects)))
gc.collect(); gc.disable()
";
    for tag in ["3.8", "3.11", "3.13"] {
        let python = python(tag).unwrap_or_else(|| panic!("no python {tag}: cargo xtask pythons"));
        let extension = build_extension(python, &source).expect("the extension builds");
        let process = python
            .spawn_with(&format!("{script}{READY}"), |command| {
                command.env("PYTHONPATH", extension.parent().expect("a folder"));
            })
            .expect("starts");
        let said = |kind: &str| -> u64 {
            let line = process.truth().iter().find_map(|l| l.strip_prefix(kind)).expect("said");
            line.trim().parse().expect("a number")
        };
        wmr_testing::at_rest(process.pid()).expect("at rest");
        let target = attach(process.pid(), &Default::default()).expect("attached");
        let inspection = wmr_heap::inspect(&target).expect("inspected");
        let all = inspection.misstated(&target);
        let found = |kind: &str| all.iter().find(|m| m.name == format!("sizes.{kind}"));
        assert_eq!((found("Honest"), found("Counting")), (None, None), "{tag}");
        let larger = found("Larger").unwrap_or_else(|| panic!("{tag}: Larger is not told"));
        assert_eq!((larger.count, larger.too_little, larger.too_much), (20, 20, 0), "{tag}");
        assert_eq!(larger.sizeof, said("Larger"), "{tag}: what getsizeof says");
        assert_eq!(larger.bytes, 20 * 416, "{tag}: 400 bytes and the GC head");
        let itemised = found("Itemised").unwrap_or_else(|| panic!("{tag}: Itemised is not told"));
        assert_eq!((itemised.count, itemised.too_little, itemised.too_much), (20, 0, 20), "{tag}");
        assert_eq!(itemised.sizeof, said("Itemised"), "{tag}: what getsizeof says");
        let pointing = found("Pointing").unwrap_or_else(|| panic!("{tag}: Pointing is not told"));
        assert_eq!((pointing.count, pointing.held), (20, 20 * 1008), "{tag}");
        assert_eq!((pointing.too_little, pointing.too_much), (0, 0), "{tag}");
    }
}

/// The standard library's types are not accused by their blocks.
#[test]
fn honest_types_are_not_accused() {
    let script =
        format!("{}{READY}", include_str!("truth/everything.py").split("\nclass Plain").next().unwrap());
    for python in interpreters() {
        let process = python.spawn(&script).expect("starts");
        wmr_testing::at_rest(process.pid()).expect("at rest");
        let target = attach(process.pid(), &Default::default()).expect("attached");
        let inspection = wmr_heap::inspect(&target).expect("inspected");
        let accused: Vec<_> =
            inspection.misstated(&target).into_iter().filter(|m| m.too_much + m.too_little > 0).collect();
        assert!(accused.is_empty(), "{} {:?}: {accused:#?}", python.version, python.kind);
    }
}
