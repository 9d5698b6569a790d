//! The graph of real interpreters: who holds what a script made, and what it retains.

use wmr_heap::graph::paths::Merged;
use wmr_heap::graph::{Bits, Dominators, Graph, Reach, references};
use wmr_heap::roots;
use wmr_heap::{Inspection, inspect};
use wmr_memory::Target;
use wmr_memory::live::attach;
use wmr_testing::{Interpreter, at_rest, interpreters};

const SCRIPT: &str = "
import os, sys
HELD = [[str(i) * 9 for i in range(j * 100, j * 100 + 100)] for j in range(100)]
SHARED = ['x' * (500 + len(sys.argv))]
OTHER = [SHARED]
head = None
for i in range(100000):
    head = [head]
print('at %d %d %d' % (id(HELD), id(SHARED), id(head)))
sys.stdout.flush()
print('ready %d' % os.getpid())
sys.stdout.flush()
sys.stdin.read()
";

struct Seen {
    target: Target,
    inspection: Inspection,
    graph: Graph,
    said: Vec<u64>,
}

impl Seen {
    fn node(&self, addr: u64) -> u32 {
        let model = self.inspection.model.as_ref().expect("an interpreter");
        self.graph.node(&self.inspection, model, addr).expect("an object")
    }
}

fn look(python: &Interpreter) -> Seen {
    let process = python.spawn(SCRIPT).expect("starts");
    let line = process.truth().iter().find_map(|line| line.strip_prefix("at ")).expect("addresses");
    let said = line.split(' ').map(|n| n.parse().expect("a number")).collect();
    at_rest(process.pid()).expect("rests");
    let target = attach(process.pid(), &Default::default()).expect("attached");
    let inspection = inspect(&target).expect("few blocks");
    let graph =
        Graph::build(&target, &inspection, &references).expect("an interpreter").expect("few references");
    Seen { target, inspection, graph, said }
}

#[test]
fn what_a_module_holds_is_found_from_it_and_retained_by_what_holds_it_alone() {
    for python in interpreters() {
        let seen = look(python);
        let roots = roots::find(&seen.target, &seen.inspection, &seen.graph);
        let nodes: Vec<u32> = roots.iter().map(|root| root.node).collect();
        let reach = roots::reach(&seen.graph, &roots);
        let [held, shared, nested] = [0, 1, 2].map(|at| seen.node(seen.said[at]));
        for node in [held, shared, nested] {
            let path = reach.path(node);
            let root = roots.iter().find(|root| root.node == path[0]).expect("a root");
            let name = root.holder.name(&seen.target, &seen.inspection);
            assert_eq!(name, "module __main__", "{}: {path:?}", python.version);
            // Module, its namespace, the object.
            assert_eq!(path.len(), 3, "{}: {path:?}", python.version);
        }
        let dominators = Dominators::beside(&seen.graph.csr, &nodes, reach.clone());
        let ones = dominators.retained(&vec![1; seen.graph.sizes.len()]);
        assert_eq!(ones[held as usize], 1 + 100 + 10_000, "{}", python.version);
        assert_eq!(ones[nested as usize], 100_000, "{}", python.version);
        assert_eq!(ones[shared as usize], 2, "{}", python.version);
        let bytes = dominators.retained(&seen.graph.sizes);
        assert!(bytes[shared as usize] > 500 + seen.graph.sizes[shared as usize], "{}", python.version);
        // The strings of all lists, merged: one path to the list of lists, a hundred from there.
        let strings = seen.graph.csr.row(held).iter().flat_map(|list| seen.graph.csr.row(*list));
        let wanted = Bits::of(seen.graph.csr.nodes(), strings.copied());
        let merged = Merged::of(&reach, &wanted, |node| seen.graph.sizes[node as usize]);
        let step = merged.steps.iter().find(|step| step.node == held).expect("on the way");
        assert_eq!((step.count, merged.unreached), (10_000, (0, 0)), "{}", python.version);
        let without = Reach::without(&seen.graph.csr, &nodes, &Bits::of(seen.graph.csr.nodes(), [held]));
        assert!(wanted.iter().all(|string| !without.reaches(string)), "{}", python.version);
        // Small integers are kept by the interpreter's own variables or state alone.
        let unsure = |root: &&roots::Root| !root.holder.is_sure();
        assert!(roots.iter().filter(unsure).count() > 1, "{}", python.version);
    }
}
