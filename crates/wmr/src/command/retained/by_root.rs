//! What modules, or roots of one name, keep alone; of a part of the objects, of those.

use super::{Body, Row};
use crate::cli::RetainedBy;
use rustc_hash::FxHashMap;
use wmr_heap::Held;
use wmr_heap::graph::{ROOT, UNREACHED, alone};
use wmr_heap::roots::Holder;

/// The group of all that is no module, when modules are asked for.
const OTHERS: u32 = 0;

pub fn body(held: &Held, by: RetainedBy, is_in: &dyn Fn(u32) -> bool, none: Body) -> Body {
    let modules = by == RetainedBy::Module;
    // Roots of one name are one row: the words of one stack.
    let mut names: Vec<String> = vec![String::new()];
    let mut places: FxHashMap<String, u32> = FxHashMap::default();
    let mut groups: Vec<(u32, u32)> = Vec::with_capacity(held.roots.len());
    let mut rows: Vec<Row> = vec![Row::default()];
    for root in &held.roots {
        let name = match &root.holder {
            Holder::Module { name, interpreter: 0 } if modules => Some(name.clone()),
            _ if modules && !matches!(root.holder, Holder::Module { .. }) => None,
            holder => Some(holder.name(held.target, held.inspection)),
        };
        let group = name.map_or(OTHERS, |name| {
            *places.entry(name).or_insert_with_key(|name| {
                names.push(name.clone());
                rows.push(Row::default());
                names.len() as u32 - 1
            })
        });
        if is_in(root.node) {
            rows[group as usize].bytes += held.graph.size(root.node);
        }
        groups.push((root.node, group));
    }
    let (mut total, mut shared, mut shared_count) = (0u64, 0u64, 0u64);
    let mut outside = (0u64, 0u64);
    for (node, group) in (0u32..).zip(alone(&held.graph.csr, &groups)).filter(|(node, _)| is_in(*node)) {
        let size = held.graph.size(node);
        // Static objects take none of the heap, yet they are kept.
        match group {
            UNREACHED => continue,
            ROOT => (shared, shared_count) = (shared + size, shared_count + 1),
            OTHERS => outside = (outside.0 + size, outside.1 + 1),
            group => {
                let row = &mut rows[group as usize];
                (row.retained, row.count) = (row.retained + size, row.count + 1);
            }
        }
        total += size;
    }
    let mut rows: Vec<Row> =
        names.into_iter().zip(rows).skip(1).map(|(name, row)| named(row, name, modules)).collect();
    let name = |row: &Row| row.module.clone().or_else(|| row.root.clone());
    rows.sort_by(|a, b| b.retained.cmp(&a.retained).then_with(|| name(a).cmp(&name(b))));
    Body {
        total,
        rows,
        shared: Some(shared + outside.0),
        shared_count: Some(shared_count + outside.1),
        outside_modules: modules.then_some(outside.0),
        ..none
    }
}

fn named(row: Row, name: String, is_module: bool) -> Row {
    match is_module {
        true => Row { module: Some(name), ..row },
        false => Row { root: Some(name), ..row },
    }
}
