//! `[vdso]`, of which a program touches what it needs.

use crate::write;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::fs::FileExt;
use std::process::Command;
use wmr_memory::live::{Capturing, LiveOptions, attach};
use wmr_memory::{SnapshotOptions, Target, open_snapshot_bytes, write_snapshot};

/// Asks for no time.
const PROGRAM: &str = r#"
#include <stdio.h>
#include <unistd.h>
int main(void) {
    printf("ready %d\n", getpid());
    fflush(stdout);
    getchar();
}
"#;

fn vdso(target: &Target) -> (u64, Vec<u8>) {
    let mapping = target.mappings.iter().find(|mapping| mapping.name == b"[vdso]").unwrap();
    let mut bytes = vec![0; mapping.len() as usize];
    target.memory.read(mapping.start, &mut bytes).unwrap();
    (mapping.start, bytes)
}

fn resident(target: &Target) -> u64 {
    let mapping = target.mappings.iter().find(|mapping| mapping.name == b"[vdso]").unwrap();
    mapping.residency.charge(mapping.start..mapping.end).resident
}

/// Takes what was captured away: the clone goes when all is read.
fn snapshot(target: &Target) -> Target {
    let mut file = tempfile::tempfile().unwrap();
    write_snapshot(target, &file, SnapshotOptions { level: 1, redact: None }, &|_, _| {}).unwrap();
    file.rewind().unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    open_snapshot_bytes(bytes).unwrap()
}

#[test]
fn all_of_it_is_stored_and_gdb_has_nothing_to_say() {
    let program = wmr_testing::compile_c(PROGRAM, &["-O1"]).unwrap();
    let process = wmr_testing::Target::start(Command::new(&*program)).unwrap();
    let mut seen = Vec::new();
    for capture in [Capturing::Clone, Capturing::Stop, Capturing::None] {
        let options = LiveOptions { capture, max_pause: None, ..LiveOptions::default() };
        let live = attach(process.pid(), &options).unwrap();
        let (start, bytes) = vdso(&live);
        let touched = resident(&live);
        assert!(touched < bytes.len() as u64, "nothing tested: it has touched all");
        seen.push((start, bytes));
        let cores = [write(&live), write(&snapshot(&live))];
        for core in cores {
            let copy = core.open();
            seen.push(vdso(&copy));
            // What the target has not touched is not charged to it.
            assert_eq!(resident(&copy), touched);
            let said = core.gdb(Some(&program), &["info address __vdso_gettimeofday".into()]);
            assert!(!said.contains("warning"), "{said}");
            assert!(said.contains("is at 0x") || said.contains("is a function at"), "{said}");
        }
    }
    // Last, as this touches all of it.
    let mem = File::open(format!("/proc/{}/mem", process.pid())).unwrap();
    for (start, bytes) in seen {
        let mut theirs = vec![0; bytes.len()];
        mem.read_exact_at(&mut theirs, start).unwrap();
        assert!(bytes == theirs);
    }
}
