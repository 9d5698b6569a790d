//! Modules that are made under ever new names: each load of a plugin, each notebook cell, each generated class.

use super::{MANY, Origin, Place, Search, Suspect};
use crate::roots::Holder;
use rustc_hash::FxHashSet;
use std::collections::BTreeMap;

/// Names whose parts with digits are alike, when there are many. What else was found in one of them is told by it.
pub(super) fn find(search: &Search, found: &mut Vec<Suspect>) {
    let view = search.view;
    let mut groups: BTreeMap<String, Vec<(&str, u32)>> = BTreeMap::new();
    for root in &view.held.roots {
        let Holder::Module { name, .. } = &root.holder else { continue };
        // In Python 2 a module without a file may be built in.
        let theirs = view.origins.of(name) != Some(Origin::Library) || view.model.is_two();
        if theirs && name.contains(|c: char| c.is_ascii_digit()) {
            groups.entry(alike(name)).or_default().push((name, root.node));
        }
    }
    groups.retain(|_, modules| modules.len() as u64 >= MANY);
    let inside: FxHashSet<u32> = groups.values().flatten().map(|(_, node)| *node).collect();
    found.retain(|suspect| suspect.place.nodes.first().is_none_or(|root| !inside.contains(root)));
    let told = groups.into_iter().filter_map(|(name, modules)| {
        let retained = modules.iter().filter_map(|(_, node)| search.retained.get(*node as usize));
        let bytes = retained.fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
        let count = modules.len() as u64;
        let (first, second) = (modules.first()?, modules.get(1)?);
        Some(Suspect {
            what: format!("{} modules named {name}", super::judge::grouped(count)),
            place: Place::of_root(&format!("sys.modules['{name}']")),
            count,
            bytes,
            why: vec![
                format!("{} of what is in use", search.share(bytes)),
                format!("they are loaded under ever new names ({}, {}), and sys.modules keeps each", first.0, second.0),
            ],
            advice: "take them out of sys.modules when they are done with, or give their code a namespace of its own"
                .to_owned(),
            likely: count >= 10 * MANY || search.is_share(bytes, 2),
            origin: Origin::Program,
            addr: view.addr(first.1)?,
        })
    });
    found.extend(told);
}

/// `jobs.run_17` is `jobs.run_*`.
fn alike(name: &str) -> String {
    let mut out = String::new();
    for (i, part) in name.split_inclusive(['.', '_', '-']).enumerate() {
        let text = part.trim_end_matches(['.', '_', '-']);
        let end = &part[text.len()..];
        let digits = text.find(|c: char| c.is_ascii_digit());
        match digits {
            // `plugin17`, but not what begins with it.
            Some(at) if i == 0 || at > 0 && text[at..].chars().all(|c| c.is_ascii_digit()) => {
                out.push_str(&text[..at]);
                out.push('*');
            }
            Some(_) => out.push('*'),
            None => out.push_str(text),
        }
        out.push_str(end);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::alike;

    #[test]
    fn parts_with_digits_are_alike() {
        assert_eq!(alike("plugin_17"), "plugin_*");
        assert_eq!(alike("plugin17"), "plugin*");
        assert_eq!(alike("jobs.run_3f2a9c.main"), "jobs.run_*.main");
        assert_eq!(alike("cells.c12"), "cells.c*");
        assert_eq!(alike("shop"), "shop");
    }
}
