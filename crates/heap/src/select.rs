//! Listings of blocks: which match a filter, the first of them in an order, and what they add up to.
//!
//! A row is a used block, or a piece of free memory. Rows are made batch by batch and in parallel by span;
//! only the columns an expression names are filled in, and only rows that are wanted are kept.

use crate::filter::{Batch, Bound, Column, Filter, NO_TEXT, Texts, Type};
use crate::graph::Bits;
use crate::inspect::Inspection;
use crate::kinds::{Domain, Kinds, Sure};
use crate::ledger::state_name;
use rayon::prelude::*;
use rustc_hash::FxHashSet;
use wmr_alloc::State;
use wmr_cpython::model::RefCount;
use wmr_memory::{Reader, Target};

/// Rows that are evaluated together.
const BATCH: usize = 4096;
/// From a malloc chunk to what malloc returns for it.
pub(crate) const CHUNK_HEADER: u64 = 16;
/// What the interpreter itself answers for an immortal object.
pub const IMMORTAL: u32 = u32::MAX;

/// Which blocks are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum States {
    Used,
    Free,
    All,
}

/// In what order, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// By address where nothing else is said.
    pub by: Option<Column>,
    pub descending: bool,
    /// 0 for all.
    pub limit: usize,
}

/// A row, small: its facts are asked for with [`Listing::facts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub addr: u64,
    pub bytes: u64,
    /// Of a used block.
    id: Option<u32>,
    /// Code of its name: types, then kinds, then states of free memory.
    name: u32,
    span: u32,
    /// What it is sorted by.
    key: i64,
}

impl Row {
    /// The used block; none of free memory.
    pub fn block(&self) -> Option<u32> {
        self.id
    }

    /// Rows of one name have the same.
    pub(crate) fn name_code(&self) -> u32 {
        self.name
    }
}

/// What matched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    pub rows: Vec<Row>,
    /// All that matched, those beyond the limit too.
    pub count: u64,
    pub bytes: u64,
}

/// Everything a listing shows of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts<'a> {
    pub state: &'static str,
    pub sure: &'static str,
    pub domain: &'static str,
    pub kind: &'a str,
    pub detail: &'a str,
    /// Of an object: name and address of its type, and the module.
    pub type_of: Option<(&'a str, u64, &'a str)>,
    pub allocator: &'static str,
    pub arena: Option<u64>,
    pub refcount: Option<u32>,
    pub owner: Option<u64>,
    /// Name of the mapping, as the kernel has it.
    pub mapping: Option<&'a str>,
}

/// The table of all blocks of a target.
pub struct Listing<'a> {
    target: &'a Target,
    inspection: &'a Inspection,
    /// By index of the mapping.
    mappings: Vec<String>,
}

const STATES: [&str; 2] = ["used", "free"];
const ALLOCATORS: [&str; 2] = ["pymalloc", "malloc"];

/// Free memory somebody may get next; headers and what alignment loses is not.
fn is_free(state: State) -> bool {
    matches!(
        state,
        State::FreeBlock
            | State::FreePool
            | State::Uncarved
            | State::FreeChunk
            | State::Tcache
            | State::Fastbin
            | State::Top
    )
}

