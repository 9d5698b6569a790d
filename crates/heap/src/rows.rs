//! The tables people ask for, out of an [`Inspection`].

use crate::census::source;
use crate::claims::NOBODY;
use crate::inspect::Inspection;
use crate::kinds::{Domain, Kind, KindId, Sure};
use crate::ledger::Amount;
use rayon::prelude::*;
use rustc_hash::{FxHashMap, FxHashSet};
use wmr_alloc::Block;
use wmr_cpython::model::{Allocation, Model};
use wmr_cpython::object::{Evidence, Object, Source};
use wmr_cpython::sizes::sizeof;
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

/// Used blocks of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SizeRow {
    pub size: u64,
    pub allocator: &'static str,
    pub count: u64,
    pub bytes: u64,
}

/// Per type: what one pass over the objects counts.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    sizeof: u64,
    tracked: u64,
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
        let counts = self.count_objects(target);
        let interpreters = self.interpreters_of_types(target);
        let mut owned = vec![0u64; self.census.types.len()];
        for (block, owner) in self.census.owned() {
            if owner != NOBODY
                && let Some(ty) = self.census.mark(owner).as_object()
            {
                owned[ty as usize] += self.blocks.bytes(block);
            }
        }
        let mut rows: Vec<TypeRow> = self
            .census
            .types
            .iter()
            .enumerate()
            .filter(|(i, _)| self.tally.types[*i].count > 0)
            .map(|(i, ty)| TypeRow {
                name: ty.name.clone(),
                module: ty.module.clone(),
                addr: ty.addr,
                count: self.tally.types[i].count,
                bytes: self.tally.types[i].bytes + owned[i],
                sizeof: counts[i].sizeof,
                gc_tracked: counts[i].tracked,
                interpreter: interpreters.get(&ty.addr).copied(),
            })
            .collect();
        rows.sort_by(|a, b| {
            b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)).then(a.addr.cmp(&b.addr))
        });
        rows
    }

    /// By address of the type: in which interpreter's lists of the collector it is. Empty where there is one
    /// interpreter, and up to 3.8, which has one collector for all.
    fn interpreters_of_types(&self, target: &Target) -> FxHashMap<u64, i64> {
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

    /// Modules by the bytes of their types' objects.
    pub fn by_module(&self, target: &Target) -> Vec<ModuleRow> {
        let mut modules: FxHashMap<String, ModuleRow> = FxHashMap::default();
        for row in self.by_type(target) {
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
        let mut sizes: FxHashMap<(u64, &'static str), u64> = FxHashMap::default();
        for (i, span) in self.blocks.spans().iter().enumerate() {
            let allocator = if span.kind.is_pymalloc() { "pymalloc" } else { "malloc" };
            for block in self.blocks.iter_span(i) {
                *sizes.entry((block.bytes, allocator)).or_default() += 1;
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

    fn count_objects(&self, target: &Target) -> Vec<Count> {
        let types = &self.census.types;
        let none = || vec![Count::default(); types.len()];
        let Some(model) = &self.model else { return none() };
        (0..self.blocks.spans().len())
            .into_par_iter()
            .fold(none, |mut counts, span| {
                let mut reader = target.reader();
                for block in self.blocks.iter_span(span) {
                    let Some((object, _)) = self.object_in(model, &mut reader, block) else { continue };
                    let count = &mut counts[object.shape.id as usize];
                    // A C type without `ob_size` may claim any number.
                    let size = sizeof(model, &mut reader, &object).unwrap_or(0);
                    count.sizeof = count.sizeof.saturating_add(size);
                    count.tracked += u64::from(object.tracked);
                }
                counts
            })
            .reduce(none, |mut a, b| {
                for (a, b) in a.iter_mut().zip(b) {
                    a.sizeof = a.sizeof.saturating_add(b.sizeof);
                    a.tracked += b.tracked;
                }
                a
            })
    }
}
