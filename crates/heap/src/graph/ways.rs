//! Several ways to one node: each with a root of its own or over other nodes than those before it.

use super::{Bits, Csr, UNREACHED};
use rustc_hash::FxHashSet;

/// At most so many ways from roots to a node, the root first, no node between both in two of them. What a
/// root of a lower group leads to comes before what those of higher ones do; of one group, the shorter.
/// `back` is the graph with its edges turned round, `group` says which nodes are roots.
pub fn ways(back: &Csr, group: impl Fn(u32) -> Option<usize>, node: u32, most: usize) -> Vec<Vec<u32>> {
    let mut search = Search {
        back,
        group: &group,
        next: vec![UNREACHED; back.nodes() as usize],
        spent: Bits::new(back.nodes()),
        direct: FxHashSet::default(),
    };
    let mut found: Vec<(usize, Vec<u32>)> = Vec::new();
    if let Some(own) = group(node) {
        found.push((own, vec![node]));
    }
    // One more than asked for: that the node is a root may turn out to be the least of its ways.
    while found.len() <= most {
        let Some((group, way)) = search.once(node) else { break };
        match &way[1..way.len() - 1] {
            [] => {
                search.direct.insert(way[0]);
            }
            between => {
                for node in between {
                    search.spent.insert(*node);
                }
            }
        }
        found.push((group, way));
    }
    found.sort_by_key(|(group, way)| (*group, way.len()));
    found.into_iter().map(|(_, way)| way).take(most).collect()
}

struct Search<'g, G> {
    back: &'g Csr,
    group: &'g G,
    /// By node: the one after it on the way.
    next: Vec<u32>,
    /// Between root and node of a way that was found.
    spent: Bits,
    /// Roots that refer to the node itself, and have been found to.
    direct: FxHashSet<u32>,
}

impl<G: Fn(u32) -> Option<usize>> Search<'_, G> {
    /// The nearest root of the lowest group there is, and the way from it.
    fn once(&mut self, node: u32) -> Option<(usize, Vec<u32>)> {
        let mut best: Option<(usize, u32)> = None;
        let mut seen = vec![node];
        let mut at = 0;
        while let Some(&to) = seen.get(at) {
            at += 1;
            for &from in self.back.row(to) {
                let spent = self.spent.contains(from) || (to == node && self.direct.contains(&from));
                if from == node || spent || self.next[from as usize] != UNREACHED {
                    continue;
                }
                self.next[from as usize] = to;
                seen.push(from);
                if let Some(group) = (self.group)(from)
                    && best.is_none_or(|(lowest, _)| group < lowest)
                {
                    best = Some((group, from));
                }
            }
            if best.is_some_and(|(group, _)| group == 0) {
                break;
            }
        }
        let found = best.map(|(group, root)| {
            let mut way = vec![root];
            let mut at = root;
            while at != node {
                at = self.next[at as usize];
                way.push(at);
            }
            (group, way)
        });
        for node in seen {
            self.next[node as usize] = UNREACHED;
        }
        found
    }
}
