//! The graph's algorithms against brute force on small random graphs, and on shapes that are deep.

use std::collections::BTreeSet;
use wmr_heap::graph::paths::Merged;
use wmr_heap::graph::{Bits, Csr, Dominators, ROOT, Reach, Subtrees, UNREACHED};

#[test]
fn what_hangs_on_another_counts_once() {
    let mut random = Random(0x1234_5678_9abc_def1);
    for _ in 0..5_000 {
        let (rows, roots) = graph(&mut random);
        let graph = Csr::from_rows(&rows).expect("few edges");
        let dominators = Dominators::of(&graph, &roots);
        let retained = dominators.retained(|node| u64::from(node) + 1);
        let nodes: Vec<u32> = (0..rows.len() as u32).filter(|_| random.below(3) == 0).collect();
        // All that goes with any of them, each once.
        let mut gone = BTreeSet::new();
        for node in reachable(&rows, &roots, None) {
            let mut at = node;
            while at != ROOT {
                if nodes.contains(&at) {
                    gone.insert(node);
                }
                at = dominators.idom[at as usize];
            }
        }
        let expected: u64 = gone.iter().map(|node| u64::from(*node) + 1).sum();
        let sum = Subtrees::of(&dominators).sum(nodes.clone(), |node| retained[node as usize]);
        assert_eq!(sum, expected, "{nodes:?} of {rows:?} from {roots:?}");
    }
}

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

/// Random graphs of many shapes: sparse and dense, trees with shortcuts, few roots and many.
fn graph(random: &mut Random) -> (Vec<Vec<u32>>, Vec<u32>) {
    let nodes = 1 + random.below(40);
    let mut rows = vec![Vec::new(); nodes as usize];
    if random.below(2) == 0 {
        for node in 1..nodes {
            // A long tree: the parent is near.
            let from = node - 1 - random.below(node.min(3));
            rows[from as usize].push(node as u32);
        }
    }
    for _ in 0..random.below(3 * nodes) {
        rows[random.below(nodes) as usize].push(random.below(nodes) as u32);
    }
    let roots = (0..random.below(4)).map(|_| random.below(nodes) as u32).collect();
    (rows, roots)
}

fn reachable(rows: &[Vec<u32>], roots: &[u32], gone: Option<u32>) -> BTreeSet<u32> {
    let mut seen = BTreeSet::new();
    let mut todo = roots.to_vec();
    while let Some(node) = todo.pop() {
        if Some(node) != gone && seen.insert(node) {
            todo.extend(&rows[node as usize]);
        }
    }
    seen
}

#[test]
fn dominators_and_retained_sizes_are_those_of_brute_force_on_10000_random_graphs() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..10_000 {
        let (rows, roots) = graph(&mut random);
        let graph = Csr::from_rows(&rows).expect("few edges");
        let dominators = Dominators::of(&graph, &roots);
        let sizes: Vec<u64> = rows.iter().map(|_| 1 + random.below(100)).collect();
        let retained = dominators.retained(|node| sizes[node as usize]);
        let alive = reachable(&rows, &roots, None);
        // By node: all that cannot be reached without it.
        let lost: Vec<BTreeSet<u32>> = (0..rows.len() as u32)
            .map(|node| alive.difference(&reachable(&rows, &roots, Some(node))).copied().collect())
            .collect();
        for node in 0..rows.len() as u32 {
            let freed: u64 = lost[node as usize].iter().map(|other| sizes[*other as usize]).sum();
            assert_eq!(retained[node as usize], freed, "{node} of {rows:?} from {roots:?}");
            let mine = dominators.idom[node as usize];
            if !alive.contains(&node) {
                assert_eq!(mine, UNREACHED);
                continue;
            }
            // The strict dominator that all other ones dominate: it loses the fewest.
            let strict = (0..rows.len() as u32).filter(|d| *d != node && lost[*d as usize].contains(&node));
            let nearest = strict.min_by_key(|d| lost[*d as usize].len()).unwrap_or(ROOT);
            assert_eq!(mine, nearest, "{node} of {rows:?} from {roots:?}");
        }
    }
}

#[test]
fn rows_are_what_was_given_and_reversed_they_are_turned_round() {
    let mut random = Random(7);
    for _ in 0..500 {
        let (rows, _) = graph(&mut random);
        let graph = Csr::from_rows(&rows).expect("few edges");
        let back = graph.reversed();
        for node in 0..graph.nodes() {
            assert_eq!(graph.row(node), rows[node as usize]);
            let mut from: Vec<u32> = Vec::new();
            for (other, row) in (0u32..).zip(&rows) {
                from.extend(row.iter().filter(|to| **to == node).map(|_| other));
            }
            assert_eq!(back.row(node), from);
            let pairs: Vec<(u32, u32)> = from.into_iter().map(|from| (from, node)).collect();
            assert_eq!(graph.referrers(&Bits::of(graph.nodes(), [node])), pairs);
        }
    }
}

