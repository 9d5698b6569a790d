//! A path, step by step.

use super::{Path, is_internal};
use crate::command::holders::{self, Ref};
use wmr_heap::Held;
use wmr_heap::graph::{Reach, ways};
use wmr_heap::roots::Holder;
use wmr_heap::trails::Trail;
use wmr_memory::Reader;

/// Steps at each end of a long path that are given.
const ENDS: usize = 50;

/// Ways to one object that share nothing between root and it.
pub fn paths(held: &Held, node: u32, most: usize) -> Vec<Path> {
    let back = held.graph.csr.reversed();
    let group = |node: u32| held.root(node).map(|root| root.holder.group());
    let ways = ways(&back, group, node, most);
    drop(back);
    let mut reader = held.target.reader();
    let bytes = held.graph.size(node);
    ways.iter().map(|way| path(held, &mut reader, way, 1, bytes)).collect()
}

/// One way for each trail that ends at objects asked for, those that people ask for first, then what takes most.
pub fn of_trails(held: &Held, reach: &Reach, trails: &[Trail], most: usize) -> Vec<Path> {
    let group = |node: u32| held.root(node).map_or(usize::MAX, |root| root.holder.group());
    let mut ends: Vec<(usize, u64, u32, u64)> = trails
        .iter()
        .filter(|trail| !trail.is_rest)
        .filter_map(|trail| {
            let (node, count, bytes) = trail.here?;
            let mut first = trail;
            while let Some(before) = first.parent.and_then(|parent| trails.get(parent)) {
                first = before;
            }
            Some((group(first.node), bytes, node, count))
        })
        .collect();
    ends.sort_by_key(|&(group, bytes, node, _)| (group, std::cmp::Reverse(bytes), node));
    ends.truncate(most);
    let mut reader = held.target.reader();
    let one = |&(_, bytes, node, count): &(usize, u64, u32, u64)| {
        path(held, &mut reader, &reach.path(node), count, bytes)
    };
    ends.iter().map(one).collect()
}

fn path(held: &Held, reader: &mut Reader, nodes: &[u32], count: u64, bytes: u64) -> Path {
    let root = nodes[0];
    let name = held.root_name(root);
    let is_module = held.root(root).is_some_and(|root| matches!(root.holder, Holder::Module { .. }));
    // A module is what people mean by the root: the path goes on from it.
    let first = usize::from(is_module);
    let left_out = nodes.len().saturating_sub(first + 2 * ENDS);
    let middle = nodes.len() - ENDS.min(nodes.len())..;
    let head = first..nodes.len().min(first + ENDS);
    let shown: Vec<usize> = match left_out {
        0 => (first..nodes.len()).collect(),
        _ => head.chain(middle.start..nodes.len()).collect(),
    };
    let mut text = vec![name.clone()];
    let mut steps = Vec::with_capacity(shown.len());
    for (place, &at) in shown.iter().enumerate() {
        if left_out > 0 && place == ENDS {
            text.push(format!("… {left_out} more"));
        }
        let label = match at.checked_sub(1) {
            Some(before) => held.label(reader, nodes[before], nodes[at]),
            None => None,
        };
        text.extend(label.as_ref().map(ToString::to_string));
        let mut step = Ref::of(held, reader, nodes[at], label.as_ref());
        if at == 0 {
            step.via = Some(holders::held_by_root(held, root));
        }
        steps.push(step);
    }
    Path {
        root: holders::root_name(held, reader, root),
        steps,
        truncated: Some(left_out as u64).filter(|left| *left > 0),
        text: text.join(" → "),
        count,
        bytes,
        internal: is_internal(held, root),
    }
}
