//! The report as machines read it: the same findings, and beside them each section's own table.

use super::collector::CollectorFacts;
use super::finding::{Finding, Sure};
use super::idle::NotALeak;
use super::native::hint;
use super::objects::type_name;
use crate::document::{hex, limited};
use crate::open::Subject;
use rustc_hash::FxHashMap;
use serde::Serialize;
use wmr_heap::leaks::{self, Counts, Leaks, Standing, State};

#[derive(Serialize)]
pub struct Body {
    /// Is the cyclic collector on?
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collector_enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collector: Option<CollectorFacts>,
    /// Bytes of all findings that are `certain` or `likely`.
    pub bytes: u64,
    /// Findings that were left out, being known.
    #[serde(skip_serializing_if = "is_zero")]
    pub accepted: usize,
    pub findings: Vec<Finding>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncated: Option<usize>,
    pub native: Native,
    pub garbage: Garbage,
    pub unheld: Rows<UnheldRow>,
    pub surplus: Rows<SurplusRow>,
    pub suspects: Vec<Suspect>,
    /// What all of it comes to, in a few words.
    pub verdict: &'static str,
    /// Memory that is held and is no leak.
    pub not_leaks: Vec<NotALeak>,
}

#[derive(Serialize, Default, Clone, Copy)]
pub struct Amount {
    pub count: u64,
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, count: u64, bytes: u64) {
        self.count += count;
        self.bytes += bytes;
    }
}

#[derive(Serialize)]
pub struct Rows<T> {
    pub rows: Vec<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncated: Option<usize>,
}

impl<T> Rows<T> {
    pub fn of(rows: Vec<T>, limit: usize) -> Rows<T> {
        let (rows, truncated) = limited(rows, limit);
        Rows { rows, truncated }
    }
}

/// Lost blocks that are no objects, one by one, in valgrind's words.
#[derive(Serialize)]
pub struct Native {
    definite: Amount,
    indirect: Amount,
    possible: Amount,
    #[serde(flatten)]
    rows: Rows<NativeRow>,
}

#[derive(Serialize)]
struct NativeRow {
    addr: String,
    bytes: u64,
    state: &'static str,
    kind: String,
    hint: String,
}

impl Native {
    pub fn of(leaks: &Leaks, limit: usize) -> Native {
        let mut sums = [Amount::default(); 3];
        let mut rows = Vec::with_capacity(leaks.blocks.len());
        for block in &leaks.blocks {
            let (at, state) = match block.state {
                State::Definite => (0, "definite"),
                State::Indirect => (1, "indirect"),
                State::Possible => (2, "possible"),
            };
            sums[at].add(1, block.bytes);
            let group = leaks.native.get(block.group as usize);
            rows.push(NativeRow {
                addr: hex(block.addr),
                bytes: block.bytes,
                state,
                kind: group
                    .map(|group| group.kind.clone())
                    .filter(|kind| !kind.is_empty())
                    .unwrap_or("block".to_owned()),
                hint: group.map(hint).unwrap_or_default(),
            });
        }
        let [definite, indirect, possible] = sums;
        Native { definite, indirect, possible, rows: Rows::of(rows, limit) }
    }
}

/// Objects in cycles that nothing reaches, by type; bytes with what hangs on them.
#[derive(Serialize)]
pub struct Garbage {
    count: u64,
    bytes: u64,
    #[serde(flatten)]
    rows: Rows<GarbageRow>,
}

#[derive(Serialize)]
struct GarbageRow {
    #[serde(rename = "type")]
    name: String,
    count: u64,
    bytes: u64,
    cycles: u64,
}

#[derive(Serialize)]
pub struct UnheldRow {
    #[serde(rename = "type")]
    name: String,
    count: u64,
    bytes: u64,
    examples: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    values: Vec<String>,
}

#[derive(Serialize)]
pub struct SurplusRow {
    #[serde(rename = "type")]
    pub name: String,
    pub count: u64,
    pub bytes: u64,
    pub excess_refs: u64,
    pub example: String,
}

/// What is held, and should perhaps not be.
#[derive(Serialize)]
pub struct Suspect {
    pub what: String,
    #[serde(rename = "where")]
    pub place: String,
    pub bytes: u64,
    pub count: u64,
    pub path: Vec<String>,
    pub why: String,
    pub sure: Sure,
    pub signature: String,
    /// Of the container, or of the first object.
    pub addr: String,
}

impl Garbage {
    pub fn of(subject: &Subject, leaks: &Leaks, limit: usize) -> Garbage {
        let mut rows: FxHashMap<u32, GarbageRow> = FxHashMap::default();
        let (mut count, mut bytes) = (0, 0);
        for group in leaks.garbage.iter().filter(|group| group.standing != Standing::Surplus) {
            count += group.objects;
            bytes += group.bytes;
            for &(ty, each) in &group.shape {
                let row = rows.entry(ty).or_insert_with(|| GarbageRow {
                    name: type_name(subject, ty).to_owned(),
                    count: 0,
                    bytes: 0,
                    cycles: 0,
                });
                row.count += each * group.count;
                row.cycles += group.count;
            }
            for &(ty, bytes) in &group.bytes_by_type {
                if let Some(row) = rows.get_mut(&ty) {
                    row.bytes += bytes;
                }
            }
        }
        let mut rows: Vec<GarbageRow> = rows.into_values().collect();
        rows.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
        Garbage { count, bytes, rows: Rows::of(rows, limit) }
    }
}

pub fn unheld(subject: &Subject, leaks: &Leaks, limit: usize) -> Rows<UnheldRow> {
    let row = |group: &leaks::Unheld| UnheldRow {
        name: type_name(subject, group.ty).to_owned(),
        count: group.count,
        bytes: group.bytes + group.indirect,
        examples: group.examples.iter().copied().map(hex).collect(),
        values: group.values.clone(),
    };
    Rows::of(leaks.unheld.iter().map(row).collect(), limit)
}

pub fn surplus(subject: &Subject, counts: &Counts, limit: usize) -> Rows<SurplusRow> {
    let row = |group: &leaks::Miscounted| SurplusRow {
        name: type_name(subject, group.ty).to_owned(),
        count: group.count,
        bytes: group.bytes,
        excess_refs: group.references,
        example: group.examples.first().map(|object| hex(object.addr)).unwrap_or_default(),
    };
    Rows::of(counts.surplus.iter().map(row).collect(), limit)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}
