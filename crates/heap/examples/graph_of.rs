//! What the graph of a live process and its retained sizes take: `graph_of PID`.

use std::time::Instant;
use wmr_heap::graph::{Dominators, Fold, Graph};
use wmr_heap::{inspect, roots};
use wmr_memory::live::attach;

/// Peak RSS of this process so far, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn main() {
    let pid = std::env::args().nth(1).and_then(|pid| pid.parse().ok()).expect("a pid");
    let clock = Instant::now();
    let lap =
        |what: &str| println!("{what:>10} {:7.3} s, peak {} MiB", clock.elapsed().as_secs_f64(), peak());
    let target = attach(pid, &Default::default()).expect("attached");
    let inspection = inspect(&target).expect("blocks can be numbered");
    lap("census");
    let graph = Graph::build(&target, &inspection, Fold::Yes).expect("an interpreter");
    let graph = graph.expect("references can be numbered");
    lap("graph");
    let found = roots::find(&target, &inspection, &graph).list;
    lap("roots");
    let nodes: Vec<u32> = found.iter().map(|root| root.node).collect();
    let dominators = Dominators::of(&graph.csr, &nodes);
    let retained = dominators.retained(|node| graph.size(node));
    lap("retained");
    let (edges, reached) = (graph.csr.edges(), dominators.order.len());
    println!("{} nodes, {edges} edges, {} roots, {reached} reached", graph.csr.nodes(), found.len());
    let objects = (0..inspection.blocks.len()).filter(|id| inspection.census.mark(*id).as_object().is_some());
    println!("{} objects; {:?}; most {:?}", objects.count(), graph.left_out, retained.iter().max());
}
