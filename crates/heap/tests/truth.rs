//! Our counts against the target's own word, on every interpreter there is.

mod truth {
    pub mod compare;
}

use truth::compare::Truth;
use wmr_memory::live::attach;
use wmr_testing::{Interpreter, interpreters};

const SCRIPT: &str = include_str!("truth/everything.py");

fn live(python: &Interpreter, malloc: Option<&str>) -> Vec<String> {
    let run = python.spawn_with(SCRIPT, |command| {
        if let Some(malloc) = malloc {
            command.env("PYTHONMALLOC", malloc);
        }
    });
    let process = match run {
        Ok(process) => process,
        Err(e) => return vec![format!("{} does not start: {e}", python.version)],
    };
    let truth = Truth::parse(process.truth());
    match attach(process.pid(), &Default::default()) {
        Ok(target) => truth.compare(&target),
        Err(e) => vec![e.to_string()],
    }
}

#[test]
fn live_counts_and_sizes_are_the_targets_own() {
    let mut wrong = Vec::new();
    for python in interpreters() {
        if std::env::var("WMR_ONLY").is_ok_and(|only| only != python.tag) {
            continue;
        }
        let found = live(python, None);
        eprintln!("{} ({:?}): {} differences", python.version, python.kind, found.len());
        for line in found.iter().take(40) {
            eprintln!("    {line}");
        }
        if !found.is_empty() {
            wrong.push(python.version.clone());
        }
    }
    assert!(wrong.is_empty(), "not the target's own word: {wrong:?}");
}

/// Nothing is named that is not known.
#[test]
fn planted_blocks_get_no_name() {
    let script = format!("{}{}", include_str!("truth/planted.py"), wmr_testing::READY);
    let mut wrong = Vec::new();
    for python in interpreters() {
        let process = python.spawn(&script).expect("starts");
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
                wrong.push(format!("{}: {addr:#x} ({what}) is named {kind:?}", python.version));
            }
        }
        assert!(seen >= 10_000, "{}: {seen} planted blocks seen", python.version);
    }
    assert!(wrong.is_empty(), "{} wrong names, the first: {:#?}", wrong.len(), &wrong[..wrong.len().min(30)]);
}
