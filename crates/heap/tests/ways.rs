//! Ways to a node, what roots keep alone, and the tree of dominators as it is shown: against brute force on small
//! random graphs.

use std::collections::{BTreeMap, BTreeSet};
use wmr_heap::graph::tree::{Facts, Hanging, Show};
use wmr_heap::graph::{Csr, Dominators, ROOT, UNREACHED, alone, ways};

/// A generator that is the same each time (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }
}

fn graph(random: &mut Random) -> (Vec<Vec<u32>>, BTreeMap<u32, u32>) {
    let nodes = 1 + random.below(24);
    let mut rows = vec![Vec::new(); nodes as usize];
    for _ in 0..random.below(3 * nodes) {
        rows[random.below(nodes) as usize].push(random.below(nodes) as u32);
    }
    let roots = (0..random.below(5)).map(|_| (random.below(nodes) as u32, random.below(3) as u32)).collect();
    (rows, roots)
}

/// What can be reached, over nodes that `enter` lets through.
fn reachable(rows: &[Vec<u32>], from: &[u32], enter: impl Fn(u32, u32) -> bool) -> BTreeSet<u32> {
    let mut seen: BTreeSet<u32> = from.iter().copied().collect();
    let mut todo = from.to_vec();
    while let Some(node) = todo.pop() {
        for &to in &rows[node as usize] {
            if enter(node, to) && seen.insert(to) {
                todo.push(to);
            }
        }
    }
    seen
}

#[test]
fn ways_are_paths_that_share_nothing_and_none_is_missed() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut several = 0;
    for _ in 0..5_000 {
        let (rows, roots) = graph(&mut random);
        let back = Csr::from_rows(&rows).expect("few edges").reversed();
        let node = random.below(rows.len() as u64) as u32;
        let group = |node: u32| roots.get(&node).map(|group| *group as usize);
        let found = ways(&back, group, node, 3);
        several += usize::from(found.len() > 1);
        let mut between = BTreeSet::new();
        let mut direct = BTreeSet::new();
        for way in &found {
            assert!(roots.contains_key(&way[0]) && way.last() == Some(&node), "{way:?} to {node}");
            assert!(way.windows(2).all(|pair| rows[pair[0] as usize].contains(&pair[1])), "{way:?}");
            match way.len() {
                1 => {}
                2 => assert!(direct.insert(way[0]), "{found:?}"),
                _ => {
                    way[1..way.len() - 1].iter().for_each(|node| assert!(between.insert(*node), "{found:?}"))
                }
            }
        }
        let order: Vec<usize> = found.iter().filter_map(|way| group(way[0])).collect();
        assert!(order.is_sorted(), "{found:?} from {roots:?}");
        // The lowest group that leads there at all comes first.
        let lead = |of: u32| {
            let of: Vec<u32> =
                roots.iter().filter(|(_, group)| **group == of).map(|(node, _)| *node).collect();
            reachable(&rows, &of, |_, _| true).contains(&node)
        };
        let lowest = (0..3).find(|group| lead(*group));
        assert_eq!(
            order.first().copied(),
            lowest.map(|group| group as usize),
            "{node} of {rows:?} from {roots:?}"
        );
        if found.len() < 3 {
            let all: Vec<u32> =
                roots.keys().copied().filter(|root| *root != node && !between.contains(root)).collect();
            let enter = |from: u32, to: u32| !(between.contains(&to) || to == node && direct.contains(&from));
            assert!(!reachable(&rows, &all, enter).contains(&node), "{node} of {rows:?}: {found:?}");
        }
    }
    assert!(several > 100);
}

