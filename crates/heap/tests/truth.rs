//! Our counts against the target's own word, on every interpreter there is.

mod truth {
    pub mod compare;
}

use truth::compare::Truth;
use wmr_memory::live::attach;
use wmr_memory::open_core;
use wmr_testing::{Interpreter, Kind, gcore, interpreters, kernel_core};

const SCRIPT: &str = include_str!("truth/everything.py");

/// What a capture of the script on one interpreter gets wrong.
fn differences(python: &Interpreter, variables: &[(&str, &str)], how: How) -> Vec<String> {
    let started = python.spawn_with(SCRIPT, |command| {
        command.envs(variables.iter().copied());
    });
    let process = match started {
        Ok(process) => process,
        Err(e) => return vec![format!("it does not start: {e}")],
    };
    let truth = Truth::parse(process.truth());
    let core = |file: std::io::Result<wmr_testing::TempFile>| {
        let file = file.map_err(|e| e.to_string())?;
        open_core(&file, &Default::default()).map_err(|e| e.to_string())
    };
    if let Err(error) = wmr_testing::at_rest(process.pid()) {
        return vec![error.to_string()];
    }
    let target = match how {
        How::Live => attach(process.pid(), &Default::default()).map_err(|e| e.to_string()),
        How::Gcore => core(gcore(process.pid())),
        How::KernelCore => core(kernel_core(process)),
    };
    target.map_or_else(|e| vec![e], |target| truth.compare(&target))
}

#[derive(Debug, Clone, Copy)]
enum How {
    Live,
    Gcore,
    KernelCore,
}

/// Compares every interpreter that `choose` takes; panics with all that differs.
fn matrix(how: How, variables: &[(&str, &str)], choose: impl Fn(&Interpreter) -> bool) {
    let mut wrong = Vec::new();
    let mut covered = 0;
    for python in interpreters().iter().filter(|p| choose(p)) {
        eprintln!("{} ({:?}), {how:?}, {variables:?}", python.version, python.kind);
        let found = differences(python, variables, how);
        wrong.extend(
            found.iter().take(20).map(|line| format!("{} {:?}: {line}", python.version, python.kind)),
        );
        covered += 1;
    }
    assert!(covered > 0, "no interpreter: cargo xtask pythons finds or installs them");
    assert!(wrong.is_empty(), "not the target's own word:\n{}", wrong.join("\n"));
}

/// The versions that are looked at under every allocator.
fn sampled(python: &Interpreter) -> bool {
    ["3.8", "3.11", "3.13"].contains(&python.tag.as_str()) && python.kind == Kind::Pyenv
}

#[test]
fn live_counts_and_sizes_are_the_targets_own() {
    matrix(How::Live, &[], |_| true);
}

#[test]
fn counts_in_a_gcore_are_the_targets_own() {
    matrix(How::Gcore, &[], |_| true);
}

#[test]
fn counts_in_a_kernel_core_are_the_targets_own() {
    matrix(How::KernelCore, &[], |p| sampled(p) && p.tag != "3.8");
}

#[test]
fn counts_under_the_debug_allocator_are_the_targets_own() {
    matrix(How::Live, &[("PYTHONMALLOC", "debug")], sampled);
}

#[test]
fn counts_without_pymalloc_are_the_targets_own() {
    matrix(How::Live, &[("PYTHONMALLOC", "malloc")], sampled);
}

/// What belongs together lies far apart.
#[test]
fn counts_in_a_heap_that_has_lived_are_the_targets_own() {
    let recent = |p: &Interpreter| sampled(p) || ["3.6", "3.9", "3.14", "3.15"].contains(&p.tag.as_str());
    matrix(How::Live, &[("PYTHONMALLOC", "malloc"), ("AGED", "1")], recent);
    matrix(How::Live, &[("AGED", "1")], sampled);
}

/// Nothing is named that is not known.
#[test]
fn planted_blocks_get_no_name() {
    planted("", |_| true);
    planted("malloc", sampled);
}

fn planted(allocator: &str, choose: impl Fn(&Interpreter) -> bool) {
    let script = format!("{}{}", include_str!("truth/planted.py"), wmr_testing::READY);
    let mut wrong = Vec::new();
    for python in interpreters().iter().filter(|python| choose(python)) {
        let process = python.spawn_with(&script, |command| {
            command.env("PYTHONMALLOC", allocator);
        });
        let process = process.expect("starts");
        wmr_testing::at_rest(process.pid()).expect("at rest");
        let target = attach(process.pid(), &Default::default()).expect("attached");
        let inspection = wmr_heap::inspect(&target).expect("inspected");
        let mut seen = 0;
        for line in process.truth() {
            let mut words = line.split(' ');
            let (Some("planted"), Some(addr), Some(what)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let addr = u64::from_str_radix(addr, 16).expect("an address");
            let Some(id) = inspection.blocks.find(addr) else {
                wrong.push(format!("{}: {addr:#x} ({what}) is not in a used block", python.version));
                continue;
            };
            seen += 1;
            let mark = inspection.census.mark(id);
            if let Some(ty) = mark.as_object() {
                let name = &inspection.census.types[ty as usize].name;
                wrong.push(format!("{}: {addr:#x} ({what}) is named an object of {name}", python.version));
            } else if let Some(kind) = mark.as_kind() {
                let kind = inspection.census.kinds.get(kind);
                // What is unknown may say whose addresses are in it.
                if kind.domain == wmr_heap::Domain::Unknown && kind.sure != wmr_heap::Sure::Guess {
                    continue;
                }
                wrong.push(format!("{}: {addr:#x} ({what}) is named {kind:?}", python.version));
            }
        }
        assert!(seen >= 10_000, "{}: {seen} planted blocks seen", python.version);
    }
    assert!(wrong.is_empty(), "{} wrong names, the first: {:#?}", wrong.len(), &wrong[..wrong.len().min(30)]);
}

/// Types whose names want to do harm are counted like any other.
#[test]
fn hostile_names_are_only_names() {
    const SCRIPT: &str = "
import gc
names = ['evil\\x1b[31m', 'two\\nlines', 'x' * 10000000, 'collections.deque', 'dict', '\\t']
types = [type(n, (object,), {'__module__': 'm'}) for n in names]
keep = [t() for t in types for _ in range(7)]
gc.collect(); gc.disable()
";
    for python in interpreters() {
        let script = format!("{SCRIPT}{}", wmr_testing::READY);
        let process = python.spawn(&script).expect("starts");
        wmr_testing::at_rest(process.pid()).expect("at rest");
        let target = attach(process.pid(), &Default::default()).expect("attached");
        let inspection = wmr_heap::inspect(&target).expect("inspected");
        let rows = inspection.by_type(&target);
        let named = |name: &str| rows.iter().find(|r| r.name.starts_with(name) && r.module == "m");
        for name in ["m.evil\u{1b}[31m", "m.two\nlines", "m.xxxx", "m.collections.deque", "m.dict", "m.\t"] {
            let row = named(name).unwrap_or_else(|| panic!("{}: no type {name:?}", python.version));
            assert_eq!(row.count, 7, "{}: {name:?}", python.version);
            assert!(row.name.len() < 10_000, "{}: a name of {} bytes", python.version, row.name.len());
        }
    }
}
