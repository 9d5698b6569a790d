//! What workers share with the parent that forked them, against the kernel's own figures.

use wmr_memory::live::{Shares, SharingError, SharingOptions, ToldBy, compare, families, processes};
use wmr_testing::{Family, at_rest, interpreters, python};

const PAGE: u64 = 4096;
const BY_MAPCOUNT: SharingOptions = SharingOptions { frames: false, pages: true };

fn by_frames() -> SharingOptions {
    SharingOptions { frames: true, pages: true }
}

/// `Private_Dirty` of all mappings.
fn private_dirty(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t")
}

/// Within 2 %, or a few pages.
fn agree(a: u64, b: u64) -> bool {
    a.abs_diff(b) <= (a.max(b) / 50).max(24 * PAGE)
}

fn all(family: &Family, options: &SharingOptions) -> (ToldBy, Vec<Shares>) {
    let children: Vec<i32> = family.workers.iter().map(|(_, pid)| *pid).collect();
    let compared = compare(family.parent.pid(), &children, options).unwrap();
    (compared.told_by, compared.children.into_iter().map(Result::unwrap).collect())
}

fn rest(family: &Family) {
    for (_, pid) in &family.workers {
        at_rest_in_a_pipe(*pid);
    }
}

/// A worker waits in a read of its pipe, and has touched all it touches on the way there.
fn at_rest_in_a_pipe(pid: i32) {
    // read: call 0 on x86-64, 63 on arm64.
    let reads = |call: String| call.starts_with("0 ") || call.starts_with("63 ");
    while !reads(std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap()) {
        std::thread::yield_now();
    }
}

#[test]
fn what_workers_un_share_is_what_the_kernel_says_they_have_alone() {
    for python in interpreters() {
        let tag = &python.tag;
        let mut family = Family::start(python).unwrap();
        at_rest(family.parent.pid()).unwrap();
        for options in [by_frames(), BY_MAPCOUNT] {
            let (told_by, shares) = all(&family, &options);
            let frames = options.frames && is_root();
            assert_eq!(told_by, if frames { ToldBy::Frames } else { ToldBy::Exclusive });
            assert!(shares.iter().all(|s| s.with_siblings.is_some() == frames));
            assert!(shares.iter().all(|s| s.with_parent > 20 * s.unshared), "{tag}: {shares:?}");
        }
        rest(&family);
        let dirty =
            |family: &Family| family.workers.iter().map(|(_, pid)| private_dirty(*pid)).collect::<Vec<_>>();
        let (before, dirty_before) = (all(&family, &by_frames()).1, dirty(&family));
        family.work().unwrap();
        rest(&family);
        let (after, dirty_after) = (all(&family, &by_frames()).1, dirty(&family));
        let (_, by_mapcount) = all(&family, &BY_MAPCOUNT);
        for (i, (name, _)) in family.workers.iter().enumerate() {
            let alone = |s: &Shares| s.unshared + s.own - s.with_siblings.unwrap_or(0);
            let (grown, kernel) = (alone(&after[i]) - alone(&before[i]), dirty_after[i] - dirty_before[i]);
            println!("{tag} {name}: un-shared {} (+{grown}), kernel +{kernel}", after[i].unshared);
            assert!(agree(grown, kernel), "{tag} {name}: {grown} where the kernel says {kernel}");
            // What the parent wrote to its siblings still have: others map it, so it passes for shared.
            let without_siblings = after[i].unshared - after[i].with_siblings.unwrap_or(0);
            assert!(agree(without_siblings, by_mapcount[i].unshared), "{tag} {name}: {:?}", by_mapcount[i]);
            let listed: u64 = after[i].unshared_pages.iter().map(|r| r.end - r.start).sum();
            assert_eq!(listed, after[i].unshared);
        }
        let unshared = |name: &str| {
            let i = family.workers.iter().position(|(does, _)| does == name).unwrap();
            after[i].unshared - before[i].unshared
        };
        assert!(unshared("use 0") < 40 * PAGE, "{}", unshared("use 0"));
        let whole = unshared("use 100") as f64;
        for (name, part) in [("use 25", 0.25), ("use 50", 0.5)] {
            let found = unshared(name) as f64 / whole;
            assert!((found - part).abs() < 0.05, "{tag} {name}: {found}");
        }
    }
}

#[test]
fn families_are_grouped_and_who_is_lacking_is_said() {
    let Some(python) = python("3.11") else { return };
    let family = Family::start(python).unwrap();
    let parent = family.parent.pid();
    let mut list = processes();
    let found = families(&list.rows, &SharingOptions::default());
    assert_eq!(found.of(parent), Some(parent));
    for (name, pid) in &family.workers {
        assert_eq!(found.of(*pid), Some(parent), "{name}");
        let worker = &found.workers[pid];
        assert!(worker.parent == parent && worker.shares.unshared_pages.is_empty());
    }
    assert_eq!(found.of(std::process::id() as i32), None);

    // One ends after the list was made; its entry stays, as the parent does not wait for it.
    let gone = family.worker("write");
    assert!(std::process::Command::new("kill").args(["-9", &gone.to_string()]).status().unwrap().success());
    while !std::fs::read_to_string(format!("/proc/{gone}/stat")).unwrap().contains(") Z ") {
        std::thread::yield_now();
    }
    let found = families(&list.rows, &SharingOptions::default());
    assert!(!found.workers.contains_key(&gone) && found.of(family.worker("collect")) == Some(parent));
    assert!(found.notes.contains(&format!("process {gone} ended meanwhile")), "{:?}", found.notes);

    // Not a child of that parent, as far as the kernel knows.
    let row = list.rows.iter_mut().find(|row| row.process.pid == parent).unwrap();
    row.process.ppid = Some(family.worker("use 0"));
    let found = families(&list.rows, &SharingOptions::default());
    let refused = SharingError::NotAChild { child: parent, parent: family.worker("use 0") };
    assert!(found.notes.contains(&refused.to_string()), "{:?}", found.notes);

    drop(family);
    let found = families(&list.rows, &SharingOptions::default());
    assert_eq!(found.of(parent), None);
}

#[test]
fn a_parent_that_became_another_process_shares_nothing() {
    let Some(python) = python("3.11") else { return };
    let target = python.spawn(&Family::starts_anew()).unwrap();
    let found = families(&processes().rows, &SharingOptions::default());
    assert_eq!(found.of(target.pid()), None);
    let said = format!("process {} and its children ", target.pid());
    assert!(
        found.notes.iter().any(|note| note.starts_with(&said) && note.contains("started anew")),
        "{:?}",
        found.notes
    );
}
