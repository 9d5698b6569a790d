//! Which objects of a live process have references that were not found: `counts_of PID`.

use std::collections::BTreeMap;
use wmr_heap::graph::Fold;
use wmr_heap::{Held, inspect};
use wmr_memory::live::attach;

/// Of objects with one thing in common.
#[derive(Default)]
struct Group {
    objects: u64,
    references: u64,
    example: String,
}

fn main() {
    let pid = std::env::args().nth(1).and_then(|pid| pid.parse().ok()).expect("a pid");
    let target = attach(pid, &Default::default()).expect("attached");
    let inspection = inspect(&target).expect("blocks can be numbered");
    let held = Held::find(&target, &inspection, Fold::No).expect("an interpreter").expect("few references");
    let mut reader = target.reader();
    let (mut counted, mut exact, mut outside, mut never) = (0u64, 0u64, 0u64, 0u64);
    let mut groups: BTreeMap<(&str, &str), Group> = BTreeMap::new();
    for node in 0..held.graph.nodes() {
        if held.type_of(node).is_none() {
            continue;
        }
        let Some(count) = held.count(&mut reader, node) else {
            never += 1;
            continue;
        };
        counted += 1;
        if count.is_explained() {
            exact += u64::from(count.said == count.found);
            outside += u64::from(count.said != count.found);
            continue;
        }
        let what = if count.surplus() > 0 { "not found" } else { "not counted" };
        let group = groups.entry((what, held.type_name(node))).or_default();
        group.objects += 1;
        group.references += count.surplus() + count.deficit();
        if group.example.is_empty() {
            let addr = held.addr(&mut reader, node).unwrap_or(0);
            group.example = format!("{addr:#x} {count:?} {:?}", held.outside(node));
        }
    }
    let explained = exact + outside;
    println!(
        "{counted} counted, {never} never freed, {exact} exact, {outside} with words outside: {:.4} %",
        explained as f64 * 100.0 / counted as f64
    );
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.objects));
    for ((what, ty), group) in groups.into_iter().take(40) {
        println!("{:8} {:8} {what:12} {ty}: {}", group.objects, group.references, group.example);
    }
}
