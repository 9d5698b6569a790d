//! The tables people ask for, out of an [`Inspection`].

use crate::census::source;
use crate::inspect::Inspection;
use crate::kinds::{Domain, Kind, KindId, Sure};
use crate::ledger::Amount;
use crate::part::Part;
use rustc_hash::{FxHashMap, FxHashSet};
use wmr_alloc::{Block, SpanKind};
use wmr_cpython::model::{Allocation, Model};
use wmr_cpython::object::{Evidence, Object, Source};
use wmr_memory::{Reader, Target};

/// Blocks of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindRow {
    pub kind: Kind,
    pub amount: Amount,
}

/// Objects of one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeRow {
    /// Qualified name; built-ins without their module.
    pub name: String,
    pub module: String,
    pub addr: u64,
    pub count: u64,
    /// Bytes of the objects' blocks and of the blocks they own.
    pub bytes: u64,
    /// Sum of what `sys.getsizeof` says.
    pub sizeof: u64,
    /// How many `gc.get_objects()` returns.
    pub gc_tracked: u64,
    /// Of a class, where there are several interpreters and the version keeps them apart: whose it is.
    pub interpreter: Option<i64>,
}

/// Objects of all types of one module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleRow {
    pub module: String,
    pub types: u64,
    pub count: u64,
    pub bytes: u64,
}

/// Used blocks of one arena, or without one: chunks with mappings of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArenaRow {
    pub allocator: &'static str,
    pub addr: Option<u64>,
    /// Of malloc's arenas: its number, the main one's is 0.
    pub number: Option<u32>,
    pub count: u64,
    pub bytes: u64,
}

/// Used blocks of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SizeRow {
    pub size: u64,
    pub allocator: &'static str,
    pub count: u64,
    pub bytes: u64,
}

impl Inspection {
    /// Every name with what it takes, largest first. Objects by type, everything else by kind.
    pub fn by_kind(&self) -> Vec<KindRow> {
        let named = self.tally.kinds.iter().enumerate().map(|(id, amount)| KindRow {
            kind: self.census.kinds.get(id as KindId).clone(),
            amount: *amount,
        });
        let mut merged: FxHashMap<Kind, Amount> = FxHashMap::default();
        for (ty, amount) in self.census.types.iter().zip(&self.tally.types) {
            let kind = Kind {
                domain: Domain::Python,
                kind: ty.name.clone(),
                detail: String::new(),
                sure: Sure::Exact,
            };
            *merged.entry(kind).or_default() += *amount;
        }
        let objects = merged.into_iter().map(|(kind, amount)| KindRow { kind, amount });
        let mut rows: Vec<_> = named.chain(objects).filter(|r| r.amount != Amount::default()).collect();
        rows.sort_by(|a, b| b.amount.bytes.cmp(&a.amount.bytes).then_with(|| a.kind.cmp(&b.kind)));
        rows
    }

    /// Every type with its objects and what they own, largest first.
    pub fn by_type(&self, target: &Target) -> Vec<TypeRow> {
        Part::new(target, self, None).by_type()
    }

    /// By address of the type: in which interpreter's lists of the collector it is. Empty where there is one
    /// interpreter, and up to 3.8, which has one collector for all.
    pub(crate) fn interpreters_of_types(&self, target: &Target) -> FxHashMap<u64, i64> {
        let mut found = FxHashMap::default();
        let Some(python) = self.python.as_ref().ok().filter(|python| python.interpreters.len() > 1) else {
            return found;
        };
        let types: FxHashSet<u64> = self.census.types.iter().map(|ty| ty.addr).collect();
        let mut reader = target.reader();
        for list in &python.gc.lists {
            let Some(of) = python.interpreters.iter().find(|i| i.addr == list.interpreter) else { continue };
            // A list that is damaged gives what it has up to there.
            python.gc.for_each(&mut reader, list, self.blocks.len() as usize, |object| {
                if types.contains(&object) {
                    found.insert(object, of.id);
                }
            });
        }
        found
    }

    /// The arena that an address of a span lies in, as `wmr arenas` has it.
    pub fn arena(&self, span: usize, addr: u64) -> Option<u64> {
        match self.blocks.spans()[span].kind {
            SpanKind::Heap { arena } => {
                let glibc = self.glibc.as_ref().ok()?;
                glibc.arenas.get(arena as usize).map(|arena| arena.addr)
            }
            SpanKind::Pymalloc { .. } => {
                let arenas = &self.pymalloc.arenas;
                let after = arenas.partition_point(|arena| arena.addr <= addr);
                arenas.get(after.checked_sub(1)?).map(|arena| arena.addr)
            }
            SpanKind::Mmapped | SpanKind::Slots { .. } => None,
        }
    }

    /// The object in a block, as the census settled it.
    pub fn object(&self, target: &Target, block: u32) -> Option<Object> {
        let found = self.object_in(self.model.as_ref()?, &mut target.reader(), self.blocks.block(block));
        found.map(|(object, _)| object)
    }

    /// The object in a block, and what was allocated for it.
    pub fn object_in(
        &self,
        model: &Model,
        reader: &mut Reader,
        block: Block,
    ) -> Option<(Object, Allocation)> {
        let mark = self.census.mark(block.id);
        let shape = self.census.types.get(mark.as_object()? as usize)?.shape;
        let allocation = model.unpad(reader, block.start, block.usable);
        let object = Object {
            addr: allocation.data + u64::from(shape.presize),
            shape,
            evidence: if mark.is_linked() { Evidence::Linked } else { Evidence::Plausible },
            tracked: mark.is_tracked(),
        };
        Some((object, allocation))
    }

    /// How the allocator of a span rounds.
    pub(crate) fn source(&self, span: usize, block: Block) -> Source {
        source(self.blocks.spans()[span].kind, block.bytes)
    }
}