impl<'a> Listing<'a> {
    pub fn new(target: &'a Target, inspection: &'a Inspection) -> Listing<'a> {
        let name = |m: &wmr_memory::Mapping| String::from_utf8_lossy(&m.name).into_owned();
        Listing { target, inspection, mappings: target.mappings.iter().map(name).collect() }
    }

    /// Which rows match.
    pub fn select(&self, states: States, filter: Option<&Filter>, order: Order) -> Selection {
        let sort = order.by.map(|column| Sort::new(self, column, order.descending));
        self.sorted(states, filter, sort, order.limit)
    }

    /// Which used blocks match, by the name of their type and then by their reference counts, the largest first.
    pub fn by_type_and_refcount(&self, filter: Option<&Filter>, limit: usize) -> Selection {
        let sort = Sort { refcounts: true, ..Sort::new(self, Column::Type, false) };
        self.sorted(States::Used, filter, Some(sort), limit)
    }

    fn sorted(&self, states: States, filter: Option<&Filter>, sort: Option<Sort>, limit: usize) -> Selection {
        let bound = filter.map(|filter| filter.bind(self));
        let parts = self.by_span(states, bound.as_ref(), || Part::new(self, sort.as_ref(), limit));
        let mut whole = Selection::default();
        for part in parts.into_iter().map(Part::finish) {
            whole.count += part.count;
            whole.bytes = whole.bytes.saturating_add(part.bytes);
            whole.rows.extend(part.rows);
        }
        whole.rows.par_sort_unstable_by_key(|row| (row.key, row.addr));
        if limit > 0 {
            whole.rows.truncate(limit);
        }
        whole
    }

    /// Used blocks that match, by id, and the addresses of free memory that does.
    pub(crate) fn chosen(&self, filter: &Filter) -> (Bits, FxHashSet<u64>) {
        struct Chosen<'c>(&'c Bits, Vec<u64>);
        impl Sink for Chosen<'_> {
            fn add(&mut self, _: &mut Reader, row: Row) {
                match row.id {
                    Some(id) => drop(self.0.insert(id)),
                    None => self.1.push(row.addr),
                }
            }
        }
        let used = Bits::new(self.inspection.blocks.len());
        let parts = self.by_span(States::All, Some(&filter.bind(self)), || Chosen(&used, Vec::new()));
        let free = parts.into_iter().flat_map(|part| part.1).collect();
        (used, free)
    }

    /// Gives the rows that match to a sink a span.
    fn by_span<S: Sink + Send>(
        &self,
        states: States,
        bound: Option<&Bound>,
        sink: impl Fn() -> S + Sync,
    ) -> Vec<S> {
        (0..self.inspection.blocks.spans().len())
            .into_par_iter()
            .map_init(
                || self.target.reader(),
                |reader, span| {
                    let mut matching = Matching {
                        listing: self,
                        bound,
                        reader,
                        batch: Vec::with_capacity(BATCH),
                        sink: sink(),
                    };
                    self.for_each_row(span, states, &mut |row| matching.push(row));
                    matching.flush();
                    matching.sink
                },
            )
            .collect()
    }

    fn for_each_row(&self, span: usize, states: States, f: &mut dyn FnMut(Row)) {
        let blocks = &self.inspection.blocks;
        let header = if blocks.spans()[span].kind.is_malloc() { CHUNK_HEADER } else { 0 };
        let span_id = span as u32;
        let used = |id: u32, addr: u64, bytes: u64, f: &mut dyn FnMut(Row)| {
            f(Row { addr, bytes, id: Some(id), name: self.name(id), span: span_id, key: 0 });
        };
        if states == States::Used {
            for block in blocks.iter_span(span) {
                used(block.id, block.start, block.bytes, f);
            }
            return;
        }
        let mut block = blocks.iter_span(span).peekable();
        blocks.for_each_piece(span, |range, state| match state {
            State::Used(id) if states == States::All => {
                // A block around what nests in it comes in several pieces: its own span has the row.
                while let Some(block) = block.next_if(|block| block.id <= id) {
                    used(block.id, block.start, block.bytes, f);
                }
            }
            state if is_free(state) => {
                let index = State::UNUSED.iter().position(|s| *s == state).unwrap_or(0);
                let name = self.first_state() + index as u32;
                let bytes = range.end - range.start;
                f(Row { addr: range.start + header, bytes, id: None, name, span: span_id, key: 0 });
            }
            _ => {}
        });
    }

    fn name(&self, id: u32) -> u32 {
        let mark = self.inspection.census.mark(id);
        match mark.as_object() {
            Some(ty) => ty,
            None => self.first_kind() + mark.as_kind().unwrap_or(Kinds::UNKNOWN),
        }
    }

    fn first_kind(&self) -> u32 {
        self.inspection.census.types.len() as u32
    }

    fn first_state(&self) -> u32 {
        self.first_kind() + self.inspection.census.kinds.len() as u32
    }

    /// Domain, kind, detail and sureness of a name.
    fn named(&self, name: u32) -> (Domain, &str, &str, Sure) {
        let census = &self.inspection.census;
        if let Some(ty) = census.types.get(name as usize) {
            return (Domain::Python, &ty.name, "", Sure::Exact);
        }
        if name < self.first_state() {
            let kind = census.kinds.get(name - self.first_kind());
            return (kind.domain, &kind.kind, &kind.detail, kind.sure);
        }
        let state = State::UNUSED.get((name - self.first_state()) as usize);
        let (domain, name) = state.map_or((Domain::Unknown, "unknown"), |state| state_name(*state));
        (domain, name, "", Sure::Exact)
    }

    fn arena(&self, row: &Row) -> Option<u64> {
        self.inspection.arena(row.span as usize, row.addr)
    }

    /// Address of the object in a row's block.
    pub fn object_of(&self, reader: &mut Reader, row: &Row) -> Option<u64> {
        self.object(reader, row.id?)
    }

    fn object(&self, reader: &mut Reader, id: u32) -> Option<u64> {
        let inspection = self.inspection;
        let block = inspection.blocks.block(id);
        Some(inspection.object_in(inspection.model.as_ref()?, reader, block)?.0.addr)
    }

    /// 2³²−1 of an immortal object.
    pub fn refcount(&self, reader: &mut Reader, row: &Row) -> Option<u32> {
        let object = self.object(reader, row.id?)?;
        match self.inspection.model.as_ref()?.refcount(reader, object).ok()? {
            RefCount::Count(n) => Some(u32::try_from(n).unwrap_or(IMMORTAL)),
            RefCount::Immortal => Some(IMMORTAL),
            RefCount::Implausible => None,
        }
    }

    fn owner(&self, reader: &mut Reader, row: &Row) -> Option<u64> {
        self.object(reader, self.inspection.census.owner(row.id?)?)
    }

    fn mapping(&self, addr: u64) -> Option<u32> {
        let mappings = &self.target.mappings;
        let i = mappings.partition_point(|m| m.end <= addr);
        let there = mappings.get(i).is_some_and(|m| m.contains(addr)) && !self.mappings[i].is_empty();
        there.then_some(i as u32)
    }

    fn number(&self, reader: &mut Reader, column: Column, row: &Row) -> Option<i64> {
        let value = match column {
            Column::Addr => row.addr,
            Column::Bytes => row.bytes,
            Column::Arena => self.arena(row)?,
            Column::Refcount => u64::from(self.refcount(reader, row)?),
            Column::Owner => self.owner(reader, row)?,
            _ => return None,
        };
        Some(i64::try_from(value).unwrap_or(i64::MAX))
    }

    fn code(&self, column: Column, row: &Row) -> u32 {
        match column {
            Column::State => u32::from(row.id.is_none()),
            Column::Domain | Column::Kind | Column::Sure => row.name,
            Column::Detail if self.named(row.name).2.is_empty() => NO_TEXT,
            Column::Detail => row.name,
            Column::Type | Column::Module if row.name < self.first_kind() => row.name,
            Column::Allocator => {
                u32::from(!self.inspection.blocks.spans()[row.span as usize].kind.is_pymalloc())
            }
            Column::Mapping => self.mapping(row.addr).unwrap_or(NO_TEXT),
            _ => NO_TEXT,
        }
    }

    /// The name of a row, and nothing that takes the target to know.
    pub fn named_facts(&self, row: &Row) -> Facts<'_> {
        let (domain, kind, detail, sure) = self.named(row.name);
        let ty = self.inspection.census.types.get(row.name as usize);
        Facts {
            state: STATES[usize::from(row.id.is_none())],
            sure: sure.name(),
            domain: domain.name(),
            kind,
            detail,
            type_of: ty.map(|ty| (ty.name.as_str(), ty.addr, ty.module.as_str())),
            allocator: ALLOCATORS[self.code(Column::Allocator, row) as usize % ALLOCATORS.len()],
            arena: None,
            refcount: None,
            owner: None,
            mapping: None,
        }
    }

    /// Everything about a row.
    pub fn facts(&self, reader: &mut Reader, row: &Row) -> Facts<'_> {
        Facts {
            arena: self.arena(row),
            refcount: self.refcount(reader, row),
            owner: self.owner(reader, row),
            mapping: self.mapping(row.addr).map(|i| self.mappings[i as usize].as_str()),
            ..self.named_facts(row)
        }
    }
}

