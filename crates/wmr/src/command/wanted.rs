//! Which objects are meant: by type name, or by an expression.

use crate::failure::{Failure, code};
use crate::open::Subject;
use crate::text::shown;
use wmr_cpython::types::Type;
use wmr_heap::Held;
use wmr_heap::filter::Filter;
use wmr_heap::graph::Bits;
use wmr_heap::select::{Listing, Order, States};

/// Names that are listed or suggested.
const SUGGESTED: usize = 5;
/// Longer names are not compared letter by letter.
const MAX_NAME: usize = 128;

/// All objects of a type, by its qualified name or the last part of it.
pub fn of_type(subject: &Subject, held: &Held, name: &str) -> Result<Bits, Failure> {
    let types = &subject.inspection.census.types;
    let full = types.iter().any(|ty| ty.name == name);
    // `Event`, or with what it is defined in: `Registry.Event`.
    let ends =
        |known: &str| known.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let is_meant = |ty: &Type| if full { ty.name == name } else { ends(&ty.name) };
    let mut names: Vec<&str> = types.iter().filter(|ty| is_meant(ty)).map(|ty| ty.name.as_str()).collect();
    // Classes that were made several times have one name.
    names.sort_unstable();
    names.dedup();
    match names[..] {
        [] => Err(unknown(subject, name)),
        [known] => {
            let found = held.graph.of_types(&subject.inspection, |at| is_meant(&types[at]));
            if found.count() > 0 {
                return Ok(found);
            }
            let message = format!("there are no objects of type {} by themselves", shown(known));
            let command = format!("wmr types {}", subject.typed);
            Err(Failure::new(code::FAILED, message).advise(format!("what there are objects of: {command}")))
        }
        _ => {
            let message = format!("{} types are called {}", names.len(), shown(name));
            let failure = Failure::new(code::FAILED, message);
            let listed = names.iter().take(SUGGESTED);
            let failure = listed.fold(failure, |f, name| f.advise(format!("--type {}", quoted(name))));
            let left = names.len().saturating_sub(SUGGESTED);
            Err(if left > 0 { failure.advise(format!("and {left} more")) } else { failure })
        }
    }
}

fn quoted(name: &str) -> String {
    crate::text::quoted(&shown(name))
}

fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// No type has the name: those that are written much like it.
fn unknown(subject: &Subject, name: &str) -> Failure {
    let wanted = name.to_lowercase();
    let distance = |known: &str| -> Option<(usize, usize)> {
        let known = known.to_lowercase();
        if wanted.is_empty() || wanted.len() > MAX_NAME || known.len() > MAX_NAME {
            return None;
        }
        if known.contains(&wanted) {
            return Some((0, known.len()));
        }
        let edits = strsim::osa_distance(last_part(&known), last_part(&wanted))
            .min(strsim::osa_distance(&known, &wanted));
        (edits <= 1 + wanted.chars().count() / 3).then_some((edits, known.len()))
    };
    let types = &subject.inspection.census.types;
    let mut near: Vec<((usize, usize), &str)> =
        types.iter().filter_map(|ty| Some((distance(&ty.name)?, ty.name.as_str()))).collect();
    near.sort_unstable();
    near.dedup();
    let mut failure = Failure::new(code::FAILED, format!("no type is called {}", shown(name)));
    for (_, name) in near.into_iter().take(SUGGESTED) {
        failure = failure.advise(format!("there is {}", shown(name)));
    }
    failure.advise(format!("all of them: wmr types {} --limit 0", subject.typed))
}

/// All objects that match, or own a block that does. A namespace that is part of another object is not meant
/// when dicts are.
pub fn of_filter(subject: &Subject, held: &Held, filter: &Filter) -> Bits {
    let listing = Listing::new(&subject.target, &subject.inspection);
    let order = Order { by: None, descending: false, limit: 0 };
    let selection = listing.select(States::Used, Some(filter), order);
    let is_part = |block: &u32| held.graph.part_of(*block).is_some();
    let blocks = selection.rows.iter().filter_map(|row| row.block()).filter(|block| !is_part(block));
    let nodes = blocks.map(|block| held.graph.owner(&subject.inspection, block));
    Bits::of(held.graph.nodes(), nodes.filter(|node| held.type_of(*node).is_some()))
}

/// Fails when an expression means no object.
pub fn some(subject: &Subject, wanted: &Bits, text: &str) -> Result<(), Failure> {
    if wanted.count() > 0 {
        return Ok(());
    }
    let message = format!("no Python object is {}", shown(text));
    let command = format!("wmr select {} {}", subject.typed, crate::text::quoted(text));
    Err(Failure::new(code::FAILED, message).advise(format!("all blocks that match: {command}")))
}
