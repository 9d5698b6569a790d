//! What objects retain, against what others find: removal, and Heapy inside of the process.

use wmr_cpython::sizes::sizeof;
use wmr_heap::graph::{Bits, Fold, Reach};
use wmr_heap::{Held, inspect};
use wmr_memory::live::attach;
use wmr_testing::{Target, at_rest, venv, workload};

fn web(script: &str) -> Target {
    let workloads = workload("w2_web.py").parent().expect("a folder").to_owned();
    let python = venv("3.11").expect("an environment");
    let process = python.spawn_with(script, |command| {
        command.arg(workloads);
    });
    let process = process.expect("starts");
    at_rest(process.pid()).expect("rests");
    process
}

const HEAPY: &str = include_str!("retained/domisize.py");

/// What would go with an object is what cannot be reached any more without it.
#[test]
fn what_objects_of_a_web_program_retain_is_what_their_removal_frees() {
    let process = web(HEAPY);
    let target = attach(process.pid(), &Default::default()).expect("attached");
    let inspection = inspect(&target).expect("few blocks");
    let held = Held::find(&target, &inspection, Fold::Yes).expect("Python").expect("few references");
    let dominators = held.dominators();
    let retained = held.retained(&dominators);
    let (csr, roots) = (&held.graph.csr, held.root_nodes());
    let size_of = |reach: &Reach| -> u64 {
        (0..csr.nodes()).filter(|node| reach.reaches(*node)).map(|node| held.graph.size(node)).sum()
    };
    let all = size_of(&Reach::from(csr, &roots));
    // From all over, and what retains most.
    let order = &dominators.order;
    let mut sample: Vec<u32> = order.iter().copied().step_by(order.len() / 150).collect();
    let mut largest = order.clone();
    largest.sort_unstable_by_key(|node| std::cmp::Reverse(retained[*node as usize]));
    sample.extend(&largest[..60]);
    assert!(sample.len() >= 200);
    for node in sample {
        let without = Reach::without(csr, &roots, &Bits::of(csr.nodes(), [node]));
        assert_eq!(retained[node as usize], all - size_of(&without), "{}", held.type_name(node));
    }
}

/// Counts are Heapy's, and bytes as it counts them: what `sys.getsizeof` says of each object.
#[test]
fn what_containers_of_a_web_program_dominate_is_what_heapy_says() {
    let process = web(HEAPY);
    let target = attach(process.pid(), &Default::default()).expect("attached");
    let inspection = inspect(&target).expect("few blocks");
    let model = inspection.model.as_ref().expect("Python");
    let held = Held::find(&target, &inspection, Fold::No).expect("Python").expect("few references");
    let dominators = held.dominators();
    let mut reader = target.reader();
    let sizes: Vec<u64> = (0..held.graph.csr.nodes())
        .map(|node| {
            held.object(&mut reader, node).and_then(|object| sizeof(model, &mut reader, &object)).unwrap_or(0)
        })
        .collect();
    let (counts, bytes) = (dominators.retained(|_| 1), dominators.retained(|node| sizes[node as usize]));
    let mut wrong = Vec::new();
    let said = process.truth().iter().filter_map(|line| line.strip_prefix("said "));
    let said: Vec<Vec<u64>> =
        said.map(|line| line.split(' ').map(|word| word.parse().unwrap()).collect()).collect();
    assert_eq!(said.len(), 10);
    for line in said {
        let node = held.node_at(line[0]).expect("an object");
        let ours = (counts[node as usize], bytes[node as usize]);
        if ours != (line[1], line[2]) {
            wrong.push(format!("{}: {ours:?} and not {:?}", held.type_name(node), (line[1], line[2])));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
