//! Why pages of workers were copied, against workers that are known to have done just one thing.

use std::ops::Range;
use wmr_heap::inspect;
use wmr_heap::sharing::{Differences, Place, differences, same_interpreter};
use wmr_memory::live::{Capturing, LiveOptions, SharingOptions, ToldBy, attach, compare};
use wmr_testing::{Family, at_rest, python};

/// One of each shape of the collector's heads and of reference counts.
const VERSIONS: [&str; 5] = ["2.7", "3.8", "3.11", "3.13", "3.14"];

/// The pages that a worker and its parent do not share, and how that is known.
fn unshared(family: &Family, worker: i32, frames: bool) -> (Vec<Range<u64>>, ToldBy) {
    let options = SharingOptions { frames, pages: true };
    let mut compared = compare(family.parent.pid(), &[worker], &options).unwrap();
    (compared.children.remove(0).unwrap().unshared_pages, compared.told_by)
}

fn differences_of(
    family: &Family,
    name: &str,
    capture: Capturing,
    frames: bool,
) -> [(Place, Differences); 3] {
    let pid = family.worker(name);
    let (pages, _) = unshared(family, pid, frames);
    let options = LiveOptions { capture, max_pause: None, ..LiveOptions::default() };
    let worker = attach(pid, &options).unwrap();
    let inspection = inspect(&worker).unwrap();
    let parent = attach(family.parent.pid(), &options).unwrap();
    assert!(same_interpreter(&inspection, &parent));
    let found = differences(&inspection, &worker, &parent, &pages).unwrap();
    let compared: u64 = found.iter().map(|(_, d)| d.total()).sum();
    assert_eq!(compared, pages.iter().map(|r| r.end - r.start).sum::<u64>(), "each page is in one sum");
    found
}

fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

#[test]
fn what_was_copied_for_reference_counts_is_told_from_what_was_written() {
    for tag in VERSIONS {
        let Some(python) = python(tag) else { continue };
        let mut family = Family::start(python).unwrap();
        family.work().unwrap();
        at_rest(family.parent.pid()).unwrap();
        for (capture, frames) in
            [(Capturing::Clone, true), (Capturing::Clone, false), (Capturing::Stop, true)]
        {
            for name in ["use 25", "use 100", "write", "collect"] {
                let found = differences_of(&family, name, capture, frames);
                println!("{tag} {capture:?} {name}: {found:?}");
                let (_, arenas) = found[Place::Pymalloc as usize];
                let all = arenas.total();
                assert_eq!(arenas.unread, 0);
                match name {
                    "write" => assert!(share(arenas.other, all) > 0.9, "{tag} {name}: {arenas:?}"),
                    // Tuples of what the collector does not track are no longer tracked. Those of 3.14 never
                    // were.
                    "collect" => {
                        assert!(share(arenas.gc_heads, all) > 0.3, "{tag} {name}: {arenas:?}");
                        assert!(share(arenas.other, all) < 0.15, "{tag} {name}: {arenas:?}");
                    }
                    "use 100" => assert!(share(arenas.refcounts, all) > 0.9, "{tag} {name}: {arenas:?}"),
                    _ => assert!(share(arenas.refcounts, all) > 0.8, "{tag} {name}: {arenas:?}"),
                }
            }
        }
    }
}

/// Shared and private add up to each row's bytes and to the total, for a worker as for a process alone.
#[test]
fn shared_and_private_add_up_to_the_ledger() {
    for tag in VERSIONS {
        let Some(python) = python(tag) else { continue };
        let mut family = Family::start(python).unwrap();
        family.work().unwrap();
        at_rest(family.parent.pid()).unwrap();
        for name in ["use 0", "use 50"] {
            let worker = attach(family.worker(name), &LiveOptions::default()).unwrap();
            let inspection = inspect(&worker).unwrap();
            let ledger = &inspection.tally.ledger;
            let rows = inspection.by_kind();
            for row in &rows {
                let charge = row.amount.charge;
                assert_eq!(charge.shared() + charge.private(), charge.total(), "{:?}", row.kind);
            }
            let sum = |figure: fn(&wmr_memory::Charge) -> u64| -> u64 {
                rows.iter().map(|row| figure(&row.amount.charge)).sum()
            };
            assert_eq!(sum(|c| c.shared()) + sum(|c| c.private()), ledger.total);
            assert_eq!((sum(|c| c.shared()), sum(|c| c.total())), (ledger.shared, ledger.total));
            assert_eq!(ledger.rows.iter().map(|row| row.shared).sum::<u64>(), ledger.shared);
            assert!(ledger.rows.iter().all(|row| row.shared <= row.resident && row.resident <= row.bytes));
            // The kernel's own figure for all of it.
            let process = &worker.process;
            let (shared, said) = (ledger.shared, process.rss.unwrap() - process.uss.unwrap());
            assert!(shared.abs_diff(said) <= said / 50, "{tag} {name}: {shared}, the kernel says {said}");
            let objects = ledger.rows.iter().find(|row| row.domain == wmr_heap::Domain::Python).unwrap();
            let of_objects = share(objects.shared, objects.bytes);
            println!("{tag} {name}: shared {shared}, objects {of_objects:.3}");
            match name {
                "use 0" => assert!(of_objects > 0.95, "{tag}: {of_objects}"),
                _ => assert!((0.4..0.85).contains(&of_objects), "{tag}: {of_objects}"),
            }
        }
    }
}
