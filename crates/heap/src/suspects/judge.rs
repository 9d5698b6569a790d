//! How sure it is that what was found is a leak, and in what words it is told.

use super::evidence::{self, Uses};
use super::inspect::{self, Note, Verdict};
use super::origin::Origin;
use super::place::Place;
use super::{Candidate, LARGE_PERCENT, MANY, SAMPLE, Search, Suspect};
use crate::roots::Holder;
use crate::routes::{RouteId, Step};
use rustc_hash::{FxHashMap, FxHashSet};
use wmr_cpython::family::Family;

/// A library's own container is told from so many entries on, and from so many bytes.
const LIBRARY: (u64, u64) = (1000, 256 << 10);
/// What leaks for certain is worth a finding from so many bytes on.
const LEAKING: u64 = 64 << 10;
/// Entries of these types are no objects of anybody's: tables of constants are full of them.
const VALUES: [&str; 12] = [
    "str", "int", "float", "bytes", "bool", "NoneType", "complex", "unicode", "long", "code", "type", "tuple",
];

pub fn judge(
    search: &Search,
    candidates: &[Candidate],
    nodes: &FxHashMap<RouteId, Vec<u32>>,
    bytes: &FxHashMap<RouteId, u64>,
) -> Vec<Suspect> {
    let places: Vec<Place> =
        candidates.iter().map(|c| Place::of(search.view, search.routes, c.route)).collect();
    let names: FxHashSet<String> =
        places.iter().flat_map(|place| place.names.iter().map(|(_, name)| name.clone())).collect();
    let uses = if names.is_empty() { FxHashMap::default() } else { evidence::uses(search.view, &names) };
    let each = candidates.iter().zip(places);
    let case = |(candidate, place): (&Candidate, Place)| {
        let bytes = bytes.get(&candidate.route).copied().unwrap_or(0);
        let deep = candidate.entries.and_then(|entries| search.deeper(entries));
        Case { search, candidate, nodes, uses: &uses, bytes, deep }.suspect(place)
    };
    each.filter_map(case).collect()
}

struct Case<'a> {
    search: &'a Search<'a>,
    candidate: &'a Candidate,
    nodes: &'a FxHashMap<RouteId, Vec<u32>>,
    uses: &'a FxHashMap<String, Uses>,
    bytes: u64,
    /// Where the entries are containers that have more: theirs.
    deep: Option<RouteId>,
}

/// What inspectors say of the way, of the container and of its entries.
#[derive(Default)]
struct Said {
    needed: Option<String>,
    leaking: Option<Note>,
    suspect: Option<Note>,
    /// Of the entries: which share of the sample is leaking.
    entries: Option<(Note, bool)>,
}