impl Texts for Listing<'_> {
    fn count(&self, column: Column) -> u32 {
        match column {
            Column::State => STATES.len() as u32,
            Column::Allocator => ALLOCATORS.len() as u32,
            Column::Domain | Column::Kind | Column::Detail | Column::Sure => {
                self.first_state() + State::UNUSED.len() as u32
            }
            Column::Type | Column::Module => self.first_kind(),
            Column::Mapping => self.mappings.len() as u32,
            _ => 0,
        }
    }

    fn text(&self, column: Column, code: u32) -> &str {
        let at = code as usize;
        match column {
            Column::State => STATES.get(at).copied().unwrap_or_default(),
            Column::Allocator => ALLOCATORS.get(at).copied().unwrap_or_default(),
            Column::Domain => self.named(code).0.name(),
            Column::Kind => self.named(code).1,
            Column::Detail => self.named(code).2,
            Column::Sure => self.named(code).3.name(),
            Column::Type => self.inspection.census.types.get(at).map_or("", |ty| &ty.name),
            Column::Module => self.inspection.census.types.get(at).map_or("", |ty| &ty.module),
            Column::Mapping => self.mappings.get(at).map_or("", String::as_str),
            _ => "",
        }
    }
}

/// What rows are sorted by, as a number: small ones first.
struct Sort {
    column: Column,
    descending: bool,
    /// Of a column of text: the place of each code among all.
    ranks: Vec<u32>,
    /// Rows of one text by their reference counts.
    refcounts: bool,
}

