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