impl Case<'_> {
    fn suspect(&self, place: Place) -> Option<Suspect> {
        let view = self.search.view;
        let route = self.search.route(self.candidate.route);
        let said = self.said(&place);
        let origin = self.origin(&place);
        let entries = self.candidate.entries.map(|id| self.search.route(id));
        let entry_type = entries.and_then(|entries| entries.ty);
        let types = &view.held.inspection.census.types;
        let entry_type = entry_type.and_then(|ty| types.get(ty as usize));
        let theirs = entry_type.and_then(|ty| view.origin_of_type(ty)) == Some(Origin::Program);
        let known = said.leaking.is_some() || said.entries.is_some();
        if said.needed.is_some() && !self.candidate.alone {
            return None;
        }
        let count = self.deep.map_or(self.candidate.count, |deep| self.search.route(deep).count);
        if origin == Origin::Library
            && !theirs
            && !self.worth_telling(known, entry_type.map(|ty| ty.name.as_str()))
        {
            return None;
        }
        let uses = self.uses_of(&place, origin);
        let mut why = Vec::new();
        why.push(format!("{} of what is in use", self.search.share(self.bytes)));
        let mut notes: Vec<&Note> = Vec::new();
        notes.extend(said.leaking.as_ref());
        notes.extend(said.entries.as_ref().map(|(note, _)| note));
        notes.extend(said.suspect.as_ref());
        why.extend(notes.iter().map(|note| note.why.clone()));
        why.extend(told(&uses));
        let advice = match (notes.first(), self.search.family(route)) {
            (Some(note), _) => note.advice,
            (None, Some(Family::Dict | Family::OrderedDict)) => {
                "bound it (functools.lru_cache, an OrderedDict that forgets), or remove entries when they are done with"
            }
            (None, Some(Family::Deque)) => "give the deque a maxlen",
            _ => "remove entries when they are done with, or bound their number",
        };
        Some(Suspect {
            what: self.what(&said),
            likely: self.is_likely(origin, theirs, &said, &uses),
            place,
            count,
            bytes: self.bytes,
            why,
            advice: advice.to_owned(),
            origin,
            addr: view.addr(route.first).unwrap_or(0),
        })
    }

    fn is_share(&self, percent: u64) -> bool {
        self.search.is_share(self.bytes, percent)
    }

    /// Libraries have tables and caches of their own: what does not stand out is left out.
    fn worth_telling(&self, known: bool, entry: Option<&str>) -> bool {
        let (count, bytes) = LIBRARY;
        if known {
            return self.candidate.count >= MANY || self.is_share(LARGE_PERCENT);
        }
        let values = entry.is_none_or(|name| VALUES.contains(&name));
        self.bytes >= bytes && self.candidate.count >= count && (!values || self.is_share(20))
    }

    fn is_likely(&self, origin: Origin, theirs: bool, said: &Said, uses: &Uses) -> bool {
        let count = self.candidate.count;
        let leaking = said.leaking.is_some() || said.entries.as_ref().is_some_and(|(_, leaking)| *leaking);
        let forgotten = leaking || said.entries.is_some() || said.suspect.is_some();
        if origin == Origin::Library && !theirs {
            // Its own bookkeeping of objects that somebody else holds tells of them, it is not the culprit.
            let weak = said.entries.as_ref().is_some_and(|(note, _)| note.many.contains("weak references"));
            return forgotten && !weak && count >= MANY && self.is_share(2);
        }
        if self.candidate.alone {
            return self.is_share(2) || self.bytes >= 1 << 20;
        }
        if leaking {
            return (count >= MANY && self.bytes >= LEAKING) || self.is_share(2);
        }
        let route = self.search.route(self.candidate.route);
        if self.candidate.entries.is_none() && route.chain {
            return count >= 1000 && self.is_share(10);
        }
        // Whoever takes from a queue is too slow, or gone.
        let queue = said.suspect.as_ref().is_some_and(|note| note.many == "queued items");
        if queue && count >= 1000 && self.is_share(LARGE_PERCENT) {
            return true;
        }
        let takes = !uses.takes.is_empty();
        let mapping = matches!(
            self.search.family(self.search.route(self.candidate.route)),
            Some(Family::Dict | Family::OrderedDict)
        );
        let grows = !uses.adds.is_empty() || mapping || forgotten;
        let many = count >= 1000 || (count >= MANY && self.is_share(2)) || self.is_share(10);
        !takes && grows && many
    }

    /// Whose the container is: that of the last on the way to it that is anybody's.
    fn origin(&self, place: &Place) -> Origin {
        let view = self.search.view;
        let root = place.nodes.first().and_then(|node| view.held.root(*node));
        let module = match root.map(|root| &root.holder) {
            Some(Holder::Module { name, .. }) => view.origins.of(name),
            Some(Holder::Frame { thread, index, .. }) => view.origin_of_frame(*thread, *index),
            _ => None,
        };
        // A program's object that a library holds is the program's, and so is what hangs on it.
        let any = place.nodes.iter().any(|node| {
            view.type_of(*node).is_some_and(|ty| view.origin_of_type(ty) == Some(Origin::Program))
                || self.class_of_program(*node)
        });
        match module {
            _ if any => Origin::Program,
            Some(origin) => origin,
            None => Origin::Library,
        }
    }

    /// A class or function that a module of the program defines.
    fn class_of_program(&self, node: u32) -> bool {
        let view = self.search.view;
        let Some(ty) = view.type_of(node) else { return false };
        match ty.shape.family {
            Family::Type => {
                let addr = view.addr(node);
                let known = view.held.inspection.census.types.iter().find(|ty| Some(ty.addr) == addr);
                known.is_some_and(|ty| view.origin_of_type(ty) == Some(Origin::Program))
            }
            _ if ty.name == "function" => {
                let module = view.text(node, "__module__");
                module.and_then(|module| view.origins.of(&module)) == Some(Origin::Program)
            }
            _ => false,
        }
    }

    fn said(&self, place: &Place) -> Said {
        let view = self.search.view;
        let mut said = Said::default();
        // The container last: what is nearest to it says most.
        for node in &place.nodes {
            // A function on the way is no callback, it is what the variable belongs to.
            if view.type_of(*node).is_some_and(|ty| ty.name == "function") {
                said.suspect = Some(Note::new(
                    "closure variables",
                    "a function keeps the variables of the function around it, as long as it lives itself",
                    "keep what has to be kept in an object that can be let go, or bound it",
                ));
                continue;
            }
            match inspect::verdict(view, *node) {
                Some(Verdict::Needed(why)) => said.needed = Some(why),
                Some(Verdict::Leaking(note)) => said.leaking = Some(note),
                Some(Verdict::Suspect(note)) => said.suspect = Some(note),
                None => {}
            }
        }
        // A bound is that of the container, not of what holds it.
        let last = place.nodes.last().copied();
        let near = place.nodes.len().checked_sub(2).and_then(|at| place.nodes.get(at).copied());
        let bounded = [last, near]
            .into_iter()
            .flatten()
            .any(|node| matches!(inspect::verdict(view, node), Some(Verdict::Needed(_))));
        if !bounded {
            said.needed = None;
        }
        said.entries = self.said_of_entries();
        said
    }

    fn said_of_entries(&self) -> Option<(Note, bool)> {
        let entries = self.nodes.get(&self.candidate.entries?)?;
        let step = (entries.len() / SAMPLE).max(1);
        let (mut leaking, mut suspect, mut asked) = (Vec::new(), Vec::new(), 0);
        for node in entries.iter().step_by(step) {
            asked += 1;
            match inspect::verdict(self.search.view, *node) {
                Some(Verdict::Leaking(note)) => leaking.push(note),
                Some(Verdict::Suspect(note)) => suspect.push(note),
                _ => {}
            }
        }
        if leaking.len() * 2 > asked {
            return Some((leaking.swap_remove(0), true));
        }
        (suspect.len() * 2 > asked).then(|| (suspect.swap_remove(0), false))
    }

    /// What the program's code does with the variable: the last on the way that the program itself has.
    fn uses_of(&self, place: &Place, origin: Origin) -> Uses {
        let view = self.search.view;
        let theirs = |node: u32| {
            let ty = view.type_of(node);
            let module = view.held.root(node).map(|root| &root.holder);
            match module {
                Some(Holder::Module { name, .. }) => view.origins.of(name) == Some(Origin::Program),
                Some(Holder::Frame { thread, index, .. }) => {
                    view.origin_of_frame(*thread, *index) == Some(Origin::Program)
                }
                _ => {
                    self.class_of_program(node)
                        || ty.is_some_and(|ty| view.origin_of_type(ty) == Some(Origin::Program))
                        || ty.is_some_and(|ty| matches!(ty.shape.family, Family::Frame | Family::Generator))
                }
            }
        };
        let name = place.names.iter().rev().find(|(node, _)| theirs(*node)).map(|(_, name)| name);
        let mut uses = name.and_then(|name| self.uses.get(name)).cloned().unwrap_or_default();
        let queue = place.nodes.iter().any(|node| {
            view.type_of(*node).is_some_and(|ty| view.derives(ty, |name| name.contains("Queue")))
        });
        if queue {
            uses.takes.append(&mut uses.gets);
        }
        if origin == Origin::Library {
            return Uses::default();
        }
        uses
    }

    /// `100,000 × leaky.Event in a list`.
    fn what(&self, said: &Said) -> String {
        let route = self.search.route(self.candidate.route);
        let container = self.search.type_name(route);
        let count = grouped(self.candidate.count);
        if self.candidate.alone {
            return format!("{count} × {container}, kept with what hangs on it");
        }
        let Some(entries) = self.candidate.entries.map(|id| self.search.route(id)) else {
            let chained = route.chain && route.count == self.candidate.count;
            return if chained {
                format!("{count} × {container} in a chain")
            } else {
                format!("{count} entries in a {container}")
            };
        };
        let entry = self.search.type_name(entries);
        if let Some(deep) = self.deep.map(|id| self.search.route(id)) {
            let (many, inner) = (grouped(deep.count), self.search.type_name(deep));
            return format!("{many} × {inner} in {} × {entry} of a {container}", grouped(entries.count));
        }
        let inside = match route.count {
            1 => format!("a {container}"),
            n => format!("{} × {container}", grouped(n)),
        };
        // Several types share the container.
        let of = if entries.count * 2 > self.candidate.count && entries.step == Step::Item {
            format!("{count} × {entry}")
        } else {
            format!("{count} entries")
        };
        match said.entries.as_ref().map(|(note, _)| note.many) {
            Some(many) => format!("{of} in {inside}: {many}"),
            None => format!("{of} in {inside}"),
        }
    }
}

fn told(uses: &Uses) -> Option<String> {
    let list = |names: &[String]| names.join(", ");
    match (uses.adds.is_empty(), uses.takes.is_empty()) {
        (false, true) => {
            Some(format!("{} adds to it, and nothing that names it takes away", list(&uses.adds)))
        }
        (_, false) => {
            Some(format!("{} may take from it: whether it grows, two pictures tell", list(&uses.takes)))
        }
        (true, true) => None,
    }
}

/// With commas, as people read it.
pub(super) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
