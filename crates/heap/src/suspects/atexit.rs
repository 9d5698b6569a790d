//! Functions that are registered to be called when the program ends, again and again.

use super::{MANY, Origin, Place, Search, Suspect};
use crate::roots::{ATEXIT, Holder};

/// None where they are few. In Python 2 they are in a list of a module, and told as any other.
pub(super) fn find(search: &Search) -> Option<Suspect> {
    let view = search.view;
    let inspection = view.held.inspection;
    let is_theirs = |holder: &Holder| matches!(holder, Holder::Interpreter { what, .. } if what == ATEXIT);
    let roots = view.held.roots.iter().filter(|root| is_theirs(&root.holder));
    let nodes: Vec<u32> = roots.map(|root| root.node).collect();
    let first = *nodes.first()?;
    // A list from 3.14 on; before, blocks with a function and its arguments each, and an array of them.
    let rows = inspection.by_kind();
    let blocks = rows.iter().filter(|row| row.kind.kind == "atexit callbacks");
    let (blocks, own) = blocks.fold((0, 0), |sum, row| (sum.0 + row.amount.count, sum.1 + row.amount.bytes));
    let count = match blocks {
        0 => view.length(first)?,
        blocks => blocks - 1,
    };
    if count < MANY {
        return None;
    }
    let retained = nodes.iter().filter_map(|node| search.retained.get(*node as usize));
    let bytes = retained.fold(own, |sum, bytes| sum.saturating_add(*bytes));
    Some(Suspect {
        what: format!("{} callbacks of atexit", super::judge::grouped(count)),
        place: Place::of_root("atexit"),
        count,
        bytes,
        why: vec![
            format!("{} of what is in use", search.share(bytes)),
            "each is kept, with its arguments and what it is bound to, until the program ends".to_owned(),
        ],
        advice: "register one function once, or call atexit.unregister() when the object is done with"
            .to_owned(),
        likely: count >= 10 * MANY || search.is_share(bytes, 2),
        origin: Origin::Program,
        addr: view.addr(first)?,
    })
}
