//! References against the interpreter's own word: `gc.get_referents()` of every object of a script that
//! makes several of each type, on every interpreter.

mod referents {
    pub mod compare;
    pub mod hidden;
}

use referents::compare::compare;
use wmr_memory::live::attach;
use wmr_testing::interpreters;

#[test]
fn referents_and_labels_are_the_targets_own() {
    let script = format!("{}{}", include_str!("referents/everything.py"), wmr_testing::READY);
    let only = std::env::var("WMR_TEST_PYTHON").ok();
    let mut wrong = Vec::new();
    for python in interpreters().iter().filter(|p| only.as_ref().is_none_or(|tag| *tag == p.tag)) {
        eprintln!("{} ({:?})", python.version, python.kind);
        let process = python.spawn(&script).expect("starts");
        wmr_testing::at_rest(process.pid()).expect("at rest");
        let target = attach(process.pid(), &Default::default()).expect("attached");
        let found = compare(&target, process.truth());
        wrong.extend(
            found.iter().take(300).map(|line| format!("{} {:?}: {line}", python.version, python.kind)),
        );
    }
    assert!(wrong.is_empty(), "not the target's own word:\n{}", wrong.join("\n"));
}
