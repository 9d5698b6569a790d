//! What is held and perhaps should not be, told from a single picture: where objects accumulate, and what has
//! had its time and is held still.
//!
//! Looked for along [`Routes`] from the roots on; what is found nearest to a root counts, and what lies beyond
//! belongs to it. A picture shows that there is much, not that it grows: nothing is certain here.

mod atexit;
mod evidence;
pub mod glance;
pub mod inspect;
mod judge;
mod modules;
pub mod origin;
mod place;
pub mod story;
mod view;

pub use origin::{Origin, Origins};
pub use place::Place;
pub use view::View;

use crate::graph::{Dominators, Reach, Subtrees};
use crate::held::Held;
use crate::routes::{Route, RouteId, Routes, Step};
use inspect::Verdict;
use rustc_hash::FxHashMap;
use wmr_cpython::family::Family;

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// What there is much of.
    pub what: String,
    pub place: Place,
    pub count: u64,
    /// What would go if it went.
    pub bytes: u64,
    /// The evidence, sentences without their ends.
    pub why: Vec<String>,
    pub advice: String,
    pub likely: bool,
    /// Whose it is that holds them.
    pub origin: Origin,
    /// Of the container.
    pub addr: u64,
}

/// Fewer entries are no accumulation, unless they are large.
const MANY: u64 = 100;
const FEW: u64 = 10;
/// So many more entries than containers.
const FAN: u64 = 10;
/// What is less is nobody's trouble.
const SMALLEST: u64 = 8 << 10;
/// Of all that is reached: a part that is large.
const LARGE_PERCENT: u64 = 5;
const LARGE: u64 = 1 << 20;
/// An entry that has so much of it all is looked at in its container's stead.
const MOST_OF_IT: (u64, u64) = (7, 10);
/// Findings: more are nothing that anybody looks through.
const MOST: usize = 100;
/// Nodes of one route that verdicts are asked of.
const SAMPLE: usize = 33;
/// Nodes of one route that are added up.
const SUMMED: usize = 1 << 24;

/// A route where objects accumulate, or whose objects had their time.
struct Candidate {
    route: RouteId,
    /// Entries, or objects of the route itself.
    count: u64,
    /// The entries' route that most of them are on.
    entries: Option<RouteId>,
    alone: bool,
}

struct Search<'a> {
    view: &'a View<'a>,
    routes: &'a Routes,
    subtrees: Subtrees,
    retained: &'a [u64],
    /// Bytes of all that is reached.
    total: u64,
}

/// Most suspicious first.
pub fn find(held: &Held, reach: &Reach, dominators: &Dominators, retained: &[u64]) -> Vec<Suspect> {
    let routes = Routes::find(held, reach);
    let Some(view) = View::new(held, reach) else { return Vec::new() };
    let total = routes.list.iter().map(|route| route.bytes).sum();
    let subtrees = Subtrees::of(dominators);
    let search = Search { view: &view, routes: &routes, subtrees, retained, total };
    let candidates = search.candidates();
    let mut found = search.judge(&candidates);
    let atexit = atexit::find(&search);
    found.retain(|suspect| atexit.as_ref().is_none_or(|atexit| atexit.addr != suspect.addr));
    found.extend(atexit);
    modules::find(&search, &mut found);
    found.sort_by(|a, b| {
        let key = |s: &Suspect| (!s.likely, s.origin == Origin::Library, std::cmp::Reverse(s.bytes));
        key(a).cmp(&key(b)).then_with(|| a.place.name.cmp(&b.place.name))
    });
    found.truncate(MOST);
    found
}

/// Containers' entries by how they hang on it.
#[derive(Default, Clone, Copy)]
struct Below {
    items: u64,
    keys: u64,
    /// Route of most of the items' bytes.
    largest: Option<(u64, RouteId)>,
    /// The route below, of whatever step, with the most bytes beyond it.
    heaviest: Option<(u64, RouteId)>,
}

