//! One picture, reduced to what routes lead to.

use crate::graph::Reach;
use crate::held::Held;
use crate::kinds::Domain;
use crate::ledger::Amount;
use crate::routes::{RouteId, Routes, Step};
use crate::suspects::{Place, View};
use rustc_hash::{FxHashMap, FxHasher};
use std::hash::{Hash, Hasher};
use std::time::SystemTime;

/// One route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub id: u64,
    /// Place of the line it hangs on.
    pub parent: Option<u32>,
    pub type_name: String,
    pub step: Step,
    /// As a person would write it.
    pub place: Place,
    pub count: u64,
    pub bytes: u64,
    /// With what lies beyond.
    pub all_bytes: u64,
    /// Address of the first.
    pub addr: u64,
    /// The least hashes of its objects' addresses: how many of them are met again says how many stayed.
    pub sketch: Vec<u32>,
}

/// Where the memory is that a process is charged for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Explained {
    /// Python objects in use, with what they own.
    pub objects: u64,
    /// What libraries hold, and what nobody is known to.
    pub native: u64,
    /// Free between blocks in use, which keep it.
    pub fragmentation: u64,
    /// Free at the ends of malloc's arenas: what a peak left behind.
    pub high_water: u64,
    /// Code, files, stacks.
    pub other: u64,
}

impl Explained {
    pub fn total(&self) -> u64 {
        self.objects + self.native + self.fragmentation + self.high_water + self.other
    }

    pub fn of(inspection: &crate::Inspection) -> Explained {
        let mut parts = Explained::default();
        for row in &inspection.tally.ledger.rows {
            let part = match row.domain {
                Domain::Python | Domain::CPython => &mut parts.objects,
                Domain::Native | Domain::Unknown => &mut parts.native,
                Domain::Pymalloc | Domain::Malloc => &mut parts.fragmentation,
                _ => &mut parts.other,
            };
            *part += row.bytes;
        }
        let tops = inspection.by_kind().into_iter().filter(|row| {
            row.kind.domain == Domain::Malloc && matches!(row.kind.kind.as_str(), "top" | "heap reserve")
        });
        let top = tops.map(|row| charged(&row.amount)).sum::<u64>().min(parts.fragmentation);
        parts.fragmentation -= top;
        parts.high_water = top;
        parts
    }
}

fn charged(amount: &Amount) -> u64 {
    amount.charge.total()
}

#[derive(Debug, Clone)]
pub struct Summary {
    pub time: SystemTime,
    pub rss: Option<u64>,
    pub explained: Explained,
    /// Each after the one it hangs on; those of routes that hold next to nothing are left out.
    pub lines: Vec<Line>,
}

/// Routes that are kept, and what they hold at least.
const LINES: usize = 20_000;
const LEAST: u64 = 4 << 10;
const SKETCH: usize = 16;

impl Summary {
    pub fn of(held: &Held, reach: &Reach) -> Summary {
        let routes = Routes::find(held, reach);
        let target = held.target;
        let mut lines = Vec::new();
        if let Some(view) = View::new(held, reach) {
            lines = of_routes(&view, &routes);
        }
        Summary {
            time: target.capture.time,
            rss: target.process.rss,
            explained: Explained::of(held.inspection),
            lines,
        }
    }

    pub fn by_id(&self) -> FxHashMap<u64, &Line> {
        self.lines.iter().map(|line| (line.id, line)).collect()
    }
}

fn of_routes(view: &View, routes: &Routes) -> Vec<Line> {
    let types = &view.held.inspection.census.types;
    let mut kept: Vec<RouteId> =
        (0u32..).zip(&routes.list).filter(|(_, r)| r.all_bytes >= LEAST).map(|r| r.0).collect();
    if kept.len() > LINES {
        kept.sort_unstable_by_key(|id| std::cmp::Reverse(routes.list[*id as usize].all_bytes));
        kept.truncate(LINES);
        // Parents hold what their children do: they are among them.
        kept.sort_unstable();
    }
    let sketches = sketches(view, routes, &kept);
    let places: FxHashMap<RouteId, u32> = kept.iter().copied().zip(0..).collect();
    let mut lines: Vec<Line> = Vec::with_capacity(kept.len());
    for (id, sketch) in kept.into_iter().zip(sketches) {
        let route = &routes.list[id as usize];
        let parent = route.parent.and_then(|parent| places.get(&parent).copied());
        let above = parent.and_then(|at| lines.get(at as usize)).map(|line| &line.place);
        lines.push(Line {
            id: route.id,
            parent,
            type_name: route.ty.and_then(|ty| types.get(ty as usize)).map_or("?", |ty| &ty.name).to_owned(),
            step: route.step,
            place: Place::below(view, routes, above, id),
            count: route.count,
            bytes: route.bytes,
            all_bytes: route.all_bytes,
            addr: view.addr(route.first).unwrap_or(0),
            sketch,
        });
    }
    lines
}

fn sketches(view: &View, routes: &Routes, kept: &[RouteId]) -> Vec<Vec<u32>> {
    let blocks = &view.held.inspection.blocks;
    let places: FxHashMap<RouteId, usize> = kept.iter().copied().zip(0..).collect();
    let mut sketches: Vec<Vec<u32>> = vec![Vec::new(); kept.len()];
    for (node, route) in routes.placed() {
        let Some(sketch) = places.get(&route).and_then(|at| sketches.get_mut(*at)) else { continue };
        let mut hasher = FxHasher::default();
        // Static objects stay where they are.
        if node < blocks.len() { blocks.start(node) } else { u64::from(node) }.hash(&mut hasher);
        let hash = (hasher.finish() >> 32) as u32;
        // Ascending, the least ones.
        if sketch.len() < SKETCH || sketch.last().is_some_and(|last| hash < *last) {
            let at = sketch.partition_point(|known| *known < hash);
            sketch.insert(at, hash);
            sketch.truncate(SKETCH);
        }
    }
    sketches
}

impl Line {
    /// Which share of the objects of `self` is still there in `later`, about.
    pub fn stayed(&self, later: &Line) -> f64 {
        if self.sketch.is_empty() {
            return 1.0;
        }
        // More objects have lesser hashes: only what is below the later sketch's end can be told.
        let end =
            if later.sketch.len() < SKETCH { u32::MAX } else { later.sketch.last().copied().unwrap_or(0) };
        let asked: Vec<&u32> = self.sketch.iter().filter(|hash| **hash <= end).collect();
        if asked.is_empty() {
            return 1.0;
        }
        let met = asked.iter().filter(|hash| later.sketch.binary_search(hash).is_ok()).count();
        met as f64 / asked.len() as f64
    }
}