#[test]
fn rows_that_are_not_ended_or_too_many_make_a_graph_of_as_many_nodes_all_the_same() {
    for rows in [0, 1, 2, 5] {
        let fill = |(): &mut (), nodes: std::ops::Range<u32>, out: &mut wmr_heap::graph::Rows| {
            assert_eq!(nodes, 0..2);
            for _ in 0..rows {
                // The last is no node.
                [1, 0, 2].iter().for_each(|to| out.add(*to));
                out.end();
            }
            rows
        };
        let (graph, answers) = Csr::build(2, || (), fill).expect("few edges");
        assert_eq!((graph.nodes(), graph.edges(), answers), (2, 2 * rows.min(2), vec![rows]));
        for node in 0..2 {
            assert_eq!(graph.row(node), if node < rows { &[1, 0][..] } else { &[] });
        }
    }
}

#[test]
fn nodes_are_put_behind_those_of_a_graph_in_and_across_chunks() {
    let mut random = Random(5);
    for nodes in [0u32, 1, 8_191, 8_192, 8_193, 20_000] {
        let mut rows = |count: u32, to: u32| -> Vec<Vec<u32>> {
            let mut row = || (0..random.below(3)).map(|_| random.below(u64::from(to)) as u32).collect();
            (0..count).map(|_| row()).collect()
        };
        let (first, more) = (rows(nodes, nodes), rows(9_000, nodes + 9_000));
        let graph = Csr::from_rows(&first).expect("few edges");
        let all = Csr::from_rows(&[&first[..], &more[..]].concat()).expect("few edges");
        assert_eq!(graph.with(&more), Ok(all.clone()));
        assert_eq!(all.reversed().reversed().edges(), all.edges());
    }
}

#[test]
fn paths_are_shortest_and_what_if_is_reachability() {
    let mut random = Random(11);
    for _ in 0..1_000 {
        let (rows, roots) = graph(&mut random);
        let graph = Csr::from_rows(&rows).expect("few edges");
        let reach = Reach::from(&graph, &roots);
        // Rings around the roots.
        let mut distance = vec![None; rows.len()];
        let mut ring: BTreeSet<u32> = roots.iter().copied().collect();
        for far in 1.. {
            ring.retain(|node| distance[*node as usize].is_none());
            if ring.is_empty() {
                break;
            }
            ring.iter().for_each(|node| distance[*node as usize] = Some(far));
            ring = ring.iter().flat_map(|node| &rows[*node as usize]).copied().collect();
        }
        for node in 0..graph.nodes() {
            let path = reach.path(node);
            assert_eq!(path.len(), distance[node as usize].unwrap_or(0));
            assert!(path.windows(2).all(|pair| rows[pair[0] as usize].contains(&pair[1])));
            assert!(path.first().is_none_or(|root| roots.contains(root)));
        }
        let gone = random.below(rows.len() as u64) as u32;
        let without = Reach::without(&graph, &roots, &Bits::of(graph.nodes(), [gone]));
        let alive: BTreeSet<u32> = without.order.iter().copied().collect();
        assert_eq!(alive, reachable(&rows, &roots, Some(gone)));
    }
}

#[test]
fn merged_paths_count_each_wanted_node_once_on_every_step_of_its_path() {
    let mut random = Random(13);
    for _ in 0..1_000 {
        let (rows, roots) = graph(&mut random);
        let graph = Csr::from_rows(&rows).expect("few edges");
        let reach = Reach::from(&graph, &roots);
        let wanted: BTreeSet<u32> = (0..graph.nodes()).filter(|_| random.below(3) == 0).collect();
        let bits = Bits::of(graph.nodes(), wanted.iter().copied());
        let merged = Merged::of(&reach, &bits, |node| u64::from(node) + 1);
        let lost = wanted.iter().filter(|node| !reach.reaches(**node));
        assert_eq!(merged.unreached.0, lost.count() as u64);
        for step in &merged.steps {
            let beyond: Vec<u32> =
                wanted.iter().copied().filter(|node| reach.path(*node).contains(&step.node)).collect();
            assert_eq!(step.count, beyond.len() as u64);
            assert_eq!(step.bytes, beyond.iter().map(|node| u64::from(*node) + 1).sum::<u64>());
            assert_eq!(step.wanted, wanted.contains(&step.node));
            let above = step.parent.map(|at| merged.steps[at as usize].node);
            assert_eq!(above.unwrap_or(ROOT), reach.parent[step.node as usize]);
        }
    }
}

