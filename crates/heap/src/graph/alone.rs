//! What the roots of one group keep and those of no other do.

use super::{Csr, ROOT, UNREACHED};

/// By node: the group whose roots alone lead to it, [`ROOT`] where those of several do, [`UNREACHED`].
/// What hangs on a root counts as that root's, whoever refers to the root: it is held whatever they do.
pub fn alone(graph: &Csr, roots: &[(u32, u32)]) -> Vec<u32> {
    let mut group = vec![UNREACHED; graph.nodes() as usize];
    let is_root = super::Bits::of(graph.nodes(), roots.iter().map(|(node, _)| *node));
    let mut todo: Vec<u32> = Vec::new();
    for &(node, of) in roots {
        if let Some(group) = group.get_mut(node as usize) {
            *group = of;
            todo.push(node);
        }
    }
    // A node's group changes twice at most: to the first that comes, and to several.
    while let Some(from) = todo.pop() {
        let of = group[from as usize];
        for &to in graph.row(from) {
            let known = &mut group[to as usize];
            if is_root.contains(to) || *known == of || *known == ROOT {
                continue;
            }
            *known = if *known == UNREACHED { of } else { ROOT };
            todo.push(to);
        }
    }
    group
}
