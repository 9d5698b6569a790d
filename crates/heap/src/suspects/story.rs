//! The story of one object: the way from a root to it, and on each step what inspectors say.
//!
//! What is needed makes all before it needed; what is leaking makes all behind it so. Between the last that is
//! needed and the first that leaks are the references to look at.

use super::inspect::{self, Verdict};
use super::view::View;
use crate::roots::Holder;
use wmr_cpython::family::Family;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    NotLeaking,
    Unknown,
    Leaking,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub node: u32,
    pub addr: u64,
    pub type_name: String,
    /// The root's name, or how the step before refers to this one.
    pub by: String,
    /// Steps before this one that are left out: nobody reads a chain of a million.
    pub skipped: u64,
    pub status: Status,
    pub why: Option<String>,
    /// The reference that leads here is one of those that should perhaps have been cleared.
    pub suspect: bool,
}

/// Steps from the root on, and up to the object, that are told.
const TOLD: usize = 100;

/// `None` when no root leads there.
pub fn tell(view: &View, node: u32) -> Option<Vec<Step>> {
    let path = view.reach.path(node);
    let mut steps = Vec::new();
    let gap = TOLD..path.len().saturating_sub(TOLD).max(TOLD);
    for (at, &node) in path.iter().enumerate().filter(|(at, _)| !gap.contains(at)) {
        let held = view.held;
        let before = at.checked_sub(1).map(|before| path[before]);
        let by = match before {
            None => held.root_name(node),
            Some(from) => held
                .label(&mut held.target.reader(), from, node)
                .map_or_else(|| "?".to_owned(), |l| l.to_string()),
        };
        let (status, why) = status(view, node);
        steps.push(Step {
            node,
            addr: view.addr(node).unwrap_or(0),
            type_name: held.type_name(node).to_owned(),
            by,
            skipped: if at == gap.end { gap.len() as u64 } else { 0 },
            status,
            why,
            suspect: false,
        });
    }
    if steps.is_empty() {
        return None;
    }
    spread(&mut steps);
    Some(steps)
}

fn status(view: &View, node: u32) -> (Status, Option<String>) {
    match inspect::verdict(view, node) {
        Some(Verdict::Needed(why)) => return (Status::NotLeaking, Some(why)),
        Some(Verdict::Leaking(note)) => return (Status::Leaking, Some(note.why)),
        Some(Verdict::Suspect(note)) => return (Status::Unknown, Some(note.why)),
        None => {}
    }
    let module = matches!(view.held.root(node).map(|root| &root.holder), Some(Holder::Module { .. }));
    match view.type_of(node).map(|ty| ty.shape.family) {
        _ if module => (Status::NotLeaking, Some("a module that is imported is never unloaded".to_owned())),
        Some(Family::Type) => (Status::NotLeaking, Some("a class lives as long as its module".to_owned())),
        _ => (Status::Unknown, None),
    }
}

fn spread(steps: &mut [Step]) {
    let leaking = steps.iter().position(|step| step.status == Status::Leaking);
    // What cannot be both is needed up to where something leaks.
    let end = leaking.unwrap_or(steps.len());
    let needed = steps[..end].iter().rposition(|step| step.status == Status::NotLeaking);
    if let Some(last) = needed {
        steps[..=last].iter_mut().for_each(|step| step.status = Status::NotLeaking);
    }
    if let Some(first) = leaking {
        steps[first..].iter_mut().for_each(|step| step.status = Status::Leaking);
    }
    let from = needed.map_or(1, |last| last + 1);
    let to = leaking.map_or(steps.len(), |first| first + 1);
    if from < to {
        steps[from..to].iter_mut().for_each(|step| step.suspect = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(of: &str) -> Vec<Step> {
        let status = |c| match c {
            'n' => Status::NotLeaking,
            'l' => Status::Leaking,
            _ => Status::Unknown,
        };
        let step = |c| Step {
            node: 0,
            addr: 0,
            type_name: String::new(),
            by: String::new(),
            skipped: 0,
            status: status(c),
            why: None,
            suspect: false,
        };
        of.chars().map(step).collect()
    }

    fn spread_of(of: &str) -> String {
        let mut steps = steps(of);
        spread(&mut steps);
        let letter = |step: &Step| match (step.status, step.suspect) {
            (Status::NotLeaking, false) => 'n',
            (Status::Leaking, false) => 'l',
            (Status::Leaking, true) => 'L',
            (Status::Unknown, true) => '?',
            _ => '!',
        };
        steps.iter().map(letter).collect()
    }

    #[test]
    fn verdicts_spread_to_root_and_leaf() {
        assert_eq!(spread_of("nuulu"), "n??Ll");
        assert_eq!(spread_of("unuul"), "nn??L");
        assert_eq!(spread_of("nuu"), "n??");
        // Nothing behind what leaks is needed on this way.
        assert_eq!(spread_of("nulnu"), "n?Lll");
    }
}