/// What is retained in a graph given as a function, with one byte a node.
fn retained(
    nodes: u32,
    roots: &[u32],
    edges: impl Fn(u32, &mut dyn FnMut(u32)) + Sync,
) -> (Dominators, Vec<u64>) {
    let graph = Csr::of(nodes, edges).expect("few edges");
    let dominators = Dominators::of(&graph, roots);
    let retained = dominators.retained(|_| 1);
    (dominators, retained)
}

const MILLION: u32 = 1_000_000;

#[test]
fn a_chain_of_two_million() {
    let last = 2 * MILLION - 1;
    let (_, sizes) = retained(2 * MILLION, &[0], |node, f| f(node + 1));
    assert_eq!((sizes[0], sizes[last as usize]), (u64::from(last) + 1, 1));
    // Both ways, as a doubly linked list.
    let (_, sizes) = retained(2 * MILLION, &[0], |node, f| {
        f(node + 1);
        f(node.wrapping_sub(1));
    });
    assert_eq!(sizes[MILLION as usize], u64::from(MILLION));
}

#[test]
fn a_cycle_of_a_million_entered_anywhere() {
    let (_, sizes) = retained(MILLION, &[0], |node, f| f((node + 1) % MILLION));
    assert_eq!(sizes[1], u64::from(MILLION) - 1);
    // Held at two places, each half hangs on its own.
    let (_, sizes) = retained(MILLION, &[0, MILLION / 2], |node, f| f((node + 1) % MILLION));
    assert_eq!((sizes[0], sizes[MILLION as usize / 2]), (500_000, 500_000));
}

#[test]
fn a_long_chain_whose_values_its_head_holds_too_does_not_take_quadratic_time() {
    // 0 holds the chain 1..=n and a container; each link holds a value, the container holds all values.
    let n = MILLION;
    let container = 2 * n + 1;
    let (dominators, sizes) = retained(2 * n + 2, &[0], |node, f| {
        if node == 0 {
            f(1);
            f(container);
        } else if node <= n {
            f(if node < n { node + 1 } else { 0 });
            f(node + n);
        } else if node == container {
            (n + 1..=2 * n).for_each(f);
        }
    });
    assert!((n + 1..=2 * n).all(|value| dominators.idom[value as usize] == 0));
    assert_eq!((sizes[0], sizes[1], sizes[container as usize]), (u64::from(2 * n + 2), u64::from(n), 1));
    // The same with the values held by the first link: found from there, climbed to from below.
    let (dominators, _) = retained(2 * n + 2, &[0], |node, f| {
        if node == 0 {
            f(1);
        } else if node <= n {
            if node < n {
                f(node + 1);
            }
            f(node + n);
            if node == 1 {
                (n + 1..=2 * n).for_each(f);
            }
        }
    });
    assert!((n + 1..=2 * n).all(|value| dominators.idom[value as usize] == 1));
}

#[test]
fn unsettled_regions_do_not_change_dominators() {
    let mut random = Random(17);
    for _ in 0..3_000 {
        let (rows, roots) = graph(&mut random);
        let graph = Csr::from_rows(&rows).expect("few edges");
        let whole = Dominators::of(&graph, &roots);
        for passes in [0, 1, 2] {
            assert_eq!(Dominators::after(&graph, &roots, passes).idom, whole.idom);
        }
    }
}

#[test]
fn where_nodes_are_does_not_change_dominators() {
    // The walk keeps to one neighbourhood of nodes at a time: here each has a few nodes of many.
    const SPACE: u64 = 60_000;
    let mut random = Random(23);
    for _ in 0..400 {
        let (rows, roots) = graph(&mut random);
        let near = Dominators::of(&Csr::from_rows(&rows).expect("few edges"), &roots);
        let mut places = BTreeSet::new();
        while places.len() < rows.len() {
            places.insert(random.below(SPACE) as u32);
        }
        let mut places: Vec<u32> = places.into_iter().collect();
        for at in 1..places.len() {
            places.swap(at, random.below(at as u64 + 1) as usize);
        }
        let mut spread = vec![Vec::new(); SPACE as usize];
        for (row, place) in rows.iter().zip(&places) {
            spread[*place as usize] = row.iter().map(|to| places[*to as usize]).collect();
        }
        let roots: Vec<u32> = roots.iter().map(|root| places[*root as usize]).collect();
        let far = Dominators::of(&Csr::from_rows(&spread).expect("few edges"), &roots);
        for (node, place) in places.iter().enumerate() {
            let expected = match near.idom[node] {
                none @ (ROOT | UNREACHED) => none,
                above => places[above as usize],
            };
            assert_eq!(far.idom[*place as usize], expected, "{node} of {rows:?} from {roots:?}");
        }
        assert_eq!(far.order.len(), near.order.len());
    }
}
