//! Tables of a part of the blocks: those that match a filter, or all of them.

use crate::census::Census;
use crate::claims::NOBODY;
use crate::filter::Filter;
use crate::graph::Bits;
use crate::inspect::Inspection;
use crate::kinds::{Domain, Kind, KindId, Kinds, Sure};
use crate::ledger::{Amount, Charger, state_name};
use crate::rows::{ArenaRow, KindRow, ModuleRow, SizeRow, TypeRow};
use crate::select::{CHUNK_HEADER, Listing};
use rayon::prelude::*;
use rustc_hash::{FxHashMap, FxHashSet};
use wmr_alloc::{SpanKind, State};
use wmr_cpython::sizes::sizeof;
use wmr_memory::{Run, Target};

/// Blocks that tables are made of.
pub struct Part<'a> {
    target: &'a Target,
    inspection: &'a Inspection,
    /// Ids of used blocks, and addresses of free memory; all without a filter.
    chosen: Option<(Bits, FxHashSet<u64>)>,
}

/// Per type: what one pass over the objects counts.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    count: u64,
    bytes: u64,
    sizeof: u64,
    tracked: u64,
}

impl<'a> Part<'a> {
    pub fn new(target: &'a Target, inspection: &'a Inspection, filter: Option<&Filter>) -> Part<'a> {
        let chosen = filter.map(|filter| Listing::new(target, inspection).chosen(filter));
        Part { target, inspection, chosen }
    }

    /// Is there no filter?
    pub fn is_all(&self) -> bool {
        self.chosen.is_none()
    }

    /// Is a used block in it? Without a filter so is what is no block.
    pub fn contains(&self, block: u32) -> bool {
        self.chosen.as_ref().is_none_or(|(used, _)| used.contains(block))
    }

    /// Every name with what it takes, largest first. Without a filter also what is no allocator's.
    pub fn by_kind(&self) -> Vec<KindRow> {
        let Some((_, free)) = &self.chosen else { return self.inspection.by_kind() };
        let census = &self.inspection.census;
        let blocks = &self.inspection.blocks;
        let runs: Vec<Run> =
            self.target.mappings.iter().flat_map(|m| m.residency.runs.iter().copied()).collect();
        let states = State::UNUSED.len();
        let empty = || vec![Amount::default(); census.types.len() + census.kinds.len() + states];
        let sums = (0..blocks.spans().len())
            .into_par_iter()
            .fold(empty, |mut sums, span| {
                let ids = blocks.ids(span);
                let at = &blocks.spans()[span];
                let header = if at.kind.is_malloc() { CHUNK_HEADER } else { 0 };
                let mut charger = Charger::new(&runs, at.start..at.end);
                blocks.for_each_piece(span, |range, state| {
                    let (name, count) = match state {
                        State::Used(id) if self.contains(id) => {
                            (name(census, id), u64::from(ids.contains(&id)))
                        }
                        State::Used(_) => return,
                        _ if !free.contains(&(range.start + header)) => return,
                        _ => {
                            let index = State::UNUSED.iter().position(|s| *s == state).unwrap_or(0);
                            (census.types.len() + census.kinds.len() + index, 1)
                        }
                    };
                    let bytes = range.end - range.start;
                    sums[name] += Amount { count, bytes, charge: charger.charge(range) };
                });
                sums
            })
            .reduce(empty, |mut a, b| {
                a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
                a
            });
        let mut merged: FxHashMap<Kind, Amount> = FxHashMap::default();
        for (name, amount) in sums.into_iter().enumerate().filter(|(_, amount)| *amount != Amount::default())
        {
            *merged.entry(kind(census, name)).or_default() += amount;
        }
        let mut rows: Vec<_> = merged.into_iter().map(|(kind, amount)| KindRow { kind, amount }).collect();
        rows.sort_by(|a, b| b.amount.bytes.cmp(&a.amount.bytes).then_with(|| a.kind.cmp(&b.kind)));
        rows
    }

    /// Every type with its objects and what they own, largest first.
    pub fn by_type(&self) -> Vec<TypeRow> {
        let census = &self.inspection.census;
        let counts = self.count_objects();
        let interpreters = self.inspection.interpreters_of_types(self.target);
        let mut owned = vec![0u64; census.types.len()];
        for (block, owner) in census.owned() {
            if owner != NOBODY
                && self.contains(owner)
                && let Some(ty) = census.mark(owner).as_object()
            {
                owned[ty as usize] += self.inspection.blocks.bytes(block);
            }
        }
        let types = census.types.iter().zip(counts).zip(owned).filter(|((_, count), _)| count.count > 0);
        let mut rows: Vec<TypeRow> = types
            .map(|((ty, count), owned)| TypeRow {
                name: ty.name.clone(),
                module: ty.module.clone(),
                addr: ty.addr,
                count: count.count,
                bytes: count.bytes + owned,
                sizeof: count.sizeof,
                gc_tracked: count.tracked,
                interpreter: interpreters.get(&ty.addr).copied(),
            })
            .collect();
        rows.sort_by(|a, b| {
            b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)).then(a.addr.cmp(&b.addr))
        });
        rows
    }

    /// Modules by the bytes of their types' objects.
    pub fn by_module(&self) -> Vec<ModuleRow> {
        let mut modules: FxHashMap<String, ModuleRow> = FxHashMap::default();
        for row in self.by_type() {
            let module = modules.entry(row.module.clone()).or_insert_with(|| ModuleRow {
                module: row.module.clone(),
                types: 0,
                count: 0,
                bytes: 0,
            });
            module.types += 1;
            module.count += row.count;
            module.bytes += row.bytes;
        }
        let mut rows: Vec<_> = modules.into_values().collect();
        rows.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.module.cmp(&b.module)));
        rows
    }

    /// Used blocks by the size their allocator gave them, largest sum first.
    pub fn by_size(&self) -> Vec<SizeRow> {
        let blocks = &self.inspection.blocks;
        let mut sizes: FxHashMap<(u64, &'static str), u64> = FxHashMap::default();
        for (i, span) in blocks.spans().iter().enumerate() {
            for block in blocks.iter_span(i).filter(|block| self.contains(block.id)) {
                *sizes.entry((block.bytes, allocator(span.kind))).or_default() += 1;
            }
        }
        let mut rows: Vec<_> = sizes
            .into_iter()
            .map(|((size, allocator), count)| SizeRow { size, allocator, count, bytes: size * count })
            .collect();
        rows.sort_by(|a, b| {
            b.bytes.cmp(&a.bytes).then(a.size.cmp(&b.size)).then(a.allocator.cmp(b.allocator))
        });
        rows
    }

    /// Used blocks by the arena they lie in, largest sum first.
    pub fn by_arena(&self) -> Vec<ArenaRow> {
        let blocks = &self.inspection.blocks;
        let mut arenas: FxHashMap<(&'static str, Option<u64>), (u64, u64)> = FxHashMap::default();
        for (i, span) in blocks.spans().iter().enumerate() {
            // All of a span is of one arena.
            let arena = self.inspection.arena(i, span.start);
            let (count, bytes) = arenas.entry((allocator(span.kind), arena)).or_default();
            for block in blocks.iter_span(i).filter(|block| self.contains(block.id)) {
                *count += 1;
                *bytes += block.bytes;
            }
        }
        let list = self.inspection.glibc.as_ref().map(|g| g.arenas.as_slice()).unwrap_or_default();
        let number = |addr| list.iter().position(|arena| Some(arena.addr) == addr).map(|n| n as u32);
        let mut rows: Vec<_> = arenas
            .into_iter()
            .filter(|(_, (count, _))| *count > 0)
            .map(|((allocator, addr), (count, bytes))| {
                let number = number(addr).filter(|_| allocator == "malloc");
                ArenaRow { allocator, addr, number, count, bytes }
            })
            .collect();
        rows.sort_by(|a, b| b.bytes.cmp(&a.bytes).then(a.addr.cmp(&b.addr)));
        rows
    }

    fn count_objects(&self) -> Vec<Count> {
        let inspection = self.inspection;
        let types = &inspection.census.types;
        let none = || vec![Count::default(); types.len()];
        let Some(model) = &inspection.model else { return none() };
        (0..inspection.blocks.spans().len())
            .into_par_iter()
            .fold(none, |mut counts, span| {
                let mut reader = self.target.reader();
                for block in inspection.blocks.iter_span(span).filter(|block| self.contains(block.id)) {
                    let Some((object, _)) = inspection.object_in(model, &mut reader, block) else { continue };
                    let count = &mut counts[object.shape.id as usize];
                    // A C type without `ob_size` may claim any number.
                    let size = sizeof(model, &mut reader, &object).unwrap_or(0);
                    count.count += 1;
                    count.bytes += block.bytes;
                    count.sizeof = count.sizeof.saturating_add(size);
                    count.tracked += u64::from(object.tracked);
                }
                counts
            })
            .reduce(none, |mut a, b| {
                for (a, b) in a.iter_mut().zip(b) {
                    a.count += b.count;
                    a.bytes += b.bytes;
                    a.sizeof = a.sizeof.saturating_add(b.sizeof);
                    a.tracked += b.tracked;
                }
                a
            })
    }
}

fn allocator(kind: SpanKind) -> &'static str {
    if kind.is_pymalloc() { "pymalloc" } else { "malloc" }
}

/// Of a used block: types, then kinds.
fn name(census: &Census, id: u32) -> usize {
    let mark = census.mark(id);
    match mark.as_object() {
        Some(ty) => ty as usize,
        None => census.types.len() + mark.as_kind().unwrap_or(Kinds::UNKNOWN) as usize,
    }
}

/// The name in words: after types and kinds come the states of free memory.
fn kind(census: &Census, name: usize) -> Kind {
    let exact =
        |domain, kind: &str| Kind { domain, kind: kind.to_owned(), detail: String::new(), sure: Sure::Exact };
    if let Some(ty) = census.types.get(name) {
        return exact(Domain::Python, &ty.name);
    }
    let name = name - census.types.len();
    if name < census.kinds.len() {
        return census.kinds.get(name as KindId).clone();
    }
    let state = State::UNUSED.get(name - census.kinds.len());
    let (domain, name) = state.map_or((Domain::Unknown, "unknown"), |state| state_name(*state));
    exact(domain, name)
}
