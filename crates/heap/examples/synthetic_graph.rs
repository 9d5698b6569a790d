//! A graph as heaps have them, and what its dominators cost, the median of three: `synthetic_graph MILLIONS`. One process for each size,
//! as the peak is the process's.

use std::time::Instant;
use wmr_heap::graph::{Csr, Dominators};

/// Twenty nodes and sixty references: 17 nodes have one referrer, in this group or the one before, as what
/// was made together lies together. The other three take the remaining 43 references of a group.
const GROUP: u32 = 20;
const SINGLE: u32 = 17;
const FREE: u32 = 43;
/// Modules, frames and the like.
const ROOTS: u32 = 2_000;

fn hash(of: u32) -> u32 {
    let mixed = u64::from(of).wrapping_add(0x9e37_79b9).wrapping_mul(0xff51_afd7_ed55_8ccd);
    ((mixed ^ (mixed >> 29)).wrapping_mul(0xc4ce_b9fe_1a85_ec53) >> 32) as u32
}

/// Which of the group before, or of this one and earlier in it, refers to a node with one referrer.
fn referrer(node: u32) -> u32 {
    let group = node / GROUP * GROUP;
    match hash(node) % 4 {
        0 if group > 0 => group - GROUP + hash(node ^ 0x5555) % GROUP,
        _ if node > group => group + hash(node ^ 0x5555) % (node - group),
        _ => group.saturating_sub(1),
    }
}

/// A node with several referrers: mostly near, else one of those that everybody refers to.
fn shared(from: u32, salt: u32, nodes: u32) -> u32 {
    let (groups, spin) = (nodes / GROUP, hash(from.wrapping_mul(64).wrapping_add(salt)));
    let group = match spin % 10 {
        0..=3 => (spin >> 4) % 200.min(groups),
        4..=8 => (from / GROUP + (spin >> 4) % 64).min(groups - 1),
        _ => (spin >> 4) % groups,
    };
    group * GROUP + SINGLE + (spin >> 2) % (GROUP - SINGLE)
}

fn edges(node: u32, nodes: u32, f: &mut dyn FnMut(u32)) {
    let group = node / GROUP * GROUP;
    for other in group..(group + 2 * GROUP).min(nodes) {
        if other % GROUP < SINGLE && other > node && referrer(other) == node {
            f(other);
        }
    }
    let share = FREE / GROUP + u32::from(node % GROUP < FREE % GROUP);
    for salt in 0..share {
        f(shared(node, salt, nodes));
    }
}

/// Peak RSS of this process, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// By what they took in all.
fn sorted<A, B>(mut rounds: [(f64, f64, A, B); 3]) -> [(f64, f64, A, B); 3] {
    rounds.sort_by(|a, b| (a.0 + a.1).total_cmp(&(b.0 + b.1)));
    rounds
}

fn main() {
    let millions: u32 = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1);
    let nodes = millions.saturating_mul(1_000_000).clamp(GROUP, 2_000_000_000);
    let clock = Instant::now();
    let graph = Csr::of(nodes, |node, f| edges(node, nodes, f)).expect("fewer than 2^32 edges");
    let built = clock.elapsed().as_secs_f64();
    let roots: Vec<u32> =
        (0..ROOTS).map(|i| (u64::from(i) * u64::from(nodes) / u64::from(ROOTS)) as u32).collect();
    let round = || {
        let clock = Instant::now();
        let dominators = Dominators::of(&graph, &roots);
        let dominated = clock.elapsed().as_secs_f64();
        let clock = Instant::now();
        let retained = dominators.retained(|_| 64);
        let added = clock.elapsed().as_secs_f64();
        (dominated, added, dominators.order.len(), retained.into_iter().max().unwrap_or(0))
    };
    // The first round pays for memory that a host has taken back from an idle guest, ten times what a page costs
    // otherwise and the more the larger the graph.
    let rounds = [round(), round(), round()];
    let [_, (dominated, added, reached, most), _] = sorted(rounds);
    println!(
        "{}",
        [
            format!("{nodes} {} {reached}", graph.edges()),
            format!("{built:.3} {dominated:.3} {added:.3} {} {most}", peak()),
        ]
        .join(" ")
    );
}