impl Search<'_> {
    fn route(&self, id: RouteId) -> &Route {
        &self.routes.list[id as usize]
    }

    fn family(&self, route: &Route) -> Option<Family> {
        Some(self.view.held.inspection.census.types.get(route.ty? as usize)?.shape.family)
    }

    fn type_name(&self, route: &Route) -> &str {
        let types = &self.view.held.inspection.census.types;
        route.ty.and_then(|ty| types.get(ty as usize)).map_or("?", |ty| ty.name.as_str())
    }

    fn candidates(&self) -> Vec<Candidate> {
        let below = self.below();
        let mut taken = vec![false; self.routes.list.len()];
        let mut found = Vec::new();
        for (route, id) in self.routes.list.iter().zip(0..) {
            if route.parent.is_some_and(|parent| taken[parent as usize]) {
                taken[id as usize] = true;
                continue;
            }
            if route.all_bytes < SMALLEST {
                continue;
            }
            let candidate = self.chain(route, id).or_else(|| self.wide(route, id, &below));
            if let Some(candidate) = candidate.or_else(|| self.alone(route, id)) {
                taken[id as usize] = true;
                found.push(candidate);
            }
        }
        found
    }

    fn below(&self) -> Vec<Below> {
        let mut below = vec![Below::default(); self.routes.list.len()];
        for (route, id) in self.routes.list.iter().zip(0..) {
            let Some(above) = route.parent.map(|parent| &mut below[parent as usize]) else { continue };
            let more = |known: Option<(u64, RouteId)>| known.is_none_or(|(bytes, _)| bytes < route.all_bytes);
            if more(above.heaviest) {
                above.heaviest = Some((route.all_bytes, id));
            }
            match route.step {
                Step::Item => {
                    above.items += route.count;
                    if more(above.largest) {
                        above.largest = Some((route.all_bytes, id));
                    }
                }
                Step::Key => above.keys += route.count,
                _ => {}
            }
        }
        below
    }

    fn share(&self, bytes: u64) -> String {
        let percent = bytes as f64 * 100.0 / self.total.max(1) as f64;
        if percent < 1.0 { "less than 1 %".to_owned() } else { format!("{percent:.0} %") }
    }

    fn is_share(&self, bytes: u64, percent: u64) -> bool {
        bytes >= self.total / 100 * percent
    }

    fn is_large(&self, bytes: u64) -> bool {
        bytes >= LARGE && bytes >= self.total / 100 * LARGE_PERCENT
    }

    /// The entries of containers that are entries themselves: of those with most bytes.
    fn deeper(&self, entries: RouteId) -> Option<RouteId> {
        let containers = self.route(entries);
        let family = self.family(containers)?;
        if containers.count >= MANY
            || !matches!(
                family,
                Family::List | Family::Set | Family::Deque | Family::Dict | Family::OrderedDict
            )
        {
            return None;
        }
        let below = self.routes.list.iter().zip(0..).filter(|(route, _)| route.parent == Some(entries));
        let items = below.filter(|(route, _)| route.step == Step::Item);
        let (route, id) = items.max_by_key(|(route, _)| route.all_bytes)?;
        (route.count >= containers.count.saturating_mul(FAN)).then_some(id)
    }

    /// A linked list, a tree: objects that hold their like.
    fn chain(&self, route: &Route, id: RouteId) -> Option<Candidate> {
        let above = route.parent.map_or(1, |parent| self.route(parent).count);
        let name = self.type_name(route);
        let plain = !matches!(name, "traceback" | "frame");
        let many = plain && route.chain && route.count >= MANY && route.count >= above.saturating_mul(FAN);
        many.then_some(Candidate { route: id, count: route.count, entries: None, alone: false })
    }

    /// Many entries in few containers, none of which has most of it.
    fn wide(&self, route: &Route, id: RouteId, all: &[Below]) -> Option<Candidate> {
        let below = all[id as usize];
        let family = self.family(route)?;
        // Namespaces hold much of every kind; what is in them is looked at.
        if matches!(family, Family::Module | Family::Type | Family::Code | Family::Frame) {
            return None;
        }
        let mut count = below.items.max(below.keys);
        if route.count == 1 {
            // Entries may be shared or small numbers, which are not on this route.
            count = self.view.length(route.first).unwrap_or(0).max(count);
        }
        let enough = count >= MANY || (count >= FEW && self.is_large(route.all_bytes));
        if !enough || count < route.count.saturating_mul(FAN) {
            return None;
        }
        if count < MANY && self.larger_inside(id, count, all) {
            return None;
        }
        if let Some((bytes, heaviest)) = below.heaviest
            && bytes / MOST_OF_IT.1 * MOST_OF_IT.1 >= route.all_bytes / MOST_OF_IT.1 * MOST_OF_IT.0
            && self.route(heaviest).count < FEW.max(count / 20)
        {
            return None;
        }
        Some(Candidate { route: id, count, entries: below.largest.map(|(_, id)| id), alone: false })
    }

    /// A few sessions with a history each: are there containers of more entries than the few are, with most of it
    /// all?
    fn larger_inside(&self, id: RouteId, count: u64, all: &[Below]) -> bool {
        /// Sessions, the attribute, its entries.
        const STEPS: usize = 4;
        let whole = self.route(id).all_bytes;
        let mut at = id;
        for _ in 0..STEPS {
            let Some((bytes, heaviest)) = all[at as usize].heaviest else { return false };
            if bytes / MOST_OF_IT.0 * MOST_OF_IT.1 < whole {
                return false;
            }
            at = heaviest;
            let each = all[at as usize].items / self.route(at).count.max(1);
            if each >= MANY && each > count {
                return true;
            }
        }
        false
    }

    /// Few objects, or one, that had their time and hold much.
    fn alone(&self, route: &Route, id: RouteId) -> Option<Candidate> {
        if route.all_bytes < 64 << 10 {
            return None;
        }
        let verdict = inspect::verdict(self.view, route.first)?;
        let Verdict::Leaking(_) = verdict else { return None };
        // Caches tell by their entries, which are looked at next.
        let cache = self.view.is_a(route.first, "functools._lru_cache_wrapper");
        (!cache).then_some(Candidate { route: id, count: route.count, entries: None, alone: true })
    }

    fn judge(&self, candidates: &[Candidate]) -> Vec<Suspect> {
        let wanted: Vec<RouteId> =
            candidates.iter().flat_map(|c| [Some(c.route), c.entries]).flatten().collect();
        let nodes = self.routes.nodes_of(&wanted, SUMMED);
        let bytes: FxHashMap<RouteId, u64> =
            candidates.iter().map(|c| (c.route, self.retained_with(c, &nodes))).collect();
        judge::judge(self, candidates, &nodes, &bytes)
    }

    /// What would be freed if the containers went and with them their entries. What hangs on another of them goes
    /// with that: links of a chain, whatever lies between them, and entries that nobody else holds.
    fn retained_with(&self, candidate: &Candidate, nodes: &FxHashMap<RouteId, Vec<u32>>) -> u64 {
        let routes = [Some(candidate.route), candidate.entries].into_iter().flatten();
        let all = routes.flat_map(|route| nodes.get(&route).into_iter().flatten().copied()).collect();
        self.subtrees.sum(all, |node| self.retained.get(node as usize).copied().unwrap_or(0))
    }
}