impl Sort {
    fn new(listing: &Listing, column: Column, descending: bool) -> Sort {
        let mut ranks = Vec::new();
        if column.type_of() == Type::Text {
            let count = listing.count(column);
            let mut texts: Vec<&str> = (0..count).map(|code| listing.text(column, code)).collect();
            texts.sort_unstable();
            let rank = |code| texts.partition_point(|text| *text < listing.text(column, code)) as u32;
            ranks = (0..count).map(rank).collect();
        }
        Sort { column, descending, ranks, refcounts: false }
    }

    /// What has no value comes last, in either direction.
    fn key(&self, listing: &Listing, reader: &mut Reader, row: &Row) -> i64 {
        let value = match self.column.type_of() {
            Type::Number => listing.number(reader, self.column, row),
            Type::Text => {
                self.ranks.get(listing.code(self.column, row) as usize).map(|rank| i64::from(*rank))
            }
        };
        match value {
            Some(rank) if self.refcounts => {
                rank << 32 | i64::from(u32::MAX - listing.refcount(reader, row).unwrap_or(0))
            }
            Some(value) if self.descending => -value,
            Some(value) => value,
            None => i64::MAX,
        }
    }
}

/// What is done with rows that match, in address order within a span.
trait Sink {
    fn add(&mut self, reader: &mut Reader, row: Row);
}

/// Rows of one span on their way to a sink, batch by batch.
struct Matching<'p, 'a, 'r, S> {
    listing: &'p Listing<'a>,
    bound: Option<&'p Bound>,
    reader: &'p mut Reader<'r>,
    batch: Vec<Row>,
    sink: S,
}

impl<S: Sink> Matching<'_, '_, '_, S> {
    fn push(&mut self, row: Row) {
        self.batch.push(row);
        if self.batch.len() == BATCH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let rows = std::mem::take(&mut self.batch);
        match self.bound {
            Some(bound) => {
                let mut batch = RowBatch { listing: self.listing, reader: self.reader, rows: &rows };
                for index in bound.select(&mut batch, rows.len() as u32) {
                    self.sink.add(self.reader, rows[index as usize]);
                }
            }
            None => rows.iter().for_each(|row| self.sink.add(self.reader, *row)),
        }
        self.batch = rows;
        self.batch.clear();
    }
}

/// What one span adds to a selection.
struct Part<'p, 'a> {
    listing: &'p Listing<'a>,
    sort: Option<&'p Sort>,
    limit: usize,
    found: Selection,
}

impl Sink for Part<'_, '_> {
    fn add(&mut self, reader: &mut Reader, mut row: Row) {
        self.found.count += 1;
        self.found.bytes = self.found.bytes.saturating_add(row.bytes);
        match self.sort {
            Some(sort) => row.key = sort.key(self.listing, reader, &row),
            // By address, which is the order they come in.
            None if self.limit > 0 && self.found.rows.len() >= self.limit => return,
            None => {}
        }
        self.found.rows.push(row);
        if self.limit > 0 && self.found.rows.len() > self.limit + BATCH {
            self.cut();
        }
    }
}

impl<'p, 'a> Part<'p, 'a> {
    fn new(listing: &'p Listing<'a>, sort: Option<&'p Sort>, limit: usize) -> Self {
        Part { listing, sort, limit, found: Selection::default() }
    }

    /// Keeps no more than the limit.
    fn cut(&mut self) {
        let rows = &mut self.found.rows;
        if self.limit > 0 && rows.len() > self.limit {
            rows.select_nth_unstable_by_key(self.limit, |row| (row.key, row.addr));
            rows.truncate(self.limit);
        }
    }

    fn finish(mut self) -> Selection {
        self.cut();
        self.found
    }
}

struct RowBatch<'b, 'a, 'r> {
    listing: &'b Listing<'a>,
    reader: &'b mut Reader<'r>,
    rows: &'b [Row],
}

impl Batch for RowBatch<'_, '_, '_> {
    fn numbers(&mut self, column: Column, rows: &[u32], out: &mut Vec<Option<i64>>) {
        let (listing, all) = (self.listing, self.rows);
        out.extend(rows.iter().map(|&row| listing.number(self.reader, column, &all[row as usize])));
    }

    fn texts(&mut self, column: Column, rows: &[u32], out: &mut Vec<u32>) {
        out.extend(rows.iter().map(|&row| self.listing.code(column, &self.rows[row as usize])));
    }
}