#[test]
fn what_roots_keep_alone_is_what_only_they_lead_to() {
    let mut random = Random(7);
    for _ in 0..5_000 {
        let (rows, roots) = graph(&mut random);
        let graph = Csr::from_rows(&rows).expect("few edges");
        let list: Vec<(u32, u32)> = roots.iter().map(|(node, group)| (*node, *group)).collect();
        let found = alone(&graph, &list);
        // By group: what its roots lead to without passing another root.
        let lead = |of: u32| {
            let of: Vec<u32> = list.iter().filter(|(_, group)| *group == of).map(|(node, _)| *node).collect();
            reachable(&rows, &of, |_, to| !roots.contains_key(&to))
        };
        let by_group: Vec<BTreeSet<u32>> = (0..3).map(lead).collect();
        for node in 0..rows.len() as u32 {
            let groups: Vec<u32> = (0..3).filter(|group| by_group[*group as usize].contains(&node)).collect();
            let expected = match groups[..] {
                [] => UNREACHED,
                [one] => one,
                _ => ROOT,
            };
            assert_eq!(found[node as usize], expected, "{node} of {rows:?} from {roots:?}");
        }
    }
}

#[test]
fn branches_add_up() {
    let mut random = Random(11);
    for _ in 0..3_000 {
        let (rows, roots) = graph(&mut random);
        let graph = Csr::from_rows(&rows).expect("few edges");
        let nodes: Vec<u32> = roots.keys().copied().collect();
        let dominators = Dominators::of(&graph, &nodes);
        let sizes: Vec<u64> = rows.iter().map(|_| 1 + random.below(100)).collect();
        let retained = dominators.retained(|node| sizes[node as usize]);
        let hanging = Hanging::of(&dominators);
        let mut walked = Vec::new();
        hanging.walk(&mut |node, before| {
            if before {
                walked.push(node);
            }
        });
        assert_eq!(walked.iter().collect::<BTreeSet<_>>(), dominators.order.iter().collect());
        let facts = Facts {
            hanging: &hanging,
            retained: &retained,
            size: &|node| sizes[node as usize],
            kind: &|node| node % 3,
        };
        let show = Show { depth: 40, width: 1 + random.below(4) as usize, least: random.below(30) };
        let branches = facts.branches(ROOT, show);
        let whole: u64 = dominators.order.iter().map(|node| sizes[*node as usize]).sum();
        let on = |parent: Option<usize>| branches.iter().filter(move |branch| branch.parent == parent);
        assert_eq!(on(None).map(|branch| branch.retained).sum::<u64>(), whole);
        for (at, branch) in branches.iter().enumerate() {
            assert!(
                branch.parent.is_none_or(|parent| parent < at && branches[parent].depth + 1 == branch.depth)
            );
            if branch.is_rest {
                assert_eq!(on(Some(at)).count(), 0);
                continue;
            }
            let below: u64 = on(Some(at)).map(|branch| branch.retained).sum();
            match on(Some(at)).next().filter(|child| child.skipped > 0) {
                // What is left out on the way down is less than was asked to be seen.
                Some(child) => assert!(child.retained < branch.retained && on(Some(at)).count() == 1),
                None => assert_eq!(branch.bytes + below, branch.retained, "{branches:?}"),
            }
        }
    }
}

#[test]
fn a_chain_is_folded_to_its_end() {
    const LINKS: u32 = 2_000_000;
    let graph = Csr::of(LINKS, |node, f| f(node + 1)).expect("few edges");
    let dominators = Dominators::of(&graph, &[0]);
    let retained = dominators.retained(|_| 1);
    let hanging = Hanging::of(&dominators);
    let facts = Facts { hanging: &hanging, retained: &retained, size: &|_| 1, kind: &|_| 0 };
    let branches = facts.branches(ROOT, Show { depth: 4, width: 10, least: 0 });
    let drop = branches.iter().find(|branch| branch.skipped > 0).expect("it is folded");
    assert!(branches.len() < 6 && drop.skipped > u64::from(LINKS) - 10, "{branches:?}");
    // 3 of 4 are 0.75, 2 of 3 less than 0.7.
    assert_eq!(drop.retained, 3);
    let back = graph.reversed();
    let way = ways(&back, |node| (node == 0).then_some(0), LINKS - 1, 3);
    assert_eq!((way.len(), way[0].len()), (1, LINKS as usize));
}
